"""What the other schedulers have of each run: in the database, where each writes its own part.

A run's data is on several schedulers, each of which closes its part when its own agents are done.
The leader closes the run when all have, and adds up their counts; a part that is closed later, by a
scheduler that was away, is added then. A scheduler that is alone asks an `Others`, and hears of
none.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy import exc

from services.scheduler.database import upsert
from services.scheduler.jobstore import JobStore
from services.scheduler.members import Member, Members
from services.scheduler.outcomes import RunTotals
from services.scheduler.tables import PARTS

GRACE = timedelta(seconds=3)
"""How much longer a run waits for the parts of others, which close theirs by the same times."""

MOVING_SECONDS = 30.0
"""For how long after a scheduler went away runs wait, at their end, for its agents to come here."""

Key = tuple[str, int]
"""Job and run."""


class Others:
    """No other scheduler."""

    are_none = True
    grace = timedelta()

    def whole(self, job: str, run: int, own: RunTotals, is_latest: bool = False) -> RunTotals:
        """Return what all have of a run, with what is here; is_latest: as of now. StoreError."""
        del job, run, is_latest
        return own

    def are_closed(self, job: str, run: int) -> bool:
        """Whether nobody else takes data of a run any more."""
        del job, run
        return True

    def any_closed(self, job: str, run: int) -> bool:
        """Whether somebody else has closed a run."""
        del job, run
        return False

    def missing(self, job: str, run: int) -> str:
        """Return a sentence about what is not counted in whole(); "" when everything is."""
        del job, run
        return ""

    def full(self) -> Iterable[tuple[str, int, str]]:
        """Return the runs that somebody else has no room for, and why."""
        return ()

    def uncounted(self) -> Iterable[Key]:
        """Return the runs of which somebody else has closed a part since they were counted."""
        return ()

    def counted(self, job: str, run: int) -> None:
        """Note that all that is closed of a run is counted. Raises StoreError."""

    def close(self, job: str, run: int, totals: RunTotals) -> None:
        """Note what is here of a run, and that no more comes. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one scheduler has of a run."""

    scheduler: str
    totals: RunTotals
    matched: int = 0  # calls, on its agents
    is_closed: bool = False
    full_reason: str = ""


class Parts(Others):
    """The parts of all others, as they were at the last refresh(). Methods are thread-safe."""

    are_none = False
    grace = GRACE

    def __init__(self, store: JobStore, members: Members) -> None:
        self.leads = False
        """Whether runs wait for others, and whole() counts what they have."""
        self._database = store.database
        self._name = store.name
        self._members = members
        self._lock = threading.Lock()
        self._parts: dict[Key, dict[str, Part]] = {}
        self._known: dict[str, Member] = {}
        self._left: dict[str, float] = {}  # when those that are away were noticed to be
        self._written: dict[Key, Part] = {}

    def refresh(self, now: float) -> dict[Key, int]:
        """Read what the others have written; `now` in seconds of a clock that never goes back.

        Returns how many calls have matched on their agents, of each run. Raises StoreError.
        """
        known = {member.name: member for member in self._members.all()}
        parts = self._read(~PARTS.c.is_counted)
        with self._lock:
            for name, member in known.items():
                was = self._known.get(name)
                if member.is_away and was is not None and not was.is_away:
                    self._left[name] = now
            self._left = {n: t for n, t in self._left.items() if now - t < MOVING_SECONDS}
            self._known, self._parts = known, parts
        return {key: sum(part.matched for part in of_run.values()) for key, of_run in parts.items()}

    def whole(self, job: str, run: int, own: RunTotals, is_latest: bool = False) -> RunTotals:
        """Return what all have of a run, with what is here; only the leader is asked."""
        if not self.leads:
            return own
        if is_latest:
            of_run = self._read((PARTS.c.job == job) & (PARTS.c.run == run)).get((job, run), {})
        else:
            of_run = self._parts.get((job, run), {})
        for part in of_run.values():
            own = _sum(own, part.totals)
        return own

    def are_closed(self, job: str, run: int) -> bool:
        """Whether nobody else takes data, and no agent is on its way here from one that left."""
        with self._lock:
            if self._left:
                return False
            of_run = self._parts.get((job, run), {}).values()
            return not self.leads or all(p.is_closed or self._is_away(p) for p in of_run)

    def any_closed(self, job: str, run: int) -> bool:
        """Whether somebody else has closed a run."""
        return self.leads and any(p.is_closed for p in self._parts.get((job, run), {}).values())

    def missing(self, job: str, run: int) -> str:
        """Return a sentence about those who are away."""
        with self._lock:
            of_run = self._parts.get((job, run), {}).values()
            away = [p for p in of_run if self.leads and not p.is_closed and self._is_away(p)]
            names = [self._known[part.scheduler].address for part in away]
        if not names:
            return ""
        be = "is" if len(names) == 1 else "are"
        return f"{', '.join(sorted(names))} {be} away: what is there is counted when it is back."

    def full(self) -> Iterable[tuple[str, int, str]]:
        """Return the runs that somebody else has no room for, and why."""
        with self._lock:
            return [
                (*key, f"{self._known[part.scheduler].address}: {part.full_reason}")
                for key, of_run in self._parts.items()
                for part in of_run.values()
                if part.full_reason and part.scheduler in self._known
            ]

    def uncounted(self) -> Iterable[Key]:
        """Return the runs of which somebody else has closed a part since they were counted."""
        with self._lock:
            return [
                key
                for key, of_run in self._parts.items()
                if any(part.is_closed for part in of_run.values())
            ]

    def counted(self, job: str, run: int) -> None:
        """Note that all that is closed of a run is counted."""
        where = (PARTS.c.job == job) & (PARTS.c.run == run) & PARTS.c.is_closed
        with self._database.changing() as connection:
            connection.execute(sa.update(PARTS).where(where).values(is_counted=True))
        with self._lock:
            of_run = self._parts.get((job, run), {})
            self._parts[job, run] = {n: p for n, p in of_run.items() if not p.is_closed}

    def close(self, job: str, run: int, totals: RunTotals) -> None:
        """Note what is here of a run, and that no more comes."""
        self.write(job, run, Part(self._name, totals, is_closed=True))
        self._written.pop((job, run), None)

    def write(self, job: str, run: int, part: Part) -> None:
        """Store this scheduler's part if it is another than before; StoreError."""
        if self._written.get((job, run)) == part:
            return
        totals = part.totals
        values = {name: getattr(totals, name) for name in _COUNTS} | {
            "nodes": list(totals.nodes),
            "matched": part.matched,
            "is_closed": part.is_closed,
            # The leader has its own in what it counts.
            "is_counted": self.leads and part.is_closed,
            "full_reason": part.full_reason,
        }
        try:
            with self._database.changing(as_leader=False) as connection:
                insert = upsert(connection, PARTS).values(
                    job=job, run=run, scheduler=self._name, **values
                )
                keys = ["job", "run", "scheduler"]
                connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=values))
        except exc.IntegrityError:
            return  # the run has not begun, or is gone
        self._written[job, run] = part

    def unclosed(self) -> list[Key]:
        """Return the runs of which this scheduler has a part that it has not closed."""
        where = (PARTS.c.scheduler == self._name) & ~PARTS.c.is_closed
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(PARTS.c.job, PARTS.c.run).where(where))
            return [(row.job, row.run) for row in rows]

    def _read(self, where: sa.ColumnElement[bool]) -> dict[Key, dict[str, Part]]:
        query = sa.select(PARTS).where(where, PARTS.c.scheduler != self._name)
        found: dict[Key, dict[str, Part]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                counts = {name: getattr(row, name) for name in _COUNTS}
                totals = RunTotals(nodes=tuple(row.nodes), **counts)
                part = Part(row.scheduler, totals, row.matched, row.is_closed, row.full_reason)
                found.setdefault((row.job, row.run), {})[row.scheduler] = part
        return found

    def _is_away(self, part: Part) -> bool:
        member = self._known.get(part.scheduler)
        return member is None or member.is_away


_COUNTS = ("entries", "streams", "packets", "bytes", "lost_packets")


def _sum(one: RunTotals, other: RunTotals) -> RunTotals:
    counts = {name: getattr(one, name) + getattr(other, name) for name in _COUNTS}
    return replace(one, nodes=tuple(sorted({*one.nodes, *other.nodes})), **counts)
