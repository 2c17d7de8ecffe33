"""How far each agent's batches are settled: on disk, or refused for good. The writer keeps it.

A welcome tells the agent, which goes on behind it. Most of it is in the journals and manifests of
the runs; what is not (batches that were refused, runs that were deleted) is kept in a journal of
its own, `<data>/agents/`, so that a number that was acknowledged is never asked for again.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from recordings import journal, layout
from recordings.journal import Journal, JournalRecord

MOST_AGENTS: Final = 10_000
"""Agents remembered: twice the nodes of a large cluster. A restarted agent is a new one."""
COMPACT_BYTES: Final = 4 << 20
"""A journal beyond this is written again with one record an agent."""


@dataclass(slots=True)
class _Mark:
    settled: int = 0
    highest: int = 0
    pending: Counter[int] = field(default_factory=Counter)


class AgentMarks:
    """The marks of all agents; safe for many threads, but one at a time may keep()."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._marks: dict[str, _Mark] = {}
        self._journal: Journal | None = None

    def load(self) -> None:
        """Read what was kept; raises OSError, and ValueError if a later release wrote it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in layout.journals(self._folder):
            for record in journal.scan(layout.journal(self._folder, number)).records:
                self.learn(record.agent, record.settled, ())

    def learn(self, agent: str, settled: int, stored: Iterable[int]) -> None:
        """Take what a manifest or a journal says: settled up to a number, and single batches."""
        with self._lock:
            mark = self._marks.pop(agent, None) or _Mark()
            self._marks[agent] = mark  # the dict's order is that of age
            mark.settled = max(mark.settled, settled)
            for sequence in sorted(stored):
                if sequence == mark.settled + 1:
                    mark.settled = sequence
            mark.highest = max(mark.highest, mark.settled)
            while len(self._marks) > MOST_AGENTS:
                oldest = next(iter(self._marks))
                if self._marks[oldest].pending:
                    break
                del self._marks[oldest]

    def settled(self, agent: str) -> int:
        """Return the number up to which all of an agent's batches are settled; 0 for none."""
        with self._lock:
            mark = self._marks.get(agent)
            return mark.settled if mark else 0

    def begin(self, agent: str, sequence: int) -> None:
        """Note that a batch is under way."""
        self.learn(agent, 0, ())
        with self._lock:
            mark = self._marks[agent]
            mark.pending[sequence] += 1
            mark.highest = max(mark.highest, sequence)

    def end(self, agent: str, sequence: int) -> None:
        """Note that a batch is on disk or refused."""
        with self._lock:
            mark = self._marks[agent]
            mark.pending[sequence] -= 1
            if mark.pending[sequence] <= 0:
                del mark.pending[sequence]
            lowest = min(mark.pending, default=mark.highest + 1)
            mark.settled = max(mark.settled, lowest - 1)

    def keep(self, agents: Iterable[str]) -> None:
        """Make the marks of these agents survive; raises OSError."""
        if self._journal is None or self._journal.size > COMPACT_BYTES:
            self._compact()
        else:
            for agent in agents:
                self._append(self._journal, agent)
            self._journal.sync()

    def close(self) -> None:
        """Keep all marks and close; raises OSError."""
        self._compact()
        assert self._journal is not None
        self._journal.close()
        self._journal = None

    def _compact(self) -> None:
        """Write all marks to a new journal, then remove the old ones."""
        old = layout.journals(self._folder)
        fresh = Journal(self._folder, max(old, default=0) + 1)
        try:
            with self._lock:
                agents = list(self._marks)
            for agent in agents:
                self._append(fresh, agent)
            fresh.sync()
        except OSError:
            fresh.close()
            fresh.path.unlink(missing_ok=True)
            raise
        if self._journal:
            self._journal.close()
        self._journal = fresh
        for number in old:
            layout.journal(self._folder, number).unlink(missing_ok=True)

    def _append(self, file: Journal, agent: str) -> None:
        settled = self.settled(agent)
        file.append(JournalRecord(agent, "", settled, (), settled))
