# mypy: ignore-errors
"""The flow table (who talks with whom now) and the streams (TCP connections, UDP exchanges).

A flow is a five-tuple without direction: the lower endpoint (address, then port) is number 0, the
higher one number 1. In another VLAN or tunnel the same five-tuple is another flow, see networks. A
five-tuple is used again within seconds, so a flow carries several streams, one after the other.

Stream number n is in row n & (len(rows) - 1). Rows of streams that have ended are used again in the
order in which they ended, at the latest moment; each use has a new, higher number, so whoever keeps
a number can tell whether the row is still that stream's.
"""

import os
from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel

NO_FLOW = -1
EMPTY_SLOT = -1
NO_STREAM = 0

PROTOCOL_UDP = 17

ID_SEED = np.uint64(0x243F6A8885A308D3)  # the same in every process: it makes the streams' names
SECOND = 1_000_000_000  # nanoseconds
UDP_IDLE = 30 * SECOND  # resolvers take a new port for each question: flows must go soon
TCP_IDLE = 1200 * SECOND  # as the flow timeout that operators of this kind of tool are used to
HALF_OPEN_IDLE = 60 * SECOND  # only one side spoke: scans and floods must not fill the table
END_OF_TIME = (1 << 63) - 1  # ns
CLOSED_IDLE = 10 * SECOND  # after both sides ended: late retransmissions still find their stream

# fmt: off
FLOW = np.dtype((np.record, [
    ("lower_high", np.uint64),       # address of the lower endpoint: high and low 64 bits
    ("lower_low", np.uint64),
    ("higher_high", np.uint64),
    ("higher_low", np.uint64),
    ("ports", np.uint64),            # protocol << 32 | lower port << 16 | higher port
    ("key", np.uint64),              # of its network, see networks.flow_key
    ("last_timestamp", np.int64),    # nanoseconds since 1970
    ("stream", np.int64),            # number of its current stream, or NO_STREAM
    ("packets", np.int64, 2),        # of the current stream, by direction
    ("octets", np.int64, 2),         # of its frames
    ("closed", np.uint8),            # both sides have ended
    ("used", np.uint8),              # the row holds a flow
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
    ("last_timestamp", np.int64),    # these three are filled when the stream ends
    ("packets", np.int64, 2),
    ("octets", np.int64, 2),
    ("entries", np.int32),           # made from it so far
    ("client", np.uint8),            # number of the endpoint that began
    ("from_start", np.uint8),        # its first packet was seen
    ("ended", np.uint8),
    ("closed", np.uint8),            # both sides had ended it themselves
]))
# fmt: on


class Flows(NamedTuple):
    """A hash table with open addressing; a flow's number is its row in `rows`."""

    slots: np.ndarray  # int32, a power of two long: a flow or EMPTY_SLOT
    rows: np.ndarray  # FLOW; at most half as many as slots
    free: np.ndarray  # int32: numbers of the rows that were used before and are free, a stack
    counts: np.ndarray  # int64: see ROWS_USED and what follows
    seed: np.ndarray  # uint64, one element, secret: who knows it could make all flows collide
    key_mask: np.ndarray  # uint64, one element: 0 when networks are not to be told apart


ROWS_USED, ROWS_FREE, NOT_FOLLOWED = 0, 1, 2
"""What Flows.counts holds: rows ever used, rows on the stack, packets whose flow had no room."""


class Streams(NamedTuple):
    """Every open stream, and those that ended last."""

    rows: np.ndarray  # STREAM, a power of two long
    free: np.ndarray  # int32: a ring of the rows to use next, those of ended streams last
    counts: np.ndarray  # int64: STREAMS_OPENED and STREAMS_ENDED


STREAMS_OPENED, STREAMS_ENDED = 0, 1
"""What Streams.counts holds: streams opened so far; that many were taken from the ring, and
STREAMS_ENDED were put behind those of the beginning."""


