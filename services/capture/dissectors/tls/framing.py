# mypy: ignore-errors
"""From rows of stream octets to records, and from records to handshake messages (RFC 8446, 5.1, 4).

A message may lie in many records and a record in many segments, and a record may hold many
messages: each of a side's two states says what its octets are still part of. Of messages, only the
octets of those are kept that entries show. Functions that return a truth return False for what TLS
never says.
"""

import numpy as np

from services.capture.dissectors.arena import keep
from services.capture.dissectors.dissector import IS_SERVER, OTHER_MISSED
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.dissectors.tls.exchange import (
    finish,
    settle,
    take_alert,
    take_change_cipher,
    take_message,
    take_old_answer,
    take_old_hello,
)
from services.capture.dissectors.tls.names import SSL2
from services.capture.dissectors.tls.rows import (
    BROKEN,
    IS_OVER,
    NOBODY,
    REFUSED,
    add_failed,
    has_room,
    side_row,
)
from services.capture.dissectors.tls.wire import (
    ALERT,
    ALERT_OCTETS,
    APPLICATION_DATA,
    CERTIFICATE,
    CHANGE_CIPHER_SPEC,
    CLIENT_HELLO,
    HANDSHAKE,
    HEAD,
    LAST_TYPE,
    LONGEST_MESSAGE,
    LONGEST_RECORD,
    MESSAGE_HEAD,
    OLD_HEAD,
    OLD_LENGTH,
    SERVER_HELLO,
    TYPES,
)
from services.capture.kernel import cold_kernel, kernel, read_u8, read_u16
from services.capture.reassembly import DATA, ENDED, GAP, IN_HELD, OPENED

KEPT = (CLIENT_HELLO, SERVER_HELLO, CERTIFICATE)
MOST_KEPT = LONGEST_MESSAGE - MESSAGE_HEAD
MOST_ONE_SIDED = 1 << 20  # octets after which an answer that was never seen is not waited for


@kernel
def is_record_head(head):
    """Whether five octets, as a number, can begin a record."""
    kind, minor = head >> 32, head >> 16 & 0xFF
    return (
        CHANGE_CIPHER_SPEC <= kind <= LAST_TYPE
        and head >> 24 & 0xFF == 3
        and minor <= 4
        and head & 0xFFFF <= LONGEST_RECORD
    )


@kernel
def end_messages(f, flow, number, side, time):
    """No more handshake messages can be read of a side: take what there is of the last one."""
    mine = side_row(f, number, side)
    good = True
    if mine.message_left > 0:
        mine.cut = 1
        good = take_message(f, flow, number, side, time)
    mine.message_read = mine.message_head = 0
    mine.lost = 1
    return good


@kernel
def take_message_head(f, flow, number, side, octets, position, end, time):
    """Take octets of a message's head. Return (whether they make sense, position after them)."""
    mine = side_row(f, number, side)
    while position < end and mine.message_read < MESSAGE_HEAD:
        mine.message_head = mine.message_head << 8 | read_u8(octets, position)
        mine.message_read += 1
        position += 1
    if mine.message_read < MESSAGE_HEAD:
        return True, position
    if mine.doubtful and mine.message_head >> 24 not in TYPES:
        return end_messages(f, flow, number, side, time), position
    mine.message_left = mine.message_head & 0xFFFFFF
    if mine.message_left == 0:
        return take_message(f, flow, number, side, time), position
    return True, position


@kernel
def take_handshake(f, flow, number, side, octets, position, end, time):
    """Take octets of handshake messages."""
    mine = side_row(f, number, side)
    while position < end and not mine.lost and not flow.over:
        if mine.message_read < MESSAGE_HEAD:
            good, position = take_message_head(f, flow, number, side, octets, position, end, time)
            if not good:
                return False
            continue
        taken = min(np.int64(mine.message_left), end - position)
        kind = mine.message_head >> 24
        if kind in KEPT:
            room = MOST_KEPT - mine.kept
            most = min(mine.message_head & 0xFFFFFF, MOST_KEPT)
            keep(f.arena, mine, octets, position, taken, most)
            mine.cut |= 1 if taken > room else 0
        position += taken
        mine.message_left -= taken
        if mine.message_left == 0 and not take_message(f, flow, number, side, time):
            return False
    return True


