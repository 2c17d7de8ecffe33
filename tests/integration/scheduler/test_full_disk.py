"""A disk of its own that fills up, or becomes read-only, below a writer and a whole scheduler."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from recordings import layout, snapshot
from services.capture.spool import Spool
from services.capture.uplink import Uplink
from services.runtime.channel import open_channel
from services.runtime.clock import MovedClock
from services.scheduler.jobs import JobState
from services.scheduler.quota import Quota
from services.scheduler.writer import Accepted, Writer
from tests.integration.scheduler.test_process import PROGRAM, address, packets
from tests.unit.scheduler.conftest import World
from tests.unit.scheduler.stored import batch, losses, stored

pytestmark = pytest.mark.root

FULL = "The disk of the scheduler is full."
READ_ONLY = "The disk of the scheduler is read-only."


def mounted(disk: Path, *arguments: str) -> Iterator[Path]:
    disk.mkdir()
    subprocess.run(["mount", *arguments, disk], check=True)
    try:
        yield disk
    finally:
        # Lazily, so that it goes also when a process of a failed test still uses it.
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 4 MiB."""
    yield from mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "tmpfs")


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB, on which blocks are allocated late."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
    yield from mounted(tmp_path / "disk", "-o", "loop", str(image))


def fill(disk: Path) -> Path:
    """Take all that is left, to the last octet."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (1 << 20, 4096, 1):
        with suppress(OSError):
            while True:
                os.write(descriptor, bytes(size))
    os.close(descriptor)
    return filler


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# ---- a writer


class Held:
    """A writer on a disk, and what it has said."""

    def __init__(self, disk: Path) -> None:
        self.clock = MovedClock(datetime(2026, 11, 23, tzinfo=UTC))
        self.notes: list[str] = []
        self.writer = Writer(disk, Quota(None), self.clock)
        self.writer.on_held = lambda job, run, reason: self.notes.append(reason)
        self.writer.start()


def test_a_full_disk_holds_what_comes_and_keeps_what_was_acknowledged(small_disk: Path) -> None:
    store = Held(small_disk)
    store.writer.open_run("other", 1, "dns")
    store.writer.submit("b", "node-1", batch("b", 1, "other")).result()
    store.writer.close_run("other", 1)
    store.writer.open_run("checkout", 1, "http")
    futures = [
        store.writer.submit("a", "node-1", batch("a", s, rows=1, size=100_000))
        for s in range(1, 100)
    ]
    until(lambda: store.notes == [FULL])
    taken = sum(future.done() for future in futures)
    assert 10 < taken < 50
    assert store.writer.last_sequence("a") == taken
    assert stored(small_disk) == {("a", s): 1 for s in range(1, taken + 1)}
    assert stored(small_disk, "other") == {("b", 1): 3}

    # A restart on the full disk finds all of it; what had no answer is sent again.
    store.writer.stop()
    assert not any(future.done() and not future.cancelled() for future in futures[taken:])
    store = Held(small_disk)
    store.writer.open_run("checkout", 1, "http")
    assert store.writer.last_sequence("a") == taken
    again = [
        store.writer.submit("a", "node-1", batch("a", s, rows=1, size=100_000))
        for s in range(taken + 1, 100)
    ]
    until(lambda: store.notes == [FULL])
    subprocess.run(["mount", "-o", "remount,size=32m", small_disk], check=True)
    until(lambda: store.clock.move(timedelta(seconds=3)) or all(f.done() for f in again))
    assert [f.result() for f in again] == [Accepted(s) for s in range(taken + 1, 100)]
    store.writer.close_run("checkout", 1)
    assert layout.journals(layout.run(small_disk, "checkout", 1)) == []
    assert stored(small_disk) == {("a", s): 1 for s in range(1, 100)}
    assert {loss["kind"] for loss in losses(small_disk)} == {"disk_full"}
    assert store.notes == [FULL, ""]
    store.writer.stop()


def test_a_disk_that_is_read_only_for_a_while_holds_what_comes(small_disk: Path) -> None:
    store = Held(small_disk)
    store.writer.open_run("checkout", 1, "http")
    store.writer.submit("a", "node-1", batch("a", 1)).result()
    store.writer.close_run("checkout", 1)
    store.writer.open_run("checkout", 1, "http")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    future = store.writer.submit("a", "node-1", batch("a", 2))
    until(lambda: store.notes == [READ_ONLY])
    assert stored(small_disk) == {("a", 1): 3}
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    store.clock.move(timedelta(seconds=3))
    assert future.result(30) == Accepted(2)
    store.writer.close_run("checkout", 1)
    assert stored(small_disk) == {("a", 1): 3, ("a", 2): 3}
    assert [loss["detail"] for loss in losses(small_disk)] == [READ_ONLY]
    store.writer.stop()


# ---- jobs


def test_a_run_that_cannot_begin_begins_when_there_is_room(small_disk: Path) -> None:
    world = World(small_disk)
    world.writer._quota.limit = None
    world.create(start_time="12:30", duration_minutes=60)
    world.move(timedelta(minutes=29))
    filler = fill(small_disk)
    world.move(timedelta(minutes=11))
    assert world.job().runs == ()
    assert world.job().reason == "Run 1 waits for the disk: No space left on device."
    filler.unlink()
    world.move(timedelta(minutes=1))
    assert world.states() == (JobState.RECORDING, [JobState.RECORDING])
    assert world.job().reason == ""
    assert world.job().runs[0].reason == "It began 10 minutes late."
    world.down()


def test_a_run_whose_disk_is_full_waits_for_room_after_its_end(small_disk: Path) -> None:
    world = World(small_disk)
    world.create(duration_minutes=10)
    world.move(timedelta(seconds=10))
    world.lifecycle.sessions.agent_connected("a", "node-1")
    world.writer.submit("a", "node-1", batch("a", 1)).result(30)
    filler = fill(small_disk)
    future = world.writer.submit("a", "node-1", batch("a", 2, rows=20, size=20_000))
    until(lambda: world.writer.runs()[0].held)
    until(lambda: world.move(timedelta(seconds=1)) or world.job().reason)
    said = f"{FULL} Agents keep what they record until there is room."
    assert (world.job().reason, world.job().runs[0].reason) == (said, said)
    assert world.lifecycle.history("checkout")[-1].reason == said
    world.move(timedelta(minutes=30))
    assert world.states() == (JobState.RECORDING, [JobState.RECORDING])
    filler.unlink()
    until(lambda: world.clock.move(timedelta(seconds=3)) or future.done())
    assert future.result() == Accepted(2)
    world.lifecycle.sessions.agent_finished("a", "checkout", 1)
    until(lambda: world.move(timedelta(seconds=5)) or not world.job().runs[0].is_recording)
    assert world.states() == (JobState.COMPLETED, [JobState.COMPLETED])
    assert "The disk of the scheduler took nothing from 12:00:" in world.job().runs[0].reason
    assert stored(small_disk) == {("a", 1): 3, ("a", 2): 20}
    world.down()


def test_a_run_whose_disk_stays_full_ends_and_says_so(small_disk: Path) -> None:
    world = World(small_disk)
    world.create(duration_minutes=10)
    world.move(timedelta(seconds=10))
    world.lifecycle.sessions.agent_connected("a", "node-1")
    filler = fill(small_disk)
    future = world.writer.submit("a", "node-1", batch("a", 1, rows=20, size=20_000))
    until(lambda: world.writer.runs()[0].held)
    world.move(timedelta(minutes=71))
    assert world.states() == (JobState.STORAGE_LIMITED, [JobState.STORAGE_LIMITED])
    assert (world.job().reason, future.result(30).reason) == (FULL, FULL)
    filler.unlink()
    until(lambda: world.move(timedelta(seconds=31)) or losses(small_disk))
    told = {loss["kind"]: loss["packets"] for loss in losses(small_disk)}
    assert told.pop("agent_gone", 0) == 0
    assert told == {"disk_full": 0, "storage_limit": 20}
    world.down()


# ---- a scheduler's process, and an agent's uplink with a spool


class Site:
    """A scheduler's process on the small disk, and an agent that delivers to it."""

    def __init__(self, disk: Path, spool: Path) -> None:
        self.disk, self._spool = disk, spool
        self.start()
        self.sent = 0
        with open_channel(self.address) as channel:
            spec = jobs_pb2.JobSpec(name="checkout", kfl="http")
            jobs_pb2_grpc.JobsServiceStub(channel).CreateJob(
                jobs_pb2.CreateJobRequest(spec=spec), timeout=30
            )
        spooled = Spool(spool, 64 << 20)
        self.uplink = Uplink(self.address, "node-a", "", memory_limit=1 << 20, spool=spooled)
        self.uplink.start()
        assert self.uplink.wait_for_assignments(0, 60)

    def start(self, listen: str = "127.0.0.1:0") -> None:
        arguments = [sys.executable, "-W", "error", "-c", PROGRAM, str(self.disk), listen]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        self.address = address(self.process)
        self._drain = threading.Thread(target=self.process.communicate, daemon=True)
        self._drain.start()

    def end(self, how: signal.Signals) -> None:
        self.process.send_signal(how)
        self._drain.join(60)

    def send(self, packets_each: int = 3000, times: int = 1) -> None:
        for _ in range(times):
            self.uplink.send("checkout", 1, [("packets", packets(packets_each))])
            self.sent += packets_each

    def job(self) -> jobs_pb2.Job:
        with open_channel(self.address) as channel:
            request = jobs_pb2.GetJobRequest(name="checkout")
            return jobs_pb2_grpc.JobsServiceStub(channel).GetJob(request, timeout=30).job

    def stored(self) -> int:
        return len(snapshot.open(self.disk, "checkout").rows_after("packets", {}))

    def close(self) -> None:
        self.uplink.stop()
        self.end(signal.SIGKILL)


