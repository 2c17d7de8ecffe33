"""Messages of PostgreSQL: how long they are, how they look, and what their fields say.

Formats: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from collections.abc import Iterator

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

HEAD = 5  # octets of type and length
LONGEST_STARTUP = 10_000  # octets: the server's MAX_STARTUP_PACKET_LENGTH
LONGEST = 1 << 30  # octets of a message: the server's limit for what it allocates
LONGEST_SHORT = 30_000  # octets: PQ_LARGE_MESSAGE limit for types that carry no data
MOST_KEPT = 64 << 10  # octets of a message: a longer text is cut

PROTOCOL_3, CANCEL, SSL, GSSENC = 3, 80877102, 80877103, 80877104

FROM_CLIENT = frozenset(b"QPBDECSHFXpdcf")
FROM_SERVER = frozenset(b"RKSZTDCE1235tnsIGHWNAVdcv")
LARGE = frozenset(b"QPBFpdTDEVNAf")  # may be longer than LONGEST_SHORT

EMPTY = frozenset(b"123nsIc")  # of the server: a length of 4
EMPTY_CLIENT = frozenset(b"SHXc")

ERROR_FIELDS = {
    "V": "severity", "C": "code", "M": "message", "D": "detail", "H": "hint", "P": "position",
    "q": "internalQuery", "W": "where", "s": "schema", "t": "table", "c": "column",
    "d": "dataType", "n": "constraint",
}  # fmt: skip
TRANSACTION = {ord("I"): "idle", ord("T"): "in transaction", ord("E"): "failed transaction"}
AUTHENTICATION = {
    0: "trust", 2: "Kerberos V5", 3: "password", 5: "md5", 6: "SCM credential", 7: "GSSAPI",
    9: "SSPI", 10: "SASL",
}  # fmt: skip
AUTHENTICATION_NUMBERS = frozenset(AUTHENTICATION) | {8, 11, 12}  # and those that go on

MOST_FIELDS = 256  # columns and parameters that are listed: of more, the first ones
MOST_TEXT = 4096  # characters of a field of an error: what is longer is cut
MOST_VALUE = 1024  # octets of a parameter's value: what is longer is cut
NULL = -1  # a length that says that there is no value


def read_u16(octets: bytes, at: int) -> int:
    """Raises ProtocolError where the octets end before."""
    if at + 2 > len(octets):
        raise ProtocolError("a message ends within a number")
    return octets[at] << 8 | octets[at + 1]


def read_i32(octets: bytes, at: int) -> int:
    """Raises ProtocolError where the octets end before."""
    if at + 4 > len(octets):
        raise ProtocolError("a message ends within a number")
    return int.from_bytes(octets[at : at + 4], "big", signed=True)


def read_text(octets: bytes, at: int) -> tuple[str, int]:
    """Return a text up to its zero, or to the end, and where the next field begins."""
    end = octets.find(b"\0", at)
    if end < 0:
        end = len(octets)
    return octets[at:end].decode("utf-8", "replace"), end + 1


def measure_client(data: bytearray) -> int:
    """Return the size of a client's message; see Inbox."""
    if not data:
        return 0
    if data[0]:
        return _measure(data, FROM_CLIENT)
    if len(data) < 8:
        return 0
    size, code = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    if not 8 <= size <= LONGEST_STARTUP:
        raise ProtocolError(f"a startup message cannot have {size} octets")
    if code >> 16 != PROTOCOL_3 and code not in (CANCEL, SSL, GSSENC):
        raise ProtocolError(f"protocol {code >> 16} is not one that is known")
    return size


def measure_server(data: bytearray) -> int:
    """Return the size of a server's message; see Inbox."""
    return _measure(data, FROM_SERVER)


def _measure(data: bytearray, kinds: frozenset[int]) -> int:
    if len(data) < HEAD:
        return 0
    kind, length = data[0], int.from_bytes(data[1:5], "big")
    if kind not in kinds:
        raise ProtocolError(f"there is no message of type {chr(kind)!r}")
    if not 4 <= length <= (LONGEST if kind in LARGE else LONGEST_SHORT):
        raise ProtocolError(f"a message of type {chr(kind)!r} cannot have {length} octets")
    return length + 1


def find_client(data: bytearray) -> int:
    """Return where a client's message may begin; see Inbox."""
    return _find(data, FROM_CLIENT, EMPTY_CLIENT)


def find_server(data: bytearray) -> int:
    """Return where a server's message may begin; see Inbox."""
    return _find(data, FROM_SERVER, EMPTY)


CHAIN = 4  # messages, one after the other, that have to be plausible where they are here


def _find(data: bytearray, kinds: frozenset[int], empty: frozenset[int]) -> int:
    last = len(data) - HEAD
    for at in range(last + 1):
        if data[at] in kinds and data[at + 1] == 0 and _is_chain(data, at, kinds, empty):
            return at
    return -1 - max(last + 1, 0)


