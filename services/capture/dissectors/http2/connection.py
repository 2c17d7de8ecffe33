"""An HTTP/2 connection, and an exchange for each of its streams (RFC 9113)."""

from collections import OrderedDict, deque

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEAD,
    HEADERS,
    MOST_KEPT,
    PADDED,
    PREFACE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WITH_PRIORITY,
    Frame,
    FrameReader,
)
from services.capture.dissectors.http2.headers import HeaderReader, Pair
from services.capture.dissectors.http2.stream import Half, Stream
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

MOST_STREAMS = 1024  # of a connection that are open at once; servers allow 100 to 1000
MOST_CLOSED = 256  # numbers of streams that were told of, for what still comes of them
MOST_BODIES = 4 << 20  # octets of bodies that a connection keeps for its open streams

NO_ANSWER = "pair-not-found", "the stream ended before an answer"
NO_END = "pair-not-found", "the stream ended before the answer did"
GIVEN_UP = "timeout", "its end was not seen, and more streams followed than are kept"
NO_ERROR = 0
ERRORS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
"""RFC 9113, 7."""

_SHORT = (b"\0", bytes(range(0x41)), ANY)  # a length of up to 16 KiB
_ENDS_HEADERS = bytes(f for f in range(0x40) if f & END_HEADERS and not f & ~0x2D)
_CONNECTION = (b"\0",) * 4


def _signatures() -> tuple[Signature, ...]:
    """The preface, or a server's settings; in the middle, frames that are hardly anything else."""
    of_both = (
        (*_SHORT, b"\1", _ENDS_HEADERS, bytes(range(0x80)), ANY, ANY, ANY),  # HEADERS
        (b"\0", b"\0", bytes(range(0, 0x100, 6)), b"\4", b"\0\1", *_CONNECTION),  # SETTINGS
        (b"\0", b"\0", b"\x08", b"\6", b"\0\1", *_CONNECTION),  # PING
        (b"\0", b"\0", b"\4", b"\x08", b"\0", b"\0", ANY, ANY, ANY),  # WINDOW_UPDATE
    )
    preface = Signature(CLIENT, tuple(bytes([octet]) for octet in PREFACE))
    return preface, *(Signature(side, octets) for side in (CLIENT, SERVER) for octets in of_both)


SIGNATURES = _signatures()


