"""Conversations of many kinds, made by chance, in tunnels and fragments; and how to damage them."""

import itertools
import struct

import numpy as np

from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

QUERY = bytes.fromhex("12340100000100000000000001610000010001")
ANSWER = bytes.fromhex("12348180000100010000000001610000010001c00c000100010000003c000401020304")
HEADERS = b"Host: a\r\nX: \xc3\xa4\r\nCookie: b=c\r\nContent-Type: text/plain\r\n"
GET = b"GET /p?q=1 HTTP/1.1\r\n" + HEADERS + b"\r\n"
POST = b"POST /p HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n1\r\nx\r\n00a\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"
)
OK = b"HTTP/1.1 200 OK\r\n" + HEADERS + b"Content-Length: 3\r\n\r\nabc"

SWITCHES = [
    b"HTTP/1.1 101 Switch\r\n\r\n\0\1\2",
    b"HTTP/1.1 101 Switch\r\nUpgrade: websocket\r\n\r\n\x81\5hello",
    b"HTTP/1.1 101 Switch\r\nUpgrade: h2c\r\n\r\n\0\0\0\4\0\0\0\0\0",
    b"HTTP/1.1 200 OK\r\n\r\n\x16\3\1\0\5hello",
]
"""After them both sides may speak another protocol."""

# What ends a frame, and what a reader that forgets a length would read beyond.
STATUS_LINES = [
    b"HTTP\n",
    b"HTTP/1.1\n",
    b"HTTP/1.1 2\n",
    b"HTTP/1.1 20",
    b"HTTP/1.1 200\n\n",
    b"HT",
]
REQUEST_LINES = [
    b"GET /\n",
    b"G\n",
    b"GET",
    b"\n\n\n",
    b"HTTP/1.1\r\n",
    b"GET / HTTP/1.1\n\n",
    b"\r",
]
FIELDS = [
    b"content-length\n",
    b"Content-Length:",
    b"Transfer-Encoding:chunked",
    b"a\r",
    b":",
    b"\r",
]
EXTENSIONS = {
    0: bytes([6, 0]) + bytes(6),
    43: bytes([60, 0]) + bytes(6) + bytes([6, 1]) + bytes(14),
    44: bytes([6]) + bytes(7),
    51: bytes([6, 4]) + bytes(22),
}


def http(random, talk):
    answer = [OK, CHUNKED, OK.replace(b"Content-Length: 3", b"X: y"), OK[:17] + b"\r\n"]
    size = int(random.choice([1, 7, 64, 1460]))
    for _ in range(random.integers(1, 4)):
        asked = GET if random.random() < 0.5 else POST
        many = int(random.integers(1, 4))
        talk.client(asked * many, max(size, 7))
        talk.server(bytes(answer[random.integers(len(answer))]) * many, max(size, 7))
    return talk.close() if random.random() < 0.5 else talk.reset("client")


def ends(random, talk):
    """Heads that end with their frame."""
    talk.client(b"GET / HTTP/1.1\r\n" + FIELDS[random.integers(len(FIELDS))])
    talk.client(REQUEST_LINES[random.integers(len(REQUEST_LINES))])
    for _ in range(3):
        talk.server(STATUS_LINES[random.integers(len(STATUS_LINES))])
    return talk.skip("server", int(random.integers(1, 9))).server(OK)


def other(random, talk):
    first = [
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"\x16\x03\1",
        b"PRI * HTTP/2.0",
    ][random.integers(4)]
    switch = SWITCHES[random.integers(len(SWITCHES))]
    talk.client(first).server(b"HTTP/1.1 100 Continue\r\n\r\n" + switch)
    talk.client([b"any", b"\x81\x80\0\0\0\0", b"GET / HTTP/1.1\r\n\r\n"][random.integers(3)])
    return talk.server(b"thing")


def dns_over_tcp(random, talk):
    size = int(random.choice([1, 5, 1460]))
    for _ in range(2):
        talk.client(len(QUERY).to_bytes(2, "big") + QUERY, size)
        talk.server(len(ANSWER).to_bytes(2, "big") + ANSWER, size)
    return talk


def tcp_talk(random):
    kind = [http, http, ends, other, dns_over_tcp][random.integers(5)]
    port = 53 if kind is dns_over_tcp else 80
    client, server = [("10.0.0.1", "10.0.0.2"), ("10.0.0.9", "10.0.0.2"), ("fd00::1", "fd00::2")][
        random.integers(3)
    ]
    talk = Conversation(
        client, server, int(random.integers(1024, 1040)), port,
        first=tuple(int(each) for each in random.integers(0, 2**32, 2)),
        vlans=(5, 6, 7)[: random.integers(4)],
    )  # fmt: skip
    if random.random() < 0.9:
        talk.open()
    frames = kind(random, talk).frames
    if ":" in client and random.random() < 0.5:
        number = list(EXTENSIONS)[random.integers(len(EXTENSIONS))]
        frames = [extended(frame, len(talk.vlans), number) for frame in frames]
    return frames


