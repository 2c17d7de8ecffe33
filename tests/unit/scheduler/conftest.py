"""A scheduler without a network: real store, real writer, a clock that is moved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recordings import layout
from services.runtime.clock import MovedClock
from services.scheduler.jobs import Job, JobState, Spec
from services.scheduler.jobstore import JobStore
from services.scheduler.lifecycle import Lifecycle
from services.scheduler.members import Members
from services.scheduler.quota import Quota
from services.scheduler.writer import Writer

if TYPE_CHECKING:
    from tests.postgresql import PostgreSql
    from tests.unit.scheduler.several import Member, Several

START = datetime(2028, 2, 28, 12, 0, 0, tzinfo=UTC)  # the day before a leap day

SPEC = Spec(
    name="checkout",
    kfl="http or dns",
    start_time="",
    daily_iterations=1,
    duration_minutes=240,
    expiration_minutes=2880,
    body_limit=65536,
    imported=False,
)


class World:
    """One data folder, and the scheduler's life in it; tests restart it and move its time."""

    def __init__(self, data: Path, url: str = "") -> None:
        """`url` is of PostgreSQL; "" for SQLite."""
        self.data = data
        self.url = url
        self.clock = MovedClock(START)
        self.up()

    def up(self) -> None:
        """Start the scheduler, without its thread: time passes in move() alone."""
        self.store = JobStore(self.data, self.url)
        if self.url:
            self.members = Members(self.store.database, "", "127.0.0.1:1")
            assert self.members.lead()
        self.writer = Writer(self.data, Quota(64 << 20), self.clock)
        self.writer.start()
        self.lifecycle = Lifecycle(self.data, self.store, self.writer, self.clock)
        self.writer.on_full = self.lifecycle.run_full
        self.writer.on_held = self.lifecycle.run_held
        self.writer.on_dropped = self.lifecycle.run_dropped
        self.lifecycle.recover()

    def down(self) -> None:
        """End it as SIGTERM does."""
        self.lifecycle.stop()
        self.writer.stop()
        if self.url:
            self.members.resign()
        self.store.close()

    def restart(self, away: timedelta = timedelta()) -> None:
        """End it, and start it again after a while."""
        self.down()
        self.clock.move(away)
        self.up()

    def move(self, by: timedelta) -> None:
        """Let time pass as the thread would see it: it wakes whenever something is due."""
        target = self.clock.now() + by
        while (due := self.lifecycle.tick()) is not None and due <= target:
            self.clock.move(due - self.clock.now())
        self.clock.move(target - self.clock.now())
        self.lifecycle.tick()

    def move_to(self, text: str) -> None:
        """Let time pass until then, UTC."""
        self.move(datetime.fromisoformat(text).replace(tzinfo=UTC) - self.clock.now())

    def create(self, name: str = "checkout", **fields: object) -> Job:
        """Create a job; what is not given is as a person would leave it."""
        return self.lifecycle.create(replace(SPEC, name=name, **fields))

    def job(self, name: str = "checkout") -> Job:
        """Return a job that has to be there."""
        job = self.lifecycle.get(name)
        assert job is not None
        return job

    def states(self, name: str = "checkout") -> tuple[JobState, list[JobState]]:
        """Return the states of a job and of its runs."""
        job = self.job(name)
        return job.state, [run.state for run in job.runs]

    def folders(self, name: str = "checkout") -> list[int]:
        """Return the runs on disk."""
        return layout.runs(self.data, name)

    def assigned(self, import_job: str = "") -> list[tuple[str, int]]:
        """Return job and run of what agents are to record."""
        return [(a.job, a.run) for a in self.lifecycle.sessions.assignments(import_job)[1]]


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    world = World(tmp_path, database_url)
    yield world
    world.down()


@pytest.fixture
def several(tmp_path: Path, postgresql: PostgreSql) -> Iterator[Several]:
    """Schedulers of one database; none is there yet."""
    from tests.unit.scheduler.several import Several  # which needs this file

    made = Several(tmp_path, postgresql.database())
    yield made
    made.close()


@pytest.fixture
def pair(several: Several) -> tuple[Member, Member]:
    """Two schedulers, of which `a` leads, and an agent at each: a1 and b1."""
    members = several.start("a"), several.start("b")
    several.move(1)
    for member, agent in zip(members, ("a1", "b1"), strict=True):
        member.sessions.agent_connected(agent, f"node-{agent}")
    return members
