# mypy: ignore-errors
r"""Write the data of a resource record as the members of its JSON object.

LAYOUTS says for each type which fields its data has, one behind the other; one kernel goes over the
fields of any type. Data that does not fit its layout exactly, and data of types that have none, is
written as RFC 3597 (section 5) writes unknown data: `"data":"\\# 4 0a000001"`.
"""

from enum import IntEnum, auto
from typing import NamedTuple

import numpy as np

from services.capture.dissectors.dns.codes import (
    NUMBER_OF_TYPE,
    SERVICE_KEYS,
    TYPES,
    words,
)
from services.capture.dissectors.dns.jsontext import (
    CLOSE_LIST,
    CLOSE_OBJECT,
    COLON,
    COMMA,
    MOST_PER_OCTET,
    OPEN_LIST,
    QUOTE,
    put,
    put_base32,
    put_base64,
    put_decimal,
    put_hex,
    put_ipv4,
    put_ipv6,
    put_name,
    put_octet,
    put_text,
    put_word,
    without_comma,
)
from services.capture.dissectors.dns.message import LONGEST_NAME, name_end
from services.capture.kernel import copy_octets, kernel, read_u8, read_u16, read_u32

TYPE_WORDS = words(TYPES, "TYPE")
SERVICE_KEY_WORDS = words(SERVICE_KEYS, "key")

MOST_LISTED_TYPES = 512
"""Types that the bitmap of an NSEC record may name: far above what IANA has given out, and without
a bound 34 octets could become 3 KB of names, again and again."""

ROOM_FOR_A_NAME = MOST_PER_OCTET * LONGEST_NAME + 2
ROOM_FOR_A_TYPE = len('"TYPE65535",')
ROOM_FOR_KEYS = 512
"""Octets of keys and punctuation in the longest layout, with a good margin."""
ROOM_PER_OCTET = 8
"""Octets of JSON that an octet of data can become, names aside: a key without a value in SVCB is
4 octets and gives `"key65000":"",`, a mandatory key is 2 and gives `"key65000",`."""
ROOM_FOR_DATA = 2 * ROOM_FOR_A_NAME + MOST_LISTED_TYPES * ROOM_FOR_A_TYPE + ROOM_FOR_KEYS
"""Octets of JSON that data can become beside ROOM_PER_OCTET for each of its octets."""


# fmt: off
class Kind(IntEnum):
    """What a field of a record's data is."""

    U8 = auto()
    U16 = auto()
    U32 = auto()
    IPV4 = auto()
    IPV6 = auto()
    NAME = auto()
    STRING = auto()         # one octet of length, then text
    STRINGS = auto()        # those to the end
    REST_TEXT = auto()      # text to the end
    REST_HEX = auto()
    REST_BASE64 = auto()
    COUNTED_HEX = auto()    # one octet of length, then octets
    COUNTED_BASE32 = auto()
    TYPE = auto()           # the number of a record type
    TYPES = auto()          # bitmap of types to the end (RFC 4034, section 4.1.2)
    PARAMETERS = auto()     # of SVCB and HTTPS, to the end (RFC 9460, section 2.2)
# fmt: on


class Layout(NamedTuple):
    """Fields of a record's data, as (key, kind); they are members of `object`, or of the record."""

    object: str
    fields: tuple[tuple[str, Kind], ...]


def _flat(key: str, kind: Kind) -> Layout:
    return Layout("", ((key, kind),))


