"""Packets of MySQL and MariaDB: how long they are, how they look, and their common fields.

Formats: https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html and
https://mariadb.com/kb/en/clientserver-protocol/.
"""

from typing import Any

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.signatures import ANY, CLIENT, DIGIT, SERVER, Signature

Json = dict[str, Any]

HEAD = 4  # octets of length and number
FULL = 0xFFFFFF  # the length of a packet that the next one goes on
MOST_KEPT = 64 << 10  # octets of a packet: a longer text is cut
MOST_COLUMNS = 4096  # the server's limit for a table
MOST_NAME = 256  # octets of a column's name: names have up to 64 characters
MOST_NAMES = 256  # columns that are listed: of more, the first ones

OK, LOCAL_INFILE, EOF, ERR = 0x00, 0xFB, 0xFE, 0xFF
PROGRESS = 0xFFFF  # the code of an ERR that is none: MariaDB tells how far it is

# Capabilities: https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html
LONG_PASSWORD, CONNECT_WITH_DB, COMPRESS, PROTOCOL_41 = 1, 1 << 3, 1 << 5, 1 << 9
TLS, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_ATTRS = 1 << 11, 1 << 15, 1 << 19, 1 << 20
LENENC_AUTH, DEPRECATE_EOF, OPTIONAL_METADATA = 1 << 21, 1 << 24, 1 << 25
ZSTD, QUERY_ATTRIBUTES = 1 << 26, 1 << 27

IN_TRANSACTION, MORE_RESULTS, CURSOR_EXISTS, LAST_ROW_SENT = 0x1, 0x8, 0x40, 0x80  # status

# fmt: off
COMMANDS = {
    0x00: "COM_SLEEP", 0x01: "COM_QUIT", 0x02: "COM_INIT_DB", 0x03: "COM_QUERY",
    0x04: "COM_FIELD_LIST", 0x05: "COM_CREATE_DB", 0x06: "COM_DROP_DB", 0x07: "COM_REFRESH",
    0x08: "COM_SHUTDOWN", 0x09: "COM_STATISTICS", 0x0A: "COM_PROCESS_INFO", 0x0B: "COM_CONNECT",
    0x0C: "COM_PROCESS_KILL", 0x0D: "COM_DEBUG", 0x0E: "COM_PING", 0x0F: "COM_TIME",
    0x10: "COM_DELAYED_INSERT", 0x11: "COM_CHANGE_USER", 0x12: "COM_BINLOG_DUMP",
    0x13: "COM_TABLE_DUMP", 0x14: "COM_CONNECT_OUT", 0x15: "COM_REGISTER_SLAVE",
    0x16: "COM_STMT_PREPARE", 0x17: "COM_STMT_EXECUTE", 0x18: "COM_STMT_SEND_LONG_DATA",
    0x19: "COM_STMT_CLOSE", 0x1A: "COM_STMT_RESET", 0x1B: "COM_SET_OPTION",
    0x1C: "COM_STMT_FETCH", 0x1D: "COM_DAEMON", 0x1E: "COM_BINLOG_DUMP_GTID",
    0x1F: "COM_RESET_CONNECTION", 0x20: "COM_CLONE", 0xFA: "COM_STMT_BULK_EXECUTE",
}
# fmt: on


def u16(octets: bytes, at: int) -> int:
    """Raises ProtocolError where the octets end before."""
    return uint(octets, at, 2)


def u32(octets: bytes, at: int) -> int:
    """Raises ProtocolError where the octets end before."""
    return uint(octets, at, 4)


def uint(octets: bytes, at: int, width: int) -> int:
    """Return a number of `width` octets. Raises ProtocolError where the octets end before."""
    if at + width > len(octets):
        raise ProtocolError("a packet ends within a number")
    return int.from_bytes(octets[at : at + width], "little")


WIDTHS = {0xFC: 2, 0xFD: 3, 0xFE: 8}


def lenenc(octets: bytes, at: int) -> tuple[int, int]:
    """Return a number of 1, 3, 4 or 9 octets, and where the next field begins; or raise."""
    first = uint(octets, at, 1)
    if first < 0xFB:
        return first, at + 1
    width = WIDTHS.get(first)
    if width is None:
        raise ProtocolError(f"a number cannot begin with {first:#x}")
    return uint(octets, at + 1, width), at + 1 + width


def lenenc_octets(octets: bytes, at: int) -> tuple[bytes, int]:
    """Return octets behind their count, and where the next field begins; or raise."""
    length, at = lenenc(octets, at)
    if length > len(octets) - at:
        raise ProtocolError("a text is longer than its packet")
    return octets[at : at + length], at + length


def zero_ended(octets: bytes, at: int) -> tuple[bytes, int]:
    """Return octets up to a zero, or to the end, and where the next field begins."""
    end = octets.find(b"\0", at)
    end = len(octets) if end < 0 else end
    return octets[at:end], end + 1


def text(octets: bytes) -> str:
    """Most are UTF-8; of other character sets what is not ASCII may be lost."""
    return octets.decode("utf-8", "replace")


