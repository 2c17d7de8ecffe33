"""The streams in which an entry matches, with who is at their ends. Called by export."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kfl import Filter
from recordings import schema
from services.query import answer, plan
from services.query.engine import EngineError, Question, Session
from services.query.matched import Matched
from services.query.plan import ALWAYS, Source

MAX_STREAMS = 1_000_000
"""Streams in one file. They are held in memory, some 200 octets each."""

KEYS = ("record", "node_name", "stream")

PEERS = tuple(
    f"{side}_{name}" for side in ("src", "dst") for name in ("ip", "name", "namespace", "pod")
)
"""Columns that say who is at the ends; the same in all entries of a stream that know it."""


class TooMuchError(EngineError):
    """More matches than one file may hold."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of a stream; what is not known is empty."""

    ip: str
    name: str
    namespace: str
    pod: str

    @property
    def names(self) -> list[str]:
        """What it is called, the best name first, each with its namespace."""
        known = dict.fromkeys(filter(None, (self.name, self.pod)))
        return [f"{name}.{self.namespace}" if self.namespace else name for name in known]


class Streams:
    """What was found: a row for each stream of each recording, those of one stream together."""

    def __init__(self, table: pa.Table, entries: int, first_us: int, last_us: int) -> None:
        """`table` has KEYS and PEERS; times are those of entries, in microseconds since 1970."""
        self.truncated = False
        """More entries match than a limit() let through."""
        table = table.sort_by([(name, "ascending") for name in ("node_name", "stream", "record")])
        self.table = table.combine_chunks()
        self.entries = entries
        self.first_us = first_us
        self.last_us = last_us
        self.keys = _numbered(self.table)
        """The number of the stream that a row is about, int64; the same in two recordings."""
        self._begins = np.searchsorted(self.keys, np.arange(len(self)))

    def __len__(self) -> int:
        return int(self.keys[-1]) + 1 if len(self.keys) else 0

    @cached_property
    def nodes(self) -> list[str]:
        """Every node that has seen a stream."""
        return sorted(pc.unique(self.table["node_name"]).to_pylist())

    @cached_property
    def node_numbers(self) -> np.ndarray:
        """Place in `nodes` of each stream's node."""
        nodes = pa.array(self.nodes, pa.string())
        numbers = pc.index_in(self.table["node_name"], nodes).to_numpy()
        return np.asarray(numbers[self._begins])

    def none_seen(self) -> np.ndarray:
        """Return a False for each stream."""
        return np.zeros(len(self), np.bool_)

    def wanted(self) -> pa.Table:
        """Return the rows to ask for packets of: KEYS, and `key` for the stream's number."""
        return self.table.select(KEYS).append_column("key", pa.array(self.keys))

    def notes(self, keys: np.ndarray) -> list[str]:
        """Return what is known of streams, for people: recordings, id, who called whom."""
        begins = self._begins[keys]
        ends = np.append(self._begins, len(self.keys))[keys + 1]
        # Mostly there is one row for each.
        parts = [np.arange(a, b) for a, b in zip(begins, ends, strict=True)]
        places = np.concatenate([np.zeros(0, np.int64), *parts])
        rows = self.table.take(pa.array(places)).to_pylist()
        found, at = [], 0
        for count in (ends - begins).tolist():
            found.append(_note(rows[at : at + count]))
            at += count
        return found

    def names(self) -> dict[str, list[str]]:
        """Return the names of each address that has any, those of most streams first."""
        found: dict[str, Counter[str]] = {}
        for side in ("src", "dst"):
            columns = [self.table[name] for name in PEERS if name.startswith(side)]
            groups = pa.table(columns, names=["ip", "name", "namespace", "pod"])
            names = groups.column_names
            for row in groups.group_by(names).aggregate([([], "count_all")]).to_pylist():
                peer = Peer(*(row[name] or "" for name in names))
                for name in peer.names if peer.ip else ():
                    found.setdefault(peer.ip, Counter())[name] += row["count_all"]
        return {ip: [name for name, _ in counts.most_common()] for ip, counts in found.items()}


def _note(rows: Sequence[dict[str, Any]]) -> str:
    text = f"{listed('recording', {row['record'] for row in rows})}, stream {rows[0]['stream']}"
    ends = [_peer(rows, side) for side in ("src", "dst")]
    if any(end.names for end in ends):
        text += f", {' to '.join(_shown(end) for end in ends)}"
    return text


def matching(session: Session, filter: Filter, sources: Sequence[Source]) -> Streams:
    """Return the streams in which an entry matches. Raises EngineError."""
    columns = ", ".join((*KEYS, "start_time", *PEERS))
    question = None
    if filter.limit is None:
        question = plan.relation(filter, sources, ALWAYS, columns, [])
    if question is None:
        return _one_by_one(session, filter, sources)
    parts, count = [], 0
    for batch in session.rows(_grouped(question)):
        parts.append(batch)
        count += batch.num_rows
        _check(count)
    return _together(parts)


