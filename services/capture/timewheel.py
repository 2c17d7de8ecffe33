# mypy: ignore-errors
"""A timing wheel: which of very many rows is due, without a look at all of them. flows.py has one.

A wheel has a bucket for each second of the next BUCKETS ones, and in it the rows that are due then,
in the order in which they were put there. A row is an element of any record array with the fields
due (int64), next and previous (int32) and bucket (uint16); it is in one bucket at most.

Whoever owns the rows need not move one whose time is put off: when the old time comes, the row is
looked at, and put into the bucket of the new time.
"""

from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel

SECOND = 1_000_000_000  # nanoseconds
END_OF_TIME = (1 << 63) - 1  # nanoseconds
BUCKETS = 2048  # seconds: a power of two, over the longest that anything waits
NO_ROW = -1


class Wheel(NamedTuple):
    """The buckets."""

    first: np.ndarray  # int32, for each bucket: its first row, or NO_ROW
    last: np.ndarray  # int32
    times: np.ndarray
    """int64: HAND, the second before which every bucket is empty; LOWEST, as HAND or later."""


HAND, LOWEST = 0, 1


@kernel
def bucket_at(second):
    return second & (BUCKETS - 1)


@kernel
def enqueue(wheel, rows, number, due):
    """Put a row that is in no bucket into that of `due` (ns), or into the nearest that there is."""
    row = rows[np.uint64(number)]
    hand = wheel.times[HAND]
    second = min(max(due // SECOND, hand), hand + BUCKETS - 1)
    bucket = np.uint64(bucket_at(second))
    row.due = due
    row.bucket = bucket
    row.next = NO_ROW
    row.previous = wheel.last[bucket]
    if wheel.first[bucket] == NO_ROW:
        wheel.first[bucket] = number
    else:
        rows[np.uint64(wheel.last[bucket])].next = number
    wheel.last[bucket] = number
    wheel.times[LOWEST] = min(wheel.times[LOWEST], second)


@kernel
def dequeue(wheel, rows, number):
    """Take a row out of its bucket."""
    row = rows[np.uint64(number)]
    if row.previous == NO_ROW:
        wheel.first[np.uint64(row.bucket)] = row.next
    else:
        rows[np.uint64(row.previous)].next = row.next
    if row.next == NO_ROW:
        wheel.last[np.uint64(row.bucket)] = row.previous
    else:
        rows[np.uint64(row.next)].previous = row.previous


@kernel
def requeue(wheel, rows, number, due):
    dequeue(wheel, rows, number)
    enqueue(wheel, rows, number, due)


@kernel
def set_hand(wheel, second):
    """Begin at any second; the wheel is empty."""
    wheel.times[HAND] = wheel.times[LOWEST] = second


@kernel
def clear(wheel):
    """Forget which rows are in the buckets."""
    for bucket in range(BUCKETS):
        wheel.first[np.uint64(bucket)] = NO_ROW
        wheel.last[np.uint64(bucket)] = NO_ROW


@kernel
def next_due(wheel, second):
    """Return the next row that was due before `second`, or NO_ROW; move the hand up to it."""
    hand = max(wheel.times[HAND], second - BUCKETS)  # a turn passes every bucket
    number = np.int64(NO_ROW)
    while hand < second:
        number = np.int64(wheel.first[np.uint64(bucket_at(hand))])
        if number != NO_ROW:
            break
        hand += 1
    wheel.times[HAND] = hand
    wheel.times[LOWEST] = max(wheel.times[LOWEST], hand)
    return number


@kernel
def first_due(wheel):
    """Return the row that is due first, to the second; there must be one."""
    second = wheel.times[LOWEST]
    while wheel.first[np.uint64(bucket_at(second))] == NO_ROW:
        second += 1
    wheel.times[LOWEST] = second
    return np.int64(wheel.first[np.uint64(bucket_at(second))])


def new_wheel() -> Wheel:
    """Make an empty one."""
    first, last = (np.full(BUCKETS, NO_ROW, np.int32) for _ in range(2))
    return Wheel(first, last, np.zeros(2, np.int64))
