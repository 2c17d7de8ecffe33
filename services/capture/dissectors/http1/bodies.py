# mypy: ignore-errors
"""Bodies of messages: the pieces that framing kept, put together, and decoded where they are coded.

A body is text in an entry when it is UTF-8, else base64. Codings: RFC 9110, section 8.4.1.
"""

import base64
import zlib
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from services.capture.columns import LONGEST_COLUMN, bool_column, is_utf8, validity
from services.capture.dissectors.arena import is_kept
from services.capture.dissectors.http1.rows import NO_PIECE
from services.capture.kernel import copy_octets, kernel

MOST_CODINGS = 3  # of one body; more is a bomb, or nonsense
LARGEST_WINDOW = 1 << 23  # octets that a zstd frame may ask for, as browsers have it (RFC 9659)


class Decoded(NamedTuple):
    """A body as an entry shows it."""

    text: str
    is_base64: bool
    truncated: bool


class BodyColumns(NamedTuple):
    """Columns of as many rows as there are messages; null where there is none."""

    body: pa.Array
    is_base64: pa.Array
    truncated: pa.Array


@kernel
def body_offsets(pieces, arena, first_pieces, offsets):
    """Fill offsets[0 .. len(first_pieces)] with where each body starts; return the last one.

    A body ends before the first of its pieces that the arena or the ring of pieces has lost.
    """
    end = 0
    offsets[np.uint64(0)] = 0
    for row in range(len(first_pieces)):
        number = first_pieces[np.uint64(row)]
        while number != NO_PIECE:
            piece = pieces[np.uint64(number & (len(pieces) - 1))]
            if piece.number != number or not is_kept(arena, piece.position):
                break
            end += piece.length
            number = piece.next
        offsets[np.uint64(row + 1)] = end
    return end


@kernel
def gather_bodies(pieces, arena, first_pieces, offsets, out):
    """Copy the pieces of body i to out[offsets[i]:offsets[i + 1]]."""
    for row in range(len(first_pieces)):
        at, end = np.int64(offsets[np.uint64(row)]), np.int64(offsets[np.uint64(row + 1)])
        number = first_pieces[np.uint64(row)]
        while at < end:
            piece = pieces[np.uint64(number & (len(pieces) - 1))]
            length = min(piece.length, end - at)
            copy_octets(arena.octets, piece.position % len(arena.octets), length, out, at)
            at += length
            number = piece.next


@kernel
def mark_text(octets, offsets, marks):
    """Set marks[i] to whether body i is UTF-8."""
    for row in range(len(marks)):
        start, end = offsets[np.uint64(row)], offsets[np.uint64(row + 1)]
        marks[np.uint64(row)] = is_utf8(octets, np.int64(start), np.int64(end))


def _inflate(body: bytes, limit: int) -> bytes:
    """Undo gzip or zlib, or deflate without its header, as some servers send it."""
    try:
        return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS).decompress(body, limit)
    except zlib.error:
        return zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(body, limit)


def _unbrotli(body: bytes, limit: int) -> bytes:
    import brotli

    return brotli.Decompressor().process(body, output_buffer_limit=limit)[:limit]


def _unzstd(body: bytes, limit: int) -> bytes:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    return decoder.stream_reader(body).read(limit)


DECODERS = {
    "gzip": _inflate,
    "x-gzip": _inflate,
    "deflate": _inflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}


def uncode(body: bytes, codings: str, limit: int) -> bytes | None:
    """Undo a Content-Encoding value, last coding first, to at most `limit` octets.

    Return None when it is unknown or the body is not what it says.
    """
    names = [name.strip().lower() for name in codings.split(",") if name.strip()]
    if len(names) > MOST_CODINGS:
        return None
    for name in reversed(names):
        if name == "identity":
            continue
        decoder = DECODERS.get(name)
        if decoder is None:
            return None
        try:
            body = decoder(body, limit)
        except Exception:  # three libraries, each with errors of its own; the octets stay as sent
            return None
    return body


def show(body: bytes, codings: str, truncated: bool, limit: int) -> Decoded:
    """Decode one body. Where it was cut in the middle of a character, drop that character."""
    if codings and body:
        plain = uncode(body, codings, limit + 1)
        if plain is not None:
            truncated = truncated or len(plain) > limit
            body = plain[:limit]
    try:
        return Decoded(body.decode(), False, truncated)
    except UnicodeDecodeError as error:
        if truncated and error.reason == "unexpected end of data":
            return Decoded(body[: error.start].decode(), False, True)
    return Decoded(base64.b64encode(body).decode(), True, truncated)


def body_columns(pieces, arena, first_pieces, sizes, codings, present, limit) -> BodyColumns:
    """Build the columns of some messages' bodies.

    `first_pieces` and `sizes` (octets on the wire) are int64 arrays, `codings` a list with the
    Content-Encoding of each or None, `present` a boolean array. Raises OverflowError when the
    bodies exceed what one column can hold.
    """
    rows = len(first_pieces)
    first_pieces = np.where(present, first_pieces, NO_PIECE)
    offsets = np.empty(rows + 1, np.int64)
    size = body_offsets(pieces, arena, first_pieces, offsets)
    if size > LONGEST_COLUMN:
        raise OverflowError(f"bodies of {size} octets in one column; make the batch smaller")
    octets = np.empty(size, np.uint8)
    gather_bodies(pieces, arena, first_pieces, offsets, octets)
    is_text = np.empty(rows, np.bool_)
    mark_text(octets, offsets, is_text)
    truncated = sizes > np.diff(offsets)
    is_base64 = np.zeros(rows, np.bool_)
    coded = np.array([bool(coding) for coding in codings], np.bool_)
    chosen = np.flatnonzero(present & (coded | ~is_text))
    if len(chosen):
        shown = []
        for row in chosen:
            body = octets[offsets[row] : offsets[row + 1]].tobytes()
            decoded = show(body, codings[row] or "", bool(truncated[row]), limit)
            shown.append(decoded.text.encode())
            is_base64[row], truncated[row] = decoded.is_base64, decoded.truncated
        octets, offsets = _replaced(octets, offsets, chosen, shown)
    buffers = [validity(present), pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(octets)]
    column = pa.Array.from_buffers(pa.string(), rows, buffers)
    return BodyColumns(column, bool_column(is_base64, present), bool_column(truncated, present))


def _replaced(octets, offsets, chosen, texts):
    """Return (octets, offsets) with body chosen[i] replaced by texts[i]: what lies between stays.

    Raises OverflowError when that is more than one column can hold.
    """
    sizes = np.diff(offsets)
    pieces, done = [], 0
    for row, text in zip(chosen.tolist(), texts, strict=True):
        pieces += [octets[done : offsets[row]], np.frombuffer(text, np.uint8)]
        done = offsets[row + 1]
        sizes[row] = len(text)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if starts[-1] > LONGEST_COLUMN:
        raise OverflowError(f"bodies of {starts[-1]} octets in one column; make the batch smaller")
    return np.concatenate([*pieces, octets[done:]]), starts
