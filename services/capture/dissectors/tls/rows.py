# mypy: ignore-errors
"""What TLS keeps from batch to batch: rows of flows and their two sides, and of handshakes."""

from typing import NamedTuple

import numpy as np

from services.capture.dissectors.arena import Arena, is_kept, new_arena
from services.capture.kernel import kernel

MOST_CALLS = 1 << 12  # that are given at once; then whoever reads makes room for more
NOBODY = 2  # neither side

# What became of streams.
REFUSED, BROKEN, IS_OVER = 0, 1, 2

# What a handshake lacks.
NOTHING, NO_REQUEST, NO_ANSWER, ANSWER_LOST, REQUEST_CUT, RESPONSE_CUT = 0, 1, 2, 3, 4, 5
MALFORMED, CLIENT_ENDED, SERVER_ENDED, FORGOTTEN = 6, 7, 8, 9

# How a hello can be read.
NO_HELLO, WHOLE, CUT, OLD, OLD_ANSWER = 0, 1, 2, 3, 4  # OLD…: of SSL 2.0

# Whether a session is an earlier one's.
NOT_SAID, IS_NEW, IS_RESUMED = 0, 1, 2

# fmt: off
TOLD = np.dtype((np.record, [
    ("hello_at", np.int64),       # position in the arena of its body
    ("chain_at", np.int64),       # the same of the message with certificates
    ("hello_length", np.int32),   # octets that are kept
    ("chain_length", np.int32),
    ("name_at", np.int32),        # from hello_at on, of the server's name, or the protocol's chosen
    ("name_length", np.int32),    # 0 if there is none
    ("suite", np.int32),          # that the server chose
    ("version", np.int32),        # the same, as hello.ServerHello has it
    ("alert", np.int16),          # 1 + its number, 0 if there is none
    ("is_there", np.uint8),       # something is told
    ("hello", np.uint8),          # NO_HELLO, WHOLE …
    ("chain", np.uint8),          # NO_HELLO, WHOLE or CUT
    ("retried", np.uint8),        # the server has asked for another hello
    ("resumed", np.uint8),        # NOT_SAID …
]))
"""What one side's messages say: a part of an entry."""

SIDE = np.dtype((np.record, [
    ("told", TOLD),
    ("begin", np.int64),          # nanoseconds since 1970: first octet
    ("end", np.int64),            # last octet of what is told
    ("length", np.int64),         # octets on the wire until then
    ("octets", np.int64),         # that were read, heads of records too
    ("record_head", np.int64),    # octets of the head so far, as a number
    ("at", np.int64),             # position in the arena of what is kept of the message under way
    ("kept", np.int32),           # octets of it, without its head
    ("room", np.int32),           # octets that are reserved for it there
    ("record_left", np.int32),    # octets of the record's content
    ("record_length", np.int32),
    ("message_head", np.int64),   # octets of the head so far, as a number
    ("message_left", np.int32),   # octets of the message, when its head is known
    ("record_read", np.uint8),    # octets of the record's head
    ("message_read", np.uint8),   # of the message's
    ("alert_read", np.uint8),     # of an alert
    ("alert_level", np.uint8),
    ("record_type", np.uint8),
    ("seeking", np.uint8),        # a record's head is looked for, at the begin of each segment
    ("cut", np.uint8),            # octets of the message under way are missing
    ("doubtful", np.uint8),       # whether what comes next begins a message
    ("lost", np.uint8),           # where the next message begins is not known any more
    ("begun", np.uint8),          # it has said something
    ("encrypted", np.uint8),      # what follows is
    ("lacks", np.uint8),          # octets of what is told are missing
    ("has_gap", np.uint8),
]))

