# mypy: ignore-errors
"""Put IP fragments together again. layers offers each fragment, pipeline what belongs to a batch.

A fragment's frame is copied into an arena, a ring in which the oldest is overwritten; its piece of
the datagram lies in it. Pieces of a datagram are kept apart and in order: the first copy of an
octet wins (RFC 815), but an IPv6 datagram with overlapping fragments is dropped (RFC 5722). The
packet whose fragment completes a datagram gets the whole payload, in `work`; the frames of the
batch are then moved behind it, so that all positions of a batch are again in one array.

Only a whole datagram tells the stream of its fragments. Those of the same batch are linked to its
packet by their `payload_offset`, those of earlier ones are yielded as `late` frames.
"""

import os
from typing import NamedTuple

import numpy as np

from services.capture.flows import mix
from services.capture.frames.batch import FRAME, MOST_FRAMES, MOST_OCTETS
from services.capture.headers import (
    DECODED,
    FRAGMENT,
    FRAGMENT_UNIT,
    MALFORMED,
    Network,
    no_network,
    skip_ipv6_extensions,
)
from services.capture.kernel import cold_kernel, copy_octets, kernel
from services.capture.timewheel import END_OF_TIME, SECOND

FRAGMENT_TIMEOUT = 30 * SECOND  # ns; Linux's ipfrag_time
COPIES_TIMEOUT = SECOND  # ns; "any" shows a fragment several times, the last after its datagram
BUCKETS, WAYS = 256, 8  # datagrams; a full bucket lets go of its oldest
MOST_PIECES = 128  # of a datagram; 64 KiB in packets of 576 octets, the smallest that IPv4 knows
LARGEST_DATAGRAM = 65_535  # octets; a fragment that would end behind that is an attack
ARENA_SIZE = 8 << 20  # octets; 128 of the largest datagrams
WORK_SIZE = 2 * ARENA_SIZE + MOST_OCTETS + (1 << 20)  # octets: datagrams, late frames, a batch
MOST_LATE = 16_384  # frames of earlier batches that may be linked in one

# int64 and not literals, for each combination of which Numba would compile a function again.
FREE, OPEN, DONE, DROPPED = np.int64([0, 1, 2, 3])
NEVER_CAME, NO_ROOM, BROKEN = np.int64([0, 1, 2])  # why a datagram was given up
REASONS = 3
UNKNOWN = -1
NO_ROW = -1
IPV4_PREFIX = np.uint64(0xFFFF)  # of the low half of an IPv4-mapped address

# fmt: off
DATAGRAM = np.dtype((np.record, [
    ("source_high", np.uint64),
    ("source_low", np.uint64),
    ("destination_high", np.uint64),
    ("destination_low", np.uint64),
    ("key", np.uint64),              # of its network, see networks.flow_key
    ("name", np.uint64),             # identification, and protocol if IPv4
    ("begun", np.int64),             # ns since 1970: first fragment; when DONE, the last
    ("lowest", np.int64),            # position in the arena of its first frame
    ("stream", np.int64),            # of a datagram that is DONE
    ("batch", np.int64),             # and the batch and row of its packet
    ("row", np.int32),
    ("length", np.int32),            # octets, or UNKNOWN until the last fragment came
    ("received", np.int32),          # octets
    ("pieces", np.int32),
    ("frames", np.int32),            # that are held
    ("seen", np.int32),              # fragments
    ("octets", np.int64),            # of their frames
    ("protocol", np.uint8),          # what the first fragment says
    ("state", np.uint8),
]))

PIECE = np.dtype((np.record, [
    ("position", np.int64),          # in the arena
    ("offset", np.int32),            # in the datagram
    ("length", np.int32),
]))

HELD_FRAME = np.dtype((np.record, [
    ("frame", FRAME),                # its offset is a position in the arena
    ("batch", np.int64),
    ("row", np.int64),
]))

STATE = np.dtype((np.record, [
    ("written", np.int64),           # octets of the arena, ever; a position is one of these
    ("batch", np.int64),             # number of this batch
    ("used", np.int64),              # datagrams that are not FREE
    ("filled", np.int64),            # octets of `work`
    ("room", np.int64),              # octets of `work` for datagrams and late frames
    ("completed", np.int64),         # rows of this batch
    ("late", np.int64),              # frames of this batch
    ("networks", np.int64),          # packets of this batch in a VLAN or tunnel
    ("given_up", np.int64, REASONS), # since somebody asked
    ("lost_frames", np.int64),
    ("lost_octets", np.int64),
    ("first_loss", np.int64),        # ns since 1970
    ("last_loss", np.int64),
    ("unknown_links", np.int64),     # frames of a link layer that nobody here reads
    ("unknown_link", np.int64),      # the link type of the last of them
]))
# fmt: on


