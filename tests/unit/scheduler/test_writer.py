import errno
import os
import shutil
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from recordings import journal, layout, segments, snapshot
from recordings.manifest import Manifest
from services.runtime.clock import MovedClock
from services.scheduler import runfiles, writer
from services.scheduler.batches import Batch
from services.scheduler.quota import Quota, StorageFullError
from services.scheduler.writer import Accepted, Refused, Writer
from tests.unit.scheduler.stored import (
    LOSS,
    batch,
    disk_use,
    encode,
    losses,
    open_files,
    packets,
    stored,
)


class Store:
    """A writer over a data folder, which tests stop, kill and start again."""

    def __init__(self, data):
        self.data = data
        self.clock = MovedClock(datetime(2026, 11, 23, tzinfo=UTC))
        self.full = []
        self.limit = None
        self.up()

    def up(self, limit=None):
        self.limit = limit or self.limit
        self.quota = Quota(self.limit)
        self.writer = Writer(self.data, self.quota, self.clock, lambda *a: self.full.append(a))
        self.writer.start()

    def again(self, limit=None):
        self.writer.stop()
        self.up(limit)

    def submit(self, agent, *batches):
        """Offer batches all at once, and return what became of each."""
        futures = [self.writer.submit(agent, f"node-of-{agent}", b) for b in batches]
        return [future.result(timeout=60) for future in futures]

    def eventually(self, holds):
        """Wait for what the writer's threads do by themselves."""
        for _ in range(3000):
            if holds():
                return
            time.sleep(0.01)
        raise AssertionError("it did not come")

    def folder(self, job="checkout", run=1):
        return layout.run(self.data, job, run)

    def files(self, pattern="*", job="checkout", run=1):
        return sorted(path.name for path in self.folder(job, run).glob(pattern))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "data")
    store.writer.open_run("checkout", 1, "http")
    yield store
    store.writer.stop()


# ---- batches


def test_an_accepted_batch_can_be_asked_for_at_once(store):
    assert store.submit("a", batch("a", 1)) == [Accepted(1)]
    assert stored(store.data) == {("a", 1): 3}


