"""Parquet files of a run: the scheduler writes them from journals, the query service reads them.

A segment is written under a temporary name, synced and renamed. It counts once a manifest lists it.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recordings import layout
from recordings.schema import TABLES, with_all_columns

COMPRESSION: Final = "zstd"
COMPRESSION_LEVEL: Final = 1
ROW_GROUP_ROWS: Final = 65_536
"""Enough rows for a vectorised reader, few enough that a time range skips most groups."""
ROW_GROUP_BYTES: Final = 64 << 20
"""Rows with large bodies are flushed earlier, so that the writer's memory stays bounded."""

FRAME_PAGE_BYTES: Final = 4 << 20
"""Of packets. Each page is compressed on its own, and what frames have in common lies far apart."""
PAGE_BYTES: Final = 1 << 20
"""Of the other tables, from which single rows are read."""

BLOOM_MISTAKES: Final = 0.01
"""Share of row groups that are read for nothing: 10 to 20 bits for each stream of a group."""

TIME_COLUMNS: Final = {
    "entries": "start_time",
    "streams": "first_time",
    "packets": "time",
    "losses": "start_time",
}
"""The column of each table that a segment's range of time is taken from."""

ARRIVAL: Final = "_arrival"
"""Column that only merged segments have, since their rows are in the order of time: the number of
the journal times 2^32, and the row's number among those of the journal. Sorted by it, rows are in
the order of arrival again."""

_BULKY: Final = frozenset({"frame", "request_body", "response_body", "request", "response"})
"""Values that hardly repeat: a dictionary of them would be built and thrown away."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet file of a run."""

    table: str
    file: str
    rows: int
    bytes: int
    min_time_ns: int
    """Of the table's column in TIME_COLUMNS, since 1970."""
    max_time_ns: int
    sha256: str
    is_remote: bool = False
    """It lives where the manifest's `storage` says, and not, or not for long, on disk."""


def schema_of(table: str, *, is_merged: bool) -> pa.Schema:
    """Return the columns of a table's segments."""
    schema = TABLES[table]
    return schema.append(pa.field(ARRIVAL, pa.int64(), nullable=False)) if is_merged else schema


def write(
    folder: Path,
    table: str,
    batches: Iterable[pa.RecordBatch],
    number: int = 1,
    allow: Callable[[int], None] | None = None,
    last: int | None = None,
) -> Segment:
    """Write batches, in their order, as one Parquet file and return what it is.

    With `last` it is a merged segment of the journals up to that: rows have the column ARRIVAL and
    come in the order of time. `allow` is asked before that many octets more are written; what it
    raises ends the writing. Raises OSError; ValueError when there are no rows. Leaves no temporary
    file when it raises.
    """
    path = layout.segment(folder, table, number, last)
    temporary = layout.temporary(path)
    try:
        sink = _Sink(temporary, allow)
        try:
            rows, low, high = _write_rows(sink, table, batches, is_merged=last is not None)
            sink.sync()
        finally:
            sink.close()
        if not rows:
            raise ValueError(f"A segment of {table} would have no rows.")
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    layout.sync(folder)
    return Segment(table, path.name, rows, sink.size, low, high, sink.sha256())


def read_rows(path: Path, table: str, begin: int) -> pa.Table:
    """Return the rows of a segment from row `begin` on, in the order of arrival.

    OSError or pa.ArrowException if it is damaged.
    """
    with pq.ParquetFile(path) as file:
        if layout.is_merged(path.name):
            return _read_arrivals(file, begin)
        groups, before = [], 0
        skipped = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if before + rows > begin:
                groups.append(group)
            else:
                skipped += rows
            before += rows
        if not groups:
            return TABLES[table].empty_table()
        found = file.read_row_groups(groups, use_threads=False).slice(begin - skipped)
        return with_all_columns(table, found)


def _read_arrivals(file: pq.ParquetFile, begin: int) -> pa.Table:
    """Return the rows of a merged segment that arrived behind its first `begin`."""
    arrivals = file.read(columns=[ARRIVAL], use_threads=False)[ARRIVAL].to_numpy()
    oldest = pa.scalar(int(np.partition(arrivals, begin)[begin]) if begin < len(arrivals) else None)
    found = [
        rows.filter(pc.greater_equal(rows.column(ARRIVAL), oldest))
        for rows in file.iter_batches(use_threads=False)
    ]
    table = pa.Table.from_batches(found, file.schema_arrow).sort_by(ARRIVAL)
    return table.drop_columns(ARRIVAL)


