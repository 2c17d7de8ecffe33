# mypy: ignore-errors
"""Header blocks (HPACK, RFC 7541), also where a capture begins in the middle of a connection.

A field that lies in a part of the table that was not seen is shown as unknown: entries are
counted from the newest, so that those that were added since are found at their places.

A list of fields is kept as octets: of each, the lengths of name and value in 4 octets, and both.
"""

import functools

import numpy as np

from services.capture.dissectors.http2.rows import (
    ENTRY_SIZE,
    GRPC_TYPE,
    LARGE_ENTRIES,
    MOST_TABLE,
    NO_TYPE,
    NOBODY,
    OTHER_TYPE,
    SMALL_ENTRIES,
    SMALL_TABLE,
)
from services.capture.dissectors.http2.static import STATIC_ENTRIES
from services.capture.kernel import cold_kernel, copy_octets, kernel, read_u8, read_u32

MOST_DIGITS = 5  # octets of a number, so that it stays below 2^35
LENGTHS = 8  # octets before a field in a list
MOST_KNOWN = 4096  # texts whose decoding is remembered
LONGEST_KNOWN = 256  # octets of such a text
INDEXED, ADDED, TABLE_SIZE = 0x80, 0x40, 0x20  # what a field begins with, by its highest bit
BAD = -1
NOT_KEPT = -1
COMPLETE, EMITS, FAILS = 1, 2, 4  # hpack's flags

UNKNOWN = "<unknown>"
UNKNOWN_OCTETS = tuple(UNKNOWN.encode())
UNKNOWN_SIZE = len(UNKNOWN_OCTETS)
METHOD, PATH, AUTHORITY, STATUS, CONTENT_TYPE, GRPC_STATUS = (
    tuple(name.encode())
    for name in (":method", ":path", ":authority", ":status", "content-type", "grpc-status")
)
GRPC, GRPC_WEB = tuple(b"application/grpc"), tuple(b"application/grpc-web")
FIRST_VISIBLE, LAST_VISIBLE = ord("!"), ord("~")  # octets of names
ZERO, ONE, NINE, COLON, LESS = (ord(each) for each in "019:<")
OWN = COLON, LESS  # how fields of HTTP itself begin, and unknown ones

Pair = tuple[str, str]


@kernel
def is_text(octets, at, length, text):
    """Whether octets[at:][:length] are `text`, a tuple of octets."""
    if length != len(text):
        return False
    index = 0
    while index < len(text) and read_u8(octets, at + index) == text[index]:
        index += 1
    return index == len(text)


@kernel
def begins_in_any_case(octets, at, length, text):
    """Whether octets[at:][:length] begin with `text`, a tuple of octets in lower case."""
    if length < len(text):
        return False
    for index in range(len(text)):
        octet = read_u8(octets, at + index)
        if (octet | 0x20 if 0x41 <= octet <= 0x5A else octet) != text[index]:
            return False
    return True


# ----------------------------------------------------------------------------------- the table


@kernel
def octets_place(f, table):
    """Return (position of a table's ring of octets, its length)."""
    number = table.large
    if number >= 0:
        smalls = len(f.tables) * SMALL_TABLE
        return smalls + np.int64(number) * MOST_TABLE, np.int64(MOST_TABLE)
    return np.int64(table.slot) * SMALL_TABLE, np.int64(SMALL_TABLE)


@kernel
def entry_row(f, table, number):
    """Return the row of an entry by its running number."""
    if table.large >= 0:
        smalls = len(f.tables) * SMALL_ENTRIES
        row = smalls + np.int64(table.large) * LARGE_ENTRIES + number % LARGE_ENTRIES
    else:
        row = np.int64(table.slot) * SMALL_ENTRIES + number % SMALL_ENTRIES
    return f.entries[np.uint64(row)]


@kernel
def read_ring(f, table, at, length, out, place):
    """Copy octets of a table that begin at a running position."""
    base, size = octets_place(f, table)
    at = at % size
    first = min(length, size - at)
    copy_octets(f.table_octets, base + at, first, out, place)
    copy_octets(f.table_octets, base, length - first, out, place + first)


@kernel
def write_ring(f, table, octets, position, length):
    """Copy octets behind the newest ones of a table."""
    base, size = octets_place(f, table)
    at = table.write % size
    first = min(length, size - at)
    copy_octets(octets, position, first, f.table_octets, base + at)
    copy_octets(octets, position + first, length - first, f.table_octets, base)
    table.write += length


