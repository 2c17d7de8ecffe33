# mypy: ignore-errors
"""Write whole DNS messages as the JSON text of an entry's `request` and `response`.

    {"opCode": "QUERY", "questions": [{"name": "example.com", "type": "A", "class": "IN"}]}
    {"code": "NOERROR", "answers": [{"name": …, "type": "A", "class": "IN", "ttl": 300, "ip": …}],
     "authorities": [], "additionals": [{"name": ".", "type": "OPT", "opt": {"udpSize": 1232, …}}]}

The three lists are always there. In mDNS the highest bit of the class is a flag (RFC 6762, sections
5.4 and 10.2): it becomes `unicastResponse` or `cacheFlush`.
"""

import numpy as np
import pyarrow as pa

from services.capture.columns import validity
from services.capture.dissectors.dns.codes import CLASSES, OPCODES, RCODES, words
from services.capture.dissectors.dns.data import (
    ROOM_FOR_A_NAME,
    ROOM_FOR_DATA,
    ROOM_PER_OCTET,
    TYPE_WORDS,
    put_data,
)
from services.capture.dissectors.dns.jsontext import (
    COMMA,
    put,
    put_decimal,
    put_name,
    put_octet,
    put_word,
    without_comma,
)
from services.capture.dissectors.dns.message import (
    HEADER_SIZE,
    QUESTION_TAIL_SIZE,
    TYPE_OPT,
    extended_rcode,
    question_end,
    questions_end,
    read_record,
)
from services.capture.kernel import kernel, read_u8, read_u16

CLASS_WORDS = words(CLASSES, "CLASS")
OPCODE_WORDS = words(OPCODES, "OPCODE")
RCODE_WORDS = words(RCODES, "RCODE")

LONGEST_JSON = 1 << 20
"""Octets of JSON for one message. A record of 16 octets can become 4 KB of names, so without a
bound a message of 64 KB could become 16 MB; an honest zone transfer stays far below."""
ROOM_FOR_A_RECORD = ROOM_FOR_A_NAME + 256
"""Octets of JSON for a question, or for all of a record but its data, with a margin."""
ROOM_FOR_THE_END = 256
"""Octets for what closes a message: empty lists, `recordsTruncated`."""

TEXT_SIZE = 4 * LONGEST_JSON
"""Octets of the array into which messages are written before they become a column."""

SECTIONS = 3
"""Answers, authorities, additionals."""

MDNS_FLAG = 0x8000
EDNS_DO = 0x8000


def _octets(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("ascii"), np.uint8)


OPCODE = _octets('{"opCode":"')
QUESTIONS = _octets('","questions":[')
RCODE = _octets('{"code":"')
ANSWERS = _octets('","answers":[')
AUTHORITIES = _octets('],"authorities":[')
ADDITIONALS = _octets('],"additionals":[')
END = _octets("]}")
TRUNCATED_END = _octets('],"recordsTruncated":true}')
NEXT = _octets("},")
NAME = _octets('{"name":')
TYPE = _octets(',"type":"')
CLASS = _octets('","class":"')
END_OF_CLASS = _octets('"')
TTL = _octets(',"ttl":')
CACHE_FLUSH = _octets(',"cacheFlush":true')
UNICAST_RESPONSE = _octets(',"unicastResponse":true')
UDP_SIZE = _octets('","opt":{"udpSize":')
EXTENDED_RCODE = _octets(',"extendedRcode":')
VERSION = _octets(',"version":')
DO_TRUE = _octets(',"do":true}')
DO_FALSE = _octets(',"do":false}')


@kernel
def put_type_and_class(type_code, class_code, text, at):
    """Write both, and the quotation mark behind them; return also whether the mDNS flag is set."""
    at = put_word(TYPE_WORDS, type_code, text, put(TYPE, text, at))
    at = put(CLASS, text, at)
    known = class_code & ~MDNS_FLAG
    flag = class_code & MDNS_FLAG != 0 and (known == 1 or known == 3 or known == 4 or known == 255)
    at = put_word(CLASS_WORDS, known if flag else class_code, text, at)
    return put(END_OF_CLASS, text, at), flag


@kernel
def put_questions(octets, message, position, end, count, text, at):
    """Write the questions that are whole; return (at, whether there was no more room)."""
    limit = at + LONGEST_JSON - ROOM_FOR_THE_END
    for _ in range(count):
        after = question_end(octets, message, position, end)
        if after < 0 or at + ROOM_FOR_A_RECORD > limit:
            return without_comma(text, at), after >= 0
        at = put_name(octets, message, position, text, put(NAME, text, at))
        tail = after - QUESTION_TAIL_SIZE
        at, flag = put_type_and_class(read_u16(octets, tail), read_u16(octets, tail + 2), text, at)
        at = put(UNICAST_RESPONSE, text, at) if flag else at
        at = put(NEXT, text, at)
        position = after
    return without_comma(text, at), False


@kernel
def put_request(octets, message, end, text, at):
    """Write `request` for a message with a whole header."""
    at = put(OPCODE, text, at)
    at = put_word(OPCODE_WORDS, read_u8(octets, message + 2) >> 3 & 0x0F, text, at)
    at = put(QUESTIONS, text, at)
    count = read_u16(octets, message + 4)
    at, too_long = put_questions(octets, message, message + HEADER_SIZE, end, count, text, at)
    return put(TRUNCATED_END, text, at) if too_long else put(END, text, at)


