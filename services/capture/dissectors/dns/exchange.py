# mypy: ignore-errors
"""Pair DNS responses with their queries: whole messages in, rows of calls out.

A response answers the oldest waiting query of its stream that came the other way, with its id and,
if the response repeats the question, with its question. So when a query was sent again, the call
lasts from the first copy to the first response, which is how long its sender waited; the other copy
is a call of its own, with the second response or with none. The messages of a zone transfer after
the first one are calls without a request (RFC 5936, section 2.2), and so is a response in multicast
DNS that nobody asked for (RFC 6762, section 8.3). A query sent to a multicast group is answered on
other five-tuples, so it does not wait.

Octets are copied twice at most: those of a query into a ring, where they wait, and those of the
messages of a finished call behind the others that are finished.
"""

from typing import NamedTuple

import numpy as np

from services.capture.columns import NO_VALUE, SPAN
from services.capture.dissectors.dns.message import (
    NOT_DNS,
    TYPE_AXFR,
    TYPE_IXFR,
    read_message,
)
from services.capture.kernel import copy_octets, kernel
from services.capture.pairing import (
    NO_REQUEST,
    Waiting,
    drop,
    find,
    find_next,
    is_full,
    is_here,
    new_waiting,
    oldest_request,
    put,
    row_of,
)

# What a call lacks, and why.
NOTHING, EXPIRED, STREAM_ENDED, CAPTURE_ENDED, CROWDED_OUT, NO_QUERY, COPY_ANSWERED = range(7)

MOST_COPIES = 64  # waiting copies of a query that hear of its answer: bounds the walk

# fmt: off
QUERY = np.dtype((np.record, [
    ("position", np.int64),       # running position in the ring of octets
    ("length", np.int64),
    ("question_hash", np.int64),
    ("question_type", np.int64),
    ("read", np.int64),           # questions and records that could be read
    ("declared", np.int64),       # those that the header promises
    ("has_question", np.uint8),
    ("copy_answered", np.uint8),  # a query like it, sent before, had its answer
    ("answered", np.uint8),       # stays for the responses to its copies, or of a transfer
]))

CALL = np.dtype((np.record, [
    ("stream", np.int64),
    ("start", np.int64),          # nanoseconds since 1970, of the first message there is
    ("end", np.int64),            # of the response, or of when it was given up
    ("request", SPAN),            # in Done.octets
    ("response", SPAN),
    ("request_read", np.int64),
    ("request_declared", np.int64),
    ("response_read", np.int64),
    ("response_declared", np.int64),
    ("direction", np.uint8),      # of the request
    ("lacks", np.uint8),
]))
# fmt: on


class Queries(NamedTuple):
    """Queries that wait, in the order in which they came."""

    waiting: Waiting
    rows: np.ndarray
    """QUERY, with the indices of the requests in `waiting`."""
    octets: np.ndarray
    """uint8: a ring of their messages, which never wrap."""
    written: np.ndarray
    """int64, one element: the running position of the next octet."""


class Done(NamedTuple):
    """Finished calls and their messages, both growing to the right."""

    calls: np.ndarray
    octets: np.ndarray
    used: np.ndarray
    """int64: calls, octets, and messages that were shorter than a header."""


class Arrival(NamedTuple):
    """A message of the wire: octets[position:][:length]."""

    octets: np.ndarray
    position: int
    length: int
    time: int
    stream: int
    direction: int


@kernel
def add_call(done, stream, direction, start, end, lacks):
    """Return a new call without messages."""
    call = done.calls[np.uint64(done.used[0])]
    done.used[0] += 1
    call.stream, call.start, call.end = stream, start, end
    call.direction, call.lacks = direction, lacks
    call.request.position = call.response.position = 0
    call.request.length = call.response.length = NO_VALUE
    call.request_read = call.request_declared = 0
    call.response_read = call.response_declared = 0
    return call


@kernel
def keep(done, octets, position, length, span):
    """Copy a message behind those of the finished calls, and let `span` say where it is."""
    at = done.used[1]
    copy_octets(octets, position, length, done.octets, at)
    done.used[1] = at + length
    span.position = at
    span.length = length


