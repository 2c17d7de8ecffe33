# mypy: ignore-errors
"""The flow table (who talks with whom now) and the streams (TCP connections, UDP exchanges, SCTP
associations, and the ICMP messages between two addresses, whose ports are 0).

A flow is a five-tuple without direction: the lower endpoint (address, then port) is number 0, the
higher one number 1. In another VLAN or tunnel the same five-tuple is another flow, see networks. A
five-tuple is used again within seconds, so a flow carries several streams, one after the other. Of
a flow that is another one with addresses translated, the other is the root: see duplicates.

Stream number n is in row n & (len(rows) - 1). Rows of streams that have ended are used again in the
order in which they ended, at the latest moment; each use has a new, higher number, so whoever keeps
a number can tell whether the row is still that stream's.

When a flow ends is told by its last packet, which changes all the time; timewheel.py therefore has
it queued for the time that was told once, and looks again then.
"""

import os
from typing import NamedTuple

import numpy as np

from services.capture.headers import DECODED, PROTOCOL_SCTP, PROTOCOL_TCP
from services.capture.kernel import kernel
from services.capture.timewheel import (
    HAND,
    SECOND,
    Wheel,
    clear,
    dequeue,
    enqueue,
    first_due,
    new_wheel,
    next_due,
    requeue,
    set_hand,
)

NO_FLOW = -1
EMPTY_SLOT = 0
NO_STREAM = 0
ITSELF = 0  # as the root of a flow

ID_SEED = np.uint64(0x243F6A8885A308D3)  # the same in every process: it makes the streams' names
UDP_IDLE = 30 * SECOND  # resolvers take a new port for each question: flows must go soon
SCTP_IDLE = 120 * SECOND  # who has nothing to say sends a heartbeat each 30, RFC 9260, section 16
TCP_IDLE = 1200 * SECOND  # as the flow timeout that operators of this kind of tool are used to
HALF_OPEN_IDLE = 60 * SECOND  # only one side spoke: scans and floods must not fill the table
CLOSED_IDLE = 10 * SECOND  # after both sides ended: late retransmissions still find their stream

BLOCK = 64
"""Packets whose flows are looked up together. In a large table each lookup waits for memory; for
many at once the waiting is done together."""
MOST_BACK = 60
"""Seconds that time may go back: captures of several interfaces are not in order to the second."""
MOST_ROOTS = 4  # steps from a flow to its root: a node translates a packet twice, seldom more
CACHE_LINE = 64

# fmt: off
FLOW = np.dtype((np.record, [
    # What every packet asks for is in the first cache line.
    ("lower_high", np.uint64),       # address of the lower endpoint: high and low 64 bits
    ("lower_low", np.uint64),
    ("higher_high", np.uint64),
    ("higher_low", np.uint64),
    ("ports", np.uint64),            # protocol << 32 | lower port << 16 | higher port
    ("key", np.uint64),              # of its network, see networks.flow_key
    ("last_timestamp", np.int64),    # nanoseconds since 1970
    ("stream", np.int64),            # number of its current stream, or NO_STREAM
    ("root", np.int32),              # 1 + the flow that has its streams, or ITSELF
    ("generation", np.uint16),       # one more each time the row gets another flow
    ("root_generation", np.uint16),  # of the root, when it became that
    ("packets", np.int64, 2),        # of the current stream, by direction
    ("octets", np.int64, 2),         # of its frames
    ("due", np.int64),               # nanoseconds: when it would be over, as it was queued
    ("next", np.int32),              # in its bucket of the wheel, or NO_FLOW
    ("previous", np.int32),
    ("bucket", np.uint16),           # of the wheel
    ("closed", np.uint8),            # both sides have ended
    ("used", np.uint8),              # the row holds a flow
    ("turned", np.uint8),            # direction 0 is the root's direction 1
    ("seen", np.uint8),              # 1 << direction: packets of its own addresses came
    ("unused", np.uint8, 2),
]))

