"""WebSocket (RFC 6455), from the octet after HTTP/1's 101 on, with permessage-deflate (RFC 7692).

Each message is an exchange of its own: the client's are requests, the server's responses, and none
is missing an answer. Control frames are messages, too. HTTP/1 hands over what follows its upgrade.
"""

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange, Json
from services.capture.dissectors.signatures import CLIENT, SERVER

MOST_INFLATED = 4 << 20  # octets that a message is inflated to; later ones need all of it
WINDOW = 1 << 15  # octets that DEFLATE looks back, which zlib keeps between messages
PIECE = 16 << 10  # octets that are inflated at once

_FIN, _COMPRESSED, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x40, 0x30, 0x0F, 0x80, 0x7F
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_OPCODES = {
    _CONTINUATION: "continuation",
    _TEXT: "text",
    _BINARY: "binary",
    _CLOSE: "close",
    _PING: "ping",
    _PONG: "pong",
}
_FIRST_CONTROL = 8
_LONGEST_CONTROL = 125
_TWO_MORE, _EIGHT_MORE = 126, 127
_FLUSH = b"\x00\x00\xff\xff"  # what a sender leaves away (RFC 7692, 7.2.1)

_GAP = "gap", "octets are missing"
_UNFINISHED = "pair-not-found", "the stream ended before the message was whole"


@dataclass(frozen=True, slots=True)
class _Head:
    """The header of a frame."""

    opcode: int
    is_last: bool
    is_compressed: bool
    mask: bytes
    length: int
    size: int
    """Octets of the header itself."""


@dataclass(slots=True)
class _Message:
    """What came of a message."""

    opcode: int
    is_compressed: bool
    began_ns: int
    size: int = 0
    """Octets on the wire."""
    length: int = 0
    """Octets of its payload on the wire."""
    frames: int = 0
    lacks: bool = False
    body: bytearray = field(default_factory=bytearray)
    whole: int = 0
    """Octets of the body, inflated, also of what is not kept."""
    is_unread: bool = False
    """It could not be inflated to its end."""


class Inflater:
    """What one side compresses. Context is kept from one message to the next, if they agreed so."""

    def __init__(self, keeps_context: bool) -> None:
        self._keeps_context = keeps_context
        self._zlib = zlib.decompressobj(-15)
        self._inflated = 0
        self._is_lost = False

    def inflate(self, octets: bytes) -> Iterator[bytes]:
        """Yield what a piece of a message becomes; nothing any more once it cannot be read."""
        rest = octets
        while not self._is_lost:
            try:
                found = self._zlib.decompress(rest, PIECE)
            except zlib.error:  # it looks back to what was not seen
                found, self._is_lost = b"", True
            self._inflated += len(found)
            if self._inflated > MOST_INFLATED:
                found, self._is_lost = b"", True
            yield found
            rest = self._zlib.unconsumed_tail
            if not rest and len(found) < PIECE:
                return

    def end(self) -> bool:
        """A message is over; return whether all of it was read."""
        was_lost, self._is_lost, self._inflated = self._is_lost, False, 0
        if was_lost or not self._keeps_context or self._zlib.eof:
            self._zlib = zlib.decompressobj(-15)
        return not was_lost

    def lose(self) -> None:
        """Octets are missing."""
        self._is_lost = True


class _Side:
    """One direction."""

    def __init__(self, keeps_context: bool) -> None:
        self.data = bytearray()
        self.began_ns = 0
        self.head: _Head | None = None  # of the frame whose payload comes
        self.left = 0  # octets of that payload
        self.message: _Message | None = None  # in fragments, perhaps
        self.control: _Message | None = None  # which may come between fragments
        self.is_searching = False
        self.has_closed = False
        self.inflater: Inflater | None = None
        self.keeps_context = keeps_context


