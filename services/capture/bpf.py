"""Classic BPF for packet sockets, made from a tree of tests: `kernelfilter` calls programs().

The language is that of linux/filter.h and Documentation/networking/filter.rst. A program sees a
frame as the socket gives it: Ethernet, with the VLAN tags that the kernel has not taken off, or on
interfaces of other kinds whatever lies before the network header. So a network header is found by
its offset in a frame of Ethernet, and else where the kernel says that it is.

Kept besides what the tree accepts: tunnels, since what is inside may match; later fragments, whose
ports are unknown, if nothing else excludes them; and headers that are not understood.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kfl import coarse
from kfl.coarse import EVERYTHING, NOTHING, Coarse
from services.capture.bpfassembler import (
    ADD_K,
    ADD_X,
    AND_K,
    LOAD_B_X,
    LOAD_H,
    LOAD_H_X,
    LOAD_W,
    LOAD_W_X,
    LOADX_K,
    LOADX_M,
    SHIFT_K,
    STORE,
    STOREX,
    TXA,
    Assembler,
    Label,
)
from services.capture.frames.afpacket import MOST_INSTRUCTIONS, Instruction

WHOLE_FRAME = 0xFFFFFFFF
"""Octets to keep of a frame; the socket cuts at its snaplen."""

# Offsets below zero have a meaning: linux/filter.h.
SKF_NET_OFF = 0xFFF00000  # the network header begins here
SKF_AD_PROTOCOL = 0xFFFFF000  # ethertype of the packet
SKF_AD_HATYPE = 0xFFFFF01C  # kind of the interface

ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
ETHERTYPE_OFFSET, ETHERNET_HEADER_SIZE = 12, 14
VLAN_ETHERTYPES, VLAN_TAG_SIZE = (0x8100, 0x88A8, 0x9100), 4
MOST_VLAN_TAGS = 3  # as decode follows
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
TUNNEL_ETHERTYPES = (0x8847, 0x8848, 0x8864)  # MPLS, PPPoE

IPV4_FRAGMENT_OFFSET, IPV6_FRAGMENT_OFFSET = 0x1FFF, 0xFFF8
IPV6_HEADER_SIZE = 40
IPV6_OPTIONS, IPV6_FRAGMENT, AUTHENTICATION = (0, 43, 60), 44, 51
MOST_EXTENSIONS = 4
"""IPv6 extension headers that are followed; a packet with more is kept. Few have more than one."""

TUNNEL_PROTOCOLS = (4, 41, 47, 137)  # IPv4, IPv6, GRE, MPLS in IP
TUNNEL_PORTS = coarse.ports([(4789, 4789), (8472, 8472), (6081, 6081)])  # VXLAN, Geneve

OTHER = "other"
IPV4_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132}
IPV6_PROTOCOLS = {**IPV4_PROTOCOLS, "icmp": 58}

V4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
"""Entries show such an address as the IPv4 address in it (RFC 4291, section 2.5.5.2)."""

ANY_VERSION = 0  # of IP

# Elements of the scratch memory.
NETWORK, TRANSPORT = 0, 1

LINEAR = 8
"""Ranges that are asked one after the other; more are halved first."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a socket can be given."""

    instructions: tuple[Instruction, ...]
    left_out: str = ""
    """Tests for which there was no room: "", "hosts", or "hosts and ports"."""


def programs(
    tree: Coarse, *, tunnels: bool = True, snaplen: int = WHOLE_FRAME
) -> Iterator[Program]:
    """Yield programs of at most MOST_INSTRUCTIONS, the most exact one first.

    tunnels: keep them whatever they carry. snaplen: octets kept of a frame.
    """
    without_hosts = _without(tree, coarse.Hosts)
    candidates = {tree: ""}
    candidates.setdefault(without_hosts, "hosts")
    candidates.setdefault(_without(without_hosts, coarse.Ports), "hosts and ports")
    for candidate, left_out in candidates.items():
        instructions = _Compiler(candidate, tunnels, snaplen).instructions()
        if len(instructions) <= MOST_INSTRUCTIONS:
            yield Program(tuple(instructions), left_out)


def _without(tree: Coarse, kind: type[coarse.Hosts] | type[coarse.Ports]) -> Coarse:
    return coarse.replaced(tree, lambda test: EVERYTHING if isinstance(test, kind) else test)


