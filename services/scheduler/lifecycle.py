"""Moves jobs as time passes: begins, ends and expires runs, and tells agents what to record.

jobs_rpc.py creates, stops and deletes; ingest asks what is assigned and reports what agents say;
one thread does the rest at the times that timetable.py names. tick() does all that is due, so that
tests can move the clock instead of waiting.

The lock is held while the writer works. Therefore nothing that the writer or an agent's session
calls takes it: they leave a note and wake the thread, and read what was published last.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from recordings import layout
from recordings.ledger import NodeCounts
from services.runtime.clock import Clock
from services.runtime.logging import logger
from services.scheduler import allowances, timetable
from services.scheduler.amendments import Amendment, RefusedError
from services.scheduler.archives import Archives
from services.scheduler.bulletin import ANNOUNCE_LEAD
from services.scheduler.completeness import at_end
from services.scheduler.forecast import Forecast, past_rate
from services.scheduler.ingest import Probed
from services.scheduler.jobs import (
    Job,
    JobState,
    Run,
    RunAgent,
    Spec,
    expire_if_empty,
    move_job,
    move_run,
    settle,
    with_run,
)
from services.scheduler.jobstore import WHOLE_JOB, Event, JobStore, NameTakenError
from services.scheduler.live import MOST_WATCHERS
from services.scheduler.probes import ANSWER_SECONDS, MOST_PROBES
from services.scheduler.runs import KEPT_AFTER_EXPIRY, PREPARE_LEAD, Runs, sentence, spoken
from services.scheduler.sessions import Sessions
from services.scheduler.writer import Writer

EVENTS_KEPT = timedelta(days=400)
"""How long the history of jobs that are gone is kept: a year, and time to look at it."""

RETRY = timedelta(seconds=10)
"""When to try again what the disk refused."""

MOST_CHANGES = 1000
"""Of a job's history, that are told at once: three years of a daily job."""

MOST_JOBS = 64 - MOST_PROBES - MOST_WATCHERS
"""Jobs that are not over. An agent can have 64 runs at once, forecasts and live traffic among them;
one more would be recorded nowhere, and nobody would know."""

STOP_LEAD = timedelta(seconds=1)
"""How far ahead the instant is at which a stopped run ends: long enough for all agents to hear of
it, so that all of them stop at the same one."""

STOP_WAIT_SECONDS = 4.0
"""How long the answer to a stop waits for agents to deliver what they hold. Most take milliseconds;
the stop itself does not depend on it."""


