"""A consistent view of a recording while its writer goes on: Parquet files and the journal's tail.

The query service opens one for each question. `Reader` keeps what it has read of journals, so that
the next question reads only what was appended since.

Why it is consistent: the writer publishes the manifest that lists a journal's segments before it
removes the journal. So a view is right when the manifest was the same before and after the journals
that it names were read; when it was not, or one has vanished, everything is read again.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from recordings import journal, layout, segments
from recordings import manifest as manifests
from recordings.journal import SELF
from recordings.ledger import Ledger
from recordings.manifest import Manifest
from recordings.schema import TABLES

MOST_TRIES: Final = 100
"""Of reading a run whose writer publishes meanwhile. It publishes about once a minute."""
TRY_AGAIN_SECONDS: Final = 0.01
DEFAULT_MEMORY: Final = 512 << 20
"""Octets of journal tails that a Reader keeps. A run's tail is at most about 64 MiB."""
MOST_RUNS: Final = 4096
"""Runs whose manifest a Reader keeps."""


class SnapshotError(Exception):
    """A recording cannot be read; the text is a sentence."""


class NotFoundError(SnapshotError, LookupError):
    """There is no recording of that name."""


@dataclass(frozen=True, slots=True)
class RunView:
    """One run in one folder: segments, then the tail, is the order in which rows arrived."""

    run: int
    folder: Path
    manifest: Manifest
    tails: Mapping[str, pa.Table]
    """By table; a table may be missing."""
    damage: tuple[str, ...]
    """Sentences about journals that could not be read to their end."""
    journal_bytes: int
    ledger: Ledger = field(default_factory=Ledger)

    def files(self, table: str) -> list[Path]:
        """Return the Parquet files of a table."""
        return [self.folder / s.file for s in self.manifest.segments if s.table == table]

    def tail(self, table: str) -> pa.Table:
        """Return the rows of a table that are not in Parquet files yet."""
        found = self.tails.get(table)
        return TABLES[table].empty_table() if found is None else found

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        return self.manifest.counts.get(table, 0) + int(self.tail(table).num_rows)

    def rows_after(self, table: str, begin: int) -> pa.Table:
        """Return the rows of a table without the first `begin`; OSError if a file has gone."""
        parts = []
        for segment in self.manifest.segments:
            if segment.table == table:
                if begin < segment.rows:
                    path = self.folder / segment.file
                    parts.append(segments.read_rows(path, table, max(begin, 0)))
                begin -= segment.rows
        parts.append(self.tail(table).slice(max(begin, 0)))
        return pa.concat_tables(parts)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A recording at one moment."""

    name: str
    runs: tuple[RunView, ...]
    damage: tuple[str, ...] = ()
    """Sentences about runs that cannot be read; they are not in `runs`."""

    def files(self, table: str) -> list[Path]:
        """Return the Parquet files of a table, of all runs, oldest first."""
        return [path for run in self.runs for path in run.files(table)]

    def tail(self, table: str) -> pa.Table:
        """Return the rows of a table that are not in Parquet files yet, of all runs."""
        tails = [run.tail(table) for run in self.runs]
        return pa.concat_tables([TABLES[table].empty_table(), *tails])

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        return sum(run.rows(table) for run in self.runs)

    @property
    def bytes(self) -> int:
        """Octets of all Parquet files and journals."""
        files = sum(s.bytes for run in self.runs for s in run.manifest.segments)
        return files + sum(run.journal_bytes for run in self.runs)

    def time_range(self, table: str = "entries") -> tuple[int, int] | None:
        """Return the lowest and highest time of a table, ns since 1970; None without rows."""
        found = [
            (segment.min_time_ns, segment.max_time_ns)
            for run in self.runs
            for segment in run.manifest.segments
            if segment.table == table and segment.rows
        ]
        tail = self.tail(table)
        if tail.num_rows:
            times = pc.min_max(tail.column(segments.TIME_COLUMNS[table]).cast(pa.int64()))
            found.append((times["min"].as_py(), times["max"].as_py()))
        if not found:
            return None
        return min(low for low, _ in found), max(high for _, high in found)

    def cursor(self, table: str) -> dict[Path, int]:
        """Return how many rows each run's folder has; for rows_after() of a later snapshot."""
        return {run.folder: run.rows(table) for run in self.runs}

    def rows_after(self, table: str, cursor: Mapping[Path, int]) -> pa.Table:
        """Return the rows that a snapshot with that cursor did not have, in order of arrival."""
        new = [run.rows_after(table, cursor.get(run.folder, 0)) for run in self.runs]
        return pa.concat_tables([TABLES[table].empty_table(), *new])


def together(parts: Sequence[Snapshot]) -> Snapshot:
    """Return one recording of its parts in several folders, at least one; runs by number."""
    runs = sorted((run for part in parts for run in part.runs), key=lambda run: run.run)
    damage = tuple(sentence for part in parts for sentence in part.damage)
    return Snapshot(parts[0].name, tuple(runs), damage)


def open(data: Path, name: str) -> Snapshot:  # noqa: A001 - snapshot.open() reads well
    """Return a recording as it is now; ValueError for a bad name, NotFoundError for no such one."""
    return Reader(data, 0).snapshot(name)


