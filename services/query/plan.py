"""From a KFL filter and the recordings that it names to one SELECT. Called by answer and export.

The names of files come from snapshots, never from a statement; all values are parameters. Read are
the Parquet files and the rows of the journals that no file has yet, with the column `record`.
"""

# ruff: noqa: S608 - the only text put into SQL is names from the schema and from this file.

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from kfl import Filter
from kfl.prune import Prune
from recordings import schema
from recordings.snapshot import Hold, on_disk
from services.query import protocols
from services.query.engine import Question

FILE = "_file"
"""Column that says which file, or which tail, a row is from."""

ROW = "_row"
"""Column with the row's number in it, from 0."""

PARQUET = "read_parquet(?, filename=true, file_row_number=true, hive_partitioning=false)"
OLD_PARQUET = "read_parquet(?, union_by_name=true, hive_partitioning=false)"

LATEST_NS = (2**63 - 1) // 1000 * 1000
EARLIEST_NS = -LATEST_NS
"""Times that a timestamp in nanoseconds can hold, and in microseconds too: years 1677 to 2262."""

_WANTED = "(record, node_name, stream) IN (SELECT record, node_name, stream FROM wanted)"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Source:
    """What there is of one table of one recording."""

    record: str
    files: tuple[Path, ...]
    tails: tuple[tuple[str, pa.Table], ...]
    """Rows that no file has yet, with a text to know them by, like a path."""
    rows: int
    """In files and tails."""
    times: tuple[tuple[int, int], ...] = ()
    """First and last time of each file, in nanoseconds since 1970; or nothing is known."""
    hold: Hold = on_disk
    """Has files here while they are read."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of time: from `start_ns` on, before `end_ns`; nanoseconds since 1970, None is open.

    Both are within EARLIEST_NS and LATEST_NS.
    """

    start_ns: int | None = None
    end_ns: int | None = None

    def touches(self, first_ns: int, last_ns: int) -> bool:
        """Tell whether any moment from `first_ns` to `last_ns` is in the window."""
        begins_before_end = self.end_ns is None or first_ns < self.end_ns
        ends_after_start = self.start_ns is None or last_ns >= self.start_ns
        return begins_before_end and ends_after_start

    @property
    def is_whole_microseconds(self) -> bool:
        """DuckDB, which knows microseconds, can decide alone."""
        return not any(ns % 1000 for ns in (self.start_ns, self.end_ns) if ns is not None)


ALWAYS = Window()


@dataclass(frozen=True, slots=True)
class Plan:
    """A question for the engine, and what is left to be done with the rows of its answer."""

    question: Question
    tails: dict[str, pa.Table]
    """The tails by the text that stands in the column FILE."""
    time: str
    """Column that the rows are ordered by."""
    is_exact: bool
    """Every row of the answer matches; otherwise each must be looked at again."""
    descending: bool = False


def entries(
    filter: Filter,
    sources: Sequence[Source],
    *,
    window: Window = ALWAYS,
    descending: bool = False,
    limit: int | None = None,
    ordered: bool = True,
) -> Plan:
    """Plan for the entries that match, in the order of time: ENTRIES and `record`.

    `limit` is only a help: the answer has at least as many rows, when there are as many. Files in
    which nothing can match are left out.
    """
    chosen = _chosen(filter, sources, window, descending=descending)
    return _plan(
        schema.ENTRIES,
        chosen.sources,
        where=chosen.where,
        values=chosen.values,
        order=("start_time", "node_name", "stream", "index"),
        ordered=ordered,
        is_exact=chosen.is_exact,
        descending=descending,
        limit=limit if chosen.is_exact else None,
    )


