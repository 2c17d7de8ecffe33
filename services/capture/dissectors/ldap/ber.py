"""Read BER as LDAP restricts it: definite lengths, tags of one octet (RFC 4511, 5.1; X.690).

Readers get (octets, position, end) and return what they read and the position behind it. Nothing
here recurses. All raise ProtocolError where the octets are no BER, or end too early.
"""

from __future__ import annotations

from collections.abc import Iterator

from services.capture.dissectors.conversation import ProtocolError

MOST_LENGTH_OCTETS = 4  # of a length: 4 GiB, more than any message has
LONG_FORM = 0x80
TAG_NUMBER = 0x1F  # a tag with all of these set would go on in the next octet

BOOLEAN, INTEGER, OCTET_STRING, ENUMERATED = 0x01, 0x02, 0x04, 0x0A
SEQUENCE, SET = 0x30, 0x31


def read_head(octets: bytes | bytearray, position: int, end: int) -> tuple[int, int, int]:
    """Return (tag, where the content begins, where it ends)."""
    if position + 2 > end:
        raise ProtocolError("an element has no room for its tag and length")
    tag, length = octets[position], octets[position + 1]
    position += 2
    if tag & TAG_NUMBER == TAG_NUMBER:
        raise ProtocolError("a tag of more than one octet, which LDAP has none of")
    if length >= LONG_FORM:
        count = length - LONG_FORM
        if not 0 < count <= MOST_LENGTH_OCTETS:
            raise ProtocolError("a length that is indefinite, or too long")
        if position + count > end:
            raise ProtocolError("an element has no room for its length")
        length = int.from_bytes(octets[position : position + count], "big")
        position += count
    if position + length > end:
        raise ProtocolError("an element ends behind what it is in")
    return tag, position, position + length


def elements(octets: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (tag, begin, end) of each element's content."""
    while position < end:
        tag, begin, position = read_head(octets, position, end)
        yield tag, begin, position


def expect(octets: bytes, position: int, end: int, wanted: int) -> tuple[int, int]:
    """Return (begin, end) of the content of an element that has to have the tag `wanted`."""
    tag, begin, stop = read_head(octets, position, end)
    if tag != wanted:
        raise ProtocolError(f"tag 0x{tag:02x} where 0x{wanted:02x} has to be")
    return begin, stop


def read_integer(octets: bytes, position: int, end: int, tag: int = INTEGER) -> tuple[int, int]:
    """Return (number, position behind it) of an INTEGER, or of what has another tag."""
    begin, stop = expect(octets, position, end, tag)
    if not 0 < stop - begin <= 8:
        raise ProtocolError("a number of no octets, or of more than LDAP has")
    return int.from_bytes(octets[begin:stop], "big", signed=True), stop


def read_octets(
    octets: bytes, position: int, end: int, tag: int = OCTET_STRING
) -> tuple[bytes, int]:
    """Return (octets, position behind them) of an OCTET STRING, or of what has another tag."""
    begin, stop = expect(octets, position, end, tag)
    return octets[begin:stop], stop