@kernel
def add_query(queries, done, number, call):
    """Give a call the query with this number."""
    query = queries.rows[row_of(queries.waiting, number)]
    position = query.position & (len(queries.octets) - 1)
    keep(done, queries.octets, position, query.length, call.request)
    call.request_read, call.request_declared = query.read, query.declared


@kernel
def give_up(queries, done, number, time, lacks):
    """Make a call without a response of a waiting query, unless it was answered; drop it."""
    if not queries.rows[row_of(queries.waiting, number)].answered:
        request = queries.waiting.requests[row_of(queries.waiting, number)]
        end = max(np.int64(request.time), time)
        if queries.rows[row_of(queries.waiting, number)].copy_answered:
            lacks = COPY_ANSWERED
        call = add_call(done, request.stream, request.key & 1, request.time, end, lacks)
        add_query(queries, done, number, call)
    drop(queries.waiting, number)


@kernel
def make_room(queries, done, length, time):
    """Return the position for `length` octets, after throwing out queries that are in the way."""
    size = len(queries.octets)
    position = queries.written[0]
    if (position & (size - 1)) + length > size:
        position += size - (position & (size - 1))  # a message does not wrap
    while True:
        oldest = oldest_request(queries.waiting)
        if oldest == NO_REQUEST:
            return position
        start = queries.rows[row_of(queries.waiting, oldest)].position
        if not is_full(queries.waiting) and position + length - start <= size:
            return position
        give_up(queries, done, oldest, time, CROWDED_OUT)


@kernel
def same_question(query, message):
    """Say whether a response may be that of the query; not every response repeats the question."""
    return not query.has_question or (
        not message.has_question or query.question_hash == message.question_hash
    )


@kernel
def take_query(queries, done, message, arrival):
    """Let a query wait."""
    key = message.id << 1 | arrival.direction
    length = arrival.length
    at = make_room(queries, done, length, arrival.time)
    number = put(queries.waiting, arrival.stream, key, arrival.time)
    query = queries.rows[row_of(queries.waiting, number)]
    query.position, query.length = at, length
    query.question_hash, query.question_type = message.question_hash, message.question_type
    query.read, query.declared = message.read, message.declared
    query.has_question = message.has_question
    query.copy_answered = query.answered = 0
    room = at & (len(queries.octets) - 1)
    copy_octets(arrival.octets, arrival.position, length, queries.octets, room)
    queries.written[0] = at + length


@kernel
def find_query(queries, message, stream, key):
    """Return (number of the query that waits for this response, number of one that had its own)."""
    answered = np.int64(NO_REQUEST)
    number = find(queries.waiting, stream, key)
    for _ in range(MOST_COPIES):
        if number == NO_REQUEST:
            break
        query = queries.rows[row_of(queries.waiting, number)]
        if same_question(query, message):
            if not query.answered:
                return number, answered
            if answered == NO_REQUEST:
                answered = number
        number = find_next(queries.waiting, number)
    return np.int64(NO_REQUEST), answered


@kernel
def is_transfer(query):
    """Say whether the query may have several responses."""
    return query.question_type in (TYPE_AXFR, TYPE_IXFR)


@kernel
def settle(queries, number):
    """Drop a query that has its response, unless there may be more to come; tell its copies."""
    query = queries.rows[row_of(queries.waiting, number)]
    query.answered = 1
    other = find_next(queries.waiting, number)
    for _ in range(MOST_COPIES):
        if other == NO_REQUEST:
            break
        copy = queries.rows[row_of(queries.waiting, other)]
        if copy.question_hash == query.question_hash and copy.has_question == query.has_question:
            copy.copy_answered = 1
        other = find_next(queries.waiting, other)
    if not is_transfer(query):
        drop(queries.waiting, number)


