"""What people may change of a job that is there: more time, and pins. Pure functions.

jobs_rpc.py hands one of them to Lifecycle.amend(), which stores what it returns, with the note.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.scheduler import timetable
from services.scheduler.jobs import Job, Run, with_run
from services.scheduler.timetable import DAY

LEAD = timedelta(seconds=2)
"""How long before its end a run can still be made longer: agents that have stopped stay stopped,
and have to hear of it before."""

MINUTE = timedelta(minutes=1)


class RefusedError(Exception):
    """What was asked for cannot be done now; its text is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Amendment:
    """A job as it is to be, and what the history says about it."""

    job: Job
    note: str
    run: int = 0
    """The run that the note is about; 0 is the job."""


def extend(
    duration: int | None, iterations: int | None, expiration: int | None
) -> Callable[[Job, datetime], Amendment]:
    """Return what gives a job more time, in minutes and days; None leaves a thing as it is.

    It raises RefusedError.
    """

    def change(job: Job, now: datetime) -> Amendment:
        notes: list[str] = []
        # Days first: whether the next run is in the way depends on them.
        if iterations is not None:
            job = _more_days(job, iterations, notes)
        if duration is not None:
            job = _longer(job, duration, now, notes)
        if expiration is not None:
            job = _kept_longer(job, expiration, notes)
        return Amendment(job, f"Extended by request: {', '.join(notes)}.")

    return change


def pin(run: int, reason: str, pinned: bool = True) -> Callable[[Job, datetime], Amendment]:
    """Return what pins or unpins a job, or one of its runs. It raises RefusedError."""

    def change(job: Job, now: datetime) -> Amendment:
        del now
        word = "Pinned" if pinned else "Unpinned"
        note = f"{word}: {reason}" if reason else f"{word} by request."
        if not run:
            if pinned and job.is_expired:
                raise RefusedError(f"The data of the job {job.name} has expired and is gone.")
            return Amendment(replace(job, spec=replace(job.spec, pinned=pinned)), note)
        found = job.run(run)
        if found is None:
            known = ", ".join(str(r.number) for r in job.runs) or "none yet"
            raise RefusedError(f"The job {job.name} has no run {run}; it has {known}.")
        if pinned and found.is_expired:
            raise RefusedError(f"The data of run {run} of the job {job.name} is gone.")
        return Amendment(with_run(job, replace(found, pinned=pinned)), note, run)

    return change


def _more_days(job: Job, iterations: int, notes: list[str]) -> Job:
    _check_is_going_on(job)
    spec = job.spec
    if spec.daily_iterations == 0 or 0 < iterations <= spec.daily_iterations:
        has = f"{spec.daily_iterations} days" if spec.daily_iterations else "for ever"
        raise RefusedError(
            f"The job {job.name} runs {has} already, and is not made shorter. Stop it to end it."
        )
    if iterations != spec.daily_iterations and spec.duration > DAY:
        raise RefusedError(
            f"Each run of the job {job.name} lasts {spec.duration_minutes} minutes, so daily runs "
            "would overlap."
        )
    longer = replace(job, spec=replace(spec, daily_iterations=iterations))
    for run in longer.runs:
        if run.is_recording:
            _check_overlap(longer, run, run.end_time)
    notes.append(f"{iterations} days" if iterations else "for ever")
    return longer


def _longer(job: Job, minutes: int, now: datetime, notes: list[str]) -> Job:
    _check_is_going_on(job)
    for run in job.runs:
        planned = timetable.window(job, run.number)
        if run.is_recording and run.end_time > now and planned is not None:
            end = planned.start + minutes * MINUTE
            if end <= run.end_time:
                raise RefusedError(
                    f"Run {run.number} of the job {job.name} lasts "
                    f"{(run.end_time - planned.start) // MINUTE} minutes already, and is not made "
                    "shorter. Stop the job to end it."
                )
            if run.end_time - now < LEAD:
                raise RefusedError(
                    f"Run {run.number} of the job {job.name} ends in this moment; it is too late "
                    "to make it longer."
                )
            _check_overlap(job, run, end)
            notes.append(f"run {run.number} lasts {minutes} minutes")
            return with_run(job, replace(run, end_time=end))
    return _longer_later(job, minutes, notes)


def _longer_later(job: Job, minutes: int, notes: list[str]) -> Job:
    """Make the runs to come longer."""
    if not timetable.has_more(job):
        raise RefusedError(f"The last run of the job {job.name} has ended.")
    if minutes <= job.spec.duration_minutes:
        raise RefusedError(
            f"Runs of the job {job.name} last {job.spec.duration_minutes} minutes already, and are "
            "not made shorter."
        )
    if job.spec.daily_iterations != 1 and minutes * MINUTE > DAY:
        raise RefusedError(f"Daily runs of {minutes} minutes would overlap: at most 1440.")
    notes.append(f"runs last {minutes} minutes")
    return replace(job, spec=replace(job.spec, duration_minutes=minutes))


def _kept_longer(job: Job, minutes: int, notes: list[str]) -> Job:
    if job.is_expired:
        raise RefusedError(f"The data of the job {job.name} has expired and is gone.")
    if minutes <= job.spec.expiration_minutes:
        raise RefusedError(
            f"Data of the job {job.name} is kept for {job.spec.expiration_minutes} minutes "
            "already, and not for less."
        )
    notes.append(f"data is kept for {minutes} minutes")
    return replace(job, spec=replace(job.spec, expiration_minutes=minutes))


def _check_is_going_on(job: Job) -> None:
    if job.is_over:
        raise RefusedError(f"The job {job.name} has ended already: it is {job.state.word}.")
    if job.spec.imported:
        raise RefusedError(f"The job {job.name} is the import of a file; it has no timetable.")


def _check_overlap(job: Job, run: Run, end: datetime) -> None:
    following = timetable.window(job, run.number + 1)
    if following is not None and end > following.start:
        raise RefusedError(
            f"Run {run.number} of the job {job.name} would go on into the next one, which starts "
            f"at {following.start:%Y-%m-%d %H:%M} UTC."
        )
