"""Statements that agents try for some seconds, so that people know how much a job would record.

lifecycle.py lists the probes with the assignments and forwards what agents tell; the thread that
makes a forecast waits here. Nothing of it is stored.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.scheduler.bulletin import Assignment
from services.scheduler.ingest import Probed

NAME = "~probe"
"""Job of a probe's assignment; no job can have such a name."""

MOST_PROBES = 4
"""At once: each costs agents as much as a job."""

ANSWER_SECONDS = 5.0
"""How long after the end of a probe agents may answer."""


@dataclass(slots=True)
class _Probe:
    assignment: Assignment
    asked: frozenset[str]
    answers: dict[str, Probed] = field(default_factory=dict)


class Probes:
    """The probes that are on. Methods are thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._probes: dict[int, _Probe] = {}
        self._last = 0
        self._is_closed = False

    def begin(
        self, kfl: str, body_limit: int, start: datetime, seconds: int, asked: Collection[str]
    ) -> int | None:
        """Add a probe of these agents and return its number; None when there are too many."""
        with self._changed:
            if len(self._probes) >= MOST_PROBES:
                return None
            self._last += 1
            stop = start + timedelta(seconds=seconds)
            what = Assignment(NAME, self._last, kfl, start, stop, body_limit, probe=True)
            self._probes[self._last] = _Probe(what, frozenset(asked))
            return self._last

    def assignments(self) -> list[Assignment]:
        """Return what agents are to try."""
        with self._changed:
            return [probe.assignment for probe in self._probes.values()]

    def told(self, agent_id: str, probed: Probed) -> None:
        """Note what an agent has counted."""
        with self._changed:
            probe = self._probes.get(probed.probe)
            if probe is not None and agent_id in probe.asked:
                probe.answers[agent_id] = probed
                self._changed.notify_all()

    def wait(self, number: int, seconds: float) -> None:
        """Wait until all agents that were asked have answered, at most that long."""
        with self._changed:
            probe = self._probes[number]
            self._changed.wait_for(
                lambda: self._is_closed or probe.answers.keys() == probe.asked, seconds
            )

    def end(self, number: int) -> list[Probed]:
        """Remove a probe and return the answers."""
        with self._changed:
            return list(self._probes.pop(number).answers.values())

    def open(self) -> None:
        """Let people wait; after close()."""
        with self._changed:
            self._is_closed = False

    def close(self) -> None:
        """Let those who wait go."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
