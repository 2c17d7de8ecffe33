"""The schedulers that share a PostgreSQL: who is there, and which one leads. cluster.py asks.

Who holds the database's advisory lock leads, for as long as the connection that took it lives: the
server gives the lock free when that breaks. A leader that hangs keeps its connection, so it also
has to say once a second that it is there; when it has not for a while, who wants to lead ends the
connection. Each leader has a term, and database.py lets none change anything in a later one.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import exc

from services.runtime.logging import logger
from services.scheduler.database import TERM, Database, count, upsert
from services.scheduler.tables import SCHEDULERS

LEADER_LOCK = 0x7265636F726465
"""Key of the advisory lock of who leads; of this database alone."""

AWAY_SECONDS = 5.0
"""A scheduler that has said nothing for this long is away. It says something every second; together
with the second in which that is noticed another one leads within 10."""


@dataclass(frozen=True, slots=True)
class Member:
    """A scheduler."""

    name: str
    address: str  # host:port, where the others reach it
    is_away: bool
    term: int  # in which it leads; 0 when it does not


class Members:
    """The schedulers of one database, as one of them sees it. Raises StoreError everywhere."""

    def __init__(self, database: Database, name: str, address: str = "") -> None:
        self.address = address
        """Where the others reach this one."""
        self._database = database
        self._name = name
        self._lock: sa.Connection | None = None
        self._log = logger(__name__)

    def say(self) -> None:
        """Let the others know that this scheduler is there."""
        now = sa.func.timezone("utc", sa.func.clock_timestamp(), type_=sa.DateTime)
        seen = {
            "address": self.address,
            "seen_time": sa.cast(now, sa.DateTime),
            "term": self._database.term or 0,
        }
        with self._database.changing(as_leader=False) as connection:
            values = {"name": self._name} | seen
            insert = upsert(connection, SCHEDULERS).values(**values)
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=seen))

    def leave(self) -> None:
        """Let the others know that this scheduler is away from now on."""
        values = {"seen_time": datetime(1970, 1, 1, tzinfo=UTC), "term": 0}
        where = SCHEDULERS.c.name == self._name
        with self._database.changing(as_leader=False) as connection:
            connection.execute(sa.update(SCHEDULERS).where(where).values(**values))

    def all(self) -> list[Member]:
        """Return all schedulers that there ever were, by name."""
        now = sa.func.timezone("utc", sa.func.clock_timestamp(), type_=sa.DateTime)
        age = sa.extract("epoch", sa.cast(now, sa.DateTime) - sa.cast(_SEEN, sa.DateTime))
        query = sa.select(SCHEDULERS, age.label("age")).order_by(SCHEDULERS.c.name)
        with self._database.reading() as connection:
            return [
                Member(row.name, row.address, row.age > AWAY_SECONDS, row.term)
                for row in connection.execute(query)
            ]

    def leader(self) -> Member | None:
        """Return who leads; None when it is away, or nobody does."""
        latest = max(self.all(), key=lambda member: member.term, default=None)
        return latest if latest and latest.term and not latest.is_away else None

    def lead(self) -> bool:
        """Try to become the leader; return whether this scheduler leads now."""
        try:
            if self._lock is None:
                self._lock = self._database.connect_alone()
            locked = self._lock.execute(sa.select(sa.func.pg_try_advisory_lock(LEADER_LOCK)))
            if not locked.scalar_one():
                self._end_one_that_hangs(self._lock)
                return False
            with self._database.engine.begin() as connection:
                self._database.term = count(connection, TERM)
        except exc.DBAPIError:
            self.resign()
            return False
        self.say()
        return True

    def is_leading(self) -> bool:
        """Whether this scheduler still has the lock."""
        if self._lock is None or self._database.term is None:
            return False
        try:
            self._lock.execute(sa.select(1))
        except exc.DBAPIError:
            self.resign()
            return False
        return True

    def resign(self) -> None:
        """Lead no more, so that another one can."""
        had_term, self._database.term = self._database.term is not None, None
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if had_term:
            with suppress(exc.SQLAlchemyError):  # at once: the server takes a moment to see an end
                lock.execute(sa.select(sa.func.pg_advisory_unlock(LEADER_LOCK)))
        lock.close()

    def _end_one_that_hangs(self, connection: sa.Connection) -> None:
        if self.leader() is not None:
            return
        ended = connection.execute(sa.text(_END_HOLDER), {"key": LEADER_LOCK}).scalars().all()
        if ended:
            self._log.warning("ended the connection of a leader that hangs")


_SEEN = SCHEDULERS.c.seen_time

_END_HOLDER = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND ((classid::bigint << 32) | objid::bigint) = :key
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
