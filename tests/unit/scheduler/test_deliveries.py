"""Who is waited for at the end of a run."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.scheduler import deliveries as module
from services.scheduler.deliveries import FORGOTTEN, Deliveries
from services.scheduler.jobs import Job, JobState, Run
from tests.unit.scheduler.conftest import SPEC, START

END = START + timedelta(hours=1)
SECOND = timedelta(seconds=1)


def job(imported=False) -> Job:
    return Job(
        spec=replace(SPEC, imported=imported),
        state=JobState.RECORDING,
        reason="",
        create_time=START,
        change_time=START,
        first_start=START,
    )


RUN = Run(number=1, state=JobState.RECORDING, reason="", start_time=START, end_time=END)


@pytest.fixture
def deliveries():
    return Deliveries()


def test_without_agents_nothing_is_waited_for(deliveries):
    assert deliveries.are_complete(job(), RUN, END)


def test_every_agent_that_was_there_is_waited_for(deliveries):
    deliveries.connected("a", "node", "", START)
    deliveries.connected("b", "node", "", END - SECOND)
    deliveries.connected("c", "node", "", END)
    deliveries.finished("a", "checkout", 1, END)
    assert not deliveries.are_complete(job(), RUN, END)
    deliveries.finished("b", "checkout", 1, END)
    assert deliveries.are_complete(job(), RUN, END)


def test_finishing_another_run_is_not_finishing_this_one(deliveries):
    deliveries.connected("a", "node", "", START)
    deliveries.finished("a", "checkout", 2, END)
    deliveries.finished("a", "other", 1, END)
    assert not deliveries.are_complete(job(), RUN, END)


def test_an_agent_that_lost_its_connection_may_come_back(deliveries):
    deliveries.connected("a", "node", "", START)
    deliveries.disconnected("a", END - SECOND)
    assert not deliveries.are_complete(job(), RUN, END)
    deliveries.connected("a", "node", "", END + SECOND)
    deliveries.finished("a", "checkout", 1, END)
    assert deliveries.are_complete(job(), RUN, END + SECOND)


def test_an_agent_that_has_been_away_for_long_is_not_waited_for(deliveries):
    deliveries.connected("a", "node", "", START)
    deliveries.disconnected("a", END - FORGOTTEN)
    assert deliveries.are_complete(job(), RUN, END)


def test_an_agent_that_left_before_the_run_is_not_waited_for(deliveries):
    deliveries.connected("a", "node", "", START - 2 * SECOND)
    deliveries.disconnected("a", START - SECOND)
    assert deliveries.are_complete(job(), RUN, START + SECOND)


def test_a_broken_session_that_ends_after_the_new_one_began_does_not_count(deliveries):
    deliveries.connected("a", "node", "", START)
    deliveries.connected("a", "node", "", START + SECOND)
    deliveries.disconnected("a", START + 2 * SECOND)
    assert not deliveries.are_complete(job(), RUN, END + FORGOTTEN)


def test_importers_and_agents_do_not_wait_for_each_other(deliveries):
    deliveries.connected("agent", "node", "", START)
    deliveries.connected("importer", "node", "checkout", START)
    assert not deliveries.importer_finished("checkout", 1)
    deliveries.finished("agent", "checkout", 1, END)
    assert deliveries.are_complete(job(), RUN, END)
    assert not deliveries.are_complete(job(imported=True), RUN, END)
    assert not deliveries.importer_finished("checkout", 1)
    deliveries.finished("importer", "checkout", 1, END)
    assert deliveries.importer_finished("checkout", 1)


def test_what_is_known_of_a_run_is_forgotten_with_it(deliveries):
    deliveries.connected("a", "node", "", START)
    deliveries.finished("a", "checkout", 1, END)
    deliveries.forget("checkout", 1)
    assert not deliveries.are_complete(job(), RUN, END)


def test_restarted_agents_do_not_fill_the_memory(deliveries, monkeypatch):
    monkeypatch.setattr(module, "MOST_AGENTS", 20)
    for number in range(30):
        deliveries.connected(f"a-{number}", "node", "", START)
    assert len(deliveries._agents) == 20
    for number in range(30):
        deliveries.disconnected(f"a-{number}", START)
    deliveries.connected("later", "node", "", START + FORGOTTEN)
    assert list(deliveries._agents) == ["later"]