class Fragments(NamedTuple):
    """What is kept from batch to batch, and what a batch brought."""

    datagrams: np.ndarray  # DATAGRAM, BUCKETS * WAYS
    pieces: np.ndarray  # PIECE, MOST_PIECES for each datagram, ordered, without overlaps
    frames: np.ndarray  # HELD_FRAME, as many
    arena: np.ndarray  # uint8; position p is at p % len
    work: np.ndarray  # uint8: see above
    completed: np.ndarray  # int64: rows of this batch whose positions are in `work`, ascending
    late: np.ndarray  # FRAME, in `work`
    late_streams: np.ndarray  # int64: of `late`; first the row of its packet, link() makes it that
    seed: np.ndarray  # uint64, secret: who knows it could make all datagrams share a bucket
    state: np.ndarray  # STATE, one element


@kernel
def is_missed(f, number, reason):
    """Whether a datagram that is given up is a loss. Without its first fragment, which has the
    ports, it is not: a kernel filter keeps the others of what nobody asked for, too.
    """
    first = f.pieces[np.uint64(number * MOST_PIECES)]
    return reason == BROKEN or (f.datagrams[np.uint64(number)].pieces and first.offset == 0)


@kernel
def give_up(f, number, reason, state):
    """Let go of a datagram; its row becomes FREE, or DROPPED so that the rest is dropped too."""
    datagram, total = f.datagrams[np.uint64(number)], f.state[0]
    if is_missed(f, number, reason):
        if datagram.state == OPEN:
            total.given_up[np.uint64(reason)] += 1
        if total.lost_frames == 0:
            total.first_loss = total.last_loss = datagram.begun
        total.first_loss = min(total.first_loss, datagram.begun)
        total.last_loss = max(total.last_loss, datagram.begun)
        total.lost_frames += datagram.seen
        total.lost_octets += datagram.octets
    datagram.seen = datagram.octets = 0
    datagram.state = state
    if state == FREE:
        total.used -= 1


@kernel
def refresh(f, number, now):
    """Let go of a datagram that is too old, or was overwritten."""
    datagram, total = f.datagrams[np.uint64(number)], f.state[0]
    age = now - datagram.begun
    limit = COPIES_TIMEOUT if datagram.state == DONE else FRAGMENT_TIMEOUT
    is_old = now == END_OF_TIME or age > limit or age < -limit
    if datagram.state == OPEN:
        if is_old:
            give_up(f, number, NEVER_CAME, FREE)
        elif datagram.lowest < total.written - len(f.arena):
            give_up(f, number, NO_ROOM, FREE)
    elif is_old:
        datagram.state = FREE
        total.used -= 1


@kernel
def expire(f, now):
    """Let go of all datagrams that are too old at `now`; END_OF_TIME is after all."""
    for number in range(len(f.datagrams)):
        if f.datagrams[np.uint64(number)].state != FREE:
            refresh(f, number, now)


@kernel
def name_of(found, is_ipv4):
    """Fragments of one IPv4 datagram have one protocol; in IPv6 only the first one's counts."""
    name = found.identification
    return np.uint64(name << 16 | found.protocol << 8 | 1) if is_ipv4 else np.uint64(name << 16)


@kernel
def is_same(datagram, found, key, name):
    return (
        datagram.name == name
        and datagram.key == key
        and datagram.source_low == found.source_low
        and datagram.destination_low == found.destination_low
        and datagram.source_high == found.source_high
        and datagram.destination_high == found.destination_high
    )


@kernel
def bucket_of(f, found, key, name):
    state = mix(mix(f.seed[0], found.source_high), found.source_low)
    state = mix(mix(state, found.destination_high), found.destination_low)
    return np.int64(mix(mix(state, key), name) & np.uint64(BUCKETS - 1)) * WAYS