def measure(data: bytearray) -> int:
    """Return the size of a packet with its head; see Inbox."""
    if len(data) < HEAD:
        return 0
    return HEAD + (data[0] | data[1] << 8 | data[2] << 16)


INTERNAL = frozenset({0x00, 0x0B, 0x0F, 0x10, 0x13, 0x14, 0x1D})  # no client sends these
ASKED = frozenset(COMMANDS) - INTERNAL
LOGIN_ANSWERS = frozenset({OK, 1, 2, EOF, ERR})
ANYTHING = frozenset(range(256))


def find_client(data: bytearray) -> int:
    """Return where a command may begin; see Inbox."""
    return _find(data, b"\0", ASKED)


def find_server(data: bytearray) -> int:
    """Return where an answer may begin; see Inbox."""
    return _find(data, b"\1", ANYTHING)


def find_login(data: bytearray) -> int:
    """Return where what the server says to a login may begin; see Inbox."""
    return _find(data, b"\1\2\3\4\5\6\7", LOGIN_ANSWERS)


def _find(data: bytearray, numbers: bytes, firsts: frozenset[int]) -> int:
    """Look for one that ends where the data do, or where another follows; a longer one has to begin
    where they begin, as most segments do.
    """
    for at in range(len(data) - HEAD):
        number = data[at + 3]
        if number not in numbers or data[at + HEAD] not in firsts:
            continue
        end = at + HEAD + (data[at] | data[at + 1] << 8 | data[at + 2] << 16)
        if end == at + HEAD:
            continue
        if end == len(data) or (end + 3 < len(data) and data[end + 3] == number + (number > 0)):
            return at
        if at == 0 and end > len(data):
            return at
    return -1 - len(data)


def read_error(payload: bytes) -> Json:
    """Return what an ERR packet says."""
    error: Json = {"code": u16(payload, 1)}
    at = 3
    if payload[3:4] == b"#":
        error["sqlState"] = text(payload[4:9])
        at = 9
    error["message"] = text(payload[at:])
    return error


def read_ok(payload: bytes) -> tuple[Json, int]:
    """Return what an OK packet says, and its status."""
    affected, at = lenenc(payload, 1)
    last_id, at = lenenc(payload, at)
    status = u16(payload, at) if at + 2 <= len(payload) else 0
    told: Json = {"affected": affected}
    if last_id:
        told["lastInsertId"] = last_id
    if at + 4 <= len(payload) and (warnings := u16(payload, at + 2)):
        told["warnings"] = warnings
    return told, status


def column_name(payload: bytes) -> str:
    """Return the name in a column's definition."""
    if payload[:4] != b"\x03def":
        return ""  # of protocols before 4.1
    at = 4
    for _ in range(3):  # schema, table, the table's own name
        _, at = lenenc_octets(payload, at)
    return text(lenenc_octets(payload, at)[0][:MOST_NAME])


_LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_SQL = _LETTERS + b" (/-\n\t\r"
_ZERO = b"\0"
_QUERY = (ANY, ANY, ANY, _ZERO, b"\x03\x16", _SQL, _SQL + b"*-", _SQL + b"*-'\"`1234567890")

SIGNATURES = (
    Signature(SERVER, (ANY, b"\0\1", _ZERO, _ZERO, b"\x0a", DIGIT, b"." + DIGIT, b"." + DIGIT)),
    Signature(SERVER, (ANY, b"\0\1", _ZERO, _ZERO, b"\xff", ANY, b"\x04\x05\x0f", b"#" + _LETTERS)),
    Signature(CLIENT, (
        ANY, b"\0\1", _ZERO, b"\1", *(ANY,) * 4, *(ANY,) * 2, ANY, b"\0\1\x40", ANY, *(_ZERO,) * 19,
    )),
    Signature(CLIENT, _QUERY),
    Signature(CLIENT, (ANY, ANY, ANY, _ZERO, b"\x03", _ZERO, b"\1", _SQL, _SQL)),
    Signature(CLIENT, (
        ANY, ANY, ANY, _ZERO, b"\x17", *(ANY,) * 3, _ZERO, bytes(16), b"\1", *(_ZERO,) * 3,
    )),
    Signature(CLIENT, (b"\1", _ZERO, _ZERO, _ZERO, b"\x0e")),
    Signature(CLIENT, (ANY, ANY, ANY, _ZERO, *(_ZERO,) * 3, *_QUERY)),
    Signature(SERVER, (
        b"\1", _ZERO, _ZERO, b"\1", ANY, ANY, ANY, _ZERO, b"\2", b"\3", b"d", b"e", b"f",
    )),
    Signature(
        SERVER, (b"\7", _ZERO, _ZERO, b"\1", _ZERO, _ZERO, _ZERO, ANY, _ZERO), only_on_port=True,
    ),
)  # fmt: skip
"""A greeting, a refusal, a login; in the middle of a connection a query or statement (plain, with
attributes, compressed), an execution, a ping, what begins with columns, or an OK."""
