# mypy: ignore-errors
"""Arrow columns made from spans, without a Python object per value.

A span says where a value lies in an array of octets. A column is made in two steps: offsets from
the lengths, then one copy of each value into one buffer, which Arrow takes over as it is.
"""

import numpy as np
import pyarrow as pa

from services.capture.kernel import copy_octets, is_ascii_run, kernel, read_u8

# fmt: off
SPAN = np.dtype((np.record, [
    ("position", np.int64),  # index of the first octet
    ("length", np.int64),    # octets; NO_VALUE for a value that is not there
]))
# fmt: on
NO_VALUE = -1

LONGEST_COLUMN = 2**31 - 1
"""Octets: what a 32-bit offset can address."""

TIMESTAMP = pa.timestamp("ns", "UTC")

HIGH_BITS = np.uint64(0x8080808080808080)


# ------------------------------------------------------------------------------------- kernels


@kernel
def write_offsets(spans, offsets):
    """Fill offsets[0 .. len(spans)] with the running sum of the lengths; return the last one.

    The sum is a 64-bit integer, so a column that is too long shows even where the 32-bit offsets
    have wrapped.
    """
    end = 0
    offsets[np.uint64(0)] = 0
    for row in range(len(spans)):
        end += max(np.int64(spans[np.uint64(row)].length), 0)
        offsets[np.uint64(row + 1)] = end
    return end


@kernel
def gather(octets, spans, out):
    """Copy the values of `spans` one behind the other into `out`; return the octets written."""
    at = 0
    for row in range(len(spans)):
        span = spans[np.uint64(row)]
        if span.length > 0:
            copy_octets(octets, span.position, span.length, out, at)
            at += span.length
    return at


@kernel
def utf8_size(octets, position, end):
    """Return the size of the UTF-8 sequence at `position` (RFC 3629, section 4), or 0."""
    first = read_u8(octets, position)
    if first < 0x80:
        return 1
    low, high = 0x80, 0xBF  # what the second octet may be
    if 0xC2 <= first <= 0xDF:
        size = 2
    elif 0xE0 <= first <= 0xEF:
        size = 3
        low = 0xA0 if first == 0xE0 else low
        high = 0x9F if first == 0xED else high
    elif 0xF0 <= first <= 0xF4:
        size = 4
        low = 0x90 if first == 0xF0 else low
        high = 0x8F if first == 0xF4 else high
    else:
        return 0
    if position + size > end or not low <= read_u8(octets, position + 1) <= high:
        return 0
    for index in range(position + 2, position + size):
        if read_u8(octets, index) & 0xC0 != 0x80:
            return 0
    return size


@kernel
def is_utf8(octets, position, end):
    """Say whether octets[position:end] are UTF-8."""
    if is_ascii_run(octets, position, end):
        return True
    while position < end:
        size = utf8_size(octets, position, end)
        if size == 0:
            return False
        position += size
    return True


@kernel
def write_latin1(octets, position, end, out, at):
    """Write octets of ISO 8859-1 as UTF-8; return the position after them."""
    for index in range(position, end):
        octet = read_u8(octets, index)
        if octet < 0x80:
            out[np.uint64(at)] = octet
            at += 1
        else:
            out[np.uint64(at)] = 0xC0 | octet >> 6
            out[np.uint64(at + 1)] = 0x80 | octet & 0x3F
            at += 2
    return at


@kernel
def transcode(octets, spans, out, offsets):
    """As gather, but a value that is not UTF-8 is read as ISO 8859-1; fill the offsets as well.

    `out` has room for twice the octets. Return the octets written.
    """
    at = 0
    offsets[np.uint64(0)] = 0
    for row in range(len(spans)):
        span = spans[np.uint64(row)]
        length = max(np.int64(span.length), 0)
        end = span.position + length
        if length > 0 and is_utf8(octets, span.position, end):
            copy_octets(octets, span.position, length, out, at)
            at += length
        elif length > 0:
            at = write_latin1(octets, span.position, end, out, at)
        offsets[np.uint64(row + 1)] = at
    return at


# ------------------------------------------------------------------------------------- columns


def new_spans(rows: int) -> np.ndarray:
    """Return SPAN rows, all of them empty values at position 0."""
    return np.zeros(rows, SPAN)


