"""Values in SQL: what kinds there are, and what one says of a constant. The same as `kfl.values`.

A value is a piece of SQL whose NULL means missing (or nil, where `nil` says so), of a static kind:
text, integer, double, bool, json (JSON of any type) or many (JSON[], what a wildcard found). Either
is one of two values, decided by a condition; Keyed is a map that is not stored as JSON but can be
asked for keys; Unknown is a value that SQL cannot compute, of which it is only known when it may be
there.

Where a value has `sure`, it is right only in rows for which that holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kfl.core import Pattern
from kfl.sql import quick
from kfl.sql.pieces import (
    FALSE,
    NULL_JSON,
    TRUE,
    Piece,
    all_of,
    any_of,
    is_true,
    items_of,
    join,
    let,
    parameter,
    put,
    some_of,
)
from kfl.values import LEAST_INTEGER, MAX_NUMBER_TEXT, MOST_INTEGER, exact, number


@dataclass(frozen=True, slots=True)
class Plain:
    """A value of one kind."""

    kind: str
    piece: Piece
    nil: bool = False
    sure: Piece = TRUE
    bare: Piece | None = field(default=None, compare=False)
    """The column of which this is `coalesce(column, '')`."""
    floor: quick.Floor | None = field(default=None, compare=False)
    """The column that this integer is computed from."""
    hint: quick.Hint | None = field(default=None, compare=False)
    """Where texts of the value are as they are stored."""


@dataclass(frozen=True, slots=True)
class Either:
    """`yes` in rows for which the condition holds, `no` in others."""

    condition: Piece
    yes: Value
    no: Value
    elsewhere: Piece | None = None
    """Where `no` can be there. Given only when `yes` is missing where the condition is false."""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A map that is there in every row in which it is asked."""

    get: Callable[[str], Value]
    values: Callable[[], Plain]
    count: Callable[[], Plain]
    sure: Piece = TRUE


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that only `matches` can compute; missing where `present` is false."""

    present: Piece = TRUE


Value: TypeAlias = Plain | Either | Keyed | Unknown

MISSING = Plain("json", NULL_JSON)

_NUMBER_TEXT = r"'-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?'"
_NUMBER_TYPES = "('UBIGINT', 'BIGINT', 'DOUBLE', 'HUGEINT', 'UHUGEINT')"


@dataclass(frozen=True, slots=True)
class Truth:
    """A condition: `upper` holds in every row in which it does, `lower` in no other row."""

    upper: Piece
    lower: Piece

    @property
    def is_exact(self) -> bool:
        """Both are the same."""
        return self.upper == self.lower


def sure_of(piece: Piece, sure: Piece) -> Truth:
    """A condition that is right in the rows for which `sure` holds."""
    if sure == TRUE:
        return Truth(piece, piece)
    return Truth(put("({} OR NOT {})", piece, sure), put("({} AND {})", piece, sure))


# ------------------------------------------------------------------------------ presence


def present(value: Plain) -> Piece:
    """The value is not missing."""
    return TRUE if value.nil else put("({} IS NOT NULL)", value.piece)


def to_json(value: Value) -> Plain | Unknown:
    """Any value as JSON."""
    match value:
        case Plain(kind="json"):
            return value
        case Plain(kind="many"):
            return Unknown(present(value))
        case Plain(piece=piece, nil=nil, sure=sure):
            made = put("to_json({})", piece)
            if nil:
                made = put("coalesce({}, 'null'::JSON)", made)
            return Plain("json", made, sure=sure)
        case Either(condition=condition, yes=yes, no=no):
            one, other = to_json(yes), to_json(no)
            if isinstance(one, Unknown) or isinstance(other, Unknown):
                return Unknown()
            return Plain(
                "json",
                put("CASE WHEN {} THEN {} ELSE {} END", condition, one.piece, other.piece),
                sure=all_of([one.sure, other.sure]),
            )
        case _:
            return Unknown()


def json_text(x: Piece) -> Piece:
    """The text of a JSON text, or the digits of a number."""
    return put("({}->>'$')", x)


# ------------------------------------------------------------------------------ numbers


def compare_number(operator: str, kind: str, piece: Piece, constant: int | float) -> Piece:
    """A number that is there against a constant; integers exactly, else as doubles."""
    if kind == "integer" and isinstance(constant, int):
        return put("({} " + operator + " {})", piece, parameter(constant))
    as_double = piece if kind == "double" else put("CAST({} AS DOUBLE)", piece)
    return put("({} " + operator + " CAST({} AS DOUBLE))", as_double, parameter(float(constant)))


def compare_text_number(operator: str, text: Piece, constant: int | float) -> Piece:
    """A text against a number: false when the text is none."""

    def compared(t: Piece) -> Piece:
        integer = put("TRY_CAST({} AS HUGEINT)", t)
        as_integer = compare_number(operator, "integer", integer, constant)
        as_double = compare_number(operator, "double", put("TRY_CAST({} AS DOUBLE)", t), constant)
        return put(
            "CASE WHEN length({}) > " + str(MAX_NUMBER_TEXT) + " THEN FALSE"
            " WHEN regexp_full_match({}, '-?[0-9]+')"
            f" AND TRY_CAST({{}} AS HUGEINT) BETWEEN {LEAST_INTEGER} AND {MOST_INTEGER}"
            " THEN {}"
            " WHEN regexp_full_match({}, " + _NUMBER_TEXT + ") THEN coalesce({}, FALSE)"
            " ELSE FALSE END",
            t,
            t,
            t,
            as_integer,
            t,
            as_double,
        )

    return let(text, compared)


def _json_number(operator: str, x: Piece, constant: int | float) -> Piece:
    """A JSON number that is there against a constant."""
    text = json_text(x)
    return put(
        "CASE WHEN json_type({}) = 'DOUBLE' THEN {} ELSE {} END",
        x,
        compare_number(operator, "double", put("CAST({} AS DOUBLE)", text), constant),
        compare_number(operator, "integer", put("CAST({} AS HUGEINT)", text), constant),
    )


def as_number(constant: Any) -> int | float | None:
    """The number that a constant is."""
    if isinstance(constant, bool):
        return None
    if isinstance(constant, int):
        return exact(constant)
    if isinstance(constant, float):
        return constant
    return number(constant) if isinstance(constant, str) else None


# ------------------------------------------------------------------------------ texts


def text_form(value: Plain) -> Piece:
    """The text of a scalar column."""
    return value.piece if value.kind == "text" else put("CAST({} AS VARCHAR)", value.piece)


def json_text_test(x: Piece, test: Callable[[Piece], Piece]) -> Piece:
    """A test of the text of a JSON scalar; false for nil, lists and maps."""
    return put(
        "CASE WHEN json_type({}) = 'DOUBLE' THEN {}"
        " WHEN json_type({}) IN ('VARCHAR', 'BOOLEAN', 'UBIGINT', 'BIGINT') THEN {}"
        " ELSE FALSE END",
        x,
        test(put("CAST(CAST({} AS DOUBLE) AS VARCHAR)", json_text(x))),
        x,
        test(json_text(x)),
    )


def over_json(x: Piece, scalar: Callable[[Piece], Piece]) -> Piece:
    """A test of a JSON value that is there: of a list by any of its elements."""
    return put(
        "CASE WHEN json_type({}) = 'ARRAY' THEN {} ELSE {} END",
        x,
        any_of(items_of(x), scalar),
        scalar(x),
    )


def text_test(value: Plain, test: Callable[[Piece], Piece]) -> Piece:
    """A test of the text of any plain value; missing is false."""
    match value.kind:
        case "json":
            return let(
                value.piece,
                lambda x: put(
                    "coalesce({}, FALSE)", over_json(x, lambda e: json_text_test(e, test))
                ),
            )
        case "many":
            return any_of(value.piece, lambda e: over_json(e, lambda s: json_text_test(s, test)))
        case _:
            return is_true(test(text_form(value)))


def part_test(function: str, value: Plain, part: Any) -> Piece:
    """startsWith, endsWith or contains with a constant, by DuckDB's name; missing is false."""

    def test(text: Piece) -> Piece:
        return put(function + "({}, {})", text, parameter(part))

    if not isinstance(part, str):
        return text_test(value, test)
    return quick.holding(value.hint, part, test, text_test(_bare(value, part), test))


