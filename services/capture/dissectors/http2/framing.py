# mypy: ignore-errors
"""From octets to frames (RFC 9113, 4 and 6), and from these to streams: entries calls it.

What DATA frames hold is passed on as it comes, other frames when they are whole: from where they
are, or if they came in pieces, from a buffer.
"""

import numpy as np

from services.capture.dissectors.dissector import IS_SERVER, OTHER_MISSED
from services.capture.dissectors.http2.fields import BAD, clear, read_block
from services.capture.dissectors.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    FLAGS,
    GOAWAY,
    HEAD,
    HEADERS,
    KINDS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
)
from services.capture.dissectors.http2.rows import (
    BLOCK,
    BROKEN,
    MOST_KEPT,
    MOST_TABLE,
    NOBODY,
    PAYLOAD,
    REFUSED,
    SMALL_TABLE,
    add_failed,
    direction_buffer,
    empty_direction,
    has_room,
    is_full,
    keep_of_direction,
    sweep,
)
from services.capture.dissectors.http2.streams import (
    NUMBERS,
    end_frame,
    find_stream,
    finish_all,
    finish_if_over,
    free_slot,
    go_away,
    let_go,
    lose_body,
    lose_frames,
    open_stream,
    reset,
    take_body,
    take_fields,
    take_promise,
)
from services.capture.dissectors.signatures import CLIENT
from services.capture.kernel import cold_kernel, kernel, read_u8, read_u16, read_u32
from services.capture.reassembly import DATA as DATA_SEGMENT
from services.capture.reassembly import ENDED, GAP, IN_HELD, OPENED

MOST_PLAUSIBLE = 1 << 14  # octets of a frame that is believed after a gap; few are longer
MOST_LISTED = 1 << 16  # octets of a block's fields
MOST_CREDIT = 1 << 22  # octets of fields that a connection may have listed before it says more
CREDIT = 64  # that each octet on the wire adds: one can name a field of some KB, but few do
PREFACE_OCTETS = tuple(PREFACE)
OF_NO_STREAM = SETTINGS, GOAWAY
OF_BLOCKS = HEADERS, PUSH_PROMISE, CONTINUATION
OF_STREAMS = DATA, HEADERS, CONTINUATION, RST_STREAM  # that say something in one, or end it
READ_WHOLE = *OF_BLOCKS, RST_STREAM, GOAWAY
GOAWAY_SIZE, SETTING_SIZE, NUMBER_SIZE, PRIORITY_SIZE, PING_SIZE = 8, 6, 4, 5, 8


@kernel
def is_possible(kind, length, number):
    """Whether a frame has a stream and a length as its type wants it."""
    if kind in OF_NO_STREAM:
        return number == 0
    if kind == PING:
        return number == 0 and length == PING_SIZE
    if kind == WINDOW_UPDATE:
        return length == NUMBER_SIZE
    if kind == RST_STREAM:
        return number > 0 and length == NUMBER_SIZE
    if kind == PRIORITY:
        return number > 0 and length == PRIORITY_SIZE
    return kind >= KINDS or number > 0


@kernel
def is_plausible(octets, at):
    """Whether a frame probably begins here."""
    length = read_u16(octets, at) << 8 | read_u8(octets, at + 2)
    kind, flags = read_u8(octets, at + 3), read_u8(octets, at + 4)
    if kind >= KINDS or flags & ~FLAGS[kind] or length > MOST_PLAUSIBLE:
        return False
    return is_possible(kind, length, read_u32(octets, at + 5) & NUMBERS)


@kernel
def begins(octets, at, end):
    """Whether a frame begins here, and another one behind it, if that can be seen."""
    if end - at < HEAD or not is_plausible(octets, at):
        return False
    following = at + HEAD + (read_u16(octets, at) << 8 | read_u8(octets, at + 2))
    return end - following < HEAD or is_plausible(octets, following)


@kernel
def begin_frame(direction, octets, at, time):
    """Take a head. Return False where it is none."""
    direction.length = read_u16(octets, at) << 8 | read_u8(octets, at + 2)
    direction.kind, direction.frame_flags = read_u8(octets, at + 3), read_u8(octets, at + 4)
    direction.number = read_u32(octets, at + 5) & NUMBERS
    direction.time = time
    direction.cut = direction.begun = 0
    direction.in_frame = 1
    direction.left = direction.length
    direction.data_left = -1 if direction.frame_flags & PADDED else direction.length
    if direction.kind < KINDS:
        direction.known = 1
    return direction.known > 0 and is_possible(
        np.int64(direction.kind), np.int64(direction.length), np.int64(direction.number)
    )


# --------------------------------------------------------------------------------------- blocks