@kernel
def find_datagram(f, found, key, name, now):
    """Return the number of the fragment's datagram; a new one takes the place of the oldest."""
    first = bucket_of(f, found, key, name)
    chosen = first
    for number in range(first, first + WAYS):
        datagram = f.datagrams[np.uint64(number)]
        if datagram.state != FREE:
            refresh(f, number, now)
        if datagram.state != FREE and is_same(datagram, found, key, name):
            return number
        best = f.datagrams[np.uint64(chosen)]
        if best.state != FREE and (
            datagram.state == FREE
            or (datagram.state != OPEN and best.state == OPEN)
            or ((datagram.state == OPEN) == (best.state == OPEN) and datagram.begun < best.begun)
        ):
            chosen = number
    datagram = f.datagrams[np.uint64(chosen)]
    if datagram.state == OPEN:
        give_up(f, chosen, NO_ROOM, OPEN)
    elif datagram.state == FREE:
        f.state[0].used += 1
    datagram.source_high, datagram.source_low = found.source_high, found.source_low
    datagram.destination_high = found.destination_high
    datagram.destination_low = found.destination_low
    datagram.key = key
    datagram.name = name
    datagram.begun = now
    datagram.lowest = f.state[0].written
    datagram.length = UNKNOWN
    datagram.received = datagram.pieces = datagram.frames = datagram.seen = 0
    datagram.octets = datagram.protocol = 0
    datagram.state = OPEN
    return chosen


@kernel
def hold_octets(f, octets, position, length):
    """Copy octets into the arena, in one piece; return where."""
    total = f.state[0]
    index = total.written % len(f.arena)
    if index + length > len(f.arena):
        total.written += len(f.arena) - index
        index = 0
    copy_octets(octets, position, length, f.arena, index)
    held = total.written
    total.written += length
    return held


@kernel
def add_piece(f, number, index, position, offset, length):
    """Insert a piece before the one at `index`."""
    datagram = f.datagrams[np.uint64(number)]
    first = number * MOST_PIECES
    for at in range(first + datagram.pieces, first + index, -1):
        later, earlier = f.pieces[np.uint64(at)], f.pieces[np.uint64(at - 1)]
        later.position, later.offset, later.length = (
            earlier.position, earlier.offset, earlier.length,
        )  # fmt: skip
    piece = f.pieces[np.uint64(first + index)]
    piece.position, piece.offset, piece.length = position, offset, length
    datagram.pieces += 1
    datagram.received += length


@kernel
def overlap(f, number, offset, length):
    """Return how many of these octets the datagram has."""
    first = number * MOST_PIECES
    known = 0
    for at in range(first, first + f.datagrams[np.uint64(number)].pieces):
        piece = f.pieces[np.uint64(at)]
        begin, end = max(offset, piece.offset), min(offset + length, piece.offset + piece.length)
        known += max(0, end - begin)
    return known


@kernel
def add_unknown(f, number, position, offset, length):
    """Add those of the octets that the datagram does not have; False when it has no room."""
    datagram = f.datagrams[np.uint64(number)]
    first = number * MOST_PIECES
    index, end = 0, offset + length
    while offset < end:
        stop = end
        if index < datagram.pieces:
            piece = f.pieces[np.uint64(first + index)]
            if piece.offset <= offset:
                known = max(0, piece.offset + piece.length - offset)
                offset, position = offset + known, position + known
                index += 1
                continue
            stop = min(end, piece.offset)
        if datagram.pieces == MOST_PIECES:
            return False
        add_piece(f, number, index, position, offset, stop - offset)
        position += stop - offset
        offset = stop
        index += 1
    return True


@kernel
def contradicts(f, number, offset, length, more):
    """Whether the fragment does not fit the datagram's end; the last one tells where that is."""
    datagram = f.datagrams[np.uint64(number)]
    end = offset + length
    if datagram.length != UNKNOWN:
        return end > datagram.length or (not more and end != datagram.length)
    if not more:
        datagram.length = end
        if datagram.pieces:
            last = f.pieces[np.uint64(number * MOST_PIECES + datagram.pieces - 1)]
            return last.offset + last.length > end
    return False


@kernel
def hold_frame(f, number, held, frame, row, captured_length):
    """Note where the fragment's frame lies in the arena, if it does: its length is not 0."""
    datagram = f.datagrams[np.uint64(number)]
    holder = f.frames[np.uint64(number * MOST_PIECES + datagram.frames)]
    kept = holder.frame
    kept.timestamp = frame.timestamp
    kept.offset = held
    kept.captured_length = captured_length
    kept.original_length = frame.original_length
    kept.link_type = frame.link_type
    kept.vlan = frame.vlan
    kept.interface = frame.interface
    holder.batch = f.state[0].batch
    holder.row = row
    datagram.frames += 1