def _bare(value: Plain, constant: str) -> Plain:
    """The column itself: where it is NULL the value is "", which no other text is or begins."""
    return value if value.bare is None or not constant else Plain("text", value.bare)


# ------------------------------------------------------------------------------ equality


def equals(value: Plain, constant: Any) -> Piece:
    """`==` of a value and a constant, where missing is false; never NULL."""
    if isinstance(constant, Pattern):
        return text_test(
            value, lambda t: put("regexp_matches({}, {})", t, parameter(constant.text))
        )
    match value.kind:
        case "json":
            made = let(value.piece, lambda x: put("coalesce({}, FALSE)", json_equals(x, constant)))
        case "many":
            made = any_of(value.piece, lambda e: json_equals(e, constant))
        case _:
            made = _column_equals(value, constant)
    if isinstance(constant, str):
        return quick.equal_to(value.hint, [constant], made)
    return made


def _column_equals(value: Plain, constant: Any) -> Piece:
    if isinstance(constant, tuple):
        return _column_equals_some(value, constant)
    piece = value.piece
    if constant is None:
        return put("({} IS NULL)", piece) if value.nil else FALSE
    if isinstance(constant, bool):
        if value.kind != "bool":
            return FALSE
        return is_true(_same(piece, constant))
    if value.kind == "text" and isinstance(constant, str):
        piece = _bare(value, constant).piece
        return is_true(_same(piece, constant))
    found = as_number(constant)
    if found is None or value.kind == "bool":
        return FALSE
    return _compared("=", value, found)


