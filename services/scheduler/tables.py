"""The tables of jobs, in SQLite or PostgreSQL; jobstore.py and members.py read and write them.

The schema is made by the migrations beside this file; a test compares both.
"""

from datetime import UTC, datetime
from enum import IntEnum

import sqlalchemy as sa

from services.scheduler.jobs import AgentState, JobState, OnFull, RunMissed


class Time(sa.TypeDecorator[datetime]):
    """An aware time, stored as UTC without a zone: SQLite has none."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return it without a zone."""
        del dialect
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return it with its zone."""
        del dialect
        return None if value is None else value.replace(tzinfo=UTC)


class Word(sa.TypeDecorator[IntEnum]):
    """A member of an enum, stored as its word, so that others can read the file too."""

    impl = sa.String
    cache_ok = True

    def __init__(self, kind: type[IntEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: IntEnum | None, dialect: sa.Dialect) -> str | None:
        """Return the word."""
        del dialect
        return None if value is None else value.name.lower()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> IntEnum | None:
        """Return the member."""
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
    sa.Column("state", Word(JobState), nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("create_time", Time, nullable=False),
    sa.Column("change_time", Time, nullable=False),
    sa.Column("first_start", Time, nullable=False),
    sa.Column("planned", sa.Integer, nullable=False),
    sa.Column("expanded_kfl", sa.String, nullable=False),
    sa.Column("run_missed", Word(RunMissed), nullable=False),
    sa.Column("pinned", sa.Boolean, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("description", sa.String, nullable=False),
    sa.Column("size_limit", sa.BigInteger, nullable=False),
    sa.Column("on_full", Word(OnFull), nullable=False),
)

RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("job", sa.String, sa.ForeignKey("jobs.name", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", Word(JobState), nullable=False),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("start_time", Time, nullable=False),
    sa.Column("end_time", Time, nullable=False),
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
    sa.Column("state", Word(AgentState), nullable=False),
    sa.Column("join_time", Time, nullable=False),
    sa.Column("heard_time", Time, nullable=False),
    sa.Column("data_time", Time),
    sa.Column("finish_time", Time),
    sa.Column("batches", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("scheduler", sa.String, nullable=False),  # that it delivers to; "" is the only one
    sa.ForeignKeyConstraint(
        ["job", "run"], ["runs.job", "runs.number"], ondelete="CASCADE", name="agents_run"
    ),
)

EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("time", Time, nullable=False, index=True),
    # Not a foreign key: the history outlives the job.
    sa.Column("job", sa.String, nullable=False, index=True),
    sa.Column("run", sa.Integer),
    sa.Column("from_state", Word(JobState)),  # null: it did not exist
    sa.Column("to_state", Word(JobState)),  # null: it was deleted
    sa.Column("reason", sa.String, nullable=False),
)

REMOVALS = sa.Table(
    "removals",
    METADATA,
    sa.Column("scheduler", sa.String, primary_key=True),  # that has the data
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("run", sa.Integer, primary_key=True),
)

REVISIONS = sa.Table(
    "revisions",
    METADATA,
    sa.Column("list", sa.String, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
)

SCHEDULERS = sa.Table(
    "schedulers",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("address", sa.String, nullable=False),
    sa.Column("seen_time", Time, nullable=False),  # by the database's clock
    sa.Column("term", sa.BigInteger, nullable=False),  # in which it leads; 0 when it does not
)

PARTS = sa.Table(
    "parts",
    METADATA,
    sa.Column("job", sa.String, primary_key=True),
    sa.Column("run", sa.Integer, primary_key=True),
    sa.Column("scheduler", sa.String, primary_key=True),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("streams", sa.BigInteger, nullable=False),
    sa.Column("packets", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("lost_packets", sa.BigInteger, nullable=False),
    sa.Column("nodes", sa.JSON, nullable=False),
    sa.Column("matched", sa.BigInteger, nullable=False),
    sa.Column("is_closed", sa.Boolean, nullable=False),
    sa.Column("is_counted", sa.Boolean, nullable=False),  # in the counts of a run that has ended
    sa.Column("full_reason", sa.String, nullable=False),
    sa.ForeignKeyConstraint(
        ["job", "run"], ["runs.job", "runs.number"], ondelete="CASCADE", name="parts_run"
    ),
)
