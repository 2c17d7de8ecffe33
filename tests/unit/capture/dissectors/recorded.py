"""Streams of golden captures, read without the engine: Ethernet, IPv4 and IPv6, nothing missing.

What decoding and reassembly do is tested elsewhere.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.headers import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
)

CAPTURES = Path(__file__).parents[3] / "golden" / "captures"
NO_PORTS = PROTOCOL_ICMP, PROTOCOL_ICMPV6


class Stream(NamedTuple):
    """What was said in one stream, in its order."""

    protocol: int
    """Number in the IP header."""
    port: int
    """Of the server, whom the first packet went to."""
    said: list[tuple[int, bytes, int]]
    """Side, octets, time in ns: segments of TCP, datagrams of UDP, messages of ICMP, and packets of
    SCTP with their header."""


def streams(name: str) -> list[Stream]:
    """Return the streams of a capture in the order in which they began; see CAPTURES."""
    found: dict[tuple[int, frozenset[tuple[bytes, int]]], Stream] = {}
    client: dict[tuple[int, frozenset[tuple[bytes, int]]], tuple[bytes, int]] = {}
    for time_ns, frame in _frames(CAPTURES / name):
        protocol, source, target, packet = _ip(frame)
        ports = (0, 0) if protocol in NO_PORTS else struct.unpack_from(">HH", packet)
        ends = (source, ports[0]), (target, ports[1])
        key = protocol, frozenset(ends)
        client.setdefault(key, ends[0])
        side = CLIENT if client[key] == ends[0] else SERVER
        stream = found.setdefault(key, Stream(protocol, ports[1], []))
        if payload := _payload(protocol, packet):
            stream.said.append((side, payload, time_ns))
    return [each for each in found.values() if each.said]


def connections(name: str, port: int) -> list[list[tuple[int, bytes, int]]]:
    """Return what was said in each stream to a port."""
    return [each.said for each in streams(name) if each.port == port]


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    data, at = path.read_bytes(), 24
    assert data[:4] == b"\xd4\xc3\xb2\xa1", "microseconds, little endian"
    assert data[20:24] == b"\x01\0\0\0", "Ethernet"
    while at < len(data):
        seconds, micros, length, whole = struct.unpack_from("<IIII", data, at)
        assert length == whole
        yield (seconds * 10**6 + micros) * 1000, data[at + 16 : at + 16 + length]
        at += 16 + length


def _ip(frame: bytes) -> tuple[int, bytes, bytes, bytes]:
    ip = frame[14:]
    if ip[0] >> 4 == 4:
        head = (ip[0] & 15) * 4
        return ip[9], ip[12:16], ip[16:20], ip[head : int.from_bytes(ip[2:4], "big")]
    return ip[6], ip[8:24], ip[24:40], ip[40 : 40 + int.from_bytes(ip[4:6], "big")]


def _payload(protocol: int, packet: bytes) -> bytes:
    if protocol == PROTOCOL_TCP:
        return packet[(packet[12] >> 4) * 4 :]
    if protocol == PROTOCOL_UDP:
        return packet[8:]
    assert protocol in (*NO_PORTS, PROTOCOL_SCTP)
    return packet
