"""Who watches live traffic, and what agents are told and tell."""

from collections.abc import Sequence
from typing import Any

import pytest

from recordings.journal import Part
from services.runtime.clock import SystemClock
from services.scheduler import live as rooms
from services.scheduler.bulletin import Assignment
from services.scheduler.ingest import LiveRows
from services.scheduler.live import AgentChange, Live, Seen, Watched, Watcher
from tests.unit.scheduler import stored

PART = stored.encode("losses", [stored.LOSS])


class World:
    def __init__(self) -> None:
        self.lists: list[Sequence[Assignment]] = []
        self.live = Live(SystemClock(), self.lists.append)

    @property
    def listed(self) -> list[tuple[int, str]]:
        return [(found.run, found.kfl) for found in self.lists[-1]]

    def watch(self, kfl: str) -> Watcher:
        watcher = self.live.begin()
        assert watcher is not None
        self.live.watch(watcher, kfl)
        assert self.live.next(watcher) == Watched(kfl, self.live.agents)
        return watcher

    def news(self, watcher: Watcher) -> list[Any]:
        found = []
        while watcher.news:
            found.append(self.live.next(watcher))
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_each_watcher_is_a_run_as_long_as_it_watches(world: World) -> None:
    one, two = world.watch("http"), world.watch("dns")
    assert world.listed == [(1, "http"), (2, "dns")]
    assert all(found.live and found.job == "~live" for found in world.lists[-1])
    world.live.watch(one, "http or tls")
    assert world.listed == [(2, "dns"), (3, "http or tls")]
    world.live.watch(one, "")
    assert world.listed == [(2, "dns")]
    world.live.end(two)
    assert world.listed == []
    assert world.live.next(two) is None


def test_rows_go_to_who_watches_their_run_also_when_it_was_just_replaced(world: World) -> None:
    one, two = world.watch("http"), world.watch("dns")
    world.live.took("a", "node-1", LiveRows(1, 1, (PART,)))
    world.live.watch(one, "http or tls")
    world.live.took("a", "node-1", LiveRows(1, 2, (PART,)))
    world.live.took("a", "node-1", LiveRows(3, 1, (PART,)))
    world.live.took("a", "node-1", LiveRows(9, 1, (PART,)))
    seen = [found for found in world.news(one) if isinstance(found, Seen)]
    assert [found.source for found in seen] == ["a/1", "a/1", "a/3"]
    assert seen[0] == Seen("a/1", "node-1", (PART,))
    assert world.news(two) == []


def test_what_did_not_arrive_is_told_with_the_next(world: World) -> None:
    watcher = world.watch("http")
    for number in (2, 3, 7):
        world.live.took("a", "node-1", LiveRows(1, number, (PART,)))
    assert [found.skipped for found in world.news(watcher)] == [1, 0, 3]


def test_a_slow_watcher_loses_rows_and_hears_how_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = world.watch("http")
    monkeypatch.setattr(rooms, "QUEUE_BYTES", 2 * len(PART.octets))
    for number in range(1, 6):
        world.live.took("a", "node-1", LiveRows(1, number, (PART,)))
    assert len(world.news(watcher)) == 2
    world.live.took("a", "node-1", LiveRows(1, 6, (PART,)))
    [last] = world.news(watcher)
    assert (last.dropped, last.skipped) == (3, 0)


def test_a_watcher_that_takes_nothing_at_all_is_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = world.watch("http")
    monkeypatch.setattr(rooms, "MOST_NEWS", 10)
    for number in range(10):
        world.live.agent_came(f"a{number}", "node-1")
    assert not watcher.is_over
    world.live.agent_came("b", "node-1")
    assert watcher.is_over


@pytest.mark.parametrize(
    "part",
    [
        Part("losses", 1, b"nonsense"),
        Part("losses", 7, PART.octets),
        Part("entries", 1, PART.octets),
        stored.encode("packets", [stored.PACKET]),
    ],
)
def test_rows_that_cannot_be_read_are_not_passed_on(world: World, part: Part) -> None:
    watcher = world.watch("http")
    world.live.took("a", "node-1", LiveRows(1, 1, (part,)))
    assert world.news(watcher) == []
    world.live.took("a", "node-1", LiveRows(1, 2, (PART,)))
    assert [found.skipped for found in world.news(watcher)] == [1]


def test_agents_that_come_and_go_are_told(world: World) -> None:
    world.live.agent_came("a", "node-1")
    watcher = world.watch("http")
    world.live.agent_came("a", "node-1")  # again, before its first session has ended
    world.live.agent_left("a")
    assert world.news(watcher) == []
    world.live.agent_left("a")
    world.live.agent_came("b", "node-2")
    assert world.news(watcher) == [
        AgentChange("a", "node-1", False, 0),
        AgentChange("b", "node-2", True, 1),
    ]


def test_there_is_room_for_some_watchers(world: World) -> None:
    watchers = [world.watch("http") for _ in range(rooms.MOST_WATCHERS)]
    assert world.live.begin() is None
    world.live.end(watchers[0])
    assert world.live.begin() is not None


def test_numbers_of_many_statements_are_not_kept(world: World) -> None:
    watcher = world.watch("http")
    for number in range(100):
        world.live.took("a", "node-1", LiveRows(number + 1, 1, (PART,)))
        world.live.watch(watcher, f"response.status == {number}")
    assert len(watcher.runs) <= rooms.RUNS_KEPT
    assert len(watcher.numbers) <= rooms.RUNS_KEPT
    assert len(world.listed) == 1