def _check(count: int) -> None:
    if count > MAX_STREAMS:
        raise TooMuchError(
            f"More than {MAX_STREAMS} streams match, which is too much for one file. "
            "Narrow the statement, or add limit(n)."
        )


_TIMES = ("first_us", "last_us")

_FOUND = pa.schema(
    [(name, pa.string()) for name in (*KEYS, *PEERS)]
    + [(name, pa.int64()) for name in ("entries", *_TIMES)]
)


def _grouped(question: Question) -> Question:
    peers = ", ".join(f"any_value({name}) AS {name}" for name in PEERS)
    return Matched(question).then(
        f"SELECT {', '.join(KEYS)}, {peers}, count(*) AS entries,"  # noqa: S608 - our own columns
        " epoch_us(min(start_time)) AS first_us, epoch_us(max(start_time)) AS last_us"
        f" FROM {{}} GROUP BY {', '.join(KEYS)} LIMIT {MAX_STREAMS + 1}"
    )


def _one_by_one(session: Session, filter: Filter, sources: Sequence[Source]) -> Streams:
    """Add up entries that were looked at, or counted for a limit, as SQL adds them up."""
    limit = filter.limit
    planned = plan.entries(filter, sources, limit=None if limit is None else limit + 1)
    given = answer.Answer(answer.of_plan(session, planned, filter, ALWAYS), limit)
    found: dict[tuple[str, ...], list[Any]] = {}
    for table in given:
        times = (answer.nanoseconds_of(table["start_time"]) // 1000).tolist()
        columns = [table[name].to_pylist() for name in (*KEYS, *PEERS)]
        for time_us, *row in zip(times, *columns, strict=True):
            known = found.setdefault(tuple(row[: len(KEYS)]), [*row, 0, time_us, time_us])
            known[-3] += 1
            known[-2:] = min(known[-2], time_us), max(known[-1], time_us)
        _check(len(found))
    rows = [dict(zip(_FOUND.names, row, strict=True)) for row in found.values()]
    streams = _together([pa.RecordBatch.from_pylist(rows, _FOUND)])
    streams.truncated = given.truncated
    return streams


def _together(parts: Sequence[pa.RecordBatch]) -> Streams:
    names = _FOUND.names
    tables = [pa.Table.from_batches([part]).select(names).cast(_FOUND) for part in parts]
    table = pa.concat_tables([_FOUND.empty_table(), *tables])
    if not table.num_rows:
        return Streams(table, 0, 0, 0)
    return Streams(
        table.select([*KEYS, *PEERS]),
        pc.sum(table["entries"]).as_py(),
        pc.min(table["first_us"]).as_py(),
        pc.max(table["last_us"]).as_py(),
    )


def _numbered(table: pa.Table) -> np.ndarray:
    """Return 0, 1, … for the streams of a sorted table."""
    if not table.num_rows:
        return np.zeros(0, np.int64)
    is_new = np.zeros(table.num_rows, np.bool_)
    for name in ("node_name", "stream"):
        column = table[name].combine_chunks()
        is_new[1:] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return np.cumsum(is_new)


def _peer(rows: Sequence[dict[str, Any]], side: str) -> Peer:
    """Return one end of a stream as the first recording knows it that knows a name."""
    found = [
        Peer(*(row[f"{side}_{name}"] or "" for name in ("ip", "name", "namespace", "pod")))
        for row in rows
    ]
    return next((peer for peer in found if peer.names), found[0])


def _shown(peer: Peer) -> str:
    best, *others = peer.names or [peer.ip]
    return f"{best} ({', '.join(others)})" if others else best


def listed(word: str, names: Iterable[str]) -> str:
    """Return "recording a" or "recordings a, b"."""
    ordered = sorted(names)
    return f"{word}{'s' if len(ordered) > 1 else ''} {', '.join(ordered)}"


def translated(session: Session, streams: Streams, sources: Sequence[Source]) -> dict[str, str]:
    """Return which addresses the packets have instead of those of entries. Raises EngineError.

    Packets have addresses as the client sees them; a server's in entries is its own.
    """
    question = plan.of_streams(schema.STREAMS, sources, streams.wanted().select(KEYS))
    both = Matched(question).then(
        "SELECT DISTINCT called_ip AS there, server_ip AS here FROM {}"
        " WHERE called_ip IS NOT NULL AND called_ip <> server_ip"
    )
    return {row["there"]: row["here"] for batch in session.rows(both) for row in batch.to_pylist()}