@kernel
def evict(f, table, room):
    """Forget the oldest entries until the others fit."""
    while table.used > room and table.count > 0:
        entry = entry_row(f, table, table.newest - table.count + 1)
        table.used -= entry.name + entry.value + ENTRY_SIZE
        table.count -= 1


@kernel
def give_back(f, table):
    """A large table is free again."""
    if table.large >= 0:
        totals = f.totals[0]
        f.free_large[np.uint64(totals.free_large)] = table.large
        totals.free_large += 1
        table.large = NOBODY


@kernel
def clear(f, table, room):
    """Know nothing of a table but how large it may be."""
    give_back(f, table)
    table.used = table.count = 0
    table.write = table.newest = 0
    table.room = room


@cold_kernel
def grow(f, table):
    """Let a table have more than 4,096 octets, if there is one."""
    totals = f.totals[0]
    if totals.free_large == 0:
        return
    totals.free_large -= 1
    large = f.free_large[np.uint64(totals.free_large)]
    base = len(f.tables) * SMALL_TABLE + np.int64(large) * MOST_TABLE
    rows = len(f.tables) * SMALL_ENTRIES + np.int64(large) * LARGE_ENTRIES
    write = np.int64(0)
    for number in range(table.newest - table.count + 1, table.newest + 1):
        entry = entry_row(f, table, number)
        copied = f.entries[np.uint64(rows + number % LARGE_ENTRIES)]
        copied.at, copied.name, copied.value = NOT_KEPT, entry.name, entry.value
        if entry.at != NOT_KEPT:
            length = np.int64(entry.name + entry.value)
            read_ring(f, table, entry.at, length, f.table_octets, base + write)
            copied.at = write
            write += length
    table.large, table.write = large, write


@kernel
def add(f, table, octets, position, name, value, is_here):
    """Add an entry, whose name and value are octets[position:][:name + value]; if they are not
    here, it only takes its place.
    """
    size = name + value + ENTRY_SIZE
    if table.large < 0 and table.used + size > SMALL_TABLE and table.room > SMALL_TABLE:
        grow(f, table)
    room = min(np.int64(table.room), MOST_TABLE if table.large >= 0 else SMALL_TABLE)
    evict(f, table, room - size)
    if size > room:
        return
    table.newest += 1
    table.count += 1
    table.used += size
    entry = entry_row(f, table, table.newest)
    entry.at, entry.name, entry.value = NOT_KEPT, name, value
    if is_here:
        entry.at = table.write
        write_ring(f, table, octets, position, name + value)


@kernel
def put_unknown(f, place):
    """Write that a text is unknown to scratch[place:]; return its length."""
    for index in range(UNKNOWN_SIZE):
        f.scratch[np.uint64(place + index)] = UNKNOWN_OCTETS[index]
    return np.int64(UNKNOWN_SIZE)


@kernel
def put_entry(f, table, index, place, has_value, is_wanted):
    """Write an entry by its index to scratch[place:], if it is wanted; return the lengths of name
    and value.
    """
    older = index - STATIC_ENTRIES
    if older >= table.count:
        return put_unknown(f, place), put_unknown(f, place + UNKNOWN_SIZE) if has_value else 0
    is_static = older < 0
    if is_static:
        entry = f.static_entries[np.uint64(index)]
    else:
        entry = entry_row(f, table, table.newest - older)
    name, value = np.int64(entry.name), np.int64(entry.value) if has_value else np.int64(0)
    if not is_wanted:
        return name, value
    if is_static:
        copy_octets(f.static_octets, entry.at, name + value, f.scratch, place)
    elif entry.at == NOT_KEPT:
        return put_unknown(f, place), put_unknown(f, place + UNKNOWN_SIZE) if has_value else 0
    else:
        read_ring(f, table, entry.at, name + value, f.scratch, place)
    return name, value


# ---------------------------------------------------------------------------------- the octets


@kernel
def read_number(octets, at, end, mask):
    """Read a number that begins in the bits of `mask` (5.1); return it, and the position behind
    it, or BAD.
    """
    value = read_u8(octets, at) & mask
    at += 1
    if value < mask:
        return value, at
    for digit in range(MOST_DIGITS):
        if at >= end:
            return np.int64(0), np.int64(BAD)
        octet = read_u8(octets, at)
        at += 1
        value += (octet & 0x7F) << 7 * digit
        if octet < 0x80:
            return value, at
    return np.int64(0), np.int64(BAD)


