"""When the runs of a job begin and end: pure functions of the job and the time, for lifecycle.py.

Everything is UTC, which has no daylight saving: run n begins n - 1 times 24 hours after the first,
through leap days and the ends of years.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.scheduler.jobs import Job, RunMissed

DAY = timedelta(days=1)

NOW_LEAD = timedelta(seconds=1)
"""How far ahead a job that starts now begins: long enough for the assignment to reach all agents,
so that they begin at the same instant; short enough that nobody waits for it."""

SKIPPED_AFTER = timedelta(seconds=30)
"""How late a run may begin that is to be skipped rather than late: longer than one try of
lifecycle's to begin it, shorter than a restart that anyone would call being away."""

NEXT_STARTS = 5
"""How many starts to come are told: as many as fit where people look."""


@dataclass(frozen=True, slots=True)
class Window:
    """When one run is planned; it ends before `end`."""

    number: int  # of the run, from 1
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Due:
    """What the timetable asks for at one instant."""

    missed: range  # numbers of runs that can no longer begin
    begin: Window | None  # the run that has to record now
    upcoming: Window | None  # the run after that


def parse_start(text: str) -> tuple[int, int]:
    """Return hour and minute of "HH:MM". Raises ValueError with a sentence."""
    digits = text.isascii() and text[:2].isdigit() and text[3:].isdigit()
    if len(text) == 5 and text[2] == ":" and digits:
        hour, minute = int(text[:2]), int(text[3:])
        if hour < 24 and minute < 60:
            return hour, minute
    raise ValueError(
        f"{text[:20]!a} is no start time; write HH:MM in UTC, from 00:00 to 23:59, or leave it out "
        "to start now."
    )


def first_start(start_time: str, now: datetime) -> datetime:
    """Return when the first run begins: at the next "HH:MM", or in a moment when that is empty.

    The minute that has just begun counts as the next one: at 10:00:30, "10:00" is now, not in
    24 hours. Raises ValueError for another text.
    """
    if not start_time:
        return now + NOW_LEAD
    hour, minute = parse_start(start_time)
    this_minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    start = this_minute.replace(hour=hour, minute=minute)
    return start if start >= this_minute else start + DAY


def window(job: Job, number: int) -> Window | None:
    """Return when run `number` is planned, or None when the job has no such run."""
    iterations = job.spec.daily_iterations
    if number < 1 or (iterations and number > iterations):
        return None
    try:
        start = job.first_start + DAY * (number - 1)
        return Window(number, start, start + job.spec.duration)
    except OverflowError:  # beyond the year 9999
        return None


def windows(job: Job, number: int = 1, after: datetime | None = None) -> Iterator[Window]:
    """Yield the planned runs from `number` on; without end for a job that runs for ever.

    after: leave out runs that begin before this time, however many they are.
    """
    if after is not None:
        number = max(number, -((job.first_start - after) // DAY) + 1)
    while (planned := window(job, number)) is not None:
        yield planned
        number += 1


def next_starts(job: Job, now: datetime, count: int = NEXT_STARTS) -> list[datetime]:
    """Return the next `count` starts that are not before `now` and whose run has not begun."""
    if job.is_over:
        return []
    first = max(job.planned + 1, _number_at(job, now))
    starts: list[datetime] = []
    for planned in windows(job, first):
        if len(starts) == count:
            break
        if planned.start >= now:
            starts.append(planned.start)
    return starts


def due(job: Job, now: datetime) -> Due:
    """Return which runs after `job.planned` were missed, which has to record now, and the next.

    A run whose window is still open begins late, unless the job wants it skipped; one whose window
    has passed was missed. Takes the same time whether the scheduler was away for a minute or for
    years.
    """
    first = job.planned + 1
    if job.is_over:
        return Due(range(first, first), None, None)
    number = max(first, _number_at(job, now))
    planned = window(job, number)
    if planned is not None and planned.end <= now:
        number += 1
        planned = window(job, number)
    if planned is None:
        number = min(number, max(first, job.spec.daily_iterations + 1))
        return Due(range(first, number), None, None)
    if planned.start <= now and _is_skipped(job, planned, now):
        return Due(range(first, number + 1), None, window(job, number + 1))
    if planned.start <= now:
        return Due(range(first, number), planned, window(job, number + 1))
    return Due(range(first, number), None, planned)


def has_more(job: Job) -> bool:
    """Whether a run after those that have begun or were missed is planned."""
    return window(job, job.planned + 1) is not None


def _number_at(job: Job, now: datetime) -> int:
    """Return the number of the latest run that is planned to have begun by `now`; at least 1."""
    return max(1, (now - job.first_start) // DAY + 1)


def _is_skipped(job: Job, planned: Window, now: datetime) -> bool:
    """Whether it is too late for a run to begin; no run is late for what was before its job."""
    late = now - max(planned.start, job.create_time)
    return job.spec.run_missed is RunMissed.SKIP and late > SKIPPED_AFTER