STREAM = np.dtype((np.record, [
    ("number", np.int64),
    ("id", np.uint64),               # the same for the same stream in the same capture
    ("first_timestamp", np.int64),   # nanoseconds since 1970
    ("lower_high", np.uint64),
    ("lower_low", np.uint64),
    ("higher_high", np.uint64),
    ("higher_low", np.uint64),
    ("ports", np.uint64),            # as in FLOW
    ("network", np.int64),           # as in PACKET
    ("view_lower_high", np.uint64),  # the same endpoints with the addresses that one side sees,
    ("view_lower_low", np.uint64),   # when the node translates between the sides
    ("view_higher_high", np.uint64),
    ("view_higher_low", np.uint64),
    ("last_timestamp", np.int64),    # these three are filled when the stream ends
    ("packets", np.int64, 2),
    ("octets", np.int64, 2),
    ("view_ports", np.uint32),       # lower port << 16 | higher port
    ("entries", np.int32),           # made from it so far
    ("client", np.uint8),            # number of the endpoint that began
    ("from_start", np.uint8),        # its first packet was seen
    ("ended", np.uint8),
    ("closed", np.uint8),            # both sides had ended it themselves
    ("viewer", np.uint8),            # 1 + number of the endpoint that has the view, or NO_VIEW
    ("is_sure", np.uint8),           # the viewer itself sent with these addresses
    ("unused", np.uint8, 2),
]))

KEY = np.dtype((np.record, [
    ("lower_high", np.uint64),       # as in FLOW
    ("lower_low", np.uint64),
    ("higher_high", np.uint64),
    ("higher_low", np.uint64),
    ("ports", np.uint64),
    ("key", np.uint64),
    ("tag", np.uint64),              # 32 bits of a hash of the rest
    ("found", np.uint64),            # in the slot where it should be
]))
# fmt: on

NO_VIEW = 0
PORT = np.uint64(0xFFFF)


class Flows(NamedTuple):
    """A hash table with open addressing; a flow's number is its row in `rows`."""

    slots: np.ndarray
    """uint64, a power of two long: tag << 32 | 1 + flow, or EMPTY_SLOT. The tag's lowest bits say
    where the slot should be."""
    rows: np.ndarray  # FLOW; at most half as many as slots
    free: np.ndarray  # int32: numbers of the rows that were used before and are free, a stack
    counts: np.ndarray  # int64: see ROWS_USED and what follows
    wheel: Wheel  # in which each flow is queued
    seed: np.ndarray  # uint64, one element, secret: who knows it could make all flows collide
    key_mask: np.ndarray  # uint64, one element: 0 when networks are not to be told apart


ROWS_USED, ROWS_FREE, TOUCHED, EVICTED, FIRST_EVICTED, LAST_EVICTED = 0, 1, 2, 3, 4, 5
COUNTS = 6
"""What Flows.counts holds: rows ever used; rows on the stack; nothing of use; and, since somebody
looked, how many streams were cut short to make room, and the times of the last packets of the first
and of the last of them."""


class Streams(NamedTuple):
    """Every open stream, and those that ended last."""

    rows: np.ndarray  # STREAM, a power of two long
    free: np.ndarray  # int32: a ring of the rows to use next, those of ended streams last
    counts: np.ndarray  # int64: STREAMS_OPENED and STREAMS_ENDED


STREAMS_OPENED, STREAMS_ENDED = 0, 1
"""What Streams.counts holds: streams opened so far; that many were taken from the ring, and
STREAMS_ENDED were put behind those of the beginning."""


# The table of five-tuples --------------------------------------------------------------------


@kernel
def mix(state, word):
    state = (state ^ word) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(32))


@kernel
def port_of(ports, side):
    return ports & PORT if side else ports >> np.uint64(16) & PORT


@kernel
def hash_five_tuple(state, row):
    """Hash a FLOW or a KEY, whatever its network is."""
    state = mix(mix(state, row.lower_high), row.lower_low)
    state = mix(mix(state, row.higher_high), row.higher_low)
    return mix(state, row.ports)


@kernel
def hash_endpoints(state, row):
    """Hash a FLOW or a KEY."""
    if row.key:
        state = mix(state, row.key)
    return hash_five_tuple(state, row)


