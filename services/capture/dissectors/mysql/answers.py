"""What a server of MySQL answers to one command, packet after packet, until it is whole.

Whether the older EOF packets are sent is seen from the packets themselves: only an EOF has five
octets and begins with 0xFE, so this works in the middle of a connection too.
"""

from dataclasses import dataclass, field
from enum import Enum, auto

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.mysql import packets as wire
from services.capture.dissectors.mysql.packets import Json

EOF_SIZE = 5
MOST_RESULTS = 16  # of one command: of more, the first ones


class Expected(Enum):
    """What the next packet is."""

    FIRST = auto()  # of a result
    PREPARED = auto()
    LOGIN = auto()  # of what follows a login
    TEXT = auto()  # the only one
    COLUMNS = auto()
    AFTER_COLUMNS = auto()
    ROWS = auto()
    EVENTS = auto()  # of a binary log
    DEFINITIONS = auto()  # of the parameters and columns of a prepared statement
    AFTER_DEFINITIONS = auto()
    FILE = auto()  # the client is to send one


FIRST_OF = {
    "COM_STMT_PREPARE": Expected.PREPARED, "COM_STATISTICS": Expected.TEXT,
    "COM_STMT_FETCH": Expected.ROWS, "COM_FIELD_LIST": Expected.ROWS,
    "COM_CHANGE_USER": Expected.LOGIN, "Login": Expected.LOGIN,
    "COM_BINLOG_DUMP": Expected.EVENTS, "COM_BINLOG_DUMP_GTID": Expected.EVENTS,
    "COM_TABLE_DUMP": Expected.EVENTS,
}  # fmt: skip


