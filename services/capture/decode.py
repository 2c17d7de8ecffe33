# mypy: ignore-errors
"""Decode frames: one PACKET row for each, down to the transport header. Called once a batch.

`octets` holds all frames of the batch. Every position is an index into it, every `end` is
exclusive, every length is in octets. One function reads one layer: it gets (octets, position, end)
and returns scalars. A layer that cannot be read is told by the `status` of what it returns; the
other fields are then 0.

Link types: https://www.tcpdump.org/linktypes.html. Ethernet and VLAN: IEEE 802.3, 802.1Q. IPv4:
RFC 791. IPv6: RFC 8200. TCP: RFC 9293. UDP: RFC 768.
"""

from typing import NamedTuple

import numpy as np

from services.capture.flows import BLOCK, DECODED_TO, NO_FLOW, TOUCHED, find_flows, note_endpoints
from services.capture.kernel import kernel, read_u8, read_u16, read_u32, read_u64

# Status of a packet. The last three are of decoded ones that came several times: see duplicates.
DECODED, UNSUPPORTED, MALFORMED, FRAGMENT = 0, 1, 2, 3
TRANSLATED = 4  # its stream's, but with other addresses: not kept, since a copy has the stream's own
COPY = 5  # seen before: nobody takes it
KEPT_COPY = 6  # as COPY, but the one that has the stream's addresses

LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_LOOP = 0, 1, 101, 108
LINK_RAW_BSD, LINK_RAW_OPENBSD = 12, 14
LINK_SLL, LINK_IPV4, LINK_IPV6, LINK_SLL2 = 113, 228, 229, 276

ETHERNET_HEADER_SIZE = 14
SLL_HEADER_SIZE = 16
SLL2_HEADER_SIZE = 20
LOOP_HEADER_SIZE = 4
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
VLAN_ETHERTYPES = (0x8100, 0x88A8, 0x9100)
VLAN_TAG_SIZE = 4
MOST_VLAN_TAGS = 3

IPV4_SMALLEST_HEADER = 20
IPV4_FRAGMENT_MASK = 0x3FFF  # the offset and the "more fragments" bit
IPV4_MAPPED = np.uint64(0xFFFF) << np.uint64(32)  # RFC 4291, section 2.5.5.2
IPV6_HEADER_SIZE = 40
IPV6_SMALLEST_EXTENSION = 8
IPV6_MOST_EXTENSIONS = 8
IPV6_EXTENSIONS = (0, 43, 60)  # hop-by-hop options, routing, destination options
IPV6_FRAGMENT = 44
IPV6_AUTHENTICATION = 51  # its length counts in 4 octets, less 2
IPV6_FRAGMENT_MASK = 0xFFF9  # the offset and the "more fragments" bit

PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
TCP_SMALLEST_HEADER = 20
UDP_HEADER_SIZE = 8

NO_ETHERTYPE = -1
NO_ADDRESS = np.uint64(0)

# fmt: off
PACKET = np.dtype((np.record, [
    ("timestamp", np.int64),         # nanoseconds since 1970
    ("payload_offset", np.int64),    # position of the transport payload
    ("stream", np.int64),            # number of its stream, or 0
    ("payload_length", np.int32),    # octets captured
    ("captured_length", np.int32),   # octets of the frame
    ("missing", np.int32),           # octets of the payload that were not captured (snaplen)
    ("flow", np.int32),              # row in the flow table, or NO_FLOW
    ("seen_flow", np.int32),         # the flow of its own addresses; others if they were translated
    ("sequence", np.uint32),         # TCP; 0 for UDP
    ("acknowledgement", np.uint32),  # TCP; 0 for UDP
    ("source_port", np.uint16),
    ("destination_port", np.uint16),
    ("identification", np.uint16),   # of IPv4; 0 in IPv6
    ("hops", np.uint8),              # that it may still go: IPv4's time to live, IPv6's hop limit
    ("header_length", np.uint8),     # octets of the transport header, right before the payload
    ("protocol", np.uint8),          # PROTOCOL_TCP, PROTOCOL_UDP, or 0 when not decoded or a copy
    ("tcp_flags", np.uint8),
    ("direction", np.uint8),         # 0: from the flow's lower endpoint, 1: from its higher one
    ("status", np.uint8),
]))
# fmt: on


