"""What the writer answers: what became of a batch, and what a run has stored."""

from dataclasses import dataclass, field
from typing import Final

from recordings.ledger import Amount, Ledger
from services.scheduler.batches import Checked
from services.scheduler.runfiles import RunFiles


@dataclass(frozen=True, slots=True)
class Accepted:
    """A batch is on disk."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A batch was not stored and will never be."""

    sequence: int
    reason: str
    """A sentence."""


Outcome = Accepted | Refused


@dataclass(frozen=True, slots=True)
class RunTotals:
    """What a run has stored."""

    entries: int = 0
    streams: int = 0
    packets: int = 0
    losses: int = 0
    bytes: int = 0
    """Octets on disk, journals included."""
    lost_packets: int = 0
    nodes: tuple[str, ...] = ()


MOST_NODES: Final = 64
"""Nodes that have a row of their own for what was turned away; more would not fit into what is kept
free for the ledger. The others share one."""


@dataclass(slots=True)
class Turned:
    """What a full run has turned away, and its ledger does not say yet."""

    by_node: dict[str, Amount] = field(default_factory=dict)
    start_ns: int = 0
    end_ns: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    """What agents have counted, told in what was turned away."""

    def add(self, node: str, batch: Checked, time_ns: int) -> None:
        """Count one batch that was turned away at a time in ns since 1970."""
        name = node if node in self.by_node or len(self.by_node) < MOST_NODES else ""
        before = self.by_node.get(name, Amount())
        self.by_node[name] = before.plus(batch.rows.packets, batch.packet_bytes)
        self.start_ns = self.start_ns or time_ns
        self.end_ns = time_ns
        for tally in batch.ledger.tallies.values():
            self.ledger.tell(tally)

    def losses(self, reason: str) -> list[dict[str, object]]:
        """Return it as columns of LOSSES."""
        span = {"start_time": self.start_ns, "end_time": self.end_ns, "detail": reason}
        return [
            {"node_name": node, **span, "packets": amount.packets, "bytes": amount.bytes}
            for node, amount in self.by_node.items()
        ]


def totals_of(run: RunFiles) -> RunTotals:
    """Return what a run has stored so far; on any thread."""
    rows = run.rows()
    return RunTotals(
        entries=rows.entries,
        streams=rows.streams,
        packets=rows.packets,
        losses=rows.losses,
        bytes=run.bytes(),
        lost_packets=rows.lost_packets,
        nodes=tuple(sorted(run.nodes)),
    )
