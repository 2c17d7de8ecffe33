# mypy: ignore-errors
"""One packet that was seen several times is taken once. The pipeline calls it between decode and
reassembly, when frames come from several interfaces.

On the interface "any" of a node, a packet from pod to pod is seen on the veth of each, on the
bridge between, and with other addresses before and after the node has translated them (a service's
address to that of a pod, a pod's address to that of the node). All copies have the same mark: what
no router and no translation changes. A mark that comes again within COPY_WINDOW, on an interface
and in a direction where it was not yet, is a copy; the same mark again at the same place is a
packet that was sent again.

The first copy goes on to reassembly. When one came in and another one leaves with other addresses,
the later one's flow gets the earlier one's as its root (flows.py): all its packets are then of the
root's stream. So that the packets of a recording are a whole conversation, those with the addresses
of the root's flow are kept, and the others are not, though they may come first.

Nothing is merged that could be two packets: of two that came in with the same mark and different
addresses, each stays its own.
"""

from typing import NamedTuple

import numpy as np

from services.capture.flows import (
    ITSELF,
    NO_FLOW,
    NO_STREAM,
    join,
    mix,
    port_of,
    root_of,
    stream_row,
)
from services.capture.frames.batch import UNDIRECTED
from services.capture.frames.ringwalk import PACKET_OUTGOING
from services.capture.headers import (
    COPY,
    DECODED,
    KEPT_COPY,
    LINK_SLL,
    LINK_SLL2,
    PROTOCOL_TCP,
    SLL2_HEADER_SIZE,
    SLL_HEADER_SIZE,
    TRANSLATED,
)
from services.capture.kernel import kernel, read_u8, read_u16, read_u32

COPY_WINDOW = 20_000_000
"""ns. A packet takes microseconds through a node, milliseconds through a busy one; TCP waits for
200 ms before it sends again, as long as it has no better reason."""
MOST_SIGHTINGS = 1 << 16
"""Packets that are remembered: COPY_WINDOW of three million a second."""
WAYS = 4  # places in which one sighting may be; the oldest makes room
MOST_PLACES = 8  # of one packet: bridges and tunnels of one node
MOST_HOPS = 4  # that a node takes from a packet: two of its own, and those of a tunnel's inside
SAMPLE_HEAD, SAMPLE_TAIL = 64, 16  # octets of the payload that go into the mark
BOTH = 0b11  # directions, as FLOW's seen
FEW_PACKETS = 4  # after which the root's own copies should have been seen
LARGEST_INTERFACE = (1 << 28) - 1  # number; Linux counts up from 1
UNTOLD = 1 << 28  # the interface of an old "any" capture (LINKTYPE_LINUX_SLL), which does not say
MOST_UNTOLD = 2  # copies in each direction there: a veth and a bridge, then a bridge and a veth

TCP_CHECKSUM_OFFSET = 16
SYN, SYN_ACK = 0x02, 0x12
SLL2_INTERFACE_OFFSET, SLL2_TYPE_OFFSET = 4, 10

NO_SIGHTING = -1

# fmt: off
SIGHTING = np.dtype((np.record, [
    ("mark", np.uint64),
    ("timestamp", np.int64),       # nanoseconds since 1970: of the first copy
    ("places", np.int32, MOST_PLACES),  # as FRAME's interface
    ("flow", np.int32),            # of the first copy's addresses
    ("generation", np.uint32),
    ("batch", np.int64),           # number of the call in which it was found, and its row there
    ("row", np.int32),
    ("place_count", np.uint8),
    ("hops", np.uint8),            # of the first copy
    ("direction", np.uint8),       # in the flow
    ("kept", np.uint8),            # a copy with the root's addresses is kept
    ("has_left", np.uint8),        # it came in, and a copy with the same addresses was leaving
    ("unused", np.uint8, 7),
]))
# fmt: on


class Sightings(NamedTuple):
    """The packets of the last milliseconds."""

    rows: np.ndarray  # SIGHTING, a power of two long
    counts: np.ndarray  # int64: COPIES, TRANSLATIONS and BATCHES


