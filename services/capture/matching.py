"""Which calls go into which recording. `agent` asks once for each batch.

A recording keeps whole streams: from the first entry of a stream that matches a run's filter on,
all entries of it belong to that run, whether they match by themselves or not. So a filter is asked
only about streams that are not in yet; hot columns decide first, and an entry is built only where
they cannot rule it out. A live run gets the entries that match, and nothing else of their streams.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kfl.batch import Batch, Columns, Mask, Shared
from recordings.entry import objects
from services.capture.assignments import ActiveRun
from services.capture.calls import matching_rows
from services.runtime.logging import logger

NO_STREAM = 0
"""The stream number of a call that belongs to none; such a call is kept when it matches itself."""

Numbers = npt.NDArray[np.int64]
NO_NUMBERS: Numbers = np.empty(0, np.int64)
NEW = np.bool_(True)

_log = logger(__name__)


class Calls(Protocol):
    """Calls of one protocol, as a pipeline yields them."""

    protocol: str
    """Its name, as protocol.name in an entry."""

    def __len__(self) -> int: ...

    @property
    def streams(self) -> Numbers:
        """Stream number of each call."""

    @property
    def constants(self) -> Mapping[str, Shared]:
        """Hot columns that are the same for all calls of this protocol on this node."""

    def columns(self) -> Columns:
        """Hot columns, for Filter.bounds; those of `constants` too."""

    def entries(self, rows: np.ndarray) -> pa.Table:
        """Schema ENTRIES, for the chosen rows."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What one batch brings to the recordings."""

    opened: tuple[tuple[ActiveRun, Numbers], ...]
    """Streams that matched a run for the first time: ascending numbers, each once."""
    entries: tuple[tuple[ActiveRun, pa.Table], ...]
    """Schema ENTRIES, never empty; a run may have one table for each protocol."""


class StreamBits:
    """For each of the last streams, the runs that it is in: bit n is the run whose `bit` is n.

    Stream number n is in row n & (rows - 1) until as many more streams have been opened, as in the
    flow table; a row is good only for the number that it was written for.
    """

    def __init__(self, most_streams: int) -> None:
        if most_streams < 1 or most_streams & (most_streams - 1):
            raise ValueError(f"The number of streams is a power of two, not {most_streams}.")
        self._mask = most_streams - 1
        self._numbers = np.full(most_streams, NO_STREAM, np.int64)
        self._bits = np.zeros(most_streams, np.uint64)

    def of(self, streams: Numbers) -> npt.NDArray[np.uint64]:
        """Return the bits of each stream."""
        rows = streams & self._mask
        known = (self._numbers[rows] == streams) & (streams != NO_STREAM)
        return np.where(known, self._bits[rows], np.uint64(0))

    def add(self, streams: Numbers, bit: int) -> None:
        """Put streams, each given once, into a run."""
        streams = streams[streams != NO_STREAM]
        rows = streams & self._mask
        self._bits[rows] = self.of(streams) | flag(bit)
        self._numbers[rows] = streams

    def clear(self, bit: int) -> None:
        """Take all streams out of a run, so that another one can have its bit."""
        self._bits &= ~flag(bit)


