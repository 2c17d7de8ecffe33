# mypy: ignore-errors
"""Find where RESP values end: rows of stream octets in, calls out.

Each direction is in one state. A value is one when no value inside it is lacking any more, however
deep it is: a list of n adds n to those that it lacks, a string or a line takes one away. So nothing
has to be held until the value is whole but its octets, for its entry, and these up to a limit.
"""

import numpy as np

from services.capture.dissectors.arena import keep
from services.capture.dissectors.dissector import IS_SERVER
from services.capture.dissectors.redis.exchange import (
    begin_flow,
    end_flow,
    realign,
    take_command,
    take_gap,
    take_reply,
)
from services.capture.dissectors.redis.rows import (
    BROKEN,
    MOST_KEPT,
    REFUSED,
    add_failed,
    forget_message,
    has_room,
)
from services.capture.dissectors.redis.states import (
    AFTER_STRING,
    BETWEEN,
    LINE,
    LINE_FEED,
    LOST,
    OVER,
    START,
    STRING,
    STRING_LINE_FEED,
)
from services.capture.dissectors.redis.wire import (
    ARRAY,
    ATTRIBUTE,
    BULK,
    BULK_ERROR,
    MAP,
    PUSH,
    SET,
    TYPES,
    VERBATIM,
)
from services.capture.kernel import kernel, read_u8
from services.capture.reassembly import DATA, ENDED, GAP, IN_HELD, OPENED

CR, LF, MINUS, ZERO, NINE = 0x0D, 0x0A, 0x2D, 0x30, 0x39

LONGEST_LINE = 1 << 16  # octets: what a server reads of an inline command, and more than any error
MOST_DIGITS = 12
LONGEST_STRING = 1 << 32  # octets: eight times what a server takes (proto-max-bulk-len)
MOST_VALUES = 1 << 40  # of one message
MOST_ARGUMENTS = 1 << 20  # of a command: what a server takes

DONE, MORE, BAD = 0, 1, 2
COUNTED = (BULK, VERBATIM, BULK_ERROR, ARRAY, SET, PUSH, MAP, ATTRIBUTE)
KNOWN = tuple(TYPES)


@kernel
def is_letter(octet):
    return 0x41 <= octet & 0xDF <= 0x5A


@kernel
def may_begin_value(direction, octet, server, between):
    """Whether a line can begin so. A command is a list of strings, or a line that is no value."""
    if server:
        return octet in KNOWN
    if between:
        return octet == ARRAY or is_letter(octet) or octet == CR or octet == LF
    return octet == BULK


@kernel
def end_line(direction, server):
    """A line is whole: count what it brings, and set what follows. Return False for nonsense."""
    kind, number = np.int64(direction.kind), np.int64(direction.number)
    direction.state = START
    if kind in COUNTED:
        if direction.digits == 0:
            return False
        if direction.negative:
            number = np.int64(0) if kind not in (BULK, VERBATIM, BULK_ERROR) else np.int64(-1)
    if kind == BULK or kind == VERBATIM or kind == BULK_ERROR:
        direction.values -= 1
        if number > LONGEST_STRING or (not server and number < 0):
            return False
        if number >= 0:
            direction.skip = number
            direction.state = STRING
    elif kind == ARRAY or kind == SET or kind == PUSH:
        if not server and number > MOST_ARGUMENTS:
            return False
        direction.values += number - 1
    elif kind == MAP:
        direction.values += 2 * number - 1
    elif kind == ATTRIBUTE:
        direction.values += 2 * number  # and the value that it is about
    else:
        direction.values -= 1
    return direction.values <= MOST_VALUES


@kernel
def take_line(direction, octets, position, end):
    """Take octets of a line up to its CR, or of an inline command up to its LF."""
    counted = np.int64(direction.kind) in COUNTED
    number, digits = np.int64(direction.number), np.int64(direction.digits)
    inline = is_letter(direction.kind)
    status = MORE
    while position < end:
        octet = read_u8(octets, position)
        position += 1
        if octet == CR and not inline:
            direction.state = LINE_FEED
            status = DONE
            break
        if octet == LF:
            direction.state = LINE_FEED
            position -= 1  # it is what the next state takes
            status = DONE if inline else BAD
            break
        if counted:
            if ZERO <= octet <= NINE and digits < MOST_DIGITS:
                number = number * 10 + octet - ZERO
            elif octet == MINUS and digits == 0 and not direction.negative:
                direction.negative = 1
                continue
            else:
                status = BAD
                break
        digits += 1
        if digits > LONGEST_LINE:
            status = BAD
            break
    direction.number, direction.digits = number, digits
    return status, position


@kernel
def take_octet(direction, octet, server):
    """Take an octet that stands alone: a line's first, a line feed, the end of a string."""
    state = direction.state
    if state == BETWEEN or state == START:
        if not may_begin_value(direction, octet, server, state == BETWEEN):
            return False
        direction.kind = octet
        if state == BETWEEN:
            direction.first = octet
        direction.number = direction.digits = direction.negative = 0
        direction.state = LINE
        if octet == CR:
            direction.state = LINE_FEED
        elif octet == LF:  # an empty line, which is no command
            direction.state = START
            direction.values = 0
        return True
    if state == LINE_FEED:
        return octet == LF and end_line(direction, server)
    if state == AFTER_STRING:
        direction.state = STRING_LINE_FEED
        return octet == CR
    direction.state = START  # after STRING_LINE_FEED
    return octet == LF


