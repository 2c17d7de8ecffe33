"""Rows of a journal, by table, and what is missing of them. runfiles makes segments of them."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from recordings import journal, segments
from recordings.journal import JournalRecord
from recordings.ledger import Ledger
from recordings.schema import LOSSES, TABLES


def by_table(records: Iterable[JournalRecord]) -> dict[str, list[pa.RecordBatch]]:
    """Return the rows of records, in the order of arrival."""
    found: dict[str, list[pa.RecordBatch]] = {table: [] for table in TABLES}
    for record in records:
        for part in record.parts:
            if part.table in TABLES:
                found[part.table] += part.batches()
    return found


def count(record: JournalRecord, ledger: Ledger) -> None:
    """Add what a record holds to a ledger."""
    agent = "" if record.agent == journal.SELF else record.agent
    for part in record.parts:
        ledger.add(part.table, part.batches(), record.node, agent)


def damage(
    path: Path, scan: journal.Scan, batches: dict[str, list[pa.RecordBatch]], time_ns: int
) -> list[pa.RecordBatch]:
    """Return losses that say which octets of a journal cannot be read any more."""
    gone = [(rotten.size, rotten.reason) for rotten in scan.rotten]
    if scan.torn and not scan.torn.is_torn:
        # Not just cut: it may have been whole, and acknowledged, before it was damaged.
        gone.append((path.stat().st_size - scan.end, scan.torn.reason))
    if not gone:
        return []
    times = [
        value
        for table, rows in batches.items()
        for batch in rows
        for value in batch.column(segments.TIME_COLUMNS[table]).cast(pa.int64()).to_pylist()
    ]
    row = {"node_name": "", "kind": "storage_damage", "packets": 0, "stream": None}
    span = {"start_time": min(times, default=time_ns), "end_time": max(times, default=time_ns)}
    return [
        pa.RecordBatch.from_pylist(
            [{**row, **span, "bytes": size, "detail": reason} for size, reason in gone],
            schema=LOSSES,
        )
    ]


def lost(rows: pa.RecordBatch) -> int:
    """Return how many packets losses say are lost."""
    return sum(max(0, packets) for packets in rows.column("packets").to_pylist())
