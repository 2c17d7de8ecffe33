"""QueryService over gRPC: reads requests, asks the catalog and the engine, sends what they say."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import grpc
import pyarrow as pa
from recorder.v1 import query_pb2, query_pb2_grpc

from services.query import answer, ledger, messages, plan
from services.query.asked import Asked, read_request
from services.query.base import NO_MACROS, Caller
from services.query.catalog import Catalog, Opened
from services.query.engine import Engine
from services.query.export_rpc import ExportRpc
from services.query.figures_rpc import FiguresRpc
from services.query.follow import Follower, LiveFollower
from services.query.formats import Formatter
from services.query.language_rpc import LanguageRpc
from services.query.live import Live
from services.query.livememory import RECORD
from services.query.lookup_rpc import LookupRpc
from services.query.plan import Source
from services.query.refusals import told

MAX_FOLLOWERS = 128
"""Half of the server's workers, so that followers leave room for questions."""

FOLLOW_SECONDS = 0.25
"""How often a follower looks for what is new: well within the second that an answer may be old."""

GATHER_SECONDS = 0.02
"""Least time between two looks, so that what comes at once is looked at together."""


class QueryService(LanguageRpc, LookupRpc, FiguresRpc, ExportRpc):
    """Answers questions over the recordings of a Catalog with an Engine.

    Export, and the RPCs about the language, about one entry or stream, and about figures are in
    files of their own.
    """

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        deadline_seconds: float,
        macros: Mapping[str, str] = NO_MACROS,
        live: Live | None = None,
    ) -> None:
        """`macros` are operators' words of KFL; without `live` there is no live traffic."""
        super().__init__(catalog, engine, deadline_seconds, macros, live)
        self._followers = threading.BoundedSemaphore(MAX_FOLLOWERS)
        self._ended = threading.Event()

    def close(self) -> None:
        """End followers; running questions come to their end."""
        self._ended.set()

    def Query(  # noqa: N802 - the name is in the proto
        self, request: query_pb2.QueryRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send the entries that match, what is missing, and how the question was answered."""
        has_live = self.live is not None
        asked = read_request(request, context, self.catalog, self.macros, has_live=has_live)
        caller = Caller(context)
        with told(context, self.catalog, asked.places):
            if asked.follow:
                yield from self._follow(asked, caller, context)
            else:
                yield from self._answer(asked, caller, context)

    def ListRecordings(  # noqa: N802
        self, request: query_pb2.ListRecordingsRequest, context: grpc.ServicerContext
    ) -> query_pb2.ListRecordingsResponse:
        """Return what every recording holds."""
        del request, context
        found = [messages.recording(summary) for summary in self.catalog.summaries()]
        return query_pb2.ListRecordingsResponse(recordings=found)

    def _answer(
        self, asked: Asked, caller: Caller, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send the answer over what is there now."""
        count = _Count(asked)
        with self.watching([asked]), self.slot(context):
            opened = [self.open(name, asked) for name in asked.places]
            count.warn(opened)
            entries = [found.source("entries", asked.window) for found in opened]
            losses = [found.source("losses") for found in opened]
            yield from self._entries(asked, entries, count, caller)
            yield from messages.losses(ledger.losses(losses, asked.window))
            yield from messages.counts(ledger.counts(opened, asked.window))
        yield count.status()

    def _follow(
        self, asked: Asked, caller: Caller, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send the answer over what is there now, and then what is recorded, until cancelled."""
        if not self._followers.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_FOLLOWERS} questions are being followed; there is no room for more.",
            )
        try:
            with self.watching([asked]), self._waking(asked, caller):
                yield from self._follow_on(asked, caller, context)
        finally:
            self._followers.release()

    def _follow_on(
        self, asked: Asked, caller: Caller, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        count = _Count(asked)
        followers = [self._follower(name, asked) for name in asked.places]
        with self.slot(context):
            yield from self._news(asked, followers, count, caller)
        yield count.status()
        while not (self._ended.is_set() or count.is_full):
            caller.wake.wait(FOLLOW_SECONDS)
            if caller.gone.wait(GATHER_SECONDS):
                return
            caller.wake.clear()
            yield from self._news(asked, followers, count, caller)

    def _waking(self, asked: Asked, caller: Caller) -> AbstractContextManager[None]:
        """Let a follower of live traffic look when something comes."""
        if asked.is_live and self.live is not None:
            return self.live.waking(caller.wake)
        return nullcontext()

    def _follower(self, name: str, asked: Asked) -> Follower | LiveFollower:
        if name == RECORD and self.live is not None:
            return LiveFollower(self.live)
        return Follower(self.catalog, name, asked.window)

    def _news(
        self,
        asked: Asked,
        followers: Sequence[Follower | LiveFollower],
        count: "_Count",
        caller: Caller,
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send what the followers have not given yet."""
        news = [follower.news() for follower in followers]
        count.warn([found.opened for found in news])
        entries = [found.entries for found in news if found.entries.rows]
        rows = sum(source.rows for source in entries)
        if rows > answer.FEW_ROWS or any(source.files for source in entries):
            yield from self._entries(asked, entries, count, caller)
        elif rows:
            count.scanned += rows
            yield from _send(asked, answer.of_few(entries, asked.filter, asked.window), count)
        losses = [found.losses for found in news if found.losses.rows]
        yield from messages.losses(ledger.losses(losses, asked.window))

    def _entries(
        self,
        asked: Asked,
        sources: Sequence[Source],
        count: "_Count",
        caller: Caller,
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send the entries of `sources` that match, as many as the limit still lets through."""
        count.scanned += sum(source.rows for source in sources)
        limit = count.remaining
        planned = plan.entries(
            asked.filter,
            sources,
            window=asked.window,
            descending=asked.descending,
            limit=None if limit is None else limit + 1,
        )
        with self.session(caller, self.deadline_seconds) as session:
            if asked.format == query_pb2.ENTRY_FORMAT_COUNT and limit is None:
                count.entries = answer.count(session, asked.filter, sources, asked.window)
                return
            tables = answer.of_plan(session, planned, asked.filter, asked.window)
            yield from _send(asked, tables, count)


class _Count:
    """How an answer stands."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._begin = time.monotonic()
        self.entries = 0
        self.scanned = 0
        self.left_out = 0
        self.truncated = False
        self._damage: dict[str, None] = {}

    def warn(self, opened: Iterable[Opened]) -> None:
        """Keep what cannot be read of the recordings, for the status."""
        for found in opened:
            self._damage |= dict.fromkeys(found.damage)

    @property
    def remaining(self) -> int | None:
        """Entries that the limit still lets through."""
        if self._asked.limit is None:
            return None
        return max(0, self._asked.limit - self.entries - self.left_out)

    @property
    def is_full(self) -> bool:
        return self.remaining == 0

    def status(self) -> query_pb2.QueryResponse:
        """Return the message that says so."""
        warnings = [*self._asked.warnings, *self._damage]
        if self.left_out:
            warnings.append(
                f"{self.left_out} entries are too large for a message; they were left out."
            )
        return query_pb2.QueryResponse(
            status=query_pb2.QueryStatus(
                entries=self.entries,
                entries_scanned=self.scanned,
                recordings=self._asked.recordings,
                truncated=self.truncated,
                elapsed_ms=(time.monotonic() - self._begin) * 1000,
                warnings=warnings,
            )
        )


def _send(
    asked: Asked, tables: Iterable[pa.Table], count: _Count
) -> Iterator[query_pb2.QueryResponse]:
    """Send entries in the format that was asked for, as many as the limit still lets through."""
    formatter = Formatter(asked.format, asked.filter.redactions)
    found = answer.Answer(tables, count.remaining)
    for table in found:
        yield from formatter.messages(table)
    count.entries += found.entries - formatter.left_out
    count.left_out += formatter.left_out
    count.truncated = count.truncated or found.truncated


def add_to(service: QueryService) -> Callable[[grpc.Server], list[str]]:
    """Return what services.runtime.server.serve needs to serve it."""

    def add(server: grpc.Server) -> list[str]:
        query_pb2_grpc.add_QueryServiceServicer_to_server(service, server)
        return [query_pb2.DESCRIPTOR.services_by_name["QueryService"].full_name]

    return add
