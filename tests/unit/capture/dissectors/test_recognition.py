"""Streams of the protocols of the registry are recognised by their first octets."""

import numpy as np
import pytest

from recordings import entry
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation
from tests.unit.capture.dissectors.echo import DATAGRAMS, ECHO

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
        (e["protocol"]["name"], (e["request"] or {}).get("query"), (e["response"] or {}).get("rows"))
        for e in entries(calls)
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
    wrong = Conversation(client_port=1).open().client(b"ask").client(b" a\n")
    wrong.frames.clear()
    wrong.open().client(b"ask boom\nask a\n").server(b"say b\n").close()
    right = Conversation(client_port=2).open().client(b"ask a\n").server(b"say b\n")
    frames = wrong.frames + right.frames
    found = said(pipeline.take(wire.batch(frames)) + pipeline.end())
    assert sorted(found, key=str) == [("mysql", "a", "b"), ("tcp", None, None)]
    assert pipeline.recogniser.refused == {"mysql": 1}
    assert pipeline.losses() == []


@pytest.mark.parametrize("rest", [b"nonsense\n", b"ask boom\n"])
def test_an_error_ends_its_stream_alone_and_is_counted(pipeline, rest):
    broken = Conversation(client_port=1).open().client(b"ask a\n").server(b"say b\n").client(rest)
    broken.client(b"ask c\n").server(b"say d\n")
    right = Conversation(client_port=2).open().client(b"ask e\n").server(b"say f\n")
    found = said(pipeline.take(wire.batch(broken.frames + right.frames)) + pipeline.end())
    assert found == [("mysql", "a", "b"), ("mysql", "e", "f")]
    (loss,) = pipeline.losses()
    assert (loss.kind, loss.detail) == (
        "undissected",
        "1 streams of mysql, whose octets made no sense",
    )
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
    assert [name for name, *_ in all_said(pipeline, talk.client(b"ask b\n").close())] == ["mysql"]


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


def test_datagrams_are_recognised_one_by_one(pipeline):
    def datagram(source, target, ports, payload):
        return wire.ethernet(wire.ipv4(source, target, 17, wire.udp(*ports, payload)))

    there = datagram("10.0.0.1", "10.0.0.2", (5000, 1812), b"ask a\n")
    back = datagram("10.0.0.2", "10.0.0.1", (1812, 5000), b"say b\n")
    other = datagram("10.0.0.3", "10.0.0.2", (5000, 1812), b"as")
    found = said(pipeline.take(wire.batch([there, other, back])) + pipeline.end())
    assert sorted(found, key=str) == [("radius", "a", "b"), ("udp", None, None)]
