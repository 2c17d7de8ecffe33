"""Cut one side of a connection into AMQP's frames, also where it begins in the middle.

AMQP 0-9-1, 4.2.3: type, channel, size, payload, and the octet 0xCE. Bodies are told piece by piece
as they come, so that only what is not longer than MOST_HEAD is kept.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from services.capture.dissectors.amqp.methods import METHODS
from services.capture.dissectors.conversation import ProtocolError

METHOD, HEADER, BODY, HEARTBEAT, GREETING = 1, 2, 3, 8, ord("A")
FRAME_END = 0xCE
MOST_FRAME = 1 << 27  # octets, until both have agreed on less; brokers allow 128 KiB
MOST_HEAD = 1 << 18  # octets of a method or a header that are read; of a longer one, the beginning
GREETING_SIZE = 8
LOST_ALL = -1  # a channel that is none

_HEAD = struct.Struct(">BHI")  # type, channel, size
_METHOD_HEAD = struct.Struct(">BHII")  # and class and method
_ENVELOPE = _HEAD.size + 1
_IDLE = bytes((HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END))


class Frame(NamedTuple):
    """A frame, or a piece of a body's."""

    kind: int
    channel: int
    at: int
    end: int
    """Its payload is data[at:end] of the reader, until the next frame is asked for."""
    began_ns: int
    """When its first octet came."""
    size: int
    """Octets on the wire, of a body's piece, only its own."""
    is_cut: bool = False
    """The payload is longer, and what is more is skipped."""
    is_last: bool = True
    """Of a body's frame, the last piece."""


class FrameReader:
    """One side. feed() and gap() take what comes."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.most_frame = MOST_FRAME
        self.is_searching = False
        """After octets were lost: the next method or heartbeat is looked for."""
        self._began_ns = 0  # when the first octet of `data` came
        self._left = 0  # octets of a frame that are still to come, with its end
        self._channel = LOST_ALL  # the one that a body's rest is for; else the rest is skipped
        self._is_first = True
        self._after_gap = False

    def feed(self, octets: memoryview, time_ns: int) -> Iterator[Frame]:
        """Yield the frames that these octets complete. Raises ProtocolError."""
        data = self.data
        if not data:
            self._began_ns = time_ns
        old, at = len(data), 0
        data += octets
        while True:
            if self._left:
                if at == len(data):
                    break
                frame, at = self._rest(at, time_ns)
                if frame is not None:
                    yield frame
                continue
            if self.is_searching:
                at = self._found(at)
                if self.is_searching:
                    break
            if len(data) - at < _ENVELOPE:
                break
            began_ns = time_ns if at >= old else self._began_ns
            kind, channel, size = _HEAD.unpack_from(data, at)
            if kind == GREETING and self._is_first:
                size = GREETING_SIZE - _ENVELOPE
            elif kind not in (METHOD, HEADER, BODY, HEARTBEAT):
                raise ProtocolError(f"no frame has the type {kind}")
            self._is_first = False
            if size + _ENVELOPE > self.most_frame:
                raise ProtocolError(f"a frame of {size} octets is longer than what was agreed on")
            start = at + _HEAD.size
            if kind == BODY:
                self._left, self._channel = size + 1, channel
                yield Frame(BODY, channel, start, start, began_ns, _HEAD.size, is_last=False)
                at = start
                continue
            if size > MOST_HEAD:
                if len(data) - start < MOST_HEAD:
                    break
                yield Frame(kind, channel, start, start + MOST_HEAD, began_ns, size + 8, True)
                self._left, self._channel = size + 1 - MOST_HEAD, LOST_ALL
                at = start + MOST_HEAD
                continue
            end = start + size
            if end >= len(data):
                break
            if kind != GREETING and data[end] != FRAME_END:
                raise ProtocolError("a frame does not end with 0xCE")
            yield Frame(kind, channel, start, end, began_ns, size + _ENVELOPE)
            at = end + 1
        if at >= old:
            self._began_ns = time_ns
        del data[:at]

    def _rest(self, at: int, time_ns: int) -> tuple[Frame | None, int]:
        """Take what is there of a frame's rest; return a piece of a body, if it is one."""
        taken = min(self._left, len(self.data) - at)
        self._left -= taken
        end = at + taken
        if self._left == 0 and self.data[end - 1] != FRAME_END:
            raise ProtocolError("a frame does not end with 0xCE")
        if self._channel == LOST_ALL:
            return None, end
        is_last = self._left == 0
        piece_end = end - 1 if is_last else end
        return Frame(BODY, self._channel, at, piece_end, time_ns, taken, is_last=is_last), end

    def _found(self, at: int) -> int:
        """Return where the next method or heartbeat begins, or of what to wait for more.

        Where octets were lost a frame may begin at once; else it comes after another's end.
        """
        data = self.data
        while True:
            if not self._after_gap:
                at = data.find(FRAME_END, at)
                if at < 0:
                    return len(data)
            start = at if self._after_gap else at + 1
            if len(data) - start < _METHOD_HEAD.size and not data.startswith(_IDLE, start):
                return at
            self._after_gap = False
            if self._is_plausible(start):
                self.is_searching = False
                return start
            at = start

    def _is_plausible(self, at: int) -> bool:
        if self.data.startswith(_IDLE, at):
            return True
        kind, _, size, number = _METHOD_HEAD.unpack_from(self.data, at)
        return kind == METHOD and number in METHODS and size + _ENVELOPE <= self.most_frame

    def gap(self, octets: int) -> tuple[int, int | None]:
        """So many octets are missing, 0 for not known. Return the channel whose frame they touch,
        LOST_ALL where that is not known, and where they all are of one frame of a body, how many
        octets that body lacks.
        """
        self._is_first = False
        missing = self._missing()
        if self.is_searching or octets == 0 or octets > missing:
            self.data.clear()
            self._left, self.is_searching, self._after_gap = 0, True, True
            return LOST_ALL, None
        if self._left:
            lacks = min(octets, self._left - 1)
            self._left -= octets
            return self._channel, None if self._channel == LOST_ALL else lacks
        channel = int.from_bytes(self.data[1:3], "big")
        self.data.clear()
        self._left, self._channel = missing - octets, LOST_ALL
        return channel, None

    @property
    def is_in_frame(self) -> bool:
        """The rest of a frame is still to come."""
        return self._left > 0

    def _missing(self) -> int:
        """Return how many octets the frame lacks that has begun, 0 where that is not known."""
        if self._left or len(self.data) < _ENVELOPE:
            return self._left
        _, _, size = _HEAD.unpack_from(self.data)
        return int(size) + _ENVELOPE - len(self.data)
