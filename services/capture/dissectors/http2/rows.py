# mypy: ignore-errors
"""What HTTP/2 keeps from batch to batch: rows of connections, their streams and tables of fields.

Octets that are kept (fields, bodies, what waits for the rest of a frame) are in buffers, pieces of
one arena that is a ring. `sweep` copies those that are old to its front, so that what is open is
never overwritten, however long it is open.
"""

import secrets
from typing import NamedTuple

import numpy as np

from services.capture.dissectors.arena import Arena, is_kept, new_arena, reserve
from services.capture.dissectors.conversation import DEFAULT_BODY
from services.capture.dissectors.http2 import static
from services.capture.kernel import cold_kernel, copy_octets, kernel

MOST_CONNECTIONS = 1 << 14  # at once; of each are kept some hundred octets, and its tables
MOST_OPEN = 1 << 16  # streams of all connections; when there are more, the oldest rows are let go
MOST_STREAMS = 1024  # of a connection that are open at once; servers allow 100 to 1000
MOST_CLOSED = 256  # numbers of streams that were told of, for what still comes of them
MOST_BODIES = 4 << 20  # octets of bodies that a connection keeps for its open streams
MOST_FINISHED = 1 << 13  # streams that end before somebody takes them
MOST_KEPT = 1 << 16  # octets of a frame that is kept until it is whole; the rest is left out

SMALL_TABLE = 4096  # octets, what an encoder has unless it says otherwise (RFC 9113, 6.5.2)
MOST_TABLE = 1 << 16  # octets of a table that are kept; what is older becomes unknown
LARGE_TABLES = 512  # directions with such a table; those that find none keep 4,096 octets
ENTRY_SIZE = 32  # octets that each entry of a table counts more than its texts (RFC 7541, 4.1)
SMALL_ENTRIES, LARGE_ENTRIES = SMALL_TABLE // ENTRY_SIZE, MOST_TABLE // ENTRY_SIZE

SCRATCH = 1 << 19  # octets: fields of a block before they are kept (see framing.MOST_LISTED)
SHARE_LIVE = 4  # a quarter of the arena may be open streams, so that what has ended lasts a batch
SHARE_WAITING = 16  # another sixteenth may be frames and blocks that are not whole
SOME_DIRECTIONS = 64  # that are looked at when there is more, for each that wants to keep something
NOBODY = -1

# Buffers of a half of a stream, and of a direction.
FIELDS, TRAILERS, BODY, SIZES = range(4)
PAYLOAD, BLOCK = range(2)
OF_HALF, OF_DIRECTION = 4, 2

# What became of streams of packets.
REFUSED, BROKEN = 0, 1

# What a Content-Type says.
NO_TYPE, OTHER_TYPE, GRPC_TYPE = range(3)

# What a call lacks.
(
    NOTHING, RESET_BY_CLIENT, RESET_BY_SERVER, LEFT_BY_CLIENT, LEFT_BY_SERVER, NO_REQUEST,
    ANSWER_LOST, REQUEST_CUT, RESPONSE_CUT, NO_ANSWER, NO_END, GIVEN_UP,
) = range(12)  # fmt: skip

# fmt: off
BUFFER = np.dtype((np.record, [
    ("at", np.int64),    # position in the arena
    ("kept", np.int32),  # octets
    ("room", np.int32),  # octets that are reserved there
]))

FLOW = np.dtype((np.record, [
    ("stream", np.int64),      # of packets
    ("connection", np.int32),  # row, or NOBODY: it is not read any more
]))

CONNECTION = np.dtype((np.record, [
    ("stream", np.int64),      # of packets
    ("bodies", np.int64),      # octets that the open streams keep
    ("highest", np.int64),     # number of a stream that has ended
    ("closed", np.int64),      # streams that have ended
    ("credit", np.int64),      # octets of fields that may be listed, see framing
    ("open", np.int32),        # streams
    ("first", np.int32),       # row of the oldest open stream, or NOBODY
    ("last", np.int32),
    ("client", np.uint8),      # side that asks
    ("direction", np.uint8),   # of packets: that of the side CLIENT
    ("understood", np.uint8),
]))

