"""Handshake messages of one side of a QUIC connection: what its CRYPTO frames hold (RFC 8446, 4).

`framing` does the same for TCP, and also knows of octets that are missing.
"""

from collections.abc import Callable

from services.capture.dissectors.tls.wire import LONGEST_MESSAGE, MESSAGE_HEAD

Message = Callable[[int, bytes, bool, int], None]


class Messages:
    """Handshake messages of one side."""

    def __init__(self, wanted: frozenset[int], take: Message) -> None:
        """wanted: types whose octets are kept; take: called with type, octets, whether these are
        all of it, and the time of the last one; of other types without octets.
        """
        self._wanted, self._take = wanted, take
        self._kept = bytearray()  # head and body
        self._left = 0  # octets of the message, when its head is known
        self._missing = False
        self._is_over = False  # no more is read

    @property
    def buffered(self) -> int:
        """Octets that are kept of a message that is not whole."""
        return len(self._kept)

    def feed(self, octets: memoryview, time_ns: int) -> None:
        """Take what comes next. Raises ProtocolError."""
        at, end = 0, len(octets)
        while at < end and not self._is_over:
            kept = self._kept
            if len(kept) < MESSAGE_HEAD:
                taken = min(MESSAGE_HEAD - len(kept), end - at)
                kept += octets[at : at + taken]
                at += taken
                if len(kept) == MESSAGE_HEAD:
                    self._left = int.from_bytes(kept[1:], "big")
                    self._end_message(time_ns)
                continue
            taken = min(self._left, end - at)
            if kept[0] in self._wanted:
                room = max(0, LONGEST_MESSAGE - len(kept))
                if not self._missing:
                    kept += octets[at : at + min(taken, room)]
                self._missing = self._missing or taken > room
            at += taken
            self._left -= taken
            self._end_message(time_ns)

    def _end_message(self, time_ns: int) -> None:
        if self._left == 0:
            kept, is_whole = self._kept, not self._missing
            self._kept, self._missing = bytearray(), False
            self._take(kept[0], bytes(kept[MESSAGE_HEAD:]), is_whole, time_ns)

    def end(self, time_ns: int) -> None:
        """No more can be read: give what there is of the last message."""
        if len(self._kept) >= MESSAGE_HEAD and self._left:
            self._left, self._missing = 0, True
            self._end_message(time_ns)
        self._kept, self._is_over = bytearray(), True
