"""Live traffic that waits for the connection to the scheduler; `uplink` calls it, under its lock.

Nobody waits for it after a break, so nothing is acknowledged, spooled or sent again: what finds no
room is dropped, oldest first, and the loss is told.
"""

from collections import deque
from dataclasses import dataclass, field

from recorder.v1 import ingest_pb2

from services.capture import outbox
from services.capture.missing import Content
from services.capture.outbox import MAX_BATCH_BYTES, TABLE_NUMBERS, Parts, Waiting

JOB = "~live"
"""Job of a live run in this process; no job can have such a name."""

FLUSH_SECONDS = 0.1
"""Rows leave the agent at most this late: someone looks at them as they come."""

MEMORY_BYTES = 8 << 20
"""Octets that wait; what a viewer would see seconds late is worth no more."""

TABLES = ("entries", "losses", "tallies")
"""What is sent: the streams and packets of calls are kept by jobs alone."""


@dataclass(slots=True)
class LiveBox:
    """Messages that were not sent yet."""

    node: str
    memory_limit: int = MEMORY_BYTES
    _waiting: deque[Waiting] = field(default_factory=deque)
    _used: int = 0
    _missing: Content = field(default_factory=Content)
    _run: int = 0
    _number: int = 0

    def put(self, run: int, parts: Parts) -> None:
        """Take tables; above the limit the oldest are dropped."""
        wanted = [(name, table) for name, table in parts if name in TABLES]
        made, too_large = outbox.batches(JOB, run, wanted, False, MAX_BATCH_BYTES)
        self._missing += too_large
        for batch in made:
            self._waiting.append(batch)
            self._used += batch.size_bytes
        while self._used > self.memory_limit and len(self._waiting) > 1:
            dropped = self._waiting.popleft()
            self._used -= dropped.size_bytes
            self._missing += dropped.content

    def next(self) -> ingest_pb2.ConnectRequest | None:
        """Return the next message, and what is lost with it; None when there is none."""
        if not self._waiting:
            return None
        batch = self._waiting.popleft()
        self._used -= batch.size_bytes
        if batch.run != self._run:
            self._run, self._number = batch.run, 0
        self._number += 1
        parts = list(batch.parts)
        if self._missing != Content():
            table = outbox.loss_table(self.node, self._missing)
            parts.append(outbox.Part("losses", outbox.encode(table), 1))
            self._missing = Content()
        message = ingest_pb2.LiveRows(run=batch.run, number=self._number)
        for part in parts:
            message.parts.add(
                table=TABLE_NUMBERS[part.table], arrow_ipc=part.arrow_ipc, rows=part.rows
            )
        return ingest_pb2.ConnectRequest(live=message)

    def clear(self) -> None:
        """Forget all, because nobody is there to hear of it."""
        self._waiting.clear()
        self._used, self._missing = 0, Content()
