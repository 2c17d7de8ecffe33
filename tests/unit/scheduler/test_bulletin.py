"""What is published: lists get a new number when they change, and only then."""

import itertools
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from services.scheduler.bulletin import ANNOUNCE_LEAD, Assignment, Bulletin
from services.scheduler.jobs import Job, JobState, Run, begin_run, move_job, with_run
from tests.unit.scheduler.conftest import SPEC, START

SOON = START + timedelta(minutes=5)


def job(name="checkout", first_start=SOON, **fields) -> Job:
    return Job(
        spec=replace(SPEC, name=name, **fields),
        state=JobState.SCHEDULED,
        reason="",
        create_time=START,
        change_time=START,
        first_start=first_start,
    )


@pytest.fixture
def publish():
    bulletin, numbers = Bulletin(), itertools.count(10)

    def publish(*jobs: Job, now=START) -> Bulletin:
        bulletin.publish({job.name: job for job in jobs}, now, lambda: next(numbers))
        return bulletin

    return publish


def test_a_run_is_listed_as_it_is_planned(publish):
    stop = SOON + timedelta(minutes=240)
    expected = Assignment("checkout", 1, "http or dns", SOON, stop, 65536)
    assert publish(job()).assignments("") == (10, [expected])


def test_what_is_far_away_is_not_listed(publish):
    later = job(first_start=START + ANNOUNCE_LEAD + timedelta(seconds=1))
    assert publish(later).assignments("") == (10, [])
    assert publish(later, now=START + timedelta(seconds=1)).assignments("")[0] == 11


def test_a_list_that_is_the_same_keeps_its_number(publish):
    publish(job())
    run = Run(
        number=1,
        state=JobState.RECORDING,
        reason="",
        start_time=SOON,
        end_time=SOON + timedelta(minutes=240),
    )
    begun = move_job(begin_run(job(), run), JobState.RECORDING, SOON)
    assert publish(begun, now=SOON).assignments("")[0] == 10
    end = SOON + timedelta(seconds=1)
    stopped = move_job(with_run(begun, replace(run, end_time=end)), JobState.STOPPED, SOON)
    [told] = publish(stopped, now=SOON).assignments("")[1]
    assert told.stop_time == end
    assert publish(stopped, now=end).assignments("") == (12, [])


def test_jobs_get_a_new_version_with_each_change(publish):
    bulletin = publish(job())
    version = bulletin.wait_for_jobs(-1, 0)
    assert publish(job()).wait_for_jobs(version, 0) == version
    assert publish(job(), job("other")).wait_for_jobs(version, 0) == version + 1
    assert [found.name for found in bulletin.jobs()] == ["checkout", "other"]
    assert bulletin.get("nobody") is None


def test_imports_are_listed_for_who_names_them(publish):
    bulletin = publish(job("file", imported=True), job("live"))
    assert [a.job for a in bulletin.assignments("")[1]] == ["live"]
    assert [a.job for a in bulletin.assignments("file")[1]] == ["file"]
    assert bulletin.assignments("live")[1] == []


def test_who_waits_for_jobs_is_let_go_at_the_end(publish):
    bulletin = publish(job())
    version = bulletin.wait_for_jobs(-1, 0)
    waiters = [
        threading.Thread(target=bulletin.wait_for_jobs, args=(version, 60)),
        threading.Thread(target=bulletin.wait_until_quiet, args=("checkout", 60)),
    ]
    for waiter in waiters:
        waiter.start()
    bulletin.close()
    for waiter in waiters:
        waiter.join(30)
        assert not waiter.is_alive()
