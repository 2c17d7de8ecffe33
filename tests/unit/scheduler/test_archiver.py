"""Jobs with an archive: a scheduler without a network, but for that to the bucket."""

from datetime import timedelta

import pytest

from recordings import archive
from recordings.remote import Remote
from services.scheduler import archiver as archivers
from services.scheduler.amendments import RefusedError
from services.scheduler.archiver import EVERY_SECONDS, Archiver
from services.scheduler.jobs import ArchiveState
from tests.unit.scheduler.conftest import World
from tests.unit.scheduler.stored import batch

HOUR = timedelta(seconds=EVERY_SECONDS)
MINUTE = timedelta(minutes=1)


class Archived:
    """A world with an archive; its archiver looks when it is told."""

    def __init__(self, world, url, moves=False):
        self.world = world
        self.moves = moves
        self.url = url
        self.sequence = 0
        self.up()

    def up(self):
        archives = self.world.lifecycle._runs.archives
        archives.turn_on(lives_elsewhere=self.moves)
        self.archiver = Archiver(
            self.world.writer, Remote(self.url), archives, self.world.clock, moves=self.moves
        )

    def create(self, name="checkout", **fields):
        self.world.create(name, **fields)
        self.world.move(MINUTE)  # to its start

    def record(self, name="checkout", run=1):
        self.sequence += 1
        made = batch("a", self.sequence, job=name, run=run)
        self.world.writer.submit("a", "node-1", made).result(60)

    def look(self, after=timedelta()):
        self.world.move(after)
        self.archiver.look()

    def state(self, name="checkout", run=1):
        return self.world.job(name).run(run).archived

    def there(self, name="checkout", run=1):
        """Return the manifest in the archive."""
        return archive.load(Remote(self.url), name, run)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.down()


@pytest.fixture
def archived(world: World, bucket):
    return Archived(world, bucket.url())


def test_a_run_is_copied_when_it_ends(archived, world):
    archived.create()
    archived.record()
    archived.look()
    assert archived.state() is None
    world.lifecycle.stop_job("checkout", 0)
    archived.look()
    found = archived.there()
    assert found.counts["packets"] == 3
    assert found.ledger.stored
    state = archived.state()
    assert state.state is ArchiveState.COPIED
    assert state.bytes == sum(s.bytes for s in found.segments) + len(found.encode())
    assert state.copy_time == world.clock.now()
    assert state.error == ""


def test_a_run_that_records_is_copied_hourly(archived, world):
    archived.create()
    archived.record()
    archived.look()
    archived.look(HOUR - MINUTE)
    assert archived.state() is None
    world.writer.finish_segments("checkout", 1)
    archived.record()
    archived.look(MINUTE)
    assert archived.there().counts["packets"] == 3  # of what is finished
    world.writer.finish_segments("checkout", 1)
    archived.look(MINUTE)
    assert archived.there().counts["packets"] == 3
    archived.look(HOUR)
    assert archived.there().counts["packets"] == 6


def test_on_demand_everything_is_copied_at_once(archived, world):
    archived.create()
    archived.record()
    archived.look()
    job = world.lifecycle.archive_job("checkout")
    assert job.run(1).archived.state is ArchiveState.WAITING
    assert archived.state().state is ArchiveState.WAITING
    archived.look()
    assert archived.there().counts["packets"] == 3
    assert archived.state().state is ArchiveState.COPIED
    archived.record()
    assert archived.state().state is ArchiveState.COPIED


def test_recording_goes_on_while_the_archive_is_away(archived, world, bucket, monkeypatch):
    archived.create()
    archived.record()
    bucket.proxy.cut()
    world.lifecycle.archive_job("checkout")
    archived.look()
    state = archived.state()
    assert state.state is ArchiveState.FAILED
    assert state.error.startswith(f"s3://{bucket.name}/recorder/recordings/checkout/0001")
    assert state.error.endswith(" It is tried again in 5 seconds.")
    archived.record()
    tries = []
    with monkeypatch.context() as patched:
        patched.setattr(archivers.archive, "copy", lambda *a: tries.append(a))
        archived.look(timedelta(seconds=4))
    assert not tries
    archived.look(timedelta(seconds=1))
    assert archived.state().error.endswith(" It is tried again in 10 seconds.")
    bucket.proxy.mend()
    archived.look(timedelta(seconds=10))
    assert archived.state().state is ArchiveState.COPIED
    assert archived.state().error == ""
    assert world.job().run(1).packets == 6


def test_the_archive_outlives_the_run_on_disk(archived, world, bucket):
    archived.create(expiration_minutes=60)
    archived.record()
    world.lifecycle.stop_job("checkout", 0)
    archived.look()
    files = bucket.files()
    archived.look(timedelta(hours=2))
    assert world.folders() == []
    assert bucket.files() == files
    assert archived.state().state is ArchiveState.COPIED
    archived.look(timedelta(days=2))
    assert world.lifecycle.get("checkout") is None
    assert bucket.files() == files