@kernel
def decode_huffman(f, octets, at, end, place):
    """Write what octets[at:end] are the code of to scratch[place:]; return its length, or BAD."""
    begin = place
    state = flags = np.int64(0)
    while at < end:
        octet = read_u8(octets, at)
        at += 1
        for shift in (4, 0):
            row = 16 * state + (octet >> shift & 0xF)
            state = np.int64(f.huffman[np.uint64(row), 0])
            flags = np.int64(f.huffman[np.uint64(row), 1])
            if flags & EMITS:
                f.scratch[np.uint64(place)] = f.huffman[np.uint64(row), 2]
                place += 1
            elif flags & FAILS:
                return np.int64(BAD)
    return place - begin if flags & COMPLETE else np.int64(BAD)


@kernel
def put_string(f, octets, at, end, place):
    """Write a string to scratch[place:]; return its length, and the position behind it, or BAD."""
    if at >= end:
        return np.int64(0), np.int64(BAD)
    is_coded = read_u8(octets, at) & 0x80
    length, at = read_number(octets, at, end, 0x7F)
    if at == BAD or length > end - at:
        return np.int64(0), np.int64(BAD)
    behind = at + length
    if is_coded and length > 0:
        length = decode_huffman(f, octets, at, behind, place)
        if length == BAD:
            return np.int64(0), np.int64(BAD)
    else:
        copy_octets(octets, at, length, f.scratch, place)
    return length, behind


@kernel
def is_name(octets, at, length):
    """Whether all octets are visible ones of ASCII."""
    for index in range(at, at + length):
        if not FIRST_VISIBLE <= read_u8(octets, index) <= LAST_VISIBLE:
            return False
    return length > 0


@kernel
def put_literal(f, table, octets, at, end, mask, place, is_wanted):
    """Write a field that is not in the table; return the lengths of its name and value, and the
    position behind it, or BAD.
    """
    index, at = read_number(octets, at, end, mask)
    if at == BAD:
        return np.int64(0), np.int64(0), at
    if index > 0:
        name, _ = put_entry(f, table, index, place, False, is_wanted)
    else:
        name, at = put_string(f, octets, at, end, place)
        if at == BAD or not is_name(f.scratch, place, name):
            return np.int64(0), np.int64(0), np.int64(BAD)
    value, at = put_string(f, octets, at, end, place + name)
    return name, value, at


# ------------------------------------------------------------------------------ hot fields


@kernel
def begin_hot(row):
    """There are none of the hot fields."""
    row.method = row.path = row.authority = row.status = NOBODY
    row.method_at = row.path_at = row.authority_at = 0
    row.content = NO_TYPE
    row.lacks_names = 0


@kernel
def copy_hot(row, found):
    """Give a half what a block says."""
    row.method_at, row.method = found.method_at, found.method
    row.path_at, row.path = found.path_at, found.path
    row.authority_at, row.authority = found.authority_at, found.authority
    row.status, row.content, row.lacks_names = found.status, found.content, found.lacks_names


@kernel
def note_status(octets, at, length, found):
    """Take a :status; only three digits are a number."""
    if length > 0 and read_u8(octets, at) == ONE:
        found.interim = 1
    if found.says_status & 2:
        return
    found.says_status |= 2
    if length == 3:
        status = np.int64(0)
        for index in range(at, at + 3):
            octet = read_u8(octets, index)
            if not ZERO <= octet <= NINE:
                return
            status = 10 * status + octet - ZERO
        found.status = status


@kernel
def note(octets, place, name, value, found):
    """Remember a field if it is hot; octets[place:] are its name and value. Of several, the first
    is the one.
    """
    first = read_u8(octets, place)
    at = place + name
    if first == COLON:
        if is_text(octets, place, name, METHOD):
            if found.method == NOBODY:
                found.method_at, found.method = at, value
        elif is_text(octets, place, name, PATH):
            if found.path == NOBODY:
                found.path_at, found.path = at, value
        elif is_text(octets, place, name, STATUS):
            note_status(octets, at, value, found)
        elif is_text(octets, place, name, AUTHORITY) and found.authority == NOBODY:
            found.authority_at, found.authority = at, value
    elif first == LESS:
        if is_text(octets, place, name, UNKNOWN_OCTETS):
            found.lacks_names = 1
    elif is_text(octets, place, name, CONTENT_TYPE):
        if found.content == NO_TYPE:
            is_grpc = begins_in_any_case(octets, at, value, GRPC)
            is_web = begins_in_any_case(octets, at, value, GRPC_WEB)
            found.content = GRPC_TYPE if is_grpc and not is_web else OTHER_TYPE
    elif is_text(octets, place, name, GRPC_STATUS):
        found.has_status = 1


