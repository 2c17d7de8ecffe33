"""Bounds in which every match of a filter lies. `Filter.prune` calls this, for whoever chooses what
to read: the query service leaves out files that lie outside.

They may keep too much, never too little: what is not understood is open. A hot field of a request
or response is one value, as recordings.schema says, never a list. Where its column is null, the
value may be in the message's JSON text, unless the protocols are known to have none there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial, reduce
from typing import Any, TypeAlias

from kfl import core
from kfl.core import Pattern
from kfl.fields import CATALOGUE
from kfl.match import SURE_INTEGER
from kfl.values import number, truth
from kfl.words import HTTP_IN_COLUMNS, WORDS

MAX_VALUES = 256
"""Values of a set; of more, numbers become a range, and texts are open."""

VALUES_SHOWN = 8

TIME = "start_time"
"""Its bounds are in nanoseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Range:
    """Integers from `least` to `most`, both included; None is open."""

    least: int | None = None
    most: int | None = None
    null: bool = False
    """Rows in which the column is null may match, too."""

    def holds(self, value: int | None) -> bool:
        """Whether a row with this value may match."""
        if value is None:
            return self.null
        after = self.least is None or value >= self.least
        return after and (self.most is None or value <= self.most)

    def show(self) -> str:
        """The range as text."""
        least = "" if self.least is None else str(self.least)
        return f"{least}..{'' if self.most is None else self.most}"


@dataclass(frozen=True, slots=True)
class Among:
    """A set of texts or of integers. A text that is "" is also a null."""

    values: frozenset[Any]
    null: bool = False
    """As in Range."""

    def holds(self, value: Any) -> bool:
        """Whether a row with this value may match."""
        return self.null if value is None else value in self.values

    def show(self) -> str:
        """The first values as text."""
        values = sorted(self.values)
        if not values:
            return "null"
        if len(values) == 1 and type(values[0]) is int:
            return f"{values[0]}..{values[0]}"
        more = len(values) - VALUES_SHOWN
        shown = ", ".join(map(str, values[:VALUES_SHOWN]))
        return f"{shown} and {more} more" if more > 0 else shown


Bound: TypeAlias = Range | Among


@dataclass(frozen=True, slots=True)
class Prune:
    """Where matches lie. Of a column that is not in `columns` nothing is known."""

    columns: Mapping[str, Bound] = field(default_factory=dict)
    """By name in ENTRIES; of start_time in nanoseconds."""
    nothing: bool = False
    """The filter contradicts itself, so that nothing can match."""

    @property
    def start_ns(self) -> int | None:
        """No match begins before this; nanoseconds since 1970."""
        bound = self.columns.get(TIME)
        return bound.least if isinstance(bound, Range) else None

    @property
    def end_ns(self) -> int | None:
        """Every match begins before this; nanoseconds since 1970."""
        bound = self.columns.get(TIME)
        return bound.most + 1 if isinstance(bound, Range) and bound.most is not None else None

    def show(self) -> str:
        """A sentence's worth of text: `response_status in 500..500; start_time from …`."""
        if self.nothing:
            return "nothing can match"
        parts = [
            f"{name} in {bound.show()}"
            for name, bound in sorted(self.columns.items())
            if name != TIME
        ]
        if self.start_ns is not None:
            parts.append(f"{TIME} from {_moment(self.start_ns)}")
        if self.end_ns is not None:
            parts.append(f"{TIME} before {_moment(self.end_ns)}")
        return "; ".join(parts) or "anything may match"


def prune(node: core.Core) -> Prune:
    """The bounds of a filter."""
    found = _of(node)
    if found is None:
        return Prune(nothing=True)
    names = found.get("protocol_name")
    if isinstance(names, Among) and names.values <= HTTP_IN_COLUMNS:
        return Prune(found)
    return Prune(
        {
            column: bound if _is_whole(column) else replace(bound, null=True)
            for column, bound in found.items()
        }
    )


def whole_range(operator: str, constant: int | float) -> tuple[int | None, int | None] | None:
    """The integers that are `<`, `<=`, `>`, `>=` or `==` a number: least and most, None is open.

    Itself None where integers and doubles compare differently.
    """
    if not abs(constant) < SURE_INTEGER:
        return None
    low, high = math.floor(constant), math.ceil(constant)
    match operator:
        case ">":
            return low + 1, None
        case ">=":
            return high, None
        case "<":
            return None, high - 1
        case "<=":
            return None, low
        case _:
            return high, low  # nothing when there is a fraction


# ------------------------------------------------------------------------------ boxes

