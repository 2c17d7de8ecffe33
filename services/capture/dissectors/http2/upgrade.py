# mypy: ignore-errors
"""A connection that HTTP/1 was upgraded to: the request that asked is stream 1's (RFC 7540, 3.2).

It is rare, so the request is written as frames and taken as such. `entries` does it when the first
octets come.
"""

import numpy as np

from services.capture.dissectors.http1.handover import Asked
from services.capture.dissectors.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS
from services.capture.dissectors.http2.rows import MOST_KEPT, NOBODY, Connections
from services.capture.dissectors.signatures import CLIENT
from services.capture.reassembly import DATA as DATA_SEGMENT
from services.capture.reassembly import IN_FRAMES, SEGMENT

STREAM = 1
LONG = 0x7F  # of a length: the rest of it follows, in sevens of bits (RFC 7541, 5.1)


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + STREAM.to_bytes(4, "big") + payload


def _string(text: str) -> bytes:
    octets = text.encode("latin-1")
    if len(octets) < LONG:
        return bytes([len(octets)]) + octets
    rest, digits = len(octets) - LONG, bytearray([LONG])
    while rest >= 0x80:
        digits.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*digits, rest]) + octets


def _block(fields: list[tuple[str, str]]) -> bytes:
    """Write fields that no table is to have; those that HTTP/2 could not say are left out."""
    block = b""
    for name, value in fields:
        field = b"\0" + _string(name) + _string(value)
        is_name = name.isascii() and name.isprintable() and name and " " not in name
        if is_name and len(block) + len(field) <= MOST_KEPT:
            block += field
    return block


def frames_of(asked: Asked) -> bytes:
    """Return the request as a client of HTTP/2 says it."""
    ends = 0 if asked.body else END_STREAM
    begin = _frame(HEADERS, END_HEADERS | ends, _block(asked.fields))
    return begin + _frame(DATA, END_STREAM, asked.body) if asked.body else begin


def segment_of(number: int, direction: int, length: int, time_ns: int) -> np.ndarray:
    """Return a row of SEGMENT, of octets that begin at 0. direction: as it has that."""
    rows = np.zeros(1, SEGMENT)
    rows["stream"], rows["direction"], rows["length"] = number, direction, length
    rows["kind"], rows["place"], rows["timestamp"] = DATA_SEGMENT, IN_FRAMES, time_ns
    return rows


def begin(state: Connections, flow: int) -> None:
    """Nothing of the connection was said before: its tables are empty."""
    connection = int(state.flows["connection"][flow])
    if connection != NOBODY:
        state.directions["was_begin"][2 * connection] = 1
        state.directions["preface"][2 * connection] = NOBODY
        state.connections["understood"][connection] = 1


def end(state: Connections, flow: int, asked: Asked | None) -> None:
    """The request was taken: say of it what it was in HTTP/1. The preface comes next."""
    connection = int(state.flows["connection"][flow])
    if connection == NOBODY:
        return
    state.directions["preface"][2 * connection] = 0
    slot = int(state.connections["first"][connection])
    if asked is None or slot == NOBODY:
        return
    half = state.halves[2 * slot + CLIENT]
    half["headers_size"], half["body_size"] = asked.size, asked.body_size
    half["frames_size"] = asked.size + asked.body_size
    half["begin"], half["end"] = asked.begin_ns, asked.end_ns
    half["body_cut"] |= len(asked.body) < asked.body_size
