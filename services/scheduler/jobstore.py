"""Jobs in SQLite: what lifecycle.py keeps through restarts, and the history of every change.

A change of state can only be saved together with its row in `events`: save() compares with what is
stored, asks the tables of jobs.py whether the move is allowed, and writes time and reason. The
schema is made and brought up to date by the migrations beside this file, whenever the file is
opened.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import exc

from services.runtime.errors import UserError
from services.scheduler.jobs import (
    AgentState,
    Job,
    JobState,
    OnFull,
    Run,
    RunAgent,
    RunMissed,
    Spec,
    check_job_move,
    check_run_move,
)

FILE_NAME = "jobs.sqlite"

BUSY_MS = 5000
"""How long to wait for someone who looks into the file with another program."""

WHOLE_JOB = 0
"""In a removal: not one run, but everything of the job."""


class _Time(sa.TypeDecorator[datetime]):
    """An aware time, stored as UTC without a zone: SQLite has none."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        del dialect
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


class _Word(sa.TypeDecorator[IntEnum]):
    """A member of an enum, stored as its word, so that others can read the file too."""

    impl = sa.String
    cache_ok = True

    def __init__(self, kind: type[IntEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: IntEnum | None, dialect: sa.Dialect) -> str | None:
        del dialect
        return None if value is None else value.name.lower()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> IntEnum | None:
        del dialect
        return None if value is None else self.kind[value.upper()]


METADATA = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("kfl", sa.String, nullable=False),
    sa.Column("start_time", sa.String, nullable=False),
    sa.Column("daily_iterations", sa.Integer, nullable=False),
    sa.Column("duration_minutes", sa.Integer, nullable=False),
    sa.Column("expiration_minutes", sa.Integer, nullable=False),
    sa.Column("body_limit", sa.Integer, nullable=False),
    sa.Column("imported", sa.Boolean, nullable=False),
    sa.Column("state", _Word(JobState), nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("create_time", _Time, nullable=False),
    sa.Column("change_time", _Time, nullable=False),
    sa.Column("first_start", _Time, nullable=False),
    sa.Column("planned", sa.Integer, nullable=False),
    sa.Column("expanded_kfl", sa.String, nullable=False),
    sa.Column("run_missed", _Word(RunMissed), nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("size_limit", sa.BigInteger, nullable=False),
    sa.Column("on_full", _Word(OnFull), nullable=False),
)

RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("job", sa.String, sa.ForeignKey("jobs.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", _Word(JobState), nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("start_time", _Time, nullable=False),
    sa.Column("end_time", _Time, nullable=False),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("streams", sa.BigInteger, nullable=False),
    sa.Column("packets", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("lost_packets", sa.BigInteger, nullable=False),
    sa.Column("nodes", sa.JSON, nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    sa.Column("completeness", sa.String, nullable=False),
)

AGENTS = sa.Table(
    "agents",
    METADATA,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("run", sa.Integer, primary_key=True),
    sa.Column("agent_id", sa.String, primary_key=True),
    sa.Column("node", sa.String, nullable=False),
    sa.Column("state", _Word(AgentState), nullable=False),
    sa.Column("join_time", _Time, nullable=False),
    sa.Column("heard_time", _Time, nullable=False),
    sa.Column("data_time", _Time),
    sa.Column("finish_time", _Time),
    sa.Column("batches", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.ForeignKeyConstraint(
        ["job", "run"], ["runs.job", "runs.number"], ondelete="CASCADE", name="agents_run"
    ),
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("time", _Time, nullable=False, index=True),
    # Not a foreign key: the history outlives the job.
    sa.Column("job", sa.String, nullable=False, index=True),
    sa.Column("run", sa.Integer),
    sa.Column("from_state", _Word(JobState)),  # null: it did not exist
    sa.Column("to_state", _Word(JobState)),  # null: it was deleted
    sa.Column("reason", sa.String, nullable=False),
)

REMOVALS = sa.Table(
    "removals",
    METADATA,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("run", sa.Integer, primary_key=True),
)

REVISIONS = sa.Table(
    "revisions",
    METADATA,
    sa.Column("list", sa.String, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)


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


class StoreError(OSError):
    """A change could not be stored; its text is a sentence. Everything is as it was before."""


class NameTakenError(Exception):
    """There is a job of this name."""


class JobStore:
    """The jobs of one data folder. All methods may be called from any thread."""

    def __init__(self, data: Path) -> None:
        """Open `data`/jobs.sqlite, make it if need be. Raises UserError with a sentence."""
        self.path = data / FILE_NAME
        url = sa.URL.create("sqlite", database=str(self.path))
        self._engine = sa.create_engine(url)
        sa.event.listen(self._engine, "connect", _prepare)
        sa.event.listen(self._engine, "begin", _begin)
        try:
            data.mkdir(parents=True, exist_ok=True)
            self._migrate()
        except CommandError as error:
            self.close()
            raise UserError(
                f"{self.path} was written by a later version of this program; "
                "use that version, or another data folder."
            ) from error
        except OSError as error:
            self.close()
            raise UserError(f"Cannot use the data folder {data}: {error.strerror}.") from error
        except exc.DBAPIError as error:
            self.close()
            raise UserError(f"Cannot use {self.path}: {error.orig}.") from error

    def close(self) -> None:
        """Close all connections; what was saved is safe already."""
        self._engine.dispose()

    def jobs(self) -> list[Job]:
        """Return all jobs with their runs, oldest first."""
        with self._engine.connect() as connection:
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
            with self._change() as connection:
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
        with self._change() as connection:
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
                _add_removal(connection, Removal(job.name, number))

    def remove(self, name: str, at: datetime, reason: str, with_data: bool) -> None:
        """Remove a job and its runs; its history stays. with_data: note its data for removal."""
        with self._change() as connection:
            old = _load(connection, name)
            connection.execute(sa.delete(JOBS).where(JOBS.c.name == name))
            _note(connection, Event(at, name, None, old.state, None, reason))
            if with_data:
                _add_removal(connection, Removal(name, WHOLE_JOB))

    def removals(self) -> list[Removal]:
        """Return the data that is still to be removed, so that a crash leaves none behind."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(REMOVALS).order_by(REMOVALS.c.job, REMOVALS.c.run))
            return [Removal(row.job, row.run) for row in rows]

    def removed(self, removal: Removal) -> None:
        """Note that data was removed."""
        where = (REMOVALS.c.job == removal.job) & (REMOVALS.c.run == removal.run)
        with self._change() as connection:
            connection.execute(sa.delete(REMOVALS).where(where))

    def save_agents(self, job: str, run: int, agents: Sequence[RunAgent]) -> None:
        """Store how these agents stand in a run; nothing when there is no such run any more."""
        if not agents:
            return
        rows = [_agent_values(job, run, agent) for agent in agents]
        with self._change() as connection:
            key = (RUNS.c.job == job) & (RUNS.c.number == run)
            if connection.execute(sa.select(RUNS.c.number).where(key)).one_or_none() is not None:
                connection.execute(sa.insert(AGENTS).prefix_with("OR REPLACE"), rows)

    def agents(self, job: str, run: int) -> list[RunAgent]:
        """Return the agents that took part in a run, as they were stored last."""
        query = sa.select(AGENTS).where((AGENTS.c.job == job) & (AGENTS.c.run == run))
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(AGENTS.c.node, AGENTS.c.agent_id)).mappings()
            return [RunAgent(**{name: row[name] for name in _AGENT}) for row in rows]

    def events(self, name: str, most: int | None = None) -> list[Event]:
        """Return the history of all jobs that had this name, oldest first; the `most` latest."""
        query = sa.select(EVENTS).where(EVENTS.c.job == name).order_by(EVENTS.c.id.desc())
        with self._engine.connect() as connection:
            rows = connection.execute(query.limit(most)).mappings().all()
        return [_event(row) for row in reversed(rows)]

    def revision(self) -> int:
        """Return the revision of the last change."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.max(EVENTS.c.id))).scalar_one() or 0

    def changed_since(self, revision: int, until: int) -> set[str] | None:
        """Return the names of the jobs that have changed after a revision, up to another.

        None when that cannot be told: it is from another file, or its history is forgotten.
        """
        with self._engine.connect() as connection:
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
        with self._change() as connection:
            old = (EVENTS.c.time < before) & (EVENTS.c.id < last)
            old &= EVENTS.c.job.not_in(sa.select(JOBS.c.name))
            return int(connection.execute(sa.delete(EVENTS).where(old)).rowcount)

    def next_revision(self) -> int:
        """Count one more list of assignments; goes on through restarts."""
        name = "assignments"
        with self._change() as connection:
            query = sa.select(REVISIONS.c.revision).where(REVISIONS.c.list == name)
            last = connection.execute(query).scalar_one_or_none()
            revision = (last or 0) + 1
            if last is None:
                connection.execute(sa.insert(REVISIONS).values(list=name, revision=revision))
            else:
                where = REVISIONS.c.list == name
                connection.execute(sa.update(REVISIONS).where(where).values(revision=revision))
            return revision

    @contextmanager
    def _change(self) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction. Raises StoreError."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except exc.IntegrityError:
            raise
        except exc.DBAPIError as error:
            raise StoreError(f"Cannot write {self.path}: {error.orig}.") from error

    def _migrate(self) -> None:
        config = Config()
        # A percent sign in the path would begin an interpolation.
        folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
        config.set_main_option("script_location", folder)
        # One transaction: all migrations or none.
        with self._engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _prepare(connection: sqlite3.Connection, record: object) -> None:
    """Set up each new connection."""
    del record
    # sqlite3 would begin transactions by itself, though not before CREATE TABLE; _begin does.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        "journal_mode=WAL",  # readers go on while a change is written
        "synchronous=FULL",  # a change that was answered survives a power cut
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    """Take the lock at once: one that is only wanted later may be refused in the middle."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


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


def _add_removal(connection: sa.Connection, removal: Removal) -> None:
    values = {"job": removal.job, "run": removal.run}
    where = (REMOVALS.c.job == removal.job) & (REMOVALS.c.run == removal.run)
    if connection.execute(sa.select(REMOVALS).where(where)).one_or_none() is None:
        connection.execute(sa.insert(REMOVALS).values(**values))


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
