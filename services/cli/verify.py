"""`recorder verify`: whether a recording on disk is what was written, without any service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.terminal import (
    BAD_INPUT,
    FAILED,
    CommandError,
    Output,
    counted,
    new_app,
    print_json,
    printable,
    progress,
)

if TYPE_CHECKING:
    from recordings.verify import Checked

app = new_app()

LONGEST_SENTENCE = 1000
"""Characters of a difference that are shown; what was found may be a name from a damaged file."""


@app.command()
def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the recording.")],
    run: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only this run; all if not given.")
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            envvar="RECORDER_DATA",
            metavar="FOLDER|URL",
            help="The data folder of the scheduler, or an archive, as in s3://bucket/prefix.",
        ),
    ] = ".data",
    storage: Annotated[
        str,
        typer.Option(
            envvar="RECORDER_STORAGE",
            metavar="URL",
            help="Where recordings live, if the scheduler has this setting.",
        ),
    ] = "",
    output: Annotated[
        Output, typer.Option(help="Lines for people, one JSON object for programs.")
    ] = Output.TABLE,
) -> None:
    """Compare every file of a recording with its checksums. The scheduler may be running.

    Shows the first difference of each run: the file, what was expected, what was found. The exit
    code is 1 then.
    """
    from recordings.remote import RemoteError
    from recordings.snapshot import NotFoundError

    found: list[Checked] = []
    try:
        with progress() as shown:
            task = shown.add_task(f"Reading {printable(name)}", total=None)
            for checked in _checked(data, name, run, storage):
                found.append(checked)
                shown.update(task, description=f"Reading {name}: {counted(len(found), 'run')}")
    except (ValueError, NotFoundError) as error:
        raise CommandError(str(error), BAD_INPUT) from None
    except RemoteError as error:
        raise CommandError(str(error), FAILED) from None
    differences = [each.difference for each in found if each.difference]
    if output is Output.JSON:
        runs = [_as_json(each) for each in found]
        print_json({"recording": name, "ok": not differences, "runs": runs})
        if differences:
            raise typer.Exit(FAILED)
        return
    for each in found:
        if each.difference is None:
            print(_line(each))
    if not found:
        print(f'The recording "{name}" has no run.')
    if differences:
        sentences = (printable(each.sentence(), LONGEST_SENTENCE) for each in differences)
        raise CommandError("\n".join(sentences), FAILED)


def _checked(data: str, name: str, run: int | None, storage: str) -> Iterator[Checked]:
    from recordings import archivecheck, verify
    from recordings.remote import Remote
    from recordings.storage import Storage

    if "://" in data:
        return archivecheck.check(Remote(data), name, run)
    found = Storage(storage) if storage else None
    return verify.check(Path(data), name, run, storage=found)


def _line(checked: Checked) -> str:
    one = {"entries": "entry", "losses": "loss"}
    amounts = [
        counted(rows, one.get(table, table.removesuffix("s")), table)
        for table, rows in checked.rows.items()
    ]
    amounts += [counted(checked.segments, "segment"), counted(checked.journals, "journal")]
    return f"run {checked.run}: ok, {', '.join(amounts)}, {counted(checked.bytes, 'octet')}"


def _as_json(checked: Checked) -> dict[str, Any]:
    found: dict[str, Any] = {"run": checked.run, "ok": checked.difference is None}
    if checked.difference:
        difference = checked.difference
        return found | {
            "difference": {
                "file": difference.file,
                "expected": difference.expected,
                "found": difference.found,
            }
        }
    return found | {
        "rows": checked.rows,
        "segments": checked.segments,
        "journals": checked.journals,
        "bytes": checked.bytes,
    }
