"""Conditions in SQL. `where` is what Filter.sql() calls.

Each condition is made twice, as an upper and a lower bound; nearly always they are the same. These
constructs are not exact, and their upper bound says only that their parts are there:

- `body.json()` and `body.xml()`;
- a comparison of two values of an entry of which one is JSON or of another kind (`src.ip == dst.ip`
  and `requestSize > responseSize` are exact), arithmetic with JSON, a list with values of the entry
  in it, a text test whose part is JSON, keys that are computed;
- `startTime`, which has nanoseconds, and DuckDB microseconds;
- `request.*`, `size(request)`, and for entries with headers `request..name`;
- `request.queryString` of a URL whose percent-encoding is not UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kfl import core
from kfl.core import Pattern
from kfl.filter import Sql
from kfl.match import Matcher
from kfl.sql.pieces import (
    FALSE,
    TRUE,
    Piece,
    all_of,
    any_of,
    let,
    negate,
    parameter,
    put,
    renumbered,
    some_of,
    those,
)
from kfl.sql.selectors import below, select
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
    ordered,
    present,
    size,
    sure_of,
    text_form,
    text_test,
    to_json,
    truth,
)
from kfl.values import LEAST_INTEGER, MOST_INTEGER, within
from kfl.values import text_test as text_test_of_constants
from kfl.values import truth as constant_truth
from kfl.words import WORDS

MAX_SQL_LENGTH = 1 << 20
"""Characters. A filter whose SQL is longer is given as TRUE, and each row is asked `matches`."""

ALWAYS = Truth(TRUE, TRUE)
NEVER = Truth(FALSE, FALSE)

_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_SQL_OPERATORS = {"==": "=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def where(node: core.Core, recordings: Mapping[str, str]) -> Sql:
    """The condition of a filter."""
    made = Conditions(recordings).test(node)
    if len(made.upper.text) > MAX_SQL_LENGTH:
        return Sql("TRUE", [], exact=False)
    return Sql(renumbered(made.upper.text), list(made.upper.parameters), made.is_exact)


class Conditions:
    """Goes down a filter once."""

    def __init__(self, recordings: Mapping[str, str]) -> None:
        self._recordings = recordings

    # -------------------------------------------------------------------------- conditions

    def test(self, node: core.Core) -> Truth:
        """The truth of a node."""
        match node:
            case core.Const(value=value):
                return ALWAYS if constant_truth(value) else NEVER
            case core.Word(name=name):
                made = _word(name)
                return Truth(made, made)
            case core.Record(name=name):
                stored = self._recordings.get(name, name)
                made = put("coalesce(record = {}, FALSE)", parameter(stored))
                return Truth(made, made)
            case core.Not(operand=operand):
                inner = self.test(operand)
                return Truth(negate(inner.lower), negate(inner.upper))
            case core.All(operands=operands):
                return _both(all_of, [self.test(operand) for operand in operands])
            case core.Some(operands=operands):
                return _both(some_of, [self.test(operand) for operand in operands])
            case core.IfElse(condition=condition, yes=yes, no=no):
                return _choose(self.test(condition), self.test(yes), self.test(no))
            case core.Compare(operator=operator, left=left, right=right):
                return self._compare(operator, left, right)
            case core.Within(item=item, container=container):
                return self._within(item, container)
            case core.TextTest(kind=kind, text=text, part=part):
                return self._text_test(kind, text, part)
            case core.Search(text=text, pattern=pattern):
                return self._each(text, lambda v: equals(v, pattern))
            case core.Present(value=value):
                return self._each(
                    value, lambda v: all_of([present(v), negate(equals(v, None))]), keyed=TRUE
                )
            case _:
                return self._each(node, truth, keyed=TRUE)

    def _each(self, node: core.Core, test: Callable[[Plain], Piece], keyed: Piece = FALSE) -> Truth:
        """A test of a value; `keyed` is its answer for maps."""
        guards, inner = core.unguard(node)
        return _guard(guards, _apply(self.value(inner), test, keyed))

    def _compare(self, operator: str, left: core.Core, right: core.Core) -> Truth:
        if isinstance(left, core.Const) and not isinstance(right, core.Const):
            left, right, operator = right, left, _FLIPPED[operator]
        if isinstance(right, core.Const):
            constant = right.value
            if isinstance(left, core.Const):
                return self._constants(operator, left.value, constant)
            if operator == "==":
                return self._each(left, lambda v: equals(v, constant))
            if operator == "!=":
                return self._each(
                    left, lambda v: all_of([present(v), negate(equals(v, constant))]), keyed=TRUE
                )
            sql_operator = _SQL_OPERATORS[operator]
            return self._each(left, lambda v: ordered(sql_operator, v, constant))
        left_guards, left = core.unguard(left)
        right_guards, right = core.unguard(right)
        return _guard(
            [*left_guards, *right_guards],
            _compare_two(operator, self.value(left), self.value(right)),
        )

    def _constants(self, operator: str, left: Any, right: Any) -> Truth:
        answer = Matcher().test(core.Compare(operator, core.Const(left), core.Const(right)))({})
        return ALWAYS if answer else NEVER

    def _within(self, item: core.Core, container: core.Core) -> Truth:
        if isinstance(container, core.Const):
            elements = container.value
            assert isinstance(elements, tuple)
            if isinstance(item, core.Const):
                return ALWAYS if within(item.value, elements, False) else NEVER
            if all(type(element) is str for element in elements):
                return self._each(item, lambda v: equals_any(v, elements))
            return self._each(item, lambda v: some_of([equals(v, element) for element in elements]))
        if not isinstance(item, core.Const):
            item_guards, item = core.unguard(item)
            guards, container = core.unguard(container)
            parts = [_present(self.value(item)), _present(self.value(container))]
            return _guard([*item_guards, *guards], Truth(all_of(parts), FALSE))
        guards, container = core.unguard(container)
        return _guard(guards, _contains(self.value(container), item.value))

    def _text_test(self, kind: str, text: core.Core, part: core.Core) -> Truth:
        function = {"startsWith": "starts_with", "endsWith": "suffix", "contains": "contains"}[kind]
        if isinstance(part, core.Const):
            constant = part.value
            if isinstance(text, core.Const):
                return ALWAYS if text_test_of_constants(kind, text.value, constant) else NEVER
            return self._each(
                text,
                lambda v: text_test(
                    v, lambda t: put(function + "({}, {})", t, parameter(constant))
                ),
            )
        text_guards, text = core.unguard(text)
        part_guards, part = core.unguard(part)
        one, other = self.value(text), self.value(part)
        scalars = ("text", "integer", "bool", "double")
        if (
            isinstance(one, Plain)
            and isinstance(other, Plain)
            and one.kind in scalars
            and other.kind in scalars
        ):
            made = put(f"coalesce({function}({{}}, {{}}), FALSE)", text_form(one), text_form(other))
            found = sure_of(made, all_of([one.sure, other.sure]))
        else:
            found = Truth(all_of([_present(one), _present(other)]), FALSE)
        return _guard([*text_guards, *part_guards], found)

    # -------------------------------------------------------------------------- values

    def value(self, node: core.Core) -> Value:
        """The value of a node."""
        match node:
            case core.Const(value=value):
                return _constant(value)
            case core.Select(steps=steps):
                return select(steps)
            case core.Down(base=base, steps=steps):
                return below(self.value(base), steps)
            case core.Guarded(word=word, value=value):
                return _when(_word(word), self.value(value), MISSING)
            case core.First(values=values):
                return self._first([self.value(value) for value in values])
            case core.Gather(values=values):
                return _gather([self.value(value) for value in values])
            case core.Items(items=items):
                return Unknown(all_of([_present(self.value(item)) for item in items]))
            case core.Decode(text=text):
                return Unknown(_present(self.value(text)))
            case core.Size(of=of):
                return _size(self.value(of))
            case core.MapGet():
                return self._map_get(node)
            case core.Arithmetic(operator=operator, left=left, right=right):
                return _arithmetic(operator, self.value(left), self.value(right))
            case core.IfElse(condition=condition, yes=yes, no=no):
                chosen = self.test(condition)
                one, other = self.value(yes), self.value(no)
                if not chosen.is_exact:
                    return Unknown(some_of([_present(one), _present(other)]))
                return _when(chosen.upper, one, other)
            case _:
                made = self.test(node)
                if not made.is_exact:
                    return Unknown()
                return Plain("bool", made.upper)

    def _first(self, values: list[Value]) -> Value:
        made = values[-1]
        for value in reversed(values[:-1]):
            made = _otherwise(value, made)
        return made

    def _map_get(self, node: core.MapGet) -> Value:
        holder, default = self.value(node.map), self.value(node.default)
        if not isinstance(node.key, core.Const) or isinstance(holder, Unknown):
            return Unknown(_present(holder))
        key = node.key.value
        if not isinstance(key, str):
            return MISSING
        return _map_get(holder, key, default)


# ------------------------------------------------------------------------------ bounds


def _both(join: Callable[[list[Piece]], Piece], parts: list[Truth]) -> Truth:
    return Truth(join([part.upper for part in parts]), join([part.lower for part in parts]))


def _choose(condition: Truth, yes: Truth, no: Truth) -> Truth:
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


def _guard(guards: Iterable[str], made: Truth) -> Truth:
    words = [_word(word) for word in dict.fromkeys(guards)]
    return Truth(all_of([*words, made.upper]), all_of([*words, made.lower]))


def _apply(value: Value, test: Callable[[Plain], Piece], keyed: Piece) -> Truth:
    """A test of a value of any form."""
    if value == MISSING:
        return NEVER
    match value:
        case Plain(sure=sure):
            return sure_of(test(value), sure)
        case Either(condition=condition, yes=yes, no=no):
            one, other = _apply(yes, test, keyed), _apply(no, test, keyed)
            both = Truth(condition, condition)
            return one if one == other else _choose(both, one, other)
        case Keyed():
            return Truth(keyed, keyed)
        case Unknown(present=there):
            return Truth(there, FALSE)


def _present(value: Value) -> Piece:
    """A condition that holds in every row in which the value is there."""
    match value:
        case Plain(sure=sure):
            return present(value) if sure == TRUE else TRUE
        case Either(condition=condition, yes=yes, no=no):
            one, other = _present(yes), _present(no)
            if one == other == TRUE:
                return TRUE
            return put("CASE WHEN {} THEN {} ELSE {} END", condition, one, other)
        case Keyed():
            return TRUE
        case Unknown(present=there):
            return there


# ------------------------------------------------------------------------------ operators


def _compare_two(operator: str, left: Value, right: Value) -> Truth:
    numbers = ("integer", "double")
    if not (isinstance(left, Plain) and isinstance(right, Plain)):
        return Truth(all_of([_present(left), _present(right)]), FALSE)
    kinds = {left.kind, right.kind}
    same = kinds <= set(numbers) or (len(kinds) == 1 and left.kind in ("text", "bool"))
    if not same or (operator not in ("==", "!=") and not kinds <= set(numbers)):
        return Truth(all_of([_present(left), _present(right)]), FALSE)
    if "double" in kinds:
        one, other = (put("CAST({} AS DOUBLE)", side.piece) for side in (left, right))
    else:
        one, other = left.piece, right.piece
    if operator not in ("==", "!="):
        made = put("coalesce({} " + _SQL_OPERATORS[operator] + " {}, FALSE)", one, other)
    else:
        both_there = all_of([present(left), present(right)])
        distinct = "IS NOT DISTINCT FROM" if operator == "==" else "IS DISTINCT FROM"
        made = all_of([both_there, put("({} " + distinct + " {})", one, other)])
    return sure_of(made, all_of([left.sure, right.sure]))


def equals_any(value: Plain, texts: tuple[Any, ...]) -> Piece:
    """`value in [texts]`."""
    if value.kind == "text":
        return equals(value, texts)
    return some_of([equals(value, text) for text in texts])


def _contains(container: Value, item: Any) -> Truth:
    """`constant in container`."""
    if container == MISSING:
        return NEVER
    match container:
        case Either(condition=condition, yes=yes, no=no):
            both = Truth(condition, condition)
            return _choose(both, _contains(yes, item), _contains(no, item))
        case Unknown(present=there):
            return Truth(there, FALSE)
        case Keyed(get=get):
            keys = [item] if isinstance(item, str) else []
            if isinstance(item, tuple):
                keys = [each for each in item if isinstance(each, str)]
            return _both(some_of, [_apply(get(key), present, TRUE) for key in keys])
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
        any_of(put("json_extract({}, '$[*]')", x), lambda e: json_equals(e, item)),
        some_of(is_key),
    )


def _constant(value: Any) -> Value:
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


def _when(condition: Piece, yes: Value, no: Value) -> Value:
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


def _otherwise(first: Value, second: Value) -> Value:
    """The first value where it is there, else the second."""
    match first:
        case Plain(sure=sure) if sure == TRUE:
            there = present(first)
            return first if there == TRUE else Either(there, first, second)
        case Either(condition=condition, yes=yes, no=no):
            return Either(condition, _otherwise(yes, second), _otherwise(no, second))
        case Keyed():
            return first
        case _:
            return Unknown(some_of([_present(first), _present(second)]))


def _gather(values: list[Value]) -> Value:
    """A JSON list of those that are not missing, nil or ""."""
    lists: list[Piece] = []
    sures: list[Piece] = []
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
    return Plain("json", put("to_json({})", kept), sure=all_of(sures))


def _size(value: Value) -> Value:
    match value:
        case Plain():
            return size(value)
        case Either(condition=condition, yes=yes, no=no):
            return Either(condition, _size(yes), _size(no))
        case Keyed(count=count):
            return count()
        case _:
            return value


def _map_get(holder: Value, key: str, default: Value) -> Value:
    match holder:
        case Either(condition=condition, yes=yes, no=no):
            return Either(condition, _map_get(yes, key, default), _map_get(no, key, default))
        case Keyed(get=get):
            return _otherwise(get(key), default)
        case Plain(kind="json", piece=piece, sure=sure) if sure == TRUE:
            is_map = let(piece, lambda x: put("coalesce(json_type({}) = 'OBJECT', FALSE)", x))
            return Either(is_map, _otherwise(below(holder, (core.Key(key),)), default), MISSING)
        case Plain(kind="json"):
            return Unknown()
        case Plain():
            return MISSING
        case _:
            return Unknown(_present(holder))


def _arithmetic(operator: str, left: Value, right: Value) -> Value:
    numbers = ("integer", "double")
    if not (isinstance(left, Plain) and isinstance(right, Plain)):
        return Unknown(all_of([_present(left), _present(right)]))
    sure = all_of([left.sure, right.sure])
    if left.kind == right.kind == "text" and operator == "+":
        return Plain("text", put("({} || {})", left.piece, right.piece), sure=sure)
    if left.kind not in numbers or right.kind not in numbers:
        return Unknown(all_of([_present(left), _present(right)]))
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


# ------------------------------------------------------------------------------ words


def _word(name: str) -> Piece:
    """A protocol word over its columns, none of which is ever NULL."""
    word = WORDS[name]
    if word.transport:
        return Piece(f"(transport = '{word.transport}')")
    names = Piece(f"protocol_name IN {_texts(word.names)}")
    if word.encrypted:
        return put("(tls OR {})", names)
    others = [
        Piece(f"protocol_{column} IN {_texts(values)}")
        for column, values in (("version", word.versions), ("abbr", word.abbrs))
        if values
    ]
    if others:
        return all_of([names, some_of(others)])
    return put("({})", names)


def _texts(words: frozenset[str]) -> str:
    """Words of our own table as a list of SQL."""
    return "(" + ", ".join(f"'{word}'" for word in sorted(words)) + ")"
