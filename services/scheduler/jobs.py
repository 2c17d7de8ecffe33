"""Jobs and their runs, and the one table of their states.

All that a state means or allows is in this file: lifecycle.py asks it where a job goes next, and
jobstore.py asks it before it stores a change. A way that is not in the tables raises
ForbiddenMoveError.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntEnum


class JobState(IntEnum):
    """State of a job or of a run, with the numbers of recorder.v1.JobState."""

    SCHEDULED = 1
    RECORDING = 2
    WAITING = 3
    COMPLETED = 4
    STOPPED = 5
    STORAGE_LIMITED = 6
    FAILED = 7
    EXPIRED = 8

    @property
    def word(self) -> str:
        """The state in lower case, as sentences and the database write it."""
        return self.name.lower()


SCHEDULED, RECORDING, WAITING, COMPLETED, STOPPED, STORAGE_LIMITED, FAILED, EXPIRED = JobState

_ENDINGS = frozenset({COMPLETED, STOPPED, STORAGE_LIMITED, FAILED})

JOB_MOVES: Mapping[JobState | None, frozenset[JobState]] = {
    None: frozenset({SCHEDULED}),
    # To an end directly when someone stops it, its runs were missed, or there is no room for one.
    SCHEDULED: frozenset({RECORDING, WAITING, STOPPED, STORAGE_LIMITED, FAILED}),
    RECORDING: _ENDINGS | {WAITING},
    WAITING: _ENDINGS | {RECORDING},
    COMPLETED: frozenset({EXPIRED}),
    STOPPED: frozenset({EXPIRED}),
    STORAGE_LIMITED: frozenset({EXPIRED}),
    FAILED: frozenset({EXPIRED}),
    EXPIRED: frozenset(),
}
"""Where a job may go from each state; None is a job that does not exist yet."""

RUN_MOVES: Mapping[JobState | None, frozenset[JobState]] = {
    # A run that was missed has failed from the beginning; one without room ends where it begins.
    None: frozenset({RECORDING, STORAGE_LIMITED, FAILED}),
    RECORDING: _ENDINGS,
    COMPLETED: frozenset({EXPIRED}),
    STOPPED: frozenset({EXPIRED}),
    STORAGE_LIMITED: frozenset({EXPIRED}),
    FAILED: frozenset({EXPIRED}),
    EXPIRED: frozenset(),
}
"""Where a run may go from each state. A run is never scheduled or waiting: its job is."""


class RunMissed(IntEnum):
    """What becomes of a run whose start passed while the scheduler was away; as in recorder.v1."""

    LATE = 1
    SKIP = 2


class OnFull(IntEnum):
    """What becomes of a run when there is no room for more; as in recorder.v1."""

    STOP = 1
    DROP_OLDEST = 2


class AgentState(IntEnum):
    """How an agent stands in a run; as in recorder.v1."""

    RECORDING = 1
    AWAY = 2
    FINISHED = 3
    GONE = 4


class ForbiddenMoveError(RuntimeError):
    """A change of state that the tables do not have."""


class ArchiveState(IntEnum):
    """How the copy of a run in the archive stands; as in recorder.v1."""

    WAITING = 1
    COPYING = 2
    COPIED = 3
    FAILED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """The copy of a run in the archive."""

    state: ArchiveState
    bytes: int = 0  # octets there, of the run as it was when it was copied
    copy_time: datetime | None = None  # of the last copy that was whole
    error: str = ""  # why the last one was not, as a sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a person asked for, with every default filled in and every field checked."""

    name: str
    kfl: str
    start_time: str  # HH:MM, UTC; "" started when it was created
    daily_iterations: int  # 0 is for ever
    duration_minutes: int
    expiration_minutes: int
    body_limit: int  # octets
    imported: bool
    expanded_kfl: str = ""  # with operators' words put in; "" when there are none in it
    run_missed: RunMissed = RunMissed.LATE
    pinned: bool = False  # nothing of it is removed
    labels: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    size_limit: int = 0  # octets on disk of all its runs; 0 is no limit of its own
    on_full: OnFull = OnFull.STOP

    @property
    def recorded_kfl(self) -> str:
        """What agents record by: what operators' words mean later does not change it."""
        return self.expanded_kfl or self.kfl

    @property
    def duration(self) -> timedelta:
        """Length of each run."""
        return timedelta(minutes=self.duration_minutes)

    @property
    def expiration(self) -> timedelta:
        """How long a run's data is kept after its end."""
        return timedelta(minutes=self.expiration_minutes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One recording of a job, on one day. Its counts are final once it has ended."""

    number: int  # from 1
    state: JobState
    reason: str
    start_time: datetime  # when it began
    end_time: datetime  # when it ended; while it records, when agents stop
    entries: int = 0
    streams: int = 0
    packets: int = 0
    bytes: int = 0
    lost_packets: int = 0
    nodes: tuple[str, ...] = ()
    pinned: bool = False  # its data is not removed
    completeness: str = ""  # a sentence about its agents, once it has ended
    archived: Archived | None = None  # told beside it, by archives.py

    @property
    def is_recording(self) -> bool:
        """Agents record it, or still deliver what they recorded."""
        return self.state is RECORDING

    @property
    def is_expired(self) -> bool:
        """What it recorded was removed."""
        return self.state is EXPIRED

    @property
    def has_data(self) -> bool:
        """It has ended and what it recorded may still be there."""
        return self.state in _ENDINGS


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAgent:
    """One agent's part in a run."""

    agent_id: str
    node: str
    state: AgentState
    join_time: datetime
    heard_time: datetime
    data_time: datetime | None = None  # when its last batch came
    finish_time: datetime | None = None
    batches: int = 0
    bytes: int = 0  # of these, as they were sent
    sequence: int = 0  # number of its last batch that is counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A recording job and how it stands. All times are aware, in UTC."""

    spec: Spec
    state: JobState
    reason: str
    create_time: datetime
    change_time: datetime  # when it came into its state
    first_start: datetime  # when its first run is planned; all others are whole days later
    planned: int = 0  # number of the last run that has begun or was missed
    runs: tuple[Run, ...] = ()  # oldest first; those that expired long ago are left out

    @property
    def name(self) -> str:
        """Its name, which is unique and names the recording."""
        return self.spec.name

    @property
    def is_over(self) -> bool:
        """No run of it will begin any more."""
        return self.state in _ENDINGS or self.state is EXPIRED

    @property
    def may_be_stopped(self) -> bool:
        """There is a current or a later run to stop."""
        return STOPPED in JOB_MOVES[self.state]

    @property
    def is_stopped(self) -> bool:
        """Someone has stopped it."""
        return self.state is STOPPED

    @property
    def is_expired(self) -> bool:
        """All of its data is gone, and its name is free again."""
        return self.state is EXPIRED

    @property
    def is_pinned(self) -> bool:
        """It or one of its runs is pinned, so that it is not deleted by mistake."""
        return self.spec.pinned or any(run.pinned for run in self.runs)

    def keeps(self, run: Run) -> bool:
        """Whether a run's data is not to be removed, be it for its age or for want of room."""
        return self.spec.pinned or run.pinned

    def run(self, number: int) -> Run | None:
        """Return the run of that number, or None."""
        return next((run for run in self.runs if run.number == number), None)


def check_job_move(name: str, old: JobState | None, new: JobState) -> None:
    """Raise ForbiddenMoveError unless a job may go from `old` to `new`."""
    if new not in JOB_MOVES[old]:
        raise ForbiddenMoveError(f"Job {name} cannot go from {_word(old)} to {new.word}.")


def check_run_move(name: str, number: int, old: JobState | None, new: JobState) -> None:
    """Raise ForbiddenMoveError unless a run may go from `old` to `new`."""
    if new not in RUN_MOVES.get(old, frozenset()):
        raise ForbiddenMoveError(
            f"Run {number} of job {name} cannot go from {_word(old)} to {new.word}."
        )


def move_job(job: Job, to: JobState, at: datetime, reason: str = "") -> Job:
    """Return the job in state `to` since `at`. Raises ForbiddenMoveError."""
    check_job_move(job.name, job.state, to)
    return replace(job, state=to, reason=reason, change_time=at)


def begin_run(job: Job, run: Run) -> Job:
    """Return the job with a run more, which records or was missed. Raises ForbiddenMoveError."""
    check_run_move(job.name, run.number, None, run.state)
    if run.number <= job.planned:
        raise ForbiddenMoveError(f"Run {run.number} of job {job.name} has been there before.")
    return replace(job, planned=run.number, runs=(*job.runs, run))


def move_run(job: Job, number: int, to: JobState, reason: str | None = None) -> Job:
    """Return the job with a run in state `to`. Without a reason, the run keeps the one it has.

    Raises ForbiddenMoveError, also when there is no such run.
    """
    run = job.run(number)
    check_run_move(job.name, number, run.state if run else None, to)
    if run is None:
        raise ForbiddenMoveError(f"Job {job.name} has no run {number}.")
    return with_run(job, replace(run, state=to, reason=run.reason if reason is None else reason))


def with_run(job: Job, run: Run) -> Job:
    """Return the job with the run of the same number replaced."""
    return replace(job, runs=tuple(run if r.number == run.number else r for r in job.runs))


def ending_of_run(job: Job) -> JobState:
    """Return the state in which the job's current run ends when nothing goes wrong with it."""
    return STOPPED if job.state is STOPPED else COMPLETED


def settle(job: Job, more_runs: bool, at: datetime) -> Job:
    """Return the job in the state that its runs ask for, after one of them has begun or ended.

    more_runs: another run is still planned. A job that is over stays as it is.
    """
    if job.is_over:
        return job
    to, reason = _state_by_runs(job, more_runs)
    return job if to is job.state else move_job(job, to, at, reason)


def _state_by_runs(job: Job, more_runs: bool) -> tuple[JobState, str]:
    """Return state and reason for a job that nobody stopped."""
    if any(run.state is RECORDING for run in job.runs):
        return RECORDING, ""
    if any(run.state is STORAGE_LIMITED for run in job.runs):
        return STORAGE_LIMITED, next(r.reason for r in job.runs if r.state is STORAGE_LIMITED)
    if more_runs:
        return (WAITING if job.planned else SCHEDULED), ""
    failed = [run for run in job.runs if run.state is FAILED]
    if len(failed) == len(job.runs):
        return FAILED, failed[-1].reason if failed else "None of its runs took place."
    if failed:
        return COMPLETED, f"{len(failed)} of {job.planned} runs failed: {failed[-1].reason}"
    return COMPLETED, ""


def expire_if_empty(job: Job, at: datetime) -> Job:
    """Return the job as expired when it is over and nothing of what it recorded is left.

    A job that ended without any run stays for its expiration time, so that people see why.
    """
    if EXPIRED not in JOB_MOVES[job.state] or any(r.state is not EXPIRED for r in job.runs):
        return job
    if job.spec.pinned:
        return job
    if not job.runs and at < job.change_time + job.spec.expiration:
        return job
    return move_job(job, EXPIRED, at, "Its data was kept for its expiration time, then removed.")


def _word(state: JobState | None) -> str:
    return "nothing" if state is None else state.word
