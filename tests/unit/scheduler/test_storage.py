"""Recordings that live on S3: what moves there, what is still here, and what is removed."""

from collections import Counter
from datetime import timedelta

import pytest

from recordings import archive, archivecheck, layout, snapshot, verify
from recordings.cache import Cache
from recordings.manifest import Manifest
from recordings.remote import Remote
from recordings.storage import Storage
from services.scheduler.archiver import MERGE_SECONDS, MOVE_SECONDS
from services.scheduler.compactor import GRACE_SECONDS, Compactor, Policy
from services.scheduler.jobs import ArchiveState, JobState
from services.scheduler.quota import on_disk
from tests.unit.scheduler.conftest import World
from tests.unit.scheduler.stored import batch
from tests.unit.scheduler.test_archiver import MINUTE, Archived

WHILE = timedelta(seconds=MOVE_SECONDS)
GRACE = timedelta(seconds=GRACE_SECONDS + 1)


class Living(Archived):
    """A world whose recordings live in a bucket, and a reader as the query service has it."""

    def __init__(self, world, url, cache):
        super().__init__(world, url, moves=True)
        self.cache = Cache(cache, 16 << 20)

    def up(self):
        super().up()
        writer = self.world.writer
        self.compactor = Compactor(writer, writer._quota, self.world.clock, Policy(is_gentle=False))

        self.archiver.look()

    def create(self, name="checkout", **fields):
        super().create(name, **fields)
        self.archiver.look()

    def finish(self, run=1):
        self.world.writer.finish_segments("checkout", run)

    def drop_retired(self):
        """Let go of what readers have needed, as the compactor does."""
        self.world.move(GRACE)
        self.compactor.look()

    def manifest(self, run=1):
        return Manifest.load(layout.run(self.world.data, "checkout", run))

    def local(self, run=1):
        """Return the segments on disk."""
        folder = layout.run(self.world.data, "checkout", run)
        return sorted(path.name for path in folder.glob("*.parquet"))

    def stored(self):
        """Return how many rows of each batch a question would find."""
        reader = snapshot.Reader(self.world.data, 0, Storage(self.url), self.cache)
        taken = reader.snapshot("checkout")
        assert not taken.damage
        rows = taken.rows_after("packets", {})
        texts = [frame.partition(b"|")[0].decode() for frame in rows["frame"].to_pylist()]
        assert len(texts) == len(set(texts))
        return Counter(int(text.split("/")[1]) for text in texts)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path / "data")
    yield world
    world.down()


@pytest.fixture
def living(world, bucket, tmp_path):
    (tmp_path / "cache").mkdir()
    return Living(world, bucket.url(), tmp_path / "cache")


def check(living, name="checkout"):
    """Return the sentences of `recorder verify`, over the folder and over the bucket."""
    living.world.writer.roller.do(lambda: None).result()  # behind what is becoming a segment
    found = [
        *verify.check(living.world.data, name, None, 0, Storage(living.url)),
        *archivecheck.check(Remote(living.url), name),
    ]
    return [each.difference.sentence() for each in found if each.difference]


def test_a_finished_segment_moves_and_the_journal_stays(living, world, bucket):
    living.create()
    living.record()
    living.finish()
    living.look()
    assert bucket.files() == {}
    living.look(WHILE)
    living.record()
    (segment,) = living.manifest().segments
    assert segment.is_remote
    assert living.manifest().storage == f"s3://{bucket.name}/recorder"
    assert set(bucket.files()) == {
        f"recordings/checkout/0001/{n}" for n in (segment.file, layout.MANIFEST)
    }
    assert living.local() == [segment.file]  # for readers of the manifest before
    assert living.stored() == {1: 3, 2: 3}
    assert layout.journals(layout.run(world.data, "checkout", 1))
    living.drop_retired()
    assert segment.file not in living.local()
    assert living.stored() == {1: 3, 2: 3}
    assert check(living) == []


def test_after_a_restart_it_goes_on(living, world):
    living.create()
    living.record()
    living.finish()
    living.look(WHILE)
    living.drop_retired()
    world.restart()
    living.up()
    living.record()
    living.finish()
    living.look(WHILE)
    living.drop_retired()
    world.lifecycle.stop_job("checkout", 0)
    living.look()
    assert living.local() == []
    assert living.stored() == {1: 3, 2: 3}
    assert world.job().run(1).packets == 6
    assert check(living) == []


def test_a_crash_between_manifest_and_removal_leaves_nothing(living, world):
    living.create()
    living.record()
    living.finish()
    living.look(WHILE)
    living.drop_retired()
    (segment,) = living.manifest().segments
    left = layout.run(world.data, "checkout", 1) / segment.file
    left.write_bytes(b"what a crash left")
    world.restart()
    assert not left.exists()
    assert living.stored() == {1: 3}


def test_small_segments_are_merged_before_they_move(living, world, bucket):
    living.create()
    for _ in range(9):
        living.record()
        living.finish()
    assert living.compactor.look()
    living.look(WHILE)
    (segment,) = living.manifest().segments
    assert layout.is_merged(segment.file)
    for _ in range(9):
        living.record()
        living.finish()
    world.lifecycle.stop_job("checkout", 0)
    living.look()
    assert len(living.local()) == 19  # it waits for them to be merged
    assert living.compactor.look()
    living.look()
    assert [s.is_remote for s in living.manifest().segments] == [True, True]
    living.drop_retired()
    assert not living.compactor.look()
    assert living.local() == []
    assert living.stored() == dict.fromkeys(range(1, 19), 3)
    assert check(living) == []


