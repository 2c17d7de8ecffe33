"""Reads BSON (https://bsonspec.org/spec.html) from anywhere, with limits, as values that JSON has.

What JSON does not have is written as in MongoDB's relaxed Extended JSON. What is beyond a limit is
left out, and `is_cut` says so; what is damaged raises ProtocolError.
"""

import base64
import math
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from services.capture.dissectors.conversation import ProtocolError

MOST_DEPTH = 32  # documents within documents that are read; servers take 100
MOST_ELEMENTS = 4096  # of one message that are read; of more, the first ones
MOST_ITEMS = 64  # of one array that are read; the others are counted
MOST_TEXT = 4096  # octets of a text or of binary data: what is longer is cut
CUT = "…"

DOUBLE, STRING, DOCUMENT, ARRAY, BINARY, UNDEFINED, OBJECT_ID, BOOLEAN, DATE = range(1, 10)
NULL, REGEX, POINTER, CODE, SYMBOL, SCOPED_CODE, INT32, TIMESTAMP, INT64, DECIMAL = range(10, 20)
MIN_KEY, MAX_KEY = 0xFF, 0x7F

FIXED = {
    DOUBLE: 8, UNDEFINED: 0, OBJECT_ID: 12, BOOLEAN: 1, DATE: 8, NULL: 0, INT32: 4, TIMESTAMP: 8,
    INT64: 8, DECIMAL: 16, MIN_KEY: 0, MAX_KEY: 0,
}  # fmt: skip
COUNTED = {STRING: 4, CODE: 4, SYMBOL: 4, BINARY: 5, POINTER: 16}
"""Kinds that begin with their length, and the octets beside what it counts."""
WHOLE = {DOCUMENT, ARRAY, SCOPED_CODE}
"""Kinds whose length counts itself."""
EMPTY_DOCUMENT = 5  # octets

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Counted(list[Any]):
    """An array; `total` is how many items it had."""

    total = 0


class Reader:
    """Documents of one message. `octets` may be its first ones only."""

    def __init__(self, octets: bytes, is_whole: bool) -> None:
        self._octets, self._is_whole = octets, is_whole
        self._left = MOST_ELEMENTS
        self.is_cut = not is_whole
        """Something was left out."""

    def document(self, at: int) -> tuple[dict[str, Any], int]:
        """Return a document and where the next one begins. Raises ProtocolError."""
        end = self._end(at)
        found: dict[str, Any] = {}
        self._read(at + 4, end, found, 0)
        return found, end

    def skip(self, at: int) -> int:
        """Return where the document behind this one begins. Raises ProtocolError."""
        return self._end(at)

    def _end(self, at: int) -> int:
        size = self._int32(at)
        if size < EMPTY_DOCUMENT or (self._is_whole and at + size > len(self._octets)):
            raise ProtocolError(f"a document cannot have {size} octets here")
        return at + size

    def _int32(self, at: int) -> int:
        if at + 4 > len(self._octets):
            raise ProtocolError("a message ends within a number")
        return int.from_bytes(self._octets[at : at + 4], "little", signed=True)

    def _read(self, at: int, end: int, into: dict[str, Any] | Counted, depth: int) -> None:
        """Read elements up to the zero before `end`, or to the end of what is here."""
        octets = self._octets
        last = min(end, len(octets)) - 1
        while at < last and octets[at]:
            kind = octets[at]
            name_end = octets.find(b"\0", at + 1, last + 1)
            if name_end < 0:
                break
            value_at = name_end + 1
            next_at = self._after(kind, value_at)
            if next_at > end - 1:
                raise ProtocolError("a value is longer than its document")
            if next_at > len(octets) and kind not in (DOCUMENT, ARRAY):
                break
            self._keep(octets[at + 1 : name_end], kind, value_at, next_at, into, depth)
            at = next_at
        else:
            if at >= len(octets) or at == end - 1:
                return
            if octets[at] == 0 and at != end - 1:
                raise ProtocolError("a document ends before its length")
        if self._is_whole:
            raise ProtocolError("a document is not whole")

    def _keep(
        self, name: bytes, kind: int, at: int, end: int, into: dict[str, Any] | Counted, depth: int
    ) -> None:
        is_list = isinstance(into, Counted)
        if is_list:
            into.total += 1
        if self._left <= 0 or (is_list and len(into) >= MOST_ITEMS):
            self.is_cut = True
            return
        self._left -= 1
        value = self._value(kind, at, end, depth)
        if isinstance(into, Counted):
            into.append(value)
        else:
            into[name.decode("utf-8", "replace")] = value

    def _after(self, kind: int, at: int) -> int:
        """Return where the element behind a value begins."""
        if kind in FIXED:
            return at + FIXED[kind]
        if kind == REGEX:
            first = self._octets.find(b"\0", at)
            second = self._octets.find(b"\0", first + 1) if first >= 0 else -1
            return second + 1 if second >= 0 else len(self._octets) + 1
        if kind not in COUNTED and kind not in WHOLE:
            raise ProtocolError(f"there is no value of type {kind:#x}")
        if at + 4 > len(self._octets) and not self._is_whole:
            return at + 4
        size = self._int32(at)
        if size < 0 or (kind in WHOLE and size < EMPTY_DOCUMENT):
            raise ProtocolError(f"a value cannot have {size} octets")
        return at + size + COUNTED.get(kind, 0)

    def _value(self, kind: int, at: int, end: int, depth: int) -> Any:
        octets = self._octets
        if kind in (DOCUMENT, ARRAY):
            into: dict[str, Any] | Counted = {} if kind == DOCUMENT else Counted()
            if depth >= MOST_DEPTH:
                self.is_cut = True
            elif at + 4 <= len(octets):
                self._read(at + 4, end, into, depth + 1)
            return into
        if kind in (STRING, CODE, SYMBOL):
            text = self._text(at + 4, end - 1)
            return text if kind == STRING else {"$code" if kind == CODE else "$symbol": text}
        if kind == BINARY:
            data = base64.b64encode(octets[at + 5 : min(end, at + 5 + MOST_TEXT)]).decode()
            return {"$binary": {"base64": data, "subType": f"{octets[at + 4]:02x}"}}
        return SIMPLE.get(kind, _other)(octets[at:end])

    def _text(self, at: int, end: int) -> str:
        if end - at <= MOST_TEXT:
            return self._octets[at:end].decode("utf-8", "replace")
        self.is_cut = True
        return self._octets[at : at + MOST_TEXT].decode("utf-8", "replace") + CUT


