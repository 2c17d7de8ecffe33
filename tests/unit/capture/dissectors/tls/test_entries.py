"""Columns of TLS at once, entries late, and many streams that share the room for their octets."""

import numpy as np
import orjson
import pytest

from services.capture.dissectors.dissector import IS_SERVER
from services.capture.dissectors.tls import entries
from services.capture.reassembly import DATA, ENDED, OPENED
from tests.unit.capture.dissectors.tls import hellos
from tests.unit.capture.dissectors.tls.handshake import (
    NOTHING,
    exchanges_of,
    new_dissector,
    rows_of,
)
from tests.unit.capture.dissectors.tls.hellos import record
from tests.unit.capture.dissectors.tls.test_handshake import DER, FULL, HELLO, MODERN, RESUMED

STRANGE = [
    (0, record(hellos.client_hello([0x1301], [hellos.sni("a\u00e9" + "x" * 300)]))),
    (1, hellos.alert(2, 40)),
]


class Wire:
    """Segments of streams in the order in which they came."""

    def __init__(self, flows=64, arena=1 << 20):
        self.dissector = new_dissector(flows, arena)
        self.rows, self.octets, self.now = [], bytearray(), 0

    def say(self, stream, side, octets, kind=DATA, flow=None):
        self.now += 1
        row = rows_of(side, stream, self.now, kind, len(octets), len(self.octets))
        row["direction"] = 2 * (stream if flow is None else flow) + side
        self.rows.append(row)
        self.octets += octets
        return self

    def play(self, stream, said, flow=None):
        for side, octets in said:
            self.say(stream, side, octets, flow=flow)
        return self

    def end(self, stream):
        return self.say(stream, 0, b"", ENDED)

    def calls(self):
        if self.rows:
            rows = np.concatenate(self.rows)
            marks = (rows["direction"] & 1).astype(np.uint8) * IS_SERVER
            octets = np.frombuffer(bytearray(self.octets or b"x"), np.uint8)
            self.dissector.take(rows, marks, octets, NOTHING)
            self.rows, self.octets = [], bytearray()
        return self.dissector.calls()


def hot(calls, name):
    return calls.columns()[name]().to_pylist()


def test_hot_columns_say_what_the_entries_say():
    wire = Wire()
    for stream, said in enumerate((FULL, RESUMED, MODERN, STRANGE, FULL[:1], FULL[1:2]), 1):
        wire.play(stream, said).end(stream)
    calls = wire.calls()
    shown = exchanges_of(calls)
    for name in ("request.sni", "response.alpn", "response.version", "response.cipherSuite"):
        side, key = name.split(".")
        assert hot(calls, name) == [(getattr(e, side) or {}).get(key) for e in shown], name
    assert hot(calls, "error_type") == [e.error_type for e in shown]
    assert hot(calls, "protocol_version") == [e.version for e in shown]
    assert hot(calls, "request.sni")[3].startswith("a\\xc3\\xa9xxx")


def test_no_json_is_made_for_hot_columns(monkeypatch):
    monkeypatch.setattr(entries, "client_hello", None)
    calls = Wire().play(1, FULL).calls()
    assert hot(calls, "request.sni") == ["shop.example"]
    assert (calls.request_size[0], calls.response_size[0] > 300) == (len(record(HELLO)), True)


def test_streams_that_alternate_octet_by_octet():
    wire = Wire(arena=1 << 22)
    sides = [b"".join(octets for who, octets in FULL[:2] if who == side) for side in (0, 1)]
    for side, octets in enumerate(sides):
        for octet in octets:
            for stream in range(1, 21):
                wire.say(stream, side, bytes([octet]))
    for stream in range(1, 21):
        wire.play(stream, FULL[2:])
    shown = exchanges_of(wire.calls())
    assert len(shown) == 20
    assert all(each.response["certificates"][0]["sans"] for each in shown)
    assert all(each.request == shown[0].request for each in shown)
    assert wire.dissector._framer.arena.write[0] < 4 * 20 * sum(map(len, sides))


