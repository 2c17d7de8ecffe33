"""What is known to be missing in the recordings that were asked, and what nodes have seen.

Called by query_rpc, question and export.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recordings import schema
from recordings.ledger import Amount, Ledger, NodeCounts
from services.query.catalog import Opened
from services.query.engine import FilesGoneError
from services.query.plan import ALWAYS, EPOCH, Source, Window

MAX_ROWS = 1000
"""Losses that an answer gives one by one. Beyond them there is one row for each recording, node and
kind, so that a bad network does not make the ledger longer than the answer."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One row of a ledger. Times in nanoseconds since 1970; 0 packets or bytes: not known."""

    recording: str
    node: str
    kind: str
    start_ns: int
    end_ns: int
    packets: int
    bytes: int
    detail: str

    def sentence(self) -> str:
        """Return the loss as one line for people."""
        amounts = [
            f"{number} {unit}"
            for number, unit in ((self.packets, "packets"), (self.bytes, "octets"))
            if number
        ]
        meaning = schema.LOSS_KINDS.get(self.kind, self.kind)
        much = ", ".join(amounts) or "amount not known"
        return (
            f"{self.kind} in {self.recording} on {self.node}, {_utc(self.start_ns)} to "
            f"{_utc(self.end_ns)}: {meaning} ({much}). {self.detail}".strip()
        )


@dataclass(frozen=True, slots=True)
class Counts:
    """What a node has seen of a run; run 0, or no node, is a sum of many."""

    recording: str
    run: int
    found: NodeCounts

    def sentence(self) -> str:
        """Return the counts as one line for people."""
        found = self.found
        amounts = (("seen", found.seen), ("matched", found.matched), ("stored", found.stored))
        parts = [f"{a.packets} packets ({a.bytes} octets) {word}" for word, a in amounts]
        parts += [f"{lost.times} times {kind}" for kind, lost in found.lost.items()]
        where = f" on {found.node}" if found.node else ""
        run = f" run {self.run}" if self.run else ""
        return f"{self.recording}{run}{where}: {', '.join(parts)}."


def counts(opened: Iterable[Opened], window: Window = ALWAYS) -> list[Counts]:
    """Return what nodes have seen of the runs in the window; above MAX_ROWS, added up by node.

    Counts are of whole runs. Runs that an older release has recorded have none.
    """
    found = [
        Counts(recording.name, run.run, node)
        for recording in opened
        for run in recording.taken.runs
        for node in run.ledger.nodes()
        if not node.end_ns or window.touches(node.begin_ns, node.end_ns)
    ]
    for key in (_by_node, _by_recording):
        if len(found) > MAX_ROWS:
            found = [_sum(list(rows), key) for _, rows in groupby(sorted(found, key=key), key)]
    return found


def _by_node(counts: Counts) -> tuple[str, str]:
    return (counts.recording, counts.found.node)


def _by_recording(counts: Counts) -> tuple[str, str]:
    return (counts.recording, "")


def _sum(rows: Sequence[Counts], key: Callable[[Counts], tuple[str, str]]) -> Counts:
    recording, node = key(rows[0])
    ledger = Ledger()
    for row in rows:
        one = row.found
        lost = {(node, kind): lost for kind, lost in one.lost.items()}
        ledger.merge(Ledger({}, {node: one.stored}, lost))
    (summed,) = ledger.nodes()
    seen, matched = Amount(), Amount()
    for row in rows:
        seen, matched = seen.plus(*row.found.seen), matched.plus(*row.found.matched)
    begin_ns = min((r.found.begin_ns for r in rows if r.found.begin_ns), default=0)
    end_ns = max(row.found.end_ns for row in rows)
    return Counts(
        recording,
        0,
        replace(summed, seen=seen, matched=matched, begin_ns=begin_ns, end_ns=end_ns),
    )


def losses(sources: Sequence[Source], window: Window = ALWAYS) -> list[Loss]:
    """Return what is missing in the window, by recording and time; above MAX_ROWS, added up.

    Raises FilesGoneError.
    """
    found = [
        loss
        for source in sources
        for loss in read(source)
        if window.touches(loss.start_ns, loss.end_ns)
    ]
    found.sort(key=lambda loss: (loss.recording, loss.start_ns, loss.end_ns))
    return found if len(found) <= MAX_ROWS else _added_up(found)


def read(source: Source) -> list[Loss]:
    """Return all rows of one recording's ledger, in the order of arrival. Raises FilesGoneError."""
    tables = []
    for path in source.files:
        try:
            tables.append(pq.read_table(path, columns=schema.LOSSES.names, partitioning=None))
        except OSError as error:
            raise FilesGoneError("A file of the recording could not be read.") from error
    table = pa.concat_tables(
        [schema.LOSSES.empty_table()]
        + [
            part.select(schema.LOSSES.names).cast(schema.LOSSES)
            for part in (*tables, *(tail for _, tail in source.tails))
        ]
    )
    for name in ("start_time", "end_time"):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, pc.cast(table[name], pa.int64()))
    return [
        Loss(
            recording=source.record,
            node=row["node_name"],
            kind=row["kind"],
            start_ns=row["start_time"],
            end_ns=row["end_time"],
            packets=max(row["packets"], 0),
            bytes=max(row["bytes"], 0),
            detail=row["detail"],
        )
        for row in table.to_pylist()
    ]


def _added_up(found: Iterable[Loss]) -> list[Loss]:
    sums: dict[tuple[str, str, str], Loss] = {}
    numbers: dict[tuple[str, str, str], int] = {}
    for loss in found:
        key = (loss.recording, loss.node, loss.kind)
        so_far = sums.get(key)
        numbers[key] = numbers.get(key, 0) + 1
        sums[key] = (
            loss
            if so_far is None
            else replace(
                so_far,
                start_ns=min(so_far.start_ns, loss.start_ns),
                end_ns=max(so_far.end_ns, loss.end_ns),
                packets=so_far.packets + loss.packets,
                bytes=so_far.bytes + loss.bytes,
            )
        )
    return [
        replace(
            loss, detail=f"{numbers[key]} losses, added up." if numbers[key] > 1 else loss.detail
        )
        for key, loss in sums.items()
    ]


def _utc(time_ns: int) -> str:
    return (EPOCH + timedelta(microseconds=time_ns // 1000)).isoformat(timespec="milliseconds")
