import random
import threading
from datetime import UTC, datetime, timedelta

import pytest

from recordings import layout, merging, segments, snapshot
from recordings.manifest import Manifest
from recordings.segments import Segment
from services.runtime.clock import MovedClock
from services.scheduler import compactor as compactors
from services.scheduler import writer as writers
from services.scheduler.batches import Batch
from services.scheduler.compactor import Compactor, Policy, choose
from services.scheduler.quota import Quota
from services.scheduler.writer import Accepted, Writer
from tests.unit.scheduler.stored import LOSS, batch, encode, packets, stored

POLICY = Policy(is_gentle=False)
GRACE = timedelta(seconds=compactors.GRACE_SECONDS)
MIB = 1 << 20


class Store:
    """A writer that makes a segment of every batch, and a compactor that looks when it is told."""

    def __init__(self, data, limit=None):
        self.data = data
        self.clock = MovedClock(datetime(2026, 11, 23, tzinfo=UTC))
        self.sequence = 0
        self.full = []
        self.limit = limit
        self.up()

    def up(self):
        self.quota = Quota(self.limit)
        self.writer = Writer(self.data, self.quota, self.clock, lambda *a: self.full.append(a))
        self.writer.start()
        self.writer.open_run("checkout", 1, "http")
        self.compactor = Compactor(self.writer, self.quota, self.clock, POLICY)
        self.writer.merger = self.compactor

    def again(self):
        self.writer.stop()
        self.up()

    def record(self, segments, size=0, **parts):
        for _ in range(segments):
            self.sequence += 1
            made = batch("a", self.sequence, rows=2, size=size)
            if parts:
                made = Batch(self.sequence, "checkout", 1, tuple(parts.values()))
            assert self.writer.submit("a", "node-1", made).result(60) == Accepted(self.sequence)
            self.rolled()

    def rolled(self):
        """Wait until the journal has become segments."""
        self.writer._ask(None, lambda: None)
        self.writer.roller.do(lambda: None).result(60)

    def expected(self):
        return {("a", sequence): 2 for sequence in range(1, self.sequence + 1)}

    @property
    def folder(self):
        return layout.run(self.data, "checkout", 1)

    def files(self, pattern="*.parquet"):
        return sorted(path.name for path in self.folder.glob(pattern))

    def listed(self, table="packets"):
        return [path.name for path in snapshot.open(self.data, "checkout").files(table)]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "ROLL_BYTES", 1)
    store = Store(tmp_path / "data")
    yield store
    store.writer.stop()


def segment(number, size, table="packets", rows=1000, last=None):
    name = layout.segment(layout.Path(), table, number, last).name
    return Segment(table, name, rows, size, number, number, "")


# ---- what is merged


def test_few_small_segments_wait_for_more():
    found = [segment(n, 10_000) for n in range(1, 8)]
    assert choose(found, POLICY, is_ended=False) == []
    found.append(segment(8, 10_000))
    assert choose(found, POLICY, is_ended=False) == found


def test_only_neighbours_of_one_table_are_merged():
    mine = [segment(n, 10_000) for n in range(1, 12)]
    other = [segment(n, 10_000, "entries") for n in range(1, 12)]
    found = [each for pair in zip(mine, other, strict=True) for each in pair]
    assert choose(found, POLICY, is_ended=False) in (mine, other)


def test_large_segments_stay_as_they_are():
    large = [segment(n, 64 * MIB) for n in range(1, 5)]
    small = [segment(n, MIB) for n in range(5, 9)]
    assert choose(large, POLICY, is_ended=True) == []
    assert choose([*large, *small], POLICY, is_ended=False) == []
    assert choose([*large, *small], POLICY, is_ended=True) == small


def test_nothing_becomes_much_larger_than_it_should():
    found = [segment(n, 50 * MIB) for n in range(1, 10)]
    assert choose(found, POLICY, is_ended=True) == found[:2]
    many = [segment(n, 100_000, rows=3_000_000) for n in range(1, 30)]
    assert choose(many, POLICY, is_ended=True) == many[:2]
    assert choose(found, POLICY, is_ended=True, most=1) == []


def test_a_large_neighbour_does_not_keep_the_others_apart():
    found = [segment(1, 40 * MIB), *[segment(n, 10_000) for n in range(2, 40)]]
    assert choose(found, POLICY, is_ended=False) == found[1:]