class Matcher:
    """Remembers which streams are in which run."""

    def __init__(self, most_streams: int) -> None:
        """`most_streams` is the pipeline's: a power of two."""
        self.bits = StreamBits(most_streams)
        self._failed: set[tuple[str, int]] = set()
        self._runs: Sequence[ActiveRun] = ()
        self._candidates: dict[Hashable, list[ActiveRun]] = {}  # of `_runs`, by what calls share

    def begin(self, run: ActiveRun) -> None:
        """Prepare for a run; its bit may have been another one's."""
        self.bits.clear(run.bit)
        self._failed.discard(run.key)

    def match(self, batch: Sequence[Calls], runs: Sequence[ActiveRun]) -> Matches:
        """Decide about all calls of a batch."""
        if runs is not self._runs:
            self._runs, self._candidates = runs, {}
        built = [_Entries(calls, self.bits) for calls in batch if len(calls)]
        found: dict[int, list[Numbers]] = {}  # streams, by the run's bit
        for entries in built:
            for run in self._possible(entries.calls):
                rows = self._matching_rows(entries, run)
                if len(rows):
                    if not run.assignment.live:
                        streams = entries.calls.streams[rows]
                        found.setdefault(run.bit, []).append(streams[streams != NO_STREAM])
                    entries.bits[rows] |= flag(run.bit)
        opened: list[tuple[ActiveRun, Numbers]] = []
        for run in runs:
            numbers = np.unique(np.concatenate(found[run.bit])) if run.bit in found else NO_NUMBERS
            if len(numbers):
                self.bits.add(numbers, run.bit)
                opened.append((run, numbers))
        tables: list[tuple[ActiveRun, pa.Table]] = []
        for entries in built:
            if opened:  # calls of the batch from before the match belong to it, too
                entries.bits |= self.bits.of(entries.calls.streams)
            tables += [(run, entries.take(rows)) for run, rows in chosen_rows(entries.bits, runs)]
        return Matches(tuple(opened), tuple(tables))

    def _possible(self, calls: Calls) -> list[ActiveRun]:
        """Return the runs whose filter some call of this protocol may match."""
        key = calls.protocol, frozenset(calls.constants.items())
        found = self._candidates.get(key)
        if found is None:
            columns = Batch(calls.constants, 1)
            found = [run for run in self._runs if run.filter.bounds(columns, 1)[0].any()]
            self._candidates[key] = found
        return found

    def _matching_rows(self, entries: _Entries, run: ActiveRun) -> np.ndarray:
        """Return rows whose call matches the run and whose stream is not in it yet."""
        is_new: Mask = NEW
        if entries.runs >> run.bit & 1:
            is_new = (entries.bits & flag(run.bit)) == 0
        if run.is_full or not is_new.any():
            return NO_NUMBERS
        try:
            rows = matching_rows(run.filter, entries.columns, is_new, entries.objects)
        except Exception:
            # One run's filter must not end the capture of all others.
            if run.key not in self._failed:
                self._failed.add(run.key)
                _log.exception("a filter failed", job=run.key[0], run=run.key[1])
            return NO_NUMBERS
        rows = rows[: run.room]
        run.hits += len(rows)
        return rows


def chosen_rows(
    bits: npt.NDArray[np.uint64], runs: Sequence[ActiveRun]
) -> Iterator[tuple[ActiveRun, np.ndarray]]:
    """Yield each run with the rows that have its bit, if there are any."""
    there = int(np.bitwise_or.reduce(bits))
    for run in runs:
        if there >> run.bit & 1:
            yield run, np.flatnonzero(bits & flag(run.bit))


class _Entries:
    """Entries of one Calls, each built at most once for all runs."""

    def __init__(self, calls: Calls, bits: StreamBits) -> None:
        self.calls = calls
        self.bits = bits.of(calls.streams)
        """uint64: the runs that each call is in."""
        self.runs = int(np.bitwise_or.reduce(self.bits))
        """The runs that any of them was in before this batch."""
        self._built: pa.Table | None = None
        self._where = np.full(len(calls), -1, np.int64)  # row in `_built`
        self._objects: dict[int, dict[str, Any]] = {}

    @cached_property
    def columns(self) -> Batch:
        """Return what filters share."""
        return Batch(self.calls.columns(), len(self.calls))

    def objects(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """Return the entries of some rows, which ascend, as JSON objects."""
        missing = np.array([row for row in rows.tolist() if row not in self._objects], np.int64)
        if len(missing):
            made = objects(self.take(missing))
            self._objects.update(zip(missing.tolist(), made, strict=True))
        return [self._objects[row] for row in rows.tolist()]

    def take(self, rows: np.ndarray) -> pa.Table:
        """Return the entries of some rows, which ascend."""
        missing = rows[self._where[rows] < 0]
        if len(missing):
            table = self.calls.entries(missing)
            already = 0 if self._built is None else self._built.num_rows
            self._where[missing] = np.arange(already, already + len(missing))
            self._built = table if not already else pa.concat_tables([self._built, table])
        where = self._where[rows]
        assert self._built is not None
        if len(where) == self._built.num_rows and bool(np.all(np.diff(where) == 1)):
            return self._built
        return self._built.take(pa.array(where))


def flag(bit: int) -> np.uint64:
    """Return the word that has only this bit."""
    return np.uint64(1) << np.uint64(bit)
