"""What a filter says, as a tree: `parse` builds it, `show` writes it, `resolve` gives it meaning.

Positions take no part in comparisons, so a tree equals the one parsed from its own text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Position:
    """Where a node begins: line and column from 1, in characters."""

    line: int = 1
    column: int = 1


START = Position()


@dataclass(frozen=True, slots=True)
class Literal:
    """`nil`, `true`, `42`, `3.14` or `"text"`."""

    value: bool | int | float | str | None
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Regex:
    """`r"pattern"`; the pattern as it was written."""

    pattern: str
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[a, b]`."""

    items: tuple[Node, ...]
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A word that stands alone, or begins a selector."""

    word: str
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Key:
    """The step `.name` or `["name"]`."""

    name: str


@dataclass(frozen=True, slots=True)
class Index:
    """The step `[0]`."""

    number: int


@dataclass(frozen=True, slots=True)
class Each:
    """The step `.*`: every element of a list, every value of a map."""


@dataclass(frozen=True, slots=True)
class Deep:
    """The step `..name`: every value with that key, however deep."""

    name: str


Step: TypeAlias = Key | Index | Each | Deep


@dataclass(frozen=True, slots=True)
class Path:
    """A selector: `base` and the steps from it."""

    base: Node
    steps: tuple[Step, ...]
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """`name(arguments)`, or `receiver.name(arguments)`."""

    receiver: Node | None
    name: str
    arguments: tuple[Node, ...]
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """`not x` (also written `!x`) or `-x`."""

    operator: str
    operand: Node
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """A comparison (`== != < <= > >= in`) or arithmetic (`+ - * / %`)."""

    operator: str
    left: Node
    right: Node
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Logic:
    """Two or more operands joined by `and`, or by `or`."""

    operator: str
    operands: tuple[Node, ...]
    at: Position = field(default=START, compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node
    at: Position = field(default=START, compare=False)


Node: TypeAlias = Literal | Regex | ListOf | Name | Path | Call | Unary | Binary | Logic | Choice


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below a node, from left to right."""
    match node:
        case ListOf(items=items):
            return items
        case Path(base=base):
            return (base,)
        case Call(receiver=receiver, arguments=arguments):
            return arguments if receiver is None else (receiver, *arguments)
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Logic(operands=operands):
            return operands
        case Choice(condition=condition, yes=yes, no=no):
            return (condition, yes, no)
        case _:
            return ()


def depth(node: Node) -> int:
    """Levels of the tree, each step of a selector being one.

    Without recursion, since it decides whether recursion is safe.
    """
    deepest = 0
    waiting = [(node, 1)]
    while waiting:
        current, level = waiting.pop()
        if isinstance(current, Path):
            level += len(current.steps)
        deepest = max(deepest, level)
        waiting.extend((child, level + 1) for child in children(current))
    return deepest
