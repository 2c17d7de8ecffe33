"""What values the fields of a filter have, by the protocol of an entry. `possible` asks.

Entries are told apart by the protocol words that are true of them; within one such *world*, fields
have the types of the catalogue, or are missing where no protocol of the world has them.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from kfl import core
from kfl.fields import CATALOGUE, Field
from kfl.match import word_test
from kfl.words import WORDS

World: TypeAlias = frozenset[str]
"""The words that are true of an entry, of those that a filter depends on."""

MIXED = {"response.status": "http"}
"""Fields that are numbers under this word alone; a database's status is a text."""

MOST_PORT = 65_535
MOST_STATUS = 999  # three digits (RFC 9110, 15)


@dataclass(frozen=True, slots=True)
class Kind:
    """What values a node has where it is there: one number, text, truth or map.

    A scalar is a number or a text.
    """

    type: Literal["number", "text", "bool", "scalar", "map"]
    least: float = -math.inf
    most: float = math.inf


GONE: Final = "missing"
"""The kind of a node that no entry of a world has."""

KindOf: TypeAlias = Kind | Literal["missing"] | None
"""None for a value that can be anything."""

_NUMBER = Kind("number")
_COUNT = Kind("number", 0)

_RANGES: dict[tuple[str, ...], Kind] = {
    **{(side, "port"): Kind("number", 0, MOST_PORT) for side in ("src", "dst")},
    **{(key,): _COUNT for key in ("requestSize", "responseSize", "index")},
    **{
        (side, key): _COUNT
        for side in ("request", "response")
        for key in ("headersSize", "bodySize")
    },
}


def _steps(path: str) -> tuple[core.Step, ...]:
    return tuple(core.Each() if part == "*" else core.Key(part) for part in path.split("."))


_FIELDS: dict[tuple[str, tuple[core.Step, ...]], Field] = {
    (field.guard, _steps(field.paths[0])): field for field in CATALOGUE if field.how == "one"
}
"""Catalogued fields by their guard and where they are."""


# ---------------------------------------------------------------------------------- worlds


@functools.cache
def _all_worlds() -> frozenset[World]:
    """Every set of words that can be true together, of entries that say anything whatever."""
    words = WORDS.values()
    names = [*sorted(set().union(*(word.names for word in words))), "another"]
    versions = [*sorted(set().union(*(word.versions for word in words))), "another"]
    abbrs = [*sorted(set().union(*(word.abbrs for word in words))), "another"]
    tests = {word.name: word_test(word) for word in words}
    found = set()
    for name, version, abbr, transport, tls in itertools.product(
        names, versions, abbrs, (None, "tcp", "udp", "another"), (True, False)
    ):
        protocol = {"name": name, "version": version, "abbr": abbr}
        entry = {"protocol": protocol, "transport": transport, "tls": tls}
        found.add(frozenset(word for word, test in tests.items() if test(entry)))
    return frozenset(found)


@functools.lru_cache(maxsize=256)
def _worlds_of(words: frozenset[str]) -> tuple[World, ...]:
    return tuple({world & words for world in _all_worlds()})


def worlds(tree: core.Core) -> tuple[World, ...]:
    """The worlds that a filter can tell apart."""
    words: set[str] = set()
    for node in core.walk(tree):
        match node:
            case core.Word(name=name):
                words.add(name)
            case core.Guarded(word=word, value=core.Select(steps=steps)):
                words.add(word)
                words.update(_protocols((word, steps)))
            case core.Guarded(word=word):
                words.add(word)
            case core.Select(steps=steps):
                words.update(_protocols(("", steps)))
    return _worlds_of(frozenset(words))


def _protocols(where: tuple[str, tuple[core.Step, ...]]) -> tuple[str, ...]:
    field = _field(*where)
    return field.protocols if field else ()


def _field(guard: str, steps: tuple[core.Step, ...]) -> Field | None:
    """The field at a path; of a path below one, that one, for its protocols."""
    for length in range(len(steps), 0, -1):
        found = _FIELDS.get((guard, steps[:length]))
        if found is not None:
            return found
    return None


# ---------------------------------------------------------------------------------- kinds


def kind_of(node: core.Core, world: World, guard: str = "") -> KindOf:
    """The kind of a value in a world."""
    match node:
        case core.Select(steps=steps):
            return _kind_of_path(steps, world, guard)
        case core.Guarded(word=word, value=value):
            return kind_of(value, world, word) if word in world else GONE
        case core.Size(of=of):
            inner = kind_of(of, world)
            no_size = isinstance(inner, Kind) and inner.type in ("number", "bool")
            return GONE if inner == GONE or no_size else _COUNT
        case core.Arithmetic(operator=operator, left=left, right=right):
            parts = (_kind_or_constant(left, world), _kind_or_constant(right, world))
            if GONE in parts:
                return GONE
            return _NUMBER if operator != "+" or _NUMBER in parts else None
        case core.First(values=values):
            kinds = {kind_of(value, world) for value in values}
            return GONE if kinds == {GONE} else None
        case core.IfElse(yes=yes, no=no):
            kinds = {kind_of(yes, world), kind_of(no, world)}
            return GONE if kinds == {GONE} else None
        case core.Down() | core.Decode() | core.MapGet() | core.Items():
            below = core.children(node)[: 1 if isinstance(node, core.MapGet) else None]
            return GONE if any(kind_of(each, world) == GONE for each in below) else None
        case _:
            return None


def _kind_or_constant(node: core.Core, world: World) -> KindOf:
    if isinstance(node, core.Const):
        return _NUMBER if type(node.value) in (int, float) else None
    found = kind_of(node, world)
    return _NUMBER if isinstance(found, Kind) and found.type == "number" else found


def _kind_of_path(steps: tuple[core.Step, ...], world: World, guard: str) -> KindOf:
    field = _field(guard, steps)
    if field is None:
        return None
    if field.protocols and world.isdisjoint(field.protocols):
        return GONE
    if (guard, steps) not in _FIELDS:
        return None
    only = MIXED.get(field.paths[0])
    if only and only not in world:
        return Kind("scalar")
    keys = tuple(step.name for step in steps if isinstance(step, core.Key))
    if len(keys) != len(steps):
        return None  # a wildcard: many values
    if keys == ("response", "status"):
        return Kind("number", 0, MOST_STATUS)
    if field.type == "number":
        return _RANGES.get(keys, _NUMBER)
    match field.type:
        case "text" | "bool" | "map":
            return Kind(field.type)
        case _:
            return None