@pytest.mark.parametrize("size", [3_000, 200_000, 5 * MIB])
def test_each_row_is_written_again_a_few_times_only(size):
    """A day of segments a minute, each merged as soon as that is due."""
    chance = random.Random(size)
    found, times = [], {}
    for number in range(1, 1441):
        found.append(segment(number, size * chance.randrange(5, 20) // 10))
        times[found[-1].file] = 0
        while window := choose(found, POLICY, is_ended=number == 1440):
            last = layout.span(window[-1].file)[1]
            merged = segment(
                layout.span(window[0].file)[0], sum(s.bytes for s in window), last=last
            )
            times[merged.file] = 1 + max(times[s.file] for s in window)
            at = found.index(window[0])
            found[at : at + len(window)] = [merged]
    assert max(times[s.file] for s in found) <= 6
    assert len(found) <= 2 + sum(s.bytes for s in found) // POLICY.target_bytes * 2


# ---- merging


def test_rows_are_in_fewer_files_and_all_there(store):
    store.record(9)
    before = store.files()
    assert store.compactor.look()
    assert not store.compactor.look()
    assert store.listed() == ["packets-00000001-00000009.parquet"]
    assert stored(store.data) == store.expected()
    # Readers that know the manifest of before find their files.
    assert store.files() == sorted([*before, *store.listed()])
    store.clock.move(GRACE + timedelta(seconds=1))
    store.compactor.look()
    assert store.files() == store.listed()
    assert Manifest.load(store.folder).retired == ()
    assert stored(store.data) == store.expected()


def test_every_table_is_merged(store):
    for _ in range(9):
        store.record(
            1, packets=packets("a", store.sequence + 1, 2), losses=encode("losses", [LOSS])
        )
    while store.compactor.look():
        pass
    assert len(store.listed("packets")) == len(store.listed("losses")) == 1
    assert snapshot.open(store.data, "checkout").rows("losses") == 9
    assert Manifest.load(store.folder).lost_packets == 27


def test_recording_goes_on_meanwhile(store, monkeypatch):
    store.record(9)
    rows = merging.rows

    def and_more(*arguments):
        store.record(3)
        yield from rows(*arguments)
        store.record(2)

    monkeypatch.setattr(merging, "rows", and_more)
    assert store.compactor.look()
    assert len(store.listed()) == 6
    assert stored(store.data) == store.expected()


def test_what_a_run_has_left_is_merged_when_it_ends(store):
    store.record(3)
    assert not store.compactor.look()
    totals = store.writer.close_run("checkout", 1)
    assert store.compactor.look()
    assert store.listed() == ["packets-00000001-00000003.parquet"]
    assert stored(store.data) == store.expected()
    after = store.writer.totals("checkout", 1)
    assert (after.packets, after.nodes) == (totals.packets, totals.nodes)
    store.writer.open_run("checkout", 1, "http")
    store.record(1)
    assert len(store.listed()) == 2
    assert stored(store.data) == store.expected()
    store.clock.move(GRACE + timedelta(seconds=1))
    store.compactor.look()
    assert store.files() == store.listed()


def test_the_quota_counts_what_is_on_disk(store):
    store.record(9, size=5000)
    store.compactor.look()
    held = store.quota.used
    assert held >= sum((store.folder / name).stat().st_size for name in store.files())
    store.again()
    assert store.quota.used == held
    store.clock.move(GRACE + timedelta(seconds=1))
    store.compactor.look()
    less = store.quota.used
    assert less < held
    store.again()
    assert store.quota.used == less
    store.writer.delete("checkout")
    assert store.quota.used == Quota().used + 4096


def test_a_restart_keeps_what_readers_may_need_for_as_long(store):
    store.record(9)
    store.compactor.look()
    files = store.files()
    store.again()
    assert store.files() == files
    store.compactor.look()
    assert store.files() == files
    store.clock.move(GRACE + timedelta(seconds=1))
    store.compactor.look()
    assert store.files() == store.listed()


def test_a_damaged_segment_is_left_alone_and_the_others_are_merged(store):
    store.record(9)
    path = store.folder / store.files()[4]
    octets = bytearray(path.read_bytes())
    octets[300] ^= 1
    path.write_bytes(octets)
    store.writer.close_run("checkout", 1)
    while store.compactor.look():
        pass
    assert store.listed() == [
        "packets-00000001-00000004.parquet",
        path.name,
        "packets-00000006-00000009.parquet",
    ]
    assert path.read_bytes() == octets


def test_segments_that_overlap_too_much_are_merged_by_and_by(store, monkeypatch):
    store.record(12)
    rows = merging.rows

    def some(folder, sources, pause):
        if len(sources) > 3:
            raise merging.TangledError
        yield from rows(folder, sources, pause)

    monkeypatch.setattr(merging, "rows", some)
    store.writer.close_run("checkout", 1)
    while store.compactor.look():
        pass
    assert len(store.listed()) == 1
    assert stored(store.data) == store.expected()


# ---- when it cannot be


class Crash(BaseException):
    pass


@pytest.mark.parametrize("point", ["write", "fsync", "rename", "publish", "published"])
def test_a_crash_at_any_point_stores_nothing_twice_and_leaves_no_orphan(store, monkeypatch, point):
    store.record(9)
    run = store.writer.runs()[0]

    copies = {}

    def kill(*_):
        # What a killed process leaves is what is on disk now.
        for path in store.folder.iterdir():
            copies[path] = path.read_bytes()
        raise Crash

    with monkeypatch.context() as patch:
        if point == "write":
            patch.setattr(segments._Sink, "sync", kill)
        elif point == "fsync":
            patch.setattr(segments.layout, "sync", kill)
        elif point == "rename":
            patch.setattr(run, "publish_merged", kill)
        elif point == "publish":
            patch.setattr(Manifest, "save", kill)
        else:
            patch.setattr(run, "_measure", kill)
        with pytest.raises(Crash):
            store.compactor.look()
    for path in store.folder.iterdir():
        path.unlink()
    for path, octets in copies.items():
        path.write_bytes(octets)
    assert stored(store.data) == store.expected()
    store.again()
    assert stored(store.data) == store.expected()
    retired = {gone.file for gone in Manifest.load(store.folder).retired}
    assert set(store.files("*")) == {*store.listed(), *retired, "manifest.json"}
    assert (point == "published") == bool(retired)
    store.compactor.look()
    assert stored(store.data) == store.expected()
    assert len(store.listed()) == 1


def test_a_disk_that_is_full_leaves_all_as_it_was(store, monkeypatch):
    store.record(9)
    before, used = store.files("*"), store.quota.used

    def fail(*_):
        raise OSError(28, "No space left on device")

    for where, name in ((segments._Sink, "sync"), (Manifest, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, fail)
            assert not store.compactor.look()
        assert (store.files("*"), store.quota.used) == (before, used)
        store.clock.move(timedelta(seconds=compactors.RETRY_SECONDS + 1))
    assert store.compactor.look()
    assert stored(store.data) == store.expected()


def test_a_job_that_is_deleted_meanwhile_is_gone(store, monkeypatch):
    store.record(9)
    rows = merging.rows

    def and_deleted(*arguments):
        found = list(rows(*arguments))
        store.writer.delete("checkout")
        return iter(found)

    monkeypatch.setattr(merging, "rows", and_deleted)
    assert not store.compactor.look()
    assert store.quota.used == 4096
    assert list(layout.root(store.data).iterdir()) == []


# ---- room


def test_at_the_limit_nothing_is_merged(store):
    store.record(9, size=20_000)
    store.quota.limit = store.quota.used + 250_000
    assert not store.compactor.look()
    assert store.listed() == store.files()
    store.quota.limit *= 3
    store.clock.move(timedelta(seconds=compactors.RETRY_SECONDS + 1))
    assert store.compactor.look()


def test_where_there_is_little_room_little_is_merged(store):
    store.record(9, size=20_000)
    store.writer.close_run("checkout", 1)
    store.quota.limit = store.quota.used + 250_000
    assert store.compactor.look()
    assert 1 < len(store.listed()) < 9
    assert stored(store.data) == store.expected()


def test_what_was_merged_away_makes_room_for_what_is_recorded(store):
    store.record(9, size=50_000)
    store.quota.limit = store.quota.used * 3
    assert store.compactor.look()
    store.quota.limit = store.quota.used + 200_000
    store.record(4, size=50_000)
    assert store.full == []
    assert set(store.listed()) == set(store.files())
    assert stored(store.data) == store.expected()


def test_a_merge_is_given_up_when_a_run_needs_its_room(store, monkeypatch):
    store.record(9, size=50_000)
    begun = threading.Event()
    rows = merging.rows

    def slow(folder, sources, pause):
        begun.set()
        while True:
            pause()

    monkeypatch.setattr(merging, "rows", slow)
    store.compactor.start()
    assert begun.wait(60)
    store.quota.limit = store.quota.used + 100_000
    store.record(3, size=50_000)
    assert store.full == []
    assert not store.compactor.is_merging
    monkeypatch.setattr(merging, "rows", rows)
    store.compactor.stop()
    assert stored(store.data) == store.expected()
    assert store.files("*.tmp") == []


def test_it_stops_in_the_middle_of_a_merge(store, monkeypatch):
    store.record(9)
    begun = threading.Event()

    def slow(folder, sources, pause):
        begun.set()
        while True:
            pause()

    monkeypatch.setattr(merging, "rows", slow)
    store.compactor.start()
    assert begun.wait(60)
    store.compactor.stop()
    assert store.files("*.tmp") == []
    assert stored(store.data) == store.expected()