def _write_rows(
    sink: "_Sink", table: str, batches: Iterable[pa.RecordBatch], *, is_merged: bool
) -> tuple[int, int, int]:
    """Write row groups; return rows, and the lowest and highest time."""
    schema = schema_of(table, is_merged=is_merged)
    time = TIME_COLUMNS[table]
    # Neighbours differ by little.
    deltas = [time, ARRIVAL] if is_merged else [time]
    rows, low, high = 0, 2**63 - 1, -(2**63)
    groups = _groups(schema, batches)
    first = next(groups, schema.empty_table())
    writer = pq.ParquetWriter(
        sink,
        schema,
        compression=COMPRESSION,
        compression_level=COMPRESSION_LEVEL,
        use_dictionary=[path for path in _leaves(schema) if path not in {*_BULKY, *deltas}],
        column_encoding=dict.fromkeys(deltas, "DELTA_BINARY_PACKED"),
        data_page_size=FRAME_PAGE_BYTES if table == "packets" else PAGE_BYTES,
        sorting_columns=[pq.SortingColumn(schema.names.index(time))] if is_merged else None,
        # A header's name or value has no useful least and greatest.
        write_statistics=[
            path for path in _leaves(schema) if "." not in path and path not in _BULKY
        ],
        write_page_checksum=True,
        bloom_filter_options=_bloom_filters(table, first),
    )
    try:
        for group in itertools.chain([first] if first.num_rows else [], groups):
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
            times = pc.min_max(group.column(time).cast(pa.int64()))
            low, high = min(low, times["min"].as_py()), max(high, times["max"].as_py())
            rows += group.num_rows
    except BaseException:
        sink.break_off()
        raise
    finally:
        writer.close()
    return rows, low, high


def _bloom_filters(table: str, first: pa.Table) -> dict[str, dict[str, float]] | None:
    """Return what lets readers tell that a stream is in no row of a group; `first` is as others.

    Ids of streams are random, so the least and the greatest of them tell nothing.
    """
    if table == "losses" or not first.num_rows:
        return None
    streams = pc.count_distinct(first["stream"]).as_py()
    return {"stream": {"ndv": streams, "fpp": BLOOM_MISTAKES}}


def _groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Gather batches to row groups."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        if waiting and (rows + batch.num_rows > ROW_GROUP_ROWS or size > ROW_GROUP_BYTES):
            yield pa.Table.from_batches(waiting, schema)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.get_total_buffer_size()
    if waiting:
        yield pa.Table.from_batches(waiting, schema)


def _leaves(schema: pa.Schema) -> list[str]:
    """Return the paths of Parquet's leaf columns; the only nesting is a list of structs."""
    paths = []
    for field in schema:
        if pa.types.is_list(field.type):
            element = field.type.value_type
            paths += [f"{field.name}.list.element.{child.name}" for child in element]
        else:
            paths.append(field.name)
    return paths


class _Sink:
    """The file that a Parquet writer writes to; counts, hashes, and asks before it grows."""

    def __init__(self, path: Path, allow: Callable[[int], None] | None) -> None:
        self._file = path.open("wb")
        self._allow = allow
        self._hash = hashlib.sha256()
        self._is_broken = False
        self.size = 0
        self.closed = False

    def write(self, octets: bytes) -> int:
        if self._is_broken:  # the writer's close() writes a footer, which nobody will read
            return len(octets)
        if self._allow:
            self._allow(len(octets))
        self._hash.update(octets)
        self.size += len(octets)
        self._file.write(octets)
        return len(octets)

    def break_off(self) -> None:
        self._is_broken = True

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        if not self._is_broken:
            self._file.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def sha256(self) -> str:
        return self._hash.hexdigest()

    def close(self) -> None:
        """Close the file; called by the writer never, since it did not open it."""
        self.closed = True
        if self._is_broken:
            self._file.raw.close()  # what is buffered need not reach a full disk
        else:
            self._file.close()