@kernel
def end_block(f, connection, side, octets, at, length):
    """A block is whole. Return False where it is none."""
    row = 2 * connection + side
    direction = f.directions[np.uint64(row)]
    direction.in_block = 0
    promised = skipped = np.int64(0)
    if direction.block_kind == PUSH_PROMISE:
        skipped = min(length, NUMBER_SIZE)
        for index in range(skipped):
            promised = promised << 8 | read_u8(octets, at + index)
    has_fields = not direction.block_cut
    if not has_fields:
        clear(f, f.tables[np.uint64(row)], MOST_TABLE)
    else:
        if not direction.has_read and not f.directions[np.uint64(2 * connection)].was_begin:
            clear(f, f.tables[np.uint64(row)], MOST_TABLE)
        of = f.connections[np.uint64(connection)]
        most = min(np.int64(of.credit), MOST_LISTED)
        if not read_block(f, row, octets, at + skipped, at + length, most):
            return False
        of.credit -= f.found[0].used
        direction.has_read = 1
        of.understood = 1
    if direction.block_kind == PUSH_PROMISE:
        take_promise(
            f, connection, side, promised & NUMBERS, has_fields, direction.block_time,
            HEAD + direction.block_length,
        )  # fmt: skip
    else:
        take_fields(
            f, connection, side, direction.block_number, np.int64(direction.block_flags),
            has_fields, length,
        )  # fmt: skip
    return True


@kernel
def begin_block(f, connection, direction, octets, at, length):
    """Take the head of HEADERS or PUSH_PROMISE; return where the fields begin and end, BAD and
    nothing where there are none.
    """
    begin, end = np.int64(0), length
    if direction.frame_flags & PADDED:
        begin, end = np.int64(1), length - (read_u8(octets, at) if length else 0)
    if direction.frame_flags & WITH_PRIORITY and direction.kind == HEADERS:
        begin += PRIORITY_SIZE
    if begin > end and not direction.cut:
        return np.int64(BAD), np.int64(0)
    if direction.kind == HEADERS:  # is there from now on, also if more frames come
        open_stream(f, connection, direction.number)
    direction.in_block = 1
    direction.block_kind, direction.block_flags = direction.kind, direction.frame_flags
    direction.block_number, direction.block_time = direction.number, direction.time
    direction.block_length, direction.block_cut = direction.length, direction.cut
    begin = min(begin, length)
    return begin, max(begin, end)


@kernel
def add_to_block(f, connection, side, octets, at, length):
    """Take octets of a block, that are the last ones if the frame says so."""
    row = 2 * connection + side
    direction = f.directions[np.uint64(row)]
    buffer = direction_buffer(f, row, BLOCK)
    ends = direction.frame_flags & END_HEADERS
    if not ends or buffer.kept > 0:
        if keep_of_direction(f, row, BLOCK, octets, at, length) < length:
            direction.block_cut = 1
        octets, length = f.arena.octets, np.int64(buffer.kept)
        at = buffer.at % len(octets)
    if not ends:
        return True
    empty_direction(f, row, BLOCK)
    return end_block(f, connection, side, octets, at, length)


@kernel
def take_block(f, connection, side, octets, at, length):
    """Take the payload of HEADERS, PUSH_PROMISE or CONTINUATION. Return False where it is none."""
    direction = f.directions[np.uint64(2 * connection + side)]
    begin, end = np.int64(0), length
    if direction.kind != CONTINUATION:
        begin, end = begin_block(f, connection, direction, octets, at, length)
        if begin == BAD:
            return False
    elif direction.in_block and direction.block_number == direction.number:
        direction.block_cut |= direction.cut
    else:  # its begin was lost
        return f.connections[np.uint64(connection)].understood > 0
    return add_to_block(f, connection, side, octets, at + begin, end - begin)


# --------------------------------------------------------------------------------------- frames


@kernel
def take_frame(f, connection, side, octets, at, length, time):
    """A frame is whole; octets[at:][:length]: its payload, nothing of DATA. Return False where it
    makes no sense.
    """
    direction = f.directions[np.uint64(2 * connection + side)]
    direction.in_frame = 0
    kind = direction.kind
    if direction.in_block and kind != CONTINUATION:
        return False
    is_good = True
    if kind in OF_BLOCKS:
        is_good = take_block(f, connection, side, octets, at, length)
    elif kind == SETTINGS:
        is_good = direction.length % SETTING_SIZE == 0
        f.connections[np.uint64(connection)].understood |= direction.was_begin
    elif kind == GOAWAY and length >= GOAWAY_SIZE and not direction.cut:
        last, code = read_u32(octets, at) & NUMBERS, read_u32(octets, at + 4)
        go_away(f, connection, side, last, code)
    if not is_good:
        return False
    if kind in OF_STREAMS:
        slot = find_stream(f, connection, direction.number)
        if slot != NOBODY:
            if kind == RST_STREAM and not direction.cut:
                reset(f, connection, side, slot, read_u32(octets, at))
            end_frame(f, slot, side, direction, time)
            if not direction.in_block:
                finish_if_over(f, connection, slot)
    return True


