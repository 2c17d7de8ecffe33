"""What a run's ledger says of its nodes adds up: seen, matched, stored, and each packet lost."""

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recorder.v1 import jobs_pb2, jobs_pb2_grpc, query_pb2, query_pb2_grpc

from services.capture.agent import Agent, new_engine_factory
from services.capture.uplink import Uplink
from services.query.catalog import Catalog
from services.query.engine import Engine
from services.query.query_rpc import QueryService, add_to
from services.runtime.channel import open_channel
from services.runtime.clock import SystemClock
from services.runtime.server import serve
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import Scheduler
from tests.integration.scheduler.test_limit import Fed
from tests.unit.capture.traffic import Conversation


class SteppedClock(SystemClock):
    """A clock that is set."""

    step = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.step


class CountedSource(Fed):
    """A source that knows what it has given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = self.matching = self.octets = 0
        self._ports = 20_000

    def talk(self, status: int, times: int) -> None:
        """Put one connection on the wire, with several calls, in a batch of its own."""
        self._ports += 1
        talk = Conversation(self._ports)
        frames = talk.opening()
        for _ in range(times):
            frames += talk.call("/a", status, os.urandom(1000))
        self.seen += len(frames)
        self.octets += sum(len(frame) for frame in frames)
        self.matching += len(frames) * (status == 500)
        self._put += 1
        self._batches.put(self._wire.batch(frames))


class Node:
    """An agent on a thread of its own, with little memory."""

    def __init__(self, address: str, name: str) -> None:
        self.source = CountedSource()
        self.clock = SteppedClock()
        self.uplink = Uplink(address, name, "10.0.0.1", memory_limit=200_000)
        self.uplink.start()
        engine = new_engine_factory(name, "10.0.0.1", 1 << 20)
        self.agent = Agent(self.source, engine, self.uplink, name, self.clock)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.agent.run, args=(self._stop,))
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(60)
        self.uplink.flush(60)
        self.uplink.stop()


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def jobs(address: str, call: Callable[[jobs_pb2_grpc.JobsServiceStub], Any]) -> Any:
    with open_channel(address) as channel:
        return call(jobs_pb2_grpc.JobsServiceStub(channel))


def get(address: str) -> jobs_pb2.Job:
    request = jobs_pb2.GetJobRequest(name="errors")
    return jobs(address, lambda stub: stub.GetJob(request, timeout=30)).job


def test_every_packet_that_matched_is_stored_or_lost_in_the_ledger(tmp_path: Path) -> None:
    scheduler = Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=tmp_path))
    address = scheduler.address
    spec = jobs_pb2.JobSpec(name="errors", kfl="response.status == 500")
    nodes = [Node(address, name) for name in ("node-a", "node-b")]
    try:
        request = jobs_pb2.CreateJobRequest(spec=spec)
        jobs(address, lambda stub: stub.CreateJob(request, timeout=30))
        until(lambda: all(node.agent._assignments.active for node in nodes))
        for node in nodes:
            for number in range(10):
                node.source.talk(500 if number % 2 else 200, 3)
        until(lambda: all(node.source.is_taken() and node.uplink.is_idle for node in nodes))
        nodes[0].clock.step = timedelta(seconds=30)
        until(
            # There may be no run yet: an agent may be a moment ahead of the scheduler.
            lambda: any(
                lost.kind == "clock_step"
                for run in get(address).runs
                for counted in run.counts
                for lost in counted.lost
            )
        )
        # The scheduler is away, and the agents have to drop some.
        scheduler.stop()
        for node in nodes:
            for _ in range(12):
                node.source.talk(500, 40)
            until(node.source.is_taken)
        until(lambda: all(node.uplink.counters.dropped for node in nodes))
        scheduler = Scheduler(SchedulerSettings(listen=address, data=tmp_path))
        until(lambda: all(node.uplink.is_idle for node in nodes))
        for node in nodes:
            for _ in range(16):
                node.source.talk(500, 40)
                until(lambda node=node: node.source.is_taken() and node.uplink.is_idle)
        request = jobs_pb2.StopJobRequest(name="errors")
        jobs(address, lambda stub: stub.StopJob(request, timeout=30))
        until(lambda: get(address).runs[0].state != jobs_pb2.JOB_STATE_RECORDING)
        counts = {each.node: each for each in get(address).runs[0].counts}
        check(counts, nodes)
        check_answers(tmp_path, counts)
    finally:
        for node in nodes:
            node.end()
        scheduler.stop()


def check(counts: dict[str, Any], nodes: list[Node]) -> None:
    lost = {name: {k.kind: k for k in found.lost} for name, found in counts.items()}
    for name, node in zip(("node-a", "node-b"), nodes, strict=True):
        found = counts[name]
        assert lost[name]["uplink_overrun"].packets
        assert (found.seen_packets, found.seen_bytes) == (node.source.seen, node.source.octets)
        assert found.matched_packets == node.source.matching
        gone = lost[name]["uplink_overrun"]
        assert found.stored_packets + gone.packets == found.matched_packets
        assert found.stored_bytes + gone.bytes == found.matched_bytes
    assert "clock_step" in lost["node-a"]
    assert "clock_step" not in lost["node-b"]


def check_answers(data: Path, counts: dict[str, Any]) -> None:
    """The query service says the same, with an answer and in a file of packets."""
    engine = Engine(data.resolve(), memory_limit_bytes=256 << 20, threads=1)
    service = QueryService(Catalog(data), engine, 30.0, {})
    server = serve("127.0.0.1:0", add_to(service))
    statement = 'record("errors") and http'
    with open_channel(server.address) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        parts = list(stub.Query(query_pb2.QueryRequest(kfl=statement)))
        told = [part.counts for part in parts if part.WhichOneof("part") == "counts"]
        question = query_pb2.Question(kfl=statement)
        top = stub.Top(query_pb2.TopRequest(question=question, field="response.status"))
        chunks = stub.Export(query_pb2.ExportRequest(kfl=statement))
        octets = b"".join(chunk.chunk for chunk in chunks)
    service.close()
    server.stop(5.0)
    engine.close()
    assert {each.node: each for each in told} == counts
    assert list(top.account.counts) == told
    for found in told:
        if found.node:
            line = f"errors run 1 on {found.node}: {found.seen_packets} packets"
            assert line.encode() in octets
    assert b"uplink_overrun in errors on node-a" in octets
