"""How long a scheduler and a query service take to start over many recordings, until they serve.

BENCH_JOBS jobs, of which a tenth still record, with BENCH_SEGMENTS segments; the files are names of
the same two, as the start looks at names and sizes. Goal: 1,000 jobs and 100,000 segments in 3 s.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from compaction import packets
from filters import START_NS, Block

from recordings import layout, segments
from recordings.manifest import AgentMark, Manifest
from services.scheduler.jobs import Job, JobState, Run, Spec, begin_run, move_run, settle
from services.scheduler.jobstore import JobStore

JOBS = int(os.environ.get("BENCH_JOBS", "1_000"))
SEGMENTS = int(os.environ.get("BENCH_SEGMENTS", "100_000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
DATA = Path(os.environ.get("BENCH_DATA", ".cache/bench")).absolute()
ROWS = 200
AGENTS = 20
"""That have sent to each run."""
READY = {"scheduler": "scheduler serves", "query": "query service is ready"}


def record(data: Path) -> None:
    """Make the data folder of a scheduler."""
    template = data / "template"
    template.mkdir(parents=True)
    made = [
        segments.write(template, "entries", Block(0).table(START_NS)[:ROWS].to_batches()),
        segments.write(template, "packets", packets(0).to_batches()),
    ]
    marks = {f"node-{n}-0123456789ab": AgentMark(1000, 2000) for n in range(AGENTS)}
    nodes = tuple(sorted(f"node-{n}" for n in range(AGENTS)))
    each = SEGMENTS // JOBS // len(made)
    counts = {segment.table: segment.rows * each for segment in made}
    store = JobStore(data)
    for number in range(JOBS):
        job = f"job-{number}"
        folder = layout.run(data, job, 1)
        folder.mkdir(parents=True)
        listed = []
        for journal in range(1, each + 1):
            for segment in made:
                path = layout.segment(folder, segment.table, journal)
                path.hardlink_to(template / segment.file)
                listed.append(replace(segment, file=path.name))
        manifest = Manifest(job, 1, "http", tuple(listed), each + 1, marks, nodes, counts)
        manifest.save(folder)
        add(store, job, is_recording=number % 10 == 0)
    store.close()


def add(store: JobStore, name: str, *, is_recording: bool) -> None:
    """Add a job with one run, which goes on for a day or has ended."""
    now = datetime.now(UTC)
    begin = now - timedelta(hours=1)
    spec = Spec(
        name=name, kfl="http", start_time="", daily_iterations=1, duration_minutes=24 * 60,
        expiration_minutes=7 * 24 * 60, body_limit=1024, imported=False,
    )  # fmt: skip
    job = Job(
        spec=spec, state=JobState.SCHEDULED, reason="", create_time=begin, change_time=begin,
        first_start=begin,
    )  # fmt: skip
    store.add(job)
    run = Run(
        number=1, state=JobState.RECORDING, reason="", start_time=begin,
        end_time=begin + spec.duration,
    )  # fmt: skip
    job = settle(begin_run(job, run), more_runs=False, at=begin)
    store.save(job, begin)
    if not is_recording:
        store.save(settle(move_run(job, 1, JobState.COMPLETED), more_runs=False, at=now), now)


def started(role: str, data: Path) -> tuple[float, float, int]:
    """Start a service; return seconds until it serves, of CPU, and its memory in MiB."""
    program = [sys.executable, "-m", "services.cli.main", role, "--data", str(data)]
    environment = {**os.environ, "RECORDER_LOG_FORMAT": "json"}
    begin = time.monotonic()
    process = subprocess.Popen(
        [*program, "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    for line in process.stderr:
        if READY[role] in line:
            break
    else:
        raise SystemExit(f"the {role} has ended by itself")
    seconds = time.monotonic() - begin
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{process.pid}/status").read_text()
    (memory,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
    process.send_signal(signal.SIGKILL)  # it would merge segments, and the next round have fewer
    process.communicate()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds, cpu, int(memory) >> 10


def main() -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    print(f"| start, {JOBS:,} jobs and {SEGMENTS:,} segments | seconds | CPU s | MiB |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=DATA) as empty:
        for role in READY:
            row(f"{role}, empty folder", [started(role, Path(empty)) for _ in range(ROUNDS)])
    with tempfile.TemporaryDirectory(dir=DATA) as full:
        record(Path(full))
        for role in READY:
            row(role, [started(role, Path(full)) for _ in range(ROUNDS)])


def row(what: str, found: list[tuple[float, float, int]]) -> None:
    seconds, cpu, memory = zip(*found, strict=True)
    spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
    print(
        f"| {what} | {statistics.median(seconds):.2f} ({spread}) | {statistics.median(cpu):.2f} "
        f"| {max(memory)} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
