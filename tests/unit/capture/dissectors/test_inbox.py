"""Messages that begin with their length: here `M`, one octet that says how long, and the rest."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.inbox import Inbox, finder

MOST = 20


def measure(octets, at=0):
    if len(octets) <= at:
        return 0
    if octets[at : at + 1] != b"M":
        raise ProtocolError("no M")
    if len(octets) < at + 2:
        return 0
    if octets[at + 1] < 2:
        raise ProtocolError("too short")
    return octets[at + 1]


def is_plausible(octets, at):
    try:
        return None if measure(octets, at) == 0 else octets[at + 1] <= 40
    except ProtocolError:
        return False


def new():
    return Inbox(measure, finder(b"M", is_plausible), MOST)


def message(text):
    return b"M" + bytes([2 + len(text)]) + text


def taken(inbox, *pieces):
    """Messages; a number among the pieces is a gap."""
    found = []
    for time, piece in enumerate(pieces):
        if isinstance(piece, int):
            inbox.gap(piece)
        else:
            inbox.feed(memoryview(piece), time)
            found += inbox.messages(time)
    return found


TEXTS = [b"one", b"", b"three" * 7, b"four"]
STREAM = b"".join(map(message, TEXTS))


@given(st.lists(st.integers(1, len(STREAM) - 1), max_size=8))
def test_any_cut_gives_the_same_messages(cuts):
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    inbox = new()
    found = taken(inbox, *pieces)
    assert [each.octets for each in found] == [message(text)[:MOST] for text in TEXTS]
    assert [each.size for each in found] == [len(message(text)) for text in TEXTS]
    assert [each.is_cut for each in found] == [False, False, True, False]
    assert inbox.is_between
    assert len(inbox) == 0


def test_times_are_those_of_the_first_and_the_last_octet():
    both = message(b"a") + message(b"bcd")
    first, second = taken(new(), both[:1], both[1:4], both[4:6], both[6:])
    assert (first.began_ns, first.end_ns) == (0, 1)
    assert (second.began_ns, second.end_ns) == (1, 3)


def test_a_long_message_takes_no_room():
    inbox = new()
    assert taken(inbox, b"M\xff", *[b"x"] * 252) == []
    assert len(inbox) == MOST
    (found,) = taken(inbox, b"x" + message(b"next")[:3])
    assert (found.size, found.is_cut) == (255, True)


@pytest.mark.parametrize("lost", [1, 3, 4])
def test_a_gap_within_a_message_loses_only_it(lost):
    broken = message(b"MM\x02MM\x02")
    found = taken(new(), broken[:3], lost, broken[3 + lost :] + message(b"next"))
    assert [each.octets for each in found] == [message(b"next")]


@pytest.mark.parametrize("lost", [0, 100])
def test_after_other_gaps_the_next_message_is_searched(lost):
    pieces = [message(b"one"), lost, b"garbage", b"M\x01M", message(b"next")[:1]]
    found = taken(new(), *pieces, message(b"next")[1:] + message(b"last"))
    assert [each.octets[2:] for each in found] == [b"one", b"next", b"last"]


def test_what_was_found_and_was_no_message_is_searched_on():
    found = taken(new(), 0, b"M\x04xx??" + message(b"next"))
    assert [each.octets for each in found] == [b"M\x04xx", message(b"next")]


def test_without_a_gap_other_octets_are_an_error():
    with pytest.raises(ProtocolError):
        taken(new(), message(b"one") + b"?")


def test_garbage_after_a_gap_takes_no_room():
    inbox = new()
    assert taken(inbox, 0, *[b"garbage" * 100] * 50) == []
    assert len(inbox) == 0
