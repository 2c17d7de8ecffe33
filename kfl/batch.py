"""Columns of some calls, and what filters have found out about them. Capture makes one for each
batch of each protocol and gives it to all of its filters, so that they share the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

Mask: TypeAlias = "npt.NDArray[np.bool_] | np.bool_"
"""A truth for each row, or one for all of them."""
Bounds: TypeAlias = tuple[Mask, Mask]
"""Rows that may, and rows that must."""
Rows: TypeAlias = npt.NDArray[np.int64]
Late: TypeAlias = "Callable[[Rows], pa.StringArray | None]"
"""Makes the texts of some rows alone: for a column that is dear."""
Shared: TypeAlias = "str | int | bool | frozenset[str]"
Column: TypeAlias = "npt.NDArray[Any] | pa.StringArray | Late | Shared | None"
"""Numbers with -1 for null; texts of Arrow, or objects with "" for null or empty; Late; or what all
rows have, with None for null."""
Columns: TypeAlias = Mapping[str, Column]

NULL_NUMBER = -1
NONE = np.bool_(False)
"""The mask of nulls where there are none."""

LONG_TEXT = 256
"""Octets, on average, above which texts are bodies, of which few are equal."""


class Texts:
    """Texts of some rows."""

    def __init__(self, column: npt.NDArray[Any] | pa.StringArray) -> None:
        self.is_null: Mask = NONE
        self.column: pa.StringArray | None = None
        """Arrow's, with "" for null; None where objects were given, whose nulls may be empty."""
        if isinstance(column, np.ndarray):
            self.is_null = np.fromiter((not each for each in column), np.bool_, len(column))
            places: dict[str, int] = {}
            codes = [places.setdefault(each, len(places)) for each in column]
            self.distinct = list(places), np.array(codes, np.int64)
        elif column.null_count:
            self.is_null = column.is_null().to_numpy(zero_copy_only=False)
            self.column = column.fill_null("")
        else:
            self.column = column

    @cached_property
    def distinct(self) -> tuple[list[str], npt.NDArray[np.int64] | slice]:
        """Each different text, and which of them each row has."""
        assert self.column is not None
        if self.column.nbytes > LONG_TEXT * len(self.column):
            return self.column.to_pylist(), slice(None)
        found = self.column.dictionary_encode()
        return found.dictionary.to_pylist(), found.indices.to_numpy().astype(np.int64)

    @cached_property
    def parsed(self) -> list[Any]:
        """The different texts, which are JSON, as objects; empty ones where they are damaged."""
        return [*map(parsed, self.distinct[0])]


def parsed(text: str) -> dict[str, Any]:
    """Return a JSON object; an empty one where the text is none."""
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


class Batch:
    """Columns of `rows` calls."""

    def __init__(self, columns: Columns, rows: int) -> None:
        self._columns = columns
        self.rows = rows
        self.words: dict[str, Bounds] = {}
        """What filters have found out: which rows are of a protocol word."""
        self._texts: dict[str, Texts] = {}
        self._late: dict[str, tuple[Mask, Rows, Texts | None]] = {}
        self._numbers: dict[tuple[str, int], tuple[npt.NDArray[Any], Mask]] = {}

    def get(self, name: str) -> Column | type[NotGiven]:
        """Return a column as it was given."""
        return self._columns.get(name, NotGiven)

    def texts(self, name: str, column: npt.NDArray[Any] | pa.StringArray) -> Texts:
        """Return a column of texts."""
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = Texts(column)
        return found

    def late(self, name: str, make: Late, asked: Mask) -> tuple[Rows, Texts | None]:
        """Return (rows, their texts or None for all null); `asked` are among the rows."""
        made = self._late.get(name)
        if made is None or (asked & ~made[0]).any():
            rows = np.flatnonzero(asked) if asked.ndim else np.arange(self.rows)
            column = make(rows)
            made = asked, rows, None if column is None else Texts(column)
            self._late[name] = made
        return made[1:]

    def numbers(
        self, name: str, column: npt.NDArray[Any], divisor: int
    ) -> tuple[npt.NDArray[Any], Mask]:
        """Return (numbers divided, which are null)."""
        found = self._numbers.get((name, divisor))
        if found is None:
            is_null = column == NULL_NUMBER
            values = column.astype(np.int64, copy=False)
            found = (values if divisor == 1 else values // divisor), is_null
            if not is_null.any():
                found = found[0], NONE
            self._numbers[name, divisor] = found
        return found


class NotGiven:
    """In place of a column that a batch does not have."""
