"""Many connections at once: what is kept of them, what has an end, and what columns say."""

from dataclasses import replace

import numpy as np
import pytest
from hpack import Encoder

from services.capture.dissectors.http1.handover import Asked
from services.capture.dissectors.http2.entries import Http2Dissector
from services.capture.dissectors.http2.frames import PREFACE
from services.capture.dissectors.http2.rows import CONNECTION, new_connections
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.reassembly import DATA, ENDED, OPENED, SEGMENT
from tests.unit.capture.dissectors.http2.one import KIND, NOTHING, HeaderReader
from tests.unit.capture.dissectors.http2.wire import (
    REQUEST,
    RESPONSE,
    Talk,
    data,
    frame,
    message,
    settings,
)

FLOWS = 8


class Node:
    """A dissector with little room, and what it told of."""

    def __init__(self, streams=64, arena_octets=1 << 20) -> None:
        self.dissector = Http2Dissector(KIND, FLOWS)
        self.state = new_connections(FLOWS, streams, arena_octets)
        self.dissector._state = self.state
        self.told = []

    def take(self, *said: tuple[int, int, bytes], kind=DATA) -> None:
        """Take a batch of (stream of packets, side, octets)."""
        rows = np.zeros(len(said), SEGMENT)
        rows["stream"] = [stream for stream, _, _ in said]
        sides = np.array([side for _, side, _ in said])
        rows["direction"] = rows["stream"] % FLOWS * 2 + sides
        rows["length"] = [len(octets) for _, _, octets in said]
        rows["position"] = np.cumsum(rows["length"]) - rows["length"]
        rows["kind"], rows["timestamp"] = kind, np.arange(len(said)) + 1
        octets = np.frombuffer(bytearray(b"".join(each for _, _, each in said)), np.uint8)
        self.dissector.take(rows, sides.astype(np.uint8), octets, NOTHING)

    def calls(self):
        calls = self.dissector.calls()
        if calls is not None:
            self.told += [calls.exchange(row) for row in range(len(calls))]
        return calls

    def play(self, stream: int, talk: Talk) -> None:
        """Take all that was said, a batch for each segment."""
        for side, octets in talk.said:
            self.take((stream, side, octets))
            self.calls()
        talk.said.clear()


def urls(node):
    return [(each.request or {}).get("url") for each in node.told]


def asks(path: str) -> list[tuple[str, str]]:
    return [*REQUEST[:3], (":path", path)]


def test_what_is_open_outlives_many_rounds_of_the_ring():
    node, watch, other = Node(), Talk(), Talk()
    watch.headers(CLIENT, 1, asks("/watch?" + "x" * 3000)).client(data(1, b"body" * 1000, True))
    watch.headers(SERVER, 1, [*RESPONSE, ("x-kept", "y" * 3000)])
    half = watch.block(CLIENT, asks("/half"))
    watch.client(frame(1, 1, 3, half[:9]))
    node.play(1, watch)
    for number in range(60):
        node.play(2, other.asks(2 * number + 1, asks("/x"), bytes(60_000)).answers(2 * number + 1))
    assert int(node.state.arena.write[0]) > 3 * len(node.state.arena.octets)
    assert urls(node) == ["/x"] * 60
    node.play(1, watch.server(data(1, b"end", True)))
    last = node.told[-1]
    assert last.request["url"] == "/watch?" + "x" * 3000
    assert last.request["body"] == "body" * 1000
    assert dict(last.response["headers"])["x-kept"] == "y" * 3000
    assert node.dissector.overrun == 0
    node.play(1, watch.client(frame(9, 4, 3, half[9:])).answers(3))
    assert node.told[-1].request["url"] == "/half"


def test_what_was_overwritten_before_somebody_took_it_is_counted():
    node, talk = Node(), Talk()
    for number in range(80):
        talk.asks(2 * number + 1, asks(f"/{number}"), bytes(60_000)).answers(2 * number + 1)
    node.take(*((1, side, octets) for side, octets in talk.said))
    calls = node.calls()
    assert 0 < len(calls) < 80
    assert node.dissector.overrun == 80 - len(calls)
    assert urls(node) == [f"/{number}" for number in range(80 - len(calls), 80)]


def test_more_streams_than_rows():
    node, talks = Node(streams=64), [Talk() for _ in range(4)]
    for number in range(40):
        for stream, talk in enumerate(talks, 1):
            node.play(stream, talk.asks(2 * number + 1, asks(f"/{stream}/{number}")))
    for stream in range(1, 5):
        node.take((stream, CLIENT, b""), kind=ENDED)
    node.calls()
    assert sorted(urls(node)) == sorted(f"/{s}/{n}" for s in range(1, 5) for n in range(40))
    assert {each.error_type for each in node.told} == {"timeout", "pair-not-found"}
    assert node.dissector.overrun == 0


