"""What holds whatever people, agents, disks and restarts do, in any order."""

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from recordings import layout
from services.scheduler.jobs import JOB_MOVES, RUN_MOVES, JobState
from services.scheduler.jobstore import NameTakenError
from services.scheduler.lifecycle import STOP_LEAD, RefusedError
from tests.unit.scheduler.conftest import World

NAMES = st.sampled_from(["a", "b"])
AGENTS = st.sampled_from(["x", "y"])


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="lifecycle-"))
        self.world = World(self.folder)

    def teardown(self) -> None:
        try:
            self.end_of_all()
        finally:
            self.world.down()
            shutil.rmtree(self.folder)

    @rule(
        name=NAMES,
        start=st.sampled_from(["", "12:00", "00:00", "23:30"]),
        iterations=st.integers(0, 3),
        duration=st.sampled_from([1, 240, 1440]),
        expiration=st.sampled_from([1, 2880]),
        imported=st.booleans(),
    )
    def create(self, name, start, iterations, duration, expiration, imported):
        before = self.world.lifecycle.get(name)
        try:
            job = self.world.create(
                name,
                start_time="" if imported else start,
                daily_iterations=1 if imported else iterations,
                duration_minutes=duration,
                expiration_minutes=expiration,
                imported=imported,
            )
        except NameTakenError:
            assert before is not None
            assert not before.is_expired
        else:
            assert before is None or before.is_expired
            assert not job.is_over

    @rule(name=NAMES)
    def stop(self, name):
        before = self.world.lifecycle.get(name)
        try:
            job = self.world.lifecycle.stop_job(name, wait_seconds=0)
        except LookupError:
            assert before is None
        except RefusedError:
            assert before.is_over
        else:
            assert job.is_stopped or job.is_expired  # at once, when its data was old
            # Agents that are there hear of the instant at which all of them stop.
            soon = self.world.clock.now() + STOP_LEAD
            for import_job in ("", name):
                listed = self.world.lifecycle.sessions.assignments(import_job)[1]
                assert all(each.stop_time <= soon for each in listed if each.job == name)

    @rule(name=NAMES)
    def delete(self, name):
        if self.world.lifecycle.get(name) is not None:
            self.world.lifecycle.delete_job(name)
            assert not layout.recording(self.folder, name).exists()

    @rule(minutes=st.sampled_from([0, 1, 30, 240, 1440, 3000]))
    def time_passes(self, minutes):
        self.world.move(timedelta(minutes=minutes, seconds=1))

    @rule(minutes=st.sampled_from([0, 5, 300, 1440, 10000]))
    def restart(self, minutes):
        before = {job.name: job.planned for job in self.world.lifecycle.jobs()}
        self.world.restart(timedelta(minutes=minutes))
        after = {job.name: job.planned for job in self.world.lifecycle.jobs()}
        assert all(after[name] >= before[name] for name in after)

    @rule(agent=AGENTS)
    def connect(self, agent):
        self.world.lifecycle.sessions.agent_connected(agent, f"node-{agent}")

    @rule(agent=AGENTS)
    def disconnect(self, agent):
        self.world.lifecycle.sessions.agent_disconnected(agent)

    @rule(agent=AGENTS, name=NAMES, run=st.integers(1, 3))
    def finish(self, agent, name, run):
        self.world.lifecycle.sessions.agent_finished(agent, name, run)

    @rule(name=NAMES)
    def import_ends(self, name):
        self.world.lifecycle.sessions.agent_connected("importer", "laptop", name)
        self.world.lifecycle.sessions.agent_finished("importer", name, 1)

    @rule(name=NAMES, run=st.integers(1, 3))
    def full(self, name, run):
        self.world.lifecycle.run_full(name, run, "The limit is reached.")

    @invariant()
    def nothing_has_gone_wrong_inside(self):
        assert not self.world.lifecycle._failing

    @invariant()
    def what_is_stored_is_what_is_shown(self):
        stored = {job.name: job for job in self.world.store.jobs()}
        shown = {job.name: job for job in self.world.lifecycle.jobs()}
        assert stored.keys() == shown.keys()
        for name, job in stored.items():
            assert job.state is shown[name].state
            assert [r.state for r in job.runs] == [r.state for r in shown[name].runs]

    @invariant()
    def the_history_leads_to_the_present(self):
        for job in self.world.store.jobs():
            states: dict[int | None, JobState | None] = {None: None}
            for event in self.world.store.events(job.name):
                if event.run is None and event.from_state is None:
                    states = {None: None}  # a new job of this name
                assert event.from_state is states.get(event.run)
                moves = JOB_MOVES if event.run is None else RUN_MOVES
                assert event.to_state is None or event.to_state in moves[event.from_state]
                states[event.run] = event.to_state
            assert states[None] is job.state
            for run in job.runs:
                assert states[run.number] is run.state

    @invariant()
    def nothing_is_on_disk_that_no_job_owns(self):
        for name in layout.recordings(self.folder):
            job = self.world.job(name)
            known = {run.number for run in job.runs if run.is_recording or run.has_data}
            prepared = set() if job.is_over else {job.planned + 1}
            assert set(layout.runs(self.folder, name)) <= known | prepared

    @invariant()
    def jobs_say_what_their_runs_do(self):
        for job in self.world.lifecycle.jobs():
            recording = [run for run in job.runs if run.is_recording]
            if job.state in (JobState.SCHEDULED, JobState.WAITING, JobState.EXPIRED):
                assert not recording
            if job.state is JobState.RECORDING:
                assert recording
            assert len(recording) <= 2  # one of a whole day, and the next
            numbers = [run.number for run in job.runs]
            assert numbers == sorted(set(numbers))
            assert max(numbers, default=0) <= job.planned

    @invariant()
    def assignments_are_of_jobs_that_go_on(self):
        for name, number in self.world.assigned():
            job = self.world.job(name)
            assert not job.is_over
            assert not job.spec.imported
            assert number == job.planned + 1 or job.run(number).is_recording

    def end_of_all(self):
        """When all is stopped and time passes, nothing is left of anything."""
        self.world.lifecycle.tick()
        for job in self.world.lifecycle.jobs():
            if job.may_be_stopped:
                self.world.lifecycle.stop_job(job.name, wait_seconds=0)
        self.world.move(timedelta(days=10))
        assert self.world.lifecycle.jobs() == []
        assert layout.recordings(self.folder) == []
        assert self.world.store.removals() == []
        assert self.world.lifecycle._runs._open == set()
        assert self.world.lifecycle._deliveries._finished == {}


Life.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=15,
    deadline=None,
    # Neither shrinking nor explaining: with a real disk they take minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
TestLife = Life.TestCase
