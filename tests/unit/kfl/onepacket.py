"""What a coarse tree says about one packet, written down plainly: the tests' reference."""

import ipaddress
from typing import NamedTuple

from kfl import coarse


class Packet(NamedTuple):
    """What a packet shows."""

    transport: str
    addresses: tuple[str, str]
    ports: tuple[int, int] | None = None
    """None when there are none; `unknown` below for a later fragment."""
    peers: tuple[dict, dict] = ({}, {})


UNKNOWN = (-1, -1)


def accepts(tree: coarse.Coarse, packet: Packet) -> bool:
    match tree:
        case coarse.Everything():
            return True
        case coarse.Nothing():
            return False
        case coarse.Transports(names=names):
            return packet.transport in names
        case coarse.Ports(ranges=ranges):
            if packet.ports == UNKNOWN:
                return True
            ports = packet.ports or (coarse.NO_PORT,)
            return any(low <= port <= high for low, high in ranges for port in ports)
        case coarse.Hosts(networks=networks):
            addresses = [ipaddress.ip_address(address) for address in packet.addresses]
            return any(address in network for address in addresses for network in networks)
        case coarse.Peer():
            return any(map(tree.test(), packet.peers))
        case coarse.AllOf(parts=parts):
            return all(accepts(part, packet) for part in parts)
        case coarse.AnyOf(parts=parts):
            return any(accepts(part, packet) for part in parts)