@kernel
def take_alert_octets(f, flow, number, side, octets, position, end, time):
    """Take octets of an alert that is not encrypted."""
    mine = side_row(f, number, side)
    while position < end and not flow.over:
        octet = read_u8(octets, position)
        position += 1
        if mine.alert_read == 0:
            mine.alert_level, mine.alert_read = octet, 1
        else:
            mine.alert_read = 0
            if not take_alert(f, flow, number, side, octet, time):
                return False
    return True


@kernel
def take_content(f, flow, number, side, octets, position, end, time):
    """Take octets of a record's content."""
    mine = side_row(f, number, side)
    kind = mine.record_type
    if kind == HANDSHAKE:
        if not mine.encrypted:
            return take_handshake(f, flow, number, side, octets, position, end, time)
    elif kind == APPLICATION_DATA:
        mine.encrypted = 1
        settle(f, flow, number)
    elif kind == CHANGE_CIPHER_SPEC:
        take_change_cipher(f, flow, number, side, time)
    elif kind == ALERT and mine.record_length == ALERT_OCTETS:
        return take_alert_octets(f, flow, number, side, octets, position, end, time)
    return True


@kernel
def take_record_head(mine, octets, position, end):
    """Take octets of a record's head. Return (whether they make sense, position after them)."""
    while position < end and mine.record_read < HEAD:
        mine.record_head = mine.record_head << 8 | read_u8(octets, position)
        mine.record_read += 1
        mine.octets += 1
        position += 1
    if mine.record_read < HEAD:
        return True, position
    head = mine.record_head
    mine.record_head = mine.record_read = mine.alert_read = 0
    mine.record_type = head >> 32
    mine.record_length = mine.record_left = head & 0xFFFF
    return is_record_head(head), position


@kernel
def may_begin_record(octets, position, end):
    """Whether a record's head stands here, all of it."""
    if end - position < HEAD:
        return False
    head = read_u8(octets, position) << 32 | read_u16(octets, position + 1) << 16
    return is_record_head(head | read_u16(octets, position + 3))


@kernel
def take_records(f, flow, number, side, octets, position, end, time):
    """Take what a side says."""
    mine = side_row(f, number, side)
    if mine.seeking:
        if not may_begin_record(octets, position, end):
            return True
        mine.seeking = 0
    while position < end and not flow.over:
        if mine.record_left == 0:
            good, position = take_record_head(mine, octets, position, end)
            if not good:
                return False
            continue
        taken = min(np.int64(mine.record_left), end - position)
        mine.record_left -= taken
        mine.octets += taken
        if not take_content(f, flow, number, side, octets, position, position + taken, time):
            return False
        position += taken
    return True


@cold_kernel
def take_old(f, flow, number, octets, position, end, time):
    """Take octets of a hello in the form of SSL 2.0 (RFC 5246, E.2). Return (whether they make
    sense, position after them).
    """
    mine = side_row(f, number, CLIENT)
    while position < end and flow.old_read < OLD_HEAD:
        flow.old_head = flow.old_head << 8 | read_u8(octets, position)
        flow.old_read += 1
        position += 1
        if flow.old_read == OLD_HEAD:
            flow.old_left = (flow.old_head >> 8 & OLD_LENGTH) - 1
            if flow.old_head & 0xFF != CLIENT_HELLO or flow.old_left <= 0:
                return False, position
    if flow.old_read < OLD_HEAD:
        return True, position
    taken = min(np.int64(flow.old_left), end - position)
    keep(f.arena, mine, octets, position, taken, OLD_LENGTH)
    flow.old_left -= taken
    return flow.old_left > 0 or take_old_hello(f, flow, number, time), position + taken


@kernel
def begin_side(flow, mine, client, side, first, time):
    """A side says something for the first time: by its first octet, perhaps as SSL 2.0 has it."""
    mine.begun = 1
    mine.begin = mine.end = time
    if flow.old_left > 0:  # the server does not answer half a hello
        client.kept = client.room = client.cut = 0
    flow.old_left = OLD_HEAD if side == CLIENT and first >= 0x80 and not mine.has_gap else 0


@kernel
def take_data(f, flow, number, side, octets, position, end, time):
    """Take the octets of a segment."""
    if position >= end:
        return True
    mine = side_row(f, number, side)
    if not mine.begun:
        client = side_row(f, number, CLIENT)
        begin_side(flow, mine, client, side, read_u8(octets, position), time)
        if flow.old_version == SSL2 and side == SERVER:
            take_old_answer(f, flow, number, end - position, time)
            return True
    if side == CLIENT and flow.old_left > 0:
        good, position = take_old(f, flow, number, octets, position, end, time)
        if not good:
            return False
    if not take_records(f, flow, number, side, octets, position, end, time):
        return False
    if mine.octets > MOST_ONE_SIDED:
        finish(f, flow, number)
    return True


