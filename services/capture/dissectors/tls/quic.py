"""The TLS handshake of a QUIC connection, as far as its Initial packets have it (RFC 9000, 9001).

One exchange for each connection: the ClientHello and the ServerHello. What follows is encrypted
with keys that nobody else has.
"""

import contextlib
from typing import Any

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.signatures import CLIENT, Signature
from services.capture.dissectors.tls.hello import client_hello, server_hello
from services.capture.dissectors.tls.messages import Messages
from services.capture.dissectors.tls.names import alert
from services.capture.dissectors.tls.quickeys import VERSION_1, VERSION_2, VERSIONS, keys
from services.capture.dissectors.tls.reader import Reader, TruncatedError
from services.capture.dissectors.tls.wire import (
    ANSWER_UNSEEN,
    CLIENT_HELLO,
    REQUEST_UNSEEN,
    SERVER_HELLO,
)

PADDING, PING, ACK, ACK_ECN, CRYPTO = 0, 1, 2, 3, 6
CLOSE, CLOSE_APPLICATION = 0x1C, 0x1D
CRYPTO_ERROR = 0x100  # and the number of an alert (RFC 9001, 4.8)
LONG, FIXED = 0x80, 0x40  # bits of the first octet
LONGEST_ID = 20  # octets of a connection's id
RETRY = 3  # the type after Initial, 0-RTT and Handshake; version 2 counts from 1
MOST_DATAGRAMS = 64  # of a handshake that does not come to its end
MOST_WAITING = 1 << 16  # octets of CRYPTO frames that came before their turn
MOST_PIECES = 256  # such frames
MOST_RANGES = 256  # of an ACK frame

_ID_LENGTH = bytes(range(LONGEST_ID + 1))
SIGNATURES = tuple(
    Signature(CLIENT, (kinds, *(bytes([each]) for each in version.to_bytes(4, "big")), _ID_LENGTH))
    for version, kinds in (
        (VERSION_1, bytes(range(0xC0, 0xD0))),
        (VERSION_2, bytes(range(0xD0, 0xE0))),
    )
)


class _Crypto:
    """The CRYPTO frames of one side, put in order."""

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        self._next = 0  # offset of the octet that is waited for
        self._waiting: dict[int, bytes] = {}
        self.buffered = 0

    def add(self, offset: int, octets: bytes, time_ns: int) -> None:
        """Take a frame; it may be early, late, or come again. Raises ProtocolError."""
        if offset > self._next:
            is_room = len(self._waiting) < MOST_PIECES
            is_longer = len(octets) > len(self._waiting.get(offset, b""))
            if is_room and is_longer and self.buffered + len(octets) <= MOST_WAITING:
                self.buffered += len(octets) - len(self._waiting.get(offset, b""))
                self._waiting[offset] = octets
            return
        self._give(offset, octets, time_ns)
        for early in sorted(self._waiting):
            if early > self._next:
                break
            piece = self._waiting.pop(early)
            self.buffered -= len(piece)
            self._give(early, piece, time_ns)

    def _give(self, offset: int, octets: bytes, time_ns: int) -> None:
        new = octets[self._next - offset :]
        self._next += len(new)
        self.messages.feed(memoryview(new), time_ns)


