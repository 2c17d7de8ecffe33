"""`compile` and `check`: the way from text to a Filter, and all that others ask a Filter."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfl import core
from kfl.errors import Diagnostic, KflError
from kfl.explain import explain
from kfl.live import RECORD, needs_live, protocols
from kfl.match import Matcher
from kfl.parse import Parsed, parse
from kfl.resolve import Meaning, check_macro_names, resolve

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from kfl.batch import Batch, Columns, Mask
    from kfl.columns import ColumnFilter
    from kfl.packets import Packets
    from kfl.prune import Prune

NO_MACROS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Sql:
    """A condition over ENTRIES and `record`; `?` stands for each parameter in order.

    When not `exact`, rows that it lets through still have to be asked `Filter.matches`.
    """

    text: str
    """Never NULL."""
    where: str
    """The same for a WHERE: NULL for some of what is false, as DuckDB's readers understand it."""
    parameters: list[Any]
    exact: bool = True


class Filter:
    """A compiled filter. It does not change; threads may share it."""

    __slots__ = ("_columns", "_matches", "_meaning", "_parsed", "_uses_record", "_warnings", "text")

    def __init__(self, text: str, parsed: Parsed, meaning: Meaning) -> None:
        """Made by compile()."""
        self.text = text
        self._warnings: list[Diagnostic] | None = None
        self._parsed = parsed
        self._meaning = meaning
        self._uses_record = any(
            isinstance(node, core.Record) or node == RECORD for node in core.walk(meaning.tree)
        )
        self._matches = Matcher().test(meaning.tree)
        self._columns: ColumnFilter | None = None

    def __repr__(self) -> str:
        return f"Filter({self.text!r})"

    @property
    def warnings(self) -> list[Diagnostic]:
        """What is doubtful, in the order of the text."""
        if self._warnings is None:
            self._warnings = _remarks(self._parsed, self._meaning)
        return self._warnings

    def matches(self, entry: Mapping[str, Any], record: str | None = None) -> bool:
        """Whether the JSON object of an entry matches; `record` is the recording it is from."""
        if record is not None and self._uses_record:
            entry = {**entry, "record": record}
        return self._matches(entry)

    def sql(
        self,
        recordings: Mapping[str, str] | None = None,
        protocols: Callable[[], Collection[str] | None] = lambda: None,
    ) -> Sql:
        """The same as a condition in DuckDB's SQL.

        `recordings` says which value of the column `record` each name stands for; a name that it
        does not have stands for itself. `protocols` gives every value of protocol_name in the rows,
        if that is known; it is called only when the condition is simpler for knowing it.
        """
        from kfl.sql import where

        return where(self._meaning.tree, recordings or {}, protocols)

    def prune(self) -> Prune:
        """Bounds of time and columns in which every match lies; what cannot be told is open."""
        from kfl.prune import prune

        return prune(self._meaning.tree)

    def columns(self, columns: Columns | Batch, rows: int) -> npt.NDArray[np.bool_]:
        """Which rows may match: never no wrongly. Columns as in ARCHITECTURE.md."""
        return self.bounds(columns, rows)[0]

    def bounds(
        self, columns: Columns | Batch, rows: int, asked: Mask | None = None
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(rows that may match, rows that certainly do); what lies between needs its entry.

        `asked`: which rows matter; of others it says nothing. Filters that are given the same Batch
        share what they find out.
        """
        return self._column_filter().bounds(columns, rows, asked)

    @property
    def is_exact(self) -> bool:
        """columns() alone decides, from the columns that every protocol gives."""
        return self._column_filter().is_exact

    def _column_filter(self) -> ColumnFilter:
        if self._columns is None:
            from kfl.columns import ColumnFilter

            self._columns = ColumnFilter(self._meaning.tree)
        return self._columns

    def protocols(self) -> frozenset[str] | None:
        """Protocol words of which every matching entry is at least one; None when there is none."""
        return protocols(self._meaning.tree)

    def packets(self) -> Packets:
        """The packets and dissectors that matching entries need; perhaps more, never fewer."""
        from kfl.packets import packets

        return packets(self._meaning.tree)

    def recordings(self) -> tuple[str, ...]:
        """Names in record(), in the order in which they first appear."""
        return self._meaning.recordings

    @property
    def needs_live(self) -> bool:
        """Some way to be true does not go through record()."""
        return needs_live(self._meaning.tree)

    @property
    def limit(self) -> int | None:
        """How many results are wanted at most; None for all."""
        return self._meaning.limit

    @property
    def redactions(self) -> tuple[str, ...]:
        """Paths of the entry that redact() names, aliases resolved."""
        return self._meaning.redactions

    def explain(self) -> str:
        """The filter as a tree in text, and what becomes of it."""
        return explain(self, self._parsed.tree, self._meaning.tree)


def compile(text: str, macros: Mapping[str, str] = NO_MACROS) -> Filter:  # noqa: A001
    """A filter from its text; `macros` are operators' words and what they stand for.

    Raises KflError with the first thing that is wrong.
    """
    check_macro_names(macros)
    parsed = parse(text)
    meaning = resolve(parsed.tree, text, macros, _now_ms())
    for problem in meaning.problems:
        if problem.is_error:
            raise KflError(problem.message, problem.line, problem.column, problem.suggestion)
    return Filter(text, parsed, meaning)


def check(text: str, macros: Mapping[str, str] = NO_MACROS) -> list[Diagnostic]:
    """Everything that is wrong or doubtful, in the order of the text; never raises."""
    try:
        check_macro_names(macros)
        parsed = parse(text)
        return _remarks(parsed, resolve(parsed.tree, text, macros, _now_ms()))
    except KflError as error:
        return [error.diagnostic()]


def _remarks(parsed: Parsed, meaning: Meaning) -> list[Diagnostic]:
    found = [*parsed.warnings, *meaning.problems]
    if not any(problem.is_error for problem in found):
        found += meaning.doubts()
    return sorted(found, key=lambda problem: (problem.line, problem.column))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
