"""Messages that begin by telling their length, out of the octets of one side of a stream.

LDAP and Diameter are cut by this. How a message begins is the protocol's to say, in a Framing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from services.capture.dissectors.conversation import ProtocolError

UNKNOWN = 0  # a length that more octets will tell


@dataclass(frozen=True, slots=True)
class Framing:
    """How a protocol begins its messages."""

    first: bytes
    """The octet that every message begins with."""
    most: int
    """Octets of a message that are kept; of a longer one the rest is skipped."""
    measure: Callable[[bytearray, int], int]
    """Gets octets and a position; returns how long the message there is, or UNKNOWN. Raises
    ProtocolError when there is none."""
    is_plausible: Callable[[bytearray, int], bool | None]
    """Whether a message can begin there, never where `measure` would raise; None when more octets
    will tell. Looks at a few octets only."""


class Message(NamedTuple):
    """One message."""

    octets: bytes
    """At most Framing.most of it."""
    size: int
    start_ns: int
    end_ns: int

    @property
    def is_cut(self) -> bool:
        """Some of it was not kept."""
        return len(self.octets) < self.size


class Side:
    """One side of a stream: octets in, messages out."""

    __slots__ = (
        "_begun", "_framing", "_octets", "_searched", "_searching", "_size", "_skip", "_start_ns",
    )  # fmt: skip

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._octets = bytearray()  # of a message that is not whole
        self._start_ns = 0  # when the first of these came
        self._size = UNKNOWN  # of that message
        self._searching = False  # for the next message
        self._searched = False  # at some time, so that what was found may have been no message
        self._skip = 0  # octets to come of a message that are not kept
        self._begun: Message | None = None  # it, unless octets of it were lost

    @property
    def buffered(self) -> int:
        """Octets that wait for the rest of their message."""
        return len(self._octets) + (len(self._begun.octets) if self._begun else 0)

    @property
    def is_between(self) -> bool:
        """The next octet begins a message."""
        return not (self._octets or self._skip or self._searching)

    def take(self, octets: memoryview, time_ns: int) -> list[Message]:
        """Return the messages that these octets complete. Raises ProtocolError."""
        found: list[Message] = []
        if self._skip:
            octets = self._skipped(octets, time_ns, found)
        if not self._octets:
            self._start_ns = time_ns
        before = len(self._octets)
        self._octets += octets
        at = 0
        while True:
            if self._searching:
                at = self._search(at)
                if at >= before:
                    self._start_ns = time_ns
                if self._searching:
                    break
            size = self._size or self._measure(at)
            if self._searching:
                continue  # what looked like a message was none
            kept = min(size, self._framing.most)
            if size == UNKNOWN or len(self._octets) - at < kept:
                self._size = size
                break
            with memoryview(self._octets) as view:
                message = Message(bytes(view[at : at + kept]), size, self._start_ns, time_ns)
            at += size
            self._size, self._start_ns = UNKNOWN, time_ns
            if at > len(self._octets):
                self._skip, self._begun = at - len(self._octets), message
                break
            found.append(message)
        del self._octets[:at]
        return found

    def _skipped(self, octets: memoryview, time_ns: int, found: list[Message]) -> memoryview:
        """Leave out what is not kept of a message; return the rest."""
        skipped = min(self._skip, len(octets))
        self._skip -= skipped
        if self._skip == 0 and self._begun is not None:
            found.append(self._begun._replace(end_ns=time_ns))
            self._begun = None
        return octets[skipped:]

    def _measure(self, at: int) -> int:
        try:
            return self._framing.measure(self._octets, at)
        except ProtocolError:
            if not self._searched:
                raise
        self._searching = True
        return UNKNOWN

    def _search(self, at: int) -> int:
        """Return where a message can begin, if one can; else from where to search later."""
        while (at := self._octets.find(self._framing.first, at)) >= 0:
            can_be = self._framing.is_plausible(self._octets, at)
            if can_be is not False:
                self._searching = can_be is None
                return at
            at += 1
        return len(self._octets)

    def gap(self, octets: int) -> None:
        """So many octets were lost, 0 for not known."""
        rest = self._skip
        if not rest and self._size != UNKNOWN:
            rest = self._size - len(self._octets)
        self._octets.clear()
        self._begun, self._size = None, UNKNOWN
        if 0 < octets <= rest:
            self._skip = rest - octets
        else:
            self._skip = 0
            self._searching = self._searched = True
