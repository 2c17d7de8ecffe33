"""What one run has gathered since it was last sent. `agent` has one for each active run."""

from collections.abc import Sequence

import pyarrow as pa

from recordings import schema
from services.capture.assignments import ActiveRun
from services.capture.bodies import cut_bodies
from services.capture.frames.batch import Loss
from services.capture.uplink import Uplink

FLUSH_SECONDS = 0.2
"""Rows leave the agent at most this late: a query is to see them within a second."""

FLUSH_BYTES = 1 << 20
"""Rows leave earlier when there are so many octets of them: large batches cost less each row, and
a batch must fit into a message."""

ORDER = ("streams", "packets", "entries", "losses")
"""A stream's row comes before what belongs to it."""

MOST_TOLD_LOSSES = 1000
"""Most losses that get a row of their own in one flush; what is above it is told as a sum."""


class RunBuffer:
    """Tables of one run, until they are sent."""

    def __init__(self, run: ActiveRun, uplink: Uplink, node: str) -> None:
        self.run = run
        self._uplink = uplink
        self._node = node
        self._tables: dict[str, list[pa.Table]] = {name: [] for name in ORDER}
        self._losses: list[Loss] = []
        self._sums: dict[str, tuple[Loss | None, int]] = {}  # and how many it stands for
        self._bytes = 0
        self._since: float | None = None

    def add(self, name: str, table: pa.Table, now: float) -> None:
        """Take rows of a table of recordings.schema.TABLES; `now` is in seconds, monotonic."""
        if not table.num_rows:
            return
        if name == "entries":
            table = cut_bodies(table, self.run.assignment.body_limit)
        self._tables[name].append(table)
        self._bytes += table.nbytes
        self._since = now if self._since is None else self._since

    def lose(self, losses: Sequence[Loss], now: float) -> None:
        """Take losses. Each gets a row of its own, unless there are very many."""
        for loss in losses:
            if len(self._losses) < MOST_TOLD_LOSSES:
                self._losses.append(loss)
            else:
                before, count = self._sums.get(loss.kind, (None, 0))
                self._sums[loss.kind] = (_sum(before, loss, count), count + 1)
        if losses and self._since is None:
            self._since = now

    def is_due(self, now: float) -> bool:
        """Say whether it is time to send."""
        return self._bytes >= FLUSH_BYTES or (
            self._since is not None and now - self._since >= FLUSH_SECONDS
        )

    def flush(self, final: bool = False) -> None:
        """Hand all rows to the uplink; `final` says that the run has nothing more."""
        told = [*self._losses, *(loss for loss, _ in self._sums.values() if loss)]
        if told:
            self._tables["losses"].append(losses_table(self._node, told))
        parts = [
            (name, pa.concat_tables(tables).combine_chunks())
            for name, tables in self._tables.items()
            if tables
        ]
        if parts or final:
            self._uplink.send(*self.run.key, parts, final)
        for tables in self._tables.values():
            tables.clear()
        self._losses.clear()
        self._sums.clear()
        self._bytes = 0
        self._since = None


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


def _sum(before: Loss | None, loss: Loss, count: int) -> Loss:
    """Return one loss for `count` that came before and another one of the same kind."""
    if before is None:
        before = Loss(loss.kind, loss.start_ns, loss.end_ns)
    return Loss(
        loss.kind,
        min(before.start_ns, loss.start_ns),
        max(before.end_ns, loss.end_ns),
        before.packets + loss.packets,
        before.bytes + loss.bytes,
        detail=f"{count + 1} more losses in one",
    )