def _double(octets: bytes) -> Any:
    (number,) = struct.unpack("<d", octets)
    return number if math.isfinite(number) else {"$numberDouble": str(number)}


def _int(octets: bytes) -> int:
    return int.from_bytes(octets, "little", signed=True)


def _date(octets: bytes) -> Any:
    milliseconds = _int(octets)
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return {"$date": {"$numberLong": str(milliseconds)}}
    return {"$date": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}


def _timestamp(octets: bytes) -> Any:
    return {"$timestamp": {"t": _int(octets[4:]) & 0xFFFFFFFF, "i": _int(octets[:4]) & 0xFFFFFFFF}}


def _regex(octets: bytes) -> Any:
    pattern, options, _ = octets.split(b"\0", 2)
    told = pattern[:MOST_TEXT].decode("utf-8", "replace")
    return {"$regularExpression": {"pattern": told, "options": options.decode("latin-1")[:16]}}


def _decimal(octets: bytes) -> Any:
    """IEEE 754-2008 decimal128, in its binary encoding."""
    bits = int.from_bytes(octets, "little")
    sign, top = bits >> 127, bits >> 122 & 0x1F
    if top >= 0x1E:
        text = "NaN" if top == 0x1F else "-Infinity" if sign else "Infinity"
    else:
        large = top >= 0x18  # a coefficient that is never canonical, and counts as 0
        exponent = (bits >> 111 if large else bits >> 113) & 0x3FFF
        digits = 0 if large else bits & ((1 << 113) - 1)
        parts = tuple(map(int, str(digits)))
        text = str(Decimal((sign, parts, exponent - 6176)))
    return {"$numberDecimal": text}


def _other(octets: bytes) -> Any:
    return {"$hex": octets[:MOST_TEXT].hex()}


SIMPLE = {
    DOUBLE: _double, UNDEFINED: lambda _: None, NULL: lambda _: None, INT32: _int, INT64: _int,
    OBJECT_ID: lambda octets: {"$oid": octets.hex()}, BOOLEAN: lambda octets: octets != b"\0",
    DATE: _date, REGEX: _regex, TIMESTAMP: _timestamp, DECIMAL: _decimal,
    MIN_KEY: lambda _: {"$minKey": 1}, MAX_KEY: lambda _: {"$maxKey": 1},
}  # fmt: skip
