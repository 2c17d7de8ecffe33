# mypy: ignore-errors
"""Find the messages in HTTP/1 streams: rows of stream octets in, calls out.

Framing follows RFC 9112. Each direction is in one state, and one function per state takes octets:
it gets (framer, direction, segment, octets, position, end), takes what it can, sets the state that
follows, and returns the position after what it took. `take_octets` is the table of these functions.

A head that spans segments waits in a slot until the rest comes. Once whole it is kept in the arena,
as is the beginning of each body, for as long as the arena reaches back.

After a gap in a head or between chunks, a direction is LOST until a segment begins like a message.
"""

import numpy as np

from services.capture.dissectors.http1.exchange import (
    BY_LENGTH,
    CHUNKED,
    SWITCHING_PROTOCOLS,
    TUNNELLED,
    UNTIL_CLOSE,
    count_exchange,
    end_message,
    give_up_all_waiting,
    put_waiting,
    realign,
)
from services.capture.dissectors.http1.head import (
    LONGEST_HEAD,
    MALFORMED,
    READ,
    RESPONSE_SIGNATURE,
    SIGNATURE_SIZE,
    begins_like_message,
    find_head_end,
    read_head,
)
from services.capture.dissectors.http1.rows import (
    COMPLETE,
    CUT,
    NO_ANSWER,
    NO_SLOT,
    TIMED_OUT,
    add_body,
    add_message,
    add_missing,
    free_slot,
    has_room,
    message_row,
)
from services.capture.kernel import copy_octets, kernel, read_u8, read_u32
from services.capture.reassembly import CLOSED, DATA, ENDED, GAP, IN_HELD, NO_HINT, OPENED

# States of a direction.
NEW = 0  # no octet seen
HEAD = 1  # in a head, or between messages
LENGTH_BODY = 2
CHUNK_SIZE = 3  # `remaining` is the size read so far, NO_DIGITS at first
CHUNK_EXTENSION = 4  # after the digits of the size, up to the end of the line
CHUNK_DATA = 5
CHUNK_END = 6  # the line end after a chunk's data
TRAILER_START = 7  # at the start of a trailer line
TRAILER = 8  # in a trailer line
CLOSE_BODY = 9  # until the stream closes
TUNNEL = 10  # after an upgrade: no HTTP any more
LOST = 11
OTHER = 12  # not HTTP

LARGEST_CHUNK = 1 << 40  # octets
NO_DIGITS = -1
CR, LF = 0x0D, 0x0A


@kernel
def complete(f, direction, segment):
    end_message(f, direction, segment, COMPLETE)
    direction.state = HEAD


@kernel
def give_up(f, direction, segment, state):
    """The octets make no sense, or are missing: cut the message, drop an unfinished head."""
    end_message(f, direction, segment, CUT)
    free_slot(f, direction)
    direction.state = state


# --- heads ---------------------------------------------------------------------------------------


@kernel
def hand_over(f, direction, segment, head, after):
    """The call that ended just now makes both sides another protocol's, from `after` on."""
    totals = f.totals[0]
    handover = f.handovers[np.uint64(totals.handovers)]
    handover.row = totals.row
    handover.position = after
    handover.call = totals.calls - 1
    totals.handovers += 1
    # In a proxy's tunnel can be HTTP again; no upgrade leads to what was there before.
    state = TUNNEL if head.status == SWITCHING_PROTOCOLS else NEW
    direction.state = state
    other = f.directions[np.uint64(segment.direction ^ 1)]
    end_message(f, other, segment, COMPLETE)
    free_slot(f, other)
    other.state = state


@kernel
def begin_body(f, direction, segment, head, body, after):
    """Set the state that follows a head; a message without octets of body ends here.

    after: the position behind the head, in the segment.
    """
    if body == CHUNKED:
        direction.remaining = NO_DIGITS
        direction.state = CHUNK_SIZE
    elif body == UNTIL_CLOSE:
        direction.state = CLOSE_BODY
    elif body == BY_LENGTH and head.content_length > 0:
        direction.remaining = head.content_length
        direction.state = LENGTH_BODY
    else:
        complete(f, direction, segment)
    if body == TUNNELLED:
        hand_over(f, direction, segment, head, after)


@kernel
def add_head(f, direction, segment, head, octets, position, after):
    """Add the message whose head is at `position`, and begin its body. after: as begin_body."""
    exchanges = f.exchanges[np.uint64(segment.direction >> 1)]
    exchange, body = count_exchange(exchanges, head)
    number = add_message(f, direction, segment, head, octets, position, exchange, body)
    if not head.is_response:
        put_waiting(f, exchanges, number, segment.timestamp)
    begin_body(f, direction, segment, head, body, after)


@kernel
def give_up_head(f, direction, segment, end):
    f.totals[0].heads_given_up += 1
    give_up(f, direction, segment, LOST)
    return end


