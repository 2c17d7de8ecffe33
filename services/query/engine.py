"""DuckDB behind a locked door. query_rpc opens a Session for a question; plan writes its SQL.

Nothing outside of this file knows DuckDB. It may read the folder of recordings and no other file,
cannot be told otherwise once it runs, executes nothing but one SELECT at a time, and is interrupted
when its caller goes away or its time is up.
"""

import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from recordings.cache import Cache

BATCH_ROWS = 1024
"""Rows handed on at a time: an entry with its bodies is some 10 KB, so a batch is some 10 MB."""

WATCH_SECONDS = 0.1
"""How often the watch looks for questions whose time is up; a cancelled one ends at once."""

MAX_SPILL_BYTES = 4 << 30
"""Disk that sorting may take beyond the memory limit; a question that needs more is refused."""


DAMAGED_FILE = re.compile(r"Invalid Input Error: [^\n]*[\"']([^\"'\n]+\.parquet)[\"']")
"""How DuckDB begins when a Parquet file is cut or was changed."""


class EngineError(Exception):
    """A question that could not be answered; its text is a sentence for people."""


class CancelledError(EngineError):
    """The caller went away, or the service ends."""


class OutOfTimeError(EngineError):
    """The question took longer than it may."""


class OutOfMemoryError(EngineError):
    """The question needs more memory or disk than it may have."""


class DamagedFileError(EngineError):
    """A file of a recording is not what was written."""


class FilesGoneError(EngineError):
    """A file could not be read: its recording was deleted, or a run of it has expired."""


@dataclass(frozen=True, slots=True)
class Question:
    """A SELECT, with `?` for its values and Arrow tables for the names that it reads from."""

    sql: str
    parameters: Sequence[object]
    tables: Mapping[str, pa.Table]


class Engine:
    """One DuckDB for the process: all questions share its memory limit and its threads."""

    def __init__(
        self, *folders: Path, memory_limit_bytes: int, threads: int, cache: Cache | None = None
    ) -> None:
        """Start DuckDB with leave to read below `recordings` of these folders, and files of
        archives in the cache, and nothing else.
        """
        self._cache = cache
        self._spill = tempfile.TemporaryDirectory(prefix="recorder-query-")
        self._database = duckdb.connect(":memory:")
        recordings = [f"{(folder / 'recordings').resolve()}/" for folder in folders]
        if cache is not None:
            recordings.append(f"{cache.folder}/")
        # The order matters: allowed_directories can only be set while there is external access, and
        # nothing at all can be set after the last line.
        for setting, value in (
            ("memory_limit", f"{memory_limit_bytes}B"),
            ("threads", threads),
            ("temp_directory", self._spill.name),
            ("max_temp_directory_size", f"{MAX_SPILL_BYTES}B"),
            ("TimeZone", "UTC"),
            ("preserve_insertion_order", False),  # every question says its order
            # A recording that is deleted and made again has files of the same names.
            ("enable_external_file_cache", False),
            # Footers are kept, within the memory limit; a file's size and time tell when it is new.
            ("parquet_metadata_cache", True),
            ("enable_progress_bar", False),
            ("python_enable_replacements", False),
            ("autoinstall_known_extensions", False),
            ("autoload_known_extensions", False),
            ("allow_community_extensions", False),
            ("allowed_directories", recordings),
            ("enable_external_access", False),
            ("lock_configuration", True),
        ):
            self._database.execute(f"SET {setting} = {_literal(value)}")
        self._sessions: set[Session] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._run_watch, name="query-watch", daemon=True)
        self._watch.start()

    @contextmanager
    def session(self, deadline_seconds: float) -> Iterator["Session"]:
        """Give a Session whose work, together, may take `deadline_seconds`."""
        session = Session(self._database.cursor(), deadline_seconds, self._cache)
        with self._lock:
            self._sessions.add(session)
        try:
            yield session
        finally:
            with self._lock:
                self._sessions.discard(session)
            session.close()

    def close(self) -> None:
        """Interrupt what runs, and let go of memory and of the folder for sorting."""
        self._ended.set()
        self._watch.join()
        with self._lock:
            sessions = list(self._sessions)
        for session in sessions:
            session.interrupt()
        self._database.close()
        self._spill.cleanup()

    def _run_watch(self) -> None:
        while not self._ended.wait(WATCH_SECONDS):
            with self._lock:
                sessions = list(self._sessions)
            for session in sessions:
                session.look()


