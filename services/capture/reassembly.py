# mypy: ignore-errors
"""Put TCP segments in order: decoded packets in, rows of stream octets out. Called once a batch.

A direction is one half of a connection; its number is 2 * flow + direction. A SYN opens a new
stream on both directions of its flow, so one direction may carry several, one after the other.

Octets that are in order are not copied: a DATA row says where they lie in the frames. Octets that
come too early are copied into a ring (`held`), so they outlive their batch; once their turn comes
their DATA row has place IN_HELD. What a call delivers from the ring is overwritten by the next call
at the earliest, so the rows of one call are to be used up before the next.

When two segments carry the same octets, the copy seen first wins; it is counted when the other one
says something else and both can still be compared. What is missing is given up, with a GAP row,
when the receiver has acknowledged it (so the wire had it and we did not), when the ring is full,
when the direction holds too many segments, or when the stream ends.
Sequence numbers are compared modulo 2**32, as RFC 9293 section 3.4 asks.
"""

from typing import NamedTuple

import numpy as np

from services.capture.flows import (
    EVICTED,
    FIRST_EVICTED,
    LAST_EVICTED,
    NO_FLOW,
    NO_STREAM,
    ROWS_FREE,
    ROWS_USED,
    count_packet,
    end_stream,
    first_to_go,
    is_idle,
    next_idle,
    note_view,
    open_stream,
    remove_flow,
    root_of,
    settle,
    stream_row,
    take_datagram,
)
from services.capture.headers import PROTOCOL_TCP
from services.capture.kernel import copy_octets, kernel

# Kinds of row.
DATA = 0
GAP = 1  # `length` octets never came; 0 when nobody knows how many: the start was not seen
OPENED = 2  # a new stream begins on this direction, and an older one, if any, has ended
CLOSED = 3  # FIN or RST, after the last octet
ENDED = 4  # the stream is over: idle for too long, or the capture has ended

IN_FRAMES, IN_HELD = 0, 1  # places of octets

ACK, FIN, SYN, RST = 0x10, 0x01, 0x02, 0x04

# What a stream is, as far as its ports tell.
NO_HINT, DNS_HINT = 0, 1
DNS_PORT = 53

LARGEST_FRAME = 262_144  # octets; the largest that any source lets through
LATE_SYN_WINDOW = 1 << 20  # octets; a SYN this little behind what we have is of the same connection
RST_WINDOW = 1 << 20  # octets; a RST further off is not of this stream (RFC 5961, section 3)
# Further off than this are octets of another connection, whose SYN was not seen:
STREAM_JUMP = 1 << 28  # octets; no window is that large
BOTH_JUMP = 1 << 24  # octets, when what they acknowledge is as far off as that
CLOSED_JUMP = 1 << 20  # octets, after the end; nearer are those that were under way then
MOST_COMPARED = 256  # rows back, in which an octet that comes again is looked for
MOST_HELD_IN_DIRECTION = 128  # segments; bounds the walk through a direction's list
ROWS_FOR_ONE_PACKET = 4 * MOST_HELD_IN_DIRECTION + 16
SHARE_RELEASED = 8  # a full ring lets go of one eighth at a time, not of one segment a call
ACKNOWLEDGED_PATIENCE = 20_000_000  # ns; a capture may show an acknowledgement before its segment

NO_SEGMENT = -1
NO_DIRECTION = -1
NO_ROOM = -1

# fmt: off
SEGMENT = np.dtype((np.record, [
    ("timestamp", np.int64),   # nanoseconds since 1970, of the packet that brought the octets
    ("position", np.int64),    # of the octets, in their place
    ("stream", np.int64),      # number of the stream
    ("direction", np.int32),   # 2 * flow + direction
    ("length", np.int32),      # octets; 0 for OPENED, CLOSED and ENDED
    ("acknowledged", np.uint32),  # of DATA: octets of the other direction that its sender had
    ("kind", np.uint8),
    ("place", np.uint8),       # IN_FRAMES or IN_HELD
    ("has_acknowledged", np.uint8),
    ("continued", np.uint8),      # for its reader: it has taken a part of the octets before
    ("hint", np.uint8),        # NO_HINT or DNS_HINT
]))