class Quic(Conversation):
    """One connection, or the first one of its flow."""

    def __init__(self) -> None:
        super().__init__()
        self._asked_by: int | None = None
        self._begin_ns = 0
        self._client_id = b""  # what the keys are made of
        self._version = 0
        self._sizes = [0, 0]
        self._end_ns = 0
        self._datagrams = 0
        self._request: dict[str, Any] | None = None
        self._response: dict[str, Any] | None = None
        self._has_retry = self._is_cut = False
        self._error: tuple[str, str] | None = None
        self._crypto = _Crypto(self._new_messages(0)), _Crypto(self._new_messages(1))

    def _new_messages(self, side: int) -> Messages:
        return Messages(
            frozenset({CLIENT_HELLO, SERVER_HELLO}),
            lambda kind, body, is_whole, time_ns: self._message(
                side, kind, body, is_whole, time_ns
            ),
        )

    @property
    def buffered(self) -> int:
        """See Conversation.buffered."""
        return sum(each.buffered + each.messages.buffered for each in self._crypto)

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation.receive."""
        if self.is_over:
            return
        self._datagrams += 1
        self._sizes[side] += len(octets)
        datagram = bytes(octets)
        try:
            while datagram and not self.is_over:
                datagram = self._take_packet(side, datagram, time_ns)
        except TruncatedError:
            pass  # cut by the snaplen, or padding that is no packet
        if not self.understood:
            raise ProtocolError("no packet that the keys of an Initial packet open")
        if self._datagrams >= MOST_DATAGRAMS:
            self._finish()

    def _take_packet(self, side: int, datagram: bytes, time_ns: int) -> bytes:
        """Take the first packet of a datagram; return what follows it (RFC 9000, 17.2)."""
        reader = Reader(datagram)
        first = reader.number(1)
        version = VERSIONS.get(reader.number(4)) if first & LONG else None
        if version is None or not first & FIXED:
            return b""  # a short header, a list of versions, or a version without known keys
        destination, _ = reader.vector(1), reader.vector(1)
        kind = (first >> 4 & 3) - version.initial & 3
        if kind == RETRY:
            return b""
        if kind == 0:
            reader.take(_integer(reader))  # a token
        length = _integer(reader)
        number_at = reader.at
        reader.take(length)
        if kind == 0:
            number = int.from_bytes(datagram[1:5], "big")
            packet = datagram[: reader.at]
            self._take_initial(side, number, destination, packet, number_at, time_ns)
        return datagram[reader.at :]

    def _take_initial(
        self,
        side: int,
        version: int,
        destination: bytes,
        packet: bytes,
        number_at: int,
        time_ns: int,
    ) -> None:
        frames = None
        if self._asked_by is not None and version == self._version:
            mine = keys(version, self._client_id)[side != self._asked_by]
            frames = mine.open(packet, number_at)
        if frames is None and side == (CLIENT if self._asked_by is None else self._asked_by):
            # The first one, or one after Retry, which has another id to make keys of.
            frames = keys(version, destination)[0].open(packet, number_at)
            if frames is not None:
                self._asked_by, self._version, self._client_id = side, version, destination
        if frames is None:
            return
        self._begin_ns = self._begin_ns or time_ns
        self.understood = True
        self._read_frames(side, Reader(frames), time_ns)

    def _read_frames(self, side: int, reader: Reader, time_ns: int) -> None:
        """Read the frames that an Initial packet may have (RFC 9000, 12.4)."""
        while reader.left:
            kind = _integer(reader)
            if kind in (ACK, ACK_ECN):
                _skip_ack(reader, kind)
            elif kind == CRYPTO:
                offset = _integer(reader)
                self._crypto[side].add(offset, reader.take(_integer(reader)), time_ns)
            elif kind in (CLOSE, CLOSE_APPLICATION):
                self._take_close(side, _integer(reader), time_ns)
                return
            elif kind not in (PADDING, PING):
                return

    def _take_close(self, side: int, code: int, time_ns: int) -> None:
        who = "client" if side == self._asked_by else "server"
        is_alert = CRYPTO_ERROR <= code < CRYPTO_ERROR + 0x100
        what = f"{alert(code & 0xFF)} ({code & 0xFF})" if is_alert else f"error {code:#x} of QUIC"
        self._error = "alert", f"the {who} ended the handshake: {what}"
        if side != self._asked_by and self._response is None:
            self._response = {"alert": alert(code & 0xFF)} if is_alert else {}
        self._end_ns = time_ns
        self._finish()

    def _message(self, side: int, kind: int, body: bytes, is_whole: bool, time_ns: int) -> None:
        if kind == CLIENT_HELLO and side == self._asked_by and self._request is None:
            self._request = client_hello(body, is_whole).shown("q")
            self._request["quicVersion"] = VERSIONS[self._version].name
            self._is_cut |= not is_whole
            self._end_ns = time_ns
        elif kind == SERVER_HELLO and side != self._asked_by:
            hello = server_hello(body, is_whole)
            self._has_retry |= hello.is_retry
            self._response = hello.shown()
            if self._has_retry:
                self._response["helloRetryRequest"] = True
            self._end_ns = time_ns
            if not hello.is_retry:
                self._response["resumed"] = hello.is_resumed
                self._finish()

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation.gap: datagrams have none."""

    def close(self, time_ns: int) -> None:
        """See Conversation.close."""
        if self._asked_by is not None and not self.is_over and self._request is None:
            with contextlib.suppress(ProtocolError):
                self._crypto[self._asked_by].messages.end(time_ns)
        self._finish()

    def _finish(self) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._asked_by is None or (self._request is None and self._response is None):
            return
        error = self._error
        if error is None and self._request is None:
            error = REQUEST_UNSEEN
        elif error is None and self._response is None:
            error = ANSWER_UNSEEN
        elif error is None and self._is_cut:
            error = "gap", "the request was not captured whole"
        kind, sentence = error or (None, None)
        chosen = (self._response or {}).get("version", "")
        self.exchanges.append(
            Exchange(
                self._begin_ns, self._end_ns, self._request, self._response,
                self._sizes[self._asked_by], self._sizes[self._asked_by ^ 1], self._asked_by,
                kind, sentence, chosen.rpartition(" ")[2],
            )
        )  # fmt: skip


def _integer(reader: Reader) -> int:
    """Return a number whose first two bits say how long it is (RFC 9000, 16)."""
    first = reader.number(1)
    rest = (1 << (first >> 6)) - 1
    return (first & 0x3F) << 8 * rest | reader.number(rest)


def _skip_ack(reader: Reader, kind: int) -> None:
    _, _, ranges = (_integer(reader) for _ in range(3))  # the largest one, the delay before them
    if ranges > MOST_RANGES:
        raise ProtocolError("an ACK frame has more ranges than a handshake has packets")
    for _ in range(2 * ranges + 1 + (3 if kind == ACK_ECN else 0)):
        _integer(reader)