def validity(present: np.ndarray) -> pa.Buffer | None:
    """Return Arrow's validity bitmap of a boolean array, or None when every value is there."""
    if present.all():
        return None
    return pa.py_buffer(np.packbits(present, bitorder="little"))


def is_ascii(octets: np.ndarray) -> bool:
    """Say whether no octet of a contiguous uint8 array is above 0x7F."""
    whole = len(octets) // 8 * 8
    words = np.bitwise_or.reduce(octets[:whole].view(np.uint64), initial=np.uint64(0))
    return not (words & HIGH_BITS) and not (octets[whole:] & 0x80).any()


def binary_column(octets: np.ndarray, spans: np.ndarray) -> pa.BinaryArray:
    """Build a binary array with one row for each of `spans`, null where the length is NO_VALUE.

    octets: uint8, contiguous. spans: SPAN, one dimension, of any stride.
    Raises IndexError when a span leaves `octets`, OverflowError when the values together have more
    octets than LONGEST_COLUMN.
    """
    spans = np.ascontiguousarray(spans)
    offsets = np.empty(len(spans) + 1, np.int32)
    total = write_offsets(spans, offsets)
    if total > LONGEST_COLUMN:
        raise OverflowError(
            f"a column of {total} octets is longer than Arrow's {LONGEST_COLUMN}: "
            "make the batch smaller"
        )
    values = np.empty(total, np.uint8)
    gather(octets, spans, values)
    buffers = [validity(spans["length"] >= 0), pa.py_buffer(offsets), pa.py_buffer(values)]
    return pa.Array.from_buffers(pa.binary(), len(spans), buffers)


def text_column(octets: np.ndarray, spans: np.ndarray) -> pa.StringArray:
    """As binary_column, as strings; a value that is not UTF-8 is read as ISO 8859-1.

    Arrow believes us that a string is UTF-8, and DuckDB refuses the whole file when it is not.
    """
    column = binary_column(octets, spans)
    present, offsets, values = column.buffers()
    if not is_ascii(np.frombuffer(values, np.uint8)):
        # Latin-1 can double the octets, so the offsets of what is written can be too large where
        # those of what was read were not.
        if 2 * len(values) > LONGEST_COLUMN:
            raise OverflowError(
                f"a column of {len(values)} octets that are not all ASCII may become longer than "
                f"Arrow's {LONGEST_COLUMN}: make the batch smaller"
            )
        starts = np.empty(len(spans) + 1, np.int32)
        text = np.empty(2 * len(values), np.uint8)
        end = transcode(octets, np.ascontiguousarray(spans), text, starts)
        offsets, values = pa.py_buffer(starts), pa.py_buffer(text[:end])
    return pa.Array.from_buffers(pa.string(), len(spans), [present, offsets, values])


def number_column(
    values: np.ndarray, present: np.ndarray | None = None, type: pa.DataType | None = None
) -> pa.Array:
    """Wrap numbers as an Arrow array, null where `present` (bool) is false.

    The array is not copied unless it is a field of rows, so it must not change afterwards. `type`
    gives the same bits another meaning (TIMESTAMP for int64 nanoseconds).
    Raises ValueError when the size of `type` is not the size of the values.
    """
    values = np.ascontiguousarray(values)
    kind = type or pa.from_numpy_dtype(values.dtype)
    if kind.bit_width != 8 * values.dtype.itemsize:
        raise ValueError(f"{values.dtype} values cannot be read as {kind}: the sizes differ")
    bitmap = None if present is None else validity(present)
    return pa.Array.from_buffers(kind, len(values), [bitmap, pa.py_buffer(values)])


def bool_column(values: np.ndarray, present: np.ndarray | None = None) -> pa.BooleanArray:
    """Build a boolean array from an array of bool, null where `present` is false."""
    bits = pa.py_buffer(np.packbits(values, bitorder="little"))
    bitmap = None if present is None else validity(present)
    return pa.Array.from_buffers(pa.bool_(), len(values), [bitmap, bits])


def list_column(
    offsets: np.ndarray, item: pa.Array, present: np.ndarray | None = None
) -> pa.ListArray:
    """Build lists of `item`: row i is item[offsets[i]:offsets[i + 1]]. `offsets` is int32."""
    return pa.Array.from_buffers(
        pa.list_(item.type),
        len(offsets) - 1,
        [None if present is None else validity(present), pa.py_buffer(offsets)],
        children=[item],
    )
