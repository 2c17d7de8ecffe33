"""What values are to each other: equality, order, text, truth, arithmetic.

The one place that says so: `match` calls these, and `sql` says the same in SQL.

Values are those of JSON, Pattern, tuple (a list of the filter), Many (what a wildcard found) and
MISSING.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from kfl.core import Pattern


class _Missing:
    """The value of a selector that finds nothing."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = _Missing()


class Many(list[Any]):
    """What a wildcard found. Unlike a list it is never compared as a whole."""

    __slots__ = ()


LEAST_INTEGER: Final = -(2**63)
MOST_INTEGER: Final = 2**64 - 1
"""Integers from LEAST to MOST are exact; others are doubles, as in JSON readers."""

NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""Texts that are numbers. No signs before positive ones, no spaces, no infinities."""

MAX_NUMBER_TEXT = 400
"""Characters of a text that is read as a number: more is a body, not a number."""

INTEGER = re.compile(r"-?[0-9]+")


def number(text: str) -> int | float | None:
    """The number that a text is, or None."""
    if len(text) > MAX_NUMBER_TEXT or NUMBER.fullmatch(text) is None:
        return None
    if INTEGER.fullmatch(text):
        return exact(int(text))
    return float(text)


def exact(value: int) -> int | float:
    """The integer, or the nearest double when it has more than 64 bits."""
    if LEAST_INTEGER <= value <= MOST_INTEGER:
        return value
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _numeric(value: Any) -> int | float | None:
    """The number that a number or a text is; None for anything else."""
    kind = type(value)
    if kind is int:
        return exact(value)
    if kind is float:
        return value  # type: ignore[no-any-return]
    if kind is str:
        return number(value)
    return None


def truth(value: Any) -> bool:
    """What a bare value says as a condition."""
    kind = type(value)
    if kind is bool:
        return value  # type: ignore[no-any-return]
    if kind is Many:
        return any(truth(each) for each in value)
    if kind is int or kind is float:
        return value > 0  # type: ignore[no-any-return]
    if value is None or value is MISSING:
        return False
    if kind is str or isinstance(value, list | tuple):
        return len(value) > 0
    return True


def text_of(value: Any) -> str | None:
    """The text that a scalar is; None for nil, lists and maps."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        kept = exact(value)
        return repr(kept)
    if kind is float:
        return repr(value)
    return None


def scalar_equal(left: Any, right: Any) -> bool:
    """Equality of two values of which at most one is a text and the other a number."""
    left_kind, right_kind = type(left), type(right)
    if left_kind is Pattern or right_kind is Pattern:
        return _search(left, right)
    if left_kind is str and right_kind is str:
        return left == right  # type: ignore[no-any-return]
    if left is None or right is None:
        return left is right
    if left_kind is bool or right_kind is bool:
        return left is right
    left_number, right_number = _numeric(left), _numeric(right)
    if left_number is not None and right_number is not None:
        return same_number(left_number, right_number)
    if isinstance(left, dict) and isinstance(right, dict):
        return whole_equal(left, right)
    return False


def same_number(left: int | float, right: int | float) -> bool:
    """Two integers exactly, anything else as doubles."""
    if type(left) is int and type(right) is int:
        return left == right
    return float(left) == float(right)


def _search(left: Any, right: Any) -> bool:
    pattern, value = (left, right) if type(left) is Pattern else (right, left)
    text = text_of(value)
    return text is not None and pattern.found_in(text)


