"""One exchange for each TLS handshake: what the client offered, and what the server chose.

Until TLS 1.2 the server's certificates can be seen too; what comes after a ServerHello of TLS 1.3
is encrypted. Nothing is decrypted here, and after the handshake the stream is over.
"""

import contextlib
from typing import Any

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature
from services.capture.dissectors.tls.certificates import chain
from services.capture.dissectors.tls.hello import (
    ServerHello,
    client_hello,
    old_client_hello,
    server_hello,
)
from services.capture.dissectors.tls.names import SSL2, TLS13, alert, version
from services.capture.dissectors.tls.records import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    HANDSHAKE,
    Messages,
    Records,
)

CLIENT_HELLO, SERVER_HELLO, CERTIFICATE, SERVER_HELLO_DONE = 1, 2, 11, 14  # RFC 8446, 4
READ = frozenset({CLIENT_HELLO, SERVER_HELLO, CERTIFICATE})
CLOSE_NOTIFY, USER_CANCELED = 0, 90
FATAL = 2
ALERT_OCTETS = 2  # of one that is not encrypted
OLD_HEAD = 3  # octets of SSL 2.0's: two of length, of which the first bit is set, and the type
OLD_LENGTH = 0x7FFF
MOST_ONE_SIDED = 1 << 20  # octets after which an answer that was never seen is not waited for

NO_REQUEST = "pair-not-found", "the request was not seen"
NO_ANSWER = "pair-not-found", "the stream ended before an answer"
MALFORMED = "malformed", "the ClientHello announces more than it has"
ANSWER_LOST = "gap", "the answer was not captured"

_LENGTH = (bytes(range(0x49)), ANY)  # up to 2^14 + 2048
_BEGIN = (b"\x03", bytes(range(5)), *_LENGTH)
SIGNATURES = (
    # A handshake record whose first message is a hello of less than 64 KiB.
    Signature(CLIENT, (b"\x16", *_BEGIN, b"\x01", b"\x00")),
    Signature(SERVER, (b"\x16", *_BEGIN, b"\x02", b"\x00")),
    Signature(SERVER, (b"\x15", b"\x03", bytes(range(5)), b"\x00", b"\x02", b"\x01\x02")),
    # SSL 2.0's form of a hello that offers SSL 3.0 or later, or SSL 2.0.
    Signature(CLIENT, (b"\x80", ANY, b"\x01", b"\x03", bytes(range(4)), b"\x00")),
    Signature(CLIENT, (b"\x80", ANY, b"\x01", b"\x00", b"\x02", b"\x00")),
)


class _Side:
    """What one end has said."""

    def __init__(self) -> None:
        self.message: dict[str, Any] | None = None  # of the entry
        self.begin_ns = self.end_ns = 0
        self.size = 0  # octets on the wire until end_ns
        self.alert = bytearray()
        self.is_encrypted = False
        self.is_cut = False  # octets of what is told are missing
        self.has_gap = False


