"""`recorder ask`: entries that match a KFL statement, from the query service."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any

import typer
from recorder.v1 import ledger_pb2, query_pb2

from services.cli import summary
from services.cli.clients import QUERY, QueryAddress, check_address, query
from services.cli.terminal import counted, new_app, print_table, printable, say

app = new_app()

TABLE_ROWS = 100
"""Rows of a table when no limit is given: what a person looks at. JSON and CSV have no limit."""

LIVE = "live traffic"
"""What people are told for the name of live traffic, which is empty."""

FOLLOWED_WIDTHS = (23, 8, 8, 8, 40, 24, 24, 9)
"""Columns of a table that has no end, so that it cannot be measured first."""


class Format(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@app.command()
def ask(
    text: Annotated[
        str | None,
        typer.Argument(
            metavar="KFL",
            help='Statement, in one argument: with record("name") it asks recordings, without it '
            "live traffic. If it is not given a prompt opens.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            metavar="N",
            help=f"Most entries; 0 is all. Tables have {TABLE_ROWS} if not given.",
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new entries until Ctrl-C.")
    ] = False,
    latest: Annotated[bool, typer.Option("--latest", help="Latest first.")] = False,
    output: Annotated[
        Format, typer.Option(help="Table, JSON (one entry a line) or CSV.")
    ] = Format.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show the entries of recordings, or of live traffic, that match a KFL statement.

    For example: recorder ask 'record("demo") and http and response.status >= 500', and
    recorder ask 'response.status >= 500' --follow for what is on the wire now.
    """
    if follow and latest:
        raise typer.BadParameter("--follow goes forward in time; leave out --latest.")
    if limit is None:
        limit = TABLE_ROWS if output is Format.TABLE and not follow else 0
    if text is not None:
        _answer(text, limit, follow, latest, output, address)
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("Give a statement; the prompt needs a terminal.")
    from services.cli import prompt

    check_address(address, "--query-address")
    prompt.ask(lambda typed: _answer(typed, limit, follow, latest, output, address), address)


def _answer(
    text: str, limit: int, follow: bool, latest: bool, output: Format, address: str
) -> None:
    """Ask the service and write what it answers. Raises CommandError."""
    request = query_pb2.QueryRequest(
        kfl=text,
        limit=limit,
        follow=follow,
        descending=latest,
        format=query_pb2.ENTRY_FORMAT_JSON,
    )
    with query(address, text) as stub:
        # Nothing is written, not even a header, before it is known that there is an answer.
        entries = _entries(_begun(stub.Query(request)))
        if output is Format.JSON:
            _write_json(entries)
        elif output is Format.CSV:
            _write_csv(entries)
        elif follow:
            _write_lines(entries)
        else:
            print_table(summary.HEADERS, (summary.row(json.loads(entry)) for entry in entries))


def _begun(answers: Iterable[query_pb2.QueryResponse]) -> Iterator[query_pb2.QueryResponse]:
    """Return the parts of an answer when the first is there. Raises what comes instead of it."""
    parts = iter(answers)
    return itertools.chain(list(itertools.islice(parts, 1)), parts)


def _entries(answers: Iterable[query_pb2.QueryResponse]) -> Iterator[str]:
    """Yield entries as JSON text; say what else comes, on stderr."""
    counts: list[ledger_pb2.NodeCounts] = []
    for answer in answers:
        part = answer.WhichOneof("part")
        if part == "json":
            yield answer.json
        elif part == "loss":
            say(loss_line(answer.loss))
        elif part == "counts":
            counts.append(answer.counts)
        elif part == "status":
            say_counts(counts)
            _say_status(answer.status)


def loss_line(loss: query_pb2.Loss) -> str:
    """Return a sentence about something that is missing."""
    counts = [counted(loss.packets, "packet")] * bool(loss.packets)
    counts += [counted(loss.bytes, "octet")] * bool(loss.bytes)
    amount = " and ".join(counts) or "an unknown amount"
    kind = loss.kind.replace("_", " ")
    where = f"on {loss.node} " if loss.node else ""
    line = f"Missing in {loss.recording or LIVE}: {amount} {where}({kind}). {loss.detail}"
    return printable(line.rstrip())


def say_counts(counts: Iterable[ledger_pb2.NodeCounts]) -> None:
    """Say what the nodes of each recording have seen, in a line each."""
    by_name: dict[str, list[ledger_pb2.NodeCounts]] = {}
    for each in counts:
        by_name.setdefault(each.recording, []).append(each)
    for name, found in by_name.items():
        seen, matched, stored = (
            sum(getattr(each, f"{word}_packets") for each in found)
            for word in ("seen", "matched", "stored")
        )
        nodes = len({each.node for each in found if each.node})
        where = f" on {counted(nodes, 'node')}" if nodes else ""
        amounts = f"{counted(seen, 'packet')} seen, {matched} matched, {stored} stored"
        say(printable(f"{name or LIVE}{where}: {amounts}."))


def _say_status(status: query_pb2.QueryStatus) -> None:
    for warning in status.warnings:
        say(f"warning: {printable(warning)}")
    more = "; more match, --limit 0 shows all" if status.truncated else ""
    entries = counted(status.entries, "entry", "entries")
    say(f"{entries} of {status.entries_scanned} in {status.elapsed_ms:.0f} ms{more}.")


def _write_json(entries: Iterable[str]) -> None:
    for entry in entries:
        sys.stdout.write(entry + "\n")
        sys.stdout.flush()


def _write_csv(entries: Iterable[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(summary.CSV_HEADERS)
    for entry in entries:
        writer.writerow([_cell(value) for value in summary.csv_row(json.loads(entry))])
        sys.stdout.flush()


def _cell(value: Any) -> Any:
    """Return a cell that a spreadsheet takes as text: what begins like a formula gets a quote.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value


def _write_lines(entries: Iterable[str]) -> None:
    _write_line(summary.HEADERS)
    for entry in entries:
        _write_line(summary.row(json.loads(entry)))


def _write_line(cells: Iterable[str]) -> None:
    shown = [
        text if len(text) <= width else text[: width - 1] + "…"
        for text, width in zip(map(printable, cells), FOLLOWED_WIDTHS, strict=True)
    ]
    padded = [text.ljust(width) for text, width in zip(shown, FOLLOWED_WIDTHS, strict=True)]
    print("  ".join(padded).rstrip(), flush=True)
