"""What is known of a run by node: packets seen, matched and stored, and what was lost, by kind.

The manifest has the sums over its segments; snapshot and the scheduler add those of journals.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from recordings.schema import LOSS_KINDS

MOST_TALLIES: Final = 4096
"""Processes of agents whose counts are kept apart; the oldest are added up by node."""

OTHER: Final = "other"
"""Stands for kinds of loss that this release does not know."""


class Amount(NamedTuple):
    """Packets, and their octets on the wire."""

    packets: int = 0
    bytes: int = 0

    def plus(self, packets: int, octets: int) -> "Amount":
        """Return the sum; packets and octets may be negative."""
        return Amount(max(0, self.packets + packets), max(0, self.bytes + octets))


class Lost(NamedTuple):
    """Rows of LOSSES of one kind, and the packets and octets that they name; 0 where unknown."""

    times: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Tally:
    """What one agent has counted for a run since its process began; a row of schema.TALLIES."""

    agent: str
    node: str
    begin_ns: int
    end_ns: int
    seen: Amount
    matched: Amount

    @property
    def key(self) -> tuple[str, str, int]:
        """Names the process."""
        return (self.agent, self.node, self.begin_ns)


@dataclass(frozen=True, slots=True)
class NodeCounts:
    """One node's part in a run. Nanoseconds since 1970; 0 and 0 when its agent told nothing."""

    node: str
    begin_ns: int
    end_ns: int
    seen: Amount
    matched: Amount
    stored: Amount
    lost: Mapping[str, Lost]


