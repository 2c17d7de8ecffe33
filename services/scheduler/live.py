"""Live traffic: what agents see of statements that someone watches. live_rpc.py and Sessions call.

A watcher (a query service) is a run that agents list and nobody stores: the entries that match go
from an agent's session to the watcher's queue. A watcher that goes takes its run with it.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from recordings.journal import Part
from services.runtime.clock import Clock
from services.runtime.logging import logger
from services.scheduler.batches import MAX_DECODED_BYTES, MOST_PARTS, RefusedError, decode
from services.scheduler.bulletin import Assignment
from services.scheduler.ingest import LiveRows
from services.scheduler.jobspecs import DEFAULT_BODY_LIMIT

NAME: Final = "~live"
"""Job of a live run's assignment; no job can have such a name."""

MOST_WATCHERS: Final = 4
"""At once: each costs agents as much as a job. One query service is one, whoever asks it."""

QUEUE_BYTES: Final = 32 << 20
"""Octets that wait for a watcher; a second or more of what it takes in."""

MOST_NEWS: Final = 4096
"""Messages that wait for a watcher; one that does not even take the small ones is cut off."""

RUNS_KEPT: Final = 16
"""Numbers of runs of which rows are still passed on: agents have sent them before they heard of
the next one."""

TABLES: Final = ("entries", "losses", "tallies")

FOREVER: Final = timedelta(days=1)
"""Agents end a live run when it is not listed any more, or when their session ends."""


@dataclass(frozen=True, slots=True)
class Watched:
    """Agents are told of a statement."""

    kfl: str
    agents: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What an agent has sent; parts are checked."""

    source: str
    node: str
    parts: Sequence[Part]
    skipped: int = 0
    """Messages before this one that were lost, of unknown content."""
    dropped: int = 0
    """Messages before this one that found no room here."""

    @property
    def size(self) -> int:
        """Octets."""
        return sum(len(part.octets) for part in self.parts)


@dataclass(frozen=True, slots=True)
class AgentChange:
    """An agent has come or gone."""

    agent_id: str
    node: str
    connected: bool
    agents: int


News = Watched | Seen | AgentChange


@dataclass(slots=True)
class Watcher:
    """Someone who watches; Live has the lock."""

    kfl: str = ""
    runs: deque[int] = field(default_factory=lambda: deque(maxlen=RUNS_KEPT))
    """The last one is on, if there is a statement."""
    news: deque[News] = field(default_factory=deque)
    held: int = 0
    dropped: int = 0
    numbers: dict[tuple[str, int], int] = field(default_factory=dict)
    """Number of each agent's last message, by run."""
    is_over: bool = False


