"""One run on disk: what goes wrong there is told, and repeated steps are harmless."""

import errno
from datetime import timedelta

import pytest

from services.scheduler import timetable
from services.scheduler.jobs import JobState
from services.scheduler.runs import PREPARE_LEAD, sentence, spoken


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0, "0 days"), (1, "1 minute"), (61, "61 minutes"), (60, "1 hour"), (180, "3 hours"),
        (1440, "1 day"), (2880, "2 days"),
    ],
)  # fmt: skip
def test_times_are_told_as_people_do(minutes, words):
    assert spoken(timedelta(minutes=minutes)) == words


def test_what_the_disk_says_becomes_a_sentence():
    assert sentence(OSError(errno.ENOSPC, "No space left on device", "/data/x")) == (
        "/data/x: No space left on device."
    )
    assert sentence(OSError("The storage limit is reached.")) == "The storage limit is reached."


def test_a_run_is_prepared_once_and_not_too_early(world):
    job = world.create(start_time="22:00")
    runs = world.lifecycle._runs
    window = timetable.window(job, 1)
    runs.prepare(job, window, window.start - PREPARE_LEAD - timedelta(seconds=1))
    assert runs.prepared(job) == []
    for _ in range(2):
        runs.prepare(job, window, window.start - PREPARE_LEAD)
    assert runs.prepared(job) == [1]
    assert world.folders() == [1]
    runs.forget_job("checkout")
    assert runs.prepared(job) == []


def test_a_run_without_room_ends_where_it_begins(world):
    world.create(start_time="22:00", daily_iterations=3)
    world.writer._quota.adopt(64 << 20)
    world.move_to("2028-02-28T22:00:00")
    world.writer._quota.release(64 << 20)
    job = world.job()
    assert job.state is JobState.STORAGE_LIMITED
    assert [run.state for run in job.runs] == [JobState.STORAGE_LIMITED]
    assert job.reason == (
        "It could not be begun: The storage limit of 64 MiB for all recordings is reached."
    )


def test_a_run_without_a_folder_fails_and_the_job_goes_on_the_next_day(world):
    world.create(start_time="22:00", daily_iterations=2)
    folder = world.data / "recordings" / "checkout"
    folder.write_text("in the way")
    world.move_to("2028-02-29T06:00:00")
    assert world.states() == (JobState.WAITING, [JobState.FAILED])
    assert world.job().runs[0].reason.startswith("It could not be begun: ")
    folder.unlink()
    world.move_to("2028-02-29T22:00:00")
    assert world.states() == (JobState.RECORDING, [JobState.FAILED, JobState.RECORDING])


def test_a_run_that_was_closed_but_not_stored_is_closed_again(world):
    job = world.create(duration_minutes=1)
    world.move(timedelta(seconds=1))
    # As if the database had refused the change after the files were closed.
    world.writer.close_run("checkout", 1)
    world.lifecycle._runs.forget("checkout", 1)
    world.move(job.spec.duration)
    assert world.states() == (JobState.COMPLETED, [JobState.COMPLETED])
