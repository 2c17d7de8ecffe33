"""HTTP/2 connections, and the exchanges that are told of each (RFC 9113)."""

import base64
import gzip
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.conversation import DEFAULT_BODY, ProtocolError
from services.capture.dissectors.http2.fields import UNKNOWN
from services.capture.dissectors.http2.frames import PREFACE
from services.capture.dissectors.http2.rows import MOST_BODIES, MOST_KEPT, MOST_STREAMS
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.http2.one import Http2
from tests.unit.capture.dissectors.http2.wire import REQUEST, RESPONSE, Talk, data, frame, settings
from tests.unit.capture.dissectors.playback import play, play_with_hole, survives


def short(exchange):
    """What most tests compare."""
    request, response = exchange.request or {}, exchange.response or {}
    return request.get("url"), response.get("status"), response.get("body"), exchange.error_type


def shorts(talk: Talk):
    return [short(each) for each in play(Http2, talk.said)]


def one(talk: Talk):
    (exchange,) = play(Http2, talk.said)
    return exchange


GOOD = "/a?b=1", 200, "hello", None


def test_a_call():
    exchange = one(Talk().asks(1).answers(1))
    request, response = exchange.request, exchange.response
    assert request["method"] == "GET"
    assert (request["url"], request["path"]) == ("/a?b=1", "/a")
    assert request["headers"] == REQUEST
    assert request["httpVersion"] == response["httpVersion"] == "HTTP/2"
    assert (request["body"], request["bodySize"]) == ("", 0)
    assert (response["status"], response["body"], response["bodySize"]) == (200, "hello", 5)
    assert response["headers"] == RESPONSE
    assert (exchange.abbr, exchange.version) == ("HTTP/2", "2.0")
    assert exchange.error_type is None


def test_times_and_sizes():
    talk = Talk().asks(1, body=b"abc").answers(1)
    exchange = one(talk)
    lengths = [len(octets) for _, octets in talk.said]
    assert (exchange.start_ns, exchange.end_ns) == (3, 6)
    assert exchange.request_size == sum(lengths[2:4])
    assert exchange.response_size == sum(lengths[4:])


def test_streams_that_are_interleaved():
    talk = Talk().asks(1).asks(3, body=b"x").asks(5)
    talk.headers(SERVER, 3, RESPONSE).headers(SERVER, 1, RESPONSE).server(data(1, b"one", True))
    talk.headers(SERVER, 5, [(":status", "404")], True).server(data(3, b"three", True))
    assert shorts(talk) == [
        ("/a?b=1", 200, "one", None),
        ("/a?b=1", 404, "", None),
        ("/a?b=1", 200, "three", None),
    ]


def test_fields_over_several_frames_with_padding_and_priority():
    talk = Talk()
    block = talk.block(CLIENT, [*REQUEST, ("x-long", "value" * 100)])
    first = bytes([7]) + bytes(5) + block[:20] + bytes(7)
    talk.client(frame(1, 0x29, 1, first) + frame(9, 0, 1, block[20:30]))
    talk.client(frame(9, 4, 1, block[30:]))
    talk.headers(SERVER, 1, RESPONSE).server(data(1, b"hello", True, padding=200))
    conversation = Http2()
    for side, octets in talk.said:
        conversation.receive(side, memoryview(octets), 1)
    (exchange,) = conversation.exchanges  # it does not take the end of the connection
    assert short(exchange) == GOOD
    assert exchange.request["headers"][-1] == ("x-long", "value" * 100)
    assert exchange.response["bodySize"] == 5


def test_interim_answers_are_not_the_answer():
    talk = Talk().asks(1).headers(SERVER, 1, [(":status", "103"), ("link", "</x>")]).answers(1)
    assert shorts(talk) == [GOOD]


def test_cookies_that_are_sent_apart_are_one():
    exchange = one(Talk().asks(1, [*REQUEST, ("cookie", "a=1"), ("cookie", "b=2")]))
    assert exchange.request["headers"] == [*REQUEST, ("cookie", "a=1; b=2")]


def test_trailers():
    trailers = [("x-sum", "1"), ("x-sum", "2")]
    exchange = one(Talk().asks(1).answers(1, trailers=trailers))
    assert exchange.response["trailers"] == {"x-sum": "1, 2"}
    assert exchange.response["headers"] == RESPONSE


@pytest.mark.parametrize(
    ("fields", "octets", "body"),
    [
        ([("content-encoding", "gzip")], gzip.compress(b"hello", mtime=0), "hello"),
        ([("content-encoding", "nonsense")], b"hello", "hello"),
        ([], b"\xff\xfe", base64.b64encode(b"\xff\xfe").decode()),
    ],
)
def test_bodies_are_decoded(fields, octets, body):
    exchange = one(Talk().asks(1).answers(1, RESPONSE + fields, octets))
    assert exchange.response["body"] == body
    assert exchange.response["bodySize"] == len(octets)


