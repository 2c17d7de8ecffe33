"""Which truths a condition can have, over all entries that the catalogue allows. `doubts` asks.

An answer may be wider than the truth, never narrower: what is not understood can be true and false.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kfl import core
from kfl.kinds import GONE, Kind, KindOf, World, kind_of, worlds
from kfl.match import SURE_INTEGER, Getter, Matcher, Test
from kfl.values import number, truth

Truths: TypeAlias = frozenset[bool]

BOTH: Final[Truths] = frozenset({True, False})
ONLY_TRUE: Final[Truths] = frozenset({True})
ONLY_FALSE: Final[Truths] = frozenset({False})


# ---------------------------------------------------------------------------------- truths


class Possible:
    """The truths of the conditions of one filter."""

    def __init__(self, tree: core.Core) -> None:
        self.worlds = worlds(tree)
        self._truths: dict[tuple[int, World], Truths] = {}
        self._bares: dict[int, Bare | None] = {}
        self._kept: list[core.Core] = []  # an id() is a node's own only while it lives

    def truths(self, node: core.Core) -> Truths:
        """The truths that a condition can have in any world."""
        self._kept.append(node)
        return frozenset[bool]().union(*(self._in(node, world) for world in self.worlds))

    def bare(self, node: core.Core) -> Bare | None:
        """The condition on one value that a node is; None when it is none."""
        if id(node) not in self._bares:
            self._bares[id(node)] = bare_condition(node)
        return self._bares[id(node)]

    def kinds(self, node: core.Core, word: str = "") -> set[KindOf]:
        """The kinds of a value in all worlds, or in those of a word."""
        return {kind_of(node, world) for world in self.worlds if not word or word in world}

    def _in(self, node: core.Core, world: World) -> Truths:
        key = (id(node), world)
        found = self._truths.get(key)
        if found is None:
            found = self._truths[key] = self._find(node, world)
        return found

    def _find(self, node: core.Core, world: World) -> Truths:
        match node:
            case core.Const(value=value):
                return frozenset({truth(value)})
            case core.Word(name=name):
                return frozenset({name in world})
            case core.Not(operand=operand):
                return frozenset(not each for each in self._in(operand, world))
            case core.All(operands=operands):
                return self._all(operands, world)
            case core.Some(operands=operands):
                return self._some(operands, world)
            case core.IfElse(condition=condition, yes=yes, no=no):
                chosen = self._in(condition, world)
                return frozenset(
                    each for choice in chosen for each in self._in(yes if choice else no, world)
                )
            case _:
                return self._leaf(node, world)

    def _all(self, operands: tuple[core.Core, ...], world: World) -> Truths:
        found = [self._in(operand, world) for operand in operands]
        if ONLY_FALSE in found:
            return ONLY_FALSE
        if all(each == ONLY_TRUE for each in found):
            return ONLY_TRUE
        flat = list(_flat(operands))
        records = {each.name for each in flat if isinstance(each, core.Record)}
        if len(records) > 1 or _with_opposite(flat) or not self._fit_together(flat, world):
            return ONLY_FALSE
        return BOTH

    def _some(self, operands: tuple[core.Core, ...], world: World) -> Truths:
        found = [self._in(operand, world) for operand in operands]
        if ONLY_TRUE in found or _with_opposite(operands):
            return ONLY_TRUE
        return ONLY_FALSE if all(each == ONLY_FALSE for each in found) else BOTH

    def _leaf(self, node: core.Core, world: World) -> Truths:
        """A comparison, a call or a bare value."""
        if isinstance(node, core.Record):
            return BOTH
        operands = core.children(node) if isinstance(node, core.TESTS) else (node,)
        if any(kind_of(operand, world) == GONE for operand in operands):
            return ONLY_FALSE
        if operands and all(isinstance(operand, core.Const) for operand in operands):
            return frozenset({Matcher().test(node)({})})
        bare = self.bare(node)
        if bare is None:
            return BOTH
        if isinstance(bare.key, core.TESTS):
            return frozenset(map(bare.test, self._in(bare.key, world)))
        return BOTH if _fulfilled([bare], world) else ONLY_FALSE

    def _fit_together(self, conditions: list[core.Core], world: World) -> bool:
        """Whether one value of each key can fulfil all conditions on it."""
        groups: dict[str, list[Bare]] = {}
        for condition in conditions:
            bare = self.bare(condition)
            if bare is not None and not isinstance(bare.key, core.TESTS):
                groups.setdefault(bare.identity, []).append(bare)
        return all(_fulfilled(group, world) for group in groups.values() if len(group) > 1)


def _flat(operands: tuple[core.Core, ...]) -> Iterator[core.Core]:
    for operand in operands:
        if isinstance(operand, core.All):
            yield from _flat(operand.operands)
        else:
            yield operand


def _with_opposite(operands: Sequence[core.Core]) -> bool:
    """A condition and its negation are among them."""
    negated = {_identity(each.operand) for each in operands if isinstance(each, core.Not)}
    return bool(negated) and any(_identity(each) in negated for each in operands)


def _identity(node: core.Core) -> str:
    """Nodes of the same text mean the same. Of equal ones this is not so: 1 equals true."""
    return repr(node)


# ---------------------------------------------------------------------------------- one value


@dataclass(frozen=True, slots=True)
class Bare:
    """A condition on one value: the value with its guards and without, and a test of it."""

    written: core.Core
    key: core.Core
    condition: core.Core
    test: Test
    identity: str
    constant: core.Const | None = None
    negated: bool = False


class _OfValue(Matcher):
    """Closures over a value instead of an entry."""

    def __init__(self, key: core.Core) -> None:
        self._key = key

    def get(self, node: core.Core) -> Getter:
        return (lambda value: value) if node is self._key else super().get(node)

    def test(self, node: core.Core) -> Test:
        return truth if node is self._key else super().test(node)


_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def bare_condition(node: core.Core) -> Bare | None:
    """The condition on one value that a node is, beside constants; None when it is none."""
    match node:
        case core.Not(operand=operand):
            inner = bare_condition(operand)
            if inner is None or inner.written != inner.key or inner.negated:
                return None
            test = inner.test
            return Bare(
                inner.written,
                inner.key,
                node,
                lambda value: not test(value),
                inner.identity,
                negated=True,
            )
        case core.Compare(operator=operator, left=core.Const() as constant, right=written):
            return _bare(written, constant, lambda k: core.Compare(_FLIPPED[operator], k, constant))
        case core.Compare(operator=operator, left=written, right=core.Const() as constant):
            return _bare(written, constant, lambda k: core.Compare(operator, k, constant))
        case core.Within(item=written, container=core.Const() as constant):
            return _bare(written, constant, lambda k: core.Within(k, constant))
        case core.Within(item=core.Const() as constant, container=written):
            return _bare(written, None, lambda k: core.Within(constant, k))
        case core.TextTest(kind=kind, text=written, part=core.Const() as constant):
            return _bare(written, None, lambda k: core.TextTest(kind, k, constant))
        case core.Search(text=written, pattern=pattern):
            return _bare(written, None, lambda k: core.Search(k, pattern))
        case core.Compare() | core.Within() | core.TextTest() | core.Present() | core.Record():
            return None
        case core.Word() | core.All() | core.Some():
            return None
        case _:
            return _bare(node, None, lambda k: k)


def _bare(
    written: core.Core, constant: core.Const | None, build: Callable[[core.Core], core.Core]
) -> Bare | None:
    if isinstance(written, core.Const | core.IfElse | core.Items | core.Gather | core.First):
        return None
    _, key = core.unguard(written)
    condition = build(key)
    return Bare(written, key, condition, _OfValue(key).test(condition), _identity(key), constant)


def _fulfilled(group: list[Bare], world: World) -> bool:
    if all(bare.negated for bare in group):
        return True  # where there is no value
    if any(orders_no_number(bare) for bare in group):
        return False
    kinds = [kind_of(bare.written, world) for bare in group]
    kind = next((kind for kind in kinds if isinstance(kind, Kind)), None)
    if kind is None:
        return True
    if kind.type == "map":
        if any(_is_of_scalars(bare.condition) for bare in group):
            return False
    elif any(is_in_it(bare) for bare in group):
        return False
    lists = [found for bare in group if (found := candidates(bare, kind)) is not None]
    if kind.type == "bool":
        lists.append([True, False, None])
    if lists:
        shortest = min(lists, key=len)
        return any(_is_of(each, kind) and all(b.test(each) for b in group) for each in shortest)
    return _interval(group, kind)


def _is_of_scalars(condition: core.Core) -> bool:
    """A text test or an order, which are false of a map."""
    if isinstance(condition, core.Compare):
        return condition.operator not in ("==", "!=")
    return isinstance(condition, core.TextTest | core.Search)


def is_in_it(bare: Bare) -> bool:
    """`"x" in y`, which asks for a list or a map."""
    condition = bare.condition
    return isinstance(condition, core.Within) and condition.container is bare.key


def _is_of(value: Any, kind: Kind) -> bool:
    return not isinstance(value, int | float) or kind.least <= value <= kind.most


def orders_no_number(bare: Bare) -> bool:
    """`<` and the like beside a constant that is no number, which is false of any value."""
    if not isinstance(bare.condition, core.Compare) or bare.condition.operator in ("==", "!="):
        return False
    value = bare.constant.value if bare.constant else None
    found = value if isinstance(value, tuple) else (value,)
    return not any(_number(each) is not None for each in found)


def _number(value: Any) -> int | float | None:
    if isinstance(value, str):
        return number(value)
    return value if type(value) in (int, float) else None


def candidates(bare: Bare, kind: Kind) -> list[Any] | None:
    """The only values that fulfil a condition, and perhaps some more; None when not listed."""
    condition = bare.condition
    is_equality = isinstance(condition, core.Compare) and condition.operator == "=="
    if bare.constant is None or not (is_equality or isinstance(condition, core.Within)):
        return None
    value = bare.constant.value
    found: list[Any] = []
    for each in value if isinstance(value, tuple) else (value,):
        equal = _equal_to(each, kind)
        if equal is None:
            return None
        found.extend(equal)
    return found


def _equal_to(value: Any, kind: Kind) -> list[Any] | None:
    """The values of a kind that equal a constant; None when there are too many to list."""
    if value is None:
        return [None]
    if isinstance(value, bool):
        return [value] if kind.type == "bool" else []
    if kind.type == "map":
        return None if isinstance(value, tuple) else []
    if kind.type == "bool" and not isinstance(value, core.Pattern | tuple):
        return []
    if kind.type == "text" and isinstance(value, str):
        return [value]
    is_text = isinstance(value, str)
    if is_text or (kind.type == "number" and isinstance(value, int | float)):
        texts = [value] if kind.type == "scalar" else []
        found = _number(value)
        if found is None:
            return texts
        if abs(found) < SURE_INTEGER:
            forms = [int(found), float(found)] if found == int(found) else [found]
            return [*texts, *forms, -0.0] if found == 0 else [*texts, *forms]
    return None


def _interval(group: list[Bare], kind: Kind) -> bool:
    """Whether a number lies within all of the orders."""
    low, high = (kind.least, True), (kind.most, True)  # the bound, and whether it belongs to it
    for bare in group:
        bounds = bounds_of(bare)
        if bounds is not None:
            low = max(low, bounds[0], key=lambda bound: (bound[0], not bound[1]))
            high = min(high, bounds[1], key=lambda bound: (bound[0], bound[1]))
    return low[0] < high[0] or (low[0] == high[0] and low[1] and high[1])


Bound: TypeAlias = tuple[float, bool]


def bounds_of(bare: Bare) -> tuple[Bound, Bound] | None:
    """The least and the most number that fulfils a condition, each with whether it does itself."""
    condition = bare.condition
    if bare.constant is None or not isinstance(condition, core.Compare):
        return None
    limit = _number(bare.constant.value)
    if limit is None or abs(limit) >= SURE_INTEGER:
        return None
    if condition.operator == "==" and not isinstance(bare.constant.value, str):
        return (limit, True), (limit, True)  # of a text, its number
    lowest, highest = (-math.inf, True), (math.inf, True)
    match condition.operator:
        case "<" | "<=":
            return lowest, (limit, condition.operator == "<=")
        case ">" | ">=":
            return (limit, condition.operator == ">="), highest
        case _:
            return None
