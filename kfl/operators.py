"""The operators by precedence, with their help, for `complete` and `reference`.

How tightly they bind is the grammar's matter; a test holds this table against it.
"""

from __future__ import annotations

from dataclasses import dataclass

_ALL = frozenset({"text", "number", "bool", "list", "map", "any", "test"})
_VALUES = _ALL - {"test"}
_NUMBERS = frozenset({"number", "any"})
_INSIDE = frozenset({"list", "map", "any"})


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: how it is written, and what it is for.

    `fits` are types of the value on its left after which it makes sense: those of fields, and
    `test` for what is true or false by itself. Empty for what stands before its value.
    """

    spellings: tuple[str, ...]
    meaning: str
    example: str
    fits: frozenset[str] = frozenset()


LEVELS: tuple[tuple[Operator, ...], ...] = (
    (
        Operator(
            ("?", ":"),
            "`c ? x : y` is x when c is true, else y",
            "http ? response.status >= 500 : error != nil",
            frozenset({"test", "bool"}),
        ),
    ),
    (Operator(("or", "||"), "at least one side is true", "dns or redis", _ALL),),
    (Operator(("and", "&&"), "both sides are true", "http and response.status == 500", _ALL),),
    (
        Operator(
            ("==",),
            "equal; beside a regex, found in; of a list or wildcard, any element",
            'request.method == "GET"',
            _VALUES,
        ),
        Operator(
            ("!=",),
            "not equal; of a list or wildcard, no element is; false when a side is missing",
            "response.status != 200",
            _VALUES,
        ),
        Operator(("<",), "less, of numbers and times", "elapsedTime < 100", _NUMBERS),
        Operator(("<=",), "less or equal", "response.status <= 299", _NUMBERS),
        Operator((">",), "greater, of numbers and times", "responseSize > 1000000", _NUMBERS),
        Operator((">=",), "greater or equal", "response.status >= 500", _NUMBERS),
        Operator(
            ("in",),
            "an element of the list, or a key of the map",
            'request.method in ["POST", "PUT"]',
            frozenset({"text", "number", "any"}),
        ),
    ),
    (
        Operator(
            ("+",),
            "sum; also joins two texts or two lists",
            "requestSize + responseSize > 4096",
            frozenset({"number", "text", "list", "any"}),
        ),
        Operator(("-",), "difference", 'timestamp > now() - duration("5m")', _NUMBERS),
    ),
    (
        Operator(("*",), "product", "elapsedTime * 1000 > 500000", _NUMBERS),
        Operator(
            ("/",),
            "quotient; of whole numbers, a whole number",
            "response.status / 100 == 5",
            _NUMBERS,
        ),
        Operator(("%",), "remainder", "src.port % 2 == 0", _NUMBERS),
    ),
    (
        Operator(
            ("not", "!"), "true when its condition is not", "http and not (response.status == 200)"
        ),
        Operator(("-",), "the negative of a number", "response.grpcStatus > -1"),
    ),
    (
        Operator(
            (".",),
            "the value of a key, or a function of the value",
            "request.path",
            _INSIDE | {"text"},
        ),
        Operator(
            ("[",),
            "the value of a key in quotes, or the element with a number, from 0",
            'request.headers["User-Agent"] == r"curl"',
            _INSIDE,
        ),
        Operator(
            (".*",),
            "every element of a list, every value of a map",
            'request.questions.*.name == "example.com"',
            _INSIDE,
        ),
        Operator(
            ("..",),
            "every value with that key, however deep",
            'response..name == "example.com"',
            _INSIDE,
        ),
    ),
)
"""Loosest first; those of one level bind alike."""

ALL: tuple[Operator, ...] = tuple(operator for level in LEVELS for operator in level)
