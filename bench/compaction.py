"""What compaction is for, and what it costs: a recording in many small segments, and merged.

Both hold the same rows. Three questions go the way of the query service, from the manifest to the
last entry; then the start of the scheduler over each, and the compaction itself. Wall and CPU
seconds of the process, on one core; the scheduler works at compaction half of the time only, which
is left out here. Fails when a question over merged segments is not faster.

BENCH_SEGMENTS=1000 makes a smaller recording; it is made once and kept.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from filters import FILE_ROWS, MINUTE_NS, START_NS, Block

import kfl
from recordings import layout, merging, schema, segments
from recordings.manifest import Manifest
from services.query import answer, plan
from services.query.catalog import Catalog
from services.query.engine import Engine, Question
from services.runtime.clock import SystemClock
from services.runtime.logging import configure
from services.scheduler.compactor import Compactor, Policy
from services.scheduler.quota import Quota
from services.scheduler.writer import Writer

SEGMENTS = int(os.environ.get("BENCH_SEGMENTS", "10_000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
SEGMENT_ROWS = 200
PACKET_SEGMENTS = SEGMENTS // 10
SEGMENT_PACKETS, PACKET_BYTES = 1000, 1000
BLOCKS = 4

NAME = "compaction"
DATA = Path(os.environ.get("BENCH_DATA", ".cache/bench")).absolute()
SMALL, MERGED = DATA / f"compaction-{SEGMENTS}", DATA / "compaction-merged"


def record() -> None:
    """Make the recording in small segments, unless it is there."""
    folder = layout.run(SMALL, NAME, 1)
    if (folder / layout.MANIFEST).exists():
        return
    shutil.rmtree(SMALL, ignore_errors=True)
    folder.mkdir(parents=True)
    written = []
    blocks = [Block(number) for number in range(BLOCKS)]
    for number in range(SEGMENTS):
        block, begin = divmod(number * SEGMENT_ROWS, FILE_ROWS - FILE_ROWS % SEGMENT_ROWS)
        if not begin:
            table = blocks[block % BLOCKS].table(START_NS + block * MINUTE_NS)
        rows = table.slice(begin, SEGMENT_ROWS).combine_chunks()
        written.append(segments.write(folder, "entries", rows.to_batches(), number + 1))
    for number in range(PACKET_SEGMENTS):
        written.append(segments.write(folder, "packets", packets(number).to_batches(), number + 1))
    counts = {
        table: sum(each.rows for each in written if each.table == table)
        for table in ("entries", "packets")
    }
    Manifest(NAME, 1, "", tuple(written), SEGMENTS + 1, counts=counts).save(folder)


def packets(number: int) -> pa.Table:
    """Frames that are half noise; some belong to a moment before."""
    random = np.random.default_rng(number)
    times = START_NS + number * 10**9 + random.integers(-(10**9), 10**9, SEGMENT_PACKETS)
    octets = random.integers(0, 256, SEGMENT_PACKETS * PACKET_BYTES // 2, np.uint8).tobytes()
    half = PACKET_BYTES // 2
    frames = [octets[i * half : (i + 1) * half] * 2 for i in range(SEGMENT_PACKETS)]
    return pa.table(
        {
            "stream": [f"{n:016x}" for n in random.integers(0, 500, SEGMENT_PACKETS)],
            "node_name": ["node-1"] * SEGMENT_PACKETS,
            "time": pa.array(times).cast(schema.TIMESTAMP),
            "link_type": pa.array([1] * SEGMENT_PACKETS, pa.uint16()),
            "original_length": pa.array([PACKET_BYTES] * SEGMENT_PACKETS, pa.uint32()),
            "frame": pa.array(frames, pa.binary()),
        },
        schema=schema.PACKETS,
    )


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - wall, time.process_time() - cpu


def compact() -> None:
    """Merge a copy of the recording, and print what that took."""
    shutil.rmtree(MERGED, ignore_errors=True)
    shutil.copytree(SMALL / "recordings", MERGED / "recordings")
    writer = Writer(MERGED, Quota(), SystemClock())
    wall, cpu = timed(writer.start)
    print(f"scheduler's start over {files(MERGED):,} segments: {wall:.2f} s, CPU {cpu:.2f} s")
    compactor = Compactor(writer, Quota(), SystemClock(), Policy(grace_seconds=0, is_gentle=False))
    octets = sum(segment.bytes for segment in manifest(MERGED).segments)
    wall, cpu = timed(lambda: drain(compactor))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    compactor.look()  # removes what was merged
    writer.stop()
    gib, after = octets / 2**30, sum(segment.bytes for segment in manifest(MERGED).segments)
    print(
        f"compaction of {gib:.2f} GiB to {files(MERGED)} segments of {after / 2**30:.2f} GiB: "
        f"{wall:.1f} s, CPU {cpu:.1f} s; CPU {cpu / gib:.1f} s a GiB; "
        f"the process had {peak} MiB at most"
    )
    writer = Writer(MERGED, Quota(), SystemClock())
    wall, cpu = timed(writer.start)
    writer.stop()
    print(f"scheduler's start over {files(MERGED)} segments: {wall:.2f} s, CPU {cpu:.2f} s")


def drain(compactor: Compactor) -> None:
    while compactor.look():
        pass


def manifest(data: Path) -> Manifest:
    return Manifest.load(layout.run(data, NAME, 1))


def files(data: Path) -> int:
    return len(manifest(data).segments)


class Service:
    """What the query service has between questions."""

    def __init__(self, data: Path) -> None:
        self.catalog = Catalog(data)
        self.engine = Engine(data, memory_limit_bytes=4 << 30, threads=1)

    def count(self, text: str) -> int:
        _, planned = self._plan(text)
        inner = planned.question.sql
        inner = inner[: inner.rindex(" ORDER BY ")]
        question = Question(
            f"SELECT count(*) FROM ({inner})", planned.question.parameters, planned.question.tables
        )
        with self.engine.session(3600) as session:
            (batch,) = session.rows(question)
        return int(batch.column(0)[0].as_py())

    def last(self, text: str, limit: int) -> int:
        statement, planned = self._plan(text, limit + 1)
        with self.engine.session(3600) as session:
            tables = answer.of_plan(session, planned, statement, plan.ALWAYS)
            return sum(table.num_rows for table in answer.Answer(tables, limit))

    def _plan(self, text: str, limit: int | None = None) -> tuple[kfl.Filter, plan.Plan]:
        statement = kfl.compile(f'record("{NAME}") and {text}')
        source = self.catalog.open(NAME).source("entries")
        return statement, plan.entries(statement, [source], descending=True, limit=limit)


def questions(stream: str) -> dict[str, Callable[[Service], int]]:
    return {
        "count of 500s": lambda service: service.count("response.status == 500"),
        "last 100": lambda service: service.last("http", 100),
        "one stream": lambda service: service.last(f'stream == "{stream}"', 1000),
    }


def compare(what: str, ask: Callable[[Service], int], services: dict[str, Service]) -> float:
    """Ask both in turns; return how many times more CPU the small segments take."""
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in services}
    answers: set[int] = set()
    for _ in range(ROUNDS):
        for name, service in services.items():
            took[name].append(timed(partial(lambda service: answers.add(ask(service)), service)))
    assert len(answers) == 1, answers
    medians = {}
    for name, times in took.items():
        medians[name] = statistics.median(cpu for _, cpu in times)
        spent = [cpu * 1000 for _, cpu in times]
        wall = statistics.median(wall for wall, _ in times)
        print(
            f"{what:14} {name:7} CPU {medians[name] * 1000:7.0f} ms "
            f"({min(spent):.0f} to {max(spent):.0f}), wall {wall * 1000:.0f} ms"
        )
    ratio = medians["small"] / medians["merged"]
    print(f"{what:14} ratio   {ratio:8.1f}", flush=True)
    return ratio


def main() -> int:
    configure("error", "console")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if sys.argv[1:] == ["compact"]:
        compact()
        return 0
    record()
    # A process of its own, so that its memory is that of compaction.
    subprocess.run([sys.executable, __file__, "compact"], check=True)
    services = {"small": Service(SMALL), "merged": Service(MERGED)}
    first = manifest(SMALL).segments[SEGMENTS // 2]
    stream = merging.read_column(layout.run(SMALL, NAME, 1) / first.file, "stream")[0].as_py()
    for name, service in services.items():
        wall, cpu = timed(partial(service.last, "http", 100))
        print(f"first question, {name}: {wall:.2f} s, CPU {cpu:.2f} s")
    slower = [what for what, ask in questions(stream).items() if compare(what, ask, services) < 1]
    shutil.rmtree(MERGED)
    return int(bool(slower))  # a question over merged segments is slower


if __name__ == "__main__":
    sys.exit(main())