@pytest.fixture
def site(ext4: Path, tmp_path: Path) -> Iterator[Site]:
    site = Site(ext4, tmp_path / "spool")
    yield site
    site.close()


def until_held(site: Site) -> int:
    """Send until the disk is full; return what is acknowledged by then."""
    site.send(10)
    assert site.uplink.flush(60)
    fill(site.disk)
    site.send(times=20)
    until(lambda: site.job().reason)
    return site.uplink.counters.acknowledged


def check_all_arrived(site: Site) -> None:
    assert site.uplink.flush(60)
    assert site.stored() == site.sent
    assert site.uplink.counters.refused == site.uplink.counters.dropped == 0
    kinds = [row["kind"] for row in losses(site.disk)]
    assert set(kinds) == {"disk_full"}


def test_a_scheduler_goes_on_when_someone_makes_room(site: Site) -> None:
    acknowledged = until_held(site)
    assert site.job().reason == f"{FULL} Agents keep what they record until there is room."
    assert site.job().runs[0].reason == site.job().reason
    assert site.job().state == jobs_pb2.JOB_STATE_RECORDING
    assert not site.uplink.is_idle
    assert site.uplink.counters.acknowledged == acknowledged
    assert site.stored() < site.sent
    (site.disk / "filler").unlink()
    check_all_arrived(site)
    until(lambda: not site.job().reason)
    assert site.job().runs[0].reason.startswith("The disk of the scheduler took nothing from")
    assert site.process.poll() is None