@kernel
def put_opt(record, text, at):
    """Write what an OPT record holds in its class and its TTL (RFC 6891, section 6.1.2)."""
    at = put_word(TYPE_WORDS, TYPE_OPT, text, put(TYPE, text, at))
    at = put_decimal(text, put(UDP_SIZE, text, at), record.class_code)
    at = put_decimal(text, put(EXTENDED_RCODE, text, at), record.ttl >> 24)
    at = put_decimal(text, put(VERSION, text, at), record.ttl >> 16 & 0xFF)
    return put(DO_TRUE, text, at) if record.ttl & EDNS_DO else put(DO_FALSE, text, at)


@kernel
def put_record(octets, message, position, record, text, at):
    """Write the object of a record whose name is at `position`, and a comma."""
    at = put_name(octets, message, position, text, put(NAME, text, at))
    if record.type_code == TYPE_OPT:
        return put(NEXT, text, put_opt(record, text, at))
    at, flag = put_type_and_class(record.type_code, record.class_code, text, at)
    at = put(CACHE_FLUSH, text, at) if flag else at
    at = put_decimal(text, put(TTL, text, at), record.ttl)
    at = put_octet(text, at, COMMA)
    at = put_data(octets, message, record.data, record.end, record.type_code, text, at)
    return put(NEXT, text, at)


@kernel
def put_heading(section, text, at):
    """Close the list before a section, and open that of the section."""
    at = without_comma(text, at)
    if section == 1:
        return put(AUTHORITIES, text, at)
    if section == 2:
        return put(ADDITIONALS, text, at)
    return at


@kernel
def put_response(octets, message, end, text, at):
    """Write `response` for a message with a whole header."""
    limit = at + LONGEST_JSON - ROOM_FOR_THE_END
    at = put_word(RCODE_WORDS, extended_rcode(octets, message, end), text, put(RCODE, text, at))
    at = put(ANSWERS, text, at)
    position = questions_end(octets, message, end)
    too_long = False
    section, left = 0, read_u16(octets, message + 6)
    while section < SECTIONS:
        if left == 0 or position < 0 or too_long:
            section += 1
            at = put_heading(section, text, at)
            left = read_u16(octets, message + 6 + 2 * section) if section < SECTIONS else 0
            continue
        left -= 1
        record = read_record(octets, message, position, end)
        room = ROOM_FOR_A_RECORD + ROOM_FOR_DATA + ROOM_PER_OCTET * (record.end - record.data)
        if record.end >= 0 and at + room > limit:
            too_long = True
        elif record.end >= 0:
            at = put_record(octets, message, position, record, text, at)
        position = record.end
    return put(TRUNCATED_END, text, at) if too_long else put(END, text, at)


@kernel
def put_requests(octets, spans, first, text, offsets):
    """Write the messages octets[spans[i]] from `first` on into `text`, behind one another.

    A span without a value writes nothing. offsets[0 .. done] are filled. Return the number done:
    as many as there was sure to be room for, at least one if `text` has LONGEST_JSON octets.
    """
    at = np.int64(0)
    offsets[np.uint64(0)] = 0
    for row in range(first, len(spans)):
        if at + LONGEST_JSON > len(text):
            return row - first
        span = spans[np.uint64(row)]
        if span.length >= HEADER_SIZE:
            end = np.int64(span.position + span.length)
            at = put_request(octets, np.int64(span.position), end, text, at)
        offsets[np.uint64(row - first + 1)] = at
    return len(spans) - first


@kernel
def put_responses(octets, spans, first, text, offsets):
    """As put_requests, for responses."""
    at = np.int64(0)
    offsets[np.uint64(0)] = 0
    for row in range(first, len(spans)):
        if at + LONGEST_JSON > len(text):
            return row - first
        span = spans[np.uint64(row)]
        if span.length >= HEADER_SIZE:
            end = np.int64(span.position + span.length)
            at = put_response(octets, np.int64(span.position), end, text, at)
        offsets[np.uint64(row - first + 1)] = at
    return len(spans) - first


def json_column(octets: np.ndarray, spans: np.ndarray, responses: bool) -> pa.StringArray:
    """Return the JSON text of the messages at `spans` (SPAN), null where there is no message.

    octets: uint8. responses: whether to write `response`, or `request`.
    Raises IndexError when a span leaves `octets`.
    """
    spans = np.ascontiguousarray(spans)
    text = np.empty(TEXT_SIZE, np.uint8)
    write = put_responses if responses else put_requests
    pieces = []
    done = 0
    while done < len(spans) or not pieces:
        offsets = np.zeros(len(spans) - done + 1, np.int32)
        count = write(octets, spans, done, text, offsets)
        present = validity(spans["length"][done : done + count] >= 0)
        values = pa.py_buffer(text[: offsets[count]].copy())
        buffers = [present, pa.py_buffer(offsets[: count + 1]), values]
        pieces.append(pa.Array.from_buffers(pa.string(), count, buffers))
        done += count
    return pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