def extended(frame, vlans, number):
    """An IPv6 frame with extension headers."""
    at = 14 + 4 * vlans
    more = EXTENSIONS[number]
    size = struct.unpack_from("!H", frame, at + 4)[0] + len(more)
    header = frame[at : at + 4] + struct.pack("!HB", size, number) + frame[at + 7 : at + 40]
    return frame[:at] + header + more + frame[at + 40 :]


def datagrams(random):
    port = int(random.choice([53, 5353, 8053, 137]))
    a, b = ("10.0.0.1", "10.0.0.3") if random.random() < 0.5 else ("fd00::1", "fd00::3")
    build = wire.ipv6 if ":" in a else wire.ipv4
    there = build(a, b, 17, wire.udp(4000, port, QUERY))
    back = build(b, a, 17, wire.udp(port, 4000, ANSWER))
    return [wire.ethernet(each, (5,) * random.integers(3)) for each in (there, there, back, back)]


def label(number, last):
    return (number << 12 | last << 8 | 64).to_bytes(4, "big")


def carriers(random, ends):
    """Functions that put a frame into a tunnel between two addresses of IPv4."""
    vni = int(random.integers(4)) << 8

    def over_udp(port, header):
        return lambda frame: wire.ethernet(wire.ipv4(*ends, 17, wire.udp(9, port, header + frame)))

    def over_gre(header, skipped):
        return lambda frame: wire.ethernet(wire.ipv4(*ends, 47, header + frame[skipped:]))

    def over_ip(frame):
        number = 41 if frame[14] >> 4 == 6 else 4
        return wire.ethernet(wire.ipv4(*ends, number, frame[14:]))

    def over_pppoe(frame):
        kind = b"\0\x57" if frame[14] >> 4 == 6 else b"\0\x21"
        session = struct.pack("!HHH", 0x1100, 5, len(frame) - 12) + kind
        return frame[:12] + b"\x88\x64" + session + frame[14:]

    return [
        over_udp(4789, b"\x08\0\0\0" + struct.pack("!I", vni)),
        over_udp(8472, b"\x08\0\0\0" + struct.pack("!I", vni)),
        over_udp(6081, b"\x03\0\x65\x58\0\0\x09\0" + bytes(12)),
        over_udp(6081, b"\x01\0\x65\x58\0\0\x09\0\x01\x02\0\0"),
        over_gre(b"\0\0\x65\x58", 0),
        over_gre(b"\xb0\0\x65\x58" + bytes(12), 0),
        over_gre(b"\x10\0\x88\xbe" + bytes(4) + b"\x10\0\0\x05" + bytes(4), 0),
        over_gre(b"\0\0\x88\x47" + label(5, 0) + label(6, 1), 14),
        over_ip,
        over_pppoe,
        lambda frame: frame[:12] + b"\x88\x47" + label(5, 1) + frame[14:],
        lambda frame: frame[:12] + b"\x88\x47" + label(5, 1) + bytes(4) + frame,
    ]


def carried(random, frames, ends=("10.1.0.1", "10.1.0.2")):
    """The frames, perhaps in one tunnel or two, perhaps in fragments."""
    for _ in range(2):
        if random.random() < 0.3 and all(frame[12] in (8, 0x86) for frame in frames):
            kinds = carriers(random, ends)
            carry = kinds[random.integers(len(kinds))]
            frames = [carry(frame) for frame in frames]
    if random.random() < 0.3:
        frames = [part for frame in frames for part in in_fragments(random, frame)]
    return frames


identifications = itertools.cycle(range(1 << 16))


def in_fragments(random, frame):
    if frame[12:14] not in (b"\x08\0", b"\x86\xdd") or frame[20] in (0, 43, 44, 51):
        return [frame]
    length = len(frame) - (54 if frame[12] == 0x86 else 34)
    cuts = random.permutation(np.arange(8, max(length, 8), 8))[: random.integers(1, 4)]
    parts = wire.fragments(frame[14:], sorted(cuts.tolist()), next(identifications))
    return [frame[:14] + parts[index] for index in random.permutation(len(parts))]


def mutated(random, frame):
    """The frame with some octets changed, most of them in the headers, and perhaps cut."""
    octets = bytearray(frame)
    for _ in range(random.integers(0, 4)):
        at = random.integers(len(octets) if random.random() < 0.5 else min(len(octets), 150))
        octets[at] = random.choice([0, 1, 0xFF, 10, 13, 58, random.integers(256)])
    if random.random() < 0.3:
        del octets[random.integers(len(octets) + 1) :]
    return bytes(octets)


def shuffled(random, frames):
    """The frames with some of them lost, doubled, or early."""
    frames = [each for each in frames if random.random() < 0.95]
    for _ in range(random.integers(0, 3)):
        at, to = random.integers(0, len(frames) + 1, 2)
        frames[at:at] = frames[to : to + 1]
        if random.random() < 0.7 and to < len(frames):
            del frames[to]
    return frames
