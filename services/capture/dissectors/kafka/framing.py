"""Cut one side of a connection into Kafka's messages: 32 bits of length, and what they say.

Of a long message only the beginning is kept; it is told when its last octet has come.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from services.capture.dissectors.conversation import ProtocolError

MOST_KEPT = 128 << 10  # octets of a message that are read, or twice what is kept of its records
LONGEST = 1 << 28  # octets; brokers take 100 MiB and send what consumers ask for, 50 MiB
LENGTH_SIZE = 4
NOT_FOUND = -1


class Message(NamedTuple):
    """The octets data[at:end] are a message, or its beginning."""

    data: bytearray
    at: int
    end: int
    began_ns: int
    size: int
    """What its length says; on the wire it is 4 octets more."""
    is_cut: bool = False
    lacks: bool = False
    """It is cut since octets were lost."""


class Framer:
    """One side. `find` looks for the next message after octets were lost.

    It gets the octets, where the last segment begins in them, and whether the first of them follow
    those that were lost; it returns where a message begins, or NOT_FOUND and how many octets of the
    end are still needed.
    """

    def __init__(self, find: Callable[[bytearray, int, bool], tuple[int, int]]) -> None:
        self.data = bytearray()
        self.kept = bytearray()
        """The beginning of a long message whose rest is still to come."""
        self.is_searching = self.is_unsure = False
        """Unsure is whether the message that was found is one."""
        self.most_kept = MOST_KEPT
        """Octets of a message that are kept."""
        self._find = find
        self._began_ns = self._kept_ns = 0
        self._left = self._kept_size = 0
        self._lacks = self._is_fresh = False

    def feed(self, octets: memoryview, time_ns: int) -> Iterator[Message]:
        """Yield the messages that these octets complete. Raises ProtocolError."""
        data = self.data
        if not data:
            self._began_ns = time_ns
        old, at = len(data), 0
        data += octets
        while True:
            if self._kept_size:
                taken = min(self._left, len(data) - at)
                self._left -= taken
                at += taken
                if self._left:
                    break
                yield self._long()
            if self.is_searching:
                del data[:at]
                old = max(0, old - at)
                at = self._search(old)
                if self.is_searching:
                    old, self._began_ns = min(old, len(data)), time_ns
                    break
            if len(data) - at < LENGTH_SIZE:
                break
            size = int.from_bytes(data[at : at + LENGTH_SIZE], "big")
            if size > LONGEST:
                raise ProtocolError(f"no message has a length of {size} octets")
            began_ns = time_ns if at >= old else self._began_ns
            start = at + LENGTH_SIZE
            if size <= self.most_kept:
                if len(data) - start < size:
                    break
                at = start + size
                yield Message(data, start, at, began_ns, size)
            else:
                if len(data) - start < self.most_kept:
                    break
                at = start + self.most_kept
                self._keep(data[start:at], size, began_ns, False)
        if at >= old:
            self._began_ns = time_ns
        del data[:at]

    def _keep(self, octets: bytearray, size: int, began_ns: int, lacks: bool) -> None:
        self.kept, self._kept_size, self._kept_ns = octets, size, began_ns
        self._left, self._lacks = size - len(octets), lacks

    def _long(self) -> Message:
        kept, size, self.kept, self._kept_size = self.kept, self._kept_size, bytearray(), 0
        return Message(kept, 0, len(kept), self._kept_ns, size, True, self._lacks)

    def _search(self, old: int) -> int:
        found, needed = self._find(self.data, old, self._is_fresh)
        if found != NOT_FOUND:
            self.is_searching, self.is_unsure = False, True
            return found
        if needed < len(self.data):
            self._is_fresh = False
        return max(0, len(self.data) - needed)

    def search_again(self) -> None:
        """What was found was no message."""
        self.is_searching = True

    def gap(self, octets: int) -> Message | None:
        """So many octets are missing, 0 for not known. Return the message that they end, if any."""
        if not self._kept_size and len(self.data) >= LENGTH_SIZE and not self.is_searching:
            size = int.from_bytes(self.data[:LENGTH_SIZE], "big")
            self._keep(self.data[LENGTH_SIZE:], size, self._began_ns, True)
            self.data.clear()
        if self._kept_size and 0 < octets <= self._left:
            self._left -= octets
            self._lacks = True
            return self._long() if self._left == 0 else None
        self.data.clear()
        self.is_searching = self._is_fresh = True
        if self._kept_size:
            self._lacks, self._left = True, 0
            return self._long()
        return None
