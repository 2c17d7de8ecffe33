"""What is different between two sets of entries. Called by figures_rpc."""

# ruff: noqa: S608 - the only text put into SQL is names from the schema and from this room.

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import Any

import pyarrow as pa

from kfl.sql.pieces import Piece
from recordings.snapshot import Snapshot
from services.query import counts, figures
from services.query.counts import MAX_CHARACTERS
from services.query.engine import Session
from services.query.figures import SUMS, Figures
from services.query.matched import Column, Matched, Rows
from services.query.plan import Window
from services.query.selector import Protocols, Selector

THRESHOLD = 2.0
"""A rate or latency that is so many times higher or lower is different, if not asked otherwise."""

LEAST_ENTRIES = 10
"""With fewer entries a rate or a percentile says little."""

LEAST_SECONDS = 1.0
"""What rates are taken over at least: a recording of one entry has no duration."""

MAX_VALUES = 20_000
"""Values of a side that are compared, the most frequent first."""

SELECTORS = {"path": 'request.method + " " + request.path', "status": "response.status"}
"""Dimensions that are values of a selector."""

DIMENSIONS = (*SELECTORS, "peers")

ARROW = " \N{RIGHTWARDS ARROW} "


class Change(Enum):
    """How something is different."""

    APPEARED = "appeared"
    VANISHED = "vanished"
    RATE = "rate"
    LATENCY = "latency"


@dataclass(frozen=True, slots=True)
class Side:
    """Figures by dimension and value, and the seconds that rates are taken over."""

    figures: Mapping[tuple[str, str], Figures]
    seconds: float
    is_whole: bool = True
    """There are no more than MAX_VALUES."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A value of a dimension that is different; None where a side has no such entries."""

    dimension: str
    value: str
    changes: tuple[Change, ...]
    before: Figures | None
    after: Figures | None

    @property
    def entries(self) -> int:
        """Of both sides."""
        return sum(side.entries for side in (self.before, self.after) if side)


def columns(protocols: Protocols) -> list[Column]:
    """Return the columns that side() needs beside those of figures."""
    return [*(_of_selector(name, protocols) for name in SELECTORS), _peers()]


def _of_selector(name: str, protocols: Protocols) -> Column:
    selector = Selector(SELECTORS[name], {})
    texts = selector.sql(protocols)
    piece = None
    if texts is not None and not texts.is_list:
        text = f"left(CAST({texts.value.text} AS VARCHAR), {MAX_CHARACTERS})"
        piece = Piece(text, texts.value.parameters)

    def of(_: pa.Table, rows: Rows) -> pa.Array:
        found = [selector.texts_of(row) for row in rows]
        texts = [each[0][:MAX_CHARACTERS] if len(each) == 1 else None for each in found]
        return pa.array(texts, pa.string())

    return Column(name, pa.string(), piece, of)


def _peers() -> Column:
    ends = [
        f"CASE WHEN {side}_name <> '' THEN {side}_name ||"
        f" CASE WHEN {side}_namespace <> '' THEN '.' || {side}_namespace ELSE '' END"
        f" ELSE coalesce({side}_ip, '') END"
        for side in ("src", "dst")
    ]

    def of(_: pa.Table, rows: Rows) -> pa.Array:
        return pa.array([ARROW.join(_end(row[side]) for side in ("src", "dst")) for row in rows])

    return Column("peers", pa.string(), Piece(f"({ends[0]} || '{ARROW}' || {ends[1]})"), of)


def _end(peer: Mapping[str, Any]) -> str:
    parts = [peer["name"], peer["namespace"]] if peer["name"] else [peer["ip"]]
    return ".".join(filter(None, parts))


def side(session: Session, found: Matched, seconds: float) -> Side:
    """Return what there is on one side, by a single pass."""
    question = found.then(f"{_GROUPED} ORDER BY entries DESC, {_NAMES} LIMIT {MAX_VALUES + 1}")
    rows = list(counts.rows(session, question))
    return Side(_by_value(rows[:MAX_VALUES]), seconds, len(rows) <= MAX_VALUES)


