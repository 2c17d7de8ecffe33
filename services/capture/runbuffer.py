"""What one run has gathered since it was last sent. `agent` has one for each active run."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa

from recordings import schema
from recordings.redaction import Redactions
from services.capture.assignments import ActiveRun
from services.capture.bodies import cut_bodies
from services.capture.frames.batch import Loss
from services.capture.outbox import Parts
from services.capture.packetstore import Packets
from services.capture.payloads import without_payloads

FLUSH_SECONDS = 0.2
"""Rows leave the agent at most this late: a query is to see them within a second."""

FLUSH_BYTES = 1 << 20
"""Rows leave earlier when there are so many octets of them: large batches cost less each row, and
a batch must fit into a message."""

ORDER = ("streams", "packets", "entries", "losses", "tallies")
"""A stream's row comes before what belongs to it."""

TALLY_SECONDS = 5.0
"""How often a run's counts are told. An agent that dies takes so much of them with it."""

MOST_TOLD_LOSSES = 1000
"""Most losses that get a row of their own in one flush; what is above it is told as a sum."""

ADDRESSES = ("src_ip", "src_port", "dst_ip", "dst_port")
"""Columns of ENTRIES with what stands in the headers of packets."""


CUT_DETAIL = "the job's filter has redact(), so its packets are stored without what they carried"


class Sink(Protocol):
    """Where tables go: an Uplink, or a Probe."""

    def send(self, job: str, run: int, parts: Parts, final: bool = False) -> None:
        """Take pairs of a table's name and its rows."""