@kernel
def keep_head(f, direction, segment, octets, position, end):
    """Keep the beginning of a head in a slot of its own until the rest comes."""
    totals = f.totals[0]
    if totals.free_slots == 0 or end - position > LONGEST_HEAD:
        return give_up_head(f, direction, segment, end)
    totals.free_slots -= 1
    direction.slot = f.free[np.uint64(totals.free_slots)]
    direction.kept = end - position
    copy_octets(octets, position, end - position, f.slots, np.int64(direction.slot) * LONGEST_HEAD)
    return end


@kernel
def continue_head(f, direction, segment, octets, position, end):
    """Add to the head kept in a slot, and read it if that completes it."""
    start, kept = np.int64(direction.slot) * LONGEST_HEAD, np.int64(direction.kept)
    length = min(end - position, LONGEST_HEAD - kept)
    copy_octets(octets, position, length, f.slots, start + kept)
    head_end = find_head_end(f.slots, start, start + kept, start + kept + length)
    if head_end < 0:
        if kept + length == LONGEST_HEAD:
            return give_up_head(f, direction, segment, end)
        direction.kept = kept + length
        return end
    head = read_head(f.slots, start, head_end)
    if head.outcome != READ:
        return give_up_head(f, direction, segment, end)
    free_slot(f, direction)
    after = position + head_end - (start + kept)
    add_head(f, direction, segment, head, f.slots, start, after)
    return after


@kernel
def take_head(f, direction, segment, octets, position, end):
    if direction.slot != NO_SLOT:
        return continue_head(f, direction, segment, octets, position, end)
    while position < end and read_u8(octets, position) in (CR, LF):  # RFC 9112, section 2.2
        position += 1
    if position == end:
        return end
    direction.first_timestamp = segment.timestamp
    head = read_head(octets, position, end)
    if head.outcome == MALFORMED or head.length > LONGEST_HEAD:
        return give_up_head(f, direction, segment, end)
    if head.outcome != READ:
        return keep_head(f, direction, segment, octets, position, end)
    add_head(f, direction, segment, head, octets, position, position + head.length)
    return position + head.length


# --- bodies --------------------------------------------------------------------------------------


@kernel
def end_of_counted(f, direction, segment):
    """Set the state after the last octet of a body by length, or of a chunk."""
    if direction.state == CHUNK_DATA:
        direction.state = CHUNK_END
    else:
        complete(f, direction, segment)


@kernel
def take_counted(f, direction, segment, octets, position, end):
    """Take up to `remaining` octets of a body by length, or of a chunk."""
    length = min(end - position, direction.remaining)
    direction.remaining -= length
    add_body(f, direction, octets, position, length)
    if direction.remaining == 0:
        end_of_counted(f, direction, segment)
    return position + length


@kernel
def digit_value(octet):
    """The value of a hexadecimal digit, or -1."""
    if ord("0") <= octet <= ord("9"):
        return octet - ord("0")
    letter = octet | 0x20
    return letter - ord("a") + 10 if ord("a") <= letter <= ord("f") else -1


@kernel
def take_chunk_size(f, direction, segment, octets, position, end):
    """Take one digit, or leave what is no digit to the state after the digits."""
    digit = digit_value(read_u8(octets, position))
    if digit < 0 and direction.remaining != NO_DIGITS:
        direction.state = CHUNK_EXTENSION
        return position
    size = max(0, direction.remaining) * 16 + digit
    if digit < 0 or size > LARGEST_CHUNK:
        give_up(f, direction, segment, LOST)
        return end
    direction.remaining = size
    return position + 1


@kernel
def take_chunk_extension(f, direction, segment, octets, position, end):
    if read_u8(octets, position) == LF:
        direction.state = CHUNK_DATA if direction.remaining > 0 else TRAILER_START
    return position + 1


@kernel
def take_chunk_end(f, direction, segment, octets, position, end):
    octet = read_u8(octets, position)
    if octet == LF:
        direction.remaining = NO_DIGITS
        direction.state = CHUNK_SIZE
    elif octet != CR:
        give_up(f, direction, segment, LOST)
        return end
    return position + 1


@kernel
def take_trailer_start(f, direction, segment, octets, position, end):
    octet = read_u8(octets, position)
    if octet == LF:
        complete(f, direction, segment)
    elif octet != CR:
        direction.state = TRAILER
    return position + 1


@kernel
def take_trailer(f, direction, segment, octets, position, end):
    if read_u8(octets, position) == LF:
        direction.state = TRAILER_START
    return position + 1


@kernel
def take_close_body(f, direction, segment, octets, position, end):
    add_body(f, direction, octets, position, end - position)
    return end


# --- streams -------------------------------------------------------------------------------------


@kernel
def take_start(f, direction, segment, octets, position, end):
    """The first octets of a stream: HTTP, or not."""
    direction.state = HEAD if begins_like_message(octets, position, end) else OTHER
    return position


@kernel
def take_lost(f, direction, segment, octets, position, end):
    """Look for a message at the start of a segment only: that is where nearly all begin."""
    if position != segment.position or position + SIGNATURE_SIZE > end:
        return end
    if not begins_like_message(octets, position, end):
        return end
    f.totals[0].resynchronised += 1
    is_response = read_u32(octets, position) == RESPONSE_SIGNATURE
    realign(f, f.exchanges[np.uint64(segment.direction >> 1)], segment, is_response)
    direction.state = HEAD
    return position


