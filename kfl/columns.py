"""A filter over what capture knows before an entry is built: columns, named as in ENTRIES.

Each condition gets two masks: rows in which it may hold and rows in which it certainly does. A
column that is not given, and a null that can mean two things, say "perhaps". The verdict about a
value is the reference's own (`match`), asked once for each different value, or Arrow's where both
are plain equality and search of texts, so the two cannot contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kfl import core
from kfl.batch import NONE, NULL_NUMBER, Batch, Bounds, Columns, Mask, NotGiven, Texts, parsed
from kfl.match import SURE_INTEGER, Matcher
from kfl.values import MISSING, number
from kfl.values import truth as constant_truth
from kfl.words import HTTP_IN_COLUMNS, WORDS

TRUE, FALSE = np.bool_(True), np.bool_(False)
PERHAPS: Bounds = TRUE, FALSE

GIVEN = frozenset(
    {"protocol_name", "protocol_abbr", "transport", "tls", "node_name"}
    | {"elapsed_us", "request_size", "response_size"}
    | {f"{side}_{key}" for side in ("src", "dst") for key in ("ip", "port")}
    | {
        f"{side}_{key}"
        for side in ("src", "dst")
        for key in ("name", "namespace", "pod", "service", "dns")
    }
)
"""Columns that capture gives for every protocol. A filter over these alone is exact."""

SIDES = ("request", "response")

_HTTP_ALONE = frozenset({"http", "dns", "tcp", "udp"})
"""Protocols without headers and bodies in the JSON text of their messages."""

CHEAP, HEADER, LATE = range(3)
"""What a column costs: `and` and `or` ask the cheapest first."""


@dataclass(frozen=True, slots=True)
class Source:
    """The column of a selector: `null` is what the entry has where the column is null.

    `certain` names the protocols for which a null column means that; for others the value can be in
    the JSON text of the message. None stands for all.
    """

    column: str
    is_text: bool
    null: Any
    certain: frozenset[str] | None = None
    divisor: int = 1
    cost: int = CHEAP


def _path(text: str) -> tuple[core.Step, ...]:
    return tuple(core.Key(part) for part in text.split("."))


_SOURCES: dict[tuple[core.Step, ...], Source] = {
    _path("node.name"): Source("node_name", True, ""),
    _path("node.ip"): Source("node_ip", True, ""),
    _path("protocol.name"): Source("protocol_name", True, ""),
    _path("protocol.version"): Source("protocol_version", True, ""),
    _path("protocol.abbr"): Source("protocol_abbr", True, ""),
    _path("transport"): Source("transport", True, ""),
    _path("elapsedTime"): Source("elapsed_us", False, None, divisor=1000),
    _path("elapsedTimeUs"): Source("elapsed_us", False, None),
    _path("requestSize"): Source("request_size", False, None),
    _path("responseSize"): Source("response_size", False, None),
    _path("error.type"): Source("error_type", True, MISSING),
    **{
        _path(f"{side}.{path}"): Source(f"{side}_{column}", True, "")
        for side in ("src", "dst")
        for path, column in (
            ("ip", "ip"),
            ("name", "name"),
            ("namespace", "namespace"),
            ("pod.name", "pod"),
            ("service.name", "service"),
            ("dns", "dns"),
        )
    },
    **{_path(f"{side}.port"): Source(f"{side}_port", False, None) for side in ("src", "dst")},
    _path("request.method"): Source("request_method", True, MISSING, HTTP_IN_COLUMNS),
    _path("request.url"): Source("request_url", True, MISSING, HTTP_IN_COLUMNS),
    _path("request.path"): Source("request_path", True, MISSING, HTTP_IN_COLUMNS),
    _path("response.status"): Source("response_status", False, MISSING, HTTP_IN_COLUMNS),
    **{
        _path(f"{side}.body"): Source(f"{side}_body", True, MISSING, _HTTP_ALONE, cost=LATE)
        for side in SIDES
    },
}
"""Selectors that one column decides."""

_MESSAGES: dict[core.Step, Source] = {
    core.Key(side): Source(side, True, None, cost=LATE) for side in SIDES
}
"""The JSON text of a message: a column that is given only where that is the whole message. Where it
is not, the column `request_keys` may say what keys a request can have. A column like `request.sni`
has the text of one key; a protocol that gives it saves filters the JSON."""


def _source(steps: tuple[core.Step, ...]) -> Source | None:
    """The column that decides a selector wherever it is given; None when there is none."""
    found = _SOURCES.get(steps)
    if found is not None:
        return found
    match steps:
        case (core.Key(name=side), core.Key(name="headers"), core.Key(name=name)):
            # Each Set-Cookie is a value of its own, in a list.
            if side in SIDES and name.isascii() and name.lower() != "set-cookie":
                column = f"{side}_headers.{name.lower()}"
                return Source(column, True, MISSING, _HTTP_ALONE, cost=HEADER)
    return _MESSAGES.get(steps[0])


def _of_key(steps: tuple[core.Step, ...]) -> Source | None:
    """The column of a message's key alone, as `request.sni`; null where there is no such key."""
    match steps:
        case (core.Key(name=side), core.Key(name=name)):
            return Source(f"{side}.{name}", True, MISSING)
    return None