@dataclass(slots=True)
class Ledger:
    """Sums over rows; they are added one batch after the other."""

    tallies: dict[tuple[str, str, int], Tally] = field(default_factory=dict)
    stored: dict[str, Amount] = field(default_factory=dict)
    """By node."""
    lost: dict[tuple[str, str], Lost] = field(default_factory=dict)
    """By node and kind."""
    is_whole: bool = True
    """False when some segments are of a release that did not count."""

    def copy(self) -> "Ledger":
        """Return one that can be changed by itself."""
        return Ledger(dict(self.tallies), dict(self.stored), dict(self.lost), self.is_whole)

    def add(self, table: str, rows: Iterable[pa.RecordBatch], node: str, agent: str = "") -> None:
        """Count rows of a table, or of TALLIES, that an agent on `node` sent.

        Without an agent they are the scheduler's own: the rows say whose they are.
        """
        for batch in rows:
            if table == "packets":
                octets = pc.sum(batch.column("original_length")).as_py() or 0
                self.store(node, batch.num_rows, octets)
            elif table == "losses":
                for row in batch.select(["node_name", "kind", "packets", "bytes"]).to_pylist():
                    self._lose(node if agent else row["node_name"], row)
            elif table == "tallies":
                # Each row of an agent replaces the one before.
                last = batch.slice(batch.num_rows - 1) if agent and batch.num_rows else batch
                columns = [
                    c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in last.columns
                ]
                for row in pa.table(columns, names=last.schema.names).to_pylist():
                    self.tell(_tally(row, node, agent))

    def store(self, node: str, packets: int, octets: int) -> None:
        """Count packets that are stored, or with numbers below 0 are not any more."""
        self.stored[node] = self.stored.get(node, Amount()).plus(packets, octets)

    def tell(self, tally: Tally) -> None:
        """Take an agent's counts; they replace what it told before."""
        before = self.tallies.get(tally.key)
        if before is not None:
            tally = Tally(
                *tally.key,
                max(before.end_ns, tally.end_ns),
                Amount(*map(max, before.seen, tally.seen)),
                Amount(*map(max, before.matched, tally.matched)),
            )
        self.tallies[tally.key] = tally
        if len(self.tallies) > MOST_TALLIES:
            self._fold()

    def merge(self, other: "Ledger") -> None:
        """Add another one, of other rows."""
        for tally in other.tallies.values():
            self.tell(tally)
        for node, amount in other.stored.items():
            self.store(node, *amount)
        for key, lost in other.lost.items():
            sums = zip(self.lost.get(key, Lost()), lost, strict=True)
            self.lost[key] = Lost(*(mine + theirs for mine, theirs in sums))
        self.is_whole = self.is_whole and other.is_whole

    def nodes(self) -> list[NodeCounts]:
        """Return what is known of each node, by name; nothing when it is not all."""
        if not self.is_whole:
            return []
        names = {t.node for t in self.tallies.values()} | self.stored.keys()
        names |= {node for node, _ in self.lost}
        return [self._node(name) for name in sorted(names)]

    def encode(self) -> dict[str, Any] | None:
        """Return it as JSON for a manifest."""
        if not self.is_whole:
            return None
        lost: dict[str, dict[str, Lost]] = {}
        for (node, kind), amount in self.lost.items():
            lost.setdefault(node, {})[kind] = amount
        tallies = [
            [t.agent, t.node, t.begin_ns, t.end_ns, *t.seen, *t.matched]
            for t in self.tallies.values()
        ]
        return {"tallies": tallies, "stored": self.stored, "lost": lost}

    @classmethod
    def decode(cls, found: Any) -> "Ledger":
        """Return what encode() has made; ValueError for anything else."""
        if found is None:
            return cls(is_whole=False)
        try:
            ledger = cls(
                stored={str(node): Amount(*_counts(n, 2)) for node, n in found["stored"].items()},
                lost={
                    (str(node), str(kind)): Lost(*_counts(numbers, 3))
                    for node, kinds in found["lost"].items()
                    for kind, numbers in kinds.items()
                },
            )
            for agent, node, *numbers in found["tallies"]:
                begin, end, *counts = _counts(numbers, 6)
                tally = Tally(
                    str(agent), str(node), begin, end, Amount(*counts[:2]), Amount(*counts[2:])
                )
                ledger.tallies[tally.key] = tally
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"its ledger is not one: {error}") from None
        return ledger

    def _lose(self, node: str, row: Mapping[str, Any]) -> None:
        key = (node, row["kind"] if row["kind"] in LOSS_KINDS else OTHER)
        times, packets, octets = self.lost.get(key, Lost())
        self.lost[key] = Lost(
            times + 1, packets + max(0, row["packets"]), octets + max(0, row["bytes"])
        )

    def _fold(self) -> None:
        """Add the tally that is oldest to its node's sum."""
        candidates = (tally for tally in self.tallies.values() if tally.agent)
        oldest = min(candidates, key=lambda tally: tally.end_ns, default=None)
        if oldest is None:
            return
        del self.tallies[oldest.key]
        key = ("", oldest.node, 0)
        before = self.tallies.get(key, replace(oldest, agent="", begin_ns=0, seen=Amount()))
        matched = before.matched if key in self.tallies else Amount()
        self.tallies[key] = replace(
            before,
            end_ns=max(before.end_ns, oldest.end_ns),
            seen=before.seen.plus(*oldest.seen),
            matched=matched.plus(*oldest.matched),
        )

    def _node(self, name: str) -> NodeCounts:
        mine = [tally for tally in self.tallies.values() if tally.node == name]
        seen = matched = Amount()
        for tally in mine:
            seen, matched = seen.plus(*tally.seen), matched.plus(*tally.matched)
        return NodeCounts(
            node=name,
            begin_ns=min((t.begin_ns for t in mine if t.begin_ns), default=0),
            end_ns=max((t.end_ns for t in mine), default=0),
            seen=seen,
            matched=matched,
            stored=self.stored.get(name, Amount()),
            lost={kind: lost for (node, kind), lost in sorted(self.lost.items()) if node == name},
        )


def rows(tallies: Iterable[Tally]) -> list[dict[str, Any]]:
    """Return tallies as rows of schema.TALLIES."""
    return [
        {
            "agent_id": tally.agent,
            "node_name": tally.node,
            "begin_time": tally.begin_ns,
            "end_time": tally.end_ns,
            "seen_packets": tally.seen.packets,
            "seen_bytes": tally.seen.bytes,
            "matched_packets": tally.matched.packets,
            "matched_bytes": tally.matched.bytes,
        }
        for tally in tallies
    ]


def _tally(row: Mapping[str, Any], node: str, agent: str) -> Tally:
    """Return a row of TALLIES; an agent cannot speak for another one."""
    return Tally(
        agent or row["agent_id"],
        node if agent else row["node_name"],
        max(0, row["begin_time"]),
        max(0, row["end_time"]),
        Amount(max(0, row["seen_packets"]), max(0, row["seen_bytes"])),
        Amount(max(0, row["matched_packets"]), max(0, row["matched_bytes"])),
    )


def _counts(found: Any, many: int) -> list[int]:
    numbers = list(found)
    if len(numbers) != many or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"{many} counts were expected")
    return numbers
