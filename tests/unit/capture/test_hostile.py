"""What unlucky or hostile traffic must not do: mix streams up, lose calls, fill tables, crash."""

import numpy as np
import pytest

from recordings import entry
from services.capture.dissectors.http1.rows import new_framer
from services.capture.frames.walk import LATEST
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import ACK, RST, START, SYN, Conversation

GET = b"GET /a HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
QUERY = bytes.fromhex("12340100000100000000000001610000010001")
ANSWER = bytes.fromhex("12348180000100010000000001610000010001c00c000100010000003c000401020304")
HOUR = 3600 * 10**9
AGAIN = (900_000_000, 80_000_000)


@pytest.fixture
def pipeline():
    return Pipeline(PipelineOptions(most_flows=64))


def objects(calls):
    return [each for part in calls for each in entry.objects(part.entries(np.arange(len(part))))]


def statuses(found):
    return [
        ((each["request"] or {}).get("url"), (each["response"] or {}).get("status"))
        for each in found
    ]


def test_a_ring_full_of_large_segments_is_emptied(pipeline):
    frames = []
    for port in range(1, 7):
        talk = Conversation(client_port=port).open().skip("client", 10)
        for _ in range(120):
            talk.client(b"x" * 60_000, 60_000).skip("client", 10)
        frames += talk.frames
    for start in range(0, len(frames), 100):
        pipeline.take(wire.batch(frames[start : start + 100]))


def test_header_lines_without_a_name(pipeline):
    talk = Conversation().open().client(b"GET / HTTP/1.1\r\n" + b":\n" * 200 + b"\r\n").server(OK)
    (calls,) = pipeline.take(wire.batch(talk.frames))
    assert len(calls.entries(np.arange(1))["request_headers"][0]) == 200


@pytest.mark.parametrize("ends", [("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")])
def test_an_answer_under_way_at_the_end_is_one_call_with_its_request(pipeline, ends):
    talk = Conversation(*ends).open().client(GET)
    talk.server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
    found = objects(pipeline.take(wire.batch(talk.frames)) + pipeline.end())
    assert statuses(found) == [("/a", 200)]


def test_an_answer_under_way_when_the_five_tuple_is_used_again(pipeline):
    talk = Conversation().open().client(GET).server(b"HTTP/1.1 200 OK\r\n\r\nabc")
    frames = talk.frames + Conversation(first=AGAIN).open().frames
    assert statuses(objects(pipeline.take(wire.batch(frames)))) == [("/a", 200)]


def test_what_was_held_when_the_five_tuple_is_used_again(pipeline):
    talk = Conversation().open().client(GET).skip("server", 100).server(OK)
    frames = talk.frames + Conversation(first=AGAIN).open().frames
    assert statuses(objects(pipeline.take(wire.batch(frames)))) == [("/a", 200)]
    assert [loss.bytes for loss in pipeline.losses()] == [100]


def test_what_is_missing_before_a_fin_is_a_loss(pipeline):
    talk = Conversation().open().client(GET).skip("server", 100).close()
    pipeline.take(wire.batch(talk.frames))
    pipeline.end()
    assert [loss.bytes for loss in pipeline.losses()] == [100]


def test_bodies_of_two_streams_do_not_mix():
    pipeline = Pipeline(PipelineOptions(most_flows=64, body_limit=1000))
    pipeline.framer = new_framer(64, 1000, messages=64)  # 256 pieces
    slow = Conversation(client_port=1).open().client(GET)
    slow.server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").server(b"A")
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    one = Conversation(client_port=2).open().client(GET).server(chunked + b"1\r\nB\r\n" * 250)
    two = Conversation(client_port=3).open().client(GET).server(chunked + b"1\r\nC\r\n" * 100)
    many = len(slow.frames)
    slow.server(b"S")
    last = two.server(b"0\r\n\r\n").frames.pop()
    frames = [*slow.frames[:many], *one.frames, *two.frames, *slow.frames[many:], last]
    found = objects(pipeline.take(wire.batch(frames)))
    assert [each["response"]["body"] for each in found if each["src"]["port"] == 3] == ["C" * 100]


