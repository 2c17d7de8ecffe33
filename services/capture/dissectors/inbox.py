"""What one side of a stream said and nobody has read: cut into messages whose head tells a length.

Dissectors of such protocols (postgresql, mysql, mongodb, ldap, diameter) have one Inbox for each
side. A message that is longer than what is kept is skipped as it comes; its first octets are still
delivered. What is lost inside of a message costs that message; else the next one is looked for.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from services.capture.dissectors.conversation import ProtocolError


class Message(NamedTuple):
    """One message."""

    octets: bytes
    """Its first ones, its head among them."""
    size: int
    """Octets on the wire."""
    began_ns: int
    """Time of the segment with its first octet."""
    lacks: bool
    """Some of it was lost on the way; `octets` end before that."""
    end_ns: int = 0
    """Time of the segment with its last octet."""

    @property
    def is_cut(self) -> bool:
        """Not all of it is here."""
        return len(self.octets) < self.size


class Inbox:
    """Messages of one side. Every octet is looked at once, however small the segments are."""

    __slots__ = (
        "_began_ns", "_cut", "_data", "_find", "_lacks", "_measure", "_missing", "_most_kept",
        "_size", "_was_lost", "has_begun", "is_lost",
    )  # fmt: skip

    def __init__(
        self,
        measure: Callable[[bytearray], int],
        find: Callable[[bytearray], int],
        most_kept: int,
    ) -> None:
        """measure: the size of the message that some octets begin, 0 when they are too few; may
        raise ProtocolError. find: where the first plausible message begins, or -1 - n where there
        is none and the first n octets can be forgotten. most_kept: octets of a message.
        """
        self._measure, self._find, self._most_kept = measure, find, most_kept
        self._data = bytearray()
        self._size = 0  # of the message that begins here, 0 while that is not known
        self._cut: bytes | None = None  # the first octets of a message that is being skipped
        self._missing = 0  # octets of it that are still to come
        self._lacks = False
        self._began_ns = 0
        self.is_lost = False
        """Where the next message begins is not known."""
        self._was_lost = False  # at some time, so that what was found may be no message
        self.has_begun = False
        """The side has said something."""

    def __len__(self) -> int:
        return len(self._data) + len(self._cut or b"")

    @property
    def is_empty(self) -> bool:
        """Nothing of a next message has come."""
        return not self._data and self._cut is None

    @property
    def is_between(self) -> bool:
        """The next octet begins a message."""
        return self.is_empty and not self.is_lost

    @property
    def next_octet(self) -> int:
        """The first octet of the next message, or -1."""
        return self._data[0] if self._data else -1

    def feed(self, octets: memoryview | bytes, time_ns: int) -> None:
        """Take what came; then read() until there is nothing."""
        self.has_begun = True
        if self.is_empty:
            self._began_ns = time_ns
        if self._missing:
            dropped = min(self._missing, len(octets))
            self._missing -= dropped
            octets = octets[dropped:]
        before = len(self._data)
        self._data += octets
        if self.is_lost:
            self._look(time_ns, before)

    def _look(self, time_ns: int, before: int) -> None:
        """Find the next message after octets were lost; those from `before` on came at time_ns."""
        at = self._find(self._data)
        self.is_lost = at < 0
        at = at if at >= 0 else -1 - at
        if at >= before:
            self._began_ns = time_ns
        del self._data[:at]

    def messages(self, time_ns: int) -> Iterator[Message]:
        """Yield the messages that nothing lacks until more comes. Raises ProtocolError, but not
        where something was lost before: what was found then and is no message is passed over.
        """
        while True:
            try:
                message = self.read(time_ns)
            except ProtocolError:
                if not self._was_lost:
                    raise
                self.look_on(time_ns)
                continue
            if message is None:
                return
            if not message.lacks:
                yield message

    def read(self, time_ns: int) -> Message | None:
        """Return the next message, or None until more comes. time_ns: of the last segment."""
        data = self._data
        if self._cut is None:
            if self.is_lost:
                return None
            size = self._size = self._size or self._measure(data)
            if not size:
                return None
            if len(data) < size:
                if len(data) >= self._most_kept:
                    self._skip()
                return None
            octets = bytes(data[: min(size, self._most_kept)])
            del data[:size]
        elif self._missing:
            return None
        else:
            octets, self._cut = self._cut, None
        message = Message(octets, self._size, self._began_ns, self._lacks, time_ns)
        self._size = 0
        self._lacks = False
        self._began_ns = time_ns
        return message

    def _skip(self) -> None:
        """Keep no more of the message that has begun."""
        self._cut = bytes(self._data[: self._most_kept])
        self._missing = self._size - len(self._data)
        self._data.clear()

    def take(self, count: int) -> bytes:
        """Take octets that are no message, between two messages."""
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    def gap(self, octets: int) -> bool:
        """So many octets are missing, 0 for not known; return whether it was all of one message."""
        rest = self._missing
        if self._cut is None:
            rest = self._size - len(self._data) if self._size else 0
        if 0 < octets <= rest:
            if self._cut is None:
                self._skip()
            self._missing -= octets
            self._lacks = True
            return True
        self.lose()
        return False

    def look_on(self, time_ns: int) -> None:
        """What was found is no message: look behind its first octet."""
        del self._data[:1]
        self._size = 0
        self._look(time_ns, 0)

    def lose(self) -> None:
        """Forget what is here, and look for the next message in what comes."""
        self._data.clear()
        self._size = self._missing = 0
        self._cut = None
        self._lacks = False
        self.is_lost = self._was_lost = True


def finder(
    first: bytes, is_plausible: Callable[[bytearray, int], bool | None]
) -> Callable[[bytearray], int]:
    """Return a `find` of messages that begin with one certain octet.

    is_plausible: whether a message can begin at a place, never where `measure` would raise; None
    when more octets will tell. Looks at a few octets only.
    """

    def find(data: bytearray) -> int:
        at = data.find(first)
        while at >= 0:
            can_be = is_plausible(data, at)
            if can_be is not False:
                return at if can_be else -1 - at
            at = data.find(first, at + 1)
        return -1 - len(data)

    return find
