"""Calls a second of HTTP/2 and gRPC in long batches: what the kernels do, without begin and end.

Several connections, a segment for each request and each response, as many as a batch can have. CPU
time of this thread, best of some rounds, from the segments to the hot columns. `dissectors` calls
it; entries are not made.
"""

import time
from collections.abc import Iterator

import numpy as np
from hpack import Encoder

from services.capture.dissectors.dissector import IS_SERVER, Dissector
from services.capture.dissectors.http2.frames import PREFACE
from services.capture.dissectors.registry import PROTOCOLS
from services.capture.reassembly import DATA, IN_FRAMES, SEGMENT

CONNECTIONS = 16
CALLS = 8192  # of a batch
BODY = bytes(range(32, 127))
HOT = ("request_method", "request_url", "response_status", "protocol_abbr", "error_type")

Fields = list[tuple[str, str]]
ASK: Fields = [
    (":method", "GET"), (":scheme", "http"), (":authority", "shop.example:8080"),
    ("user-agent", "curl/8.5.0"), ("accept", "*/*"),
]  # fmt: skip
SAY: Fields = [
    (":status", "200"), ("server", "nginx/1.22.1"), ("date", "Mon, 23 Nov 2026 12:00:00 GMT"),
    ("content-type", "text/plain"), ("content-length", str(len(BODY))),
]  # fmt: skip
CALL_ASK: Fields = [
    (":method", "POST"), (":scheme", "http"), (":authority", "cart.shop:50051"),
    (":path", "/shop.Cart/Add"), ("te", "trailers"), ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.60"),
]  # fmt: skip
CALL_SAY: Fields = [(":status", "200"), ("content-type", "application/grpc")]
CALL_END: Fields = [("grpc-status", "0"), ("grpc-message", "")]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def message(octets: bytes) -> bytes:
    return b"\0" + len(octets).to_bytes(4, "big") + octets


class Talk:
    """Both sides of a connection."""

    def __init__(self, is_grpc: bool) -> None:
        self.is_grpc = is_grpc
        self.encoders = Encoder(), Encoder()
        self.stream = -1

    def call(self) -> tuple[bytes, bytes]:
        """Return the octets of the next request and of its response."""
        self.stream += 2
        of, ask, say = self.stream, *(each.encode for each in self.encoders)
        if self.is_grpc:
            body = frame(0, 1, of, message(b"\x0a\x20" + BODY[:32]))
            answer = frame(1, 4, of, say(CALL_SAY)) + frame(0, 0, of, message(BODY[:60]))
            return frame(1, 4, of, ask(CALL_ASK)) + body, answer + frame(1, 5, of, say(CALL_END))
        # Of a path and its number, an encoder adds all to its table.
        asked = frame(1, 5, of, ask([*ASK, (":path", f"/carts/{of * 7919 % 99991}?page=1")]))
        return asked, frame(1, 4, of, say(SAY)) + frame(0, 1, of, BODY)


def batch(said: list[tuple[int, int, bytes]], time_ns: int) -> tuple[np.ndarray, ...]:
    """Return rows of SEGMENT, marks and octets of (connection, side, octets)."""
    rows = np.zeros(len(said), SEGMENT)
    lengths = np.array([len(octets) for _, _, octets in said])
    sides = np.array([side for _, side, _ in said], np.uint8)
    connections = np.array([connection for connection, _, _ in said])
    rows["timestamp"] = time_ns + np.arange(len(said)) * 1000
    rows["position"], rows["length"] = np.cumsum(lengths) - lengths, lengths
    rows["stream"], rows["direction"] = connections + 1, 2 * connections + sides
    rows["kind"], rows["place"] = DATA, IN_FRAMES
    octets = np.frombuffer(bytearray(b"".join(octets for _, _, octets in said)), np.uint8)
    return rows, sides * np.uint8(IS_SERVER), octets


def batches(is_grpc: bool, count: int) -> Iterator[tuple[np.ndarray, ...]]:
    talks = [Talk(is_grpc) for _ in range(CONNECTIONS)]
    preface = PREFACE + frame(4, 0, 0, b"")
    said = [(number, 0, preface) for number in range(CONNECTIONS)]
    for turn in range(count):
        for number in range(CALLS):
            of = number % CONNECTIONS
            asked, answered = talks[of].call()
            said += [(of, 0, asked), (of, 1, answered)]
        yield batch(said, turn * 10**9)
        said = []


def new_dissector() -> Dissector:
    (kind,) = [each for each in PROTOCOLS if each.abbr == "HTTP/2"]
    return kind.new_dissector(kind, 2 * CONNECTIONS)


def measure(is_grpc: bool, rounds: int) -> tuple[float, float]:
    """Return (microseconds a call to take it, the same with its hot columns)."""
    dissector, nothing = new_dissector(), np.zeros(0, np.uint8)
    best = best_hot = float("inf")
    for rows, marks, octets in batches(is_grpc, rounds + 1):
        begun = time.thread_time()
        dissector.take(rows, marks, octets, nothing)
        calls = dissector.calls()
        taken = time.thread_time()
        assert calls is not None
        columns = calls.columns()
        for name in HOT:
            columns[name]()
        done = time.thread_time()
        assert len(calls) == CALLS
        best, best_hot = min(best, taken - begun), min(best_hot, done - begun)
    return best / CALLS * 1e6, best_hot / CALLS * 1e6


def report(rounds: int) -> None:
    print(f"\nIn long batches, on {CONNECTIONS} connections:\n")
    print("| protocol | calls/s | with hot columns |")
    print("|---|---|---|")
    for abbr, is_grpc in (("HTTP/2", False), ("gRPC", True)):
        each, hot = measure(is_grpc, rounds)
        print(f"| {abbr} | {1e6 / each:,.0f} | {1e6 / hot:,.0f} |", flush=True)


if __name__ == "__main__":
    report(5)
