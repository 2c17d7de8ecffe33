"""What a run says about its agents once it has ended, through the lifecycle and the ledger."""

from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from recordings import layout
from services.scheduler.completeness import MOST_ROWS
from services.scheduler.jobs import AgentState, JobState

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)


def deliver(world, agent, sequence=1, octets=100):
    world.lifecycle.sessions.agent_delivered(agent, "checkout", 1, sequence, octets)


def finish(world, *agents):
    for agent in agents:
        world.lifecycle.sessions.agent_finished(agent, "checkout", 1)


def ledger(world):
    folder = layout.run(world.data, "checkout", 1)
    rows = [
        row for path in folder.glob("losses-*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    return [(row["kind"], row["node_name"], row["detail"]) for row in rows]


@pytest.fixture
def run(world):
    """A run of ten minutes, on since noon, with three agents."""
    for number in (1, 2, 3):
        world.lifecycle.sessions.agent_connected(f"a{number}", f"node-{number}")
    world.create(duration_minutes=10)
    world.move(SECOND)
    return world


def test_a_run_in_which_all_finished_says_so(run):
    run.move(10 * MINUTE)
    finish(run, "a1", "a2", "a3")
    run.move(SECOND)
    assert run.job().runs[0].completeness == "3 of 3 agents finished."
    assert [a.state for a in run.lifecycle.agents("checkout", 1)] == [AgentState.FINISHED] * 3
    assert ledger(run) == []


def test_an_agent_that_does_not_come_back_is_named_and_in_the_ledger(run):
    run.move(MINUTE)
    deliver(run, "a2")
    run.move(MINUTE)
    run.lifecycle.sessions.agent_disconnected("a2")
    run.move(8 * MINUTE)
    finish(run, "a1", "a3")
    run.move(MINUTE)
    assert run.job().runs[0].completeness == (
        "2 of 3 agents finished; node-2 did not come back: its last data is from 12:01:01."
    )
    [(kind, node, detail)] = ledger(run)
    assert (kind, node) == ("agent_gone", "node-2")
    assert "its last data is from 12:01:01. What it had not delivered is missing" in detail
    gone = run.lifecycle.agents("checkout", 1)[1]
    assert (gone.state, gone.batches, gone.bytes) == (AgentState.GONE, 1, 100)


def test_an_agent_that_comes_back_or_late_is_part_of_it(run):
    run.move(MINUTE)
    run.lifecycle.sessions.agent_disconnected("a2")
    run.move(MINUTE)
    run.lifecycle.sessions.agent_connected("a2", "node-2")
    run.lifecycle.sessions.agent_connected("a4", "node-4")
    run.move(8 * MINUTE)
    finish(run, "a1", "a2", "a3", "a4")
    run.move(MINUTE)
    assert run.job().runs[0].completeness == ("4 of 4 agents finished; node-4 joined at 12:02:01.")


def test_an_agent_that_was_restarted_under_another_name_is_told_as_such(run):
    run.move(MINUTE)
    run.lifecycle.sessions.agent_disconnected("a2")
    run.move(MINUTE)
    run.lifecycle.sessions.agent_connected("b2", "node-2")
    run.move(8 * MINUTE)
    finish(run, "a1", "a3", "b2")
    run.move(MINUTE)
    assert run.job().runs[0].completeness == (
        "3 of 4 agents finished; node-2 lost its agent, and another one began at 12:02:01: it had "
        "sent no data; node-2 joined at 12:02:01."
    )


def test_an_agent_that_ended_early_is_named(run):
    run.move(MINUTE)
    finish(run, "a1")
    run.move(9 * MINUTE)
    finish(run, "a2", "a3")
    run.move(MINUTE)
    assert run.job().runs[0].completeness == (
        "3 of 3 agents finished; node-1 stopped at 12:01:01, before the end."
    )


def test_an_agent_that_is_there_and_does_not_deliver_is_named(run):
    run.move(10 * MINUTE)
    finish(run, "a1", "a2")
    run.move(MINUTE)
    assert "node-3 had not delivered all by the end" in run.job().runs[0].completeness
    assert [row[:2] for row in ledger(run)] == [("agent_gone", "node-3")]


def test_a_run_without_agents_says_so(world):
    world.create(duration_minutes=1)
    world.move(2 * MINUTE)
    assert world.job().runs[0].completeness == "No agent took part."


def test_what_agents_delivered_survives_a_restart_and_is_not_counted_twice(run):
    deliver(run, "a1", 1)
    deliver(run, "a1", 2, 50)
    deliver(run, "a1", 2, 50)  # sent again
    run.move(MINUTE)
    run.restart()
    assert {a.state for a in run.lifecycle.agents("checkout", 1)} == {AgentState.AWAY}
    run.lifecycle.sessions.agent_connected("a1", "node-1")
    deliver(run, "a1", 2, 50)
    deliver(run, "a1", 3, 7)
    first = run.lifecycle.agents("checkout", 1)[0]
    assert (first.state, first.batches, first.bytes) == (AgentState.RECORDING, 3, 157)
    run.move(9 * MINUTE)
    finish(run, "a1")
    run.move(MINUTE)
    assert run.job().runs[0].completeness.startswith("1 of 3 agents finished; node-2 did not")


def test_a_run_that_was_full_blames_no_agent_that_was_there(run):
    run.move(MINUTE)
    run.lifecycle.sessions.agent_disconnected("a2")
    run.lifecycle.run_full("checkout", 1, "The limit is reached.")
    run.move(SECOND)
    [ended] = run.job().runs
    assert ended.state is JobState.STORAGE_LIMITED
    assert ended.completeness == (
        "3 agents took part, and it ended before its time; node-2 did not come back: it had sent "
        "no data."
    )


def test_very_many_gone_agents_fit_into_the_ledger(world):
    for number in range(200):
        world.lifecycle.sessions.agent_connected(f"a{number}", f"node-{number}")
    world.create(duration_minutes=1)
    world.move(SECOND)
    for number in range(200):
        world.lifecycle.sessions.agent_disconnected(f"a{number}")
    world.move(2 * MINUTE)
    assert world.job().runs[0].completeness.endswith("and 195 more like this.")
    rows = ledger(world)
    assert len(rows) == MOST_ROWS
    assert rows[-1][2].startswith("137 more agents did not finish.")