class Live:
    """All watchers, and the agents that are connected. Methods are thread-safe and never wait."""

    def __init__(self, clock: Clock, publish: Callable[[Sequence[Assignment]], None]) -> None:
        """`publish` lets agents know of the runs."""
        self._clock = clock
        self._publish = publish
        self._changed = threading.Condition()
        self._publishing = threading.Lock()
        self._watchers: list[Watcher] = []
        self._agents: dict[str, tuple[str, int]] = {}  # node, and sessions
        self._last_run = 0
        self._listed: dict[int, Assignment] = {}
        self._refused: set[str] = set()  # agents whose rows could not be read
        self._is_closed = False

    # ---- who watches

    def begin(self) -> Watcher | None:
        """Add a watcher; None when there are too many."""
        with self._changed:
            if self._is_closed or len(self._watchers) >= MOST_WATCHERS:
                return None
            watcher = Watcher()
            self._watchers.append(watcher)
            return watcher

    def watch(self, watcher: Watcher, kfl: str) -> None:
        """Let agents know what a watcher wants from now on; "" is nothing."""
        with self._publishing:
            with self._changed:
                if kfl != watcher.kfl and not watcher.is_over:
                    self._end_run(watcher)
                    watcher.kfl = kfl
                    if kfl:
                        self._begin_run(watcher)
                listed = list(self._listed.values())
            self._publish(listed)
            self._tell(watcher, Watched(kfl, self.agents))

    def end(self, watcher: Watcher) -> None:
        """Remove a watcher, and its run."""
        with self._publishing:
            with self._changed:
                watcher.is_over = True
                self._end_run(watcher)
                if watcher in self._watchers:
                    self._watchers.remove(watcher)
                listed = list(self._listed.values())
                self._changed.notify_all()
            self._publish(listed)

    def next(self, watcher: Watcher) -> News | None:
        """Wait for what a watcher is to be told next; None when it is over."""
        with self._changed:
            self._changed.wait_for(lambda: watcher.news or watcher.is_over or self._is_closed)
            if watcher.is_over or not watcher.news:
                return None
            news = watcher.news.popleft()
            watcher.held -= news.size if isinstance(news, Seen) else 0
            return news

    def close(self) -> None:
        """Let all watchers go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def agents(self) -> int:
        """How many agents are connected."""
        return len(self._agents)

    # ---- what agents' sessions report

    def agent_came(self, agent_id: str, node: str) -> None:
        """Note that a session has begun."""
        with self._changed:
            _, sessions = self._agents.get(agent_id, (node, 0))
            self._agents[agent_id] = (node, sessions + 1)
            if not sessions:
                self._tell_all(AgentChange(agent_id, node, True, self.agents))

    def agent_left(self, agent_id: str) -> None:
        """Note that a session has ended."""
        with self._changed:
            node, sessions = self._agents.pop(agent_id, ("", 0))
            if sessions > 1:
                self._agents[agent_id] = (node, sessions - 1)
            elif sessions:
                self._refused.discard(agent_id)
                for watcher in self._watchers:
                    for key in [key for key in watcher.numbers if key[0] == agent_id]:
                        del watcher.numbers[key]
                self._tell_all(AgentChange(agent_id, node, False, self.agents))

    def took(self, agent_id: str, node: str, rows: LiveRows) -> None:
        """Pass on what an agent has sent, if someone watches that run and it can be read."""
        with self._changed:
            if not any(rows.run in watcher.runs for watcher in self._watchers):
                return
        reason = _wrong(rows.parts)
        if reason:
            if agent_id not in self._refused:
                self._refused.add(agent_id)
                logger(__name__).error("live traffic refused", agent=agent_id, reason=reason)
            return  # a hole in the numbers, which is told with what comes next
        with self._changed:
            for watcher in self._watchers:
                if rows.run in watcher.runs:
                    self._pass_on(watcher, agent_id, node, rows)

    # ---- under the lock

    def _pass_on(self, watcher: Watcher, agent_id: str, node: str, rows: LiveRows) -> None:
        before = watcher.numbers.get((agent_id, rows.run), 0)
        watcher.numbers[agent_id, rows.run] = rows.number
        size = sum(len(part.octets) for part in rows.parts)
        is_full = watcher.held and watcher.held + size > QUEUE_BYTES
        if is_full or len(watcher.news) >= MOST_NEWS // 2:
            watcher.dropped += 1
            return
        skipped, dropped = max(0, rows.number - before - 1), watcher.dropped
        watcher.dropped = 0
        source = f"{agent_id}/{rows.run}"
        watcher.news.append(Seen(source, node, rows.parts, skipped, dropped))
        watcher.held += size
        self._changed.notify_all()

    def _tell(self, watcher: Watcher, news: News) -> None:
        with self._changed:
            watcher.is_over = watcher.is_over or len(watcher.news) >= MOST_NEWS
            watcher.news.append(news)
            self._changed.notify_all()

    def _tell_all(self, news: News) -> None:
        for watcher in self._watchers:
            self._tell(watcher, news)

    def _begin_run(self, watcher: Watcher) -> None:
        self._last_run += 1
        if len(watcher.runs) == RUNS_KEPT:
            gone = watcher.runs[0]
            for key in [key for key in watcher.numbers if key[1] == gone]:
                del watcher.numbers[key]
        watcher.runs.append(self._last_run)
        now: datetime = self._clock.now()
        self._listed[self._last_run] = Assignment(
            NAME, self._last_run, watcher.kfl, now, now + FOREVER, DEFAULT_BODY_LIMIT, live=True
        )

    def _end_run(self, watcher: Watcher) -> None:
        if watcher.kfl:
            self._listed.pop(watcher.runs[-1], None)


def _wrong(parts: Sequence[Part]) -> str:
    """Return why rows of an agent cannot be passed on; "" when they can."""
    if len(parts) > MOST_PARTS:
        return f"A message has {len(parts)} parts; at most {MOST_PARTS} are taken."
    room = MAX_DECODED_BYTES
    for part in parts:
        if part.table not in TABLES:
            return f"The table {part.table} is no live traffic."
        try:
            room -= sum(found.nbytes for found in decode(part, room))
        except RefusedError as error:
            return str(error)
    return ""