@kernel
def take_response(queries, done, message, arrival, lone):
    """Make a call of a response; `lone`: what it lacks if no query waits for it."""
    asked = arrival.direction ^ 1
    number, answered = find_query(queries, message, arrival.stream, message.id << 1 | asked)
    start = arrival.time
    lacks = lone
    if number != NO_REQUEST:
        start = queries.waiting.requests[row_of(queries.waiting, number)].time
        lacks = NOTHING
    elif answered != NO_REQUEST:
        lacks = NOTHING  # the next message of a transfer
    call = add_call(done, arrival.stream, asked, start, arrival.time, lacks)
    keep(done, arrival.octets, arrival.position, arrival.length, call.response)
    call.response_read, call.response_declared = message.read, message.declared
    if number != NO_REQUEST:
        add_query(queries, done, number, call)
        settle(queries, number)


@kernel
def add_multicast_query(done, message, arrival):
    """Make a call of a query that nobody will answer on its five-tuple."""
    time = arrival.time
    call = add_call(done, arrival.stream, arrival.direction, time, time, NOTHING)
    keep(done, arrival.octets, arrival.position, arrival.length, call.request)
    call.request_read, call.request_declared = message.read, message.declared


@kernel
def take_messages(queries, done, octets, starts, ends, timestamps, streams, directions, multicast):
    """Take the messages octets[starts[i]:ends[i]]; `done` has room for whatever they finish."""
    for index in range(len(starts)):
        row = np.uint64(index)
        position, end = starts[row], ends[row]
        message = read_message(octets, position, end)
        if message.status == NOT_DNS:
            done.used[2] += 1
            continue
        arrival = Arrival(
            octets, position, end - position, timestamps[row], streams[row], directions[row] & 1
        )
        if message.is_response:
            # A response with no id and no question is an announcement (RFC 6762, 6 and 18.1).
            announces = message.id == 0 and not message.has_question
            lone = NOTHING if multicast[row] or announces else NO_QUERY
            take_response(queries, done, message, arrival, lone)
        elif multicast[row]:
            add_multicast_query(done, message, arrival)
        else:
            take_query(queries, done, message, arrival)


@kernel
def give_up_before(queries, done, time, patience):
    """Give up the queries that came before `time`, `patience` (ns) after each of them."""
    while True:
        oldest = oldest_request(queries.waiting)
        if oldest == NO_REQUEST:
            return
        asked = queries.waiting.requests[row_of(queries.waiting, oldest)].time
        if asked >= time:
            return
        give_up(queries, done, oldest, asked + patience, EXPIRED)


@kernel
def is_among(numbers, number):
    """Say whether a sorted array holds the number."""
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if numbers[np.uint64(middle)] < number:
            low = middle + 1
        else:
            high = middle
    return low < len(numbers) and numbers[np.uint64(low)] == number


@kernel
def give_up_streams(queries, done, streams, time):
    """Give up the queries of the streams, a sorted array."""
    for number in range(queries.waiting.numbers[0], queries.waiting.numbers[1]):
        if is_here(queries.waiting, number):
            stream = queries.waiting.requests[row_of(queries.waiting, number)].stream
            if is_among(streams, stream):
                give_up(queries, done, np.int64(number), time, STREAM_ENDED)


@kernel
def give_up_all(queries, done, time):
    """Give up whatever waits."""
    while True:
        oldest = oldest_request(queries.waiting)
        if oldest == NO_REQUEST:
            return
        give_up(queries, done, oldest, time, CAPTURE_ENDED)


def new_queries(rows: int, octets: int) -> Queries:
    """Make room for `rows` waiting queries and `octets` of their messages, both powers of two."""
    if octets < 1 << 17 or octets & (octets - 1):
        raise ValueError(
            f"the ring of waiting queries has {octets} octets; "
            f"it needs a power of two, {1 << 17} or more, so that the longest message fits"
        )
    return Queries(
        new_waiting(rows), np.zeros(rows, QUERY), np.zeros(octets, np.uint8), np.zeros(1, np.int64)
    )


def new_done(calls: int, octets: int) -> Done:
    """Make room for so many calls and octets of their messages."""
    return Done(np.zeros(calls, CALL), np.empty(octets, np.uint8), np.zeros(3, np.int64))