@kernel
def note_own(octets, place, name, found):
    """Note which side would begin its fields with this one; those of HTTP itself are the first."""
    if is_text(octets, place, name, METHOD):
        found.says_method = 1
    elif is_text(octets, place, name, STATUS):
        found.says_status |= 1


@kernel
def put_lengths(octets, at, name, value):
    """Write what is before a field in a list."""
    for index in range(4):
        octets[np.uint64(at + index)] = name >> 8 * (3 - index) & 0xFF
        octets[np.uint64(at + 4 + index)] = value >> 8 * (3 - index) & 0xFF


@cold_kernel
def read_block(f, row, octets, at, end, most):
    """Read a whole block of the direction `row`, and list fields of so many octets. What it says is
    then in `scratch` and `found`. Return False where it is none.

    A field can name a long entry in an octet or two, so when the list is full, entries are not
    copied any more: to know their lengths is enough, and what is added is unknown.
    """
    table = f.tables[np.uint64(row)]
    found = f.found[0]
    found.used = found.count = 0
    found.has_status = found.interim = found.first_is_own = 0
    found.says_method = found.says_status = 0
    begin_hot(found)
    listed = np.int64(0)
    is_leading = True
    while at < end:
        first = read_u8(octets, at)
        place = found.used + LENGTHS
        is_wanted = listed <= most
        if first & INDEXED:
            index, at = read_number(octets, at, end, 0x7F)
            if at == BAD or index == 0:
                return False
            name, value = put_entry(f, table, index, place, True, is_wanted)
        elif first & TABLE_SIZE and not first & ADDED:
            size, at = read_number(octets, at, end, 0x1F)
            if at == BAD:
                return False
            table.room = min(size, MOST_TABLE)
            evict(f, table, np.int64(table.room))
            continue
        else:
            mask = 0x3F if first & ADDED else 0x0F
            name, value, at = put_literal(f, table, octets, at, end, mask, place, is_wanted)
            if at == BAD:
                return False
            if first & ADDED:
                add(f, table, f.scratch, place, name, value, is_wanted)
        listed += name + value + ENTRY_SIZE
        if listed > most:
            continue
        octet = read_u8(f.scratch, place)
        if is_leading:
            is_leading = octet in OWN
            note_own(f.scratch, place, name, found)
            found.first_is_own |= found.count == 0 and octet == COLON
        put_lengths(f.scratch, found.used, name, value)
        note(f.scratch, place, name, value, found)
        found.used += LENGTHS + name + value
        found.count += 1
    return True


@kernel
def find_value(octets, at, end, name, span):
    """Write the span of the first value of field `name` (uint8, lower case) in a list of fields;
    return how many there are.
    """
    count = 0
    while at + LENGTHS <= end:
        length, value = read_u32(octets, at), read_u32(octets, at + 4)
        at += LENGTHS
        if length == len(name):
            index = np.int64(0)
            while index < length:
                octet = read_u8(octets, at + index)
                if (octet | 0x20 if 0x41 <= octet <= 0x5A else octet) != name[np.uint64(index)]:
                    break
                index += 1
            if index == length:
                if count == 0:
                    span.position, span.length = at + length, value
                count += 1
        at += length + value
    return count


@kernel
def find_values(octets, lists, name, spans, counts):
    """Write spans[i], and how many there are, of each of `lists`, spans of lists of fields."""
    for row in range(len(lists)):
        whole = lists[np.uint64(row)]
        span = spans[np.uint64(row)]
        span.position, span.length = 0, NOBODY
        end = whole.position + max(np.int64(whole.length), 0)
        counts[np.uint64(row)] = find_value(octets, whole.position, end, name, span)


# ---------------------------------------------------------------------------------- for entries


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


_text_known = functools.lru_cache(MOST_KNOWN)(_text)


def pairs(octets: bytes) -> list[Pair]:
    """Return the names and values of a list of fields."""
    found = []
    at, end = 0, len(octets)
    while at < end:
        name = at + LENGTHS
        value = name + int.from_bytes(octets[at : at + 4], "big")
        at = value + int.from_bytes(octets[at + 4 : name], "big")
        of_value = _text_known if at - value <= LONGEST_KNOWN else _text
        of_name = _text_known if value - name <= LONGEST_KNOWN else _text
        found.append((of_name(octets[name:value]), of_value(octets[value:at])))
    return found
