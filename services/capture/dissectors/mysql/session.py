"""Pairs the commands of a client of MySQL with the answers of the server. The registry has it.

A client sends one command after the other, and its packet is number 0; the first of the answer is
number 1. So both sides meet again after lost octets when the next command is asked.
"""

import re
from collections import deque
from collections.abc import Callable

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.inbox import Inbox, Message
from services.capture.dissectors.mysql import compression
from services.capture.dissectors.mysql import packets as wire
from services.capture.dissectors.mysql.answers import FIRST_OF, Answer, Expected
from services.capture.dissectors.mysql.calls import (
    CUT_SHORT,
    ENDED,
    FORGOTTEN,
    LOST,
    NO_LOGIN,
    NO_REQUEST,
    REQUEST_LOST,
    Call,
)
from services.capture.dissectors.mysql.login import (
    Greeting,
    read_change_user,
    read_greeting,
    read_login,
)
from services.capture.dissectors.mysql.packets import Json
from services.capture.dissectors.mysql.statements import Statement, Statements
from services.capture.dissectors.mysql.values import read_parameters
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.dissectors.sqltext import without_passwords

MOST_WAITING = 1024  # commands without an answer: of more the oldest are given up
MOST_PARAMETERS = 65_535  # of a statement: the server's limit
MOST_WAITING_OCTETS = 1 << 20  # of their requests; nobody sends the next before the answer
SURE = 4  # packets in a row, after which one that makes no sense is an error

UNANSWERED = frozenset({"COM_QUIT", "COM_STMT_CLOSE", "COM_STMT_SEND_LONG_DATA"})
_USE = re.compile(r"\s*+USE\s++`?([^`\s;]{1,256})`?\s*+;?\s*+$", re.IGNORECASE)


