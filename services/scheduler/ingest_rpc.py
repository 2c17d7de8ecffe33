"""IngestService over gRPC: one conversation for each agent, between ingest.Session and the writer.

Two threads serve an agent: gRPC's own sends, one of ours receives, checks and submits. The writer's
answers and new assignments come through a queue to the one that sends.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
from recorder.v1 import ingest_pb2, ingest_pb2_grpc

from recordings.journal import TABLE_NAMES, Part
from services.runtime.logging import logger
from services.scheduler.batches import Batch
from services.scheduler.bulletin import Assignment
from services.scheduler.ingest import (
    Acknowledgement,
    Assignments,
    Delivery,
    Finished,
    Hello,
    LiveRows,
    Matched,
    Probed,
    ProtocolError,
    Refusal,
    Session,
    Welcome,
)
from services.scheduler.writer import Accepted, Outcome, Writer

HELLO_SECONDS: Final = 10.0
"""A client that says nothing for this long holds a thread that an agent could use."""
MOST_SESSIONS: Final = 960
"""Agents at once. Each holds one of the server's threads; the rest are for people's calls."""
MEMORY_BYTES: Final = 256 << 20
"""Octets of all agents' batches that wait for the disk; beyond, agents are read more slowly."""
WATCH_SECONDS: Final = 1.0
"""How often the watches for new assignments and counts look whether they are to end."""
MATCHES_SECONDS: Final = 0.02
"""Between two times that all agents hear the counts of others: longer makes a limit() less exact,
shorter costs more when many agents match at once."""


class Lifecycle(Protocol):
    """What is asked of services.scheduler.lifecycle."""

    def assignments(self, import_job: str = "") -> tuple[int, list[Assignment]]:
        """Return the revision and the runs to record now and soon."""

    def wait_for_change(self, revision: int, timeout: float) -> int:
        """Wait until the list is not the one of `revision`, or `timeout` seconds; return its."""

    def agent_connected(self, agent_id: str, node: str, import_job: str = "") -> None:
        """Note that a session has begun."""

    def agent_disconnected(self, agent_id: str) -> None:
        """Note that a session has ended."""

    def agent_finished(self, agent_id: str, job: str, run: int) -> None:
        """Note that an agent has nothing more for a run."""

    def agent_delivered(
        self, agent_id: str, job: str, run: int, sequence: int, octets: int
    ) -> None:
        """Note that a batch with data is on disk; on the writer's thread."""

    def agent_matched(self, agent_id: str, job: str, run: int, calls: int) -> None:
        """Note how many calls of a run with a limit() have matched on an agent."""

    def agent_probed(self, agent_id: str, probed: Probed) -> None:
        """Note what an agent has counted during a probe."""

    def agent_saw(self, agent_id: str, node: str, rows: LiveRows) -> None:
        """Take live traffic; returns at once."""

    def matched_elsewhere(self, agent_id: str) -> Mapping[tuple[str, int], int]:
        """Return how many calls have matched on all other agents, by job and run."""

    def wait_for_matches(self, version: int, timeout: float) -> int:
        """Wait until agents have told other counts, at most `timeout` seconds."""


@dataclass(frozen=True, slots=True)
class _End:
    """Ends a conversation: with a status, or without one when the agent has ended it."""

    code: grpc.StatusCode | None = None
    sentence: str = ""


class _Changed:
    """The list of assignments may have changed."""


class _Counted:
    """Calls may have matched on other agents."""


class _Cancelled:
    """The writer has stopped before it answered a batch."""


_Event = _End | _Changed | _Counted | _Cancelled | Hello | Outcome


