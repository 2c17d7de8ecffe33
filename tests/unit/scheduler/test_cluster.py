"""Schedulers that share their jobs: what each does, and what becomes of it when one is lost."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.runtime.errors import UserError
from services.scheduler import amendments
from services.scheduler.cluster import NAME_FILE
from services.scheduler.database import StoreError
from services.scheduler.jobs import AgentState, JobState
from tests.unit.scheduler.conftest import SPEC
from tests.unit.scheduler.several import Several
from tests.unit.scheduler.stored import stored

pytestmark = pytest.mark.postgresql


@pytest.fixture
def several(tmp_path, postgresql):
    made = Several(tmp_path, postgresql.database())
    yield made
    made.close()


@pytest.fixture
def pair(several):
    """Two schedulers, of which `a` leads, and an agent at each."""
    members = several.start("a"), several.start("b")
    several.move(1)
    for member, agent in zip(members, ("a1", "b1"), strict=True):
        member.sessions.agent_connected(agent, f"node-{agent}")
    return members


def begin(several, leader, **fields):
    leader.lifecycle.create(replace(SPEC, duration_minutes=1, **fields))
    several.move(3)


def finish(several, member, agent, run=1):
    member.sessions.agent_finished(agent, "checkout", run)


def test_a_run_has_what_all_have_stored_and_ends_when_all_are_done(several, pair):
    a, b = pair
    begin(several, a)
    assert b.sessions.assignments()[1] == a.sessions.assignments()[1] != []
    assert a.deliver("a1", 1)
    assert b.deliver("b1", 1)
    assert b.deliver("b1", 2)
    several.move(2)
    assert a.lifecycle.get("checkout").runs[0].packets == 9
    several.move(58)
    finish(several, a, "a1")
    several.move(1)
    assert a.lifecycle.get("checkout").runs[0].state is JobState.RECORDING
    finish(several, b, "b1")
    several.move(3)
    [run] = a.lifecycle.get("checkout").runs
    assert (run.state, run.packets) == (JobState.COMPLETED, 9)
    assert run.nodes == ("node-a1", "node-b1")
    assert run.completeness == "2 of 2 agents finished."
    assert (len(stored(a.data)), len(stored(b.data))) == (1, 2)
    assert not b.deliver("b1", 3)
    several.clock.move(timedelta(days=2))
    several.move(3)
    assert a.lifecycle.get("checkout").state is JobState.EXPIRED
    assert not list(several.folder.glob("*/recordings/*"))


def test_another_leads_when_the_leader_ends_and_the_run_goes_on(several, pair):
    a, b = pair
    begin(several, a)
    assert b.deliver("b1", 1)
    several.end("a")
    several.move(2)
    assert b.lifecycle.get("checkout").state is JobState.RECORDING
    assert b.deliver("b1", 2)
    a = several.start("a")
    several.move(2)
    assert a.cluster.lifecycle is None
    assert a.cluster.leader() == "b"
    a.sessions.agent_connected("a2", "node-a2")
    assert a.deliver("a2", 1)
    several.move(90)
    [run] = b.lifecycle.get("checkout").runs
    assert (run.state, run.packets) == (JobState.COMPLETED, 9)


def test_a_leader_that_hangs_is_replaced_and_changes_nothing_more(several, pair):
    a, b = pair
    begin(several, a)
    old = a.lifecycle
    several.silence("a")
    for _ in range(3):
        several.clock.move(timedelta(seconds=1))
        b.step()
    assert b.lifecycle.get("checkout").state is JobState.RECORDING
    with pytest.raises(StoreError, match="Another scheduler leads by now"):
        old.amend("checkout", amendments.pin(0, "", True))
    several.move(2)
    assert a.cluster.lifecycle is None
    assert a.deliver("a1", 1)
    assert not b.lifecycle.get("checkout").spec.pinned


def test_a_part_of_one_that_is_away_is_named_and_counted_when_it_is_back(several, pair):
    a, b = pair
    begin(several, a)
    assert b.deliver("b1", 1)
    several.move(2)
    several.end("b")
    several.move(90)
    [run] = a.lifecycle.get("checkout").runs
    assert run.state is JobState.COMPLETED
    assert "b is away: what is there is counted when it is back." in run.completeness
    b = several.start("b")
    several.move(3)
    [run] = a.lifecycle.get("checkout").runs
    assert run.packets == 3
    assert "away" not in run.completeness
    states = {agent.agent_id: agent.state for agent in a.lifecycle.agents("checkout", 1)}
    assert set(states.values()) == {AgentState.GONE}


def test_one_without_room_ends_the_job(several):
    a, b = several.start("a"), several.start("b", limit=1 << 20)
    several.move(1)
    begin(several, a)
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
    begin(several, a)
    assert b.deliver("b1", 1)
    several.end("b")
    a.lifecycle.delete_job("checkout")
    several.move(2)
    begin(several, a)
    b = several.start("b")
    several.move(3)
    assert b.deliver("b2", 1)
    assert set(stored(b.data)) == {("b2", 1)}


def test_a_job_that_is_stopped_stops_for_all_at_one_instant(several, pair):
    a, b = pair
    begin(several, a)
    a.lifecycle.stop_job("checkout", 0)
    b.step()
    ends = {each.sessions.assignments()[1][0].stop_time for each in pair}
    assert len(ends) == 1
    several.move(20)
    assert a.lifecycle.get("checkout").runs[0].state is JobState.STOPPED
    assert not b.deliver("b1", 1)


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


def test_counts_for_a_limit_are_heard_by_all(several, pair):
    a, b = pair
    begin(several, a, kfl="http and limit(5)")
    a.sessions.agent_matched("a1", "checkout", 1, 2)
    several.move(2)
    assert b.sessions.matched_elsewhere("b1") == {("checkout", 1): 2}
    b.sessions.agent_matched("b1", "checkout", 1, 3)
    several.move(2)
    assert a.sessions.matched_elsewhere("a1") == {("checkout", 1): 3}
    assert b.sessions.matched_elsewhere("b1") == {("checkout", 1): 2}


def test_a_folder_keeps_its_name_and_a_wrong_one_is_refused(several, pair):
    b = pair[1]
    names = [(each.data / NAME_FILE).read_text() for each in pair]
    assert names[0] != names[1]
    several.end("b")
    (b.data / NAME_FILE).write_text("me\n")
    with pytest.raises(UserError, match="has to have the name of this scheduler"):
        several.start("b")