def test_more_handshakes_than_are_given_at_once():
    wire = Wire(flows=16, arena=1 << 22)
    for stream in range(1, 10_001):
        wire.play(stream, MODERN[:2], flow=stream % 16)
    calls = wire.calls()
    assert sorted(calls.streams.tolist()) == list(range(1, 9_985))  # the next one ends the last
    assert set(hot(calls, "request.sni")) == {"shop.example"}


def test_the_next_stream_of_a_flow_ends_the_one_before():
    wire = Wire().say(1, 0, FULL[0][1])
    wire.say(2, 0, b"", OPENED, flow=1)
    (exchange,) = exchanges_of(wire.calls())
    assert exchange.error_type == "pair-not-found"


def test_after_the_handshake_nothing_is_kept():
    wire = Wire().play(1, MODERN)
    wire.calls()
    kept = int(wire.dissector._framer.arena.write[0])
    assert wire.dissector.over == [1]
    for _ in range(100):
        wire.say(1, 0, record(bytes(1000), 23)).say(1, 1, b"no record at all")
    assert wire.calls() is None
    assert (wire.dissector.over, wire.dissector.broken) == ([1], [])
    assert wire.dissector._framer.arena.write[0] == kept


def test_one_bad_stream_ends_alone():
    wire = Wire().play(1, FULL[:1]).play(2, FULL[:1])
    wire.say(1, 1, b"HTTP/1.1 400 Bad Request\r\n\r\n").play(2, FULL[1:])
    bad, good = exchanges_of(wire.calls())
    assert (bad.error_type, good.error_type) == ("pair-not-found", None)
    assert (wire.dissector.broken, wire.dissector.over) == ([1], [2])


def test_what_is_overwritten_is_counted():
    wire = Wire(arena=1 << 12)
    wire.play(1, FULL[:1])
    for stream in range(2, 40):
        wire.play(stream, FULL)
        wire.calls()
    wire.play(1, MODERN[1:])
    (exchange,) = exchanges_of(wire.calls())
    assert (exchange.request, exchange.error_type) == (None, "timeout")
    assert exchange.response["version"] == "TLS 1.3"
    assert wire.dissector.overrun == 1


def test_a_hello_that_is_overwritten_before_it_is_whole():
    wire = Wire(arena=1 << 12).say(1, 0, FULL[0][1][:60])
    for stream in range(2, 40):
        wire.play(stream, FULL)
        wire.calls()
    wire.say(1, 0, FULL[0][1][60:]).end(1)
    (exchange,) = exchanges_of(wire.calls())
    assert exchange.request["sni"] == ""
    assert exchange.error_type == "pair-not-found"


def test_what_is_remembered_can_be_had_as_long_as_it_is_kept():
    wire = Wire(arena=1 << 12).play(1, FULL)
    wire.dissector.remember(wire.calls(), np.array([7], np.int32))
    calls, indexes = wire.dissector.earlier(np.array([1, 5]))
    assert (indexes.tolist(), calls.streams.tolist()) == ([7], [1])
    assert exchanges_of(calls)[0].request["sni"] == "shop.example"
    assert wire.dissector.earlier(np.array([2])) is None
    for stream in range(2, 40):
        wire.play(stream, FULL)
        wire.calls()
    assert wire.dissector.earlier(np.array([1])) is None


@pytest.mark.parametrize("fault", [ValueError, KeyError])
def test_a_mistake_of_ours_costs_one_text_and_is_counted(monkeypatch, fault):
    def fail(*_):
        raise fault

    calls = Wire().play(1, FULL).play(2, MODERN).calls()
    monkeypatch.setattr(entries, "chain", fail)
    shown = calls.details(np.arange(2))
    assert orjson.loads(shown["response"][0].as_py()) == {}
    assert orjson.loads(shown["response"][1].as_py())["version"] == "TLS 1.3"
    assert [*calls._faults.values()] == [1]
    assert DER not in shown["response"][0].as_py().encode()
