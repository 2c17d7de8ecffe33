"""A KFL statement on the terminal: compiled, or shown with a caret under what is wrong."""

from __future__ import annotations

import kfl
from services.cli.terminal import BAD_INPUT, CommandError


def compiled(text: str) -> kfl.Filter:
    """Return the filter; a CommandError that shows what is wrong if there is none."""
    try:
        return kfl.compile(text)
    except kfl.KflError as error:
        raise CommandError(show(text, error.diagnostic()), BAD_INPUT) from None


def warnings(text: str) -> list[str]:
    """Return what is doubtful in a statement that can be used, each shown."""
    return [show(text, found) for found in kfl.check(text) if not found.is_error]


def errors(text: str) -> str:
    """Return the errors in a statement, shown, or "" when this version finds none."""
    return "\n".join(show(text, found) for found in kfl.check(text) if found.is_error)


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
