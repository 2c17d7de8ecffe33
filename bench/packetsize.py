"""What packets take in a recording, against the same packets as pcapng under `zstd -1`.

The packets of the benchmark capture come in batches, as agents send them, and become segments, as
the scheduler writes them; then these are merged. BENCH_PACKETS says how many. Fails above 1.15.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from ingest import BATCH_ROWS, packets

from recordings import merging, segments
from services.capture import outbox
from services.query import pcapng
from services.scheduler.writer import ROLL_BYTES

PACKETS = int(os.environ.get("BENCH_PACKETS", "400_000"))
SMALL_OCTETS = 200
"""Packets below are measured for themselves, too: what is beside the octets weighs most there."""
GOAL = 1.15


def as_pcapng(table: pa.Table, path: Path) -> int:
    """Write the packets as pcapng; return the octets of the file under zstd -1."""
    with path.open("wb") as file:
        file.write(pcapng.section("bench", []) + pcapng.interface(1, "node-0", ""))
        for batch in table.to_batches(max_chunksize=10_000):
            times = batch["time"].cast(pa.int64()).to_pylist()
            columns = zip(times, batch["frame"].to_pylist(), batch["original_length"].to_pylist(),
                          strict=True)  # fmt: skip
            file.writelines(pcapng.packet(0, *row) for row in columns)
    compressed = path.with_suffix(".zst")
    subprocess.run(["zstd", "-1", "-q", "-f", path, "-o", compressed], check=True)
    return compressed.stat().st_size


def as_sent(table: pa.Table) -> list[pa.RecordBatch]:
    """Return the rows as they are in a journal."""
    rows = BATCH_ROWS["packets"]
    found: list[pa.RecordBatch] = []
    for begin in range(0, table.num_rows, rows):
        found += outbox.decode(outbox.encode(table[begin : begin + rows])).to_batches()
    return found


def journals(batches: list[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield what is in each journal."""
    begins, size = [0], 0
    for number, batch in enumerate(batches):
        size += batch.nbytes
        if size >= ROLL_BYTES:
            begins.append(number + 1)
            size = 0
    for begin, end in pairwise([*begins, len(batches)]):
        if begin < end:
            yield batches[begin:end]


def measure(what: str, table: pa.Table, folder: Path) -> float:
    """Print a row for some packets; return the greater of its ratios."""
    base = as_pcapng(table, folder / "packets.pcapng")
    begin = time.process_time()
    small = [
        segments.write(folder, "packets", part, number)
        for number, part in enumerate(journals(as_sent(table)), 1)
    ]
    seconds = time.process_time() - begin
    sizes = [sum(segment.bytes for segment in small)]
    if len(small) > 1:
        rows = merging.rows(folder, small, lambda: None)
        merged = segments.write(folder, "packets", rows, 1, last=len(small))
        sizes.append(merged.bytes)
    ratios = [size / base for size in sizes]
    octets = sum(len(frame) for frame in table["frame"].to_pylist())
    texts = [f"{size / 1e6:.1f} MB, {ratio:.3f}" for size, ratio in zip(sizes, ratios, strict=True)]
    print(
        f"| {what}: {table.num_rows:,}, {octets / 1e6:.0f} MB | {base / 1e6:.1f} MB | {texts[0]} "
        f"| {texts[1] if len(texts) > 1 else 'one journal'} | {octets / seconds / 1e6:.0f} MB/s |",
        flush=True,
    )
    return max(ratios)


def main() -> None:
    table = packets(PACKETS)
    small = table.filter(pc.less(pc.binary_length(table["frame"]), SMALL_OCTETS))
    print("| packets | pcapng, zstd -1 | segments, ratio | merged, ratio | written, a core |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for what, part in (("all", table), (f"below {SMALL_OCTETS} octets", small)):
        with tempfile.TemporaryDirectory() as folder:
            worst = max(worst, measure(what, part, Path(folder)))
    if worst > GOAL:
        raise SystemExit(f"the goal is {GOAL}")


if __name__ == "__main__":
    main()
