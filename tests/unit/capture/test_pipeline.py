"""From frames to calls of several protocols, and what becomes of streams that are none."""

import numpy as np
import pytest

from recordings import entry
from recordings.schema import ENTRIES, STREAMS
from services.capture.dissectors import graphql
from services.capture.flows import UDP_IDLE
from services.capture.pipeline import Pipeline, PipelineOptions
from services.capture.timewheel import SECOND
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

QUERY = bytes.fromhex("1234010000010000000000000161000001 0001".replace(" ", ""))
ANSWER = bytes.fromhex("12348180000100010000000001610000010001c00c000100010000003c000401020304")
GET = b"GET /path HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def pipeline():
    return Pipeline(PipelineOptions(node_name="node-1", node_ip="10.0.0.7", most_flows=64))


def objects(calls):
    return [each for part in calls for each in entry.objects(part.entries(np.arange(len(part))))]


def datagrams(port, there, back):
    question = wire.ipv4("10.0.0.1", "10.0.0.53", 17, wire.udp(40000, port, there))
    answer = wire.ipv4("10.0.0.53", "10.0.0.1", 17, wire.udp(port, 40000, back))
    return [wire.ethernet(question), wire.ethernet(answer)]


@pytest.mark.parametrize("port", [53, 8053])
def test_dns_is_found_on_its_port_and_on_others(pipeline, port):
    (call,) = objects(pipeline.take(wire.batch(datagrams(port, QUERY, ANSWER))))
    assert call["protocol"]["name"] == "dns"
    assert call["request"]["questions"] == [{"name": "a", "type": "A", "class": "IN"}]
    assert call["response"]["answers"][0]["ip"] == "1.2.3.4"
    assert (call["src"]["port"], call["dst"]["port"]) == (40000, port)
    assert call["node"] == {"name": "node-1", "ip": "10.0.0.7"}


def test_dns_over_tcp(pipeline):
    talk = Conversation(server_port=53).open()
    talk.client(len(QUERY).to_bytes(2, "big") + QUERY, 5)
    talk.server(len(ANSWER).to_bytes(2, "big") + ANSWER, 7)
    (call,) = objects(pipeline.take(wire.batch(talk.frames)))
    assert call["response"]["answers"][0]["ip"] == "1.2.3.4"
    assert call["transport"] == "tcp"


def test_streams_without_a_known_protocol_are_an_entry_when_they_end(pipeline):
    talk = Conversation().open().client(b"\0\1\2").server(b"\3\4").close()
    frames = talk.frames + datagrams(9999, b"no", b"dns")
    assert objects(pipeline.take(wire.batch(frames))) == []
    found = objects(pipeline.end())
    assert [each["protocol"]["name"] for each in found] == ["tcp", "udp"]
    assert found[0]["request"] == {"packets": 4, "bytes": 54 * 4 + 3, "state": "closed"}
    assert found[0]["response"] == {"packets": 3, "bytes": 54 * 3 + 2, "state": "closed"}
    assert found[0]["src"]["port"] == 40000


def test_a_stream_with_calls_has_no_entry_of_its_own(pipeline):
    talk = Conversation().open().client(GET).server(OK).close()
    calls = objects(pipeline.take(wire.batch(talk.frames))) + objects(pipeline.end())
    assert [each["protocol"]["name"] for each in calls] == ["http"]


def test_tables_have_the_schemas_of_recordings(pipeline):
    talk = Conversation().open().client(GET).server(OK)
    (calls,) = pipeline.take(wire.batch(talk.frames + datagrams(53, QUERY, b"")))
    assert calls.entries(np.arange(1)).schema == ENTRIES
    numbers = np.unique(pipeline.packet_streams[pipeline.packet_streams != 0])
    ones = np.ones(len(numbers))
    streams = pipeline.streams_table(numbers, ones.astype(np.int64), ones.astype(np.bool_))
    assert streams.schema == STREAMS
    assert streams["stream"].to_pylist() == pipeline.stream_ids(numbers).to_pylist()
    assert streams["client_port"].to_pylist() == [40000, 40000]
    assert streams["from_start"].to_pylist() == [True, True]


def quiet(passed_ns):
    return wire.batch([])._replace(passed_ns=passed_ns)


def test_time_that_passes_without_frames_ends_what_waits(pipeline):
    frames = datagrams(53, QUERY, ANSWER)[:1]
    assert pipeline.take(wire.batch(frames)) == []
    assert pipeline.take(quiet(0)) == []
    assert pipeline.take(quiet(wire.START + 9 * SECOND)) == []
    (call,) = objects(pipeline.take(quiet(wire.START + 11 * SECOND)))
    assert call["error"]["type"] == "timeout"
    assert pipeline.open_streams == 1
    pipeline.take(quiet(wire.START + UDP_IDLE + 2 * SECOND))
    assert pipeline.open_streams == 0


def test_a_clock_that_is_set_back_while_nothing_comes_does_not_stop_time(pipeline):
    pipeline.take(wire.batch(datagrams(53, QUERY, ANSWER)[:1]))
    earlier = wire.START - 3600 * SECOND
    pipeline.take(quiet(earlier))
    again = wire.batch(datagrams(5353, QUERY, ANSWER)[:1], start=earlier)
    pipeline.take(again)
    for seconds in range(1, 40):
        pipeline.take(quiet(earlier + seconds * SECOND))
    assert pipeline.open_streams == 0