def test_a_scheduler_is_killed_and_started_while_its_disk_is_full(site: Site) -> None:
    until_held(site)
    for _ in range(2):
        site.end(signal.SIGKILL)
        site.start(site.address)
        site.send()
        until(lambda: site.job().reason)
        assert site.job().state == jobs_pb2.JOB_STATE_RECORDING
    assert not site.uplink.is_idle
    (site.disk / "filler").unlink()
    check_all_arrived(site)


def test_a_scheduler_is_stopped_and_started_while_its_disk_is_full(site: Site) -> None:
    until_held(site)
    site.end(signal.SIGTERM)
    assert site.process.returncode == 0
    site.start(site.address)
    until(lambda: site.job().reason)
    assert "It was tried again after a restart" in site.job().runs[0].reason
    (site.disk / "filler").unlink()
    check_all_arrived(site)


def test_an_agent_without_room_tells_what_it_dropped(ext4: Path, tmp_path: Path) -> None:
    site = Site(ext4, tmp_path / "spool")
    try:
        until_held(site)
        uplink = Uplink(site.address, "node-b", "", memory_limit=1 << 20)
        uplink.start()
        for _ in range(20):
            uplink.send("checkout", 1, [("packets", packets(3000))])
        until(lambda: uplink.counters.dropped)
        (site.disk / "filler").unlink()
        assert uplink.flush(60)
        assert site.uplink.flush(60)
        told = [row for row in losses(site.disk) if row["kind"] == "uplink_overrun"]
        assert {row["node_name"] for row in told} == {"node-b"}
        assert site.stored() + sum(row["packets"] for row in told) == site.sent + 60_000
        uplink.stop()
    finally:
        site.close()
