"""`recorder export`: packets of matching streams, as a pcapng file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from recorder.v1 import query_pb2

from services.cli.clients import QUERY, QueryAddress, query
from services.cli.terminal import new_app, progress, say
from services.runtime.errors import UserError

app = new_app()


@app.command()
def export(
    text: Annotated[
        str, typer.Argument(metavar="KFL", help='Statement with record("name"), in one argument.')
    ],
    to: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The file to write; - is stdout."),
    ],
    address: QueryAddress = QUERY,
) -> None:
    """Write the packets of every stream in which an entry matches as a pcapng file."""
    size = 0
    with opened(to) as file, query(address, text) as stub, progress() as shown:
        task = shown.add_task(f"Writing {to}", total=None)
        for answer in stub.Export(query_pb2.ExportRequest(kfl=text)):
            file.write(answer.chunk)
            size += len(answer.chunk)
            shown.update(task, description=f"Writing {to}: {size} octets")
    say(f"Wrote {size} octets" + ("." if str(to) == "-" else f" to {to}."))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write that appears under its name when it is whole; - is stdout.

    Raises UserError where it cannot be written, and for a terminal.
    """
    if str(path) == "-":
        if sys.stdout.isatty():
            raise UserError("The answer is not text: name a file with -o, or send it to a program.")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():
        # A device or a named pipe: nothing can be renamed to it.
        with path.open("wb") as device:
            yield device
        return
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        # mkstemp makes files that only their owner reads; this is an ordinary one.
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
