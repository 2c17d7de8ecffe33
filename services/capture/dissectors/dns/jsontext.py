# mypy: ignore-errors
r"""Write pieces of JSON text into an array of octets: literals, numbers, names, addresses, text.

All of it is ASCII but the UTF-8 of TXT records. Octets that have no place in text are written in
presentation form, `\DDD` (RFC 1035, section 5.1), whose backslash JSON writes twice. Each kernel
gets `at`, where to write, and returns the position after what it wrote; strings bring their
quotation marks.
"""

import numpy as np

from services.capture.columns import utf8_size
from services.capture.dissectors.dns.message import POINTER, POINTER_OFFSET_MASK
from services.capture.kernel import copy_octets, kernel, read_u8, read_u16

MOST_PER_OCTET = 5
"""Octets of JSON that one octet of a name or a text can become: two backslashes, three digits."""

QUOTE, BACKSLASH, COMMA, DOT, COLON, DIGIT_ZERO, LETTER_A = map(ord, '"\\,.:0a')
CLOSE_LIST, CLOSE_OBJECT, OPEN_LIST = map(ord, "]}[")

BASE64 = np.frombuffer(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=", np.uint8
)
BASE32_HEX = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", np.uint8)
BASE64_PADDING = 64

PLAIN, ESCAPED, DECIMAL = 0, 1, 2


def _how_to_write(special: bytes) -> np.ndarray:
    r"""Say of each octet whether it is written as it is, behind a backslash, or as `\DDD`."""
    how = np.full(256, DECIMAL, np.uint8)
    how[0x21:0x7F] = PLAIN
    how[list(special)] = ESCAPED
    return how


IN_NAME = _how_to_write(b'"();\\@$.')
IN_TEXT = _how_to_write(b"\\")
IN_TEXT[[0x20, QUOTE]] = PLAIN


@kernel
def put_octet(text, at, octet):
    """Write one octet."""
    text[np.uint64(at)] = octet
    return at + 1


@kernel
def without_comma(text, at):
    """Take back the comma behind the last item of a list.

    A comma after each item and one taken back make smaller code than a comma before each item but
    the first: the compiler would make two copies of all that a loop does.
    """
    return at - 1 if text[np.uint64(at - 1)] == COMMA else at


@kernel
def put(literal, text, at):
    """Write a constant array of octets."""
    copy_octets(literal, 0, len(literal), text, at)
    return at + len(literal)


@kernel
def put_word(words, number, text, at):
    """Write the name of a number, or its prefix and the number (TYPE65280)."""
    row = number if number < words.prefix else words.prefix
    if words.starts[np.uint64(row)] == words.starts[np.uint64(row + 1)]:
        row = words.prefix
    start = words.starts[np.uint64(row)]
    length = words.starts[np.uint64(row + 1)] - start
    copy_octets(words.octets, start, length, text, at)
    at += length
    if row == words.prefix:
        at = put_decimal(text, at, number)
    return at