@kernel
def mix(state, word):
    state = (state ^ word) * np.uint64(0x9E3779B97F4A7C15)
    return state ^ (state >> np.uint64(32))


@kernel
def hash_flow(state, lower, higher, ports, key):
    if key:
        state = mix(state, key)
    state = mix(mix(state, lower[0]), lower[1])
    state = mix(mix(state, higher[0]), higher[1])
    return mix(state, ports)


@kernel
def hash_row(state, flow):
    lower, higher = (flow.lower_high, flow.lower_low), (flow.higher_high, flow.higher_low)
    return hash_flow(state, lower, higher, flow.ports, flow.key)


@kernel
def is_flow(flow, lower, higher, ports, key):
    return (
        flow.ports == ports
        and flow.lower_low == lower[1]
        and flow.higher_low == higher[1]
        and flow.lower_high == lower[0]
        and flow.higher_high == higher[0]
        and flow.key == key
    )


@kernel
def take_row(flows):
    """Return the number of an unused row, or NO_FLOW when the table is full."""
    if flows.counts[ROWS_FREE] > 0:
        flows.counts[ROWS_FREE] -= 1
        return np.int64(flows.free[np.uint64(flows.counts[ROWS_FREE])])
    number = flows.counts[ROWS_USED]
    if number == len(flows.rows):
        flows.counts[NOT_FOLLOWED] += 1
        return np.int64(NO_FLOW)
    flows.counts[ROWS_USED] += 1
    return number


@kernel
def add_flow(flows, slot, lower, higher, ports, key, timestamp):
    """Return the number of the new flow, or NO_FLOW when the table is full."""
    number = take_row(flows)
    if number == NO_FLOW:
        return number
    flows.slots[slot] = number
    flow = flows.rows[np.uint64(number)]
    flow.lower_high, flow.lower_low, _ = lower
    flow.higher_high, flow.higher_low, _ = higher
    flow.ports = ports
    flow.key = key
    flow.stream = NO_STREAM
    flow.last_timestamp = timestamp
    flow.used = 1
    return number


@kernel
def find_or_add_flow(flows, lower, higher, protocol, key, timestamp):
    """Return the flow's number, or NO_FLOW. An endpoint is (address high, low, port), uint64."""
    ports = np.uint64(protocol) << np.uint64(32) | lower[2] << np.uint64(16) | higher[2]
    last_slot = np.uint64(len(flows.slots) - 1)
    slot = hash_flow(flows.seed[0], lower, higher, ports, key) & last_slot
    while True:
        number = np.int64(flows.slots[slot])
        if number == EMPTY_SLOT:
            return add_flow(flows, slot, lower, higher, ports, key, timestamp)
        if is_flow(flows.rows[np.uint64(number)], lower, higher, ports, key):
            return number
        slot = (slot + np.uint64(1)) & last_slot


