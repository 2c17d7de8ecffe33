"""What the fuzzer hands to an agent: frames with their times, and batches of them.

A piece is a frame before it has its place in a batch. In a batch the frames do not touch: between
them lie octets that no reader may look at, so two fillings of these gaps must give the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from services.capture.frames.batch import FRAME, FrameBatch
from services.capture.frames.walk import LATEST
from tests.unit.capture.conversation import ETHERNET

GAP = 24
"""Octets between two frames: more than any header field that a reader could read too far."""

FILLINGS = (b"\0", b"HTTP/1.1 200 OK\r\n\r\nGET / HTTP/1.1\r\n\r\n")
"""What the gaps hold: nothing, or what a reader that goes too far would understand."""


@dataclass(slots=True)
class Piece:
    """A frame, and when and where it was seen."""

    frame: bytes
    after_ns: int = 1000
    """Time since the frame before it; may be negative."""
    cut: int = 0
    """Octets of the frame that the capture does not have."""
    link_type: int = ETHERNET
    vlan: int = 0
    interface: int = 0


def pieces_of(frames: Sequence[bytes]) -> list[Piece]:
    return [Piece(frame) for frame in frames]


def rows_of(pieces: Sequence[Piece], start_ns: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return FRAME rows and octets without gaps, and the time of the last frame."""
    rows = np.zeros(len(pieces), FRAME)
    offset, now = 0, start_ns
    for number, piece in enumerate(pieces):
        now = max(0, min(LATEST, now + piece.after_ns))  # as in files
        size = len(piece.frame)
        rows[number] = (
            now, offset, size, size + piece.cut, piece.link_type, piece.vlan, piece.interface,
        )  # fmt: skip
        offset += size
    octets = np.frombuffer(b"".join(piece.frame for piece in pieces), np.uint8)
    return rows, octets, now


def apart(rows: np.ndarray, octets: np.ndarray, filling: bytes) -> FrameBatch:
    """Return the frames with gaps between them; one frame alone is an array that ends with it."""
    if len(rows) == 1:
        return FrameBatch(octets.copy(), rows.copy())
    moved = rows.copy()
    moved["offset"] += GAP * np.arange(1, len(rows) + 1)
    size = len(octets) + GAP * (len(rows) + 1)
    room = np.frombuffer((filling * (size // len(filling) + 1))[:size], np.uint8).copy()
    lengths = rows["captured_length"].astype(np.int64)
    places = np.arange(len(octets)) + np.repeat(GAP * np.arange(1, len(rows) + 1), lengths)
    room[places] = octets
    return FrameBatch(room, moved)


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames as the fuzzer keeps them: without gaps."""

    rows: np.ndarray
    octets: np.ndarray

    def chosen(self, numbers: Sequence[int]) -> Batch:
        """Return some of the frames."""
        rows = self.rows[list(numbers)]
        parts = [
            self.octets[row["offset"] : row["offset"] + row["captured_length"]] for row in rows
        ]
        rows["offset"] = np.concatenate([[0], np.cumsum(rows["captured_length"])[:-1]])
        return Batch(rows, np.concatenate(parts))


def save(path: Path, batches: Sequence[Batch]) -> None:
    """Write batches to a file that load() reads."""
    np.savez_compressed(
        path,
        rows=np.concatenate([batch.rows for batch in batches]).view(np.uint8),
        octets=np.concatenate([batch.octets for batch in batches]),
        sizes=[(len(batch.rows), len(batch.octets)) for batch in batches],
    )


def load(path: Path) -> list[Batch]:
    with np.load(path) as found:
        rows, octets = found["rows"].view(FRAME), found["octets"]
        batches, row, offset = [], 0, 0
        for frames, size in found["sizes"].tolist():
            batches.append(Batch(rows[row : row + frames], octets[offset : offset + size]))
            row, offset = row + frames, offset + size
    return batches


def write_pcap(path: Path, batches: Sequence[Batch]) -> None:
    """Write the frames to a pcapng file, for people to look at; its interfaces are link types."""
    blocks = [_block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1a\1\0\0\0" + b"\xff" * 8)]
    interfaces: dict[int, int] = {}
    for batch in batches:
        for row in batch.rows:
            link_type = int(row["link_type"]) & 0xFFFF
            if link_type not in interfaces:
                interfaces[link_type] = len(interfaces)
                # Nanoseconds: if_tsresol, option 9.
                options = b"\x09\0\x01\0\x09\0\0\0" + bytes(4)
                blocks.append(_block(1, link_type.to_bytes(2, "little") + bytes(6) + options))
            time = int(row["timestamp"])
            size, original = int(row["captured_length"]), int(row["original_length"])
            numbers = (interfaces[link_type], time >> 32, time & 0xFFFFFFFF, size, original)
            head = b"".join(number.to_bytes(4, "little") for number in numbers)
            begin = int(row["offset"])
            octets = batch.octets[begin : begin + size].tobytes()
            blocks.append(_block(6, head + octets + bytes(-size % 4)))
    path.write_bytes(b"".join(blocks))


def _block(kind: int, body: bytes) -> bytes:
    size = (len(body) + 12).to_bytes(4, "little")
    return kind.to_bytes(4, "little") + size + body + size
