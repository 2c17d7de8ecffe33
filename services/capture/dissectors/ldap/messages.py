"""Messages of LDAP as dicts: RFC 4511, section 4. Called by `exchange` with whole messages.

Passwords and credentials are never read further than their length.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.ldap import names
from services.capture.dissectors.ldap.ber import (
    BOOLEAN,
    ENUMERATED,
    OCTET_STRING,
    SEQUENCE,
    SET,
    elements,
    expect,
    read_head,
    read_integer,
    read_octets,
)
from services.capture.dissectors.ldap.filters import filter_text
from services.capture.dissectors.ldap.names import OIDS, REDACTED, is_secret
from services.capture.dissectors.ldap.texts import text, value

Json = dict[str, Any]

MOST_VALUES = 64  # of an attribute; a group can have a hundred thousand members
MOST_ITEMS = 256  # attributes of an entry, changes of a modification, controls
MOST_ID = (1 << 31) - 1  # maxInt
TRUNCATED = "bodyTruncated"
"""Key that says that a message has more than is told of it."""

SIMPLE, SASL, SICILY = 0x80, 0xA3, frozenset({0x89, 0x8A, 0x8B})  # the last: MS-ADTS, 5.1.1.1.3
REFERRAL, SERVER_CREDENTIALS = 0xA3, 0x87
REQUEST_NAME, REQUEST_VALUE, RESPONSE_NAME, RESPONSE_VALUE = 0x80, 0x81, 0x8A, 0x8B
NEW_SUPERIOR = 0x80
USER_IDENTITY = 0x80  # of a password's change, RFC 3062


class LdapMessage(NamedTuple):
    """A message whose operation is not read yet."""

    id: int
    tag: int
    """One of names.OPERATIONS."""
    begin: int
    """Position of the operation's content in the octets of the message."""
    end: int


def open_message(octets: bytes, is_cut: bool = False) -> LdapMessage:
    """Read a message's id and which operation it has. Of one that is cut, the operation may end
    behind the octets: `end` is then their end. Raises ProtocolError.
    """
    end = len(octets)
    begin = 2 + (octets[1] & 0x7F if octets[1] >= 0x80 else 0)
    number, position = read_integer(octets, begin, end)
    if not 0 <= number <= MOST_ID:
        raise ProtocolError("a message's number is negative, or too large")
    if is_cut:
        tag = octets[position] if position < end else 0
        size = 2 + (octets[position + 1] & 0x7F if octets[position + 1] >= 0x80 else 0)
        begin, stop = position + size, end
    else:
        tag, begin, stop = read_head(octets, position, end)
    if tag not in names.OPERATIONS:
        raise ProtocolError(f"no operation has the tag 0x{tag:02x}")
    return LdapMessage(number, tag, begin, stop)


def request(octets: bytes, message: LdapMessage) -> Json:
    """Return the request of a message. Raises ProtocolError."""
    found = {"type": names.REQUESTS[message.tag], "messageId": message.id}
    found |= REQUESTS[message.tag](octets, message.begin, message.end)
    return found | _controls(octets, message.end)


def response(octets: bytes, message: LdapMessage) -> Json:
    """Return the response that a message is, or ends. Raises ProtocolError."""
    found: Json = {"type": names.RESPONSES[message.tag], "messageId": message.id}
    position = _result(octets, message.begin, message.end, found)
    for tag, begin, end in elements(octets, position, message.end):
        if tag == REFERRAL:
            urls = itertools.islice(elements(octets, begin, end), MOST_VALUES)
            found["referrals"] = [text(octets[first:last]) for _, first, last in urls]
        elif tag == SERVER_CREDENTIALS and message.tag == names.BIND_RESPONSE:
            found["serverCredentials"] = REDACTED
        elif tag == RESPONSE_NAME:
            found |= _oid(octets[begin:end])
        elif tag == RESPONSE_VALUE:
            found["valueSize"] = end - begin
    return found | _controls(octets, message.end)


def entry(octets: bytes, message: LdapMessage) -> Json:
    """Return an entry that a search found: {dn, attributes}. Raises ProtocolError."""
    dn, position = read_octets(octets, message.begin, message.end)
    return {"dn": text(dn)} | _attribute_list(octets, position, message.end)