def test_a_new_job_of_the_same_name_does_not_replace_it(archived, world, bucket):
    archived.create(expiration_minutes=60)
    archived.record()
    world.lifecycle.stop_job("checkout", 0)
    archived.look()
    files = bucket.files()
    archived.look(timedelta(hours=2))
    archived.create()
    archived.record()
    world.lifecycle.archive_job("checkout")
    archived.look()
    assert archived.state().state is ArchiveState.FAILED
    assert "has a run of an earlier job named checkout" in archived.state().error
    assert bucket.files() == files


def test_a_deleted_job_leaves_its_archive_unless_that_is_asked(archived, world, bucket):
    for name in ("one", "two"):
        archived.create(name)
        archived.record(name)
        world.lifecycle.stop_job(name, 0)
    archived.look()
    world.lifecycle.delete_job("one")
    archived.look()
    assert {key.split("/")[1] for key in bucket.files()} == {"one", "two"}
    bucket.proxy.cut()
    world.lifecycle.delete_job("two", with_archive=True)
    archived.look()
    assert {key.split("/")[1] for key in bucket.files()} == {"one", "two"}
    bucket.proxy.mend()
    archived.look(MINUTE)
    assert {key.split("/")[1] for key in bucket.files()} == {"one"}


def test_a_restart_goes_on_where_it_was(archived, world, bucket):
    archived.create()
    archived.record()
    world.lifecycle.stop_job("checkout", 0)
    bucket.proxy.cut()
    archived.look()
    assert archived.state().state is ArchiveState.FAILED
    world.restart()
    archived.up()
    assert archived.state().state is ArchiveState.FAILED
    bucket.proxy.mend()
    archived.look()
    assert archived.state().state is ArchiveState.COPIED
    sent = bucket.proxy.sent
    world.restart()
    archived.up()
    archived.look()
    assert bucket.proxy.sent - sent < 20_000  # it looked, and sent nothing
    assert archived.state().state is ArchiveState.COPIED


def test_what_cannot_be_asked_for(archived, world):
    archived.create()
    with pytest.raises(LookupError):
        archived.world.lifecycle.archive_job("nobody")
    with pytest.raises(RefusedError, match="has no run 2"):
        archived.world.lifecycle.archive_job("checkout", 2)
    world.create("later", start_time="23:00")
    with pytest.raises(RefusedError, match="Nothing of later is here"):
        archived.world.lifecycle.archive_job("later")
    world.lifecycle._runs.archives.is_on = False
    with pytest.raises(RefusedError, match="There is no archive; the scheduler's setting is --arc"):
        archived.world.lifecycle.archive_job("checkout")
    with pytest.raises(RefusedError, match="There is no archive"):
        archived.world.lifecycle.delete_job("checkout", with_archive=True)
    assert world.lifecycle.get("checkout") is not None


def test_the_thread_copies_and_ends(archived, world):
    archived.create()
    archived.record()
    archived.archiver.start()
    world.lifecycle.archive_job("checkout")
    try:
        for _ in range(600):
            if archived.state().state is ArchiveState.COPIED:
                break
            archived.archiver._stop.wait(0.1)
    finally:
        archived.archiver.stop()
    assert archived.there().counts["packets"] == 3


def test_what_is_asked_while_a_copy_is_made_is_copied_too(archived, world, monkeypatch):
    world_copy = archivers.archive.copy
    archived.create()
    archived.record()
    archived.look()

    def copy(*arguments):
        found = world_copy(*arguments)
        archived.record()
        world.lifecycle.archive_job("checkout")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(archivers.archive, "copy", copy)
        archived.look(HOUR)
    assert archived.state().state is ArchiveState.WAITING
    archived.look()
    assert archived.state().state is ArchiveState.COPIED
    assert archived.there().counts["packets"] == 6


@pytest.mark.postgresql
def test_each_of_several_schedulers_copies_its_part(several, pair, bucket):
    a, b = pair
    several.begin(a)
    assert a.deliver("a1", 1)
    assert b.deliver("b1", 1)
    several.move(2)
    archivers_of = {}
    for member in pair:
        member.cluster.archives.turn_on()
        remote = Remote(bucket.url(f"recorder/{member.cluster.name}"))
        archivers_of[member] = Archiver(
            member.writer, remote, member.cluster.archives, several.clock
        )
    a.lifecycle.archive_job("checkout")

    def state():
        a.cluster.archives._forget_read()
        return a.lifecycle.get("checkout").run(1).archived

    archivers_of[a].look()
    assert state().state is ArchiveState.WAITING
    archivers_of[b].look()
    assert state().state is ArchiveState.COPIED
    assert state().bytes == sum(bucket.files().values())
    for member in pair:
        remote = Remote(bucket.url(f"recorder/{member.cluster.name}"))
        assert archive.load(remote, "checkout", 1).counts["packets"] == 3
    a.lifecycle.delete_job("checkout", with_archive=True)
    several.move(2)
    for each in archivers_of.values():
        each.look()
    assert bucket.files() == {}
