"""The agent's connection to the scheduler: a client of IngestService.Connect on threads of its own.

`agent` and `importing` call it. What is sent is kept until the scheduler has it on disk; after a
broken connection everything that is not acknowledged is sent again, in order.
"""

import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import grpc
from recorder.v1 import ingest_pb2, ingest_pb2_grpc

from services.capture import missing, outbox
from services.capture.assignments import Assignment
from services.capture.livebox import JOB, LiveBox
from services.capture.outbox import Outbox, Parts
from services.capture.spool import Spool
from services.runtime.channel import open_channel
from services.runtime.logging import logger

PROTOCOL_VERSION = 1
SOFTWARE_VERSION = "0.1.0"

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
"""Between two attempts to connect; doubled each time."""

WELCOME_SECONDS = 10.0
"""A scheduler that accepts the connection and says nothing for this long is as good as away."""

LONG_SESSION_SECONDS = 5.0
"""A session that lived this long was a good one: the next attempt to connect need not wait."""

GOODBYE_SECONDS = 3.0
"""Longest wait for the scheduler to end a session in which everything is said."""

STOP_SECONDS = 5.0
"""Longest wait for the threads to end; they are daemons, so they cannot keep a process alive."""

_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9._-]")
_NODE_IN_ID = 64  # characters of the node's name; the whole may have 128

_log = logger(__name__)


@dataclass(slots=True)
class _Session:
    """One call of Connect."""

    agent_id: str
    welcomed: bool = False
    fruitful: bool = False  # something was acknowledged
    over: bool = False


