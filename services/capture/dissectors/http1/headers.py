# mypy: ignore-errors
"""Find the fields of HTTP/1 heads: the start line, and one row for each header line (RFC 9112).

A head is a span that ends with its empty line. Nothing is copied: what is found are spans again.
"""

import numpy as np

from services.capture.columns import NO_VALUE, SPAN
from services.capture.kernel import kernel, read_u8

SPACE, TAB, COLON, QUESTION_MARK, CR, LF = map(ord, " \t:?\r\n")
UPPER_A, UPPER_Z, CASE_BIT = ord("A"), ord("Z"), 0x20

START_LINE = np.dtype(
    (
        np.record,
        [
            ("method", SPAN),  # of a request; for the other kind of message the length is NO_VALUE
            ("target", SPAN),  # the request target
            ("path", SPAN),  # up to its question mark
            ("reason", SPAN),  # of a response
            ("version", SPAN),  # HTTP/1.1
        ],
    )
)

HEADER = np.dtype(
    (
        np.record,
        [
            ("name", SPAN),
            ("value", SPAN),  # without the white space around it
            ("message", np.int64),  # row in the heads
        ],
    )
)


@kernel
def set_span(span, position, end):
    span.position = position
    span.length = end - position


@kernel
def find_octet(octets, position, end, octet):
    """Return the position of `octet`, or `end`."""
    while position < end and read_u8(octets, position) != octet:
        position += 1
    return position


@kernel
def line_end(octets, position, end):
    """Return the position of the CR LF or bare LF that ends the line at `position`, or `end`."""
    newline = find_octet(octets, position, end, LF)
    if newline > position and newline < end and read_u8(octets, newline - 1) == CR:
        return newline - 1
    return newline


@kernel
def next_line(octets, position, end):
    """Return the position after the line break at `position`."""
    if position < end and read_u8(octets, position) == CR:
        position += 1
    return min(position + 1, end)


@kernel
def is_blank(octet):
    return octet == SPACE or octet == TAB


@kernel
def lower(octet):
    return octet | CASE_BIT if UPPER_A <= octet <= UPPER_Z else octet


@kernel
def no_start_line(row):
    set_span(row.method, 0, NO_VALUE)
    set_span(row.target, 0, NO_VALUE)
    set_span(row.path, 0, NO_VALUE)
    set_span(row.reason, 0, NO_VALUE)
    set_span(row.version, 0, NO_VALUE)


@kernel
def read_request_line(octets, position, end, row):
    """Read `GET /path?query HTTP/1.1`; some clients forget to encode spaces in the target."""
    while end > position and is_blank(read_u8(octets, end - 1)):
        end -= 1
    version = end
    while version > position and read_u8(octets, version - 1) != SPACE:
        version -= 1
    method_end = find_octet(octets, position, version, SPACE)
    target = min(method_end + 1, version)
    target_end = max(target, version - 1)
    path_end = find_octet(octets, target, target_end, QUESTION_MARK)
    set_span(row.method, position, method_end)
    set_span(row.target, target, target_end)
    set_span(row.path, target, path_end)
    set_span(row.version, version, end)


@kernel
def read_status_line(octets, position, end, row):
    """Read `HTTP/1.1 404 Not Found`."""
    version_end = find_octet(octets, position, end, SPACE)
    status_end = find_octet(octets, min(version_end + 1, end), end, SPACE)
    set_span(row.version, position, version_end)
    set_span(row.reason, min(status_end + 1, end), end)


@kernel
def read_start_lines(octets, heads, are_responses, rows):
    """Fill rows[i] from heads[i]; a head whose length is NO_VALUE gives a row without values."""
    for index in range(len(heads)):
        head = heads[np.uint64(index)]
        row = rows[np.uint64(index)]
        no_start_line(row)
        if head.length <= 0:
            continue
        end = line_end(octets, head.position, head.position + head.length)
        if are_responses:
            read_status_line(octets, head.position, end, row)
        else:
            read_request_line(octets, head.position, end, row)


@kernel
def read_header(octets, position, end, header):
    """Fill `header` from the line octets[position:end]; return False when it has no colon."""
    colon = find_octet(octets, position, end, COLON)
    if colon == end:
        return False
    set_span(header.name, position, colon)
    value = colon + 1
    while value < end and is_blank(read_u8(octets, value)):
        value += 1
    while end > value and is_blank(read_u8(octets, end - 1)):
        end -= 1
    set_span(header.value, value, end)
    return True


@kernel
def index_headers(octets, heads, headers, offsets):
    """Fill a row of `headers` for each header line; those of heads[i] are offsets[i]:[i + 1].

    Return the number of rows, or -1 when `headers` is too short.
    """
    row = 0
    offsets[np.uint64(0)] = 0
    for index in range(len(heads)):
        head = heads[np.uint64(index)]
        end = head.position + max(head.length, 0)
        position = next_line(octets, line_end(octets, head.position, end), end)
        while position < end:
            last = line_end(octets, position, end)
            if last == position:
                break
            if row == len(headers):
                return -1
            header = headers[np.uint64(row)]
            header.message = index
            if read_header(octets, position, last, header):
                row += 1
            position = next_line(octets, last, end)
        offsets[np.uint64(index + 1)] = row
    return row


@kernel
def is_name(octets, span, name):
    """Whether the span holds `name`, which is in lower case, in any case."""
    if span.length != len(name):
        return False
    for index in range(len(name)):
        if lower(read_u8(octets, span.position + index)) != read_u8(name, index):
            return False
    return True


@kernel
def find_header(octets, headers, name, values, is_repeated):
    """Write the span of the first value of header `name` of each message into `values`.

    Set is_repeated[i] where message i has more than one.
    """
    for row in range(len(values)):
        set_span(values[np.uint64(row)], 0, NO_VALUE)
    for row in range(len(headers)):
        header = headers[np.uint64(row)]
        if is_name(octets, header.name, name):
            value = values[np.uint64(header.message)]
            if value.length == NO_VALUE:
                value.position = header.value.position
                value.length = header.value.length
            else:
                is_repeated[np.uint64(header.message)] = True


@kernel
def spans_equal(octets, spans, text, matches):
    """Set matches[i] to whether the value is exactly `text`."""
    for row in range(len(spans)):
        span = spans[np.uint64(row)]
        equal = span.length == len(text)
        index = 0
        while equal and index < len(text):
            equal = read_u8(octets, span.position + index) == read_u8(text, index)
            index += 1
        matches[np.uint64(row)] = equal


def new_start_lines(rows):
    return np.zeros(rows, START_LINE)


def new_headers(rows):
    return np.empty(rows, HEADER)
