"""What the commands say and how: errors with their exit codes, tables, JSON, progress.

Every command's module is loaded only when it runs, so this one imports nothing that is slow.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

FINE = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: what a shell shows for any program whose reader went away."""

PIPED_WIDTH = 200
"""Columns of a table that goes to a file or a pipe, where there is no terminal to ask."""

WIDEST_TABLE = 10_000
"""Columns that no table has: 40 cells of MAX_CELL_CHARACTERS, all wide characters."""

NARROW_CELL_CHARACTERS = 32
"""What a table shows of one value in a terminal that is too narrow for it."""

MAX_CELL_CHARACTERS = 120
"""What a table shows of one value; the whole of it is in --output json."""


class CommandError(Exception):
    """Ends the command with these lines on stderr and this exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Output(StrEnum):
    """How a command writes its answer."""

    TABLE = "table"
    JSON = "json"


def new_app(**settings: Any) -> typer.Typer:
    """Return a typer app in the style of this command: plain help, our own errors."""
    return typer.Typer(
        rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, **settings
    )


def say(line: str) -> None:
    """Write a line for the person to stderr, so that stdout holds the answer alone."""
    print(line, file=sys.stderr, flush=True)


def console(*, stderr: bool = False) -> Console:
    """Return rich's console for the answer, or for what is said beside it."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


def progress(*, share: bool = False) -> Progress:
    """Return a progress display on stderr; it shows nothing where that is no terminal.

    With `share`, also the share that is done, where it is known.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    shown = console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        *([TaskProgressColumn()] if share else []),
        TimeElapsedColumn(),
        console=shown,
        transient=True,
        disable=not shown.is_terminal,
    )


def printable(value: object, most: int = MAX_CELL_CHARACTERS) -> str:
    """Return text that cannot move the cursor: it may have come from the wire.

    More than `most` characters are cut off.
    """
    text = "" if value is None else str(value)
    if len(text) > most:
        text = text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, one: str, many: str = "") -> str:
    """Return "1 entry" or "7 entries"; `many` is `one` with an s if not given."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table to stdout; every cell is made printable, none is read as markup.

    In a narrow terminal long cells are cut to NARROW_CELL_CHARACTERS, and lines that are
    still too long go on below, as the terminal does it: columns squeezed to nothing tell nothing.
    """
    shown = console()
    texts = [[printable(cell) for cell in row] for row in rows]
    table = _table(headers, texts, title)
    if _width(shown, table) > shown.width:
        # The last column pushes no other one out of sight.
        cut = [[*map(_cut, row[:-1]), *row[-1:]] for row in texts]
        table = _table(headers, cut, title)
    shown.width = max(shown.width, _width(shown, table))
    with shown.capture() as capture:
        shown.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=Text(title) if title else None, title_justify="left")
    for header in headers:
        table.add_column(Text(header), overflow="ellipsis", no_wrap=True)
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    return table


def _width(shown: Console, table: Table) -> int:
    """Return the columns that a table takes when nothing is cut."""
    from rich.measure import Measurement

    widest = shown.options.update(max_width=WIDEST_TABLE)
    return Measurement.get(shown, widest, table).maximum


def _cut(cell: str) -> str:
    if len(cell) <= NARROW_CELL_CHARACTERS:
        return cell
    return cell[: NARROW_CELL_CHARACTERS - 1] + "…"


def print_json(value: Any) -> None:
    """Print one JSON value as one line to stdout."""
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
