# mypy: ignore-errors
"""Read the head of one HTTP/1 message: the start line, and the two fields that frame its body.

A reader gets (octets, position, end) and says in `outcome` whether it READ, wants more octets
(INCOMPLETE) or cannot be right (MALFORMED); the other fields are then 0.  Lines end in CR LF or, as
RFC 9112 section 2.2 allows, in LF alone.
"""

from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel, read_u8, read_u32

READ, INCOMPLETE, MALFORMED = 0, 1, 2

LONGEST_HEAD = 1 << 14  # octets; servers take 8 to 16 KiB (nginx 8, Apache 8, Node 16)
LONGEST_METHOD = 24
MOST_LENGTH_DIGITS = 15  # of Content-Length: a number that fits in 50 bits

CR, LF, SPACE, TAB, COLON, COMMA = 0x0D, 0x0A, 0x20, 0x09, 0x3A, 0x2C
DIGIT_ZERO, DIGIT_NINE = ord("0"), ord("9")

CONTENT_LENGTH = tuple(b"content-length")
TRANSFER_ENCODING = tuple(b"transfer-encoding")
CHUNKED = tuple(b"chunked")
VERSION = tuple(b"http/1.")
VERSION_SIZE = 8  # HTTP/1.1
STATUS_LINE_SIZE = 12  # HTTP/1.1 200

NO_LENGTH = -1
BAD_LENGTH = -2

SIGNATURE_SIZE = 4
RESPONSE_SIGNATURE = int.from_bytes(b"HTTP", "big")
# The methods of RFC 9110, PATCH, WebDAV's and UPnP's.  Not "PRI ": that is HTTP/2.
SIGNATURES = tuple(
    int.from_bytes(word, "big")
    for word in (
        b"HTTP",
        b"GET ",
        b"POST",
        b"PUT ",
        b"HEAD",
        b"DELE",
        b"PATC",
        b"OPTI",
        b"CONN",
        b"TRAC",
        b"PROP",
        b"MKCO",
        b"COPY",
        b"MOVE",
        b"LOCK",
        b"UNLO",
        b"REPO",
        b"SEAR",
        b"NOTI",
        b"SUBS",
        b"UNSU",
    )
)


class StartLine(NamedTuple):
    """A request line or a status line."""

    outcome: int
    is_response: bool
    status: int
    method: int  # uint64: the first eight octets, zeros behind
    target_offset: int  # from the line's first octet
    target_length: int
    end: int  # position after the line


class Fields(NamedTuple):
    """What the header fields say of the body."""

    outcome: int
    content_length: int  # or NO_LENGTH
    coded: bool  # there is a Transfer-Encoding
    chunked: bool  # and chunked is its last coding
    end: int  # position after the empty line


class Head(NamedTuple):
    """Both."""

    outcome: int
    is_response: bool
    status: int
    method: int
    target_offset: int
    target_length: int
    content_length: int
    coded: bool
    chunked: bool
    length: int  # octets, from the first to the empty line's last


@kernel
def begins_like_message(octets, position, end):
    """Whether the octets are, as far as they go, those of a method or of `HTTP`."""
    size = min(SIGNATURE_SIZE, end - position)
    begin = 0
    for index in range(size):
        begin = begin << 8 | read_u8(octets, position + index)
    for signature in SIGNATURES:
        if signature >> 8 * (SIGNATURE_SIZE - size) == begin:
            return True
    return False


@kernel
def find_head_end(octets, start, new, end):
    """Return the position after the first empty line, or -1.  octets[start:new] has none."""
    for position in range(max(start + 1, new), end):
        if read_u8(octets, position) == LF:
            before = read_u8(octets, position - 1)
            if before == LF:
                return position + 1
            if before == CR and position - 2 >= start and read_u8(octets, position - 2) == LF:
                return position + 1
    return -1


@kernel
def find(octets, position, end, wanted):
    """Return the position of the first octet that is `wanted`, or `end`."""
    while position < end and read_u8(octets, position) != wanted:
        position += 1
    return position


@kernel
def is_text(octets, position, text):
    """Whether the octets at `position`, in lower case, are `text`."""
    for index in range(len(text)):
        octet = read_u8(octets, position + index)
        if ord("A") <= octet <= ord("Z"):
            octet |= 0x20
        if octet != text[index]:
            return False
    return True


@kernel
def is_blank(octet):
    return octet == SPACE or octet == TAB


@kernel
def trim(octets, position, end):
    """Return (position, end) of a line's or value's octets without the white space around them."""
    while position < end and is_blank(read_u8(octets, position)):
        position += 1
    while position < end:
        octet = read_u8(octets, end - 1)
        if not is_blank(octet) and octet != CR:
            break
        end -= 1
    return position, end


@kernel
def no_start_line(outcome):
    return StartLine(outcome, False, 0, np.uint64(0), 0, 0, 0)


