"""Batches whose rows say where they come from, and what of them is on disk afterwards."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from recordings import snapshot
from recordings.journal import Part
from recordings.schema import TABLES
from services.scheduler.batches import Batch

MOMENT = 1_763_853_120_123_456_789

PACKET = {
    "stream": "8f3a000000000001",
    "node_name": "node-1",
    "time": MOMENT,
    "link_type": 1,
    "original_length": 60,
}
LOSS = {
    "node_name": "node-1",
    "kind": "kernel_drop",
    "start_time": MOMENT,
    "end_time": MOMENT,
    "packets": 3,
    "bytes": 180,
    "detail": "",
}


def encode(table: str, rows: list[dict[str, object]], **options: object) -> Part:
    """Return rows as an agent sends them."""
    schema = TABLES[table]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    return Part(table, len(rows), sink.getvalue().to_pybytes())


def packets(agent: str, sequence: int, rows: int = 3, size: int = 0) -> Part:
    """Return packets whose frames say whose they are, with `size` octets of noise behind it."""
    noise = random.Random(sequence).randbytes(size)
    frames = [f"{agent}/{sequence}/{row}|".encode() + noise for row in range(rows)]
    return encode("packets", [{**PACKET, "frame": frame} for frame in frames])


def batch(
    agent: str, sequence: int, job: str = "checkout", run: int = 1, rows: int = 3, size: int = 0
) -> Batch:
    """Return such a batch."""
    return Batch(sequence, job, run, (packets(agent, sequence, rows, size),))


def stored(data: Path, job: str = "checkout") -> Counter[tuple[str, int]]:
    """Return how many rows of each agent's batches a query would find."""
    taken = snapshot.open(data, job)
    assert not taken.damage, taken.damage
    rows = taken.rows_after("packets", {})
    texts = [frame.partition(b"|")[0].decode() for frame in rows.column("frame").to_pylist()]
    assert len(texts) == len(set(texts)), "a row is there twice"
    return Counter((agent, int(number)) for agent, number, _ in (t.split("/") for t in texts))


def losses(data: Path, job: str = "checkout") -> list[dict[str, object]]:
    """Return the ledger of a recording."""
    rows = snapshot.open(data, job).rows_after("losses", {})
    found: list[dict[str, object]] = rows.drop_columns(["start_time", "end_time"]).to_pylist()
    return found


def disk_use(folder: Path) -> int:
    """Return the octets that a folder takes, as du counts blocks; what vanishes counts nothing."""
    du = subprocess.run(["du", "-s", "-B1", folder], capture_output=True, text=True, check=False)
    return int(du.stdout.split()[0])


def open_files(folder: Path) -> list[str]:
    """Return the files below a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # of another thread, which has closed it
            found.append(str(descriptor.readlink()))
    return [file for file in found if file.startswith(f"{folder}/")]
