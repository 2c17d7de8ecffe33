# mypy: ignore-errors
"""A ring of frames, linked by stream; packetstore.py makes it and calls these.

The ring is an array of cells. A frame takes one cell that describes it and as many as its octets
need, in one run. Its address is the number of cells written before it, ever; the cell is the
address modulo the ring's length. So an address is never used twice, and whether a frame is still
there is one comparison.
"""

from typing import NamedTuple

import numpy as np

from services.capture.kernel import copy_octets, kernel

NO_STREAM = 0
NONE = -1  # no address
NOT_FOUND = -1  # no row

# fmt: off
CELL = np.dtype((np.record, [
    ("stream", np.int64),           # number, or NO_STREAM for what only fills the ring's end
    ("following", np.int64),        # address of the stream's next frame, or NONE
    ("timestamp", np.int64),        # nanoseconds since 1970
    ("captured_length", np.int32),  # octets, in the cells behind this one
    ("original_length", np.int32),  # octets on the wire
    ("link_type", np.int32),
    ("cells", np.int32),            # this one and those behind it
]))

STREAM = np.dtype((np.record, [
    ("number", np.int64),           # or NO_STREAM for a row not used yet
    ("oldest", np.int64),           # address of its oldest frame that is still there, or NONE
    ("newest", np.int64),           # address of the newest it ever had
    ("packets", np.int64),          # overwritten
    ("octets", np.int64),           # captured octets of these
    ("first_ns", np.int64),         # the earliest and the latest time of these
    ("last_ns", np.int64),
    ("is_exact", np.int64),         # 0: the row was lost once, and what was counted with it
]))

STORED = np.dtype((np.record, [
    ("stream", np.int64),           # number
    ("timestamp", np.int64),        # nanoseconds since 1970
    ("position", np.int64),         # of the frame's first octet
    ("captured_length", np.int64),  # octets
    ("original_length", np.int64),  # octets on the wire
    ("link_type", np.int64),        # LINKTYPE_
]))
# fmt: on

CELL_SIZE = CELL.itemsize

WAYS = 8
"""Rows in which a stream may be; the one whose stream was quiet longest is given to a new one."""

# Elements of `totals`.
HEAD, TAIL, HIGHEST, FORGOTTEN, FRAMES, OVERWRITTEN = 0, 1, 2, 3, 4, 5
TOTALS = 6


class Ring(NamedTuple):
    """Made once; `octets` is a view of `cells`."""

    cells: np.ndarray  # CELL
    octets: np.ndarray  # uint8
    streams: np.ndarray  # STREAM, a power of two long
    totals: np.ndarray
    """int64: address after the newest frame; address of the oldest; highest stream number; streams
    whose row was given away; frames in the ring; frames overwritten."""


def new_ring(octets: np.ndarray, most_streams: int) -> Ring:
    """Make an empty ring of `octets`, all 0, whole cells; `most_streams` is a power of two."""
    cells = octets.view(CELL)
    streams = np.zeros(most_streams, STREAM)
    streams["oldest"] = streams["newest"] = NONE
    return Ring(cells, octets, streams, np.zeros(TOTALS, np.int64))


@kernel
def find_stream(ring: Ring, number: int) -> int:
    """Return the row of a stream, or NOT_FOUND."""
    mask = len(ring.streams) - 1
    for way in range(min(WAYS, len(ring.streams))):
        row = (number + way) & mask
        if ring.streams[np.uint64(row)].number == number:
            return row
    return NOT_FOUND


@kernel
def add_stream(ring, number):
    """Return the row for a stream that has none, taken from the one that was quiet longest."""
    mask = len(ring.streams) - 1
    chosen = number & mask
    for way in range(1, min(WAYS, len(ring.streams))):
        row = (number + way) & mask
        if ring.streams[np.uint64(row)].newest < ring.streams[np.uint64(chosen)].newest:
            chosen = row
    stream = ring.streams[np.uint64(chosen)]
    if stream.number != NO_STREAM:
        ring.totals[np.uint64(FORGOTTEN)] += 1
    is_new = number > ring.totals[np.uint64(HIGHEST)]
    if is_new:
        ring.totals[np.uint64(HIGHEST)] = number
    stream.number = number
    stream.oldest = NONE
    stream.newest = NONE
    stream.packets = 0
    stream.octets = 0
    stream.first_ns = 0
    stream.last_ns = 0
    stream.is_exact = 1 if is_new else 0
    return chosen


@kernel
def count_overwritten(ring, stream, timestamp, captured_length):
    """Count a frame of `stream` that nobody can take any more."""
    ring.totals[np.uint64(OVERWRITTEN)] += 1
    if stream.packets == 0 or timestamp < stream.first_ns:
        stream.first_ns = timestamp
    if stream.packets == 0 or timestamp > stream.last_ns:
        stream.last_ns = timestamp
    stream.packets += 1
    stream.octets += captured_length