def references(octets: bytes, message: LdapMessage) -> list[str]:
    """Return where else a search is to be asked. Raises ProtocolError."""
    found = itertools.islice(elements(octets, message.begin, message.end), MOST_VALUES)
    return [text(octets[begin:end]) for _, begin, end in found]


def _result(octets: bytes, position: int, end: int, found: Json) -> int:
    code, position = read_integer(octets, position, end, ENUMERATED)
    matched, position = read_octets(octets, position, end)
    said, position = read_octets(octets, position, end)
    found |= {"resultCode": code, "result": names.result_name(code)}
    if matched:
        found["matchedDN"] = text(matched)
    if said:
        found["message"] = text(said)
    return position


def _bind(octets: bytes, position: int, end: int) -> Json:
    version, position = read_integer(octets, position, end)
    name, position = read_octets(octets, position, end)
    tag, begin, stop = read_head(octets, position, end)
    found: Json = {"version": version, "dn": text(name)}
    if tag == SIMPLE:
        found["authentication"] = "simple" if stop > begin else "anonymous"
        return found | ({"password": REDACTED} if stop > begin else {})
    if tag == SASL:
        mechanism, begin = read_octets(octets, begin, stop)
        found |= {"authentication": "sasl", "mechanism": text(mechanism)}
    elif tag in SICILY:
        found["authentication"] = "sicily"
    else:
        raise ProtocolError(f"no authentication has the tag 0x{tag:02x}")
    return found | ({"credentials": REDACTED} if stop > begin else {})


def _search(octets: bytes, position: int, end: int) -> Json:
    dn, position = read_octets(octets, position, end)
    scope, position = read_integer(octets, position, end, ENUMERATED)
    aliases, position = read_integer(octets, position, end, ENUMERATED)
    size_limit, position = read_integer(octets, position, end)
    time_limit, position = read_integer(octets, position, end)
    types_only, position = read_octets(octets, position, end, BOOLEAN)
    asked, position = filter_text(octets, position, end)
    begin, stop = expect(octets, position, end, SEQUENCE)
    chosen = itertools.islice(elements(octets, begin, stop), MOST_ITEMS)
    return {
        "dn": text(dn),
        "scope": names.SCOPES.get(scope, str(scope)),
        "derefAliases": names.ALIASES.get(aliases, str(aliases)),
        "sizeLimit": size_limit,
        "timeLimit": time_limit,
        "typesOnly": any(types_only),
        "filter": asked,
        "attributes": [text(octets[first:last]) for _, first, last in chosen],
    }


def _modify(octets: bytes, position: int, end: int) -> Json:
    dn, position = read_octets(octets, position, end)
    begin, stop = expect(octets, position, end, SEQUENCE)
    changes: list[Json] = []
    for _, first, last in elements(octets, begin, stop):
        if len(changes) == MOST_ITEMS:
            return {"dn": text(dn), "changes": changes, TRUNCATED: True}
        kind, first = read_integer(octets, first, last, ENUMERATED)
        first, last = expect(octets, first, last, SEQUENCE)
        attribute, values, _ = _attribute(octets, first, last)
        operation = names.CHANGES.get(kind, str(kind))
        changes.append({"operation": operation, "attribute": attribute, "values": values})
    return {"dn": text(dn), "changes": changes}


def _add(octets: bytes, position: int, end: int) -> Json:
    dn, position = read_octets(octets, position, end)
    return {"dn": text(dn)} | _attribute_list(octets, position, end)


def _delete(octets: bytes, position: int, end: int) -> Json:
    return {"dn": text(octets[position:end])}


def _modify_dn(octets: bytes, position: int, end: int) -> Json:
    dn, position = read_octets(octets, position, end)
    new, position = read_octets(octets, position, end)
    delete, position = read_octets(octets, position, end, BOOLEAN)
    found: Json = {"dn": text(dn), "newRDN": text(new), "deleteOldRDN": any(delete)}
    if position < end:
        superior, _ = read_octets(octets, position, end, NEW_SUPERIOR)
        found["newSuperior"] = text(superior)
    return found