def _column_equals_some(value: Plain, constants: tuple[Any, ...]) -> Piece:
    """A column and a list of the filter: any of its elements."""
    kinds = {type(item) for item in constants}
    if value.kind == "text" and kinds == {str}:
        if len(constants) > quick.MAX_LISTED:
            texts = parameter(list(constants))
            found = put("list_contains(CAST({} AS VARCHAR[]), {})", texts, value.piece)
            return is_true(found)
        piece = value.piece if "" in constants else _bare(value, "x").piece
        return quick.is_one_of(piece, list(constants))
    are_few = kinds == {int} and len(constants) <= quick.MAX_LISTED
    is_stored = value.kind == "integer" and value.floor is None
    if is_stored and are_few and all(map(quick.is_sure, constants)):
        return quick.is_one_of(value.piece, list(constants))
    scalars = [item for item in constants if not isinstance(item, tuple)]
    return some_of([equals(value, item) for item in scalars])


def _same(piece: Piece, constant: Any) -> Piece:
    return put("{} = {}", piece, parameter(constant))


def _compared(operator: str, value: Plain, constant: int | float) -> Piece:
    """A text or number of a column against a number; missing is false."""
    if value.floor is not None:
        made = value.floor.compared(operator, constant)
        if made is not None:
            return made
    if value.kind == "text":
        made = compare_text_number(operator, value.piece, constant)
    else:
        made = compare_number(operator, value.kind, value.piece, constant)
    return is_true(made)


def json_equals(x: Piece, constant: Any) -> Piece:
    """`==` of a JSON value that is there and a constant."""
    if not isinstance(constant, tuple):
        return over_json(x, lambda e: json_scalar_equals(e, constant))
    scalars = [item for item in constant if not isinstance(item, tuple)]
    return put(
        "CASE WHEN json_type({}) = 'ARRAY' THEN {} ELSE {} END",
        x,
        _whole_equals(x, constant),
        some_of([json_scalar_equals(x, item) for item in scalars]),
    )


def _whole_equals(x: Piece, constant: Any) -> Piece:
    """Equality without *any*."""
    if not isinstance(constant, tuple):
        return json_scalar_equals(x, constant)
    parts = [
        put("json_type({}) = 'ARRAY'", x),
        put("json_array_length({}) = {}", x, parameter(len(constant))),
    ]
    for position, item in enumerate(constant):
        element = put("json_extract({}, {})", x, parameter(f"$[{position}]"))
        parts.append(
            let(element, lambda e, item=item: _whole_equals(e, item))  # type: ignore[misc]
        )
    return put("coalesce({}, FALSE)", all_of(parts))


def json_scalar_equals(x: Piece, constant: Any) -> Piece:
    """`==` of a JSON value that is there and is not taken as a list."""
    if isinstance(constant, Pattern):
        return json_text_test(
            x, lambda t: put("regexp_matches({}, {})", t, parameter(constant.text))
        )
    if constant is None:
        return put("(json_type({}) = 'NULL')", x)
    text = json_text(x)
    if isinstance(constant, bool):
        wanted = "true" if constant else "false"
        return put(f"(json_type({{}}) = 'BOOLEAN' AND {{}} = '{wanted}')", x, text)
    found = as_number(constant)
    cases: list[Piece] = []
    if isinstance(constant, str):
        same = put("({} = {})", text, parameter(constant))
        cases.append(put("WHEN json_type({}) = 'VARCHAR' THEN {}", x, same))
    elif found is not None:
        of_text = compare_text_number("=", text, found)
        cases.append(put("WHEN json_type({}) = 'VARCHAR' THEN {}", x, of_text))
    if found is not None:
        cases.append(
            put(
                "WHEN json_type({}) IN " + _NUMBER_TYPES + " THEN {}",
                x,
                _json_number("=", x, found),
            )
        )
    return put("CASE {} ELSE FALSE END", join(" ", cases))


