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

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from kfl import core
from kfl.filter import Sql
from kfl.match import Matcher
from kfl.sql.operators import (
    MAX_CASES,
    NEVER,
    SQL_OPERATORS,
    apply,
    arithmetic,
    both,
    cases,
    choose,
    compare_two,
    constant_value,
    contains,
    equals_any,
    gather,
    map_get,
    otherwise,
    size_of,
    there,
    when,
)
from kfl.sql.pieces import (
    FALSE,
    TRUE,
    Piece,
    TooLargeError,
    all_of,
    check_depth,
    is_true,
    negate,
    parameter,
    put,
    renumbered,
    some_of,
    texts,
)
from kfl.sql.quick import is_slow
from kfl.sql.selectors import Selector, below
from kfl.sql.values import (
    MISSING,
    Plain,
    Truth,
    Unknown,
    Value,
    equals,
    ordered,
    part_test,
    present,
    sure_of,
    text_form,
    truth,
)
from kfl.values import text_test as text_test_of_constants
from kfl.values import truth as constant_truth
from kfl.values import within
from kfl.words import WORDS

ALWAYS = Truth(TRUE, TRUE)

_FLIPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


def where(
    node: core.Core,
    recordings: Mapping[str, str],
    protocols: Callable[[], Collection[str] | None] = lambda: None,
) -> Sql:
    """The condition of a filter. One that is too large is TRUE, and each row is asked `matches`."""
    try:
        made = Conditions(recordings, protocols).test(node)
        check_depth(made.upper.text)
    except TooLargeError:
        return Sql("TRUE", "TRUE", [], exact=False)
    upper = made.upper
    text, in_where = renumbered(upper.text), renumbered(upper.in_where)
    return Sql(text, in_where, list(upper.parameters), made.is_exact)