@kernel
def read_status_line(octets, position, line_end):
    if line_end - position < STATUS_LINE_SIZE or not is_text(octets, position, VERSION):
        return no_start_line(MALFORMED)
    status = 0
    for at in range(position + VERSION_SIZE + 1, position + STATUS_LINE_SIZE):
        octet = read_u8(octets, at)
        if not DIGIT_ZERO <= octet <= DIGIT_NINE:
            return no_start_line(MALFORMED)
        status = status * 10 + octet - DIGIT_ZERO
    if status < 100:
        return no_start_line(MALFORMED)
    return StartLine(READ, True, status, np.uint64(0), 0, 0, line_end + 1)


@kernel
def read_method(octets, position, end):
    """The method's first eight octets, big-endian, zeros behind."""
    method = np.uint64(0)
    for index in range(8):
        octet = read_u8(octets, position + index) if position + index < end else 0
        method = method << np.uint64(8) | np.uint64(octet)
    return method


@kernel
def read_request_line(octets, position, line_end):
    start, end = trim(octets, position, line_end)
    version = end - VERSION_SIZE
    method_end = find(octets, start, min(end, start + LONGEST_METHOD + 1), SPACE)
    target = method_end + 1
    if method_end - start > LONGEST_METHOD or target >= version or method_end == start:
        return no_start_line(MALFORMED)
    if not is_text(octets, version, VERSION) or read_u8(octets, version - 1) != SPACE:
        return no_start_line(MALFORMED)
    method = read_method(octets, start, method_end)
    length = version - 1 - target
    return StartLine(READ, False, 0, method, target - position, length, line_end + 1)


@kernel
def read_start_line(octets, position, end):
    line_end = find(octets, position, end, LF)
    if line_end == end:
        return no_start_line(INCOMPLETE)
    if line_end - position >= SIGNATURE_SIZE and read_u32(octets, position) == RESPONSE_SIGNATURE:
        return read_status_line(octets, position, line_end)
    return read_request_line(octets, position, line_end)


@kernel
def read_content_length(octets, position, end):
    """Return the number, or BAD_LENGTH."""
    position, end = trim(octets, position, end)
    if position == end or end - position > MOST_LENGTH_DIGITS:
        return BAD_LENGTH
    length = 0
    for at in range(position, end):
        octet = read_u8(octets, at)
        if not DIGIT_ZERO <= octet <= DIGIT_NINE:
            return BAD_LENGTH
        length = length * 10 + octet - DIGIT_ZERO
    return length


@kernel
def ends_in_chunked(octets, position, end):
    """Whether `chunked` is the last coding of a Transfer-Encoding value."""
    position, end = trim(octets, position, end)
    start = end - len(CHUNKED)
    if start < position or not is_text(octets, start, CHUNKED):
        return False
    return (
        start == position
        or is_blank(read_u8(octets, start - 1))
        or (read_u8(octets, start - 1) == COMMA)
    )


@kernel
def no_fields(outcome):
    return Fields(outcome, 0, False, False, 0)


@kernel
def is_empty_line(octets, position, line_end):
    if position == line_end:
        return True
    return position + 1 == line_end and read_u8(octets, position) == CR


@kernel
def read_fields(octets, position, end):
    content_length, coded, chunked = NO_LENGTH, False, False
    while True:
        name_end = position
        while name_end < end and read_u8(octets, name_end) > COLON:  # letters, or not a name
            name_end += 1
        while name_end < end and read_u8(octets, name_end) != COLON:
            if read_u8(octets, name_end) == LF:
                break
            name_end += 1
        line_end = find(octets, name_end, end, LF)
        if line_end == end:
            return no_fields(INCOMPLETE)
        if is_empty_line(octets, position, line_end):
            return Fields(READ, content_length, coded, chunked, line_end + 1)
        name_length = name_end - position
        if name_length == len(CONTENT_LENGTH) and is_text(octets, position, CONTENT_LENGTH):
            length = read_content_length(octets, name_end + 1, line_end)
            if length == BAD_LENGTH or content_length not in (NO_LENGTH, length):
                return no_fields(MALFORMED)
            content_length = length
        elif name_length == len(TRANSFER_ENCODING) and is_text(octets, position, TRANSFER_ENCODING):
            coded, chunked = True, ends_in_chunked(octets, name_end + 1, line_end)
        position = line_end + 1


@kernel
def no_head(outcome):
    return Head(outcome, False, 0, np.uint64(0), 0, 0, 0, False, False, 0)


@kernel
def read_head(octets, position, end):
    line = read_start_line(octets, position, end)
    if line.outcome != READ:
        return no_head(line.outcome)
    fields = read_fields(octets, line.end, end)
    if fields.outcome != READ:
        return no_head(fields.outcome)
    return Head(
        READ,
        line.is_response,
        line.status,
        line.method,
        line.target_offset,
        line.target_length,
        fields.content_length,
        fields.coded,
        fields.chunked,
        fields.end - position,
    )
