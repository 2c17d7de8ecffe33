"""One run on disk and in the table of states: prepared, begun, taken up again, closed, missed.

lifecycle.py decides when and saves what comes back; here is how. Every method is called with
lifecycle's lock held.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from services.runtime.logging import logger
from services.scheduler import allowances, completeness, timetable
from services.scheduler.deliveries import FINAL_GRACE, RESTART_GRACE, Deliveries
from services.scheduler.jobs import (
    Job,
    JobState,
    Run,
    RunAgent,
    begin_run,
    ending_of_run,
    move_run,
    with_run,
)
from services.scheduler.matches import Matches
from services.scheduler.quota import StorageFullError
from services.scheduler.writer import RunTotals, Writer

PREPARE_LEAD = timedelta(seconds=5)
"""How long before its start a run can take data: the clock of a node may be ahead of ours."""

KEPT_AFTER_EXPIRY = timedelta(days=1)
"""How long an expired run or job is still listed, so that whoever looks for last night's recording
sees what became of it."""

_log = logger(__name__)


class Runs:
    """The runs that are open on the writer, and what is known about each."""

    def __init__(self, writer: Writer, deliveries: Deliveries, matches: Matches) -> None:
        self._writer = writer
        self._deliveries = deliveries
        self._matches = matches
        self._open: set[tuple[str, int]] = set()  # take data: prepared, recording, or at their end
        self._resumed: dict[tuple[str, int], datetime] = {}  # runs that a restart interrupted

    def prepare(self, job: Job, window: timetable.Window, now: datetime) -> None:
        """Let a run take data shortly before it begins. Raises OSError."""
        if window.start - now <= PREPARE_LEAD:
            self._take_data(job, window.number)

    def prepared(self, job: Job) -> list[int]:
        """Return the numbers of runs that can take data already and have not begun."""
        return [n for name, n in self._open if name == job.name and job.run(n) is None]

    def begin(self, job: Job, window: timetable.Window, now: datetime) -> Job:
        """Return the job with a run more: recording, late if need be, or failed."""
        late = now - window.start
        run = Run(
            number=window.number,
            state=JobState.RECORDING,
            reason=f"It began {spoken(late)} late." if late >= timedelta(minutes=1) else "",
            start_time=max(window.start, now),
            end_time=window.end,
        )
        try:
            self.prepare(job, window, now)
        except OSError as error:
            _log.error("run not begun", job=job.name, run=window.number, error=str(error))
            is_full = isinstance(error, StorageFullError)
            state = JobState.STORAGE_LIMITED if is_full else JobState.FAILED
            reason = f"It could not be begun: {sentence(error)}"
            return begin_run(job, replace(run, state=state, reason=reason, end_time=now))
        self._deliveries.begin(job, run)
        _log.info("run begun", job=job.name, run=window.number)
        return begin_run(job, run)

    def resume(self, job: Job, run: Run, agents: list[RunAgent], now: datetime) -> Job:
        """Return the job with a run taken up that was recording when the scheduler ended."""
        self._deliveries.begin(job, run, agents)
        self._resumed[job.name, run.number] = now
        try:
            self._take_data(job, run.number)
        except OSError as error:
            reason = f"It could not be taken up after a restart: {sentence(error)}"
            _log.error("run not taken up", job=job.name, run=run.number, error=str(error))
            self.forget(job.name, run.number)
            job = with_run(job, replace(run, end_time=_end(run, now)))
            return move_run(job, run.number, JobState.FAILED, reason)
        streams = self._writer.totals(job.name, run.number).streams
        self._matches.resume(job.name, run.number, streams)
        return job

    def ending(self, job: Job, run: Run, now: datetime) -> tuple[JobState, str | None] | None:
        """Return state and reason with which a recording run is to be closed now, or None."""
        if job.spec.imported and not job.is_over:
            if self._deliveries.importer_finished(job.name, run.number):
                return ending_of_run(job), None
            if now >= self.last_call(job, run):
                time = spoken(job.spec.duration)
                return JobState.FAILED, f"The import did not end within {time}."
            return None
        if now < run.end_time:
            return None
        resumed = self._resumed.get((job.name, run.number))
        if resumed is not None and resumed > now:  # the clock was set back since
            resumed = self._resumed[job.name, run.number] = now
        are_known = resumed is None or now >= resumed + RESTART_GRACE
        complete = are_known and self._deliveries.are_complete(job, run, now)
        if complete or now >= self.last_call(job, run):
            return ending_of_run(job), job.reason if job.is_stopped else None
        return None

    def last_call(self, job: Job, run: Run) -> datetime:
        """Return when a recording run is closed at the latest."""
        resumed = self._resumed.get((job.name, run.number))
        last = run.end_time + FINAL_GRACE
        return last if resumed is None else max(last, resumed + RESTART_GRACE)

    def close(
        self,
        job: Job,
        run: Run,
        agents: Sequence[RunAgent],
        to: JobState,
        reason: str | None,
        now: datetime,
    ) -> Job:
        """Return the job with a run closed on disk and ended; None keeps the run's reason."""
        run = replace(run, end_time=_end(run, now))
        run = replace(run, completeness=completeness.sentence(run, to, agents))
        try:
            # It is not open when it was closed before and the state could not be stored then.
            self._take_data(job, run.number)
            gone = completeness.losses(run, to, agents)
            if gone:
                self._writer.tell_losses(job.name, run.number, completeness.AGENT_GONE, gone)
            run = _counted(run, self._writer.close_run(job.name, run.number))
        except OSError as error:
            # Nothing is lost: a reader takes what is not yet in segments from the journal.
            to, reason = JobState.FAILED, f"It could not be closed: {sentence(error)}"
            run = self._with_counts(job.name, run)
            _log.error("run not closed", job=job.name, run=run.number, error=str(error))
        self.forget(job.name, run.number)
        _log.info("run ended", job=job.name, run=run.number, state=to.word, reason=reason)
        return move_run(with_run(job, run), run.number, to, reason)

    def miss(self, job: Job, numbers: range, now: datetime) -> Job:
        """Return the job with runs more that nobody recorded, because the scheduler was away."""
        _log.warning("runs missed", job=job.name, runs=len(numbers))
        # Nobody would see those whose trace would have been removed by now.
        oldest = now - job.spec.duration - job.spec.expiration - KEPT_AFTER_EXPIRY
        for window in timetable.windows(job, numbers.start, oldest):
            if window.number >= numbers.stop:
                break
            missed = Run(
                number=window.number,
                state=JobState.FAILED,
                reason=_why_missed(window, now),
                start_time=window.start,
                end_time=window.end,
            )
            job = begin_run(job, missed)
        return replace(job, planned=numbers.stop - 1)

    def forget(self, name: str, number: int) -> None:
        """Drop what is known about a run that takes no data any more."""
        self._open.discard((name, number))
        self._resumed.pop((name, number), None)
        self._deliveries.forget(name, number)
        self._matches.forget(name, number)

    def forget_job(self, name: str) -> None:
        """Drop what is known about all runs of a job that was deleted."""
        for job, number in list(self._open):
            if job == name:
                self.forget(job, number)

    def with_totals(self, job: Job) -> Job:
        """Return the job with the counts of now in the runs that take data. Needs no lock."""
        for run in job.runs:
            if run.is_recording:
                job = with_run(job, self._with_counts(job.name, run))
        return job

    def _take_data(self, job: Job, number: int) -> None:
        if (job.name, number) not in self._open:
            self._writer.allow(job.name, allowances.of(job))
            self._writer.open_run(job.name, number, job.spec.recorded_kfl)
            self._open.add((job.name, number))

    def _with_counts(self, name: str, run: Run) -> Run:
        try:
            return _counted(run, self._writer.totals(name, run.number))
        except LookupError:  # closed in this moment
            return run


