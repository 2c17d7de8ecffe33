"""What becomes of jobs as time passes, with a real store and a real writer in a folder."""

import threading
from datetime import timedelta

import pytest

from services.scheduler.deliveries import FINAL_GRACE, RESTART_GRACE
from services.scheduler.jobs import JobState
from services.scheduler.jobstore import NameTakenError
from services.scheduler.lifecycle import ANNOUNCE_LEAD, MOST_JOBS, STOP_LEAD, RefusedError

SECOND, MINUTE, HOUR, DAY = (timedelta(**{u: 1}) for u in ("seconds", "minutes", "hours", "days"))

SCHEDULED, RECORDING, WAITING, COMPLETED, STOPPED, STORAGE_LIMITED, FAILED, EXPIRED = JobState


def test_a_job_that_starts_now_records_within_a_second(world):
    created = world.create()
    assert created.state is SCHEDULED
    _, [assignment] = world.lifecycle.sessions.assignments()
    assert assignment.start_time == world.clock.now() + SECOND
    assert assignment.stop_time == assignment.start_time + 240 * MINUTE
    assert (assignment.kfl, assignment.body_limit) == ("http or dns", 65536)
    world.move(SECOND)
    assert world.states() == (RECORDING, [RECORDING])
    assert world.job().runs[0].start_time == assignment.start_time


def test_a_run_can_take_data_before_it_begins(world):
    world.create()
    assert world.folders() == [1]


def test_a_job_lives_until_it_expires_and_its_data_is_gone(world):
    world.create(duration_minutes=60, expiration_minutes=120)
    world.move(HOUR)
    assert world.states() == (RECORDING, [RECORDING])
    world.move(SECOND)
    assert world.states() == (COMPLETED, [COMPLETED])
    assert world.job().runs[0].end_time == world.clock.now()
    world.move(2 * HOUR - SECOND)
    assert world.folders() == [1]
    world.move(SECOND)
    assert world.states() == (EXPIRED, [EXPIRED])
    assert not (world.data / "recordings" / "checkout").exists()
    assert world.job().reason == "Its data was kept for its expiration time, then removed."
    world.move(DAY)
    assert world.lifecycle.jobs() == []
    history = [(event.run, event.to_state) for event in world.store.events("checkout")]
    assert history == [
        (None, SCHEDULED), (None, RECORDING), (1, RECORDING), (None, COMPLETED), (1, COMPLETED),
        (1, EXPIRED), (None, EXPIRED), (None, None),
    ]  # fmt: skip


def test_a_daily_job_runs_every_day_through_the_leap_day(world):
    world.create(
        start_time="22:00", daily_iterations=3, duration_minutes=180, expiration_minutes=9999
    )
    assert world.states() == (SCHEDULED, [])
    world.move_to("2028-02-28T22:00:00")
    assert world.states() == (RECORDING, [RECORDING])
    world.move_to("2028-02-29T01:00:00")
    assert world.states() == (WAITING, [COMPLETED])
    world.move_to("2028-02-29T22:00:00")
    assert world.states() == (RECORDING, [COMPLETED, RECORDING])
    world.move_to("2028-03-01T22:00:00")
    assert world.states() == (RECORDING, [COMPLETED, COMPLETED, RECORDING])
    world.move_to("2028-03-02T01:00:00")
    assert world.states() == (COMPLETED, [COMPLETED] * 3)
    assert world.folders() == [1, 2, 3]


def test_each_run_expires_for_itself_and_the_job_goes_on(world):
    world.create(start_time="22:00", daily_iterations=0, duration_minutes=60)
    world.move_to("2028-03-02T22:59:59")
    assert world.states() == (RECORDING, [EXPIRED, COMPLETED, COMPLETED, RECORDING])
    world.move_to("2028-03-12T21:00:00")
    # Two are kept for their 48 hours, one for a day after that as a trace.
    assert [run.number for run in world.job().runs] == [11, 12, 13]
    assert world.states() == (WAITING, [EXPIRED, COMPLETED, COMPLETED])
    assert world.folders() == [12, 13]


