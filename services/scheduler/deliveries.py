"""The agents, what part each has in the runs that take data, and which still have to deliver.

Agents are added by the threads that serve them, so everything here takes a lock of its own and
never waits for anything else. lifecycle.py asks, and stores what has changed.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from services.scheduler.jobs import AgentState, Job, Run, RunAgent

FINAL_GRACE = timedelta(seconds=10)
"""How long after its end a run waits for agents that have not said that they are done. An agent
tries to reconnect every 5 s at the latest; what it holds by then is sent within moments."""

RESTART_GRACE = timedelta(seconds=15)
"""The same for a run that was on when the scheduler stopped: nobody knows which agents hold
something for it, and they have to reconnect first."""

FORGOTTEN = timedelta(minutes=10)
"""An agent that has been away for this long is not waited for. It was restarted, under another id,
or its node is gone."""

MOST_AGENTS = 10_000
"""Twice the nodes of the largest cluster that Kubernetes supports; beyond, the oldest go first. A
run lists no more."""

SAVED_EVERY = timedelta(seconds=10)
"""How often what agents have delivered is stored while a run is on; a crash forgets so much of the
counts, and nothing of the data."""

Key = tuple[str, int]
"""Job and run."""


@dataclass(slots=True)
class _Agent:
    node: str
    import_job: str
    since: datetime
    sessions: int = 1
    left: datetime | None = None  # when its last session ended


@dataclass(slots=True)
class _Part:
    """Who takes part in a run."""

    import_job: str
    start: datetime
    end: datetime
    agents: dict[str, RunAgent] = field(default_factory=dict)
    unsaved: set[str] = field(default_factory=set)


class Deliveries:
    """The agents that are or were connected, and their parts in the runs that take data."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._agents: dict[str, _Agent] = {}
        self._finished: dict[Key, set[str]] = {}
        self._parts: dict[Key, _Part] = {}
        self._saved: datetime | None = None
        self._is_urgent = False

    # ---- what agents' sessions report

    def connected(self, agent_id: str, node: str, import_job: str, at: datetime) -> None:
        """Note that a session of an agent has begun."""
        with self._lock:
            agent = self._agents.get(agent_id)
            if agent is None:
                self._forget_old(at)
                agent = self._agents[agent_id] = _Agent(node, import_job, at)
            else:
                agent.sessions += 1
                agent.left = None
            for part in self._parts.values():
                if part.import_job == import_job and (agent_id in part.agents or at < part.end):
                    self._join(part, agent_id, agent, at)

    def disconnected(self, agent_id: str, at: datetime) -> None:
        """Note that a session has ended. The agent may be back in a moment, with what it holds."""
        with self._lock:
            agent = self._agents.get(agent_id)
            if agent is None:
                return
            agent.sessions = max(0, agent.sessions - 1)
            agent.left = None if agent.sessions else at
            for part in self._parts.values():
                mine = part.agents.get(agent_id)
                if agent.left and mine and mine.state is AgentState.RECORDING:
                    self._note(part, replace(mine, state=AgentState.AWAY))

    def delivered(
        self, agent_id: str, job: str, run: int, sequence: int, octets: int, at: datetime
    ) -> bool:
        """Note that a batch of an agent is on disk. Whether it is the first that is to be stored.

        A batch that was sent again is counted once.
        """
        with self._lock:
            part, agent = self._parts.get((job, run)), self._agents.get(agent_id)
            if part is None or agent is None:
                return False
            if agent_id not in part.agents:  # it recorded while it was away
                self._join(part, agent_id, agent, at)
            mine = part.agents.get(agent_id)
            if mine is None or sequence <= mine.sequence:
                return False
            is_first = not any(part.unsaved for part in self._parts.values())
            part.agents[agent_id] = replace(
                mine,
                heard_time=at,
                data_time=at,
                batches=mine.batches + 1,
                bytes=mine.bytes + octets,
                sequence=sequence,
            )
            part.unsaved.add(agent_id)
            return is_first

    def finished(self, agent_id: str, job: str, run: int, at: datetime) -> None:
        """Note that an agent has nothing more for a run."""
        with self._lock:
            done = self._finished.setdefault((job, run), set())
            if len(done) < MOST_AGENTS:
                done.add(agent_id)
            part = self._parts.get((job, run))
            mine = part.agents.get(agent_id) if part else None
            if part and mine:
                done_now = replace(mine, state=AgentState.FINISHED, heard_time=at, finish_time=at)
                self._note(part, done_now)

    # ---- what lifecycle asks

    def begin(self, job: Job, run: Run, known: Iterable[RunAgent] = ()) -> None:
        """Let all agents that are connected take part in a run; `known` did before a restart."""
        with self._lock:
            import_job = job.name if job.spec.imported else ""
            fresh = _Part(import_job, run.start_time, run.end_time)
            # It is there already where a scheduler begins or ceases to lead.
            part = self._parts.setdefault((job.name, run.number), fresh)
            for agent in known:
                if agent.agent_id in part.agents:
                    continue
                is_done = agent.state is AgentState.FINISHED
                part.agents[agent.agent_id] = (
                    agent if is_done else replace(agent, state=AgentState.AWAY)
                )
            for agent_id, present in self._agents.items():
                if present.sessions and present.import_job == import_job:
                    self._join(part, agent_id, present, run.start_time)

    def ends(self, job: str, run: Run) -> None:
        """Note when a run ends: agents that come later have no part in it."""
        with self._lock:
            part = self._parts.get((job, run.number))
            if part is not None:
                part.end = run.end_time

    def any_recording(self, job: str, run: int) -> bool:
        """Whether some agent that records a run is there to be told when to stop."""
        with self._lock:
            part = self._parts.get((job, run))
            agents = part.agents.values() if part else ()
            return any(agent.state is AgentState.RECORDING for agent in agents)

    def connected_agents(self) -> list[str]:
        """Return the agents on the wire that are connected."""
        with self._lock:
            return [n for n, a in self._agents.items() if a.sessions and not a.import_job]

    def importer_finished(self, job: str, run: int) -> bool:
        """Whether a client that imports into this job has said that it is done."""
        with self._lock:
            done = self._finished.get((job, run), set())
            return any(self._agents[a].import_job == job for a in done if a in self._agents)

    def are_complete(self, job: Job, run: Run, now: datetime) -> bool:
        """Whether all agents that were there during the run have finished it."""
        import_job = job.name if job.spec.imported else ""
        with self._lock:
            done = self._finished.get((job.name, run.number), set())
            return all(
                agent_id in done
                for agent_id, agent in self._agents.items()
                if agent.import_job == import_job
                # One that came after the end has nothing of it.
                and agent.since < run.end_time
                and (agent.left is None or run.start_time < agent.left > now - FORGOTTEN)
            )

    def agents(self, job: str, run: int) -> list[RunAgent] | None:
        """Return the agents of a run by node; None for one that takes no data."""
        with self._lock:
            part = self._parts.get((job, run))
            if part is None:
                return None
            return sorted(part.agents.values(), key=lambda agent: (agent.node, agent.agent_id))

    def to_save(self, now: datetime) -> dict[Key, list[RunAgent]]:
        """Return what has changed since the last time: at once if it is a state, else by and by."""
        with self._lock:
            # A clock that was set back does not hold it up.
            is_new = self._saved and self._saved <= now < self._saved + SAVED_EVERY
            if is_new and not self._is_urgent:
                return {}
            found = {
                key: [part.agents[agent_id] for agent_id in part.unsaved]
                for key, part in self._parts.items()
                if part.unsaved
            }
            if found:
                self._saved = now
            return found

    def saved(self, job: str, run: int, agents: Iterable[RunAgent]) -> None:
        """Note that these are stored."""
        with self._lock:
            part = self._parts.get((job, run))
            for agent in agents if part else ():
                if part.agents.get(agent.agent_id) == agent:  # type: ignore[union-attr]
                    part.unsaved.discard(agent.agent_id)  # type: ignore[union-attr]
            self._is_urgent = False

    def save_time(self) -> datetime | None:
        """Return when there is something to save again."""
        with self._lock:
            is_unsaved = any(part.unsaved for part in self._parts.values())
            return self._saved + SAVED_EVERY if is_unsaved and self._saved else None

    def forget(self, job: str, run: int) -> None:
        """Drop what is known about a run that was closed or deleted."""
        with self._lock:
            self._finished.pop((job, run), None)
            self._parts.pop((job, run), None)

    # ---- under the lock

    def _join(self, part: _Part, agent_id: str, agent: _Agent, at: datetime) -> None:
        mine = part.agents.get(agent_id)
        if mine is None:
            if len(part.agents) >= MOST_AGENTS:
                return
            join = max(part.start, min(at, agent.since))
            state = AgentState.RECORDING
            self._note(
                part,
                RunAgent(
                    agent_id=agent_id, node=agent.node, state=state, join_time=join, heard_time=at
                ),
            )
        elif mine.state is not AgentState.FINISHED:
            self._note(part, replace(mine, state=AgentState.RECORDING, heard_time=at))

    def _note(self, part: _Part, agent: RunAgent) -> None:
        part.agents[agent.agent_id] = agent
        part.unsaved.add(agent.agent_id)
        self._is_urgent = True

    def _forget_old(self, now: datetime) -> None:
        gone = [
            agent_id
            for agent_id, agent in self._agents.items()
            if agent.left is not None and agent.left + FORGOTTEN <= now
        ]
        for agent_id in gone:
            del self._agents[agent_id]
        while len(self._agents) >= MOST_AGENTS:
            del self._agents[next(iter(self._agents))]
