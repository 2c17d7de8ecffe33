"""`recorder kfl`: check, explain, complete and match statements, without any service."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated, Any

import typer

import kfl
from kfl import macros as words
from services.cli import statement
from services.cli.terminal import (
    BAD_INPUT,
    CommandError,
    Output,
    new_app,
    print_json,
    print_table,
    say,
)

app = new_app(no_args_is_help=True, help="Check, explain and try out KFL statements.")

MAX_LINE_CHARACTERS = 64 << 20
"""An entry is a line; bodies have limits far below this, so a longer one is no entry."""

Text = Annotated[str, typer.Argument(metavar="KFL", help="The statement, in one argument.")]


@app.command()
def check(
    text: Text,
    output: Annotated[Output, typer.Option(help="Text for people, JSON for programs.")] = (
        Output.TABLE
    ),
    macros: statement.Macros = "",
) -> None:
    """Say whether a statement can be used, and what is doubtful about it."""
    found = kfl.check(text, statement.read_macros(macros))
    wrong = any(diagnostic.is_error for diagnostic in found)
    if output is Output.JSON:
        print_json({"ok": not wrong, "diagnostics": [_as_json(item) for item in found]})
    else:
        for diagnostic in found:
            say(statement.show(text, diagnostic))
        if not wrong:
            print("The statement can be used.")
    if wrong:
        raise typer.Exit(BAD_INPUT)


@app.command()
def explain(text: Text, macros: statement.Macros = "") -> None:
    """Show how a statement is understood."""
    for warning in statement.compiled(text, macros).warnings:
        say(statement.show(text, warning))
    print(words.explain(text, statement.read_macros(macros)).rstrip("\n"))


@app.command()
def match(text: Text, macros: statement.Macros = "") -> None:
    """Copy those entries from stdin to stdout that match; one JSON object a line."""
    found = statement.compiled(text, macros)
    for warning in found.warnings:
        say(statement.show(text, warning))
    redactions = None
    if found.redactions:
        from recordings.redaction import Redactions

        redactions = Redactions(found.redactions)
    remaining = found.limit
    for number, line in enumerate(_lines(), start=1):
        if remaining == 0:
            break
        entry = _entry(line, number)
        if entry is None or not found.matches(entry, _record(entry)):
            continue
        if redactions is not None:
            redactions.apply(entry)
            line = json.dumps(entry, ensure_ascii=False, separators=(",", ":"))
        # At once: what comes before may be following a recording.
        print(line.rstrip("\n"), flush=True)
        if remaining is not None:
            remaining -= 1


@app.command()
def complete(
    text: Text,
    caret: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Characters before the caret; all if not given."),
    ] = None,
    recording: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name for record(); repeatable.")
    ] = None,
    output: Annotated[Output, typer.Option(help="Table for people, JSON for programs.")] = (
        Output.TABLE
    ),
    macros: statement.Macros = "",
) -> None:
    """Show what can stand at a place of a statement, best first."""
    if caret is not None and caret > len(text):
        raise typer.BadParameter(f"--caret {caret} is behind the end: {len(text)} characters.")
    found = kfl.complete(
        text,
        len(text) if caret is None else caret,
        recordings=recording or (),
        macros=statement.read_macros(macros),
    )
    if output is Output.JSON:
        print_json(dataclasses.asdict(found))
        return
    rows = [(each.insert, each.kind, each.type, each.help) for each in found.candidates]
    print_table(("INSERT", "KIND", "TYPE", "HELP"), rows)


def _lines() -> Any:
    """Yield lines of stdin. Raises CommandError for what is no text or has no end."""
    try:
        while line := sys.stdin.readline(MAX_LINE_CHARACTERS):
            if len(line) == MAX_LINE_CHARACTERS and not line.endswith("\n"):
                raise CommandError(
                    f"A line of stdin is longer than {MAX_LINE_CHARACTERS} characters.", BAD_INPUT
                )
            yield line
    except UnicodeDecodeError as error:
        raise CommandError(f"stdin is not UTF-8: {error.reason}.", BAD_INPUT) from None


def _entry(line: str, number: int) -> dict[str, Any] | None:
    """Return the object in a line, None for an empty line. Raises CommandError."""
    if not line.strip():
        return None
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", "it is nested too deeply")
        raise CommandError(f"Line {number} of stdin is not JSON: {reason}.", BAD_INPUT) from None
    if not isinstance(entry, dict):
        raise CommandError(f"Line {number} of stdin is JSON but not an object.", BAD_INPUT)
    return entry


def _record(entry: dict[str, Any]) -> str | None:
    record = entry.get("record")
    return record if isinstance(record, str) else None


def _as_json(diagnostic: kfl.Diagnostic) -> dict[str, object]:
    return {
        "error": diagnostic.is_error,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "message": diagnostic.message,
        "suggestion": diagnostic.suggestion,
    }
