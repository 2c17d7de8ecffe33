"""What operators and functions make of values in SQL. `conditions` calls these for each node."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kfl import core
from kfl.core import Pattern
from kfl.sql.pieces import (
    FALSE,
    NIL_JSON,
    NULL_JSON,
    TRUE,
    Piece,
    all_of,
    any_of,
    items_of,
    let,
    negate,
    parameter,
    put,
    some_of,
    those,
)
from kfl.sql.quick import InJson, equal_to
from kfl.sql.selectors import below
from kfl.sql.values import (
    MISSING,
    Either,
    Keyed,
    Plain,
    Truth,
    Unknown,
    Value,
    as_number,
    equals,
    json_equals,
    json_equals_some_text,
    over_json,
    present,
    size,
    sure_of,
    to_json,
)
from kfl.values import LEAST_INTEGER, MOST_INTEGER

NEVER = Truth(FALSE, FALSE)

MAX_CASES = 64
"""Alternatives of one value. A selector has two or three; each choice between two adds them up."""

SQL_OPERATORS = {"==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


# ------------------------------------------------------------------------------ bounds


def cases(value: Value) -> int:
    """How many alternatives a value has."""
    if isinstance(value, Either):
        return cases(value.yes) + cases(value.no)
    return 1


def both(join: Callable[[list[Piece]], Piece], parts: list[Truth]) -> Truth:
    """Bounds of several conditions joined by AND or OR."""
    return Truth(join([part.upper for part in parts]), join([part.lower for part in parts]))


def choose(condition: Truth, yes: Truth, no: Truth) -> Truth:
    """Bounds of one of two conditions."""
    if condition.is_exact:
        return Truth(
            put("CASE WHEN {} THEN {} ELSE {} END", condition.upper, yes.upper, no.upper),
            put("CASE WHEN {} THEN {} ELSE {} END", condition.upper, yes.lower, no.lower),
        )
    return Truth(
        some_of(
            [all_of([condition.upper, yes.upper]), all_of([negate(condition.lower), no.upper])]
        ),
        some_of(
            [all_of([condition.lower, yes.lower]), all_of([negate(condition.upper), no.lower])]
        ),
    )


def apply(value: Value, test: Callable[[Plain], Piece], keyed: Piece) -> Truth:
    """A test of a value of any form."""
    if value == MISSING:
        return NEVER
    match value:
        case Plain(sure=sure):
            return sure_of(test(value), sure)
        case Either(condition=condition, yes=yes, no=no, elsewhere=elsewhere):
            one, other = apply(yes, test, keyed), apply(no, test, keyed)
            if one == other:
                return one
            if elsewhere is not None:
                return both(some_of, [one, both(all_of, [Truth(elsewhere, elsewhere), other])])
            return choose(Truth(condition, condition), one, other)
        case Keyed():
            return Truth(keyed, keyed)
        case Unknown(present=may_be):
            return Truth(may_be, FALSE)


def there(value: Value) -> Piece:
    """A condition that holds in every row in which the value is there."""
    match value:
        case Plain(sure=sure):
            return present(value) if sure == TRUE else TRUE
        case Either(condition=condition, yes=yes, no=no):
            one, other = there(yes), there(no)
            if one == other == TRUE:
                return TRUE
            return put("CASE WHEN {} THEN {} ELSE {} END", condition, one, other)
        case Keyed():
            return TRUE
        case Unknown(present=may_be):
            return may_be


# ------------------------------------------------------------------------------ operators


def compare_two(operator: str, left: Value, right: Value) -> Truth:
    """A comparison of two values of the entry."""
    numbers = ("integer", "double")
    if not (isinstance(left, Plain) and isinstance(right, Plain)):
        return Truth(all_of([there(left), there(right)]), FALSE)
    kinds = {left.kind, right.kind}
    same = kinds <= set(numbers) or (len(kinds) == 1 and left.kind in ("text", "bool"))
    if not same or (operator not in ("==", "!=") and not kinds <= set(numbers)):
        return Truth(all_of([there(left), there(right)]), FALSE)
    if "double" in kinds:
        one, other = (put("CAST({} AS DOUBLE)", side.piece) for side in (left, right))
    else:
        one, other = left.piece, right.piece
    if operator not in ("==", "!="):
        made = put("coalesce({} " + SQL_OPERATORS[operator] + " {}, FALSE)", one, other)
    else:
        both_there = all_of([present(left), present(right)])
        distinct = "IS NOT DISTINCT FROM" if operator == "==" else "IS DISTINCT FROM"
        made = all_of([both_there, put("({} " + distinct + " {})", one, other)])
    return sure_of(made, all_of([left.sure, right.sure]))


def equals_any(value: Plain, texts: tuple[Any, ...]) -> Piece:
    """`value in [texts or integers]`."""
    if not texts:
        return FALSE
    if value.kind in ("text", "integer"):
        return equals(value, texts)
    if any(type(text) is not str for text in texts) or value.kind not in ("json", "many"):
        return some_of([equals(value, text) for text in texts])

    def found(x: Piece) -> Piece:
        return over_json(x, lambda e: json_equals_some_text(e, texts))

    if value.kind == "many":
        made = any_of(value.piece, found)
    else:
        made = let(value.piece, lambda x: put("coalesce({}, FALSE)", found(x)))
    return equal_to(value.hint, texts, made)


def contains(container: Value, item: Any) -> Truth:
    """`constant in container`."""
    if container == MISSING:
        return NEVER
    match container:
        case Either(condition=condition, yes=yes, no=no):
            chosen = Truth(condition, condition)
            return choose(chosen, contains(yes, item), contains(no, item))
        case Unknown(present=may_be):
            return Truth(may_be, FALSE)
        case Keyed(get=get):
            keys = [item] if isinstance(item, str) else []
            if isinstance(item, tuple):
                keys = [each for each in item if isinstance(each, str)]
            return both(some_of, [apply(get(key), present, TRUE) for key in keys])
        case Plain(kind="many", piece=piece, sure=sure):
            return sure_of(any_of(piece, lambda e: json_equals(e, item)), sure)
        case Plain(kind="json", piece=piece, sure=sure):
            return sure_of(
                let(piece, lambda x: put("coalesce({}, FALSE)", _json_contains(x, item))), sure
            )
        case _:
            return NEVER


def _json_contains(x: Piece, item: Any) -> Piece:
    texts = [item] if isinstance(item, str) else []
    if isinstance(item, tuple):
        texts = [each for each in item if isinstance(each, str)]
    is_key = [put("list_contains(json_keys({}), {})", x, parameter(text)) for text in texts]
    return put(
        "CASE json_type({}) WHEN 'ARRAY' THEN {} WHEN 'OBJECT' THEN {} ELSE FALSE END",
        x,
        any_of(items_of(x), lambda e: json_equals(e, item)),
        some_of(is_key),
    )


def constant_value(value: Any) -> Value:
    """A constant as a value."""
    if isinstance(value, bool):
        return Plain("bool", parameter(value))
    if isinstance(value, str):
        return Plain("text", parameter(value))
    if isinstance(value, int) and LEAST_INTEGER <= value <= MOST_INTEGER:
        return Plain("integer", put("CAST({} AS HUGEINT)", parameter(value)))
    if isinstance(value, int | float):
        number = as_number(value)
        assert number is not None
        return Plain("double", put("CAST({} AS DOUBLE)", parameter(float(number))))
    if value is None or (isinstance(value, tuple) and not _has_pattern(value)):
        return Plain("json", put("CAST({} AS JSON)", parameter(json.dumps(value))))
    return Unknown()


def _has_pattern(value: tuple[Any, ...]) -> bool:
    return any(
        isinstance(item, Pattern) or (isinstance(item, tuple) and _has_pattern(item))
        for item in value
    )


def when(condition: Piece, yes: Value, no: Value) -> Value:
    """One of two values; of the same plain kind it stays plain."""
    if (
        isinstance(yes, Plain)
        and isinstance(no, Plain)
        and yes.kind == no.kind
        and not (yes.nil or no.nil)
        and yes.sure == no.sure
    ):
        made = put("(CASE WHEN {} THEN {} ELSE {} END)", condition, yes.piece, no.piece)
        return Plain(yes.kind, made, sure=yes.sure)
    return Either(condition, yes, no)


def otherwise(first: Value, second: Value) -> Value:
    """The first value where it is there, else the second."""
    match first:
        case Plain(sure=sure) if sure == TRUE:
            is_there = present(first)
            return first if is_there == TRUE else Either(is_there, first, second)
        case Either(condition=condition, yes=yes, no=no):
            return Either(condition, otherwise(yes, second), otherwise(no, second))
        case Keyed():
            return first
        case _:
            return Unknown(some_of([there(first), there(second)]))


def gather(values: list[Value]) -> Value:
    """A JSON list of those that are not missing, nil or ""."""
    lists: list[Piece] = []
    sures: list[Piece] = []
    columns = {
        InJson(value.hint.column)
        if isinstance(value, Plain) and isinstance(value.hint, InJson)
        else None
        for value in values
    }
    for value in values:
        if isinstance(value, Plain) and value.kind == "many":
            lists.append(put("coalesce({}, [])", value.piece))
            sures.append(value.sure)
            continue
        made = to_json(value)
        if isinstance(made, Unknown):
            return Unknown()
        lists.append(put("[{}]", made.piece))
        sures.append(made.sure)
    whole = lists[0]
    for more in lists[1:]:
        whole = put("list_concat({}, {})", whole, more)
    kept = those(
        whole,
        lambda x: put("coalesce(json_type({}) <> 'NULL' AND {} <> '\"\"'::JSON, FALSE)", x, x),
    )
    hint = columns.pop() if len(columns) == 1 else None
    return Plain("json", put("to_json({})", kept), sure=all_of(sures), hint=hint)


def size_of(value: Value) -> Value:
    """size() of a value of any form."""
    match value:
        case Plain():
            return size(value)
        case Either(condition=condition, yes=yes, no=no):
            return Either(condition, size_of(yes), size_of(no))
        case Keyed(count=count):
            return count()
        case _:
            return value


def map_get(holder: Value, key: str, default: Value) -> Value:
    """The value of a key that the filter names, or the default."""
    match holder:
        case Either(condition=condition, yes=yes, no=no):
            return Either(condition, map_get(yes, key, default), map_get(no, key, default))
        case Keyed(get=get):
            return otherwise(get(key), default)
        case Plain(piece=piece) if piece in (NIL_JSON, NULL_JSON):
            return MISSING  # DuckDB would take what is below a constant for no list
        case Plain(kind="json", piece=piece, sure=sure) if sure == TRUE:
            is_map = let(piece, lambda x: put("coalesce(json_type({}) = 'OBJECT', FALSE)", x))
            return Either(is_map, otherwise(below(holder, (core.Key(key),)), default), MISSING)
        case Plain(kind="json"):
            return Unknown()
        case Plain():
            return MISSING
        case _:
            return Unknown(there(holder))


def arithmetic(operator: str, left: Value, right: Value) -> Value:
    """`+ - * / %`; what has no result is missing."""
    numbers = ("integer", "double")
    if not (isinstance(left, Plain) and isinstance(right, Plain)):
        return Unknown(all_of([there(left), there(right)]))
    sure = all_of([left.sure, right.sure])
    if left.kind == right.kind == "text" and operator == "+":
        return Plain("text", put("({} || {})", left.piece, right.piece), sure=sure)
    if left.kind not in numbers or right.kind not in numbers:
        return Unknown(all_of([there(left), there(right)]))
    if left.kind == right.kind == "integer":
        one, other = (put("CAST({} AS HUGEINT)", side.piece) for side in (left, right))
        sql_operator = "//" if operator == "/" else operator
        result = put("TRY({} " + sql_operator + " {})", one, other)
        made = let(
            result,
            lambda r: put(
                f"CASE WHEN {{}} BETWEEN {LEAST_INTEGER} AND {MOST_INTEGER} THEN {{}} END", r, r
            ),
        )
        return Plain("integer", made, sure=sure)
    if operator == "%":
        return MISSING
    one, other = (put("CAST({} AS DOUBLE)", side.piece) for side in (left, right))
    if operator == "/":
        result = put("(CASE WHEN {} <> 0 THEN {} / {} END)", other, one, other)
    else:
        result = put("({} " + operator + " {})", one, other)
    made = let(result, lambda r: put("CASE WHEN isfinite({}) THEN {} END", r, r))
    return Plain("double", made, sure=sure)
