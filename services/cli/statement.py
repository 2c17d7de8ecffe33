"""A KFL statement on the terminal: compiled, or shown with a caret under what is wrong."""

from __future__ import annotations

import re
from typing import Annotated

import typer

import kfl
from services.cli.terminal import BAD_INPUT, CommandError
from services.runtime import macros as words

Macros = Annotated[
    str,
    typer.Option("--macros", envvar="RECORDER_MACROS", metavar="JSON|FILE", help=words.HELP),
]

_PLACE = re.compile(r"(?<!`, )line (\d{1,6}), column (\d{1,6}): ")
"""Where a sentence about a place of the statement begins; not one of a place in a word."""


def read_macros(given: str) -> dict[str, str]:
    """Return operators' words. Raises CommandError with all that is wrong with them."""
    try:
        return words.read(given)
    except ValueError as error:
        raise CommandError(f"--macros: {error}", BAD_INPUT) from None


def compiled(text: str, macros: str = "") -> kfl.Filter:
    """Return the filter; a CommandError that shows what is wrong if there is none."""
    try:
        return kfl.compile(text, read_macros(macros))
    except kfl.KflError as error:
        raise CommandError(show(text, error.diagnostic()), BAD_INPUT) from None


def warnings(text: str) -> list[str]:
    """Return what is doubtful in a statement that can be used, each shown."""
    return [show(text, found) for found in kfl.check(text) if not found.is_error]


def errors(text: str, told: str) -> str:
    """Return what a service has told about places of a statement, shown there; "" if nothing.

    It may know more than this client: other recordings, operators' words.
    """
    before, *found = _PLACE.split(told)
    if before:
        return ""
    places = zip(found[::3], found[1::3], found[2::3], strict=True)
    return "\n".join(
        show(text, kfl.Diagnostic(True, int(line), int(column), message.strip()))
        for line, column, message in places
    )


def show(text: str, diagnostic: kfl.Diagnostic) -> str:
    """Return the line that it is about, a caret under the column, and what is wrong."""
    lines = text.split("\n")
    line = lines[diagnostic.line - 1] if diagnostic.line <= len(lines) else ""
    start = diagnostic.column - 1
    # A long statement is cut to what is near the caret.
    left = max(0, start - 60)
    shown = _flat(line[left : start + 40])
    marker = ("…" if left else "") + shown
    caret = " " * (len("…" if left else "") + len(_flat(line[left:start]))) + "^"
    kind = "" if diagnostic.is_error else "warning: "
    where = f"line {diagnostic.line}, column {diagnostic.column}: "
    message = " ".join(filter(None, (diagnostic.message, diagnostic.suggestion)))
    return f"  {marker}\n  {caret}\n{kind}{where}{printable_message(message)}"


def printable_message(message: str) -> str:
    """Return a message on one line; it may quote what the person wrote."""
    return " ".join(_flat(part) for part in message.split())


def _flat(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
