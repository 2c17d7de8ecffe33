"""When runs begin and end on an agent."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.capture.assignments import (
    LEAST_FOR_GRAPHQL,
    MAX_RUNS,
    ActiveRun,
    Assignment,
    Assignments,
)

A = Assignment("a", 1, "http", start_ns=100, stop_ns=200, body_limit=10)
B = Assignment("b", 1, "dns", start_ns=150, stop_ns=300, body_limit=99)


def names(runs: Sequence[ActiveRun]) -> list[str]:
    return [run.assignment.job for run in runs]


def test_a_run_begins_at_its_start_and_ends_at_its_stop() -> None:
    assignments = Assignments()
    assignments.update([A, B])
    seen = []
    for now in (99, 100, 150, 199, 200, 299, 300, 301):
        changes = assignments.advance(now)
        seen.append((names(changes.started), names(changes.ended), names(assignments.active)))
    assert seen == [
        ([], [], []),
        (["a"], [], ["a"]),
        (["b"], [], ["a", "b"]),
        ([], [], ["a", "b"]),
        ([], ["a"], ["b"]),
        ([], [], ["b"]),
        ([], ["b"], []),
        ([], [], []),
    ]


def test_a_run_that_is_no_longer_listed_ends() -> None:
    assignments = Assignments()
    assignments.update([A, B])
    assignments.advance(160)
    assignments.update([B])
    assert names(assignments.advance(161).ended) == ["a"]
    assert names(assignments.active) == ["b"]


def test_the_same_list_again_changes_nothing() -> None:
    assignments = Assignments()
    assignments.update([A])
    assignments.advance(100)
    before = assignments.active
    assignments.update([A])
    changes = assignments.advance(101)
    assert not changes.started
    assert not changes.ended
    assert assignments.active is before


def test_a_new_stop_time_holds_for_a_run_that_is_on() -> None:
    assignments = Assignments()
    assignments.update([A])
    assignments.advance(100)
    assignments.update([replace(A, stop_ns=120)])
    assert not assignments.advance(119).ended
    assert names(assignments.advance(120).ended) == ["a"]


def test_a_run_that_has_ended_does_not_begin_again() -> None:
    assignments = Assignments()
    assignments.update([A])
    assignments.advance(100)
    assert names(assignments.end()) == ["a"]
    assert not assignments.advance(101).started
    assignments.update([replace(A, run=2)])
    assert names(assignments.advance(102).started) == ["a"]


def test_the_largest_body_limit_counts() -> None:
    assignments = Assignments()
    assert assignments.body_limit == 0
    assignments.update([A, B])
    assignments.advance(160)
    assert assignments.body_limit == 99
    assignments.advance(300)
    assert assignments.body_limit == 0


def test_who_asks_for_graphql_has_bodies_looked_at() -> None:
    assignments = Assignments()
    assignments.update([Assignment("a", 1, "gqlv1 and src.port == 1", 100, 200, body_limit=0)])
    assignments.advance(160)
    assert assignments.body_limit == LEAST_FOR_GRAPHQL


@pytest.mark.parametrize(
    ("statements", "protocols"),
    [
        (["http and response.status == 500"], {"http"}),
        (["http", "dns"], {"http", "dns"}),
        (["http", 'src.ip == "10.0.0.1"'], None),
        ([], set()),
    ],
)
def test_the_protocols_of_all_runs_are_wanted(
    statements: list[str], protocols: set[str] | None
) -> None:
    assignments = Assignments()
    assignments.update([replace(A, run=n, kfl=kfl) for n, kfl in enumerate(statements)])
    assignments.advance(100)
    assert assignments.protocols == protocols


def test_runs_have_bits_of_their_own_and_free_ones_are_used_again() -> None:
    assignments = Assignments()
    assignments.update([replace(A, run=n) for n in range(MAX_RUNS)])
    assignments.advance(100)
    assert sorted(run.bit for run in assignments.active) == list(range(MAX_RUNS))
    assignments.update([replace(A, run=n) for n in range(1, MAX_RUNS + 1)])
    (started,) = assignments.advance(101).started
    assert started.assignment.run == MAX_RUNS
    assert sorted(run.bit for run in assignments.active) == list(range(MAX_RUNS))


def test_too_many_runs_are_refused_until_there_is_room() -> None:
    assignments = Assignments()
    many = [replace(A, run=n) for n in range(MAX_RUNS + 2)]
    assignments.update(many)
    assert len(assignments.advance(100).started) == MAX_RUNS
    assignments.advance(101)
    assert assignments.refused == 2
    assignments.update(many[1:])
    assert [run.assignment.run for run in assignments.advance(102).started] == [MAX_RUNS]


def test_a_statement_that_does_not_compile_is_refused_and_the_others_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assignments = Assignments()
    assignments.update([replace(A, job="bad", kfl="http and ("), A])
    assert names(assignments.advance(100).started) == ["a"]
    assignments.advance(101)
    assert assignments.refused == 1


def test_an_import_is_on_whatever_the_time_is() -> None:
    assignments = Assignments(ignore_times=True)
    assignments.update([A])
    assert names(assignments.advance(5000).started) == ["a"]
    assignments.update([])
    assert names(assignments.advance(0).ended) == ["a"]