def test_runs_of_a_whole_day_follow_each_other(world):
    world.lifecycle.sessions.agent_connected("a", "node-a")
    world.create(start_time="12:00", daily_iterations=3, duration_minutes=1440)
    world.move(DAY)
    # The first run still waits for the agent's last batch.
    assert world.states() == (RECORDING, [RECORDING, RECORDING])
    world.lifecycle.sessions.agent_finished("a", "checkout", 1)
    world.move(SECOND)
    assert world.states() == (RECORDING, [COMPLETED, RECORDING])


def test_a_run_waits_for_the_last_batches_of_all_agents(world):
    for agent in ("a", "b"):
        world.lifecycle.sessions.agent_connected(agent, f"node-{agent}")
    world.create(duration_minutes=1)
    world.move(MINUTE + SECOND)
    assert world.states() == (RECORDING, [RECORDING])
    world.lifecycle.sessions.agent_finished("a", "checkout", 1)
    world.move(SECOND)
    assert world.states() == (RECORDING, [RECORDING])
    world.lifecycle.sessions.agent_finished("b", "checkout", 1)
    world.move(SECOND)
    assert world.states() == (COMPLETED, [COMPLETED])


def test_a_run_does_not_wait_for_ever(world):
    world.lifecycle.sessions.agent_connected("a", "node-a")
    world.create(duration_minutes=1)
    world.lifecycle.sessions.agent_disconnected("a")
    world.move(SECOND + MINUTE)
    world.lifecycle.sessions.agent_connected("late", "node-l")
    world.move(FINAL_GRACE - SECOND)
    world.move(SECOND)
    assert world.states() == (COMPLETED, [COMPLETED])


def test_an_agent_that_came_after_the_end_is_not_waited_for(world):
    world.lifecycle.sessions.agent_connected("a", "node-a")
    world.create(duration_minutes=1)
    world.move(MINUTE + SECOND)
    world.lifecycle.sessions.agent_connected("late", "node-l")
    world.lifecycle.sessions.agent_finished("a", "checkout", 1)
    world.move(timedelta())
    assert world.states() == (COMPLETED, [COMPLETED])


def test_agents_learn_of_a_run_ahead_of_time(world):
    world.create(start_time="22:00")
    assert world.assigned() == []
    revision, _ = world.lifecycle.sessions.assignments()
    world.move_to("2028-02-28T22:00:00")
    assert world.assigned() == [("checkout", 1)]
    assert world.lifecycle.sessions.wait_for_change(revision, 5) == revision + 1
    world.move(240 * MINUTE)
    assert world.assigned() == []


def test_the_announcement_is_in_time(world):
    world.create(start_time="22:00")
    world.move(10 * HOUR - ANNOUNCE_LEAD - SECOND)
    assert world.assigned() == []
    world.move(SECOND)
    assert world.assigned() == [("checkout", 1)]
    assert world.states() == (SCHEDULED, [])
    assert world.folders() == []


def test_the_list_does_not_change_when_a_run_begins(world):
    world.create()
    before = world.lifecycle.sessions.assignments()
    world.move(MINUTE)
    assert world.lifecycle.sessions.assignments() == before
    assert world.lifecycle.sessions.wait_for_change(before[0], 0) == before[0]


def test_who_waits_for_the_list_is_woken(world):
    revision, _ = world.lifecycle.sessions.assignments()
    seen = []
    waiter = threading.Thread(
        target=lambda: seen.append(world.lifecycle.sessions.wait_for_change(revision, 30))
    )
    waiter.start()
    world.create()
    waiter.join()
    assert seen == [revision + 1]


# ---- stop and delete


def test_a_stopped_job_keeps_what_it_recorded_and_assigns_nothing(world):
    world.create(daily_iterations=5)
    world.move(HOUR)
    stopped = world.lifecycle.stop_job("checkout")
    assert (stopped.state, stopped.reason) == (STOPPED, "Stopped by request.")
    assert [(r.state, r.reason) for r in stopped.runs] == [(STOPPED, "Stopped by request.")]
    assert stopped.runs[0].end_time == world.clock.now()
    assert world.assigned() == []
    world.move(DAY)
    assert world.states() == (STOPPED, [STOPPED])
    assert world.folders() == [1]
    world.move(DAY)
    assert world.states() == (EXPIRED, [EXPIRED])
    assert world.folders() == []