@kernel
def drop_oldest(ring):
    """Let go of the oldest frame, or of what fills the ring's end."""
    address = ring.totals[np.uint64(TAIL)]
    cell = ring.cells[np.uint64(address % len(ring.cells))]
    ring.totals[np.uint64(TAIL)] = address + cell.cells
    if cell.stream == NO_STREAM:
        return
    ring.totals[np.uint64(FRAMES)] -= 1
    row = find_stream(ring, cell.stream)
    if row == NOT_FOUND:
        ring.totals[np.uint64(OVERWRITTEN)] += 1
        return
    stream = ring.streams[np.uint64(row)]
    if stream.oldest == address:
        stream.oldest = cell.following
    count_overwritten(ring, stream, cell.timestamp, cell.captured_length)


@kernel
def make_room(ring, cells):
    """Drop the oldest frames until `cells` cells behind the newest are free."""
    while ring.totals[np.uint64(HEAD)] + cells - ring.totals[np.uint64(TAIL)] > len(ring.cells):
        drop_oldest(ring)


@kernel
def room_in_one_run(ring, cells):
    """Return the address of `cells` free cells in one run, at most as many as the ring has."""
    left = len(ring.cells) - ring.totals[np.uint64(HEAD)] % len(ring.cells)
    if left < cells:
        make_room(ring, left)
        filler = ring.cells[np.uint64(len(ring.cells) - left)]
        filler.stream = NO_STREAM
        filler.cells = left
        ring.totals[np.uint64(HEAD)] += left
    make_room(ring, cells)
    return ring.totals[np.uint64(HEAD)]


@kernel
def put_frame(ring, octets, frame, number):
    """Copy a frame to the ring and link it to its stream."""
    cells = 1 + (np.int64(frame.captured_length) + CELL_SIZE - 1) // CELL_SIZE
    row = find_stream(ring, number)
    if row == NOT_FOUND:
        row = add_stream(ring, number)
    stream = ring.streams[np.uint64(row)]
    if cells > len(ring.cells):
        count_overwritten(ring, stream, frame.timestamp, frame.captured_length)
        return
    address = room_in_one_run(ring, cells)
    index = address % len(ring.cells)
    cell = ring.cells[np.uint64(index)]
    cell.stream = number
    cell.following = NONE
    cell.timestamp = frame.timestamp
    cell.captured_length = frame.captured_length
    cell.original_length = frame.original_length
    cell.link_type = frame.link_type
    cell.cells = cells
    copy_octets(octets, frame.offset, frame.captured_length, ring.octets, (index + 1) * CELL_SIZE)
    if stream.oldest == NONE:
        stream.oldest = address
    else:
        ring.cells[np.uint64(stream.newest % len(ring.cells))].following = address
    stream.newest = address
    ring.totals[np.uint64(HEAD)] = address + cells
    ring.totals[np.uint64(FRAMES)] += 1


@kernel
def put_frames(ring: Ring, octets: np.ndarray, frames: np.ndarray, streams: np.ndarray) -> None:
    """Copy all frames that have a stream. frames: FRAME; streams: int64, as many."""
    for row in range(len(frames)):
        number = streams[np.uint64(row)]
        if number > NO_STREAM:
            put_frame(ring, octets, frames[np.uint64(row)], number)


@kernel
def mark_incomplete(ring: Ring, numbers: np.ndarray, marks: np.ndarray) -> None:
    """Set marks[i] to whether frames of stream numbers[i] were overwritten, or may have been."""
    for index in range(len(numbers)):
        number = numbers[np.uint64(index)]
        row = find_stream(ring, number)
        if row == NOT_FOUND:
            marks[np.uint64(index)] = number <= ring.totals[np.uint64(HIGHEST)]
        else:
            stream = ring.streams[np.uint64(row)]
            marks[np.uint64(index)] = stream.packets != 0 or stream.is_exact == 0


@kernel
def count_stored(ring: Ring, numbers: np.ndarray) -> int:
    """Return how many frames of these streams are in the ring."""
    frames = 0
    for index in range(len(numbers)):
        row = find_stream(ring, numbers[np.uint64(index)])
        address = ring.streams[np.uint64(row)].oldest if row != NOT_FOUND else NONE
        while address != NONE:
            frames += 1
            address = ring.cells[np.uint64(address % len(ring.cells))].following
    return frames


@kernel
def list_stored(ring: Ring, numbers: np.ndarray, rows: np.ndarray) -> None:
    """Fill rows (STORED, as many as count_stored says) stream by stream, the oldest first."""
    at = 0
    for index in range(len(numbers)):
        row = find_stream(ring, numbers[np.uint64(index)])
        address = ring.streams[np.uint64(row)].oldest if row != NOT_FOUND else NONE
        while address != NONE:
            cell_index = address % len(ring.cells)
            cell = ring.cells[np.uint64(cell_index)]
            stored = rows[np.uint64(at)]
            stored.stream = cell.stream
            stored.timestamp = cell.timestamp
            stored.position = (cell_index + 1) * CELL_SIZE
            stored.captured_length = cell.captured_length
            stored.original_length = cell.original_length
            stored.link_type = cell.link_type
            at += 1
            address = cell.following


@kernel
def gather_frames(
    octets: np.ndarray, rows: np.ndarray, offsets: np.ndarray, out: np.ndarray
) -> None:
    """Copy the frames of `rows` (STORED) one behind the other; row i to out[offsets[i]:]."""
    for index in range(len(rows)):
        row = rows[np.uint64(index)]
        at = np.int64(offsets[np.uint64(index)])
        copy_octets(octets, row.position, row.captured_length, out, at)