@dataclass(slots=True)
class Answer:
    """The answer to one command, as far as it has come."""

    expected: Expected
    capabilities: int = 0
    """Of the client, 0 where its login was not seen."""
    eofs: bool | None = None
    """EOF packets stand between; None where that is not known."""
    begun: bool = False
    done: bool = False
    told: Json = field(default_factory=dict)
    rows: int = 0
    statement: tuple[int, int] | None = None
    """Number and count of parameters of what was prepared."""
    _results: list[Json] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _left: int = 0  # columns and parameters that are still to come
    _columns: int = 0
    _rows: int = 0  # of this result
    _is_query: bool = False

    def take(self, payload: bytes, size: int) -> None:
        """Take a packet; size: of the whole payload. Raises ProtocolError."""
        self.begun = True
        if not size:
            raise ProtocolError("an answer is not empty")
        first = payload[0] if payload else 0
        if first == wire.ERR and self.expected is not Expected.TEXT and size >= 3:
            if wire.u16(payload, 1) != wire.PROGRESS:
                self.told["error"] = wire.read_error(payload)
                self._end_result({})
                self.done = True
            return
        READERS[self.expected](self, first, payload, size)

    def _first(self, first: int, payload: bytes, size: int) -> None:
        if first == wire.OK:
            told, status = wire.read_ok(payload)
            self._finish(told, status)
        elif first == wire.EOF and size <= EOF_SIZE:
            self._finish({}, wire.u16(payload, 3) if size == EOF_SIZE else 0)
        elif first == wire.LOCAL_INFILE:
            self.told["localInfile"] = wire.text(payload[1:])
            self.expected = Expected.FILE
        else:
            self._begin_columns(payload, size)

    def _begin_columns(self, payload: bytes, size: int) -> None:
        follows = 1
        at = 0
        if self.capabilities & wire.OPTIONAL_METADATA and size > 1:
            follows, at = wire.uint(payload, 0, 1), 1
        count, at = wire.lenenc(payload, at)
        if at + 1 == size:  # MariaDB: the columns may be those of the last execution
            follows = wire.uint(payload, at, 1)
        elif at != size:
            raise ProtocolError("a count of columns is alone in its packet")
        if not 0 < count <= wire.MOST_COLUMNS or follows > 1:
            raise ProtocolError(f"a result cannot have {count} columns")
        self._is_query = True
        self._left = count if follows else 0
        self._columns = count
        self.expected = Expected.COLUMNS if self._left else Expected.AFTER_COLUMNS

    def _column(self, _first: int, payload: bytes, _size: int) -> None:
        if len(self._names) < wire.MOST_NAMES:
            self._names.append(wire.column_name(payload))
        self._left -= 1
        if not self._left:
            self.expected = Expected.AFTER_COLUMNS

    def _after_columns(self, first: int, payload: bytes, size: int) -> None:
        self.expected = Expected.ROWS
        self.eofs = first == wire.EOF and size == EOF_SIZE
        if not self.eofs:
            self._row(first, payload, size)
        elif (status := wire.u16(payload, 3)) & wire.CURSOR_EXISTS:
            self._finish({}, status)

    def _row(self, first: int, payload: bytes, size: int) -> None:
        if first != wire.EOF or size >= wire.FULL:
            self.rows += 1
            self._rows += 1
        elif size == EOF_SIZE:
            warnings = {"warnings": count} if (count := wire.u16(payload, 1)) else {}
            self._finish(warnings, wire.u16(payload, 3))
        else:
            told, status = wire.read_ok(payload)
            told.pop("affected")
            self._finish(told, status)

    def _finish(self, told: Json, status: int) -> None:
        """A result is whole; another may follow."""
        self._end_result(told)
        if status & wire.IN_TRANSACTION:
            self.told["inTransaction"] = True
        if status & wire.MORE_RESULTS:
            self.expected = Expected.FIRST
        else:
            self.done = True

    def _end_result(self, told: Json) -> None:
        if self._is_query or self._rows:
            told = {"rows": self._rows, "columns": self._names} | told
        if len(self._results) < MOST_RESULTS and told:
            self._results.append(told)
        self._names, self._rows, self._is_query = [], 0, False

    def _prepared(self, first: int, payload: bytes, size: int) -> None:
        if first != wire.OK:
            raise ProtocolError("a prepared statement is answered with OK")
        number, columns = wire.u32(payload, 1), wire.u16(payload, 5)
        parameters = wire.u16(payload, 7)
        self.statement = number, parameters
        self.told |= {"statementId": number, "parameters": parameters}
        if size >= 12 and (warnings := wire.u16(payload, 10)):
            self.told["warnings"] = warnings
        self._left, self._columns = parameters, columns
        self.expected = Expected.DEFINITIONS
        if not parameters:
            self._next_definitions()

    def _next_definitions(self) -> None:
        """Parameters are told, so columns follow; or those are told too."""
        self._left, self._columns = self._columns, 0
        if not self._left:
            self.done = True

    def _definition(self, _first: int, _payload: bytes, _size: int) -> None:
        self._left -= 1
        if self._left:
            return
        if self.eofs is False:
            self._next_definitions()
        elif self.eofs or self._columns:
            self.expected = Expected.AFTER_DEFINITIONS
        else:
            self.done = True  # an EOF may follow, and belongs to nothing

    def _after_definitions(self, first: int, payload: bytes, size: int) -> None:
        self.eofs = first == wire.EOF and size == EOF_SIZE
        self.expected = Expected.DEFINITIONS
        self._next_definitions()
        if not self.eofs:
            self._definition(first, payload, size)

    def _login(self, first: int, payload: bytes, size: int) -> None:
        if first == wire.OK:
            _, status = wire.read_ok(payload)
            self._finish({}, status & wire.IN_TRANSACTION)
        elif first == wire.EOF and size > 1:  # another plugin is to be used
            self.told["plugin"] = wire.text(wire.zero_ended(payload, 1)[0])
        elif first not in (wire.EOF, 1, 2):
            raise ProtocolError(f"a login is not answered with {first:#x}")

    def _text(self, _first: int, payload: bytes, _size: int) -> None:
        self.told["text"] = wire.text(payload)
        self.done = True

    def _event(self, first: int, _payload: bytes, size: int) -> None:
        if first == wire.EOF and size <= EOF_SIZE:
            self.done = True
        else:
            self.told["events"] = self.told.get("events", 0) + 1

    def file_sent(self) -> None:
        """The client has sent the last of a file."""
        self.expected = Expected.FIRST

    def response(self, whole: bool) -> Json:
        """Return what an entry says of it."""
        response: Json = {}
        if whole or "error" in self.told:
            response["status"] = "ERROR" if "error" in self.told else "OK"
        response |= self.told
        results = list(self._results)
        if not self.done and (self._is_query or self._rows):
            results.append({"rows": self._rows, "columns": self._names})
        if results:
            response |= results[-1]
            if any("rows" in each for each in results):
                response["rows"] = self.rows
            affected = [each["affected"] for each in results if "affected" in each]
            if affected:
                response["affected"] = sum(affected)
        if len(results) > 1:
            response["results"] = results
        return response


READERS = {
    Expected.FIRST: Answer._first, Expected.PREPARED: Answer._prepared,
    Expected.LOGIN: Answer._login, Expected.TEXT: Answer._text,
    Expected.COLUMNS: Answer._column, Expected.AFTER_COLUMNS: Answer._after_columns,
    Expected.ROWS: Answer._row, Expected.EVENTS: Answer._event,
    Expected.DEFINITIONS: Answer._definition,
    Expected.AFTER_DEFINITIONS: Answer._after_definitions, Expected.FILE: Answer._first,
}  # fmt: skip
