"""The filter language: text to a Filter that decides about entries. No I/O.

What others use: `compile`, `check`, `KflError`, `Diagnostic`, `Filter`, `Sql`, `nearest` and
`fields.CATALOGUE`; while a filter is being written, `complete` and `tokens`.
"""

from kfl import fields
from kfl.complete import Candidate, Completions, complete
from kfl.errors import Diagnostic, KflError, nearest
from kfl.filter import Filter, Sql, check, compile  # noqa: A004, the language's own word
from kfl.tokens import Token, tokens

__all__ = [
    "Candidate",
    "Completions",
    "Diagnostic",
    "Filter",
    "KflError",
    "Sql",
    "Token",
    "check",
    "compile",
    "complete",
    "fields",
    "nearest",
    "tokens",
]
