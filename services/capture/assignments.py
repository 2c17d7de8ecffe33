"""What the agent is to record now. `agent` asks once a batch, `matching` sees the active runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import kfl
from kfl.words import OF_GRAPHQL
from services.runtime.logging import logger

MAX_RUNS = 64
"""Most runs at once: `matching` keeps one bit for each run in a 64-bit word for each stream."""

LEAST_FOR_GRAPHQL = 16 << 10
"""Octets of bodies that are looked at for a run that keeps none; most requests have less."""

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """One run of a job, as the scheduler assigns it."""

    job: str
    run: int
    kfl: str
    start_ns: int
    stop_ns: int
    body_limit: int
    probe: bool = False
    """It is only counted what would be recorded."""
    live: bool = False
    """Someone watches: entries that match are sent as they come, whatever the time is."""

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the run."""
        return self.job, self.run


@dataclass(slots=True)
class ActiveRun:
    """A run that is being recorded."""

    assignment: Assignment
    filter: kfl.Filter
    bit: int
    """0 to MAX_RUNS - 1; no other active run has it."""
    hits: int = 0
    """Entries that matched so far, for a filter with a limit."""
    told: int = -1
    """How many of them the scheduler was told."""
    elsewhere: int = 0
    """Entries that matched on other agents."""

    @property
    def key(self) -> tuple[str, int]:
        """What identifies the run."""
        return self.assignment.key

    @property
    def is_full(self) -> bool:
        """The filter's limit is reached: streams that have matched go on, no other one begins."""
        return self.room == 0

    @property
    def room(self) -> int | None:
        """Entries that may still match; None without a limit."""
        limit = None if self.assignment.live else self.filter.limit
        return None if limit is None else max(0, limit - self.hits - self.elsewhere)


@dataclass(frozen=True, slots=True)
class Changes:
    """Runs that began and ended."""

    started: tuple[ActiveRun, ...] = ()
    ended: tuple[ActiveRun, ...] = ()


@dataclass(slots=True)
class Assignments:
    """The latest list, and the runs of it that are on."""

    ignore_times: bool = False
    """An imported file is recorded from its first frame to its last, whatever the time is."""
    active: tuple[ActiveRun, ...] = ()
    refused: int = 0
    """Runs not recorded: too many at once, or a statement that this agent cannot compile."""
    _listed: dict[tuple[str, int], Assignment] = field(default_factory=dict)
    _done: set[tuple[str, int]] = field(default_factory=set)
    _told: set[tuple[str, int]] = field(default_factory=set)  # refused, and logged

    def update(self, assignments: Sequence[Assignment]) -> None:
        """Replace the list; advance() tells what follows from it."""
        self._listed = {assignment.key: assignment for assignment in assignments}
        # A run that is no longer listed cannot come back, so nothing need be remembered about it.
        self._done &= self._listed.keys()
        self._told &= self._listed.keys()

    def advance(self, now_ns: int) -> Changes:
        """Start and end runs; call it often. Time is in nanoseconds since 1970."""
        ended = tuple(run for run in self.active if not self._is_on(run.key, now_ns))
        for run in ended:
            self._done.add(run.key)
        self._done &= self._listed.keys()
        # A run whose times or body limit were changed goes on under the new ones.
        kept = [run for run in self.active if run not in ended]
        is_other = False
        for run in kept:
            is_other |= self._renew(run, self._listed[run.key])
        active_keys = {run.key for run in kept}
        started: list[ActiveRun] = []
        for key, assignment in self._listed.items():
            if key in active_keys or key in self._done or not self._is_on(key, now_ns):
                continue
            begun = self._start(assignment, {run.bit for run in (*kept, *started)})
            if begun is not None:
                started.append(begun)
        if ended or started or is_other:
            self.active = (*kept, *started)
        return Changes(tuple(started), ended)

    def end(self) -> tuple[ActiveRun, ...]:
        """End all runs, because the capture has ended; they do not begin again."""
        ended = self.active
        self._done.update(run.key for run in ended)
        self.active = ()
        return ended

    @property
    def body_limit(self) -> int:
        """Most octets of a body that any active run wants, or that its filter has to look at."""
        return max(map(_body_limit, self.active), default=0)

    @property
    def protocols(self) -> frozenset[str] | None:
        """Protocol words that some active run wants; None when any may be wanted."""
        wanted: set[str] = set()
        for run in self.active:
            words = run.filter.protocols()
            if words is None:
                return None
            wanted |= words
        return frozenset(wanted)

    def _is_on(self, key: tuple[str, int], now_ns: int) -> bool:
        assignment = self._listed.get(key)
        if assignment is None:
            return False
        return (
            self.ignore_times
            or assignment.live
            or assignment.start_ns <= now_ns < assignment.stop_ns
        )

    @staticmethod
    def _renew(run: ActiveRun, listed: Assignment) -> bool:
        """Let a run go on as it is listed now; return whether other calls match from now on."""
        before, run.assignment = run.assignment.kfl, listed
        if listed.kfl == before:
            return False
        try:
            run.filter = kfl.compile(listed.kfl)
        except kfl.KflError as error:
            reason = f"its KFL cannot be compiled here: {error}"
            _log.error(
                "run goes on with its old KFL", job=run.key[0], run=run.key[1], reason=reason
            )
            return False
        return True

    def _start(self, assignment: Assignment, taken: set[int]) -> ActiveRun | None:
        if len(taken) >= MAX_RUNS:
            # Not for ever: it begins when another run ends.
            self._refuse(assignment, f"{MAX_RUNS} runs are on, which is the most at once")
            return None
        try:
            compiled = kfl.compile(assignment.kfl)
        except kfl.KflError as error:
            self._refuse(assignment, f"its KFL cannot be compiled here: {error}")
            self._done.add(assignment.key)
            return None
        bit = next(bit for bit in range(MAX_RUNS) if bit not in taken)
        return ActiveRun(assignment, compiled, bit)

    def _refuse(self, assignment: Assignment, reason: str) -> None:
        if assignment.key in self._told:
            return
        self._told.add(assignment.key)
        self.refused += 1
        _log.error("run not recorded", job=assignment.job, run=assignment.run, reason=reason)


def _body_limit(run: ActiveRun) -> int:
    words = run.filter.protocols() or frozenset()
    return max(run.assignment.body_limit, LEAST_FOR_GRAPHQL if words & OF_GRAPHQL else 0)
