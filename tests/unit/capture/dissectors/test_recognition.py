"""Streams of the protocols of the registry are recognised by their first octets."""

from itertools import pairwise

import numpy as np
import pytest

import kfl
from recordings import entry
from services.capture.dissectors import redis
from services.capture.dissectors.conversation import of
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.pending import MOST_OCTETS, MOST_ROWS
from services.capture.dissectors.recognition import MOST_PENDING
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation
from tests.unit.capture.dissectors.echo import (
    DATAGRAMS,
    ECHO,
    PATIENT,
    PATIENT_DATAGRAMS,
    SIGNATURES,
    Echo,
)

SAID = {"request": "query", "response": "rows"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"


@pytest.fixture
def pipeline():
    return Pipeline(PipelineOptions(most_flows=64), (ECHO, DATAGRAMS))


class Talk(Conversation):
    def take(self):
        frames, self.frames = self.frames, []
        return wire.batch(frames)


def entries(calls):
    return [each for part in calls for each in entry.objects(part.entries(np.arange(len(part))))]


def said(calls):
    """(protocol, what was asked, what was said) of each entry."""
    return [
        (each["protocol"]["name"], *((each[side] or {}).get(key) for side, key in SAID.items()))
        for each in entries(calls)
    ]


def all_said(pipeline, talk):
    return said(pipeline.take(wire.batch(talk.frames)) + pipeline.end())


def test_a_stream_is_recognised_and_its_calls_have_what_entries_have(pipeline):
    talk = Conversation().open().client(b"ask a\n").server(b"say b\n").close()
    (found,) = entries(pipeline.take(wire.batch(talk.frames)) + pipeline.end())
    assert found["protocol"] == {"name": "mysql", "version": "", "abbr": "MYSQL"}
    assert (found["src"]["port"], found["dst"]["port"]) == (40000, 80)
    assert found["request"] == {"query": "a"}
    assert found["response"] == {"status": 200, "rows": "b"}
    assert (found["requestSize"], found["responseSize"], found["elapsedTimeUs"]) == (1, 1, 1000)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_it_does_not_matter_how_the_octets_are_cut(pipeline, size):
    talk = Conversation().open().client(b"ask a\nask c\n", size).server(b"say b\nsay d\n", size)
    assert all_said(pipeline, talk) == [("mysql", "a", "b"), ("mysql", "c", "d")]


def test_the_server_may_be_the_one_that_is_recognised(pipeline):
    talk = Conversation().open().server(b"say hello\n").client(b"ask a\n").server(b"say b\n")
    assert all_said(pipeline, talk) == [("mysql", None, "hello"), ("mysql", "a", "b")]


@pytest.mark.parametrize("first", [b"axk a\n", b"as", b"say a\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_other_streams_are_left_alone(pipeline, first):
    talk = Conversation().open().client(first).server(b"x\n").client(b"ask a\n").close()
    assert [name for name, *_ in all_said(pipeline, talk)] in (["tcp"], ["http"])


def test_each_stream_is_of_its_own_protocol_also_on_a_five_tuple_used_again(pipeline):
    web = Conversation().open().client(b"GET / HTTP/1.1\r\n\r\n").server(OK).close()
    again = Conversation(first=(900_000, 800_000)).open().client(b"ask a\n").server(b"say b\n")
    frames = web.frames + again.close().frames
    third = Conversation(first=(5_900_000, 5_800_000)).open()
    frames += third.client(b"GET / HTTP/1.1\r\n\r\n").server(OK).frames
    found = said(pipeline.take(wire.batch(frames)) + pipeline.end())
    assert sorted(name for name, *_ in found) == ["http", "http", "mysql"]


def test_what_was_taken_for_it_and_is_not_is_unknown_again_and_counted(pipeline):
    wrong = Conversation(client_port=1).open().client(b"ask ").client(b"nothing\n")
    right = Conversation(client_port=2).open().client(b"ask a\n").server(b"say b\n")
    frames = wrong.frames + right.frames
    found = said(pipeline.take(wire.batch(frames)) + pipeline.end())
    assert sorted(found, key=str) == [("mysql", "a", "b"), ("tcp", None, None)]
    assert pipeline.recogniser.failed == {("mysql", "refused"): 1}
    assert pipeline.losses() == []


@pytest.mark.parametrize(
    ("rest", "failure"), [(b"nonsense\n", None), (b"ask boom\n", "KeyError in dissectors/echo.py")]
)
def test_an_error_ends_its_stream_alone_and_is_counted(pipeline, rest, failure):
    broken = Conversation(client_port=1).open().client(b"ask a\n").server(b"say b\n").client(rest)
    broken.client(b"ask c\n").server(b"say d\n")
    right = Conversation(client_port=2).open().client(b"ask e\n").server(b"say f\n")
    found = said(pipeline.take(wire.batch(broken.frames + right.frames)) + pipeline.end())
    assert found == [("mysql", "a", "b"), ("mysql", "e", "f")]
    found = [(loss.kind, loss.detail) for loss in pipeline.losses()]
    told = "the rest of 1 stream of mysql, whose octets made no sense"
    assert found[0] == ("undissected", told)
    failed = {("mysql", "broken"): 1}
    if failure:
        ((kind, detail),) = found[1:]
        assert kind == "undissected"
        assert detail.startswith(f"the dissector of mysql failed 1 times: {failure}:")
        failed["mysql", "fault"] = 1
    assert pipeline.recogniser.failed == failed
    assert pipeline.losses() == []


def test_what_follows_the_end_of_the_protocol_is_of_no_interest(pipeline):
    talk = Conversation().open().client(b"ask bye\n").server(b"say b\n").close()
    (only,) = all_said(pipeline, talk)
    assert only == ("mysql", "bye", None)
    assert pipeline.losses() == []


def test_a_stream_under_way_is_recognised_by_a_later_segment(pipeline):
    talk = Conversation().server(b"rest\n").client(b" of it\n").client(b"ask a\n")
    assert all_said(pipeline, talk.server(b"say b\n")) == [("mysql", "a", "b")]


def test_after_a_gap_a_stream_is_looked_at_again(pipeline):
    talk = Conversation().open().client(b"xyz").skip("client", 5).client(b"ask a\n")
    assert all_said(pipeline, talk.close()) == [("mysql", "a", None)]


def test_a_question_without_an_answer_is_an_entry_when_the_stream_ends(pipeline):
    talk = Talk().open().client(b"ask a\n")
    assert pipeline.take(talk.take()) == []
    (found,) = entries(pipeline.take(talk.close().take()) + pipeline.end())
    assert (found["request"], found["response"]) == ({"query": "a"}, None)
    assert found["error"] == {"type": "pair-not-found", "msg": "the stream ended"}


def test_only_what_is_wanted_is_dissected(pipeline):
    pipeline.dissectors = frozenset({"http"})
    talk = Talk().open().client(b"ask a\n").server(b"say b\n")
    assert pipeline.take(talk.take()) == []
    pipeline.dissectors = frozenset({"mysql"})
    found = said(pipeline.take(talk.client(b"ask c\n").server(b"say d\n").take()))
    assert found == [("mysql", "c", "d")]
    pipeline.dissectors = frozenset()
    assert pipeline.take(talk.client(b"ask e\n").server(b"say f\n").take()) == []


def test_calls_from_before_a_match_are_known(pipeline):
    talk = Talk().open().client(b"ask a\n").server(b"say b\n")
    first = pipeline.take(talk.take())
    assert said(first) == [("mysql", "a", "b")]
    (number,) = set(first[0].streams.tolist())
    second = pipeline.take(talk.client(b"ask c\n").server(b"say d\n").close().take())
    assert [e["index"] for e in entries(second)] == [1]
    earlier = entries(pipeline.earlier(np.array([number, number + 1])))
    assert [(e["index"], e["request"]) for e in earlier] == [(0, {"query": "a"})]
    assert pipeline.earlier(np.array([number + 1])) == []


def datagram(source, target, ports, payload):
    return wire.ethernet(wire.ipv4(source, target, 17, wire.udp(*ports, payload)))


def test_datagrams_are_recognised_one_by_one(pipeline):
    there = datagram("10.0.0.1", "10.0.0.2", (5000, 1812), b"ask a\n")
    back = datagram("10.0.0.2", "10.0.0.1", (1812, 5000), b"say b\n")
    other = datagram("10.0.0.3", "10.0.0.2", (5000, 1812), b"as")
    found = said(pipeline.take(wire.batch([there, other, back])) + pipeline.end())
    assert sorted(found, key=str) == [("radius", "a", "b"), ("udp", None, None)]


@pytest.fixture
def several():
    return Pipeline(PipelineOptions(most_flows=64), (ECHO, PATIENT, DATAGRAMS, PATIENT_DATAGRAMS))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_what_one_protocol_refuses_another_gets_from_the_beginning(several, size):
    talk = Conversation().open().client(b"ask nothing\n", size).server(b"say b\n").close()
    found = all_said(several, talk)
    if size == 100:
        assert found == [("kafka", "nothing", "b")]
    else:  # it was refused when its first octets had been given away
        assert found == [("tcp", None, None)]
    assert several.recogniser.failed == {("mysql", "refused"): 1}


def test_a_stream_that_said_little_at_first_is_refused_with_all_that_it_said(several):
    talk = Conversation().open().client(b"a").client(b"sk nothing\n").server(b"say c\n").close()
    assert all_said(several, talk) == [("kafka", "nothing", "c")]
    assert several.recogniser.failed == {("mysql", "refused"): 1}


def test_a_datagram_that_one_protocol_refuses_another_gets(several):
    there = datagram("10.0.0.1", "10.0.0.2", (5000, 1812), b"ask nothing\n")
    back = datagram("10.0.0.2", "10.0.0.1", (1812, 5000), b"say b\n")
    found = said(several.take(wire.batch([there, back])) + several.end())
    assert found == [("diameter", "nothing", "b")]


def test_a_stream_under_way_has_answers_to_what_was_not_seen(pipeline):
    talk = Conversation().server(b"y lost\n").client(b"ask a\n").server(b" half\nsay b\n")
    assert all_said(pipeline, talk) == [("mysql", "a", "b")]


def test_nothing_is_kept_for_long_of_what_cannot_be_told(pipeline):
    chatty = Conversation(client_port=1).open().client(b"a").server(b"x" * (MOST_OCTETS + 1))
    slow = Conversation(client_port=2).open().client(b"a").server(b"x" * (MOST_ROWS + 1), 1)
    for talk in (chatty, slow):
        talk.client(b"sk a\n").close()
    found = said(pipeline.take(wire.batch(chatty.frames + slow.frames)) + pipeline.end())
    assert [name for name, *_ in found] == ["tcp", "tcp"]


def test_too_many_short_streams_are_let_go():
    pipeline = Pipeline(PipelineOptions(most_flows=4096), (ECHO,))
    talks = [Talk(client_port=1000 + n).open().client(b"a") for n in range(MOST_PENDING + 1)]
    pipeline.take(wire.batch([frame for talk in talks for frame in talk.frames]))
    for talk in talks:
        talk.frames.clear()
        talk.client(b"sk a\n").server(b"say b\n").close()
    calls = pipeline.take(wire.batch([frame for talk in talks for frame in talk.frames]))
    found = [name for name, *_ in said(calls + pipeline.end())]
    assert (found.count("mysql"), found.count("tcp")) == (MOST_PENDING, 1)


def test_a_gap_in_what_is_too_short_ends_the_waiting_for_it(pipeline):
    talk = Conversation().open().client(b"as").skip("client", 9).client(b"ask a\n")
    assert all_said(pipeline, talk.close()) == [("mysql", "a", None)]


def test_a_stream_that_went_another_way_is_not_recognised_again(pipeline):
    talk = Conversation().open().client(b"ask bye\n").server(b"OK\n").skip("client", 3)
    talk.client(b"ask a\n").server(b"say b\n").close()
    assert all_said(pipeline, talk) == [("mysql", "bye", None)]


def test_a_filter_for_one_protocol_lets_no_other_run(pipeline):
    pipeline.dissectors = kfl.compile("dns").packets().dissectors
    assert pipeline.dissectors == {"dns"}
    assert list(pipeline.recogniser.dissectors) == []
    pipeline.dissectors = kfl.compile("mysql and request.query == 'a'").packets().dissectors
    talk = Conversation().open().client(b"ask a\n").server(b"say b\n")
    web = Conversation(client_port=2).open().client(b"GET / HTTP/1.1\r\n\r\n").server(OK).close()
    found = said(pipeline.take(wire.batch(talk.frames + web.frames)) + pipeline.end())
    assert found == [("mysql", "a", "b")]


def test_what_waits_is_told_when_nothing_comes_any_more(pipeline):
    talk = Talk().open().client(b"ask a\n")
    pipeline.take(talk.take())
    hours = wire.START + 10**9 * 7200
    other = Conversation(client_port=2).open()
    (found,) = entries(pipeline.take(wire.batch(other.frames, start=hours)))
    assert (found["request"], found["error"]["msg"]) == ({"query": "a"}, "the stream ended")


class Secured(Echo):
    """What follows `ask more` is of another protocol."""

    def receive(self, side, octets, time_ns):
        line, end, rest = (self.lines[side] + bytes(octets)).partition(b"\n")
        if line == b"ask more" and end:
            self.understood = self.is_over = True
            self.unread = len(rest)
        else:
            super().receive(side, octets, time_ns)


SECURED = ProtocolKind("mysql", "MYSQL", "tcp", frozenset(), SIGNATURES, of(Secured))
REDIS = ProtocolKind("redis", "REDIS", "tcp", redis.PORTS, redis.SIGNATURES, redis.RedisDissector)
PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"


@pytest.mark.parametrize("cuts", [range(1, 100), [2], [9], [12], [2, 10], []])
def test_what_follows_a_conversation_is_recognised_by_its_first_octets(cuts):
    pipeline = Pipeline(PipelineOptions(most_flows=64), (SECURED, REDIS))
    talk = Conversation().open()
    octets = b"ask more\n" + PING
    for begin, end in pairwise([0, *(each for each in cuts if each < len(octets)), len(octets)]):
        talk.client(octets[begin:end])
    talk.server(PONG).client(PING).server(PONG)
    found = entries(pipeline.take(wire.batch(talk.frames)) + pipeline.end())
    assert [each["protocol"]["name"] for each in found] == ["redis", "redis"]


def test_what_follows_may_come_in_a_later_batch():
    pipeline = Pipeline(PipelineOptions(most_flows=64), (SECURED, REDIS))
    talk = Conversation().open().client(b"ask more\n").server(b"x")
    assert not pipeline.take(wire.batch(talk.frames))
    frames = len(talk.frames)
    talk.client(PING).server(PONG)
    found = entries(pipeline.take(wire.batch(talk.frames[frames:])) + pipeline.end())
    assert [each["protocol"]["name"] for each in found] == ["redis"]