class IngestService(ingest_pb2_grpc.IngestServiceServicer):
    """The servicer. close() ends all conversations."""

    def __init__(
        self, writer: Writer, lifecycle: Lifecycle, most_sessions: int = MOST_SESSIONS
    ) -> None:
        self._writer = writer
        self._lifecycle = lifecycle
        self._most_sessions = most_sessions
        self._memory = _Memory(MEMORY_BYTES)
        self._lock = threading.Lock()
        self._conversations: set[_Conversation] = set()
        self._is_closed = False
        self._watches: list[threading.Thread] = []

    def Connect(  # noqa: N802 - the name is the protocol's
        self,
        request_iterator: Iterator[ingest_pb2.ConnectRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[ingest_pb2.ConnectResponse]:
        """Hold one agent's session."""
        conversation = _Conversation(self._writer, self._lifecycle, self._memory, self._supersede)
        with self._lock:
            if self._is_closed:
                context.abort(grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping.")
            if len(self._conversations) >= self._most_sessions:
                context.abort(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"{self._most_sessions} agents are connected, which is the most that are "
                    "served at once.",
                )
            self._conversations.add(conversation)
            if not self._watches:
                self._watches = [
                    threading.Thread(target=watch, name="ingest-watch", daemon=True)
                    for watch in (self._watch_assignments, self._watch_matches)
                ]
                for thread in self._watches:
                    thread.start()
        try:
            yield from conversation.hold(request_iterator, context)
        finally:
            conversation.end(_End())
            with self._lock:
                self._conversations.discard(conversation)

    def close(self) -> None:
        """End all conversations, once what was received is answered, and take no new ones."""
        with self._lock:
            self._is_closed = True
            conversations = list(self._conversations)
        for conversation in conversations:
            conversation.stop()
        for thread in self._watches:
            thread.join()

    def _watch_assignments(self) -> None:
        revision, _ = self._lifecycle.assignments()
        while not self._is_closed:
            latest = self._lifecycle.wait_for_change(revision, WATCH_SECONDS)
            if latest == revision:
                continue
            revision = latest
            self._tell_all(_Changed())

    def _watch_matches(self) -> None:
        version = self._lifecycle.wait_for_matches(-1, 0.0)
        while not self._is_closed:
            latest = self._lifecycle.wait_for_matches(version, WATCH_SECONDS)
            if latest != version:
                version = latest
                self._tell_all(_Counted())
                time.sleep(MATCHES_SECONDS)

    def _tell_all(self, event: _Changed | _Counted) -> None:
        with self._lock:
            conversations = list(self._conversations)
        for conversation in conversations:
            conversation.tell(event)

    def _supersede(self, fresh: "_Conversation", agent_id: str) -> None:
        """End an older session of the same agent: its connection broke, and nobody noticed."""
        with self._lock:
            others = [c for c in self._conversations if c is not fresh and c.agent_id == agent_id]
        for other in others:
            other.end(_End(grpc.StatusCode.ABORTED, f"Agent {agent_id} has begun another session."))


class _Conversation:
    """One agent's session as it goes on."""

    def __init__(
        self,
        writer: Writer,
        lifecycle: Lifecycle,
        memory: "_Memory",
        supersede: Callable[["_Conversation", str], None],
    ) -> None:
        self.agent_id = ""
        self._writer = writer
        self._lifecycle = lifecycle
        self._memory = memory
        self._supersede = supersede
        self._session = Session()
        self._events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._changed = threading.Condition()  # guards the session
        self._is_over = False
        self._is_stopping = False
        self._log = logger(__name__)

    # ---- any thread

    def tell(self, event: _Event) -> None:
        """Let the sending thread see to something."""
        self._events.put(event)

    def end(self, end: _End) -> None:
        """Receive nothing more; the sending thread ends when it comes to it."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._memory.wake()
        self._events.put(end)

    def stop(self) -> None:
        """End because the scheduler does: what was received is answered first."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._memory.wake()
        self._events.put(_Changed())

    # ---- the thread that sends

    def hold(
        self, requests: Iterator[ingest_pb2.ConnectRequest], context: grpc.ServicerContext
    ) -> Iterator[ingest_pb2.ConnectResponse]:
        """Yield what the agent is to be told, until the session is over."""
        context.add_callback(lambda: self.end(_End()))
        threading.Thread(
            target=self._receive, args=(requests,), name="ingest-receive", daemon=True
        ).start()
        try:
            yield from self._welcome(context)
            has_all = False
            while not (has_all and self._is_settled()):
                if self._is_stopping and self._is_settled():
                    context.abort(grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping.")
                event = self._events.get()
                if isinstance(event, _End):
                    if event.code is not None:
                        context.abort(event.code, event.sentence)
                    if self._is_over:
                        return
                    has_all = True  # the agent sends no more, and waits for its answers
                elif isinstance(event, _Cancelled):
                    context.abort(grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping.")
                else:
                    yield from self._answer(event)
        finally:
            if self.agent_id:
                self._lifecycle.agent_disconnected(self.agent_id)

    def _welcome(self, context: grpc.ServicerContext) -> Iterator[ingest_pb2.ConnectResponse]:
        deadline = time.monotonic() + HELLO_SECONDS
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"No hello came within {HELLO_SECONDS:.0f} seconds.",
                )
            if isinstance(event, _End):
                if event.code is not None:
                    context.abort(event.code, event.sentence)
                context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, "The session ended before its hello."
                )
            if isinstance(event, Hello):
                break
            if self._is_stopping:
                context.abort(grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping.")
        self.agent_id = event.agent_id
        self._supersede(self, event.agent_id)
        self._lifecycle.agent_connected(event.agent_id, event.node, event.import_job)
        yield _response(self._session.welcome(self._writer.last_sequence(event.agent_id)))
        # First, so that a run whose limit was reached elsewhere does not begin here.
        yield from self._answer(_Counted())
        yield from self._answer(_Changed())

    def _answer(
        self, event: _Changed | _Counted | Hello | Outcome
    ) -> Iterator[ingest_pb2.ConnectResponse]:
        if isinstance(event, Hello):
            return
        if isinstance(event, _Counted):
            elsewhere = self._lifecycle.matched_elsewhere(self.agent_id)
            with self._changed:
                news = self._session.matched(elsewhere)
            yield from map(_response, news)
            return
        if isinstance(event, _Changed):
            assert self._session.hello is not None
            latest = self._lifecycle.assignments(self._session.hello.import_job)
            with self._changed:
                assigned = self._session.assign(*latest)
            if assigned is not None:
                yield _response(assigned)
            return
        with self._changed:
            answers = self._session.settle(event)
            self._changed.notify_all()
        for answer in answers:
            if isinstance(answer, Finished):
                self._lifecycle.agent_finished(self.agent_id, answer.job, answer.run)
            else:
                yield _response(answer)

    def _is_settled(self) -> bool:
        with self._changed:
            return self._session.is_settled

    # ---- the thread that receives

    def _receive(self, requests: Iterator[ingest_pb2.ConnectRequest]) -> None:
        try:
            for request in requests:
                if not self._take(request):
                    return
            self.tell(_End())
        except ProtocolError as error:
            code = grpc.StatusCode.INVALID_ARGUMENT
            if error.is_precondition:
                code = grpc.StatusCode.FAILED_PRECONDITION
            self._log.warning("session refused", agent=self.agent_id, reason=str(error))
            self.end(_End(code, str(error)))
        except RuntimeError:
            self.end(_End(grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping."))
        except Exception as error:  # gRPC raises what it likes when the other side has gone
            if not self._is_over and not isinstance(error, grpc.RpcError):
                self._log.info("session broke off", agent=self.agent_id, reason=repr(error))
            self.end(_End())

    def _take(self, request: ingest_pb2.ConnectRequest) -> bool:
        """See to one message; False when the conversation is over."""
        message = _message(request)
        size = request.ByteSize()
        if isinstance(message, Delivery):
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_over or self._is_stopping or self._session.has_room(size)
                )
            if not self._memory.take(size, lambda: self._is_over or self._is_stopping):
                return False
        with self._changed:
            if self._is_over or self._is_stopping:
                received: Hello | Batch | Matched | Probed | LiveRows | None = None
            else:
                try:
                    received = self._session.receive(message)
                except ProtocolError:
                    if isinstance(message, Delivery):
                        self._memory.give(size)
                    raise
        if isinstance(received, Hello):
            self.tell(received)
        elif isinstance(received, Matched):
            assert self._session.hello is not None
            agent_id = self._session.hello.agent_id
            self._lifecycle.agent_matched(agent_id, received.job, received.run, received.calls)
        elif isinstance(received, Probed):
            self._lifecycle.agent_probed(self.agent_id, received)
        elif isinstance(received, LiveRows):
            assert self._session.hello is not None
            if not self._session.hello.import_job:
                self._lifecycle.agent_saw(self.agent_id, self._session.hello.node, received)
        elif received is not None:
            self._submit(received, size)
        elif isinstance(message, Delivery):
            self._memory.give(size)
        return received is not None

    def _submit(self, batch: Batch, size: int) -> None:
        assert self._session.hello is not None
        hello = self._session.hello

        def answered(future: "Future[Outcome]") -> None:  # on the writer's thread
            self._memory.give(size)
            if future.cancelled() or future.exception() is not None:
                self.tell(_Cancelled())
                return
            if batch.parts and isinstance(future.result(), Accepted):
                of = (hello.agent_id, batch.job, batch.run)
                self._lifecycle.agent_delivered(*of, batch.sequence, size)
            self.tell(future.result())

        try:
            future = self._writer.submit(hello.agent_id, hello.node, batch)
        except BaseException:
            self._memory.give(size)
            raise
        future.add_done_callback(answered)


class _Memory:
    """Octets that all conversations hold together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._changed = threading.Condition()

    def take(self, octets: int, is_over: Callable[[], bool]) -> bool:
        """Wait until there is room; False when it is over before. One batch always has room."""
        with self._changed:
            self._changed.wait_for(
                lambda: is_over() or not self._held or self._held + octets <= self._most
            )
            if is_over():
                return False
            self._held += octets
            return True

    def give(self, octets: int) -> None:
        """Give octets back."""
        with self._changed:
            self._held -= octets
            self._changed.notify_all()

    def wake(self) -> None:
        """Let those who wait look again whether it is over."""
        with self._changed:
            self._changed.notify_all()


def _message(
    request: ingest_pb2.ConnectRequest,
) -> Hello | Delivery | Matched | Probed | LiveRows:
    """Return a message of the protocol; ProtocolError for one that is none."""
    kind = request.WhichOneof("message")
    if kind == "hello":
        hello = request.hello
        return Hello(
            protocol_version=hello.protocol_version,
            agent_id=hello.agent_id,
            node=hello.node,
            node_ip=hello.node_ip,
            software_version=hello.software_version,
            import_job=hello.import_job,
        )
    if kind == "matched":
        return Matched(request.matched.job, request.matched.run, request.matched.calls)
    if kind == "probed":
        found = request.probed
        return Probed(found.probe, found.entries, found.streams, found.packets, found.bytes)
    if kind == "live":
        live = request.live
        return LiveRows(live.run, live.number, _parts(live.parts, "Live traffic"))
    if kind != "batch":
        raise ProtocolError("A message holds neither a hello nor a batch.")
    batch = request.batch
    parts = _parts(batch.parts, f"Batch {batch.sequence}")
    return Delivery(
        Batch(batch.sequence, batch.job, batch.run, parts, batch.final), batch.ByteSize()
    )


def _parts(parts: Iterable[ingest_pb2.BatchPart], what: str) -> tuple[Part, ...]:
    """Return parts of a message; ProtocolError for one of no table."""
    for part in parts:
        if part.table not in TABLE_NAMES:
            raise ProtocolError(
                f"{what} has a part of table {part.table}; "
                f"known are {', '.join(f'{code} ({name})' for code, name in TABLE_NAMES.items())}."
            )
    return tuple(Part(TABLE_NAMES[part.table], part.rows, part.arrow_ipc) for part in parts)


def _response(
    answer: Welcome | Assignments | Acknowledgement | Refusal | Matched,
) -> ingest_pb2.ConnectResponse:
    response = ingest_pb2.ConnectResponse()
    if isinstance(answer, Welcome):
        response.welcome.last_sequence = answer.last_sequence
        response.welcome.window_bytes = answer.window_bytes
        response.welcome.max_batch_bytes = answer.max_batch_bytes
    elif isinstance(answer, Acknowledgement):
        response.acknowledgement.sequence = answer.sequence
    elif isinstance(answer, Matched):
        response.matched.job = answer.job
        response.matched.run = answer.run
        response.matched.calls = answer.calls
    elif isinstance(answer, Refusal):
        response.refusal.sequence = answer.sequence
        response.refusal.reason = answer.reason
    else:
        response.assignments.revision = answer.revision
        for found in answer.assignments:
            lists = response.assignments
            kind = lists.probes if found.probe else lists.live if found.live else lists.assignments
            added = kind.add(
                job=found.job, run=found.run, kfl=found.kfl, body_limit=found.body_limit
            )
            added.start_time.FromDatetime(found.start_time)
            added.stop_time.FromDatetime(found.stop_time)
    return response
