"""Header blocks (HPACK, RFC 7541), also where a capture begins in the middle of a connection.

A field that lies in a part of the table that was not seen is shown as unknown: entries are
counted from the newest, so that those that were added since are found at their places.
"""

import functools
import re
from collections import deque

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from services.capture.dissectors.conversation import ProtocolError

UNKNOWN = "<unknown>"
DEFAULT_TABLE = 4096  # octets, unless the encoder says otherwise (RFC 9113, 6.5.2)
MOST_TABLE = 1 << 16  # octets of a table that are kept; what is older becomes unknown
MOST_LISTED = 1 << 16  # octets of a block's fields: a block can name a long one in each octet
ENTRY = 32  # octets that each entry of the table counts more than its texts (4.1)
MOST_DIGITS = 5  # octets of a number, so that it stays below 2^35
MOST_KNOWN = 4096  # texts whose decoding is remembered
LONGEST_KNOWN = 256  # octets of such a text

NAME = re.compile(r"[!-~]+")

Pair = tuple[str, str]
STATIC: tuple[Pair, ...] = (
    ("", ""),
    *((name.decode(), value.decode()) for name, value in HeaderTable.STATIC_TABLE),
)
STATIC_ENTRIES = len(STATIC)


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def _unhuffman(octets: bytes) -> str:
    try:
        return _text(decode_huffman(octets))
    except HPACKError:
        raise ProtocolError("a field's Huffman code is none") from None


_text_known = functools.lru_cache(MOST_KNOWN)(_text)
_unhuffman_known = functools.lru_cache(MOST_KNOWN)(_unhuffman)


class HeaderReader:
    """The blocks of one side of a connection, in their order."""

    def __init__(self) -> None:
        self._entries: deque[Pair] = deque()  # the newest first
        self._size, self._room = 0, DEFAULT_TABLE
        self._block = b""
        self._at = 0

    def forget(self) -> None:
        """Blocks were lost: of the table, nothing is known any more, nor how large it is."""
        self._entries.clear()
        self._size, self._room = 0, MOST_TABLE

    def read(self, block: bytes) -> list[Pair]:
        """Return the fields of a whole block. Raises ProtocolError."""
        self._block, self._at = block, 0
        found: list[Pair] = []
        listed, end = 0, len(block)
        while self._at < end:
            first = block[self._at]
            if 0x80 < first < 0xFF:  # most fields are one octet
                self._at += 1
                pair = self._entry(first & 0x7F)
            elif first & 0x80:
                pair = self._entry(self._number(0x7F))
            elif first & 0x40:
                pair = self._literal(0x3F)
                self._add(pair)
            elif first & 0x20:
                self._resize(self._number(0x1F))
                continue
            else:
                pair = self._literal(0x0F)
            listed += len(pair[0]) + len(pair[1]) + ENTRY
            if listed <= MOST_LISTED:
                found.append(pair)
        return found

    def _entry(self, index: int) -> Pair:
        if index == 0:
            raise ProtocolError("a field has no number")
        if index < STATIC_ENTRIES:
            return STATIC[index]
        place = index - STATIC_ENTRIES
        return self._entries[place] if place < len(self._entries) else (UNKNOWN, UNKNOWN)

    def _literal(self, mask: int) -> Pair:
        index = self._number(mask)
        if index:
            return self._entry(index)[0], self._string()
        name = self._string()
        if not NAME.fullmatch(name):
            raise ProtocolError("the name of a field has other characters than names have")
        return name, self._string()

    def _number(self, mask: int) -> int:
        """Read a number that begins in the bits of `mask` (5.1)."""
        block, at = self._block, self._at
        value = block[at] & mask
        at += 1
        if value == mask:
            for digit in range(MOST_DIGITS):
                if at >= len(block):
                    raise ProtocolError("a block of fields ends too early")
                octet = block[at]
                at += 1
                value += (octet & 0x7F) << 7 * digit
                if octet < 0x80:
                    break
            else:
                raise ProtocolError("a number in a block of fields is too large")
        self._at = at
        return value

    def _string(self) -> str:
        if self._at >= len(self._block):
            raise ProtocolError("a block of fields ends too early")
        is_coded = self._block[self._at] & 0x80
        length = self._number(0x7F)
        octets = self._block[self._at : self._at + length]
        if len(octets) != length:
            raise ProtocolError("a block of fields ends too early")
        self._at += length
        if length > LONGEST_KNOWN:
            return _unhuffman(octets) if is_coded else _text(octets)
        return _unhuffman_known(octets) if is_coded else _text_known(octets)

    def _add(self, pair: Pair) -> None:
        self._entries.appendleft(pair)
        self._size += len(pair[0]) + len(pair[1]) + ENTRY
        self._evict()

    def _resize(self, octets: int) -> None:
        self._room = min(octets, MOST_TABLE)
        self._evict()

    def _evict(self) -> None:
        while self._size > self._room:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + ENTRY