def test_a_stopped_run_takes_the_last_batches(world):
    world.lifecycle.sessions.agent_connected("a", "node-a")
    world.create()
    world.move(MINUTE)
    answer = []
    stopping = threading.Thread(target=lambda: answer.append(world.lifecycle.stop_job("checkout")))
    stopping.start()
    version = world.lifecycle.wait_for_jobs(-1, 0)
    while world.states() != (STOPPED, [RECORDING]):
        version = world.lifecycle.wait_for_jobs(version, 5)
    # All agents stop at the same instant, a moment ahead.
    [assignment] = world.lifecycle.sessions.assignments()[1]
    assert assignment.stop_time == world.clock.now() + STOP_LEAD
    world.lifecycle.sessions.agent_finished("a", "checkout", 1)
    world.move(STOP_LEAD)
    assert world.assigned() == []
    stopping.join()
    assert [run.state for run in answer[0].runs] == [STOPPED]


def test_a_job_can_be_stopped_before_its_first_run(world):
    world.create()
    assert world.lifecycle.stop_job("checkout").state is STOPPED
    assert world.folders() == []
    world.move(240 * MINUTE)
    assert world.states() == (STOPPED, [])
    world.move(2 * DAY)
    assert world.states() == (EXPIRED, [])


def test_stopping_twice_is_harmless_and_stopping_what_has_ended_is_refused(world):
    world.create(duration_minutes=1)
    world.create("other")
    assert world.lifecycle.stop_job("other") == world.lifecycle.stop_job("other")
    world.move(HOUR)
    with pytest.raises(RefusedError, match="has ended already: it is completed"):
        world.lifecycle.stop_job("checkout")
    with pytest.raises(LookupError):
        world.lifecycle.stop_job("nobody")


@pytest.mark.parametrize("after", [timedelta(), MINUTE, 5 * HOUR, 60 * HOUR], ids=str)
def test_a_deleted_job_is_gone_with_its_data_and_its_name_is_free(world, after):
    world.create()
    world.move(after)
    world.lifecycle.delete_job("checkout")
    assert world.lifecycle.get("checkout") is None
    assert not (world.data / "recordings" / "checkout").exists()
    assert world.assigned() == []
    world.create()
    world.move(MINUTE)
    assert world.states() == (RECORDING, [RECORDING])


def test_a_deletion_that_a_crash_interrupted_is_finished(world):
    world.create()
    world.move(MINUTE)
    # As far as the database had come when the power went.
    world.store.remove("checkout", world.clock.now(), "Deleted by request.", with_data=True)
    world.restart()
    assert world.folders() == []
    assert world.store.removals() == []


# ---- names


def test_a_name_is_taken_until_the_job_expires(world):
    world.create(duration_minutes=1, expiration_minutes=60)
    with pytest.raises(NameTakenError, match="a job named checkout already: it is scheduled"):
        world.create()
    world.move(2 * HOUR)
    assert world.states() == (EXPIRED, [EXPIRED])
    world.create()
    assert world.states() == (SCHEDULED, [])


def test_a_recording_of_no_job_is_not_mixed_with_a_new_one(world):
    folder = world.data / "recordings" / "checkout" / "0001"
    folder.mkdir(parents=True)
    with pytest.raises(NameTakenError, match="belongs to no job"):
        world.create()
    assert world.lifecycle.jobs() == []
    assert folder.exists()


def test_what_cannot_be_begun_leaves_nothing_behind(world):
    (world.data / "recordings").rmdir() if (world.data / "recordings").exists() else None
    (world.data / "recordings").write_text("in the way")
    with pytest.raises(OSError, match="recordings"):
        world.create()
    assert world.lifecycle.jobs() == []
    assert world.store.jobs() == []
    (world.data / "recordings").unlink()
    world.move(MINUTE)
    world.create()


def test_there_is_an_end_to_the_number_of_jobs(world):
    for number in range(MOST_JOBS):
        world.create(f"job-{number}", start_time="22:00")
    with pytest.raises(RefusedError, match=f"There are {MOST_JOBS} jobs"):
        world.create("one-more")
    world.lifecycle.stop_job("job-0")
    world.create("one-more")


# ---- storage


