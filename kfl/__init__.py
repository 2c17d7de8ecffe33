"""The filter language: text to a Filter that decides about entries. No I/O.

What others use: `compile`, `check`, `KflError`, `Diagnostic`, `Filter`, `Sql`, `nearest` and
`fields.CATALOGUE`.
"""

from kfl import fields
from kfl.errors import Diagnostic, KflError, nearest
from kfl.filter import Filter, Sql, check, compile  # noqa: A004, the language's own word

__all__ = ["Diagnostic", "Filter", "KflError", "Sql", "check", "compile", "fields", "nearest"]
