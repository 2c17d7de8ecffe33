"""Read Kafka's primitive types (https://kafka.apache.org/protocol#protocol_types).

A message may have been cut where it was too long to keep; reading it ends with Incomplete there,
and what was read until then stays.
"""

import base64
import struct
from typing import Any, TypeAlias

from services.capture.dissectors.conversation import DEFAULT_BODY, ProtocolError

MOST_ITEMS = 4096  # values of lists in one message: an empty one is an octet, and far more as JSON
MOST_OCTETS = 64 << 10  # of a text
LONGEST_VARINT = 10  # octets: 64 bits, 7 in each

Octets: TypeAlias = bytes | bytearray | memoryview

_I16, _I32 = struct.Struct(">h"), struct.Struct(">i")


class IncompleteError(ProtocolError):
    """The octets end, or there are more values than are read."""


class Reader:
    """The octets data[at:end], read one value after the other. Raises IncompleteError."""

    __slots__ = ("at", "body_limit", "code", "data", "end", "is_flexible", "late", "room")

    def __init__(self, data: Octets, at: int, end: int, is_flexible: bool = False) -> None:
        self.data, self.at, self.end = data, at, end
        self.is_flexible = is_flexible
        """Lengths are varints, and structs end with tagged fields (KIP-482)."""
        self.room = MOST_ITEMS
        self.body_limit = DEFAULT_BODY
        """Octets of all records of a message that are read, as of a body elsewhere."""
        self.late: Any = None
        """What the lists share that are read later."""
        self.code = 0
        """The first error code that is not 0."""

    def skip(self, length: int) -> int:
        """Return where the next `length` octets begin, and go behind them."""
        at = self.at
        if length < 0 or at + length > self.end:
            raise IncompleteError("a value goes beyond the end of its message")
        self.at = at + length
        return at

    def take_room(self) -> None:
        """Count a value of a list."""
        self.room -= 1
        if self.room < 0:
            raise IncompleteError(f"more than {MOST_ITEMS} values")

    def i16(self) -> int:
        """Return 16 bits with a sign."""
        return int(_I16.unpack_from(self.data, self.skip(2))[0])

    def i32(self) -> int:
        """Return 32 bits with a sign."""
        return int(_I32.unpack_from(self.data, self.skip(4))[0])

    def varint(self) -> int:
        """Return an unsigned number of up to 64 bits."""
        data, at = self.data, self.at
        value = shift = 0
        for place in range(at, min(self.end, at + LONGEST_VARINT)):
            octet = data[place]
            value |= (octet & 0x7F) << shift
            if octet < 0x80:
                self.at = place + 1
                return value
            shift += 7
        raise IncompleteError("a number goes beyond its end")

    def signed_varint(self) -> int:
        """Return a number in zigzag form."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def count(self) -> int:
        """Return how many values a list has, -1 for null."""
        return self.varint() - 1 if self.is_flexible else self.i32()

    def text(self) -> str | None:
        """Return a string, at most its first MOST_OCTETS."""
        length = self.varint() - 1 if self.is_flexible else self.i16()
        if length < 0:
            return None
        at = self.skip(length)
        return bytes(self.data[at : at + min(length, MOST_OCTETS)]).decode("utf-8", "replace")

    def octets_or_none(self) -> str | None:
        """Return octets in base64, at most the first MOST_OCTETS."""
        length = self.count()
        if length < 0:
            return None
        at = self.skip(length)
        return base64.b64encode(self.data[at : at + min(length, MOST_OCTETS)]).decode("ascii")

    def secret(self) -> str | None:
        """Skip octets that nobody may store."""
        length = self.count()
        if length < 0:
            return None
        self.skip(length)
        return "[redacted]"

    def uuid(self) -> str:
        """Return a UUID as Kafka writes it: base64 for URLs, without padding."""
        at = self.skip(16)
        return base64.urlsafe_b64encode(self.data[at : self.at]).decode("ascii")[:22]

    def tags(self, known: dict[int, Any], target: dict[str, Any]) -> None:
        """Read the tagged fields that end a struct, each of a reader of `known`."""
        for _ in range(self.varint()):
            self.take_room()
            tag, size = self.varint(), self.varint()
            at = self.skip(size)
            read = known.get(tag)
            if read is not None:
                after, end, self.at, self.end = self.at, self.end, at, self.at
                try:
                    read(self, target)
                finally:
                    self.at, self.end = after, end
