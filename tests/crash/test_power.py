"""Power cuts: whatever a disk may lose that was not synced, nothing that was acknowledged is lost.

A real scheduler's system calls are traced while agents deliver, journals become segments, segments
are merged and jobs are deleted. Then, again and again, a moment is chosen, and a state that a power
cut at that moment may leave (disk.py says what may be lost), and a scheduler takes it up.

RECORDER_POWER_ROUNDS says how many states, RECORDER_CRASH_SEED repeats their choice; states that
fail are kept.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import pytest

from recordings import layout, snapshot
from recordings.journal import Part
from recordings.manifest import Manifest
from services.capture import outbox
from services.scheduler.batches import Batch
from services.scheduler.jobstore import JobStore
from services.scheduler.lifecycle import Lifecycle
from services.scheduler.quota import Quota
from services.scheduler.writer import Accepted, Writer
from tests.crash import roles, syscalls
from tests.crash.disk import Disk
from tests.crash.stored import by_snapshot, compare, directly
from tests.crash.traced import AGENTS, STEADY

pytestmark = pytest.mark.strace

SEED = int(os.environ.get("RECORDER_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
ROUNDS = int(os.environ.get("RECORDER_POWER_ROUNDS", "40"))
SECONDS = float(os.environ.get("RECORDER_POWER_SECONDS", "6"))
ROOT = Path(__file__).parents[2]


class Life:
    """What a scheduler did, and what it said meanwhile."""

    def __init__(self, folder: Path) -> None:
        origin = time.time()
        trace, self.data = folder / "trace", folder / "data"
        self.data.mkdir()
        program = [sys.executable, "-m", "tests.crash.traced", str(self.data), str(SECONDS)]
        command = syscalls.command(trace, program)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        try:
            assert process.wait() == 0, (folder / "log").read_text()[-1000:]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # strace and what it traces
            process.wait()
        self.end = roles.FastClock(origin).now().timestamp()
        """By the scheduler's clock; later than anything that it has stored."""
        calls = list(syscalls.read(trace))
        trace.unlink()
        self.disk = Disk(self.data)
        self.disk.feed(calls)
        ours = [call for call in calls if call.paths and self.data in call.paths[0].parents]
        self.moments = sorted(call.begin for call in ours)
        self.made = {call.paths[-1].name for call in ours if call.name == "rename"}
        self._said = [
            (call.begin, line)
            for call in calls
            if call.name == "write" and call.descriptor == 1
            for line in call.octets.decode().splitlines()
        ]

    def said(self, word: str, before: int) -> Iterator[list[str]]:
        """Yield what was said with this word before a moment."""
        end = bisect_left(self._said, (before, ""))
        for _, line in self._said[:end]:
            first, *rest = line.split()
            if first == word:
                yield rest


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return Life(tmp_path_factory.mktemp("life"))


@pytest.mark.timeout(600 + 20 * ROUNDS)
def test_nothing_acknowledged_is_lost_in_a_power_cut(life: Life, tmp_path: Path) -> None:
    print(f"RECORDER_CRASH_SEED={SEED} RECORDER_POWER_ROUNDS={ROUNDS}")
    merged = [name for name in life.made if layout.is_merged(name)]
    acknowledged = list(life.said("stored", life.moments[-1]))
    print(
        f"{len(life.moments)} calls, {life.disk.syncs} syncs, {len(acknowledged)} acknowledged, "
        f"{len(life.made)} files made, {len(merged)} of them merged"
    )
    assert acknowledged
    assert merged
    for number in range(ROUNDS):
        chance = random.Random(f"{SEED}/{number}")
        moment = chance.choice(life.moments) + 1
        state = tmp_path / str(number)
        life.disk.crash(moment, chance, state)
        kept = tmp_path / f"{number}-kept"
        shutil.copytree(state, kept)
        try:
            take_up(life, moment, state)
        except BaseException:
            print(f"round {number}, line {moment} of the trace; the state is {kept}")
            raise
        shutil.rmtree(state)
        shutil.rmtree(kept)


def take_up(life: Life, moment: int, data: Path) -> None:
    """Let a scheduler begin with what is left, and agents send the rest again."""
    clock = roles.FastClock(life.end, time.time())
    store = JobStore(data)
    writer = Writer(data, Quota(None), clock)
    try:
        writer.start()
        lifecycle = Lifecycle(data, store, writer, clock)
        lifecycle.recover()
        writer.roller.do(lambda: None).result()  # behind all that begins with the start
        check_jobs(life, moment, store)
        check_acknowledged(life, moment, data)
        if lifecycle.get(STEADY) is None:
            return  # it was cut before the job was there
        for agent in AGENTS:
            go_on(life, moment, writer, agent)
        sent = {(agent, int(n)) for agent, n, job in life.said("sending", moment) if job == STEADY}
        writer.close_run(STEADY, 1)
        assert directly(data, STEADY) == by_snapshot(data, STEADY) == sent
        check_folder(layout.run(data, STEADY, 1))
        left = {path.name for path in layout.root(data).iterdir()}
        assert left == {job.name for job in store.jobs() if job.runs}, left
    finally:
        writer.stop()
        store.close()


def check_jobs(life: Life, moment: int, store: JobStore) -> None:
    """Jobs that were created are there, those that were deleted are not."""
    found = {job.name for job in store.jobs()}
    created, deleting, deleted = (
        {name for (name,) in life.said(word, moment)} for word in ("created", "deleting", "deleted")
    )
    assert created - deleting <= found
    assert not found & deleted


def check_acknowledged(life: Life, moment: int, data: Path) -> None:
    deleting = {name for (name,) in life.said("deleting", moment)}
    stored: dict[str, set[tuple[str, int]]] = {}
    for agent, batch, job in life.said("stored", moment):
        if job not in deleting:
            stored.setdefault(job, set()).add((agent, int(batch)))
    for job, acknowledged in stored.items():
        compare(directly(data, job), acknowledged, f"in {job}, read directly")
        compare(by_snapshot(data, job), acknowledged, f"in {job}, in a snapshot")


def go_on(life: Life, moment: int, writer: Writer, agent: str) -> None:
    """Send what the scheduler does not have, as an agent does that still has all of it."""
    last = writer.last_sequence(agent)
    acknowledged = max((int(n) for a, n, _ in life.said("stored", moment) if a == agent), default=0)
    assert last >= acknowledged, f"{agent} would have to begin again"
    for of, number, job in life.said("sending", moment):
        if of == agent and int(number) > last:
            parts = tuple(
                Part(table, rows.num_rows, outbox.encode(rows))
                for table, rows in roles.tables(agent, int(number))
            )
            outcome = writer.submit(agent, agent, Batch(int(number), job, 1, parts)).result()
            assert job != STEADY or isinstance(outcome, Accepted), outcome


def check_folder(folder: Path) -> None:
    """All files are listed, and what is listed is there."""
    manifest = Manifest.load(folder)
    listed = {segment.file for segment in manifest.segments} | {layout.MANIFEST}
    names = {path.name for path in folder.iterdir()}
    assert listed <= names
    assert names - listed <= {gone.file for gone in manifest.retired}
    assert not snapshot.open(folder.parents[2], folder.parent.name).damage
