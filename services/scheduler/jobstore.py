"""Jobs in a database: what lifecycle.py keeps through restarts, and the history of every change.

A change of state can only be saved together with its row in `events`: save() compares with what is
stored, asks the tables of jobs.py whether the move is allowed, and writes time and reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc

from services.scheduler.database import CHANGES, Database, StoreError, count, upsert
from services.scheduler.jobs import (
    Job,
    JobState,
    Run,
    RunAgent,
    Spec,
    check_job_move,
    check_run_move,
)
from services.scheduler.tables import (
    AGENTS,
    EVENTS,
    JOBS,
    REMOVALS,
    REVISIONS,
    RUNS,
    SCHEDULERS,
)

__all__ = ["WHOLE_JOB", "Event", "JobStore", "NameTakenError", "Removal", "StoreError"]

WHOLE_JOB = 0
"""In a removal: not one run, but everything of the job."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change of a job (run is None) or of a run."""

    time: datetime
    job: str
    run: int | None
    from_state: JobState | None
    to_state: JobState | None  # the same as before when something else has changed
    reason: str
    revision: int = field(default=0, compare=False)
    """Counts the changes of all jobs; given by the store."""


@dataclass(frozen=True, slots=True)
class Removal:
    """Data that nobody owns any more and that is still to be removed; WHOLE_JOB or a run."""

    job: str
    run: int


class NameTakenError(Exception):
    """There is a job of this name."""


