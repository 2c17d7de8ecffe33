"""All conversations of a protocol together: what each may take, and what is left of them."""

import numpy as np
import pytest

from services.capture.dissectors import conversation
from services.capture.dissectors.conversation import (
    DEFAULT_BODY,
    LARGEST_BODY,
    Conversation,
    ConversationDissector,
)
from services.capture.dissectors.dissector import IS_SERVER, OTHER_MISSED
from services.capture.dissectors.objectcalls import Exchange
from services.capture.reassembly import DATA, ENDED, GAP, IN_HELD, OPENED, SEGMENT
from tests.unit.capture.dissectors.echo import ECHO, Echo

CLIENT, SERVER = 0, 1
NO_OCTETS = np.zeros(1, np.uint8)


@pytest.fixture
def dissector():
    return ConversationDissector(ECHO, Echo)


def rows(*given):
    """SEGMENT rows of (stream, side, kind or octets), their marks, and the place of the octets."""
    segments, marks, place = np.zeros(len(given), SEGMENT), [], b""
    for row, (stream, side, what) in enumerate(given):
        octets = what if isinstance(what, bytes) else b""
        kind = DATA if isinstance(what, bytes) else what
        segments[row]["stream"], segments[row]["kind"] = stream, kind
        segments[row]["direction"] = 2 * stream + (side & IS_SERVER)
        segments[row]["position"], segments[row]["length"] = len(place), len(octets)
        segments[row]["timestamp"] = 1000 * (row + 1)
        marks.append(side)
        place += octets
    return segments, np.array(marks, np.uint8), np.frombuffer(bytearray(place or b"x"), np.uint8)


def take(dissector, *given):
    segments, marks, place = rows(*given)
    dissector.take(segments, marks, place, NO_OCTETS)
    return dissector.calls()


def asked(calls):
    return [] if calls is None else [
        ((e.request or {}).get("query"), (e.response or {}).get("rows")) for e in calls.exchanges
    ]  # fmt: skip


def end(dissector, *streams):
    dissector.end_streams(np.array(streams, np.int64), 10**9)
    return dissector.calls()


def test_octets_lie_where_the_row_says(dissector):
    segments, marks, place = rows((1, CLIENT, b"ask a\n"), (1, SERVER, b"say b\n"))
    segments["place"] = IN_HELD
    dissector.take(segments, marks, NO_OCTETS, place)
    calls = dissector.calls()
    assert asked(calls) == [("a", "b")]
    assert (calls.start_ns.tolist(), calls.end_ns.tolist()) == ([1000], [2000])
    assert (calls.streams.tolist(), calls.request_direction.tolist()) == ([1], [0])


def test_the_client_may_be_either_direction_and_either_side_may_ask():
    class Reversed(Echo):
        def take(self, side, line, time_ns):
            super().take(side, line, time_ns)
            for each in self.exchanges:
                each.asked_by = SERVER

    dissector = ConversationDissector(ECHO, Reversed)
    segments, marks, place = rows((1, CLIENT, b"ask a\n"), (1, SERVER, b"say b\n"))
    segments["direction"] ^= 1
    dissector.take(segments, marks, place, NO_OCTETS)
    assert dissector.calls().request_direction.tolist() == [0]


def test_the_next_stream_of_a_flow_says_nothing(dissector):
    assert asked(take(dissector, (1, CLIENT, b"ask a\n"), (2, CLIENT, OPENED))) == []
    assert asked(end(dissector, 1)) == [("a", None)]


def test_an_ended_stream_takes_nothing_more(dissector):
    calls = take(dissector, (1, CLIENT, b"ask a\n"), (1, CLIENT, ENDED), (1, SERVER, b"say b\n"))
    assert asked(calls) == [("a", None)]
    assert end(dissector, 1) is None


def test_a_conversation_that_began_unseen_hears_of_it(dissector):
    calls = take(dissector, (1, OTHER_MISSED, b"ask a\n"), (1, SERVER, b"rest\nsay b\n"))
    assert asked(calls) == [("a", "b")]


def test_one_that_cannot_go_on_after_a_gap_gets_what_comes():
    class Strict(Echo):
        gap = Conversation.gap

    dissector = ConversationDissector(ECHO, Strict)
    calls = take(dissector, (1, OTHER_MISSED, b"ask a\n"), (1, SERVER, b"say b\n"))
    assert asked(calls) == [("a", "b")]
    assert asked(take(dissector, (1, CLIENT, b"ask c\n"), (1, CLIENT, GAP))) == [("c", None)]
    assert dissector.broken == [1]


def test_what_is_over_is_said_once(dissector):
    calls = take(dissector, (1, CLIENT, b"ask bye\n"), (1, SERVER, b"say b\n"))
    assert (asked(calls), dissector.over) == ([("bye", None)], [1])