# fmt: off
_DS = Layout("ds", (
    ("keyTag", Kind.U16), ("algorithm", Kind.U8), ("digestType", Kind.U8),
    ("digest", Kind.REST_HEX),
))
_DNSKEY = Layout("dnskey", (
    ("flags", Kind.U16), ("protocol", Kind.U8), ("algorithm", Kind.U8),
    ("publicKey", Kind.REST_BASE64),
))
_SVCB = Layout("svcb", (
    ("priority", Kind.U16), ("target", Kind.NAME), ("params", Kind.PARAMETERS),
))
_TLSA = Layout("tlsa", (
    ("usage", Kind.U8), ("selector", Kind.U8), ("matchingType", Kind.U8),
    ("certificate", Kind.REST_HEX),
))
LAYOUTS: dict[str, Layout] = {
    "A": _flat("ip", Kind.IPV4),
    "AAAA": _flat("ip", Kind.IPV6),
    "NS": _flat("ns", Kind.NAME),
    "CNAME": _flat("cname", Kind.NAME),
    "DNAME": _flat("dname", Kind.NAME),
    "PTR": _flat("ptr", Kind.NAME),
    "TXT": _flat("txts", Kind.STRINGS),
    "SPF": _flat("txts", Kind.STRINGS),
    "SOA": Layout("soa", (
        ("mname", Kind.NAME), ("rname", Kind.NAME), ("serial", Kind.U32), ("refresh", Kind.U32),
        ("retry", Kind.U32), ("expire", Kind.U32), ("minimum", Kind.U32),
    )),
    "MX": Layout("mx", (("preference", Kind.U16), ("exchange", Kind.NAME))),
    "SRV": Layout("srv", (
        ("priority", Kind.U16), ("weight", Kind.U16), ("port", Kind.U16), ("target", Kind.NAME),
    )),
    "HINFO": Layout("hinfo", (("cpu", Kind.STRING), ("os", Kind.STRING))),
    "RP": Layout("rp", (("mbox", Kind.NAME), ("txt", Kind.NAME))),
    "NAPTR": Layout("naptr", (
        ("order", Kind.U16), ("preference", Kind.U16), ("flags", Kind.STRING),
        ("services", Kind.STRING), ("regexp", Kind.STRING), ("replacement", Kind.NAME),
    )),
    "DS": _DS, "CDS": _DS, "DLV": _DS,
    "DNSKEY": _DNSKEY, "CDNSKEY": _DNSKEY,
    "RRSIG": Layout("rrsig", (
        ("typeCovered", Kind.TYPE), ("algorithm", Kind.U8), ("labels", Kind.U8),
        ("originalTTL", Kind.U32), ("expiration", Kind.U32), ("inception", Kind.U32),
        ("keyTag", Kind.U16), ("signer", Kind.NAME), ("signature", Kind.REST_BASE64),
    )),
    "NSEC": Layout("nsec", (("next", Kind.NAME), ("types", Kind.TYPES))),
    "NSEC3": Layout("nsec3", (
        ("hashAlgorithm", Kind.U8), ("flags", Kind.U8), ("iterations", Kind.U16),
        ("salt", Kind.COUNTED_HEX), ("next", Kind.COUNTED_BASE32), ("types", Kind.TYPES),
    )),
    "NSEC3PARAM": Layout("nsec3param", (
        ("hashAlgorithm", Kind.U8), ("flags", Kind.U8), ("iterations", Kind.U16),
        ("salt", Kind.COUNTED_HEX),
    )),
    "SSHFP": Layout("sshfp", (
        ("algorithm", Kind.U8), ("type", Kind.U8), ("fingerprint", Kind.REST_HEX),
    )),
    "TLSA": _TLSA, "SMIMEA": _TLSA,
    "SVCB": _SVCB, "HTTPS": _SVCB,
    "URI": Layout("uri", (
        ("priority", Kind.U16), ("weight", Kind.U16), ("target", Kind.REST_TEXT),
    )),
    "CAA": Layout("caa", (("flags", Kind.U8), ("tag", Kind.STRING), ("value", Kind.REST_TEXT))),
}
# fmt: on
"""What is decoded. OPT is not here: its fields lie in the class and the TTL (records.py)."""


class Tables(NamedTuple):
    """LAYOUTS for the kernels."""

    layout_of_type: np.ndarray
    """int16, by type: a layout, or NO_LAYOUT; types above its length have none."""
    first_field: np.ndarray
    """int64: layout n has the fields first_field[n]:first_field[n + 1]."""
    is_object: np.ndarray
    """bool, by layout: it ends with a brace."""
    kinds: np.ndarray
    """int64, by field."""
    keys: np.ndarray
    """uint8: what stands before each field, `"soa":{"mname":`, one behind the other."""
    key_starts: np.ndarray
    """int64, by field, and one more."""


NO_LAYOUT = -1


def _tables() -> Tables:
    layouts = list(LAYOUTS.values())
    numbers = {number: name for name, number in NUMBER_OF_TYPE.items() if name in LAYOUTS}
    of_type = np.full(max(n for n in numbers if n < 1024) + 1, NO_LAYOUT, np.int16)
    for number, name in numbers.items():
        if number < len(of_type):
            of_type[number] = list(LAYOUTS).index(name)
    keys = []
    for layout in layouts:
        for row, (key, _) in enumerate(layout.fields):
            opening = f'"{layout.object}":{{' if layout.object and row == 0 else ""
            comma = "," if row > 0 else ""
            keys.append(f'{comma}{opening}"{key}":')
    return Tables(
        of_type,
        np.concatenate([[0], np.cumsum([len(layout.fields) for layout in layouts])]),
        np.array([bool(layout.object) for layout in layouts]),
        np.array([kind for layout in layouts for _, kind in layout.fields], np.int64),
        np.frombuffer("".join(keys).encode("ascii"), np.uint8),
        np.concatenate([[0], np.cumsum([len(key) for key in keys])]),
    )


TABLES = _tables()

