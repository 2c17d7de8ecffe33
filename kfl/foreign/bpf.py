"""Capture filters of libpcap (BPF) in KFL. `foreign_dialect` asks for texts that look like one.

https://www.tcpdump.org/manpages/pcap-filter.7.html
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from kfl.foreign.translation import (
    MAX_DEPTH,
    NO_ENTRY,
    NO_NETWORK,
    PROTOCOL_NUMBERS,
    Condition,
    NotThisLanguageError,
    Translation,
    address,
    at_address,
    both,
    compare,
    either,
    ends,
    in_network,
    ip_version,
    negate,
    no_entry,
    word,
)

_TOKEN = re.compile(r"\s*+(\|\||&&|[!()\[\]&|<>=+*/^]+?|[^\s()\[\]!&|<>=]++)")

_AND, _OR, _NOT = {"and", "&&"}, {"or", "||"}, {"not", "!"}
_PROTOCOLS = {"ip", "ip6", "tcp", "udp", "sctp", "icmp", "icmp6", "ether", "link", *NO_ENTRY}
_TYPES = {"host", "net", "port", "portrange", "proto"}
_WORDS = {"tcp": "tcp", "udp": "udp", "sctp": "sctp", "icmp": "icmp", "icmp6": "icmp"}

_PACKETS = "it is about packets, and KFL is about calls"
_ABOUT_PACKETS = {
    *("less", "greater", "len", "vlan", "mpls", "broadcast", "multicast", "gateway", "inbound"),
    *("outbound", "ifname", "wlan", "type", "subtype", "pppoes", "pppoed", "geneve", "vxlan"),
    *("protochain",),
}

_SIGNS = set("=<>&|+*/^")
"""What goes on with a number; `-` begins a word here, which is as good."""

_PORTS = {
    **{"ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "http": 80, "www": 80},
    **{"kerberos": 88, "pop3": 110, "ntp": 123, "imap": 143, "snmp": 161, "bgp": 179},
    **{"ldap": 389, "https": 443, "syslog": 514, "ldaps": 636, "mysql": 3306, "postgresql": 5432},
}
"""Names of ports that people write, from /etc/services."""

MOST_PORT = 65_535


Join: TypeAlias = Callable[[Iterable[Condition]], Condition]


@dataclass(frozen=True, slots=True)
class _Qualifiers:
    """What stands before an id: `tcp dst port`."""

    protocol: str = ""
    side: str = ""  # src, dst, "" for either, both for `src and dst`
    type: str = ""


class _UnfitError(Exception):
    """A primitive that has no KFL; its text is the reason, as a clause."""


def translate(text: str) -> Translation:
    """The filter in KFL. Raises NotThisLanguageError when it is no capture filter."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self._last = _Qualifiers()
        self.done = Translation()

    def read(self) -> Translation:
        self.done.condition = self._expression(_Qualifiers())
        if self._next < len(self._tokens):
            raise NotThisLanguageError
        return self.done

    def _peek(self, ahead: int = 0) -> str:
        place = self._next + ahead
        return self._tokens[place][0] if place < len(self._tokens) else ""

    def _expression(self, given: _Qualifiers) -> Condition:
        """`and` and `or` bind equally, from the left."""
        left = self._term(given)
        while self._peek() in _AND | _OR:
            join = both if self._peek() in _AND else either
            self._next += 1
            left = join([left, self._term(given)])
        return left

    def _term(self, given: _Qualifiers) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotThisLanguageError
        try:
            if self._peek() in _NOT:
                self._next += 1
                return negate(self._term(given))
            if self._peek() == "(" and not self._is_arithmetic():
                return self._grouped(given)
            return self._primitive(given)
        finally:
            self._depth -= 1

    def _skip(self) -> None:
        """To the next joint outside of brackets."""
        level = 0
        while self._peek() and (level or self._peek() not in _AND | _OR | {")"}):
            level += (self._peek() in "([") - (self._peek() in ")]")
            self._next += 1

    def _is_arithmetic(self) -> bool:
        """Whether the bracket here holds a number instead of a condition."""
        here = self._next
        self._next += 1
        self._skip_group()
        after = self._peek()
        found = after in _SIGNS or (after == "!" and self._peek(1) == "=")
        self._next = here
        return found

    def _skip_group(self) -> None:
        level = 1
        while self._peek() and level:
            level += (self._peek() == "(") - (self._peek() == ")")
            self._next += 1

    def _grouped(self, given: _Qualifiers) -> Condition:
        self._next += 1
        inner = self._expression(given)
        if self._peek() != ")":
            raise NotThisLanguageError
        self._next += 1
        return inner

    def _primitive(self, given: _Qualifiers) -> Condition:
        begin = self._next
        self.done.count()
        try:
            return self._meaning(given)
        except _UnfitError as unfit:
            self._next = begin
            self._skip()
            if self._next == begin:
                raise NotThisLanguageError from None
            start, end = self._tokens[begin][1], self._tokens[self._next - 1][2]
            self.done.lose(self._text[start:end], start, str(unfit))
            return None

    def _meaning(self, given: _Qualifiers) -> Condition:
        if self._peek() in _ABOUT_PACKETS or self._peek(1) == "[" or self._peek() == "(":
            raise _UnfitError(_PACKETS)
        here = self._qualifiers()
        if here.protocol in NO_ENTRY:
            self._skip()
            return no_entry(here.protocol, self.done)
        if self._peek() in _ABOUT_PACKETS:
            raise _UnfitError(_PACKETS)
        if here != _Qualifiers():
            ends_here = self._peek() in _AND | _OR | {"", ")"}
            if ends_here and here == _Qualifiers(here.protocol):
                return self._alone(here.protocol)
            if here == _Qualifiers(here.protocol) and not ends_here and self._peek() != "(":
                raise NotThisLanguageError
            self._last = here
        else:
            here = given if given != _Qualifiers() else self._last
        if self._peek() == "(":
            return self._grouped(here)
        if self._peek() in _NOT:
            self._next += 1
            return negate(self._meaning(here))
        name = self._peek()
        if not name or name in _AND | _OR | {")"} or not re.match(r"[\w\\:.]", name):
            raise NotThisLanguageError
        self._next += 1
        if self._peek() == "mask":
            name = f"{name}/{self._peek(1)}"
            self._next += 2
        return self._of_id(here, name.lstrip("\\"))

    def _qualifiers(self) -> _Qualifiers:
        found = _Qualifiers()
        if self._peek() in _PROTOCOLS:
            found = replace(found, protocol=self._peek())
            self._next += 1
        if self._peek() in ("src", "dst"):
            side = self._peek()
            if self._peek(1) in _AND | _OR and self._peek(2) in ("src", "dst"):
                side = "both" if self._peek(1) in _AND else ""
                self._next += 2
            found = replace(found, side=side, type="host")
            self._next += 1
        if self._peek() in _TYPES:
            found = replace(found, type=self._peek())
            self._next += 1
        return found

    def _alone(self, protocol: str) -> Condition:
        if protocol in _WORDS:
            return word(_WORDS[protocol])
        if protocol in ("ip", "ip6"):
            return ip_version(4 if protocol == "ip" else 6)
        raise _UnfitError(_PACKETS)

    def _of_id(self, given: _Qualifiers, name: str) -> Condition:
        if given.protocol in ("ether", "link"):
            raise _UnfitError("entries have no addresses of the link layer")
        sides = ("src", "dst") if given.side == "both" else ends(given.side)
        join = both if given.side == "both" else either
        if given.type == "proto":
            return _protocol(name)
        if given.type in ("port", "portrange"):
            found = join(_port(side, given.type, name) for side in sides)
            proto = _WORDS.get(given.protocol)
            return both([word(proto), found]) if proto else found
        if given.type == "net":
            return join(_network(side, name) for side in sides)
        if given.type == "host":
            return self._host(sides, join, name)
        raise NotThisLanguageError

    def _host(self, sides: tuple[str, ...], join: Join, name: str) -> Condition:
        found = address(name)
        if found is not None:
            return join(at_address((side,), found) for side in sides)
        if re.fullmatch(r"[\d.]+(/\d+)?", name):
            if "/" in name:
                return join(_network(side, name) for side in sides)
            raise _UnfitError("it is no whole address")
        self.done.note(f"`{name[:60]}` is compared with the best name known for a peer.")
        return join(compare(f"{side}.name", "==", name) for side in sides)


