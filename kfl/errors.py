"""What is said about a filter that is wrong or doubtful. Every other file here uses it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

CLOSE_ENOUGH = 0.6
"""How alike two words must be (0 to 1) for one to be suggested: difflib's own default."""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One remark about a filter; line and column count from 1, columns in characters."""

    is_error: bool
    line: int
    column: int
    message: str
    suggestion: str = ""


class KflError(ValueError):
    """A filter that cannot be used. Its text says what is wrong, where, and what would be right."""

    def __init__(self, message: str, line: int = 1, column: int = 1, suggestion: str = "") -> None:
        where = f"line {line}, column {column}: {message}"
        super().__init__(f"{where} {suggestion}" if suggestion else where)
        self.message = message
        self.line = line
        self.column = column
        self.suggestion = suggestion

    def diagnostic(self) -> Diagnostic:
        """The same as a Diagnostic."""
        return Diagnostic(True, self.line, self.column, self.message, self.suggestion)


def nearest(word: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `known` words most like `word`, best first; those that differ only in case come first."""
    names = sorted(set(known))
    same = [name for name in names if name.lower() == word.lower()]
    if same:
        return same[:count]
    return difflib.get_close_matches(word[:100], names, count, CLOSE_ENOUGH)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`Did you mean a or b?`, or "" when nothing is near."""
    found = nearest(word, known)
    if not found:
        return ""
    return f"Did you mean {' or '.join(found)}?"