def test_a_full_storage_ends_the_run_and_its_job(world):
    world.create(daily_iterations=0)
    world.move(MINUTE)
    world.lifecycle.run_full("checkout", 1, "The limit is reached.")
    world.move(timedelta())
    job = world.job()
    assert (job.state, job.reason) == (STORAGE_LIMITED, "The limit is reached.")
    assert [(r.state, r.reason) for r in job.runs] == [(STORAGE_LIMITED, "The limit is reached.")]
    assert world.assigned() == []
    assert world.folders() == [1]
    world.move(2 * DAY)
    assert world.states() == (EXPIRED, [EXPIRED])


def test_a_late_word_about_a_run_that_has_ended_changes_nothing(world):
    world.create(duration_minutes=1)
    world.move(HOUR)
    world.lifecycle.run_full("checkout", 1, "The limit is reached.")
    world.lifecycle.run_full("nobody", 1, "The limit is reached.")
    world.lifecycle.sessions.agent_finished("a", "nobody", 1)
    world.move(MINUTE)
    assert world.states() == (COMPLETED, [COMPLETED])


# ---- imported jobs


def test_an_imported_job_is_for_its_importer_alone(world):
    world.create(imported=True)
    world.create("live")
    assert world.states() == (RECORDING, [RECORDING])
    assert world.assigned() == [("live", 1)]
    assert world.assigned("checkout") == [("checkout", 1)]
    assert world.assigned("live") == []
    assert world.assigned("nobody") == []


def test_an_imported_job_completes_when_its_importer_says_so(world):
    world.create(imported=True)
    world.lifecycle.sessions.agent_connected("node", "node-a")
    world.lifecycle.sessions.agent_connected("importer", "laptop", "checkout")
    world.move(MINUTE)
    world.lifecycle.sessions.agent_finished("importer", "checkout", 1)
    world.move(timedelta())
    assert world.states() == (COMPLETED, [COMPLETED])
    assert world.assigned("checkout") == []


def test_what_an_agent_says_does_not_end_an_import(world):
    world.create(imported=True)
    world.lifecycle.sessions.agent_connected("node", "node-a")
    world.lifecycle.sessions.agent_finished("node", "checkout", 1)
    world.lifecycle.sessions.agent_finished("stranger", "checkout", 1)
    world.move(MINUTE)
    assert world.states() == (RECORDING, [RECORDING])


def test_an_import_that_never_ends_fails_and_keeps_what_came(world):
    world.create(imported=True)
    world.move(240 * MINUTE + FINAL_GRACE)
    assert world.states() == (FAILED, [FAILED])
    assert world.job().reason == "The import did not end within 4 hours."
    assert world.folders() == [1]


# ---- restarts


def test_a_recording_run_goes_on_after_a_restart(world):
    world.create()
    world.move(HOUR)
    before = world.lifecycle.sessions.assignments()
    world.restart(MINUTE)
    revision, assignments = world.lifecycle.sessions.assignments()
    assert (revision > before[0], assignments) == (True, before[1])
    assert world.states() == (RECORDING, [RECORDING])
    world.move(3 * HOUR)
    assert world.states() == (COMPLETED, [COMPLETED])


def test_long_after_a_restart_a_run_waits_only_for_agents_that_are_there(world):
    world.create()
    world.move(MINUTE)
    world.restart()
    world.lifecycle.sessions.agent_connected("a", "node-a")
    world.lifecycle.sessions.agent_finished("a", "checkout", 1)
    world.move(HOUR)
    stopped = world.lifecycle.stop_job("checkout")
    assert [run.state for run in stopped.runs] == [STOPPED]


def test_a_run_that_ended_meanwhile_waits_for_agents_to_come_back(world):
    world.create(duration_minutes=60)
    world.move(HOUR - MINUTE)
    world.restart(10 * MINUTE)
    end = world.job().runs[0].end_time
    world.lifecycle.sessions.agent_connected("a", "node-a")
    world.move(RESTART_GRACE - SECOND)
    assert world.states() == (RECORDING, [RECORDING])
    world.move(SECOND)
    assert world.states() == (COMPLETED, [COMPLETED])
    assert world.job().runs[0].end_time == end


def test_a_run_whose_window_is_open_begins_late(world):
    world.create(start_time="22:00")
    world.restart(10 * HOUR + 12 * MINUTE)
    assert world.states() == (RECORDING, [RECORDING])
    [run] = world.job().runs
    assert (run.start_time, run.reason) == (world.clock.now(), "It began 12 minutes late.")
    world.move(240 * MINUTE - 12 * MINUTE)
    assert world.states() == (COMPLETED, [COMPLETED])