DIRECTION = np.dtype((np.record, [
    ("stream", np.int64),      # NO_STREAM: none yet
    ("first", np.uint32),      # sequence number of the stream's first octet
    ("next", np.uint32),       # sequence number of the octet we wait for
    ("end", np.uint32),        # sequence number after the last octet; see has_end
    ("acknowledged", np.uint32),  # highest that the other side has acknowledged; see has_…
    ("first_held", np.int32),  # slot of the earliest segment held, or NO_SEGMENT
    ("held", np.int32),        # segments
    ("started", np.uint8),     # `first` and `next` are known
    ("has_end", np.uint8),     # FIN or RST seen
    ("closed", np.uint8),      # CLOSED delivered
    ("has_acknowledged", np.uint8),
    ("hint", np.uint8),
]))

HELD = np.dtype((np.record, [
    ("timestamp", np.int64),
    ("position", np.int64),    # in Reassembler.octets
    ("sequence", np.uint32),
    ("acknowledgement", np.uint32),
    ("length", np.int32),
    ("following", np.int32),   # slot of the direction's next segment, or NO_SEGMENT
    ("direction", np.int32),   # NO_DIRECTION once delivered
]))

STATE = np.dtype((np.record, [
    ("rows", np.int64),        # of this call
    ("oldest", np.int64),      # running number of the oldest segment in the ring
    ("newest", np.int64),      # and of the one that comes next
    ("write", np.int64),       # where its octets go
    ("duplicate_octets", np.int64),
    ("held_segments", np.int64),
    ("gaps", np.int64),
    ("gap_octets", np.int64),
    ("first_gap", np.int64),   # nanoseconds since 1970: of the first gap counted, and of the last
    ("last_gap", np.int64),
    ("midstream_starts", np.int64),
    ("conflicts", np.int64),   # segments that said something else than the first copy of an octet
]))
# fmt: on


class Reassembler(NamedTuple):
    """What is kept from batch to batch. Segment number n of the ring is in slot n % len(slots)."""

    directions: np.ndarray  # DIRECTION, two for each flow
    slots: np.ndarray  # HELD; a power of two long
    octets: np.ndarray  # uint8; where held segments lie, in the order they came
    state: np.ndarray  # STATE, one element


@kernel
def distance(sequence, reference):
    """How far `sequence` is after `reference`, -2**31 to 2**31 - 1."""
    return np.int64(np.int32(np.uint32(np.int64(sequence) - np.int64(reference))))


@kernel
def add_row(r, segments, direction_number, kind, position, length, place, timestamp):
    state = r.state[0]
    direction = r.directions[np.uint64(direction_number)]
    row = segments[np.uint64(state.rows)]
    row.timestamp = timestamp
    row.position = position
    row.stream = direction.stream
    row.direction = direction_number
    row.length = length
    row.kind = kind
    row.place = place
    row.hint = direction.hint
    row.has_acknowledged = row.continued = 0
    state.rows += 1


@kernel
def add_data(r, segments, direction_number, position, length, place, timestamp, acknowledgement):
    """A row for octets, and what their sender had of the other direction (modulo 2**32)."""
    add_row(r, segments, direction_number, DATA, position, length, place, timestamp)
    other = r.directions[np.uint64(direction_number ^ 1)]
    if other.started:
        row = segments[np.uint64(r.state[0].rows - 1)]
        row.acknowledged = np.uint32(np.int64(acknowledgement) - np.int64(other.first))
        row.has_acknowledged = 1


@kernel
def add_gap(r, segments, direction_number, missing, timestamp):
    """A row for octets that will not come; 0 when nobody knows how many."""
    state = r.state[0]
    add_row(r, segments, direction_number, GAP, 0, missing, IN_FRAMES, timestamp)
    if missing > 0:
        if state.gaps == 0:
            state.first_gap = timestamp
        state.last_gap = timestamp
        state.gaps += 1
        state.gap_octets += missing


@kernel
def free_first_held(r, direction):
    held = r.slots[np.uint64(direction.first_held)]
    direction.first_held = held.following
    direction.held -= 1
    held.direction = NO_DIRECTION


@kernel
def deliver_held(r, segments, direction_number):
    """Deliver held segments while they follow on what was delivered."""
    direction = r.directions[np.uint64(direction_number)]
    while direction.first_held != NO_SEGMENT:
        held = r.slots[np.uint64(direction.first_held)]
        if distance(held.sequence, direction.next) > 0:
            break
        known = distance(direction.next, held.sequence)
        length = np.int64(held.length) - known
        if length > 0:
            add_data(
                r, segments, direction_number, held.position + known, length, IN_HELD,
                held.timestamp, held.acknowledgement,
            )  # fmt: skip
            direction.next += np.uint32(length)
        free_first_held(r, direction)