COPIES, TRANSLATIONS, BATCHES = 0, 1, 2
"""What Sightings.counts holds: copies found, how often a flow was found to be another one, and
calls of mark_copies."""


# What a packet is known by ---------------------------------------------------------------------


@kernel
def mix_octets(mark, octets, position, end):
    while position + 4 <= end:
        mark = mix(mark, np.uint64(read_u32(octets, position)))
        position += 4
    while position < end:
        mark = mix(mark, np.uint64(read_u8(octets, position)))
        position += 1
    return mark


@kernel
def mark_of(octets, packet, seed):
    """Hash what is the same in all copies: no addresses, ports, checksums, nor time to live."""
    end = packet.payload_offset + packet.payload_length
    length = np.int64(packet.payload_length) + np.int64(packet.missing)
    mark = mix(seed, np.uint64(packet.protocol) << np.uint64(48) | np.uint64(length))
    mark = mix(mark, np.uint64(packet.identification))
    if packet.protocol == PROTOCOL_TCP:
        header = packet.payload_offset - np.int64(packet.header_length)
        mark = mix_octets(mark, octets, header + 4, header + TCP_CHECKSUM_OFFSET)
        mark = mix_octets(mark, octets, header + TCP_CHECKSUM_OFFSET + 2, packet.payload_offset)
    head_end = min(packet.payload_offset + SAMPLE_HEAD, end)
    mark = mix_octets(mark, octets, packet.payload_offset, head_end)
    return mix_octets(mark, octets, max(head_end, end - SAMPLE_TAIL), end)


@kernel
def place_of(octets, frame):
    """Return where a frame was seen, as FRAME's interface; 0 when nobody knows."""
    start, end = frame.offset, frame.offset + np.int64(frame.captured_length)
    if frame.link_type == LINK_SLL2 and start + SLL2_HEADER_SIZE <= end:
        interface = read_u32(octets, start + SLL2_INTERFACE_OFFSET) & LARGEST_INTERFACE
        is_leaving = read_u8(octets, start + SLL2_TYPE_OFFSET) == PACKET_OUTGOING
    elif frame.link_type == LINK_SLL and start + SLL_HEADER_SIZE <= end:
        interface = UNTOLD
        is_leaving = read_u16(octets, start) == PACKET_OUTGOING
    else:
        return np.int64(frame.interface)
    return -interface if is_leaving else interface


# Whether it was seen before --------------------------------------------------------------------


@kernel
def is_new_place(sighting, packet, place):
    """Whether a copy may be seen at `place`: it was not there yet."""
    if sighting.place_count == MOST_PLACES:
        return place < 0  # a bridge floods all its ports; what is sent again comes in first
    there = 0
    for index in range(sighting.place_count):
        if sighting.places[np.uint64(index)] == place:
            there += 1
    if abs(place) != UNTOLD:
        return there == 0
    is_certain = packet.protocol == PROTOCOL_TCP or packet.identification != 0
    return there < (MOST_UNTOLD if is_certain else 1)


@kernel
def note_place(sighting, packet, place):
    if sighting.place_count < MOST_PLACES:
        sighting.places[np.uint64(sighting.place_count)] = place
        sighting.place_count += 1
    if place < 0 < sighting.places[0] and packet.flow == sighting.flow:
        sighting.has_left = 1


@kernel
def has_same_end(flow, other):
    """Whether an address and its port are the same in both flows."""
    ports, others = flow.ports, other.ports
    for side in range(2):
        for other_side in range(2):
            if (
                (flow.higher_high if side else flow.lower_high)
                == (other.higher_high if other_side else other.lower_high)
                and (flow.higher_low if side else flow.lower_low)
                == (other.higher_low if other_side else other.lower_low)
                and port_of(ports, side) == port_of(others, other_side)
            ):
                return True
    return False