@kernel
def put_decimal(text, at, number):
    """Write a number that is not negative."""
    divisor = 1
    while number // divisor >= 10:
        divisor *= 10
    while divisor > 0:
        at = put_octet(text, at, DIGIT_ZERO + number // divisor % 10)
        divisor //= 10
    return at


@kernel
def put_escaped(how, octet, text, at):
    """Write one octet inside a string, as `how` (IN_NAME or IN_TEXT) says."""
    manner = how[np.uint64(octet)]
    if manner == PLAIN:
        if octet == QUOTE:
            at = put_octet(text, at, BACKSLASH)
        return put_octet(text, at, octet)
    at = put_octet(text, put_octet(text, at, BACKSLASH), BACKSLASH)
    if manner == ESCAPED:
        if octet in (QUOTE, BACKSLASH):
            at = put_octet(text, at, BACKSLASH)
        return put_octet(text, at, octet)
    at = put_octet(text, at, DIGIT_ZERO + octet // 100)
    at = put_octet(text, at, DIGIT_ZERO + octet // 10 % 10)
    return put_octet(text, at, DIGIT_ZERO + octet % 10)


@kernel
def put_name(octets, message, position, text, at):
    """Write a name that message.name_end has accepted: `"www.example.com"`, `"."` for the root."""
    at = put_octet(text, at, QUOTE)
    start = at
    while True:
        length = read_u8(octets, position)
        if length & POINTER == POINTER:
            position = message + (read_u16(octets, position) & POINTER_OFFSET_MASK)
            continue
        if length == 0:
            break
        for index in range(position + 1, position + 1 + length):
            at = put_escaped(IN_NAME, read_u8(octets, index), text, at)
        at = put_octet(text, at, DOT)
        position += 1 + length
    # The dot behind the last label is left out, but for the root, which is nothing else.
    at = at - 1 if at > start else put_octet(text, at, DOT)
    return put_octet(text, at, QUOTE)


@kernel
def put_text(octets, position, end, text, at):
    r"""Write octets as text: UTF-8 as it is, what is not UTF-8 and controls as `\DDD`."""
    at = put_octet(text, at, QUOTE)
    while position < end:
        octet = read_u8(octets, position)
        size = 1 if octet < 0x80 else utf8_size(octets, position, end)
        if octet < 0x80 or size == 0:
            at = put_escaped(IN_TEXT, octet, text, at)
            position += 1
            continue
        for index in range(position, position + size):
            at = put_octet(text, at, read_u8(octets, index))
        position += size
    return put_octet(text, at, QUOTE)


@kernel
def put_hex_digit(text, at, digit):
    """Write a digit below 16."""
    return put_octet(text, at, DIGIT_ZERO + digit if digit < 10 else LETTER_A + digit - 10)


@kernel
def put_hex(octets, position, end, text, at):
    """Write two digits for each octet, without quotation marks."""
    for index in range(position, end):
        octet = read_u8(octets, index)
        at = put_hex_digit(text, put_hex_digit(text, at, octet >> 4), octet & 0x0F)
    return at


@kernel
def put_base64(octets, position, end, text, at):
    """Write base64 with its padding (RFC 4648, section 4)."""
    at = put_octet(text, at, QUOTE)
    while position < end:
        size = min(end - position, 3)
        bits = read_u8(octets, position) << 16
        if size > 1:
            bits |= read_u8(octets, position + 1) << 8
        if size > 2:
            bits |= read_u8(octets, position + 2)
        for index in range(4):
            digit = bits >> 18 - 6 * index & 0x3F if index <= size else BASE64_PADDING
            at = put_octet(text, at, BASE64[np.uint64(digit)])
        position += size
    return put_octet(text, at, QUOTE)


@kernel
def put_base32(octets, position, end, text, at):
    """Write base32 with the extended hex alphabet, without padding (RFC 5155, section 3.3)."""
    at = put_octet(text, at, QUOTE)
    bits = count = 0
    for index in range(position, end):
        bits = (bits << 8 | read_u8(octets, index)) & 0xFFFF
        count += 8
        while count >= 5:
            count -= 5
            at = put_octet(text, at, BASE32_HEX[np.uint64(bits >> count & 0x1F)])
    if count > 0:
        at = put_octet(text, at, BASE32_HEX[np.uint64(bits << 5 - count & 0x1F)])
    return put_octet(text, at, QUOTE)


@kernel
def put_ipv4(octets, position, text, at):
    """Write `"10.0.0.1"`."""
    at = put_octet(text, at, QUOTE)
    for index in range(4):
        at = put_decimal(text, at, read_u8(octets, position + index))
        at = put_octet(text, at, DOT)
    return put_octet(text, at - 1, QUOTE)


@kernel
def longest_zero_run(octets, position):
    """Return (first, end) of the longest run of two or more zero groups, or (8, 8) (RFC 5952)."""
    best, best_end, group = 8, 8, 0
    while group < 8:
        run = group
        while run < 8 and read_u16(octets, position + 2 * run) == 0:
            run += 1
        if run - group >= 2 and run - group > best_end - best:
            best, best_end = group, run
        group = run + 1
    return best, best_end


@kernel
def put_group(text, at, group):
    """Write 16 bits of an IPv6 address without leading zeros."""
    shift = 12
    while shift > 0 and group >> shift == 0:
        shift -= 4
    while shift >= 0:
        at = put_hex_digit(text, at, group >> shift & 0x0F)
        shift -= 4
    return at


@kernel
def put_ipv6(octets, position, text, at):
    """Write `"2001:db8::1"` (RFC 5952)."""
    at = put_octet(text, at, QUOTE)
    zeros, zeros_end = longest_zero_run(octets, position)
    group = 0
    while group < 8:
        if group == zeros:
            at = put_octet(text, put_octet(text, at, COLON), COLON)
            group = zeros_end
            continue
        if group > 0 and group != zeros_end:
            at = put_octet(text, at, COLON)
        at = put_group(text, at, read_u16(octets, position + 2 * group))
        group += 1
    return put_octet(text, at, QUOTE)
