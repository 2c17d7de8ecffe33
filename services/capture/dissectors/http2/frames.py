"""From octets to frames (RFC 9113, 4 and 6). What DATA frames hold is passed on as it comes, other
frames when they are whole.
"""

from typing import Protocol

from services.capture.dissectors.conversation import ProtocolError

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEAD = 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_KEPT = 1 << 16  # octets of a frame that is kept until it is whole; the rest is left out
MOST_PLAUSIBLE = 1 << 14  # octets of a frame that is believed after a gap; few are longer

# By type: flags that have a meaning, the length if there is one, whether it is of a stream.
KINDS = {
    DATA: (END_STREAM | PADDED, None, True),
    HEADERS: (END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY, None, True),
    PRIORITY: (0, 5, True),
    RST_STREAM: (0, 4, True),
    SETTINGS: (ACK, None, False),
    PUSH_PROMISE: (END_HEADERS | PADDED, None, True),
    PING: (ACK, 8, False),
    GOAWAY: (0, None, False),
    WINDOW_UPDATE: (0, 4, None),
    CONTINUATION: (END_HEADERS, None, True),
}


class Frame:
    """The head of a frame, and what was seen of it."""

    __slots__ = ("flags", "is_cut", "kind", "length", "stream", "time_ns")

    def __init__(self, head: bytes | bytearray | memoryview, time_ns: int) -> None:
        self.length = int.from_bytes(head[:3], "big")
        self.kind, self.flags = head[3], head[4]
        self.stream = int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
        self.time_ns = time_ns
        """Of its first octet."""
        self.is_cut = False

    @property
    def is_possible(self) -> bool:
        """Whether it has a stream and a length as its type wants it."""
        flags_length_stream = KINDS.get(self.kind)
        if flags_length_stream is None:
            return True
        _, length, has_stream = flags_length_stream
        return (length is None or length == self.length) and (
            has_stream is None or has_stream == (self.stream > 0)
        )

    @property
    def is_plausible(self) -> bool:
        """Whether a frame probably begins here."""
        if self.kind not in KINDS or self.flags & ~KINDS[self.kind][0]:
            return False
        return self.is_possible and self.length <= MOST_PLAUSIBLE


class Taker(Protocol):
    """Whoever wants the frames of a side."""

    def data(self, frame: Frame, octets: memoryview) -> None:
        """Take the next octets of a DATA frame, without padding."""

    def data_lost(self, frame: Frame, octets: int) -> None:
        """So many of them are missing."""

    def frame(self, frame: Frame, payload: bytes, time_ns: int) -> None:
        """A frame is over; payload: all of it that was kept, nothing of DATA."""

    def frames_lost(self) -> None:
        """Nobody knows what was missed."""


class FrameReader:
    """The frames of one side."""

    def __init__(self, taker: Taker, has_preface: bool) -> None:
        self._taker = taker
        self._preface = PREFACE if has_preface else b""  # that may still come
        self._head = bytearray()
        self._frame: Frame | None = None
        self._left = 0  # octets of the frame
        self._payload = bytearray()
        self._data_left = -1  # octets of DATA before its padding; -1: its length is still to come
        self._is_seeking = False
        self._head_ns = 0
        self._is_known = False  # some frame was of a type of RFC 9113
        self.was_begin = False
        """The preface was there."""

    @property
    def buffered(self) -> int:
        """Octets that are kept of a frame that is not whole."""
        return len(self._payload)

    def feed(self, octets: memoryview, time_ns: int) -> None:
        """Take what comes next. Raises ProtocolError."""
        at, end = 0, len(octets)
        if self._preface:
            at = self._skip_preface(octets)
        if self._is_seeking:
            if not _begins(octets):
                return
            self._is_seeking = False
        while at < end:
            frame = self._frame
            if frame is not None:
                taken = min(self._left, end - at)
                self._left -= taken
                self._feed_payload(frame, octets[at : at + taken])
                at += taken
            elif not self._head and end - at >= HEAD:
                self._begin(octets[at : at + HEAD], time_ns)
                at += HEAD
            else:
                self._head_ns = self._head_ns if self._head else time_ns
                taken = min(HEAD - len(self._head), end - at)
                self._head += octets[at : at + taken]
                at += taken
                if len(self._head) == HEAD:
                    self._begin(self._head, self._head_ns)
                    self._head.clear()
            if self._frame is not None and self._left == 0:
                self._end(self._frame, time_ns)

    def _skip_preface(self, octets: memoryview) -> int:
        common = min(len(self._preface), len(octets))
        if octets[:common] == self._preface[:common]:
            self._preface = self._preface[common:]
            self.was_begin = True
            return common
        if self.was_begin:
            raise ProtocolError("the preface of HTTP/2 ends otherwise")
        self._preface = b""
        return 0

    def _begin(self, head: bytes | bytearray | memoryview, time_ns: int) -> None:
        frame = Frame(head, time_ns)
        self._is_known = self._is_known or frame.kind in KINDS
        if not frame.is_possible or not self._is_known:
            raise ProtocolError("what follows is no frame of HTTP/2")
        self._frame, self._left = frame, frame.length
        self._data_left = -1 if frame.flags & PADDED else frame.length

    def _feed_payload(self, frame: Frame, octets: memoryview) -> None:
        if frame.kind != DATA:
            self._payload += octets[: max(0, MOST_KEPT - len(self._payload))]
            return
        if self._data_left < 0 and len(octets):
            self._data_left = max(0, frame.length - 1 - octets[0])
            octets = octets[1:]
        octets = octets[: self._data_left]
        self._data_left -= len(octets)
        if len(octets):
            self._taker.data(frame, octets)

    def _end(self, frame: Frame, time_ns: int) -> None:
        payload, self._frame = bytes(self._payload), None
        self._payload.clear()
        frame.is_cut |= frame.kind != DATA and len(payload) < frame.length
        self._taker.frame(frame, payload, time_ns)

    def gap(self, octets: int, time_ns: int) -> None:
        """So many octets are missing, 0 for not known. Raises ProtocolError.

        Inside of a frame its end is still known. Else the next segment that begins as a frame does
        is believed.
        """
        self._preface = b""
        frame = self._frame
        if frame is None or not 0 < octets <= self._left:
            if not self._is_seeking:
                self._frame, self._is_seeking = None, True
                self._head.clear()
                self._payload.clear()
                self._taker.frames_lost()
            return
        frame.is_cut = True
        self._left -= octets
        if frame.kind == DATA:
            lost = octets if self._data_left < 0 else min(octets, self._data_left)
            self._data_left = max(0, self._data_left - lost)
            self._taker.data_lost(frame, lost)
        if self._left == 0:
            self._end(frame, time_ns)


def _begins(octets: memoryview) -> bool:
    """Whether a frame begins here, and another one behind it, if that can be seen."""
    if len(octets) < HEAD:
        return False
    frame = Frame(octets[:HEAD], 0)
    following = octets[HEAD + frame.length :][:HEAD]
    return frame.is_plausible and (len(following) < HEAD or Frame(following, 0).is_plausible)