def test_what_cannot_be_merged_moves_all_the_same(living, world):
    living.create()
    for _ in range(2):
        living.record()
        living.finish()
    world.lifecycle.stop_job("checkout", 0)
    living.look()
    assert not any(segment.is_remote for segment in living.manifest().segments)
    living.look(timedelta(seconds=MERGE_SECONDS))
    assert all(segment.is_remote for segment in living.manifest().segments)


def test_recording_goes_on_while_the_bucket_is_away(living, world, bucket):
    living.create()
    living.record()
    living.finish()
    bucket.proxy.cut()
    living.look(WHILE)
    assert living.state().state is ArchiveState.FAILED
    living.record()
    assert not any(segment.is_remote for segment in living.manifest().segments)
    bucket.proxy.mend()
    living.look(MINUTE)
    assert living.state().state is ArchiveState.COPIED
    living.drop_retired()
    assert living.stored() == {1: 3, 2: 3}


def test_the_limit_counts_what_is_in_the_bucket(living, world, bucket):
    quota = world.writer._quota
    before = quota.used
    living.create()
    living.sequence += 1
    noise = batch("a", living.sequence, rows=1, size=1 << 20)
    world.writer.submit("a", "node-1", noise).result(60)
    living.finish()
    living.look(WHILE)
    (segment,) = living.manifest().segments
    assert quota.used - before > 2 * segment.bytes  # here and there, for a while
    living.drop_retired()
    held = quota.used - before
    assert on_disk(segment.bytes) < held < segment.bytes + (256 << 10)
    world.restart()
    living.up()
    assert abs(world.writer._quota.used - before - held) < 8192
    world.writer._quota.limit = world.writer._quota.used + (256 << 10)
    living.sequence += 1
    noise = batch("a", living.sequence, rows=1, size=1 << 20)
    world.writer.submit("a", "node-1", noise).result(60)
    world.move(MINUTE)
    assert world.job().state is JobState.STORAGE_LIMITED
    assert "The storage limit" in world.job().reason


def test_what_expires_is_removed_there_too(living, world, bucket):
    living.create(expiration_minutes=60, daily_iterations=2, duration_minutes=30)
    living.record()
    living.finish()
    living.look(WHILE)
    world.move(timedelta(hours=1))
    living.look()
    assert bucket.files()
    bucket.proxy.cut()
    world.move(timedelta(hours=1))
    living.look()
    assert world.folders() == []
    assert bucket.files()
    bucket.proxy.mend()
    living.look(MINUTE)
    assert bucket.files() == {}
    assert world.job().state is JobState.WAITING


def test_a_deleted_job_is_removed_there_and_its_name_is_free(living, world, bucket):
    living.create()
    living.record()
    living.finish()
    living.look(WHILE)
    world.lifecycle.delete_job("checkout")
    living.create()
    living.record()
    living.finish()
    living.look(WHILE)
    assert living.state().state is ArchiveState.COPIED
    assert living.stored() == {2: 3}
    assert archive.load(Remote(living.url), "checkout", 1).id == living.manifest().id
    assert check(living) == []


def test_an_object_that_is_lost_is_told(living, world, bucket):
    living.create()
    living.record()
    living.finish()
    living.look(WHILE)
    living.drop_retired()
    (segment,) = living.manifest().segments
    bucket.delete(f"recordings/checkout/0001/{segment.file}")
    world.lifecycle.archive_job("checkout")
    living.look()
    assert living.state().state is ArchiveState.FAILED
    assert f"{segment.file} is gone or damaged, and it was nowhere else" in living.state().error
    assert "found no such file" in check(living)[0]


def test_without_the_setting_a_reader_is_told(living, world):
    living.create()
    living.record()
    living.finish()
    living.look(WHILE)
    taken = snapshot.open(world.data, "checkout")
    assert taken.damage == (
        f"Run 1 of checkout lives in {living.manifest().storage}; the setting that says so is "
        "--storage.",
    )
    other = snapshot.Reader(world.data, 0, Storage("s3://elsewhere/x"), living.cache)
    assert "and not in s3://elsewhere/x" in other.snapshot("checkout").damage[0]
    (found,) = verify.check(world.data, "checkout", None, 0)
    assert "give --storage" in found.difference.sentence()


def test_the_oldest_data_of_a_job_makes_room_there_too(tmp_path, bucket):
    world = World(tmp_path / "data")
    (tmp_path / "cache").mkdir()
    living = Living(world, bucket.url(), tmp_path / "cache")
    try:
        from services.scheduler.jobs import OnFull

        living.create(size_limit=3 << 20, on_full=OnFull.DROP_OLDEST)
        for _ in range(5):
            living.sequence += 1
            noise = batch("a", living.sequence, rows=1, size=1 << 20)
            world.writer.submit("a", "node-1", noise).result(60)
            living.finish()
            living.look(WHILE)
        living.drop_retired()
        kept = living.stored()
        assert 5 in kept
        assert 1 not in kept
        living.look(GRACE + timedelta(hours=1))
        living.look(GRACE + timedelta(hours=1))
        named = {segment.file for segment in living.manifest().segments}
        there = {key.rpartition("/")[2] for key in bucket.files()} - {layout.MANIFEST}
        assert there == named
        assert check(living) == []
    finally:
        world.down()
