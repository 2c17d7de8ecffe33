# mypy: ignore-errors
"""Read the frame of DNS messages (RFC 1035, section 4): header, questions, where each record lies.

`octets` holds whole messages. A name in a message may end in a pointer to an earlier name; it is
followed only backwards, and MOST_POINTERS times, so no message can make a reader loop.
"""

from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel, read_u8, read_u16, read_u32

DECODED, NOT_DNS, MALFORMED = 0, 1, 2
"""All of it was read; shorter than a header; a name or a record leaves the message."""

HEADER_SIZE = 12
QUESTION_TAIL_SIZE = 4
"""Octets after the name: type and class."""
RECORD_TAIL_SIZE = 10
"""Octets after the name: type, class, TTL and the length of the data."""

LONGEST_NAME = 255
"""Octets of a name without compression, its root label too (RFC 1035, section 2.3.4)."""
POINTER = 0xC0
"""The two high bits of a label's first octet: 00 is a length, 11 a pointer."""
POINTER_OFFSET_MASK = 0x3FFF
MOST_POINTERS = 127
"""A name of 255 octets has at most 127 labels, so more pointers than that have no use."""
BAD_NAME = -1

TYPE_OPT = 41
TYPE_IXFR, TYPE_AXFR = 251, 252

HASH_START = np.uint64(0x243F6A8885A308D3)
HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
HASH_SHIFT = np.uint64(32)


class Question(NamedTuple):
    """The first question: where it ends (or BAD_NAME), its type, and a hash of all of it."""

    end: int
    type_code: int
    hash: int


class Record(NamedTuple):
    """Where a record lies: its data is octets[data:end]; `end` is BAD_NAME when it is malformed."""

    end: int
    data: int
    type_code: int
    class_code: int
    ttl: int


class Message(NamedTuple):
    """What the first pass tells about a message."""

    status: int
    id: int
    is_response: bool
    has_question: bool
    question_type: int
    question_hash: int
    read: int
    declared: int


@kernel
def name_end(octets, message, position, end):
    """Check the name at `position`; return the position after it, or BAD_NAME."""
    after = BAD_NAME  # known at the first pointer, or at the root label
    part_start = position  # a pointer must lead to before the part of the name that it ends
    pointers = 0
    size = 1  # without compression, with the root label
    while position < end:
        length = read_u8(octets, position)
        position += 1
        if length == 0:
            return position if after < 0 else after
        if length & POINTER == POINTER:
            if position == end:
                return BAD_NAME
            target = message + (read_u16(octets, position - 1) & POINTER_OFFSET_MASK)
            pointers += 1
            if target >= part_start or target < message + HEADER_SIZE or pointers > MOST_POINTERS:
                return BAD_NAME
            if after < 0:
                after = position + 1
            end = part_start  # what it leads to may not reach into the part that led there
            position = part_start = target
            continue
        size += 1 + length
        if length & POINTER or position + length > end or size > LONGEST_NAME:
            return BAD_NAME
        position += length
    return BAD_NAME


@kernel
def hash_octet(state, octet):
    """Mix an octet, or any number, into a hash."""
    return (state ^ np.uint64(octet)) * HASH_MULTIPLIER


@kernel
def lower(octet):
    """Return an ASCII letter in lower case: names are equal in any case (RFC 4343)."""
    return octet | 0x20 if 0x41 <= octet <= 0x5A else octet


@kernel
def hash_name(octets, message, position):
    """Return a hash of a name that name_end has accepted."""
    state = HASH_START
    while True:
        length = read_u8(octets, position)
        if length & POINTER == POINTER:
            position = message + (read_u16(octets, position) & POINTER_OFFSET_MASK)
            continue
        state = hash_octet(state, length)
        if length == 0:
            return state
        for index in range(position + 1, position + 1 + length):
            state = hash_octet(state, lower(read_u8(octets, index)))
        state ^= state >> HASH_SHIFT
        position += 1 + length