@kernel
def deliver_end(r, segments, direction_number, flow, timestamp):
    """Deliver the end if all octets before it were; note in the flow when both sides have ended."""
    direction = r.directions[np.uint64(direction_number)]
    if direction.has_end and not direction.closed and distance(direction.end, direction.next) <= 0:
        direction.closed = 1
        add_row(r, segments, direction_number, CLOSED, 0, 0, IN_FRAMES, timestamp)
        if r.directions[np.uint64(direction_number ^ 1)].closed:
            flow.closed = 1


@kernel
def skip_gap(r, segments, direction_number, flow):
    """Stop waiting for what is missing before the first held segment."""
    direction = r.directions[np.uint64(direction_number)]
    held = r.slots[np.uint64(direction.first_held)]
    timestamp = held.timestamp
    add_gap(r, segments, direction_number, distance(held.sequence, direction.next), timestamp)
    direction.next = held.sequence
    deliver_held(r, segments, direction_number)
    deliver_end(r, segments, direction_number, flow, timestamp)


@kernel
def has_rows(r, segments):
    return r.state[0].rows + ROWS_FOR_ONE_PACKET <= len(segments)


@kernel
def release_until(r, segments, flows, number):
    """Let go of all segments held before segment `number` of the ring, while there are rows."""
    oldest = r.state[0].oldest
    last_slot = len(r.slots) - 1
    while oldest < number and has_rows(r, segments):
        held = r.slots[np.uint64(oldest & last_slot)]
        if held.direction == NO_DIRECTION:
            oldest += 1
        else:
            skip_gap(r, segments, held.direction, flows.rows[np.uint64(held.direction >> 1)])


@kernel
def begin_call(r):
    """Begin with no rows; forget the oldest segments of the ring that were delivered before."""
    state = r.state[0]
    state.rows = 0
    last_slot = len(r.slots) - 1
    while state.oldest < state.newest:
        if r.slots[np.uint64(state.oldest & last_slot)].direction != NO_DIRECTION:
            break
        state.oldest += 1


@kernel
def find_room(r, length):
    """Return where `length` octets fit in the ring, in one piece, or NO_ROOM."""
    state = r.state[0]
    if state.oldest == state.newest:
        return 0
    if state.newest - state.oldest == len(r.slots):
        return NO_ROOM
    oldest = r.slots[np.uint64(state.oldest & (len(r.slots) - 1))].position
    if state.write > oldest:
        if state.write + length <= len(r.octets):
            return state.write
        return 0 if length < oldest else NO_ROOM
    return state.write if state.write + length < oldest else NO_ROOM


@kernel
def differ(octets, position, others, at, length):
    """Whether octets[position:][:length] are not others[at:][:length]."""
    for index in range(length):
        if octets[np.uint64(position + index)] != others[np.uint64(at + index)]:
            return True
    return False


@kernel
def is_conflict(r, octets, segments, direction_number, sequence, position, length):
    """Whether octets that come again differ from those delivered in this call, whose rows say where
    they lie.
    """
    direction = r.directions[np.uint64(direction_number)]
    begin = distance(direction.next, sequence)  # counted back from the octet we wait for
    end = begin - length
    row, row_end = r.state[0].rows - 1, 0
    oldest = max(0, row - MOST_COMPARED)
    while row >= oldest and row_end < begin:
        known = segments[np.uint64(row)]
        row -= 1
        if known.direction != direction_number or known.length == 0:
            continue
        row_begin = row_end + np.int64(known.length)
        first, last = min(begin, row_begin), max(end, row_end)
        if known.kind == DATA and first > last:
            at = known.position + row_begin - first
            again = position + begin - first
            if known.place == IN_HELD:
                if differ(octets, again, r.octets, at, first - last):
                    return True
            elif differ(octets, again, octets, at, first - last):
                return True
        row_end = row_begin
    return False


