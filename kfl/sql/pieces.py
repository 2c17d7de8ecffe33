"""Pieces of SQL with their parameters in order.

Text comes from this package alone, never from a filter.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

LONGEST_REPEATED = 160
"""Characters of a piece that is written twice rather than bound to a name."""

MAX_LENGTH = 200_000
"""Characters of a condition: DuckDB takes about a second to plan so many."""

MAX_DEPTH = 250
"""Brackets and CASEs in each other. DuckDB refuses 1,000 levels, up to four to one of ours."""

_numbers = itertools.count()

_NESTING = re.compile(r"'[^']*'|[(\[]|[)\]]|\bCASE\b|\bEND\b")


class TooLargeError(Exception):
    """A condition beyond MAX_LENGTH or MAX_DEPTH."""


@dataclass(frozen=True, slots=True)
class Piece:
    """SQL text in which each `?` stands for one parameter, in order."""

    text: str
    parameters: tuple[Any, ...] = ()
    loose: str = ""
    """The same condition, with the same parameters, but NULL for some of what is false."""

    @property
    def in_where(self) -> str:
        """The text for where NULL counts as false; DuckDB's readers understand more of it."""
        return self.loose or self.text


TRUE = Piece("TRUE")
FALSE = Piece("FALSE")
NULL_JSON = Piece("NULL::JSON")
NIL_JSON = Piece("'null'::JSON")


def parameter(value: Any) -> Piece:
    """A value of the filter."""
    return Piece("?", (value,))


def texts(words: Collection[str]) -> str:
    """Words of our own as a list of SQL."""
    return "(" + ", ".join(f"'{word}'" for word in sorted(words)) + ")"


def put(template: str, *parts: Piece) -> Piece:
    """The template with each `{}` replaced by a piece."""
    texts = template.split("{}")
    assert len(texts) == len(parts) + 1, template
    joined = texts[0]
    parameters: list[Any] = []
    for part, text in zip(parts, texts[1:], strict=True):
        joined += part.text + text
        parameters += part.parameters
    if len(joined) > MAX_LENGTH:
        raise TooLargeError
    return Piece(joined, tuple(parameters))


def join(separator: str, parts: list[Piece]) -> Piece:
    """The pieces with a separator between them."""
    return Piece(
        separator.join(part.text for part in parts),
        tuple(value for part in parts for value in part.parameters),
    )


def is_true(condition: Piece) -> Piece:
    """A condition, false where it is NULL."""
    return replace(put("coalesce({}, FALSE)", condition), loose=condition.text)


def _logic(operator: str, parts: list[Piece]) -> Piece:
    """AND or OR of pieces, of which each can be in its loose form."""
    made = put("({})", join(operator, parts))
    if not any(part.loose for part in parts):
        return made
    return replace(made, loose=f"({operator.join(part.in_where for part in parts)})")


def all_of(parts: list[Piece]) -> Piece:
    """AND; TRUE for none."""
    if FALSE in parts:
        return FALSE
    kept = [part for part in parts if part != TRUE]
    if len(kept) < 2:
        return kept[0] if kept else TRUE
    return _logic(" AND ", kept)


def some_of(parts: list[Piece]) -> Piece:
    """OR; FALSE for none."""
    if TRUE in parts:
        return TRUE
    kept = [part for part in parts if part != FALSE]
    if len(kept) < 2:
        return kept[0] if kept else FALSE
    return _logic(" OR ", kept)


def negate(part: Piece) -> Piece:
    """NOT."""
    if part == TRUE:
        return FALSE
    return TRUE if part == FALSE else put("(NOT {})", part)


def name() -> str:
    """A name for a lambda's parameter that is used nowhere else."""
    return f"x{next(_numbers)}"


def check_depth(text: str) -> None:
    """Raises TooLargeError."""
    level = 0
    for token in _NESTING.findall(text):
        if token in ("(", "[", "CASE"):
            level += 1
            if level > MAX_DEPTH:
                raise TooLargeError
        elif not token.startswith("'"):
            level -= 1


def renumbered(text: str) -> str:
    """The text with its bound names counted from 0, so that a filter always has the same text."""
    names: dict[str, str] = {}
    return re.sub(
        r"\bx\d+\b", lambda found: names.setdefault(found.group(), f"x{len(names)}"), text
    )


def let(value: Piece, body: Callable[[Piece], Piece]) -> Piece:
    """`body` of a value that is computed once. SQL has no let; a list of one element does."""
    if len(value.text) <= LONGEST_REPEATED:
        return body(value)
    bound = name()
    inner = body(Piece(bound))
    return put("list_transform([{}], lambda " + bound + ": {})[1]", value, inner)


def items_of(x: Piece, path: str = "$[*]") -> Piece:
    """The elements of a JSON list, or what else a path finds many of.

    With its type, since DuckDB takes what it finds below a constant for a null without one.
    """
    return put(f"CAST(json_extract({{}}, '{path}') AS JSON[])", x)


def each(items: Piece, body: Callable[[Piece], Piece]) -> Piece:
    """list_transform."""
    bound = name()
    return put("list_transform({}, lambda " + bound + ": {})", items, body(Piece(bound)))


def those(items: Piece, test: Callable[[Piece], Piece]) -> Piece:
    """list_filter."""
    bound = name()
    return put("list_filter({}, lambda " + bound + ": {})", items, test(Piece(bound)))


def any_of(items: Piece, test: Callable[[Piece], Piece]) -> Piece:
    """Whether the test holds for some element; FALSE for a NULL list."""
    return put("coalesce(len({}) > 0, FALSE)", those(items, test))
