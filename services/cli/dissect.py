"""`recorder dissect`: the API calls in a capture file, without any service."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.sample import Sample, percent
from services.cli.statement import Macros, compiled
from services.cli.terminal import BAD_INPUT, CommandError, counted, new_app, printable, say

if TYPE_CHECKING:
    import pyarrow as pa

    import kfl

app = new_app()

BODY_LIMIT = 65536

TABLE_ROWS_AT_ONCE = 1000
"""Rows of which one table is made: as much as can be measured without holding a whole file."""

ROW_GROUP_ROWS, ROW_GROUP_BYTES = 16_384, 16 << 20
"""When a group of Parquet's rows is written: large enough that a table's 60 columns cost little for
each row, small enough to be held beside the engine."""


class Format(StrEnum):
    """How the calls are written."""

    JSON = "json"
    TABLE = "table"
    COUNT = "count"
    PARQUET = "parquet"


@app.command()
def dissect(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="pcap or pcapng, perhaps gzipped; - is stdin.")
    ],
    kfl: Annotated[str, typer.Option(metavar="KFL", help="Only calls that match this.")] = "",
    macros: Macros = "",
    body_limit: Annotated[
        int,
        typer.Option(
            min=0, max=1 << 30, metavar="BYTES", help="Most octets of each body that are decoded."
        ),
    ] = BODY_LIMIT,
    sample: Sample = "100",
    output: Annotated[
        Format,
        typer.Option(
            help="JSON (one call a line), a table, the number of calls by protocol, or Parquet."
        ),
    ] = Format.JSON,
    to: Annotated[
        Path | None, typer.Option("-o", metavar="FILE", help="Write to this file, not to stdout.")
    ] = None,
) -> None:
    """Show the API calls in a capture file."""
    if to is not None and output is Format.TABLE:
        raise typer.BadParameter("a table is for the terminal; leave out -o, or use --output json.")
    chosen = None
    if kfl:
        chosen = compiled(kfl, macros)

    from services.capture.frames.batch import CaptureError

    try:
        losses = _write(file, chosen, body_limit, output, to, percent(sample))
    except CaptureError as error:
        raise CommandError(str(error), BAD_INPUT) from None
    for loss in losses:
        what = counted(loss.packets, "packet") if loss.packets else "an unknown amount"
        say(printable(f"Missing: {what} ({loss.kind.replace('_', ' ')}). {loss.detail}".rstrip()))


def _write(
    file: str,
    chosen: kfl.Filter | None,
    body_limit: int,
    output: Format,
    to: Path | None,
    sample: float,
) -> Iterable[Any]:
    """Dissect and write; return what is known to be missing."""
    from services.capture import dissect as engine

    if output is Format.COUNT:
        counts, losses = engine.count(file, chosen, body_limit, sample)
        _print_counts(counts, to)
        return losses
    tables = _Tables(engine.tables(file, chosen, body_limit, sample), chosen)
    if output is Format.JSON:
        _write_json(tables, to)
    elif output is Format.TABLE:
        _print_tables(tables)
    else:
        _write_parquet(tables, to)
    return tables.losses


class _Tables:
    """The tables of a generator, redacted as the filter says, and then what it returned."""

    def __init__(
        self, tables: Generator[pa.Table, None, Iterable[Any]], chosen: kfl.Filter | None
    ) -> None:
        self._tables = tables
        self._redactions = chosen.redactions if chosen is not None else ()
        self.losses: Iterable[Any] = ()

    def __iter__(self) -> Iterator[pa.Table]:
        if not self._redactions:
            self.losses = yield from self._tables
            return
        from recordings.redaction import Redactions

        redactions = Redactions(self._redactions)
        while True:
            try:
                table = next(self._tables)
            except StopIteration as end:
                self.losses = end.value
                return
            yield redactions.apply_to_table(table)


def _print_counts(counts: dict[str, int], to: Path | None) -> None:
    lines = [f"{name}\t{count}\n" for name, count in sorted(counts.items())]
    text = "".join(lines)
    if to is None:
        sys.stdout.write(text)
        return
    from services.cli.export import opened

    with opened(to) as out:
        out.write(text.encode())


def _write_json(tables: _Tables, to: Path | None) -> None:
    import orjson

    from recordings.entry import objects

    def lines() -> Iterator[bytes]:
        for table in tables:
            for entry in objects(table):
                yield orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)

    if to is None:
        out = sys.stdout.buffer
        for line in lines():
            out.write(line)
        out.flush()
        return
    from services.cli.export import opened

    with opened(to) as file:
        file.writelines(lines())


def _print_tables(tables: _Tables) -> None:
    from recordings.entry import objects
    from services.cli import summary
    from services.cli.terminal import print_table

    rows: list[tuple[str, ...]] = []
    for table in tables:
        for entry in objects(table):
            rows.append(summary.row(entry))
            if len(rows) == TABLE_ROWS_AT_ONCE:
                print_table(summary.HEADERS, rows)
                rows.clear()
    if rows:
        print_table(summary.HEADERS, rows)


def _write_parquet(tables: _Tables, to: Path | None) -> None:
    import pyarrow.parquet as pq

    from recordings.schema import ENTRIES
    from services.cli.export import opened

    with (
        opened(to or Path("-")) as file,
        pq.ParquetWriter(file, ENTRIES, compression="zstd") as writer,
    ):
        for group in _row_groups(tables):
            writer.write_table(group)


def _row_groups(tables: _Tables) -> Iterator[pa.Table]:
    """Gather tables, each of which would pay for a group of its own."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        size += table.get_total_buffer_size()
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)
