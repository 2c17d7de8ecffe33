"""The lifecycle against a plain model of what it promises, over years, restarts and clock steps.

The model knows no store, no writer and no timetable.py: it has the promises as a person would put
them, and looks at each run by itself.
"""

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from services.scheduler.amendments import RefusedError, extend, pin
from services.scheduler.deliveries import RESTART_GRACE
from services.scheduler.jobs import JOB_MOVES, RUN_MOVES, JobState, RunMissed
from services.scheduler.jobstore import NameTakenError
from services.scheduler.timetable import NOW_LEAD, SKIPPED_AFTER
from tests.unit.scheduler.conftest import World

MINUTE, HOUR, DAY = (timedelta(**{unit: 1}) for unit in ("minutes", "hours", "days"))
NAMES = ("checkout", "night")
OPEN = {JobState.SCHEDULED, JobState.RECORDING, JobState.WAITING}
STARTS = (
    datetime(2028, 2, 27, 12, tzinfo=UTC),  # before a leap day
    datetime(2027, 12, 31, 23, 59, 30, tzinfo=UTC),
    datetime(2100, 2, 27, 1, tzinfo=UTC),  # no leap year
)


@dataclass
class Plan:
    """What the model remembers of a job."""

    first: datetime
    created: datetime
    iterations: int
    duration: timedelta
    expiration: timedelta
    skip: bool
    pinned: bool = False
    stopped: datetime | None = None
    longest: dict[int, timedelta] = field(default_factory=dict)
    """Of runs that were made longer."""
    pins: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    """Runs that have expired: a pin comes too late for them."""
    steady: bool = True
    """The clock was not set back since it was created: all can be told from the plan alone."""

    def start(self, number: int) -> datetime:
        return self.first + (number - 1) * DAY

    def end(self, number: int) -> datetime:
        return self.start(number) + self.longest.get(number, self.duration)

    def number_at(self, now: datetime) -> int:
        """Number of the run whose window `now` is in; 0 for none."""
        number = (now - self.first) // DAY + 1
        exists = number >= 1 and (self.iterations == 0 or number <= self.iterations)
        return number if exists and self.start(number) <= now < self.end(number) else 0

    def is_past(self, now: datetime) -> bool:
        return self.iterations > 0 and self.end(self.iterations) <= now