class Network(NamedTuple):
    """What an IP header says. An IPv4 address is kept as IPv4-mapped IPv6."""

    status: int
    protocol: int
    identification: int  # IPv4's; 0 in IPv6
    hops: int
    source_high: int
    source_low: int
    destination_high: int
    destination_low: int
    payload_offset: int
    payload_end: int  # of what was captured
    missing: int  # octets of the payload behind that


class Transport(NamedTuple):
    """What a TCP or UDP header says. The sequence, acknowledgement and flags are TCP's."""

    status: int
    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    tcp_flags: int
    payload_offset: int


@kernel
def skip_vlan_tags(octets, position, end, ethertype):
    """Return (ethertype, position) after at most MOST_VLAN_TAGS tags."""
    tags = 0
    while tags < MOST_VLAN_TAGS and ethertype in VLAN_ETHERTYPES:
        if position + VLAN_TAG_SIZE > end:
            break
        ethertype = read_u16(octets, position + 2)
        position += VLAN_TAG_SIZE
        tags += 1
    return ethertype, position


@kernel
def read_ethernet(octets, position, end):
    """Return (ethertype or NO_ETHERTYPE, position of the network header)."""
    if position + ETHERNET_HEADER_SIZE > end:
        return NO_ETHERTYPE, position
    ethertype = read_u16(octets, position + 12)
    return skip_vlan_tags(octets, position + ETHERNET_HEADER_SIZE, end, ethertype)


@kernel
def read_sll(octets, position, end):
    if position + SLL_HEADER_SIZE > end:
        return NO_ETHERTYPE, position
    ethertype = read_u16(octets, position + 14)
    return skip_vlan_tags(octets, position + SLL_HEADER_SIZE, end, ethertype)


@kernel
def read_sll2(octets, position, end):
    if position + SLL2_HEADER_SIZE > end:
        return NO_ETHERTYPE, position
    ethertype = read_u16(octets, position)
    return skip_vlan_tags(octets, position + SLL2_HEADER_SIZE, end, ethertype)


@kernel
def read_raw(octets, position, end):
    """No link header: the IP version tells."""
    if position >= end:
        return NO_ETHERTYPE, position
    version = read_u8(octets, position) >> 4
    if version == 4:
        return ETHERTYPE_IPV4, position
    return (ETHERTYPE_IPV6 if version == 6 else NO_ETHERTYPE), position


@kernel
def read_link(octets, position, end, link_type):
    """Return (ethertype or NO_ETHERTYPE, position of the network header)."""
    if link_type == LINK_ETHERNET:
        return read_ethernet(octets, position, end)
    if link_type == LINK_SLL:
        return read_sll(octets, position, end)
    if link_type == LINK_SLL2:
        return read_sll2(octets, position, end)
    if link_type == LINK_NULL or link_type == LINK_LOOP:
        # The address family has other numbers on each system; the IP version says the same.
        return read_raw(octets, position + LOOP_HEADER_SIZE, end)
    return read_raw(octets, position, end)


@kernel
def is_known_link(link_type):
    return link_type in (
        LINK_ETHERNET, LINK_SLL, LINK_SLL2, LINK_NULL, LINK_LOOP, LINK_RAW, LINK_RAW_BSD,
        LINK_RAW_OPENBSD, LINK_IPV4, LINK_IPV6,
    )  # fmt: skip


@kernel
def no_network(status):
    return Network(status, 0, 0, 0, NO_ADDRESS, NO_ADDRESS, NO_ADDRESS, NO_ADDRESS, 0, 0, 0)


