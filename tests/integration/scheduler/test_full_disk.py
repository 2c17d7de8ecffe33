import subprocess
from datetime import UTC, datetime

import pytest

from recordings import layout
from services.runtime.clock import MovedClock
from services.scheduler.quota import Quota
from services.scheduler.writer import Accepted, Refused, Writer
from tests.unit.scheduler.stored import batch, losses, stored

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path):
    """A file system with room for 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_the_run_and_keeps_what_was_acknowledged(small_disk):
    full = []
    clock = MovedClock(datetime(2026, 11, 23, tzinfo=UTC))
    writer = Writer(small_disk, Quota(None), clock, lambda *found: full.append(found))
    writer.start()
    writer.open_run("other", 1, "dns")
    writer.submit("b", "node-1", batch("b", 1, "other")).result()
    writer.close_run("other", 1)
    writer.open_run("checkout", 1, "http")
    futures = [
        writer.submit("a", "node-1", batch("a", s, rows=1, size=100_000)) for s in range(1, 100)
    ]
    outcomes = [future.result(30) for future in futures]
    taken = {o.sequence for o in outcomes if isinstance(o, Accepted)}
    reasons = {o.reason for o in outcomes if isinstance(o, Refused)}
    assert 10 < len(taken) < 50
    assert reasons == {"The disk of the scheduler is full."}
    assert full == [("checkout", 1, "The disk of the scheduler is full.")]
    assert stored(small_disk) == {("a", s): 1 for s in taken}

    # There is no room for segments: the journal stays, and closing does not fail.
    totals = writer.close_run("checkout", 1)
    assert totals.packets == len(taken)
    assert stored(small_disk) == {("a", s): 1 for s in taken}
    assert stored(small_disk, "other") == {("b", 1): 3}
    writer.stop()

    # A restart on the full disk finds all of it, and goes on when there is room.
    writer = Writer(small_disk, Quota(None), clock)
    writer.start()
    assert stored(small_disk) == {("a", s): 1 for s in taken}
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    writer.open_run("checkout", 1, "http")
    number = max(o.sequence for o in outcomes) + 1
    assert writer.submit("a", "node-1", batch("a", number)).result(30) == Accepted(number)
    writer.close_run("checkout", 1)
    assert layout.journals(layout.run(small_disk, "checkout", 1)) == []
    assert stored(small_disk) == {**{("a", s): 1 for s in taken}, ("a", number): 3}
    assert {loss["kind"] for loss in losses(small_disk)} <= {"storage_limit"}
    writer.stop()


def test_a_disk_that_becomes_read_only_ends_the_run(small_disk):
    full = []
    clock = MovedClock(datetime(2026, 11, 23, tzinfo=UTC))
    writer = Writer(small_disk, Quota(None), clock, lambda *found: full.append(found))
    writer.start()
    writer.open_run("checkout", 1, "http")
    writer.submit("a", "node-1", batch("a", 1)).result()
    writer.close_run("checkout", 1)
    writer.open_run("checkout", 1, "http")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    outcome = writer.submit("a", "node-1", batch("a", 2)).result(30)
    assert isinstance(outcome, Refused)
    assert "Read-only file system" in outcome.reason
    assert full == [("checkout", 1, outcome.reason)]
    assert stored(small_disk) == {("a", 1): 3}
    writer.stop()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
