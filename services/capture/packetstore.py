"""Frames of all streams, kept until their stream matches or they are the oldest: bounded memory.

The agent puts every batch here; when a stream matches, what came before the match is still there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from recordings import schema
from services.capture import packetring
from services.capture.columns import number_column
from services.capture.frames.batch import FrameBatch
from services.capture.ringfile import file_octets

LONGEST_COLUMN = 2**31 - 1
"""Octets that the 32-bit offsets of an Arrow binary array can address."""

SMALLEST_CAPACITY = packetring.CELL_SIZE
"""Octets: one cell, so that there is a ring at all."""


@dataclass(frozen=True, slots=True)
class Packets:
    """Frames that were chosen; good until the next batch is asked for or put."""

    octets: np.ndarray
    """uint8: all of them lie in it."""
    rows: np.ndarray
    """packetring.STORED, one for each frame."""

    def __len__(self) -> int:
        return len(self.rows)


class Overwritten(NamedTuple):
    """What of a stream had to make room before it was asked for."""

    packets: int
    bytes: int
    """Captured octets of these packets."""
    first_ns: int
    """The earliest and the latest time of these packets; 0 when there are none."""
    last_ns: int
    is_exact: bool
    """False when there may have been more: too many streams at once, and its count was let go."""


class PacketStore:
    """A ring of frames, of which each stream's can be taken out."""

    def __init__(self, capacity_bytes: int, most_streams: int, folder: Path | None = None) -> None:
        """Make an empty store.

        capacity_bytes: memory for frames, or room on the disk of `folder` where one is given; each
        frame takes 40 octets more than it is long, and up to 39 for rounding. most_streams: how
        many streams' frames are linked and counted at once, rounded up to a power of two, 64 octets
        each. Raises ValueError when one is too small, and CaptureError when the disk does not give
        the room.
        """
        if capacity_bytes < SMALLEST_CAPACITY or most_streams < 1:
            raise ValueError(
                f"a packet store of {capacity_bytes} octets for {most_streams} streams; it needs "
                f"{SMALLEST_CAPACITY} octets and one stream at least"
            )
        rows = 1 << (most_streams - 1).bit_length()
        size = capacity_bytes // packetring.CELL_SIZE * packetring.CELL_SIZE
        # full() touches each page now: at full speed, the kernel giving them one by one would be
        # long enough for the ring of frames to run over.
        octets = np.full(size, 0, np.uint8) if folder is None else file_octets(folder, size)
        self._ring = packetring.new_ring(octets, rows)

    def put(self, batch: FrameBatch, streams: np.ndarray) -> None:
        """Keep copies of a batch's frames.

        streams: int64, the number of each frame's stream, or 0 for frames that are not kept.
        Raises ValueError when there are not as many as frames.
        """
        if len(streams) != len(batch.frames):
            raise ValueError(f"{len(streams)} stream numbers for {len(batch.frames)} frames")
        # A field of a record array has strides, for which the kernel would be compiled again.
        numbers = np.ascontiguousarray(streams, np.int64)
        packetring.put_frames(self._ring, batch.octets, batch.frames, numbers)

    def take(self, streams: np.ndarray) -> Packets:
        """Return what is stored of these streams: in the order of `streams`, each oldest first.

        They stay in the store, so that another job can take them as well. A stream that is not
        known gives nothing.
        """
        numbers = np.ascontiguousarray(streams, np.int64)
        rows = np.zeros(packetring.count_stored(self._ring, numbers), packetring.STORED)
        packetring.list_stored(self._ring, numbers, rows)
        return Packets(self._ring.octets, rows)

    def are_incomplete(self, streams: np.ndarray) -> np.ndarray:
        """Return for each stream whether frames of it were overwritten, or may have been."""
        marks = np.empty(len(streams), np.bool_)
        packetring.mark_incomplete(self._ring, np.ascontiguousarray(streams, np.int64), marks)
        return marks

    def losses(self, stream: int) -> Overwritten:
        """Return what was overwritten of a stream until now.

        Ask when you take it: what is overwritten later was there to be taken.
        """
        row = packetring.find_stream(self._ring, stream)
        if row == packetring.NOT_FOUND:
            was_there = stream <= int(self._ring.totals[packetring.HIGHEST])
            return Overwritten(0, 0, 0, 0, is_exact=not was_there)
        found = self._ring.streams[row]
        return Overwritten(
            int(found["packets"]),
            int(found["octets"]),
            int(found["first_ns"]),
            int(found["last_ns"]),
            bool(found["is_exact"]),
        )

    @property
    def stored_packets(self) -> int:
        """Frames in the store."""
        return int(self._ring.totals[packetring.FRAMES])

    @property
    def overwritten_packets(self) -> int:
        """Frames that had to make room since the store was made."""
        return int(self._ring.totals[packetring.OVERWRITTEN])

    @property
    def forgotten_streams(self) -> int:
        """Streams of which the store lost track because there were too many."""
        return int(self._ring.totals[packetring.FORGOTTEN])


