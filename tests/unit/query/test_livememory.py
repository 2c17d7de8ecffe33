"""The last minutes of live traffic: what stays, what goes, and what followers get."""

import time
from typing import Any

import pyarrow as pa

from recordings.schema import TALLIES
from services.query.catalog import Opened
from services.query.livememory import Memory
from tests.unit.query.conftest import table

WINDOW = 300.0
ROOM = 64 << 20


def add(memory: Memory, now: float, *paths: str, **more: Any) -> None:
    rows = [{"request_path": path, **more} for path in paths]
    memory.add("agent/1", "node-1", [("entries", table("entries", rows).to_batches())], now)


def lose(memory: Memory, now: float, kind: str) -> None:
    rows = table("losses", [{"kind": kind, "node_name": "node-1"}])
    memory.add("agent/1", "node-1", [("losses", rows.to_batches())], now)


def paths(memory: Memory) -> list[str]:
    return list(memory.snapshot(()).tail("entries")["request_path"].to_pylist())


def kinds(memory: Memory) -> list[str]:
    return list(memory.snapshot(()).tail("losses")["kind"].to_pylist())


def test_what_is_older_than_the_window_goes_and_a_follower_goes_on() -> None:
    memory = Memory(WINDOW, ROOM)
    ends = memory.ends
    for second in range(600):
        add(memory, second, f"/{second}")
        memory.trim(second)
        entries, losses = memory.after(ends)
        assert entries["request_path"].to_pylist() == [f"/{second}"]
        assert losses.num_rows == 0
        ends = memory.ends
    left = paths(memory)
    assert left == [f"/{second}" for second in range(600 - len(left), 600)]
    assert WINDOW <= len(left) <= WINDOW + WINDOW / 32 + 1
    memory.trim(2000)
    assert paths(memory) == []
    add(memory, 2001, "/late")
    assert memory.after(ends)[0]["request_path"].to_pylist() == ["/late"]


def test_many_small_batches_become_few_pieces() -> None:
    memory = Memory(WINDOW, ROOM)
    for number in range(400):
        add(memory, number / 10, f"/{number}")
    found = memory.snapshot(()).tail("entries")
    assert found.num_rows == 400
    assert found["request_path"].num_chunks < 20


def test_above_its_memory_the_oldest_goes_and_that_is_a_loss() -> None:
    memory = Memory(WINDOW, 1 << 20)
    for number in range(40):
        add(memory, number / 100, f"/{number}", response_body="x" * 50_000)
    left = paths(memory)
    assert left == [f"/{number}" for number in range(40 - len(left), 40)]
    assert 10 <= len(left) <= 21
    losses = memory.snapshot(()).tail("losses").to_pylist()
    assert {loss["kind"] for loss in losses} == {"live_overrun"}
    told = sum(int(loss["detail"].split()[0]) for loss in losses)
    assert told == 40 - len(left)
    assert "--live-memory" in losses[0]["detail"]


def test_a_loss_goes_with_the_window_but_a_sample_stays() -> None:
    memory = Memory(WINDOW, ROOM)
    lose(memory, 0, "sampled")
    lose(memory, 0, "kernel_drop")
    memory.trim(WINDOW * 2)
    assert kinds(memory) == ["sampled"]
    memory.lose("agent_gone", "node-1", "It is gone.", WINDOW * 2)
    assert kinds(memory) == ["sampled", "agent_gone"]
    assert memory.after((0, 2))[1]["detail"].to_pylist() == ["It is gone."]


def test_it_is_a_recording_without_a_name() -> None:
    memory = Memory(WINDOW, ROOM)
    add(memory, 1, "/one")
    now_ns = time.time_ns()
    tally = {
        "agent_id": "", "node_name": "node-1", "begin_time": now_ns, "end_time": now_ns,
        "seen_packets": 5, "seen_bytes": 500, "matched_packets": 0, "matched_bytes": 0,
    }  # fmt: skip
    rows = pa.Table.from_pylist([tally], schema=TALLIES)
    memory.add("agent/1", "node-1", [("tallies", rows.to_batches())], 1)
    opened = Opened(memory.snapshot(["A note."]))
    assert opened.name == ""
    assert opened.damage == ("A note.",)
    assert opened.source("entries").rows == 1
    [run] = opened.taken.runs
    [node] = run.ledger.nodes()
    assert (node.node, node.seen.packets) == ("node-1", 5)