_Box: TypeAlias = "dict[str, Bound] | None"
"""A bound for each column; None where nothing matches."""


def _is_empty(bound: Bound) -> bool:
    if bound.null:
        return False
    if isinstance(bound, Among):
        return not bound.values
    return bound.least is not None and bound.most is not None and bound.least > bound.most


def _both(one: _Box, other: _Box) -> _Box:
    """What lies in both."""
    if one is None or other is None:
        return None
    made = dict(one)
    for column, bound in other.items():
        known = made.get(column)
        joined = bound if known is None else _meet(known, bound)
        if _is_empty(joined):
            return None
        made[column] = joined
    return made


def _meet(one: Bound, other: Bound) -> Bound:
    null = one.null and other.null
    if isinstance(one, Among):
        return Among(frozenset(value for value in one.values if other.holds(value)), null)
    if isinstance(other, Among):
        return Among(frozenset(value for value in other.values if one.holds(value)), null)
    least = [bound.least for bound in (one, other) if bound.least is not None]
    most = [bound.most for bound in (one, other) if bound.most is not None]
    return Range(max(least, default=None), min(most, default=None), null)


def _either(one: _Box, other: _Box) -> _Box:
    """What lies in one of them, and perhaps more."""
    if one is None or other is None:
        return other if one is None else one
    made = {}
    for column in one.keys() & other.keys():
        joined = _join(one[column], other[column])
        if joined is not None:
            made[column] = joined
    return made


def _join(one: Bound, other: Bound) -> Bound | None:
    null = one.null or other.null
    if isinstance(one, Among) and isinstance(other, Among):
        values = one.values | other.values
        if len(values) <= MAX_VALUES:
            return Among(values, null)
    first, second = _hull(one), _hull(other)
    if first is None or second is None:
        return None
    least = None if None in (first.least, second.least) else min(first.least, second.least)  # type: ignore[type-var]
    most = None if None in (first.most, second.most) else max(first.most, second.most)  # type: ignore[type-var]
    return None if least is most is None else Range(least, most, null)


def _hull(bound: Bound) -> Range | None:
    """The range around a bound; None around texts."""
    if isinstance(bound, Range):
        return bound
    if not bound.values or any(type(value) is not int for value in bound.values):
        return None
    return Range(min(bound.values), max(bound.values), bound.null)


# ------------------------------------------------------------------------------ fields


@dataclass(frozen=True, slots=True)
class _Field:
    """What a selector's column has to do with its value."""

    column: str
    is_text: bool
    nil: bool = False
    """The value is nil where the column is null."""
    unit: int = 1
    """The value is the column divided by this, less what is left over."""


_SIZES = frozenset({"request_size", "response_size"})
"""Columns of the entry, not of its messages."""

_NILS = frozenset({"src_port", "dst_port", "elapsed_us"}) | _SIZES

_UNITS = {"timestamp": 1_000_000, "elapsedTime": 1000}


def _path(text: str) -> tuple[core.Step, ...]:
    return tuple(core.Key(part) for part in text.split("."))


_FIELDS = {
    _path(found.paths[0]): _Field(
        found.column,
        found.type == "text",
        found.column in _NILS,
        _UNITS.get(found.name, 1),
    )
    for found in CATALOGUE
    if found.column and not found.guard and found.how == "one" and found.type in ("text", "number")
}
"""Selectors that one column decides, from the catalogue."""

