"""Entries counted by time and by value. Called by figures_rpc.

Every function asks one SELECT over the entries that match, and gives plain rows.
"""

# ruff: noqa: S608 - the only text put into SQL is names from the schema and from this room.

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from services.query import figures
from services.query.engine import Question, Session
from services.query.figures import SUMS, Figures
from services.query.matched import Column, Matched, Rows
from services.query.plan import Source, Window
from services.query.selector import Protocols, Selector

BUCKETS_MS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500),
    *(1000 * seconds for seconds in (1, 2, 5, 10, 15, 30)),
    *(60_000 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3_600_000 * hours for hours in (1, 2, 3, 6, 12, 24, 7 * 24, 30 * 24, 365 * 24)),
)
"""Widths that a chosen bucket has: what people divide time into."""

MOST_CHOSEN = 120
"""Buckets of a width that is chosen: about what a chart has room for."""

MAX_BUCKETS = 10_000
"""Buckets in one answer, over all values: a message has room for them."""

MAX_CHARACTERS = 256
"""Of a value that is told; it can be a body. Longer ones are told apart, but shown cut."""

VALUE, KEY, PLACE = "value", "key", "place"

# ------------------------------------------------------------------------------ by time


def span_us(sources: Iterable[Source], window: Window) -> tuple[int, int] | None:
    """Return the first and the last time that entries can have, in microseconds since 1970."""
    times = [each for source in sources for each in _times(source)]
    if not times:
        return None
    first, last = min(low for low, _ in times), max(high for _, high in times)
    if window.start_ns is not None:
        first = max(first, window.start_ns)
    if window.end_ns is not None:
        last = min(last, window.end_ns - 1)
    return (first // 1000, last // 1000) if first <= last else None


def _times(source: Source) -> list[tuple[int, int]]:
    found = list(source.times)
    for _, tail in source.tails:
        if tail.num_rows:
            times = tail["start_time"].cast(pa.int64()).combine_chunks().to_numpy()
            found.append((int(times.min()), int(times.max())))
    return found


def chosen_ms(first_us: int, last_us: int) -> int:
    """Return the width of a bucket of which few enough cover the time."""
    span = last_us - first_us
    return next(
        (width for width in BUCKETS_MS if span < width * 1000 * MOST_CHOSEN), BUCKETS_MS[-1]
    )


@dataclass(frozen=True, slots=True)
class Bucket:
    """Entries of a part of time that begins at `start_us`; of one value, or of no such value."""

    start_us: int
    value: str | None
    figures: Figures


def by_time(session: Session, found: Matched, width_us: int) -> list[Bucket]:
    """Return the buckets that have entries, by time."""
    question = found.then(
        f"SELECT epoch_us(start_time) // {width_us} AS bucket, {SUMS} FROM {{}}"
        " GROUP BY bucket ORDER BY bucket"
    )
    return [
        Bucket(row["bucket"] * width_us, None, figures.read(row)) for row in rows(session, question)
    ]


def by_time_and_value(
    session: Session, found: Matched, width_us: int, keyed: "Keyed", values: Sequence[str]
) -> list[Bucket]:
    """Return the same, for each of `values` and for what has none of them."""
    listed = ", ".join("?" for _ in values) or "NULL"
    inner = keyed.then(
        found,
        "SELECT start_time, elapsed_us, request_size, response_size, failed,"
        f" CASE WHEN CAST({KEY} AS VARCHAR) IN ({listed}) THEN CAST({KEY} AS VARCHAR) END"
        f" AS {KEY}, {PLACE} FROM {{}}",
        *values,
    )
    question = Matched(inner).then(
        f"SELECT epoch_us(start_time) // {width_us} AS bucket, {KEY}, {SUMS} FROM {{}}"
        f" GROUP BY bucket, {KEY} ORDER BY bucket"
    )
    order = {value: place for place, value in enumerate(values)}
    buckets = [
        Bucket(row["bucket"] * width_us, row[KEY], figures.read(row))
        for row in rows(session, question)
    ]
    last = len(order)
    return sorted(
        buckets,
        key=lambda each: (each.start_us, last if each.value is None else order[each.value]),
    )


# ------------------------------------------------------------------------------ by value


class Keyed:
    """The value of a selector in rows that match."""

    def __init__(self, selector: Selector, protocols: Protocols) -> None:
        self._selector = selector
        self._texts = selector.sql(protocols)

    def column(self) -> Column:
        """Return the column VALUE: in SQL what the selector has, of rows a list of texts."""
        texts = self._texts
        if texts is None:
            return Column(VALUE, pa.list_(pa.string()), None, self._of)
        return Column(VALUE, pa.list_(pa.string()), texts.value, self._of, texts.sure)

    def _of(self, _: pa.Table, rows: Rows) -> pa.Array:
        found: list[list[str] | list[None]] = [
            self._selector.texts_of(row) or [None] for row in rows
        ]
        return pa.array(found, pa.list_(pa.string()))

    def then(self, found: Matched, sql: str, *values: object) -> Question:
        """Ask about rows with KEY, one for each text, and PLACE, 0 in one row of each entry."""
        texts = self._texts
        if found.is_table:
            keys = VALUE
        elif texts is not None and not texts.is_list:
            return Matched(
                found.then(f"SELECT *, {texts.texts(VALUE)} AS {KEY}, 0 AS {PLACE} FROM {{}}")
            ).then(sql, *values)
        else:
            assert texts is not None
            keys = texts.texts(VALUE)
        listed = Matched(found.then(f"SELECT *, {keys} AS keys FROM {{}}"))
        opened = listed.then(
            f"SELECT *, unnest(keys) AS {KEY}, unnest(range(len(keys))) AS {PLACE} FROM {{}}"
        )
        return Matched(opened).then(sql, *values)


@dataclass(frozen=True, slots=True)
class Top:
    """The most frequent values, at most as many as were asked for."""

    values: list[tuple[str, Figures]]
    without: int
    """Entries without a value."""
    different: int
    entries: int


def frequent(session: Session, found: Matched, keyed: Keyed, limit: int) -> tuple[list[str], int]:
    """Return the values that most entries have, as by_value() has them, and how many entries."""
    grouped = keyed.then(
        found,
        f"SELECT CAST({KEY} AS VARCHAR) AS {KEY}, count(*) AS entries,"
        f" count(*) FILTER (WHERE {PLACE} = 0) AS whole FROM {{}} GROUP BY {KEY}",
    )
    question = Matched(grouped).then(
        f"SELECT {KEY}, (sum(whole) OVER ())::BIGINT AS total FROM {{}}"
        f" ORDER BY entries DESC, {KEY} LIMIT {limit + 1}"
    )
    found_rows = list(rows(session, question))
    values = [row[KEY] for row in found_rows if row[KEY] is not None]
    return values[:limit], found_rows[0]["total"] if found_rows else 0


def by_value(session: Session, found: Matched, keyed: Keyed, limit: int) -> Top:
    """Return the values that most entries have; among equals, the first in the order of texts."""
    grouped = keyed.then(
        found,
        f"SELECT CAST({KEY} AS VARCHAR) AS {KEY}, {SUMS},"
        f" count(*) FILTER (WHERE {PLACE} = 0) AS whole FROM {{}} GROUP BY {KEY}",
    )
    question = Matched(grouped).then(
        f"SELECT * REPLACE (left({KEY}, {MAX_CHARACTERS}) AS {KEY}),"
        f" count({KEY}) OVER () AS different, (sum(whole) OVER ())::BIGINT AS total"
        f" FROM {{}} ORDER BY matched_rows.{KEY} IS NOT NULL, entries DESC, matched_rows.{KEY}"
        f" LIMIT {limit + 1}"
    )
    found_rows = list(rows(session, question))
    without = found_rows[0]["entries"] if found_rows and found_rows[0][KEY] is None else 0
    values = [(row[KEY], figures.read(row)) for row in found_rows if row[KEY] is not None]
    return Top(
        values[:limit],
        without,
        found_rows[0]["different"] if found_rows else 0,
        found_rows[0]["total"] if found_rows else 0,
    )


def rows(session: Session, question: Question) -> Iterator[dict[str, Any]]:
    """Yield the rows of an answer."""
    for batch in session.rows(question):
        yield from batch.to_pylist()
