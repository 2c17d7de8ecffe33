"""Numbers and vectors of TLS messages, with a length check before each read (RFC 8446, 3)."""

import struct


class TruncatedError(Exception):
    """The octets end before what they announce."""


class Reader:
    """Octets that are read from their begin on."""

    __slots__ = ("at", "end", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets
        self.at, self.end = 0, len(octets)

    @property
    def left(self) -> int:
        """Octets that were not read yet."""
        return self.end - self.at

    def number(self, size: int) -> int:
        """Return a number of `size` octets. Raises TruncatedError."""
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """Return the next octets. Raises TruncatedError."""
        if size > self.end - self.at:
            raise TruncatedError
        self.at += size
        return self.octets[self.at - size : self.at]

    def vector(self, size: int) -> bytes:
        """Return a vector whose length is a number of `size` octets. Raises TruncatedError."""
        return self.take(self.number(size))


def numbers(octets: bytes) -> tuple[int, ...]:
    """Return octets as numbers of two octets each; a single last octet is left out."""
    count = len(octets) // 2
    return struct.unpack(f"!{count}H", octets[: 2 * count])
