from services.scheduler.matches import MOST_CALLS, Matches

RUN = ("checkout", 1)


def test_each_agent_hears_what_all_others_have():
    matches = Matches()
    matches.told("a", *RUN, 3)
    matches.told("b", *RUN, 4)
    matches.told("b", *RUN, 5)
    assert matches.elsewhere("a") == {RUN: 5}
    assert matches.elsewhere("b") == {RUN: 3}
    assert matches.elsewhere("c") == {RUN: 8}
    matches.forget(*RUN)
    assert matches.elsewhere("a") == {}


def test_a_process_that_ended_had_what_it_told():
    matches = Matches()
    matches.told("a", *RUN, 3)
    matches.told("a", *RUN, 0)  # another one, under the same name
    assert matches.elsewhere("a") == {RUN: 3}
    assert matches.elsewhere("b") == {RUN: 3}
    matches.told("a", *RUN, 2)
    assert matches.elsewhere("a") == {RUN: 3}
    assert matches.elsewhere("b") == {RUN: 5}


def test_after_a_restart_what_is_stored_counts_at_least():
    matches = Matches()
    matches.resume(*RUN, 4)  # of agents that are perhaps gone
    assert matches.elsewhere("a") == {RUN: 4}
    matches.told("a", *RUN, 3)  # three of the four
    assert matches.elsewhere("a") == {RUN: 1}
    assert matches.elsewhere("b") == {RUN: 4}
    matches.told("b", *RUN, 0)  # a new one
    matches.told("b", *RUN, 2)
    assert matches.elsewhere("a") == {RUN: 3}
    assert matches.elsewhere("b") == {RUN: 4}
    assert matches.elsewhere("c") == {RUN: 6}


def test_there_are_not_agents_without_end(monkeypatch):
    monkeypatch.setattr("services.scheduler.matches.MOST_AGENTS", 2)
    matches = Matches()
    for agent_id in "abc":
        matches.told(agent_id, *RUN, 1)
    matches.told("a", *RUN, 2)
    assert matches.elsewhere("d") == {RUN: 3}


def test_no_agent_counts_without_end():
    matches = Matches()
    matches.told("a", *RUN, 1 << 63)
    assert matches.elsewhere("b") == {RUN: MOST_CALLS}


def test_who_waits_hears_of_changes_alone():
    matches = Matches()
    version = matches.wait(-1, 0)
    matches.told("a", *RUN, 3)
    changed = matches.wait(version, 10)
    assert changed != version
    matches.told("a", *RUN, 3)
    assert matches.wait(changed, 0) == changed