class Session(Conversation):
    """One connection."""

    def __init__(self) -> None:
        super().__init__()
        self._inboxes = (
            Inbox(wire.measure, wire.find_client, wire.MOST_KEPT),
            Inbox(wire.measure, self._find_server, wire.MOST_KEPT),
        )
        self._frames: tuple[Inbox, Inbox] | None = None  # when it is compressed
        self._wire = [0, 0]  # octets of frames whose packets are not counted yet
        self._is_new = True
        self._met = False  # a greeting, a login or a command was seen
        self._greeting: Greeting | None = None
        self._greeting_size = self._greeted_ns = 0
        self._waiting: deque[Call] = deque()
        self._kept = 0  # octets of what waits
        self._statements = Statements()
        self._capabilities = 0
        self._eofs: bool | None = None
        self._who: Json = {}
        self._numbers = [-1, -1]  # of the last packet of each side
        self._full = [False, False]  # the last packet goes on in the next
        self._read = [0, 0]  # packets of each side since it was found
        self._deaf = False  # answers are of nobody until the client asks again
        self._lost_requests = False

    def _find_server(self, data: bytearray) -> int:
        logs_in = self._waiting and self._waiting[0].answer.expected is Expected.LOGIN
        return (wire.find_login if logs_in else wire.find_server)(data)

    @property
    def buffered(self) -> int:
        """See Conversation."""
        inboxes = self._inboxes + (self._frames or ())
        return sum(map(len, inboxes)) + self._statements.size + self._kept

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        if self._is_new:
            self._is_new = False
            if compression.could_be_compressed(side, bytes(octets[: compression.HEAD + 5])):
                self._compress()
        if side == SERVER and self._deaf and self._waiting:  # only to tell how much it was
            self._waiting[0].response_size += len(octets)
            self._waiting[0].end_ns = time_ns
            return
        if self._frames is None:
            self._inboxes[side].feed(octets, time_ns)
            self._read_packets(side, time_ns)
            return
        frames = self._frames[side]
        frames.feed(octets, time_ns)
        while self._frames and (frame := frames.read(time_ns)) is not None and not self.is_over:
            self._take_frame(side, frame, time_ns)

    def _compress(self) -> None:
        self._frames = tuple(
            Inbox(compression.measure, compression.find, compression.MOST_KEPT) for _ in range(2)
        )  # type: ignore[assignment]

    def _take_frame(self, side: int, frame: Message, time_ns: int) -> None:
        octets, size = compression.decompress(frame)
        self._wire[side] += frame.size
        inbox = self._inboxes[side]
        inbox.feed(octets, frame.began_ns)
        self._read_packets(side, time_ns)
        if len(octets) < size:
            self._lose(side, size - len(octets), time_ns, inbox)

    def _read_packets(self, side: int, time_ns: int) -> None:
        inbox = self._inboxes[side]
        while not self.is_over and (packet := inbox.read(time_ns)) is not None:
            continues, self._full[side] = self._full[side], packet.size == wire.FULL + wire.HEAD
            self._read[side] += 1
            try:
                if continues:
                    self._more(side, packet, time_ns)
                elif side == CLIENT:
                    self._ask(packet, time_ns)
                else:
                    self._answer(packet, time_ns)
            except ProtocolError:
                if not packet.is_cut and (not self.understood or self._read[side] > SURE):
                    raise
                self._read[side] = 0
            self._numbers[side] = packet.octets[3]

    def _size(self, side: int, packet: Message) -> int:
        """Return a packet's octets on the wire; of a frame with several, all go to the first."""
        if self._frames is None:
            return packet.size
        size, self._wire[side] = self._wire[side], 0
        return size

    def _more(self, side: int, packet: Message, time_ns: int) -> None:
        """A packet goes on with the one before it."""
        size = self._size(side, packet)
        if side == CLIENT and self._waiting:
            self._waiting[-1].request_size += size
        elif side == SERVER and self._waiting:
            self._waiting[0].response_size += size
            self._waiting[0].end_ns = time_ns

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation: a packet that is lost in part is told; else the next one is found."""
        self._lose(side, octets, time_ns, (self._frames or self._inboxes)[side])

    def _lose(self, side: int, octets: int, time_ns: int, inbox: Inbox) -> None:
        if inbox.gap(octets):
            if inbox is self._inboxes[side]:
                self._read_packets(side, time_ns)
            else:
                self.receive(side, memoryview(b""), time_ns)
            return
        if inbox is not self._inboxes[side]:
            self._inboxes[side].lose()
        self._read[side] = 0
        self._full[side] = False
        if not octets and not inbox.has_begun and not self._inboxes[side].has_begun:
            return  # it is only that the capture began in the middle
        if side == SERVER:
            self._deaf = bool(self._waiting)
            for call in self._waiting:
                call.lacks = True
        elif self._waiting and self._waiting[-1].answer.expected in (Expected.FILE, Expected.LOGIN):
            self._waiting[-1].lacks = True
        else:
            self._lost_requests = octets > 0 or self.understood

    def close(self, time_ns: int) -> None:  # noqa: ARG002
        """See Conversation."""
        if self._greeting is not None and not self._capabilities:
            call = Call(None, Answer(Expected.LOGIN), self._greeted_ns, self._greeted_ns)
            call.answer.told |= self._greeting.told
            call.answer.begun = True
            call.response_size = self._greeting_size
            self._add(call, *NO_LOGIN)
        while self._waiting:
            call = self._next_waiting()
            if call.request is None:
                self._add(call, *(REQUEST_LOST if self._lost_requests else NO_REQUEST))
            else:
                self._add(call, *(LOST if call.lacks else ENDED))

    # ---- what the client says

    def _ask(self, packet: Message, time_ns: int) -> None:
        payload, number = packet.octets[wire.HEAD :], packet.octets[3]
        call = self._waiting[-1] if self._waiting else None
        expected = call.answer.expected if call is not None and not call.answer.done else None
        if call is not None and number and expected in (Expected.FILE, Expected.LOGIN):
            self._ask_more(call, payload, packet, time_ns)
        elif number == 0:
            self._ask_command(payload, packet, time_ns)
        elif number <= 2 and not self._capabilities and (self._greeting or not self._met):
            self._ask_login(payload, packet, time_ns)
        elif not self.understood:
            raise ProtocolError(f"packet {number} of the client answers nothing")
        elif call is not None:
            call.request_size += self._size(CLIENT, packet)

    def _ask_more(self, call: Call, payload: bytes, packet: Message, time_ns: int) -> None:
        """A part of a file, or a step of a login, of which nothing is kept."""
        call.request_size += self._size(CLIENT, packet)
        call.lacks |= packet.lacks
        call.end_ns = time_ns
        if call.answer.expected is Expected.FILE and call.request is not None:
            octets = call.request.get("fileOctets", 0)
            call.request["fileOctets"] = octets + packet.size - wire.HEAD
            if not payload:
                call.answer.file_sent()

    def _ask_login(self, payload: bytes, packet: Message, time_ns: int) -> None:
        login = read_login(payload)
        self._met = True
        self._capabilities = login.capabilities
        self._who = {"user": login.user, "database": login.database}
        kind = "SSLRequest" if login.wants_tls else "Login"
        request: Json = {"command": kind}
        if not login.wants_tls:
            request |= self._who | login.told
        call = self._new(packet, time_ns, request)
        call.response_size = self._greeting_size
        if self._greeting is not None:
            call.answer.told |= self._greeting.told
            call.answer.begun = True
        if login.wants_tls:
            self.understood = self.is_over = call.answer.done = True
            self.unread = len(self._inboxes[CLIENT])
            self._add(call)
        else:
            self._wait(call)

    def _ask_command(self, payload: bytes, packet: Message, time_ns: int) -> None:
        name = wire.COMMANDS.get(payload[0]) if payload else None
        if name is None:
            raise ProtocolError("there is no such command")
        self._settle()
        self._met = True
        self.understood |= self._read[CLIENT] >= SURE
        request: Json = {"command": name}
        call = self._new(packet, time_ns, request)
        reader = ASKERS.get(name)
        if reader is not None:
            try:
                reader(self, call, request, payload)
            except ProtocolError:
                if not packet.is_cut:
                    raise
        if packet.is_cut:
            request["bodyTruncated"] = True
        request |= {key: value for key, value in self._who.items() if value and key not in request}
        if name in UNANSWERED:
            self._add(call)
        else:
            self._wait(call)

    def _new(self, packet: Message, time_ns: int, request: Json) -> Call:
        expected = FIRST_OF.get(request["command"], Expected.FIRST)
        answer = Answer(expected, self._capabilities, self._eofs)
        size = self._size(CLIENT, packet)
        call = Call(request, answer, packet.began_ns, time_ns, size, lacks=packet.lacks)
        call.kept = len(packet.octets)
        return call

    def _ask_query(self, call: Call, request: Json, payload: bytes) -> None:
        at = 1
        if payload[1:3] == b"\0\1" or self._capabilities & wire.QUERY_ATTRIBUTES:
            count, at = wire.lenenc(payload, at)
            _, at = wire.lenenc(payload, at)
            if count:
                values, _, at = read_parameters(payload, at, count, (), True, frozenset())
                request["attributes"] = values
        request["query"] = without_passwords(wire.text(payload[at:]))
        if used := _USE.match(request["query"][:300]):
            call.database = used[1]

    def _ask_database(self, call: Call, request: Json, payload: bytes) -> None:
        request["database"] = wire.text(payload[1:])
        if request["command"] == "COM_INIT_DB":
            call.database = request["database"]

    def _ask_prepare(self, call: Call, request: Json, payload: bytes) -> None:
        request["query"] = call.statement = without_passwords(wire.text(payload[1:]))

    def _ask_statement(self, call: Call, request: Json, payload: bytes) -> None:
        """Tell what a number stands for."""
        number = wire.u32(payload, 1)
        request["statementId"] = number
        statement = self._statements.get(number)
        if statement is None:
            return
        request["query"] = statement.query
        if request["command"] == "COM_STMT_EXECUTE":
            self._parameters(statement, request, payload)
            statement.long.clear()
        elif request["command"] == "COM_STMT_RESET":
            statement.long.clear()
        elif request["command"] == "COM_STMT_SEND_LONG_DATA":
            statement.long.add(wire.u16(payload, 5))
            request["octets"] = call.request_size - wire.HEAD - 7
        elif request["command"] == "COM_STMT_CLOSE":
            self._statements.remove(number)

    def _parameters(self, statement: Statement, request: Json, payload: bytes) -> None:
        count, at, named = statement.parameters, 10, False
        if self._capabilities & wire.QUERY_ATTRIBUTES and wire.uint(payload, 5, 1) & 8:
            count, at = wire.lenenc(payload, at)
            named = True
        if not 0 < count <= MOST_PARAMETERS:
            return
        long = frozenset(statement.long)
        try:
            values, statement.types, _ = read_parameters(
                payload, at, count, statement.types, named, long
            )
        except ProtocolError:  # of a type, or an extension, that is not known
            return
        request["parameters"] = values

    def _ask_user(self, call: Call, request: Json, payload: bytes) -> None:
        user, database = read_change_user(payload, self._capabilities)
        self._who = {"user": user}
        request["database"] = call.database = database
        self._statements.clear()

    def _ask_fields(self, call: Call, request: Json, payload: bytes) -> None:  # noqa: ARG002
        request["table"] = wire.text(wire.zero_ended(payload, 1)[0])

    def _ask_number(self, call: Call, request: Json, payload: bytes) -> None:  # noqa: ARG002
        request["connectionID"] = wire.u32(payload, 1)

    def _ask_reset(self, call: Call, request: Json, payload: bytes) -> None:  # noqa: ARG002
        self._statements.clear()

    def _wait(self, call: Call) -> None:
        while self._waiting and (
            len(self._waiting) >= MOST_WAITING or self._kept > MOST_WAITING_OCTETS
        ):
            self._add(self._next_waiting(), *FORGOTTEN)
        self._waiting.append(call)
        self._kept += call.kept

    def _next_waiting(self) -> Call:
        call = self._waiting.popleft()
        self._kept -= call.kept
        return call

    def _settle(self) -> None:
        """The client asks on, so it has the answers that were lost to us."""
        self._deaf = False
        while self._waiting:
            call = self._waiting[0]
            if call.answer.expected is Expected.LOGIN:
                call.lacks = True
            if not call.lacks and not call.malformed:
                return
            self._add(self._next_waiting())

    # ---- what the server says

    def _answer(self, packet: Message, time_ns: int) -> None:
        payload, number = packet.octets[wire.HEAD :], packet.octets[3]
        if not self._met:
            if number == 0:
                self._greet(payload, packet, time_ns)
                return
            self._met = number == 1
        if number == 1 and self._waiting and self._waiting[0].answer.begun:
            first = self._waiting[0]
            if (
                self._numbers[SERVER] not in (0, -1)
                and (first.request or {}).get("command") != "Login"
            ):  # numbers start again with each answer, and after 255
                self._add(self._next_waiting(), *CUT_SHORT)
        if not self._waiting and number == 1 and not self._deaf:
            answer = Answer(Expected.FIRST, self._capabilities, self._eofs)
            self._waiting.append(Call(None, answer, packet.began_ns, time_ns))
            if not self._inboxes[CLIENT].is_empty:  # nobody answers half a command, so it is none
                self._inboxes[CLIENT].lose()
        if not self._waiting:
            self._size(SERVER, packet)
            return
        call = self._waiting[0]
        call.response_size += self._size(SERVER, packet)
        call.end_ns = time_ns
        call.lacks |= packet.lacks
        try:
            call.answer.take(payload, packet.size - wire.HEAD)
        except ProtocolError as error:
            if call.request is None:  # an answer to an unknown command need not make sense
                self._next_waiting()
                return
            if not self.understood and not packet.is_cut:
                raise
            self._deaf = True  # the next command begins anew
            call.malformed = str(error)
        self.understood |= call.answer.rows > 0  # so its columns made sense
        if call.answer.done:
            self._next_waiting()
            self._finish(call)

    def _greet(self, payload: bytes, packet: Message, time_ns: int) -> None:
        self._met = True
        self._greeting_size, self._greeted_ns = packet.size, time_ns
        if payload[:1] == b"\xff":  # it takes nobody any more
            call = Call(None, Answer(Expected.LOGIN), packet.began_ns, time_ns)
            call.response_size = packet.size
            call.answer.take(payload, len(payload))
            self.understood = True
            self._add(call, "pair-not-found", "the server refused the connection")
            return
        self._greeting = read_greeting(payload)
        self.understood = True

    def _finish(self, call: Call) -> None:
        """An answer is whole."""
        self.understood = True
        answer, request = call.answer, call.request
        self._eofs = answer.eofs if answer.eofs is not None else self._eofs
        failed = "error" in answer.told
        if call.database is not None and not failed:
            self._who["database"] = call.database
        if call.statement is not None and answer.statement is not None:
            number, parameters = answer.statement
            self._statements.add(number, Statement(call.statement, parameters))
        if request is None:
            self._add(call, *(REQUEST_LOST if self._lost_requests else NO_REQUEST))
            self._lost_requests = False
            return
        compresses = self._capabilities & (wire.COMPRESS | wire.ZSTD)
        if request["command"] == "Login" and compresses and not failed:
            self._compress()
        self._add(call)

    def _add(self, call: Call, kind: str | None = None, why: str | None = None) -> None:
        self.exchanges.append(call.exchange(kind, why))


Asker = Callable[[Session, Call, Json, bytes], None]
ASKERS: dict[str, Asker] = {
    "COM_QUERY": Session._ask_query, "COM_INIT_DB": Session._ask_database,
    "COM_CREATE_DB": Session._ask_database, "COM_DROP_DB": Session._ask_database,
    "COM_STMT_PREPARE": Session._ask_prepare, "COM_STMT_EXECUTE": Session._ask_statement,
    "COM_STMT_FETCH": Session._ask_statement, "COM_STMT_CLOSE": Session._ask_statement,
    "COM_STMT_RESET": Session._ask_statement, "COM_STMT_BULK_EXECUTE": Session._ask_statement,
    "COM_STMT_SEND_LONG_DATA": Session._ask_statement, "COM_CHANGE_USER": Session._ask_user,
    "COM_FIELD_LIST": Session._ask_fields, "COM_PROCESS_KILL": Session._ask_number,
    "COM_RESET_CONNECTION": Session._ask_reset,
}  # fmt: skip
