"""`recorder export`: what matches as a file, for Wireshark and other programs."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from recorder.v1 import query_pb2

from services.cli.answers import octets, tell
from services.cli.clients import QUERY, QueryAddress, query
from services.cli.terminal import counted, new_app, progress, say
from services.runtime.errors import UserError

app = new_app()


class Format(StrEnum):
    """A kind of file, by what its name usually ends with."""

    PCAPNG = "pcapng"
    PCAP = "pcap"
    HAR = "har"
    PARQUET = "parquet"
    JSONL = "jsonl"


FORMATS = {
    Format.PCAPNG: query_pb2.EXPORT_FORMAT_PCAPNG,
    Format.PCAP: query_pb2.EXPORT_FORMAT_PCAP,
    Format.HAR: query_pb2.EXPORT_FORMAT_HAR,
    Format.PARQUET: query_pb2.EXPORT_FORMAT_PARQUET,
    Format.JSONL: query_pb2.EXPORT_FORMAT_JSON_LINES,
}

OF_PACKETS = (Format.PCAPNG, Format.PCAP)

OF_TEXT = (Format.HAR, Format.JSONL)

OTHER_ENDINGS = {"ndjson": Format.JSONL, "cap": Format.PCAP}


@app.command()
def export(
    text: Annotated[
        str, typer.Argument(metavar="KFL", help='Statement with record("name"), in one argument.')
    ],
    to: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="FILE", help="The file to write; - is stdout."),
    ],
    kind: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Kind of file: packets as pcapng or pcap; entries as har (HTTP), parquet or "
            "jsonl. As the file's name ends if not given, else pcapng.",
            show_default=False,
        ),
    ] = None,
    address: QueryAddress = QUERY,
) -> None:
    """Write what matches to a file: packets of every stream in which an entry matches, or entries.

    For example: recorder export 'record("demo") and http' -o demo.har
    """
    kind = kind or _by_ending(to)
    request = query_pb2.ExportRequest(kfl=text, format=FORMATS[kind])
    with (
        opened(to, is_text=kind in OF_TEXT) as file,
        query(address, text) as stub,
        progress(share=True) as shown,
    ):
        size, summary = 0, query_pb2.ExportSummary()
        task = shown.add_task("Looking for what matches", total=None)
        for answer in stub.Export(request):
            file.write(answer.chunk)
            size += len(answer.chunk)
            shown.update(
                task, total=1, completed=answer.share, description=f"Writing {octets(size)}"
            )
            summary = answer.summary
    tell(summary.account)
    say(_what(kind, summary, size, "" if str(to) == "-" else f" to {to}"))


def _by_ending(path: Path) -> Format:
    ending = path.suffix.removeprefix(".").lower()
    known = {**{each.value: each for each in Format}, **OTHER_ENDINGS}
    return known.get(ending, Format.PCAPNG)


def _what(kind: Format, found: query_pb2.ExportSummary, size: int, to: str) -> str:
    """Return what was written, as a sentence."""
    if not found.entries:
        what = "HTTP entry matches" if kind is Format.HAR else "entry matches"
        return f"No {what}; wrote an empty {kind.value} file{to}."
    if kind not in OF_PACKETS:
        return f"Wrote {counted(found.entries, 'entry', 'entries')}, {octets(size)}{to}."
    if not found.packets:
        return (
            f"{counted(found.entries, 'entry matches', 'entries match')}, but nothing is recorded "
            f"of their packets; wrote an empty {kind.value} file{to}."
        )
    packets, streams = counted(found.packets, "packet"), counted(found.streams, "stream")
    return f"Wrote {packets} of {streams}, {octets(size)}{to}."


@contextlib.contextmanager
def opened(path: Path, *, is_text: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write that appears under its name when it is whole; - is stdout.

    Raises UserError where it cannot be written, and for a terminal that would get octets.
    """
    if str(path) == "-":
        if sys.stdout.isatty() and not is_text:
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