@kernel
def take_value(direction, octets, position, end, server):
    """Take octets until a message ends. Return (DONE, MORE or BAD, position after them)."""
    while position < end:
        state = direction.state
        if state == LINE:
            status, position = take_line(direction, octets, position, end)
            if status == BAD:
                return BAD, position
        elif state == STRING:
            step = min(np.int64(direction.skip), end - position)
            direction.skip -= step
            position += step
        elif not take_octet(direction, read_u8(octets, position), server):
            return BAD, position
        else:
            position += 1
        if direction.state == STRING and direction.skip == 0:
            direction.state = AFTER_STRING
        elif direction.state == START and direction.values <= 0:
            return DONE, position
    return MORE, position


@kernel
def is_command_head(octets, position, end):
    """Whether a list of strings begins here, all of its first two lines' digits in these octets."""
    if position + 1 >= end or read_u8(octets, position) != ARRAY:
        return False
    at = position + 1
    while at < end and ZERO <= read_u8(octets, at) <= NINE:
        at += 1
    if at == position + 1 or at + 3 >= end:
        return False
    return (
        read_u8(octets, at) == CR
        and read_u8(octets, at + 1) == LF
        and read_u8(octets, at + 2) == BULK
        and ZERO <= read_u8(octets, at + 3) <= NINE
    )


@kernel
def find_command(octets, position, end):
    """Return where the first command begins after a gap, or `end`."""
    if is_command_head(octets, position, end):
        return position
    for at in range(position + 2, end - 1):
        if (
            read_u8(octets, at) == ARRAY
            and read_u8(octets, at - 1) == LF
            and read_u8(octets, at - 2) == CR
            and is_command_head(octets, at, end)
        ):
            return at
    return end


@kernel
def fail(f, flow, segment):
    """These octets are not RESP: say so, and read no more of the stream."""
    add_failed(f, segment.stream, BROKEN if flow.understood else REFUSED)
    end_flow(f, flow, segment.timestamp)
    flow.stream = segment.stream  # what else comes of it in this batch begins no other one
    number = segment.direction >> 1
    for side in range(2):
        f.directions[np.uint64(2 * number + side)].state = OVER


@kernel
def take_data(f, flow, direction, segment, octets, server):
    """Take the octets of a segment. Return False when the calls are full: the rest is in it."""
    position, end = segment.position, segment.position + segment.length
    first = segment.position
    offset = np.int64(direction.taken)
    if server and (flow.unsure or direction.state == LOST):
        realign(f, flow, direction, segment)
    elif direction.state == LOST:
        position = find_command(octets, position, end)
        if position < end:
            direction.state = BETWEEN
    while position < end and direction.state != LOST and direction.state != OVER:
        if not has_room(f):
            break
        if direction.state == BETWEEN:
            forget_message(direction)
            direction.first_time = segment.timestamp
            direction.start = np.uint32(offset + position - first)
        begin = position
        status, position = take_value(direction, octets, begin, end, server)
        keep(f.arena, direction, octets, begin, position - begin, MOST_KEPT)
        direction.size += position - begin
        if status == BAD:
            fail(f, flow, segment)
        elif status == DONE:
            direction.state = BETWEEN
            if server:
                take_reply(f, flow, direction, segment)
            else:
                take_command(f, flow, direction, segment)
    if direction.state == LOST or direction.state == OVER:
        position = end
    direction.taken += np.uint32(position - first)
    segment.position = position
    segment.length = end - position
    return position == end


@kernel
def take_segment(f, segment, marks, frames, held):
    """Return whether the segment is done; if not, the calls are full and it is shortened."""
    if not has_room(f):
        return False
    number = segment.direction >> 1
    flow = f.flows[np.uint64(number)]
    if flow.stream != segment.stream:
        end_flow(f, flow, segment.timestamp)
        if segment.kind == OPENED:  # the next stream, which may be of any protocol
            return True
        begin_flow(f, flow, segment, marks)
    server = marks & IS_SERVER
    direction = f.directions[np.uint64(segment.direction)]
    done = True
    if segment.kind == DATA:
        done = take_data(
            f, flow, direction, segment, held if segment.place == IN_HELD else frames, server
        )
        flow.last_time = segment.timestamp
    elif segment.kind == GAP:
        take_gap(f, flow, direction, segment, server)
    elif segment.kind == ENDED:
        end_flow(f, flow, segment.timestamp)
    return done


@kernel
def frame_segments(f, segments, marks, row, frames, held):
    """Take segments[row:], whose marks are as in dissector.FOUND; return the row of the next one.
    When that is before their end, calls or failed streams are full: use them up and call again.
    """
    totals = f.totals[0]
    totals.calls = totals.failed = 0
    while row < len(segments) and take_segment(
        f, segments[np.uint64(row)], np.int64(marks[np.uint64(row)]), frames, held
    ):
        row += 1
    return row