@kernel
def yield_frame(f, holder, row):
    """Link a fragment's frame to the packet that completed the datagram."""
    total = f.state[0]
    kept = holder.frame
    if kept.captured_length == 0:
        return
    if total.late == len(f.late):
        total.lost_frames += 1
        total.lost_octets += kept.captured_length
        return
    copy_octets(f.arena, kept.offset % len(f.arena), kept.captured_length, f.work, total.filled)
    late = f.late[np.uint64(total.late)]
    late.timestamp = kept.timestamp
    late.offset = total.filled
    late.captured_length = kept.captured_length
    late.original_length = kept.original_length
    late.link_type = kept.link_type
    late.vlan = kept.vlan
    late.interface = kept.interface
    f.late_streams[np.uint64(total.late)] = row
    total.late += 1
    total.filled += kept.captured_length


@kernel
def assemble(f, number, row, packets):
    """Put a complete datagram into `work`; return its position. There is room."""
    datagram, total = f.datagrams[np.uint64(number)], f.state[0]
    first = number * MOST_PIECES
    for at in range(first, first + datagram.frames):
        holder = f.frames[np.uint64(at)]
        if holder.batch != total.batch:
            yield_frame(f, holder, row)
        elif holder.row != row:
            packets[np.uint64(holder.row)].payload_offset = row
    position = total.filled
    for at in range(first, first + datagram.pieces):
        piece = f.pieces[np.uint64(at)]
        index = piece.position % len(f.arena)
        copy_octets(f.arena, index, piece.length, f.work, position + piece.offset)
    total.filled += datagram.length
    return position


@kernel
def complete(f, number, found, is_ipv4, row, packets):
    """Return the Network of the whole datagram."""
    datagram, total = f.datagrams[np.uint64(number)], f.state[0]
    if total.filled + datagram.octets + datagram.length > total.room:
        give_up(f, number, NO_ROOM, DROPPED)
        return no_network(FRAGMENT)
    position = assemble(f, number, row, packets)
    end = position + np.int64(datagram.length)
    packets[np.uint64(row)].captured_length = datagram.octets
    datagram.state = DONE
    datagram.begun = packets[np.uint64(row)].timestamp
    datagram.batch = total.batch
    datagram.row = row
    status, protocol = DECODED, np.int64(datagram.protocol)
    if not is_ipv4:
        status, protocol, position = skip_ipv6_extensions(f.work, position, end, protocol)
        if status != DECODED:  # a fragment header in a fragment is none that anybody sends
            return no_network(MALFORMED)
    return Network(
        DECODED, protocol, found.source_high, found.source_low, found.destination_high,
        found.destination_low, position, end, 0, found.hops, 0, 0, 0,
    )  # fmt: skip


@cold_kernel
def take_fragment(f, octets, found, key, frame, row, packets, frame_length):
    """Take a fragment, the Network `found`. Return the Network of its datagram when that is whole
    now, with a payload in f.work, else one with status FRAGMENT or MALFORMED.

    key: of its network. frame_length: octets of the frame, if it is in `octets` too, or 0.
    """
    offset, more = found.fragment_offset, found.more_fragments != 0
    length = found.payload_end - found.payload_offset
    whole = length + found.missing
    if length <= 0 or (more and whole % FRAGMENT_UNIT) or offset + whole > LARGEST_DATAGRAM:
        return no_network(MALFORMED)
    is_ipv4 = found.source_high == 0 and found.source_low >> np.uint64(32) == IPV4_PREFIX
    name = name_of(found, is_ipv4)
    number = find_datagram(f, found, key, name, frame.timestamp)
    datagram, packet = f.datagrams[np.uint64(number)], packets[np.uint64(row)]
    if datagram.state == DONE:
        if datagram.batch == f.state[0].batch:
            packet.payload_offset = datagram.row
        else:
            packet.stream = datagram.stream
        return no_network(FRAGMENT)
    datagram.seen += 1
    datagram.octets += frame.captured_length
    known = overlap(f, number, offset, length)
    if (
        datagram.state == DROPPED
        or found.missing
        or contradicts(f, number, offset, length, more)
        or (known and known != length and not is_ipv4)
    ):
        give_up(f, number, BROKEN, DROPPED)
    elif known == length and datagram.frames > MOST_PIECES // 2:
        pass  # one more copy of what is there; its frame would take another one's place
    elif datagram.frames == MOST_PIECES:
        give_up(f, number, BROKEN, DROPPED)
    else:
        begin, size = found.payload_offset, length
        if frame_length:
            begin, size = frame.offset, frame_length
        held = hold_octets(f, octets, begin, size)
        hold_frame(f, number, held, frame, row, frame_length)
        if offset == 0 and known != length:
            datagram.protocol = found.protocol
        if not add_unknown(f, number, held + found.payload_offset - begin, offset, length):
            give_up(f, number, BROKEN, DROPPED)
        elif datagram.lowest < f.state[0].written - len(f.arena):
            give_up(f, number, NO_ROOM, DROPPED)
        elif datagram.received == datagram.length:
            return complete(f, number, found, is_ipv4, row, packets)
    return no_network(FRAGMENT)


