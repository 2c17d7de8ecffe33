"""An agent's uplinks to several schedulers, of which it uses one at a time; `worker` makes them.

What is stored exactly once has to be counted by one scheduler. Therefore a batch that was sent to a
scheduler stays with it, under a name that no other scheduler hears: it is sent again when that one
is back, and never to another. When the scheduler in use is away, what was not sent yet, and all
that comes, goes to the next one.
"""

import threading
import zlib
from collections.abc import Callable, Mapping, Sequence

from services.capture.assignments import Assignment
from services.capture.outbox import Counters, Parts
from services.capture.uplink import Uplink
from services.runtime.logging import logger

MOVE_SECONDS = 3.0
"""How long a scheduler may be away before the agent goes to another one."""

TRY_SECONDS = 1.0
"""How long another one may take to connect and tell what to record."""

LOOK_SECONDS = 0.25
"""How often that is looked at."""

Key = tuple[str, int]
"""Job and run."""

Make = Callable[[str, threading.Condition, Counters], Uplink]
"""Makes the uplink to an address; all share one lock and one set of counters."""

_log = logger(__name__)


class Uplinks:
    """Has what Uplink has, for several addresses. Methods are thread-safe."""

    def __init__(self, addresses: Sequence[str], node: str, make: Make) -> None:
        """Nodes begin with different addresses, so that all schedulers have work."""
        begin = zlib.crc32(node.encode()) % len(addresses)
        self._addresses = [*addresses[begin:], *addresses[:begin]]
        self._changed = threading.Condition()
        self.counters = Counters()
        """What happened to batches so far, of all."""
        self._make = make
        self._uplinks = {a: self._new(a) for a in self._addresses}
        self._started: set[str] = set()
        self._current = self._addresses[0]
        self._revisions = 0  # lists that came before the current uplink was in use
        self._told: dict[Key, dict[str, int]] = {}  # calls, by run and address
        self._on: dict[Key, set[str]] = {}  # addresses to which something of a run was sent
        self._tried = ""  # address that may be the next
        self._try_until = 0.0  # seconds of being away
        self._reconnects = 0  # of uplinks that are not used any more
        self._away = 0.0  # seconds for which there was no session
        self._stopping = False
        self._thread = threading.Thread(target=self._watch, name="uplinks", daemon=True)

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """The latest list from the scheduler in use."""
        return self._uplink.assignments

    @property
    def revision(self) -> int:
        """Counts the lists that came; 0 when none did."""
        with self._changed:
            return self._revisions + self._uplink.revision

    @property
    def elsewhere(self) -> Mapping[Key, int]:
        """How many calls have matched on other agents, by job and run, of runs with a limit()."""
        with self._changed:
            found = self._uplink.elsewhere
            return {key: max(0, calls - self._told_others(key)) for key, calls in found.items()}

    @property
    def used_bytes(self) -> int:
        """Octets of batches that are not acknowledged."""
        return sum(uplink.used_bytes for uplink in self._uplinks.values())

    @property
    def spool_bytes(self) -> int:
        """Octets of the spools' files."""
        return sum(uplink.spool_bytes for uplink in self._uplinks.values())

    @property
    def reconnects(self) -> int:
        """Sessions that ended before the uplinks were stopped."""
        return self._reconnects + sum(uplink.reconnects for uplink in self._uplinks.values())

    @property
    def failure(self) -> str:
        """Why there is no session now, as a sentence; empty when there is one."""
        return self._uplink.failure

    def start(self) -> None:
        """Begin to connect: to the first, and to those for which something was left."""
        self._begin(self._current)
        for address, uplink in self._uplinks.items():
            if not uplink.is_idle:
                self._begin(address)
        self._thread.start()

    def send(self, job: str, run: int, parts: Parts, final: bool = False) -> None:
        """Queue tables for a run, as Uplink does; all schedulers hear of its end."""
        with self._changed:
            self._uplink.send(job, run, parts, final)
            self._on.setdefault((job, run), set()).add(self._current)
            if final:
                self._end_elsewhere(job, run)

    def tell_matched(self, job: str, run: int, calls: int) -> None:
        """Let other agents know how many calls of a run with a limit() have matched here."""
        with self._changed:
            own = calls - self._told_others((job, run))
            self._told.setdefault((job, run), {})[self._current] = own
            self._uplink.tell_matched(job, run, own)

    def tell_probed(
        self, probe: int, entries: int, streams: int, packets: int, octets: int
    ) -> None:
        """Tell what a probe has counted."""
        self._uplink.tell_probed(probe, entries, streams, packets, octets)

    def send_live(self, run: int, parts: Parts) -> None:
        """Send tables of a live run to the scheduler in use."""
        self._uplink.send_live(run, parts)

    def flush(self, timeout: float) -> bool:
        """Wait until all is acknowledged; False when it is not within `timeout` seconds."""
        with self._changed:
            uplinks = self._uplinks.values()
            return self._changed.wait_for(lambda: all(u.is_idle for u in uplinks), timeout)

    def wait_for_assignments(self, after_revision: int, timeout: float) -> bool:
        """Wait for a list newer than `after_revision`; False when none comes within the seconds."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self._stopping or self.revision > after_revision, timeout
            ) and (self.revision > after_revision)

    def stop(self) -> None:
        """End all sessions. What is not acknowledged by now is lost, and logged."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        for uplink in self._uplinks.values():
            uplink.stop()

    @property
    def _uplink(self) -> Uplink:
        return self._uplinks[self._current]

    def _new(self, address: str) -> Uplink:
        return self._make(address, self._changed, self.counters)

    def _begin(self, address: str) -> None:
        if address not in self._started:
            self._started.add(address)
            self._uplinks[address].start()

    def _told_others(self, key: Key) -> int:
        """Return how many calls of this agent the schedulers that are not in use know of."""
        return sum(n for address, n in self._told.get(key, {}).items() if address != self._current)

    def _end_elsewhere(self, job: str, run: int) -> None:
        """Tell the schedulers that this agent has spoken with that nothing more comes."""
        sent_to = self._on.pop((job, run), set())
        for address in self._started - {self._current}:
            if address in sent_to or self._uplinks[address].is_connected:
                self._uplinks[address].send(job, run, [], final=True)
        self._told.pop((job, run), None)

    # ---- the thread

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, LOOK_SECONDS)
                if self._stopping:
                    return
                self._away = 0.0 if self._uplink.is_connected else self._away + LOOK_SECONDS
                if self._away >= MOVE_SECONDS:
                    self._look_for_another()
                unused = self._unused()
            for address in unused:  # without the lock, which its threads need to end
                self._uplinks[address].stop()
                with self._changed:
                    self._reconnects += self._uplinks[address].reconnects
                    self._uplinks[address] = self._new(address)
                    self._started.discard(address)

    def _look_for_another(self) -> None:
        """Try the other addresses, one after the other; use one that tells what to record."""
        found = self._tried and self._uplinks[self._tried]
        if self._tried and found and found.is_told:
            self._move(self._tried)
        elif self._away >= self._try_until:
            place = self._addresses.index(self._tried or self._current) + 1
            others = [*self._addresses[place:], *self._addresses[:place]]
            self._tried = next(a for a in others if a != self._current)
            self._try_until = self._away + TRY_SECONDS
            self._begin(self._tried)

    def _unused(self) -> list[str]:
        """Return the addresses that were begun and that nothing was sent to which is not settled.

        A session there would count as one more agent.
        """
        if not self._away:
            self._tried, self._try_until = "", 0.0
        used = {self._current, self._tried}.union(*self._on.values())
        return [a for a in self._started - used if self._uplinks[a].is_idle]

    def _move(self, address: str) -> None:
        before, after = self._uplink, self._uplinks[address]
        _log.warning("goes to another scheduler", address=address, from_address=self._current)
        # One more, so that the list counts as new, whatever number it has.
        self._revisions = self._revisions + before.revision + 1 - after.revision
        self._current, self._tried = address, ""
        self._away = self._try_until = 0.0
        for job, run in before.hand_over(after):
            before.send(job, run, [], final=True)
        self._changed.notify_all()