class Http2(Conversation):
    """One connection."""

    def __init__(self) -> None:
        super().__init__()
        self._sides = _Side(self, CLIENT), _Side(self, SERVER)
        self._client = CLIENT  # who asks
        self._streams: OrderedDict[int, Stream] = OrderedDict()  # that are open
        self._closed: deque[int] = deque(maxlen=MOST_CLOSED)
        self._closed_set: set[int] = set()
        self._bodies = 0  # octets that the open streams keep

    @property
    def buffered(self) -> int:
        """See Conversation.buffered."""
        return self._bodies + sum(side.buffered for side in self._sides)

    @property
    def has_preface(self) -> bool:
        """Whether the begin of the connection was seen."""
        return self._sides[CLIENT].reader.was_begin

    def begin_upgraded(self) -> None:
        """HTTP/1 was before it, and nothing of this connection."""
        self._sides[CLIENT].reader.was_begin = True

    def take_upgrade(
        self, fields: list[Pair], size: int, body: bytes, body_size: int, begin_ns: int, end_ns: int
    ) -> None:
        """Take the request that asked for the upgrade, which is stream 1's (RFC 7540, 3.2); size:
        octets of its head; body: what was kept of so many octets.
        """
        self._streams[1] = stream = Stream(1)
        half = stream.asking
        half.headers, half.headers_size, half.is_over = fields, size, True
        half.begin_ns, half.end_ns, half.size = begin_ns, end_ns, size + body_size
        self.take_body(half, memoryview(body), 0)
        half.is_body_cut |= len(body) < body_size
        half.body_size = body_size

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation.receive."""
        self._sides[side].reader.feed(octets, time_ns)

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation.gap."""
        self._sides[side].reader.gap(octets, time_ns)

    def close(self, time_ns: int) -> None:  # noqa: ARG002
        """See Conversation.close."""
        for number in list(self._streams):
            self._finish(number, NO_END)

    def stream(self, number: int) -> Stream | None:
        """Return an open stream, or a new one; None for one that was told of."""
        found = self._streams.get(number)
        if found is None and number not in self._closed_set:
            if len(self._streams) >= MOST_STREAMS:
                self._finish(next(iter(self._streams)), GIVEN_UP)
            found = self._streams[number] = Stream(number)
        return found

    def half(self, stream: Stream, side: int) -> Half:
        """Return what a side says in a stream."""
        return stream.asking if side == self._client else stream.answering

    def take_fields(self, side: int, frame: Frame, fields: list[Pair] | None, size: int) -> None:
        """Take the fields of a whole block, None if they are lost; size: octets of the block."""
        for name, _ in fields or ():
            if name[:1] not in ":<":  # those of HTTP itself are the first ones
                break
            if name == (":status" if side == self._client else ":method"):
                self._swap()
                break
        stream = self.stream(frame.stream)
        if stream is None:
            return
        half = self.half(stream, side)
        half.headers_size += size
        half.is_cut |= fields is None
        fields = [] if fields is None else fields
        if half.headers is not None or half.body_size:
            half.trailers = fields
        elif frame.flags & END_STREAM or not _is_interim(fields):
            half.headers = fields
            if fields and fields[0][0].startswith(":"):  # what was lost before was not of it
                half.is_cut = False

    def take_promise(self, side: int, number: int, fields: list[Pair] | None, frame: Frame) -> None:
        """A server says what it will answer, though nobody asked."""
        stream = self.stream(number)
        if stream is None or side == self._client:
            return
        stream.is_pushed = True
        half = stream.asking
        half.headers, half.is_over, half.is_cut = fields or [], True, fields is None
        half.begin_ns = half.end_ns = frame.time_ns
        half.size = HEAD + frame.length

    def take_body(self, half: Half, octets: memoryview, frame: int) -> None:
        """Take octets of a body, and keep them if there is room. frame: as Half.take_body."""
        room = min(self.body_limit - len(half.body), MOST_BODIES - self._bodies)
        self._bodies += half.take_body(octets, frame, max(0, room))

    def end_frame(self, side: int, frame: Frame, time_ns: int) -> None:
        """A frame of a stream is over."""
        stream = self._streams.get(frame.stream)
        if stream is None or frame.kind not in (DATA, HEADERS, CONTINUATION):
            return
        half = self.half(stream, side)
        half.begin_ns = half.begin_ns or frame.time_ns
        half.end_ns = time_ns
        half.size += HEAD + frame.length
        if frame.kind != CONTINUATION and frame.flags & END_STREAM:
            half.is_over = True

    def finish_if_over(self, number: int) -> None:
        """Tell of a stream that is complete."""
        stream = self._streams.get(number)
        if stream is not None and stream.is_over:
            self._finish(number, None)

    def reset(self, side: int, number: int, code: int) -> None:
        """A side lets a stream go."""
        stream = self._streams.get(number)
        if stream is None:
            return
        if code != NO_ERROR or not stream.answering.is_over:
            stream.error = "reset", f"the {self._name(side)} reset the stream: {_error(code)}"
        stream.asking.is_over = True
        self.finish_if_over(number)

    def _name(self, side: int) -> str:
        return "client" if side == self._client else "server"

    def go_away(self, side: int, last: int, code: int) -> None:
        """A side will not take more: what the other one began after `last` was not looked at."""
        parity = 0 if side == self._client else 1  # clients number their streams 1, 3, 5
        for number in [each for each in self._streams if each > last and each & 1 == parity]:
            sentence = f"the {self._name(side)} went away before it took this: {_error(code)}"
            self._streams[number].error = "reset", sentence
            self._finish(number, None)

    def lose_frames(self, side: int) -> None:
        """Nobody knows what a side said meanwhile."""
        for stream in self._streams.values():
            half = self.half(stream, side)
            half.is_cut = half.is_cut or not half.is_over
            if half.headers is not None and not half.is_over:
                half.is_body_cut = True
                half.messages.skip(0)

    def _swap(self) -> None:
        """It is the other side that asks: the capture began in the middle."""
        self._client ^= 1
        for stream in self._streams.values():
            stream.asking, stream.answering = stream.answering, stream.asking

    def _finish(self, number: int, lack: tuple[str, str] | None) -> None:
        stream = self._streams.pop(number)
        self._bodies -= len(stream.asking.body) + len(stream.answering.body)
        if len(self._closed) == MOST_CLOSED:
            self._closed_set.discard(self._closed[0])
        self._closed.append(number)
        self._closed_set.add(number)
        if lack == NO_END and stream.answering.headers is None:
            lack = NO_ANSWER
        exchange = stream.exchange(self._client, lack, self.body_limit)
        if exchange is not None:
            self.exchanges.append(exchange)