def json_equals_some_text(x: Piece, texts: tuple[str, ...]) -> Piece:
    """`==` of a JSON scalar that is there and at least one of many texts."""
    same = put("list_contains(CAST({} AS VARCHAR[]), {})", parameter(list(texts)), json_text(x))
    as_numbers = [_json_number("=", x, found) for t in texts if (found := number(t)) is not None]
    return put(
        "CASE WHEN json_type({}) = 'VARCHAR' THEN {}"
        " WHEN json_type({}) IN " + _NUMBER_TYPES + " THEN {} ELSE FALSE END",
        x,
        same,
        x,
        some_of(as_numbers),
    )


# ------------------------------------------------------------------------------ order


def ordered(operator: str, value: Plain, constant: Any) -> Piece:
    """`< <= > >=` of a value and a constant; never NULL."""
    if isinstance(constant, tuple):
        parts = [item for item in constant if not isinstance(item, tuple)]
        if value.kind in ("json", "many"):
            return _ordered_list(operator, value, parts)
        return some_of([ordered(operator, value, item) for item in parts])
    found = as_number(constant)
    if found is None:
        return FALSE
    match value.kind:
        case "json":
            return let(
                value.piece,
                lambda x: put(
                    "coalesce({}, FALSE)",
                    over_json(x, lambda e: _json_scalar_ordered(operator, e, found)),
                ),
            )
        case "many":
            return any_of(
                value.piece,
                lambda e: over_json(e, lambda s: _json_scalar_ordered(operator, s, found)),
            )
        case "bool":
            return FALSE
        case _:
            return _compared(operator, value, found)


def _ordered_list(operator: str, value: Plain, constants: list[Any]) -> Piece:
    """Against a list of the filter, a scalar by any; two lists are in no order."""
    numbers = [found for item in constants if (found := as_number(item)) is not None]

    def scalar(x: Piece) -> Piece:
        any_number = some_of([_json_scalar_ordered(operator, x, item) for item in numbers])
        return put("(json_type({}) <> 'ARRAY' AND {})", x, any_number)

    if value.kind == "many":
        return any_of(value.piece, scalar)
    return let(value.piece, lambda x: put("coalesce({}, FALSE)", scalar(x)))


def _json_scalar_ordered(operator: str, x: Piece, constant: int | float) -> Piece:
    return put(
        "CASE WHEN json_type({}) = 'VARCHAR' THEN {}"
        " WHEN json_type({}) IN " + _NUMBER_TYPES + " THEN {} ELSE FALSE END",
        x,
        compare_text_number(operator, json_text(x), constant),
        x,
        _json_number(operator, x, constant),
    )


# ------------------------------------------------------------------------------ truth, size


def truth(value: Plain) -> Piece:
    """A bare value as a condition."""
    match value.kind:
        case "text":
            piece = _bare(value, "x").piece
            return is_true(put("{} <> ''", piece))
        case "bool":
            return is_true(value.piece)
        case "json":
            return let(value.piece, _json_truth)
        case "many":
            return any_of(value.piece, _json_truth)
        case _:
            return is_true(put("{} > 0", value.piece))


def _json_truth(x: Piece) -> Piece:
    return put(
        "CASE json_type({}) WHEN 'VARCHAR' THEN {} <> '' WHEN 'BOOLEAN' THEN {} = 'true'"
        " WHEN 'ARRAY' THEN json_array_length({}) > 0 WHEN 'OBJECT' THEN TRUE"
        " WHEN 'NULL' THEN FALSE ELSE coalesce(CAST({} AS DOUBLE) > 0, FALSE) END",
        x,
        json_text(x),
        json_text(x),
        x,
        json_text(x),
    )


def size(value: Plain) -> Plain:
    """Characters, elements or keys; missing for what has none."""
    match value.kind:
        case "text":
            made = put("length({})", value.piece)
        case "many":
            made = put("len({})", value.piece)
        case "json":
            made = let(
                value.piece,
                lambda x: put(
                    "CASE json_type({}) WHEN 'VARCHAR' THEN length({})"
                    " WHEN 'ARRAY' THEN CAST(json_array_length({}) AS BIGINT)"
                    " WHEN 'OBJECT' THEN len(json_keys({})) END",
                    x,
                    json_text(x),
                    x,
                    x,
                ),
            )
        case _:
            made = Piece("NULL::BIGINT")
    return Plain("integer", made, sure=value.sure)


__all__ = [
    "MISSING",
    "Either",
    "Keyed",
    "Plain",
    "Truth",
    "Unknown",
    "Value",
    "equals",
    "ordered",
    "part_test",
    "present",
    "size",
    "sure_of",
    "text_test",
    "to_json",
    "truth",
]