@kernel
def skip_messages(f, flow, number, side, missing, time):
    """So many octets of handshake messages are missing, 0 for not known: of the message under way
    there is what came before.
    """
    mine = side_row(f, number, side)
    if mine.lost:
        return True
    if mine.message_read < MESSAGE_HEAD or not 0 < missing <= mine.message_left:
        good = end_messages(f, flow, number, side, time)
        # What comes next, if not inside of this record, begins a record, and mostly a message.
        mine.doubtful, mine.lost = 1, 1 if missing > 0 else 0
        return good
    mine.cut = 1
    mine.message_left -= missing
    return mine.message_left > 0 or take_message(f, flow, number, side, time)


@kernel
def lose(f, flow, number, side, missing, time):
    """Octets are missing in which handshake messages may have been."""
    mine = side_row(f, number, side)
    if mine.encrypted:
        return True
    if side != flow.asked_by and mine.told.is_there and not flow.answered:
        mine.lacks = 1
    return skip_messages(f, flow, number, side, missing, time)


@cold_kernel
def take_gap(f, flow, number, side, missing, time):
    """So many octets of a side are missing, 0 for not known. Inside of a record its end is still
    known; else the next segment that begins as a record does is believed.
    """
    mine = side_row(f, number, side)
    mine.has_gap = 1
    if side == CLIENT and flow.old_left > 0:
        return False
    if mine.seeking:
        return True
    if 0 < missing <= mine.record_left:
        mine.record_left -= missing
        return mine.record_type != HANDSHAKE or lose(f, flow, number, side, missing, time)
    good = lose(f, flow, number, side, 0, time)
    mine.record_head = mine.record_read = mine.record_left = 0
    mine.seeking = 1
    return good


@cold_kernel
def end_flow(f, flow, number, time):
    """The stream is over, or not read any more: tell what was seen of the handshake."""
    if flow.understood and not flow.over:
        for side in range(2):
            if not side_row(f, number, side).encrypted and not flow.over:
                end_messages(f, flow, number, side, time)
        finish(f, flow, number)
    flow.over = 1


@kernel
def begin_flow(f, flow, number, segment, side):
    """Nothing is known of a new stream."""
    for each in range(2):
        f.sides[np.uint64(2 * number + each)] = f.nothing[np.uint64(0)]
    flow.stream = segment.stream
    flow.old_head = flow.old_left = flow.old_read = flow.old_version = flow.version = 0
    flow.problem = flow.problem_alert = flow.chosen = flow.answered = 0
    flow.understood = flow.over = 0
    flow.asked_by = NOBODY
    flow.client = segment.direction & 1 ^ side


@kernel
def take_segment(f, segment, marks, frames, held):
    """Take a row of a stream."""
    number, side, time = np.int64(segment.direction) >> 1, marks & IS_SERVER, segment.timestamp
    flow = f.flows[np.uint64(number)]
    if flow.stream != segment.stream:
        end_flow(f, flow, number, time)
        if segment.kind == OPENED:  # the next stream, which may be of any protocol
            return
        begin_flow(f, flow, number, segment, side)
    if flow.over:
        return
    good = True
    if marks & OTHER_MISSED:
        good = take_gap(f, flow, number, side ^ 1, 0, time)
    if segment.kind == DATA:
        begin, end = segment.position, segment.position + segment.length
        octets = held if segment.place == IN_HELD else frames
        good = good and take_data(f, flow, number, side, octets, begin, end, time)
    elif segment.kind == GAP:
        good = good and take_gap(f, flow, number, side, np.int64(segment.length), time)
    elif segment.kind == ENDED:
        end_flow(f, flow, number, time)
        return
    if not good:
        add_failed(f, flow, BROKEN if flow.understood else REFUSED)
        end_flow(f, flow, number, time)
    elif flow.over:
        add_failed(f, flow, IS_OVER)


@kernel
def frame_segments(f, segments, marks, row, frames, held):
    """Take segments[row:], whose marks are as in dissector.FOUND; return the row of the next one.
    When that is before their end, calls are full: use them up and call again.
    """
    totals = f.totals[0]
    totals.calls = totals.failed = 0
    while row < len(segments) and has_room(f):
        take_segment(
            f, segments[np.uint64(row)], np.int64(marks[np.uint64(row)]), frames, held
        )  # fmt: skip
        row += 1
    return row
