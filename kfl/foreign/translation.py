"""What both translators build: conditions of KFL, and what has none.

A translated condition is a tree of `ast`; True or False where it says nothing about entries (no
entry is ARP); None where it has no KFL.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kfl import ast
from kfl.show import show

MAX_DEPTH = 50
"""Brackets and negations inside each other; a person writes three."""

MAX_PARTS = 500
"""Conditions in one filter; a generated list of addresses stays below."""

Condition: TypeAlias = "ast.Node | bool | None"


class NotThisLanguageError(Exception):
    """The text cannot be read as a filter of the language that it was taken for."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A part that has no KFL: as it is written, where it begins, and why, as a clause."""

    part: str
    offset: int
    why: str


@dataclass(slots=True)
class Translation:
    """A whole filter in KFL, without what is lost."""

    condition: Condition = None
    lost: list[Lost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parts: int = 0

    @property
    def text(self) -> str:
        """The KFL; "" when nothing of it is left."""
        if self.condition is None:
            return ""
        if isinstance(self.condition, bool):
            return "true" if self.condition else "false"
        return show(self.condition)

    def lose(self, part: str, offset: int, why: str) -> None:
        """Keep that a part has no KFL."""
        self.lost.append(Lost(" ".join(part.split())[:80], offset, why))

    def note(self, text: str) -> None:
        """Keep a sentence that has to be read beside the KFL."""
        if text not in self.notes:
            self.notes.append(text)

    def count(self) -> None:
        """One more condition. Raises NotThisLanguageError when there are too many."""
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise NotThisLanguageError


# ---------------------------------------------------------------------------------- conditions


def both(conditions: Iterable[Condition]) -> Condition:
    """All of them; what is lost is left out, what is true or is there already says nothing."""
    return _join("and", conditions, neutral=True)


def either(conditions: Iterable[Condition]) -> Condition:
    """At least one of them, in the same way."""
    return _join("or", conditions, neutral=False)


def _join(operator: str, conditions: Iterable[Condition], *, neutral: bool) -> Condition:
    given = [condition for condition in conditions if condition is not None]
    if any(condition is (not neutral) for condition in given):
        return not neutral
    flat: list[ast.Node] = []
    for condition in given:
        if isinstance(condition, bool):
            continue
        inner = isinstance(condition, ast.Logic) and condition.operator == operator
        for part in condition.operands if inner else (condition,):  # type: ignore[union-attr]
            if part not in flat:
                flat.append(part)
    if not flat:
        return neutral if given else None
    return flat[0] if len(flat) == 1 else ast.Logic(operator, tuple(flat))


def negate(condition: Condition) -> Condition:
    """The opposite."""
    if condition is None or isinstance(condition, bool):
        return None if condition is None else not condition
    if isinstance(condition, ast.Unary):
        return condition.operand
    return ast.Unary("not", condition)


def word(name: str) -> ast.Node:
    """A protocol word."""
    return ast.Name(name)


def path(text: str) -> ast.Node:
    """A selector, from its steps between dots; `*` is each element."""
    first, *rest = text.split(".")
    steps = tuple(ast.Each() if step == "*" else ast.Key(step) for step in rest)
    return ast.Path(ast.Name(first), steps) if steps else ast.Name(first)


def compare(left: str, operator: str, value: object) -> ast.Node:
    """`left operator value`."""
    return ast.Binary(operator, path(left), literal(value))


def call(left: str, method: str, text: str) -> ast.Node:
    """`left.method("text")`."""
    return ast.Call(path(left), method, (ast.Literal(text),))


def literal(value: object) -> ast.Node:
    """A value as it is written."""
    if isinstance(value, ast.Literal | ast.Call):
        return value
    if isinstance(value, list):
        return ast.ListOf(tuple(literal(each) for each in value))
    assert value is None or isinstance(value, bool | int | float | str)
    return ast.Literal(value)


# ---------------------------------------------------------------------------------- networks

NO_NETWORK = "KFL compares addresses as texts, so a network must end at a dot (/8, /16, /24)"


def ends(side: str) -> tuple[str, ...]:
    """The fields' beginnings that `src`, `dst` or "" for either stands for."""
    return (side,) if side else ("src", "dst")


def address(text: str) -> str | None:
    """An address as entries have it; None when it is none."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None


def at_address(sides: Sequence[str], text: str) -> Condition:
    """One of the sides has this address."""
    return either(compare(f"{side}.ip", "==", text) for side in sides)


def in_network(sides: Sequence[str], text: str) -> Condition:
    """One of the sides is in this network. Raises ValueError when it is none, or has no KFL."""
    network = ipaddress.ip_network(text, strict=False)
    if network.prefixlen == network.max_prefixlen:
        return at_address(sides, str(network.network_address))
    if network.prefixlen == 0:
        return _of_version(sides, network.version)
    if network.version == 6 or network.prefixlen % 8:
        raise ValueError(NO_NETWORK)
    octets = str(network.network_address).split(".")[: network.prefixlen // 8]
    return either(call(f"{side}.ip", "startsWith", ".".join(octets) + ".") for side in sides)


def _of_version(sides: Sequence[str], version: int) -> Condition:
    separator = "." if version == 4 else ":"
    return either(call(f"{side}.ip", "contains", separator) for side in sides)


def ip_version(version: int) -> Condition:
    """Entries over IPv4 or IPv6: only the latter's addresses have colons."""
    colon = call("src.ip", "contains", ":")
    return colon if version == 6 else negate(colon)


NO_ENTRY = {
    "arp": "ARP",
    "rarp": "RARP",
    "stp": "STP",
    "lldp": "LLDP",
    "cdp": "CDP",
    "igmp": "IGMP",
    "loopback": "a loopback frame",
}
"""What never becomes an entry, with its name: only what runs over TCP, UDP, SCTP and ICMP does."""


def no_entry(name: str, translation: Translation) -> bool:
    """False, with a note why."""
    translation.note(f"No entry is {NO_ENTRY[name]}.")
    return False


PROTOCOL_NUMBERS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}
"""IP's numbers of the protocols that are words of KFL (IANA)."""
