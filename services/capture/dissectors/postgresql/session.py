"""One connection of PostgreSQL: what its client and its server say. The registry has it.

A simple query becomes an entry, or Parse, Bind, Describe and Execute of one statement; `pairing`
says which answer is whose.
"""

from collections.abc import Callable

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.inbox import Inbox, Message
from services.capture.dissectors.postgresql import messages as wire
from services.capture.dissectors.postgresql.answers import READERS
from services.capture.dissectors.postgresql.pairing import ENDED, ENDS, LOST, WITHIN, Pairing
from services.capture.dissectors.postgresql.prepared import Prepared
from services.capture.dissectors.postgresql.units import Json, Unit
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.dissectors.sqltext import first_word, without_passwords

SURE = 4  # messages in a row, after which one that makes no sense is an error


class Session(Pairing):
    """See Conversation."""

    def __init__(self) -> None:
        super().__init__()
        self._inboxes = (
            Inbox(wire.measure_client, wire.find_client, wire.MOST_KEPT),
            Inbox(wire.measure_server, wire.find_server, wire.MOST_KEPT),
        )
        self._prepared = Prepared()
        self._who: Json = {}  # user and database
        self._encryption: Unit | None = None  # a request for it: one octet is the answer
        self._read = [0, 0]  # messages of each side since it was found

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return sum(map(len, self._inboxes)) + self._prepared.size + self._kept

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        inbox = self._inboxes[side]
        inbox.feed(octets, time_ns)
        if side == SERVER and self._encryption is not None:
            self._take_encryption(inbox, time_ns)
        while not self.is_over and (message := self._next(side, time_ns)) is not None:
            self.understood = True
            self._read[side] += 1
            try:
                (self._ask if side == CLIENT else self._answer)(message, time_ns)
            except ProtocolError:
                if not message.is_cut and self._is_sure(side):
                    raise

    def _next(self, side: int, time_ns: int) -> Message | None:
        """Return the next message. One that was found wrongly after a loss is looked for again."""
        inbox = self._inboxes[side]
        while True:
            try:
                return inbox.read(time_ns)
            except ProtocolError:
                if self._is_sure(side):
                    raise
                self._read[side] = 0
                inbox.look_on(time_ns)

    def _is_sure(self, side: int) -> bool:
        """So many messages fitted that a wrong one is an error. Before the first, all are."""
        return not self.understood or self._read[side] >= SURE

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation: a message that is lost in part is told; else the next one is found."""
        within = self._inboxes[side].gap(octets)
        if within:
            self.receive(side, memoryview(b""), time_ns)
            return
        self._read[side] = 0
        if side == CLIENT and not self.understood:
            self._inboxes[SERVER].lose()  # what answers a request for encryption is no message
        if not octets and not self._inboxes[side].has_begun and self._encryption is None:
            return  # it is only that the capture began in the middle
        if side == SERVER:
            self._doubt_answers()
            if self._encryption is not None:
                self._add(self._encryption, *LOST)
                self._encryption = None
            return
        self._doubt_requests()
        self._lost_requests = self.understood or octets > 0

    def close(self, time_ns: int) -> None:  # noqa: ARG002
        """See Conversation."""
        self._begin(None)
        self._give_up_orphan()
        if self._encryption is not None:
            self._add(self._encryption, *ENDED)
        self._end_all(*ENDED)

    # ---- what the client says

    def _ask(self, message: Message, time_ns: int) -> None:
        kind = message.octets[0]
        if kind == 0:
            self._ask_startup(message, time_ns)
            return
        if kind in b"dcf":
            self._ask_copy(message, time_ns)
        elif kind == ord("p"):  # a password, or a step of SASL: nothing of it is kept
            self._more(message, time_ns, self._steps[0].unit if self._steps else None)
        else:
            self._settle()
            ASKERS[kind](self, message, time_ns)

    def _ask_startup(self, message: Message, time_ns: int) -> None:
        code = wire.read_i32(message.octets, 4)
        unit = Unit(None, message.began_ns, time_ns, message.size)
        if code == wire.CANCEL:  # the key behind the number is a secret
            unit.request = {
                "command": "CancelRequest", "processID": wire.read_i32(message.octets, 8)
            }  # fmt: skip
            self._add(unit)
        elif code in (wire.SSL, wire.GSSENC):
            name = "SSLRequest" if code == wire.SSL else "GSSENCRequest"
            unit.request = {"command": name}
            self._encryption = unit
        else:
            parameters = wire.startup_parameters(message.octets)
            self._version = f"{code >> 16}.{code & 0xFFFF}"
            self._who = {"user": parameters.pop("user", "")}
            self._who["database"] = parameters.pop("database", self._who["user"])
            unit.request = {"command": "Startup"} | self._who | {"parameters": parameters}
            self._read[CLIENT] = SURE
            self._wait("Startup", unit)

    def _ask_copy(self, message: Message, time_ns: int) -> None:
        unit = self._steps[0].unit if self._steps else None
        if unit is not None and unit.request is not None:
            if message.octets[0] == ord("d"):
                unit.copied[CLIENT] += message.size - wire.HEAD
            elif message.octets[0] == ord("f"):
                unit.request["copyFailure"] = wire.read_text(message.octets, wire.HEAD)[0]
        self._more(message, time_ns, unit)

    @staticmethod
    def _more(message: Message, time_ns: int, unit: Unit | None) -> None:
        """A message adds to a request; one of which nobody knows what it belongs to is nothing."""
        if unit is not None:
            unit.request_size += message.size
            unit.end_ns = time_ns
            unit.lacks |= message.lacks

    def _new(self, message: Message, time_ns: int, request: Json) -> Unit:
        """Begin a unit."""
        if message.is_cut:
            request["bodyTruncated"] = True
        unit = Unit(request | self._who, message.began_ns, time_ns, message.size)
        unit.lacks = message.lacks
        self._keep(unit, len(message.octets))
        return unit

    def _ask_query(self, message: Message, time_ns: int) -> None:
        text = without_passwords(wire.read_text(message.octets, wire.HEAD)[0])
        self._begin(None)
        unit = self._new(message, time_ns, {"command": first_word(text), "query": text})
        self._wait("Query", unit)

    def _ask_parse(self, message: Message, time_ns: int) -> None:
        name, at = wire.read_text(message.octets, wire.HEAD)
        text = without_passwords(wire.read_text(message.octets, at)[0])
        self._prepared.parse(name, text)
        request: Json = {"command": "Parse", "query": text}
        if name:
            request["statement"] = name
        unit = self._new(message, time_ns, request)
        unit.statement = name
        self._begin(unit)
        self._wait("Parse", unit)

    def _ask_bind(self, message: Message, time_ns: int) -> None:
        portal, at = wire.read_text(message.octets, wire.HEAD)
        name, at = wire.read_text(message.octets, at)
        values: list[str | None] = []
        try:
            for value in wire.bind_values(message.octets, at):
                values.append(value)
        except ProtocolError:
            if not message.is_cut:
                raise
        self._prepared.bind(portal, name, values)
        unit = self._open
        if unit is None or unit.executes or unit.portal is not None or unit.statement != name:
            unit = self._new(message, time_ns, {"command": "Bind"} | self._prepared.told(portal))
        else:
            self._more(message, time_ns, unit)
            self._keep(unit, len(message.octets))
            unit.request = (unit.request or {}) | self._prepared.told(portal)
        unit.portal, unit.statement = portal, name
        self._begin(unit)
        self._wait("Bind", unit)

    def _ask_describe(self, message: Message, time_ns: int) -> None:
        kind, (name, _) = message.octets[5:6], wire.read_text(message.octets, wire.HEAD + 1)
        unit = self._open
        if unit is not None and not unit.executes:
            mine = unit.portal if kind == b"P" else unit.statement
            if mine == name:
                self._more(message, time_ns, unit)
                self._wait("Describe", unit)
                return
        told = self._prepared.told(name) if kind == b"P" else self._prepared.of_statement(name)
        unit = self._new(message, time_ns, {"command": "Describe"} | told)
        unit.statement = name if kind == b"S" else None
        self._begin(unit)
        self._wait("Describe", unit)

    def _ask_execute(self, message: Message, time_ns: int) -> None:
        portal, _ = wire.read_text(message.octets, wire.HEAD)
        unit = self._open
        if unit is None or unit.executes or unit.portal != portal:
            unit = self._new(message, time_ns, self._prepared.told(portal))
            self._begin(unit)
        else:
            self._more(message, time_ns, unit)
        request = unit.request = unit.request or {}
        request["command"] = first_word(request.get("query", "")) or "Execute"
        unit.executes = True
        self._wait("Execute", unit)

    def _ask_close(self, message: Message, time_ns: int) -> None:
        kind, (name, _) = message.octets[5:6], wire.read_text(message.octets, wire.HEAD + 1)
        told = self._prepared.told(name) if kind == b"P" else self._prepared.of_statement(name)
        self._prepared.close(kind, name)
        unit = self._new(message, time_ns, {"command": "Close"} | told)
        self._begin(unit)
        self._wait("Close", unit)

    def _ask_sync(self, message: Message, time_ns: int) -> None:
        unit, self._open = self._open, None
        if unit is None:
            unit = self._new(message, time_ns, {"command": "Sync"})
        else:
            self._more(message, time_ns, unit)
        self._wait("Sync", unit)

    def _ask_flush(self, message: Message, time_ns: int) -> None:
        self._more(message, time_ns, self._open)

    def _ask_call(self, message: Message, time_ns: int) -> None:
        self._begin(None)
        request = {"command": "FunctionCall", "function": wire.read_i32(message.octets, wire.HEAD)}
        self._wait("FunctionCall", self._new(message, time_ns, request))

    def _ask_end(self, message: Message, time_ns: int) -> None:
        self._begin(None)
        self._add(self._new(message, time_ns, {"command": "Terminate"}))

    # ---- what the server says

    def _take_encryption(self, inbox: Inbox, time_ns: int) -> None:
        """One octet answers a request for encryption; an old server answers with an error."""
        unit, first = self._encryption, inbox.next_octet
        if unit is None or first < 0:
            return
        self._encryption = None
        unit.answered, unit.end_ns = True, time_ns
        if first in b"SGN":
            inbox.take(1)
            unit.response_size = 1
            self.understood = True
            self.is_over = first != ord("N")
            self.unread = len(inbox)
            unit.response["encryption"] = "refused" if first == ord("N") else "accepted"
            self._add(unit)
        elif first == ord("E"):
            self._wait("Startup", unit)
        else:
            raise ProtocolError("a request for encryption is answered with S, G or N")

    def _answer(self, message: Message, time_ns: int) -> None:
        kind = message.octets[0]
        if kind == ord("A"):
            self._notification(message, time_ns)
            return
        unit = self._answered(kind, message, time_ns)
        if unit is None:
            return
        unit.answered = True
        unit.response_size += message.size
        unit.end_ns = time_ns
        unit.lacks |= message.lacks
        reader = READERS.get(kind)
        if reader is not None:
            reader(unit, message)
        if unit is self._orphan:
            if kind == ord("Z"):
                self._orphan_done()
        elif kind == ord("E"):
            self._failed()
        elif not self._steps or kind in ENDS[self._steps[0].kind]:
            self._step_done()

    def _answered(self, kind: int, message: Message, time_ns: int) -> Unit | None:
        """Return whose answer this is: the oldest step's, or nobody's; None where it is neither."""
        if self._deaf:
            return None
        if kind == ord("Z") and self._orphan is None:
            self._skip_to_ready()
        if self._steps and self._orphan is None:
            step = self._steps[0]
            if kind in b"ESN" or kind in ENDS[step.kind] or kind in WITHIN.get(step.kind, b""):
                return step.unit
        if kind == ord("S") and self._orphan is None:
            return None
        if kind == ord("N") and self._orphan is None and not self._lost_requests:
            self._notice(message, time_ns)
            return None
        if self._orphan is None:
            if kind in b"123" and self._steps and self._lost_requests:
                return None  # only the Parse, Bind or Close was lost
            self._orphan = Unit(None, message.began_ns, time_ns)
        return self._orphan

    def _notification(self, message: Message, time_ns: int) -> None:
        """NotificationResponse: nobody asked, so it is the server's message."""
        channel, at = wire.read_text(message.octets, wire.HEAD + 4)
        payload, _ = wire.read_text(message.octets, at)
        request = {
            "command": "Notification", "processID": wire.read_i32(message.octets, wire.HEAD),
            "channel": channel, "payload": payload,
        }  # fmt: skip
        self._tell(message, time_ns, request)

    def _notice(self, message: Message, time_ns: int) -> None:
        self._tell(message, time_ns, {"command": "Notice"} | wire.error_fields(message.octets))

    def _tell(self, message: Message, time_ns: int, request: Json) -> None:
        exchange = self._new(message, time_ns, request).exchange()
        exchange.asked_by = SERVER
        exchange.version = self._version
        self.exchanges.append(exchange)


ASKERS: dict[int, Callable[[Session, Message, int], None]] = {
    ord("Q"): Session._ask_query, ord("P"): Session._ask_parse, ord("B"): Session._ask_bind,
    ord("D"): Session._ask_describe, ord("E"): Session._ask_execute,
    ord("C"): Session._ask_close, ord("S"): Session._ask_sync, ord("H"): Session._ask_flush,
    ord("F"): Session._ask_call, ord("X"): Session._ask_end,
}  # fmt: skip
