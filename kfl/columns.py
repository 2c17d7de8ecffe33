"""A filter over what capture knows before an entry is built: NumPy columns, named as in ENTRIES.

Each condition gets two masks: rows in which it may hold and rows in which it certainly does. A
column that is not given, and a null that can mean two things, say "perhaps". The verdict about a
value is the reference's own (`match`), asked once for each different value, so the two cannot
contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from kfl import core
from kfl.match import SURE_INTEGER, Matcher
from kfl.values import MISSING
from kfl.values import truth as constant_truth
from kfl.words import HTTP_IN_COLUMNS, WORDS

Mask: TypeAlias = npt.NDArray[np.bool_]
Bounds: TypeAlias = tuple[Mask, Mask]
Columns: TypeAlias = Mapping[str, np.ndarray]

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
}
"""Selectors that one column decides."""

NULL_NUMBER = -1
NULL_TEXT = ""


class ColumnFilter:
    """A filter, prepared for columns."""

    def __init__(self, node: core.Core) -> None:
        self._node = node
        self._leaves: dict[int, _Leaf | None] = {}
        self.undecided: list[core.Core] = []
        """Conditions that no column decides."""
        self.is_exact = self._prepare(node)

    def bounds(self, columns: Columns, rows: int) -> Bounds:
        """(may, must): boolean arrays of `rows` elements."""
        return _Run(columns, rows, self._leaves).bounds(self._node)

    def _prepare(self, node: core.Core) -> bool:
        """Looks at each condition once; whether the columns of GIVEN decide it."""
        match node:
            case core.Const():
                return True
            case core.Word(name=name):
                return not WORDS[name].versions
            case core.Not() | core.All() | core.Some() | core.IfElse():
                prepared = [self._prepare(child) for child in core.children(node)]
                return all(prepared)
            case _:
                leaf = _leaf(node)
                self._leaves[id(node)] = leaf
                if leaf is None:
                    self.undecided.append(node)
                return leaf is not None and leaf.is_exact


class _Leaf:
    """A condition on the value of one column, under the words of `guards`."""

    def __init__(self, node: core.Core, guards: tuple[str, ...], select: core.Select) -> None:
        self.guards = guards
        self.source = _SOURCES[select.steps]
        self.test: Callable[[Any], bool] = _ValueMatcher().test(node)
        self.compare = _plain_comparison(node)
        null = self.source.null
        # An empty text is the null of a column that can also hold an empty text.
        self.null_bounds = (
            [self.test(null), self.test("")] if self.source.is_text else [self.test(null)]
        )
        decided = len(set(self.null_bounds)) == 1 and self.source.certain is None
        self.is_exact = (
            decided
            and self.source.column in GIVEN
            and not any(WORDS[word].versions for word in guards)
        )


class _ValueMatcher(Matcher):
    """Closures over a value instead of an entry: the selector gives the value itself."""

    def select(self, steps: tuple[core.Step, ...]) -> Callable[[Any], Any]:
        del steps
        return lambda value: value


def _leaf(node: core.Core) -> _Leaf | None:
    """The leaf that a condition is; None when a column cannot decide it."""
    guards: list[str] = []
    bare = _without_guards(node, guards)
    below = core.walk(bare)
    unfit = (core.Guarded, core.Record, core.Word, core.Down, core.First, core.Gather, core.Decode)
    if any(isinstance(each, unfit) for each in below):
        return None
    selects = {each for each in below if isinstance(each, core.Select)}
    if len(selects) != 1:
        return None
    (select,) = selects
    return _Leaf(bare, tuple(guards), select) if select.steps in _SOURCES else None


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


class _Run:
    """One batch."""

    def __init__(self, columns: Columns, rows: int, leaves: Mapping[int, _Leaf | None]) -> None:
        self._columns = columns
        self._rows = rows
        self._leaves = leaves

    def _all(self, value: bool) -> Mask:
        return np.full(self._rows, value, np.bool_)

    def _both(self, mask: Mask) -> Bounds:
        return mask, mask

    def _perhaps(self) -> Bounds:
        return self._all(True), self._all(False)

    def bounds(self, node: core.Core) -> Bounds:
        """(may, must) of a condition."""
        match node:
            case core.Const(value=value):
                return self._both(self._all(constant_truth(value)))
            case core.Word(name=name):
                return self._word(name)
            case core.Not(operand=operand):
                may, must = self.bounds(operand)
                return ~must, ~may
            case core.All(operands=operands):
                return self._fold(operands, np.logical_and, stop=False)
            case core.Some(operands=operands):
                return self._fold(operands, np.logical_or, stop=True)
            case core.IfElse(condition=condition, yes=yes, no=no):
                may, must = self.bounds(condition)
                yes_may, yes_must = self.bounds(yes)
                no_may, no_must = self.bounds(no)
                return (may & yes_may) | (~must & no_may), (must & yes_must) | (~may & no_must)
            case _:
                leaf = self._leaves.get(id(node))
                return self._perhaps() if leaf is None else self._leaf(leaf)

    def _fold(
        self, operands: tuple[core.Core, ...], join: Callable[[Mask, Mask], Mask], *, stop: bool
    ) -> Bounds:
        """The operands one after the other, until no row can change any more."""
        may, must = self.bounds(operands[0])
        for operand in operands[1:]:
            # `and` is decided when no row may hold, `or` when every row must.
            if not may.any() if not stop else must.all():
                break
            next_may, next_must = self.bounds(operand)
            may, must = join(may, next_may), join(must, next_must)
        return may, must

    # ------------------------------------------------------------------ words

    def _among(self, column: str, values: frozenset[str]) -> Bounds:
        found = self._columns.get(column)
        if found is None:
            return self._perhaps()
        return self._both(np.fromiter((each in values for each in found), np.bool_, self._rows))

    def _word(self, name: str) -> Bounds:
        word = WORDS[name]
        if word.transport:
            return self._among("transport", frozenset({word.transport}))
        may, must = self._among("protocol_name", word.names)
        if word.encrypted:
            tls = self._columns.get("tls")
            if tls is None:
                return self._all(True), must
            tls = np.asarray(tls, np.bool_)
            return may | tls, must | tls
        if word.abbrs:
            other_may, other_must = self._among("protocol_abbr", word.abbrs)
            if word.versions:
                version_may, version_must = self._among("protocol_version", word.versions)
                other_may, other_must = other_may | version_may, other_must | version_must
            return may & other_may, must & other_must
        return may, must

    # ------------------------------------------------------------------ values

    def _leaf(self, leaf: _Leaf) -> Bounds:
        may, must = self._all(True), self._all(True)
        for word in leaf.guards:
            word_may, word_must = self._word(word)
            may, must = may & word_may, must & word_must
        if not may.any():
            return may, must
        leaf_may, leaf_must = self._values(leaf)
        return may & leaf_may, must & leaf_must

    def _values(self, leaf: _Leaf) -> Bounds:
        source = leaf.source
        column = self._columns.get(source.column)
        if column is None:
            return self._perhaps()
        if source.is_text:
            is_null = np.fromiter((not each for each in column), np.bool_, self._rows)
            verdicts = self._of_texts(leaf, column)
        else:
            column = np.asarray(column)
            is_null = column == NULL_NUMBER
            verdicts = self._of_numbers(leaf, column)
        may = np.where(is_null, any(leaf.null_bounds), verdicts)
        must = np.where(is_null, all(leaf.null_bounds), verdicts)
        if source.certain is None or not is_null.any():
            return may, must
        _, certain = self._among("protocol_name", source.certain)
        elsewhere = is_null & ~certain  # perhaps in the JSON text
        return may | elsewhere, must & ~elsewhere

    def _of_texts(self, leaf: _Leaf, column: np.ndarray) -> Mask:
        known: dict[str, bool] = {}
        test = leaf.test

        def verdict(text: str) -> bool:
            found = known.get(text)
            if found is None:
                found = known[text] = test(text)
            return found

        return np.fromiter(map(verdict, column), np.bool_, self._rows)

    def _of_numbers(self, leaf: _Leaf, column: np.ndarray) -> Mask:
        divisor = leaf.source.divisor
        if divisor != 1:
            column = column // divisor
        if leaf.compare is not None:
            function, constant = leaf.compare
            return np.asarray(function(column.astype(np.int64, copy=False), constant), np.bool_)
        values, places = np.unique(column, return_inverse=True)
        verdicts = np.fromiter(map(leaf.test, values.tolist()), np.bool_, len(values))
        return np.asarray(verdicts[places], np.bool_)
