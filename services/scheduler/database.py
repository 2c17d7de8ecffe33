"""The database that jobs are in: SQLite in the data folder, or PostgreSQL for several schedulers.

jobstore.py, members.py and parts.py read and write through it. Whenever it is opened, the
migrations beside this file bring it up to date.

In PostgreSQL a scheduler that does not lead any more may not know it yet. Therefore each change of
a leader has the number of its term checked in the same transaction, and the change that begins the
next term waits for those that are being made.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql, sqlite

from services.runtime.errors import UserError
from services.runtime.logging import logger
from services.scheduler.tables import REVISIONS

FILE_NAME = "jobs.sqlite"

BUSY_MS = 5000
"""How long to wait for someone who looks into the file with another program."""

HEADROOM_PAGES = 64
"""Pages of 4 KiB that the file, and its rollback journal, have to spare: about a thousand changes
of state can be stored after the disk is full, and people see why recording has stopped."""

TERM = "term"
"""Of REVISIONS: counts the leaders."""

CHANGES = "changes"
"""Of REVISIONS: counts what leaders have changed, so that others know when to look."""

MIGRATION_LOCK = 0x7265636F72646572
"""Key of the advisory lock under which one scheduler migrates."""

CONNECTION = {
    "connect_timeout": "3",
    "keepalives_idle": "2",
    "keepalives_interval": "1",
    "keepalives_count": "3",
    "tcp_user_timeout": "5000",
    "application_name": "recorder-scheduler",
    # Of the server's side, in milliseconds: what hangs must not keep a lock from the next leader.
    "options": "-c statement_timeout=5000 -c lock_timeout=5000 "
    "-c idle_in_transaction_session_timeout=5000 "
    "-c tcp_keepalives_idle=2 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=3",
}
"""Parameters of libpq, unless the URL has others. A peer without a word is given up after 5 s, so
that another scheduler can lead within 10."""


_log = logger(__name__)


class StoreError(OSError):
    """What jobs are in cannot be read or written; the text is a sentence. Nothing has changed."""


class NotLeadingError(StoreError):
    """Another scheduler leads by now."""


class Database:
    """One database. All methods may be called from any thread."""

    def __init__(self, data: Path, url: str = "") -> None:
        """Open `data`/jobs.sqlite, or the PostgreSQL at `url`. Raises UserError with a sentence."""
        self.term: int | None = None
        """Of the leader that this process is; None when nobody else can lead, or it does not."""
        self.is_shared = bool(url)
        path = data / FILE_NAME
        self.engine = _postgresql(url) if url else _sqlite(path)
        self.shown = self.engine.url.render_as_string() if url else str(path)
        """Names it in sentences, without a password."""
        try:
            data.mkdir(parents=True, exist_ok=True)
            self._migrate()
            if not url:
                self._keep_headroom()
        except CommandError as error:
            self.close()
            raise UserError(
                f"{self.shown} was written by a later version of this program; "
                f"use that version, or another {'database' if url else 'data folder'}."
            ) from error
        except OSError as error:
            self.close()
            raise UserError(f"Cannot use the data folder {data}: {error.strerror}.") from error
        except exc.DBAPIError as error:
            self.close()
            raise UserError(f"Cannot use {self.shown}: {_reason(error)}.") from error

    def close(self) -> None:
        """Close all connections; what was saved is safe already."""
        self.engine.dispose()

    def connect_alone(self) -> sa.Connection:
        """Return a connection that nobody else gets, and that is not used again after close()."""
        engine = sa.create_engine(
            self.engine.url, connect_args=_missing(self.engine.url), poolclass=sa.NullPool
        )
        return engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection that sees one moment. Raises StoreError."""
        try:
            with self.engine.connect() as connection:
                if self.is_shared:
                    connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection
        except exc.DBAPIError as error:
            raise StoreError(f"Cannot read {self.shown}: {_reason(error)}.") from error

    @contextmanager
    def changing(self, as_leader: bool = True) -> Iterator[sa.Connection]:
        """Yield a connection in a transaction. Raises StoreError, and what violates a key.

        as_leader: nothing is changed unless this process leads. NotLeadingError otherwise.
        """
        try:
            with self.engine.begin() as connection:
                if as_leader and self.is_shared:
                    self._check_term(connection)
                yield connection
        except exc.IntegrityError:
            raise
        except exc.DBAPIError as error:
            raise StoreError(f"Cannot write {self.shown}: {_reason(error)}.") from error

    def _check_term(self, connection: sa.Connection) -> None:
        # Shared, and held to the end: the next term begins after this change.
        query = sa.select(REVISIONS.c.revision).where(REVISIONS.c.list == TERM)
        term = connection.execute(query.with_for_update(read=True)).scalar_one_or_none()
        if term is None or term != self.term:
            raise NotLeadingError("Another scheduler leads by now.")
        count(connection, CHANGES)

    def _migrate(self) -> None:
        config = Config()
        # A percent sign in the path would begin an interpolation.
        folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
        config.set_main_option("script_location", folder)
        # One transaction: all migrations or none.
        with self.engine.begin() as connection:
            if self.is_shared:
                for limit in ("statement_timeout", "lock_timeout"):
                    connection.execute(sa.text(f"SET LOCAL {limit} = 0"))  # it may take its time
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _keep_headroom(self) -> None:
        """Let the file have pages to spare, as far as the disk has room."""
        try:
            with self.engine.connect() as connection:
                spare = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
            if spare >= HEADROOM_PAGES // 2:
                return
            with self.engine.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE headroom (octets BLOB NOT NULL)")
                page = {"octets": bytes(4000)}  # with its row's head, nearly all of a page
                insert = sa.text("INSERT INTO headroom VALUES (:octets)")
                connection.execute(insert, [page] * HEADROOM_PAGES)
            with self.engine.begin() as connection:  # its old pages go to the rollback journal
                connection.exec_driver_sql("DELETE FROM headroom WHERE length(octets) > 0")
        except exc.DBAPIError as error:
            _log.warning("no headroom in the database", file=self.shown, error=_reason(error))
        with suppress(exc.DBAPIError), self.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE IF EXISTS headroom")


