"""What the writer answers: what became of a batch, and what a run has stored."""

from dataclasses import dataclass

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


@dataclass(slots=True)
class Turned:
    """What a full run has turned away, and its ledger does not say yet."""

    packets: int = 0
    bytes: int = 0
    start_ns: int = 0
    end_ns: int = 0

    def add(self, packets: int, octets: int, time_ns: int) -> None:
        """Count one batch that was turned away at a time in ns since 1970."""
        self.packets += packets
        self.bytes += octets
        self.start_ns = self.start_ns or time_ns
        self.end_ns = time_ns

    def loss(self, reason: str) -> dict[str, object]:
        """Return it as columns of LOSSES."""
        return {
            "start_time": self.start_ns,
            "end_time": self.end_ns,
            "packets": self.packets,
            "bytes": self.bytes,
            "detail": reason,
        }


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