# Numba takes the members of an IntEnum as enums, not as numbers.
U8, U16, U32, IPV4, IPV6, NAME, STRING, STRINGS = (int(kind) for kind in list(Kind)[:8])
REST_TEXT, REST_HEX, REST_BASE64, COUNTED_HEX = (int(kind) for kind in list(Kind)[8:12])
COUNTED_BASE32, TYPE, TYPE_BITMAP, PARAMETERS = (int(kind) for kind in list(Kind)[12:])

KEY_MANDATORY, KEY_ALPN, KEY_PORT, KEY_IPV4_HINT, KEY_ECH, KEY_IPV6_HINT = 0, 1, 3, 4, 5, 6

UNKNOWN_DATA = np.frombuffer(b'"data":"\\\\# ', np.uint8)
SPACE = ord(" ")
DOES_NOT_FIT = -1


class Written(NamedTuple):
    """Position after what was read, or DOES_NOT_FIT, and position after what was written."""

    position: int
    at: int


@kernel
def put_quoted_word(table, number, text, at):
    """Write the name of a number as a string."""
    return put_octet(text, put_word(table, number, text, put_octet(text, at, QUOTE)), QUOTE)


@kernel
def put_strings(octets, position, end, text, at):
    """Write a list of strings, each with an octet of length before it."""
    at = put_octet(text, at, OPEN_LIST)
    while position < end:
        string_end = position + 1 + read_u8(octets, position)
        if string_end > end:
            return Written(DOES_NOT_FIT, at)
        at = put_text(octets, position + 1, string_end, text, at)
        at = put_octet(text, at, COMMA)
        position = string_end
    return Written(position, put_octet(text, without_comma(text, at), CLOSE_LIST))


