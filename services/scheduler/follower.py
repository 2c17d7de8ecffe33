"""Takes part in runs that another scheduler leads; cluster.py calls tick() a few times a second.

A follower changes no job. It reads what the leader has written, lets agents know what to record,
opens and closes its own part of each run, and removes what it has of runs that expired. What begins
when follows from the jobs alone, so this goes on while nobody leads or the database is away.
"""

from dataclasses import replace

from services.runtime.clock import Clock
from services.runtime.logging import logger
from services.scheduler import timetable
from services.scheduler.completeness import at_end
from services.scheduler.database import StoreError
from services.scheduler.jobs import Job, JobState, Run, with_run
from services.scheduler.jobstore import WHOLE_JOB, JobStore
from services.scheduler.outcomes import RunTotals
from services.scheduler.parts import Part, Parts
from services.scheduler.quota import StorageFullError
from services.scheduler.runs import Runs
from services.scheduler.sessions import Sessions
from services.scheduler.writer import Writer


class Follower:
    """The runs of one data folder while another scheduler leads. For one thread."""

    def __init__(
        self,
        store: JobStore,
        writer: Writer,
        clock: Clock,
        sessions: Sessions,
        runs: Runs,
        parts: Parts,
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._sessions = sessions
        self._runs = runs
        self._parts = parts
        # What this scheduler knew when it led, in case the database is away.
        self._jobs = {job.name: job for job in sessions.bulletin.jobs()}
        self._changes = -1
        self._held: set[str] = set()  # jobs whose data was just removed: they may be gone
        self._closed: set[tuple[str, int]] = set()
        self._trouble = ""
        self._log = logger(__name__)

    def start(self) -> None:
        """Read the jobs, close what is left open, and begin. Raises StoreError."""
        self._load()
        for name, number in self._parts.unclosed():
            job = self._jobs.get(name)
            run = job.run(number) if job else None
            if run is not None and not run.is_recording:
                own = self._store.agents(name, number, only_own=True)
                self._store.save_agents(name, number, at_end(own))
                self._parts.close(name, number, self._writer.close_run(name, number))
        self.tick()

    def tick(self) -> None:
        """Do all that is due."""
        now = self._clock.now()
        try:
            if self._store.changes() != self._changes:
                self._load()
            self._trouble = ""
        except StoreError as error:
            if not self._trouble:
                self._log.warning("jobs not read", error=str(error))
            self._trouble = str(error)
        for job in self._jobs.values():
            if job.name not in self._held:
                self._open_runs(job)
        for name, number in self._runs.open():
            self._close_if_ended(name, number)
        self._save_agents()
        self._sessions.bulletin.publish(self._jobs, now, self._next_revision)

    def run_full(self, job: str, run: int, reason: str) -> None:
        """Tell the leader that there is no room for more of a run. Raises StoreError."""
        totals = self._totals(job, run)
        self._parts.write(job, run, Part(self._store.name, totals, full_reason=reason))

    def run_dropped(self, job: str, run: int) -> None:
        """Tell the leader that a run's data made room for newer data. Raises StoreError."""
        self._parts.close(job, run, RunTotals())

    def _load(self) -> None:
        changes = self._store.changes()
        # In this order: a job that took the name of one that was deleted is seen together with
        # what is to be removed before.
        jobs = self._store.jobs()
        removals = self._store.removals()
        self._jobs = {job.name: job for job in jobs}
        self._held = {removal.job for removal in removals}
        for removal in removals:
            try:
                if removal.run == WHOLE_JOB:
                    self._writer.delete(removal.job)
                    self._runs.forget_job(removal.job)
                else:
                    self._writer.delete_run(removal.job, removal.run)
                    self._runs.forget(removal.job, removal.run)
            except OSError as error:
                self._log.error(
                    "data not removed", job=removal.job, run=removal.run, error=str(error)
                )
                changes = -1  # try again
            else:
                self._store.removed(removal)
        if removals:
            changes = -1
        self._changes = changes

    def _open_runs(self, job: Job) -> None:
        now = self._clock.now()
        self._closed -= {(job.name, run.number) for run in job.runs if not run.is_recording}
        recording = [run for run in job.runs if run.is_recording]
        try:
            for run in recording:
                self._take_part(job, run)
            due = timetable.due(job, now)
            upcoming = due.begin or due.upcoming
            if upcoming is not None:
                self._runs.prepare(job, upcoming, now)
        except StorageFullError as error:
            for run in recording:
                self._try_to_tell_full(job.name, run.number, str(error))
        except OSError as error:
            self._log.error("run not opened", job=job.name, error=str(error))

    def _take_part(self, job: Job, run: Run) -> None:
        if (job.name, run.number) in self._closed:
            return
        if not self._runs.takes_part(job.name, run.number):
            known = self._store.agents(job.name, run.number, only_own=True)
            self._runs.take_part(job, run, known)
        self._sessions.deliveries.ends(job.name, run)

    def _close_if_ended(self, name: str, number: int) -> None:
        job = self._jobs.get(name)
        run = job.run(number) if job else None
        try:
            if job is None or run is None:
                is_to_come = job is not None and not job.is_over and number == job.planned + 1
                if not is_to_come:  # what it has is removed soon
                    self._writer.close_run(name, number)
                    self._runs.forget(name, number)
            elif not run.is_recording or self._runs.ending(job, run, self._clock.now()):
                self._close(job, run)
        except OSError as error:
            self._log.error("run not closed", job=name, run=number, error=str(error))

    def _close(self, job: Job, run: Run) -> None:
        """Close this scheduler's part. Raises StoreError; it is tried again then."""
        own = self._sessions.deliveries.agents(job.name, run.number) or []
        self._store.save_agents(job.name, run.number, at_end(own))
        now = self._clock.now()
        run = replace(run, state=JobState.RECORDING)  # as far as it is here
        self._runs.close(with_run(job, run), run, own, JobState.COMPLETED, None, now, own)
        self._closed.add((job.name, run.number))

    def _save_agents(self) -> None:
        try:
            for (name, number), agents in self._sessions.deliveries.to_save(
                self._clock.now()
            ).items():
                self._store.save_agents(name, number, agents)
                self._sessions.deliveries.saved(name, number, agents)
        except StoreError as error:
            self._log.warning("what agents delivered was not stored", error=str(error))

    def _try_to_tell_full(self, job: str, run: int, reason: str) -> None:
        try:
            self.run_full(job, run, reason)
        except StoreError as error:
            self._log.error("the leader does not know of a full run", job=job, error=str(error))

    def _totals(self, job: str, run: int) -> RunTotals:
        try:
            return self._writer.totals(job, run)
        except LookupError:
            return RunTotals()

    def _next_revision(self) -> int:
        try:
            return self._store.next_revision()
        except StoreError:  # the bulletin makes one that is not there yet
            return 0