class JobStore:
    """The jobs of one data folder or of several schedulers. Any thread may call every method."""

    def __init__(self, data: Path, url: str = "", name: str = "") -> None:
        """Open `data`/jobs.sqlite, make it if need be. Raises UserError with a sentence.

        url: of a PostgreSQL that several schedulers share; `name` is this one's.
        """
        self.database = Database(data, url)
        self.name = name

    def close(self) -> None:
        """Close all connections; what was saved is safe already."""
        self.database.close()

    def jobs(self) -> list[Job]:
        """Return all jobs with their runs, oldest first."""
        with self.database.reading() as connection:
            runs: dict[str, list[Run]] = {}
            for row in connection.execute(sa.select(RUNS).order_by(RUNS.c.number)).mappings():
                runs.setdefault(row["job"], []).append(_run(row))
            order = (JOBS.c.create_time, JOBS.c.name)
            rows = connection.execute(sa.select(JOBS).order_by(*order)).mappings()
            return [_job(row, runs.get(row["name"], [])) for row in rows]

    def add(self, job: Job) -> None:
        """Store a new job, with the event of its creation. Raises NameTakenError."""
        check_job_move(job.name, None, job.state)
        try:
            with self.database.changing() as connection:
                connection.execute(sa.insert(JOBS).values(**_job_values(job)))
                _note(
                    connection, Event(job.change_time, job.name, None, None, job.state, "Created.")
                )
                _save_runs(connection, job, {}, job.change_time)
        except exc.IntegrityError as error:
            raise NameTakenError(f"There is a job named {job.name} already.") from error

    def save(
        self, job: Job, at: datetime, removals: Sequence[int] = (), note: str = "", run: int = 0
    ) -> None:
        """Store a job that has changed, and an event for each state that has.

        removals: numbers of runs whose data is to be removed from now on. Runs that the job no
        longer has are dropped. note: an event for a change that is none of state, of the job or of
        a run. Raises ForbiddenMoveError, and LookupError when there is no such job; nothing is
        stored then.
        """
        with self.database.changing() as connection:
            old = _load(connection, job.name)
            if job.state is not old.state:
                check_job_move(job.name, old.state, job.state)
                event = Event(at, job.name, None, old.state, job.state, job.reason)
                _note(connection, event)
            where = JOBS.c.name == job.name
            connection.execute(sa.update(JOBS).where(where).values(**_job_values(job)))
            _save_runs(connection, job, {run.number: run for run in old.runs}, at)
            if note:
                noted = job.run(run)
                state = job.state if noted is None else noted.state
                _note(connection, Event(at, job.name, run or None, state, state, note))
            for number in removals:
                self._add_removal(connection, Removal(job.name, number))

    def remove(self, name: str, at: datetime, reason: str, with_data: bool) -> None:
        """Remove a job and its runs; its history stays. with_data: note its data for removal."""
        with self.database.changing() as connection:
            old = _load(connection, name)
            connection.execute(sa.delete(JOBS).where(JOBS.c.name == name))
            _note(connection, Event(at, name, None, old.state, None, reason))
            if with_data:
                self._add_removal(connection, Removal(name, WHOLE_JOB))

    def removals(self) -> list[Removal]:
        """Return the data that is still to be removed here, so that a crash leaves none behind."""
        query = sa.select(REMOVALS).where(REMOVALS.c.scheduler == self.name)
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(REMOVALS.c.job, REMOVALS.c.run))
            return [Removal(row.job, row.run) for row in rows]

    def removed(self, removal: Removal) -> None:
        """Note that data was removed here."""
        where = (REMOVALS.c.job == removal.job) & (REMOVALS.c.run == removal.run)
        where &= REMOVALS.c.scheduler == self.name
        with self.database.changing(as_leader=False) as connection:
            connection.execute(sa.delete(REMOVALS).where(where))

    def save_agents(self, job: str, run: int, agents: Sequence[RunAgent]) -> None:
        """Store how these agents stand in a run; nothing when there is no such run any more."""
        if not agents:
            return
        rows = [_agent_values(job, run, agent) | {"scheduler": self.name} for agent in agents]
        with self.database.changing(as_leader=False) as connection:
            # Shared, so that the run does not go meanwhile.
            key = (RUNS.c.job == job) & (RUNS.c.number == run)
            found = sa.select(RUNS.c.number).where(key).with_for_update(read=True, key_share=True)
            if connection.execute(found).one_or_none() is not None:
                insert = upsert(connection, AGENTS)
                new = {column: insert.excluded[column] for column in rows[0]}
                connection.execute(
                    insert.on_conflict_do_update(index_elements=AGENTS.primary_key, set_=new), rows
                )

    def agents(self, job: str, run: int, only_own: bool = False) -> list[RunAgent]:
        """Return the agents that took part in a run, as they were stored last.

        only_own: only those that deliver to this scheduler.
        """
        query = sa.select(AGENTS).where((AGENTS.c.job == job) & (AGENTS.c.run == run))
        if only_own:
            query = query.where(AGENTS.c.scheduler == self.name)
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(AGENTS.c.node, AGENTS.c.agent_id)).mappings()
            return [RunAgent(**{name: row[name] for name in _AGENT}) for row in rows]

    def events(self, name: str, most: int | None = None) -> list[Event]:
        """Return the history of all jobs that had this name, oldest first; the `most` latest."""
        query = sa.select(EVENTS).where(EVENTS.c.job == name).order_by(EVENTS.c.id.desc())
        with self.database.reading() as connection:
            rows = connection.execute(query.limit(most)).mappings().all()
        return [_event(row) for row in reversed(rows)]

    def revision(self) -> int:
        """Return the revision of the last change."""
        with self.database.reading() as connection:
            return connection.execute(sa.select(sa.func.max(EVENTS.c.id))).scalar_one() or 0

    def changed_since(self, revision: int, until: int) -> set[str] | None:
        """Return the names of the jobs that have changed after a revision, up to another.

        None when that cannot be told: it is from another file, or its history is forgotten.
        """
        with self.database.reading() as connection:
            ends = sa.select(sa.func.min(EVENTS.c.id), sa.func.max(EVENTS.c.id))
            first, last = connection.execute(ends).one()
            if last is None or not first - 1 <= revision <= last:
                return None
            query = sa.select(EVENTS.c.job).where(EVENTS.c.id > revision, EVENTS.c.id <= until)
            return set(connection.execute(query.distinct()).scalars())

    def forget_events(self, before: datetime) -> int:
        """Remove events from before that time and return how many they were.

        Those of jobs that are there stay, and so does the last one: revisions count on from it.
        """
        last = sa.select(sa.func.max(EVENTS.c.id)).scalar_subquery()
        with self.database.changing() as connection:
            old = (EVENTS.c.time < before) & (EVENTS.c.id < last)
            old &= EVENTS.c.job.not_in(sa.select(JOBS.c.name))
            return int(connection.execute(sa.delete(EVENTS).where(old)).rowcount)

    def next_revision(self) -> int:
        """Count one more list of assignments; goes on through restarts."""
        with self.database.changing(as_leader=False) as connection:
            return count(connection, "assignments")

    def _add_removal(self, connection: sa.Connection, removal: Removal) -> None:
        """Let each scheduler remove what it has; one that is away does when it comes back."""
        names = {self.name, *connection.execute(sa.select(SCHEDULERS.c.name)).scalars()}
        rows = [{"scheduler": n, "job": removal.job, "run": removal.run} for n in sorted(names)]
        connection.execute(upsert(connection, REMOVALS).on_conflict_do_nothing(), rows)

    def changes(self) -> int:
        """Return a number that is another one whenever a leader has changed something."""
        query = sa.select(REVISIONS.c.revision).where(REVISIONS.c.list == CHANGES)
        with self.database.reading() as connection:
            return connection.execute(query).scalar_one_or_none() or 0