@kernel
def remove_flow(flows, number):
    """Free the row, and move back what would not be found behind the hole (Knuth, 6.4 R)."""
    last_slot = np.uint64(len(flows.slots) - 1)
    hole = hash_row(flows.seed[0], flows.rows[np.uint64(number)]) & last_slot
    while np.int64(flows.slots[hole]) != number:
        hole = (hole + np.uint64(1)) & last_slot
    probe = (hole + np.uint64(1)) & last_slot
    while flows.slots[probe] != EMPTY_SLOT:
        home = hash_row(flows.seed[0], flows.rows[np.uint64(flows.slots[probe])]) & last_slot
        if (probe - home) & last_slot >= (probe - hole) & last_slot:
            flows.slots[hole] = flows.slots[probe]
            hole = probe
        probe = (probe + np.uint64(1)) & last_slot
    flows.slots[hole] = EMPTY_SLOT
    flows.rows[np.uint64(number)].used = 0
    flows.free[np.uint64(flows.counts[ROWS_FREE])] = number
    flows.counts[ROWS_FREE] += 1


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
    """Give the flow a new stream, whose row is free: the rows are more than twice the flows."""
    end_stream(flow, streams)
    opened = streams.counts[STREAMS_OPENED]
    streams.counts[STREAMS_OPENED] += 1
    row = np.int64(streams.free[np.uint64(opened & (len(streams.rows) - 1))])
    stream = streams.rows[np.uint64(row)]
    stream.number = (opened + 1) * len(streams.rows) + row
    stream.id = mix(hash_row(ID_SEED, flow), np.uint64(timestamp) ^ np.uint64(from_start))
    stream.first_timestamp = timestamp
    stream.lower_high, stream.lower_low = flow.lower_high, flow.lower_low
    stream.higher_high, stream.higher_low = flow.higher_high, flow.higher_low
    stream.ports = flow.ports
    stream.network = 0
    stream.entries = 0
    stream.client = client
    stream.from_start = from_start
    stream.ended = 0
    flow.stream = stream.number
    flow.packets[0] = flow.packets[1] = flow.octets[0] = flow.octets[1] = 0
    flow.closed = 0


@kernel
def is_over(flow, timestamp):
    """Whether a UDP packet at this time begins a new stream."""
    return flow.stream == NO_STREAM or timestamp - flow.last_timestamp > UDP_IDLE


@kernel
def count_packet(flow, packet):
    flow.last_timestamp = packet.timestamp
    flow.packets[np.uint64(packet.direction)] += 1
    flow.octets[np.uint64(packet.direction)] += packet.captured_length


@kernel
def flow_of(network, transport, packet, key, flows, streams):
    """Find the packet's flow and direction. A UDP packet gets its stream here and is counted in it;
    for a TCP packet reassembly does both, since its sequence number has a say.
    """
    source = (network.source_high, network.source_low, np.uint64(transport.source_port))
    destination = (
        network.destination_high,
        network.destination_low,
        np.uint64(transport.destination_port),
    )
    key &= flows.key_mask[0]
    protocol, timestamp = network.protocol, packet.timestamp
    if source > destination:
        number = find_or_add_flow(flows, destination, source, protocol, key, timestamp)
        direction = 1
    else:
        number = find_or_add_flow(flows, source, destination, protocol, key, timestamp)
        direction = 0
    packet.flow = number
    packet.direction = direction
    if number == NO_FLOW:
        return
    if network.protocol == PROTOCOL_UDP:
        flow = flows.rows[np.uint64(number)]
        if is_over(flow, packet.timestamp):
            open_stream(flow, streams, packet.timestamp, direction, 1)
        count_packet(flow, packet)
        packet.stream = flow.stream


@kernel
def idle_limit(flow):
    if flow.ports >> np.uint64(32) == np.uint64(PROTOCOL_UDP):
        return UDP_IDLE
    if flow.closed:
        return CLOSED_IDLE
    is_half = flow.packets[0] == 0 or flow.packets[1] == 0
    return HALF_OPEN_IDLE if is_half or flow.stream == NO_STREAM else TCP_IDLE


@kernel
def is_idle(flow, now):
    """Whether the flow is over at `now`; also one whose last packet is that far in the future, from
    before a clock was set back. At END_OF_TIME all are.
    """
    limit = idle_limit(flow)
    idle = now - flow.last_timestamp
    return now == END_OF_TIME or idle > limit or idle < -limit


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


def new_flows(most_flows, networks_apart=True):
    """Make an empty table of a power of two flows."""
    return Flows(
        slots=np.full(2 * most_flows, EMPTY_SLOT, np.int32),
        rows=np.zeros(most_flows, FLOW),
        free=np.zeros(most_flows, np.int32),
        counts=np.zeros(3, np.int64),
        seed=np.frombuffer(bytearray(os.urandom(8)), np.uint64),
        key_mask=np.array([(1 << 64) - 1 if networks_apart else 0], np.uint64),
    )


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
