"""`recorder top`, `map`, `histogram`, `connections` and `diff`: what recordings say in numbers."""

from __future__ import annotations

from typing import Annotated

import typer
from recorder.v1 import query_pb2

from services.cli import summary
from services.cli.answers import (
    FIGURES,
    End,
    Format,
    Start,
    Text,
    figures,
    moment,
    octets,
    peer,
    plain,
    question,
    tell,
)
from services.cli.clients import QUERY, QueryAddress, query
from services.cli.terminal import Output, new_app, print_json, print_table

top, service_map, histogram, connections, diff = (new_app() for _ in range(5))

Limit = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Most rows; 0 is the usual number.")
]

BAR_CHARACTERS = 40
"""The longest bar of a histogram."""


@top.command("top")
def show_top(
    field: Annotated[
        str, typer.Argument(metavar="FIELD", help="Field of KFL, such as response.status.")
    ],
    text: Text,
    limit: Limit = 0,
    start: Start = "",
    end: End = "",
    output: Format = Output.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show the most frequent values of a field.

    For example: recorder top request.path 'record("demo") and response.status >= 500'
    """
    asked = query_pb2.TopRequest(question=question(text, start, end), field=field, limit=limit)
    with query(address, text) as stub:
        found = stub.Top(asked)
    if output is Output.JSON:
        print_json(plain(found))
        return
    rows = [(each.value, *figures(each.figures)) for each in found.values]
    if found.without:
        rows.append(("(no value)", str(found.without), *[""] * (len(FIGURES) - 1)))
    print_table(("VALUE", *FIGURES), rows)
    tell(found.account)


@service_map.command("map")
def show_map(
    text: Text,
    limit: Limit = 0,
    start: Start = "",
    end: End = "",
    output: Format = Output.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show who calls whom."""
    asked = query_pb2.ServiceMapRequest(question=question(text, start, end), limit=limit)
    with query(address, text) as stub:
        found = stub.ServiceMap(asked)
    if output is Output.JSON:
        print_json(plain(found))
        return
    rows = [
        (
            *(peer(edge.src), peer(edge.dst), edge.protocol, *figures(edge.figures)),
            *map(octets, (edge.figures.request_bytes, edge.figures.response_bytes)),
        )
        for edge in found.edges
    ]
    print_table(("FROM", "TO", "PROTOCOL", *FIGURES, "REQUESTS", "RESPONSES"), rows)
    tell(found.account)


@histogram.command("histogram")
def show_histogram(
    text: Text,
    bucket_ms: Annotated[
        int, typer.Option("--bucket-ms", min=0, max=2**63 - 1, metavar="MS", help="0 chooses.")
    ] = 0,
    by: Annotated[
        str, typer.Option(metavar="FIELD", help="Tell its most frequent values apart.")
    ] = "",
    start: Start = "",
    end: End = "",
    output: Format = Output.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show entries by time."""
    asked = query_pb2.HistogramRequest(
        question=question(text, start, end), bucket_ms=bucket_ms, by=by
    )
    with query(address, text) as stub:
        found = stub.Histogram(asked)
    if output is Output.JSON:
        print_json(plain(found))
        return
    most = max((each.figures.entries for each in found.buckets), default=1)
    rows = [
        (
            moment(each.start_time),
            *([each.value if each.HasField("value") else "(others)"] if by else []),
            *figures(each.figures),
            "█" * -(-each.figures.entries * BAR_CHARACTERS // most),
        )
        for each in found.buckets
    ]
    title = f"buckets of {summary.elapsed(found.bucket_ms * 1000)}"
    print_table(("TIME", *(["VALUE"] if by else []), *FIGURES, ""), rows, title)
    tell(found.account)


@connections.command("connections")
def show_connections(
    text: Text,
    limit: Limit = 0,
    start: Start = "",
    end: End = "",
    output: Format = Output.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show streams with their octets, rates, state and duration."""
    asked = query_pb2.ConnectionsRequest(question=question(text, start, end), limit=limit)
    with query(address, text) as stub:
        found = stub.Connections(asked)
    if output is Output.JSON:
        print_json(plain(found))
        return
    print_table(CONNECTION, [connection(each) for each in found.connections])
    tell(found.account)


CONNECTION = (
    *("STREAM", "NODE", "PROTOCOL", "FROM", "TO", "STATE", "BEGIN", "DURATION", "ENTRIES"),
    *("SENT", "RECEIVED", "SENT/S", "RECEIVED/S"),
)
"""Headers of connection()."""


def connection(found: query_pb2.Connection) -> tuple[str, ...]:
    """Return the cells of CONNECTION."""
    amounts = (
        *(found.figures.request_bytes, found.figures.response_bytes),
        *(found.request_bytes_per_second, found.response_bytes_per_second),
    )
    return (
        *(found.stream, found.node, ", ".join(found.protocols)),
        *(peer(found.src), peer(found.dst), found.state, moment(found.start_time)),
        *(summary.elapsed(found.duration_us), str(found.figures.entries)),
        *map(octets, amounts),
    )


@diff.command("diff")
def show_diff(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="Name of a recording, or a statement.")
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The same.")],
    before_run: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Only this run of BEFORE.")
    ] = 0,
    after_run: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Only this run of AFTER.")
    ] = 0,
    threshold: Annotated[
        float, typer.Option(metavar="TIMES", help="How many times higher or lower is different.")
    ] = 0.0,
    limit: Limit = 0,
    output: Format = Output.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show what appeared, vanished or changed between two recordings, or two runs of one.

    For example: recorder diff nightly nightly --before-run 1 --after-run 2
    """
    asked = query_pb2.DiffRequest(
        before=query_pb2.Side(question=question(_statement(before), "", ""), run=before_run),
        after=query_pb2.Side(question=question(_statement(after), "", ""), run=after_run),
        threshold=threshold,
        limit=limit,
    )
    with query(address) as stub:
        found = stub.Diff(asked)
    if output is Output.JSON:
        print_json(plain(found))
        return
    headers = ("CHANGE", "WHAT", "VALUE", "BEFORE/S", "AFTER/S", "BEFORE P50", "AFTER P50")
    print_table((*headers, "BEFORE P99", "AFTER P99"), map(_difference, found.differences))
    tell(found.account)
    print(
        f"A rate or latency is different when it is {found.threshold:g} times higher or lower, "
        f"with {found.least_entries} entries or more. Before: {found.before_seconds:.0f} s, after: "
        f"{found.after_seconds:.0f} s."
    )


def _statement(text: str) -> str:
    """Return a statement; a name alone stands for the whole recording."""
    is_name = all(c.isascii() and (c.isalnum() or c in "-_") for c in text)
    return f'record("{text}")' if text and is_name else text


def _difference(found: query_pb2.Difference) -> tuple[str, ...]:
    shown = plain(found)
    times = [
        summary.elapsed(getattr(side.latency, name)) if side.HasField("latency") else ""
        for name in ("p50_us", "p99_us")
        for side in (found.before, found.after)
    ]
    return (
        *(", ".join(shown["changes"]), shown["dimension"], found.value),
        *(f"{found.before_rate:.3g}", f"{found.after_rate:.3g}", *times),
    )