@kernel
def is_translation(sighting, packet, place, flows):
    """Whether two packets with the same mark and different addresses can be one, that the node
    translated on its way: in and out again, or between a bridge and one of its ports.

    Of UDP datagrams many are the same. One that comes in and leaves is told by that; on the way
    from or to a bridge it keeps one end, and is an answer when it comes from there.
    """
    first, hops = np.int64(sighting.places[0]), np.int64(sighting.hops) - np.int64(packet.hops)
    if packet.timestamp < sighting.timestamp or not 0 <= hops <= MOST_HOPS:
        return False
    if (first | place) & UNDIRECTED and first > 0 and place > 0:
        return False
    if first > 0 and place < 0:
        return not sighting.has_left
    if first < 0 and place > 0:
        return False
    if packet.protocol == PROTOCOL_TCP:
        return True
    flow, other = flows.rows[np.uint64(packet.flow)], flows.rows[np.uint64(sighting.flow)]
    is_answer = other.seen == BOTH and flow.seen != BOTH
    return has_same_end(flow, other) and (is_answer or place < 0)


@kernel
def find_sighting(s, packet, place, mark, root, flows):
    """Return (row of the sighting that this packet is a copy of, or NO_SIGHTING; whether its flow
    has to become that one's).

    Of several packets with other addresses none is taken: nobody can tell which it was.
    """
    translated, candidates = NO_SIGHTING, 0
    for way in range(WAYS):
        row = np.uint64((np.int64(mark) & (len(s.rows) - 1)) ^ way)
        sighting = s.rows[row]
        near = abs(packet.timestamp - sighting.timestamp) <= COPY_WINDOW
        if sighting.mark != mark or not near or not is_new_place(sighting, packet, place):
            continue
        if flows.rows[np.uint64(sighting.flow)].generation != sighting.generation:
            continue
        its_root, _ = root_of(flows, np.int64(sighting.flow))
        if its_root == root:
            return np.int64(row), False
        if is_translation(sighting, packet, place, flows):
            translated = np.int64(row)
            candidates += 1
    return (translated if candidates == 1 else NO_SIGHTING), candidates == 1


@kernel
def add_sighting(s, packet, place, mark, packet_row, flows):
    """Remember a packet that was not seen before, instead of the oldest; return its row."""
    oldest = np.uint64(np.int64(mark) & (len(s.rows) - 1))
    for way in range(1, WAYS):
        row = np.uint64((np.int64(mark) & (len(s.rows) - 1)) ^ way)
        if s.rows[row].timestamp < s.rows[oldest].timestamp:
            oldest = row
    sighting = s.rows[oldest]
    sighting.mark = mark
    sighting.timestamp = packet.timestamp
    sighting.places[0] = place
    sighting.place_count = 1
    sighting.row = packet_row
    sighting.batch = s.counts[BATCHES]
    sighting.flow = packet.flow
    sighting.generation = flows.rows[np.uint64(packet.flow)].generation
    sighting.hops = packet.hops
    sighting.direction = packet.direction
    sighting.has_left = 0
    sighting.kept = 0
    return np.int64(oldest)


# What follows from it --------------------------------------------------------------------------


@kernel
def is_senior(flows, streams, number, other):
    """Whether flow `number` has had an open stream for longer than the other one."""
    flow, its = flows.rows[np.uint64(number)], flows.rows[np.uint64(other)]
    if flow.stream == NO_STREAM or its.stream == NO_STREAM:
        return flow.stream != NO_STREAM
    first = stream_row(streams, flow.stream).first_timestamp
    return first < stream_row(streams, its.stream).first_timestamp


@kernel
def link_flows(s, sighting, packets, packet, flows, streams):
    """Give the packet's flow the root of the sighting's; or the other way round, when the packet's
    has a stream already. Return whether the packet is a copy then.
    """
    root, turned = root_of(flows, np.int64(sighting.flow))
    turned ^= np.int64(packet.direction) ^ np.int64(sighting.direction)
    number = np.int64(packet.flow)
    own_root, _ = root_of(flows, number)
    s.counts[TRANSLATIONS] += 1
    if own_root != number or not is_senior(flows, streams, number, root):
        join(flows, number, root, turned)
        return True
    join(flows, root, number, turned)
    flows.rows[np.uint64(number)].root = ITSELF
    if sighting.batch != s.counts[BATCHES]:
        return False
    put_in_root(packets[np.uint64(sighting.row)], flows)
    packets[np.uint64(sighting.row)].status = TRANSLATED
    sighting.kept = 0
    return True


