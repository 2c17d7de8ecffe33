# mypy: ignore-errors
"""Requests that wait for their response: a bounded table, searched by stream and key.

The key says which request of its stream a response answers. A protocol whose responses carry an id
takes that id; one that answers in order takes the running number of the message in its direction
of the stream, so that a request that was lost, or thrown out, leaves its own response alone and
does not shift all that follow. Requests with the same stream and key wait in the order in which
they came.

The table is a ring in the order of arrival: request number n is in row n & (rows - 1), and rows of
its own that a protocol keeps beside the table have the same index. Numbers never come again, so a
number kept for too long is found out (`is_here`) and cannot lead to another request. When the table
is full, its owner takes out the oldest request, and it becomes a call without a response.
"""

from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel

NO_REQUEST = -1

MOST_SEARCHED = 64
"""Requests of the same bucket that are looked at for one response. Enough for any honest client,
and a flood of requests with one id cannot make the search slow."""

# fmt: off
REQUEST = np.dtype((np.record, [
    ("number", np.int64),    # running, from 0; NO_REQUEST in a row that has none
    ("before", np.int64),    # number of the one before it in its bucket, or NO_REQUEST
    ("after", np.int64),
    ("stream", np.int64),
    ("key", np.int64),
    ("time", np.int64),      # nanoseconds since 1970
]))
BUCKET = np.dtype((np.record, [
    ("first", np.int64),     # number of the oldest request in it, or NO_REQUEST
    ("last", np.int64),
]))
# fmt: on


class Waiting(NamedTuple):
    """The table."""

    requests: np.ndarray
    """REQUEST, a power of two of them."""
    buckets: np.ndarray
    """BUCKET, a power of two of them."""
    numbers: np.ndarray
    """int64: the number of the oldest row in use, and the number of the next request."""


@kernel
def row_of(waiting, number):
    """Return the row that the request with this number has, or had."""
    return np.uint64(number & (len(waiting.requests) - 1))


@kernel
def bucket_of(waiting, stream, key):
    """Return the bucket in which such requests are."""
    mixed = (np.uint64(stream) * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(key)
    mixed *= np.uint64(0xD6E8FEB86659FD93)
    return (mixed >> np.uint64(32)) & np.uint64(len(waiting.buckets) - 1)


@kernel
def is_here(waiting, number):
    """Say whether the request with this number still waits."""
    return number >= 0 and waiting.requests[row_of(waiting, number)].number == number


@kernel
def is_full(waiting):
    """Say whether the oldest request must go before another can come."""
    return waiting.numbers[1] - waiting.numbers[0] == len(waiting.requests)


@kernel
def put(waiting, stream, key, time):
    """Add a request to a table that is not full; return its number."""
    number = waiting.numbers[1]
    waiting.numbers[1] = number + 1
    bucket = waiting.buckets[bucket_of(waiting, stream, key)]
    request = waiting.requests[row_of(waiting, number)]
    request.number = number
    request.stream, request.key, request.time = stream, key, time
    request.before, request.after = bucket.last, NO_REQUEST
    if bucket.last == NO_REQUEST:
        bucket.first = number
    else:
        waiting.requests[row_of(waiting, bucket.last)].after = number
    bucket.last = number
    return number


@kernel
def drop(waiting, number):
    """Take out a request that is here; free the rows at the beginning that are no longer in use."""
    request = waiting.requests[row_of(waiting, number)]
    bucket = waiting.buckets[bucket_of(waiting, request.stream, request.key)]
    if request.before == NO_REQUEST:
        bucket.first = request.after
    else:
        waiting.requests[row_of(waiting, request.before)].after = request.after
    if request.after == NO_REQUEST:
        bucket.last = request.before
    else:
        waiting.requests[row_of(waiting, request.after)].before = request.before
    request.number = NO_REQUEST
    oldest = waiting.numbers[0]
    while oldest < waiting.numbers[1] and not is_here(waiting, oldest):
        oldest += 1
    waiting.numbers[0] = oldest


@kernel
def oldest_request(waiting):
    """Return the number of the request that waits longest, or NO_REQUEST."""
    oldest = waiting.numbers[0]
    return oldest if oldest < waiting.numbers[1] else NO_REQUEST


@kernel
def same_key_from(waiting, number, stream, key):
    """Return the oldest request with this stream and key from `number` on in its bucket."""
    searched = 0
    while number != NO_REQUEST and searched < MOST_SEARCHED:
        request = waiting.requests[row_of(waiting, number)]
        if request.stream == stream and request.key == key:
            return number
        number = request.after
        searched += 1
    return np.int64(NO_REQUEST)


@kernel
def find(waiting, stream, key):
    """Return the number of the oldest request with this stream and key, or NO_REQUEST."""
    first = waiting.buckets[bucket_of(waiting, stream, key)].first
    return same_key_from(waiting, first, stream, key)


@kernel
def find_next(waiting, number):
    """Return the number of the next request with the stream and key of `number`, or NO_REQUEST."""
    request = waiting.requests[row_of(waiting, number)]
    return same_key_from(waiting, request.after, request.stream, request.key)


def new_waiting(rows: int) -> Waiting:
    """Make an empty table for `rows` requests. Raises ValueError if it is not a power of two."""
    if rows <= 0 or rows & (rows - 1):
        raise ValueError(f"a table of waiting requests has a power of two of rows, not {rows}")
    requests = np.zeros(rows, REQUEST)
    requests["number"] = NO_REQUEST
    buckets = np.zeros(rows, BUCKET)
    buckets["first"] = buckets["last"] = NO_REQUEST
    return Waiting(requests, buckets, np.zeros(2, np.int64))
