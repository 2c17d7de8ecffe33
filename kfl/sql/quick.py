"""Conditions in the form in which DuckDB decides them soonest; `values` asks for them.

Three things make most of the difference. A comparison of a bare column with a constant is pushed
into the Parquet reader, which skips row groups by their statistics. A text that a list or JSON
must hold somewhere is looked for before anything is taken apart. And a time in milliseconds is
compared with the stored column rather than computed for each row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from kfl.match import SURE_INTEGER
from kfl.prune import whole_range
from kfl.sql.pieces import Piece, all_of, is_true, join, parameter, put, some_of
from kfl.values import number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_LISTED = 200
"""Constants of an IN; more are looked for in one list."""

_NUMERIC = frozenset("0123456789.+-eE" + "true" + "false" + "infnan")
"""Characters of the texts of JSON's numbers and booleans, which it can write in several ways."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# ------------------------------------------------------------------------------ columns


def is_slow(condition: Piece) -> bool:
    """It takes lists or JSON apart."""
    return "lambda" in condition.text or "json_" in condition.text


def is_sure(constant: int | float) -> bool:
    """Comparing it as an integer and as a double is the same."""
    return abs(constant) < SURE_INTEGER


def is_one_of(value: Piece, constants: list[Any]) -> Piece:
    """`value IN (…)`, false where the value is NULL; constants of one type."""
    listed = join(", ", [parameter(constant) for constant in constants])
    return is_true(put("{} IN ({})", value, listed))


# ------------------------------------------------------------------------------ hints


@dataclass(frozen=True, slots=True)
class InJson:
    """A value that is somewhere in a column of JSON text."""

    column: Piece
    path: str = ""
    """DuckDB's path to it, or to some of many, since `[*]` is a list's elements; "" is unknown."""

    def below(self, path: str) -> InJson:
        """The hint of what is below the value."""
        return replace(self, path=self.path + path if self.path else "")

    def may_equal(self, constant: str) -> Piece | None:
        """Texts stand in JSON between quotes, unless something in them is escaped."""
        return None if number(constant) is not None else self._contains(f'"{constant}"')

    def may_hold(self, part: str, test: Callable[[Piece], Piece]) -> Piece | None:
        """The same for a part of a text, which can also be one of a number or a boolean."""
        del test
        return None if _NUMERIC.issuperset(part) else self._contains(part)

    def surely_equals(self, constant: str) -> Piece | None:
        """The text is found at the path, without an escape in it."""
        if not self.path:
            return None
        found = put("TRY(json_extract({}, {}))", self.column, parameter(self.path))
        written = parameter(json.dumps(constant, ensure_ascii=False))
        if "[*]" in self.path:
            return put("list_contains(CAST({} AS VARCHAR[]), {})", found, written)
        return put("CAST({} AS VARCHAR) = {}", found, written)

    def _contains(self, text: str) -> Piece:
        found = put("contains({}, {})", self.column, parameter(text))
        return put("({} OR contains({}, '\\'))", found, self.column)


@dataclass(frozen=True, slots=True)
class InHeaders:
    """The values of all headers of a name, joined by a comma and a space."""

    column: Piece
    name: str

    def may_equal(self, constant: str) -> Piece | None:
        """As for a part of it."""
        return self.may_hold(constant, lambda value: put("{} = {}", value, parameter(constant)))

    def may_hold(self, part: str, test: Callable[[Piece], Piece]) -> Piece | None:
        """A text that cannot reach over a joint is in one of the values; few rows have that."""
        if not part or "," in part or part[0] == " ":
            return None
        valued = put("list_filter({}, lambda h: {})", self.column, test(Piece("h.value")))
        named = put("list_filter({}, lambda h: lower(h.name) = {})", valued, parameter(self.name))
        return put("len({}) > 0", named)

    def surely_equals(self, constant: str) -> Piece | None:
        """Not without the other headers of that name."""
        del constant
        return None


Hint: TypeAlias = InJson | InHeaders


def equal_to(hint: Hint | None, constants: Sequence[str], full: Piece) -> Piece:
    """`full`, which says whether a value equals one of the constants, asked only in doubt."""
    if hint is None:
        return full
    sure = [hint.surely_equals(constant) for constant in constants]
    if None not in sure:
        full = put("CASE WHEN {} THEN TRUE ELSE {} END", some_of([s for s in sure if s]), full)
    return _asked_where([hint.may_equal(constant) for constant in constants], full)


def holding(hint: Hint | None, part: str, test: Callable[[Piece], Piece], full: Piece) -> Piece:
    """`full`, which says whether a value's text passes a test with a part, asked only in doubt."""
    return full if hint is None else _asked_where([hint.may_hold(part, test)], full)


def _asked_where(places: list[Piece | None], full: Piece) -> Piece:
    """`full` where one of the conditions holds. Where it does not hold, DuckDB skips a CASE."""
    known = [place for place in places if place is not None]
    if len(known) < len(places):
        return full
    return put("CASE WHEN {} THEN {} ELSE FALSE END", some_of(known), full)


# ------------------------------------------------------------------------------ scales


@dataclass(frozen=True, slots=True)
class Floor:
    """An integer that is a column divided, less what is left over."""

    column: Piece
    divisor: int
    is_time: bool = False
    """The column is a time with microseconds, and the value counts from 1970."""

    def compared(self, operator: str, constant: int | float) -> Piece | None:
        """The column's own comparison, false where it is NULL; None where there is none."""
        bounds = whole_range(operator, constant)
        if bounds is None:
            return None
        least, most = bounds
        parts = []
        for sign, bound in ((">=", least), ("<", None if most is None else most + 1)):
            if bound is None:
                continue
            stored = self._stored(bound)
            if stored is None:
                return None
            parts.append(is_true(put("{} " + sign + " {}", self.column, parameter(stored))))
        return all_of(parts)

    def _stored(self, value: int) -> int | datetime | None:
        if not self.is_time:
            return value * self.divisor
        try:
            return _EPOCH + timedelta(microseconds=value * self.divisor)
        except OverflowError:
            return None
