"""Goes once through all that frames go through, before the first one comes. `app` calls it.

A kernel is compiled, or loaded from its cache, when it is first called. That takes minutes on a
new machine and tenths of a second on any other, in which the ring of a live source overruns; so the
agent says that it runs only after a small conversation of its own has passed through an engine.
"""

import struct
from collections.abc import Iterator

import numpy as np

import kfl
from services.capture.agent import Engine
from services.capture.assignments import ActiveRun, Assignment
from services.capture.dissectors.http2.frames import PREFACE
from services.capture.frames.batch import FRAME, FrameBatch
from services.capture.matching import Matcher
from services.capture.packetstore import choose, packets_table
from services.capture.payloads import without_payloads
from services.capture.sampling import WHOLE

BODY_LIMIT = 1024
START_NS = 1_000_000_000
STEP_NS = 1_000_000
LONG_NS = 86_400 * 10**9  # after which no stream is still followed
ETHERNET = 1
TCP, UDP = 6, 17
FIN, SYN, PUSH, ACK = 0x01, 0x02, 0x08, 0x10

REQUEST = b"POST /warm?up=1 HTTP/1.1\r\nHost: a\r\nCookie: b=c\r\nContent-Length: 2\r\n\r\n{}"
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nwar\r\n1\r\nm\r\n0\r\n\r\n"
)
_DNS_NAME = b"\4warm\2up\0"
_QUESTION = _DNS_NAME + struct.pack("!2H", 1, 1)
QUERY = struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + _QUESTION
UNANSWERED = struct.pack("!6H", 2, 0x0100, 1, 0, 0, 0) + _QUESTION
ANSWER = (
    struct.pack("!6H", 1, 0x8180, 1, 1, 0, 0)
    + _QUESTION
    + struct.pack("!3HIH4B", 0xC00C, 1, 1, 60, 4, 10, 0, 0, 1)
)


_SETTINGS = struct.pack("!I", 4) + bytes(5)
_ASK = b"\x83\x84\x86\x40\1a\x82\xb6\xbf"  # POST / of http, and a field in Huffman's code
_SAY = b"\x88"
REQUEST_2 = PREFACE + _SETTINGS + b"\0\0\x09\1\4\0\0\0\1" + _ASK + b"\0\0\2\0\1\0\0\0\1{}"
RESPONSE_2 = _SETTINGS + b"\0\0\1\1\4\0\0\0\1" + _SAY + b"\0\0\2\0\1\0\0\0\1{}"
HELLO = b"\x16\x03\1\0\x2d" + b"\1\0\0\x29\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0"
ALERT = b"\x15\3\3\0\2" + b"\2\x28"  # TLS: no handshake
PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"


def warm_up(engine: Engine) -> None:
    """Compile or load every kernel; `engine` is not to be used for anything else."""
    matcher = Matcher(engine.pipeline.most_streams)
    wanted = "gql or http or dns or redis or tls"
    assignment = Assignment("warm-up", 1, wanted, 0, 1 << 62, BODY_LIMIT)
    run = ActiveRun(assignment, kfl.compile(assignment.kfl), 0)
    matcher.begin(run)
    engine.pipeline.body_limit = BODY_LIMIT
    if engine.pipeline.sample is not None:
        engine.pipeline.sample["share"] = WHOLE  # else the conversation may go no way at all
    frames = list(_conversation())
    seen = np.zeros(0, np.int64)
    # Later, all streams have ended, and a query waits.
    for batch in (_batch(frames, START_NS), _batch(frames[:1], START_NS + LONG_NS)):
        calls = engine.pipeline.take(batch)
        streams = np.ascontiguousarray(engine.pipeline.packet_streams)
        engine.store.put(batch, streams)
        _keep(engine, matcher, run, calls)
        chosen = choose(batch, streams, np.flatnonzero(streams))
        packets_table(without_payloads(chosen), engine.pipeline.stream_ids, "")
        seen = np.union1d(seen, streams)
    _keep(engine, matcher, run, engine.pipeline.end())
    engine.pipeline.earlier(seen)
    engine.pipeline.make_room(1, START_NS)
    engine.pipeline.losses()