def _tokens(text: str) -> list[tuple[str, int, int]]:
    found: list[tuple[str, int, int]] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        token = _TOKEN.match(text, position)
        if token is None:
            raise NotThisLanguageError
        found.append((token[1], token.start(1), token.end()))
        position = token.end()
    return found


def _protocol(name: str) -> Condition:
    number = int(name) if re.fullmatch(r"\d{1,3}", name, re.ASCII) else None
    found = _WORDS.get(name) if number is None else PROTOCOL_NUMBERS.get(number)
    if found is None:
        raise _UnfitError("KFL has no word for this protocol")
    return word(found)


def _port(side: str, kind: str, name: str) -> Condition:
    if kind == "port":
        return compare(f"{side}.port", "==", _port_number(name))
    first, separator, last = name.partition("-")
    low, high = _port_number(first), _port_number(last or first)
    if not separator:
        raise NotThisLanguageError
    low, high = min(low, high), max(low, high)
    return both([compare(f"{side}.port", ">=", low), compare(f"{side}.port", "<=", high)])


def _port_number(name: str) -> int:
    if re.fullmatch(r"\d{1,5}", name, re.ASCII) and int(name) <= MOST_PORT:
        return int(name)
    found = _PORTS.get(name.lower())
    if found is None:
        raise _UnfitError(f"`{name[:40]}` is no port from 0 to {MOST_PORT}")
    return found


def _network(side: str, name: str) -> Condition:
    """`10.0.0.0/8`, `10.0.0.0/255.0.0.0`, or the first octets alone: `net 10`."""
    text = name
    if re.fullmatch(r"\d{1,3}(\.\d{1,3}){0,3}", name, re.ASCII):
        octets = name.split(".")
        text = ".".join([*octets, "0", "0", "0"][:4]) + f"/{8 * len(octets)}"
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise _UnfitError(f"`{name[:60]}` is no network") from None
    try:
        return in_network((side,), text)
    except ValueError:
        raise _UnfitError(NO_NETWORK) from None