@kernel
def hold_piece(r, octets, packet, direction_number, sequence, position, length):
    """Copy octets into the ring; return their slot, not yet in the direction's list, or NO_ROOM."""
    state = r.state[0]
    target = find_room(r, length)
    if target == NO_ROOM:
        return NO_ROOM
    slot = state.newest & (len(r.slots) - 1)
    copy_octets(octets, position, length, r.octets, target)
    held = r.slots[np.uint64(slot)]
    held.timestamp = packet.timestamp
    held.position = target
    held.sequence = np.uint32(sequence)
    held.acknowledgement = packet.acknowledgement
    held.length = length
    held.direction = direction_number
    state.newest += 1
    state.write = target + length
    state.held_segments += 1
    return slot


@kernel
def link(r, direction, previous, slot, following):
    r.slots[np.uint64(slot)].following = following
    if previous == NO_SEGMENT:
        direction.first_held = slot
    else:
        r.slots[np.uint64(previous)].following = slot
    direction.held += 1


@kernel
def hold(r, octets, packet, direction_number, sequence, position, length):
    """Hold those octets that are not yet held. False when the ring is full: hold it again later."""
    direction = r.directions[np.uint64(direction_number)]
    previous, following = NO_SEGMENT, np.int64(direction.first_held)
    while length > 0:
        piece = length
        if following != NO_SEGMENT:
            held = r.slots[np.uint64(following)]
            before = distance(held.sequence, sequence)
            if before <= 0:  # it begins first: what it has we need not hold
                known = min(length, max(0, before + np.int64(held.length)))
                if differ(octets, position, r.octets, held.position - before, known):
                    r.state[0].conflicts += 1
                sequence, position, length = sequence + known, position + known, length - known
                r.state[0].duplicate_octets += known
                previous, following = following, np.int64(held.following)
                continue
            piece = min(length, before)
        slot = hold_piece(r, octets, packet, direction_number, sequence, position, piece)
        if slot == NO_ROOM:
            return False
        link(r, direction, previous, slot, following)
        previous = slot
        sequence, position, length = sequence + piece, position + piece, length - piece
    return True


@kernel
def start(direction, first):
    direction.first = direction.next = np.uint32(first)
    direction.started = 1


@kernel
def forget_direction(r, direction):
    """Drop what the direction holds; it has no stream afterwards."""
    while direction.stream != NO_STREAM and direction.first_held != NO_SEGMENT:
        free_first_held(r, direction)
    direction.stream = NO_STREAM
    direction.first_held = NO_SEGMENT
    direction.held = direction.started = direction.has_end = direction.closed = 0
    direction.has_acknowledged = 0


@kernel
def skip_to_end(r, segments, direction_number, flow, timestamp):
    """Stop waiting for anything before the end, which was seen."""
    direction = r.directions[np.uint64(direction_number)]
    while direction.first_held != NO_SEGMENT:
        skip_gap(r, segments, direction_number, flow)
    missing = distance(direction.end, direction.next)
    if missing > 0:
        add_gap(r, segments, direction_number, missing, timestamp)
        direction.next = direction.end
    deliver_end(r, segments, direction_number, flow, timestamp)


@kernel
def release_held(r, segments, number, flow):
    """Stop waiting for what is missing on both directions of a flow, to the announced end too."""
    for direction_number in range(2 * number, 2 * number + 2):
        direction = r.directions[np.uint64(direction_number)]
        while direction.stream != NO_STREAM and direction.first_held != NO_SEGMENT:
            skip_gap(r, segments, direction_number, flow)
        if direction.stream != NO_STREAM and direction.has_end:
            skip_to_end(r, segments, direction_number, flow, flow.last_timestamp)


@kernel
def begin_stream(r, segments, packet, flow, streams, client, from_start):
    """Begin a new stream on both directions of the flow; first deliver what the old one held."""
    release_held(r, segments, np.int64(packet.flow), flow)
    open_stream(flow, streams, packet.timestamp, client, from_start)
    hint = NO_HINT
    if packet.source_port == DNS_PORT or packet.destination_port == DNS_PORT:
        hint = DNS_HINT
    for side in range(2):
        direction_number = 2 * np.int64(packet.flow) + side
        direction = r.directions[np.uint64(direction_number)]
        forget_direction(r, direction)
        direction.stream = flow.stream
        direction.hint = hint
        add_row(r, segments, direction_number, OPENED, 0, 0, IN_FRAMES, packet.timestamp)