@kernel
def take_data_frame(f, connection, side, octets, at, length):
    """Take the next octets of a DATA frame."""
    direction = f.directions[np.uint64(2 * connection + side)]
    if length == 0:
        return
    if direction.data_left < 0:
        direction.data_left = max(0, direction.length - 1 - read_u8(octets, at))
        at += 1
        length -= 1
    length = min(length, direction.data_left)
    direction.data_left -= length
    if length > 0:
        frame = np.int64(0 if direction.begun else direction.length)
        if take_body(f, connection, side, direction.number, octets, at, length, frame):
            direction.begun = 1


@kernel
def take_payload(f, connection, side, octets, at, length, time):
    """Take the next octets of a frame. Return False where it makes no sense."""
    row = 2 * connection + side
    direction = f.directions[np.uint64(row)]
    direction.left -= length
    if direction.kind == DATA:
        take_data_frame(f, connection, side, octets, at, length)
        length = np.int64(0)
    elif direction.kind in READ_WHOLE:
        if length < direction.length or length > MOST_KEPT:
            keep_of_direction(f, row, PAYLOAD, octets, at, length)
            buffer = direction_buffer(f, row, PAYLOAD)
            octets, length = f.arena.octets, np.int64(buffer.kept)
            at = buffer.at % len(octets)
        if direction.left == 0:
            empty_direction(f, row, PAYLOAD)
            if length < direction.length:
                direction.cut = 1
    return direction.left > 0 or take_frame(f, connection, side, octets, at, length, time)


@kernel
def skip_preface(direction, octets, at, end):
    """Return the position behind what there is of the preface, or NOBODY if it ends otherwise."""
    begun = np.int64(direction.preface)
    common = min(len(PREFACE_OCTETS) - begun, end - at)
    for index in range(common):
        if read_u8(octets, at + index) != PREFACE_OCTETS[begun + index]:
            direction.preface = NOBODY
            return np.int64(NOBODY) if direction.was_begin else at
    direction.was_begin = 1
    direction.preface = begun + common
    if direction.preface == len(PREFACE_OCTETS):
        direction.preface = NOBODY
    return at + common


@kernel
def take_head(f, row, octets, at, end, time):
    """Take octets of a frame's head; return the position behind them, NOBODY where it is none."""
    direction = f.directions[np.uint64(row)]
    if direction.head == 0 and end - at >= HEAD:
        return at + HEAD if begin_frame(direction, octets, at, time) else np.int64(NOBODY)
    if direction.head == 0:
        direction.time = time
    head = f.heads[np.uint64(row)]
    while at < end and direction.head < HEAD:
        head[np.uint64(direction.head)] = read_u8(octets, at)
        direction.head += 1
        at += 1
    if direction.head == HEAD:
        direction.head = 0
        if not begin_frame(direction, head, 0, direction.time):
            return np.int64(NOBODY)
    return at


# -------------------------------------------------------------------------------------- segments


@kernel
def is_whole(direction):
    """Whether the frame under way only has to be taken."""
    return direction.in_frame > 0 and direction.left == 0


@kernel
def take_octets(f, connection, side, segment, octets):
    """Take the octets of a segment, none of a gap. Return the position behind what is done, NOBODY
    where they are no frames.
    """
    row = 2 * connection + side
    direction = f.directions[np.uint64(row)]
    at, time = np.int64(segment.position), np.int64(segment.timestamp)
    end = at + (segment.length if segment.kind == DATA_SEGMENT else 0)
    of = f.connections[np.uint64(connection)]
    of.credit = min(of.credit + CREDIT * (end - at), MOST_CREDIT)
    if at < end and direction.preface >= 0:
        at = skip_preface(direction, octets, at, end)
        if at == NOBODY:
            return at
    if at < end and direction.seeking:
        if not begins(octets, at, end):
            return end
        direction.seeking = 0
    while (at < end or is_whole(direction)) and has_room(f):
        sweep(f)
        if not direction.in_frame:
            at = take_head(f, row, octets, at, end, time)
            if at == NOBODY:
                return at
        if direction.in_frame:
            taken = min(direction.left, end - at)
            if not take_payload(f, connection, side, octets, at, taken, time):
                return np.int64(NOBODY)
            at += taken
    return at


@cold_kernel
def lose_place(f, connection, side):
    """Where the next frame begins is not known."""
    row = 2 * connection + side
    direction = f.directions[np.uint64(row)]
    if direction.seeking:
        return
    direction.seeking = 1
    direction.in_frame = direction.head = direction.in_block = 0
    empty_direction(f, row, PAYLOAD)
    empty_direction(f, row, BLOCK)
    clear(f, f.tables[np.uint64(row)], MOST_TABLE)
    lose_frames(f, connection, side)