DIRECTION = np.dtype((np.record, [
    ("left", np.int64),         # octets of the frame
    ("data_left", np.int64),    # octets of DATA before its padding; -1: its length is still to come
    ("time", np.int64),         # nanoseconds since 1970: first octet of the frame
    ("block_time", np.int64),   # the same of the frame that began the block
    ("number", np.int64),       # of the frame's stream
    ("block_number", np.int64),
    ("length", np.int32),       # of the frame
    ("block_length", np.int32),
    ("preface", np.int16),      # octets of it that were there; NOBODY: it does not come any more
    ("kind", np.uint8),         # of the frame
    ("frame_flags", np.uint8),
    ("cut", np.uint8),          # octets of the frame are missing
    ("in_frame", np.uint8),
    ("begun", np.uint8),        # octets of the DATA frame have come
    ("head", np.uint8),         # octets of a head
    ("seeking", np.uint8),      # where a frame begins is not known
    ("known", np.uint8),        # some frame was of a type of RFC 9113
    ("was_begin", np.uint8),    # the preface was there
    ("in_block", np.uint8),     # CONTINUATION has to come
    ("block_kind", np.uint8),
    ("block_flags", np.uint8),
    ("block_cut", np.uint8),
    ("has_read", np.uint8),     # a block, so that the table is as large as it should be
]))

TABLE = np.dtype((np.record, [
    ("write", np.int64),   # position of the next octet; they count on, and are taken modulo
    ("newest", np.int64),  # number of the newest entry, likewise
    ("used", np.int32),    # octets of the entries, as RFC 7541, 4.1 counts
    ("room", np.int32),    # octets that the encoder has
    ("count", np.int32),   # entries
    ("slot", np.int32),    # which small table is its
    ("large", np.int32),   # which large one it has instead, or NOBODY
]))

ENTRY = np.dtype((np.record, [
    ("at", np.int64),     # position of the name; the value is behind it
    ("name", np.int32),   # octets
    ("value", np.int32),
]))

STREAM = np.dtype((np.record, [
    ("packets", np.int64),     # number of the stream of packets
    ("start", np.int64),       # nanoseconds since 1970
    ("end", np.int64),
    ("number", np.int64),
    ("code", np.int64),        # of an error, as the wire has it
    ("connection", np.int32),
    ("before", np.int32),      # rows of the same connection, in the order of their begin
    ("after", np.int32),
    ("chain", np.int32),       # next row in the same bucket
    ("client", np.uint8),      # side that asks
    ("direction", np.uint8),   # of packets: that of the request
    ("is_open", np.uint8),
    ("pushed", np.uint8),
    ("lacks", np.uint8),       # NOTHING, RESET_BY_CLIENT …
    ("has_request", np.uint8),
    ("has_response", np.uint8),
    ("is_call", np.uint8),     # of gRPC
]))

# Offsets are in the buffer FIELDS; a length of NOBODY says that there is no such field.
HOT = [
    ("method_at", np.int32), ("method", np.int32),
    ("path_at", np.int32), ("path", np.int32),
    ("authority_at", np.int32), ("authority", np.int32),
    ("status", np.int16),      # of three digits, or NOBODY
    ("content", np.uint8),     # NO_TYPE …
    ("lacks_names", np.uint8), # of some fields
]

HALF = np.dtype((np.record, [
    ("begin", np.int64),         # nanoseconds since 1970
    ("end", np.int64),
    ("frames_size", np.int64),   # octets of all
    ("headers_size", np.int64),  # octets of fields and trailers
    ("body_size", np.int64),
    ("messages", np.int64),      # see messages
    ("compressed", np.int64),
    ("left", np.int64),          # octets of the message
    ("message_head", np.int64),  # octets of a message's head, as a number
    ("head", np.uint8),          # how many these are
    ("lost", np.uint8),          # where the next message begins is not known, or there are none
    ("was_lost", np.uint8),
    ("has_fields", np.uint8),
    ("has_status", np.uint8),    # gRPC's, in the trailers
    ("over", np.uint8),
    ("cut", np.uint8),           # octets of it were not captured
    ("body_cut", np.uint8),
    *HOT,
]))

BLOCK_FIELDS = np.dtype((np.record, [
    ("used", np.int64),          # octets in `scratch`
    ("count", np.int64),
    ("has_status", np.uint8),
    ("interim", np.uint8),
    ("first_is_own", np.uint8),  # the first field is one of HTTP itself
    ("says_method", np.uint8),   # one of the first fields, which are HTTP's own, is :method
    ("says_status", np.uint8),
    *HOT,
]))

TOTALS = np.dtype((np.record, [
    ("finished", np.int64),         # rows of `finished` that are used, from the front
    ("failed", np.int64),           # the same of `failed`
    ("lost", np.int64),             # streams for which there was no room
    ("live", np.int64),             # octets in buffers of halves
    ("waiting", np.int64),          # octets in buffers of directions
    ("swept", np.int64),            # where the arena's front was at the last sweep
    ("top", np.int64),              # rows of `streams` that were ever used
    ("free", np.int64),             # rows of `free_streams`
    ("top_connection", np.int64),
    ("free_connection", np.int64),
    ("free_large", np.int64),
    ("hand", np.int64),             # row of `streams` that is let go next
    ("direction_hand", np.int64),   # row of `directions`, likewise
    ("body_limit", np.int64),       # octets of a body that are kept
    ("multiplier", np.int64),       # of the hash of streams, not to be guessed
]))
# fmt: on