@kernel
def is_of_this_stream(direction, first):
    """Whether a SYN whose stream would begin at `first` belongs to the stream we have."""
    if direction.stream == NO_STREAM:
        return False
    if not direction.started or np.uint32(first) == direction.first:
        return True
    return not direction.closed and 0 <= distance(direction.next, first) < LATE_SYN_WINDOW


@kernel
def is_of_another(r, packet, direction_number):
    """Whether a packet that is no SYN is of another connection with the same five-tuple."""
    direction = r.directions[np.uint64(direction_number)]
    if not direction.started:
        return False
    jump = abs(distance(packet.sequence, direction.next))
    if jump < CLOSED_JUMP:
        return False
    other = r.directions[np.uint64(direction_number ^ 1)]
    if jump >= STREAM_JUMP or (direction.closed and other.closed):
        return True
    answers = packet.tcp_flags & ACK != 0 and other.started
    other_jump = abs(distance(packet.acknowledgement, other.next)) if answers else 0
    return jump >= BOTH_JUMP and other_jump >= BOTH_JUMP


@kernel
def client_of(packet):
    """The side that most likely began a stream whose beginning was not seen: the higher port."""
    side = np.int64(packet.direction)
    return side if packet.source_port > packet.destination_port else side ^ 1


@kernel
def begin(r, segments, packet, direction_number, flow, streams):
    """Open or start what this packet begins. Return False when its octets have no stream."""
    direction = r.directions[np.uint64(direction_number)]
    if packet.tcp_flags & SYN:
        first = np.int64(packet.sequence) + 1
        if not is_of_this_stream(direction, first):
            answers = packet.tcp_flags & ACK != 0
            client = np.int64(packet.direction) ^ (1 if answers else 0)
            begin_stream(r, segments, packet, flow, streams, client, 0 if answers else 1)
        if not direction.started:
            start(direction, first)
        return True
    strayed = is_of_another(r, packet, direction_number)
    if packet.tcp_flags & RST and not direction.started and direction.stream != NO_STREAM:
        # A refused SYN: the number of this RST says nothing, what it acknowledges does.
        other = r.directions[np.uint64(direction_number ^ 1)]
        if packet.tcp_flags & ACK and packet.acknowledgement == other.next:
            start(direction, packet.sequence)
            return True
    if packet.payload_length <= 0 or packet.tcp_flags & RST:
        return direction.started and not strayed
    if strayed or direction.stream == NO_STREAM:
        begin_stream(r, segments, packet, flow, streams, client_of(packet), 0)
    if not direction.started:
        start(direction, packet.sequence)
        r.state[0].midstream_starts += 1
        add_gap(r, segments, direction_number, 0, packet.timestamp)
    return True


@kernel
def take_piece(r, segments, packet, direction_number, position, length):
    """Deliver octets that are next, up to the first held; return how many."""
    direction = r.directions[np.uint64(direction_number)]
    if direction.first_held != NO_SEGMENT:
        held = r.slots[np.uint64(direction.first_held)]
        length = min(length, distance(held.sequence, direction.next))
    add_data(
        r, segments, direction_number, position, length, IN_FRAMES, packet.timestamp,
        packet.acknowledgement,
    )  # fmt: skip
    direction.next += np.uint32(length)
    deliver_held(r, segments, direction_number)
    return length


@kernel
def take_octets(r, octets, segments, packet, direction_number, flow):
    """Deliver or hold the packet's octets. Return False when the ring is full."""
    if packet.tcp_flags & RST:
        return True  # its payload is a remark to people, not of the stream (RFC 9293, 3.5.2)
    direction = r.directions[np.uint64(direction_number)]
    sequence = np.int64(packet.sequence) + (1 if packet.tcp_flags & SYN else 0)
    position, length = packet.payload_offset, np.int64(packet.payload_length)
    while length > 0:
        ahead = distance(sequence, direction.next)
        if ahead > 0:
            if direction.held < MOST_HELD_IN_DIRECTION:
                return hold(r, octets, packet, direction_number, sequence, position, length)
            skip_gap(r, segments, direction_number, flow)
            continue
        known = min(length, -ahead)
        if known > 0 and is_conflict(
            r, octets, segments, direction_number, sequence, position, known
        ):
            r.state[0].conflicts += 1
        r.state[0].duplicate_octets += known
        sequence, position, length = sequence + known, position + known, length - known
        if length == 0:
            break
        taken = take_piece(r, segments, packet, direction_number, position, length)
        sequence, position, length = sequence + taken, position + taken, length - taken
    if packet.missing > 0 and distance(sequence, direction.next) == 0:
        add_gap(r, segments, direction_number, packet.missing, packet.timestamp)
        direction.next += np.uint32(packet.missing)
        deliver_held(r, segments, direction_number)
    return True