class Conditions:
    """Goes down a filter once."""

    def __init__(
        self, recordings: Mapping[str, str], protocols: Callable[[], Collection[str] | None]
    ) -> None:
        self._recordings = recordings
        self._select = Selector(protocols).select

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
                made = is_true(put("record = {}", parameter(stored)))
                return Truth(made, made)
            case core.Not(operand=operand):
                inner = self.test(operand)
                return Truth(negate(inner.lower), negate(inner.upper))
            case core.All(operands=operands):
                return both(all_of, self._tests(operands))
            case core.Some(operands=operands):
                return both(some_of, self._tests(operands))
            case core.IfElse(condition=condition, yes=yes, no=no):
                return choose(self.test(condition), self.test(yes), self.test(no))
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

    def _tests(self, operands: Iterable[core.Core]) -> list[Truth]:
        """Conditions of columns alone come first, since DuckDB's reader keeps the order."""
        return sorted(map(self.test, operands), key=lambda made: is_slow(made.upper))

    def _each(self, node: core.Core, test: Callable[[Plain], Piece], keyed: Piece = FALSE) -> Truth:
        """A test of a value; `keyed` is its answer for maps."""
        guards, inner = core.unguard(node)
        return _guard(guards, apply(self.value(inner), test, keyed))

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
            sql_operator = SQL_OPERATORS[operator]
            return self._each(left, lambda v: ordered(sql_operator, v, constant))
        left_guards, left = core.unguard(left)
        right_guards, right = core.unguard(right)
        return _guard(
            [*left_guards, *right_guards],
            compare_two(operator, self.value(left), self.value(right)),
        )

    def _constants(self, operator: str, left: Any, right: Any) -> Truth:
        answer = Matcher().test(core.Compare(operator, core.Const(left), core.Const(right)))({})
        return ALWAYS if answer else NEVER

    def _within(self, item: core.Core, container: core.Core) -> Truth:
        if isinstance(container, core.Const):
            elements = container.value
            if not isinstance(elements, tuple):
                return NEVER  # only lists and maps have something in them
            if isinstance(item, core.Const):
                return ALWAYS if within(item.value, elements, False) else NEVER
            if all(type(element) in (str, int) for element in elements):
                return self._each(item, lambda v: equals_any(v, elements))
            return self._each(item, lambda v: some_of([equals(v, element) for element in elements]))
        if not isinstance(item, core.Const):
            item_guards, item = core.unguard(item)
            guards, container = core.unguard(container)
            parts = [there(self.value(item)), there(self.value(container))]
            return _guard([*item_guards, *guards], Truth(all_of(parts), FALSE))
        guards, container = core.unguard(container)
        return _guard(guards, contains(self.value(container), item.value))

    def _text_test(self, kind: str, text: core.Core, part: core.Core) -> Truth:
        function = {"startsWith": "prefix", "endsWith": "suffix", "contains": "contains"}[kind]
        if isinstance(part, core.Const):
            constant = part.value
            if isinstance(text, core.Const):
                return ALWAYS if text_test_of_constants(kind, text.value, constant) else NEVER
            return self._each(text, lambda v: part_test(function, v, constant))
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
            found = Truth(all_of([there(one), there(other)]), FALSE)
        return _guard([*text_guards, *part_guards], found)

    # -------------------------------------------------------------------------- values

    def value(self, node: core.Core) -> Value:
        """The value of a node. One with too many cases, as nested choices have, is not followed."""
        made = self._value(node)
        return made if cases(made) <= MAX_CASES else Unknown()

    def _value(self, node: core.Core) -> Value:
        match node:
            case core.Const(value=value):
                return constant_value(value)
            case core.Select(steps=steps):
                return self._select(steps)
            case core.Down(base=base, steps=steps):
                return below(self.value(base), steps)
            case core.Guarded(word=word, value=value):
                return when(_word(word), self.value(value), MISSING)
            case core.First(values=values):
                return self._first([self.value(value) for value in values])
            case core.Gather(values=values):
                return gather([self.value(value) for value in values])
            case core.Items(items=items):
                return Unknown(all_of([there(self.value(item)) for item in items]))
            case core.Decode(text=text):
                return Unknown(there(self.value(text)))
            case core.Size(of=of):
                return size_of(self.value(of))
            case core.MapGet():
                return self._map_get(node)
            case core.Arithmetic(operator=operator, left=left, right=right):
                return arithmetic(operator, self.value(left), self.value(right))
            case core.IfElse(condition=condition, yes=yes, no=no):
                chosen = self.test(condition)
                one, other = self.value(yes), self.value(no)
                if not chosen.is_exact:
                    return Unknown(some_of([there(one), there(other)]))
                return when(chosen.upper, one, other)
            case _:
                made = self.test(node)
                if not made.is_exact:
                    return Unknown()
                return Plain("bool", made.upper)

    def _first(self, values: list[Value]) -> Value:
        made = values[-1]
        for value in reversed(values[:-1]):
            made = otherwise(value, made)
        return made

    def _map_get(self, node: core.MapGet) -> Value:
        holder, default = self.value(node.map), self.value(node.default)
        if not isinstance(node.key, core.Const) or isinstance(holder, Unknown):
            return Unknown(there(holder))
        key = node.key.value
        if not isinstance(key, str):
            return MISSING
        return map_get(holder, key, default)


def _guard(guards: Iterable[str], made: Truth) -> Truth:
    words = [_word(word) for word in dict.fromkeys(guards)]
    return Truth(all_of([*words, made.upper]), all_of([*words, made.lower]))


# ------------------------------------------------------------------------------ words


def _word(name: str) -> Piece:
    """A protocol word over its columns, none of which is ever NULL."""
    word = WORDS[name]
    if word.transport:
        return Piece(f"(transport = '{word.transport}')")
    names = Piece(f"protocol_name IN {texts(word.names)}")
    if word.encrypted:
        return put("(tls OR {})", names)
    others = [
        Piece(f"protocol_{column} IN {texts(values)}")
        for column, values in (("version", word.versions), ("abbr", word.abbrs))
        if values
    ]
    if others:
        return all_of([names, (all_of if word.is_both else some_of)(others)])
    return put("({})", names)