def test_open_streams_keep_a_part_of_the_arena_at_most():
    node = Node(streams=512)
    for stream in range(1, 6):
        talk = Talk()
        for number in range(8):
            talk.headers(CLIENT, 2 * number + 1, REQUEST).client(
                data(2 * number + 1, bytes(60_000))
            )
        node.play(stream, talk)
    assert int(node.state.totals["live"][0]) <= len(node.state.arena.octets) // 4 + 70_000
    assert {each.error_type for each in node.told} == {"timeout"}


def test_frames_that_are_never_whole_keep_little():
    node = Node()
    for stream in range(1, 8):
        node.take((stream, CLIENT, PREFACE + settings() + frame(1, 0, 1, bytes(60_000))[:-1]))
    assert int(node.state.totals["waiting"][0]) <= len(node.state.arena.octets) // 16 + 60_000


def test_more_connections_than_rows():
    node = Node()
    node.state = node.state._replace(connections=np.zeros(2, CONNECTION))
    node.dissector._state = node.state
    for stream in range(1, 4):
        node.play(stream, Talk().asks(1, asks(f"/{stream}")).answers(1))
    assert urls(node) == ["/1", "/2"]
    assert (node.dissector.broken, node.dissector.overrun) == ([3], 1)
    node.take((1, CLIENT, b""), kind=ENDED)
    node.play(4, Talk().asks(1, asks("/4")).answers(1))
    assert urls(node) == ["/1", "/2", "/4"]


def test_the_next_stream_of_a_flow_is_another_connection():
    node = Node()
    node.play(1, Talk().asks(1, asks("/first")))
    node.take((1 + FLOWS, CLIENT, b""), kind=OPENED)
    node.play(1 + FLOWS, Talk().asks(1, asks("/second")).answers(1))
    assert urls(node) == ["/first", "/second"]
    assert node.told[0].error_type == "pair-not-found"


def test_streams_of_other_protocols_are_refused_and_broken_ones_told():
    node = Node()
    node.take((1, CLIENT, frame(6, 0, 0, b"ping")), (1, SERVER, settings()))
    node.play(2, Talk().asks(1, asks("/good")).client(frame(6, 0, 0, b"ping")).answers(1))
    assert (node.dissector.refused, node.dissector.broken) == ([1], [2])
    assert urls(node) == ["/good"]
    assert node.told[0].response is None


def test_calls_are_remembered_until_their_octets_are_gone():
    node, talk = Node(), Talk()
    node.take(*((1, *each) for each in talk.asks(1, asks("/a")).answers(1).said))
    node.take(*((2, *each) for each in Talk().asks(1, asks("/b")).answers(1).said))
    node.dissector.remember(node.calls(), np.array([7, 8], np.int32))
    found, indexes = node.dissector.earlier(np.array([2, 5]))
    assert [found.exchange(0).request["url"], *indexes.tolist()] == ["/b", 8]
    assert node.dissector.earlier(np.array([5])) is None
    other = Talk()
    for number in range(30):
        node.play(3, other.asks(2 * number + 1, REQUEST, bytes(60_000)).answers(2 * number + 1))
    assert node.dissector.earlier(np.array([1, 2])) is None


def said_of_all_kinds():
    talk = Talk().asks(1).answers(1, [*RESPONSE, ("x", "1"), ("x", "2"), ("x-u", "ü")])
    talk.asks(3, [(":method", "CONNECT"), (":authority", "shop:443")]).answers(3)
    talk.asks(5, [*asks("/p"), ("cookie", "a=1"), ("cookie", "b=2")], b"q")
    talk.server(frame(3, 0, 5, b"\0\0\0\x07")).headers(SERVER, 7, [(":status", "x")], True)
    call = [*asks("/shop.Cart/Add"), ("content-type", "application/grpc")]
    talk.asks(9, call, message(b"\x0a\x05hello"))
    return talk.answers(9, [*RESPONSE[:1], call[-1]], message(b""), [("grpc-status", "0")])