@kernel
def take_acknowledgement(r, segments, packet, direction_number, flow):
    """What the receiver has, it will not be sent again: do not wait for it."""
    other_number = direction_number ^ 1
    other = r.directions[np.uint64(other_number)]
    if not other.started or abs(distance(packet.acknowledgement, other.next)) >= STREAM_JUMP:
        return
    if not other.has_acknowledged or distance(packet.acknowledgement, other.acknowledged) > 0:
        other.acknowledged = packet.acknowledgement
        other.has_acknowledged = 1
    if other.has_end and not other.closed and distance(packet.acknowledgement, other.end) > 0:
        skip_to_end(r, segments, other_number, flow, packet.timestamp)
    if other.first_held == NO_SEGMENT:
        return
    held = r.slots[np.uint64(other.first_held)]
    if (
        distance(packet.acknowledgement, held.sequence) >= 0
        and packet.timestamp - held.timestamp > ACKNOWLEDGED_PATIENCE
    ):
        skip_gap(r, segments, other_number, flow)


@kernel
def is_valid_reset(packet, direction):
    """Whether the receiver of a RST would believe it: RFC 5961, section 3.2. Of what the receiver
    expects we know that it is not before what it acknowledged.
    """
    ahead = distance(packet.sequence, direction.next)
    if direction.has_acknowledged and distance(packet.sequence, direction.acknowledged) < 0:
        return False
    return -RST_WINDOW < ahead < RST_WINDOW


@kernel
def take_end(r, segments, packet, direction_number, flow):
    """A FIN ends its own direction, after the octets before it; a RST the other at once too."""
    direction = r.directions[np.uint64(direction_number)]
    other = r.directions[np.uint64(direction_number ^ 1)]
    end = packet.sequence + np.uint32(packet.payload_length) + np.uint32(packet.missing)
    if packet.tcp_flags & RST and not is_valid_reset(packet, direction):
        return
    if not direction.has_end:
        direction.has_end = 1
        direction.end = end
    if packet.tcp_flags & RST:
        if distance(direction.end, direction.next) > 0 and direction.first_held == NO_SEGMENT:
            direction.end = direction.next
        if not other.has_end:
            other.has_end = 1
            other.end = other.next
            deliver_end(r, segments, direction_number ^ 1, flow, packet.timestamp)


@kernel
def take_packet(r, octets, segments, packet, flow, streams):
    """Return False when the ring is full and the packet has to be taken again."""
    direction_number = 2 * np.int64(packet.flow) + np.int64(packet.direction)
    known = begin(r, segments, packet, direction_number, flow, streams)
    packet.stream = flow.stream
    if not known:
        return True
    if not take_octets(r, octets, segments, packet, direction_number, flow):
        return False
    if packet.tcp_flags & ACK:
        take_acknowledgement(r, segments, packet, direction_number, flow)
    if packet.tcp_flags & (FIN | RST):
        take_end(r, segments, packet, direction_number, flow)
    if r.directions[np.uint64(direction_number)].has_end:
        deliver_end(r, segments, direction_number, flow, packet.timestamp)
    return True


@kernel
def take_view(packet, flows, streams):
    """Keep with the stream what this packet, which was translated, tells of the other addresses."""
    stream = stream_row(streams, packet.stream)
    _, turned = root_of(flows, np.int64(packet.seen_flow))
    flow = flows.rows[np.uint64(packet.seen_flow)]
    came_first = packet.protocol != 0  # so with the addresses that its sender knows
    side = np.int64(packet.direction) ^ (0 if came_first else 1)
    note_view(flow, stream, turned, side, came_first)