@kernel
def take_octets(f, direction, segment, octets, position, end):
    """The state table."""
    state = direction.state
    if state == HEAD:
        return take_head(f, direction, segment, octets, position, end)
    if state == LENGTH_BODY or state == CHUNK_DATA:
        return take_counted(f, direction, segment, octets, position, end)
    if state == CHUNK_SIZE:
        return take_chunk_size(f, direction, segment, octets, position, end)
    if state == CHUNK_EXTENSION:
        return take_chunk_extension(f, direction, segment, octets, position, end)
    if state == CHUNK_END:
        return take_chunk_end(f, direction, segment, octets, position, end)
    if state == TRAILER_START:
        return take_trailer_start(f, direction, segment, octets, position, end)
    if state == TRAILER:
        return take_trailer(f, direction, segment, octets, position, end)
    if state == CLOSE_BODY:
        return take_close_body(f, direction, segment, octets, position, end)
    if state == NEW:
        return take_start(f, direction, segment, octets, position, end)
    if state == LOST:
        return take_lost(f, direction, segment, octets, position, end)
    return end  # TUNNEL, OTHER


@kernel
def take_data(f, direction, segment, octets):
    """Take the octets; when the calls are full, shorten the segment to the rest of them."""
    position = segment.position
    end = position + np.int64(segment.length)
    while position < end:
        if not has_room(f):
            segment.continued = 1
            segment.position = position
            segment.length = end - position
            return False
        position = take_octets(f, direction, segment, octets, position, end)
    return True


@kernel
def take_gap(f, direction, segment):
    """A gap inside a body is counted; anywhere else the place in the stream is lost."""
    missing = np.int64(segment.length)
    state = direction.state
    if state == CLOSE_BODY:
        add_missing(f, direction, missing)
    elif state in (LENGTH_BODY, CHUNK_DATA) and 0 < missing <= direction.remaining:
        add_missing(f, direction, missing)
        direction.remaining -= missing
        if direction.remaining == 0:
            end_of_counted(f, direction, segment)
    elif state not in (TUNNEL, OTHER):
        give_up(f, direction, segment, LOST)


@kernel
def answers_waiting(f, exchanges, direction_number):
    """Whether the requests that wait for an answer wait for one on this direction."""
    first = message_row(f, exchanges.first_waiting)
    return exchanges.waiting > 0 and (
        first.number != exchanges.first_waiting or first.direction != direction_number
    )


@kernel
def take_close(f, direction, segment):
    """FIN or RST. A body that lasts until then is complete; what comes after is not expected."""
    if direction.state == CLOSE_BODY:
        complete(f, direction, segment)
    elif direction.state not in (NEW, TUNNEL, OTHER):
        give_up(f, direction, segment, LOST)
    exchanges = f.exchanges[np.uint64(segment.direction >> 1)]
    if answers_waiting(f, exchanges, segment.direction):
        give_up_all_waiting(f, exchanges, segment.timestamp, NO_ANSWER)


@kernel
def take_stream_end(f, direction, segment):
    """The stream is over, or a new one begins on its five-tuple."""
    # Both directions end, one row each: what is under way on the other is an answer, perhaps, to a
    # request that must not be given up before it.
    other = f.directions[np.uint64(segment.direction ^ 1)]
    give_up(f, other, segment, NEW)
    give_up(f, direction, segment, NEW)
    direction.taken = other.taken = 0
    exchanges = f.exchanges[np.uint64(segment.direction >> 1)]
    lacks = TIMED_OUT if segment.kind == ENDED else NO_ANSWER
    give_up_all_waiting(f, exchanges, segment.timestamp, lacks)
    exchanges.requests = exchanges.responses = 0


@kernel
def take_segment(f, segment, frames, held):
    """Return whether the segment is done; if not, the calls are full and it is shortened."""
    direction = f.directions[np.uint64(segment.direction)]
    if segment.kind == DATA:
        if not segment.continued:
            direction.taken += np.uint32(segment.length)
        if direction.state == OTHER or direction.state == TUNNEL or segment.hint != NO_HINT:
            return True
        return take_data(f, direction, segment, held if segment.place == IN_HELD else frames)
    if not has_room(f):
        return False
    if segment.kind == GAP:
        direction.taken += np.uint32(segment.length)
        take_gap(f, direction, segment)
    elif segment.kind == CLOSED:
        take_close(f, direction, segment)
    elif segment.kind == OPENED or segment.kind == ENDED:
        take_stream_end(f, direction, segment)
    return True


@kernel
def frame_segments(f, segments, row, rows, frames, held):
    """Take segments[row:rows], whose octets lie in `frames` or in `held` (Reassembler.octets).

    Return (row of the next segment, calls filled); totals.handovers says how many of `handovers`
    are. When that row is before `rows`, the calls are full: use them up and call again from it.
    """
    totals = f.totals[0]
    totals.calls = totals.handovers = 0
    totals.row = row
    while totals.row < rows and take_segment(f, segments[np.uint64(totals.row)], frames, held):
        totals.row += 1
    return totals.row, totals.calls