@kernel
def is_of_flow(flow, key):
    return (
        flow.ports == key.ports
        and flow.lower_low == key.lower_low
        and flow.higher_low == key.higher_low
        and flow.lower_high == key.lower_high
        and flow.higher_high == key.higher_high
        and flow.key == key.key
    )


@kernel
def set_key(key, lower, higher, protocol, seed):
    """Fill a KEY but for its network's; an endpoint is (address high, low, port), uint64."""
    key.lower_high, key.lower_low, _ = lower
    key.higher_high, key.higher_low, _ = higher
    key.ports = np.uint64(protocol) << np.uint64(32) | lower[2] << np.uint64(16) | higher[2]
    key.tag = hash_endpoints(seed, key) >> np.uint64(32)


@kernel
def datagrams_idle(flow):
    """How long a flow of datagrams may be quiet: UDP, ICMP, SCTP."""
    return SCTP_IDLE if flow.ports >> np.uint64(32) == np.uint64(PROTOCOL_SCTP) else UDP_IDLE


@kernel
def idle_limit(flow):
    if flow.ports >> np.uint64(32) != np.uint64(PROTOCOL_TCP):
        return datagrams_idle(flow)
    if flow.closed:
        return CLOSED_IDLE
    is_half = flow.packets[0] == 0 or flow.packets[1] == 0
    return HALF_OPEN_IDLE if is_half or flow.stream == NO_STREAM else TCP_IDLE


@kernel
def take_row(flows):
    """Return the number of an unused row, or NO_FLOW when the table is full."""
    if flows.counts[ROWS_FREE] > 0:
        flows.counts[ROWS_FREE] -= 1
        return np.int64(flows.free[np.uint64(flows.counts[ROWS_FREE])])
    number = flows.counts[ROWS_USED]
    if number == len(flows.rows):
        return np.int64(NO_FLOW)
    flows.counts[ROWS_USED] += 1
    return number