@kernel
def read_ipv4(octets, position, end):
    if position + IPV4_SMALLEST_HEADER > end:
        return no_network(MALFORMED)
    version = read_u8(octets, position) >> 4
    header_length = (read_u8(octets, position) & 0x0F) * 4
    total_length = read_u16(octets, position + 2)
    payload_offset = position + header_length
    if version != 4 or header_length < IPV4_SMALLEST_HEADER or payload_offset > end:
        return no_network(MALFORMED)
    if total_length == 0:  # segmentation offload: the length did not fit in 16 bits
        payload_end = end
    elif total_length < header_length:
        return no_network(MALFORMED)
    else:
        payload_end = position + total_length
    if read_u16(octets, position + 6) & IPV4_FRAGMENT_MASK != 0:
        return no_network(FRAGMENT)
    return Network(
        DECODED,
        read_u8(octets, position + 9),
        read_u16(octets, position + 4),
        read_u8(octets, position + 8),
        NO_ADDRESS,
        IPV4_MAPPED | np.uint64(read_u32(octets, position + 12)),
        NO_ADDRESS,
        IPV4_MAPPED | np.uint64(read_u32(octets, position + 16)),
        payload_offset,
        min(end, payload_end),
        max(0, payload_end - end),
    )


@kernel
def skip_ipv6_extensions(octets, position, end, protocol):
    """Return (status, protocol, position) after the extension headers."""
    extensions = 0
    while extensions < IPV6_MOST_EXTENSIONS:
        if protocol == IPV6_FRAGMENT:
            if position + IPV6_SMALLEST_EXTENSION > end:
                return MALFORMED, protocol, position
            if read_u16(octets, position + 2) & IPV6_FRAGMENT_MASK != 0:
                return FRAGMENT, protocol, position
            size = IPV6_SMALLEST_EXTENSION  # an atomic fragment, RFC 6946: the whole packet
        elif protocol in IPV6_EXTENSIONS:
            if position + IPV6_SMALLEST_EXTENSION > end:
                return MALFORMED, protocol, position
            size = (read_u8(octets, position + 1) + 1) * 8
        elif protocol == IPV6_AUTHENTICATION:
            if position + IPV6_SMALLEST_EXTENSION > end:
                return MALFORMED, protocol, position
            size = (read_u8(octets, position + 1) + 2) * 4
        else:
            break
        protocol = read_u8(octets, position)
        position += size
        extensions += 1
    return (DECODED if position <= end else MALFORMED), protocol, position


@kernel
def read_ipv6(octets, position, end):
    if position + IPV6_HEADER_SIZE > end:
        return no_network(MALFORMED)
    payload_offset = position + IPV6_HEADER_SIZE
    payload_length = read_u16(octets, position + 4)
    payload_end = end if payload_length == 0 else payload_offset + payload_length
    captured_end = min(end, payload_end)
    status, protocol, payload_offset = skip_ipv6_extensions(
        octets, payload_offset, captured_end, read_u8(octets, position + 6)
    )
    if status != DECODED:
        return no_network(status)
    return Network(
        DECODED,
        protocol,
        0,
        read_u8(octets, position + 7),
        read_u64(octets, position + 8),
        read_u64(octets, position + 16),
        read_u64(octets, position + 24),
        read_u64(octets, position + 32),
        payload_offset,
        captured_end,
        max(0, payload_end - end),
    )


@kernel
def no_transport(status):
    return Transport(status, 0, 0, 0, 0, 0, 0)


@kernel
def read_tcp(octets, position, end):
    if position + TCP_SMALLEST_HEADER > end:
        return no_transport(MALFORMED)
    header_length = (read_u8(octets, position + 12) >> 4) * 4
    if header_length < TCP_SMALLEST_HEADER or position + header_length > end:
        return no_transport(MALFORMED)
    return Transport(
        DECODED,
        read_u16(octets, position),
        read_u16(octets, position + 2),
        read_u32(octets, position + 4),
        read_u32(octets, position + 8),
        read_u8(octets, position + 13),
        position + header_length,
    )


@kernel
def read_udp(octets, position, end):
    if position + UDP_HEADER_SIZE > end:
        return no_transport(MALFORMED)
    return Transport(
        DECODED,
        read_u16(octets, position),
        read_u16(octets, position + 2),
        0,
        0,
        0,
        position + UDP_HEADER_SIZE,
    )


