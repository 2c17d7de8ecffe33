# mypy: ignore-errors
"""Read the headers that almost every packet has. decode, layers and tunnels call these.

Every position is an index into `octets`, every `end` is exclusive, every length is in octets. One
function reads one layer: it gets (octets, position, end) and returns scalars. A layer that cannot
be read is told by the `status` of what it returns; the other fields are then 0.

Link types: https://www.tcpdump.org/linktypes.html. Ethernet and VLAN: IEEE 802.3, 802.1Q. IPv4:
RFC 791. IPv6: RFC 8200. TCP: RFC 9293. UDP: RFC 768. SCTP: RFC 9260. ICMP: RFC 792, RFC 4443.
"""

from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel, read_u8, read_u16, read_u32, read_u64
from services.capture.networks import NO_NETWORK, with_vlan

# Status of a packet. The next three are of decoded ones that came several times, see duplicates.
DECODED, UNSUPPORTED, MALFORMED, FRAGMENT = 0, 1, 2, 3
TRANSLATED = 4  # taken, but not kept: a copy of it has the addresses of its stream
COPY = 5  # not taken, since it was seen before, nor kept
KEPT_COPY = 6  # not taken, but kept instead of a TRANSLATED one
LEFT_OUT = 7  # neither taken nor kept: its stream is not in the sample, see sampling

LINK_NULL, LINK_ETHERNET, LINK_RAW, LINK_LOOP = 0, 1, 101, 108
LINK_RAW_BSD, LINK_RAW_OPENBSD = 12, 14
LINK_SLL, LINK_IPV4, LINK_IPV6, LINK_SLL2 = 113, 228, 229, 276

ETHERNET_HEADER_SIZE = 14
SLL_HEADER_SIZE = 16
SLL2_HEADER_SIZE = 20
LOOP_HEADER_SIZE = 4
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_IPV6 = 0x86DD
ETHERTYPE_MPLS, ETHERTYPE_MPLS_MULTICAST = 0x8847, 0x8848
ETHERTYPE_PPPOE = 0x8864  # a session; 0x8863, discovery, carries no packets
VLAN_ETHERTYPES = (0x8100, 0x88A8, 0x9100)
VLAN_TAG_SIZE = 4
MOST_VLAN_TAGS = 3

IPV4_SMALLEST_HEADER = 20
IPV4_FRAGMENT_MASK = 0x3FFF  # the offset and the "more fragments" bit
IPV4_MORE, IPV4_OFFSET_MASK = 0x2000, 0x1FFF
FRAGMENT_UNIT = 8  # octets; offsets count in it
IPV4_MAPPED = np.uint64(0xFFFF) << np.uint64(32)  # RFC 4291, section 2.5.5.2
IPV6_HEADER_SIZE = 40
IPV6_SMALLEST_EXTENSION = 8
IPV6_MOST_EXTENSIONS = 8
IPV6_EXTENSIONS = (0, 43, 60)  # hop-by-hop options, routing, destination options
IPV6_FRAGMENT = 44
IPV6_AUTHENTICATION = 51  # its length counts in 4 octets, less 2
IPV6_FRAGMENT_MASK = 0xFFF9  # the offset and the "more fragments" bit
IPV6_MORE, IPV6_OFFSET_MASK = 0x0001, 0xFFF8

PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_ICMP, PROTOCOL_ICMPV6 = 1, 58
PROTOCOL_SCTP = 132
PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_GRE = 4, 41, 47
# The second is what Linux took before the IANA gave the first.
PORT_VXLAN, PORT_VXLAN_OF_LINUX, PORT_GENEVE = 4789, 8472, 6081
TCP_SMALLEST_HEADER = 20
UDP_HEADER_SIZE = 8
SCTP_HEADER_SIZE = 12
ICMP_SMALLEST = 4  # type, code, checksum

NO_ETHERTYPE = -1
NO_ADDRESS = np.uint64(0)


class Network(NamedTuple):
    """What an IP header says. An IPv4 address is kept as IPv4-mapped IPv6."""

    status: int
    protocol: int
    source_high: int
    source_low: int
    destination_high: int
    destination_low: int
    payload_offset: int
    payload_end: int  # of what was captured
    missing: int  # octets of the payload behind that
    hops: int  # that the packet may still go: the time to live, or hop limit
    identification: int  # of IPv4, or of a fragment
    fragment_offset: int  # octets; this and the next of a FRAGMENT, whose payload is a piece
    more_fragments: int


class Transport(NamedTuple):
    """What a TCP, UDP or SCTP header says. The sequence, acknowledgement and flags are TCP's. ICMP
    has no ports, which are 0, and the payload is the whole message.
    """

    status: int
    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    tcp_flags: int
    payload_offset: int


@kernel
def skip_vlan_tags(octets, position, end, ethertype, network):
    """Return (ethertype, position, network) after at most MOST_VLAN_TAGS tags."""
    tags = 0
    while tags < MOST_VLAN_TAGS and ethertype in VLAN_ETHERTYPES:
        if position + VLAN_TAG_SIZE > end:
            break
        network = with_vlan(network, read_u16(octets, position))
        ethertype = read_u16(octets, position + 2)
        position += VLAN_TAG_SIZE
        tags += 1
    return ethertype, position, network