def completed(session: Session, found: Matched, one: Side, other: Side) -> Side:
    """Return a side with what it has of the other's values beyond MAX_VALUES."""
    missing = [key for key in other.figures if key not in one.figures]
    if one.is_whole or not missing:
        return one
    wanted = pa.table(
        [pa.array(column, pa.string()) for column in zip(*missing, strict=True)],
        ["dimension", "value"],
    )
    chosen = " OR ".join(
        f"{name} IN (SELECT value FROM wanted WHERE dimension = '{name}')" for name in DIMENSIONS
    )
    # All rows of a wanted value are in it; those of other values are not, and left out again.
    narrow = Matched(found.then(f"SELECT * FROM {{}} WHERE {chosen}"))
    question = narrow.then(_GROUPED)
    question = replace(question, tables={**question.tables, "wanted": wanted})
    more = _by_value(counts.rows(session, question))
    figures_of_all = {**one.figures, **{key: more[key] for key in missing if key in more}}
    return replace(one, figures=figures_of_all)


_NAMES = ", ".join(DIMENSIONS)

_GROUPED = (
    f"SELECT grouping({_NAMES}) AS grouped, {_NAMES}, {SUMS} FROM {{}}"
    f" GROUP BY GROUPING SETS ({', '.join(f'({name})' for name in DIMENSIONS)})"
)


def _by_value(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], Figures]:
    # grouping() has a bit for each column that the row is not grouped by.
    every = 2 ** len(DIMENSIONS) - 1
    names = {every - (1 << bit): name for bit, name in enumerate(reversed(DIMENSIONS))}
    found = {}
    for row in rows:
        name = names[row["grouped"]]
        if row[name] is not None:
            found[name, row[name]] = figures.read(row)
    return found


def seconds(taken: Iterable[Snapshot], window: Window) -> float:
    """Return how long was recorded: the window, else each run from its first entry to its last."""
    if window.start_ns is not None and window.end_ns is not None:
        return max((window.end_ns - window.start_ns) / 1e9, LEAST_SECONDS)
    total = 0
    for recording in taken:
        for _, parts in groupby(recording.runs, key=lambda run: run.run):
            times = Snapshot(recording.name, tuple(parts)).time_range("entries")
            if times is not None:
                first = times[0] if window.start_ns is None else max(times[0], window.start_ns)
                last = times[1] if window.end_ns is None else min(times[1], window.end_ns)
                total += max(last - first, 0)
    return max(total / 1e9, LEAST_SECONDS)


def differences(before: Side, after: Side, threshold: float) -> list[Difference]:
    """Return what is different: what is on one side alone first, each by entries."""
    found = []
    for dimension, value in {**before.figures, **after.figures}:
        one = before.figures.get((dimension, value))
        other = after.figures.get((dimension, value))
        changes = _changes(one, other, before.seconds, after.seconds, threshold)
        if changes:
            found.append(Difference(dimension, value, changes, one, other))
    return sorted(
        found,
        key=lambda each: (
            each.before is not None and each.after is not None,
            -each.entries,
            each.dimension,
            each.value,
        ),
    )


def _changes(
    one: Figures | None,
    other: Figures | None,
    before_seconds: float,
    after_seconds: float,
    threshold: float,
) -> tuple[Change, ...]:
    if one is None:
        return (Change.APPEARED,)
    if other is None:
        return (Change.VANISHED,)
    changes = []
    rates = (one.entries / before_seconds, other.entries / after_seconds)
    if max(one.entries, other.entries) >= LEAST_ENTRIES and _differ(*rates, threshold):
        changes.append(Change.RATE)
    if min(one.entries, other.entries) >= LEAST_ENTRIES and one.latency_us and other.latency_us:
        # p50 and p99; below a microsecond nothing is known.
        pairs = [(one.latency_us[place], other.latency_us[place]) for place in (0, 2)]
        if any(_differ(max(a, 1), max(b, 1), threshold) for a, b in pairs):
            changes.append(Change.LATENCY)
    return tuple(changes)


def _differ(one: float, other: float, threshold: float) -> bool:
    return max(one, other) >= threshold * min(one, other)


def limited(found: Sequence[Difference], limit: int) -> list[Difference]:
    """Return at most `limit` differences of each kind."""
    seen: dict[Change, int] = {}
    kept = []
    for each in found:
        kind = each.changes[0]
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= limit:
            kept.append(each)
    return kept