class Connections(NamedTuple):
    """All of it. Of connection c the sides are rows 2 * c + side of what there are directions of;
    of stream s the halves are rows 2 * s + side.
    """

    flows: np.ndarray  # FLOW
    connections: np.ndarray  # CONNECTION
    directions: np.ndarray  # DIRECTION
    heads: np.ndarray  # uint8, (directions, 9): of frames that are not whole
    closed: np.ndarray  # int32, (connections, MOST_CLOSED)
    tables: np.ndarray  # TABLE, one for each direction
    entries: np.ndarray  # ENTRY: all small tables, then all large ones
    table_octets: np.ndarray  # uint8, likewise
    streams: np.ndarray  # STREAM
    halves: np.ndarray  # HALF
    buckets: np.ndarray  # int32, 1 + row of the first stream, a power of two long
    buffers: np.ndarray  # BUFFER: those of all halves, then those of all directions
    finished: np.ndarray  # int32, rows of streams
    failed: np.ndarray  # int64, pairs: stream of packets, and REFUSED or BROKEN
    free_streams: np.ndarray  # int32
    free_connections: np.ndarray  # int32
    free_large: np.ndarray  # int32
    found: np.ndarray  # BLOCK_FIELDS, one element: what a block says
    scratch: np.ndarray  # uint8, the fields of a block
    small: np.ndarray  # uint8, some octets
    arena: Arena
    totals: np.ndarray  # TOTALS, one element
    static_entries: np.ndarray  # ENTRY
    static_octets: np.ndarray  # uint8
    huffman: np.ndarray  # int16, see static


@kernel
def half_buffer(f, half, which):
    """Return a buffer of a half of a stream, by its row."""
    return f.buffers[np.uint64(OF_HALF * half + which)]


@kernel
def direction_buffer(f, direction, which):
    """Return a buffer of a direction, by its row."""
    return f.buffers[np.uint64(OF_HALF * len(f.halves) + OF_DIRECTION * direction + which)]


@cold_kernel
def keep(arena, buffer, octets, position, length, most):
    """Add octets to a buffer, up to `most` in all; return how many were added.

    One that grows gets twice the room that it needs, so that all are copied twice on average, in
    however small pieces they come.
    """
    length = min(length, most - buffer.kept)
    if length <= 0:
        return np.int64(0)
    size = len(arena.octets)
    whole = buffer.kept + length
    if whole > buffer.room:
        room = whole if buffer.kept == 0 else min(2 * whole, most)
        at = reserve(arena, room)
        if buffer.kept > 0:
            if not is_kept(arena, buffer.at):
                return np.int64(0)
            copy_octets(arena.octets, buffer.at % size, buffer.kept, arena.octets, at % size)
        buffer.at, buffer.room = at, room
    copy_octets(octets, position, length, arena.octets, buffer.at % size + buffer.kept)
    buffer.kept = whole
    return length


@kernel
def keep_of_half(f, half, which, octets, position, length, most):
    """As keep, in a buffer of a half."""
    kept = keep(f.arena, half_buffer(f, half, which), octets, position, length, most)
    f.totals[0].live += kept
    return kept


@kernel
def empty_half(f, half, which):
    """Keep nothing more in a buffer of a half."""
    buffer = half_buffer(f, half, which)
    f.totals[0].live -= buffer.kept
    buffer.kept = buffer.room = 0


@kernel
def empty_direction(f, direction, which):
    """Keep nothing more in a buffer of a direction."""
    buffer = direction_buffer(f, direction, which)
    f.totals[0].waiting -= buffer.kept
    buffer.kept = buffer.room = 0


@cold_kernel
def drop_waiting(f):
    """Forget what some directions keep of frames that are not whole."""
    totals = f.totals[0]
    for _ in range(min(SOME_DIRECTIONS, 2 * totals.top_connection)):
        if totals.waiting <= len(f.arena.octets) // SHARE_WAITING:
            return
        totals.direction_hand = (totals.direction_hand + 1) % (2 * totals.top_connection)
        direction = f.directions[np.uint64(totals.direction_hand)]
        if direction_buffer(f, totals.direction_hand, PAYLOAD).kept > 0:
            direction.cut = 1
        if direction_buffer(f, totals.direction_hand, BLOCK).kept > 0:
            direction.block_cut = 1
        empty_direction(f, totals.direction_hand, PAYLOAD)
        empty_direction(f, totals.direction_hand, BLOCK)


