# mypy: ignore-errors
"""The streams of a connection: what both sides say in each, and how it ends."""

import numpy as np

from services.capture.dissectors.http2 import messages
from services.capture.dissectors.http2.fields import begin_hot, copy_hot
from services.capture.dissectors.http2.frames import (
    CONTINUATION,
    END_STREAM,
    HEAD,
    RST_STREAM,
)
from services.capture.dissectors.http2.rows import (
    ANSWER_LOST,
    BODY,
    FIELDS,
    GIVEN_UP,
    GRPC_TYPE,
    LEFT_BY_CLIENT,
    LEFT_BY_SERVER,
    MOST_BODIES,
    MOST_CLOSED,
    MOST_STREAMS,
    NO_ANSWER,
    NO_END,
    NO_REQUEST,
    NO_TYPE,
    NOBODY,
    NOTHING,
    OF_HALF,
    REQUEST_CUT,
    RESET_BY_CLIENT,
    RESET_BY_SERVER,
    RESPONSE_CUT,
    SCRATCH,
    TRAILERS,
    empty_half,
    half_buffer,
    keep_of_half,
)
from services.capture.kernel import cold_kernel, kernel

NO_ERROR = 0
SOME_STREAMS = 256  # that are let go at once when there are too many
NUMBERS = 0x7FFFFFFF  # bits of the number of a stream


@kernel
def half_of(f, slot, side):
    """Return what a side says in a stream."""
    return f.halves[np.uint64(2 * slot + side)]


@kernel
def bucket_of(f, connection, number):
    """Return the bucket of a stream. The multiplier is odd, below 2^31 and nobody's to guess."""
    key = (np.int64(number) + np.int64(connection) * 0x10001) & NUMBERS
    mixed = key * f.totals[0].multiplier >> 16
    return np.uint64(mixed & (len(f.buckets) - 1))


@kernel
def find_stream(f, connection, number):
    """Return the row of an open stream, or NOBODY."""
    slot = np.int64(f.buckets[bucket_of(f, connection, number)]) - 1
    while slot >= 0:
        stream = f.streams[np.uint64(slot)]
        if stream.number == number and stream.connection == connection:
            return slot
        slot = np.int64(stream.chain)
    return np.int64(NOBODY)


@kernel
def was_told(f, connection, number):
    """Whether a stream of this number was told of; all but the last ones are forgotten."""
    row = f.connections[np.uint64(connection)]
    if row.closed == 0 or number > row.highest:
        return False
    for index in range(min(np.int64(row.closed), MOST_CLOSED)):
        if f.closed[np.uint64(connection), np.uint64(index)] == number:
            return True
    return False


@kernel
def begin_half(half):
    """Nothing was said."""
    half.begin = half.end = half.frames_size = half.headers_size = half.body_size = 0
    half.messages = half.compressed = half.left = half.message_head = 0
    half.head = half.lost = half.was_lost = half.has_fields = half.has_status = 0
    half.over = half.cut = half.body_cut = 0
    begin_hot(half)


@kernel
def new_slot(f):
    """Return a row that is no stream's, NOBODY if there is none."""
    totals = f.totals[0]
    if totals.free > 0:
        totals.free -= 1
        return np.int64(f.free_streams[np.uint64(totals.free)])
    if totals.top < len(f.streams):
        totals.top += 1
        return np.int64(totals.top - 1)
    totals.lost += 1
    return np.int64(NOBODY)


@kernel
def open_stream(f, connection, number):
    """Return the row of an open stream, or of a new one; NOBODY for one that was told of."""
    slot = find_stream(f, connection, number)
    return slot if slot != NOBODY else new_stream(f, connection, number)


@cold_kernel
def new_stream(f, connection, number):
    """Return the row of a stream that is not open, as open_stream does."""
    if was_told(f, connection, number):
        return np.int64(NOBODY)
    row = f.connections[np.uint64(connection)]
    if row.open >= MOST_STREAMS:
        finish(f, connection, np.int64(row.first), GIVEN_UP)
    slot = new_slot(f)
    if slot == NOBODY:
        return slot
    stream = f.streams[np.uint64(slot)]
    stream.number, stream.connection = number, connection
    stream.is_open = 1
    stream.pushed = 0
    stream.lacks = NOTHING
    stream.code = 0
    begin_half(half_of(f, slot, 0))
    begin_half(half_of(f, slot, 1))
    stream.before, stream.after = row.last, NOBODY
    if row.last == NOBODY:
        row.first = slot
    else:
        f.streams[np.uint64(row.last)].after = slot
    row.last = slot
    row.open += 1
    bucket = bucket_of(f, connection, number)
    stream.chain = f.buckets[bucket] - 1
    f.buckets[bucket] = slot + 1
    return slot


