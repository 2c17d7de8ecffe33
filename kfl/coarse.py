"""The coarse form of a filter: a tree over what one packet shows before it is dissected.

`packets` makes it, capture's kernel filter and `explain` read it. A packet belongs to its stream's
both directions, so a test is of either end: a port is the source's or the destination's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from kfl import core
from kfl.coretext import text
from kfl.match import Matcher

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

TRANSPORTS = frozenset({"tcp", "udp", "icmp", "sctp"})
"""What a test can name. icmp is ICMP for IPv4 and for IPv6."""

WITH_PORTS = frozenset({"tcp", "udp", "sctp"})


@dataclass(frozen=True, slots=True)
class Everything:
    """Every packet."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No packet."""


@dataclass(frozen=True, slots=True)
class Transports:
    """Packets of these transports."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ports:
    """Packets with a port in one of these ranges: inclusive, ascending, apart."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Hosts:
    """Packets with an address in one of these networks: sorted, none within another."""

    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """Packets of a host whose names and labels fulfil a condition; which these are changes."""

    condition: core.Core
    """Its selectors begin below `src` or `dst`."""

    def test(self) -> Callable[[Mapping[str, Any]], bool]:
        """What says whether a peer, an object as `src` in an entry, fulfils it."""
        return Matcher().test(self.condition)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Packets that every part accepts."""

    parts: tuple[Coarse, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Packets that some part accepts."""

    parts: tuple[Coarse, ...]


Coarse: TypeAlias = Everything | Nothing | Transports | Ports | Hosts | Peer | AllOf | AnyOf

EVERYTHING, NOTHING = Everything(), Nothing()

NO_PORT = 0
"""What counts as the port of packets that have none."""


def transports(*names: str) -> Coarse:
    """The test for these transports."""
    return Transports(frozenset(names)) if names else NOTHING


def ports(ranges: Iterable[tuple[int, int]]) -> Coarse:
    """The test for ports in these ranges, in any order."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return Ports(tuple(merged)) if merged else NOTHING


def hosts(networks: Iterable[Network]) -> Coarse:
    """The test for addresses in these networks, in any order."""
    found = set(networks)
    v4 = [network for network in found if isinstance(network, ipaddress.IPv4Network)]
    v6 = [network for network in found if isinstance(network, ipaddress.IPv6Network)]
    collapsed: list[Network] = [*ipaddress.collapse_addresses(v4)]
    collapsed += ipaddress.collapse_addresses(v6)
    return Hosts(tuple(collapsed)) if collapsed else NOTHING


_TCP = transports("tcp")

CARRIED: Mapping[str, Coarse] = {
    **dict.fromkeys(("http", "ws", "redis", "kafka", "amqp", "tcp"), _TCP),
    **dict.fromkeys(("postgresql", "mysql", "mongodb"), _TCP),
    **dict.fromkeys(("udp", "radius"), transports("udp")),
    **dict.fromkeys(("tls", "ldap"), transports("tcp", "udp")),  # QUIC; connectionless LDAP
    "dns": AnyOf((transports("udp"), AllOf((_TCP, ports([(53, 53)]))))),
    "diameter": transports("tcp", "sctp"),
    "sctp": transports("sctp"),
    "icmp": transports("icmp"),
}
"""How each protocol is carried, by the name that recordings have for it.

