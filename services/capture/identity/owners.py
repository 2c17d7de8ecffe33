"""Who an address belongs to, and the changes of that: what `cluster` tells and `names` keeps."""

import ipaddress
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

ANY_PORT = 0
"""As the port of a place: the address as a whole."""

ANY_NODE = "::"
"""As the address of a place: every node's, for ports that a service has on all of them."""

OPEN_NS = (1 << 63) - 1
"""As the end of an interval: it goes on."""

_PLACE = struct.Struct(">16sH")


class Owner(NamedTuple):
    """What entries say of a peer; each is "" where there is none."""

    name: str
    """The best one: service, else pod, else node, else what the DNS said."""
    namespace: str = ""
    pod: str = ""
    service: str = ""
    dns: str = ""
    labels: str = ""
    """A JSON object."""
    others: tuple[str, ...] = ()
    """Further services that the pod is behind: a call through one of them names that one."""
    is_node: bool = False
    """Several share the address; the port tells which."""
    is_service: bool = False
    """The address is that of a service, not of what answers for it."""
    on_nodes: bool = False
    """The service also has a port on every node."""


class Change(NamedTuple):
    """A place belongs to somebody from `begin_ns` to `end_ns`, nanoseconds since 1970; it replaces
    what was said about the same place and begin.
    """

    place: bytes
    begin_ns: int
    end_ns: int
    owner: Owner


def place_of(address: str, port: int = ANY_PORT) -> bytes:
    """Return 18 octets: the address, IPv4 as IPv4-mapped IPv6, and the port, big-endian.

    Raises ValueError when the text is no address, or the port is none.
    """
    if not 0 <= port < 1 << 16:
        raise ValueError(f"a port is 0 to 65535, not {port}")
    parsed = ipaddress.ip_address(address)
    number = int(parsed) | 0xFFFF << 32 if parsed.version == 4 else int(parsed)
    return _PLACE.pack(number.to_bytes(16, "big"), port)


def peers(owner: Owner) -> Iterator[dict[str, Any]]:
    """Yield what `src` or `dst` of entries with this owner can be, for conditions on names."""
    labels = orjson.loads(owner.labels) if owner.labels else {}
    for service in (owner.service, *owner.others):
        yield {
            "name": service or owner.name,
            "namespace": owner.namespace,
            "pod": {
                "name": owner.pod,
                "namespace": owner.namespace if owner.pod else "",
                "labels": labels,
            },
            "service": {"name": service, "namespace": owner.namespace if service else ""},
            "dns": owner.dns,
        }