def _is_chain(data: bytearray, at: int, kinds: frozenset[int], empty: frozenset[int]) -> bool:
    """Say whether messages may begin here; at most CHAIN are looked at."""
    for _ in range(CHAIN):
        if at + HEAD > len(data):
            return True
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 5], "big")
        if kind not in kinds or not 4 <= length <= (LONGEST if kind in LARGE else LONGEST_SHORT):
            return False
        if kind in empty and length != 4:
            return False
        if kind == ord("Z") and (length != 5 or not _is_status(data, at + HEAD)):
            return False
        at += length + 1
    return True


def _is_status(data: bytearray, at: int) -> bool:
    return at >= len(data) or data[at] in TRANSACTION


def startup_parameters(octets: bytes) -> dict[str, str]:
    """Return the pairs of a startup message; `octets` is all of it."""
    found: dict[str, str] = {}
    at = 8
    while at < len(octets) and octets[at] and len(found) < MOST_FIELDS:
        name, at = read_text(octets, at)
        found[name], at = read_text(octets, at)
    return found


def error_fields(octets: bytes) -> dict[str, str]:
    """Return what an ErrorResponse or NoticeResponse says."""
    found: dict[str, str] = {}
    at = HEAD
    while at < len(octets) and octets[at]:
        name = ERROR_FIELDS.get(chr(octets[at]))
        if name is None and octets[at] == ord("S") and "severity" not in found:
            name = "severity"  # of servers before 9.6, and in the language of the server
        text, at = read_text(octets, at + 1)
        if name is not None:
            found[name] = text[:MOST_TEXT]
    return found


def column_names(octets: bytes) -> list[str]:
    """Return the names in a RowDescription: of many, or of one that was cut, the first ones."""
    count, at = read_u16(octets, HEAD), HEAD + 2
    names: list[str] = []
    while len(names) < min(count, MOST_FIELDS) and at < len(octets):
        name, at = read_text(octets, at)
        names.append(name)
        at += 18  # what table and type it is of
    return names


def sasl_mechanisms(octets: bytes) -> list[str]:
    """Return what an AuthenticationSASL offers."""
    return [each.decode("utf-8", "replace") for each in octets[HEAD + 4 :].split(b"\0") if each][:8]


def bind_values(octets: bytes, at: int) -> Iterator[str | None]:
    r"""Yield the parameters of a Bind, whose formats begin at `at`; binary ones as \x and digits.

    Raises ProtocolError where the octets end before, after those that are whole.
    """
    count = read_u16(octets, at)
    formats = [read_u16(octets, at + 2 + 2 * n) for n in range(min(count, MOST_FIELDS))]
    at += 2 + 2 * count
    total = read_u16(octets, at)
    at += 2
    for number in range(min(total, MOST_FIELDS)):
        length = read_i32(octets, at)
        at += 4
        if length == NULL:
            yield None
            continue
        if not 0 <= length <= len(octets) - at:
            raise ProtocolError(f"a parameter cannot have {length} octets")
        kind = formats[0] if count == 1 else formats[number] if number < len(formats) else 0
        value = octets[at : at + min(length, MOST_VALUE)]
        yield "\\x" + value.hex() if kind else value.decode("utf-8", "replace")
        at += length


_LETTERS = bytes(range(ord("A"), ord("Z") + 1)) + bytes(range(ord("a"), ord("z") + 1))
_SQL = _LETTERS + b" (/-;\n\t\r"
_SMALL: tuple[bytes, ...] = (b"\0", bytes(range(0, 0x28)), ANY)


def _octets(*values: bytes | int) -> tuple[bytes, ...]:
    return tuple(each if isinstance(each, bytes) else bytes([each]) for each in values)


SIGNATURES = (
    Signature(CLIENT, (b"\0", *_SMALL, *_octets(0, 3, 0), bytes(range(16)), _LETTERS + b"_")),
    Signature(CLIENT, _octets(0, 0, 0, 8, 4, 0xD2, 0x16, b"\x2f\x30")),
    Signature(CLIENT, (b"\0", b"\0", b"\0\1", ANY, *_octets(4, 0xD2, 0x16, 0x2E))),
    Signature(CLIENT, (b"Q", b"\0", ANY, ANY, ANY, _SQL, _SQL)),
    Signature(CLIENT, (b"P", b"\0", ANY, ANY, ANY, b"\0" + _LETTERS + b"_", _SQL + b"_0123456789")),
    Signature(CLIENT, (b"B", b"\0", b"\0", ANY, ANY, b"\0", b"\0" + _LETTERS), only_on_port=True),
    Signature(SERVER, (b"R", *_octets(0, 0, 0), ANY, *_octets(0, 0, 0), bytes(range(13)))),
    Signature(SERVER, (b"12", *_octets(0, 0, 0, 4), b"12TDnt3CIsZE")),
    Signature(SERVER, (b"T", b"\0", b"\0", ANY, ANY, b"\0\1\2\3\4\5\6", ANY, _LETTERS + b"_?")),
    Signature(SERVER, (b"EN", b"\0", b"\0", ANY, ANY, b"S", b"EFPWNDIL")),
)
"""Startup, requests for encryption and to cancel; in the middle of a connection a query, a
statement, and what answers begin with. Octets of TLS, HTTP, Kafka or SSH fit none of them: a
Kafka request of the same first octets has the high octet of its correlation id where the startup
has the letter of a name."""
