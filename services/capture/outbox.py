"""Batches on their way to the scheduler: what waits, what was sent, what had to be dropped.

`uplink` calls it, under its own lock: nothing here blocks or knows a thread. A batch gets its
number when it is first sent, so that what is dropped before leaves no hole in the numbers. With a
spool every batch is on disk as well, and those that memory has no room for are there alone.
"""

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from recorder.v1 import ingest_pb2

from recordings import schema
from services.capture.missing import Content, Missing
from services.capture.spool import Place, Spool, SpoolFullError, message_of
from services.runtime.logging import logger
from services.runtime.metrics import Histogram

_log = logger(__name__)

Parts = Sequence[tuple[str, pa.Table]]
"""Tables by their name in recordings.schema.PARTS."""

MAX_BATCH_BYTES = 3 << 20
"""Largest batch until the scheduler says what it takes: below gRPC's own default of 4 MiB."""

ENVELOPE_BYTES = 512
"""What a batch's message needs beside its Arrow data: names (of 63 octets), numbers, lengths."""

MOST_TOLD = 256
"""Runs whose latest counts are kept; the list of assignments has 64 at most."""

DELAY_BOUNDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0)
"""Seconds: batches are sent after 0.2, and the scheduler answers after a sync of its disk."""

TABLE_NUMBERS = {
    "entries": ingest_pb2.TABLE_ENTRIES,
    "streams": ingest_pb2.TABLE_STREAMS,
    "packets": ingest_pb2.TABLE_PACKETS,
    "losses": ingest_pb2.TABLE_LOSSES,
    "tallies": ingest_pb2.TABLE_TALLIES,
}
TABLE_NAMES = {number: name for name, number in TABLE_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one table, encoded."""

    table: str
    arrow_ipc: bytes
    rows: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch that has no number yet."""

    job: str
    run: int
    parts: tuple[Part, ...]
    final: bool
    content: Content
    place: Place | None = None
    """Where the spool has it."""
    is_in_memory: bool = True
    """Otherwise `parts` is empty, and the spool has them."""

    @property
    def size_bytes(self) -> int:
        """Memory that it takes; the spool bounds how many are there alone."""
        if not self.is_in_memory:
            return 0
        return ENVELOPE_BYTES + sum(len(part.arrow_ipc) for part in self.parts)

    @property
    def message_bytes(self) -> int:
        """A bound of its message's size."""
        if self.is_in_memory or self.place is None:
            return self.size_bytes
        return ENVELOPE_BYTES + self.place.length


@dataclass(slots=True)
class Counters:
    """What happened to batches since the process started."""

    queued: int = 0
    acknowledged: int = 0
    refused: int = 0
    dropped: int = 0
    dropped_bytes: int = 0
    unspooled: int = 0
    delay: Histogram = field(
        default_factory=lambda: Histogram(
            "capture_acknowledged_seconds",
            "Seconds from a batch's newest row on the wire until the scheduler had it on disk.",
            DELAY_BOUNDS,
        )
    )


def encode(table: pa.Table) -> bytes:
    """Return an Arrow IPC stream of `table`."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode(arrow_ipc: bytes) -> pa.Table:
    """Return the table of an Arrow IPC stream that encode() made."""
    with pa.ipc.open_stream(arrow_ipc) as reader:
        return reader.read_all()


def content(name: str, table: pa.Table) -> Content:
    """Return what `table`, one of recordings.schema.PARTS, holds."""
    rows = table.num_rows
    if not rows or name == "tallies":  # a later one has what one that is dropped had
        return Content()
    first, last = {
        "entries": ("start_time", "start_time"),
        "streams": ("matched_time", "matched_time"),
        "packets": ("time", "time"),
        "losses": ("start_time", "end_time"),
    }[name]
    start_ns = pc.min(table.column(first)).value
    end_ns = pc.max(table.column(last)).value
    octets = {"packets": "original_length", "losses": "bytes"}.get(name)
    return Content(
        entries=rows if name == "entries" else 0,
        streams=rows if name == "streams" else 0,
        packets=pc.sum(table.column("packets")).as_py()
        if name == "losses"
        else rows * (name == "packets"),
        octets=pc.sum(table.column(octets)).as_py() if octets else 0,
        start_ns=start_ns,
        end_ns=end_ns,
    )


def _pieces(name: str, table: pa.Table, limit: int) -> Iterator[tuple[Part | None, Content]]:
    """Cut `table` by rows into pieces of at most `limit` octets; None for a row that is larger."""
    encoded = encode(table)
    rows = table.num_rows
    if len(encoded) > limit:
        # Of a slice whose lists are all empty Arrow sends the offsets of the whole table's.
        table = table.take(np.arange(rows))
        encoded = encode(table)
    if len(encoded) <= limit:
        yield Part(name, encoded, rows), content(name, table)
    elif rows <= 1:
        yield None, content(name, table)
    else:
        step = max(1, min(rows // 2, math.floor(rows * limit / len(encoded))))
        for start in range(0, rows, step):
            yield from _pieces(name, table.slice(start, step), limit)


def batches(
    job: str, run: int, parts: Parts, final: bool, limit: int
) -> tuple[list[Waiting], Content]:
    """Encode `parts` as batches of at most `limit` octets each, in order.

    Returns them, and what is in rows that are larger than a batch can be. Only the last is final.
    """
    room = max(1, limit - ENVELOPE_BYTES)
    made: list[Waiting] = []
    parts_now: list[Part] = []
    held, too_large, used = Content(batches=1), Content(), 0
    for name, table in parts:
        if not table.num_rows:
            continue
        for part, inside in _pieces(name, table, room):
            if part is None:
                too_large += inside
                continue
            if parts_now and used + len(part.arrow_ipc) > room:
                made.append(Waiting(job, run, tuple(parts_now), False, held))
                parts_now, held, used = [], Content(batches=1), 0
            parts_now.append(part)
            held += inside
            used += len(part.arrow_ipc)
    if parts_now or final:
        made.append(Waiting(job, run, tuple(parts_now), final, held if parts_now else Content()))
    return made, too_large


@dataclass(slots=True)
class Outbox:
    """All batches that are not acknowledged. The memory limit is in octets."""

    node: str
    memory_limit: int
    max_batch_bytes: int = MAX_BATCH_BYTES
    window_bytes: int = 1
    used_bytes: int = 0
    """Memory that all of them take."""
    spool: Spool | None = None
    counters: Counters = field(default_factory=Counters)
    _waiting: deque[Waiting] = field(default_factory=deque)
    _again: deque[ingest_pb2.ConnectRequest] = field(default_factory=deque)
    _in_flight: deque[ingest_pb2.ConnectRequest] = field(default_factory=deque)
    _in_flight_bytes: int = 0
    _sequence: int = 0  # of the last batch that got a number
    _acknowledged: int = 0  # number of the last batch that is on disk
    _missing: Missing = field(default_factory=Missing)
    _told: dict[tuple[str, int], Part] = field(default_factory=dict)
    """What each run has counted last, for when the batch that says so is dropped."""
    _newest: deque[tuple[int, int]] = field(default_factory=deque)
    """Number of each batch in flight, and the time of its newest row."""
    _is_restored: bool = False
    """Some batches are of an agent before this one, under the same name."""
    _places: dict[int, Place] = field(default_factory=dict)
    """Where the spool has the batches that have a number."""

    def __post_init__(self) -> None:
        if self.spool is not None:
            self._missing = Missing(self.spool)
            self._restore(self.spool)

    @property
    def is_empty(self) -> bool:
        """Everything is acknowledged, and every drop is told."""
        return not (self._waiting or self._again or self._in_flight or self._missing)

    def has_room(self, size_bytes: int) -> bool:
        """Say whether a batch of that size can wait without another being dropped."""
        return not self.used_bytes or self.used_bytes + size_bytes <= self.memory_limit

    def put(self, batch: Waiting) -> None:
        """Take a batch; above a limit the oldest that was never sent is dropped."""
        for part in batch.parts:
            if part.table == "tallies":
                self._told.pop((batch.job, batch.run), None)
                self._told[batch.job, batch.run] = part  # the dict's order is that of age
                if len(self._told) > MOST_TOLD:
                    del self._told[next(iter(self._told))]
        batch = self._kept(batch)
        self._waiting.append(batch)
        self.used_bytes += batch.size_bytes
        self.counters.queued += 1
        self._drop_oldest()

    def miss(self, job: str, run: int, missing: Content) -> None:
        """Note that rows of a run will not arrive; a loss row will say so."""
        self._missing.add((job, run), missing)

    def take_back(self) -> Iterator[Waiting]:
        """Yield what was never sent, with its octets; it is not here any more."""
        while self._waiting:
            batch = self._waiting.popleft()
            loaded = self._loaded(batch)
            if loaded is not None:
                self._forget(batch)
                yield replace(loaded, place=None, is_in_memory=True)

    def take_missing(self) -> dict[tuple[str, int], Content]:
        """Return what is missing from runs and was not told; another outbox tells it."""
        return self._missing.take()

    def next(self) -> ingest_pb2.ConnectRequest | None:
        """Return the next message to send, if the window has room for one."""
        if self._again:
            return self._fly(self._again[0], self._again)
        self._tell_missing()
        while self._waiting:
            batch = self._waiting[0]
            if batch.message_bytes > self.max_batch_bytes and batch.content.batches:
                self._split_first()
                continue
            if not self._fits(batch.message_bytes) or not self._may_load(batch):
                return None
            self._waiting.popleft()
            loaded = self._loaded(batch)
            if loaded is None:
                continue
            self._sequence += 1
            request = _message(loaded, self._sequence)
            if self.spool is not None and batch.place is not None:
                self._places[self._sequence] = batch.place
                self.spool.sent(batch.place.serial, self._sequence)
            if batch.content.end_ns is not None:
                self._newest.append((self._sequence, batch.content.end_ns))
            self.used_bytes += _size(request) - batch.size_bytes
            return self._fly(request, None)
        return None

    def welcome(self, last_sequence: int, window_bytes: int, max_batch_bytes: int) -> bool:
        """Begin a session: what the scheduler does not have is sent again.

        False when the numbers cannot go on: it has fewer or more batches than this agent knows of,
        or no longer takes a batch as large as one that has a number. The caller then calls
        begin_again() and introduces itself under another name.
        """
        self.window_bytes = window_bytes
        self.max_batch_bytes = max_batch_bytes or MAX_BATCH_BYTES
        if self._is_restored:
            # Batches that only memory had may have got numbers, too.
            self._sequence = max(self._sequence, last_sequence)
            self._is_restored = False
        if last_sequence < self._acknowledged or last_sequence > self._sequence:
            return False
        first = min(self._numbers(), default=self._sequence + 1)
        if last_sequence + 1 < first:
            return False  # batches before were acknowledged to an agent before this one
        self.acknowledge(last_sequence)
        self._again = self._in_flight + self._again
        self._in_flight = deque()
        self._in_flight_bytes = 0
        return all(_size(request) <= self.max_batch_bytes for request in self._again)

    def begin_again(self, agent_id: str) -> None:
        """Take back all numbers. What was sent and is not acknowledged waits again, first."""
        if self.spool is not None:
            self.spool.name(agent_id)
        numbered = [*self._in_flight, *self._again]
        self._in_flight, self._again = deque(), deque()
        self._newest.clear()
        self._in_flight_bytes = self._sequence = self._acknowledged = 0
        for request in reversed(numbered):
            place = self._places.pop(request.batch.sequence, None)
            batch = replace(_without_number(request.batch), place=place)
            self.used_bytes += batch.size_bytes - _size(request)
            self._waiting.appendleft(batch)

    def acknowledge(self, sequence: int) -> None:
        """Forget all batches up to a number."""
        while self._newest and self._newest[0][0] <= sequence:
            _, newest_ns = self._newest.popleft()
            self.counters.delay.add((time.time_ns() - newest_ns) / 1e9)
        for requests in (self._in_flight, self._again):
            while requests and requests[0].batch.sequence <= sequence:
                request = requests.popleft()
                size = _size(request)
                self.used_bytes -= size
                place = self._places.pop(request.batch.sequence, None)
                if self.spool is not None and place is not None:
                    self.spool.settle(place.serial)
                if requests is self._in_flight:
                    self._in_flight_bytes -= size
                self.counters.acknowledged += 1
        self._acknowledged = max(self._acknowledged, min(sequence, self._sequence))

    def _fits(self, size_bytes: int) -> bool:
        """A window smaller than a batch must not stop everything: one may always be under way."""
        return not self._in_flight or self._in_flight_bytes + size_bytes <= self.window_bytes

    def _may_load(self, batch: Waiting) -> bool:
        """What the spool alone has waits for acknowledgements when memory is full."""
        full = self.used_bytes + batch.message_bytes > self.memory_limit
        return batch.is_in_memory or not self._in_flight or not full

    def _fly(
        self, request: ingest_pb2.ConnectRequest, source: deque[ingest_pb2.ConnectRequest] | None
    ) -> ingest_pb2.ConnectRequest | None:
        if source is not None:
            if not self._fits(_size(request)):
                return None
            source.popleft()
        self._in_flight.append(request)
        self._in_flight_bytes += _size(request)
        return request

    def _drop_oldest(self) -> None:
        """Drop until there is room; of a final batch the mark stays, or its run would never end."""
        kept: list[Waiting] = []
        while self._waiting and (self._is_memory_full or self._is_spool_full):
            batch = self._waiting.popleft()
            helps = (self._is_memory_full and batch.parts) or (self._is_spool_full and batch.place)
            if helps and batch.content.batches:
                self.counters.dropped += 1
                self.counters.dropped_bytes += batch.message_bytes
                self._lose(batch)
                if not batch.final:
                    continue
                batch = self._kept(Waiting(batch.job, batch.run, (), True, Content()))
                self.used_bytes += batch.size_bytes
            kept.append(batch)
        self._waiting.extendleft(reversed(kept))

    @property
    def _is_memory_full(self) -> bool:
        return self.used_bytes > self.memory_limit

    @property
    def _is_spool_full(self) -> bool:
        return self.spool is not None and self.spool.used_bytes > self.spool.limit_bytes

    def _lose(self, batch: Waiting) -> None:
        serial = batch.place.serial if batch.place else 0
        self._missing.add((batch.job, batch.run), batch.content, serial)
        self._forget(batch)

    def _forget(self, batch: Waiting) -> None:
        self.used_bytes -= batch.size_bytes
        if self.spool is not None and batch.place is not None:
            self.spool.settle(batch.place.serial)

    def _kept(self, batch: Waiting) -> Waiting:
        """Put a batch into the spool, when there is one that takes it."""
        if self.spool is None:
            return batch
        try:
            place = self.spool.append(_message(batch, 0).batch.SerializeToString())
        except SpoolFullError as error:
            if not self.counters.unspooled:
                _log.warning("batches are kept in memory alone", reason=str(error))
            self.counters.unspooled += 1
            return batch
        # Memory is for the first that are sent: those behind must not keep it from the ones before.
        is_behind = bool(self._waiting) and not self._waiting[-1].is_in_memory
        if not is_behind and self.used_bytes + batch.size_bytes <= self.memory_limit:
            return replace(batch, place=place)
        return replace(batch, place=place, parts=(), is_in_memory=False)

    def _loaded(self, batch: Waiting) -> Waiting | None:
        """Return the batch with its parts; None, and a loss, when the disk has it no more."""
        if batch.is_in_memory:
            return batch
        assert self.spool is not None
        assert batch.place is not None
        try:
            message = message_of(self.spool.read(batch.place))
        except (OSError, DecodeError) as error:
            _log.error("a batch in the spool cannot be read", reason=str(error))
            self._lose(batch)
            return None
        return replace(batch, parts=_parts(message))

    def _restore(self, spool: Spool) -> None:
        """Take up what an agent before this one left."""
        # A loss row, and the pieces of a batch that was cut, go before what was there earlier.
        for place, number in sorted(spool.left, key=lambda left: left[1] or math.inf):
            if place.serial in self._missing.gone:
                spool.settle(place.serial)
                continue
            try:
                message = message_of(spool.read(place))
                batch = replace(_without_number(message), place=place)
            except (OSError, DecodeError, pa.ArrowException, KeyError) as error:
                _log.error("a batch in the spool is no batch", reason=str(error))
                spool.settle(place.serial)
                continue
            self.counters.queued += 1
            if number > self._sequence:
                for missing in range(self._sequence + 1, number) if self._again else ():
                    # It had a number and was in memory alone; the scheduler may have it.
                    self._number_again(Waiting(batch.job, batch.run, (), False, Content()), missing)
                self._number_again(batch, number)
                self._places[number] = place
            else:
                waiting = replace(batch, parts=(), is_in_memory=False)
                self._waiting.append(waiting)
                self.used_bytes += waiting.size_bytes
        spool.left.clear()
        self._is_restored = True

    def _number_again(self, batch: Waiting, number: int) -> None:
        request = _message(batch, number)
        self._again.append(request)
        self._sequence = number
        self.used_bytes += _size(request)

    def _numbers(self) -> Iterator[int]:
        """Yield the numbers of all batches that have one."""
        for requests in (self._in_flight, self._again):
            for request in requests:
                yield request.batch.sequence

    def _tell_missing(self) -> None:
        """Queue loss rows once there is room again, or when a run would end without them."""
        if not self._missing:
            return
        first = self._waiting[0] if self._waiting else None
        for job, run in list(self._missing.by_run):
            ends = first is not None and first.final and (first.job, first.run) == (job, run)
            if ends or self._has_calmed:
                table = loss_table(self.node, self._missing.tell((job, run)))
                made, _ = batches(job, run, [("losses", table)], False, self.max_batch_bytes)
                told = self._told.get((job, run))
                if told is not None:
                    made[0] = replace(made[0], parts=(*made[0].parts, told))
                for batch in map(self._kept, made):
                    self._waiting.appendleft(batch)
                    self.used_bytes += batch.size_bytes
                self._missing.told((job, run))

    @property
    def _has_calmed(self) -> bool:
        is_spool_calm = self.spool is None or self.spool.used_bytes <= self.spool.limit_bytes // 2
        return self.used_bytes <= self.memory_limit // 2 and is_spool_calm

    def _split_first(self) -> None:
        batch = self._waiting.popleft()
        loaded = self._loaded(batch)
        if loaded is None:
            return
        self._forget(batch)
        batch = loaded
        tables = [(part.table, decode(part.arrow_ipc)) for part in batch.parts]
        made, too_large = batches(batch.job, batch.run, tables, batch.final, self.max_batch_bytes)
        self.miss(batch.job, batch.run, too_large)
        for piece in reversed([self._kept(piece) for piece in made]):
            self._waiting.appendleft(piece)
            self.used_bytes += piece.size_bytes


def loss_table(node: str, missing: Content) -> pa.Table:
    """Return the loss row for what was dropped."""
    detail = (
        f"{missing.batches} batches with {missing.entries} entries, {missing.streams} streams and "
        f"{missing.packets} packets were dropped by the capture agent"
    )
    row = {
        "node_name": node,
        "kind": "uplink_overrun",
        "start_time": missing.start_ns or 0,
        "end_time": missing.end_ns or 0,
        "packets": missing.packets,
        "bytes": missing.octets,
        "stream": None,
        "detail": detail,
    }
    return pa.Table.from_pylist([row], schema=schema.LOSSES)


def _message(batch: Waiting, sequence: int) -> ingest_pb2.ConnectRequest:
    request = ingest_pb2.ConnectRequest()
    message = request.batch
    message.sequence = sequence
    message.job, message.run, message.final = batch.job, batch.run, batch.final
    for part in batch.parts:
        message.parts.add(table=TABLE_NUMBERS[part.table], arrow_ipc=part.arrow_ipc, rows=part.rows)
    return request


def _parts(message: ingest_pb2.Batch) -> tuple[Part, ...]:
    return tuple(Part(TABLE_NAMES[part.table], part.arrow_ipc, part.rows) for part in message.parts)


def _without_number(message: ingest_pb2.Batch) -> Waiting:
    parts = _parts(message)
    inside: Iterable[Content] = (content(part.table, decode(part.arrow_ipc)) for part in parts)
    held = sum(inside, start=Content(batches=1)) if parts else Content()
    return Waiting(message.job, message.run, parts, message.final, held)


def _size(request: ingest_pb2.ConnectRequest) -> int:
    return request.ByteSize()