def _compare(octets: bytes, position: int, end: int) -> Json:
    dn, position = read_octets(octets, position, end)
    position, end = expect(octets, position, end, SEQUENCE)
    name, position = read_octets(octets, position, end)
    asserted, _ = read_octets(octets, position, end)
    attribute = text(name)
    shown = REDACTED if is_secret(attribute) else value(asserted)
    return {"dn": text(dn), "attribute": attribute, "value": shown}


def _extended(octets: bytes, position: int, end: int) -> Json:
    name, position = read_octets(octets, position, end, REQUEST_NAME)
    found = _oid(name)
    if position < end:
        begin, stop = expect(octets, position, end, REQUEST_VALUE)
        found["valueSize"] = stop - begin
        if found["oid"] == names.PASSWORD_MODIFY and stop > begin:
            begin, stop = expect(octets, begin, stop, SEQUENCE)
            for tag, first, last in elements(octets, begin, stop):
                if tag == USER_IDENTITY:
                    found["dn"] = text(octets[first:last])
    return found


def _abandon(octets: bytes, position: int, end: int) -> Json:
    if not 0 < end - position <= MOST_ID.bit_length() // 8 + 1:
        raise ProtocolError("what is abandoned is no message's number")
    return {"abandonedId": int.from_bytes(octets[position:end], "big")}


def _unbind(*_: object) -> Json:
    return {}


REQUESTS: dict[int, Callable[[bytes, int, int], Json]] = {
    names.BIND: _bind, names.UNBIND: _unbind, names.SEARCH: _search, names.MODIFY: _modify,
    names.ADD: _add, names.DELETE: _delete, names.MODIFY_DN: _modify_dn, names.COMPARE: _compare,
    names.ABANDON: _abandon, names.EXTENDED: _extended,
}  # fmt: skip


def _attribute_list(octets: bytes, position: int, end: int) -> Json:
    """Return {attributes: {name: values}}, and whether they are all."""
    begin, stop = expect(octets, position, end, SEQUENCE)
    found: dict[str, list[Any]] = {}
    is_cut = False
    for _, first, last in elements(octets, begin, stop):
        if len(found) == MOST_ITEMS:
            is_cut = True
            break
        name, values, were_cut = _attribute(octets, first, last)
        found.setdefault(name, []).extend(values)
        is_cut |= were_cut
    return {"attributes": found} | ({TRUNCATED: True} if is_cut else {})


def _attribute(octets: bytes, position: int, end: int) -> tuple[str, list[Any], bool]:
    """Return (name, values, whether some were left out) of a PartialAttribute."""
    name, position = read_octets(octets, position, end)
    attribute = text(name)
    if position == end:  # an increment may have no values, and old servers leave out empty sets
        return attribute, [], False
    begin, stop = expect(octets, position, end, SET)
    if is_secret(attribute):
        return attribute, [REDACTED] if stop > begin else [], False
    values: list[Any] = []
    for tag, first, last in elements(octets, begin, stop):
        if len(values) == MOST_VALUES:
            return attribute, values, True
        if tag != OCTET_STRING:
            raise ProtocolError("a value is no OCTET STRING")
        values.append(value(octets[first:last]))
    return attribute, values, False


def _oid(octets: bytes) -> Json:
    oid = text(octets)
    return {"oid": oid} | ({"name": OIDS[oid]} if oid in OIDS else {})


def _controls(octets: bytes, position: int) -> Json:
    """Return {controls: …} when something stands behind a message's operation."""
    if position >= len(octets):
        return {}
    begin, stop = expect(octets, position, len(octets), names.CONTROLS)
    found: list[Json] = []
    for _, first, last in elements(octets, begin, stop):
        if len(found) == MOST_ITEMS:
            break
        oid, first = read_octets(octets, first, last)
        control = _oid(oid)
        if first < last and octets[first] == BOOLEAN:
            critical, first = read_octets(octets, first, last, BOOLEAN)
            control["criticality"] = any(critical)
        found.append(control)
    return {"controls": found}
