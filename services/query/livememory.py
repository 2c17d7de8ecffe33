"""The last minutes of live traffic, in memory. live.py adds what comes, and reads.

Rows keep their order of arrival and a number that counts on, so that a follower can go on where it
was. What is older than the window goes, and above the memory limit the oldest does; that is a loss.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from recordings import ledger as ledgers
from recordings import schema
from recordings.manifest import Manifest
from recordings.snapshot import RunView, Snapshot

RECORD: Final = ""
"""What `record` is in live traffic; no recording can have such a name."""

LIVE_OVERRUN: Final = "live_overrun"
AGENT_GONE: Final = "agent_gone"

PIECES: Final = 32
"""Rows go in pieces, at most such a part of the window and of the memory."""

MOST_LASTING: Final = 1000
"""Losses that outlive the window: those that say that a node sees a sample, since they are told
once."""


@dataclass(slots=True)
class _Piece:
    first: int
    """Number of its first row."""
    since: float
    until: float
    table: pa.Table


@dataclass(slots=True)
class _Rows:
    """Rows of one table in the order of arrival."""

    schema: pa.Schema
    span: float
    """Seconds, and octets, of a piece at most."""
    most: int
    end: int = 0
    """Number of the row that will come next."""
    octets: int = 0
    _pieces: deque[_Piece] = field(default_factory=deque)

    def add(self, table: pa.Table, now: float) -> None:
        """Take rows. Two neighbours of about one size become one, so there are few pieces, and each
        row is copied as often as the logarithm of their number.
        """
        if not table.num_rows:
            return
        table = table.combine_chunks()
        pieces = self._pieces
        pieces.append(_Piece(self.end, now, now, table))
        self.end += table.num_rows
        self.octets += table.nbytes
        while len(pieces) > 1:
            one, other = pieces[-2], pieces[-1]
            size = one.table.nbytes + other.table.nbytes
            if (
                one.table.num_rows > 2 * other.table.num_rows
                or other.until - one.since > self.span
                or size > self.most
            ):
                break
            pieces.pop()
            one.table = pa.concat_tables([one.table, other.table]).combine_chunks()
            one.until = other.until
            self.octets += one.table.nbytes - size

    def drop_first(self) -> pa.Table:
        """Remove the oldest piece; return it."""
        piece = self._pieces.popleft()
        self.octets -= piece.table.nbytes
        return piece.table

    def drop_before(self, moment: float) -> list[pa.Table]:
        """Remove the pieces that came before; return them."""
        gone = []
        while self._pieces and self._pieces[0].until < moment:
            gone.append(self.drop_first())
        return gone

    def after(self, number: int) -> pa.Table:
        """Return the rows from a number on."""
        parts = [self.schema.empty_table()]
        for piece in self._pieces:
            if piece.first + piece.table.num_rows > number:
                parts.append(piece.table.slice(max(0, number - piece.first)))
        return pa.concat_tables(parts)


class Memory:
    """What is there of live traffic now. Not safe for several threads at once."""

    def __init__(self, window_seconds: float, memory_bytes: int) -> None:
        self._window = window_seconds
        self._most = memory_bytes
        span, most = window_seconds / PIECES, memory_bytes // PIECES
        self._entries = _Rows(schema.ENTRIES, span, most)
        self._losses = _Rows(schema.LOSSES, span, most)
        self._lasting: list[pa.Table] = []
        self._ledger = ledgers.Ledger()

    @property
    def ends(self) -> tuple[int, int]:
        """Numbers of the next entry and the next loss."""
        return self._entries.end, self._losses.end

    def add(
        self, source: str, node: str, parts: Iterable[tuple[str, list[pa.RecordBatch]]], now: float
    ) -> None:
        """Take rows of tables from an agent; `now` is monotonic."""
        for table, batches in parts:
            self._ledger.add(table, batches, node, source)
            if table == "entries":
                self._entries.add(pa.Table.from_batches(batches, schema.ENTRIES), now)
            elif table == "losses":
                self._losses.add(pa.Table.from_batches(batches, schema.LOSSES), now)
        dropped = 0
        while self._entries.octets > self._most:
            dropped += self._entries.drop_first().num_rows
        if dropped:
            detail = (
                f"{dropped} entries of live traffic were dropped before their time, since the "
                "query service has no memory for more; --live-memory gives it some"
            )
            self.lose(LIVE_OVERRUN, "", detail, now)

    def lose(
        self,
        kind: str,
        node: str,
        detail: str,
        now: float,
        since_ns: int | None = None,
    ) -> None:
        """Write a row of LOSSES, of now or from `since_ns` (since 1970) to now."""
        time_ns = time.time_ns()
        row = {"node_name": node, "kind": kind, "packets": 0, "bytes": 0, "stream": None}
        times = {"start_time": time_ns if since_ns is None else since_ns, "end_time": time_ns}
        table = pa.Table.from_pylist([{**row, **times, "detail": detail}], schema=schema.LOSSES)
        self._ledger.add("losses", table.to_batches(), node, "")
        self._losses.add(table, now)

    def trim(self, now: float) -> None:
        """Remove what is older than the window."""
        self._entries.drop_before(now - self._window)
        for gone in self._losses.drop_before(now - self._window):
            lasting = gone.filter(pc.equal(gone["kind"], "sampled"))
            if sum(found.num_rows for found in self._lasting) < MOST_LASTING:
                self._lasting.append(lasting)
        oldest_ns = time.time_ns() - int(self._window * 1e9)
        tallies = self._ledger.tallies
        for key in [key for key, tally in tallies.items() if tally.end_ns < oldest_ns]:
            del tallies[key]

    def snapshot(self, notes: Sequence[str]) -> Snapshot:
        """Return it as a recording of one run that has only a tail; `notes` are for people."""
        losses = pa.concat_tables([*self._lasting, self._losses.after(0)])
        tails: Mapping[str, pa.Table] = {"entries": self._entries.after(0), "losses": losses}
        manifest = Manifest(RECORD, 1, id="live")
        octets = self._entries.octets
        run = RunView(1, Path("~live"), manifest, tails, (), octets, self._ledger.copy())
        return Snapshot(RECORD, (run,), tuple(notes))

    def after(self, ends: tuple[int, int]) -> tuple[pa.Table, pa.Table]:
        """Return the entries and losses that came since `ends` was asked."""
        return self._entries.after(ends[0]), self._losses.after(ends[1])
