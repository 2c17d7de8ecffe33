"""What packets and dissectors a filter needs, for capture: `Filter.packets` calls this.

It may keep too much, never too little: what is not understood, or can be true of an entry that
lacks the value, is open. The packets of a stream go both ways, so ends are not told apart:
`src.port == 80` becomes "from or to port 80".
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from kfl import coarse, core
from kfl.coarse import EVERYTHING, NOTHING, Coarse
from kfl.live import protocols
from kfl.match import Matcher
from kfl.values import number, truth
from kfl.words import WORDS

Resolver: TypeAlias = Callable[[coarse.Peer], "Collection[str] | None"]
"""The addresses of the peers that a test accepts, as text; None when that cannot be told."""

UNRECOGNISED = frozenset({"tcp", "udp"})
"""Protocol names of entries in which no dissector knew anything: to say so, all have to look."""

NAMES_OF_PEERS = frozenset({"name", "namespace", "pod", "service", "dns", "labels"})

NAMELESS = {
    **dict.fromkeys(("name", "namespace", "dns"), ""),
    "pod": {"name": "", "namespace": "", "labels": {}},
    "service": {"name": "", "namespace": ""},
}
"""The peer of which nothing is known but its address."""

MOST_PORT = 65_535

_SIDES = ("src", "dst")


@dataclass(frozen=True, slots=True)
class Packets:
    """The packets that can belong to a matching entry, and who has to dissect them."""

    tree: Coarse
    dissectors: frozenset[str] | None
    """Names of protocols, as recordings have them; None for all."""

    @classmethod
    def union(cls, many: Iterable[Packets]) -> Packets:
        """What all of them together need; for none at all, nothing."""
        found = [each for each in many if each != _NONE]
        names = [each.dissectors for each in found if each.dissectors is not None]
        everyone = len(names) < len(found)
        return cls(
            coarse.any_of(each.tree for each in found),
            None if everyone else frozenset().union(*names),
        )

    @classmethod
    def meet(cls, many: Iterable[Packets]) -> Packets:
        """What is needed by an entry that fits all of them."""
        found = list(many)
        names = [each.dissectors for each in found if each.dissectors is not None]
        tree = coarse.all_of(each.tree for each in found)
        dissectors = frozenset.intersection(*names) if names else None
        return _NONE if tree == NOTHING or dissectors == frozenset() else cls(tree, dissectors)

    def resolved(self, resolver: Resolver) -> Packets:
        """The same with the names of peers as addresses; what cannot be told is open."""

        def replace(test: Coarse) -> Coarse:
            if not isinstance(test, coarse.Peer):
                return test
            addresses = resolver(test)
            return EVERYTHING if addresses is None else coarse.hosts_of(addresses)

        return Packets(coarse.replaced(self.tree, replace), self.dissectors)


_ALL = Packets(EVERYTHING, None)
_NONE = Packets(NOTHING, frozenset())


def packets(node: core.Core) -> Packets:
    """The coarse form of a filter."""
    return _needed(node, True)


def _needed(node: core.Core, wanted: bool) -> Packets:
    """What entries need for which the truth of a node is `wanted`."""
    match node:
        case core.Const(value=value):
            return _ALL if truth(value) is wanted else _NONE
        case core.Not(operand=operand):
            return _needed(operand, not wanted)
        case core.All(operands=operands) | core.Some(operands=operands):
            parts = (_needed(operand, wanted) for operand in operands)
            both = isinstance(node, core.All) is wanted
            return Packets.meet(parts) if both else Packets.union(parts)
        case core.IfElse(condition=condition, yes=yes, no=no):
            return Packets.union(
                Packets.meet((_needed(condition, chosen), _needed(part, wanted)))
                for chosen, part in ((True, yes), (False, no))
            )
        case core.Word(name=name):
            return _word(name) if wanted else _ALL
        case _ if wanted:
            words = protocols(node)  # the test is false for all other entries
            of_words = _ALL if words is None else Packets.union(map(_word, words))
            return Packets.meet((of_words, _test(node, True)))
        case _:
            return _test(node, False)


def _word(name: str) -> Packets:
    word = WORDS[name]
    if word.transport:
        return Packets(coarse.transports(word.transport), None)
    if word.encrypted:
        return Packets(coarse.transports("tcp", "udp"), None)  # what is inside can be anything
    return _of_names(word.names)


def _of_names(names: frozenset[str]) -> Packets:
    """Entries whose protocol.name is one of these."""
    tree = coarse.any_of(coarse.CARRIED.get(name, EVERYTHING) for name in names)
    return Packets(tree, None if names & UNRECOGNISED else names)


# ---------------------------------------------------------------------------------- tests


def _test(node: core.Core, wanted: bool) -> Packets:
    """A test that is not put together from others."""
    parts = _each_side(node) if wanted else None
    if parts is not None:
        return Packets.union(_test(part, wanted) for part in parts)
    steps = {each.steps for each in core.walk(node) if isinstance(each, core.Select)}
    keys = [tuple(step.name for step in path if isinstance(step, core.Key)) for path in steps]
    if len(steps) == 1 and len(keys[0]) == len(next(iter(steps))):
        of_value = _of_value(node, wanted, keys[0])
        if of_value is not None:
            return of_value
    return _of_peer(node, wanted)


def _of_value(node: core.Core, wanted: bool, keys: tuple[str, ...]) -> Packets | None:
    """A test of one value against constants; None when it is not of a value that packets show."""
    if keys[0] in _SIDES and keys[1:] == ("ip",) and isinstance(node, core.TextTest) and wanted:
        return _address_begins(node)
    constants = _constants(node)
    if constants is None:
        return None
    verdict = _Verdict().test(node)

    def fits(value: Any) -> bool:
        return verdict(value) is wanted

    if fits("") or fits(None):  # what an entry has that knows no value, as of ICMP's ports
        return None
    fitting = frozenset(each for each in constants if isinstance(each, str) and fits(each))
    match keys:
        case ("src" | "dst", "port"):
            return Packets.meet([Packets(_ports(constants, fits), None)])
        case ("src" | "dst", "ip"):
            return Packets.meet([Packets(coarse.hosts(_networks(fitting)), None)])
        case ("transport",) if fitting <= coarse.TRANSPORTS:
            return Packets.meet([Packets(coarse.transports(*fitting), None)])
        case ("protocol", "name"):
            return _of_names(fitting)
        case _:
            return None


class _Verdict(Matcher):
    """The reference over a value instead of an entry."""

    def select(self, steps: tuple[core.Step, ...]) -> Callable[[Any], Any]:
        del steps
        return lambda value: value


def _constants(node: core.Core) -> tuple[Any, ...] | None:
    """What the value of a selector is compared with, if the verdict changes only there."""
    match node:
        case (
            core.Compare(left=core.Select(), right=core.Const(value=value))
            | core.Compare(left=core.Const(value=value), right=core.Select())
            | core.Within(item=core.Select(), container=core.Const(value=value))
        ):
            constants = value if isinstance(value, tuple) else (value,)
            return None if any(isinstance(c, core.Pattern) for c in constants) else constants
        case _:
            return None


def _ports(constants: tuple[Any, ...], fits: Callable[[Any], bool]) -> Coarse:
    """The ports for which a comparison fits; between its constants it does not change."""
    edges = {0, MOST_PORT + 1}
    for constant in constants:
        value = number(constant) if isinstance(constant, str) else constant
        if isinstance(value, int | float) and 0 <= value <= MOST_PORT:
            edges |= {math.floor(value), math.floor(value) + 1}
    pairs = itertools.pairwise(sorted(edges))
    return coarse.ports((low, above - 1) for low, above in pairs if fits(low))


def _networks(texts: Iterable[str]) -> Iterator[coarse.Network]:
    """The addresses that are written so in entries; any other text is that of none."""
    for text in texts:
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(text)
            if str(address) == text:
                yield ipaddress.ip_network(address)


_WHOLE_OCTETS = re.compile(r"(?:[0-9]{1,3}\.){1,3}")


def _address_begins(node: core.TextTest) -> Packets | None:
    """`src.ip.startsWith("10.0.")` is a network; other parts of texts are not."""
    match node:
        case core.TextTest(kind="startsWith", text=core.Select(), part=core.Const(value=str(part))):
            if _WHOLE_OCTETS.fullmatch(part):
                octets = part.split(".")[:-1]
                written = ".".join([*octets, *["0"] * (4 - len(octets))])
                with contextlib.suppress(ValueError):
                    network = ipaddress.ip_network(f"{written}/{8 * len(octets)}")
                    return Packets(coarse.hosts([network]), None)
    return None


# ---------------------------------------------------------------------------------- peers


def _each_side(node: core.Core) -> list[core.Core] | None:
    """A test of a list of both sides' names as one test for each, of which one has to be true."""
    gathered = [each for each in core.children(node) if isinstance(each, core.Gather)]
    others = [each for each in core.children(node) if not isinstance(each, core.Gather)]
    if len(gathered) != 1 or len(gathered[0].values) < 2:
        return None
    if any(not isinstance(o, core.Const) or isinstance(o.value, tuple) for o in others):
        return None  # a list is compared as a whole
    singles = [core.Gather((value,)) for value in gathered[0].values]
    match node:
        case core.Within(container=core.Gather()):
            return [dataclasses.replace(node, container=single) for single in singles]
        case core.Compare(operator=operator, left=core.Gather()) if operator != "!=":
            return [dataclasses.replace(node, left=single) for single in singles]
        case core.TextTest(text=core.Gather()) | core.Search(text=core.Gather()):
            return [dataclasses.replace(node, text=single) for single in singles]
        case _:
            return None


