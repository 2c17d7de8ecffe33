"""Names for another process."""

from multiprocessing import Pipe

from services.capture.identity.feed import MOST_AT_ONCE, Feed, follow
from services.capture.identity.owners import OPEN_NS, Change, Owner, place_of
from tests.unit.capture.identity.test_names import NOW, held, look
from tests.unit.capture.identity.test_watcher import Watched


def numbered(count, generation=0):
    return [
        Change(
            place_of(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"),
            1,
            OPEN_NS,
            Owner(f"p{generation}-{n}"),
        )
        for n in range(count)
    ]


def test_what_one_process_is_told_another_one_knows():
    there, here = Pipe(duplex=False)
    names, feed = Watched(), Feed(here)
    follow(there, names)
    feed(numbered(2 * MOST_AT_ONCE + 3), True, "")
    names.until(lambda: names.is_complete)
    assert len(names.known().cluster) == 2 * MOST_AT_ONCE + 3
    feed([held("10.0.0.1", Owner("late"), 1)], True, "pods: 403")
    names.until(lambda: names.note == "pods: 403")
    assert look(names, ("10.0.0.1", 0, NOW)) == ["late"]
    feed.end()


def test_who_does_not_take_is_told_the_latest_when_he_does():
    there, here = Pipe(duplex=False)
    feed = Feed(here)
    for generation in range(50):  # more than a pipe holds
        feed(numbered(1000, generation), True, "")
    names = Watched()
    follow(there, names)
    names.until(lambda: look(names, ("10.0.3.231", 0, NOW)) == ["p49-999"])
    assert feed._pending == {}
    feed.end()


def test_a_process_that_has_ended_holds_up_nobody():
    there, here = Pipe(duplex=False)
    feed = Feed(here)
    there.close()
    feed(numbered(10), True, "")
    feed(numbered(10), True, "")
    feed.end()