FLOW = np.dtype((np.record, [
    ("stream", np.int64),
    ("old_head", np.int64),       # of a hello in SSL 2.0's form, as a number
    ("old_left", np.int32),       # octets of that hello, or of its head
    ("old_read", np.int32),       # octets of it so far
    ("old_version", np.int32),    # the highest that it offers
    ("version", np.int32),        # that the server chose, when it has
    ("problem", np.uint8),        # what it lacks, if that is known
    ("problem_alert", np.uint8),
    ("client", np.uint8),         # direction of who opened the stream
    ("asked_by", np.uint8),       # side that says ClientHello, or NOBODY
    ("chosen", np.uint8),         # the server has said its hello
    ("answered", np.uint8),       # the server's part that can be read is complete
    ("understood", np.uint8),
    ("over", np.uint8),           # nothing more is read
]))

CALL = np.dtype((np.record, [
    ("request", TOLD),
    ("response", TOLD),
    ("stream", np.int64),
    ("start", np.int64),          # nanoseconds since 1970
    ("end", np.int64),
    ("request_size", np.int64),   # octets
    ("response_size", np.int64),
    ("direction", np.uint8),      # of the request
    ("lacks", np.uint8),          # NOTHING, NO_REQUEST …
    ("alert", np.uint8),          # by which it ended
]))

TOTALS = np.dtype((np.record, [
    ("calls", np.int64),          # rows of this call
    ("failed", np.int64),         # rows of `failed` that are used, from the front
    ("forgotten", np.int64),      # messages whose octets were overwritten before they were whole
]))
# fmt: on


class Framer(NamedTuple):
    """All of it."""

    sides: np.ndarray  # SIDE, two for each flow: of who opened the stream, and the other
    flows: np.ndarray  # FLOW
    calls: np.ndarray  # CALL
    failed: np.ndarray  # int64, pairs: stream, and REFUSED, BROKEN or IS_OVER
    arena: Arena
    totals: np.ndarray  # TOTALS, one element
    nothing: np.ndarray  # SIDE, one element: of a side that has said nothing


@kernel
def side_row(f, number, side):
    """Return what is known of a side of the flow with this number."""
    return f.sides[np.uint64(2 * number + side)]


@kernel
def has_room(f):
    """Whether what one segment can bring about has room: an end, and the end of the one before."""
    totals = f.totals[0]
    return totals.calls + 2 <= len(f.calls) and totals.failed + 1 <= len(f.failed)


@kernel
def add_failed(f, flow, what):
    """Say that a stream is not read any more."""
    totals = f.totals[0]
    row = np.uint64(totals.failed)
    f.failed[row, 0] = flow.stream
    f.failed[row, 1] = what
    totals.failed += 1


@kernel
def is_told_kept(f, told):
    """Whether the octets of what a side told are still in the arena."""
    if told.hello != 0 and told.hello_length > 0 and not is_kept(f.arena, told.hello_at):
        return False
    return told.chain == 0 or told.chain_length == 0 or is_kept(f.arena, told.chain_at)


@kernel
def forget_overwritten(f, calls):
    """Take out of calls the messages that later ones have overwritten; return how many."""
    lost = 0
    for row in range(len(calls)):
        call = calls[np.uint64(row)]
        if call.request.is_there and not is_told_kept(f, call.request):
            call.request.is_there = 0
            call.lacks = FORGOTTEN
            lost += 1
        if call.response.is_there and not is_told_kept(f, call.response):
            call.response.is_there = 0
            call.lacks = FORGOTTEN
            lost += 1
    return lost


def new_framer(most_flows, arena_octets=1 << 26):
    """Make an empty one; hellos and certificates are kept in so many octets."""
    return Framer(
        sides=np.zeros(2 * most_flows, SIDE),
        flows=np.zeros(most_flows, FLOW),
        calls=np.zeros(MOST_CALLS, CALL),
        failed=np.zeros((MOST_CALLS, 2), np.int64),
        arena=new_arena(arena_octets),
        totals=np.zeros(1, TOTALS),
        nothing=np.zeros(1, SIDE),
    )
