"""Attribute-value pairs of Diameter as lists of {code, name, vendorId, value}: RFC 6733, section 4.

A group's value is a list of the same kind. Passwords and keys are never read.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.diameter import names
from services.capture.dissectors.radius import names as radius

Json = dict[str, Any]

REDACTED = "[redacted]"
HEAD, VENDOR_HEAD = 8, 12  # octets in front of a value
VENDOR_FLAG = 0x80
MOST_DEPTH = 8  # groups in groups; 3GPP's have four or five
MOST_AVPS = 1024  # of a message, with those in groups
MOST_OCTETS = 4096  # of a value
UNIX_OF_NTP = 2_208_988_800  # seconds from 1900 to 1970; RFC 6733, section 4.3.1
MICROSOFT = 311
IPV4, IPV6 = b"\0\1", b"\0\2"  # address families, in front of an Address


class Room:
    """How many pairs may still be read of a message."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_AVPS


def avps(octets: bytes, position: int, end: int, room: Room, depth: int = MOST_DEPTH) -> list[Json]:
    """Return the pairs between two positions. Raises ProtocolError when one ends behind them."""
    found: list[Json] = []
    while position < end and room.left > 0:
        if position + HEAD > end:
            raise ProtocolError("an AVP has no room for its head")
        code = int.from_bytes(octets[position : position + 4], "big")
        length = int.from_bytes(octets[position + 5 : position + 8], "big")
        head = VENDOR_HEAD if octets[position + 4] & VENDOR_FLAG else HEAD
        if length < head or position + length > end:
            raise ProtocolError("an AVP is shorter than its head, or ends behind what it is in")
        vendor = int.from_bytes(octets[position + HEAD : position + head], "big")
        room.left -= 1
        begin, stop = position + head, position + length
        found.append(_avp(octets, code, vendor, begin, stop, room, depth))
        position += length + -length % 4
    return found


def _avp(
    octets: bytes, code: int, vendor: int, begin: int, end: int, room: Room, depth: int
) -> Json:
    known = READERS.get((vendor, code))
    pair: Json = {"code": code} if known is None else {"code": code, "name": known[0]}
    if vendor:
        pair["vendorId"] = vendor
    if is_secret(vendor, code):
        pair["value"] = REDACTED
    elif known is None:
        pair |= _unknown(octets[begin:end])
    elif known[1] is not None:
        pair["value"] = known[1](octets[begin : min(end, begin + MOST_OCTETS)])
    elif depth > 0:
        pair["value"] = _group(octets, begin, end, room, depth - 1)
    else:
        pair["size"] = end - begin
    return pair


def is_secret(vendor: int, code: int) -> bool:
    """Whether a value must not be stored."""
    if vendor == 0 and code in radius.SECRETS:
        return True
    if vendor == MICROSOFT and code in radius.MICROSOFT_SECRETS:
        return True
    return code in names.SECRETS.get(vendor, ())


def _group(octets: bytes, begin: int, end: int, room: Room, depth: int) -> list[Json]:
    """Return the pairs of a group; none when its octets are wrong."""
    try:
        return avps(octets, begin, end, room, depth)
    except ProtocolError:
        return []


def _unknown(octets: bytes) -> Json:
    """Return a text, or a number; other octets may be a key, and only their size is told."""
    if octets.isascii() and octets and (shown := octets[:MOST_OCTETS].decode()).isprintable():
        return {"value": shown}
    if len(octets) == 4:
        return {"value": int.from_bytes(octets, "big")}
    return {"size": len(octets)}


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", errors="backslashreplace")


def _number(octets: bytes) -> Any:
    return int.from_bytes(octets, "big") if len(octets) in (4, 8) else octets.hex()


def _signed(octets: bytes) -> Any:
    return int.from_bytes(octets, "big", signed=True) if len(octets) in (4, 8) else octets.hex()


def _address(octets: bytes) -> str:
    if (octets[:2], len(octets)) in ((IPV4, 6), (IPV6, 18)):
        return str(ip_address(octets[2:]))
    return str(ip_address(octets)) if len(octets) in (4, 16) else octets.hex()


def _time(octets: bytes) -> str:
    """Seconds since 1900; those that seem to be before 1968 are of the next era, RFC 5905."""
    if len(octets) != 4:
        return octets.hex()
    seconds = int.from_bytes(octets, "big")
    since = seconds - UNIX_OF_NTP + (0 if seconds & 1 << 31 else 1 << 32)
    return datetime.datetime.fromtimestamp(since, datetime.UTC).isoformat()


def _octets(octets: bytes) -> str:
    is_text = octets.isascii() and octets.decode("ascii").isprintable()
    return octets.decode("ascii") if is_text else octets.hex()


KINDS: dict[str, Callable[[bytes], Any] | None] = {
    "texts": _text, "numbers": _number, "signed": _signed, "addresses": _address, "times": _time,
    "octets": _octets, "groups": None,
}  # fmt: skip
_OF_RADIUS = (
    (radius.TEXTS, _text), (radius.NUMBERS, _number), (radius.ADDRESSES, _address),
    (radius.OCTETS, _octets), (radius.PREFIXES, bytes.hex),
)  # fmt: skip
READERS: dict[tuple[int, int], tuple[str, Callable[[bytes], Any] | None]] = {
    (0, code): (name, read) for table, read in _OF_RADIUS for code, name in table.items()
}  # RFC 6733, section 4.1: codes up to 255 are RADIUS's attributes
READERS |= {
    (names.VENDOR_3GPP, code): (name, _octets) for code, name in radius.THREE_GPP.items()
} | {
    (vendor, code): (name, KINDS[kind])
    for vendor, tables in ((0, names.BASE), (names.VENDOR_3GPP, names.THREE_GPP))
    for kind, table in tables.items() for code, name in table.items()
}  # fmt: skip
"""By vendor and code: the name, and what reads a value; None for a group."""
READERS[0, 55] = READERS[0, 55][0], _time  # Event-Timestamp is a Time here