def test_a_run_whose_window_has_passed_was_missed(world):
    world.create(start_time="22:00", expiration_minutes=60 * 24 * 7)
    world.restart(DAY)
    assert world.states() == (FAILED, [FAILED])
    reason = "Missed: the scheduler was not running from 2028-02-28 22:00 to 2028-02-29 02:00 UTC."
    assert (world.job().reason, world.job().runs[0].reason) == (reason, reason)


def test_a_daily_job_goes_on_after_days_away(world):
    world.create(start_time="22:00", daily_iterations=5, expiration_minutes=60 * 24 * 30)
    world.move(15 * HOUR)
    world.restart(3 * DAY)
    assert world.states() == (WAITING, [COMPLETED, FAILED, FAILED, FAILED])
    world.move(DAY)
    assert world.states() == (COMPLETED, [COMPLETED, FAILED, FAILED, FAILED, COMPLETED])
    assert world.job().reason.startswith("3 of 5 runs failed: Missed: ")


def test_years_away_cost_no_more_than_a_day(world):
    world.create(start_time="22:00", daily_iterations=0)
    world.move(12 * HOUR)
    world.restart(3000 * DAY)
    assert world.job().planned == 3001
    assert len(world.job().runs) < 6
    assert world.job().runs[-1].state is RECORDING
    world.move(DAY)
    assert world.job().runs[-1].number == 3002


@pytest.mark.parametrize("away", [DAY, 300 * DAY], ids=str)
def test_a_run_that_was_only_prepared_leaves_no_folder(world, away):
    world.create(daily_iterations=0)
    world.restart(away)
    assert 1 not in world.folders()


def test_a_stopped_run_is_still_stopped_after_a_restart(world):
    world.lifecycle.sessions.agent_connected("a", "node-a")
    world.create()
    world.move(MINUTE)
    stopping = threading.Thread(target=lambda: world.lifecycle.stop_job("checkout"))
    stopping.start()
    version = world.lifecycle.wait_for_jobs(-1, 0)
    while world.states() != (STOPPED, [RECORDING]):
        version = world.lifecycle.wait_for_jobs(version, 5)
    world.restart()
    stopping.join()
    assert world.states() == (STOPPED, [RECORDING])
    world.move(STOP_LEAD)
    assert world.assigned() == []
    world.move(RESTART_GRACE)
    assert world.states() == (STOPPED, [STOPPED])


def test_a_run_that_cannot_be_taken_up_fails_with_a_sentence(world):
    world.create(start_time="22:00", daily_iterations=2)
    world.move(11 * HOUR)
    world.down()
    folder = world.data / "recordings" / "checkout"
    folder.rename(world.data / "away")
    folder.write_text("in the way")
    world.up()
    assert world.states() == (WAITING, [FAILED])
    assert "could not be taken up after a restart" in world.job().runs[0].reason
    folder.unlink()
    (world.data / "away").rename(folder)


# ---- the thread


def test_the_thread_moves_jobs_when_the_clock_moves(world):
    world.down()
    world.up()
    world.lifecycle.start()
    version = world.lifecycle.wait_for_jobs(-1, 0)
    world.create(duration_minutes=1, expiration_minutes=1)
    for by, state in ((SECOND, RECORDING), (MINUTE, COMPLETED), (MINUTE, EXPIRED)):
        world.clock.move(by)
        while world.job().state is not state:
            version = world.lifecycle.wait_for_jobs(version, 5)
    world.clock.move(DAY)
    while world.lifecycle.jobs():
        version = world.lifecycle.wait_for_jobs(version, 5)


def test_counts_of_runs_that_are_not_recorded_are_nobodys(world):
    world.create()
    world.move(timedelta(seconds=2))
    for job, run in (("checkout", 1), ("checkout", 2), ("other", 1)):
        world.lifecycle.sessions.agent_matched("a", job, run, 3)
    assert world.lifecycle.sessions.matched_elsewhere("b") == {("checkout", 1): 3}
    world.lifecycle.stop_job("checkout", 0)
    world.move(timedelta(minutes=1))
    assert world.lifecycle.sessions.matched_elsewhere("b") == {}