def _load(connection: sa.Connection, name: str) -> Job:
    query = sa.select(JOBS).where(JOBS.c.name == name)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise LookupError(f"There is no job {name}.")
    runs = sa.select(RUNS).where(RUNS.c.job == name).order_by(RUNS.c.number)
    return _job(row, [_run(r) for r in connection.execute(runs).mappings()])


def _save_runs(connection: sa.Connection, job: Job, old: Mapping[int, Run], at: datetime) -> None:
    """Write the runs that differ from `old`, with an event for each state that does."""
    for run in job.runs:
        before = old.get(run.number)
        if before == run:
            continue
        if before is None or before.state is not run.state:
            state = before.state if before else None
            check_run_move(job.name, run.number, state, run.state)
            _note(connection, Event(at, job.name, run.number, state, run.state, run.reason))
        values = _run_values(job.name, run)
        if before is None:
            connection.execute(sa.insert(RUNS).values(**values))
        else:
            key = (RUNS.c.job == job.name) & (RUNS.c.number == run.number)
            connection.execute(sa.update(RUNS).where(key).values(**values))
    for number in old.keys() - {run.number for run in job.runs}:
        key = (RUNS.c.job == job.name) & (RUNS.c.number == number)
        connection.execute(sa.delete(RUNS).where(key))


def _note(connection: sa.Connection, event: Event) -> None:
    connection.execute(
        sa.insert(EVENTS).values(
            time=event.time,
            job=event.job,
            run=event.run,
            from_state=event.from_state,
            to_state=event.to_state,
            reason=event.reason,
        )
    )


_SPEC = tuple(Spec.__dataclass_fields__)
_JOB = tuple(name for name in Job.__dataclass_fields__ if name not in ("spec", "runs"))
_RUN = tuple(Run.__dataclass_fields__)
_AGENT = tuple(RunAgent.__dataclass_fields__)


def _job_values(job: Job) -> dict[str, Any]:
    spec = {name: getattr(job.spec, name) for name in _SPEC} | {"labels": dict(job.spec.labels)}
    return spec | {name: getattr(job, name) for name in _JOB}


def _run_values(name: str, run: Run) -> dict[str, Any]:
    values = {field: getattr(run, field) for field in _RUN}
    return values | {"job": name, "nodes": list(run.nodes)}


def _job(row: sa.RowMapping, runs: Sequence[Run]) -> Job:
    spec = Spec(**{name: row[name] for name in _SPEC})
    return Job(spec=spec, runs=tuple(runs), **{name: row[name] for name in _JOB})


def _run(row: sa.RowMapping) -> Run:
    run = Run(**{name: row[name] for name in _RUN})
    return replace(run, nodes=tuple(row["nodes"]))


def _agent_values(job: str, run: int, agent: RunAgent) -> dict[str, Any]:
    return {name: getattr(agent, name) for name in _AGENT} | {"job": job, "run": run}


def _event(row: sa.RowMapping) -> Event:
    return Event(revision=row["id"], **{k: v for k, v in row.items() if k != "id"})
