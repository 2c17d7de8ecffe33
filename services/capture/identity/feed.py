"""Names for capture processes that another one watches for. `workers` has a Feed for each of them.

A process that is slow does not hold up the others: what it has not taken yet is joined, so never
more waits than there are addresses.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

from services.capture.identity.names import Names
from services.capture.identity.owners import Change

MOST_AT_ONCE = 2000
"""Changes in a message: half a megabyte."""


class Feed:
    """Sends changes to one process, from a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._pending: dict[tuple[bytes, int], Change] = {}
        self._state: tuple[bool, str] | None = None
        self._is_ended = False
        self._thread = threading.Thread(target=self._send, name="names-feed", daemon=True)
        self._thread.start()

    def __call__(self, changes: Sequence[Change], is_complete: bool, note: str) -> None:
        """Take changes, as a Receiver."""
        with self._changed:
            self._pending.update(((each.place, each.begin_ns), each) for each in changes)
            self._state = is_complete, note
            self._changed.notify()

    def end(self) -> None:
        """Send no more."""
        with self._changed:
            self._is_ended = True
            self._changed.notify()
        self._thread.join(1.0)
        self._connection.close()

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._state is not None or self._is_ended)
                if self._is_ended or self._state is None:
                    return
                (is_complete, note), self._state = self._state, None
                changes, self._pending = list(self._pending.values()), {}
            starts = range(0, max(1, len(changes)), MOST_AT_ONCE)
            try:
                for start in starts:
                    is_last = start == starts[-1]
                    piece = changes[start : start + MOST_AT_ONCE]
                    self._connection.send((piece, is_complete and is_last, note))
            except OSError:
                return  # the process has ended


def follow(connection: Connection, names: Names) -> None:
    """Take what a Feed sends, in a thread, for as long as it sends."""

    def receive() -> None:
        while True:
            try:
                names.take(*connection.recv())
            except (EOFError, OSError):
                return

    threading.Thread(target=receive, name="names", daemon=True).start()
