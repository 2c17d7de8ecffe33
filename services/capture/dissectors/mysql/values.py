"""Values of the binary protocol of MySQL, as parameters of prepared statements are sent.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html
"""

import struct
from collections.abc import Sequence
from typing import Any

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.mysql import packets as wire

MOST_VALUE = 1024  # octets of a value: what is longer is cut
MOST_PARAMETERS = 256  # of a statement that are listed: of more, the first ones

NULL_TYPE = 0x06
NUMBERS = {0x01: "b", 0x02: "h", 0x0D: "h", 0x03: "i", 0x09: "i", 0x08: "q", 0x04: "f", 0x05: "d"}
TIMES = {0x07, 0x0A, 0x0C}  # TIMESTAMP, DATE, DATETIME
DURATION = 0x0B
UNSIGNED = 0x80
LONG_DATA = "[long data]"


def read_parameters(
    payload: bytes, at: int, count: int, types: Sequence[int], named: bool, long: frozenset[int]
) -> tuple[list[Any], list[int], int]:
    """Read parameters of a statement, or attributes of a query, from their bitmap on. What is not
    UTF-8 becomes 0x and digits.

    types: of an earlier execution; named: each type has a name behind it; long: the parameters that
    were sent before. Returns (values, types, where the next field begins). Raises ProtocolError.
    """
    nulls, at = payload[at : at + (count + 7) // 8], at + (count + 7) // 8
    if at > len(payload):
        raise ProtocolError("a packet ends within its parameters")
    is_bound, at = wire.uint(payload, at, 1), at + 1
    if is_bound:
        bound = []
        for _ in range(count):
            bound.append(wire.u16(payload, at))
            at += 2
            if named:
                _, at = wire.lenenc_octets(payload, at)
        types = bound
    if len(types) < count:
        raise ProtocolError("the types of the parameters are not known")
    values: list[Any] = []
    for number in range(count):
        if nulls[number >> 3] >> (number & 7) & 1:
            value = None
        elif number in long:
            value = LONG_DATA
        else:
            value, at = _read_value(payload, at, types[number])
        if number < MOST_PARAMETERS:
            values.append(value)
    return values, list(types), at


def _read_value(payload: bytes, at: int, kind: int) -> tuple[Any, int]:
    kind, unsigned = kind & 0xFF, bool(kind >> 8 & UNSIGNED)
    if kind == NULL_TYPE:
        return None, at
    if kind in NUMBERS:
        code = NUMBERS[kind].upper() if unsigned and kind not in (0x04, 0x05) else NUMBERS[kind]
        width = struct.calcsize("<" + code)
        if at + width > len(payload):
            raise ProtocolError("a packet ends within a number")
        return struct.unpack_from("<" + code, payload, at)[0], at + width
    octets, end = wire.lenenc_octets(payload, at)
    if kind in TIMES:
        return _moment(octets), end
    if kind == DURATION:
        return _duration(octets), end
    cut = octets[:MOST_VALUE]
    try:
        return cut.decode(), end
    except UnicodeDecodeError:
        return "0x" + cut.hex(), end


def _moment(octets: bytes) -> str:
    padded = octets.ljust(11, b"\0")
    year, month, day, hour, minute, second, micros = struct.unpack("<HBBBBBI", padded[:11])
    date = f"{year:04}-{month:02}-{day:02}"
    if len(octets) <= 4:
        return date
    return f"{date} {hour:02}:{minute:02}:{second:02}" + (f".{micros:06}" if micros else "")


def _duration(octets: bytes) -> str:
    padded = octets.ljust(12, b"\0")
    negative, days, hour, minute, second, micros = struct.unpack("<BIBBBI", padded[:12])
    sign = "-" if negative else ""
    whole = f"{sign}{days * 24 + hour:02}:{minute:02}:{second:02}"
    return whole + (f".{micros:06}" if micros else "")
