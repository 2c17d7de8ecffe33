"""The option `--sample` of the commands that look at traffic themselves."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli.terminal import BAD_INPUT, CommandError
from services.runtime.values import percentage

Sample = Annotated[
    str,
    typer.Option(
        "--sample", metavar="PERCENT", help="Look at so many percent of the streams, each whole."
    ),
]


def percent(given: str) -> float:
    """Return the percentage that was given. Raises CommandError when it is none."""
    try:
        return percentage(given)
    except ValueError as error:
        raise CommandError(f"--sample: {error}", BAD_INPUT) from None
