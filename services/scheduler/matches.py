"""How many calls have matched on each agent, of runs whose statement has a limit().

Each agent tells its own count and hears that of all others, so that none takes more once the limit
is reached. Calls that match on several agents within one round trip can be too many; at the very
worst each agent has taken as many as the limit says. Methods are thread-safe and never wait for
anything else.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

MOST_CALLS = 2**31 - 1
"""Of one agent and run: more than any limit() can say."""

MOST_AGENTS = 10_000
"""Of a run; as many as deliveries.py waits for. What more tell is not counted."""

Key = tuple[str, int]
"""Job and run."""


@dataclass(slots=True)
class _Count:
    before: int = 0  # of processes of this agent that have ended
    now: int = 0
    first: int = 0
    """What was told first: more than 0 when it had matched before the scheduler started."""


@dataclass(slots=True)
class _Run:
    stored: int = 0
    """Streams that were on disk when the scheduler started: at least as many calls had matched by
    then, some of them on agents that are gone."""
    agents: dict[str, _Count] = field(default_factory=dict)

    def elsewhere(self, agent_id: str) -> int:
        """Return what all others have, and what a process of this agent had that has ended."""
        own = self.agents.get(agent_id, _Count())
        counts = self.agents.values()
        earlier = max(self.stored, sum(count.first for count in counts))
        since = sum(count.before + count.now - count.first for count in counts)
        return earlier + since - own.now


class Matches:
    """The counts of all runs that take data."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._runs: dict[Key, _Run] = {}
        self._of_others: dict[Key, int] = {}
        self._version = 0

    def told(self, agent_id: str, job: str, run: int, calls: int) -> None:
        """Note an agent's count. It begins at 0 for each process, also under the same name."""
        with self._changed:
            agents = self._runs.setdefault((job, run), _Run()).agents
            calls = min(calls, MOST_CALLS)
            if agent_id not in agents and len(agents) >= MOST_AGENTS:
                return
            count = agents.setdefault(agent_id, _Count(first=calls))
            if calls < count.now:
                count.before += count.now
            if calls != count.now:
                count.now = calls
                self._version += 1
                self._changed.notify_all()

    def resume(self, job: str, run: int, streams: int) -> None:
        """Note how many streams of a run were on disk when it was taken up."""
        with self._changed:
            self._runs.setdefault((job, run), _Run()).stored = streams

    def forget(self, job: str, run: int) -> None:
        """Drop what is known about a run that takes no data any more."""
        with self._changed:
            self._runs.pop((job, run), None)

    def elsewhere(self, agent_id: str) -> dict[Key, int]:
        """Return, for each run, how many calls have matched on other agents than this one."""
        with self._changed:
            found = {key: run.elsewhere(agent_id) for key, run in self._runs.items()}
            for key, calls in self._of_others.items():
                found[key] = found.get(key, 0) + calls
            return found

    def total(self, job: str, run: int) -> int:
        """Return how many calls of a run have matched on all agents of this scheduler."""
        with self._changed:
            found = self._runs.get((job, run))
            return found.elsewhere("") if found else 0

    def of_others(self, counts: Mapping[Key, int]) -> None:
        """Note how many calls have matched on agents of other schedulers, by job and run."""
        with self._changed:
            if counts != self._of_others:
                self._of_others = dict(counts)
                self._version += 1
                self._changed.notify_all()

    def wait(self, version: int, timeout: float) -> int:
        """Wait until some count is another than at `version`, at most `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != version, timeout)
            return self._version