def test_an_error_of_ours_is_told_without_a_word_from_the_wire(dissector):
    take(dissector, (1, CLIENT, b"ask secret\nask boom\n"))
    assert dissector.broken == [1]
    ((where, count),) = dissector.faults.items()
    assert (where.startswith("KeyError in dissectors/echo.py:"), count) == (True, 1)


def test_an_error_at_the_end_is_told_too():
    class Fragile(Echo):
        def close(self, time_ns):
            raise RecursionError

        def gap(self, side, octets, time_ns):
            raise IndexError

    dissector = ConversationDissector(ECHO, Fragile)
    take(dissector, (1, OTHER_MISSED, b"ask a\n"))
    end(dissector, 1)
    assert sorted(where.split()[0] for where in dissector.faults) == [
        "IndexError",
        "RecursionError",
    ]


def test_too_many_streams_are_lost_and_counted(dissector, monkeypatch):
    monkeypatch.setattr(conversation, "MOST_CONVERSATIONS", 2)
    calls = take(dissector, *((n, CLIENT, b"ask a\n") for n in (1, 2, 3)))
    assert (dissector.overrun, dissector.broken) == (1, [3])
    end(dissector, 1, 2)
    end(dissector)
    calls = take(dissector, (4, CLIENT, b"ask a\n"), (4, SERVER, b"say b\n"))
    assert asked(calls) == [("a", "b")]


def test_too_many_exchanges_are_lost_and_counted(dissector, monkeypatch):
    monkeypatch.setattr(conversation, "MOST_EXCHANGES", 2)
    calls = take(dissector, (1, CLIENT, b"ask a\n" * 3), (1, SERVER, b"say b\n" * 3))
    assert (len(calls), dissector.overrun) == (2, 1)


def test_who_waits_with_the_most_octets_goes_when_all_wait_with_too_many(dissector, monkeypatch):
    monkeypatch.setattr(conversation, "MOST_BUFFERED", 80)
    said = [(1, CLIENT, b"ask a\n"), (1, SERVER, b"say " + b"x" * 60), (2, CLIENT, b"ask b")]
    calls = take(dissector, *said, (3, CLIENT, b"ask c" + b"x" * 10))
    assert asked(calls) == [("a", None)]
    assert (dissector.over, dissector.overrun, dissector.buffered) == ([1], 1, 20)
    calls = take(dissector, (2, CLIENT, b"\n"), (2, SERVER, b"say d\n"))
    assert asked(calls) == [("b", "d")]
    assert dissector.buffered == 15
    end(dissector, 2, 3)
    assert dissector.buffered == 0


def test_what_is_remembered_is_bounded_by_stream_number_and_weight(dissector, monkeypatch):
    def known():
        found = dissector.earlier(np.array([1, 2]))
        return [] if found is None else list(zip(asked(found[0]), found[1].tolist(), strict=True))

    def remember(stream, index):
        question = b"ask %d\n" % index
        calls = take(dissector, (stream, CLIENT, question), (stream, SERVER, b"say b\n"))
        dissector.remember(calls, np.array([index], np.int32))

    monkeypatch.setattr(conversation, "MOST_PAST", 3)
    for index in range(5):
        remember(1, index)
    assert known() == [((str(index), "b"), index) for index in (2, 3, 4)]
    monkeypatch.setattr(conversation, "MOST_PAST_OCTETS", 4 * conversation.LEAST_WEIGHT)
    for index in range(3):
        remember(2, index)
    assert known() == [(("4", "b"), 4), *(((str(n), "b"), n) for n in (0, 1, 2))]
    end(dissector, 1)
    assert len(known()) == 4, "it may match by what its end says"
    end(dissector, 2)
    assert len(known()) == 3
    end(dissector)
    assert known() == []
    assert dissector._past_octets == 0


def test_an_exchange_is_of_the_protocol_even_if_nobody_said_that_it_was_understood():
    class Silent(Conversation):
        def receive(self, side, octets, time_ns):
            self.exchanges.append(Exchange(time_ns, time_ns, {"query": "a"}, None))

        def close(self, time_ns):
            self.exchanges.append(Exchange(time_ns, time_ns, {"query": "b"}, None))

    dissector = ConversationDissector(ECHO, Silent)
    assert asked(take(dissector, (1, CLIENT, b"x"), (1, CLIENT, ENDED))) == [
        ("a", None),
        ("b", None),
    ]


def test_the_limit_of_bodies_reaches_open_conversations_and_new_ones():
    seen = []

    class Kept(Echo):
        def take(self, side, line, time_ns):
            seen.append(self.body_limit)
            super().take(side, line, time_ns)

    dissector = ConversationDissector(ECHO, Kept)
    take(dissector, (1, CLIENT, b"ask a\n"))
    dissector.body_limit = 7
    take(dissector, (1, CLIENT, b"ask a\n"), (2, CLIENT, b"ask a\n"))
    dissector.body_limit = 1 << 30
    take(dissector, (3, CLIENT, b"ask a\n"))
    assert seen == [DEFAULT_BODY, 7, 7, LARGEST_BODY]