@kernel
def question_end(octets, message, position, end):
    """Return the position after the question at `position`, or BAD_NAME."""
    after = name_end(octets, message, position, end)
    if after < 0 or after + QUESTION_TAIL_SIZE > end:
        return BAD_NAME
    return after + QUESTION_TAIL_SIZE


@kernel
def questions_end(octets, message, end):
    """Return the position after all questions, or BAD_NAME."""
    position = message + HEADER_SIZE
    for _ in range(read_u16(octets, message + 4)):
        position = question_end(octets, message, position, end)
        if position < 0:
            return BAD_NAME
    return position


@kernel
def read_first_question(octets, message, position, end):
    """Read the question at `position`."""
    after = question_end(octets, message, position, end)
    if after < 0:
        return Question(BAD_NAME, 0, 0)
    type_and_class = read_u32(octets, after - QUESTION_TAIL_SIZE)
    state = hash_octet(hash_name(octets, message, position), type_and_class)
    return Question(after, type_and_class >> 16, np.int64(state >> np.uint64(1)))


@kernel
def read_record(octets, message, position, end):
    """Read all of a record but its name and its data."""
    after = name_end(octets, message, position, end)
    if after < 0 or after + RECORD_TAIL_SIZE > end:
        return Record(BAD_NAME, 0, 0, 0, 0)
    data = after + RECORD_TAIL_SIZE
    data_end = data + read_u16(octets, after + 8)
    if data_end > end:
        return Record(BAD_NAME, 0, 0, 0, 0)
    return Record(
        data_end,
        data,
        read_u16(octets, after),
        read_u16(octets, after + 2),
        read_u32(octets, after + 4),
    )


@kernel
def count_records(octets, message, position, end, questions, records):
    """Walk over the questions and records at `position`; return (how many are whole, position)."""
    read = 0
    while read < questions + records:
        if read < questions:
            after = question_end(octets, message, position, end)
        else:
            after = read_record(octets, message, position, end).end
        if after < 0:
            break
        position = after
        read += 1
    return read, position


@kernel
def record_count(octets, message):
    """Return how many records the header promises in the three sections behind the questions."""
    return (
        read_u16(octets, message + 6)
        + read_u16(octets, message + 8)
        + read_u16(octets, message + 10)
    )


@kernel
def read_message(octets, message, end):
    """Read the header and the first question, and walk over the rest of octets[message:end]."""
    if message + HEADER_SIZE > end:
        return Message(NOT_DNS, 0, False, False, 0, 0, 0, 0)
    questions = read_u16(octets, message + 4)
    records = record_count(octets, message)
    position = message + HEADER_SIZE
    question = Question(position, 0, 0)
    read = 0
    if questions > 0:
        question = read_first_question(octets, message, position, end)
        read = 1 if question.end >= 0 else 0
    if question.end >= 0:
        more, position = count_records(
            octets, message, question.end, end, questions - read, records
        )
        read += more
    return Message(
        DECODED if read == questions + records else MALFORMED,
        read_u16(octets, message),
        read_u8(octets, message + 2) >= 0x80,
        questions > 0 and question.end >= 0,
        question.type_code,
        question.hash,
        read,
        questions + records,
    )


@kernel
def extended_rcode(octets, message, end):
    """Return the response code, with the upper eight bits of EDNS if it has them (RFC 6891)."""
    rcode = read_u8(octets, message + 3) & 0x0F
    position = message + HEADER_SIZE
    additionals = read_u16(octets, message + 10)
    if additionals == 0:
        return rcode
    questions = read_u16(octets, message + 4)
    others = record_count(octets, message) - additionals
    read, position = count_records(octets, message, position, end, questions, others)
    if read < questions + others:
        return rcode
    for _ in range(additionals):
        record = read_record(octets, message, position, end)
        if record.end < 0:
            return rcode
        if record.type_code == TYPE_OPT:
            return rcode | (record.ttl >> 24) << 4
        position = record.end
    return rcode
