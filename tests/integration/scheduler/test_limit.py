"""The limit() of a job over agents: real agents with real uplinks, and a whole scheduler."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from recordings import snapshot
from services.capture.agent import Agent, new_engine_factory
from services.capture.frames.batch import FrameBatch, Loss
from services.capture.uplink import Uplink
from services.runtime.channel import open_channel
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import Scheduler
from tests.unit.capture.traffic import Conversation, Wire

SECONDS = 60.0
RUN = ("few", 1)


def wait_until(test: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not test():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


class Fed:
    """A live source that is given its frames while it runs."""

    def __init__(self) -> None:
        self._batches: queue.SimpleQueue[FrameBatch] = queue.SimpleQueue()
        self._wire = Wire()
        self._port = 40_000
        self._put = 0
        self._taken = 0

    def calls(self, count: int) -> None:
        """Put calls on the wire, each on a connection of its own, all in one batch."""
        frames = []
        for _ in range(count):
            self._port += 1
            talk = Conversation(self._port)
            frames += talk.opening() + talk.call("/a", 500)
        self._put += 1
        self._batches.put(self._wire.batch(frames))

    def is_taken(self) -> bool:
        """All calls have been recorded, or not."""
        return self._taken == self._put

    def batches(self) -> Iterator[FrameBatch]:
        while True:
            try:
                batch = self._batches.get(timeout=0.01)
            except queue.Empty:
                yield self._wire.batch([])
                continue
            yield batch
            self._taken += 1

    def losses(self) -> list[Loss]:
        return []

    def close(self) -> None:
        pass


class Node:
    """An agent on a thread of its own."""

    def __init__(self, address: str, name: str) -> None:
        self.source = Fed()
        self.uplink = Uplink(address, name, "10.0.0.1")
        self.uplink.start()
        engine = new_engine_factory(name, "10.0.0.1", 1 << 20)
        self.agent = Agent(self.source, engine, self.uplink, name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.agent.run, args=(self._stop,))
        self._thread.start()

    @property
    def recorded(self) -> int:
        return self.agent.progress.streams

    def is_recording(self) -> bool:
        return bool(self.agent._assignments.active)

    def sees(self, count: int) -> int:
        """Let the node see calls; return how many of them it recorded."""
        before = self.recorded
        self.source.calls(count)
        wait_until(self.source.is_taken)
        return self.recorded - before

    def knows(self, calls: int) -> None:
        """Wait until the node has heard that so many calls have matched elsewhere."""
        wait_until(lambda: self.uplink.elsewhere.get(RUN, 0) == calls)

    def end(self) -> None:
        self._stop.set()
        self._thread.join(SECONDS)
        self.uplink.flush(SECONDS)
        self.uplink.stop()


Start = Callable[..., list[Node]]


@pytest.fixture
def schedulers(tmp_path: Path) -> Iterator[list[Scheduler]]:
    running = [Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=tmp_path))]
    yield running
    running[-1].stop()


@pytest.fixture
def start(schedulers: list[Scheduler]) -> Iterator[Start]:
    """Start nodes, then a job with this limit; return them once all record it."""
    nodes: list[Node] = []

    def started(names: str, limit: int) -> list[Node]:
        address = schedulers[0].address
        nodes.extend(Node(address, name) for name in names)
        with open_channel(address) as channel:
            spec = jobs_pb2.JobSpec(name="few", kfl=f"response.status == 500 and limit({limit})")
            stub = jobs_pb2_grpc.JobsServiceStub(channel)
            stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10)
        wait_until(lambda: all(node.is_recording() for node in nodes))
        return nodes

    yield started
    for node in nodes:
        node.end()


def stored(data: Path) -> int:
    return snapshot.open(data, "few").tail("streams").num_rows


def test_one_agent_is_exact(start: Start, tmp_path: Path) -> None:
    (only,) = start("a", 7)
    assert only.sees(3) == 3
    assert only.sees(20) == 4
    assert only.sees(5) == 0
    wait_until(lambda: stored(tmp_path) == 7)


def test_agents_stop_together_when_one_after_the_other_sees_calls(
    start: Start, tmp_path: Path
) -> None:
    first, second = start("ab", 5)
    assert first.sees(3) == 3
    second.knows(3)
    assert second.sees(10) == 2
    first.knows(2)
    assert first.sees(4) == second.sees(4) == 0
    wait_until(lambda: stored(tmp_path) == 5)


def test_calls_at_the_same_time_are_too_many_at_most_once_for_each_agent(
    start: Start, tmp_path: Path
) -> None:
    nodes = start("ab", 4)
    for node in nodes:
        node.source.calls(9)
    for node in nodes:
        wait_until(node.source.is_taken)
    assert 4 <= sum(node.recorded for node in nodes) <= 8
    wait_until(lambda: stored(tmp_path) == sum(node.recorded for node in nodes))
    assert [node.sees(3) for node in nodes] == [0, 0]


def test_an_agent_that_comes_late_takes_what_is_left(
    start: Start, schedulers: list[Scheduler]
) -> None:
    (first,) = start("a", 5)
    assert first.sees(4) == 4
    late = Node(schedulers[0].address, "b")
    wait_until(late.is_recording)
    assert late.sees(9) == 1
    late.end()


def test_what_an_agent_that_is_gone_has_recorded_counts_after_a_restart(
    start: Start, schedulers: list[Scheduler], tmp_path: Path
) -> None:
    first, second = start("ab", 5)
    assert first.sees(3) == 3
    second.knows(3)
    wait_until(lambda: stored(tmp_path) == 3)
    first.end()
    address = schedulers[0].address
    schedulers[0].stop()
    schedulers.append(Scheduler(SchedulerSettings(listen=address, data=tmp_path)))
    wait_until(lambda: second.uplink.reconnects > 0 and not second.uplink.failure)
    late = Node(address, "c")
    wait_until(late.is_recording)
    assert late.sees(9) == 2
    second.knows(5)
    assert second.sees(9) == 0
    late.end()
