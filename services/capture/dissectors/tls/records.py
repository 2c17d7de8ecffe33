"""From octets to records, and from records to handshake messages (RFC 8446, 5.1 and 4).

`Records` takes what one side of a TCP stream says, `Messages` what its handshake records hold, or
QUIC's CRYPTO frames. A message may lie in many records, and a record may hold many messages.
"""

from collections.abc import Callable

from services.capture.dissectors.conversation import ProtocolError

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
LAST_TYPE = 24  # heartbeat, RFC 6520
HEAD = 5  # octets before each record's content: type, version, length
LONGEST_RECORD = (1 << 14) + 2048  # octets of its content, encrypted (RFC 5246, 6.2.3)
MESSAGE_HEAD = 4  # type and length
TYPES = frozenset({0, 1, 2, 4, 5, 8, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24})
"""Of handshake messages."""
LONGEST_MESSAGE = 1 << 17  # octets of a message that are kept: chains of certificates are shorter

Content = Callable[[int, memoryview, int], None]
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
        self._is_doubtful = False  # whether what comes next begins a message
        self._is_lost = False  # where the next message begins is not known any more

    @property
    def buffered(self) -> int:
        """Octets that are kept of a message that is not whole."""
        return len(self._kept)

    def feed(self, octets: memoryview, time_ns: int) -> None:
        """Take what comes next. Raises ProtocolError."""
        at, end = 0, len(octets)
        while at < end and not self._is_lost:
            kept = self._kept
            if len(kept) < MESSAGE_HEAD:
                taken = min(MESSAGE_HEAD - len(kept), end - at)
                kept += octets[at : at + taken]
                at += taken
                if len(kept) == MESSAGE_HEAD:
                    if self._is_doubtful and kept[0] not in TYPES:
                        self.end(time_ns)
                        return
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

    def skip(self, octets: int, time_ns: int) -> None:
        """So many octets are missing, 0 for not known: of the message there is what came before."""
        if self._is_lost:
            return
        if len(self._kept) < MESSAGE_HEAD or not 0 < octets <= self._left:
            self.end(time_ns)
            # What comes next, if not inside of this record, begins a record, and mostly a message.
            self._is_doubtful, self._is_lost = True, octets > 0
            return
        self._missing = True
        self._left -= octets
        self._end_message(time_ns)

    def end(self, time_ns: int) -> None:
        """No more can be read: give what there is of the last message."""
        if len(self._kept) >= MESSAGE_HEAD and self._left:
            self._left, self._missing = 0, True
            self._end_message(time_ns)
        self._kept, self._is_lost = bytearray(), True


class Records:
    """The records of one side."""

    def __init__(self, take: Content, lose: Callable[[int, int], None]) -> None:
        """take: called with the type, the next octets of a record's content, and their time; lose:
        with octets of such content that are missing, 0 for not known, and the time.
        """
        self._take, self._lose = take, lose
        self._head = bytearray()
        self._left = 0  # octets of the record's content
        self._is_seeking = False
        self.type = 0
        self.length = 0
        """Of the record that is being read."""
        self.octets = 0
        """All that were read, heads included."""

    def feed(self, octets: memoryview, time_ns: int) -> None:
        """Take what comes next. Raises ProtocolError where no record can be."""
        if self._is_seeking:
            if len(octets) < HEAD or not _is_head(octets[:HEAD]):
                return
            self._is_seeking = False
        at, end = 0, len(octets)
        while at < end:
            if self._left:
                taken = min(self._left, end - at)
                self._left -= taken
                self.octets += taken
                self._take(self.type, octets[at : at + taken], time_ns)
            else:
                taken = min(HEAD - len(self._head), end - at)
                self._head += octets[at : at + taken]
                self.octets += taken
                if len(self._head) == HEAD:
                    self._begin_record()
            at += taken

    def _begin_record(self) -> None:
        if not _is_head(self._head):
            raise ProtocolError("what follows is no record of TLS")
        self.type = self._head[0]
        self.length = self._left = int.from_bytes(self._head[3:], "big")
        self._head.clear()

    def gap(self, octets: int, time_ns: int) -> None:
        """So many octets are missing, 0 for not known. Inside of a record its end is still known;
        else the next segment that begins as a record does is believed.
        """
        if self._is_seeking:
            return
        if self._left and 0 < octets <= self._left:
            self._left -= octets
            if self.type == HANDSHAKE:
                self._lose(octets, time_ns)
            return
        self._lose(0, time_ns)
        self._head.clear()
        self._left, self._is_seeking = 0, True


def _is_head(octets: bytes | bytearray | memoryview) -> bool:
    return (
        CHANGE_CIPHER_SPEC <= octets[0] <= LAST_TYPE
        and octets[1] == 3
        and octets[2] <= 4
        and int.from_bytes(octets[3:5], "big") <= LONGEST_RECORD
    )