class Uplink:
    """Delivers batches, and knows what the scheduler wants recorded. Methods are thread-safe."""

    def __init__(
        self,
        address: str,
        node: str,
        node_ip: str,
        agent_id: str | None = None,
        memory_limit: int = 64 << 20,
        import_job: str = "",
        blocking: bool = False,
        spool: Spool | None = None,
        lock: threading.Condition | None = None,
        counters: outbox.Counters | None = None,
    ) -> None:
        """`memory_limit` is in octets; above it batches are in the spool alone, when there is one.

        Without, send() drops the oldest batch, or waits. lock, counters: shared by several.
        """
        self._address = address
        self._node = node
        self._node_ip = node_ip
        self._import_job = import_job
        self._blocking = blocking
        self._agent_id = agent_id or (spool.agent_id if spool else "") or _new_agent_id(node)
        self._spool = spool
        self._changed = lock or threading.Condition()
        counters = outbox.Counters() if counters is None else counters
        self._outbox = Outbox(node, memory_limit, spool=spool, counters=counters)
        if spool is not None and spool.agent_id != self._agent_id:
            spool.name(self._agent_id)
        self._assignments: tuple[Assignment, ...] = ()
        self._revision = 0
        self._matched: dict[tuple[str, int], int] = {}
        self._untold: set[tuple[str, int]] = set()  # keys of it that this session has yet to say
        self._elsewhere: Mapping[tuple[str, int], int] = {}
        self._probed: list[ingest_pb2.Probed] = []
        self._live = LiveBox(node)
        self._is_live_next = True
        self._reconnects = 0
        self._is_connected = False
        self._is_told = False
        self._stopping = False
        self._failure = ""
        self._refusal = ""
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    @property
    def agent_id(self) -> str:
        """Name under which the batches are counted now."""
        return self._agent_id

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """The latest list from the scheduler."""
        return self._assignments

    @property
    def revision(self) -> int:
        """Counts the lists that came, from 1; 0 when none did."""
        return self._revision

    @property
    def elsewhere(self) -> Mapping[tuple[str, int], int]:
        """How many calls have matched on other agents, by job and run, of runs with a limit()."""
        return self._elsewhere

    @property
    def counters(self) -> outbox.Counters:
        """What happened to batches so far."""
        return self._outbox.counters

    @property
    def used_bytes(self) -> int:
        """Octets of batches that are not acknowledged."""
        return self._outbox.used_bytes

    @property
    def spool_bytes(self) -> int:
        """Octets of the spool's files."""
        return self._spool.used_bytes if self._spool else 0

    @property
    def reconnects(self) -> int:
        """Sessions that ended before the uplink was stopped."""
        return self._reconnects

    @property
    def failure(self) -> str:
        """Why there is no session now, as a sentence; empty when there is one."""
        return self._failure

    @property
    def refusal(self) -> str:
        """Why the scheduler refused a batch, the last time that it did."""
        return self._refusal

    @property
    def is_idle(self) -> bool:
        """Everything that was sent is acknowledged."""
        with self._changed:
            return self._outbox.is_empty

    @property
    def is_connected(self) -> bool:
        """There is a session now."""
        return self._is_connected

    @property
    def is_told(self) -> bool:
        """The session has told what to record."""
        return self._is_told

    def hand_over(self, other: "Uplink") -> list[tuple[str, int]]:
        """Give what was never sent to another one that has the same lock.

        Returns the runs whose last batch was among it.
        """
        ended = []
        with self._changed:
            for batch in self._outbox.take_back():
                other._outbox.put(batch)
                self._outbox.counters.queued -= 1  # it was counted here
                if batch.final:
                    ended.append((batch.job, batch.run))
            for (job, run), missing in self._outbox.take_missing().items():
                other._outbox.miss(job, run, missing)
            self._changed.notify_all()
        return ended

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def send(self, job: str, run: int, parts: Parts, final: bool = False) -> None:
        """Queue tables for a run: pairs of a name in recordings.schema.TABLES and its rows.

        Returns at once, unless the uplink is blocking and above its memory limit.
        """
        made, too_large = outbox.batches(job, run, parts, final, self._outbox.max_batch_bytes)
        with self._changed:
            if too_large != missing.Content():
                _log.error("rows larger than a batch were dropped", job=job, run=run)
                self._outbox.miss(job, run, too_large)
            for batch in made:
                if self._blocking:
                    self._changed.wait_for(
                        lambda size=batch.size_bytes: (  # type: ignore[misc]
                            self._outbox.has_room(size) or self._stopping
                        )
                    )
                before = self._outbox.counters.dropped
                self._outbox.put(batch)
                if self._outbox.counters.dropped > before == 0:
                    _log.warning("the scheduler is away or slow; the oldest batches are dropped")
            self._changed.notify_all()

    def tell_matched(self, job: str, run: int, calls: int) -> None:
        """Let other agents know how many calls of a run with a limit() have matched here."""
        with self._changed:
            self._matched[job, run] = calls
            self._untold.add((job, run))
            self._changed.notify_all()

    def tell_probed(
        self, probe: int, entries: int, streams: int, packets: int, octets: int
    ) -> None:
        """Tell what a probe has counted; nobody waits for it after a broken connection."""
        counts = ingest_pb2.Probed(
            probe=probe, entries=entries, streams=streams, packets=packets, bytes=octets
        )
        with self._changed:
            self._probed.append(counts)
            self._changed.notify_all()

    def send_live(self, run: int, parts: Parts) -> None:
        """Send tables of a live run, if there is a session; what finds no room is dropped."""
        with self._changed:
            if self._is_connected:
                self._live.put(run, parts)
                self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Wait until all is acknowledged; False when it is not within `timeout` seconds."""
        with self._changed:
            return (
                self._changed.wait_for(lambda: self._outbox.is_empty or self._stopping, timeout)
                and self._outbox.is_empty
            )

    def wait_for_assignments(self, after_revision: int, timeout: float) -> bool:
        """Wait for a list newer than `after_revision`; False when none comes within the seconds."""
        with self._changed:
            return (
                self._changed.wait_for(
                    lambda: self._revision > after_revision or self._stopping, timeout
                )
                and self._revision > after_revision
            )

    def stop(self) -> None:
        """End the session. What is not acknowledged by now is lost, and logged."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            is_done = self._outbox.is_empty
        if is_done and self._thread.is_alive():
            # The stream of requests has ended; the scheduler now finishes what it does with them
            # and ends the call. Cancelled, it might not take note of a run's end.
            self._thread.join(GOODBYE_SECONDS)
        call = self._call
        if call is not None:
            call.cancel()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)
        if not self._outbox.is_empty:
            _log.error(
                "stopped before the scheduler had everything",
                unacknowledged_bytes=self._outbox.used_bytes,
                spooled_bytes=self._spool.used_bytes if self._spool else 0,
            )
        if self._spool is not None:
            self._spool.close()

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping:
            session = _Session(self._agent_id)
            began = time.monotonic()
            reason = self._converse(session)
            if session.fruitful or time.monotonic() - began >= LONG_SESSION_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            with self._changed:
                if self._stopping:
                    return
                self._reconnects += session.welcomed
                if reason != self._failure:
                    _log.warning("no connection to the scheduler", reason=reason)
                self._failure = reason
                self._changed.wait_for(lambda: self._stopping, pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _converse(self, session: _Session) -> str:
        """Hold one session until it ends; return why it did."""
        channel = open_channel(self._address)
        try:
            call = ingest_pb2_grpc.IngestServiceStub(channel).Connect(self._requests(session))
            with self._changed:
                self._call = call
                if self._stopping:
                    call.cancel()
            impatience = threading.Timer(WELCOME_SECONDS, _cancel_unless_welcome, (session, call))
            impatience.daemon = True
            impatience.start()
            try:
                for response in call:
                    self._take(session, response)
            finally:
                impatience.cancel()
            return "the scheduler ended the session"
        except grpc.RpcError as error:
            return _reason(error, session)
        except _NumbersLostError:
            return "the scheduler does not know this agent's numbers; it begins again as another"
        finally:
            with self._changed:
                session.over = True
                self._is_connected = self._is_told = False
                self._end_live()
                self._call = None
                self._changed.notify_all()
            channel.close()

    def _requests(self, session: _Session) -> Iterator[ingest_pb2.ConnectRequest]:
        """What gRPC's sending thread pulls from: the hello, then batches as the window allows."""
        hello = ingest_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            agent_id=session.agent_id,
            node=self._node,
            node_ip=self._node_ip,
            software_version=SOFTWARE_VERSION,
            import_job=self._import_job,
        )
        yield ingest_pb2.ConnectRequest(hello=hello)
        while True:
            with self._changed:
                request = None
                while not session.over and not self._stopping:
                    request = self._next_request() if session.welcomed else None
                    if request is not None:
                        break
                    self._changed.wait()
                if request is None:
                    return
            yield request

    def _next_request(self) -> ingest_pb2.ConnectRequest | None:
        """Counts before batches: other agents may be about to take more than the limit."""
        if self._probed:
            return ingest_pb2.ConnectRequest(probed=self._probed.pop())
        if not self._untold:
            return self._next_rows()
        job, run = key = self._untold.pop()
        matched = ingest_pb2.Matched(job=job, run=run, calls=self._matched[key])
        return ingest_pb2.ConnectRequest(matched=matched)

    def _next_rows(self) -> ingest_pb2.ConnectRequest | None:
        """Live traffic and recordings in turns, so that neither waits for all of the other."""
        boxes = (self._live, self._outbox) if self._is_live_next else (self._outbox, self._live)
        for box in boxes:
            request = box.next()
            if request is not None:
                self._is_live_next = box is not self._live
                return request
        return None

    def _end_live(self) -> None:
        """End live runs: nobody can watch without a session."""
        self._live.clear()
        listed = tuple(found for found in self._assignments if not found.live)
        if listed != self._assignments:
            self._assignments = listed
            self._revision += 1

    def _take(self, session: _Session, response: ingest_pb2.ConnectResponse) -> None:
        kind = response.WhichOneof("message")
        with self._changed:
            if kind == "welcome":
                self._welcome(session, response.welcome)
            elif kind == "acknowledgement":
                self._outbox.acknowledge(response.acknowledgement.sequence)
                session.fruitful = True
            elif kind == "assignments":
                lists = response.assignments
                self._assignments = (
                    *(_assignment(a) for a in lists.assignments),
                    *(replace(_assignment(a), probe=True) for a in lists.probes),
                    *(replace(_assignment(a), job=JOB, live=True) for a in lists.live),
                )
                self._revision += 1
                self._is_told = True
                listed = {assignment.key for assignment in self._assignments}
                for key in self._matched.keys() - listed:
                    del self._matched[key]
                    self._untold.discard(key)
                self._elsewhere = {k: n for k, n in self._elsewhere.items() if k in listed}
            elif kind == "matched":
                matched = response.matched
                self._elsewhere = {**self._elsewhere, (matched.job, matched.run): matched.calls}
            elif kind == "refusal":
                self._outbox.counters.refused += 1
                self._refusal = response.refusal.reason
                _log.error(
                    "the scheduler refused a batch",
                    sequence=response.refusal.sequence,
                    reason=response.refusal.reason,
                )
            self._changed.notify_all()

    def _welcome(self, session: _Session, welcome: ingest_pb2.Welcome) -> None:
        if session.welcomed:
            return
        known = self._outbox.welcome(
            welcome.last_sequence, welcome.window_bytes, welcome.max_batch_bytes
        )
        if not known:
            self._agent_id = _new_agent_id(self._node)
            self._outbox.begin_again(self._agent_id)
            session.fruitful = True  # nothing is wrong with the scheduler: no need to wait
            raise _NumbersLostError
        session.welcomed = self._is_connected = True
        self._probed.clear()
        self._untold = set(self._matched)  # the scheduler may be another one
        self._failure = ""
        _log.info("connected to the scheduler", address=self._address, agent_id=self._agent_id)


class _NumbersLostError(Exception):
    """The session cannot go on under this agent's name."""


def _cancel_unless_welcome(session: _Session, call: grpc.Call) -> None:
    if not session.welcomed:
        call.cancel()


def _reason(error: grpc.RpcError, session: _Session) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.CANCELLED and not session.welcomed:
        return f"the scheduler said nothing for {WELCOME_SECONDS:.0f} seconds"
    return f"{code.name}: {details}"


def _new_agent_id(node: str) -> str:
    return f"{_NOT_IN_ID.sub('-', node)[:_NODE_IN_ID]}-{uuid.uuid4().hex[:12]}"


def _assignment(message: ingest_pb2.Assignment) -> Assignment:
    return Assignment(
        message.job,
        message.run,
        message.kfl,
        message.start_time.ToNanoseconds(),
        message.stop_time.ToNanoseconds(),
        message.body_limit,
    )