class RunBuffer:
    """Tables of one run, until they are sent. What its filter redacts is gone from them."""

    def __init__(
        self, run: ActiveRun, uplink: Sink, node: str, flush_seconds: float = FLUSH_SECONDS
    ) -> None:
        self.run = run
        self._uplink = uplink
        self._node = node
        self._flush_seconds = flush_seconds
        self._tables: dict[str, list[pa.Table]] = {name: [] for name in ORDER}
        self._losses: list[Loss] = []
        self._sums: dict[str, tuple[Loss | None, int]] = {}  # and how many it stands for
        self._bytes = 0
        self._since: float | None = None
        # Live, the query service redacts: others may watch the same run.
        paths = () if run.assignment.live else run.filter.redactions
        self._redactions = Redactions(paths) if paths else None
        self._lasting: dict[str, Loss] = {}  # since these were last told, by kind
        self._told_kinds: set[str] = set()
        self._sample_until_ns = 0
        self._counts = [0, 0, 0, 0]  # packets and octets seen, then matched
        self._counted: tuple[int, int] | None = None  # from when until when
        self._told: float | None = None  # when, by the monotonic clock

    def see(self, times: tuple[int, int], packets: int, octets: int, now: float) -> None:
        """Count packets that were looked at for this run; first and last time in ns since 1970."""
        self._count(0, times, packets, octets, now)

    def match(self, times: tuple[int, int], packets: int, octets: int, now: float) -> None:
        """Count packets of streams that match; octets are those on the wire."""
        self._count(2, times, packets, octets, now)

    def _count(
        self, place: int, times: tuple[int, int], packets: int, octets: int, now: float
    ) -> None:
        self._counts[place] += packets
        self._counts[place + 1] += octets
        first, last = self._counted or times
        self._counted = (first, max(last, times[1]))
        self._told = now if self._told is None else self._told

    def add(self, name: str, table: pa.Table, now: float) -> None:
        """Take rows of a table of recordings.schema.TABLES; `now` is in seconds, monotonic."""
        if not table.num_rows:
            return
        if self._redactions and name == "streams":
            table = self._redactions.apply_to_streams(table)
        if name == "entries":
            # While they are whole: of what is cut, less can be decoded.
            if self._redactions:
                table = self._redactions.apply_to_table(table)
            table = cut_bodies(table, self.run.assignment.body_limit)
        self._tables[name].append(table)
        self._bytes += table.get_total_buffer_size()
        self._since = now if self._since is None else self._since

    def redacted(self, packets: Packets) -> Packets:
        """Return packets as this run may store them; those that carry something lose it."""
        if self._redactions is None or not len(packets):
            return packets
        shorter = without_payloads(packets, self._redactions.hides(*ADDRESSES))
        cut = packets.rows["captured_length"] - shorter.rows["captured_length"]
        count, times = int(np.count_nonzero(cut)), packets.rows["timestamp"][cut > 0]
        if count:
            loss = Loss(
                "redacted",
                int(times.min()),
                int(times.max()),
                count,
                int(cut.sum()),
                detail=CUT_DETAIL,
            )
            self.sum_up(loss)
        return shorter

    def tell_sample(self, detail: str, now: float) -> None:
        """Say that the run has a sample of the streams. Call it often: it does something at the
        begin, and when the run is to last longer, so that it is known of all of its time.
        """
        times = self.run.assignment
        if times.stop_ns > self._sample_until_ns:
            self._sample_until_ns = times.stop_ns
            self.lose([Loss("sampled", times.start_ns, times.stop_ns, detail=detail)], now)
            self._told_kinds.add("sampled")

    def sum_up(self, loss: Loss) -> None:
        """Take a loss of a kind that goes on for the whole run. At once it is told that there is
        such a loss, and how large it was in all when the run ends.
        """
        before = self._lasting.get(loss.kind)
        self._lasting[loss.kind] = loss if before is None else _sum(before, loss, loss.detail)

    def lose(self, losses: Sequence[Loss], now: float) -> None:
        """Take losses. Each gets a row of its own, unless there are very many."""
        for loss in losses:
            if len(self._losses) < MOST_TOLD_LOSSES:
                self._losses.append(loss)
            else:
                before, count = self._sums.get(loss.kind, (None, 0))
                before = before or Loss(loss.kind, loss.start_ns, loss.end_ns)
                detail = f"{count + 1} more losses in one"
                self._sums[loss.kind] = (_sum(before, loss, detail), count + 1)
        if losses and self._since is None:
            self._since = now

    def is_due(self, now: float) -> bool:
        """Say whether it is time to send."""
        return (
            self._bytes >= FLUSH_BYTES
            or (self._since is not None and now - self._since >= self._flush_seconds)
            or self._is_to_be_told(now)
        )

    def _is_to_be_told(self, now: float) -> bool:
        return self._told is not None and now - self._told >= TALLY_SECONDS

    def flush(self, now: float, final: bool = False) -> None:
        """Hand all rows to the uplink; `final` says that the run has nothing more."""
        told = [*self._losses, *(loss for loss, _ in self._sums.values() if loss)]
        for kind in [kind for kind in self._lasting if final or kind not in self._told_kinds]:
            told.append(self._lasting.pop(kind))
            self._told_kinds.add(kind)
        if told:
            self._tables["losses"].append(losses_table(self._node, told))
        if self._counted and (final or self._is_to_be_told(now)):
            self._tables["tallies"].append(self._tally(self._counted))
            self._told = None
        parts = [(name, _joined(name, tables)) for name, tables in self._tables.items() if tables]
        if parts or final:
            self._uplink.send(*self.run.key, parts, final)
        for tables in self._tables.values():
            tables.clear()
        self._losses.clear()
        self._sums.clear()
        self._bytes = 0
        self._since = None

    def _tally(self, counted: tuple[int, int]) -> pa.Table:
        """Return a row of schema.TALLIES: what was counted since this run began here."""
        row = ["", self._node, *counted, *self._counts]
        columns = [
            pa.array([value], pa.int64()).cast(field.type)
            if isinstance(value, int)
            else pa.array([value], field.type)
            for value, field in zip(row, schema.TALLIES, strict=True)
        ]
        return pa.Table.from_arrays(columns, schema=schema.TALLIES)


def _joined(name: str, tables: list[pa.Table]) -> pa.Table:
    """Return tables as one; chunks of many columns cost more than to copy them, frames do not."""
    table = pa.concat_tables(tables)
    return table if name == "packets" else table.combine_chunks()


def losses_table(node: str, losses: Sequence[Loss]) -> pa.Table:
    """Return rows of recordings.schema.LOSSES."""
    return pa.Table.from_arrays(
        [
            pa.array([node] * len(losses), pa.string()),
            pa.array([loss.kind for loss in losses], pa.string()),
            pa.array([loss.start_ns for loss in losses], pa.int64()).cast(schema.TIMESTAMP),
            pa.array([loss.end_ns for loss in losses], pa.int64()).cast(schema.TIMESTAMP),
            pa.array([loss.packets for loss in losses], pa.int64()),
            pa.array([loss.bytes for loss in losses], pa.int64()),
            pa.array([loss.stream for loss in losses], pa.string()),
            pa.array([loss.detail for loss in losses], pa.string()),
        ],
        schema=schema.LOSSES,
    )


def _sum(before: Loss, loss: Loss, detail: str) -> Loss:
    """Return two losses of the same kind as one."""
    return Loss(
        loss.kind,
        min(before.start_ns, loss.start_ns),
        max(before.end_ns, loss.end_ns),
        before.packets + loss.packets,
        before.bytes + loss.bytes,
        detail=detail,
    )
