"""Answers of the query service as JSON and in a table's cells. Called by figures and lookups."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import query_pb2

from services.cli import summary
from services.cli.ask import loss_line, say_counts
from services.cli.terminal import Output, counted, printable, say
from services.runtime.errors import UserError

Text = Annotated[
    str, typer.Argument(metavar="KFL", help='Statement with record("name"), in one argument.')
]
Start = Annotated[
    str,
    typer.Option("--start", metavar="TIME", help="Only entries from this time on, in RFC 3339."),
]
End = Annotated[
    str, typer.Option("--end", metavar="TIME", help="Only entries before this time, in RFC 3339.")
]
Format = Annotated[Output, typer.Option("--output", help="Table for people, JSON for programs.")]

FIGURES = ("ENTRIES", "ERRORS", "P50", "P90", "P99")
"""Headers of figures()."""


def question(text: str, start: str, end: str) -> query_pb2.Question:
    """Return a Question. Raises UserError for what is no time."""
    asked = query_pb2.Question(kfl=text)
    for flag, given, field in (("--start", start, "start_time"), ("--end", end, "end_time")):
        if given:
            getattr(asked, field).CopyFrom(_time(flag, given))
    return asked


def _time(flag: str, text: str) -> Timestamp:
    made = Timestamp()
    try:
        made.FromJsonString(text)
    except ValueError:
        raise UserError(
            f"{flag}: {printable(text)} is not a time; write it as 2026-03-14T08:45:00Z."
        ) from None
    return made


def plain(message: Message) -> Any:
    """Return a message as values of JSON: names as in the proto, integers as numbers."""
    if message.DESCRIPTOR.full_name.startswith("google.protobuf."):
        return MessageToDict(message)
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.is_repeated:
            found[field.name] = [_value(field, item) for item in value]
        elif not field.has_presence or message.HasField(field.name):
            found[field.name] = _value(field, value)
    return found


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        prefix = "".join(f"_{c}" if c.isupper() else c for c in field.enum_type.name)
        name = field.enum_type.values_by_number[value].name
        return name.removeprefix(f"{prefix.strip('_').upper()}_").lower()
    return value


def figures(found: query_pb2.Figures) -> tuple[str, ...]:
    """Return the cells of FIGURES."""
    latency = found.latency
    times = (latency.p50_us, latency.p90_us, latency.p99_us)
    shown = map(summary.elapsed, times) if found.HasField("latency") else ("", "", "")
    return (str(found.entries), str(found.errors), *shown)


def peer(found: query_pb2.Peer) -> str:
    """Return a peer as name.namespace or address, with its port if it is known."""
    name = ".".join(filter(None, (found.name, found.namespace)))
    return summary.peer({"name": name, "ip": found.ip, "port": found.port or None})


def octets(number: float) -> str:
    """Return an amount as a person reads it: 12.4 kB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def moment(time: Timestamp) -> str:
    """Return a time in UTC to the millisecond."""
    found: datetime = time.ToDatetime(tzinfo=UTC)
    return found.strftime("%Y-%m-%d %H:%M:%S.%f")[:23]


def tell(account: query_pb2.Account) -> None:
    """Say on stderr how a question was answered and what is missing."""
    for loss in account.losses:
        say(loss_line(loss))
    say_counts(account.counts)
    status = account.status
    for warning in status.warnings:
        say(f"warning: {printable(warning)}")
    more = "; there is more, --limit shows it" if status.truncated else ""
    entries = counted(status.entries, "entry", "entries")
    say(f"{entries} of {status.entries_scanned} in {status.elapsed_ms:.0f} ms{more}.")