class _Compiler:
    """One program. Code is emitted in its order; all jumps go forward."""

    def __init__(self, tree: Coarse, tunnels: bool, snaplen: int) -> None:
        # Names that nobody has resolved cannot be told.
        self._tree = coarse.replaced(
            tree, lambda test: EVERYTHING if isinstance(test, coarse.Peer) else test
        )
        self._tunnels = tunnels
        self._snaplen = snaplen
        self._code = Assembler()
        self._keep, self._drop = self._code.label(), self._code.label()
        self._blocks: dict[tuple[int, Coarse], Label] = {}
        self._datagrams: dict[Label, Label] = {}  # by where a UDP packet of no tunnel goes

    def instructions(self) -> list[Instruction]:
        """Return the program."""
        code = self._code
        if not isinstance(self._tree, coarse.Everything | coarse.Nothing):
            self._link_layer()
        elif self._tree == NOTHING:
            code.go(self._drop)
        code.place(self._keep)
        code.leave(self._snaplen)
        code.place(self._drop)
        code.leave(0)
        return code.assemble()

    # ------------------------------------------------------------------ headers

    def _link_layer(self) -> None:
        """Find the network header: X, and NETWORK in memory; and the ethertype: A."""
        code = self._code
        ethernet, bare, network = code.label(), code.label(), code.label()
        code.add(LOAD_W, SKF_AD_HATYPE)
        code.among((ARPHRD_ETHER, ARPHRD_LOOPBACK), ethernet, bare)
        code.place(bare)
        code.add(LOADX_K, SKF_NET_OFF)
        code.add(LOAD_W, SKF_AD_PROTOCOL)
        code.go(network)
        code.place(ethernet)
        for tags in range(MOST_VLAN_TAGS + 1):
            code.add(LOADX_K, ETHERNET_HEADER_SIZE + tags * VLAN_TAG_SIZE)
            code.add(LOAD_H, ETHERTYPE_OFFSET + tags * VLAN_TAG_SIZE)
            if tags < MOST_VLAN_TAGS:
                tagged = code.label()
                code.among(VLAN_ETHERTYPES, tagged, network)
                code.place(tagged)
        code.place(network)
        code.add(STOREX, NETWORK)
        ipv4, ipv6, neither = code.label(), code.label(), code.label()
        code.equal(ETHERTYPE_IPV4, ipv4, neither)
        code.place(neither)
        other = code.label()
        code.equal(ETHERTYPE_IPV6, ipv6, other)
        code.place(other)
        code.among(TUNNEL_ETHERTYPES if self._tunnels else (), self._keep, self._drop)
        code.place(ipv4)
        self._ipv4()
        code.place(ipv6)
        self._ipv6()
        self._place_blocks()

    def _ipv4(self) -> None:
        """X is where the header begins."""
        code = self._code
        code.add(LOAD_B_X, 0)
        code.add(AND_K, 0x0F)
        code.add(SHIFT_K, 2)
        code.add(ADD_X)
        code.add(STORE, TRANSPORT)
        fragment, whole = code.label(), code.label()
        code.add(LOAD_H_X, 6)
        code.any_bit(IPV4_FRAGMENT_OFFSET, fragment, whole)
        for label, has_ports in ((whole, True), (fragment, False)):
            code.place(label)
            code.add(LOAD_B_X, 9)
            self._transport(4, has_ports)

    def _ipv6(self) -> None:
        """X is where the header begins; extension headers are skipped one after the other."""
        code = self._code
        whole, fragment = code.label(), code.label()
        code.add(TXA)
        code.add(ADD_K, IPV6_HEADER_SIZE)
        code.add(STORE, TRANSPORT)
        code.add(LOAD_B_X, 6)
        for _ in range(MOST_EXTENSIONS):
            options, not_options, authentication = code.label(), code.label(), code.label()
            is_fragment, not_fragment, after = code.label(), code.label(), code.label()
            code.add(LOADX_M, TRANSPORT)
            code.among(IPV6_OPTIONS, options, not_options)
            code.place(not_options)
            code.equal(IPV6_FRAGMENT, is_fragment, not_fragment)
            code.place(not_fragment)
            code.equal(AUTHENTICATION, authentication, whole)
            code.place(options)
            self._skip(1, 3, after)
            code.place(authentication)
            self._skip(2, 2, after)
            code.place(is_fragment)
            code.add(LOAD_H_X, 2)
            code.any_bit(IPV6_FRAGMENT_OFFSET, fragment, first := code.label())
            code.place(first)
            code.add(TXA)
            code.add(ADD_K, 8)
            code.add(STORE, TRANSPORT)
            code.place(after)
            code.add(LOAD_B_X, 0)
        code.place(whole)
        self._transport(6, True)
        code.place(fragment)
        code.add(LOAD_B_X, 0)
        self._transport(6, False)

    def _skip(self, more: int, shift: int, after: Label) -> None:
        """Move TRANSPORT behind the header at X, whose second octet counts its length."""
        code = self._code
        code.add(LOAD_B_X, 1)
        code.add(ADD_K, more)
        code.add(SHIFT_K, shift)
        code.add(ADD_X)
        code.add(STORE, TRANSPORT)
        code.go(after)

    def _transport(self, version: int, has_ports: bool) -> None:
        """Go on by the protocol in A."""
        code = self._code
        unknown = [AUTHENTICATION] if version == 4 else [*IPV6_OPTIONS, IPV6_FRAGMENT]
        kept = [*unknown, AUTHENTICATION, *(TUNNEL_PROTOCOLS if self._tunnels else ())]
        code.among(sorted(set(kept)), self._keep, known := code.label())
        code.place(known)
        for name, number in (IPV4_PROTOCOLS if version == 4 else IPV6_PROTOCOLS).items():
            block = self._block(version, self._left(name, version, has_ports))
            if name == "udp" and has_ports and self._tunnels and block != self._keep:
                block = self._datagrams.setdefault(block, code.label())
            code.equal(number, block, following := code.label())
            code.place(following)
        code.go(self._block(version, self._left(OTHER, version, has_ports)))

    # ------------------------------------------------------------------ tests

    def _left(self, transport: str, version: int, has_ports: bool) -> Coarse:
        """What is left to ask of a packet of which this much is known."""

        def replace(test: Coarse) -> Coarse:
            if isinstance(test, coarse.Hosts):
                return coarse.hosts(_of_version(test.networks, version))
            return EVERYTHING if isinstance(test, coarse.Ports) and not has_ports else test

        tree = coarse.of_transports(self._tree, frozenset({transport}))
        return coarse.replaced(tree, replace)

    def _block(self, version: int, tree: Coarse) -> Label:
        """Where the code for this tree will be; the same for equal ones."""
        if tree == EVERYTHING:
            return self._keep
        if tree == NOTHING:
            return self._drop
        if _without(tree, coarse.Hosts) == tree:
            version = ANY_VERSION
        return self._blocks.setdefault((version, tree), self._code.label())

    def _place_blocks(self) -> None:
        for block, label in self._datagrams.items():
            self._code.place(label)
            self._test(TUNNEL_PORTS, ANY_VERSION, self._keep, block)
        for (version, tree), label in self._blocks.items():
            self._code.place(label)
            self._test(tree, version, self._keep, self._drop)

    def _test(self, tree: Coarse, version: int, yes: Label, no: Label) -> None:
        code = self._code
        match tree:
            case coarse.AllOf(parts=parts) | coarse.AnyOf(parts=parts):
                for part in parts[:-1]:
                    following = code.label()
                    if isinstance(tree, coarse.AllOf):
                        self._test(part, version, following, no)
                    else:
                        self._test(part, version, yes, following)
                    code.place(following)
                self._test(parts[-1], version, yes, no)
            case coarse.Ports(ranges=ranges):
                code.add(LOADX_M, TRANSPORT)
                found = [(low, high, yes) for low, high in ranges]
                code.add(LOAD_H_X, 0)
                self._search(found, other := code.label())
                code.place(other)
                code.add(LOAD_H_X, 2)
                self._search(found, no)
            case coarse.Hosts(networks=networks):
                code.add(LOADX_M, NETWORK)
                prefixes = [(int(n.network_address), n.prefixlen) for n in networks]
                source, destination = (12, 16) if version == 4 else (8, 24)
                self._address(source, destination - source, prefixes, yes, other := code.label())
                code.place(other)
                self._address(destination, destination - source, prefixes, yes, no)
            case _:
                raise AssertionError(f"{tree} was to be decided before")

    def _address(
        self, at: int, size: int, prefixes: list[tuple[int, int]], yes: Label, no: Label
    ) -> None:
        """Look for the address of `size` octets at X + at among prefixes: (octets, bits).

        Word by word: prefixes that go on are grouped by their first word.
        """
        code = self._code
        code.add(LOAD_W_X, at)
        found: list[tuple[int, int, Label]] = []
        longer: dict[int, list[tuple[int, int]]] = {}
        labels: dict[int, Label] = {}
        for octets, bits in prefixes:
            word = octets >> 8 * size - 32
            if bits <= 32:
                found.append((word, word | (1 << 32 - bits) - 1, yes))
            else:
                rest = octets & (1 << 8 * size - 32) - 1
                longer.setdefault(word, []).append((rest, bits - 32))
        for word in longer:
            labels[word] = code.label()
            found.append((word, word, labels[word]))
        self._search(sorted(found, key=lambda each: each[0]), no)
        for word, group in longer.items():
            code.place(labels[word])
            self._address(at + 4, size - 4, group, yes, no)

    def _search(self, ranges: Sequence[tuple[int, int, Label]], no: Label) -> None:
        """Go where the range with A in it says. Ranges are ascending and apart."""
        code = self._code
        if len(ranges) > LINEAR:
            middle = len(ranges) // 2
            below, above = code.label(), code.label()
            code.at_least(ranges[middle][0], above, below)
            for label, half in ((below, ranges[:middle]), (above, ranges[middle:])):
                code.place(label)
                self._search(half, no)
            return
        for position, (low, high, target) in enumerate(ranges):
            following = no if position == len(ranges) - 1 else code.label()
            if low == high:
                code.equal(low, target, following)
            else:
                code.at_least(low, inside := code.label(), following)
                code.place(inside)
                code.above(high, following, target)
            if following != no:
                code.place(following)


def _of_version(networks: tuple[coarse.Network, ...], version: int) -> Iterator[coarse.Network]:
    for network in networks:
        if network.version == version:
            yield network
        elif version == 6:
            yield V4_MAPPED
