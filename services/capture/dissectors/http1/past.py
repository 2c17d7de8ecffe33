# mypy: ignore-errors
"""HTTP/1 calls of earlier batches: for a stream that matches only now, what it said before.

They last as long as the messages that they point at: until the framer's rings have gone round.
"""

from typing import NamedTuple

import numpy as np

from services.capture.dissectors.http1.rows import (
    CALL,
    NO_MESSAGE,
    Framer,
    is_message_kept,
)
from services.capture.kernel import kernel

# fmt: off
PAST = np.dtype((np.record, [
    ("call", CALL),
    ("index", np.int32),  # of the entry in its stream
]))
# fmt: on


class PastCalls(NamedTuple):
    """A ring of calls: number n is in row n & (len(rows) - 1)."""

    rows: np.ndarray  # PAST, a power of two long
    count: np.ndarray  # int64, one element: calls so far


def new_past(rows: int) -> PastCalls:
    """Make room for `rows` calls, a power of two."""
    return PastCalls(np.zeros(rows, PAST), np.zeros(1, np.int64))


def remember(past: PastCalls, calls: np.ndarray, indexes: np.ndarray) -> None:
    """Add CALL rows and the numbers of their entries; only the last that fit are kept."""
    calls, indexes = calls[-len(past.rows) :], indexes[-len(past.rows) :]
    where = (past.count[0] + np.arange(len(calls))) & (len(past.rows) - 1)
    past.rows["call"][where] = calls
    past.rows["index"][where] = indexes
    past.count[0] += len(calls)


@kernel
def is_call_kept(framer, call):
    """Whether every message of the call can still be read."""
    for number in (call.request, call.response):
        if number != NO_MESSAGE and not is_message_kept(framer, number):
            return False
    return True


@kernel
def find_past(framer, rows, count, marks, found):
    """Fill `found` with the rows of calls whose streams are marked, oldest first; return how many.

    marks: uint8, by stream number & (len(marks) - 1).
    """
    filled = 0
    for number in range(max(0, count - len(rows)), count):
        row = number & (len(rows) - 1)
        call = rows[np.uint64(row)].call
        if marks[np.uint64(call.stream & (len(marks) - 1))] and is_call_kept(framer, call):
            found[np.uint64(filled)] = row
            filled += 1
    return filled


def recall(
    past: PastCalls, framer: Framer, streams: np.ndarray, most_streams: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (CALL rows, numbers of their entries) of the streams' calls that can still be read."""
    marks = np.zeros(most_streams, np.uint8)
    marks[streams & (most_streams - 1)] = 1
    found = np.empty(len(past.rows), np.int64)
    chosen = past.rows[found[: find_past(framer, past.rows, past.count[0], marks, found)]]
    chosen = chosen[np.isin(chosen["call"]["stream"], streams)]
    return chosen["call"], chosen["index"]
