"""What a filter means, as a tree that needs no names any more. `resolve` makes it; `match`, `sql`,
`columns` and `explain` each go through it once.

Every node is a value; those in TESTS are always true or false. "Missing" is the value of a selector
that finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from kfl.ast import Deep, Each, Index, Key, Step

__all__ = ["Deep", "Each", "Index", "Key", "Step"]


class Pattern:
    """A regex of a filter, compiled by RE2. Equal by its text."""

    __slots__ = ("compiled", "text")

    def __init__(self, text: str, compiled: Any) -> None:
        self.text = text
        self.compiled = compiled

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pattern) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def found_in(self, text: str) -> bool:
        """Search, not anchored."""
        try:
            return self.compiled.search(text) is not None
        except UnicodeEncodeError:  # half a surrogate pair, which JSON can name
            return self.compiled.search(text.encode("utf-8", "replace").decode()) is not None


Constant: TypeAlias = "bool | int | float | str | Pattern | tuple[Constant, ...] | None"
"""A tuple is a list of the filter."""


@dataclass(frozen=True, slots=True)
class Const:
    """A value of the filter. Times are milliseconds since 1970, durations milliseconds."""

    value: Constant
    unit: str = ""  # time, duration or ""


@dataclass(frozen=True, slots=True)
class Select:
    """The value at a path of the entry; the first step is always a Key."""

    steps: tuple[Step, ...]
    unit: str = ""  # us: microseconds; ms: milliseconds


@dataclass(frozen=True, slots=True)
class Down:
    """The value at a path below a computed value."""

    base: Core
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Guarded:
    """`value` for entries that are `word`, missing for others."""

    word: str
    value: Core


@dataclass(frozen=True, slots=True)
class First:
    """The first of these values that is not missing."""

    values: tuple[Core, ...]


@dataclass(frozen=True, slots=True)
class Gather:
    """A list of those values that are not missing and not "". Many values are taken one by one."""

    values: tuple[Core, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """A list written in the filter that is not constant; missing when one of its items is."""

    items: tuple[Core, ...]


@dataclass(frozen=True, slots=True)
class Decode:
    """A text decoded: kind is json or xml."""

    kind: str
    text: Core


@dataclass(frozen=True, slots=True)
class Size:
    """Characters of a text, elements of a list, keys of a map."""

    of: Core


@dataclass(frozen=True, slots=True)
class MapGet:
    """The value of a key of a map, or a default."""

    map: Core
    key: Core
    default: Core


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """`+ - * / %` of numbers; `+` also of two texts or two lists."""

    operator: str
    left: Core
    right: Core


@dataclass(frozen=True, slots=True)
class IfElse:
    """One of two values."""

    condition: Core
    yes: Core
    no: Core


@dataclass(frozen=True, slots=True)
class Compare:
    """`== != < <= > >=`."""

    operator: str
    left: Core
    right: Core


@dataclass(frozen=True, slots=True)
class Within:
    """`item in container`."""

    item: Core
    container: Core


@dataclass(frozen=True, slots=True)
class TextTest:
    """startsWith, endsWith or contains."""

    kind: str
    text: Core
    part: Core


@dataclass(frozen=True, slots=True)
class Search:
    """`text.matches(pattern)`."""

    text: Core
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class Present:
    """The value is there and not nil."""

    value: Core


@dataclass(frozen=True, slots=True)
class Word:
    """A protocol word."""

    name: str


@dataclass(frozen=True, slots=True)
class Record:
    """The entry belongs to this recording."""

    name: str


@dataclass(frozen=True, slots=True)
class Not:
    """True when the operand is not."""

    operand: Core


@dataclass(frozen=True, slots=True)
class All:
    """True when all operands are."""

    operands: tuple[Core, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """True when at least one operand is."""

    operands: tuple[Core, ...]


Core: TypeAlias = (
    Const
    | Select
    | Down
    | Guarded
    | First
    | Gather
    | Items
    | Decode
    | Size
    | MapGet
    | Arithmetic
    | IfElse
    | Compare
    | Within
    | TextTest
    | Search
    | Present
    | Word
    | Record
    | Not
    | All
    | Some
)

TESTS = (Compare, Within, TextTest, Search, Present, Word, Record, Not, All, Some)
"""Nodes that are always true or false, never missing."""


def children(node: Core) -> tuple[Core, ...]:
    """The nodes right below a node."""
    match node:
        case Down(base=one) | Guarded(value=one) | Decode(text=one) | Size(of=one):
            return (one,)
        case Not(operand=one) | Present(value=one) | Search(text=one):
            return (one,)
        case First(values=many) | Gather(values=many) | Items(items=many):
            return many
        case All(operands=many) | Some(operands=many):
            return many
        case Compare(left=left, right=right) | Arithmetic(left=left, right=right):
            return (left, right)
        case Within(item=left, container=right) | TextTest(text=left, part=right):
            return (left, right)
        case IfElse(condition=condition, yes=yes, no=no):
            return (condition, yes, no)
        case MapGet(map=map_, key=key, default=default):
            return (map_, key, default)
        case _:
            return ()


def walk(node: Core) -> list[Core]:
    """The node and all nodes below it, each before what is below it, from left to right."""
    found: list[Core] = []
    waiting = [node]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting.extend(reversed(children(current)))
    return found


def unguard(node: Core) -> tuple[tuple[str, ...], Core]:
    """The words without which a value is missing, and the value without them.

    For the operands of a comparison or a call, which are false when an operand is missing.
    """
    match node:
        case Guarded(word=word, value=value):
            words, inner = unguard(value)
            return (word, *words), inner
        case Size(of=of):
            words, inner = unguard(of)
            return words, Size(inner)
        case Decode(kind=kind, text=text):
            words, inner = unguard(text)
            return words, Decode(kind, inner)
        case Down(base=base, steps=steps):
            words, inner = unguard(base)
            return words, Down(inner, steps)
        case Arithmetic(operator=operator, left=left, right=right):
            left_words, left = unguard(left)
            right_words, right = unguard(right)
            return (*left_words, *right_words), Arithmetic(operator, left, right)
        case _:
            return (), node