@kernel
def read_ethernet(octets, position, end, network):
    """Return (ethertype or NO_ETHERTYPE, position of the network header, network)."""
    if position + ETHERNET_HEADER_SIZE > end:
        return NO_ETHERTYPE, position, network
    ethertype = read_u16(octets, position + 12)
    return skip_vlan_tags(octets, position + ETHERNET_HEADER_SIZE, end, ethertype, network)


@kernel
def read_sll(octets, position, end, network):
    if position + SLL_HEADER_SIZE > end:
        return NO_ETHERTYPE, position, network
    ethertype = read_u16(octets, position + 14)
    return skip_vlan_tags(octets, position + SLL_HEADER_SIZE, end, ethertype, network)


@kernel
def read_sll2(octets, position, end, network):
    if position + SLL2_HEADER_SIZE > end:
        return NO_ETHERTYPE, position, network
    ethertype = read_u16(octets, position)
    return skip_vlan_tags(octets, position + SLL2_HEADER_SIZE, end, ethertype, network)


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
def read_link(octets, position, end, link_type, vlan):
    """Return (ethertype or NO_ETHERTYPE, position of the network header, network).

    vlan: a tag that is not in the octets any more.
    """
    network = with_vlan(NO_NETWORK, np.int64(vlan))
    if link_type == LINK_ETHERNET:
        return read_ethernet(octets, position, end, network)
    if link_type == LINK_SLL:
        return read_sll(octets, position, end, network)
    if link_type == LINK_SLL2:
        return read_sll2(octets, position, end, network)
    if link_type in (LINK_NULL, LINK_LOOP):
        # The address family has other numbers on each system; the IP version says the same.
        position += LOOP_HEADER_SIZE
    ethertype, position = read_raw(octets, position, end)
    return ethertype, position, network


@kernel
def is_known_link(link_type):
    return link_type in (
        LINK_ETHERNET, LINK_SLL, LINK_SLL2, LINK_NULL, LINK_LOOP, LINK_RAW, LINK_RAW_BSD,
        LINK_RAW_OPENBSD, LINK_IPV4, LINK_IPV6,
    )  # fmt: skip


@kernel
def no_network(status):
    return Network(status, 0, NO_ADDRESS, NO_ADDRESS, NO_ADDRESS, NO_ADDRESS, 0, 0, 0, 0, 0, 0, 0)


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
    fragment = read_u16(octets, position + 6) & IPV4_FRAGMENT_MASK
    return Network(
        DECODED if fragment == 0 else FRAGMENT,
        read_u8(octets, position + 9),
        NO_ADDRESS,
        IPV4_MAPPED | np.uint64(read_u32(octets, position + 12)),
        NO_ADDRESS,
        IPV4_MAPPED | np.uint64(read_u32(octets, position + 16)),
        payload_offset,
        min(end, payload_end),
        max(0, payload_end - end),
        read_u8(octets, position + 8),
        read_u16(octets, position + 4),
        (fragment & IPV4_OFFSET_MASK) * FRAGMENT_UNIT,
        fragment & IPV4_MORE,
    )


@kernel
def skip_ipv6_extensions(octets, position, end, protocol):
    """Return (status, protocol, position) after the extension headers, or at a FRAGMENT's."""
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
    if status == MALFORMED:
        return no_network(MALFORMED)
    identification = fragment = 0
    if status == FRAGMENT:
        protocol = read_u8(octets, payload_offset)
        fragment = read_u16(octets, payload_offset + 2)
        identification = read_u32(octets, payload_offset + 4)
        payload_offset += IPV6_SMALLEST_EXTENSION
    return Network(
        status,
        protocol,
        read_u64(octets, position + 8),
        read_u64(octets, position + 16),
        read_u64(octets, position + 24),
        read_u64(octets, position + 32),
        payload_offset,
        captured_end,
        max(0, payload_end - end),
        read_u8(octets, position + 7),
        identification,
        fragment & IPV6_OFFSET_MASK,
        fragment & IPV6_MORE,
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
def read_sctp(octets, position, end):
    if position + SCTP_HEADER_SIZE > end:
        return no_transport(MALFORMED)
    ports = read_u16(octets, position), read_u16(octets, position + 2)
    return Transport(DECODED, ports[0], ports[1], 0, 0, 0, position + SCTP_HEADER_SIZE)


@kernel
def read_icmp(position, end):
    if position + ICMP_SMALLEST > end:
        return no_transport(MALFORMED)
    return Transport(DECODED, 0, 0, 0, 0, 0, position)


@kernel
def read_network(octets, position, end, ethertype):
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
    if network.protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6):
        return read_icmp(network.payload_offset, network.payload_end)
    if network.protocol == PROTOCOL_SCTP:
        return read_sctp(octets, network.payload_offset, network.payload_end)
    return no_transport(UNSUPPORTED)
