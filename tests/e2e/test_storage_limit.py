"""A storage limit that traffic would exceed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.e2e.network import LARGE, Network
from tests.e2e.services import Recorder

pytestmark = [pytest.mark.root, pytest.mark.debian]

LIMIT = 4 << 20
CALLS = 80
"""Each with LARGE octets that do not compress to nothing: more than twice the limit."""


def used(folder: Path) -> int:
    """Return what all files below a folder take on the disk, as du does."""
    total = 0
    for path in folder.rglob("*"):
        try:
            found = path.stat()
        except FileNotFoundError:  # removed in this moment
            continue
        if path.is_file():
            total += found.st_blocks * 512
    return total


class Watch:
    """Samples how much a folder holds, on a thread."""

    def __init__(self, folder: Path) -> None:
        self.largest = self.samples = 0
        self._folder = folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            self.largest = max(self.largest, used(self._folder))
            self.samples += 1

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.mark.timeout(300)  # a busy machine makes less traffic, and Parquet makes room meanwhile
def test_a_run_ends_at_the_limit_and_what_is_stored_can_be_asked(
    network: Network, recorder: Recorder
) -> None:
    recorder.start_scheduler("--storage-limit", "4Mi")
    recorder.start_query()
    recorder.start_agent(network.interface)
    recorder.record("small", "response.status == 404")
    recorder.record("large", 'request.path.startsWith("/large/")')
    network.curl("/missing/first")
    recorder.wait_for('record("small")', 1)
    watch = Watch(recorder.data / "recordings")
    try:
        for number in range(CALLS):
            network.curl(f"/large/limit-{number}")
        job = recorder.job("large")
        for _ in range(400):
            if job["state"] == "storage limited":
                break
            network.curl("/large/limit-more")
            job = recorder.job("large")
        entries = recorder.ask('record("large")')
        told = recorder.say("ask", 'record("large") and response.status == 1').said
    finally:
        watch.end()
    assert CALLS * LARGE > 2 * LIMIT
    assert job["state"] == "storage limited", job
    [run] = job["runs"]
    assert run["state"] == "storage limited"
    assert "4 MiB" in run["reason"], run["reason"]
    assert watch.samples > 10
    assert watch.largest <= LIMIT
    print(f"\nmost that was stored: {watch.largest} of {LIMIT} octets; {run['reason']}")
    assert len(entries) > 0
    assert len(entries) == run["entries"]
    assert all(entry["response"]["bodySize"] == LARGE for entry in entries)
    assert "storage limit" in told
    # What people read about it.
    shown = recorder.say("jobs", "get", "large").out
    assert "storage limited" in shown
    # Everything goes on after space was made.
    recorder.say("jobs", "delete", "large")
    recorder.record("again", 'request.path.startsWith("/ok/")')
    network.curl("/ok/again")
    recorder.wait_for('record("again")', 1)
