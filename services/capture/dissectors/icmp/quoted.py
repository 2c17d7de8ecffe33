"""The packet that an ICMP error quotes: whose it was, so that the error can be found by it.

RFC 792 and RFC 4443: the IP header, and what fits behind it, eight octets of IPv4 at least.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from services.capture.headers import (
    IPV6_EXTENSIONS,
    IPV6_FRAGMENT,
    IPV6_HEADER_SIZE,
    IPV6_MOST_EXTENSIONS,
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_SCTP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
)

Json = dict[str, Any]

TRANSPORTS = {
    PROTOCOL_TCP: "tcp", PROTOCOL_UDP: "udp", PROTOCOL_SCTP: "sctp", PROTOCOL_ICMP: "icmp",
    PROTOCOL_ICMPV6: "icmp",
}  # fmt: skip


def quoted(octets: bytes) -> Json | None:
    """Return {transport, src: {ip, port}, dst: {ip, port}} of a quoted packet as far as it is told,
    None when it is none. Of ICMP: type, identifier and sequence instead of ports.
    """
    version = octets[0] >> 4 if octets else 0
    if version == 4 and len(octets) >= 20:
        begin = (octets[0] & 0x0F) * 4
        protocol, is_first = octets[9], int.from_bytes(octets[6:8], "big") & 0x1FFF == 0
        source, destination = octets[12:16], octets[16:20]
    elif version == 6 and len(octets) >= IPV6_HEADER_SIZE:
        protocol, begin, is_first = _behind_extensions(octets)
        source, destination = octets[8:24], octets[24:40]
    else:
        return None
    found: Json = {
        "transport": TRANSPORTS.get(protocol, f"protocol {protocol}"),
        "src": {"ip": str(ip_address(source))},
        "dst": {"ip": str(ip_address(destination))},
    }
    rest = octets[begin : begin + 8] if is_first else b""
    if protocol in (PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP) and len(rest) >= 4:
        found["src"]["port"] = int.from_bytes(rest[:2], "big")
        found["dst"]["port"] = int.from_bytes(rest[2:4], "big")
    elif protocol in (PROTOCOL_ICMP, PROTOCOL_ICMPV6) and len(rest) == 8:
        found["type"] = rest[0]
        found["identifier"] = int.from_bytes(rest[4:6], "big")
        found["sequence"] = int.from_bytes(rest[6:8], "big")
    return found


def _behind_extensions(octets: bytes) -> tuple[int, int, bool]:
    """Return (protocol, where its header begins, whether that is in this packet)."""
    protocol, begin, is_first = octets[6], IPV6_HEADER_SIZE, True
    for _ in range(IPV6_MOST_EXTENSIONS):
        if begin + 8 > len(octets) or protocol not in (*IPV6_EXTENSIONS, IPV6_FRAGMENT):
            break
        size = 8
        if protocol == IPV6_FRAGMENT:
            is_first = int.from_bytes(octets[begin + 2 : begin + 4], "big") & 0xFFF8 == 0
        else:
            size += octets[begin + 1] * 8
        protocol, begin = octets[begin], begin + size
    return protocol, begin, is_first