def whole_equal(left: Any, right: Any) -> bool:
    """Equality without *any*: lists by length and element, maps by keys and value."""
    if isinstance(left, list | tuple) or isinstance(right, list | tuple):
        if not (isinstance(left, list | tuple) and isinstance(right, list | tuple)):
            return False
        return len(left) == len(right) and all(map(whole_equal, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(
            whole_equal(value, right[key]) for key, value in left.items()
        )
    return scalar_equal(left, right)


def equal(left: Any, right: Any) -> bool:
    """`==`: a wildcard by any of its values, a list against a scalar by any of its elements."""
    if type(left) is Many:
        return any(equal(each, right) for each in left)
    if type(right) is Many:
        return any(equal(left, each) for each in right)
    left_list, right_list = isinstance(left, list | tuple), isinstance(right, list | tuple)
    if left_list and right_list:
        return whole_equal(left, right)
    if left_list:
        return any(scalar_equal(each, right) for each in left)
    if right_list:
        return any(scalar_equal(left, each) for each in right)
    return scalar_equal(left, right)


def ordered(operator: str, left: Any, right: Any) -> bool:
    """`< <= > >=`: numbers and texts that are numbers; lists and wildcards by any."""
    if type(left) is Many:
        return any(ordered(operator, each, right) for each in left)
    if type(right) is Many:
        return any(ordered(operator, left, each) for each in right)
    if isinstance(left, list | tuple):
        if isinstance(right, list | tuple):
            return False
        return any(_scalar_ordered(operator, each, right) for each in left)
    if isinstance(right, list | tuple):
        return any(_scalar_ordered(operator, left, each) for each in right)
    return _scalar_ordered(operator, left, right)


def _scalar_ordered(operator: str, left: Any, right: Any) -> bool:
    one, other = _numeric(left), _numeric(right)
    if one is None or other is None:
        return False
    if not (type(one) is int and type(other) is int):
        one, other = float(one), float(other)
    if operator == "<":
        return one < other
    if operator == "<=":
        return one <= other
    if operator == ">":
        return one > other
    return one >= other


def within(item: Any, container: Any, ignore_case: bool) -> bool:
    """`item in container`."""
    if isinstance(container, dict):
        if type(item) is Many or isinstance(item, list | tuple):
            return any(within(each, container, ignore_case) for each in item if type(each) is str)
        return type(item) is str and find_key(container, item, ignore_case) is not MISSING
    if type(container) is Many or isinstance(container, list | tuple):
        return any(equal(item, each) for each in container)
    return False


def find_key(map_: Mapping[Any, Any], key: str, ignore_case: bool) -> Any:
    """The value of a key, or MISSING; the first that fits when case does not matter."""
    if key in map_:
        return map_[key]
    if ignore_case:
        lower = key.lower()
        length = len(lower)
        if lower.isascii():  # then what differs in length differs
            for name in map_:
                if len(name) == length and name.lower() == lower:
                    return map_[name]
            return MISSING
        for name in map_:
            if name.lower() == lower:
                return map_[name]
    return MISSING


def size(value: Any) -> Any:
    """Characters, elements or keys; MISSING for what has none."""
    if isinstance(value, str | list | tuple | dict):
        return len(value)
    return MISSING


def text_test(kind: str, text: Any, part: Any) -> bool:
    """startsWith, endsWith, contains; lists and wildcards by any."""
    if type(text) is Many:
        return any(text_test(kind, each, part) for each in text)
    if type(part) is Many:
        return any(text_test(kind, text, each) for each in part)
    if isinstance(text, list | tuple):
        return any(_text_test(kind, each, part) for each in text)
    return _text_test(kind, text, part)


def _text_test(kind: str, text: Any, part: Any) -> bool:
    whole, piece = text_of(text), text_of(part)
    if whole is None or piece is None:
        return False
    if kind == "contains":
        return piece in whole
    return whole.startswith(piece) if kind == "startsWith" else whole.endswith(piece)


def searched(text: Any, pattern: Pattern) -> bool:
    """matches(); the same as `==` with the pattern."""
    return text is not MISSING and equal(text, pattern)


def arithmetic(operator: str, left: Any, right: Any) -> Any:
    """The result, or MISSING when there is none.

    Integers give integers: `/` cuts towards zero and `%` has the sign of its left side, as in CEL.
    A result beyond 64 bits is MISSING. `+` also joins two texts or two lists.
    """
    if operator == "+":
        if type(left) is str and type(right) is str:
            return left + right
        if isinstance(left, list | tuple) and isinstance(right, list | tuple):
            return [*left, *right] if isinstance(left, list) else (*left, *right)
    one, other = _numeric(left), _numeric(right)
    if one is None or other is None:
        return MISSING
    if type(one) is int and type(other) is int:
        return _integers(operator, one, other)
    return _doubles(operator, float(one), float(other))


def _integers(operator: str, left: int, right: int) -> Any:
    if operator == "+":
        result = left + right
    elif operator == "-":
        result = left - right
    elif operator == "*":
        result = left * right
    elif right == 0:
        return MISSING
    else:
        result = abs(left) // abs(right)
        if (left < 0) != (right < 0):
            result = -result
        if operator == "%":
            result = left - right * result
    return result if LEAST_INTEGER <= result <= MOST_INTEGER else MISSING


def _doubles(operator: str, left: float, right: float) -> Any:
    if operator == "+":
        result = left + right
    elif operator == "-":
        result = left - right
    elif operator == "*":
        result = left * right
    elif operator == "%" or right == 0:
        return MISSING  # as in CEL, only integers have a remainder
    else:
        result = left / right
    return result if abs(result) < float("inf") else MISSING
