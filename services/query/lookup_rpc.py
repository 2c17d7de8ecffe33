"""RPCs about one entry or one stream. Part of query_rpc."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import orjson
from google.protobuf.struct_pb2 import Struct
from recorder.v1 import query_pb2

import kfl
from kfl.show import show_text
from recordings import entry
from recordings.redaction import Redactions
from services.query import answer, figures, lookup, messages, peers, plan
from services.query.asked import Asked, read_statement
from services.query.base import QueryBase
from services.query.catalog import Opened
from services.query.livememory import RECORD
from services.query.plan import ALWAYS
from services.query.question import Work, read_limit, work
from services.query.refusals import refuse, refuse_live, refuse_statement
from services.runtime.errors import not_found

MAX_SEARCHED = 1000
"""Recordings that are looked in when none is named: the manifest of each is read."""

BODY_CHARACTERS = 64 << 10
MAX_BODY_CHARACTERS = 1 << 20
"""Two bodies in all the octets that a character can have are less than a message may be."""

STREAM_ENTRIES = 1000
MAX_STREAM_ENTRIES = 100_000

FORMATS = (
    query_pb2.ENTRY_FORMAT_UNSPECIFIED,
    query_pb2.ENTRY_FORMAT_OBJECT,
    query_pb2.ENTRY_FORMAT_JSON,
)


class LookupRpc(QueryBase):
    """GetEntry and GetStream."""

    def GetEntry(  # noqa: N802 - the names are in the proto
        self, request: query_pb2.GetEntryRequest, context: grpc.ServicerContext
    ) -> query_pb2.GetEntryResponse:
        """Return one entry with what belongs to it."""
        limit = read_limit(
            request.body_limit, BODY_CHARACTERS, MAX_BODY_CHARACTERS, "body_limit", context
        )
        try:
            condition = lookup.entry_condition(request.id)
        except ValueError as error:
            refuse(context, "id", str(error))
        asked, names = self._asked(request.kfl, condition, context)
        with work(self, context, [asked], names=names) as (one,):
            found = _entries(one)
            if not found:
                not_found(context, f'There is no entry "{request.id}" {_where(names)}.')
            first = found[0]
            opened = _opened(one, first["record"])
            row, packets = _belongings(one, opened, first["node"]["name"], first["stream"])
            Redactions(asked.filter.redactions).apply(first)
            lookup.cut_bodies(first, limit)
            return query_pb2.GetEntryResponse(
                entry=_struct(first),
                recordings=dict.fromkeys(each["record"] for each in found),
                stream=row,
                packets=packets,
                account=one.account(1),
            )

    def GetStream(  # noqa: N802
        self, request: query_pb2.GetStreamRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.GetStreamResponse]:
        """Send what is known of a stream, and its entries in the order of time."""
        limit = read_limit(request.limit, STREAM_ENTRIES, MAX_STREAM_ENTRIES, "limit", context)
        if request.format not in FORMATS:
            refuse(context, "format", "Entries of a stream are sent as objects or as JSON.")
        try:
            condition = lookup.stream_condition(request.id, request.node)
        except ValueError as error:
            refuse(context, "id", str(error))
        asked, names = self._asked(request.kfl, condition, context)
        with work(self, context, [asked], names=names) as (one,):
            chosen = _connection(one)
            if chosen is None:
                not_found(context, f'There is no entry of a stream "{request.id}" {_where(names)}.')
            opened = _opened(one, chosen.record)
            row, packets = _belongings(one, opened, chosen.node, chosen.stream)
            yield query_pb2.GetStreamResponse(
                summary=query_pb2.StreamSummary(
                    stream=row, connection=messages.connection(chosen), packets=packets
                )
            )
            sent = 0
            on_node = f"({asked.filter.text}\n) and node.name == {show_text(chosen.node)}"
            statement = kfl.compile(on_node, self.macros)
            for found in _of_stream(one, opened, statement, limit):
                sent += 1
                if request.format == query_pb2.ENTRY_FORMAT_JSON:
                    yield query_pb2.GetStreamResponse(json=orjson.dumps(found).decode())
                else:
                    yield query_pb2.GetStreamResponse(entry=_struct(found))
            account = one.account(sent, truncated=sent < chosen.figures.entries)
            yield query_pb2.GetStreamResponse(account=account)

    def _asked(
        self, text: str, condition: str, context: grpc.ServicerContext
    ) -> tuple[Asked, list[str]]:
        """Return a statement with a condition, and the recordings that it is asked of."""
        if text:
            # What is wrong with the statement is told of the statement alone.
            given = read_statement(text, context, self.macros)
            names = list(dict.fromkeys(given.recordings()))
            is_live = given.needs_live and self.live is not None
            if not names and not is_live:
                refuse_live(context, self.catalog)
            # The line may end in a comment.
            condition = f"({text}\n) and {condition}"
        else:
            names = self.catalog.names()
            is_live = self.live is not None and self.live.is_on
            if not names and not is_live:
                refuse_live(context, self.catalog)
            if len(names) > MAX_SEARCHED:
                refuse(context, "kfl", f'Name a recording, as in record("{names[0]}").')
        try:
            statement = kfl.compile(condition, self.macros)
        except kfl.KflError as error:
            refuse_statement(context, error)
        # Not watched for this: an entry that has an id has come already.
        names += [RECORD] if is_live else []
        return Asked(statement, ALWAYS, None, False, False, 0, ()), names


def _where(names: Sequence[str]) -> str:
    if RECORD in names:
        return "in the recordings and live traffic" if len(names) > 1 else "in live traffic"
    return f'in the recording "{names[0]}"' if len(names) == 1 else "in the recordings"


def _opened(one: Work, name: str) -> Opened:
    return next(found for found in one.opened if found.name == name)


def _entries(one: Work) -> list[dict[str, Any]]:
    """Return the entries that match, of few, in the order of their recordings."""
    planned = plan.entries(one.asked.filter, one.entries, limit=MAX_SEARCHED)
    found = [
        each
        for table in answer.of_plan(one.session, planned, one.asked.filter, one.asked.window)
        for each in entry.objects(table)
    ]
    order = {opened.name: place for place, opened in enumerate(one.opened)}
    return sorted(found, key=lambda each: order[each["record"]])


def _connection(one: Work) -> peers.Connection | None:
    """Return the stream with sums over its entries, of the first recording and node that has it."""
    found = one.found([*peers.stream_columns(), *figures.columns(one.protocols)])
    streams = peers.by_stream(one.session, found, one.sources("streams"), MAX_SEARCHED)
    order = {opened.name: place for place, opened in enumerate(one.opened)}
    streams.sort(key=lambda each: (order[each.record], each.node))
    nodes = list(dict.fromkeys(each.node for each in streams[1:] if each.node != streams[0].node))
    if nodes:
        one.notes.append(f"Other nodes have a stream of this id too: {', '.join(nodes[:10])}.")
    return streams[0] if streams else None


def _of_stream(
    one: Work, opened: Opened, statement: kfl.Filter, limit: int
) -> Iterator[dict[str, Any]]:
    """Yield at most `limit` entries of a stream, redacted."""
    source = opened.source("entries")
    planned = plan.entries(statement, [source], limit=limit)
    redactions = Redactions(statement.redactions)
    tables = answer.of_plan(one.session, planned, statement, ALWAYS)
    for table in answer.Answer(tables, limit):
        for found in entry.objects(table):
            redactions.apply(found)
            yield found


def _belongings(
    one: Work, opened: Opened, node: str, stream: str
) -> tuple[query_pb2.StreamRow | None, query_pb2.PacketSummary]:
    """Return what the recording has written of a stream, and what there is of its packets."""
    redactions = one.asked.filter.redactions
    row = lookup.stream_row(one.session, opened.source("streams"), node, stream, redactions)
    packets = lookup.packets(one.session, opened.source("packets"), node, stream)
    return (None if row is None else messages.stream_row(row)), messages.packets(packets)


def _struct(found: Mapping[str, Any]) -> Struct:
    made = Struct()
    made.update(found)
    return made
