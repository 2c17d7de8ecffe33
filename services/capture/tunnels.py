# mypy: ignore-errors
"""Read the headers of tunnels: where the packet inside begins, and the tunnel's id, for layers.

A reader returns an Inner. Its ethertype is NO_ETHERTYPE when this is no tunnel: on the port of one
may be any UDP datagram, so what is inside has to look like a packet.

VXLAN: RFC 7348. Geneve: RFC 8926. GRE: RFC 2784, 2890; NVGRE, RFC 7637, is one. ERSPAN:
draft-foschiano-erspan-03. IP in IP: RFC 2003, 4213, 2473. MPLS: RFC 3032; pseudo-wires: RFC 4385,
4448. PPPoE: RFC 2516.
"""

from typing import NamedTuple

from services.capture.headers import (
    ETHERNET_HEADER_SIZE,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_MPLS,
    ETHERTYPE_MPLS_MULTICAST,
    ETHERTYPE_PPPOE,
    NO_ETHERTYPE,
    PORT_GENEVE,
    PORT_VXLAN,
    PORT_VXLAN_OF_LINUX,
    PROTOCOL_GRE,
    PROTOCOL_IPV4,
    PROTOCOL_IPV6,
    PROTOCOL_UDP,
    UDP_HEADER_SIZE,
    VLAN_ETHERTYPES,
)
from services.capture.kernel import kernel, read_u8, read_u16, read_u32
from services.capture.networks import (
    ERSPAN,
    GENEVE,
    GRE,
    GRE_KEY,
    IPIP,
    MPLS,
    OVN,
    PPPOE,
    VXLAN,
    with_tunnel,
)

ETHERTYPE_ETHERNET = 0x6558  # "transparent Ethernet bridging"; used here for all Ethernet inside
ETHERTYPE_ERSPAN = 0x88BE
OTHER_ETHERTYPES = (0x0806, 0x8863, 0x88CC)  # ARP, PPPoE discovery, LLDP: inside, but no packets
LARGEST_802_3 = 1500  # an Ethernet type up to this is a length
NO_802_3 = -1

VXLAN_HEADER_SIZE, GENEVE_HEADER_SIZE, GRE_HEADER_SIZE, ERSPAN_HEADER_SIZE = 8, 8, 4, 8
VXLAN_HAS_ID = 0x08
GENEVE_CLASS_OF_OVN = 0x0102
GRE_CHECKSUM, GRE_ROUTING, GRE_KEY_PRESENT, GRE_SEQUENCE = 0x8000, 0x4000, 0x2000, 0x1000
GRE_VERSION = 0x0007
ERSPAN_SESSION = 0x03FF
MPLS_LABEL_SIZE, MPLS_LAST, CONTROL_WORD_SIZE = 4, 0x100, 4
MOST_LABELS = 8  # a stack has two or three
PPPOE_HEADER_SIZE, PPPOE_VERSION = 6, 0x1100  # and code 0: a session
PPP_IPV4, PPP_IPV6, PPP_SIZE = 0x0021, 0x0057, 2


class Inner(NamedTuple):
    """Where a packet goes on inside a tunnel; NO_ETHERTYPE: it does not."""

    ethertype: int
    position: int
    end: int
    network: int


@kernel
def nothing_inside(network):
    return Inner(NO_ETHERTYPE, 0, 0, network)


@kernel
def looks_like_ethernet(octets, position, end, largest_length):
    """Whether the type is one that is known, or a length of IEEE 802.3 up to the one given."""
    if position + ETHERNET_HEADER_SIZE > end:
        return False
    ethertype = read_u16(octets, position + 12)
    return (
        ethertype in (ETHERTYPE_IPV4, ETHERTYPE_IPV6)
        or ethertype in VLAN_ETHERTYPES
        or ethertype in (ETHERTYPE_MPLS, ETHERTYPE_MPLS_MULTICAST, ETHERTYPE_PPPOE)
        or ethertype in OTHER_ETHERTYPES
        or ethertype <= largest_length
    )


@kernel
def read_vxlan(octets, position, end, network):
    if position + VXLAN_HEADER_SIZE > end or not read_u8(octets, position) & VXLAN_HAS_ID:
        return nothing_inside(network)
    inside = position + VXLAN_HEADER_SIZE
    if not looks_like_ethernet(octets, inside, end, LARGEST_802_3):
        return nothing_inside(network)
    number = read_u32(octets, position + 4)
    if number & 0xFF:
        return nothing_inside(network)
    return Inner(ETHERTYPE_ETHERNET, inside, end, with_tunnel(network, VXLAN, number >> 8))


@kernel
def read_geneve(octets, position, end, network):
    if position + GENEVE_HEADER_SIZE > end or read_u8(octets, position) >> 6 != 0:
        return nothing_inside(network)
    options = (read_u8(octets, position) & 0x3F) * 4
    inside = position + GENEVE_HEADER_SIZE + options
    if inside > end:
        return nothing_inside(network)
    ethertype = read_u16(octets, position + 2)
    if ethertype == ETHERTYPE_ETHERNET:
        if not looks_like_ethernet(octets, inside, end, LARGEST_802_3):
            return nothing_inside(network)
    elif ethertype not in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        return nothing_inside(network)
    kind, number = GENEVE, read_u32(octets, position + 4) >> 8
    if options >= 4 and read_u16(octets, position + GENEVE_HEADER_SIZE) == GENEVE_CLASS_OF_OVN:
        kind, number = OVN, 0
    return Inner(ethertype, inside, end, with_tunnel(network, kind, number))