@kernel
def read_network(octets, position, end, link_type):
    ethertype, position = read_link(octets, position, end, link_type)
    if ethertype == ETHERTYPE_IPV4:
        return read_ipv4(octets, position, end)
    if ethertype == ETHERTYPE_IPV6:
        return read_ipv6(octets, position, end)
    return no_network(MALFORMED if ethertype == NO_ETHERTYPE else UNSUPPORTED)


@kernel
def read_transport(octets, network):
    if network.status != DECODED:
        return no_transport(network.status)
    if network.protocol == PROTOCOL_TCP:
        return read_tcp(octets, network.payload_offset, network.payload_end)
    if network.protocol == PROTOCOL_UDP:
        return read_udp(octets, network.payload_offset, network.payload_end)
    return no_transport(UNSUPPORTED)


@kernel
def fill_undecoded(packet, status):
    packet.status = status
    packet.protocol = 0
    packet.payload_length = 0
    packet.missing = 0
    packet.flow = NO_FLOW


@kernel
def decode_frame(octets, start, end, link_type, packet, key, seed):
    """Fill `packet` from the frame at octets[start:end], and the `key` of its flow."""
    packet.stream = 0
    if not is_known_link(link_type):
        fill_undecoded(packet, UNSUPPORTED)
        return
    network = read_network(octets, start, end, link_type)
    transport = read_transport(octets, network)
    if transport.status != DECODED:
        fill_undecoded(packet, transport.status)
        return
    packet.status = DECODED
    packet.protocol = network.protocol
    packet.payload_offset = transport.payload_offset
    packet.payload_length = network.payload_end - transport.payload_offset
    packet.missing = network.missing
    packet.sequence = transport.sequence
    packet.acknowledgement = transport.acknowledgement
    packet.source_port = transport.source_port
    packet.destination_port = transport.destination_port
    packet.tcp_flags = transport.tcp_flags
    packet.identification = network.identification
    packet.hops = network.hops
    packet.header_length = transport.payload_offset - network.payload_offset
    note_endpoints(network, transport, packet, key, seed)


@kernel
def touch_frames(octets, frames, begin, end):
    """Load the headers of frames that will be decoded, without waiting for each."""
    unused = np.int64(0)
    for row in range(begin, end):
        offset = frames[np.uint64(row)].offset
        if 0 <= offset < len(octets):
            unused |= read_u8(octets, offset)
    return unused


@kernel
def decode_block(octets, frames, packets, begin, end, flows):
    flows.counts[TOUCHED] ^= touch_frames(octets, frames, begin, end)
    for row in range(begin, end):
        frame = frames[np.uint64(row)]
        packet = packets[np.uint64(row)]
        packet.timestamp = frame.timestamp
        packet.captured_length = frame.captured_length
        first = frame.offset
        last = first + np.int64(frame.captured_length)
        if first < 0 or last < first or last > len(octets):
            packet.stream = 0
            fill_undecoded(packet, MALFORMED)
        else:
            key = flows.keys[np.uint64(row - begin)]
            decode_frame(octets, first, last, frame.link_type, packet, key, flows.seed[0])


@kernel
def decode_frames(octets, frames, packets, row, flows):
    """Fill packets[i] from frames[i], from `row` on. Return the row of the first packet whose flow
    found the table full: make room and call again from it, or len(frames) when all are done.

    A frame that does not lie in `octets` is MALFORMED.
    """
    decoded = flows.counts[DECODED_TO] if row > 0 else 0
    while row < len(frames):
        if row == decoded:
            decoded = min(row + BLOCK, len(frames))
            decode_block(octets, frames, packets, row, decoded, flows)
        row = find_flows(packets, row, decoded, flows)
        if row < decoded:
            break
    flows.counts[DECODED_TO] = decoded
    return row


def new_packets(rows):
    """Make `rows` empty PACKET rows."""
    return np.zeros(rows, PACKET)