class Reader:
    """Takes snapshots, and reads of each journal only what is new. Safe for many threads."""

    def __init__(self, data: Path, memory: int = DEFAULT_MEMORY) -> None:
        """Read below `data`; keep at most about `memory` octets between snapshots."""
        self._data = data
        self._memory = memory
        self._lock = threading.Lock()
        self._kept: OrderedDict[Path, _Run] = OrderedDict()

    def names(self) -> list[str]:
        """Return the names of the recordings on disk, sorted."""
        return layout.recordings(self._data)

    def snapshot(self, name: str) -> Snapshot:
        """Return a recording as it is now.

        ValueError for a bad name, NotFoundError for no such recording; what is damaged is in
        `Snapshot.damage` and `RunView.damage`.
        """
        folder = layout.recording(self._data, name)
        views, damage = [], []
        for number in layout.runs(self._data, name):
            try:
                view = self._view(folder / f"{number:04d}", number)
            except SnapshotError as error:
                damage.append(str(error))
                continue
            if view is not None:
                views.append(view)
        if not views and not damage and not folder.is_dir():
            raise NotFoundError(f'There is no recording "{name}".')
        return Snapshot(name, tuple(views), tuple(damage))

    def _view(self, folder: Path, number: int) -> RunView | None:
        """Return one run, or None when it was deleted meanwhile."""
        with self._lock:
            run = self._kept.setdefault(folder, _Run(folder, number))
            self._kept.move_to_end(folder)
        with run.lock:
            view = run.view()
        with self._lock:
            if view is None:
                self._kept.pop(folder, None)
            held = sum(kept.size for kept in self._kept.values())
            while self._kept and (held > self._memory or len(self._kept) > MOST_RUNS):
                held -= self._kept.popitem(last=False)[1].size
        return view


class _Run:
    """What was read of one run's journals so far."""

    def __init__(self, folder: Path, number: int) -> None:
        self.lock = threading.Lock()
        self.size = 0
        self._folder = folder
        self._number = number
        self._octets = b""  # of the manifest
        self._manifest: Manifest | None = None
        self._tails: dict[tuple[int, int], _Tail] = {}  # by number and inode of the journal

    def view(self) -> RunView | None:
        """Return the run as it is now, None when it is gone, SnapshotError when it is damaged."""
        for _ in range(MOST_TRIES):
            try:
                before = manifests.read_octets(self._folder)
                found = self._load(before)
                tails = self._read(found.journal)
                if manifests.read_octets(self._folder) == before:
                    return self._make(found, tails)
            except FileNotFoundError:
                if not (self._folder / layout.MANIFEST).exists():
                    return None  # deleted, or not begun
            except ValueError as error:
                raise SnapshotError(str(error)) from None
            except OSError as error:
                why = f"{self._folder} cannot be read: {error.strerror}."
                raise SnapshotError(why) from None
            time.sleep(TRY_AGAIN_SECONDS)
        raise SnapshotError(f"{self._folder} changed {MOST_TRIES} times while it was read.")

    def _load(self, octets: bytes) -> Manifest:
        if self._manifest is None or octets != self._octets:
            self._manifest = Manifest.parse(octets, self._folder / layout.MANIFEST)
            self._octets = octets
        return self._manifest

    def _read(self, first: int) -> list["_Tail"]:
        """Bring the journals from number `first` on up to date."""
        fresh: dict[tuple[int, int], _Tail] = {}
        for number in layout.journals(self._folder):
            if number >= first:
                path = layout.journal(self._folder, number)
                # A folder that was deleted and made again has files of the same names.
                key = (number, path.stat().st_ino)
                tail = self._tails.get(key) or _Tail(path)
                tail.advance()
                fresh[key] = tail
        self._tails = fresh
        self.size = sum(tail.size for tail in fresh.values())
        return list(fresh.values())

    def _make(self, found: Manifest, tails: list["_Tail"]) -> RunView:
        tables = {}
        for table in TABLES:
            parts = [part for tail in tails for part in tail.tables.get(table, ())]
            if parts:
                tables[table] = pa.concat_tables(parts)
        damage = tuple(tail.damage for tail in tails if tail.damage)
        size = sum(tail.size for tail in tails)
        ledger = found.ledger.copy()
        for tail in tails:
            ledger.merge(tail.ledger)
        return RunView(self._number, self._folder, found, tables, damage, size, ledger)


class _Tail:
    """One journal file, as far as it was read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = 0
        self.damage = ""
        self.tables: dict[str, list[pa.Table]] = {}
        self.ledger = Ledger()

    def advance(self) -> None:
        """Read what was appended since."""
        if self._path.stat().st_size < self.size:
            self.size, self.tables, self.ledger = 0, {}, Ledger()
        reading = journal.read(self._path, self.size)
        self.damage = ""
        if reading.damage and not reading.damage.is_torn:
            self.damage = reading.damage.reason
        new: dict[str, list[pa.RecordBatch]] = {}
        counted = Ledger()
        try:
            for record in reading.records:
                agent = "" if record.agent == SELF else record.agent
                for part in record.parts:
                    rows = part.batches()
                    counted.add(part.table, rows, record.node, agent)
                    if part.table in TABLES:
                        new.setdefault(part.table, []).extend(rows)
        except pa.ArrowException as error:
            self.damage = f"{self._path.name}: a record behind octet {self.size} {error}."
            return
        self.ledger.merge(counted)
        for table, batches in new.items():
            self._add(table, pa.Table.from_batches(batches, TABLES[table]))
        self.size = reading.next_offset

    def _add(self, table: str, added: pa.Table) -> None:
        """Keep rows in few chunks: two neighbours of about one size become one.

        So each row is copied as often as the logarithm of the number of additions.
        """
        parts = self.tables.setdefault(table, [])
        parts.append(added.combine_chunks())
        while len(parts) > 1 and parts[-2].num_rows <= 2 * parts[-1].num_rows:
            last = parts.pop()
            parts[-1] = pa.concat_tables([parts[-1], last]).combine_chunks()
