# mypy: ignore-errors
"""Whose a stream is after HTTP/1: of what it was upgraded to, or of what is in a proxy's tunnel.

The pipeline asks when framing has ended calls that say so, and tells `recognition`. Both are rare:
here is time to read heads once more.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from services.capture.dissectors.http1.bodies import body_offsets, gather_bodies
from services.capture.dissectors.http1.exchange import SWITCHING_PROTOCOLS
from services.capture.dissectors.http1.rows import Framer, is_message_kept, message_row

# Those of the connection alone (RFC 9110, 7.6.1; RFC 7540, 3.2.1), and what :authority says.
NOT_OF_STREAM_1 = {"connection", "upgrade", "http2-settings", "keep-alive", "host"}

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Handover:
    """From some octet on, both sides of a stream are of another protocol."""

    row: int
    """Of the segment that ends HTTP."""
    position: int
    """Of what follows in that segment."""
    stream: int
    client: int
    """The direction that asked."""
    abbr: str = ""
    """As the registry has it; "" where the next octets tell, as those of a new stream do."""
    about: "str | Asked | None" = None
    """Of WS, what the response says of extensions; of HTTP/2, the request of stream 1."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with a body, as HTTP/2 would have had it."""

    fields: list[Pair]
    size: int
    """Octets of its head."""
    body: bytes
    """As far as it was kept."""
    body_size: int
    begin_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class _Message:
    """A message of a call."""

    row: np.record
    method: str
    target: str
    fields: list[Pair]
    """Names in lower case."""

    def value(self, name: str) -> str:
        return ", ".join(value for each, value in self.fields if each == name)


def handovers(framer: Framer, calls: np.ndarray) -> Iterator[Handover]:
    """Yield those of the last frame_segments(), whose CALL rows are given."""
    count = int(framer.totals["handovers"][0])
    columns = (framer.handovers[name][:count].tolist() for name in ("row", "position", "call"))
    for row, position, place in zip(*columns, strict=True):
        call = calls[place]
        client = int(call["direction"]) & 1
        abbr, about = _next(framer, int(call["request"]), int(call["response"]))
        yield Handover(row, position, int(call["stream"]), client, abbr, about)


def _next(framer: Framer, asked: int, answered: int) -> tuple[str, str | Asked | None]:
    response = _message(framer, answered)
    if response is None or response.row["status"] != SWITCHING_PROTOCOLS:
        return "", None
    protocol = response.value("upgrade").partition(",")[0].strip().lower()
    if protocol == "websocket":
        return "WS", response.value("sec-websocket-extensions")
    if protocol != "h2c":
        return "", None
    request = _message(framer, asked)
    if request is None:
        return "HTTP/2", None
    row = request.row
    times = int(row["first_timestamp"]), int(row["end_timestamp"])
    sizes = int(row["length"]), int(row["body_octets"])
    fields, body = _fields_of_stream_1(request), _body(framer, request)
    return "HTTP/2", Asked(fields, sizes[0], body, sizes[1], *times)


def _message(framer: Framer, number: int) -> _Message | None:
    if not is_message_kept(framer, number):
        return None
    row = message_row(framer, number)
    position = int(row["head"]) % len(framer.arena.octets)
    head = framer.arena.octets[position : position + int(row["length"])].tobytes()
    first, *lines = (_text(line) for line in head.split(b"\n"))
    method, _, target = first.partition(" ")
    pairs = (line.partition(":") for line in lines if ":" in line)
    fields = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
    return _Message(row, method, target.rpartition(" ")[0], fields)


def _text(octets: bytes) -> str:
    try:
        return octets.decode().strip()
    except UnicodeDecodeError:
        return octets.decode("latin-1").strip()


def _fields_of_stream_1(request: _Message) -> list[Pair]:
    """Return the request as HTTP/2 would have had it (RFC 9113, 8.3.1)."""
    return [
        (":method", request.method), (":scheme", "http"),
        (":authority", request.value("host")), (":path", request.target),
        *(pair for pair in request.fields if pair[0] not in NOT_OF_STREAM_1),
    ]  # fmt: skip


def _body(framer: Framer, request: _Message) -> bytes:
    offsets = np.zeros(2, np.int64)
    pieces = np.array([request.row["first_piece"]], np.int64)
    octets = np.empty(body_offsets(framer.pieces, framer.arena, pieces, offsets), np.uint8)
    gather_bodies(framer.pieces, framer.arena, pieces, offsets, octets)
    return octets.tobytes()
