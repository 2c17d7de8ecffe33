"""The tables of states: every way that is there is gone, every other way is refused."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from recorder.v1 import jobs_pb2

from services.scheduler import jobs
from services.scheduler.jobs import ForbiddenMoveError, Job, JobState, Run, Spec

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SPEC = Spec(
    name="checkout",
    kfl="http",
    start_time="",
    daily_iterations=1,
    duration_minutes=60,
    expiration_minutes=120,
    body_limit=0,
    imported=False,
)


def job(state: JobState, *runs: Run) -> Job:
    return Job(
        spec=SPEC,
        state=state,
        reason="",
        create_time=NOW,
        change_time=NOW,
        first_start=NOW,
        planned=len(runs),
        runs=runs,
    )


def run(number: int, state: JobState, reason: str = "") -> Run:
    return Run(number=number, state=state, reason=reason, start_time=NOW, end_time=NOW)


def test_states_are_those_of_the_proto():
    assert {f"JOB_STATE_{state.name}": int(state) for state in JobState} == {
        name: number for name, number in jobs_pb2.JobState.items() if number
    }


def test_each_state_is_in_both_tables():
    assert set(jobs.JOB_MOVES) == {None, *JobState}
    assert set(jobs.RUN_MOVES) - {None} == set(JobState) - {JobState.SCHEDULED, JobState.WAITING}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(JobState, JobState)))
def test_a_job_moves_as_the_table_says_and_no_other_way(old, new):
    later = NOW + timedelta(minutes=1)
    if new in jobs.JOB_MOVES[old]:
        moved = jobs.move_job(job(old), new, later, "why")
        assert (moved.state, moved.reason, moved.change_time) == (new, "why", later)
    else:
        with pytest.raises(ForbiddenMoveError, match=f"from {old.word} to {new.word}"):
            jobs.move_job(job(old), new, later)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(JobState, JobState)))
def test_a_run_moves_as_the_table_says_and_no_other_way(old, new):
    before = job(JobState.RECORDING, run(1, old, "first"))
    if new in jobs.RUN_MOVES.get(old, ()):
        assert jobs.move_run(before, 1, new).run(1) == run(1, new, "first")
        assert jobs.move_run(before, 1, new, "then").run(1) == run(1, new, "then")
    else:
        with pytest.raises(ForbiddenMoveError, match=f"from {old.word} to {new.word}"):
            jobs.move_run(before, 1, new)


@pytest.mark.parametrize("state", list(JobState))
def test_what_is_over_never_records_again(state):
    reachable, todo = set(), [state]
    while todo:
        for after in jobs.JOB_MOVES[todo.pop()]:
            if after not in reachable:
                reachable.add(after)
                todo.append(after)
    assert job(state).is_over == (JobState.RECORDING not in reachable)
    assert job(state).may_be_stopped == (not job(state).is_over)


def test_a_run_begins_once_and_only_recording_or_missed():
    begun = jobs.begin_run(job(JobState.SCHEDULED), run(1, JobState.RECORDING))
    assert begun.planned == 1
    with pytest.raises(ForbiddenMoveError, match="has been there before"):
        jobs.begin_run(begun, run(1, JobState.FAILED))
    with pytest.raises(ForbiddenMoveError, match="from nothing to completed"):
        jobs.begin_run(begun, run(2, JobState.COMPLETED))


def test_a_run_that_is_not_there_cannot_move():
    with pytest.raises(ForbiddenMoveError, match="from nothing to completed"):
        jobs.move_run(job(JobState.RECORDING), 1, JobState.COMPLETED)
    with pytest.raises(ForbiddenMoveError, match="no run 1"):
        jobs.move_run(job(JobState.RECORDING), 1, JobState.FAILED)


@pytest.mark.parametrize(
    ("before", "runs", "more", "after"),
    [
        (JobState.SCHEDULED, [], True, JobState.SCHEDULED),
        (JobState.SCHEDULED, [JobState.RECORDING], False, JobState.RECORDING),
        (JobState.SCHEDULED, [JobState.FAILED], True, JobState.WAITING),
        (JobState.SCHEDULED, [JobState.FAILED], False, JobState.FAILED),
        (JobState.SCHEDULED, [], False, JobState.FAILED),
        (JobState.RECORDING, [JobState.COMPLETED], True, JobState.WAITING),
        (JobState.RECORDING, [JobState.COMPLETED], False, JobState.COMPLETED),
        (JobState.RECORDING, [JobState.COMPLETED, JobState.RECORDING], False, JobState.RECORDING),
        (JobState.RECORDING, [JobState.STORAGE_LIMITED], True, JobState.STORAGE_LIMITED),
        (JobState.WAITING, [JobState.EXPIRED, JobState.FAILED], False, JobState.COMPLETED),
        (JobState.WAITING, [JobState.EXPIRED, JobState.RECORDING], True, JobState.RECORDING),
        (JobState.STOPPED, [JobState.RECORDING], True, JobState.STOPPED),
        (JobState.STORAGE_LIMITED, [JobState.STORAGE_LIMITED], True, JobState.STORAGE_LIMITED),
    ],
)
def test_a_job_is_where_its_runs_put_it(before, runs, more, after):
    numbered = [run(number, state, "because") for number, state in enumerate(runs, 1)]
    assert jobs.settle(job(before, *numbered), more, NOW).state is after


def test_a_job_with_a_missed_run_says_so_when_it_completes():
    runs = (run(1, JobState.FAILED, "Missed: away."), run(2, JobState.COMPLETED))
    assert jobs.settle(job(JobState.RECORDING, *runs), False, NOW).reason == (
        "1 of 2 runs failed: Missed: away."
    )


def test_a_run_of_a_stopped_job_ends_as_stopped():
    assert jobs.ending_of_run(job(JobState.STOPPED)) is JobState.STOPPED
    assert jobs.ending_of_run(job(JobState.RECORDING)) is JobState.COMPLETED


def test_a_job_expires_with_the_last_of_its_runs():
    left = job(JobState.COMPLETED, run(1, JobState.EXPIRED), run(2, JobState.COMPLETED))
    assert jobs.expire_if_empty(left, NOW) is left
    empty = replace(left, runs=(run(1, JobState.EXPIRED), run(2, JobState.EXPIRED)))
    assert jobs.expire_if_empty(empty, NOW).is_expired


def test_a_job_that_goes_on_does_not_expire():
    waiting = job(JobState.WAITING, run(1, JobState.EXPIRED))
    assert jobs.expire_if_empty(waiting, NOW) is waiting


def test_a_job_stopped_before_its_first_run_stays_for_its_expiration():
    stopped = job(JobState.STOPPED)
    almost = NOW + SPEC.expiration - timedelta(seconds=1)
    assert jobs.expire_if_empty(stopped, almost) is stopped
    assert jobs.expire_if_empty(stopped, NOW + SPEC.expiration).is_expired
