"""Protocol Buffers without their description: fields by number, as `protoc --decode_raw` has them.

https://protobuf.dev/programming-guides/encoding. What a field with a length is cannot be told for
sure: it is shown as text if it can be that, else as a message, else as base64.
"""

import base64
import contextlib
from typing import Any

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
DEEPEST = 8  # messages inside of messages; each level may look at its octets once more
MOST_FIELDS = 1000  # of a message and those inside of it
MOST_DIGITS = 10  # octets of a number of 64 bits
MOST_BITS = (1 << 64) - 1
FIELD_1 = "\n"  # how a message begins whose first field is a text: also white space
MOST_NUMBER = (1 << 29) - 1  # of a field

Json = dict[str, Any]


class _NoMessageError(Exception):
    pass


class _Reader:
    """One message with all that is in it."""

    def __init__(self) -> None:
        self.fields = MOST_FIELDS  # that may still be read

    def message(self, octets: bytes, depth: int) -> Json:
        found: Json = {}
        at = 0
        while at < len(octets):
            tag, at = _number(octets, at)
            number, kind = tag >> 3, tag & 7
            if not 0 < number <= MOST_NUMBER:
                raise _NoMessageError
            value, at = self._value(kind, octets, at, depth)
            _add(found, str(number), value)
            self.fields -= 1
            if self.fields < 0:
                raise _NoMessageError
        return found

    def _value(self, kind: int, octets: bytes, at: int, depth: int) -> tuple[Any, int]:
        if kind == VARINT:
            return _number(octets, at)
        if kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
            value = octets[at : at + size]
            if len(value) < size:
                raise _NoMessageError
            return f"0x{int.from_bytes(value, 'little'):0{2 * size}x}", at + size
        if kind != DELIMITED:
            raise _NoMessageError
        length, at = _number(octets, at)
        value = octets[at : at + length]
        if len(value) < length:
            raise _NoMessageError
        return self._delimited(value, depth), at + length

    def _delimited(self, value: bytes, depth: int) -> Any:
        text = _printable(value)
        if text is not None and not text.startswith(FIELD_1):
            return text
        if depth < DEEPEST and self.fields > 0:
            with contextlib.suppress(_NoMessageError):  # what was tried counts all the same
                return self.message(value, depth + 1)
        return text if text is not None else base64.b64encode(value).decode()


def _number(octets: bytes, at: int) -> tuple[int, int]:
    value = 0
    for digit in range(MOST_DIGITS):
        if at >= len(octets):
            break
        octet = octets[at]
        at += 1
        value |= (octet & 0x7F) << 7 * digit
        if octet < 0x80:
            return value & MOST_BITS, at
    raise _NoMessageError


def _printable(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    is_printable = text.isprintable() or text.translate(_WITHOUT_SPACE).isprintable()
    return text if is_printable else None


_WITHOUT_SPACE = dict.fromkeys(map(ord, "\t\r\n"))


def _add(found: Json, name: str, value: Any) -> None:
    """Add a field; one that is repeated gets a list."""
    there = found.get(name)
    if there is None:
        found[name] = value
    elif isinstance(there, list):
        there.append(value)
    else:
        found[name] = [there, value]


def message(octets: bytes) -> Json | str:
    """Return the fields of a message by their numbers, or its octets as base64 if it is none."""
    reader = _Reader()
    try:
        return reader.message(octets, 1)
    except _NoMessageError:
        return base64.b64encode(octets).decode()
