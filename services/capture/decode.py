# mypy: ignore-errors
"""Decode frames: one PACKET row for each, down to the transport header. Called once a batch.

`octets` holds all frames of the batch, and positions are indexes into it. Most packets are a link,
a network and a transport header, which are read here; with tunnels and fragments `layers` goes on.
"""

import numpy as np

from services.capture.flows import NO_FLOW, note_endpoints, stream_row
from services.capture.fragments import note_network, note_unknown_link
from services.capture.headers import (
    DECODED,
    MALFORMED,
    UNSUPPORTED,
    is_known_link,
    read_link,
    read_network,
    read_transport,
)
from services.capture.kernel import kernel, read_u8
from services.capture.layers import decode_layers, is_layered
from services.capture.networks import NO_NETWORK, flow_key

TOUCHED_AHEAD = 64
"""Frames whose first octets are loaded together. Loading waits for memory, for many no longer than
for one."""

# fmt: off
PACKET = np.dtype((np.record, [
    ("timestamp", np.int64),         # nanoseconds since 1970
    ("payload_offset", np.int64),    # position of the transport payload
    ("stream", np.int64),            # number of its stream, or 0
    ("network", np.int64),           # VLANs and tunnel, see networks; NO_NETWORK
    ("payload_length", np.int32),    # octets captured
    ("captured_length", np.int32),   # octets of the frame
    ("missing", np.int32),           # octets of the payload that were not captured (snaplen)
    ("flow", np.int32),              # row in the flow table, or NO_FLOW
    ("seen_flow", np.int32),         # that of its own addresses, if they were translated
    ("sequence", np.uint32),         # TCP; else 0
    ("acknowledgement", np.uint32),  # TCP; else 0
    ("source_port", np.uint16),
    ("destination_port", np.uint16),
    ("identification", np.uint16),   # of IPv4, else 0
    ("hops", np.uint8),              # that it may still go
    ("header_length", np.uint8),     # octets of the transport header, right before the payload;
                                     # 0 for ICMP
    ("protocol", np.uint8),          # PROTOCOL_TCP …, or 0: not decoded, or a copy
    ("tcp_flags", np.uint8),
    ("direction", np.uint8),         # 0: from the flow's lower endpoint, 1: from its higher one
    ("status", np.uint8),
]))
# fmt: on


@kernel
def fill_undecoded(packet, status):
    packet.status = status
    packet.protocol = 0
    packet.payload_length = 0
    packet.missing = 0
    packet.flow = NO_FLOW


@kernel
def decode_frame(octets, start, end, frame, row, packets, keys, flows, fragments):
    """Fill packets[row] from the frame at octets[start:end], and keys[row] with its flow's."""
    packet = packets[np.uint64(row)]
    packet.stream = 0
    ethertype, position, network = read_link(octets, start, end, frame.link_type, frame.vlan)
    found = read_network(octets, position, end, ethertype)
    transport = read_transport(octets, found)
    if is_layered(ethertype, found, transport):
        found, transport, network = decode_layers(
            octets, start, end, frame, row, packets, flows, fragments
        )
    packet.network = network
    if network != NO_NETWORK:
        note_network(fragments)
    if transport.status != DECODED:
        fill_undecoded(packet, transport.status)
        return
    packet.status = DECODED
    packet.protocol = found.protocol
    packet.payload_offset = transport.payload_offset
    packet.payload_length = found.payload_end - transport.payload_offset
    packet.missing = found.missing
    packet.sequence = transport.sequence
    packet.acknowledgement = transport.acknowledgement
    packet.source_port = transport.source_port
    packet.destination_port = transport.destination_port
    packet.tcp_flags = transport.tcp_flags
    packet.identification = found.identification
    packet.hops = found.hops
    packet.header_length = transport.payload_offset - found.payload_offset
    note_endpoints(found, transport, packet, flow_key(network), keys[np.uint64(row)], flows)


@kernel
def touch_ahead(octets, frames, row):
    """Load an octet of each of the next frames, which waits for nothing; return them mixed."""
    unused = np.int64(0)
    for ahead in range(row, min(row + TOUCHED_AHEAD, len(frames))):
        offset = frames[np.uint64(ahead)].offset
        if 0 <= offset < len(octets):
            unused ^= read_u8(octets, offset)
    return unused


@kernel
def decode_frames(octets, frames, packets, keys, flows, fragments):
    """Fill packets[i] from frames[i]; find_flows then finds their flows by keys[i].

    A frame that does not lie in `octets` is MALFORMED. `fragments` is after begin_batch; when it
    has `completed`, the positions of these rows are in its `work`, and move_frames brings the
    others there.
    """
    unused = np.int64(0)
    for row in range(len(frames)):
        if row % TOUCHED_AHEAD == 0:
            unused ^= touch_ahead(octets, frames, row)
        frame = frames[np.uint64(row)]
        packet = packets[np.uint64(row)]
        packet.timestamp = frame.timestamp
        packet.captured_length = frame.captured_length
        start = frame.offset
        end = start + np.int64(frame.captured_length)
        if start < 0 or end < start or end > len(octets):
            packet.stream = packet.network = 0
            fill_undecoded(packet, MALFORMED)
        elif not is_known_link(frame.link_type):
            packet.stream = packet.network = 0
            fill_undecoded(packet, UNSUPPORTED)
            note_unknown_link(fragments, frame)
        else:
            decode_frame(octets, start, end, frame, row, packets, keys, flows, fragments)
    return unused


@kernel
def note_networks(packets, streams):
    """Tell streams which network they are in: the first that one of their packets was in."""
    for row in range(len(packets)):
        packet = packets[np.uint64(row)]
        if packet.network != NO_NETWORK and packet.stream != 0:
            stream = stream_row(streams, packet.stream)
            if stream.number == packet.stream and stream.network == NO_NETWORK:
                stream.network = packet.network


def new_packets(rows):
    """Make `rows` empty PACKET rows."""
    return np.zeros(rows, PACKET)
