"""How the copies of runs in the archive stand: rows of the database, which outlive restarts.

The archiver writes those of its own scheduler; whoever shows a job adds up those of all.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import sqlalchemy as sa

from services.scheduler.database import StoreError, upsert
from services.scheduler.jobs import Archived, ArchiveState, Job, with_run
from services.scheduler.jobstore import JobStore, Removal
from services.scheduler.tables import ARCHIVE_REMOVALS, ARCHIVES, PARTS, REMOVALS, RUNS

FRESH_SECONDS: Final = 1.0
"""How long what was read is shown: watchers ask once a second, each."""

Key = tuple[str, int]
"""Job and run."""

_WORST: Final = (
    ArchiveState.FAILED,
    ArchiveState.COPYING,
    ArchiveState.WAITING,
    ArchiveState.COPIED,
)
"""Which of several schedulers' states is that of the run."""


class Archives:
    """The copies of all runs. Methods are thread-safe, and raise StoreError."""

    def __init__(self, store: JobStore) -> None:
        self.is_on = False
        """Whether there is an archive."""
        self.wake = threading.Event()
        """Set when the archiver has something to do."""
        self._database = store.database
        self._store = store
        self._lock = threading.Lock()
        self._read: Mapping[Key, Archived] = {}
        self._read_at: float | None = None
        self._copying: tuple[Key, Archived] | None = None

    def turn_on(self, *, lives_elsewhere: bool = False) -> None:
        """Say that there is an archive, and whether it is where recordings live."""
        self.is_on = True
        self._store.lives_elsewhere = lives_elsewhere

    # ---- for those who show jobs

    def shown(self, job: Job) -> Job:
        """Return a job with the state of its runs' copies, as far as it can be read."""
        found = self._states()
        for run in job.runs:
            archived = found.get((job.name, run.number))
            if archived is not None:
                job = with_run(job, replace(run, archived=archived))
        return job

    def ask(self, job: str, runs: Sequence[int]) -> None:
        """Let all schedulers that have something of these runs copy it now."""
        with self._database.changing(as_leader=False) as connection:
            parts = sa.select(PARTS.c.run, PARTS.c.scheduler).where(PARTS.c.job == job)
            owners = {(run, self._store.name) for run in runs}
            owners |= {(p.run, p.scheduler) for p in connection.execute(parts) if p.run in runs}
            rows = [
                {"job": job, "run": run, "scheduler": name}
                | {"state": ArchiveState.WAITING, "bytes": 0, "error": "", "is_asked": True}
                for run, name in sorted(owners)
            ]
            again = {"state": ArchiveState.WAITING, "error": "", "is_asked": True}
            if rows:
                insert = upsert(connection, ARCHIVES)
                keys = list(ARCHIVES.primary_key)
                connection.execute(
                    insert.on_conflict_do_update(index_elements=keys, set_=again), rows
                )
        self._forget_read()
        self.wake.set()

    # ---- for the archiver

    def asked(self) -> list[Key]:
        """Return the runs that somebody wants to have copied now."""
        query = sa.select(ARCHIVES.c.job, ARCHIVES.c.run).where(self._mine(), ARCHIVES.c.is_asked)
        with self._database.reading() as connection:
            return [(row.job, row.run) for row in connection.execute(query)]

    def known(self, key: Key) -> Archived | None:
        """Return how this scheduler's copy of a run stood last."""
        query = sa.select(ARCHIVES).where(self._mine(), *_of(key))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _archived(row)

    def copying(self, key: Key, archived: Archived | None) -> None:
        """Show how far a copy is, or with None what is stored; kept in memory only."""
        with self._lock:
            self._copying = None if archived is None else (key, archived)

    def save(self, key: Key, archived: Archived, *, was_asked: bool) -> None:
        """Store how a copy stands, unless its run is gone, or somebody has asked meanwhile.

        was_asked: it was made because somebody had asked, and nobody does any more.
        """
        job, run = key
        values = {name: getattr(archived, name) for name in _ARCHIVED} | {"is_asked": False}
        with self._database.changing(as_leader=False) as connection:
            # Shared, so that the run does not go meanwhile.
            where = (RUNS.c.job == job) & (RUNS.c.number == run)
            found = sa.select(RUNS.c.number).where(where).with_for_update(read=True, key_share=True)
            if connection.execute(found).one_or_none() is not None:
                insert = upsert(connection, ARCHIVES).values(
                    job=job, run=run, scheduler=self._store.name, **values
                )
                again = insert.on_conflict_do_update(
                    index_elements=list(ARCHIVES.primary_key),
                    set_=values,
                    where=None if was_asked else ~ARCHIVES.c.is_asked,
                )
                connection.execute(again)
        self._forget_read()

    def not_here(self, key: Key) -> None:
        """Note that nothing of a run that was asked for is here to be copied."""
        where = sa.and_(self._mine(), *_of(key))
        is_none = ARCHIVES.c.copy_time.is_(None)
        done = {"state": ArchiveState.COPIED, "is_asked": False}
        with self._database.changing(as_leader=False) as connection:
            connection.execute(sa.delete(ARCHIVES).where(where, is_none))
            connection.execute(sa.update(ARCHIVES).where(where).values(**done))
        self._forget_read()

    def removals(self) -> list[Removal]:
        """Return what this scheduler is to remove from the archive now: after the disk."""
        later = sa.select(REMOVALS.c.job).where(
            REMOVALS.c.scheduler == ARCHIVE_REMOVALS.c.scheduler,
            REMOVALS.c.job == ARCHIVE_REMOVALS.c.job,
            REMOVALS.c.run == ARCHIVE_REMOVALS.c.run,
        )
        query = sa.select(ARCHIVE_REMOVALS).where(
            ARCHIVE_REMOVALS.c.scheduler == self._store.name, ~later.exists()
        )
        order = (ARCHIVE_REMOVALS.c.job, ARCHIVE_REMOVALS.c.run)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(*order))
            return [Removal(row.job, row.run) for row in rows]

    def removed(self, removal: Removal) -> None:
        """Note that it was removed."""
        where = ARCHIVE_REMOVALS.c.scheduler == self._store.name
        where &= ARCHIVE_REMOVALS.c.job == removal.job
        where &= ARCHIVE_REMOVALS.c.run == removal.run
        with self._database.changing(as_leader=False) as connection:
            connection.execute(sa.delete(ARCHIVE_REMOVALS).where(where))

    def _states(self) -> Mapping[Key, Archived]:
        now = time.monotonic()
        with self._lock:
            read, copying = self._read, self._copying
            if self._read_at is None or now - self._read_at >= FRESH_SECONDS:
                with suppress(StoreError):  # said where it matters; nobody waits for it again now
                    self._read = self._all()
                read, self._read_at = self._read, time.monotonic()
        return read if copying is None else {**read, copying[0]: copying[1]}

    def _all(self) -> dict[Key, Archived]:
        found: dict[Key, Archived] = {}
        with self._database.reading() as connection:
            for row in connection.execute(sa.select(ARCHIVES).order_by(ARCHIVES.c.scheduler)):
                key, one = (row.job, row.run), _archived(row)
                found[key] = _together(found[key], one) if key in found else one
        return found

    def _forget_read(self) -> None:
        with self._lock:
            self._read_at = None

    def _mine(self) -> sa.ColumnElement[bool]:
        return ARCHIVES.c.scheduler == self._store.name


_ARCHIVED = tuple(Archived.__dataclass_fields__)


def _of(key: Key) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return ARCHIVES.c.job == key[0], ARCHIVES.c.run == key[1]


def _archived(row: sa.Row[tuple[object, ...]]) -> Archived:
    return Archived(**{name: getattr(row, name) for name in _ARCHIVED})


def _together(one: Archived, other: Archived) -> Archived:
    """Return the state of a run of which two schedulers have copied their parts."""
    times = (one.copy_time, other.copy_time)
    return Archived(
        state=min(one.state, other.state, key=_WORST.index),
        bytes=one.bytes + other.bytes,
        copy_time=None if None in times else min(t for t in times if t is not None),
        error=one.error or other.error,
    )
