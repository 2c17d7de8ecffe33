"""`recorder entry` and `recorder stream`: one of them, with all that belongs to it."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from recorder.v1 import query_pb2

from services.cli import summary
from services.cli.answers import Format, moment, octets, plain, tell
from services.cli.clients import QUERY, QueryAddress, query
from services.cli.figures import CONNECTION, connection
from services.cli.terminal import (
    Output,
    counted,
    new_app,
    print_json,
    print_table,
    printable,
)

entry, stream = new_app(), new_app()

Where = Annotated[
    str,
    typer.Argument(
        metavar="[KFL]",
        help='Statement with record("name") for where to look; all recordings if not given.',
    ),
]

LINE_CHARACTERS = 2000
"""What is shown of one value of an entry; --output json has the whole of it."""


@entry.command("entry")
def show_entry(
    id: Annotated[str, typer.Argument(metavar="ID", help="As in the JSON of an entry.")],
    text: Where = "",
    body_limit: Annotated[
        int,
        typer.Option(min=0, max=2**32 - 1, metavar="N", help="Most characters of each body."),
    ] = 0,
    output: Format = Output.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show one entry with its stream and what there is of its packets."""
    asked = query_pb2.GetEntryRequest(id=id, kfl=text, body_limit=body_limit)
    with query(address, text) as stub:
        found = stub.GetEntry(asked)
    if output is Output.JSON:
        print_json(plain(found))
        return
    for path, value in _lines("", MessageToDict(found.entry)):
        print(f"{printable(path)}: {printable(value, LINE_CHARACTERS)}")
    if found.HasField("stream"):
        row = found.stream
        print(f"stream: {row.transport}, first packet {moment(row.first_time)}")
    print(f"packets: {_packets(found.packets)}")
    print(f"recordings: {', '.join(found.recordings)}")
    tell(found.account)


def _lines(path: str, value: object) -> list[tuple[str, str]]:
    """Return each value of an object with its path, as KFL writes it."""
    if isinstance(value, dict) and value:
        return [line for key in value for line in _lines(_below(path, key), value[key])]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [(path, text)]


def _below(path: str, key: str) -> str:
    if not path:
        return key
    return f"{path}.{key}" if key.isidentifier() else f"{path}[{json.dumps(key)}]"


def _packets(found: query_pb2.PacketSummary) -> str:
    if not found.packets:
        return "none"
    amount = f"{counted(found.packets, 'packet')}, {octets(found.bytes)}"
    return f"{amount}, {moment(found.first_time)} to {moment(found.last_time)}"


@stream.command("stream")
def show_stream(
    id: Annotated[str, typer.Argument(metavar="ID", help="16 hex digits, as in entries.")],
    text: Where = "",
    node: Annotated[
        str, typer.Option(metavar="NAME", help="Where several nodes have that stream.")
    ] = "",
    limit: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Most entries.")
    ] = 0,
    output: Format = Output.TABLE,
    address: QueryAddress = QUERY,
) -> None:
    """Show a stream and its calls in their order. JSON is the stream, then one entry a line."""
    asked = query_pb2.GetStreamRequest(
        id=id, kfl=text, node=node, limit=limit, format=query_pb2.ENTRY_FORMAT_JSON
    )
    rows = []
    with query(address, text) as stub:
        for part in stub.GetStream(asked):
            kind = part.WhichOneof("part")
            if kind == "summary" and output is Output.JSON:
                print_json(plain(part.summary))
            elif kind == "summary":
                print_table(CONNECTION, [connection(part.summary.connection)])
                print(f"packets: {_packets(part.summary.packets)}\n")
            elif kind == "json" and output is Output.JSON:
                print(part.json)
            elif kind == "json":
                rows.append(summary.row(json.loads(part.json)))
            elif kind == "account":
                if output is Output.TABLE:
                    print_table(summary.HEADERS, rows)
                tell(part.account)
