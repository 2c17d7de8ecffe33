"""Pairs requests and replies of MongoDB by their numbers. The registry has it."""

from dataclasses import dataclass
from typing import Any

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.inbox import Inbox, Message
from services.capture.dissectors.mongodb import messages as wire
from services.capture.dissectors.mongodb.entries import request_of, response_of
from services.capture.dissectors.objectcalls import Exchange

Json = dict[str, Any]

MOST_WAITING = 1024  # requests without a reply: of more the oldest are given up
MOST_WAITING_OCTETS = 1 << 20  # of them; most drivers send the next when the reply is there

ENDED = "pair-not-found", "the stream ended before the reply"
NO_REQUEST = "pair-not-found", "no request was seen for this reply"
FORGOTTEN = "pair-not-found", "too many later requests waited, and none was answered"
LOST = "gap", "octets of it were lost"
REPLY_LOST = "gap", "octets of the other side were lost while it waited"

NO_NUMBER = (0, 0xFFFFFFFF)  # in the place of a request's number: older clients write the latter
ASKING = frozenset(wire.OPCODES) - {wire.REPLY, wire.MSG, wire.COMPRESSED}
UNANSWERED = frozenset({wire.UPDATE, wire.INSERT, wire.DELETE, wire.KILL_CURSORS})


@dataclass(slots=True)
class Asked:
    """A request that waits for its reply."""

    request: Json
    start_ns: int
    end_ns: int
    size: int
    lacks: bool
    kept: int = 0
    """Octets in memory, about."""
    in_doubt: bool = False
    """Octets were lost where its reply may have been."""


class Session(Conversation):
    """One connection."""

    def __init__(self) -> None:
        super().__init__()
        self._inboxes = tuple(Inbox(wire.measure, wire.find, wire.MOST_KEPT) for _ in range(2))
        self._asked: dict[int, Asked] = {}
        self._kept = 0  # octets of what waits
        self._asker: int | None = None  # side

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return sum(map(len, self._inboxes)) + self._kept

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        inbox = self._inboxes[side]
        inbox.feed(octets, time_ns)
        while (message := self._next(inbox, time_ns)) is not None:
            self._take(side, message, time_ns)

    def _next(self, inbox: Inbox, time_ns: int) -> Message | None:
        while True:
            try:
                return inbox.read(time_ns)
            except ProtocolError:
                if not self.understood:
                    raise
                inbox.look_on(time_ns)

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation: a message that is lost in part is told; else the next one is found."""
        inbox = self._inboxes[side]
        if inbox.gap(octets):
            self.receive(side, memoryview(b""), time_ns)
        elif side != self._asker and (octets or inbox.has_begun):
            for asked in self._asked.values():
                asked.in_doubt = True

    def close(self, time_ns: int) -> None:  # noqa: ARG002
        """See Conversation."""
        for asked in self._asked.values():
            self._add_alone(asked, *(REPLY_LOST if asked.in_doubt else ENDED))
        self._asked.clear()

    def _take(self, side: int, message: Message, time_ns: int) -> None:
        number = int.from_bytes(message.octets[4:8], "little")
        answers = int.from_bytes(message.octets[8:12], "little")
        try:
            body = wire.read_body(message)
        except ProtocolError:
            if not self.understood:
                raise
            body = wire.Body(int.from_bytes(message.octets[12:16], "little"), is_cut=True)
        self.understood = True
        if self._asker is None:
            is_request = body.opcode in ASKING or (body.opcode == wire.MSG and answers in NO_NUMBER)
            self._asker = side if is_request else 1 - side
        if side == self._asker:
            self._ask(number, body, message, time_ns)
        else:
            self._answer(number, answers, body, message, time_ns)

    def _ask(self, number: int, body: wire.Body, message: Message, time_ns: int) -> None:
        request = request_of(body)
        asked = Asked(request, message.began_ns, time_ns, message.size, message.lacks)
        if body.opcode in UNANSWERED or (
            body.opcode == wire.MSG and body.flags & wire.MORE_TO_COME
        ):  # the client does not want to know
            self._add_alone(asked)
            return
        while self._asked and (
            len(self._asked) >= MOST_WAITING or self._kept > MOST_WAITING_OCTETS
        ):
            oldest = self._take_asked(next(iter(self._asked)))
            if oldest is not None:
                self._add_alone(oldest, *FORGOTTEN)
        same = self._take_asked(number)
        if same is not None:
            self._add_alone(same, *ENDED)
        asked.kept = len(message.octets)
        self._kept += asked.kept
        self._asked[number] = asked

    def _take_asked(self, number: int) -> Asked | None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            self._kept -= asked.kept
        return asked

    def _answer(
        self, number: int, answers: int, body: wire.Body, message: Message, time_ns: int
    ) -> None:
        asked = self._take_asked(answers)
        request = asked.request if asked is not None else None
        response = response_of(body, request)
        exchange = Exchange(
            message.began_ns, time_ns, request, response, 0, message.size,
            asked_by=self._asker or 0,
        )  # fmt: skip
        if asked is None:
            exchange.error_type, exchange.error_msg = NO_REQUEST
        else:
            exchange.start_ns, exchange.request_size = asked.start_ns, asked.size
        if message.lacks or (asked is not None and asked.lacks):
            exchange.error_type, exchange.error_msg = LOST
        self.exchanges.append(exchange)
        if asked is not None and body.opcode == wire.MSG and body.flags & wire.MORE_TO_COME:
            # Exhaust: the next reply answers this one, as if the request were asked again.
            same = self._take_asked(number)
            if same is not None:
                self._add_alone(same, *ENDED)
            self._asked[number] = Asked(asked.request, time_ns, time_ns, 0, lacks=False)

    def _add_alone(self, asked: Asked, kind: str | None = None, why: str | None = None) -> None:
        if asked.size == 0:  # of an exhaust cursor that had no further reply
            return
        if asked.lacks:
            kind, why = LOST
        exchange = Exchange(
            asked.start_ns, asked.end_ns, asked.request, None, asked.size,
            asked_by=self._asker or 0, error_type=kind, error_msg=why,
        )  # fmt: skip
        self.exchanges.append(exchange)
