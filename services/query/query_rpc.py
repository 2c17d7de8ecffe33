"""QueryService over gRPC: reads requests, asks the catalog and the engine, sends what they say."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import grpc
import pyarrow as pa
from recorder.v1 import query_pb2, query_pb2_grpc

import kfl
from kfl.macros import explain
from services.query import answer, export, ledger, messages, plan
from services.query.asked import Asked, read_request, read_statement
from services.query.catalog import Catalog, Opened, UnknownRecordingError
from services.query.engine import CancelledError, Engine, Session
from services.query.follow import Follower
from services.query.formats import Formatter
from services.query.plan import Source
from services.query.refusals import refuse, told

MAX_CONCURRENT = 8
"""Questions that read recordings at once; they share the engine's memory and threads."""

QUEUE_SECONDS = 5.0
"""How long a question waits for another one to end before it is refused."""

MAX_FOLLOWERS = 32
"""Half of the server's workers, so that followers leave room for questions."""

FOLLOW_SECONDS = 0.25
"""How often a follower looks for what is new: well within the second that an answer may be old."""

EXPORT_PATIENCE = 10
"""An export may work this many times longer than a question: it reads and sorts whole streams."""


NO_MACROS: Mapping[str, str] = {}


class QueryService(query_pb2_grpc.QueryServiceServicer):
    """Answers questions over the recordings of a Catalog with an Engine."""

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        deadline_seconds: float,
        macros: Mapping[str, str] = NO_MACROS,
    ) -> None:
        """`macros` are operators' words of KFL."""
        self._catalog = catalog
        self._macros = macros
        self._engine = engine
        self._deadline_seconds = deadline_seconds
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT)
        self._followers = threading.BoundedSemaphore(MAX_FOLLOWERS)
        self._ended = threading.Event()

    def close(self) -> None:
        """End followers; running questions come to their end."""
        self._ended.set()

    def Query(  # noqa: N802 - the name is in the proto
        self, request: query_pb2.QueryRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send the entries that match, what is missing, and how the question was answered."""
        asked = read_request(request, context, self._catalog, self._macros)
        caller = _Caller(context)
        with told(context, self._catalog, asked.recordings):
            if asked.follow:
                yield from self._follow(asked, caller, context)
            else:
                yield from self._answer(asked, caller, context)

    def Export(  # noqa: N802
        self, request: query_pb2.ExportRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.ExportResponse]:
        """Send a pcapng file."""
        statement = read_statement(request.kfl, context, self._catalog, self._macros)
        if statement.redactions:
            refuse(
                context,
                "kfl",
                "redact() hides values of entries, but packets would show them. Leave it out, or "
                "ask for entries.",
            )
        names = tuple(dict.fromkeys(statement.recordings()))
        deadline = self._deadline_seconds * EXPORT_PATIENCE
        with told(context, self._catalog, names), self._slot(context):
            opened = [self._catalog.open(name) for name in names]
            with self._session(_Caller(context), deadline) as session:
                for chunk in export.export(
                    session,
                    statement,
                    [found.source("entries") for found in opened],
                    [found.source("packets") for found in opened],
                    ledger.losses([found.source("losses") for found in opened]),
                ):
                    yield query_pb2.ExportResponse(chunk=chunk)

    def Check(  # noqa: N802
        self, request: query_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> query_pb2.CheckResponse:
        """Say how a statement is understood, or what is wrong with it."""
        del context
        response = query_pb2.CheckResponse()
        diagnostics = list(kfl.check(request.kfl, self._macros))
        if not any(found.is_error for found in diagnostics):
            statement = kfl.compile(request.kfl, self._macros)
            response.explanation = explain(request.kfl, self._macros)
            response.recordings.extend(dict.fromkeys(statement.recordings()))
            diagnostics += self._unknown_recordings(request.kfl, response.recordings)
        response.ok = not any(found.is_error for found in diagnostics)
        for found in diagnostics:
            response.diagnostics.append(messages.diagnostic(found))
        return response

    def ListRecordings(  # noqa: N802
        self, request: query_pb2.ListRecordingsRequest, context: grpc.ServicerContext
    ) -> query_pb2.ListRecordingsResponse:
        """Return what every recording holds."""
        del request, context
        found = [messages.recording(summary) for summary in self._catalog.summaries()]
        return query_pb2.ListRecordingsResponse(recordings=found)

    def _answer(
        self, asked: Asked, caller: "_Caller", context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send the answer over what is there now."""
        count = _Count(asked)
        with self._slot(context):
            opened = [self._catalog.open(name) for name in asked.recordings]
            count.warn(opened)
            entries = [found.source("entries", asked.window) for found in opened]
            losses = [found.source("losses") for found in opened]
            yield from self._entries(asked, entries, count, caller)
            yield from messages.losses(ledger.losses(losses, asked.window))
        yield count.status()

    def _follow(
        self, asked: Asked, caller: "_Caller", context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        """Send the answer over what is there now, and then what is recorded, until cancelled."""
        if not self._followers.acquire(blocking=False):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_FOLLOWERS} questions are being followed; there is no room for more.",
            )
        try:
            count = _Count(asked)
            followers = [Follower(self._catalog, name, asked.window) for name in asked.recordings]
            with self._slot(context):
                yield from self._news(asked, followers, count, caller)
            yield count.status()
            while not (self._ended.is_set() or count.is_full):
                if caller.gone.wait(FOLLOW_SECONDS):
                    return
                yield from self._news(asked, followers, count, caller)
        finally:
            self._followers.release()

    def _news(
        self, asked: Asked, followers: Sequence[Follower], count: "_Count", caller: "_Caller"
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
        caller: "_Caller",
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
        with self._session(caller, self._deadline_seconds) as session:
            tables = answer.of_plan(session, planned, asked.filter, asked.window)
            yield from _send(asked, tables, count)

    def _unknown_recordings(self, text: str, names: Iterable[str]) -> Iterator[kfl.Diagnostic]:
        for name in names:
            try:
                self._catalog.check(name)
            except UnknownRecordingError as error:
                line, column = _position(text, name)
                yield kfl.Diagnostic(True, line, column, str(error))

    @contextmanager
    def _slot(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Hold one of the places for questions that read recordings."""
        if not self._slots.acquire(timeout=QUEUE_SECONDS):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MAX_CONCURRENT} questions are being answered, which is all that there is room "
                "for. Ask again when one has ended.",
            )
        try:
            yield
        finally:
            self._slots.release()

    @contextmanager
    def _session(self, caller: "_Caller", deadline_seconds: float) -> Iterator[Session]:
        """Give a session that ends when the caller goes away."""
        with self._engine.session(deadline_seconds) as session, caller.interrupting(session):
            yield session


class _Caller:
    """Who waits for an answer; interrupts the work when the call has ended before it.

    One callback for the whole call: a follower has a session for every piece of news.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.gone = threading.Event()
        """The call was cancelled, its deadline has passed, or it has ended."""
        self._session: Session | None = None
        if not context.add_callback(self._leave):
            self._leave()

    @contextmanager
    def interrupting(self, session: Session) -> Iterator[None]:
        """Interrupt `session` when the caller goes away. CancelledError if that was before."""
        self._session = session
        try:
            if self.gone.is_set():
                raise CancelledError("The question was cancelled.")
            yield
        finally:
            self._session = None

    def _leave(self) -> None:
        self.gone.set()
        session = self._session
        if session is not None:
            session.interrupt()


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


def _position(text: str, name: str) -> tuple[int, int]:
    """Return line and column of the first mention of a recording, from 1."""
    places = [text.find(f"{quote}{name}{quote}") for quote in "\"'"]
    place = min((found for found in places if found >= 0), default=0)
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
