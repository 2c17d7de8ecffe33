# mypy: ignore-errors
"""What HTTP/1 framing keeps: for each direction where it stands, for each message what was found.

Messages are numbered from 1; number n is in row n & (len(messages) - 1) until that many more came.
"""

from typing import NamedTuple

import numpy as np

from services.capture.dissectors.arena import Arena, append, is_kept, new_arena
from services.capture.dissectors.http1.head import LONGEST_HEAD
from services.capture.kernel import kernel

NO_MESSAGE = 0
NO_PIECE = -1
NO_SLOT = 0  # slots are numbered from 1

# How a message ended.
OPEN = 0
COMPLETE = 1
CUT = 2  # by a gap, by the end of its stream, or by octets that are not HTTP

# What a call lacks.
NOTHING = 0
NO_REQUEST = 1  # the answer came, its request was not seen
NO_ANSWER = 2  # the stream ended before an answer
ANSWER_LOST = 3  # the answer was in a gap
REQUEST_FORGOTTEN = 4  # the answer came so late that the request had left the ring
TIMED_OUT = 5  # no answer came until the stream was given up

MOST_PIPELINED = 16  # requests whose method is remembered until their response
MOST_WAITING = (
    64  # requests of a stream that wait for an answer; a client that sends more gets none
)

# fmt: off
MESSAGE = np.dtype((np.record, [
    ("number", np.int64),
    ("stream", np.int64),
    ("first_timestamp", np.int64),  # nanoseconds since 1970: of the head's first octet
    ("end_timestamp", np.int64),    # and of the message's last
    ("head", np.int64),             # position in the arena
    ("content_length", np.int64),   # octets, as the head says; -1 when it does not
    ("body_octets", np.int64),      # seen; without the framing of chunks
    ("body_kept", np.int64),        # octets of them in the pieces
    ("missing_octets", np.int64),   # lost in gaps inside the body
    ("first_piece", np.int64),      # number of the first piece of the body, or NO_PIECE
    ("last_piece", np.int64),
    ("next", np.int64),             # the request of this stream that waits behind this one
    ("method", np.uint64),          # its first eight octets, zeros behind; 0 in a response
    ("stream_end", np.uint32),      # octets of the stream up to the segment's end, modulo 2**32
    ("direction", np.int32),        # 2 * flow + direction
    ("exchange", np.int32),         # number of the request in its stream, from 0
    ("length", np.int32),           # octets of the head, empty line included
    ("target_offset", np.int32),    # of the request target, from the head's first octet
    ("target_length", np.int32),
    ("status", np.uint16),          # 0 in a request
    ("body", np.uint8),             # kind of body
    ("outcome", np.uint8),          # OPEN, COMPLETE or CUT
]))

CALL = np.dtype((np.record, [
    ("stream", np.int64),
    ("request", np.int64),          # number of the message, or NO_MESSAGE
    ("response", np.int64),
    ("timestamp", np.int64),        # nanoseconds since 1970: when it was found out
    ("direction", np.int32),        # of the request
    ("lacks", np.uint8),            # NOTHING, NO_REQUEST, NO_ANSWER …
]))

HANDOVER = np.dtype((np.record, [
    ("row", np.int64),              # of the segment that ends HTTP
    ("position", np.int64),         # of what follows in it
    ("call", np.int64),             # row of the CALL whose answer said so
]))

PIECE = np.dtype((np.record, [
    ("number", np.int64),
    ("position", np.int64),         # in the arena
    ("length", np.int64),
    ("next", np.int64),             # number of the body's next piece, or NO_PIECE
]))

DIRECTION = np.dtype((np.record, [
    ("message", np.int64),          # number of the one whose body we are in, or NO_MESSAGE
    ("remaining", np.int64),        # octets of the body or of the chunk
    ("first_timestamp", np.int64),
    ("taken", np.uint32),           # octets of the stream so far, gaps too, modulo 2**32
    ("slot", np.int32),             # where an unfinished head is kept, or NO_SLOT
    ("kept", np.int32),             # octets of it
    ("state", np.uint8),
]))

EXCHANGES = np.dtype((np.record, [
    ("first_waiting", np.int64),    # number of the oldest request without an answer, or NO_MESSAGE
    ("last_waiting", np.int64),
    ("waiting", np.int32),
    ("requests", np.int32),         # seen in this stream
    ("responses", np.int32),        # final ones
    ("methods", np.uint8, MOST_PIPELINED),  # of request n: methods[n % MOST_PIPELINED]
]))

TOTALS = np.dtype((np.record, [
    ("calls", np.int64),            # rows of this call
    ("handovers", np.int64),        # and of HANDOVER
    ("row", np.int64),              # of the segment that is taken
    ("free_slots", np.int64),
    ("messages", np.int64),         # so far
    ("pieces", np.int64),
    ("body_limit", np.int64),       # octets of each body to keep
    ("heads_given_up", np.int64),   # malformed, too long, or no slot to keep them in
    ("resynchronised", np.int64),
    ("overwritten", np.int64),      # responses that ended after their row was another message's
]))
# fmt: on