@kernel
def put_types(octets, position, end, text, at):
    """Write a list of the types in a bitmap of windows (RFC 4034, section 4.1.2)."""
    at = put_octet(text, at, OPEN_LIST)
    count = 0
    last_window = -1
    while position < end:
        if position + 2 > end:
            return Written(DOES_NOT_FIT, at)
        window, size = read_u8(octets, position), read_u8(octets, position + 1)
        position += 2
        if window <= last_window or size > 32 or position + size > end:
            return Written(DOES_NOT_FIT, at)
        last_window = window
        for bit in range(8 * size):
            if read_u8(octets, position + bit // 8) & 0x80 >> bit % 8:
                if count == MOST_LISTED_TYPES:
                    return Written(DOES_NOT_FIT, at)
                at = put_quoted_word(TYPE_WORDS, 256 * window + bit, text, at)
                at = put_octet(text, at, COMMA)
                count += 1
        position += size
    return Written(position, put_octet(text, without_comma(text, at), CLOSE_LIST))


@kernel
def put_list(octets, key, position, end, text, at):
    """Write the value of ipv4hint, ipv6hint or mandatory, a list of values of one size."""
    size = 4 if key == KEY_IPV4_HINT else 16 if key == KEY_IPV6_HINT else 2
    if (end - position) % size != 0:
        return Written(DOES_NOT_FIT, at)
    at = put_octet(text, at, OPEN_LIST)
    for value in range(position, end, size):
        if size == 4:
            at = put_ipv4(octets, value, text, at)
        elif size == 16:
            at = put_ipv6(octets, value, text, at)
        else:
            at = put_quoted_word(SERVICE_KEY_WORDS, read_u16(octets, value), text, at)
        at = put_octet(text, at, COMMA)
    return Written(end, put_octet(text, without_comma(text, at), CLOSE_LIST))


@kernel
def put_parameter(octets, key, position, end, text, at):
    """Write the value of one parameter of SVCB (RFC 9460, section 7)."""
    if key == KEY_ALPN:
        return put_strings(octets, position, end, text, at)
    if key in (KEY_IPV4_HINT, KEY_IPV6_HINT, KEY_MANDATORY):
        return put_list(octets, key, position, end, text, at)
    if key == KEY_PORT:
        if end - position != 2:
            return Written(DOES_NOT_FIT, at)
        return Written(end, put_decimal(text, at, read_u16(octets, position)))
    if key == KEY_ECH:
        return Written(end, put_base64(octets, position, end, text, at))
    return Written(end, put_text(octets, position, end, text, at))


@kernel
def put_parameters(octets, position, end, text, at):
    """Write an object of the parameters; their keys must rise (RFC 9460, section 2.2)."""
    at = put_octet(text, at, ord("{"))
    last_key = -1
    while position < end:
        if position + 4 > end:
            return Written(DOES_NOT_FIT, at)
        key = read_u16(octets, position)
        value_end = position + 4 + read_u16(octets, position + 2)
        if key <= last_key or value_end > end:
            return Written(DOES_NOT_FIT, at)
        at = put_octet(text, put_quoted_word(SERVICE_KEY_WORDS, key, text, at), COLON)
        value = put_parameter(octets, key, position + 4, value_end, text, at)
        if value.position != value_end:
            return Written(DOES_NOT_FIT, at)
        at = put_octet(text, value.at, COMMA)
        last_key = key
        position = value_end
    return Written(position, put_octet(text, without_comma(text, at), CLOSE_OBJECT))


@kernel
def put_fixed(octets, position, end, kind, text, at):
    """Write a field whose size its kind tells."""
    size = 1 if kind == U8 else 2 if kind in (U16, TYPE) else 16 if kind == IPV6 else 4
    if position + size > end:
        return Written(DOES_NOT_FIT, at)
    if kind == IPV4:
        at = put_ipv4(octets, position, text, at)
    elif kind == IPV6:
        at = put_ipv6(octets, position, text, at)
    elif kind == TYPE:
        at = put_quoted_word(TYPE_WORDS, read_u16(octets, position), text, at)
    else:
        number = read_u8(octets, position)
        if kind != U8:
            number = read_u16(octets, position) if kind == U16 else read_u32(octets, position)
        at = put_decimal(text, at, number)
    return Written(position + size, at)


@kernel
def put_counted(octets, position, end, kind, text, at):
    """Write a field that begins with an octet of length."""
    if position >= end:
        return Written(DOES_NOT_FIT, at)
    value_end = position + 1 + read_u8(octets, position)
    if value_end > end:
        return Written(DOES_NOT_FIT, at)
    if kind == STRING:
        at = put_text(octets, position + 1, value_end, text, at)
    elif kind == COUNTED_BASE32:
        at = put_base32(octets, position + 1, value_end, text, at)
    else:
        at = put_hex(octets, position + 1, value_end, text, put_octet(text, at, QUOTE))
        at = put_octet(text, at, QUOTE)
    return Written(value_end, at)


@kernel
def put_rest(octets, position, end, kind, text, at):
    """Write a field that takes all that is left."""
    if kind == STRINGS:
        return put_strings(octets, position, end, text, at)
    if kind == TYPE_BITMAP:
        return put_types(octets, position, end, text, at)
    if kind == PARAMETERS:
        return put_parameters(octets, position, end, text, at)
    if kind == REST_BASE64:
        return Written(end, put_base64(octets, position, end, text, at))
    if kind == REST_TEXT:
        return Written(end, put_text(octets, position, end, text, at))
    at = put_hex(octets, position, end, text, put_octet(text, at, QUOTE))
    return Written(end, put_octet(text, at, QUOTE))


@kernel
def put_field(octets, message, position, end, kind, text, at):
    """Write one field, whatever its kind."""
    if kind == NAME:
        after = name_end(octets, message, position, end)
        if after < 0:
            return Written(DOES_NOT_FIT, at)
        return Written(after, put_name(octets, message, position, text, at))
    if kind <= IPV6 or kind == TYPE:
        return put_fixed(octets, position, end, kind, text, at)
    if kind in (STRING, COUNTED_HEX, COUNTED_BASE32):
        return put_counted(octets, position, end, kind, text, at)
    return put_rest(octets, position, end, kind, text, at)


@kernel
def put_fields(octets, message, position, end, layout, text, at):
    """Write the fields of a layout; the data must end with the last of them."""
    first = TABLES.first_field[np.uint64(layout)]
    for field in range(first, TABLES.first_field[np.uint64(layout + 1)]):
        start = TABLES.key_starts[np.uint64(field)]
        length = TABLES.key_starts[np.uint64(field + 1)] - start
        copy_octets(TABLES.keys, start, length, text, at)
        value = put_field(
            octets, message, position, end, TABLES.kinds[np.uint64(field)], text, at + length
        )
        if value.position < 0:
            return value
        position, at = value.position, value.at
    if position != end:
        return Written(DOES_NOT_FIT, at)
    if TABLES.is_object[np.uint64(layout)]:
        at = put_octet(text, at, CLOSE_OBJECT)
    return Written(position, at)


@kernel
def put_unknown(octets, position, end, text, at):
    r"""Write `"data":"\\# 4 0a000001"`; without octets there is no space at the end."""
    at = put_decimal(text, put(UNKNOWN_DATA, text, at), end - position)
    if end > position:
        at = put_hex(octets, position, end, text, put_octet(text, at, SPACE))
    return put_octet(text, at, QUOTE)


@kernel
def put_data(octets, message, position, end, type_code, text, at):
    """Write the members for the data octets[position:end] of a record; return the position after.

    `text` has room for ROOM_FOR_DATA and ROOM_PER_OCTET for each octet of the data.
    """
    layout = NO_LAYOUT
    if type_code < len(TABLES.layout_of_type):
        layout = np.int64(TABLES.layout_of_type[np.uint64(type_code)])
    if layout != NO_LAYOUT and end > position:
        value = put_fields(octets, message, position, end, layout, text, at)
        if value.position == end:
            return value.at
    return put_unknown(octets, position, end, text, at)