class Lifecycles(RuleBasedStateMachine):
    @initialize(start=st.sampled_from(STARTS))
    def begin(self, start):
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name))
        self.world.clock.step(start - self.world.clock.now())
        self.plans: dict[str, Plan] = {}
        self.grace = start

    def teardown(self):
        if not hasattr(self, "world"):
            return
        try:
            self.check_history()
        finally:
            self.world.down()
            self.folder.cleanup()

    @property
    def now(self):
        return self.world.clock.now()

    # ---- what people do

    @rule(
        name=st.sampled_from(NAMES),
        hour=st.none() | st.integers(0, 23),
        iterations=st.integers(0, 4),
        minutes=st.sampled_from((1, 60, 240, 1439, 1440)),
        expiration=st.sampled_from((1, 60, 2880, 10 * 1440)),
        skip=st.booleans(),
    )
    def create(self, name, hour, iterations, minutes, expiration, skip):
        existing = self.world.lifecycle.get(name)
        fields = {
            "start_time": "" if hour is None else f"{hour:02}:00",
            "daily_iterations": iterations,
            "duration_minutes": minutes,
            "expiration_minutes": expiration,
            "run_missed": RunMissed.SKIP if skip else RunMissed.LATE,
        }
        if existing is not None and not existing.is_expired:
            with pytest.raises(NameTakenError):
                self.world.create(name, **fields)
            return
        self.world.create(name, **fields)
        first = self.now + NOW_LEAD
        if hour is not None:
            minute = self.now.replace(second=0, microsecond=0)
            first = minute.replace(hour=hour, minute=0)
            first += DAY if first < minute else timedelta()
        self.plans[name] = Plan(
            first, self.now, iterations, minutes * MINUTE, expiration * MINUTE, skip
        )

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def stop(self, data):
        name, plan, job = self.some_job(data)
        if job is None or job.state not in OPEN | {JobState.STOPPED}:
            return
        stopped = self.world.lifecycle.stop_job(name, 0)
        assert stopped.state in (JobState.STOPPED, JobState.EXPIRED)
        plan.stopped = plan.stopped or self.now

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def delete(self, data):
        name, plan, job = self.some_job(data)
        if job is None:
            return
        if plan.pinned or plan.pins & {run.number for run in job.runs}:
            with pytest.raises(RefusedError, match="pinned"):
                self.world.lifecycle.delete_job(name)
        self.world.lifecycle.delete_job(name, force=True)
        del self.plans[name]
        assert not (self.world.data / "recordings" / name).exists()

    @precondition(lambda self: self.plans)
    @rule(data=st.data(), pinned=st.booleans(), whole=st.booleans())
    def pin(self, data, pinned, whole):
        name, plan, job = self.some_job(data)
        if job is None or job.is_expired:
            return
        alive = [run.number for run in job.runs if run.state is not JobState.EXPIRED]
        if whole:
            self.world.lifecycle.amend(name, pin(0, "", pinned))
            plan.pinned = pinned
        elif alive:
            number = data.draw(st.sampled_from(alive))
            self.world.lifecycle.amend(name, pin(number, "", pinned))
            (plan.pins.add if pinned else plan.pins.discard)(number)

    @precondition(lambda self: self.plans)
    @rule(data=st.data(), more=st.integers(1, 600))
    def make_longer(self, data, more):
        name, plan, job = self.some_job(data)
        number = plan.number_at(self.now)
        run = job and job.run(number)
        if not run or run.state is not JobState.RECORDING or job.state is not JobState.RECORDING:
            return
        if run.end_time - self.now <= timedelta(seconds=2):
            return
        lasts = plan.end(number) - plan.start(number) + more * MINUTE
        change = extend(lasts // MINUTE, None, None)
        follows = plan.iterations == 0 or number < plan.iterations
        if follows and lasts > DAY:
            with pytest.raises(RefusedError, match="next one"):
                self.world.lifecycle.amend(name, change)
            return
        self.world.lifecycle.amend(name, change)
        plan.longest[number] = lasts

    @precondition(lambda self: self.plans)
    @rule(data=st.data(), days=st.integers(1, 5), expiration=st.integers(1, 5000))
    def keep_on(self, data, days, expiration):
        name, plan, job = self.some_job(data)
        if job is None or job.state not in OPEN or not plan.iterations:
            return
        if any(run.end_time - plan.start(run.number) > DAY for run in job.runs):
            return
        kept = plan.expiration // MINUTE + expiration
        change = extend(None, plan.iterations + days, kept)
        job = self.world.lifecycle.amend(name, change)
        plan.iterations += days
        plan.expiration = kept * MINUTE
        assert job.spec.daily_iterations == plan.iterations

    # ---- what time does

    @rule(
        by=st.one_of(
            st.integers(1, 90).map(lambda n: timedelta(seconds=n)),
            st.integers(1, 600).map(lambda n: timedelta(minutes=n)),
            st.integers(1, 6).map(lambda n: timedelta(days=n)),
        )
    )
    def pass_time(self, by):
        self.world.move(by)

    @rule(
        away=st.one_of(
            st.integers(0, 100).map(lambda n: timedelta(seconds=n)),
            st.integers(1, 100).map(lambda n: timedelta(hours=n)),
            st.integers(300, 3000).map(lambda n: timedelta(days=n)),
        )
    )
    def restart(self, away):
        self.world.restart(away)
        # What was on then is kept open for agents that come back.
        self.grace = self.now + RESTART_GRACE

    @rule(by=st.integers(-3 * 24 * 60, 3 * 24 * 60))
    def step_clock(self, by):
        self.world.clock.step(timedelta(minutes=by))
        self.world.lifecycle.tick()
        if by < 0:
            for plan in self.plans.values():
                plan.steady = False

    # ---- what is promised

    @invariant()
    def check_jobs(self):
        if not hasattr(self, "world"):
            return
        for name, plan in list(self.plans.items()):
            job = self.world.lifecycle.get(name)
            if job is None:
                assert not plan.pinned
                assert not (self.world.data / "recordings" / name).exists()
                del self.plans[name]
                continue
            self.check_runs(name, plan, job)
            if plan.steady:
                self.check_state(plan, job)

    def check_runs(self, name, plan, job):
        now, folders = self.now, self.world.folders(name)
        numbers = [run.number for run in job.runs]
        assert numbers == sorted(set(numbers))
        recorded = [run for run in job.runs if run.state is JobState.RECORDING]
        for run in job.runs:
            assert run.start_time <= run.end_time
            is_kept = plan.pinned or run.number in plan.pins
            is_due = run.end_time + plan.expiration <= now
            if run.state is JobState.EXPIRED:
                assert run.number not in folders
                assert not is_kept or run.number in plan.gone
                plan.gone.add(run.number)
            elif run.state is not JobState.RECORDING:
                assert is_kept or not is_due, "it has passed its expiration"
            if run.state not in (JobState.EXPIRED, JobState.FAILED):
                assert run.number in folders
        # Nothing is on disk that no run has, but for the one that is about to begin.
        assert set(folders) <= {*numbers, job.planned + 1}
        assigned = [run for of, run in self.world.assigned() if of == name]
        assert now <= self.grace or max(len(recorded), len(assigned)) <= 2

    def check_state(self, plan, job):
        """Without steps back, state and current run follow from the plan and the time alone."""
        now = self.now
        number = plan.number_at(now)
        if plan.stopped is not None:
            assert job.state in (JobState.STOPPED, JobState.EXPIRED)
            return
        run = job.run(number)
        if number and job.state in OPEN:
            assert run is not None
            if run.state is JobState.RECORDING:
                assert (run.end_time, job.state) == (plan.end(number), JobState.RECORDING)
                late = run.start_time - max(plan.start(number), plan.created)
                assert not plan.skip or late <= SKIPPED_AFTER
            else:
                assert plan.skip
                assert run.reason.startswith("Skipped: ")
        elif job.state is JobState.RECORDING:
            # The last one waits for what agents still have.
            assert any(r.state is JobState.RECORDING for r in job.runs)
        if now <= self.grace:
            return
        if plan.is_past(now - MINUTE):
            assert job.state in (JobState.COMPLETED, JobState.FAILED, JobState.EXPIRED)
        elif not plan.is_past(now) and not plan.skip:
            assert job.state in OPEN
        if now < plan.first:
            assert (job.state, job.runs) == (JobState.SCHEDULED, ())

    def check_history(self):
        """Every change is there, in moves that the tables have, and the last is what is shown."""
        for name in NAMES:
            job_state, run_states = None, {}
            history = self.world.store.events(name)
            # Of what is gone for more than a year, the beginning is forgotten.
            while history and (history[0].run, history[0].from_state) != (None, None):
                history.pop(0)
            for event in history:
                assert event.reason is not None
                if event.run is None:
                    assert event.from_state == job_state
                    is_note = event.from_state == event.to_state
                    if event.to_state is None:
                        run_states = {}
                    elif not is_note:
                        assert event.to_state in JOB_MOVES[job_state]
                    job_state = event.to_state
                elif event.from_state != event.to_state:
                    assert event.from_state == run_states.get(event.run)
                    assert event.to_state in RUN_MOVES[event.from_state]
                    run_states[event.run] = event.to_state
            job = self.world.lifecycle.get(name)
            assert (job.state if job else None) == job_state
            for run in job.runs if job else ():
                assert run.state == run_states[run.number]

    def some_job(self, data):
        name = data.draw(st.sampled_from(sorted(self.plans)))
        return name, self.plans[name], self.world.lifecycle.get(name)


TestLifecycles = Lifecycles.TestCase
TestLifecycles.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