@kernel
def put_in_root(packet, flows):
    """Make a packet one of its flow's root: the ports are the root's, too."""
    root, turned = root_of(flows, np.int64(packet.flow))
    packet.flow = root
    packet.direction ^= turned
    ports = flows.rows[np.uint64(root)].ports
    packet.source_port = port_of(ports, np.int64(packet.direction))
    packet.destination_port = port_of(ports, np.int64(packet.direction) ^ 1)


@kernel
def mark_copy(s, sighting, packet, flows):
    """A packet that was seen before: nobody takes it, but it may be the one to keep."""
    s.counts[COPIES] += 1
    packet.protocol = 0
    packet.status = COPY
    put_in_root(packet, flows)
    if packet.flow == packet.seen_flow and not sighting.kept:
        packet.status = KEPT_COPY
        sighting.kept = 1


@kernel
def mark_first(sighting, packet, flows):
    """A packet that was not seen before, of a flow with a root: the root's copy is the one to keep,
    unless the root's flow is not seen in this direction at all.
    """
    flow = flows.rows[np.uint64(packet.flow)]
    flow.packets[np.uint64(packet.direction)] += 1
    is_late = flow.packets[np.uint64(packet.direction)] > FEW_PACKETS
    put_in_root(packet, flows)
    has_own = flows.rows[np.uint64(packet.flow)].seen >> packet.direction & 1
    if has_own or not is_late:
        packet.status = TRANSLATED
    else:
        sighting.kept = 1


@kernel
def is_begun_anew(packet, place):
    """Whether this packet, of a flow with a root and not a copy, shows that the root is another
    connection's by now: what it leaves as should have come in before.
    """
    begins = packet.protocol != PROTOCOL_TCP or packet.tcp_flags & SYN_ACK == SYN
    return place < 0 and begins


@kernel
def mark_packet(s, place, octets, packets, row, flows, streams):
    packet = packets[np.uint64(row)]
    number = np.int64(packet.flow)
    flow = flows.rows[np.uint64(number)]
    flow.seen |= np.uint8(1 << packet.direction)
    mark = mark_of(octets, packet, flows.seed[0])
    root, _ = root_of(flows, number)
    found, is_translated = find_sighting(s, packet, place, mark, root, flows)
    if found != NO_SIGHTING:
        sighting = s.rows[np.uint64(found)]
        note_place(sighting, packet, place)
        if not is_translated or link_flows(s, sighting, packets, packet, flows, streams):
            mark_copy(s, sighting, packet, flows)
        return
    sighting = s.rows[np.uint64(add_sighting(s, packet, place, mark, row, flows))]
    if root == number or is_begun_anew(packet, place):
        flow.root = ITSELF  # a root that has ended is none any more
        sighting.kept = 1
    else:
        mark_first(sighting, packet, flows)


@kernel
def mark_copies(s, frame_octets, frames, octets, packets, flows, streams):
    """Mark the copies among the packets, and give translated ones the flow of their root.

    frame_octets: in which the FRAME rows lie; octets: in which the payloads do.
    """
    s.counts[BATCHES] += 1
    for row in range(len(packets)):
        packet = packets[np.uint64(row)]
        if packet.status == DECODED and packet.flow != NO_FLOW:
            place = place_of(frame_octets, frames[np.uint64(row)])
            if place != 0:
                mark_packet(s, place, octets, packets, row, flows, streams)


@kernel
def forget_copies(packets):
    """Take the packets out of their streams that are not to be kept."""
    for row in range(len(packets)):
        packet = packets[np.uint64(row)]
        if packet.status == COPY or packet.status == TRANSLATED:
            packet.stream = NO_STREAM


@kernel
def is_needed(frames):
    """Whether the FRAME rows are of several interfaces, as far as their source tells."""
    for row in range(len(frames)):
        frame = frames[np.uint64(row)]
        if frame.interface != 0 or frame.link_type == LINK_SLL or frame.link_type == LINK_SLL2:
            return True
    return False


def new_sightings(most: int = MOST_SIGHTINGS) -> Sightings:
    """Make room for a power of two."""
    return Sightings(np.zeros(most, SIGHTING), np.zeros(3, np.int64))
