"""What every RPC of the query service needs: the catalog, the engine, and a place to work.

Called by the files named *_rpc.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import grpc
from recorder.v1 import query_pb2_grpc

from services.query.asked import Asked
from services.query.catalog import Catalog, Opened
from services.query.engine import CancelledError, Engine, Session
from services.query.live import Live
from services.query.livememory import RECORD
from services.query.turns import Turns

MAX_CONCURRENT = 8
"""Questions that read recordings at once; they share the engine's memory and threads."""

QUEUE_SECONDS = 180.0
"""How long a question waits for its turn before it is refused; mostly its caller waits shorter."""

MOST_EACH = 6
"""Places that one caller can have, so that others find one at once."""

CALLER = "recorder-caller"
"""Metadata in which the gateway says whom it asks for; such callers take turns with each other."""

MAX_CALLER = 64
"""Characters of it that count: an address has fewer."""

NO_MACROS: Mapping[str, str] = {}


class Caller:
    """Who waits for an answer; interrupts the work when the call has ended before it.

    One callback for the whole call: a follower has a session for every piece of news.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.gone = threading.Event()
        """The call was cancelled, its deadline has passed, or it has ended."""
        self.wake = threading.Event()
        """Set with it, and whenever a follower is to look at once."""
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
        self.wake.set()
        session = self._session
        if session is not None:
            session.interrupt()


class QueryBase(query_pb2_grpc.QueryServiceServicer):
    """A part of the service."""

    def __init__(
        self,
        catalog: Catalog,
        engine: Engine,
        deadline_seconds: float,
        macros: Mapping[str, str] = NO_MACROS,
        live: Live | None = None,
    ) -> None:
        """`macros` are operators' words of KFL; without `live` there is no live traffic."""
        self.catalog = catalog
        self.macros = macros
        self.live = live
        self.deadline_seconds = deadline_seconds
        self._engine = engine
        self._turns = Turns(MAX_CONCURRENT, min(MOST_EACH, MAX_CONCURRENT))

    @contextmanager
    def watching(self, asked: Iterable[Asked]) -> Iterator[None]:
        """Watch what is asked of live traffic. Raises what Live.viewing() does."""
        with ExitStack() as stack:
            for each in asked:
                if each.is_live and self.live is not None:
                    is_all = not each.recordings
                    stack.enter_context(self.live.viewing(each.filter, is_all=is_all))
            yield

    def open(self, name: str, asked: Asked) -> Opened:
        """Return a recording, or live traffic for its name, as it is now.

        Raises UnknownRecordingError.
        """
        if name == RECORD and self.live is not None:
            return self.live.open(asked.filter)
        return self.catalog.open(name)

    @contextmanager
    def slot(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Hold one of the places for questions over recordings, when it is the caller's turn."""
        caller = _caller(context)
        if not self._turns.enter(caller, QUEUE_SECONDS, context.is_active):
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"There was no place for this question in {QUEUE_SECONDS:.0f} s: {MAX_CONCURRENT} "
                "questions are answered at a time. Ask again when one has ended.",
            )
        try:
            yield
        finally:
            self._turns.leave(caller)

    @contextmanager
    def session(self, caller: Caller, deadline_seconds: float) -> Iterator[Session]:
        """Give a session that ends when the caller goes away."""
        with self._engine.session(deadline_seconds) as session, caller.interrupting(session):
            yield session


def _caller(context: grpc.ServicerContext) -> str:
    """Return who asks: an address, and behind the gateway that of its caller."""
    host = context.peer().rpartition(":")[0]
    named = (value for key, value in context.invocation_metadata() if key == CALLER)
    return f"{host} {str(next(named, ''))[:MAX_CALLER]}"