class WebSocket(Conversation):
    """One connection, after its upgrade; see Conversation."""

    def __init__(self, extensions: str | None = None) -> None:
        """extensions: the response's header, "" for none; None where it was not seen."""
        super().__init__()
        names = [each.strip().split(";") for each in (extensions or "").lower().split(",")]
        deflate = next((each for each in names if each[0].strip() == "permessage-deflate"), [])
        options = {each.split("=")[0].strip() for each in deflate[1:]}
        self._may_compress = extensions is None or bool(deflate)
        self._sides = (
            _Side("client_no_context_takeover" not in options),
            _Side("server_no_context_takeover" not in options),
        )

    @classmethod
    def after_http1(cls, extensions: str) -> "WebSocket":
        """Return one that HTTP/1 was upgraded to."""
        return cls(extensions)

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return sum(
            len(side.data)
            + (len(side.message.body) if side.message else 0)
            + (WINDOW if side.inflater else 0)
            for side in self._sides
        )

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        this = self._sides[side]
        if this.is_searching:
            if not self._begins_frames(side, octets):
                return
            this.is_searching = False
        if not this.data:
            this.began_ns = time_ns
        data = this.data
        old, at = len(data), 0
        data += octets
        while at < len(data) or this.left == 0:
            if this.head is not None:
                taken = min(this.left, len(data) - at)
                self._take(side, this.head, bytes(memoryview(data)[at : at + taken]))
                at += taken
                if this.left:
                    break
                self._end_frame(side, time_ns)
                continue
            head = self._head(side, data, at)
            if head is None:
                break
            self._begin_frame(this, head, time_ns if at >= old else this.began_ns)
            at += head.size
        if at >= old:
            this.began_ns = time_ns
        del data[:at]

    # Frames.

    def _head(self, side: int, data: bytearray | memoryview, at: int) -> _Head | None:
        """Read the header of a frame, None where it is not all there. Raises ProtocolError."""
        if len(data) - at < 2:
            return None
        first, second = data[at], data[at + 1]
        length, size = second & _LENGTH, 2
        opcode = first & _OPCODE
        if opcode not in _OPCODES:
            raise ProtocolError(f"no frame has the opcode {opcode}")
        if first & _RESERVED or (first & _COMPRESSED and not self._may_compress):
            raise ProtocolError("a frame has bits set that nobody agreed on")
        is_masked = second & _MASKED != 0
        if is_masked != (side == CLIENT):
            raise ProtocolError("clients mask what they send, and servers do not")
        if opcode >= _FIRST_CONTROL and (length > _LONGEST_CONTROL or not first & _FIN):
            raise ProtocolError("a control frame is short and in one piece")
        more = {_TWO_MORE: 2, _EIGHT_MORE: 8}.get(length, 0)
        if len(data) - at < size + more + 4 * is_masked:
            return None
        if more:
            length = int.from_bytes(data[at + size : at + size + more], "big")
            size += more
            if length >> 63 or length <= (_LONGEST_CONTROL if more == 2 else 0xFFFF):
                raise ProtocolError("a length is not written in its shortest form")
        mask = bytes(data[at + size : at + size + 4]) if is_masked else b""
        return _Head(
            opcode, first & _FIN != 0, first & _COMPRESSED != 0, mask, length, size + len(mask)
        )

    def _begin_frame(self, this: _Side, head: _Head, began_ns: int) -> None:
        if head.opcode >= _FIRST_CONTROL:
            message = this.control = _Message(head.opcode, False, began_ns)
        elif head.opcode != _CONTINUATION:
            if this.message is not None:
                raise ProtocolError("a message begins before the one before it has ended")
            message = this.message = _Message(head.opcode, head.is_compressed, began_ns)
        elif this.message is None:  # its beginning was lost, or before the capture
            message = this.message = _Message(_CONTINUATION, False, began_ns, lacks=True)
        else:
            message = this.message
        message.size += head.size + head.length
        message.length += head.length
        message.frames += 1
        this.head, this.left = head, head.length

    def _take(self, side: int, head: _Head, octets: bytes) -> None:
        """Take octets of the payload of the frame that has begun."""
        this = self._sides[side]
        place = head.length - this.left
        this.left -= len(octets)
        message = this.control if head.opcode >= _FIRST_CONTROL else this.message
        if message is None or message.lacks:
            return
        if message.is_compressed:
            if this.inflater is None:
                this.inflater = Inflater(this.keeps_context)
            packed = _unmasked(octets, head.mask, place)
            if head.is_last and this.left == 0:
                packed += _FLUSH
            for piece in this.inflater.inflate(packed):
                message.body += piece[: max(0, self.body_limit - len(message.body))]
                message.whole += len(piece)
        else:
            room = self.body_limit - len(message.body)
            message.whole += len(octets)
            message.body += _unmasked(octets[:room], head.mask, place) if room > 0 else b""

    def _end_frame(self, side: int, time_ns: int) -> None:
        this = self._sides[side]
        head, this.head = this.head, None
        if head is None or not head.is_last:
            return
        self.understood = True
        if head.opcode >= _FIRST_CONTROL:
            message, this.control = this.control, None
        else:
            message, this.message = this.message, None
        if message is None:
            return
        if message.is_compressed and this.inflater is not None:
            message.is_unread = not this.inflater.end()
        self._tell(side, message, time_ns, _GAP if message.lacks else (None, None))
        if message.opcode == _CLOSE:
            this.has_closed = True
            self.is_over = self._sides[CLIENT].has_closed and self._sides[SERVER].has_closed

    # What is missing.

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation. A header has hardly anything to know it by: after a gap beyond a frame,
        the next is where a segment is made of whole frames.
        """
        this = self._sides[side]
        message = this.message
        if message is not None:
            message.lacks = True
        if this.inflater is not None:
            this.inflater.lose()
            this.inflater.end()
        if this.head is not None and 0 < octets <= this.left:
            this.left -= octets
            if this.control is not None:
                this.control.lacks = True
            if this.left == 0:
                self._end_frame(side, time_ns)
            return
        this.head, this.left, this.message, this.control = None, 0, None, None
        this.data.clear()
        this.is_searching = True
        if message is not None:
            self._tell(side, message, time_ns, _GAP)

    def _begins_frames(self, side: int, octets: memoryview) -> bool:
        """Whether a segment is made of whole frames."""
        at = 0
        try:
            while at < len(octets):
                head = self._head(side, octets, at)
                if head is None:
                    return False
                at += head.size + head.length
        except ProtocolError:
            return False
        return at == len(octets)

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        for side, this in enumerate(self._sides):
            message, this.message = this.message, None
            if message is not None:
                self._tell(side, message, time_ns, _GAP if message.lacks else _UNFINISHED)

    def _tell(
        self, side: int, message: _Message, time_ns: int, error: tuple[str | None, str | None]
    ) -> None:
        told = _told(message)
        if not self.body_limit:
            for key in ("body", "bodyEncoding", "bodyTruncated"):
                told.pop(key, None)
        request, response = (told, None) if side == CLIENT else (None, told)
        sizes = (message.size, 0) if side == CLIENT else (0, message.size)
        self.exchanges.append(
            Exchange(message.began_ns, time_ns, request, response, *sizes, CLIENT, *error)
        )


def _unmasked(octets: bytes, mask: bytes, place: int) -> bytes:
    """Undo the mask of octets that are at `place` in their payload (RFC 6455, 5.3)."""
    if not mask or not octets:
        return octets
    turned = mask[place & 3 :] + mask[: place & 3]
    pad = (turned * (len(octets) // 4 + 1))[: len(octets)]
    number = int.from_bytes(octets, "big") ^ int.from_bytes(pad, "big")
    return number.to_bytes(len(octets), "big")


def _told(message: _Message) -> Json:
    """Return a message as entries have it."""
    told: Json = {"opcode": _OPCODES[message.opcode], "bodySize": message.length}
    body = bytes(message.body)
    if message.frames > 1:
        told["frames"] = message.frames
    if message.is_compressed:
        told["isCompressed"] = True
    if message.opcode == _CLOSE and len(body) >= 2:
        told["code"], body = int.from_bytes(body[:2], "big"), body[2:]
    is_cut = message.whole > len(message.body) or message.lacks or message.is_unread
    text = _text(body, is_cut)
    if text is None:
        told["body"] = base64.b64encode(body).decode("ascii")
        told["bodyEncoding"] = "base64"
    else:
        told["body"] = text
    if is_cut:
        told["bodyTruncated"] = True
    return told


def _text(body: bytes, is_cut: bool) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError as wrong:
        if is_cut and wrong.start > len(body) - 4:  # a character that was cut
            return body[: wrong.start].decode()
        return None
