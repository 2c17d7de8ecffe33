# mypy: ignore-errors
"""Packets that are more than a link, a network and a transport header. decode calls this for them.

A tunnel is gone into, a fragment waits until its datagram is whole. How deep is bounded, so that no
packet takes long.
"""

import numpy as np

from services.capture.fragments import NO_ROW, note_completed, take_fragment
from services.capture.headers import (
    DECODED,
    FRAGMENT,
    MALFORMED,
    NO_ETHERTYPE,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    UNSUPPORTED,
    no_network,
    no_transport,
    read_ethernet,
    read_link,
    read_network,
    read_transport,
)
from services.capture.kernel import cold_kernel, kernel
from services.capture.networks import flow_key
from services.capture.tunnels import (
    ETHERTYPE_ETHERNET,
    is_shim,
    is_tunnel_port,
    is_tunnel_protocol,
    read_shim,
    read_tunnel,
)

MOST_LAYERS = 12
"""Headers between the link and the transport: four tunnels, each with a shim and an Ethernet."""
MOST_REASSEMBLIES = 2
"""A tunnel's packet may be in fragments, and the packet in the tunnel."""
NONE = np.int64(0)  # not a literal, for which Numba would compile a function again
BEHIND_NETWORK = np.int64(-2)  # instead of an ethertype: the network header is read already


@kernel
def is_layered(ethertype, found, transport):
    """Whether there is more to a packet than what was read. `found` is its Network."""
    if found.status == DECODED:
        if found.protocol == PROTOCOL_TCP:
            return False
        if found.protocol == PROTOCOL_UDP:
            return is_tunnel_port(transport.destination_port)
        return is_tunnel_protocol(found.protocol)
    return found.status == FRAGMENT or is_shim(ethertype) or ethertype == ETHERTYPE_ETHERNET


@cold_kernel
def follow(octets, ethertype, position, end, found, network, layer):
    """Go into tunnels, as far as there are any; return (Network, network, layer).

    Where something inside is broken, the last UDP datagram on the way is an ordinary one.
    """
    datagram, outside = no_network(MALFORMED), network
    while True:
        if is_shim(ethertype) and layer < MOST_LAYERS:
            inner = read_shim(octets, ethertype, position, end, network)
            if inner.ethertype == NO_ETHERTYPE:
                return no_network(UNSUPPORTED), network, layer
            ethertype, position, end, network = inner
        elif ethertype == ETHERTYPE_ETHERNET and layer < MOST_LAYERS:
            ethertype, position, network = read_ethernet(octets, position, end, network)
        else:
            if ethertype != BEHIND_NETWORK:
                found = read_network(octets, position, end, ethertype)
            status = found.status
            if status == DECODED:
                status = read_transport(octets, found).status
            if status == MALFORMED:
                if datagram.status == DECODED:
                    return datagram, outside, layer
                return found, network, layer
            if found.status != DECODED or layer >= MOST_LAYERS:
                return found, network, layer
            inner = read_tunnel(octets, found, network)
            if inner.ethertype == NO_ETHERTYPE:
                return found, network, layer
            if found.protocol == PROTOCOL_UDP:
                datagram, outside = found, network
            ethertype, position, end, network = inner
        layer += 1


@cold_kernel
def decode_layers(octets, start, end, frame, row, packets, flows, fragments):
    """Return (Network, Transport, network) of packets[row], the frame at octets[start:end].

    If it completes a datagram, positions are in fragments.work; see fragments.
    """
    ethertype, position, network = read_link(octets, start, end, frame.link_type, frame.vlan)
    packets[np.uint64(row)].payload_offset = NO_ROW
    source, length = octets, np.int64(frame.captured_length)
    found, layer = no_network(MALFORMED), NONE
    for _ in range(MOST_REASSEMBLIES + 1):
        found, network, layer = follow(source, ethertype, position, end, found, network, layer)
        if found.status != FRAGMENT:
            if length == NONE and found.status == DECODED:
                note_completed(fragments, row)
            return found, read_transport(source, found), network
        key = flow_key(network) & flows.key_mask[0]
        found = take_fragment(fragments, source, found, key, frame, row, packets, length)
        if found.status != DECODED:
            return found, no_transport(found.status), network
        source, ethertype, length = fragments.work, BEHIND_NETWORK, NONE
    return found, no_transport(UNSUPPORTED), network