class Lifecycle:
    """The jobs of one data folder, and the thread that moves them. Methods are thread-safe."""

    def __init__(
        self,
        data: Path,
        store: JobStore,
        writer: Writer,
        clock: Clock,
        sessions: Sessions | None = None,
        runs: Runs | None = None,
    ) -> None:
        """`sessions` and `runs` are of a follower that leads now; None makes new ones."""
        self._data = data
        self._store = store
        self._writer = writer
        self._clock = clock
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        self._removals_pending = False
        self._failing = False
        self.sessions = sessions or Sessions(clock)
        self._deliveries = self.sessions.deliveries
        self._probes = self.sessions.probes
        self._bulletin = self.sessions.bulletin
        self._wake = self.sessions.wake
        self._runs = runs or Runs(
            writer, self._deliveries, self.sessions.matches, archives=Archives(store)
        )
        self._others = self._runs.others
        # Notes of the writer's thread, which stay until they are stored.
        self._full: dict[str, tuple[int, str]] = {}
        self._held: dict[tuple[str, int], str] = {}
        self._dropped: queue.SimpleQueue[tuple[str, int, str]] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._loop, name="lifecycle", daemon=True)
        self._log = logger(__name__)

    def start(self) -> None:
        """Take up the jobs where they were left, and begin to move them. The writer has started."""
        self.sessions.open()
        self.recover()
        self._thread.start()

    def stop(self) -> None:
        """Stop moving jobs. What is recording goes on after the next start."""
        self._stopping = True
        self.sessions.close()
        if self._thread.is_alive():
            self._thread.join()

    def recover(self) -> None:
        """Load the jobs and open again what was recording. start() calls it."""
        with self._lock:
            now = self._clock.now()
            self._store.forget_events(now - EVENTS_KEPT)
            self._jobs = {job.name: job for job in self._store.jobs()}
            self._removals_pending = True
            for name in list(self._jobs):
                self._guard(name, partial(self._resume, name, now))
            self.tick()

    # ---- what people ask for

    def create(self, spec: Spec) -> Job:
        """Add a job and return it.

        Raises NameTakenError, RefusedError and OSError with a sentence; nothing is kept then.
        """
        with self._lock:
            now = self._clock.now()
            self._check_name_is_free(spec.name)
            if sum(not job.is_over for job in self._jobs.values()) >= MOST_JOBS:
                raise RefusedError(
                    f"There are {MOST_JOBS} jobs that are not over, which is the most that an "
                    "agent can record at once. Stop one of them first."
                )
            start = now if spec.imported else timetable.first_start(spec.start_time, now)
            job = Job(
                spec=spec,
                state=JobState.SCHEDULED,
                reason="",
                create_time=now,
                change_time=now,
                first_start=start,
            )
            if spec.name in self._jobs:  # expired: its name is free
                self._store.remove(spec.name, now, "Its name was given to a new job.", False)
                del self._jobs[spec.name]
            self._store.add(job)
            try:
                upcoming = timetable.window(job, 1)
                if upcoming is not None:
                    self._runs.prepare(job, upcoming, now)
            except Exception:
                self._store.remove(spec.name, now, "It could not be begun.", True)
                self._removals_pending = True
                self.tick()
                raise
            self._jobs[spec.name] = job
            self._log.info("job created", job=spec.name, start=start.isoformat())
            self.tick()
            return self._runs.with_totals(self._jobs[spec.name])

    def stop_job(self, name: str, wait_seconds: float = STOP_WAIT_SECONDS) -> Job:
        """End a job's current run and all later ones. Raises LookupError, RefusedError, OSError.

        Waits a little for agents to deliver what they hold; the job is stopped in any case.
        """
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                raise LookupError(name)
            if not job.is_stopped:
                if not job.may_be_stopped:
                    raise RefusedError(f"The job {name} has ended already: it is {job.state.word}.")
                now = self._clock.now()
                removals = self._runs.prepared(job)
                for run in job.runs:
                    if run.is_recording:
                        is_heard = self._deliveries.any_recording(name, run.number)
                        is_heard = is_heard or not self._others.are_none
                        end = min(run.end_time, now + STOP_LEAD if is_heard else now)
                        job = with_run(job, replace(run, end_time=max(run.start_time, end)))
                job = move_job(job, JobState.STOPPED, now, "Stopped by request.")
                self._save(job, now, removals)
                self._log.info("job stopped", job=name)
                self.tick()
        self._bulletin.wait_until_quiet(name, wait_seconds)
        stopped = self.get(name)
        return job if stopped is None else stopped

    def amend(self, name: str, change: Callable[[Job, datetime], Amendment]) -> Job:
        """Change what a job was asked for, as amendments.py says, and return it.

        Raises LookupError, RefusedError and OSError with a sentence; nothing is changed then.
        """
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                raise LookupError(name)
            now = self._clock.now()
            amended = change(job, now)
            if amended.job != job:
                self._save(amended.job, now, note=amended.note, run=amended.run)
                self._log.info("job amended", job=name, change=amended.note)
                self.tick()
            return self._runs.with_totals(self._jobs[name])

    def archive_job(self, name: str, number: int = 0) -> Job:
        """Let what a job, or one run, has recorded be copied to the archive now; return the job.

        Raises LookupError, RefusedError and OSError.
        """
        job = self._bulletin.get(name)
        if job is None:
            raise LookupError(name)
        self._check_archive()
        if number and job.run(number) is None:
            raise RefusedError(f"The job {name} has no run {number}.")
        runs = [run.number for run in job.runs if run.is_recording or run.has_data]
        runs = [run for run in runs if not number or run == number]
        if not runs:
            raise RefusedError(f"Nothing of {f'run {number} of ' if number else ''}{name} is here.")
        self._runs.archives.ask(name, runs)
        self._log.info("archive asked for", job=name, runs=len(runs))
        return self._runs.with_totals(job)

    def _check_archive(self) -> None:
        if not self._runs.archives.is_on:
            raise RefusedError("There is no archive; the scheduler's setting is --archive.")

    def delete_job(self, name: str, force: bool = False, with_archive: bool = False) -> None:
        """Stop a job and remove it with all that it recorded, its archive too if that is asked.

        Raises LookupError, RefusedError.
        """
        if with_archive:
            self._check_archive()
        with self._lock:
            job = self._jobs.get(name)
            if job is None:
                raise LookupError(name)
            if job.is_pinned and not force:
                runs = [str(run.number) for run in job.runs if run.pinned]
                what = f"Run {', '.join(runs)} of the job {name}" if runs else f"The job {name}"
                raise RefusedError(f"{what} is pinned. Unpin it first, or force the deletion.")
            now = self._clock.now()
            self._store.remove(name, now, "Deleted by request.", True, with_archive)
            if with_archive:
                self._runs.archives.wake.set()
            del self._jobs[name]
            self._runs.forget_job(name)
            self._removals_pending = True
            self._log.info("job deleted", job=name)
            self.tick()

    def get(self, name: str) -> Job | None:
        """Return a job with the counts of now, or None."""
        job = self._bulletin.get(name)
        return None if job is None else self._runs.with_totals(job)

    def jobs(self) -> list[Job]:
        """Return all jobs with the counts of now, oldest first."""
        return self.snapshot()[1]

    def snapshot(self) -> tuple[int, list[Job]]:
        """Return the revision of the last change, and all jobs after it, oldest first."""
        revision, jobs = self._bulletin.snapshot()
        return revision, [self._runs.with_totals(job) for job in jobs]

    def changed_since(self, revision: int, until: int) -> set[str] | None:
        """Return the names of jobs that have changed between two revisions; None if unknown."""
        return self._store.changed_since(revision, until)

    def history(self, name: str) -> list[Event]:
        """Return the latest changes of a job, oldest first."""
        return self._store.events(name, MOST_CHANGES)

    def agents(self, name: str, run: int) -> list[RunAgent]:
        """Return the agents that take or took part in a run, by node."""
        now = self._deliveries.agents(name, run)
        if now is not None and self._others.are_none:
            return now
        known = {agent.agent_id: agent for agent in self._store.agents(name, run)}
        known |= {agent.agent_id: agent for agent in now or ()}
        return sorted(known.values(), key=lambda agent: (agent.node, agent.agent_id))

    def counts(self, name: str, run: int) -> list[NodeCounts]:
        """Return what each node has seen of a run and lost; nothing when its data is gone."""
        return self._writer.counts(name, run)

    def forecast(self, kfl: str, minutes: int, seconds: int, body_limit: int) -> Forecast:
        """Let all agents try a statement for some seconds, and return what it comes to.

        Raises RefusedError when several others are being made.
        """
        agents = self._deliveries.connected_agents()
        answers: list[Probed] = []
        if agents:
            start = timetable.first_start("", self._clock.now())
            number = self._probes.begin(kfl, body_limit, start, seconds, agents)
            if number is None:
                raise RefusedError("Several forecasts are being made; ask again in a moment.")
            try:
                self.tick()
                self._probes.wait(number, seconds + ANSWER_SECONDS)
            finally:
                answers = self._probes.end(number)
                self.tick()
        room, past = self._writer.room(), past_rate(self.jobs(), kfl)
        return Forecast(len(agents), answers, seconds, minutes, room, past)

    @property
    def is_stopping(self) -> bool:
        """stop() was called: nothing will change any more."""
        return self._stopping

    def now(self) -> datetime:
        """Return the time by which jobs are moved."""
        return self._clock.now()

    def wait_for_jobs(self, version: int, timeout: float) -> int:
        """Wait until some job has changed since `version`, at most `timeout` seconds."""
        return self._bulletin.wait_for_jobs(version, timeout)

    def run_full(self, job: str, run: int, reason: str) -> None:
        """End a run and its job, because nothing more may be stored; reason is a sentence."""
        self._full[job] = (run, reason)
        self._wake.set()

    def run_held(self, job: str, run: int, reason: str) -> None:
        """Show that a run waits for the disk; reason is a sentence, and empty when it goes on."""
        self._held[job, run] = reason
        self._wake.set()

    def run_dropped(self, job: str, run: int, reason: str) -> None:
        """Note that a run's data was removed to make room; reason is a sentence."""
        self._dropped.put((job, run, reason))
        self._wake.set()

    # ---- the passing of time

    def tick(self) -> datetime | None:
        """Do all that is due, and return when something will be due next; None is never."""
        with self._lock:
            now = self._clock.now()
            self._failing = False
            for name, number, reason in self._others.full():
                self._full.setdefault(name, (number, reason))
            for name in list(self._full):
                self._guard(name, partial(self._end_full, name, now))
            self._show_all_held(now)
            self._guard("all", partial(self._drop_runs, now))
            self._guard("all", partial(self._count_others, now))
            for name in list(self._jobs):
                for step in (self._end_runs, self._begin_runs, self._expire):
                    self._guard(name, partial(step, name, now))
            self._show_all_held(now)  # also of runs that have only now begun
            self._guard("all", partial(self._save_agents, now))
            self._guard("all", self._remove_data)
            self._guard("all", partial(self._publish, now))
            if threading.current_thread() is not self._thread:
                self._wake.set()  # what it waits for may be later than what is due next now
            return self._next_time(now)

    def _drop_runs(self, now: datetime) -> None:
        """Note the runs that the writer has dropped to make room for newer ones of their job."""
        for _ in range(self._dropped.qsize()):
            name, number, reason = self._dropped.get_nowait()
            job = self._jobs.get(name)
            run = None if job is None else job.run(number)
            if run is not None and run.is_recording:  # it is being closed
                self._dropped.put((name, number, reason))
            elif job is not None and run is not None and run.has_data:
                self._recount(job, run, reason, now)

    def _count_others(self, now: datetime) -> None:
        """Count what other schedulers have of runs that have ended."""
        for name, number in self._others.uncounted():
            job = self._jobs.get(name)
            run = None if job is None else job.run(number)
            if job is not None and run is not None and run.has_data:
                self._recount(job, run, "All of its data made room for newer data.", now)

    def _recount(self, job: Job, run: Run, reason: str, now: datetime) -> None:
        """Count again what is there of a run that has ended; one without data has expired."""
        counted = self._runs.recounted(job.name, run, self.agents(job.name, run.number))
        if run.bytes and not counted.bytes:
            job = with_run(job, replace(run, bytes=0))
            job = move_run(job, run.number, JobState.EXPIRED, reason)
            self._save(job, now, [run.number])  # of what it has elsewhere
        else:
            self._save(with_run(job, counted), now)
        self._others.counted(job.name, run.number)

    def _publish(self, now: datetime) -> None:
        changes, probes = self._store.revision(), self._probes.assignments()
        self._bulletin.publish(self._jobs, now, self._store.next_revision, changes, probes)

    def _save_agents(self, now: datetime) -> None:
        for job in self._jobs.values():
            for run in job.runs:
                if run.is_recording:
                    self._deliveries.ends(job.name, run)
        for (name, number), agents in self._deliveries.to_save(now).items():
            self._store.save_agents(name, number, agents)
            self._deliveries.saved(name, number, agents)

    def _loop(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                until = self.tick()
            except Exception:  # the thread has to go on: other jobs depend on it
                self._log.exception("jobs were not moved")
                until = self._clock.now() + RETRY
            if not self._stopping:
                self._clock.wait(self._wake, until)

    def _guard(self, name: str, step: Callable[[], None]) -> None:
        """Do one step; what goes wrong with it is logged, and tried again a little later."""
        try:
            step()
        except Exception as error:  # one job's trouble is not the others'
            self._failing = True
            self._log.error("jobs not moved", job=name, error=str(error), exc_info=True)

    def _show_all_held(self, now: datetime) -> None:
        for key in list(self._held):
            self._guard(key[0], partial(self._show_held, *key, now))

    def _show_held(self, name: str, number: int, now: datetime) -> None:
        """Let people see why a run takes nothing now, or that it goes on."""
        reason = self._held[name, number]
        job = self._jobs.get(name)
        run = None if job is None else job.run(number)
        if job is not None and number > job.planned and not job.is_over:
            return  # it was only prepared when its first data came, and begins in a moment
        if job is not None and run is not None and run.is_recording:
            shown, note = self._runs.hold(job, run, reason, now)
            self._jobs[name] = shown  # also when the disk has no room to store it
            self._store.save(shown, now, note=note, run=number)
        if self._held[name, number] == reason:
            del self._held[name, number]

    def _resume(self, name: str, now: datetime) -> None:
        job = self._jobs[name]
        try:
            on_disk = layout.runs(self._data, name)
        except OSError:  # what cannot be looked at may be there
            on_disk = [run.number for run in job.runs]
        gone = []
        for run in job.runs:
            is_here = run.number in on_disk or not self._others.are_none
            if run.has_data and run.bytes and not is_here:
                # Dropped in the moment in which the scheduler was killed, or removed by hand.
                job = with_run(job, replace(run, bytes=0))
                reason = "Its data is not on disk any more."
                job = move_run(job, run.number, JobState.EXPIRED, reason)
                gone.append(run.number)
            if run.is_recording:
                known = self._store.agents(name, run.number, only_own=True)
                job = self._runs.resume(job, run, known, now)
        self._save(settle(job, timetable.has_more(job), now), now, gone)

    def _end_full(self, name: str, now: datetime) -> None:
        full = self._full[name]
        number, reason = full
        job = self._jobs.get(name)
        run = None if job is None else job.run(number)
        if job is not None and run is not None and run.is_recording:
            removals = self._runs.prepared(job)
            for run in job.runs:
                if run.is_recording:
                    job = self._close(job, run, JobState.STORAGE_LIMITED, reason, now)
            self._save(settle(job, timetable.has_more(job), now), now, removals)
        if self._full[name] is full:
            del self._full[name]

    def _end_runs(self, name: str, now: datetime) -> None:
        job = self._jobs[name]
        for run in job.runs:
            if not run.is_recording:
                continue
            ending = self._runs.ending(job, run, now)
            if ending is not None:
                job = self._close(job, run, *ending, now)
                self._save(settle(job, timetable.has_more(job), now), now)
                job = self._jobs[name]

    def _close(self, job: Job, run: Run, to: JobState, reason: str | None, now: datetime) -> Job:
        own = self._deliveries.agents(job.name, run.number) or []
        if not own and self._others.are_none:
            own = self._store.agents(job.name, run.number)
        agents = self.agents(job.name, run.number)
        self._store.save_agents(job.name, run.number, at_end(own))
        return self._runs.close(job, run, agents, to, reason, now, own)

    def _begin_runs(self, name: str, now: datetime) -> None:
        job = self._jobs[name]
        due = timetable.due(job, now)
        if due.missed:
            job = self._runs.miss(job, due.missed, now)
            # Some of them may have been prepared.
            removals = [n for n in layout.runs(self._data, name) if n in due.missed]
            self._save(settle(job, timetable.has_more(job), now), now, removals)
            job = self._jobs[name]
        if due.begin is not None:
            try:
                job = self._runs.begin(job, due.begin, now)
            except OSError as error:  # the disk may take it later, while its window lasts
                reason = f"Run {due.begin.number} waits for the disk: {sentence(error)}"
                self._jobs[name] = replace(job, reason=reason)
                raise
            self._save(settle(job, timetable.has_more(job), now), now)
        elif due.upcoming is not None:
            self._runs.prepare(job, due.upcoming, now)

    def _expire(self, name: str, now: datetime) -> None:
        """Remove what has passed its expiration: runs, then the job, later its last traces."""
        job = self._jobs[name]
        expired: list[int] = []
        for run in job.runs:
            if run.has_data and not job.keeps(run) and run.end_time + job.spec.expiration <= now:
                reason = f"Its data was kept for {spoken(job.spec.expiration)}, then removed."
                job = move_run(
                    with_run(job, replace(run, bytes=0)), run.number, JobState.EXPIRED, reason
                )
                expired.append(run.number)
        if expired:
            self._save(job, now, expired)
        emptied = expire_if_empty(job, now)
        if emptied is not job:
            self._save(emptied, now, [WHOLE_JOB])
            return
        if job.is_expired and job.change_time + KEPT_AFTER_EXPIRY <= now:
            self._store.remove(job.name, now, "It expired a day ago.", False)
            del self._jobs[job.name]
            return
        traces = job.spec.expiration + KEPT_AFTER_EXPIRY
        kept = tuple(r for r in job.runs if not r.is_expired or r.end_time + traces > now)
        if not job.is_over and len(kept) < len(job.runs):
            self._save(replace(job, runs=kept), now)

    def _remove_data(self) -> None:
        """Remove from disk what nobody owns any more; what cannot be removed is tried again."""
        if not self._removals_pending:
            return
        self._removals_pending = False
        for removal in self._store.removals():
            try:
                if removal.run == WHOLE_JOB:
                    self._writer.delete(removal.job)
                    self._runs.forget_job(removal.job)
                else:
                    self._writer.delete_run(removal.job, removal.run)
                    self._runs.forget(removal.job, removal.run)
            except OSError as error:
                self._removals_pending = True
                self._log.error(
                    "data not removed", job=removal.job, run=removal.run, error=str(error)
                )
            else:
                self._store.removed(removal)

    def _next_time(self, now: datetime) -> datetime | None:
        """Return when something will be due next."""
        times = [now + RETRY] if self._failing or self._removals_pending else []
        saving = self._deliveries.save_time()
        times += [saving] if saving and saving > now else []
        for job in self._jobs.values():
            times += [time for time in self._times(job) if time > now]
        return min(times, default=None)

    def _times(self, job: Job) -> Iterator[datetime]:
        """Yield every time at which something is to be done with the job, past ones included."""
        upcoming = None if job.is_over else timetable.window(job, job.planned + 1)
        if upcoming is not None:
            yield from (upcoming.start - ANNOUNCE_LEAD, upcoming.start - PREPARE_LEAD)
            yield upcoming.start
        for run in job.runs:
            if run.is_recording:
                yield from (run.end_time, self._runs.last_call(job, run))
            elif not job.keeps(run):
                expired = run.end_time + job.spec.expiration
                yield from (expired, expired + KEPT_AFTER_EXPIRY)
        if job.is_over:
            yield from (job.change_time + job.spec.expiration, job.change_time + KEPT_AFTER_EXPIRY)

    def _check_name_is_free(self, name: str) -> None:
        """Raise NameTakenError or RefusedError when a new job may not have this name."""
        job = self._jobs.get(name)
        if job is not None and not job.is_expired:
            raise NameTakenError(
                f"There is a job named {name} already: it is {job.state.word}. "
                "Choose another name, or delete that job with its recording first."
            )
        self._remove_data()
        if any(removal.job == name for removal in self._store.removals()):
            raise RefusedError(
                f"What an earlier job named {name} recorded could not be removed yet. "
                "Choose another name, or try again later."
            )
        folder = layout.recording(self._data, name)
        if folder.exists():
            raise NameTakenError(
                f"There is a recording named {name} already that belongs to no job. "
                f"Choose another name, or move the folder {folder} away."
            )

    def _save(
        self,
        job: Job,
        now: datetime,
        removals: Sequence[int] = (),
        note: str = "",
        run: int = 0,
    ) -> None:
        if job == self._jobs[job.name] and not removals:
            return
        self._store.save(job, now, removals, note, run)
        self._writer.allow(job.name, allowances.of(job))
        self._jobs[job.name] = job
        self._removals_pending = self._removals_pending or bool(removals)