@kernel
def reassemble(r, octets, packets, row, flows, streams, segments):
    """Take packets[row:] of a batch. Return (row of the next packet, segments filled).

    When that row is before len(packets), use the segments up and call again from it. `segments` has
    at least ROWS_FOR_ONE_PACKET rows.
    """
    begin_call(r)
    while row < len(packets) and has_rows(r, segments):
        packet = packets[np.uint64(row)]
        row += 1
        if packet.flow == NO_FLOW:
            continue
        flow = flows.rows[np.uint64(packet.flow)]
        if packet.protocol == PROTOCOL_TCP:
            if not take_packet(r, octets, segments, packet, flow, streams):
                # A ring may be full of octets with few segments; behind the newest is none.
                until = r.state[0].oldest + len(r.slots) // SHARE_RELEASED
                release_until(r, segments, flows, min(until, r.state[0].newest))
                row -= 1
                break
            count_packet(flow, packet)
            if flow.closed:
                settle(flows, np.int64(packet.flow))
        elif packet.protocol != 0:
            take_datagram(flow, streams, packet)
        else:  # a copy
            packet.stream = flow.stream
        if packet.seen_flow != packet.flow and packet.stream != NO_STREAM:
            take_view(packet, flows, streams)
    return row, r.state[0].rows


@kernel
def end_flow(r, segments, flows, streams, number):
    """End the flow's stream: deliver what it holds, say ENDED on both directions, free its row."""
    flow = flows.rows[np.uint64(number)]
    release_held(r, segments, number, flow)
    for direction_number in range(2 * number, 2 * number + 2):
        direction = r.directions[np.uint64(direction_number)]
        if direction.stream != NO_STREAM:
            add_row(r, segments, direction_number, ENDED, 0, 0, IN_FRAMES, flow.last_timestamp)
            forget_direction(r, direction)
    end_stream(flow, streams)
    remove_flow(flows, number)


@kernel
def end_idle(r, flows, streams, now, segments):
    """End the flows that are idle at `now` (nanoseconds since 1970).

    Return (whether that were all, segments filled); if not, use the segments up and call again.
    """
    begin_call(r)
    while has_rows(r, segments):
        number = next_idle(flows, now)
        if number == NO_FLOW:
            return True, r.state[0].rows
        end_flow(r, segments, flows, streams, number)
    return False, r.state[0].rows


@kernel
def end_all(r, flows, streams, number, segments):
    """End the flows from row `number` on. Return (row to go on from, segments filled); as
    reassemble, call again until the row is flows.counts[ROWS_USED].
    """
    begin_call(r)
    while number < flows.counts[ROWS_USED] and has_rows(r, segments):
        if flows.rows[np.uint64(number)].used:
            end_flow(r, segments, flows, streams, number)
        number += 1
    return number, r.state[0].rows


@kernel
def count_evicted(flows, number, now):
    """Count a flow whose stream is cut short to make room."""
    flow = flows.rows[np.uint64(number)]
    if flow.stream == NO_STREAM or flow.closed or is_idle(flows, number, now):
        return
    counts = flows.counts
    if counts[EVICTED] == 0:
        counts[FIRST_EVICTED] = flow.last_timestamp
    counts[LAST_EVICTED] = flow.last_timestamp
    counts[EVICTED] += 1


@kernel
def make_room(r, flows, streams, now, wanted, segments):
    """End flows, those first that are over first, until a full table has `wanted` free rows.

    Return (whether it has, segments filled); if not, use the segments up and call again.
    """
    begin_call(r)
    while flows.counts[ROWS_FREE] < wanted and has_rows(r, segments):
        number = first_to_go(flows)
        count_evicted(flows, number, now)
        end_flow(r, segments, flows, streams, number)
    return flows.counts[ROWS_FREE] >= wanted, r.state[0].rows


def new_segments(rows):
    """Make `rows` empty SEGMENT rows, or as many as one packet needs."""
    return np.zeros(max(rows, ROWS_FOR_ONE_PACKET), SEGMENT)


def new_reassembler(most_flows, most_held=1 << 14, held_octets=1 << 25):
    """Make an empty one; `most_held` segments (a power of two) and `held_octets` may wait at once.

    Raises ValueError when these are too small to hold what one packet may bring.
    """
    if most_held & (most_held - 1) or held_octets <= 2 * LARGEST_FRAME:
        raise ValueError("most_held must be a power of two, held_octets over two largest frames")
    return Reassembler(
        directions=np.zeros(2 * most_flows, DIRECTION),
        slots=np.zeros(most_held, HELD),
        octets=np.zeros(held_octets, np.uint8),
        state=np.zeros(1, STATE),
    )
