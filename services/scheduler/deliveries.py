"""Which agents still have something to deliver for a run that is at its end; lifecycle.py asks.

Agents are added by the threads that serve them, so everything here takes a lock of its own and
never waits for anything else.
"""

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.scheduler.jobs import Job, Run

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
"""Twice the nodes of the largest cluster that Kubernetes supports; beyond, the oldest go first."""


@dataclass(slots=True)
class _Agent:
    import_job: str
    since: datetime
    sessions: int = 1
    left: datetime | None = None  # when its last session ended


class Deliveries:
    """The agents that are or were connected, and the runs that each has finished."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._agents: dict[str, _Agent] = {}
        self._finished: dict[tuple[str, int], set[str]] = {}

    def connected(self, agent_id: str, import_job: str, at: datetime) -> None:
        """Note that a session of an agent has begun."""
        with self._lock:
            agent = self._agents.get(agent_id)
            if agent is None:
                self._forget_old(at)
                self._agents[agent_id] = _Agent(import_job, at)
            else:
                agent.sessions += 1
                agent.left = None

    def disconnected(self, agent_id: str, at: datetime) -> None:
        """Note that a session has ended. The agent may be back in a moment, with what it holds."""
        with self._lock:
            agent = self._agents.get(agent_id)
            if agent is not None:
                agent.sessions = max(0, agent.sessions - 1)
                agent.left = None if agent.sessions else at

    def finished(self, agent_id: str, job: str, run: int) -> None:
        """Note that an agent has nothing more for a run."""
        with self._lock:
            done = self._finished.setdefault((job, run), set())
            if len(done) < MOST_AGENTS:
                done.add(agent_id)

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

    def forget(self, job: str, run: int) -> None:
        """Drop what is known about a run that was closed or deleted."""
        with self._lock:
            self._finished.pop((job, run), None)

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
