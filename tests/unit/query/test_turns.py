import threading
from collections.abc import Callable

from services.query.turns import Turns


def here() -> bool:
    return True


class Line:
    """Questions that wait, in threads; `served` says whose got a place, in this order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: list[str] = []
        self._threads: list[threading.Thread] = []

    def wait(self, caller: str, is_there: Callable[[], bool] = here) -> None:
        def ask() -> None:
            if self.turns.enter(caller, 60, is_there):
                self.served.append(caller)
                self.turns.leave(caller)

        before = self._length()
        thread = threading.Thread(target=ask)
        thread.start()
        self._threads.append(thread)
        while self._length() == before and thread.is_alive():
            pass

    def _length(self) -> int:
        return sum(map(len, self.turns._queue.values()))

    def end(self) -> list[str]:
        for thread in self._threads:
            thread.join(60)
        return self.served


def test_callers_take_turns() -> None:
    turns = Turns(1, 1)
    assert turns.enter("first", 1, here)
    line = Line(turns)
    for caller in "aaaabab":
        line.wait(caller)
    turns.leave("first")
    assert line.end() == list("ababaaa")


def test_nobody_has_all_places() -> None:
    turns = Turns(3, 2)
    assert turns.enter("greedy", 1, here)
    assert turns.enter("greedy", 1, here)
    assert not turns.enter("greedy", 0, here)
    assert turns.enter("other", 0.5, here)
    assert not turns.enter("third", 0, here)
    turns.leave("greedy")
    assert turns.enter("third", 0.5, here)


def test_who_has_gone_away_is_in_no_queue() -> None:
    turns = Turns(1, 1)
    assert turns.enter("first", 1, here)
    assert not turns.enter("gone", 60, lambda: False)
    assert not turns.enter("late", 0.01, here)
    turns.leave("first")
    assert turns.enter("next", 0.5, here)


def test_a_hundred_at_once_get_a_place_each() -> None:
    turns = Turns(8, 6)
    line = Line(turns)
    for number in range(100):
        line.wait(f"caller {number % 7}")
    assert len(line.end()) == 100
    assert turns._free == 8
    assert not turns._held