@kernel
def keep_of_direction(f, direction, which, octets, position, length):
    """As keep, in a buffer of a direction."""
    if f.totals[0].waiting > len(f.arena.octets) // SHARE_WAITING:
        drop_waiting(f)
    kept = keep(f.arena, direction_buffer(f, direction, which), octets, position, length, MOST_KEPT)
    f.totals[0].waiting += kept
    return kept


@cold_kernel
def refresh(f, begin, end, oldest):
    """Copy what buffers[begin:end] have from before a position to the arena's front."""
    arena = f.arena
    size = len(arena.octets)
    for row in range(begin, end):
        buffer = f.buffers[np.uint64(row)]
        if buffer.kept > 0 and buffer.at < oldest and is_kept(arena, buffer.at):
            at = reserve(arena, buffer.kept)
            copy_octets(arena.octets, buffer.at % size, buffer.kept, arena.octets, at % size)
            buffer.at, buffer.room = at, buffer.kept


@kernel
def sweep(f):
    """When a quarter of the arena was written, save what is open and older than that.

    Until the next time another quarter is written, and what is saved is one at most.
    """
    totals = f.totals[0]
    write, quarter = f.arena.write[0], len(f.arena.octets) // 4
    if write - totals.swept >= quarter:
        directions = OF_HALF * len(f.halves)
        refresh(f, 0, 2 * OF_HALF * totals.top, write - quarter)
        refresh(
            f, directions, directions + 2 * OF_DIRECTION * totals.top_connection, write - quarter
        )
        totals.swept = f.arena.write[0]


@kernel
def is_full(f):
    """Whether so much is open that some has to be let go."""
    totals = f.totals[0]
    used = totals.top - totals.free
    return used > len(f.streams) - 4 or totals.live > len(f.arena.octets) // SHARE_LIVE


@kernel
def has_room(f):
    """Whether what one frame and the end of a connection can bring about has room."""
    totals = f.totals[0]
    return (
        totals.finished < len(f.finished) - 2 * MOST_STREAMS - 4
        and totals.failed < len(f.failed) - 2
        and not is_full(f)
    )


@kernel
def add_failed(f, stream, what):
    """Say that a stream of packets is not read any more."""
    totals = f.totals[0]
    row = np.uint64(totals.failed)
    f.failed[row, 0] = stream
    f.failed[row, 1] = what
    totals.failed += 1


def new_connections(most_flows, streams=MOST_OPEN, arena_octets=1 << 26):
    """Make it empty. Most is memory that the system gives when it is first written."""
    connections = min(most_flows, MOST_CONNECTIONS)
    directions = 2 * connections
    totals = np.zeros(1, TOTALS)
    totals["body_limit"] = DEFAULT_BODY
    totals["multiplier"] = secrets.randbits(30) * 2 + 1
    totals["free_large"] = LARGE_TABLES
    flows = np.zeros(most_flows, FLOW)
    flows["stream"] = flows["connection"] = NOBODY
    entries, octets, huffman = static.tables(ENTRY)
    return Connections(
        flows=flows,
        connections=np.zeros(connections, CONNECTION),
        directions=np.zeros(directions, DIRECTION),
        heads=np.zeros((directions, 9), np.uint8),
        closed=np.zeros((connections, MOST_CLOSED), np.int32),
        tables=np.zeros(directions, TABLE),
        entries=np.zeros(directions * SMALL_ENTRIES + LARGE_TABLES * LARGE_ENTRIES, ENTRY),
        table_octets=np.zeros(directions * SMALL_TABLE + LARGE_TABLES * MOST_TABLE, np.uint8),
        streams=np.zeros(streams, STREAM),
        halves=np.zeros(2 * streams, HALF),
        buckets=np.zeros(2 * streams, np.int32),
        buffers=np.zeros(2 * OF_HALF * streams + OF_DIRECTION * directions, BUFFER),
        finished=np.zeros(MOST_FINISHED, np.int32),
        failed=np.zeros((1 << 10, 2), np.int64),
        free_streams=np.zeros(streams, np.int32),
        free_connections=np.zeros(connections, np.int32),
        free_large=np.arange(LARGE_TABLES, dtype=np.int32),
        found=np.zeros(1, BLOCK_FIELDS),
        scratch=np.zeros(SCRATCH, np.uint8),
        small=np.zeros(16, np.uint8),
        arena=new_arena(arena_octets),
        totals=totals,
        static_entries=entries,
        static_octets=octets,
        huffman=huffman,
    )
