"""Read AMQP's values out of a frame: numbers, texts, bits and field tables.

AMQP 0-9-1, 4.2.5; the types of fields are those of RabbitMQ's errata, which all clients use.
"""

import struct
from typing import Any

from services.capture.dissectors.conversation import ProtocolError

MOST_DEPTH = 16  # tables in tables; clients use two or three
MOST_VALUES = 4096  # of one frame: an empty value is an octet on the wire, and far more as JSON

_SHORT, _LONG, _LONG_LONG = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")
_DECIMAL = struct.Struct(">Bi")
_NUMBERS = {
    ord(code): struct.Struct(">" + form)
    for code, form in {
        "b": "b", "B": "B", "s": "h", "U": "h", "u": "H", "I": "i", "i": "I",
        "l": "q", "L": "q", "f": "f", "d": "d", "T": "Q",
    }.items()
}  # fmt: skip
_TRUTH, _TEXT, _OCTETS, _TABLE, _ARRAY, _VOID, _POINT = b"tSxFAVD"


class Reader:
    """The octets at[..end] of a frame, read one value after the other. Raises ProtocolError."""

    __slots__ = ("at", "data", "end", "room")

    def __init__(self, data: bytearray, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end
        self.room = MOST_VALUES

    def _skip(self, length: int) -> int:
        """Return where the next `length` octets begin, and go behind them."""
        at = self.at
        self.at = at + length
        if self.at > self.end:
            raise ProtocolError("a value goes beyond the end of its frame")
        return at

    def octet(self) -> int:
        """Return an octet."""
        return self.data[self._skip(1)]

    def short(self) -> int:
        """Return 16 bits."""
        return int(_SHORT.unpack_from(self.data, self._skip(2))[0])

    def long(self) -> int:
        """Return 32 bits."""
        return int(_LONG.unpack_from(self.data, self._skip(4))[0])

    def long_long(self) -> int:
        """Return 64 bits; a time is in seconds."""
        return int(_LONG_LONG.unpack_from(self.data, self._skip(8))[0])

    def short_text(self) -> str:
        """Return a text of up to 255 octets."""
        return self._text(self.octet())

    def long_text(self) -> str:
        """Return a text of up to 4 GB, as far as the frame goes."""
        return self._text(self.long())

    def secret(self) -> str:
        """Skip a text that nobody may store."""
        self._skip(self.long())
        return "[redacted]"

    def _text(self, length: int) -> str:
        at = self._skip(length)
        return self.data[at : self.at].decode("utf-8", "replace")

    def table(self, depth: int = 0) -> dict[str, Any]:
        """Return a field table; of names that come twice, the last."""
        end = self._end_of(depth)
        found = {}
        while self.at < end:
            name = self.short_text()
            found[name] = self._value(depth)
        self._close(end)
        return found

    def _array(self, depth: int) -> list[Any]:
        end = self._end_of(depth)
        found = []
        while self.at < end:
            found.append(self._value(depth))
        self._close(end)
        return found

    def _end_of(self, depth: int) -> int:
        if depth > MOST_DEPTH:
            raise ProtocolError(f"tables are nested more than {MOST_DEPTH} deep")
        end = self.long() + self.at
        if end > self.end:
            raise ProtocolError("a table goes beyond the end of its frame")
        return end

    def _close(self, end: int) -> None:
        if self.at != end:
            raise ProtocolError("a value goes beyond the end of its table")

    def _value(self, depth: int) -> Any:
        self.room -= 1
        if self.room < 0:
            raise ProtocolError(f"a frame has more than {MOST_VALUES} values")
        kind = self.octet()
        if kind == _TEXT:
            return self.long_text()
        number = _NUMBERS.get(kind)
        if number is not None:
            return number.unpack_from(self.data, self._skip(number.size))[0]
        if kind == _TRUTH:
            return self.octet() != 0
        if kind == _TABLE:
            return self.table(depth + 1)
        if kind == _ARRAY:
            return self._array(depth + 1)
        if kind == _VOID:
            return None
        if kind == _OCTETS:
            at = self._skip(self.long())
            return bytes(self.data[at : self.at])
        if kind == _POINT:
            scale, digits = _DECIMAL.unpack_from(self.data, self._skip(_DECIMAL.size))
            return digits / 10**scale
        raise ProtocolError(f"no value has the type {kind:#04x}")