def _is_interim(fields: list[Pair]) -> bool:
    return any(name == ":status" and value[:1] == "1" for name, value in fields)


def _error(code: int) -> str:
    return f"{ERRORS[code]} ({code})" if code < len(ERRORS) else str(code)


class _Side:
    """What one side says: frames to streams."""

    def __init__(self, connection: Http2, side: int) -> None:
        self.reader = FrameReader(self, has_preface=side == CLIENT)
        self._connection, self._side = connection, side
        self._headers = HeaderReader()
        self._block = bytearray()  # fields that CONTINUATION frames go on with
        self._first: Frame | None = None  # the frame that began the block
        self._is_block_cut = False
        self._body_frame: Frame | None = None  # whose octets came last
        self._has_read = False  # a block, so that the table is as large as it should be

    @property
    def buffered(self) -> int:
        return self.reader.buffered + len(self._block)

    def data(self, frame: Frame, octets: memoryview) -> None:
        stream = self._connection.stream(frame.stream)
        if stream is not None:
            begun = 0 if frame is self._body_frame else frame.length
            self._body_frame = frame
            half = self._connection.half(stream, self._side)
            self._connection.take_body(half, octets, begun)

    def data_lost(self, frame: Frame, octets: int) -> None:
        stream = self._connection.stream(frame.stream)
        if stream is not None:
            self._connection.half(stream, self._side).lose_body(octets)

    def frames_lost(self) -> None:
        self._block.clear()
        self._first = None
        self._headers.forget()
        self._connection.lose_frames(self._side)

    def frame(self, frame: Frame, payload: bytes, time_ns: int) -> None:
        kind = frame.kind
        if self._first is not None and kind != CONTINUATION:
            raise ProtocolError("a block of fields is interrupted by another frame")
        if kind in (HEADERS, PUSH_PROMISE):
            self._begin_block(frame, payload)
        elif kind == CONTINUATION:
            self._continue_block(frame, payload)
        elif kind == RST_STREAM and not frame.is_cut:
            code = int.from_bytes(payload, "big")
            self._connection.reset(self._side, frame.stream, code)
        elif kind == GOAWAY and len(payload) >= 8 and not frame.is_cut:
            last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            self._connection.go_away(self._side, last, int.from_bytes(payload[4:8], "big"))
        elif kind == SETTINGS:
            if frame.length % 6:
                raise ProtocolError("settings have six octets each")
            self._connection.understood |= self.reader.was_begin
        if frame.stream and kind != PUSH_PROMISE:
            self._connection.end_frame(self._side, frame, time_ns)
            if self._first is None:
                self._connection.finish_if_over(frame.stream)

    def _begin_block(self, frame: Frame, payload: bytes) -> None:
        begin, end = 0, len(payload)
        if frame.flags & PADDED:
            begin, end = 1, end - (payload[0] if payload else 0)
        begin += 5 if frame.flags & WITH_PRIORITY and frame.kind == HEADERS else 0
        if begin > end and not frame.is_cut:
            raise ProtocolError("a frame of fields has more padding than octets")
        if frame.kind == HEADERS:
            self._connection.stream(frame.stream)  # is there from now on, also if more frames come
        self._first, self._is_block_cut = frame, frame.is_cut
        self._block += payload[begin:end]
        if frame.flags & END_HEADERS:
            self._end_block()

    def _continue_block(self, frame: Frame, payload: bytes) -> None:
        if self._first is None or self._first.stream != frame.stream:
            if self._connection.understood:
                return  # its begin was lost
            raise ProtocolError("a block of fields goes on that did not begin")
        room = MOST_KEPT - len(self._block)
        self._block += payload[: max(0, room)]
        self._is_block_cut |= frame.is_cut or len(payload) > room
        if frame.flags & END_HEADERS:
            self._end_block()

    def _end_block(self) -> None:
        first, block = self._first, bytes(self._block)
        assert first is not None
        self._first = None
        self._block.clear()
        promised, begin = 0, 0
        if first.kind == PUSH_PROMISE:
            promised, begin = int.from_bytes(block[:4], "big") & 0x7FFFFFFF, 4
        fields: list[Pair] | None = None
        if self._is_block_cut:
            self._headers.forget()
        else:
            if not self._connection.has_preface and not self._has_read:
                self._headers.forget()
            fields = self._headers.read(block[begin:])
            self._has_read = self._connection.understood = True
        if first.kind == PUSH_PROMISE:
            self._connection.take_promise(self._side, promised, fields, first)
        else:
            self._connection.take_fields(self._side, first, fields, len(block))
