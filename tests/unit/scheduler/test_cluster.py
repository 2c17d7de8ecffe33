"""Schedulers that share their jobs: what each does, and what becomes of it when one is lost."""

from datetime import timedelta

import pytest

from services.runtime.errors import UserError
from services.scheduler import amendments
from services.scheduler.cluster import NAME_FILE
from services.scheduler.database import StoreError
from services.scheduler.jobs import JobState
from tests.unit.scheduler.stored import stored

pytestmark = pytest.mark.postgresql


def test_a_run_has_what_all_have_stored_and_ends_when_all_are_done(several, pair):
    a, b = pair
    several.begin(a)
    assert b.sessions.assignments()[1] == a.sessions.assignments()[1] != []
    assert a.deliver("a1", 1)
    assert b.deliver("b1", 1)
    assert b.deliver("b1", 2)
    several.move(2)
    assert a.lifecycle.get("checkout").runs[0].packets == 9
    several.move(58)
    a.sessions.agent_finished("a1", "checkout", 1)
    several.move(1)
    assert a.lifecycle.get("checkout").runs[0].state is JobState.RECORDING
    b.sessions.agent_finished("b1", "checkout", 1)
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
    several.begin(a)
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
    several.begin(a)
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


def test_a_folder_keeps_its_name_and_a_wrong_one_is_refused(several, pair):
    b = pair[1]
    names = [(each.data / NAME_FILE).read_text() for each in pair]
    assert names[0] != names[1]
    several.end("b")
    (b.data / NAME_FILE).write_text("me\n")
    with pytest.raises(UserError, match="has to have the name of this scheduler"):
        several.start("b")