def relation(
    filter: Filter,
    sources: Sequence[Source],
    window: Window,
    columns: str,
    values: Sequence[object],
) -> Question | None:
    """Return the entries that match as a SELECT to ask more of, in a FROM: without any order.

    `columns` is SQL over ENTRIES and `record`, with its values. None where SQL cannot decide alone.
    """
    chosen = _chosen(filter, sources, window)
    if not chosen.is_exact:
        return None
    scan = _scan(schema.ENTRIES, chosen.sources, located=False)
    return Question(
        f"SELECT {columns} FROM ({scan.sql}) AS rows WHERE {chosen.where}",
        [*values, *scan.parameters, *chosen.values],
        scan.tables,
    )


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is read of the sources, and the condition for it."""

    sources: list[Source]
    where: str
    values: list[object]
    is_exact: bool


def _chosen(
    filter: Filter, sources: Sequence[Source], window: Window, *, descending: bool = False
) -> _Chosen:
    prune = filter.prune()
    kept = [_pruned(source, prune, descending=descending) for source in sources]
    sql = filter.sql({source.record: source.record for source in kept}, lambda: protocols.of(kept))
    conditions, values = [f"({sql.where})"], list(sql.parameters)
    for condition, bound in _bounds(window):
        conditions.append(f"start_time {condition} ?")
        values.append(bound)
    is_exact = sql.exact and window.is_whole_microseconds
    return _Chosen(kept, " AND ".join(conditions), values, is_exact)


def packets(sources: Sequence[Source], streams: pa.Table, *, ordered: bool = True) -> Plan:
    """Plan for the packets of `streams` (record, node_name, stream, key), in the order of time.

    Its columns are those that a file of packets needs, and the stream's `key`.
    """
    scan = _scan(schema.PACKETS, sources, located=True)
    joined, values = "JOIN wanted USING (record, node_name, stream)", []
    if streams.num_rows == 1:
        # Only a comparison with a constant makes DuckDB look into the Bloom filters of files.
        joined += " WHERE stream = ? AND node_name = ?"
        values = [streams[name][0].as_py() for name in ("stream", "node_name")]
    # Files and rows are in the order of arrival: it decides among packets of the same time.
    by = f' ORDER BY "time", key, {FILE}, {ROW}' if ordered else ""
    question = Question(
        f'SELECT "time", link_type, original_length, frame, key, {FILE}, {ROW}'
        f" FROM ({scan.sql}) AS rows {joined}{by}",
        [*scan.parameters, *values],
        {**scan.tables, "wanted": streams},
    )
    return Plan(question, scan.tails, "time", is_exact=True)


def of_streams(table: pa.Schema, sources: Sequence[Source], streams: pa.Table) -> Question:
    """Return the rows of STREAMS or PACKETS of `streams` (record, node_name, stream), unordered."""
    scan = _scan(table, sources, located=False)
    return Question(
        f"SELECT * FROM ({scan.sql}) AS rows WHERE {_WANTED}",
        scan.parameters,
        {**scan.tables, "wanted": streams},
    )


def of_stream(table: pa.Schema, source: Source, node: str, stream: str) -> Question:
    """Return the rows of one stream: readers of files know a comparison with a constant best."""
    scan = _scan(table, [source], located=False)
    return Question(
        f"SELECT * FROM ({scan.sql}) AS rows WHERE stream = ? AND node_name = ?",
        [*scan.parameters, stream, node],
        scan.tables,
    )


def microseconds(time: datetime) -> int:
    """Return a time of an answer in microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)


def _pruned(source: Source, prune: Prune, *, descending: bool) -> Source:
    """Return what of a source may match, its files in the order in which rows are wanted.

    With a limit, DuckDB skips what comes after the rows that it has: so the files that have the
    first rows of the answer come first.
    """
    if prune.nothing:
        return replace(source, files=(), tails=(), times=())
    if not source.times:
        return source
    window = Window(prune.start_ns, prune.end_ns)
    kept = [
        (times, path)
        for path, times in zip(source.files, source.times, strict=True)
        if window.touches(*times)
    ]
    kept.sort(key=lambda each: -each[0][1] if descending else each[0][0])
    return replace(
        source,
        files=tuple(path for _, path in kept),
        times=tuple(times for times, _ in kept),
    )