def test_every_frame_of_a_stream_has_its_number(pipeline):
    talk = Conversation().open().client(GET).server(OK).close()
    pipeline.take(wire.batch(talk.frames))
    assert len(set(pipeline.packet_streams.tolist())) == 1
    assert 0 not in pipeline.packet_streams


def test_the_same_capture_gives_the_same_stream_names():
    names = []
    for _ in range(2):
        pipeline = Pipeline(PipelineOptions(most_flows=64))
        talk = Conversation().open().client(GET).server(OK)
        names += [each["stream"] for each in objects(pipeline.take(wire.batch(talk.frames)))]
    assert names[0] == names[1]


def test_gaps_and_a_full_table_are_losses(pipeline):
    talk = Conversation().open().client(GET[:5]).skip("client", 5).client(GET[10:])
    pipeline.take(wire.batch(talk.frames))
    pipeline.end()
    (gap,) = pipeline.losses()
    assert (gap.kind, gap.bytes) == ("gap", 5)
    assert gap.start_ns == gap.end_ns > 0
    assert pipeline.losses() == []
    many = [Conversation(client_port=port).open().frames[0] for port in range(1, 100)]
    pipeline.take(wire.batch(many))
    (full,) = pipeline.losses()
    assert (full.kind, full.detail[:3]) == ("table_overrun", str(99 - 64) + " ")


def test_hot_columns_are_what_the_entries_say(pipeline):
    talk = Conversation(client="fd00::1", server="fd00::2").open().client(GET).server(OK)
    frames = talk.frames + datagrams(53, QUERY, ANSWER)
    for calls in pipeline.take(wire.batch(frames)):
        table = calls.entries(np.arange(len(calls)))
        for name, column in wire.hot_columns(calls).items():
            assert [None if value == -1 else value for value in column] == table[name].to_pylist()


def test_headers_are_what_the_entries_say(pipeline):
    heads = b"GET / HTTP/1.1\r\nx-a: 1\r\nHOST: h\r\nX-A: \xe9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"
    talk = Conversation().open().client(heads[0]).server(OK).client(heads[1]).server(OK)
    (calls,) = pipeline.take(wire.batch(talk.frames))
    columns, found = calls.columns(), entry.objects(calls.entries(np.arange(2)))
    for name in ("x-a", "host", "none"):
        said = [kfl_name(each["request"]["headers"], name) for each in found]
        assert columns[f"request_headers.{name}"].to_pylist() == said


def kfl_name(headers, name):
    return next((value for key, value in headers.items() if key.lower() == name), None)


def test_messages_have_no_other_keys_than_filters_are_told(pipeline):
    pipeline.body_limit = 100
    ask = b"POST /a?b=c HTTP/1.1\r\nCookie: a=b\r\nContent-Length: 200\r\n\r\n" + 200 * b"\xff"
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 200\r\n\r\n" + 200 * b"\xff"
    talk = Conversation().open().client(ask).server(answer)
    (calls,) = pipeline.take(wire.batch(talk.frames))
    (found,) = entry.objects(calls.entries(np.arange(1)))
    of_graphql = graphql.REQUEST_KEYS | graphql.RESPONSE_KEYS
    for side in ("request", "response"):
        assert found[side].keys() == calls.columns()[f"{side}_keys"] - of_graphql


def said(number):
    return f"GET /{number} HTTP/1.1\r\n\r\n".encode(), OK


def test_what_a_stream_said_in_earlier_batches_can_be_asked_for(pipeline):
    talk, other = Conversation().open(), Conversation(client_port=41000).open()
    for number in range(6):
        before = len(talk.frames)
        there, back = said(number)
        talk.client(there).server(back)
        frames = talk.frames[0 if number == 0 else before :]
        (calls,) = pipeline.take(wire.batch(frames + (other.frames if number == 0 else [])))
    stream = calls.streams[:1]
    (earlier,) = pipeline.earlier(stream)
    found = objects([earlier])
    assert [each["request"]["path"] for each in found] == ["/0", "/1", "/2", "/3", "/4"]
    assert [each["index"] for each in found] == [0, 1, 2, 3, 4]
    assert {each["stream"] for each in found} == set(pipeline.stream_ids(stream).to_pylist())


def test_a_stream_that_begins_in_this_batch_has_nothing_earlier(pipeline):
    talk = Conversation().open().client(GET).server(OK)
    (calls,) = pipeline.take(wire.batch(talk.frames))
    assert pipeline.earlier(calls.streams) == []


def test_what_has_left_the_rings_is_not_earlier(pipeline):
    talk, busy = Conversation().open(), Conversation(client_port=41000).open()
    pipeline.take(wire.batch(talk.client(GET).server(OK).frames))
    said_before = len(talk.frames)
    messages = len(pipeline.framer.messages)
    for _ in range(messages // 2 // 500 + 1):
        sent = len(busy.frames)
        for _ in range(500):
            busy.client(GET).server(OK)
        pipeline.take(wire.batch(busy.frames[sent if sent > 3 else 0 :]))
    (calls,) = pipeline.take(wire.batch(talk.client(GET).server(OK).frames[said_before:]))
    assert len(calls) == 1
    assert pipeline.earlier(calls.streams) == []