@kernel
def add_flow(flows, slot, key, timestamp):
    """Return the number of the new flow, or NO_FLOW when the table is full."""
    number = take_row(flows)
    if number == NO_FLOW:
        return number
    flows.slots[slot] = key.tag << np.uint64(32) | np.uint64(number + 1)
    flow = flows.rows[np.uint64(number)]
    flow.lower_high, flow.lower_low = key.lower_high, key.lower_low
    flow.higher_high, flow.higher_low = key.higher_high, key.higher_low
    flow.ports = key.ports
    flow.key = key.key
    flow.stream = NO_STREAM
    flow.root = ITSELF
    flow.generation += np.uint16(1)
    flow.packets[0] = flow.packets[1] = 0
    flow.last_timestamp = timestamp
    flow.closed = flow.seen = 0
    flow.used = 1
    if flows.counts[ROWS_USED] - flows.counts[ROWS_FREE] == 1:
        set_hand(flows.wheel, timestamp // SECOND)
    enqueue(flows.wheel, flows.rows, number, timestamp + idle_limit(flow))
    return number


@kernel
def find_or_add_flow(flows, key, timestamp):
    """Return the number of the flow of a KEY, or NO_FLOW when it is new and the table is full."""
    last_slot = np.uint64(len(flows.slots) - 1)
    slot = key.tag & last_slot
    while True:
        found = flows.slots[slot]
        if found == EMPTY_SLOT:
            return add_flow(flows, slot, key, timestamp)
        if found >> np.uint64(32) == key.tag:
            number = np.int64(found & np.uint64(0xFFFFFFFF)) - 1
            if is_of_flow(flows.rows[np.uint64(number)], key):
                return number
        slot = (slot + np.uint64(1)) & last_slot


@kernel
def remove_flow(flows, number):
    """Free the row, and move back what would not be found behind the hole (Knuth, 6.4 R)."""
    dequeue(flows.wheel, flows.rows, number)
    flow = flows.rows[np.uint64(number)]
    last_slot = np.uint64(len(flows.slots) - 1)
    tag = hash_endpoints(flows.seed[0], flow) >> np.uint64(32)
    entry = tag << np.uint64(32) | np.uint64(number + 1)
    hole = tag & last_slot
    while flows.slots[hole] != entry:
        hole = (hole + np.uint64(1)) & last_slot
    probe = (hole + np.uint64(1)) & last_slot
    while flows.slots[probe] != EMPTY_SLOT:
        home = flows.slots[probe] >> np.uint64(32) & last_slot
        if (probe - home) & last_slot >= (probe - hole) & last_slot:
            flows.slots[hole] = flows.slots[probe]
            hole = probe
        probe = (probe + np.uint64(1)) & last_slot
    flows.slots[hole] = EMPTY_SLOT
    flow.used = 0
    flow.generation += np.uint16(1)
    flows.free[np.uint64(flows.counts[ROWS_FREE])] = number
    flows.counts[ROWS_FREE] += 1


@kernel
def note_endpoints(network, transport, packet, network_key, key, flows):
    """Fill the KEY of a packet's flow, and the packet's direction in it."""
    key.key = network_key & flows.key_mask[0]
    source = (network.source_high, network.source_low, np.uint64(transport.source_port))
    destination = (
        network.destination_high,
        network.destination_low,
        np.uint64(transport.destination_port),
    )
    if source > destination:
        set_key(key, destination, source, network.protocol, flows.seed[0])
        packet.direction = 1
    else:
        set_key(key, source, destination, network.protocol, flows.seed[0])
        packet.direction = 0


@kernel
def touch_rows(keys, begin, end, flows):
    """Load the slot, and then the row, of each flow that will be looked up, without waiting."""
    last_slot = np.uint64(len(flows.slots) - 1)
    last_row = np.uint64(len(flows.rows) - 1)
    unused = np.uint64(0)
    for row in range(begin, end):
        key = keys[np.uint64(row)]
        key.found = flows.slots[key.tag & last_slot]
    for row in range(begin, end):
        found = keys[np.uint64(row)].found
        unused ^= flows.rows[(found - np.uint64(1)) & last_row].ports
    return np.int64(unused)


@kernel
def find_flows(packets, keys, row, flows):
    """Set the flow of the packets that are decoded, from `row` on.

    Return the row of the first whose flow found the table full: make room and call again from it;
    or len(packets).
    """
    touched = row
    while row < len(packets):
        if row == touched:
            touched = min(row + BLOCK, len(packets))
            flows.counts[TOUCHED] ^= touch_rows(keys, row, touched, flows)
        packet = packets[np.uint64(row)]
        if packet.status == DECODED:
            packet.flow = find_or_add_flow(flows, keys[np.uint64(row)], packet.timestamp)
            if packet.flow == NO_FLOW:
                break
            packet.seen_flow = packet.flow
        row += 1
    return row


# Roots ---------------------------------------------------------------------------------------


@kernel
def root_of(flows, number):
    """Return (the flow that has the streams of this one, whether its directions are turned)."""
    turned = 0
    for _ in range(MOST_ROOTS):
        flow = flows.rows[np.uint64(number)]
        if flow.root == ITSELF:
            break
        root = flows.rows[np.uint64(flow.root - 1)]
        if root.generation != flow.root_generation:
            break
        turned ^= np.int64(flow.turned)
        number = np.int64(flow.root) - 1
    return number, turned


@kernel
def join(flows, number, root, turned):
    """Make one flow the root of another one."""
    flow = flows.rows[np.uint64(number)]
    flow.root = root + 1
    flow.root_generation = flows.rows[np.uint64(root)].generation
    flow.turned = turned
    queue(flows, number, flow.last_timestamp)


@kernel
def note_view(flow, stream, turned, side, is_sure):
    """Keep with a stream the addresses that its endpoint `side` sees: those of a flow of the same
    stream. What the side itself sent is better than what went to it.
    """
    if stream.is_sure or (stream.viewer != NO_VIEW and stream.viewer != side + 1 and not is_sure):
        return
    stream.viewer = side + 1
    stream.is_sure = is_sure
    lower, higher = port_of(flow.ports, turned), port_of(flow.ports, turned ^ 1)
    if turned:
        stream.view_lower_high, stream.view_lower_low = flow.higher_high, flow.higher_low
        stream.view_higher_high, stream.view_higher_low = flow.lower_high, flow.lower_low
    else:
        stream.view_lower_high, stream.view_lower_low = flow.lower_high, flow.lower_low
        stream.view_higher_high, stream.view_higher_low = flow.higher_high, flow.higher_low
    stream.view_ports = lower << np.uint64(16) | higher


# When a flow is over -------------------------------------------------------------------------


@kernel
def counting_row(flows, number):
    """Return the row whose last packet says when flow `number` is over: that of its root."""
    root, _ = root_of(flows, number)
    return flows.rows[np.uint64(root)]


@kernel
def due_of(flows, number):
    """When the flow will be over if nothing more comes; nanoseconds since 1970."""
    row = counting_row(flows, number)
    return row.last_timestamp + idle_limit(row)


@kernel
def is_idle(flows, number, now):
    """Whether the flow is over at `now`; also one whose last packet is that far in the future, from
    before a clock was set back.
    """
    row = counting_row(flows, number)
    limit = idle_limit(row)
    idle = now - row.last_timestamp
    return idle > limit or idle < -limit


@kernel
def queue(flows, number, now):
    """Queue a flow for the time when it is worth another look."""
    due = due_of(flows, number)
    if flows.rows[np.uint64(number)].root != ITSELF:
        due = min(due, now + CLOSED_IDLE)  # nobody tells it when its root has ended
    requeue(flows.wheel, flows.rows, number, due)


@kernel
def settle(flows, number):
    """Queue a flow anew that is over sooner than was thought, since both sides have ended it."""
    flow = flows.rows[np.uint64(number)]
    due = flow.last_timestamp + CLOSED_IDLE
    if flow.due > due:
        requeue(flows.wheel, flows.rows, number, due)


@kernel
def queue_anew(flows, now):
    """Queue all flows as seen from `now`: the clock was set back, and all are due too late."""
    clear(flows.wheel)
    set_hand(flows.wheel, now // SECOND)
    for number in range(flows.counts[ROWS_USED]):
        if flows.rows[np.uint64(number)].used:
            due = now if is_idle(flows, number, now) else due_of(flows, number)
            enqueue(flows.wheel, flows.rows, number, due)


@kernel
def next_idle(flows, now):
    """Return the next flow that is over at `now`, to the second, or NO_FLOW."""
    if now // SECOND < flows.wheel.times[HAND] - MOST_BACK:
        queue_anew(flows, now)
    while True:
        number = next_due(flows.wheel, now // SECOND)
        if number == NO_FLOW or is_idle(flows, number, now):
            return number
        queue(flows, number, now)


@kernel
def first_to_go(flows):
    """Return the flow that makes room in a full table: the one that is over first. Half-open ones
    thus go before established ones, and of the same kind the one that was quiet longest.
    """
    while True:
        number = first_due(flows.wheel)
        due = due_of(flows, number)
        if due <= flows.rows[np.uint64(number)].due:
            return number
        requeue(flows.wheel, flows.rows, number, due)


# Streams -------------------------------------------------------------------------------------


@kernel
def stream_row(streams, number):
    return streams.rows[np.uint64(number & (len(streams.rows) - 1))]


@kernel
def end_stream(flow, streams):
    """Note in the flow's stream how it stood; return whether it was still open."""
    if flow.stream == NO_STREAM:
        return False
    stream = stream_row(streams, flow.stream)
    if stream.number != flow.stream or stream.ended:
        return False
    stream.ended = 1
    if flow.root != ITSELF and stream.entries == 0:
        stream.entries = 1  # it has been recorded as its root's, and makes no entry of its own
    last_row = len(streams.rows) - 1
    streams.free[np.uint64(streams.counts[STREAMS_ENDED] & last_row)] = flow.stream & last_row
    streams.counts[STREAMS_ENDED] += 1
    stream.last_timestamp = flow.last_timestamp
    stream.closed = flow.closed
    for side in range(2):
        stream.packets[side] = flow.packets[side]
        stream.octets[side] = flow.octets[side]
    return True


@kernel
def open_stream(flow, streams, timestamp, client, from_start):
    """Give the flow a new stream, whose row is free: the rows are twice the flows at least."""
    end_stream(flow, streams)
    opened = streams.counts[STREAMS_OPENED]
    streams.counts[STREAMS_OPENED] += 1
    row = np.int64(streams.free[np.uint64(opened & (len(streams.rows) - 1))])
    stream = streams.rows[np.uint64(row)]
    stream.number = (opened + 1) * len(streams.rows) + row
    stream.id = mix(hash_endpoints(ID_SEED, flow), np.uint64(timestamp) ^ np.uint64(from_start))
    stream.first_timestamp = timestamp
    stream.lower_high, stream.lower_low = flow.lower_high, flow.lower_low
    stream.higher_high, stream.higher_low = flow.higher_high, flow.higher_low
    stream.ports = flow.ports
    stream.network = 0
    stream.entries = 0
    stream.client = client
    stream.from_start = from_start
    stream.ended = stream.is_sure = 0
    stream.viewer = NO_VIEW
    flow.stream = stream.number
    flow.packets[0] = flow.packets[1] = flow.octets[0] = flow.octets[1] = 0
    flow.closed = 0


@kernel
def count_packet(flow, packet):
    flow.last_timestamp = packet.timestamp
    flow.packets[np.uint64(packet.direction)] += 1
    flow.octets[np.uint64(packet.direction)] += packet.captured_length


@kernel
def take_datagram(flow, streams, packet):
    """Give a packet of UDP, ICMP or SCTP its stream, a new one after a pause, and count it."""
    pause = packet.timestamp - flow.last_timestamp
    if flow.stream == NO_STREAM or pause > datagrams_idle(flow):
        open_stream(flow, streams, packet.timestamp, packet.direction, 1)
    count_packet(flow, packet)
    packet.stream = flow.stream


@kernel
def number_entries(streams, numbers, indexes):
    """Fill indexes[i] with how many entries stream numbers[i] had before this one; -1: unknown."""
    for row in range(len(numbers)):
        stream = stream_row(streams, numbers[np.uint64(row)])
        if stream.number == numbers[np.uint64(row)]:
            indexes[np.uint64(row)] = stream.entries
            stream.entries += 1
        else:
            indexes[np.uint64(row)] = -1


def new_keys(rows):
    """Make `rows` empty KEY rows."""
    return np.zeros(rows, KEY)


def new_flows(most_flows, networks_apart=True):
    """Make an empty table of a power of two flows."""
    return Flows(
        slots=np.zeros(2 * most_flows, np.uint64),
        rows=aligned_rows(most_flows, FLOW),
        free=np.zeros(most_flows, np.int32),
        counts=np.zeros(COUNTS, np.int64),
        wheel=new_wheel(),
        seed=np.frombuffer(bytearray(os.urandom(8)), np.uint64),
        key_mask=np.array([(1 << 64) - 1 if networks_apart else 0], np.uint64),
    )


def aligned_rows(rows, dtype):
    """Make empty rows that begin with a cache line."""
    octets = np.zeros(rows * dtype.itemsize + CACHE_LINE, np.uint8)
    start = -octets.ctypes.data % CACHE_LINE
    return octets[start : start + rows * dtype.itemsize].view(dtype)


def new_streams(most_streams):
    """Make room for a power of two streams: at least twice the flows, and a batch of packets."""
    return Streams(
        rows=np.zeros(most_streams, STREAM),
        free=np.arange(most_streams, dtype=np.int32),
        counts=np.zeros(2, np.int64),
    )


def ended_since(streams, ended):
    """Return the numbers of the streams that ended after the first `ended` of them, as int64."""
    rows = np.arange(ended, streams.counts[STREAMS_ENDED]) & (len(streams.rows) - 1)
    return streams.rows["number"][streams.free[rows]]
