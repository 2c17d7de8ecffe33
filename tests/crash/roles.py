"""The processes of the crash test, as they run in children that are killed.

Scheduler and query service are the real ones; journals are small, merges come often, and the
scheduler's wall clock runs sixty times as fast, so that runs end and expire while the test watches.
The agent is the real uplink, fed by a generator instead of a wire.

What an agent does is in its log, a line each, written before the next step:

    sending ID JOB      it is about to hand over a batch
    sent ID JOB         the uplink has it
    stored ID JOB       the scheduler has acknowledged it, in this session
    idle ID -           it was told to pause, and everything is acknowledged
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
from recorder.v1 import ingest_pb2

from recordings import schema
from services.capture import spool as spools
from services.capture.spool import Spool
from services.capture.uplink import Uplink
from services.query import app as query_app
from services.runtime.logging import configure
from services.runtime.settings import QuerySettings, SchedulerSettings
from services.scheduler import app as scheduler_app
from services.scheduler import compactor
from services.scheduler import writer as writers
from tests.crash import killpoints
from tests.crash.killpoints import KillPoint

TIMES_AS_FAST = 60
POLICY = compactor.Policy(400_000, grace_seconds=180, look_seconds=0.01, is_gentle=False)
"""The grace is by the fast clock: three seconds."""
PAUSE_SECONDS = 0.02
SPOOL_FILE_BYTES = 100_000
SPOOL_BYTES = 4 << 20
"""A thousand batches; while the scheduler is away for long, the oldest are dropped."""
TAG = re.compile(rb"\[([a-z0-9-]+) ([0-9]+) ([0-9]+)/([0-9]+)\]")
"""Is in each frame and each path: agent, ID of the batch, number of the row, rows of the batch."""


class FastClock:
    """A wall clock that said `origin` at `begin`, and runs faster since, in any process.

    Both in seconds since 1970; without `begin`, that is `origin` too.
    """

    def __init__(self, origin: float, begin: float | None = None) -> None:
        self._origin = origin
        self._begin = origin if begin is None else begin

    def now(self) -> datetime:
        passed = (time.time() - self._begin) * TIMES_AS_FAST
        return datetime.fromtimestamp(self._origin, UTC) + timedelta(seconds=passed)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, until: datetime | None) -> bool:
        if until is None:
            return event.wait()
        return event.wait(max(0.0, (until - self.now()).total_seconds() / TIMES_AS_FAST))


def scheduler(data: Path, address: str, origin: float, log: Path, point: KillPoint | None) -> None:
    """Run a scheduler until it is killed."""
    begin(log, point)
    writers.ROLL_BYTES = 40_000
    writers.ROLL_SECONDS = 0.3
    scheduler_app.Compactor = partial(compactor.Compactor, policy=POLICY)
    settings = SchedulerSettings(listen=address, data=data, storage_limit=1 << 30)
    wait_with(scheduler_app.Scheduler(settings, FastClock(origin)))


def query(data: Path, address: str, log: Path, point: KillPoint | None) -> None:
    """Run a query service until it is killed."""
    begin(log, point)
    settings = QuerySettings(listen=address, data=data, memory_limit=128 << 20, threads=1)
    app = query_app.App(settings)
    app.start()
    wait_with(app)


def agent(
    folder: Path, address: str, name: str, memory: int, with_spool: bool, log: Path,
    point: KillPoint | None,
) -> None:  # fmt: skip
    """Send batches for all that is assigned, until killed; none while `folder/pause` is there."""
    begin(log, point)
    spools.FILE_BYTES = SPOOL_FILE_BYTES
    kept = Spool(folder / name, SPOOL_BYTES) if with_spool else None
    journal = (folder / f"{name}.log").open("ab", buffering=0)

    def note(word: str, batch: int | bytes, job: str) -> None:
        number = batch if isinstance(batch, int) else int(batch)
        journal.write(f"{word} {number} {job}\n".encode())

    uplink = Uplink(address, name, "", spool=kept, memory_limit=memory)
    note_answers(uplink, note)
    uplink.start()
    say("serving")
    number = next_number(folder, name)
    known: set[tuple[str, int]] = set()
    while True:
        assigned = {(found.job, found.run) for found in uplink.assignments}
        for ended in known - assigned:
            uplink.send(*ended, [], final=True)
        known = assigned
        if not (folder / "pause").exists():
            for job, run in sorted(assigned):
                note("sending", number, job)
                uplink.send(job, run, tables(name, number))
                note("sent", number, job)
            number += 1
        elif uplink.is_idle:
            note("idle", number, "-")
        time.sleep(PAUSE_SECONDS)


def next_number(folder: Path, name: str) -> int:
    """Return a number for batches that no agent before this one had."""
    return max((batch for _, batch, _ in told(folder, name)), default=0) + 1


def told(folder: Path, name: str) -> list[tuple[str, int, str]]:
    """Return what an agent has noted: word, ID of the batch, job. The last line may be cut."""
    path = folder / f"{name}.log"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [(word, int(batch), job) for word, batch, job in map(str.split, lines)]


def tables(agent: str, batch: int) -> list[tuple[str, pa.Table]]:
    """Return a batch of one to five packets and as many entries, some of them large."""
    now = time.time_ns()
    rows = 1 + batch % 5
    noise = "x" if batch % 7 else os.urandom(2000).hex()
    tags = [f"[{agent} {batch} {row}/{rows}]" for row in range(rows)]
    # Not in the order of time: a merge has something to do.
    times = [now - (batch * 7919 % 11 + row) * 3_000_000 for row in range(rows)]
    packets = [
        {**PACKET, "node_name": agent, "time": at, "frame": (tag + noise).encode()}
        for tag, at in zip(tags, times, strict=True)
    ]
    entries = [
        {**ENTRY, "node_name": agent, "start_time": at, "request_path": tag, "request_body": noise}
        for tag, at in zip(tags, times, strict=True)
    ]
    return [
        ("packets", pa.Table.from_pylist(packets, schema.PACKETS)),
        ("entries", pa.Table.from_pylist(entries, schema.ENTRIES)),
    ]


PACKET = {"stream": "8f3a000000000001", "link_type": 1, "original_length": 60}
ENTRY = {
    "index": 0,
    "stream": "8f3a000000000001",
    "node_ip": "",
    "protocol_name": "http",
    "protocol_version": "1.1",
    "protocol_abbr": "HTTP",
    "transport": "tcp",
    "tls": False,
}


def note_answers(uplink: Uplink, note: Callable[[str, bytes, str], None]) -> None:
    """Note what the scheduler acknowledges, before the uplink forgets it."""
    box, refused = uplink._outbox, set()
    acknowledge, take = box.acknowledge, uplink._take

    def noting(sequence: int) -> None:
        for request in itertools.chain(box._in_flight, box._again):
            batch = request.batch
            if batch.sequence > sequence:
                break  # they are in order
            if batch.sequence not in refused:
                for number in batches_of(batch):
                    note("stored", number, batch.job)
        acknowledge(sequence)

    def taking(session: object, response: ingest_pb2.ConnectResponse) -> None:
        if response.WhichOneof("message") == "refusal":
            number = response.refusal.sequence
            refused.add(number)
            if any(r.batch.sequence == number and r.batch.parts for r in box._in_flight):
                say(f"refused: {response.refusal.reason}")
        take(session, response)

    # A slotted class has no room for another method of its own.
    uplink._outbox = _Noting(box, noting)
    uplink._take = taking


class _Noting:
    """An outbox whose acknowledgements are noted."""

    def __init__(self, box: object, acknowledge: Callable[[int], None]) -> None:
        self._box = box
        self.acknowledge = acknowledge

    def __getattr__(self, name: str) -> object:
        return getattr(self._box, name)


def batches_of(batch: ingest_pb2.Batch) -> set[bytes]:
    """Return the IDs that are in a message."""
    return {match[2] for part in batch.parts for match in TAG.finditer(part.arrow_ipc)}


def begin(log: Path, point: KillPoint | None) -> None:
    """Write to a log alone, and arm the kill point."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    configure(format="json")
    threading.Thread(target=_end_with_the_test, daemon=True).start()
    if point is not None:
        killpoints.arm(point, lambda where: say(f"dies {where}"))


def _end_with_the_test() -> None:
    """Leave nothing behind when the test itself is killed."""
    test = multiprocessing.parent_process()
    assert test is not None
    test.join()
    os._exit(1)


def wait_with(service: object) -> None:
    """Keep a service until this process is killed."""
    say("serving")
    threading.Event().wait()
    del service


def say(text: str) -> None:
    """Write a line to the log, at once."""
    os.write(1, f"{os.getpid()} {text}\n".encode())