def test_hot_columns_say_what_entries_say():
    node = Node()
    node.take(*((1, side, octets) for side, octets in said_of_all_kinds().said))
    node.take((1, CLIENT, b""), kind=ENDED)
    calls = node.calls()
    assert len(calls) == 5
    rows = np.arange(len(calls))
    columns, details = calls.columns(), calls.details(rows)
    for name in ("request_method", "request_url", "request_path", "error_type", "protocol_abbr"):
        assert columns[name]().to_pylist() == details[name].to_pylist(), name
    statuses = [-1 if each is None else each for each in details["response_status"].to_pylist()]
    assert columns["response_status"]().tolist() == statuses
    for side in ("request", "response"):
        bodies = columns[f"{side}_body"]()(rows).to_pylist()
        assert bodies == details[f"{side}_body"].to_pylist()
    assert columns["response_headers"]("x").to_pylist()[0] == "1, 2"
    assert columns["request_headers"]("cookie").to_pylist().count("a=1; b=2") == 1
    assert columns["request_headers"](":authority").to_pylist()[1] == "shop:443"


def test_a_larger_table_is_known_whole_where_there_is_room():
    fields = [(f"x-{number}", f"{number}" * 40) for number in range(400)]
    for has_room in (True, False):
        encoder, reader = Encoder(), HeaderReader()
        if not has_room:
            reader.state.totals["free_large"] = 0
        encoder.header_table_size = 1 << 16
        assert reader.read(encoder.encode(fields)) == fields
        found = reader.read(encoder.encode(fields))
        assert (found == fields) is has_room
        for mine, pair in zip(found, fields, strict=True):
            assert mine in (pair, ("<unknown>", "<unknown>"))
        assert found[-1] == fields[-1]


@pytest.mark.parametrize("octets", [b"\xbe" * 60_000, b"\x7e\x00" * 30_000, b"\xfe\x00" * 30_000])
def test_blocks_that_name_long_fields_again_and_again_are_not_listed_for_ever(octets):
    node, talk = Node(), Talk()
    long = talk.encoders[CLIENT].encode([("x" * 2000, "y" * 2000)], huffman=False)
    node.take((1, CLIENT, PREFACE + settings() + frame(1, 5, 1, long)))
    begun = int(node.state.arena.write[0])
    for number in range(200):
        node.take((1, CLIENT, frame(1, 5, 2 * number + 3, octets[:100])))
    node.calls()
    # What a connection may have listed at once, and what its octets add.
    assert int(node.state.arena.write[0]) - begun < (1 << 22) + 200 * 64 * 150


ASKED = Asked([*asks("/up"), ("x", "y" * 300), ("a b", "")], 77, b"hello", 9, 100, 200)


@pytest.mark.parametrize("asked", [ASKED, replace(ASKED, body=b"", body_size=0), None])
def test_a_connection_that_http1_was_upgraded_to(asked):
    node, talk = Node(), Talk()
    assert node.dissector.take_over(3, 0, asked)
    node.play(4, Talk().asks(1, asks("/other")).answers(1))
    node.play(3, talk.answers(1).asks(3, asks("/next")).answers(3))
    node.take((3, CLIENT, b""), kind=ENDED)
    node.calls()
    first, second = sorted(node.told[1:], key=lambda each: each.response["streamId"])
    assert (second.request["url"], second.response["status"]) == ("/next", 200)
    assert first.response["body"] == "hello"
    if asked is None:
        assert first.error_type == "pair-not-found"
        return
    assert first.request["headers"] == asked.fields[:-1]
    assert (first.request["headersSize"], first.request["bodySize"]) == (77, asked.body_size)
    assert first.request.get("bodyTruncated", False) is (asked.body_size > 0)
    assert (first.start_ns, first.request_size) == (100, 77 + asked.body_size)


def test_the_body_limit_may_change():
    node, talk = Node(), Talk()
    for number, limit in enumerate((8, 0, 3)):
        node.dissector.body_limit = limit
        node.play(1, talk.asks(2 * number + 1, body=b"question").answers(2 * number + 1))
    first, none, short = node.told
    assert (first.request["body"], "bodyTruncated" in first.request) == ("question", False)
    assert "body" not in none.request
    assert (short.request["body"], short.request["bodyTruncated"]) == ("que", True)


def test_graphql_is_told():
    node, talk = Node(), Talk()
    json = [*asks("/graphql"), ("content-type", "application/json")]
    talk.asks(1, json, b'{"query": "query Cart { items }"}').answers(1)
    talk.asks(3, json, b'{"a": 1}').answers(3).asks(5, asks("/graphql?query={items}")).answers(5)
    node.take(*((1, side, octets) for side, octets in talk.said))
    calls = node.calls()
    assert calls.columns()["protocol_abbr"]().to_pylist() == ["GQL", "HTTP/2", "GQL"]
    assert [each.abbr for each in node.told] == ["GQL", "HTTP/2", "GQL"]
    assert node.told[0].request["gqlOperationName"] == "Cart"