_START_TIME = _path("startTime")

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.(\d{9})Z", re.ASCII)
"""How startTime is written."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# ------------------------------------------------------------------------------ conditions


def _of(node: core.Core) -> _Box:
    """The box of a condition."""
    match node:
        case core.Const(value=value):
            return {} if truth(value) else None
        case core.Word(name=name):
            return _word(name)
        case core.All(operands=operands):
            return reduce(_both, map(_of, operands))
        case core.Some(operands=operands):
            return reduce(_either, map(_of, operands))
        case core.IfElse(condition=condition, yes=yes, no=no):
            return _either(_both(_of(condition), _of(yes)), _of(no))
        case core.Compare(operator=operator, left=left, right=right):
            if isinstance(left, core.Const):
                left, right, operator = right, left, _FLIPPED[operator]
            return _guarded([left, right], lambda one, other: _compare(operator, one, other))
        case core.Within(item=item, container=container):
            return _guarded([item, container], _within)
        case core.TextTest(text=text, part=part):
            return _guarded([text, part], _anything)
        case core.Search(text=value) | core.Present(value=value):
            return _guarded([value], _anything)
        case core.Not() | core.Record():
            return {}
        case _:
            return _guarded([node], _anything)


_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _word(name: str) -> _Box:
    word = WORDS[name]
    if word.transport:
        return {"transport": Among(frozenset({word.transport}))}
    return {} if word.encrypted else {"protocol_name": Among(word.names)}


def _guarded(operands: Iterable[core.Core], test: Callable[..., _Box]) -> _Box:
    """A test of operands without their words, where those hold: elsewhere an operand is missing."""
    words: list[str] = []
    bare = []
    for operand in operands:
        more, inner = core.unguard(operand)
        words += more
        bare.append(inner)
    return reduce(_both, map(_word, words), test(*bare))


def _anything(*operands: core.Core) -> _Box:
    del operands
    return {}


def _compare(operator: str, left: core.Core, right: core.Core) -> _Box:
    if operator == "!=" or not (isinstance(left, core.Select) and isinstance(right, core.Const)):
        return {}
    return _against(operator, left, right.value)


def _within(item: core.Core, container: core.Core) -> _Box:
    if not (isinstance(item, core.Select) and isinstance(container, core.Const)):
        return {}
    return _against("==", item, container.value)


def _against(operator: str, select: core.Select, constant: Any) -> _Box:
    """A field against a constant; against a list, any of its elements, of which none is a list."""
    test: Callable[[str, Any], _Box]
    if select.steps == _START_TIME:
        test = _start_time
    elif select.steps in _FIELDS:
        found = _FIELDS[select.steps]
        test = partial(_text if found.is_text else _number, found)
    else:
        return {}
    if not isinstance(constant, tuple):
        return test(operator, constant)
    boxes = [
        _elements(test, operator, each) if isinstance(each, tuple) else test(operator, each)
        for each in constant
    ]
    return reduce(_either, boxes, None)


def _elements(test: Callable[[str, Any], _Box], operator: str, constants: tuple[Any, ...]) -> _Box:
    """`x in [[1, 2]]`, in which a scalar is compared with the elements of the inner list."""
    flat = [test(operator, each) for each in constants if not isinstance(each, tuple)]
    return reduce(_either, flat, None)


def _text(found: _Field, operator: str, constant: Any) -> _Box:
    """Texts are ordered, and equal numbers, as the numbers that they are: open."""
    if operator != "==":
        return {} if _as_number(constant) is not None else None
    if isinstance(constant, Pattern) or type(constant) in (int, float):
        return {}
    if type(constant) is not str:
        return None if _is_whole(found.column) else {}
    if not constant:
        return {}  # a null, and a name that stands only under another one, are also ""
    return {found.column: Among(frozenset({constant}))}


def _number(found: _Field, operator: str, constant: Any) -> _Box:
    if isinstance(constant, Pattern):
        return {}
    value = _as_number(constant)
    if value is None:
        if operator != "==":
            return None
        if constant is None and found.nil:
            return {found.column: Among(frozenset(), null=True)}
        return None if _is_whole(found.column) else {}
    bounds = whole_range(operator, value)
    if bounds is None:
        return {}
    least, most = bounds
    if least is not None and most is not None and least > most:
        return None if _is_whole(found.column) else {}
    if found.unit == 1 and least is not None and least == most:
        return {found.column: Among(frozenset({least}))}
    return {
        found.column: Range(
            None if least is None else least * found.unit,
            None if most is None else most * found.unit + found.unit - 1,
        )
    }


def _is_whole(column: str) -> bool:
    """The value is in the column or nowhere: it cannot be of another type in JSON text."""
    return column in _SIZES or not column.startswith(("request_", "response_"))


def _as_number(constant: Any) -> int | float | None:
    if type(constant) is str:
        return number(constant)
    return constant if type(constant) in (int, float) else None


def _start_time(operator: str, constant: Any) -> _Box:
    """A text that is no number: it has no order, and equals only itself."""
    if isinstance(constant, Pattern):
        return {}
    written = _RFC3339.fullmatch(constant) if operator == "==" and type(constant) is str else None
    if written is None:
        return None
    try:
        moment = datetime.fromisoformat(written[1] + "+00:00")
    except ValueError:
        return None
    ns = (moment - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + int(written[2])
    return {TIME: Range(ns, ns)}


def _moment(ns: int) -> str:
    """Nanoseconds since 1970 as text; a year that has four digits no more stays a number."""
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    except OverflowError:
        return f"{ns} ns"
    return text + (f".{rest:09d}".rstrip("0") if rest else "") + "Z"
