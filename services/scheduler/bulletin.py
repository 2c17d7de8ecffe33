"""What lifecycle.py has published last: the jobs, and the list of what agents are to record.

Threads that serve watchers and agents read it and wait for its changes; they never wait for a
change that is being made.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.scheduler import timetable
from services.scheduler.jobs import Job

ANNOUNCE_LEAD = timedelta(minutes=10)
"""How long before its start agents learn of a run, so that they begin in time even when the
scheduler is restarted just then."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One run that agents are to record."""

    job: str
    run: int
    kfl: str
    start_time: datetime
    stop_time: datetime
    body_limit: int  # octets
    probe: bool = False  # it is only counted what would be recorded
    live: bool = False  # someone watches, and nothing is stored


def assigned(jobs: Iterable[Job], now: datetime) -> Iterator[Assignment]:
    """Yield what is to be recorded now and soon, of all these jobs."""
    for job in jobs:
        for run in job.runs:
            planned = timetable.window(job, run.number)
            # Of a job that was stopped, only up to the instant at which all agents stop.
            is_on = run.is_recording and (not job.is_over or run.end_time > now)
            if is_on and planned is not None:
                yield _assignment(job, run.number, planned.start, run.end_time)
        if job.is_over:
            continue
        upcoming = timetable.window(job, job.planned + 1)
        if upcoming is not None and upcoming.start - now <= ANNOUNCE_LEAD:
            yield _assignment(job, upcoming.number, upcoming.start, upcoming.end)


def _assignment(job: Job, number: int, start: datetime, stop: datetime) -> Assignment:
    return Assignment(job.name, number, job.spec.recorded_kfl, start, stop, job.spec.body_limit)


class Bulletin:
    """The latest jobs and lists, each with a number that changes when it does. Thread-safe."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._jobs: Mapping[str, Job] = {}
        self._lists: tuple[list[Assignment], list[Assignment]] = ([], [])
        self._live: list[Assignment] = []
        self._revision = 0
        self._version = 0
        self._changes = 0
        self._is_closed = False

    def publish(
        self,
        jobs: Mapping[str, Job],
        now: datetime,
        next_revision: Callable[[], int],
        changes: int = 0,
        probes: Iterable[Assignment] = (),
    ) -> None:
        """Publish the jobs, and the list that follows; a new list gets the number that it asks.

        changes: the revision of the last change of a job. probes: what agents are to try besides.
        """
        jobs = dict(jobs)
        wire = list(assigned((j for j in jobs.values() if not j.spec.imported), now))
        wire += probes
        imports = list(assigned((j for j in jobs.values() if j.spec.imported), now))
        lists = (wire, imports)
        revision = next_revision() if lists != self._lists or not self._revision else None
        with self._change:
            if jobs != self._jobs:
                self._jobs = jobs
                self._version += 1
            self._changes = changes
            if revision is not None:
                self._lists = lists
                self._revision = max(revision, self._revision + 1)
            self._change.notify_all()

    def watch(self, live: Sequence[Assignment]) -> None:
        """Publish what is watched: agents on the wire have it in their list, too.

        Its revision is none of the store's, since nothing of it outlives this process.
        """
        with self._change:
            if list(live) != self._live:
                self._live = list(live)
                self._revision += 1
                self._change.notify_all()

    def open(self) -> None:
        """Let people wait for jobs; after close()."""
        with self._change:
            self._is_closed = False

    def close(self) -> None:
        """Wake those who wait for jobs, because nothing will change any more."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()

    def get(self, name: str) -> Job | None:
        """Return a job, or None."""
        return self._jobs.get(name)

    def jobs(self) -> list[Job]:
        """Return all jobs, oldest first."""
        return sorted(self._jobs.values(), key=lambda job: (job.create_time, job.name))

    def snapshot(self) -> tuple[int, list[Job]]:
        """Return the revision of the last change, and all jobs as they were then, oldest first."""
        with self._change:
            return self._changes, self.jobs()

    def assignments(self, import_job: str) -> tuple[int, list[Assignment]]:
        """Return the list and its revision: for agents, or for the importer of one job."""
        with self._change:
            wire, imports = self._lists
            if import_job:
                return self._revision, [item for item in imports if item.job == import_job]
            return self._revision, [*wire, *self._live]

    def is_assigned(self, job: str, run: int) -> bool:
        """Whether agents, or an importer, are to record this run now or soon."""
        with self._change:
            listed = (a for found in self._lists for a in found if not a.probe)
            return any((a.job, a.run) == (job, run) for a in listed)

    def wait_for_list(self, revision: int, timeout: float) -> int:
        """Wait until the list is another than that of `revision`, at most `timeout` seconds."""
        with self._change:
            self._change.wait_for(lambda: self._revision != revision, timeout)
            return self._revision

    def wait_for_jobs(self, version: int, timeout: float) -> int:
        """Wait until the jobs are others than those of `version`, at most `timeout` seconds."""
        with self._change:
            self._change.wait_for(lambda: self._version != version or self._is_closed, timeout)
            return self._version

    def wait_until_quiet(self, name: str, timeout: float) -> None:
        """Wait until no run of a job takes data, at most `timeout` seconds."""
        with self._change:
            self._change.wait_for(lambda: self._is_closed or not self._takes_data(name), timeout)

    def _takes_data(self, name: str) -> bool:
        job = self._jobs.get(name)
        return job is not None and any(run.is_recording for run in job.runs)
