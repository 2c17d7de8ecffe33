"""Reads BSON (https://bsonspec.org/spec.html) from anywhere, with limits, as values that JSON has.

What JSON does not have is written as in MongoDB's relaxed Extended JSON. What is beyond a limit is
left out, and `is_cut` says so; what is damaged raises ProtocolError.
"""

import base64
import math
import struct
from collections.abc import Callable
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
NESTED = frozenset({DOCUMENT, ARRAY})
WHOLE = NESTED | {SCOPED_CODE}
"""Kinds whose length counts itself."""
EMPTY_DOCUMENT = 5  # octets

_INT32, _INT64, _DOUBLE = struct.Struct("<i"), struct.Struct("<q"), struct.Struct("<d")
_TIMESTAMP = struct.Struct("<II")
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
        return _INT32.unpack_from(self._octets, at)[0]  # type: ignore[no-any-return]

    def _read(self, at: int, end: int, into: dict[str, Any] | Counted, depth: int) -> None:
        """Read elements up to the zero before `end`, or to the end of what is here."""
        octets, here = self._octets, len(self._octets)
        last = min(end, here) - 1
        items = into if isinstance(into, Counted) else None
        while at < last and (kind := octets[at]):
            name_end = octets.find(b"\0", at + 1, last + 1)
            start = name_end + 1
            width = FIXED.get(kind)
            after = start + width if width is not None else self._after(kind, start)
            if after >= end:
                raise ProtocolError("a value is longer than its document")
            if not start or (after > here and kind not in NESTED):
                at = here  # the rest is not here
                break
            if items is not None:
                items.total += 1
            if self._left <= 0 or (items is not None and len(items) >= MOST_ITEMS):
                self.is_cut = True
            else:
                self._left -= 1
                value = self._value(kind, start, after, depth)
                if items is not None:
                    items.append(value)
                else:
                    into[octets[at + 1 : name_end].decode("utf-8", "replace")] = value  # type: ignore[call-overload]
            at = after
        if at != end - 1 and (self._is_whole or at < here):
            raise ProtocolError("a document does not end where it says")

    def _after(self, kind: int, at: int) -> int:
        """Return where the element behind a value of changing size begins."""
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
        if kind == STRING:
            return self._text(at + 4, end - 1)
        if kind in NESTED:
            into: dict[str, Any] | Counted = {} if kind == DOCUMENT else Counted()
            if depth >= MOST_DEPTH:
                self.is_cut = True
            elif at + 4 <= len(self._octets):
                self._read(at + 4, end, into, depth + 1)
            return into
        if kind in (CODE, SYMBOL):
            return {"$code" if kind == CODE else "$symbol": self._text(at + 4, end - 1)}
        return SIMPLE.get(kind, _other)(self._octets, at, end)

    def _text(self, at: int, end: int) -> str:
        if end - at <= MOST_TEXT:
            return self._octets[at:end].decode("utf-8", "replace")
        self.is_cut = True
        return self._octets[at : at + MOST_TEXT].decode("utf-8", "replace") + CUT


def _double(octets: bytes, at: int, _: int) -> Any:
    (number,) = _DOUBLE.unpack_from(octets, at)
    return number if math.isfinite(number) else {"$numberDouble": str(number)}


def _int32(octets: bytes, at: int, _: int) -> Any:
    return _INT32.unpack_from(octets, at)[0]


def _int64(octets: bytes, at: int, _: int) -> Any:
    return _INT64.unpack_from(octets, at)[0]


def _boolean(octets: bytes, at: int, _: int) -> bool:
    return octets[at] != 0


def _object_id(octets: bytes, at: int, end: int) -> Any:
    return {"$oid": octets[at:end].hex()}


def _binary(octets: bytes, at: int, end: int) -> Any:
    data = base64.b64encode(octets[at + 5 : min(end, at + 5 + MOST_TEXT)]).decode()
    return {"$binary": {"base64": data, "subType": f"{octets[at + 4]:02x}"}}


def _date(octets: bytes, at: int, _: int) -> Any:
    (milliseconds,) = _INT64.unpack_from(octets, at)
    try:
        moment = _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return {"$date": {"$numberLong": str(milliseconds)}}
    return {"$date": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}


def _timestamp(octets: bytes, at: int, _: int) -> Any:
    increment, seconds = _TIMESTAMP.unpack_from(octets, at)
    return {"$timestamp": {"t": seconds, "i": increment}}


def _regex(octets: bytes, at: int, end: int) -> Any:
    pattern, options, _ = octets[at:end].split(b"\0", 2)
    told = pattern[:MOST_TEXT].decode("utf-8", "replace")
    return {"$regularExpression": {"pattern": told, "options": options.decode("latin-1")[:16]}}


def _decimal(octets: bytes, at: int, end: int) -> Any:
    """IEEE 754-2008 decimal128, in its binary encoding."""
    bits = int.from_bytes(octets[at:end], "little")
    sign, top = bits >> 127, bits >> 122 & 0x1F
    if top >= 0x1E:
        text = "NaN" if top == 0x1F else "-Infinity" if sign else "Infinity"
    else:
        large = top >= 0x18  # a coefficient that is never canonical, and counts as 0
        exponent = (bits >> 111 if large else bits >> 113) & 0x3FFF
        digits = 0 if large else bits & ((1 << 113) - 1)
        text = str(Decimal((sign, tuple(map(int, str(digits))), exponent - 6176)))
    return {"$numberDecimal": text}


def _other(octets: bytes, at: int, end: int) -> Any:
    return {"$hex": octets[at : min(end, at + MOST_TEXT)].hex()}


SIMPLE: dict[int, Callable[[bytes, int, int], Any]] = {
    DOUBLE: _double, INT32: _int32, INT64: _int64, BOOLEAN: _boolean, OBJECT_ID: _object_id,
    BINARY: _binary, DATE: _date, REGEX: _regex, TIMESTAMP: _timestamp, DECIMAL: _decimal,
    UNDEFINED: lambda *_: None, NULL: lambda *_: None,
    MIN_KEY: lambda *_: {"$minKey": 1}, MAX_KEY: lambda *_: {"$maxKey": 1},
}  # fmt: skip