def test_a_long_body_is_cut():
    talk = Talk().asks(1).headers(SERVER, 1, RESPONSE)
    for _ in range(10):
        talk.server(data(1, bytes(16000)))
    response = one(talk.server(data(1, b"", True))).response
    assert response["bodyTruncated"] is True
    assert response["bodySize"] == 160_000
    assert len(response["body"]) == DEFAULT_BODY


def test_a_stream_that_is_reset():
    talk = Talk().asks(1).server(frame(3, 0, 1, b"\0\0\0\x07"))
    exchange = one(talk)
    assert (exchange.error_type, exchange.response) == ("reset", None)
    assert exchange.error_msg == "the server reset the stream: REFUSED_STREAM (7)"
    # A server that has said all may not want the rest of the request (8.1).
    talk = Talk().headers(CLIENT, 1, REQUEST).answers(1).server(frame(3, 0, 1, bytes(4)))
    assert shorts(talk) == [GOOD]


def test_a_server_that_goes_away():
    talk = Talk().asks(1).asks(3).server(frame(7, 0, 0, b"\0\0\0\x01" + b"\0\0\0\x0b" + b"calm"))
    talk.answers(1)
    lost, answered = play(Http2, talk.said)
    assert lost.request["streamId"] == 3
    assert lost.error_type == "reset"
    assert "ENHANCE_YOUR_CALM" in lost.error_msg
    assert short(answered) == GOOD


def test_what_a_server_pushes():
    talk = Talk().asks(1)
    promised = talk.block(SERVER, [*REQUEST[:3], (":path", "/style.css")])
    talk.server(frame(5, 4, 1, b"\0\0\0\x02" + promised)).answers(1)
    talk.answers(2, body=b"body {}")
    found = play(Http2, talk.said)
    assert [short(each) for each in found] == [GOOD, ("/style.css", 200, "body {}", None)]
    assert found[1].request["pushed"] is True
    assert found[1].asked_by == CLIENT


def test_one_side_alone():
    assert shorts(Talk().asks(1)) == [("/a?b=1", None, None, "pair-not-found")]
    assert shorts(Talk().answers(1)) == [(None, 200, "hello", "pair-not-found")]
    unfinished = Talk().asks(1).headers(SERVER, 1, RESPONSE)
    assert shorts(unfinished) == [("/a?b=1", 200, "", "pair-not-found")]


def test_in_the_middle_of_a_connection_fields_of_the_lost_table_are_unknown():
    talk = Talk()
    fields = [*REQUEST, ("x-own", "1")]
    talk.asks(1, fields).answers(1)
    before = len(talk.said)
    talk.asks(3, [*fields, ("x-new", "2")]).answers(3).asks(5, [*fields, ("x-new", "2")]).answers(5)
    third, fifth = play(Http2, talk.said[before:])
    # Of the static table and what came since is known.
    assert third.request["method"] == "GET"
    assert ("x-new", "2") in third.request["headers"]
    assert ("x-new", "2") in fifth.request["headers"]
    assert (UNKNOWN, UNKNOWN) in fifth.request["headers"]
    assert "url" not in fifth.request
    assert [each.response["status"] for each in (third, fifth)] == [200, 200]
    assert [each.error_type for each in (third, fifth)] == [None, None]


def test_the_side_that_asks_may_be_the_other_one():
    talk = Talk(begins=False).asks(1).answers(1)
    (exchange,) = play(Http2, [(side ^ 1, octets) for side, octets in talk.said])
    assert exchange.asked_by == SERVER
    assert short(exchange) == GOOD


def conversations():
    talk = Talk().asks(1, body=b"question" * 40).asks(3)
    talk.answers(3, body=b"three" * 300).answers(1, trailers=[("x-sum", "1")])
    return talk.asks(5).answers(5)


SAID = conversations().said
WHOLE = play(Http2, SAID)


@given(st.integers(1, 2000))
def test_however_it_is_cut_it_is_the_same(piece):
    assert play(Http2, SAID, piece) == WHOLE


def test_a_hole_touches_what_it_touches():
    for where, (side, octets) in enumerate(SAID):
        for begin in range(0, len(octets), 5):
            for size in (16, 40, 5000):
                found = play_with_hole(Http2, SAID, where, begin, size)
                assert len(found) <= len(WHOLE) + 1
                same = sum(
                    (each.response or {}).get("body") == one.response["body"]
                    for each in found
                    for one in WHOLE
                    if (each.request or {}).get("streamId") == one.request["streamId"]
                )
                assert same >= len(WHOLE) - (1 if side == SERVER else 2)


