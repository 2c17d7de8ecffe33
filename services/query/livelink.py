"""A scheduler's live traffic: a thread that holds a call of LiveService.Watch. live.py makes it.

The call is open while something is watched. When it breaks it is made again, and what was missed
meanwhile is a loss, as is what an agent sees that has no connection to its scheduler.
"""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

import grpc
import pyarrow as pa
from recorder.v1 import live_pb2, live_pb2_grpc

from recordings.journal import TABLE_NAMES, Part
from services.query.livememory import AGENT_GONE, LIVE_OVERRUN, Memory
from services.runtime.channel import open_channel
from services.runtime.logging import logger

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 2.0
"""Between two attempts to connect; doubled each time."""

STOP_SECONDS: Final = 5.0
"""Longest wait for the thread to end; it is a daemon, so it cannot keep a process alive."""

MOST_AWAY: Final = 10_000
"""Nodes whose agent is away that are remembered: twice those of the largest cluster."""


class Shared:
    """What all links share; `changed` guards it."""

    def __init__(
        self, window_seconds: float, memory_bytes: int, clock: Callable[[], float]
    ) -> None:
        self.changed = threading.Condition()
        self.clock = clock
        self.memory = Memory(window_seconds, memory_bytes)
        self.wanted = ""
        """The statement for all that is watched; empty for nothing."""
        self.texts: frozenset[str] = frozenset()
        """What is watched with it."""
        self.wakes: list[threading.Event] = []
        self.is_closed = False
        self._sizes = (window_seconds, memory_bytes)

    def set_wanted(self, wanted: str, texts: frozenset[str]) -> None:
        """Let the links ask for something else; nothing is kept when it is nothing."""
        self.wanted, self.texts = wanted, texts
        if not wanted:
            self.memory = Memory(*self._sizes)
        self.changed.notify_all()

    def wake(self) -> None:
        """Let those know who follow."""
        for event in self.wakes:
            event.set()


class Link:
    """The live traffic of one scheduler's agents."""

    def __init__(self, address: str, shared: Shared) -> None:
        self.agents = 0
        """Agents that are connected to the scheduler."""
        self.told: frozenset[str] = frozenset()
        """Statements of which its agents know."""
        self.trouble = ""
        """Why there is no live traffic of it now, as a sentence."""
        self._address = address
        self._shared = shared
        self._changed = shared.changed
        self._lost_ns: int | None = None  # since when there is none
        self._away: dict[str, int] = {}  # nodes, since when
        self._call: grpc.Call | None = None
        self._thread = threading.Thread(target=self._run, name="live-link", daemon=True)

    def start(self) -> None:
        """Begin to connect whenever something is watched."""
        self._thread.start()

    def close(self) -> None:
        """End; the shared state says that it is closed."""
        call = self._call
        if call is not None:
            call.cancel()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._shared.wanted or self._shared.is_closed)
                if self._shared.is_closed:
                    return
            reason = self._converse()
            with self._changed:
                was_there, self.told, self.agents = bool(self.told), frozenset(), 0
                if not self._shared.wanted:
                    self.trouble, self._lost_ns, pause = "", None, FIRST_PAUSE_SECONDS
                    self._away.clear()
                    continue
                self._broke(reason)
                pause = FIRST_PAUSE_SECONDS if was_there else min(pause * 2, LONGEST_PAUSE_SECONDS)
                self._changed.wait_for(lambda: self._shared.is_closed, pause)

    def _converse(self) -> str:
        """Hold a call until it ends; return why it did."""
        channel = open_channel(self._address)
        is_over = threading.Event()
        try:
            self._call = live_pb2_grpc.LiveServiceStub(channel).Watch(self._requests(is_over))
            if self._shared.is_closed:
                self._call.cancel()
            for response in self._call:
                self._take(response)
        except grpc.RpcError as error:
            return f"{error.details() or error.code().name}".rstrip(".")
        finally:
            self._call = None
            with self._changed:
                is_over.set()
                self._changed.notify_all()
            channel.close()
        return "the scheduler ended the call"

    def _requests(self, is_over: threading.Event) -> Iterator[live_pb2.WatchRequest]:
        """What gRPC's sending thread pulls from; it ends when nothing is watched any more."""
        asked = ""
        while True:
            with self._changed:
                while self._shared.wanted == asked and not self._shared.is_closed:
                    if is_over.is_set():
                        return
                    self._changed.wait()
                asked = self._shared.wanted
                if self._shared.is_closed or is_over.is_set() or not asked:
                    return
            yield live_pb2.WatchRequest(kfl=asked)

    def _take(self, response: live_pb2.WatchResponse) -> None:
        kind = response.WhichOneof("message")
        if kind == "seen":
            self._see(response.seen)
            return
        with self._changed:
            now = self._shared.clock()
            if kind == "watched":
                self._watched(response.watched, now)
            elif kind == "agent":
                self._agent(response.agent, now)
            self._changed.notify_all()
            self._shared.wake()

    def _watched(self, watched: live_pb2.Watched, now: float) -> None:
        self.agents = watched.agents
        if watched.kfl == self._shared.wanted:
            self.told = self._shared.texts
        self.trouble = ""
        if self._lost_ns is not None:
            detail = f"what the agents of the scheduler {self._address} saw meanwhile is missing"
            self._shared.memory.lose(AGENT_GONE, "", detail, now, self._lost_ns)
            self._lost_ns = None

    def _agent(self, change: live_pb2.AgentChange, now: float) -> None:
        self.agents = change.agents
        if not change.connected:
            if len(self._away) < MOST_AWAY:
                self._away[change.node] = time.time_ns()
            detail = (
                f"agent {change.agent_id} is gone; what it had not sent is missing, and what is "
                "seen on this node until an agent is back"
            )
            self._shared.memory.lose(AGENT_GONE, change.node, detail, now)
        elif change.node in self._away:
            detail = "an agent is back on this node; what was seen meanwhile is missing"
            since_ns = self._away.pop(change.node)
            self._shared.memory.lose(AGENT_GONE, change.node, detail, now, since_ns)

    def _see(self, seen: live_pb2.Seen) -> None:
        try:
            parts = [
                (name, Part(name, part.rows, part.arrow_ipc).batches())
                for part in seen.parts
                if (name := TABLE_NAMES.get(part.table, "")) in ("entries", "losses", "tallies")
            ]
        except (pa.ArrowException, OSError, ValueError) as error:
            logger(__name__).error("live traffic not read", node=seen.node, error=str(error))
            return
        with self._changed:
            now, memory = self._shared.clock(), self._shared.memory
            memory.add(seen.source, seen.node, parts, now)
            if seen.skipped:
                detail = f"{seen.skipped} messages of the agent did not arrive"
                memory.lose(LIVE_OVERRUN, seen.node, detail, now)
            if seen.dropped:
                detail = (
                    f"{seen.dropped} messages of agents had no room at the scheduler "
                    f"{self._address}, because they were not taken fast enough"
                )
                memory.lose(LIVE_OVERRUN, "", detail, now)
            self._shared.wake()

    def _broke(self, reason: str) -> None:
        """Note that the scheduler cannot be reached; told as a loss once."""
        self.trouble = (
            f"The scheduler {self._address} sends no live traffic: {reason[:200]}. "
            "What its agents see is missing."
        )
        if self._lost_ns is None:
            self._lost_ns = time.time_ns()
            self._away.clear()
            self._shared.memory.lose(AGENT_GONE, "", self.trouble, self._shared.clock())
            logger(__name__).warning("no live traffic", reason=self.trouble)
        self._changed.notify_all()
        self._shared.wake()