class Handshake(Conversation):
    """The handshake of one stream."""

    def __init__(self) -> None:
        super().__init__()
        self._asked_by: int | None = None
        self._sides = _Side(), _Side()
        self._records = self._new_records(CLIENT), self._new_records(SERVER)
        self._messages = self._new_messages(CLIENT), self._new_messages(SERVER)
        self._hello: ServerHello | None = None
        self._is_answered = False  # the server's part that can be read is complete
        self._old = bytearray()  # a hello in SSL 2.0's form
        self._old_version = 0
        self._old_left = 0
        self._error: tuple[str, str] | None = None
        self._is_done = False

    def _new_records(self, side: int) -> Records:
        return Records(
            lambda kind, octets, time_ns: self._content(side, kind, octets, time_ns),
            lambda octets, time_ns: self._lost(side, octets, time_ns),
        )

    def _new_messages(self, side: int) -> Messages:
        return Messages(
            READ,
            lambda kind, body, is_whole, time_ns: self._message(
                side, kind, body, is_whole, time_ns
            ),
        )

    @property
    def buffered(self) -> int:
        """See Conversation.buffered."""
        return self._messages[0].buffered + self._messages[1].buffered + len(self._old)

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation.receive."""
        if self.is_over or not len(octets):
            return
        mine = self._sides[side]
        if not mine.begin_ns:
            mine.begin_ns = mine.end_ns = time_ns
            is_old = side == CLIENT and octets[0] & 0x80 and not mine.has_gap
            self._old_left = OLD_HEAD if is_old else 0
            if self._old_version == SSL2 and side == SERVER:
                self._take_old_answer(octets, time_ns)
                return
        if side == CLIENT and self._old_left:
            octets = self._take_old(octets, time_ns)
        self._records[side].feed(octets, time_ns)
        if self._records[side].octets > MOST_ONE_SIDED:
            self._finish()

    def _take_old(self, octets: memoryview, time_ns: int) -> memoryview:
        """Take octets of a hello in the form of SSL 2.0 (RFC 5246, E.2); return what follows it."""
        taken = min(self._old_left, len(octets))
        self._old += octets[:taken]
        self._old_left -= taken
        if len(self._old) == OLD_HEAD and self._old_left == 0:
            self._old_left = (int.from_bytes(self._old[:2], "big") & OLD_LENGTH) - 1
            if self._old[2] != CLIENT_HELLO or self._old_left <= 0:
                raise ProtocolError("neither a record of TLS nor a hello of SSL 2.0")
            return self._take_old(octets[taken:], time_ns)
        if self._old_left == 0:
            hello = old_client_hello(bytes(self._old[OLD_HEAD:]))
            self._old_version = hello.version
            self._ask(CLIENT, hello.shown("t"), time_ns, len(self._old))
            self._old.clear()
        return octets[taken:]

    def _take_old_answer(self, octets: memoryview, time_ns: int) -> None:
        """After a hello that offers SSL 2.0 alone, what the server says is not read."""
        server = self._sides[SERVER]
        server.message, server.size = {"version": version(SSL2)}, len(octets)
        server.end_ns = time_ns
        self._finish()

    def _ask(self, side: int, request: dict[str, Any], time_ns: int, size: int) -> None:
        self.understood = True
        self._asked_by = side
        mine = self._sides[side]
        mine.message, mine.end_ns, mine.size = request, time_ns, size

    def _content(self, side: int, kind: int, octets: memoryview, time_ns: int) -> None:
        """Take octets of a record's content."""
        mine = self._sides[side]
        if kind == HANDSHAKE and not mine.is_encrypted:
            self._messages[side].feed(octets, time_ns)
        elif kind == ALERT and self._records[side].length == ALERT_OCTETS:
            mine.alert += octets
            if len(mine.alert) == ALERT_OCTETS:
                self._take_alert(side, time_ns)
        elif kind == CHANGE_CIPHER_SPEC:
            self._change_cipher(side, time_ns)
        elif kind == APPLICATION_DATA:
            mine.is_encrypted = True
            self._settle()

    def _change_cipher(self, side: int, time_ns: int) -> None:
        mine = self._sides[side]
        if side == self._asked_by or self._hello is not None:
            mine.is_encrypted = True
        if self._hello is not None and side != self._asked_by and not self._is_answered:
            # No ServerHelloDone before it: the session is an earlier one's (RFC 5246, 7.3).
            self._is_answered = True
            if mine.message is not None and "certificates" not in mine.message:
                mine.message["resumed"] = True
            mine.end_ns, mine.size = time_ns, self._records[side].octets
        self._settle()

    def _take_alert(self, side: int, time_ns: int) -> None:
        mine = self._sides[side]
        level, number = mine.alert
        mine.alert.clear()
        if self._asked_by is None:
            if side != SERVER:
                raise ProtocolError("an alert before any hello")
            self.understood, self._asked_by = True, CLIENT
        is_final = level == FATAL or number in (CLOSE_NOTIFY, USER_CANCELED)
        if mine.message is None:
            mine.message = {}
        mine.message["alert"] = alert(number)
        if is_final:
            who = "client" if side == self._asked_by else "server"
            self._error = "alert", f"the {who} ended the handshake: {alert(number)} ({number})"
        if side != self._asked_by:
            mine.end_ns, mine.size = time_ns, self._records[side].octets
        if is_final:
            self._finish()

    def _message(self, side: int, kind: int, body: bytes, is_whole: bool, time_ns: int) -> None:
        """Take a handshake message."""
        mine, size = self._sides[side], self._records[side].octets
        if kind == CLIENT_HELLO and self._asked_by in (None, side):
            if mine.message is None:
                hello = client_hello(body, is_whole)
                self._ask(side, hello.shown("t"), time_ns, size)
                mine.is_cut = not is_whole
                self._error = MALFORMED if hello.is_malformed else None
            else:  # the server asked for another one, which says the same
                mine.size = size
        elif kind == SERVER_HELLO and self._asked_by in (None, side ^ 1):
            self._take_server_hello(side, server_hello(body, is_whole))
            mine.is_cut |= not is_whole
            mine.end_ns, mine.size = time_ns, size
            self._settle()
        elif kind == CERTIFICATE and mine.message is not None:
            mine.message["certificates"] = chain(body, is_whole)
            mine.is_cut |= not is_whole
        elif not self.understood:
            raise ProtocolError("a handshake does not begin with this message")
        if side != self._asked_by and self._hello is not None and not self._is_answered:
            mine.end_ns, mine.size = time_ns, size
            self._is_answered = kind == SERVER_HELLO_DONE

    def _take_server_hello(self, side: int, hello: ServerHello) -> None:
        self.understood, self._asked_by = True, side ^ 1
        mine = self._sides[side]
        retried = mine.message is not None and mine.message.get("helloRetryRequest")
        mine.message = hello.shown()
        if hello.is_retry or retried:
            mine.message["helloRetryRequest"] = True
        if hello.is_retry:
            return
        self._hello = hello
        if hello.version >= TLS13:
            self._is_answered = True
            mine.message["resumed"] = hello.is_resumed

    def _settle(self) -> None:
        """Finish when no more can be read: both sides have gone on to encrypt."""
        if self._hello is None or self._asked_by is None:
            return
        is_hidden = self._hello.version >= TLS13 or self._sides[self._asked_by ^ 1].is_encrypted
        if is_hidden and self._sides[self._asked_by].is_encrypted:
            self._finish()

    def _lost(self, side: int, octets: int, time_ns: int) -> None:
        mine = self._sides[side]
        if not mine.is_encrypted:
            is_answer = side != self._asked_by and mine.message is not None
            mine.is_cut |= is_answer and not self._is_answered
            self._messages[side].skip(octets, time_ns)

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation.gap."""
        if self.is_over:
            return
        self._sides[side].has_gap = True
        if side == CLIENT and self._old_left:
            raise ProtocolError("octets of a hello of SSL 2.0 are missing")
        self._records[side].gap(octets, time_ns)

    def close(self, time_ns: int) -> None:
        """See Conversation.close."""
        for side in (CLIENT, SERVER):
            if not self._sides[side].is_encrypted and not self._is_done:
                with contextlib.suppress(ProtocolError):
                    self._messages[side].end(time_ns)
        self._finish()

    def _finish(self) -> None:
        """Make the exchange of what was seen."""
        if self._is_done:
            return
        self._is_done = self.is_over = True
        asked_by = self._asked_by or CLIENT
        client, server = self._sides[asked_by], self._sides[asked_by ^ 1]
        if client.message is None and server.message is None:
            return
        kind, sentence = self._error or self._lack(client, server) or (None, None)
        parts = [each for each in (client, server) if each.message is not None]
        chosen = (server.message or {}).get("version", "")
        self.exchanges.append(
            Exchange(
                parts[0].begin_ns, max(each.end_ns for each in parts),
                client.message, server.message,
                client.size, server.size, asked_by, kind, sentence, chosen.rpartition(" ")[2],
            )
        )  # fmt: skip

    @staticmethod
    def _lack(client: _Side, server: _Side) -> tuple[str, str] | None:
        if client.message is None:
            return NO_REQUEST
        if server.message is None:
            return ANSWER_LOST if server.has_gap else NO_ANSWER
        for name, side in (("request", client), ("response", server)):
            if side.is_cut:
                return "gap", f"the {name} was not captured whole"
        return None
