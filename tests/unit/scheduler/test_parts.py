"""What each scheduler has of a run, and what the others hear of it."""

import pytest

from services.scheduler.jobs import AgentState, JobState

pytestmark = pytest.mark.postgresql


def test_a_part_of_one_that_is_away_is_named_and_counted_when_it_is_back(several, pair):
    a, b = pair
    several.begin(a)
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


def test_counts_for_a_limit_are_heard_by_all(several, pair):
    a, b = pair
    several.begin(a, kfl="http and limit(5)")
    a.sessions.agent_matched("a1", "checkout", 1, 2)
    several.move(2)
    assert b.sessions.matched_elsewhere("b1") == {("checkout", 1): 2}
    b.sessions.agent_matched("b1", "checkout", 1, 3)
    several.move(2)
    assert a.sessions.matched_elsewhere("a1") == {("checkout", 1): 3}
    assert b.sessions.matched_elsewhere("b1") == {("checkout", 1): 2}