@kernel
def unlink(f, connection, slot):
    """The stream is not open any more."""
    row = f.connections[np.uint64(connection)]
    stream = f.streams[np.uint64(slot)]
    if stream.before == NOBODY:
        row.first = stream.after
    else:
        f.streams[np.uint64(stream.before)].after = stream.after
    if stream.after == NOBODY:
        row.last = stream.before
    else:
        f.streams[np.uint64(stream.after)].before = stream.before
    row.open -= 1
    stream.is_open = 0
    for side in range(2):
        row.bodies -= half_buffer(f, 2 * slot + side, BODY).kept
    bucket = bucket_of(f, connection, stream.number)
    each = np.int64(f.buckets[bucket]) - 1
    if each == slot:
        f.buckets[bucket] = stream.chain + 1
        return
    while f.streams[np.uint64(each)].chain != slot:
        each = np.int64(f.streams[np.uint64(each)].chain)
    f.streams[np.uint64(each)].chain = stream.chain


@kernel
def free_slot(f, slot):
    """The row may be another stream's."""
    totals = f.totals[0]
    for side in range(2):
        for which in range(OF_HALF):
            empty_half(f, 2 * slot + side, which)
    f.free_streams[np.uint64(totals.free)] = slot
    totals.free += 1


@kernel
def is_there(half):
    """Whether something was said."""
    return half.has_fields > 0 or half.body_size > 0


@kernel
def is_call(f, slot):
    """Whether it is a call of gRPC; where names of fields are not known, by what they carry."""
    one, other = half_of(f, slot, 0), half_of(f, slot, 1)
    if one.content == GRPC_TYPE or other.content == GRPC_TYPE:
        return True
    if one.has_status or other.has_status:
        return True
    if one.has_fields and other.has_fields and not one.lacks_names and not other.lacks_names:
        return False
    return (
        one.content == NO_TYPE
        and other.content == NO_TYPE
        and messages.is_whole(one)
        and messages.is_whole(other)
    )


@kernel
def lack_of(asking, answering, lack):
    """Return what a call lacks that was not reset; lack: what does where nothing else is wrong."""
    if not is_there(asking):
        return np.int64(NO_REQUEST)
    if not is_there(answering):
        return np.int64(ANSWER_LOST if answering.cut else lack)
    if asking.cut or not asking.has_fields:
        return np.int64(REQUEST_CUT)
    if answering.cut or not answering.has_fields:
        return np.int64(RESPONSE_CUT)
    return np.int64(NOTHING if answering.over else lack)


@cold_kernel
def finish(f, connection, slot, lack):
    """Tell of a stream; lack: what it lacks where nothing else is wrong."""
    row = f.connections[np.uint64(connection)]
    stream = f.streams[np.uint64(slot)]
    unlink(f, connection, slot)
    f.closed[np.uint64(connection), np.uint64(row.closed % MOST_CLOSED)] = stream.number
    row.closed += 1
    row.highest = max(np.int64(row.highest), np.int64(stream.number))
    asking = half_of(f, slot, np.int64(row.client))
    answering = half_of(f, slot, 1 - np.int64(row.client))
    stream.has_request, stream.has_response = is_there(asking), is_there(answering)
    if not stream.has_request and not stream.has_response:
        free_slot(f, slot)
        return
    if lack == NO_END and not answering.has_fields:
        lack = NO_ANSWER
    if stream.lacks == NOTHING:
        stream.lacks = lack_of(asking, answering, lack)
    stream.packets = row.stream
    stream.client = row.client
    stream.direction = row.direction ^ row.client
    stream.start = asking.begin if stream.has_request else answering.begin
    stream.end = max(
        np.int64(asking.end) if stream.has_request else np.int64(answering.end),
        np.int64(answering.end) if stream.has_response else np.int64(asking.end),
    )
    stream.is_call = is_call(f, slot)
    row.understood = 1
    totals = f.totals[0]
    f.finished[np.uint64(totals.finished)] = slot
    totals.finished += 1


@cold_kernel
def finish_all(f, connection):
    """The connection is over, or what follows is not read."""
    row = f.connections[np.uint64(connection)]
    is_told = row.understood
    while row.first != NOBODY:
        slot = np.int64(row.first)
        if is_told:
            finish(f, connection, slot, NO_END)
        else:
            unlink(f, connection, slot)
            free_slot(f, slot)


@kernel
def finish_if_over(f, connection, slot):
    """Tell of a stream that is complete."""
    stream = f.streams[np.uint64(slot)]
    if stream.lacks != NOTHING or (half_of(f, slot, 0).over and half_of(f, slot, 1).over):
        finish(f, connection, slot, NOTHING)


@cold_kernel
def let_go(f):
    """There are too many streams, or they keep too much: tell of some as they are."""
    totals = f.totals[0]
    told = 0
    for _ in range(totals.top):
        totals.hand = (totals.hand + 1) % totals.top
        stream = f.streams[np.uint64(totals.hand)]
        if stream.is_open:
            finish(f, np.int64(stream.connection), np.int64(totals.hand), GIVEN_UP)
            told += 1
            if told == SOME_STREAMS:
                break


# ------------------------------------------------------------------------------- what is said


@kernel
def put_fields(f, row, which, length):
    """Keep the fields of `scratch` in a half."""
    empty_half(f, row, which)
    keep_of_half(f, row, which, f.scratch, 0, length, SCRATCH)


