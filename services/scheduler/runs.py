"""One run on disk and in the table of states: prepared, begun, taken up again, closed, missed.

lifecycle.py decides when and saves what comes back; here is how. Every method is called with
lifecycle's lock held.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from services.runtime.logging import logger
from services.scheduler import allowances, completeness, timetable
from services.scheduler.database import StoreError
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
from services.scheduler.outcomes import RunTotals
from services.scheduler.parts import Others
from services.scheduler.quota import StorageFullError
from services.scheduler.writer import DISK_FULL, MAY_PASS, Writer

PREPARE_LEAD = timedelta(seconds=5)
"""How long before its start a run can take data: the clock of a node may be ahead of ours."""

HELD_GRACE = timedelta(hours=1)
"""How long after its end a run waits for a disk that takes nothing: agents still have what they
recorded, and someone has to make room."""

HELD_NOTE = "Agents keep what they record until there is room."
"""Ends the reason of a run for as long as the disk takes nothing."""

KEPT_AFTER_EXPIRY = timedelta(days=1)
"""How long an expired run or job is still listed, so that whoever looks for last night's recording
sees what became of it."""

_log = logger(__name__)


class Runs:
    """The runs that are open on the writer, and what is known about each."""

    def __init__(
        self,
        writer: Writer,
        deliveries: Deliveries,
        matches: Matches,
        others: Others | None = None,
    ) -> None:
        self.others = others or Others()
        self._writer = writer
        self._deliveries = deliveries
        self._matches = matches
        self._open: set[tuple[str, int]] = set()  # take data: prepared, recording, or at their end
        self._joined: set[tuple[str, int]] = set()  # that others have begun
        # Runs that a restart, or a disk that took nothing, interrupted; when they went on.
        self._resumed: dict[tuple[str, int], datetime] = {}
        # Why a run waits for the disk, its reason before, and since when.
        self._held: dict[tuple[str, int], tuple[str, str, datetime]] = {}
        self._unbegun: dict[tuple[str, int], str] = {}  # runs that wait for the disk, and why

    def prepare(self, job: Job, window: timetable.Window, now: datetime) -> None:
        """Let a run take data shortly before it begins. Raises OSError."""
        if window.start - now <= PREPARE_LEAD:
            self._take_data(job, window.number)

    def prepared(self, job: Job) -> list[int]:
        """Return the numbers of runs that can take data already and have not begun."""
        return [n for name, n in self._open if name == job.name and job.run(n) is None]

    def begin(self, job: Job, window: timetable.Window, now: datetime) -> Job:
        """Return the job with a run more: recording, late if need be, or failed.

        Raises OSError when the disk may take it later.
        """
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
            if error.errno in MAY_PASS and not is_full:
                self._unbegun[job.name, window.number] = sentence(error)
                raise
            state = JobState.STORAGE_LIMITED if is_full else JobState.FAILED
            reason = f"It could not be begun: {sentence(error)}"
            return begin_run(job, replace(run, state=state, reason=reason, end_time=now))
        self._unbegun.pop((job.name, window.number), None)
        self._deliveries.begin(job, run)
        _log.info("run begun", job=job.name, run=window.number)
        return begin_run(job, run)

    def resume(self, job: Job, run: Run, agents: list[RunAgent], now: datetime) -> Job:
        """Return the job with a run taken up that was recording when the scheduler ended."""
        is_open = (job.name, run.number) in self._open  # by a follower that leads now
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
        if run.reason.endswith(HELD_NOTE):
            # Whether the disk is still full shows when agents send again.
            reason = f"{run.reason.removesuffix(HELD_NOTE)}It was tried again after a restart"
            run = replace(run, reason=f"{reason} at {now:%H:%M:%S} UTC.")
            is_told = job.reason.endswith(HELD_NOTE)
            job = replace(with_run(job, run), reason="" if is_told else job.reason)
            time_ns = int(now.timestamp() * 1_000_000) * 1000
            row = {"start_time": time_ns, "end_time": time_ns, "detail": run.reason}
            self._writer.tell_losses(job.name, run.number, DISK_FULL, [row])
        if not is_open:
            self._count_matched(job.name, run.number)
        return job

    def _count_matched(self, name: str, number: int) -> None:
        self._matches.resume(name, number, self._writer.totals(name, number).streams)

    def hold(self, job: Job, run: Run, reason: str, now: datetime) -> tuple[Job, str]:
        """Return the job with a run that waits for the disk, or with "" goes on, and a note."""
        key = (job.name, run.number)
        held = self._held.pop(key, None)
        before = run.reason if held is None else held[1]
        if reason:
            self._held[key] = (reason, before, now if held is None else held[2])
            note = f"{reason} {HELD_NOTE}"
            shown = note
        else:
            self._resumed[key] = now
            note = "The disk of the scheduler takes data again."
            since = f" from {held[2]:%H:%M:%S} to {now:%H:%M:%S} UTC" if held else ""
            shown = f"The disk of the scheduler took nothing{since}."
        job = with_run(job, replace(run, reason=f"{before} {shown}".strip()))
        if job.state is JobState.RECORDING:
            job = replace(job, reason=shown if reason else "")
        return job, note

    def ending(self, job: Job, run: Run, now: datetime) -> tuple[JobState, str | None] | None:
        """Return state and reason with which a recording run is to be closed now, or None."""
        if job.spec.imported and not job.is_over:
            is_done = self._deliveries.importer_finished(job.name, run.number)
            if is_done or self.others.any_closed(job.name, run.number):
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
        complete = complete and self.others.are_closed(job.name, run.number)
        if complete or now >= self.last_call(job, run):
            held = self._held.get((job.name, run.number))
            if held is not None and not complete:
                return JobState.STORAGE_LIMITED, held[0]
            return ending_of_run(job), job.reason if job.is_stopped else None
        return None

    def last_call(self, job: Job, run: Run) -> datetime:
        """Return when a recording run is closed at the latest."""
        resumed = self._resumed.get((job.name, run.number))
        if (job.name, run.number) in self._held:
            return run.end_time + HELD_GRACE
        last = run.end_time + FINAL_GRACE + self.others.grace
        return last if resumed is None else max(last, resumed + RESTART_GRACE)

    def close(
        self,
        job: Job,
        run: Run,
        agents: Sequence[RunAgent],
        to: JobState,
        reason: str | None,
        now: datetime,
        own: Sequence[RunAgent],
    ) -> Job:
        """Return the job with a run closed on disk and ended; None keeps the run's reason.

        own: those of the agents that deliver to this scheduler. Raises StoreError.
        """
        run = replace(run, end_time=_end(run, now))
        run = replace(run, completeness=completeness.sentence(run, to, agents))
        try:
            # It is not open when it was closed before and the state could not be stored then.
            self._take_data(job, run.number)
            gone = completeness.losses(run, to, own)
            if gone:
                self._writer.tell_losses(job.name, run.number, completeness.AGENT_GONE, gone)
            totals = self._writer.close_run(job.name, run.number)
            self.others.close(job.name, run.number, totals)
            run = self._whole(job.name, run, totals)
        except StoreError:  # it is tried again
            raise
        except OSError as error:
            # Nothing is lost: a reader takes what is not yet in segments from the journal.
            to, reason = JobState.FAILED, f"It could not be closed: {sentence(error)}"
            run = self._with_counts(job.name, run)
            _log.error("run not closed", job=job.name, run=run.number, error=str(error))
        self.forget(job.name, run.number)
        _log.info("run ended", job=job.name, run=run.number, state=to.word, reason=reason)
        return move_run(with_run(job, run), run.number, to, reason)

    def recounted(self, name: str, run: Run, agents: Sequence[RunAgent]) -> Run:
        """Return a run that has ended with the counts of what is there of it now."""
        try:
            totals = self._writer.totals(name, run.number)
        except LookupError:
            totals = RunTotals()
        self.others.close(name, run.number, totals)
        run = replace(run, completeness=completeness.sentence(run, run.state, agents))
        return self._whole(name, run, totals)

    def _whole(self, name: str, run: Run, totals: RunTotals) -> Run:
        """Return a closed run with what all schedulers have of it."""
        run = _counted(run, self.others.whole(name, run.number, totals, is_latest=True))
        missing = self.others.missing(name, run.number)
        return replace(run, completeness=f"{run.completeness} {missing}".strip())

    def take_part(self, job: Job, run: Run, known: list[RunAgent]) -> None:
        """Take data of a run that another scheduler has begun. Raises OSError."""
        self._take_data(job, run.number)
        self._count_matched(job.name, run.number)
        self._deliveries.begin(job, run, known)
        self._joined.add((job.name, run.number))

    def takes_part(self, name: str, number: int) -> bool:
        """Whether take_part() was called for a run that takes data."""
        return (name, number) in self._joined

    def open(self) -> list[tuple[str, int]]:
        """Return job and number of the runs that take data."""
        return list(self._open)

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
                reason=self._why_missed(job, window, now),
                start_time=window.start,
                end_time=window.end,
            )
            job = begin_run(job, missed)
        return replace(job, planned=numbers.stop - 1)

    def forget(self, name: str, number: int) -> None:
        """Drop what is known about a run that takes no data any more."""
        self._open.discard((name, number))
        self._joined.discard((name, number))
        self._resumed.pop((name, number), None)
        self._held.pop((name, number), None)
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

    def _why_missed(self, job: Job, window: timetable.Window, now: datetime) -> str:
        disk = self._unbegun.pop((job.name, window.number), "")
        if disk:
            return f"It could not be begun in its time: {disk}"
        start = _minute(window.start)
        if now < window.end:
            return (
                f"Skipped: the scheduler was not running at its start, {start} UTC, and the job "
                "wants late runs skipped."
            )
        return f"Missed: the scheduler was not running from {start} to {_minute(window.end)} UTC."

    def _with_counts(self, name: str, run: Run) -> Run:
        try:
            totals = self._writer.totals(name, run.number)
            return _counted(run, self.others.whole(name, run.number, totals))
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