def _bounds(window: Window) -> list[tuple[str, datetime]]:
    """Return the window in microseconds, no narrower than it is."""
    bounds = []
    if window.start_ns is not None:
        bounds.append((">=", EPOCH + timedelta(microseconds=window.start_ns // 1000)))
    if window.end_ns is not None:
        bounds.append(("<", EPOCH + timedelta(microseconds=-(-window.end_ns // 1000))))
    return bounds


def _plan(
    table: pa.Schema,
    sources: Sequence[Source],
    *,
    where: str,
    values: list[object],
    order: tuple[str, ...],
    is_exact: bool,
    ordered: bool = True,
    descending: bool = False,
    limit: int | None = None,
) -> Plan:
    columns = f"{_columns(table)}, record, {FILE}, {ROW}"
    scan = _scan(table, sources, located=True)
    rows = f"FROM ({scan.sql}) AS rows"
    by = ""
    if ordered:
        direction = "DESC" if descending else "ASC"
        by = " ORDER BY " + ", ".join(f'"{name}" {direction}' for name in (*order, FILE, ROW))
    parameters = [*scan.parameters, *values]
    if limit is None:
        sql = f"SELECT {columns} {rows} WHERE {where}{by}"
    else:
        # Which rows, first: otherwise DuckDB reads all columns of every row that may be among them,
        # which in a file by time is every row, when the last ones are wanted.
        keys = f'"{order[0]}", {FILE}, {ROW}'
        chosen = f"SELECT {keys} {rows} WHERE {where}{by} LIMIT ?"
        sql = f"SELECT {columns} {rows} JOIN ({chosen}) AS chosen USING ({keys}){by}"
        parameters = [*scan.parameters, *parameters, limit]
    question = Question(sql, parameters, scan.tables)
    return Plan(question, scan.tails, order[0], is_exact, descending)


@dataclass(frozen=True, slots=True)
class _Scan:
    """All rows of a table in some sources, and `record`."""

    sql: str
    parameters: list[object]
    tables: dict[str, pa.Table]
    tails: dict[str, pa.Table]


def _scan(table: pa.Schema, sources: Sequence[Source], *, located: bool) -> _Scan:
    """Read the sources; when `located`, with FILE and ROW."""
    columns = _columns(table)
    scans: list[str] = []
    parameters: list[object] = []
    registered: dict[str, pa.Table] = {}
    tails: dict[str, pa.Table] = {}
    for source in sources:
        if source.files:
            place = f", filename AS {FILE}, file_row_number AS {ROW}" if located else ""
            files = PARQUET
            if schema.ADDED & set(table.names):
                # Nulls for what files of older releases lack.
                registered["no_rows"] = table.empty_table()
                files = f"(FROM no_rows UNION ALL BY NAME FROM {OLD_PARQUET})"
            scans.append(f"SELECT {columns}, ? AS record{place} FROM {files}")
            parameters += [source.record, [str(path) for path in source.files]]
        # A source without any rows still gives its columns to the SELECT.
        nothing = () if source.files or source.tails else (("", table.empty_table()),)
        for name_of_tail, tail in (*source.tails, *nothing):
            name = f"tail_{len(tails)}"
            place = f", ? AS {FILE}, {ROW}" if located else ""
            scans.append(f"SELECT {columns}, ? AS record{place} FROM {name}")
            parameters += [source.record, *([name_of_tail] if located else [])]
            tails[name_of_tail] = tail
            registered[name] = _numbered(tail, table)
    return _Scan(" UNION ALL ".join(scans), parameters, registered, tails)


def _columns(table: pa.Schema) -> str:
    return ", ".join(f'"{name}"' for name in table.names)


def _numbered(tail: pa.Table, table: pa.Schema) -> pa.Table:
    rows = pa.array(np.arange(tail.num_rows))
    return tail.select(table.names).append_column(ROW, rows)