def choose(batch: FrameBatch, streams: np.ndarray, rows: np.ndarray) -> Packets:
    """Return chosen frames of a batch, not copied.

    streams: as for put(). rows: their indices, or a mask.
    """
    frames = batch.frames[rows]
    chosen = np.empty(len(frames), packetring.STORED)
    chosen["stream"] = streams[rows]
    chosen["position"] = frames["offset"]
    for field in ("timestamp", "captured_length", "original_length", "link_type"):
        chosen[field] = frames[field]
    return Packets(batch.octets, chosen)


def follow(batch: FrameBatch, streams: np.ndarray, matched: np.ndarray) -> Packets:
    """Return the frames of a batch that belong to one of the streams `matched`, in its order."""
    if len(matched) == 0 or len(streams) == 0:
        return choose(batch, streams, np.zeros(0, np.int64))
    return choose(batch, streams, np.flatnonzero(np.isin(streams, matched)))


def packets_table(
    packets: Packets, stream_ids: Callable[[np.ndarray], pa.Array], node: str
) -> pa.Table:
    """Return packets as a table of recordings.schema.PACKETS, copied.

    stream_ids: gives the text of each of an array of stream numbers. node: name of this node.
    """
    rows = packets.rows
    batches = [
        _record_batch(packets.octets, rows[begin:end], stream_ids, node)
        for begin, end in _chunks(rows["captured_length"])
    ]
    return pa.Table.from_batches(batches, schema.PACKETS)


def _chunks(lengths: np.ndarray) -> list[tuple[int, int]]:
    """Cut rows so that the frames of each part fit in one binary array."""
    ends = np.cumsum(lengths)
    chunks = []
    begin = 0
    while begin < len(lengths):
        before = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, before + LONGEST_COLUMN, side="right"))
        chunks.append((begin, end))
        begin = end
    return chunks


def _record_batch(
    octets: np.ndarray, rows: np.ndarray, stream_ids: Callable[[np.ndarray], pa.Array], node: str
) -> pa.RecordBatch:
    """Build one batch; the frames are gathered into one buffer, without an object for each."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(rows["captured_length"], out=offsets[1:])
    frames = np.empty(int(offsets[-1]), np.uint8)
    packetring.gather_frames(octets, rows, offsets, frames)
    columns = {
        "stream": stream_ids(np.ascontiguousarray(rows["stream"])),
        "node_name": pa.repeat(pa.scalar(node, pa.string()), len(rows)),
        "time": number_column(rows["timestamp"], type=schema.TIMESTAMP),
        "link_type": number_column(rows["link_type"].astype(np.uint16)),
        "original_length": number_column(rows["original_length"].astype(np.uint32)),
        "frame": pa.Array.from_buffers(
            pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(frames)]
        ),
    }
    arrays = [columns[field.name] for field in schema.PACKETS]
    return pa.RecordBatch.from_arrays(arrays, schema=schema.PACKETS)