def count(connection: sa.Connection, name: str) -> int:
    """Count one more of a list in REVISIONS and return its number; goes on through restarts."""
    insert = upsert(connection, REVISIONS).values(list=name, revision=1)
    more = insert.on_conflict_do_update(
        index_elements=[REVISIONS.c.list], set_={"revision": REVISIONS.c.revision + 1}
    )
    return int(connection.execute(more.returning(REVISIONS.c.revision)).scalar_one())


def upsert(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that can say what is to be done about rows that are there already."""
    is_sqlite = connection.dialect.name == "sqlite"
    return sqlite.insert(table) if is_sqlite else postgresql.insert(table)


def _sqlite(path: Path) -> sa.Engine:
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _postgresql(text: str) -> sa.Engine:
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise UserError(
            "The URL of the database has to be one of PostgreSQL, as in "
            "postgresql://recorder:password@db.example:5432/recorder."
        )
    url = url.set(drivername="postgresql+psycopg")
    try:
        # A connection that broke while nobody used it is replaced without anyone noticing.
        return sa.create_engine(url, connect_args=_missing(url), pool_pre_ping=True, pool_timeout=5)
    except ImportError as error:
        raise UserError(
            "PostgreSQL needs the package psycopg: pip install 'traffic-recorder[scheduler]'."
        ) from error


def _missing(url: sa.URL) -> dict[str, str]:
    """Return the parameters of a connection that the URL says nothing about."""
    return {name: value for name, value in CONNECTION.items() if name not in url.query}


def _prepare(connection: sqlite3.Connection, record: object) -> None:
    """Set up each new connection."""
    del record
    # sqlite3 would begin transactions by itself, though not before CREATE TABLE; _begin does.
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        # Not WAL, which maps a file beside this one into memory: on a full disk the kernel ends
        # whoever touches that. A journal that stays keeps the room that it has.
        "journal_mode=PERSIST",
        "synchronous=FULL",  # a change that was answered survives a power cut
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    """Take the lock at once: one that is only wanted later may be refused in the middle."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _reason(error: exc.DBAPIError) -> str:
    """Return what the database said, in one line; libpq has one for each address it tried."""
    lines = str(error.orig).strip().splitlines() or ["no reason given"]
    return lines[0].strip().rstrip(".")
