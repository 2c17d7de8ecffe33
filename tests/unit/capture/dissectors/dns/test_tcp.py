"""Messages out of TCP streams, however they are cut."""

import itertools
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture import reassembly
from services.capture.dissectors.dns import Dns, DnsStream, DnsStreams, tcp


def query(id=1, padding=0):
    extra = b"\0" + struct.pack(">HHIH", 41, 1232, 0, padding) + bytes(padding)
    return struct.pack(">6H", id, 0x0100, 1, 0, 0, 1) + b"\1a\0\0\1\0\1" + extra


def framed(message):
    return struct.pack(">H", len(message)) + message


MESSAGES = [query(1), query(2, 700), query(3), b"", query(4, 40_000)]
WIRE = b"".join(framed(message) for message in MESSAGES)


@given(st.lists(st.integers(0, len(WIRE)), max_size=8))
def test_however_the_segments_are_cut(cuts):
    stream = DnsStream()
    edges = [0, *sorted(cuts), len(WIRE)]
    found = []
    for start, end in itertools.pairwise(edges):
        found += stream.receive(WIRE[start:end])
    assert found == MESSAGES
    assert stream.buffered == 0


def test_octet_by_octet():
    stream = DnsStream()
    short = framed(query(1)) * 3
    found = [message for at in range(len(short)) for message in stream.receive(short[at : at + 1])]
    assert found == [query(1)] * 3


def test_the_longest_message():
    stream = DnsStream()
    assert stream.receive(b"\xff\xff" + bytes(65_534)) == []
    assert stream.buffered < tcp.LONGEST_BUFFER
    assert stream.receive(b"\0") == [bytes(65_535)]


@pytest.mark.parametrize("after", [b"", b"\0", b"nonsense in the middle of a message", bytes(500)])
def test_after_a_gap_a_segment_must_begin_with_a_message(after):
    stream = DnsStream()
    assert stream.receive(framed(query(1))[:-3]) == []
    stream.gap()
    assert stream.receive(after) == []
    assert stream.receive(framed(query(2))) == [query(2)]
    assert stream.receive(framed(query(3))) == [query(3)]


def test_after_a_gap_a_message_may_go_on_in_the_next_segment():
    stream = DnsStream()
    stream.gap()
    octets = framed(query(2, 3000))
    assert stream.receive(octets[:1400]) == []
    assert stream.receive(octets[1400:]) == [query(2, 3000)]


def segment(stream, direction, kind, octets=b"", position=0, place=reassembly.IN_FRAMES):
    row = np.zeros(1, reassembly.SEGMENT)
    row["timestamp"], row["stream"], row["direction"] = 5, stream, 2 * 9 + direction
    row["kind"], row["position"], row["length"], row["place"] = kind, position, len(octets), place
    return row


def test_segments_become_calls(wire):
    asked, answered = framed(query(1)), bytearray(framed(query(1)))
    answered[4] |= 0x80
    frames = np.frombuffer(bytearray(b"???" + asked), np.uint8)
    held = np.frombuffer(answered, np.uint8)
    streams, dns = DnsStreams(), Dns()
    rows = [
        segment(7, 0, reassembly.OPENED),
        segment(7, 0, reassembly.DATA, asked[:5], 3),
        segment(7, 0, reassembly.DATA, asked[5:], 8),
        segment(7, 1, reassembly.DATA, answered, 0, reassembly.IN_HELD),
        segment(7, 0, reassembly.CLOSED),
        segment(7, 1, reassembly.ENDED),
        segment(8, 0, reassembly.DATA, asked[:9], 3),
        segment(8, 0, reassembly.GAP),
        segment(8, 0, reassembly.DATA, asked[9:], 12),
    ]
    streams.take(np.concatenate(rows), frames, held, dns)
    (entry,) = wire.entries(dns.calls())
    assert (entry["stream"], entry["direction"], entry["error_type"]) == (7, 0, None)
    assert entry["response"]["code"] == "NOERROR"


def test_begun_messages_of_all_streams_are_bounded(monkeypatch, wire):
    monkeypatch.setattr(tcp, "MOST_BUFFERED", 100)
    streams, dns = DnsStreams(), Dns()
    asked = framed(query(1))
    octets = np.frombuffer(bytearray(asked), np.uint8)
    nothing = np.zeros(0, np.uint8)

    def take(stream, part, position):
        streams.take(segment(stream, 0, reassembly.DATA, part, position), octets, nothing, dns)

    begun = range(1, 11)
    for stream in begun:
        take(stream, asked[:20], 0)
    for stream in begun:
        take(stream, asked[20:], 20)
    take(11, asked, 0)
    dns.end()
    found = [entry["stream"] for entry in wire.entries(dns.calls())]
    assert found[-1] == 11
    assert 1 <= len(found) < 10
