"""What is known to be missing in the recordings that were asked. Called by query_rpc and export."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recordings import schema
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