class Session:
    """The work for one question; used by one thread, interrupted by any.

    Only time of work counts towards the deadline: a caller who reads slowly is not punished.
    """

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, deadline_seconds: float, cache: Cache | None
    ) -> None:
        self._cursor = cursor
        self._cache = cache
        self._deadline_seconds = deadline_seconds
        self._used_seconds = 0.0
        self._busy_since: float | None = None
        self._interrupted = False

    def rows(self, question: Question) -> Iterator[pa.RecordBatch]:
        """Yield the answer as it is found, at most BATCH_ROWS rows at a time.

        Raises CancelledError, OutOfTimeError, OutOfMemoryError, FilesGoneError, or EngineError for
        a statement that DuckDB refuses; also what the cache says of files in archives.
        """
        with self._holding(question):
            yield from self._rows(question)

    def _holding(self, question: Question) -> AbstractContextManager[None]:
        """Have the files of archives here that a question reads. That counts as no work."""
        if self._cache is None:
            return nullcontext()
        lists = (value for value in question.parameters if isinstance(value, list))
        paths = [Path(name) for names in lists for name in names if isinstance(name, str)]
        return self._cache.held(paths, self._raise_if_over)

    def _rows(self, question: Question) -> Iterator[pa.RecordBatch]:
        with self.working():
            statements = self._cursor.extract_statements(question.sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise EngineError("The query engine answers one SELECT at a time.")
            for name, table in question.tables.items():
                self._cursor.register(name, table)
            # sql() with parameters would hold the whole answer in memory; execute() streams it.
            answer = self._cursor.execute(statements[0], list(question.parameters))
            reader = answer.to_arrow_reader(BATCH_ROWS)
        try:
            while True:
                with self.working():
                    try:
                        batch = reader.read_next_batch()
                    except StopIteration:
                        return
                if batch.num_rows:
                    yield batch
        finally:
            del answer, reader
            for name in question.tables:
                # Not worth an error of its own: the session ends with the question.
                with suppress(duckdb.Error):
                    self._cursor.unregister(name)

    def interrupt(self) -> None:
        """End the work now; from any thread."""
        self._interrupted = True
        with suppress(duckdb.Error):  # closed meanwhile
            self._cursor.interrupt()

    def look(self) -> None:
        """Interrupt when the time is up. Called by the engine's watch.

        An interrupt that came before DuckDB had begun is forgotten by it, so it is said again here.
        """
        busy_since = self._busy_since
        if busy_since is None:
            return
        used = self._used_seconds + time.monotonic() - busy_since
        if self._interrupted or used > self._deadline_seconds:
            with suppress(duckdb.Error):
                self._cursor.interrupt()

    def close(self) -> None:
        """Let go of the cursor."""
        self._cursor.close()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the time of what is done within, and say DuckDB's errors in our words."""
        self._raise_if_over()
        self._busy_since = time.monotonic()
        try:
            yield
        # Behind Arrow's reader, DuckDB's errors come as OSError with the same text.
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            self._count()
            self._raise_if_over()
            raise _in_our_words(error) from error
        finally:
            self._count()

    def _count(self) -> None:
        if self._busy_since is not None:
            self._used_seconds += time.monotonic() - self._busy_since
            self._busy_since = None

    def _raise_if_over(self) -> None:
        if self._interrupted:
            raise CancelledError("The question was cancelled.")
        if self._used_seconds > self._deadline_seconds:
            raise OutOfTimeError(
                f"The question was ended after {self._deadline_seconds:g} s of work. Ask for a "
                "shorter time, fewer recordings or something simpler."
            )


def _literal(value: object) -> str:
    """Return a setting's value as SQL; settings take no parameters."""
    if isinstance(value, list):
        return "[" + ", ".join(_literal(item) for item in value) + "]"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


def _in_our_words(error: Any) -> EngineError:
    text = str(error)
    if isinstance(error, duckdb.InterruptException) or "INTERRUPT Error" in text:
        return CancelledError("The question was cancelled.")
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in text:
        return OutOfMemoryError(
            "The question needs more memory than it may have. Ask for a shorter time, a limit, or "
            "something that matches less."
        )
    damaged = DAMAGED_FILE.search(text)
    if damaged:
        return DamagedFileError(
            f"The file {'/'.join(Path(damaged[1]).parts[-3:])} of a recording is damaged, so it "
            "cannot be read whole. Put the file back from a copy, or delete the recording."
        )
    if isinstance(error, duckdb.IOException | FileNotFoundError) or "IO Error" in text:
        return FilesGoneError("A file of the recording could not be read.")
    return EngineError(f"The query engine refused the question: {text.splitlines()[0]}")
