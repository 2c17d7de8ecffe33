"""Compaction in a real writer's process: while it is killed, and while others read.

COMPACTION_KILLS says how often it is killed.
"""

import os
import random
import threading
import time

import pytest

import kfl
from recordings import layout, merging, snapshot, verify
from services.query import answer, plan
from services.query.catalog import Catalog
from services.query.engine import Engine
from services.query.follow import Follower
from services.runtime.clock import SystemClock
from services.scheduler import writer as writers
from services.scheduler.batches import Batch
from services.scheduler.compactor import Compactor, Policy
from services.scheduler.quota import Quota
from services.scheduler.writer import Writer
from tests.integration.scheduler.test_killed_writer import check, run_and_kill
from tests.integration.scheduler.writing_process import AGENTS, JOBS
from tests.unit.scheduler.stored import MOMENT, encode

KILLS = int(os.environ.get("COMPACTION_KILLS", "8"))


def test_every_row_is_there_once_after_any_kill(tmp_path):
    chance = random.Random(KILLS)
    acknowledged = dict.fromkeys(AGENTS, 0)
    merged = set()
    for _ in range(KILLS):
        lines = run_and_kill(tmp_path, 3000, chance.uniform(0.1, 0.8), "compacting")
        for agent, *rest in lines:
            if rest[0] == "begins":
                assert int(rest[1]) >= acknowledged[agent]
            else:
                acknowledged[agent] = max(acknowledged[agent], int(rest[0]))
        check(tmp_path, acknowledged)
        for job in JOBS:
            files = snapshot.open(tmp_path, job).files("packets")
            merged |= {path for path in files if layout.is_merged(path.name)}
    assert merged
    assert min(acknowledged.values()) > KILLS
    writer = Writer(tmp_path, Quota(None), SystemClock())
    writer.start()
    compactor = Compactor(writer, Quota(None), SystemClock(), Policy(grace_seconds=0))
    for job in JOBS:
        writer.close_run(job, 1)
    while compactor.look():
        pass
    compactor.look()
    writer.stop()
    check(tmp_path, acknowledged)
    for job in JOBS:
        listed = snapshot.open(tmp_path, job).files("packets")
        assert sum(path.stat().st_size < 1 << 20 for path in listed) <= 1
        names = {path.name for path in layout.run(tmp_path, job, 1).iterdir()}
        assert names == {*(path.name for path in listed), "manifest.json"}


ENTRY = {
    "stream": "00000000000000a1",
    "node_name": "node-1",
    "node_ip": "",
    "protocol_name": "http",
    "protocol_version": "1.1",
    "protocol_abbr": "HTTP",
    "transport": "tcp",
    "tls": False,
}


class HeldClock(SystemClock):
    """Stands still while a question is asked: what is read is kept on slow machines too."""

    held = None

    def hold(self):
        self.held = SystemClock.now(self)

    def now(self):
        return self.held or super().now()


class Recording:
    """A writer that is given entries all the time, numbered in `index`, and a compactor."""

    def __init__(self, data):
        self.writer = Writer(data, Quota(None), SystemClock())
        self.writer.start()
        self.writer.open_run("checkout", 1, "http")
        policy = Policy(target_bytes=1 << 20, grace_seconds=1, look_seconds=0.01, is_gentle=False)
        self.clock = HeldClock()
        self.compactor = Compactor(self.writer, Quota(None), self.clock, policy)
        self.compactor.start()
        self.stored = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send)
        self._thread.start()

    def _send(self):
        chance = random.Random(1)
        sequence = 0
        while not self._end.is_set():
            sequence += 1
            times = [MOMENT + chance.randrange(10**9) for _ in range(20)]
            rows = [
                {**ENTRY, "index": self.stored + n, "start_time": time}
                for n, time in enumerate(times)
            ]
            batch = Batch(sequence, "checkout", 1, (encode("entries", rows),))
            self.writer.submit("a", "node-1", batch).result(60)
            self.stored += len(rows)

    def end(self):
        self._end.set()
        self._thread.join()
        self.compactor.stop()
        self.writer.stop()


@pytest.fixture
def recording(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "ROLL_BYTES", 50_000)
    recording = Recording(tmp_path)
    yield recording
    recording.end()


def test_answers_are_whole_while_segments_are_merged_and_removed(tmp_path, recording):
    catalog, engine = Catalog(tmp_path), Engine(tmp_path, memory_limit_bytes=1 << 30, threads=1)
    statement = kfl.compile('record("checkout") and http')
    follower, followed = Follower(catalog, "checkout", plan.ALWAYS), []
    slow, slowly = Follower(catalog, "checkout", plan.ALWAYS), []
    merged, removed = set(), 0
    try:
        begin = time.monotonic()
        while time.monotonic() < begin + 6 or (not removed and time.monotonic() < begin + 60):
            recording.clock.hold()
            least = recording.stored
            source = catalog.open("checkout").source("entries")
            removed += any(not path.exists() for path in merged)
            merged |= {path for path in source.files if layout.is_merged(path.name)}
            with engine.session(30) as session:
                planned = plan.entries(statement, [source])
                tables = list(answer.of_plan(session, planned, statement, plan.ALWAYS))
            found = [index for table in tables for index in table["index"].to_pylist()]
            times = [t for table in tables for t in answer.nanoseconds_of(table["start_time"])]
            assert len(found) == len(set(found)) >= least
            assert times == sorted(times)
            followed += indices(follower)
        slowly += indices(slow)
    finally:
        recording.end()
    assert merged
    assert removed
    followed += indices(follower)
    slowly += indices(slow)
    everything = list(range(recording.stored))
    assert sorted(followed) == sorted(slowly) == everything
    engine.close()


def indices(follower):
    """Return the numbers of what is new, as a follower sees it."""
    entries = follower.news().entries
    found = [number for _, tail in entries.tails for number in tail["index"].to_pylist()]
    return found + [
        number
        for path in entries.files
        for number in merging.read_column(path, "index").to_pylist()
    ]


def test_a_follower_that_was_away_for_long_gets_every_row_once(tmp_path, recording):
    catalog = Catalog(tmp_path)
    follower = Follower(catalog, "checkout", plan.ALWAYS)
    found = indices(follower)
    for _ in range(3):
        time.sleep(1.5)
        found += indices(follower)
    recording.end()
    taken = snapshot.open(tmp_path, "checkout")
    assert any(layout.is_merged(path.name) for path in taken.files("entries"))
    found += indices(follower)
    assert sorted(found) == list(range(recording.stored))


def test_a_recording_that_changes_all_the_time_is_verified(tmp_path, recording):
    end = time.monotonic() + 4
    rounds = 0
    while time.monotonic() < end:
        least = recording.stored
        (found,) = verify.check(tmp_path, "checkout")
        assert found.difference is None
        assert found.rows["entries"] >= least
        rounds += 1
    assert rounds > 1
    recording.end()
    (found,) = verify.check(tmp_path, "checkout")
    assert found.rows["entries"] == recording.stored
