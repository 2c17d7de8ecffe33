# mypy: ignore-errors
"""What Redis keeps from batch to batch: rows of directions, flows, messages and calls."""

from typing import NamedTuple

import numpy as np

from services.capture.dissectors.arena import Arena, is_kept, new_arena
from services.capture.kernel import kernel

MOST_KEPT = 1 << 16
"""Octets of a message that are kept for its entry; longer ones are framed all the same."""
MOST_MESSAGES = 1 << 19
"""That are kept, whole ones and those that wait: twice what a batch of short ones can bring."""
NO_MESSAGE = 0  # numbers begin at 1

ANSWERED, NEXT_SILENT, ALL_SILENT = 0, 1, 2

# What became of streams.
REFUSED, BROKEN, IS_OVER = 0, 1, 2

# What a call lacks.
NOTHING, NO_REQUEST, NO_ANSWER, ANSWER_LOST, PUSHED, FORGOTTEN = 0, 1, 2, 3, 4, 5

# fmt: off
DIRECTION = np.dtype((np.record, [
    ("at", np.int64),          # position in the arena of what is kept of the unfinished message
    ("kept", np.int64),        # octets of it
    ("room", np.int64),        # octets that are reserved for it there
    ("size", np.int64),        # octets of the message so far
    ("first_time", np.int64),  # nanoseconds since 1970
    ("values", np.int64),      # that the message still lacks
    ("skip", np.int64),        # octets of a string that are still to come
    ("number", np.int64),      # that the line says, so far
    ("taken", np.uint32),      # octets of the stream so far, gaps too, modulo 2**32
    ("start", np.uint32),      # the same at the beginning of the message
    ("digits", np.int32),      # of the line, or octets of its text
    ("kind", np.uint8),        # octet that the line began with
    ("first", np.uint8),       # octet that the message began with
    ("negative", np.uint8),
    ("state", np.uint8),       # see framing
    ("cut", np.uint8),         # octets in the middle of the message were lost
]))

FLOW = np.dtype((np.record, [
    ("stream", np.int64),
    ("first_waiting", np.int64),  # number of the oldest command without a reply
    ("last_waiting", np.int64),
    ("last_time", np.int64),      # of any segment
    ("waiting", np.int32),
    ("before", np.int32),      # when unsure: waiting commands that came before what was lost
    ("hole_at", np.uint32),    # reply octets before the reply to the first command that was lost
    ("orphan_at", np.uint32),  # before the first reply since the last command that answered nothing
    ("unsure", np.uint8),      # which reply is whose: octets were lost
    ("has_hole", np.uint8),
    ("has_orphan", np.uint8),
    ("has_offset", np.uint8),  # the server's `taken` is known
    ("strict", np.uint8),      # only a pause makes sure again
    ("pipelines", np.uint8),   # commands were sent while replies were coming
    ("listens", np.uint8),     # to channels, or as a monitor
    ("doubtful", np.uint8),    # it began unseen: replies may be to commands before
    ("silent", np.uint8),      # ANSWERED, or which commands get no replies
    ("understood", np.uint8),
]))

MESSAGE = np.dtype((np.record, [
    ("number", np.int64),      # running, from 1
    ("stream", np.int64),
    ("at", np.int64),          # position in the arena
    ("size", np.int64),        # octets on the wire
    ("first_time", np.int64),  # nanoseconds since 1970: first octet
    ("time", np.int64),        # last octet
    ("word", np.int64),        # see wire.word: of a command its name, of an array its first string
    ("next", np.int64),        # number of the next command that waits
    ("kept", np.int32),
    ("seen", np.uint32),       # reply octets that the client had when it sent the command
    ("direction", np.uint8),
    ("has_seen", np.uint8),
    ("cut", np.uint8),
    ("paused", np.uint8),      # nothing had been said for a while
]))

CALL = np.dtype((np.record, [
    ("stream", np.int64),
    ("request", np.int64),     # number of the message, or NO_MESSAGE
    ("response", np.int64),
    ("time", np.int64),        # nanoseconds since 1970: when it was found out
    ("direction", np.uint8),   # of the request
    ("lacks", np.uint8),       # NOTHING, NO_REQUEST …
]))

TOTALS = np.dtype((np.record, [
    ("messages", np.int64),
    ("calls", np.int64),       # rows of this call
    ("failed", np.int64),      # rows of `failed` that are used, from the front
    ("forgotten", np.int64),   # commands and replies whose row or octets were overwritten
]))
# fmt: on


class Framer(NamedTuple):
    """All of it. Message number n is in row n & (len(messages) - 1)."""

    directions: np.ndarray  # DIRECTION, two for each flow
    flows: np.ndarray  # FLOW
    messages: np.ndarray  # MESSAGE, a power of two long
    calls: np.ndarray  # CALL, twice as long
    failed: np.ndarray  # int64, pairs: stream, and REFUSED, BROKEN or IS_OVER
    arena: Arena
    totals: np.ndarray  # TOTALS, one element


@kernel
def message_row(f, number):
    return f.messages[np.uint64(number & (len(f.messages) - 1))]


@kernel
def is_message_kept(f, number):
    row = message_row(f, number)
    return number != NO_MESSAGE and row.number == number and is_kept(f.arena, row.at)


@kernel
def has_room(f):
    """Whether what one message can bring about has room: at most each message is a call."""
    totals = f.totals[0]
    return totals.calls < len(f.calls) - len(f.messages) - 1 and totals.failed < len(f.failed) - 1


@kernel
def forget_message(direction):
    direction.kept = direction.size = direction.room = 0
    direction.values = 1
    direction.cut = 0


@kernel
def add_failed(f, stream, what):
    """Say that a stream is not read any more."""
    totals = f.totals[0]
    row = np.uint64(totals.failed)
    f.failed[row, 0] = stream
    f.failed[row, 1] = what
    totals.failed += 1


def new_framer(most_flows, messages=MOST_MESSAGES, arena_octets=1 << 26):
    """Make an empty one; `messages` (a power of two) are kept, in so many octets."""
    return Framer(
        directions=np.zeros(2 * most_flows, DIRECTION),
        flows=np.zeros(most_flows, FLOW),
        messages=np.zeros(messages, MESSAGE),
        calls=np.zeros(2 * messages, CALL),
        failed=np.zeros((1 << 10, 2), np.int64),
        arena=new_arena(arena_octets),
        totals=np.zeros(1, TOTALS),
    )