class Framer(NamedTuple):
    """All that HTTP/1 keeps from batch to batch."""

    directions: np.ndarray  # DIRECTION, two for each flow
    exchanges: np.ndarray  # EXCHANGES, one for each flow
    slots: np.ndarray  # uint8: heads not yet whole, LONGEST_HEAD octets each
    free: np.ndarray  # int32: the numbers of the free slots, a stack
    messages: np.ndarray  # MESSAGE, a power of two long
    pieces: np.ndarray  # PIECE, a power of two long: number n is in row n & (len - 1)
    calls: np.ndarray  # CALL
    handovers: np.ndarray  # HANDOVER, as many as calls, since each has one
    arena: Arena
    totals: np.ndarray  # TOTALS, one element


@kernel
def has_room(f):
    """Whether the calls that one step of one direction may end have room."""
    return f.totals[0].calls + MOST_WAITING + 4 <= len(f.calls)


@kernel
def message_row(f, number):
    return f.messages[np.uint64(number & (len(f.messages) - 1))]


@kernel
def is_message_kept(f, number):
    """Whether the row, and the octets of the head, are still those of message `number`."""
    row = message_row(f, number)
    return number != NO_MESSAGE and row.number == number and is_kept(f.arena, row.head)


@kernel
def add_message(f, direction, segment, head, octets, position, exchange, body):
    """Keep the head and make a row for its message."""
    totals = f.totals[0]
    totals.messages += 1
    direction.message = totals.messages
    row = message_row(f, totals.messages)
    row.number = totals.messages
    row.stream = segment.stream
    row.first_timestamp = direction.first_timestamp
    row.end_timestamp = segment.timestamp
    row.head = append(f.arena, octets, position, head.length)
    row.content_length = head.content_length
    row.body_octets = row.body_kept = row.missing_octets = 0
    row.first_piece = row.last_piece = NO_PIECE
    row.next = NO_MESSAGE
    row.method = head.method
    row.stream_end = direction.taken
    row.direction = segment.direction
    row.exchange = exchange
    row.length = head.length
    row.target_offset = head.target_offset
    row.target_length = head.target_length
    row.status = head.status
    row.body = body
    row.outcome = OPEN
    return totals.messages


@kernel
def add_body(f, direction, octets, position, length):
    """Count octets of a body, and keep them up to the limit."""
    message = message_row(f, direction.message)
    if message.number != direction.message:
        return
    message.body_octets += length
    totals = f.totals[0]
    length = min(length, totals.body_limit - message.body_kept)
    if length <= 0:
        return
    last = f.pieces[np.uint64(message.last_piece & (len(f.pieces) - 1))]
    if message.first_piece != NO_PIECE and last.number != message.last_piece:
        return  # the row is another body's by now: what this one had before is lost anyway
    at = append(f.arena, octets, position, length)
    if at < 0:
        return
    number = totals.pieces
    totals.pieces += 1
    piece = f.pieces[np.uint64(number & (len(f.pieces) - 1))]
    piece.number = number
    piece.position = at
    piece.length = length
    piece.next = NO_PIECE
    if message.first_piece == NO_PIECE:
        message.first_piece = number
    else:
        f.pieces[np.uint64(message.last_piece & (len(f.pieces) - 1))].next = number
    message.last_piece = number
    message.body_kept += length


@kernel
def add_missing(f, direction, length):
    message = message_row(f, direction.message)
    if message.number == direction.message:
        message.missing_octets += length


@kernel
def free_slot(f, direction):
    if direction.slot == NO_SLOT:
        return
    totals = f.totals[0]
    f.free[np.uint64(totals.free_slots)] = direction.slot
    totals.free_slots += 1
    direction.slot = NO_SLOT


def new_framer(
    most_flows, body_limit, messages=1 << 16, calls=1 << 14, slots=1 << 10, arena_octets=1 << 26
):
    """Make an empty one. `messages` (a power of two) is how many are kept, `slots` how many heads
    can be unfinished at once, `body_limit` the octets of each body to keep.
    """
    totals = np.zeros(1, TOTALS)
    totals["free_slots"] = slots
    totals["body_limit"] = body_limit
    return Framer(
        directions=np.zeros(2 * most_flows, DIRECTION),
        exchanges=np.zeros(most_flows, EXCHANGES),
        slots=np.zeros((slots + 1) * LONGEST_HEAD, np.uint8),
        free=np.arange(1, slots + 1, dtype=np.int32),
        messages=np.zeros(messages, MESSAGE),
        pieces=np.zeros(4 * messages, PIECE),
        calls=np.zeros(calls, CALL),
        handovers=np.zeros(calls, HANDOVER),
        arena=new_arena(arena_octets),
        totals=totals,
    )