def _of_peer(node: core.Core, wanted: bool) -> Packets:
    """A test of the names of one side."""
    below = core.walk(node)
    if any(isinstance(each, core.Word | core.Record | core.Guarded) for each in below):
        return _ALL
    sides = {_side_of_name(each) for each in below if isinstance(each, core.Select)}
    if len(sides) != 1 or None in sides:
        return _ALL
    condition = _below_side(node)
    peer = coarse.Peer(condition if wanted else core.Not(condition))
    return _ALL if peer.test()(NAMELESS) else Packets(peer, None)


def _side_of_name(select: core.Select) -> str | None:
    """The side of a selector of its names; None for any other."""
    match select.steps:
        case (core.Key(name="src" | "dst" as side), core.Key(name=key), *_):
            return side if key in NAMES_OF_PEERS else None
        case _:
            return None


def _below_side(node: Any) -> Any:
    """The test with its selectors beginning below src or dst."""
    if isinstance(node, core.Select):
        return dataclasses.replace(node, steps=node.steps[1:])
    if isinstance(node, tuple):
        return tuple(map(_below_side, node))
    if not dataclasses.is_dataclass(node) or isinstance(node, type):
        return node
    parts = {field.name: getattr(node, field.name) for field in dataclasses.fields(node)}
    return type(node)(**{name: _below_side(part) for name, part in parts.items()})