def sentence(error: OSError) -> str:
    """Return what the disk said, with the file that it is about."""
    text = f"{error.strerror or error}".rstrip(".")
    return f"{error.filename}: {text}." if error.filename else f"{text}."


def spoken(time: timedelta) -> str:
    """Return a time in the largest unit that it is a whole number of, minutes at least."""
    minutes = time // timedelta(minutes=1)
    size, unit = next(
        (size, unit)
        for size, unit in ((1440, "day"), (60, "hour"), (1, "minute"))
        if minutes % size == 0
    )
    count = minutes // size
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _end(run: Run, now: datetime) -> datetime:
    """Return when a run ends that is closed now; not before its start, should the clock go back."""
    return max(run.start_time, min(run.end_time, now))


def _why_missed(window: timetable.Window, now: datetime) -> str:
    start = _minute(window.start)
    if now < window.end:
        return (
            f"Skipped: the scheduler was not running at its start, {start} UTC, and the job "
            "wants late runs skipped."
        )
    return f"Missed: the scheduler was not running from {start} to {_minute(window.end)} UTC."


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _counted(run: Run, totals: RunTotals) -> Run:
    return replace(
        run,
        entries=totals.entries,
        streams=totals.streams,
        packets=totals.packets,
        bytes=totals.bytes,
        lost_packets=totals.lost_packets,
        nodes=tuple(totals.nodes),
    )