Dissectors know protocols by their octets, on any port; only DNS over TCP goes by its port.
"""


def all_of(parts: Iterable[Coarse]) -> Coarse:
    """Join by `and`, as simple as it gets."""
    flat: dict[Coarse, None] = {}
    allowed: frozenset[str] | None = None
    for part in parts:
        for each in _parts_of(part):
            if isinstance(each, Nothing):
                return NOTHING
            if isinstance(each, Transports):
                allowed = each.names if allowed is None else allowed & each.names
            elif not isinstance(each, Everything):
                flat[each] = None
    found = list(flat)
    if allowed is not None:
        # What is below need not say again what is said here.
        within = [of_transports(each, allowed) for each in found]
        if within != found:
            return all_of([Transports(allowed), *within])
        found.insert(0, Transports(allowed))
        if not allowed:
            return NOTHING
    found = _absorbed(found, AnyOf)
    return EVERYTHING if not found else found[0] if len(found) == 1 else AllOf(tuple(found))


def any_of(parts: Iterable[Coarse]) -> Coarse:
    """Join by `or`, as simple as it gets."""
    flat: dict[Coarse, None] = {}
    names: frozenset[str] = frozenset()
    ranges: list[tuple[int, int]] = []
    networks: list[Network] = []
    for part in parts:
        for each in part.parts if isinstance(part, AnyOf) else (part,):
            match each:
                case Everything():
                    return EVERYTHING
                case Transports():
                    names |= each.names
                case Ports():
                    ranges += each.ranges
                case Hosts():
                    networks += each.networks
                case Nothing():
                    pass
                case _:
                    flat[each] = None
    merged = (transports(*names), ports(ranges), hosts(networks))
    others = [each for each in flat if not _is_of(each, names)]
    found = _absorbed([*(each for each in merged if each != NOTHING), *others], AllOf)
    if len(found) < 2:
        return found[0] if found else NOTHING
    shared = _shared(found)
    if shared:
        rests = [all_of(part for part in _parts_of(each) if part not in shared) for each in found]
        return all_of([*(each for each in _parts_of(found[0]) if each in shared), any_of(rests)])
    return AnyOf(tuple(found))


def _is_of(node: Coarse, names: frozenset[str]) -> bool:
    """Whether only packets of these transports are accepted, as its first test says."""
    first = _parts_of(node)[0]
    return isinstance(first, Transports) and first.names <= names


def _shared(alternatives: list[Coarse]) -> set[Coarse]:
    """What all of them demand: `a and b or a and c` is `a and (b or c)`."""
    shared = set(_parts_of(alternatives[0]))
    for each in alternatives[1:]:
        shared &= set(_parts_of(each))
    return shared


def _parts_of(node: Coarse) -> tuple[Coarse, ...]:
    """The tests that all have to accept a packet."""
    return node.parts if isinstance(node, AllOf) else (node,)


def _absorbed(parts: list[Coarse], kind: type[AllOf] | type[AnyOf]) -> list[Coarse]:
    """Without parts that say nothing new: `a or (a and b)` is a, and the same the other way."""
    simple = {part for part in parts if not isinstance(part, AllOf | AnyOf)}
    return [part for part in parts if not (isinstance(part, kind) and simple & set(part.parts))]


def of_transports(node: Coarse, allowed: frozenset[str]) -> Coarse:
    """The same test, among packets of which it is known that they are of these transports."""
    match node:
        case Transports(names=names):
            if names >= allowed:
                return EVERYTHING
            return Transports(names & allowed) if names & allowed else NOTHING
        case Ports(ranges=ranges) if not allowed & WITH_PORTS:
            return EVERYTHING if ranges[0][0] == NO_PORT else NOTHING
        case AllOf(parts=parts):
            return all_of([of_transports(part, allowed) for part in parts])
        case AnyOf(parts=parts):
            return any_of([of_transports(part, allowed) for part in parts])
        case _:
            return node


def replaced(node: Coarse, replace: Callable[[Coarse], Coarse]) -> Coarse:
    """The tree with each test exchanged for another one."""
    match node:
        case AllOf(parts=parts):
            return all_of([replaced(part, replace) for part in parts])
        case AnyOf(parts=parts):
            return any_of([replaced(part, replace) for part in parts])
        case _:
            return replace(node)


def hosts_of(addresses: Collection[str]) -> Coarse:
    """The test for these addresses or networks, as text. Raises ValueError for other text."""
    return hosts(ipaddress.ip_network(address) for address in addresses)


MOST_SHOWN = 8
"""Ports and addresses of one test that show() names; of more it says how many."""


def show(node: Coarse) -> str:
    """The tree as text, as in `tcp and (host 10.0.0.1 or port 80)`."""
    match node:
        case Everything():
            return "everything"
        case Nothing():
            return "nothing"
        case Transports(names=names):
            return _either(sorted(names))
        case Ports(ranges=ranges):
            shown = [f"{low}" if low == high else f"{low}-{high}" for low, high in ranges]
            return _either([f"port {port}" for port in shown])
        case Hosts(networks=networks):
            return _either([_network(network) for network in networks])
        case Peer(condition=condition):
            return f"a peer with {text(condition)}"
        case AllOf(parts=parts):
            each_shown = map(show, parts)
            return " and ".join(f"({one})" if " or " in one else one for one in each_shown)
        case AnyOf(parts=parts):
            return " or ".join(f"({show(e)})" if isinstance(e, AllOf) else show(e) for e in parts)


def _either(shown: list[str]) -> str:
    more = len(shown) - MOST_SHOWN
    if more > 1:
        shown = [*shown[:MOST_SHOWN], f"{more} more"]
    return " or ".join(shown)


def _network(network: Network) -> str:
    if network.prefixlen == network.max_prefixlen:
        return f"host {network.network_address}"
    return f"net {network}"
