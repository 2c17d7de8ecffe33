"""Warnings about conditions that are never true, or always. `resolve` asks once it has no errors.

What is said here holds for every entry that the catalogue allows (`possible`). A doubt is about the
smallest part that it is true of, and says whether that decides the whole filter.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kfl import ast, core
from kfl.errors import Diagnostic
from kfl.fields import NAMES
from kfl.kinds import GONE, Kind
from kfl.possible import (
    ONLY_FALSE,
    ONLY_TRUE,
    Bare,
    Possible,
    Truths,
    bounds_of,
    candidates,
    is_in_it,
    orders_no_number,
)
from kfl.show import show, show_text
from kfl.times import parse_datetime, parse_duration, parse_timestamp

MAX_NODES = 2_000
"""Nodes of a filter that is looked at: longer ones are made by programs, and every pair counts."""

MAX_PAIRED = 40
"""Operands among which the two that exclude each other are looked for: each with each."""

MAX_SHOWN = 60
"""Characters of a condition that a warning repeats."""

Places = Callable[[core.Core], ast.Node | None]
"""The node of the text that a node came from."""


def doubts(tree: core.Core, written: ast.Node, places: Places) -> list[Diagnostic]:
    """The warnings, in the order of the text."""
    nodes = core.walk(tree)
    if len(nodes) > MAX_NODES or all(isinstance(node, _CONSTANT) for node in nodes):
        return []
    return _Doubts(tree, written, places).all()


_MISSING = ("a part of it is always missing", "Ask for parts of one protocol.")

_CONSTANT = (core.Const, core.Not, core.All, core.Some)


@dataclass(frozen=True, slots=True)
class _Doubt:
    node: core.Core
    at: ast.Node
    is_true: bool  # always, else never
    why: str
    suggestion: str = ""


class _Doubts:
    def __init__(self, tree: core.Core, written: ast.Node, places: Places) -> None:
        self._tree = tree
        self._written = written
        self._places = places
        self._possible = Possible(tree)

    def all(self) -> list[Diagnostic]:
        whole = self._possible.truths(self._tree)
        found = list(self._of(self._tree, self._written))
        said = [self._diagnostic(doubt, whole) for doubt in found]
        if whole in (ONLY_TRUE, ONLY_FALSE) and not found:
            at = self._written.at
            message = f"The filter is {_always(whole == ONLY_TRUE)} true, whatever the entry."
            said.append(
                Diagnostic(False, at.line, at.column, message, "Look at each of its parts.")
            )
        said.extend(self._presences(self._tree, self._written))
        places = {(doubt.line, doubt.column) for doubt in said}
        for doubt in self._unlikely(self._tree, self._written):
            if (doubt.line, doubt.column) not in places:
                said.append(doubt)
        return said

    def _diagnostic(self, doubt: _Doubt, whole: Truths) -> Diagnostic:
        decides = whole in (ONLY_TRUE, ONLY_FALSE)
        same = whole == frozenset({doubt.is_true})
        subject = "The filter" if same else "This"
        message = f"{subject} is {_always(doubt.is_true)} true: {doubt.why}."
        if decides and not same:
            message += f" So the filter is {_always(not doubt.is_true)} true."
        at = doubt.at.at
        return Diagnostic(False, at.line, at.column, message, doubt.suggestion)

    def _place(self, node: core.Core, above: ast.Node) -> ast.Node:
        return self._places(node) or above

    def _show(self, node: core.Core, above: ast.Node) -> str:
        text = show(self._place(node, above))
        return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."

    # ------------------------------------------------------------------ never and always

    def _of(self, node: core.Core, above: ast.Node) -> Iterator[_Doubt]:
        """Doubts about the smallest parts below a condition, and itself where none is below."""
        at = self._place(node, above)
        below: list[_Doubt] = []
        for part in _conditions(node):
            below.extend(self._of(part, at))
        yield from below
        truth = self._possible.truths(node)
        if truth not in (ONLY_TRUE, ONLY_FALSE) or isinstance(node, core.Const | core.Not):
            return
        is_true = truth == ONLY_TRUE
        if any(doubt.is_true == is_true for doubt in below):
            return
        match node:
            case core.All(operands=operands) | core.Some(operands=operands):
                yield from self._of_logic(node, operands, at, is_true)
            case core.IfElse() | core.Word() | core.Record():
                return
            case _:
                why, suggestion = self._reason(node)
                yield _Doubt(node, at, is_true, why, suggestion)

    def _of_logic(
        self, node: core.Core, operands: tuple[core.Core, ...], at: ast.Node, is_true: bool
    ) -> Iterator[_Doubt]:
        for operand in operands:
            if self._possible.truths(operand) == frozenset({is_true}):
                joint = "or" if is_true else "and"
                if isinstance(node, core.Some) == is_true:
                    yield _Doubt(
                        node,
                        self._place(operand, at),
                        is_true,
                        f"`{self._show(operand, at)}` stands in an `{joint}`",
                        "Take it out, or write `and`." if is_true else "Take it out.",
                    )
                    return
        pair = self._pair(node, operands)
        if pair is None:
            return
        one, other = pair
        shown = f"`{self._show(one, at)}`", f"`{self._show(other, at)}`"
        if is_true:
            why, suggestion = f"{shown[0]} and {shown[1]} leave nothing out", "Take both out."
        else:
            unlike = self._unlike_under_word(one, other) or self._unlike_under_word(other, one)
            if unlike:
                yield _Doubt(node, self._place(other, at), is_true, *unlike)
                return
            why = f"{shown[0]} and {shown[1]} exclude each other{self._owners(one, other)}"
            suggestion = "Take one of them out."
            if _names_one(one) and _names_one(other):
                suggestion = "Write `or` for entries of either."
        yield _Doubt(node, self._place(other, at), is_true, why, suggestion)

    def _unlike_under_word(self, word: core.Core, other: core.Core) -> tuple[str, str] | None:
        """The reason where entries of a word have another kind of value than is asked for."""
        bare = self._possible.bare(other)
        if not isinstance(word, core.Word) or bare is None or bare.negated:
            return None
        kinds = self._possible.kinds(bare.written, word.name)
        kind = next(iter(kinds), None)
        if len(kinds) != 1 or not isinstance(kind, Kind):
            return None
        why, suggestion = _unlike(bare, kind, self._show(bare.written, self._written))
        return f"of `{word.name}`, {why}", suggestion

    def _pair(
        self, node: core.Core, operands: tuple[core.Core, ...]
    ) -> tuple[core.Core, core.Core] | None:
        """The first two operands that decide the whole."""
        if len(operands) > MAX_PAIRED:
            return None
        wanted = self._possible.truths(node)
        kind = core.All if isinstance(node, core.All) else core.Some
        for place, other in enumerate(operands):
            for one in operands[:place]:
                if self._possible.truths(kind((one, other))) == wanted:
                    return one, other
        return None

    def _owners(self, one: core.Core, other: core.Core) -> str:
        """Who has the field that one of them asks for, where the other rules it out."""
        for node in (other, one):
            for each in core.walk(node):
                field = NAMES.get(_name(each))
                word = (one, other)[node is one]
                if field and isinstance(word, core.Word) and self._lacks(word.name, node):
                    who = ", ".join(field.protocols)
                    return f", as `{field.name}` is of {who} alone"
        return ""

    def _lacks(self, word: str, node: core.Core) -> bool:
        """Entries of a word have no value for a part of the node."""
        parts = core.children(node) or (node,)
        return any(self._possible.kinds(part, word) == {GONE} for part in parts)

    # ------------------------------------------------------------------ reasons

    def _reason(self, node: core.Core) -> tuple[str, str]:
        """Why a comparison or call has only one truth, as a clause, and what would be right."""
        if all(isinstance(each, core.Const) for each in core.children(node)):
            return "it compares constants", "Name a field, as in response.status == 500."
        bare = self._possible.bare(node)
        if bare is not None and isinstance(bare.key, core.TESTS):
            shown = self._show(bare.key, self._written)
            return f"`{shown}` is true or false, and {_constant(bare)} is not", f"Write {shown}."
        if bare is None:
            return _MISSING
        if orders_no_number(bare) and isinstance(bare.condition, core.Compare):
            sign = bare.condition.operator
            advice = _as_time(bare) or "Compare with a number."
            return f"`{sign}` compares numbers, and {_constant(bare)} is none", advice
        kinds = self._possible.kinds(bare.written)
        known = next((kind for kind in kinds if isinstance(kind, Kind)), None)
        if known is None:
            return _MISSING
        return _unlike(bare, known, self._show(bare.written, self._written))

    # ------------------------------------------------------------------ of another protocol

    def _unlikely(self, node: core.Core, above: ast.Node) -> Iterator[Diagnostic]:
        """Comparisons that are never true of the protocol that most people mean by a field."""
        at = self._place(node, above)
        for part in _conditions(node):
            yield from self._unlikely(part, at)
        bare = None if isinstance(node, core.Not) else self._possible.bare(node)
        if bare is None or bare.negated or self._possible.truths(node) == ONLY_FALSE:
            return
        field = NAMES.get(_name(bare.written))
        if field is None or len(field.protocols) < 2:
            return
        usual, *others = field.protocols
        named = {each.name for each in core.walk(self._tree) if isinstance(each, core.Word)}
        kinds = self._possible.kinds(bare.written, usual)
        kind = next(iter(kinds), None)
        if len(kinds) != 1 or not isinstance(kind, Kind) or candidates(bare, kind) != []:
            return
        if named.isdisjoint(others):
            why, suggestion = _unlike(bare, kind, field.name)
            yield Diagnostic(
                False,
                at.at.line,
                at.at.column,
                f"This is never true of {usual}: {why}. It can be of {', '.join(others)} alone.",
                f"{suggestion.removesuffix('.')}, or name the protocol.",
            )

    # ------------------------------------------------------------------ presence

    def _presences(self, node: core.Core, above: ast.Node) -> Iterator[Diagnostic]:
        """Comparisons that are true wherever there is something to compare."""
        at = self._place(node, above)
        for part in _conditions(node):
            yield from self._presences(part, at)
        bare = None if isinstance(node, core.Not) else self._possible.bare(node)
        if bare is None or bare.condition is bare.key or isinstance(bare.key, core.TESTS):
            return
        if self._possible.truths(node) == ONLY_FALSE or not self._says_nothing(bare):
            return
        of = bare.written.of if isinstance(bare.written, core.Size) else bare.written
        shown = self._show(of, at) if self._places(of) else "it"
        yield Diagnostic(
            False,
            at.at.line,
            at.at.column,
            f"This is true of every entry that has {'it' if shown == 'it' else f'`{shown}`'}.",
            f"Write {'x' if shown == 'it' else shown} != nil, if that is what you mean.",
        )

    def _says_nothing(self, bare: Bare) -> bool:
        condition = bare.condition
        if isinstance(condition, core.TextTest):
            part = condition.part
            kinds = self._kinds(bare)
            texts = bool(kinds) and all(
                k is not None and k.type in ("text", "number", "scalar") for k in kinds
            )
            return texts and isinstance(part, core.Const) and part.value == ""
        kinds = self._kinds(bare)
        if isinstance(condition, core.Compare) and condition.operator == "!=":
            same = dataclasses.replace(
                bare, condition=dataclasses.replace(condition, operator="==")
            )
            return bool(kinds) and all(k is not None and candidates(same, k) == [] for k in kinds)
        bounds = bounds_of(bare)
        if bounds is None or not kinds:
            return False
        (low, with_low), (high, with_high) = bounds
        return all(
            kind is not None
            and kind.type == "number"
            and (low < kind.least or (low == kind.least and (with_low or low == -math.inf)))
            and (high > kind.most or (high == kind.most and (with_high or high == math.inf)))
            for kind in kinds
        )

    def _kinds(self, bare: Bare) -> list[Kind | None]:
        """Its kinds in the worlds that have it."""
        kinds = self._possible.kinds(bare.written) - {GONE}
        return [kind if isinstance(kind, Kind) else None for kind in kinds]


def _name(node: core.Core) -> str:
    """The path of a selector, as the catalogue has it; "" for others."""
    steps = node.steps if isinstance(node, core.Select) else ()
    return ".".join(step.name for step in steps if isinstance(step, core.Key))


def _conditions(node: core.Core) -> tuple[core.Core, ...]:
    """The conditions that a condition is made of."""
    match node:
        case core.Not() | core.All() | core.Some() | core.IfElse():
            return core.children(node)
        case _:
            return ()


def _constant(bare: Bare) -> str:
    value = bare.constant.value if bare.constant else None
    if isinstance(value, str):
        shown = show_text(value)
        return shown if len(shown) <= MAX_SHOWN else "this text"
    if isinstance(value, tuple):
        return "this list"
    return "nil" if value is None else str(value).lower()


def _as_time(bare: Bare) -> str:
    """The time that a text beside `<` was meant to be."""
    value = bare.constant.value if bare.constant else None
    if not isinstance(value, str):
        return ""
    for function, parse in (
        ("timestamp", parse_timestamp),
        ("datetime", parse_datetime),
        ("duration", parse_duration),
    ):
        try:
            parse(value)
        except ValueError:
            continue
        return f"Write {function}({show_text(value)})."
    return ""


_NOUNS = {
    "number": "a number",
    "text": "a text",
    "bool": "true or false",
    "scalar": "a number or a text",
    "map": "a map",
}


def _always(is_true: bool) -> str:
    return "always" if is_true else "never"


def _names_one(node: core.Core) -> bool:
    """It asks for one word, recording or value."""
    is_equality = isinstance(node, core.Compare) and node.operator == "=="
    return is_equality or isinstance(node, core.Word | core.Record | core.Within)


def _unlike(bare: Bare, kind: Kind, shown: str) -> tuple[str, str]:
    """A value of this kind and the constant never fit."""
    noun = _NOUNS[kind.type]
    if kind.type == "map":
        below = [name for name in NAMES if name.startswith(f"{shown}.")][:3]
        right = " or ".join(below) or f'{shown}["key"]'
        return f"`{shown}` is a map, which equals no text or number", f"Write {right}."
    if is_in_it(bare):
        return f"`{shown}` is {noun}, and `in` looks into lists and maps", (
            f"For a part of a text, write {shown}.contains(...)."
        )
    if bare.constant is not None and bare.constant.value == ():
        return "the list is empty", "Write values between its brackets."
    if candidates(bare, kind) == []:
        return f"`{shown}` is {noun}, and {_constant(bare)} is not", f"Compare with {noun}."
    if kind.most < math.inf:
        limits = f"from {kind.least:.0f} to {kind.most:.0f}"
        return f"`{shown}` is {limits}", f"Compare with a number {limits}."
    return f"`{shown}` is {kind.least:.0f} or more", "Compare with such a number."