@cold_kernel
def take_gap(f, connection, side, missing):
    """So many octets are missing, 0 for not known.

    Inside of a frame its end is still known. Else the next segment that begins as a frame does is
    believed.
    """
    direction = f.directions[np.uint64(2 * connection + side)]
    direction.preface = NOBODY
    if not direction.in_frame or not 0 < missing <= direction.left:
        lose_place(f, connection, side)
        return
    direction.cut = 1
    direction.left -= missing
    if direction.kind == DATA:
        lost = missing if direction.data_left < 0 else min(missing, direction.data_left)
        direction.data_left = max(0, direction.data_left - lost)
        lose_body(f, connection, side, direction.number, lost)


@cold_kernel
def end_connection(f, flow):
    """The stream of packets is over, or not read any more."""
    connection = np.int64(flow.connection)
    flow.connection = NOBODY
    if connection == NOBODY:
        return
    finish_all(f, connection)
    for side in range(2):
        row = 2 * connection + side
        empty_direction(f, row, PAYLOAD)
        empty_direction(f, row, BLOCK)
        clear(f, f.tables[np.uint64(row)], SMALL_TABLE)
    totals = f.totals[0]
    f.free_connections[np.uint64(totals.free_connection)] = connection
    totals.free_connection += 1


@cold_kernel
def fail(f, flow):
    """What was said makes no sense: read no more of it."""
    row = f.connections[np.uint64(flow.connection)]
    add_failed(f, flow.stream, BROKEN if row.understood else REFUSED)
    end_connection(f, flow)


@cold_kernel
def begin_connection(f, flow, segment, marks):
    """Only who the client is is known of a new stream of packets."""
    totals = f.totals[0]
    flow.stream = segment.stream
    if totals.free_connection > 0:
        totals.free_connection -= 1
        connection = np.int64(f.free_connections[np.uint64(totals.free_connection)])
    elif totals.top_connection < len(f.connections):
        connection = np.int64(totals.top_connection)
        totals.top_connection += 1
    else:
        totals.lost += 1
        add_failed(f, segment.stream, BROKEN)
        return
    flow.connection = connection
    row = f.connections[np.uint64(connection)]
    row.stream = segment.stream
    row.bodies = row.highest = row.closed = row.open = 0
    row.first = row.last = NOBODY
    row.client = CLIENT
    row.credit = MOST_CREDIT
    row.direction = (segment.direction ^ (marks & IS_SERVER)) & 1
    row.understood = 0
    for side in range(2):
        direction = f.directions[np.uint64(2 * connection + side)]
        direction.preface = 0 if side == CLIENT else NOBODY
        direction.in_frame = direction.head = direction.seeking = direction.known = 0
        direction.was_begin = direction.in_block = direction.has_read = 0
        table = f.tables[np.uint64(2 * connection + side)]
        table.slot, table.large = 2 * connection + side, NOBODY
        clear(f, table, SMALL_TABLE)
    if marks & OTHER_MISSED:
        take_gap(f, connection, 1 - (marks & IS_SERVER), 0)


@kernel
def take_segment(f, segment, marks, frames, held):
    """Return whether the segment is done; if not, there is no room and it is shortened."""
    if not has_room(f):
        return False
    flow = f.flows[np.uint64(segment.direction >> 1)]
    if flow.stream != segment.stream:
        end_connection(f, flow)
        flow.stream = NOBODY
        if segment.kind == OPENED or segment.kind == ENDED:
            return True
        begin_connection(f, flow, segment, marks)
    connection, side = np.int64(flow.connection), marks & IS_SERVER
    if connection == NOBODY:
        return True
    if segment.kind == GAP:
        take_gap(f, connection, side, np.int64(segment.length))
    if segment.kind == GAP or segment.kind == DATA_SEGMENT:
        octets = held if segment.place == IN_HELD else frames
        at = take_octets(f, connection, side, segment, octets)
        if at == NOBODY:
            fail(f, flow)
        elif segment.kind == DATA_SEGMENT:
            segment.length -= at - segment.position
            segment.position = at
            return segment.length == 0
    elif segment.kind == ENDED:
        end_connection(f, flow)
    return True


@kernel
def take_segments(f, segments, marks, row, frames, held):
    """Take segments[row:], whose marks are as in dissector.FOUND; return the row of the next one.
    When that is before their end, something is full: use up `finished` and `failed`, and call
    again.
    """
    totals = f.totals[0]
    for index in range(totals.finished):
        free_slot(f, np.int64(f.finished[np.uint64(index)]))
    totals.finished = totals.failed = 0
    if is_full(f):
        let_go(f)
    while row < len(segments) and take_segment(
        f, segments[np.uint64(row)], np.int64(marks[np.uint64(row)]), frames, held
    ):
        row += 1
    return row
