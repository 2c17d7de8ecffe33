"""Rows of a plan, made exact: nanoseconds, order, condition, limit. Called by query_rpc and export.

DuckDB keeps a time with a zone in microseconds. The nanoseconds below are read from where the row
is, by its file and number, and rows that share a microsecond are put into their order again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfl import Filter
from recordings import entry, merging, schema
from services.query import plan
from services.query.engine import FilesGoneError, Question, Session
from services.query.plan import FILE, ROW, Plan, Source, Window

FEW_ROWS = 256
"""Rows about which the filter itself is asked; above, an engine's session is worth its 30 ms."""

MAX_HELD_ROWS = 65536
"""Rows of one microsecond that are held back to be put into order. More than that are only seen
where a capture file has no times at all, and then there is no order to keep."""


def rows(session: Session, plan: Plan) -> Iterator[pa.Table]:
    """Yield the rows of a plan in the order of time, with their nanoseconds.

    The tables have the plan's columns and `record`, FILE and ROW. Raises EngineError.
    """
    nanoseconds = _Nanoseconds(plan.time, plan.tails)
    held: pa.Table | None = None
    for batch in session.rows(plan.question):
        table = nanoseconds.restore(pa.Table.from_batches([batch]))
        if held is not None:
            table = pa.concat_tables([held, table])
        certain = _certain_rows(table, plan.time)
        if certain:
            yield _in_order(table.slice(0, certain), plan)
        held = table.slice(certain) if certain < table.num_rows else None
    if held is not None:
        yield _in_order(held, plan)


def of_plan(session: Session, plan: Plan, filter: Filter, window: Window) -> Iterator[pa.Table]:
    """Yield the entries that match, as tables of ENTRIES and `record`. Raises EngineError."""
    for table in rows(session, plan):
        if plan.is_exact:
            yield table.drop_columns([FILE, ROW])
        else:
            with session.working():
                found = matching(table, filter, window)
            yield found


def count(session: Session, filter: Filter, sources: Sequence[Source], window: Window) -> int:
    """Return how many entries match; by SQL alone where it can. Raises EngineError."""
    question = plan.relation(filter, sources, window, "1", [])
    if question is None:
        planned = plan.entries(filter, sources, window=window, ordered=False)
        return sum(table.num_rows for table in of_plan(session, planned, filter, window))
    counted = Question(
        f"SELECT count(*) FROM ({question.sql}) AS matched",  # noqa: S608 - plan's own text
        question.parameters,
        question.tables,
    )
    return sum(int(batch[0][0].as_py()) for batch in session.rows(counted))


def matching(table: pa.Table, filter: Filter, window: Window) -> pa.Table:
    """Return those of the rows of a plan that match, as ENTRIES and `record`."""
    return _matching(_within(table.drop_columns([FILE, ROW]), window), filter)


def of_few(sources: Sequence[Source], filter: Filter, window: Window) -> Iterator[pa.Table]:
    """Yield the entries that match of sources with few rows and no files, without an engine.

    To open a session costs more than to ask the filter about some hundred entries, and a follower
    has a few entries several times a second.
    """
    for source in sources:
        assert not source.files
    table = pa.concat_tables(
        _recorded(tail, source.record) for source in sources for _, tail in source.tails
    )
    found = _matching(_within(table, window), filter)
    order = ("start_time", "node_name", "stream", "index")
    yield found.sort_by([(name, "ascending") for name in order])


class Answer:
    """Entries that match, at most `limit` of them."""

    def __init__(self, tables: Iterable[pa.Table], limit: int | None) -> None:
        self._tables = tables
        self._limit = limit
        self.entries = 0
        """Entries given so far."""
        self.truncated = False
        """More match than the limit let through; known when the iteration has ended."""

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield tables that are not empty."""
        for table in self._tables:
            found = table
            if self._limit is not None and self.entries + found.num_rows > self._limit:
                self.truncated = True
                found = found.slice(0, self._limit - self.entries)
            self.entries += found.num_rows
            if found.num_rows:
                yield found
            if self.truncated:
                return


def _recorded(table: pa.Table, record: str) -> pa.Table:
    names = pa.array([record] * table.num_rows, pa.string())
    return table.select(schema.ENTRIES.names).append_column("record", names)


def _within(table: pa.Table, window: Window) -> pa.Table:
    """Return the entries whose start time is in the window."""
    times = nanoseconds_of(table["start_time"])
    keep = np.ones(len(times), np.bool_)
    if window.start_ns is not None:
        keep &= times >= window.start_ns
    if window.end_ns is not None:
        keep &= times < window.end_ns
    return table.filter(pa.array(keep))


def _matching(table: pa.Table, filter: Filter) -> pa.Table:
    """Return the entries for which the filter itself says yes."""
    keep = [filter.matches(found, found.get("record")) for found in entry.objects(table)]
    return table.filter(pa.array(keep, pa.bool_()))


class _Nanoseconds:
    """What DuckDB cuts off from a column of times: 0 to 999 for each row of each file and tail."""

    def __init__(self, column: str, tails: Mapping[str, pa.Table]) -> None:
        self._column = column
        self._tails = tails
        self._rests: dict[str, np.ndarray] = {}

    def restore(self, table: pa.Table) -> pa.Table:
        """Return the table with its times as they were recorded."""
        times = nanoseconds_of(table[self._column])
        files = table[FILE].combine_chunks().dictionary_encode()
        codes = files.indices.to_numpy(zero_copy_only=False)
        numbers = table[ROW].to_numpy()
        rests = np.zeros(len(times), np.int64)
        for code, name in enumerate(files.dictionary.to_pylist()):
            chosen = codes == code
            rests[chosen] = self._rest(name)[numbers[chosen]]
        exact = pa.array(times // 1000 * 1000 + rests).cast(schema.TIMESTAMP)
        return table.set_column(table.schema.get_field_index(self._column), self._column, exact)

    def _rest(self, name: str) -> np.ndarray:
        if name not in self._rests:
            if name in self._tails:
                times = self._tails[name][self._column]
            else:
                try:
                    times = merging.read_column(Path(name), self._column)
                except OSError as error:
                    raise FilesGoneError("A file of the recording could not be read.") from error
            # Two octets a row are little enough to keep for all files of an answer.
            self._rests[name] = (nanoseconds_of(times) % 1000).astype(np.int16)
        return self._rests[name]


def nanoseconds_of(column: pa.ChunkedArray) -> np.ndarray:
    """Return int64 nanoseconds since 1970 of a column of times of any unit."""
    nanoseconds = pc.cast(column, schema.TIMESTAMP)
    return np.asarray(pc.cast(nanoseconds, pa.int64()).to_numpy())


def _certain_rows(table: pa.Table, time: str) -> int:
    """Return how many rows none to come can stand before: all but the last microsecond's."""
    microseconds = nanoseconds_of(table[time]) // 1000
    open_rows = int((microseconds[::-1] != microseconds[-1]).argmax())
    if microseconds[0] == microseconds[-1]:
        open_rows = len(microseconds)
    return len(microseconds) if open_rows > MAX_HELD_ROWS else len(microseconds) - open_rows


def _in_order(table: pa.Table, plan: Plan) -> pa.Table:
    times = nanoseconds_of(table[plan.time])
    if plan.descending:
        times = -times
    if np.all(times[:-1] <= times[1:]):
        return table
    return table.take(pa.array(np.argsort(times, kind="stable")))
