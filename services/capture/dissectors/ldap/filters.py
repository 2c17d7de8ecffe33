"""Filters of searches as text, as (&(uid=ann)(mail=*)): RFC 4511, section 4.5.1.7, to RFC 4515."""

from __future__ import annotations

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.ldap.ber import elements, expect, read_head, read_octets
from services.capture.dissectors.ldap.names import REDACTED, is_secret
from services.capture.dissectors.ldap.texts import CUT, text

MOST_DEPTH = 32  # filters in filters; what people write has three or four
MOST_CHARACTERS = 8192  # of a filter's text; programs ask for hundreds of names at once

AND, OR, NOT, EQUAL, SUBSTRINGS = 0xA0, 0xA1, 0xA2, 0xA3, 0xA4
GREATER, LESS, PRESENT, APPROXIMATE, EXTENSIBLE = 0xA5, 0xA6, 0x87, 0xA8, 0xA9
SIGNS = {AND: "&", OR: "|", NOT: "!"}
OPERATORS = {EQUAL: "=", GREATER: ">=", LESS: "<=", APPROXIMATE: "~="}
INITIAL, FINAL = 0x80, 0x82
RULE, TYPE, MATCHED, DN_TOO = 0x81, 0x82, 0x83, 0x84
ESCAPED = {each: f"\\{each:02x}" for each in (*range(32), *b"()*\\", 127)}


def filter_text(octets: bytes, position: int, end: int) -> tuple[str, int]:
    """Return (the text of the filter at a position, the position behind it).

    What is nested too deeply, and what is too long, is left out. Raises ProtocolError.
    """
    _, _, stop = read_head(octets, position, end)
    parts: list[str] = []
    _write(octets, position, end, MOST_DEPTH, [MOST_CHARACTERS], parts)
    return "".join(parts), stop


def _write(
    octets: bytes, position: int, end: int, depth: int, room: list[int], parts: list[str]
) -> None:
    """Add the texts of a filter; `room` has the characters that are left."""
    tag, begin, stop = read_head(octets, position, end)
    if depth == 0 or room[0] <= 0:
        parts.append(CUT)
        return
    if tag in SIGNS:
        parts.append("(" + SIGNS[tag])
        while begin < stop and room[0] > 0:
            _, _, inner_stop = read_head(octets, begin, stop)
            _write(octets, begin, inner_stop, depth - 1, room, parts)
            begin = inner_stop
        parts.append(CUT if begin < stop else "")
        parts.append(")")
        return
    found = _leaf(octets, tag, begin, stop)
    parts.append(f"({found})")
    room[0] -= len(found) + 2


def _leaf(octets: bytes, tag: int, begin: int, stop: int) -> str:
    if tag == PRESENT:
        return f"{text(octets[begin:stop])}=*"
    if tag in OPERATORS:
        name, begin = read_octets(octets, begin, stop)
        asserted, _ = read_octets(octets, begin, stop)
        attribute = text(name)
        return attribute + OPERATORS[tag] + _value(attribute, asserted)
    if tag == SUBSTRINGS:
        return _substrings(octets, begin, stop)
    if tag == EXTENSIBLE:
        return _extensible(octets, begin, stop)
    raise ProtocolError(f"no filter has the tag 0x{tag:02x}")


def _substrings(octets: bytes, begin: int, stop: int) -> str:
    name, begin = read_octets(octets, begin, stop)
    attribute = text(name)
    parts = [attribute, "="]
    begin, stop = expect(octets, begin, stop, 0x30)
    last = INITIAL
    for number, (tag, first, end) in enumerate(elements(octets, begin, stop)):
        if number > 0 or tag != INITIAL:
            parts.append("*")
        parts.append(_value(attribute, octets[first:end]))
        last = tag
    return "".join(parts) + ("" if last == FINAL else "*")


def _extensible(octets: bytes, begin: int, stop: int) -> str:
    rule = attribute = dn = ""
    asserted = b""
    for tag, first, end in elements(octets, begin, stop):
        if tag == RULE:
            rule = ":" + text(octets[first:end])
        elif tag == TYPE:
            attribute = text(octets[first:end])
        elif tag == MATCHED:
            asserted = octets[first:end]
        elif tag == DN_TOO and any(octets[first:end]):
            dn = ":dn"
    return f"{attribute}{dn}{rule}:={_value(attribute, asserted)}"


def _value(attribute: str, octets: bytes) -> str:
    if is_secret(attribute):
        return REDACTED
    found = octets.decode(errors="replace") if len(octets) < MOST_CHARACTERS else text(octets)
    if "\ufffd" in found:
        return "".join(f"\\{each:02x}" for each in octets)
    return found.translate(ESCAPED)