@kernel
def note_completed(f, row):
    total = f.state[0]
    f.completed[np.uint64(total.completed)] = row
    total.completed += 1


@kernel
def note_unknown_link(f, frame):
    f.state[0].unknown_links += 1
    f.state[0].unknown_link = frame.link_type


@kernel
def note_network(f):
    f.state[0].networks += 1


@kernel
def begin_batch(f, frames):
    """Forget what the last batch brought. Return how long `work` should be for these frames."""
    octets = 0
    for row in range(len(frames)):
        octets += max(0, np.int64(frames[np.uint64(row)].captured_length))
    total = f.state[0]
    total.batch += 1
    total.filled = total.completed = total.late = total.networks = 0
    total.room = len(f.work) - octets
    return octets + 2 * len(f.arena)


@kernel
def move_frames(f, octets, frames, packets):
    """Copy the frames of decoded packets behind the datagrams, so that all are in f.work."""
    total = f.state[0]
    next_completed = 0
    for row in range(len(packets)):
        if next_completed < total.completed and f.completed[np.uint64(next_completed)] == row:
            next_completed += 1
            continue
        packet, frame = packets[np.uint64(row)], frames[np.uint64(row)]
        if packet.status == DECODED:
            copy_octets(octets, frame.offset, frame.captured_length, f.work, total.filled)
            packet.payload_offset += total.filled - frame.offset
            total.filled += frame.captured_length


@kernel
def link_fragments(f, packets):
    """Give fragments the stream of their datagram, when packets have theirs.

    The last row first: a datagram that was a fragment itself has its stream from a later row.
    """
    total = f.state[0]
    for row in range(len(packets) - 1, -1, -1):
        packet = packets[np.uint64(row)]
        if packet.status == FRAGMENT and packet.payload_offset != NO_ROW:
            packet.stream = packets[np.uint64(packet.payload_offset)].stream
    for index in range(total.late):
        row = f.late_streams[np.uint64(index)]
        f.late_streams[np.uint64(index)] = packets[np.uint64(row)].stream
    for number in range(len(f.datagrams)):
        datagram = f.datagrams[np.uint64(number)]
        if datagram.state == DONE and datagram.batch == total.batch:
            datagram.stream = packets[np.uint64(datagram.row)].stream


def with_room(f, work_size, rows):
    """Return the same with a larger `work`, and for batches of that many rows; nothing is in it."""
    return f._replace(work=np.zeros(work_size, np.uint8), completed=np.zeros(rows, np.int64))


def new_fragments(arena_size=ARENA_SIZE, work_size=WORK_SIZE):
    """Make an empty table; sizes are in octets."""
    datagrams = BUCKETS * WAYS
    return Fragments(
        datagrams=np.zeros(datagrams, DATAGRAM),
        pieces=np.zeros(datagrams * MOST_PIECES, PIECE),
        frames=np.zeros(datagrams * MOST_PIECES, HELD_FRAME),
        arena=np.zeros(arena_size, np.uint8),
        work=np.zeros(work_size, np.uint8),
        completed=np.zeros(MOST_FRAMES, np.int64),
        late=np.zeros(MOST_LATE, FRAME),
        late_streams=np.zeros(MOST_LATE, np.int64),
        seed=np.frombuffer(bytearray(os.urandom(8)), np.uint64),
        state=np.zeros(1, STATE),
    )