def _keep(engine: Engine, matcher: Matcher, run: ActiveRun, calls: list) -> None:  # type: ignore[type-arg]
    for _, numbers in matcher.match(calls, [run]).opened:
        engine.pipeline.streams_table(numbers, np.zeros(len(numbers), np.int64), numbers > 0)
        packets_table(engine.store.take(numbers), engine.pipeline.stream_ids, "")
        engine.store.losses(int(numbers[0]))


def _batch(frames: list[bytes], start_ns: int) -> FrameBatch:
    rows = np.zeros(len(frames), FRAME)
    ends = np.cumsum([len(frame) for frame in frames])
    rows["offset"][1:] = ends[:-1]
    rows["captured_length"] = rows["original_length"] = [len(frame) for frame in frames]
    rows["timestamp"] = start_ns + STEP_NS * np.arange(len(frames))
    rows["link_type"] = ETHERNET
    rows["interface"] = 1  # as on "any"
    return FrameBatch(np.frombuffer(bytearray(b"".join(frames)), np.uint8), rows)


def _conversation() -> Iterator[bytes]:
    """Yield frames: DNS queries, a call of HTTP/1 and one of HTTP/2, one of Redis whose first octet
    comes alone, a handshake of TLS, and a DNS query by TCP; all but one are answered.

    The last DNS query by UDP is in a VLAN and in two fragments.
    """
    yield _ip(UDP, 0, _udp(0, 53, UNANSWERED))
    yield _ip(UDP, 0, _udp(0, 53, QUERY))
    yield _ip(UDP, 1, _udp(1, 53, ANSWER))
    query = _udp(0, 53, QUERY)
    for fragment, part in ((0x2000, query[:16]), (2, query[16:])):
        frame = _ip(UDP, 0, part, fragment)
        yield frame[:12] + b"\x81\x00\x00\x05" + frame[12:]
    yield from _connection(80, REQUEST, RESPONSE)
    yield from _connection(8080, REQUEST_2, RESPONSE_2)
    yield from _connection(6379, PING, PONG, alone=1)
    yield from _connection(443, HELLO, ALERT)
    query, answer = (struct.pack("!H", len(message)) + message for message in (QUERY, ANSWER))
    yield from _connection(53, query, answer)


def _connection(port: int, request: bytes, response: bytes, *, alone: int = 0) -> Iterator[bytes]:
    """Yield a TCP connection: its opening, one message each way, and its end. So many octets of the
    request are a segment of their own.
    """
    next_octets = [100, 500]
    said = ((0, SYN, b""), (1, SYN | ACK, b""), (0, ACK, b""))
    for side, flags, data in (
        *said,
        (0, PUSH | ACK, request[:alone]),
        (0, PUSH | ACK, request[alone:]),
        (1, PUSH | ACK, response),
        (0, FIN | ACK, b""),
        (1, FIN | ACK, b""),
        (0, ACK, b""),
    ):
        mine, its = next_octets[side], next_octets[1 - side]
        ports = (40000 + port, port)
        yield _ip(
            TCP,
            side,
            struct.pack(
                "!2H2I2B3H", ports[side], ports[1 - side], mine, its if flags & ACK else 0,
                5 << 4, flags, 65535, 0, 0,
            ) + data,
        )  # fmt: skip
        next_octets[side] += len(data) + bool(flags & (SYN | FIN))


def _udp(side: int, port: int, data: bytes) -> bytes:
    ports = (40000 + port, port)
    return struct.pack("!4H", ports[side], ports[1 - side], 8 + len(data), 0) + data


def _ip(protocol: int, side: int, payload: bytes, fragment: int = 0) -> bytes:
    """Return an Ethernet frame from one of two ends; side 0 is the client."""
    ends = (b"\12\0\0\1", b"\12\0\0\2")
    header = struct.pack("!2B3H2BH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0)
    return bytes(12) + b"\x08\x00" + header + ends[side] + ends[1 - side] + payload
