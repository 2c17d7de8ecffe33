"""Where damage begins: conversations made by chance, and recordings where the machine has some."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from services.capture.frames import open_capture
from services.capture.frames.batch import CaptureError, FrameBatch
from tests.conftest import CAPTURES, ROOT
from tests.fuzz.frames import Piece, pieces_of
from tests.unit.capture import talks

OWN_CAPTURE = Path(os.environ.get("BENCH_CAPTURE", ROOT / ".cache" / "bench" / "traffic.pcap"))
"""What `make bench/capture` records: HTTP, DNS, Redis, TLS, HTTP/2, gRPC."""

MADE = 400
"""Conversations that are made by chance at the start."""
LONGEST = 200
"""Frames that are damaged together."""
MOST_OF_A_BATCH = 5000
"""Frames of a batch of a capture file that are used: some files say a thing very often."""


class Seeds:
    """Conversations to choose from."""

    def __init__(self, seed: int) -> None:
        numbers = np.random.default_rng(seed)
        self.made = [_made(numbers) for _ in range(MADE)]
        self.files = capture_files()
        self.read = [part for path in self.files for part in _parts_of(path)]
        self.read += list(_own())

    def choose(self, chance: random.Random) -> list[Piece]:
        """Return a conversation, or a part of a recording."""
        if self.read and chance.random() < 0.4:
            return chance.choice(self.read)
        return chance.choice(self.made)

    def __str__(self) -> str:
        return (
            f"{len(self.made)} conversations made by chance, {len(self.read)} parts of recordings, "
            f"{len(self.files)} capture files"
        )


def capture_files() -> list[Path]:
    """Return the real captures, malformed ones too, where there are any."""
    if not CAPTURES.is_dir():
        return []
    found = (path for path in CAPTURES.rglob("*") if path.suffix in (".pcap", ".pcapng", ".cap"))
    return sorted(path for path in found if path.stat().st_size)


def _made(numbers: np.random.Generator) -> list[Piece]:
    frames = talks.datagrams(numbers) if numbers.random() < 0.2 else talks.tcp_talk(numbers)
    return pieces_of(talks.carried(numbers, frames)) or _made(numbers)


def _parts_of(path: Path) -> Iterator[list[Piece]]:
    for batch in batches_of(path):
        for first in range(0, min(len(batch.frames), MOST_OF_A_BATCH), LONGEST):
            yield _pieces(batch, first, LONGEST)


def _own() -> Iterator[list[Piece]]:
    """Yield parts of the own recording from its begin to its end."""
    if OWN_CAPTURE.exists():
        for batch in batches_of(OWN_CAPTURE):
            yield _pieces(batch, 0, LONGEST)


def batches_of(path: Path) -> Iterator[FrameBatch]:
    """Yield the batches of a capture file, up to where it cannot be read on."""
    try:
        source = open_capture(path)
    except CaptureError:
        return
    try:
        for batch in source.batches():
            ends = batch.frames["offset"] + batch.frames["captured_length"]
            assert len(ends) == 0 or ends.max() <= len(batch.octets), "a frame outside its batch"
            yield batch
    except CaptureError:
        pass
    finally:
        source.losses()
        source.close()


def _pieces(batch: FrameBatch, first: int, count: int) -> list[Piece]:
    rows = batch.frames[first : first + count]
    times = np.diff(rows["timestamp"], prepend=rows["timestamp"][0] - 1000)
    found = []
    for row, after in zip(rows, times.tolist(), strict=True):
        begin, size = int(row["offset"]), int(row["captured_length"])
        octets = batch.octets[begin : begin + size].tobytes()
        cut, link_type = int(row["original_length"]) - size, int(row["link_type"])
        found.append(Piece(octets, after, cut, link_type, int(row["vlan"]), int(row["interface"])))
    return found