def test_a_hole_in_a_body_is_told():
    talk = Talk().asks(1).headers(SERVER, 1, RESPONSE).server(data(1, b"0123456789", True))
    (exchange,) = play_with_hole(Http2, talk.said, 4, 12, 4)
    assert exchange.error_type == "gap"
    assert exchange.response["body"] == "012"
    assert exchange.response["bodySize"] == 10
    assert exchange.response["bodyTruncated"] is True


def test_after_lost_frames_the_next_segment_that_begins_one_is_believed():
    talk = Talk().asks(1).answers(1)
    conversation = Http2()
    for side, octets in talk.said:
        conversation.receive(side, memoryview(octets), 1)
    conversation.gap(CLIENT, 0, 2)
    conversation.receive(CLIENT, memoryview(b"the rest of a body that was lost"), 3)
    fields = Talk().block(CLIENT, REQUEST)
    conversation.receive(CLIENT, memoryview(frame(1, 5, 7, fields)), 4)
    assert conversation.receive(SERVER, memoryview(data(7, b"x", True)), 5) is None
    assert conversation.exchanges[-1].request["method"] == "GET"


@pytest.mark.parametrize(
    "begin",
    [
        PREFACE[:20] + b"XXXX" + settings(),
        frame(4, 0, 0, b"12345"),
        frame(0, 0, 0, b"data of no stream"),
        frame(6, 0, 0, b"ping"),
        frame(9, 4, 1, b"\x82"),
        frame(1, 4, 1, b"\x80"),
        frame(1, 4, 1, b"\x00\x03a b\x00"),
        frame(1, 0, 1, b"\x82") + settings(),
        frame(1, 12, 1, b"\xff\x82"),
    ],
)
def test_other_octets_are_refused(begin):
    with pytest.raises(ProtocolError):
        Http2().receive(CLIENT, memoryview(begin), 1)


def test_octets_that_are_damaged_raise_nothing_else():
    chance = random.Random(7)
    for _ in range(3000):
        said = []
        for side, octets in SAID:
            damaged = bytearray(octets)
            for _ in range(chance.randrange(3)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            said.append((side, bytes(damaged[: chance.choice([1 << 20, chance.randrange(99)])])))
        survives(Http2, said)


def test_more_streams_than_are_kept():
    talk = Talk()
    for number in range(MOST_STREAMS + 1):
        talk.asks(2 * number + 1)
    found = play(Http2, talk.said)
    assert found[0].error_type == "timeout"
    assert found[0].request["streamId"] == 1
    assert len(found) == MOST_STREAMS + 1


def test_bodies_of_many_streams_have_one_limit():
    conversation = Http2()
    talk = Talk()
    for number in range(MOST_BODIES // 64_000 + 9):
        talk.headers(CLIENT, 2 * number + 1, REQUEST)
        for _ in range(4):
            talk.client(data(2 * number + 1, bytes(16000)))
    for side, octets in talk.said:
        conversation.receive(side, memoryview(octets), 1)
    assert MOST_BODIES - 16000 < conversation.bodies <= MOST_BODIES
    conversation.close(2)
    assert conversation.bodies == 0


def test_a_block_that_never_ends_is_not_kept():
    conversation = Http2()
    conversation.receive(CLIENT, memoryview(PREFACE + frame(1, 0, 1, bytes(16000))), 1)
    for _ in range(20):
        conversation.receive(CLIENT, memoryview(frame(9, 0, 1, bytes(16000))), 2)
    assert conversation.buffered <= 2 * MOST_KEPT


def test_what_comes_of_a_stream_that_was_told_of_is_left_out():
    talk = Talk().asks(1).server(frame(3, 0, 1, b"\0\0\0\x08")).server(data(1, b"late", True))
    assert len(shorts(talk)) == 1


@pytest.mark.parametrize(
    ("limit", "body"), [(5, "01234"), (100_000, "0123456789" * 7000), (0, None)]
)
def test_bodies_are_as_long_as_is_wanted(limit, body):
    conversation = Http2()
    conversation.body_limit = limit
    talk = Talk().asks(1).headers(SERVER, 1, RESPONSE)
    for _ in range(7):
        talk.server(data(1, b"0123456789" * 1000))
    for side, octets in talk.server(data(1, b"", True)).said:
        conversation.receive(side, memoryview(octets), 1)
    (exchange,) = conversation.exchanges
    assert exchange.response.get("body") == body
    assert exchange.response["bodySize"] == 70_000
    assert exchange.response.get("bodyTruncated", False) is (limit == 5)
