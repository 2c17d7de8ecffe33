"""Attributes of RADIUS as a dict of names and values: RFC 2865, section 5, and its kinds of values.

Passwords, keys and proofs of them are never read: REDACTED stands where they were.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.radius import names

Json = dict[str, Any]

REDACTED = "[redacted]"
HEAD = 2  # octets of an attribute's type and length
VENDOR_SPECIFIC, EAP_MESSAGE = 26, 79
EXTENDED = range(241, 247)  # RFC 6929: the next octet goes on with the type
MICROSOFT, CISCO = 311, 9
LARGEST_TAG = 0x1F
LONGEST_NUMBER = 8
CISCO_SECRETS = ("password", "secret", "key", "psk", "token")
"""Words in the names of Cisco's pairs that are secrets, as leap:session-key=."""


def attributes(octets: bytes, position: int, end: int) -> tuple[Json, Json | None]:
    """Return ({name: value}, what the EAP packet is); a name that comes again has a list.

    Raises ProtocolError when the attributes do not end at `end`.
    """
    found: Json = {}
    eap = None
    while position < end:
        if position + HEAD > end:
            raise ProtocolError("an attribute has no room for its length")
        kind, length = octets[position], octets[position + 1]
        stop = position + length
        if length < HEAD or stop > end:
            raise ProtocolError("an attribute is shorter than its head, or ends behind the packet")
        value = octets[position + HEAD : stop]
        if kind == EAP_MESSAGE and eap is None:
            eap = _eap(value)
        if kind == VENDOR_SPECIFIC:
            _vendor_specific(found, value)
        else:
            name, shown = _attribute(kind, value)
            if kind != EAP_MESSAGE or name not in found:
                add(found, name, shown)
        position = stop
    return found, eap


def add(found: Json, name: str, value: Any) -> None:
    """Put a value under a name, in a list with those that are there."""
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _attribute(kind: int, value: bytes) -> tuple[str, Any]:
    if kind in EXTENDED:
        return f"Attribute-{kind}.{value[0] if value else 0}", {"size": len(value)}
    known = READERS.get(kind)
    if known is None:
        return f"Attribute-{kind}", _guessed(value)
    name, read = known
    if kind in names.SECRETS:
        return name, REDACTED
    if kind in names.TAGGED and value and (value[0] <= LARGEST_TAG or read is _number):
        value = value[1:]  # a tag says which attributes are of the same tunnel
    shown = read(value)
    return name, names.VALUES[kind].get(shown, shown) if kind in names.VALUES else shown


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="backslashreplace")


def _number(value: bytes) -> Any:
    return int.from_bytes(value, "big") if 0 < len(value) <= LONGEST_NUMBER else value.hex()


def _address(value: bytes) -> str:
    return str(ip_address(value)) if len(value) in (4, 16) else value.hex()


def _prefix(value: bytes) -> str:
    """RFC 3162, section 2.3: a reserved octet, the length in bits, the octets that are needed."""
    if not 2 <= len(value) <= 18:
        return value.hex()
    return f"{ip_address(value[2:].ljust(16, bytes(1)))}/{value[1]}"


READERS: dict[int, tuple[str, Callable[[bytes], Any]]] = {
    kind: (name, read)
    for table, read in (
        (names.TEXTS, _text), (names.NUMBERS, _number), (names.ADDRESSES, _address),
        (names.PREFIXES, _prefix), (names.OCTETS, bytes.hex),
    ) for kind, name in table.items()
}  # fmt: skip
"""Name of each attribute, and what makes its value readable."""


def _eap(value: bytes) -> Json | None:
    """Say what an EAP packet is, by RFC 3748, section 4; its data is not told."""
    if len(value) < 4:
        return None
    found: Json = {"code": names.EAP_CODES.get(value[0], value[0]), "identifier": value[1]}
    if len(value) > 4:
        found["type"] = names.EAP_TYPES.get(value[4], value[4])
    return found


def _vendor_specific(found: Json, value: bytes) -> None:
    """Add a vendor's attributes. Most write them as RFC 2865, section 5.26, suggests."""
    vendor = int.from_bytes(value[:4], "big")
    prefix = names.VENDORS.get(vendor, f"Vendor-{vendor}")
    known = names.OF_VENDORS.get(vendor, {})
    position = 4
    while position + HEAD <= len(value):
        kind, length = value[position], value[position + 1]
        if length < HEAD or position + length > len(value):
            break
        name = known.get(kind, f"{prefix}-{kind}")
        add(found, name, _of_vendor(vendor, kind, value[position + HEAD : position + length]))
        position += length
    if position < len(value) or position == 4:
        add(found, f"{prefix}-Specific", {"size": len(value)})


def _of_vendor(vendor: int, kind: int, value: bytes) -> Any:
    if vendor == MICROSOFT and kind in names.MICROSOFT_SECRETS:
        return REDACTED
    shown = _guessed(value)
    if vendor == CISCO and isinstance(shown, str):
        name, sign, _ = shown.partition("=")
        if any(word in name.lower() for word in CISCO_SECRETS):
            return name + sign + REDACTED
    return shown


def _guessed(value: bytes) -> Any:
    """Return a text, or a number; other octets may be a key, and only their size is told."""
    if value.isascii() and (shown := value.rstrip(b"\0").decode("ascii")).isprintable() and shown:
        return shown
    return int.from_bytes(value, "big") if len(value) in (1, 2, 4) else {"size": len(value)}
