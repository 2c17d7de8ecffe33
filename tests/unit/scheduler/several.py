"""Schedulers of one database without a network: their time is moved, and each steps when told."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa

from services.runtime.clock import MovedClock
from services.scheduler.cluster import Cluster
from services.scheduler.lifecycle import Lifecycle
from services.scheduler.outcomes import Accepted
from services.scheduler.quota import Quota
from services.scheduler.writer import Writer
from tests.unit.scheduler.conftest import SPEC, START
from tests.unit.scheduler.stored import batch


class Member:
    """One scheduler, with a data folder of its own."""

    def __init__(self, data: Path, url: str, clock: MovedClock, limit: int = 64 << 20) -> None:
        self.data = data
        self.clock = clock
        self.writer = Writer(data, Quota(limit), clock)
        self.cluster = Cluster(data, url, self.writer, clock)
        self.cluster._members.address = data.name
        self.writer.start()
        self.cluster.open()
        self.sessions = self.cluster.sessions

    @property
    def lifecycle(self) -> Lifecycle:
        """The jobs of the one that leads."""
        assert self.cluster.lifecycle is not None
        return self.cluster.lifecycle

    def step(self) -> None:
        """Do what its thread does."""
        self.cluster._step()
        if self.cluster.lifecycle is not None:
            self.cluster.lifecycle.tick()

    def deliver(self, agent: str, sequence: int, run: int = 1, **options: int) -> bool:
        """Send a batch of an agent; whether it was taken."""
        sent = batch(agent, sequence, run=run, **options)
        outcome = self.writer.submit(agent, f"node-{agent}", sent).result(60)
        if isinstance(outcome, Accepted):
            self.sessions.agent_delivered(agent, "checkout", run, sequence, 100)
        return isinstance(outcome, Accepted)

    def end(self) -> None:
        """End it as SIGTERM does."""
        self.cluster.stop()
        self.writer.stop()
        self.cluster.close()


class Several:
    """Members by name; the first that steps leads."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.clock = MovedClock(START)
        self.members: dict[str, Member] = {}
        self.engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))

    def start(self, name: str, **options: int) -> Member:
        """Start a member, or start it again."""
        self.members[name] = Member(self.folder / name, self.url, self.clock, **options)
        return self.members[name]

    def end(self, name: str) -> None:
        """End a member."""
        self.members.pop(name).end()

    def move(self, seconds: float) -> None:
        """Let time pass, a second at a time, for all."""
        for _ in range(int(seconds)):
            self.clock.move(timedelta(seconds=1))
            for member in self.members.values():
                member.step()

    def begin(self, leader: Member, **fields: object) -> None:
        """Create a job whose run of a minute is on when this returns."""
        leader.lifecycle.create(replace(SPEC, duration_minutes=1, **fields))  # type: ignore[arg-type]
        self.move(3)

    def silence(self, name: str) -> None:
        """Let the database think that a member has said nothing for long."""
        query = "UPDATE schedulers SET seen_time = '2000-01-01' WHERE address = :name"
        with self.engine.begin() as connection:
            connection.execute(sa.text(query), {"name": name})

    def close(self) -> None:
        """End all."""
        for name in list(self.members):
            self.end(name)
        self.engine.dispose()
