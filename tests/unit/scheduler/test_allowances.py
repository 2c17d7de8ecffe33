"""A job that drops its own oldest data goes on at its limit, and touches nothing else."""

import shutil
from datetime import timedelta

import pytest

from services.scheduler import writer as writing
from services.scheduler.amendments import pin
from services.scheduler.batches import Batch
from services.scheduler.jobs import JobState, OnFull
from tests.unit.scheduler.stored import losses, packets, stored

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
MIB = 1 << 20


class Agent:
    """Sends batches of a tenth of a mebibyte."""

    def __init__(self, world):
        self.world = world
        self.sequence = 0

    def send(self, count, job="checkout", run=1):
        """Return how many were taken."""
        taken = 0
        for _ in range(count):
            self.sequence += 1
            parts = (packets("a", self.sequence, 1, 100_000),)
            batch = Batch(self.sequence, job, run, parts)
            outcome = self.world.writer.submit("a", "node-a", batch).result(60)
            taken += isinstance(outcome, writing.Accepted)
        self.world.lifecycle.tick()
        return taken


@pytest.fixture
def agent(world, monkeypatch):
    monkeypatch.setattr(writing, "ROLL_BYTES", 256 << 10)
    return Agent(world)


def dropped(world, job="checkout"):
    return [row for row in losses(world.data, job) if row["kind"] == "dropped_oldest"]


def test_a_job_at_its_own_limit_ends_and_keeps_what_it_has(world, agent):
    world.create(size_limit=MIB)
    world.move(SECOND)
    assert 5 < agent.send(20) < 12
    job = world.job()
    assert (job.state, job.reason) == (
        JobState.STORAGE_LIMITED,
        "The job's own size limit of 1 MiB is reached.",
    )
    assert min(number for _, number in stored(world.data)) == 1


def test_a_job_that_drops_its_oldest_goes_on_and_says_what_went(world, agent):
    world.create(size_limit=MIB, on_full=OnFull.DROP_OLDEST)
    world.move(SECOND)
    assert agent.send(60) == 60
    assert world.states() == (JobState.RECORDING, [JobState.RECORDING])
    assert world.job().runs[0].bytes <= MIB
    kept = sorted(number for _, number in stored(world.data))
    assert kept == list(range(kept[0], 61))  # the newest, without a hole
    told = dropped(world)
    assert sum(row["packets"] for row in told) == kept[0] - 1
    assert told[0]["detail"].startswith("the oldest data of run 1 made room for newer data")
    assert world.job().runs[0].packets == len(kept)


def test_the_whole_budget_makes_it_drop_its_own_and_nobody_elses(world, agent):
    world.create("other")
    world.create(on_full=OnFull.DROP_OLDEST)
    world.move(SECOND)
    assert agent.send(100, "other") == 100
    world.writer._quota.adopt(50 << 20)
    assert agent.send(60) == 60
    assert len(stored(world.data, "other")) == 100
    assert dropped(world)
    assert dropped(world, "other") == []
    world.writer._quota.release(50 << 20)


def test_older_runs_go_first_and_a_pinned_one_never(world, agent):
    world.create(
        size_limit=2 * MIB, on_full=OnFull.DROP_OLDEST, daily_iterations=5, duration_minutes=60
    )
    for run in (1, 2):
        world.move(2 * SECOND)
        assert agent.send(6, run=run) == 6
        world.move(DAY - 2 * SECOND)
    world.lifecycle.amend("checkout", pin(1, ""))
    world.move(2 * SECOND)
    assert agent.send(30, run=3) == 30
    job = world.job()
    assert [run.state.word for run in job.runs] == ["completed", "expired", "recording"]
    assert job.runs[1].reason.startswith("Run 2 made room for newer data, as the job wants it: ")
    assert world.folders() == [1, 3]
    numbers = {number for _, number in stored(world.data)}
    assert set(range(1, 7)) <= numbers
    assert {"run 2", "the oldest data of run 3"} == {
        row["detail"].split(" made")[0] for row in dropped(world)
    }


def test_a_pinned_job_drops_nothing_and_ends(world, agent):
    world.create(size_limit=MIB, on_full=OnFull.DROP_OLDEST, pinned=True)
    world.move(SECOND)
    agent.send(20)
    assert world.job().state is JobState.STORAGE_LIMITED
    assert dropped(world) == []


def test_what_was_dropped_stays_dropped_after_a_restart(world, agent):
    world.create(size_limit=MIB, on_full=OnFull.DROP_OLDEST)
    world.move(SECOND)
    agent.send(40)
    before, told = stored(world.data), dropped(world)
    world.restart()
    assert stored(world.data) == before
    assert dropped(world) == told
    agent.send(20)
    assert world.states() == (JobState.RECORDING, [JobState.RECORDING])


def test_a_run_whose_data_vanished_is_told_as_such(world, agent):
    world.create(duration_minutes=1)
    world.move(SECOND)
    agent.send(2)
    world.move(HOUR)
    world.down()
    shutil.rmtree(world.data / "recordings" / "checkout" / "0001")
    world.up()
    [run] = world.job().runs
    assert (run.state, run.reason) == (JobState.EXPIRED, "Its data is not on disk any more.")