@kernel
def read_gre(octets, position, end, network):
    if position + GRE_HEADER_SIZE > end:
        return nothing_inside(network)
    flags = read_u16(octets, position)
    ethertype = read_u16(octets, position + 2)
    if flags & (GRE_VERSION | GRE_ROUTING):
        return nothing_inside(network)  # PPTP's, and one that RFC 2784 took away
    key_at = position + GRE_HEADER_SIZE + (4 if flags & GRE_CHECKSUM else 0)
    inside = key_at + (4 if flags & GRE_KEY_PRESENT else 0) + (4 if flags & GRE_SEQUENCE else 0)
    if inside > end:
        return nothing_inside(network)
    if ethertype == ETHERTYPE_ERSPAN:
        return read_erspan(octets, inside, end, network, flags & GRE_SEQUENCE)
    if not flags & GRE_KEY_PRESENT:
        return Inner(ethertype, inside, end, with_tunnel(network, GRE, 0))
    network = with_tunnel(network, GRE_KEY, read_u32(octets, key_at))
    return Inner(ethertype, inside, end, network)


@kernel
def read_erspan(octets, position, end, network, has_header):
    """Type II; without a sequence number it is type I, which is the frame alone."""
    if not has_header:
        return Inner(ETHERTYPE_ETHERNET, position, end, with_tunnel(network, GRE, 0))
    if position + ERSPAN_HEADER_SIZE > end or read_u8(octets, position) >> 4 != 1:
        return nothing_inside(network)
    session = read_u16(octets, position + 2) & ERSPAN_SESSION
    inside = position + ERSPAN_HEADER_SIZE
    return Inner(ETHERTYPE_ETHERNET, inside, end, with_tunnel(network, ERSPAN, session))


@kernel
def read_mpls(octets, position, end, network):
    """What is inside has no type: an IP version, a pseudo-wire's control word, or Ethernet."""
    last = 0
    labels = 0
    while not last and labels < MOST_LABELS and position + MPLS_LABEL_SIZE <= end:
        last = read_u32(octets, position) & MPLS_LAST
        position += MPLS_LABEL_SIZE
        labels += 1
    if not last or position >= end:
        return nothing_inside(network)
    network = with_tunnel(network, MPLS, 0)
    version = read_u8(octets, position) >> 4
    behind_word = position + CONTROL_WORD_SIZE
    if version == 0 and looks_like_ethernet(octets, behind_word, end, NO_802_3):
        return Inner(ETHERTYPE_ETHERNET, behind_word, end, network)
    if version == 4:
        return Inner(ETHERTYPE_IPV4, position, end, network)
    if version == 6:
        return Inner(ETHERTYPE_IPV6, position, end, network)
    if looks_like_ethernet(octets, position, end, NO_802_3):
        return Inner(ETHERTYPE_ETHERNET, position, end, network)
    return nothing_inside(network)


@kernel
def read_pppoe(octets, position, end, network):
    inside = position + PPPOE_HEADER_SIZE + PPP_SIZE
    if inside > end or read_u16(octets, position) != PPPOE_VERSION:
        return nothing_inside(network)
    session = read_u16(octets, position + 2)
    end = min(end, position + PPPOE_HEADER_SIZE + read_u16(octets, position + 4))
    protocol = read_u16(octets, position + PPPOE_HEADER_SIZE)
    network = with_tunnel(network, PPPOE, session)
    if protocol == PPP_IPV4:
        return Inner(ETHERTYPE_IPV4, inside, end, network)
    if protocol == PPP_IPV6:
        return Inner(ETHERTYPE_IPV6, inside, end, network)
    return nothing_inside(network)


@kernel
def is_shim(ethertype):
    """Whether a header lies between this type and that of a network."""
    return ethertype in (ETHERTYPE_MPLS, ETHERTYPE_MPLS_MULTICAST, ETHERTYPE_PPPOE)


@kernel
def read_shim(octets, ethertype, position, end, network):
    if ethertype == ETHERTYPE_PPPOE:
        return read_pppoe(octets, position, end, network)
    return read_mpls(octets, position, end, network)


@kernel
def is_tunnel_port(port):
    return port in (PORT_VXLAN, PORT_VXLAN_OF_LINUX, PORT_GENEVE)


@kernel
def is_tunnel_protocol(protocol):
    return protocol in (PROTOCOL_IPV4, PROTOCOL_IPV6, PROTOCOL_GRE)


@kernel
def read_tunnel(octets, found, network):
    """Read what follows an IP header, the Network `found`."""
    position, end = found.payload_offset, found.payload_end
    if found.protocol == PROTOCOL_IPV4:
        return Inner(ETHERTYPE_IPV4, position, end, with_tunnel(network, IPIP, 0))
    if found.protocol == PROTOCOL_IPV6:
        return Inner(ETHERTYPE_IPV6, position, end, with_tunnel(network, IPIP, 0))
    if found.protocol == PROTOCOL_GRE:
        return read_gre(octets, position, end, network)
    if found.protocol == PROTOCOL_UDP and position + UDP_HEADER_SIZE <= end:
        port = read_u16(octets, position + 2)
        position += UDP_HEADER_SIZE
        if port in (PORT_VXLAN, PORT_VXLAN_OF_LINUX):
            return read_vxlan(octets, position, end, network)
        if port == PORT_GENEVE:
            return read_geneve(octets, position, end, network)
    return nothing_inside(network)
