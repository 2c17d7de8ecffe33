"""What a scheduler does that does not lead; `a` leads, `b` follows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.scheduler.jobs import JobState
from tests.unit.scheduler.conftest import SPEC
from tests.unit.scheduler.stored import stored

pytestmark = pytest.mark.postgresql


def test_one_without_room_ends_the_job(several):
    a, b = several.start("a"), several.start("b", limit=1 << 20)
    several.move(1)
    several.begin(a)
    taken = [b.deliver("b1", number, rows=1, size=200_000) for number in range(1, 12)]
    assert True in taken
    assert False in taken
    several.move(3)
    job = a.lifecycle.get("checkout")
    assert job.state is JobState.STORAGE_LIMITED
    assert job.reason == "b: The storage limit of 1 MiB for all recordings is reached."
    assert a.sessions.assignments()[1] == b.sessions.assignments()[1] == []


def test_a_name_that_is_used_again_keeps_nothing_of_the_job_before(several, pair):
    a, b = pair
    several.begin(a)
    assert b.deliver("b1", 1)
    several.end("b")
    a.lifecycle.delete_job("checkout")
    several.move(2)
    several.begin(a)
    b = several.start("b")
    several.move(3)
    assert b.deliver("b2", 1)
    assert set(stored(b.data)) == {("b2", 1)}


def test_a_run_begins_where_data_comes_in_while_nobody_leads(several, pair):
    a, b = pair
    a.lifecycle.create(replace(SPEC, start_time="12:05"))
    several.move(1)
    b.step()
    a.cluster._members.resign()
    a.cluster._step = lambda: None  # it is frozen
    b.cluster._members.lead = lambda: False  # and the database does not let another one lead
    for _ in range(5 * 60):
        several.clock.move(timedelta(seconds=1))
        b.step()
    assert b.deliver("b1", 1)
    del b.cluster._members.lead
    for _ in range(3):
        several.clock.move(timedelta(seconds=1))
        b.step()
    [run] = b.lifecycle.get("checkout").runs
    assert (run.state, run.packets) == (JobState.RECORDING, 3)


def test_a_job_that_is_stopped_stops_for_all_at_one_instant(several, pair):
    a, b = pair
    several.begin(a)
    a.lifecycle.stop_job("checkout", 0)
    b.step()
    ends = {each.sessions.assignments()[1][0].stop_time for each in pair}
    assert len(ends) == 1
    several.move(20)
    assert a.lifecycle.get("checkout").runs[0].state is JobState.STOPPED
    assert not b.deliver("b1", 1)