def test_requests_of_two_streams_do_not_mix(pipeline):
    def get(name):
        return b"GET /%s HTTP/1.1\r\n\r\n" % name

    pipeline.framer = new_framer(64, 0, messages=64)
    slow = Conversation(client_port=1).open().client(get(b"first"))
    many = len(slow.frames)
    slow.client(get(b"secret"))
    rest = Conversation(client_port=2).open().client(get(b"x") * 63)
    talk = Conversation(client_port=3).open().client(get(b"b1") + get(b"b2"))
    last = talk.server(OK + OK).frames.pop()
    frames = [*slow.frames[:many], *rest.frames, *talk.frames, *slow.frames[many:], last]
    found = objects(pipeline.take(wire.batch(frames)))
    mine = [each for each in found if each["src"]["port"] == 3]
    assert statuses(mine) == [("/b1", 200), ("/b2", 200)]


def test_a_call_does_not_show_a_message_that_overwrote_its_own(pipeline):
    first = Conversation().open().client(b"GET /first HTTP/1.1\r\n\r\n")
    first.server(b"HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n")
    flood = Conversation(client_port=9).open().server(b"HTTP/1.1 204\n\n" * 70_000, 56_000)
    for calls in pipeline.take(wire.batch(first.frames + flood.frames)):
        columns = calls.columns()
        mine = columns["src_port"] == 40000
        assert not (columns["response_status"][mine] == 204).any()
    assert [loss.kind for loss in pipeline.losses()] == ["table_overrun"]


def test_streams_of_dns_are_forgotten_when_their_five_tuple_is_used_again(pipeline):
    for number in range(50):
        first = (number * 900_000_000 + 1, number * 800_000_000)
        talk = Conversation(server_port=53, first=first).open().client(b"\0\xff" + b"a" * 50)
        pipeline.take(wire.batch(talk.frames))
    assert len(pipeline.dns_streams._streams) == 1


def test_dns_that_was_held_until_the_end_is_paired(pipeline):
    talk = Conversation(server_port=53).open().client(len(QUERY).to_bytes(2, "big") + QUERY)
    talk.skip("server", 30).server(len(ANSWER).to_bytes(2, "big") + ANSWER)
    (call,) = objects(pipeline.take(wire.batch(talk.frames)) + pipeline.end())
    assert call["error"] is None


def test_a_clock_that_was_set_back_does_not_stop_the_sweeping(pipeline):
    pipeline.take(wire.batch(Conversation().open().frames, start=START + HOUR))
    for number in range(100):
        packet = wire.ipv4("10.0.0.1", "10.0.0.9", 17, wire.udp(1000 + number, 7, b"x"))
        pipeline.take(wire.batch([wire.ethernet(packet)], start=START + number * 10**9))
    assert pipeline.losses() == []


@pytest.mark.parametrize("start", [(1 << 62) + 5, -(1 << 62) - 10**15, LATEST - 10**9])
def test_no_time_keeps_a_stream_from_ending(pipeline, start):
    frames = Conversation().open().client(GET).frames
    assert len(objects(pipeline.take(wire.batch(frames, start=start)) + pipeline.end())) == 1


@pytest.mark.parametrize("refused", [True, False])
def test_half_open_connections_do_not_fill_the_table(pipeline, refused):
    for port in range(1, 65):
        talk = Conversation(client_port=port)._send("client", SYN)
        if refused:
            talk._send("server", RST | ACK)
        pipeline.take(wire.batch(talk.frames))
    late = Conversation(client="10.0.0.77").open()
    pipeline.take(wire.batch([b""], start=START + 62 * 10**9))
    pipeline.take(wire.batch(late.frames, start=START + 62 * 10**9))
    assert pipeline.losses() == []


def test_an_answer_to_a_flood_of_one_id_is_searched_in_bounded_time():
    from services.capture.dissectors.dns import exchange

    # Observable without a clock: beyond MOST_COPIES other questions, a query is not found.
    pipeline = Pipeline(PipelineOptions(most_flows=64))
    there = [QUERY.replace(b"\1a", b"\1" + bytes([97 + n % 26])) for n in range(1, 26)] * 8
    frames = [
        wire.ethernet(wire.ipv4("10.0.0.1", "10.0.0.53", 17, wire.udp(4000, 53, each)))
        for each in [*there, QUERY]
    ]
    frames.append(wire.ethernet(wire.ipv4("10.0.0.53", "10.0.0.1", 17, wire.udp(53, 4000, ANSWER))))
    found = objects(pipeline.take(wire.batch(frames)))
    assert len(there) > exchange.MOST_COPIES
    assert [each["error"]["type"] for each in found] == ["pair-not-found"]