@kernel
def set_fields(f, row, half, has_fields):
    """The fields of a block are a half's; has_fields: whether they are known."""
    half.has_fields = 1
    found = f.found[0]
    if has_fields:
        put_fields(f, row, FIELDS, found.used)
        copy_hot(half, found)
    else:
        empty_half(f, row, FIELDS)
        begin_hot(half)


@kernel
def take_fields(f, connection, side, number, flags, has_fields, size):
    """Take the fields of a whole block, which `found` has if they are not lost; size: octets of the
    block; flags: of its first frame.
    """
    row, found = f.connections[np.uint64(connection)], f.found[0]
    says = found.says_status & 1 if side == row.client else found.says_method
    if has_fields and says:
        row.client ^= 1  # the capture began in the middle
    slot = open_stream(f, connection, number)
    if slot == NOBODY:
        return
    half = half_of(f, slot, side)
    half.headers_size += size
    if not has_fields:
        half.cut = 1
    if half.has_fields or half.body_size > 0:
        put_fields(f, 2 * slot + side, TRAILERS, found.used if has_fields else 0)
        half.has_status = found.has_status if has_fields else 0
    elif flags & END_STREAM or not has_fields or not found.interim:
        set_fields(f, 2 * slot + side, half, has_fields)
        if has_fields and found.first_is_own:  # what was lost before was not of it
            half.cut = 0


@cold_kernel
def take_promise(f, connection, side, number, has_fields, time, size):
    """A server says what it will answer, though nobody asked. time, size: of its first frame."""
    slot = open_stream(f, connection, number)
    client = np.int64(f.connections[np.uint64(connection)].client)
    if slot == NOBODY or side == client:
        return
    f.streams[np.uint64(slot)].pushed = 1
    half = half_of(f, slot, client)
    set_fields(f, 2 * slot + client, half, has_fields)
    half.over = 1
    half.cut = 0 if has_fields else 1
    half.begin = half.end = time
    half.frames_size = size


@kernel
def take_body(f, connection, side, number, octets, at, length, frame):
    """Take octets of a body, and keep them if there is room. frame: how long the frame is that
    begins here, 0 if none does. Return whether they are of a stream.
    """
    slot = open_stream(f, connection, number)
    if slot == NOBODY:
        return False
    row, half = f.connections[np.uint64(connection)], half_of(f, slot, side)
    half.body_size += length
    messages.feed(f, 2 * slot + side, half, octets, at, length, frame)
    if half.body_cut:
        return True
    wanted = min(length, max(0, MOST_BODIES - row.bodies))
    limit = np.int64(f.totals[0].body_limit)
    kept = keep_of_half(f, 2 * slot + side, BODY, octets, at, wanted, limit)
    row.bodies += kept
    if kept < length:
        half.body_cut = 1
    return True


@cold_kernel
def lose_body(f, connection, side, number, length):
    """So many octets of a body are missing."""
    slot = open_stream(f, connection, number)
    if slot != NOBODY:
        half = half_of(f, slot, side)
        half.body_size += length
        messages.skip(half, length)
        half.body_cut = half.cut = 1


@kernel
def end_frame(f, slot, side, direction, time):
    """A frame of an open stream is over."""
    kind = direction.kind
    if kind == RST_STREAM:
        return
    half = half_of(f, slot, side)
    if half.begin == 0:
        half.begin = direction.time
    half.end = time
    half.frames_size += HEAD + direction.length
    if kind != CONTINUATION and direction.frame_flags & END_STREAM:
        half.over = 1


@kernel
def reset(f, connection, side, slot, code):
    """A side lets an open stream go."""
    client = np.int64(f.connections[np.uint64(connection)].client)
    stream = f.streams[np.uint64(slot)]
    if code != NO_ERROR or not half_of(f, slot, 1 - client).over:
        stream.lacks = RESET_BY_CLIENT if side == client else RESET_BY_SERVER
        stream.code = code
    half_of(f, slot, client).over = 1


@cold_kernel
def go_away(f, connection, side, last, code):
    """A side will not take more: what the other one began after `last` was not looked at."""
    row = f.connections[np.uint64(connection)]
    parity = 0 if side == row.client else 1  # clients number their streams 1, 3, 5
    slot = np.int64(row.first)
    while slot != NOBODY:
        stream = f.streams[np.uint64(slot)]
        after = np.int64(stream.after)
        if stream.number > last and stream.number & 1 == parity:
            stream.lacks = LEFT_BY_CLIENT if side == row.client else LEFT_BY_SERVER
            stream.code = code
            finish(f, connection, slot, NOTHING)
        slot = after


@cold_kernel
def lose_frames(f, connection, side):
    """Nobody knows what a side said meanwhile."""
    slot = np.int64(f.connections[np.uint64(connection)].first)
    while slot != NOBODY:
        half = half_of(f, slot, side)
        if not half.over:
            half.cut = 1
            if half.has_fields:
                half.body_cut = 1
                messages.skip(half, 0)
        slot = np.int64(f.streams[np.uint64(slot)].after)