class ColumnFilter:
    """A filter, prepared for columns."""

    def __init__(self, node: core.Core) -> None:
        self._node = node
        self.leaves: dict[int, _Leaf | None] = {}
        self.cheapest_first: dict[int, tuple[core.Core, ...]] = {}
        self.undecided: list[core.Core] = []
        """Conditions that no column decides."""
        self.is_exact = self._prepare(node)

    def bounds(
        self, columns: Columns | Batch, rows: int, asked: Mask | None = None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(may, must): boolean arrays of `rows` elements; of rows not asked for they say nothing.

        Filters that are given the same Batch share what they find out.
        """
        batch = columns if isinstance(columns, Batch) else Batch(columns, rows)
        may, must = _Run(batch, self).bounds(self._node, TRUE if asked is None else asked)
        return _whole(may, rows), _whole(must, rows)

    def _prepare(self, node: core.Core) -> bool:
        """Looks at each condition once; whether the columns of GIVEN decide it."""
        match node:
            case core.Const():
                return True
            case core.Word(name=name):
                return not WORDS[name].versions
            case core.Not() | core.All() | core.Some() | core.IfElse():
                children = core.children(node)
                prepared = [self._prepare(child) for child in children]
                if not isinstance(node, core.IfElse):
                    self.cheapest_first[id(node)] = tuple(sorted(children, key=self._cost))
                return all(prepared)
            case _:
                leaf = _leaf(node)
                self.leaves[id(node)] = leaf
                if leaf is None or leaf.is_of_message:
                    self.undecided.append(node)
                return leaf is not None and leaf.is_exact

    def _cost(self, node: core.Core) -> int:
        leaf = self.leaves.get(id(node))
        below = [self._cost(child) for child in core.children(node)] if leaf is None else []
        return max(below, default=0) if leaf is None else leaf.source.cost


def _whole(mask: Mask, rows: int) -> npt.NDArray[np.bool_]:
    return mask if isinstance(mask, np.ndarray) else np.full(rows, mask)


class _Leaf:
    """A condition on the value of one column, under the words of `guards`."""

    def __init__(self, node: core.Core, guards: tuple[str, ...], source: Source) -> None:
        self.guards = guards
        self.source = source
        self.is_of_message = source in _MESSAGES.values()
        self.of_key: _Leaf | None = None
        """The same over a column of the one key that it asks for, where a protocol gives that."""
        self.keys = _keys(node) if self.is_of_message else None
        self.compare = _plain_comparison(node)
        self.text_test = None if self.is_of_message else _plain_text_test(node)
        self.part = None if self.is_of_message else _plain_part(node)
        self.needle = _needle(node) if self.is_of_message else None
        test = Matcher().test(node) if self.is_of_message else _ValueMatcher().test(node)
        side = source.column
        self.test: Callable[[Any], bool] = (
            (lambda message: test({side: message})) if self.is_of_message else test
        )
        self.if_null = np.bool_(self.test(source.null))
        # An object "" is the null of a column that can also hold an empty text.
        self.if_empty = np.bool_(self.test("")) if source.is_text else self.if_null
        self.is_exact = (
            source.certain is None
            and source.column in GIVEN
            and not any(WORDS[word].versions for word in guards)
        )


def _keys(node: core.Core) -> frozenset[str] | None:
    """Keys of the message without which no selector finds anything; None when that is not known."""
    found = set()
    for each in core.walk(node):
        if isinstance(each, core.Select):
            if len(each.steps) < 2 or not isinstance(each.steps[1], core.Key):
                return None
            found.add(each.steps[1].name)
    return frozenset(found)


class _ValueMatcher(Matcher):
    """Closures over a value instead of an entry: the selector gives the value itself."""

    def select(self, steps: tuple[core.Step, ...]) -> Callable[[Any], Any]:
        del steps
        return lambda value: value


_UNFIT = (core.Guarded, core.Record, core.Word, core.First, core.Gather)
"""Nodes that look at more of an entry than one value."""


def _leaf(node: core.Core) -> _Leaf | None:
    """The leaf that a condition is; None when a column cannot decide it."""
    guards: list[str] = []
    bare = _without_guards(node, guards)
    below = core.walk(bare)
    if any(isinstance(each, _UNFIT) for each in below):
        return None
    selects = {each for each in below if isinstance(each, core.Select)}
    sources = {_source(select.steps) for select in selects}
    if len(selects) > 1:  # they can still lie in one message
        sources = {_MESSAGES.get(select.steps[0]) for select in selects}
    if len(sources) != 1:
        return None
    (source,) = sources
    if source is None:
        return None
    leaf = _Leaf(bare, tuple(guards), source)
    if leaf.is_of_message and len(selects) == 1:
        key = _of_key(selects.pop().steps)
        leaf.of_key = None if key is None else _Leaf(bare, leaf.guards, key)
    return leaf


def _without_guards(node: core.Core, guards: list[str]) -> core.Core:
    """The condition without the words of its operands: where they are false, it is."""

    def take(operand: core.Core) -> core.Core:
        words, inner = core.unguard(operand)
        guards.extend(words)
        return inner

    match node:
        case core.Compare(operator=operator, left=left, right=right):
            return core.Compare(operator, take(left), take(right))
        case core.Within(item=item, container=container):
            return core.Within(take(item), take(container))
        case core.TextTest(kind=kind, text=text, part=part):
            return core.TextTest(kind, take(text), take(part))
        case core.Search(text=text, pattern=pattern):
            return core.Search(take(text), pattern)
        case core.Present():
            return node
        case _:
            return take(node)


_UFUNCS: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


def _plain_comparison(node: core.Core) -> tuple[Callable[[Any, Any], Any], int] | None:
    """The NumPy function and the integer of `selector op integer`, the quickest condition."""
    if not (
        isinstance(node, core.Compare)
        and isinstance(node.left, core.Select)
        and isinstance(node.right, core.Const)
    ):
        return None
    constant = node.right.value
    if type(constant) is not int or not -SURE_INTEGER < constant < SURE_INTEGER:
        return None
    return _UFUNCS[node.operator], constant


ArrowTest = Callable[[pa.StringArray], pa.BooleanArray]

_TEXT_TESTS: dict[str, Callable[..., pa.BooleanArray]] = {
    "startsWith": pc.starts_with,
    "endsWith": pc.ends_with,
}


def _plain_text_test(node: core.Core) -> ArrowTest | None:
    """Arrow's own test for `selector op text`: it says of two texts what `values` says."""
    match node:
        case core.Compare(
            operator="==" | "!=" as operator,
            left=core.Select(),
            right=core.Const(value=str(text)),
        ):
            compare = pc.equal if operator == "==" else pc.not_equal
            constant = pa.scalar(text, pa.string())
            return lambda texts: compare(texts, constant)
        case core.TextTest(
            kind="startsWith" | "endsWith" as kind,
            text=core.Select(),
            part=core.Const(value=str(part)),
        ):
            find = _TEXT_TESTS[kind]
            return lambda texts: find(texts, part)
        case core.Within(item=core.Select(), container=core.Const(value=tuple(items))) if (
            items and all(type(item) is str for item in items)
        ):
            several = pa.array(items, pa.string())
            return lambda texts: pc.is_in(texts, several)
    return None


def _plain_part(node: core.Core) -> str | None:
    """The text of `selector.contains(text)`, which Python finds seven times as fast as Arrow."""
    match node:
        case core.TextTest(kind="contains", text=core.Select(), part=core.Const(value=str(part))):
            return part
    return None


_ESCAPED = frozenset('"\\/')
"""Printable ASCII that JSON may write in another way."""


def _needle(node: core.Core) -> str | None:
    """The text that JSON contains wherever `selector == text` holds for a value in it."""
    match node:
        case core.Compare(operator="==", left=core.Select(), right=core.Const(value=str(text))):
            is_plain = text.isascii() and text.isprintable() and not _ESCAPED & set(text)
            # "80" is also equal to 8e1.
            return text if is_plain and number(text) is None else None
    return None


class _Run:
    """One filter over one batch."""

    def __init__(self, batch: Batch, prepared: ColumnFilter) -> None:
        self._batch = batch
        self._prepared = prepared

    def bounds(self, node: core.Core, asked: Mask) -> Bounds:
        """(may, must) of a condition for the rows that are asked for."""
        match node:
            case core.Const(value=value):
                truth = np.bool_(constant_truth(value))
                return truth, truth
            case core.Word(name=name):
                return self._word(name)
            case core.Not(operand=operand):
                may, must = self.bounds(operand, asked)
                return ~must, ~may
            case core.All():
                return self._fold(node, asked, np.logical_and)
            case core.Some():
                return self._fold(node, asked, np.logical_or)
            case core.IfElse(condition=condition, yes=yes, no=no):
                may, must = self.bounds(condition, asked)
                yes_may, yes_must = self.bounds(yes, asked & may)
                no_may, no_must = self.bounds(no, asked & ~must)
                return (may & yes_may) | (~must & no_may), (must & yes_must) | (~may & no_must)
            case _:
                leaf = self._prepared.leaves.get(id(node))
                return PERHAPS if leaf is None else self._leaf(leaf, asked)

    def _fold(
        self, node: core.All | core.Some, asked: Mask, join: Callable[[Mask, Mask], Mask]
    ) -> Bounds:
        """The operands one after the other, of the rows that can still change."""
        first, *others = self._prepared.cheapest_first[id(node)]
        may, must = self.bounds(first, asked)
        for operand in others:
            # `and` is decided where it cannot hold, `or` where it must.
            asked = asked & (may if isinstance(node, core.All) else ~must)
            if not asked.any():
                break
            next_may, next_must = self.bounds(operand, asked)
            may, must = join(may, next_may), join(must, next_must)
        return may, must

    # ------------------------------------------------------------------ words

    def _among(self, name: str, values: frozenset[str]) -> Bounds:
        possible = self._batch.get(f"{name}s")
        if isinstance(possible, frozenset) and not possible & values:
            return FALSE, FALSE
        column = self._batch.get(name)
        if column is NotGiven:
            return PERHAPS
        if column is None or isinstance(column, str):
            found: Mask = np.bool_(column in values)
        else:
            texts, codes = self._batch.texts(name, column).distinct
            found = np.array([text in values for text in texts], np.bool_)[codes]
        return found, found

    def _word(self, name: str) -> Bounds:
        """Which rows are of a protocol word; all filters of a batch share it."""
        found = self._batch.words.get(name)
        if found is None:
            found = self._batch.words[name] = self._of_word(name)
        return found

    def _of_word(self, name: str) -> Bounds:
        word = WORDS[name]
        if word.transport:
            return self._among("transport", frozenset({word.transport}))
        may, must = self._among("protocol_name", word.names)
        if word.encrypted:
            tls = self._batch.get("tls")
            if tls is NotGiven:
                return TRUE, must
            is_tls = np.bool_(tls) if isinstance(tls, bool) else np.asarray(tls, np.bool_)
            return may | is_tls, must | is_tls
        if word.abbrs:
            if not may.any():
                return may, must
            other_may, other_must = self._among("protocol_abbr", word.abbrs)
            if word.versions and (not word.is_both or other_may.any()):
                join = np.logical_and if word.is_both else np.logical_or
                version_may, version_must = self._among("protocol_version", word.versions)
                other_may, other_must = join(other_may, version_may), join(other_must, version_must)
            return may & other_may, must & other_must
        return may, must

    # ------------------------------------------------------------------ values

    def _leaf(self, leaf: _Leaf, asked: Mask) -> Bounds:
        may: Mask = TRUE
        must: Mask = TRUE
        for word in leaf.guards:
            word_may, word_must = self._word(word)
            may, must = may & word_may, must & word_must
        asked = asked & may
        if not asked.any():
            return may & FALSE, FALSE
        leaf_may, leaf_must = self._values(leaf, asked)
        return may & leaf_may, must & leaf_must

    def _values(self, leaf: _Leaf, asked: Mask) -> Bounds:
        key = leaf.of_key
        if key is not None and self._batch.get(key.source.column) is not NotGiven:
            return self._values(key, asked)
        name = leaf.source.column
        column = self._batch.get(name)
        if column is NotGiven:
            keys = self._batch.get(f"{name}_keys")
            if leaf.keys is None or not isinstance(keys, frozenset) or keys & leaf.keys:
                return PERHAPS
            return leaf.if_null, leaf.if_null
        if callable(column):
            rows, texts = self._batch.late(name, column, asked)
            may, must = self._of_texts(leaf, texts) if texts else self._of_one(leaf, None)
            return self._spread(rows, may), self._spread(rows, must)
        if isinstance(column, np.ndarray) and not leaf.source.is_text:
            return self._of_numbers(leaf, column)
        if column is None or isinstance(column, (str, int)):
            return self._of_one(leaf, column)
        return self._of_texts(leaf, self._batch.texts(name, column))

    def _spread(self, rows: np.ndarray, mask: Mask) -> Mask:
        """A mask of some rows as one of all."""
        if len(rows) == self._batch.rows or mask.ndim == 0:
            return mask
        found = np.zeros(self._batch.rows, np.bool_)
        found[rows] = mask
        return found

    def _with_nulls(self, leaf: _Leaf, verdicts: Mask, is_null: Mask, is_ambiguous: bool) -> Bounds:
        if is_null is NONE:
            return verdicts, verdicts
        null = leaf.if_null, leaf.if_empty if is_ambiguous else leaf.if_null
        may = np.where(is_null, any(null), verdicts)
        must = np.where(is_null, all(null), verdicts)
        if leaf.source.certain is not None:
            _, certain = self._among("protocol_name", leaf.source.certain)
            elsewhere = is_null & ~certain  # perhaps in the JSON text
            may, must = may | elsewhere, must & ~elsewhere
        return may, must

    def _of_one(self, leaf: _Leaf, value: str | int | None) -> Bounds:
        """The bounds for a value that all rows have."""
        if value is None or (value == NULL_NUMBER and not leaf.source.is_text):
            return self._with_nulls(leaf, FALSE, TRUE, is_ambiguous=False)
        divisor = leaf.source.divisor
        truth = np.bool_(leaf.test(value if isinstance(value, str) else value // divisor))
        return truth, truth

    def _of_texts(self, leaf: _Leaf, texts: Texts) -> Bounds:
        if texts.column is not None and leaf.text_test is not None:
            found = leaf.text_test(texts.column)
            verdicts = np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)
        else:
            values, places = texts.distinct
            if leaf.part is not None:
                found = [leaf.part in text for text in values]
            elif leaf.needle is not None:
                found = [leaf.needle in text and leaf.test(parsed(text)) for text in values]
            else:
                found = [*map(leaf.test, texts.parsed if leaf.is_of_message else values)]
            verdicts = np.array(found, np.bool_)[places]
        return self._with_nulls(leaf, verdicts, texts.is_null, texts.column is None)

    def _of_numbers(self, leaf: _Leaf, column: npt.NDArray[Any]) -> Bounds:
        source = leaf.source
        numbers, is_null = self._batch.numbers(source.column, column, source.divisor)
        if leaf.compare is not None:
            function, constant = leaf.compare
            verdicts = np.asarray(function(numbers, constant), np.bool_)
        else:
            values, places = np.unique(numbers, return_inverse=True)
            verdicts = np.fromiter(map(leaf.test, values.tolist()), np.bool_, len(values))[places]
        return self._with_nulls(leaf, verdicts, is_null, is_ambiguous=False)
