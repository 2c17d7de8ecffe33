"""Frames from several interfaces of Linux, which may come and go. `app` opens them.

An interface of a pod lives as long as the pod. Names may have wildcards (`veth*`), and an interface
that appears later is captured from within SCAN_SECONDS.
"""

import fnmatch
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from services.capture.frames.afpacket import (
    ANY,
    BLOCK_SIZE,
    POLL_TIMEOUT_MS,
    AfPacket,
    Counts,
    Instruction,
)
from services.capture.frames.batch import FRAME, CaptureError, FrameBatch, Loss
from services.capture.frames.walk import LARGEST_FRAME
from services.runtime.logging import logger

SCAN_SECONDS = 1.0
"""How often the list of interfaces is looked at."""

WILDCARDS = frozenset("*?[")

_log = logger(__name__)

NOTHING = Counts(0, 0, 0, 0, 0)

Open = Callable[[str], AfPacket]


class Interfaces:
    """A FrameSource over interfaces by name; a batch comes from one of them."""

    def __init__(self, names: Sequence[str], open_one: Open) -> None:
        """Open what is there now. Raises CaptureError when a name without wildcards is not."""
        self._names = names
        self._open = open_one
        self._program: Sequence[Instruction] | None = None
        self._sources: dict[str, AfPacket] = {}
        self._turns: dict[str, Iterator[FrameBatch]] = {}
        self._losses: list[Loss] = []
        self._refused: set[str] = set()
        self._gone = NOTHING
        """What was seen on interfaces that went."""
        self._poll = select.poll()
        self._closed = False
        self._next_scan = 0.0
        try:
            for name in names:
                if not WILDCARDS & set(name):
                    self._add(name)
            self._scan()
        except BaseException:
            self.close()
            raise

    def batches(self) -> Iterator[FrameBatch]:
        """Yield batches of the interfaces in turn; an empty one after POLL_TIMEOUT_MS."""
        nothing = np.zeros(1, np.uint8), np.zeros(0, FRAME)
        while not self._closed:
            if time.monotonic() >= self._next_scan:
                self._scan()
            came, passed = False, []
            for name in list(self._turns):
                batch = self._next(name)
                if batch is not None:
                    passed.append(batch.passed_ns)
                if batch is not None and len(batch.frames):
                    came = True
                    yield batch
                if self._closed:
                    return
            if not came:
                self._poll.poll(POLL_TIMEOUT_MS)
                yield FrameBatch(*nothing, min(passed, default=time.time_ns()))

    def _next(self, name: str) -> FrameBatch | None:
        try:
            return next(self._turns[name], None)
        except CaptureError as error:
            self._remove(name, str(error))
            return None

    def _scan(self) -> None:
        """Let go of interfaces that went, and open those that came."""
        self._next_scan = time.monotonic() + SCAN_SECONDS
        for name in [name for name, source in self._sources.items() if source.is_gone]:
            self._remove(name, f"the interface {name} is gone")
        present = [name for _, name in socket.if_nameindex()]
        self._refused &= set(present)
        for name in present:
            wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in self._names)
            if not wanted or name in self._sources or name in self._refused:
                continue
            try:
                self._add(name)
            except CaptureError as error:
                self._refused.add(name)
                _log.warning("an interface is not captured from", interface=name, reason=str(error))

    def _add(self, name: str) -> None:
        source = self._open(name)
        try:
            source.attach(self._program)
        except BaseException:
            source.close()
            raise
        self._sources[name] = source
        self._turns[name] = source.batches(wait=False)
        self._poll.register(source.fileno(), select.POLLIN | select.POLLERR)
        _log.info("capturing from an interface", interface=name)

    def _remove(self, name: str, reason: str) -> None:
        source = self._sources.pop(name)
        del self._turns[name]
        self._losses += source.losses()
        self._gone = _sum([self._gone, source.counts])
        self._poll.unregister(source.fileno())
        source.close()
        _log.info("an interface is captured from no longer", interface=name, reason=reason)

    def attach(self, program: Sequence[Instruction] | None) -> None:
        """Change what the kernel keeps of all of them, as AfPacket.attach() does."""
        for source in self._sources.values():
            source.attach(program)
        self._program = program

    def losses(self) -> list[Loss]:
        """Return what the kernel dropped since the last call."""
        found, self._losses = self._losses, []
        return found + [loss for source in self._sources.values() for loss in source.losses()]

    @property
    def counts(self) -> Counts:
        """What was seen on all of them since this was opened."""
        return _sum([self._gone, *(source.counts for source in list(self._sources.values()))])

    def close(self) -> None:
        """Close all of them."""
        self._closed = True
        for source in self._sources.values():
            source.close()


def open_interfaces(
    names: Sequence[str],
    ring_memory: int,
    *,
    snaplen: int = LARGEST_FRAME,
    fanout_group: int | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> AfPacket | Interfaces:
    """Capture from these interfaces, or those that these wildcards fit; "any" is all of them.

    ring_memory: octets of each ring, rounded down to whole blocks. snaplen: octets kept of a frame.
    fanout_group, clock: as AfPacket has them; each interface has a group of its own. Raises
    CaptureError.
    """
    if not names:
        raise CaptureError(f"no interface to capture from; name one, or {ANY}")
    blocks = max(ring_memory // BLOCK_SIZE, 1)

    def open_one(name: str) -> AfPacket:
        index = 0 if name == ANY else socket.if_nametoindex(name) if name in _present() else 0
        group = None if fanout_group is None else (fanout_group + index) & 0xFFFF
        return AfPacket(
            name,
            snaplen=snaplen,
            block_count=blocks,
            one_of_several=not is_one_interface(names),
            fanout_group=group,
            clock=clock,
        )

    if ANY in names:
        return open_one(ANY)
    return Interfaces(list(dict.fromkeys(names)), open_one)


def is_one_interface(names: Sequence[str]) -> bool:
    """Whether these names stand for one interface, so that no packet is seen twice."""
    return len(set(names)) == 1 and names[0] != ANY and not WILDCARDS & set(names[0])


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(*map(sum, zip(*counts, strict=True)))


def _present() -> set[str]:
    return {name for _, name in socket.if_nameindex()}