def test_many_agents_at_once(store):
    def send(agent):
        found = store.submit(agent, *[batch(agent, sequence) for sequence in range(1, 31)])
        assert found == [Accepted(sequence) for sequence in range(1, 31)]

    threads = [threading.Thread(target=send, args=(f"agent-{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(store.data) == {(f"agent-{i}", s): 3 for i in range(6) for s in range(1, 31)}
    assert store.writer.last_sequence("agent-3") == 30
    assert store.writer.totals("checkout", 1).nodes == tuple(f"node-of-agent-{i}" for i in range(6))


def test_one_sync_answers_all_that_wait(store, monkeypatch):
    syncs = []
    is_free = threading.Event()
    real = os.fdatasync

    def slow(descriptor):
        syncs.append(descriptor)
        is_free.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    first = store.writer.submit("a", "n", batch("a", 1))
    store.eventually(lambda: syncs)
    rest = [store.writer.submit("a", "n", batch("a", s)) for s in range(2, 50)]
    assert not first.done()
    is_free.set()
    assert [f.result(10).sequence for f in (first, *rest)] == list(range(1, 50))
    assert len(syncs) == 2


def test_what_was_sent_again_is_acknowledged_and_not_stored_twice(store):
    twice = [batch("a", 1), batch("a", 2), batch("a", 1), batch("a", 2), batch("a", 3)]
    assert store.submit("a", *twice) == [Accepted(b.sequence) for b in twice]
    assert store.submit("a", batch("a", 2)) == [Accepted(2)]
    store.again()
    store.writer.open_run("checkout", 1, "http")
    assert store.submit("a", batch("a", 3)) == [Accepted(3)]  # from the manifest or the journal
    store.writer.close_run("checkout", 1)
    store.writer.open_run("checkout", 1, "http")
    assert store.submit("a", batch("a", 1), batch("a", 4)) == [Accepted(1), Accepted(4)]
    assert stored(store.data) == {("a", s): 3 for s in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (batch("a", 1, job="other"), "Run 1 of job other takes no data"),
        (batch("a", 1, run=2), "Run 2 of job checkout takes no data"),
        (Batch(1, "../x", 1, ()), "cannot name a recording"),
        (Batch(1, "checkout", 1, (packets("a", 1)._replace(rows=9),)), "claims 9 rows, and has 3"),
        (Batch(1, "checkout", 1, (packets("a", 1)._replace(octets=b"x"),)), "as Arrow IPC"),
    ],
)
def test_a_batch_that_is_wrong_is_refused_and_nothing_else(store, found, why):
    refused, accepted = store.submit("a", found, batch("a", 2))
    assert isinstance(refused, Refused)
    assert why in refused.reason
    assert accepted == Accepted(2)
    assert stored(store.data) == {("a", 2): 3}
    assert store.writer.last_sequence("a") == 2


def test_numbers_that_were_refused_are_not_asked_for_after_a_restart(store):
    store.submit("a", batch("a", 1), batch("a", 2, job="other"), batch("a", 3, job="other"))
    store.again()
    assert store.writer.last_sequence("a") == 3


def test_numbers_over_several_runs_are_one_sequence(store):
    store.writer.open_run("other", 1, "dns")
    jobs = ["checkout", "other", "other", "checkout", "other"]
    store.submit("a", *[batch("a", s, job) for s, job in enumerate(jobs, 1)])
    store.again()
    assert store.writer.last_sequence("a") == 5
    assert stored(store.data, "other") == {("a", s): 3 for s in (2, 3, 5)}


def test_numbers_of_a_run_that_was_deleted_are_not_asked_for_again(store):
    store.submit("a", batch("a", 1), batch("a", 2))
    store.writer.delete("checkout")
    store.again()
    assert store.writer.last_sequence("a") == 2


# ---- journals and segments


def test_a_journal_becomes_segments_after_a_minute(store):
    store.submit("a", batch("a", 1), batch("a", 2))
    assert store.files("journal*")
    store.clock.move(timedelta(seconds=61))
    store.eventually(lambda: store.files("*.parquet") and not store.files("journal*"))
    store.submit("a", batch("a", 3))
    assert stored(store.data) == {("a", s): 3 for s in (1, 2, 3)}
    assert Manifest.load(store.folder()).journal == 2


def test_a_large_journal_becomes_segments_at_once(store, monkeypatch):
    monkeypatch.setattr(writer, "ROLL_BYTES", 100_000)
    for sequence in range(1, 21):
        store.submit("a", batch("a", sequence, rows=2, size=10_000))
    store.eventually(lambda: len(store.files("*.parquet")) >= 3)
    assert stored(store.data) == {("a", s): 2 for s in range(1, 21)}


def test_answers_come_while_segments_are_written(store, monkeypatch):
    is_free = threading.Event()
    real = segments.write

    def slow(*arguments):
        is_free.wait(30)
        return real(*arguments)

    monkeypatch.setattr(segments, "write", slow)
    store.submit("a", batch("a", 1))
    store.clock.move(timedelta(seconds=61))
    store.eventually(lambda: store.writer._roller.is_busy)
    assert store.submit("a", batch("a", 2)) == [Accepted(2)]
    assert stored(store.data) == {("a", 1): 3, ("a", 2): 3}
    is_free.set()


def test_closing_a_run_leaves_segments_only(store):
    store.submit("a", batch("a", 1), Batch(2, "checkout", 1, (encode("losses", [LOSS]),)))
    totals = store.writer.close_run("checkout", 1)
    assert store.files() == [
        "losses-00000001.parquet",
        "manifest.json",
        "packets-00000001.parquet",
    ]
    assert (totals.packets, totals.losses, totals.lost_packets) == (3, 1, 3)
    assert totals.bytes == sum(p.stat().st_size for p in store.folder().iterdir())
    assert totals.nodes == ("node-of-a",)
    assert store.writer.totals("checkout", 1) == totals
    assert store.submit("a", batch("a", 3)) == [
        Refused(3, "Run 1 of job checkout takes no data: it has ended, or never began.")
    ]


def test_totals_count_what_is_only_in_the_journal(store):
    store.submit("a", batch("a", 1))
    totals = store.writer.totals("checkout", 1)
    assert totals.packets == 3
    assert totals.bytes == sum(p.stat().st_size for p in store.folder().iterdir())
    with pytest.raises(KeyError):
        store.writer.totals("checkout", 2)


def test_closing_what_was_never_open_is_nothing(store):
    assert store.writer.close_run("other", 7) == writer.RunTotals()


def test_a_run_can_be_opened_again_after_it_was_closed(store):
    store.submit("a", batch("a", 1))
    store.writer.close_run("checkout", 1)
    store.writer.open_run("checkout", 1, "http")
    store.submit("a", batch("a", 2))
    store.writer.close_run("checkout", 1)
    assert stored(store.data) == {("a", 1): 3, ("a", 2): 3}
    assert len(Manifest.load(store.folder()).segments) == 2


def test_a_journal_that_cannot_become_segments_stays_and_is_tried_again(store, monkeypatch):
    real = segments.write

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segments, "write", fail)
    store.submit("a", batch("a", 1))
    totals = store.writer.close_run("checkout", 1)
    assert totals.packets == 3
    assert stored(store.data) == {("a", 1): 3}
    monkeypatch.setattr(segments, "write", real)
    store.clock.move(timedelta(seconds=31))
    store.eventually(lambda: not store.files("journal*"))
    assert stored(store.data) == {("a", 1): 3}


def test_deleting_removes_one_job_and_gives_its_octets_back(store):
    before = store.quota.used
    store.writer.open_run("other", 1, "dns")
    store.writer.open_run("other", 2, "dns")
    store.submit("a", batch("a", 1), batch("a", 2, "other", size=50_000))
    mine = store.quota.used
    store.writer.delete_run("other", 2)
    assert layout.runs(store.data, "other") == [1]
    store.writer.delete("other")
    assert layout.recordings(store.data) == ["checkout"]
    assert before < store.quota.used < mine
    assert stored(store.data) == {("a", 1): 3}
    store.writer.delete("other")  # is nothing
    store.writer.open_run("other", 1, "dns")
    assert stored(store.data, "other") == {}
    assert [p.name for p in layout.root(store.data).iterdir() if p.name.startswith(".")] == []


def test_a_stopped_writer_takes_nothing_and_leaves_no_descriptor(tmp_path):
    store = Store(tmp_path / "data")
    store.writer.open_run("checkout", 1, "http")
    store.submit("a", batch("a", 1))
    assert open_files(tmp_path)
    store.writer.stop()
    store.writer.stop()
    assert open_files(tmp_path) == []
    with pytest.raises(RuntimeError, match="not running"):
        store.writer.submit("a", "n", batch("a", 2))
    with pytest.raises(RuntimeError, match="not running"):
        store.writer.close_run("checkout", 1)


def test_waiting_for_the_writer_on_its_own_thread_is_an_error_and_no_deadlock(store):
    errors = []

    def again(future):
        try:
            store.writer.close_run("checkout", 1)
        except RuntimeError as error:
            errors.append(str(error))

    future = store.writer.submit("a", "n", batch("a", 1))
    future.add_done_callback(again)
    future.result(10)
    store.submit("a", batch("a", 2))
    assert errors in ([], ["The writer's own thread must not wait for the writer."])


# ---- what a crash leaves


def crash(store):
    """Take the files as kill -9 would leave them, and stop the writer beside them."""
    copy = store.data.with_name("crashed")
    shutil.copytree(store.data, copy)
    store.writer.stop()
    store.data = copy
    return store


def test_a_torn_tail_is_cut_off_and_sent_again(store):
    store.submit("a", *[batch("a", s) for s in (1, 2, 3)])
    crash(store)
    path = store.folder() / "journal-00000001.log"
    os.truncate(path, path.stat().st_size - 10)
    store.up()
    assert store.writer.last_sequence("a") == 2
    store.writer.open_run("checkout", 1, "http")
    assert store.submit("a", batch("a", 3)) == [Accepted(3)]
    assert stored(store.data) == {("a", s): 3 for s in (1, 2, 3)}
    assert losses(store.data) == []


def test_bit_rot_costs_one_batch_and_is_in_the_ledger(store):
    for sequence in (1, 2, 3, 4):
        store.submit("a", batch("a", sequence))
    crash(store)
    path = store.folder() / "journal-00000001.log"
    records = journal.read(path).records
    octets = bytearray(path.read_bytes())
    octets[octets.index(records[1].parts[0].octets) + 50] ^= 1
    path.write_bytes(octets)
    store.up()
    assert store.writer.last_sequence("a") == 4
    totals = store.writer.close_run("checkout", 1)
    assert stored(store.data) == {("a", s): 3 for s in (1, 3, 4)}
    (loss,) = losses(store.data)
    assert loss["kind"] == "storage_damage"
    assert "journal-00000001.log: the record at octet" in loss["detail"]
    assert (totals.packets, totals.losses) == (9, 1)


def test_leftovers_of_a_crash_are_removed(store):
    store.submit("a", batch("a", 1))
    store.writer.close_run("checkout", 1)
    store.writer.stop()
    folder = store.folder()
    (folder / "manifest.json.tmp").write_text("{")
    (folder / "packets-00000007.parquet").write_text("half")
    (folder / "entries-00000002.parquet.tmp").write_text("half")
    (folder / "journal-00000001.log").write_text("published long ago")
    deleted = layout.root(store.data) / ".deleted-0123"
    (deleted / "0001").mkdir(parents=True)
    (layout.root(store.data) / "begun" / "0001").mkdir(parents=True)
    store.up()
    assert store.files() == ["manifest.json", "packets-00000001.parquet"]
    assert not deleted.exists()
    assert layout.runs(store.data, "begun") == []
    assert stored(store.data) == {("a", 1): 3}


def test_a_crash_between_segments_and_manifest_stores_nothing_twice(store, monkeypatch):
    real = Manifest.save

    def fail(self, folder):
        raise OSError(errno.EIO, "Input/output error")

    store.submit("a", batch("a", 1))
    monkeypatch.setattr(Manifest, "save", fail)
    store.writer.close_run("checkout", 1)
    assert store.files("*.parquet") == []
    monkeypatch.setattr(Manifest, "save", real)
    store.again()
    store.writer.close_run("checkout", 1)
    assert stored(store.data) == {("a", 1): 3}


def test_a_damaged_manifest_is_left_alone_and_hides_no_other_run(store):
    store.writer.open_run("other", 1, "dns")
    store.submit("a", batch("a", 1), batch("a", 2, "other"))
    store.writer.stop()
    (store.folder() / "manifest.json").write_text("{")
    before = store.files()
    store.up()
    assert store.files() == before
    assert stored(store.data, "other") == {("a", 2): 3}
    with pytest.raises(OSError, match="cannot be read; move it elsewhere"):
        store.writer.open_run("checkout", 1, "http")


def test_what_is_on_disk_counts_against_the_limit_after_a_restart(store):
    store.submit("a", batch("a", 1, size=400_000))
    store.again()
    store.writer.close_run("checkout", 1)
    assert disk_use(layout.root(store.data)) <= store.quota.used
    used = store.quota.used
    store.again()
    assert store.quota.used == used


# ---- the limit


def offer_until_full(store, job="checkout", size=50_000, most=1000):
    """Offer batches, each noise that cannot be compressed, until one is refused."""
    for sequence in range(1, most):
        (outcome,) = store.submit(job, batch(job, sequence, job, rows=1, size=size))
        if isinstance(outcome, Refused):
            return sequence - 1
    raise AssertionError("it was never full")


def test_the_limit_is_never_exceeded_and_ends_only_who_reaches_it(store):
    limit = 8 << 20
    store.again(limit)
    store.writer.open_run("checkout", 1, "http")
    store.writer.open_run("other", 1, "dns")
    store.submit("b", batch("b", 1, "other"))
    most = 0
    is_done = threading.Event()

    def watch():
        nonlocal most
        while not is_done.is_set():
            most = max(most, disk_use(layout.root(store.data)))

    watching = threading.Thread(target=watch)
    watching.start()
    offered = 20 * limit
    futures = [
        store.writer.submit("a", "node-1", batch("a", s, rows=1, size=100_000))
        for s in range(1, offered // 100_000)
    ]
    outcomes = [future.result(60) for future in futures]
    is_done.set()
    watching.join()
    taken = [o.sequence for o in outcomes if isinstance(o, Accepted)]
    turned = [o for o in outcomes if isinstance(o, Refused)]
    assert most <= limit
    assert store.quota.used <= limit
    assert taken == list(range(1, len(taken) + 1))
    assert len(taken) * 100_000 > limit // 2
    sentence = "The storage limit of 8 MiB for all recordings is reached."
    assert {o.reason for o in turned} == {sentence}
    assert store.full == [("checkout", 1, sentence)]
    assert stored(store.data) == Counter({("a", s): 1 for s in taken})
    assert stored(store.data, "other") == {("b", 1): 3}

    totals = store.writer.close_run("checkout", 1)
    ledger = losses(store.data)
    assert {loss["kind"] for loss in ledger} == {"storage_limit"}
    assert ledger[0]["detail"] == sentence
    assert sum(loss["packets"] for loss in ledger) == len(turned) == totals.lost_packets
    assert store.quota.used <= limit
    assert disk_use(layout.root(store.data)) <= limit


def test_rows_that_shrink_are_made_room_for(store):
    """Journals hold what came; segments of the same rows are far smaller."""
    store.again(6 << 20)
    store.writer.open_run("checkout", 1, "http")
    frames = encode("packets", [{**SMALL, "frame": b"a" * 1000}] * 500)
    for sequence in range(1, 61):
        assert store.submit("a", Batch(sequence, "checkout", 1, (frames,))) == [Accepted(sequence)]
    assert store.full == []
    assert store.writer.totals("checkout", 1).packets == 30_000


SMALL = {
    "stream": "8f3a000000000001",
    "node_name": "node-1",
    "time": 1,
    "link_type": 1,
    "original_length": 1000,
}


def test_deleting_makes_room_again(store):
    store.again(3 << 20)
    store.writer.open_run("checkout", 1, "http")
    offer_until_full(store)

    def open_many():
        for number in range(1, 50):
            store.writer.open_run("more", number, "http")

    with pytest.raises(StorageFullError, match="storage limit of 3 MiB"):
        open_many()
    store.writer.delete("checkout")
    store.writer.delete("more")
    store.writer.open_run("other", 1, "http")
    assert offer_until_full(store, "other") > 5


def test_a_limit_that_was_lowered_stops_what_is_over_it_and_removes_nothing(store):
    store.submit("a", *[batch("a", s, rows=1, size=500_000) for s in (1, 2, 3)])
    store.again(1 << 20)
    store.writer.open_run("checkout", 1, "http")
    (outcome,) = store.submit("a", batch("a", 4))
    assert isinstance(outcome, Refused)
    assert stored(store.data) == {("a", s): 1 for s in (1, 2, 3)}


def test_closing_a_full_run_waits_for_what_waits_for_room(store, monkeypatch):
    is_free = threading.Event()
    real = runfiles.RunFiles.roll

    def slow(self, *arguments):
        is_free.wait(30)
        real(self, *arguments)

    monkeypatch.setattr(runfiles.RunFiles, "roll", slow)
    store.again(4 << 20)
    store.writer.open_run("checkout", 1, "http")
    frames = encode("packets", [{**SMALL, "frame": b"a" * 1000}] * 500)
    futures = [
        store.writer.submit("a", "n", Batch(s, "checkout", 1, (frames,))) for s in range(1, 8)
    ]
    store.eventually(lambda: store.writer._parked)
    closed = []
    closing = threading.Thread(target=lambda: closed.append(store.writer.close_run("checkout", 1)))
    closing.start()
    is_free.set()
    closing.join()
    assert [f.result(10) for f in futures] == [Accepted(s) for s in range(1, 8)]
    assert closed[0].packets == 3500


def test_a_disk_that_fails_ends_the_run_and_keeps_what_is_stored(store, monkeypatch):
    store.submit("a", batch("a", 1))
    real = os.writev

    def fail(descriptor, pieces):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "writev", fail)
    (outcome,) = store.submit("a", batch("a", 2))
    assert isinstance(outcome, Refused)
    assert "disk" in outcome.reason
    assert store.full == [("checkout", 1, outcome.reason)]
    monkeypatch.setattr(os, "writev", real)
    totals = store.writer.close_run("checkout", 1)
    assert stored(store.data) == {("a", 1): 3}
    assert totals.lost_packets == 3
    assert [loss["kind"] for loss in losses(store.data)] == ["storage_limit"]


SENTENCES = {
    errno.ENOSPC: "The disk of the scheduler is full.",
    errno.EDQUOT: "The disk of the scheduler is full.",
    errno.EROFS: "The disk of the scheduler is read-only.",
}


@pytest.mark.parametrize("number", SENTENCES)
@pytest.mark.parametrize("call", ["writev", "fdatasync"])
def test_what_comes_waits_for_a_disk_that_is_full(store, monkeypatch, number, call):
    held = []
    store.writer.on_held = lambda *note: held.append(note)
    store.submit("a", batch("a", 1))
    real = getattr(os, call)

    def fail(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    futures = [store.writer.submit("a", "node-of-a", batch("a", s)) for s in (2, 3)]
    store.eventually(lambda: held)
    futures.append(store.writer.submit("a", "node-of-a", batch("a", 4)))
    assert held == [("checkout", 1, SENTENCES[number])]
    assert not any(future.done() for future in futures)
    assert store.writer.last_sequence("a") == 1
    monkeypatch.setattr(os, call, real)
    store.clock.move(timedelta(seconds=3))
    assert [f.result(60) for f in futures] == [Accepted(2), Accepted(3), Accepted(4)]
    store.eventually(lambda: len(held) == 2)
    assert held[1] == ("checkout", 1, "")
    assert store.full == []
    assert store.writer.close_run("checkout", 1).lost_packets == 0
    assert stored(store.data) == {("a", s): 3 for s in (1, 2, 3, 4)}
    assert [loss["kind"] for loss in losses(store.data)] == ["disk_full"]


def test_a_run_that_ends_while_the_disk_is_full_says_what_it_lost(store, monkeypatch):
    held = []
    store.writer.on_held = lambda *note: held.append(note)
    store.submit("a", batch("a", 1))
    real = os.writev

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "writev", fail)
    futures = [store.writer.submit("a", "node-of-a", batch("a", s)) for s in (2, 3)]
    store.eventually(lambda: held)
    store.writer.close_run("checkout", 1)
    assert [f.result(60) for f in futures] == [Refused(s, SENTENCES[errno.ENOSPC]) for s in (2, 3)]
    assert stored(store.data) == {("a", 1): 3}
    monkeypatch.setattr(os, "writev", real)
    store.clock.move(timedelta(seconds=31))
    store.eventually(lambda: losses(store.data))
    told = {loss["kind"]: loss["packets"] for loss in losses(store.data)}
    assert told == {"disk_full": 0, "storage_limit": 6}


def test_a_journal_that_cannot_be_cut_back_gets_no_more_until_it_can(store, monkeypatch):
    held = []
    store.writer.on_held = lambda *note: held.append(note)
    store.submit("a", batch("a", 1))

    def fail(*arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        broken.setattr(os, "ftruncate", fail)
        future = store.writer.submit("a", "node-of-a", batch("a", 2))
        store.eventually(lambda: held)
        for _ in range(3):
            store.clock.move(timedelta(seconds=61))
        assert not future.done()
    store.clock.move(timedelta(seconds=3))
    assert future.result(60) == Accepted(2)
    store.writer.close_run("checkout", 1)
    assert stored(store.data) == {("a", 1): 3, ("a", 2): 3}


def test_a_failed_sync_acknowledges_nothing(store, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    (outcome,) = store.submit("a", batch("a", 1))
    assert outcome == Refused(1, "The scheduler cannot write to its disk: Input/output error.")
    assert snapshot.open(store.data, "checkout").runs[0].damage == ()
