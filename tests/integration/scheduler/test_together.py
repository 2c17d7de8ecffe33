"""Agents that start and stop together, what each delivers, and what they expect of a statement."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.capture.agent import new_engine_factory
from services.capture.warmup import warm_up
from services.runtime.channel import open_channel
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import Scheduler
from tests.integration.scheduler.test_limit import Node, wait_until


@pytest.fixture(scope="module", autouse=True)
def kernels():
    """Compile them before agents have to be in time, as a capture process does."""
    warm_up(new_engine_factory("node-1", "10.0.0.1", 1 << 20)())


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[Scheduler]:
    running = Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=tmp_path))
    yield running
    running.stop()


@pytest.fixture
def stub(scheduler: Scheduler) -> Iterator[jobs_pb2_grpc.JobsServiceStub]:
    with open_channel(scheduler.address) as channel:
        yield jobs_pb2_grpc.JobsServiceStub(channel)


@pytest.fixture
def nodes(scheduler: Scheduler) -> Iterator[list[Node]]:
    running = [Node(scheduler.address, name) for name in ("node-1", "node-2")]
    wait_until(lambda: all(node.uplink.revision for node in running))
    yield running
    for node in running:
        node.end()


def runs_of(stub: jobs_pb2_grpc.JobsServiceStub) -> list[jobs_pb2.Run]:
    return list(stub.GetJob(jobs_pb2.GetJobRequest(name="errors"), timeout=10).job.runs)


def test_agents_begin_and_end_at_one_instant_and_a_run_says_what_each_delivered(stub, nodes):
    spec = jobs_pb2.JobSpec(name="errors", kfl="response.status == 500")
    stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10)
    wait_until(lambda: all(node.is_recording() for node in nodes))
    listed = [node.agent._assignments.active[0].assignment for node in nodes]
    assert listed[0].start_ns == listed[1].start_ns
    assert nodes[0].sees(3) == 3
    # An agent whose clock shows the instant records, also when the scheduler looks a moment later.
    wait_until(lambda: [run.entries for run in runs_of(stub)] == [3])
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(stub.StopJob, jobs_pb2.StopJobRequest(name="errors"), timeout=30)
        wait_until(lambda: all(n.uplink.assignments[0].stop_ns < listed[0].stop_ns for n in nodes))
        assert len({node.uplink.assignments[0].stop_ns for node in nodes}) == 1
        stopping.result()
    wait_until(lambda: runs_of(stub)[0].state == jobs_pb2.JOB_STATE_STOPPED)
    [run] = runs_of(stub)
    assert run.completeness == "2 of 2 agents finished."
    first, second = run.agents
    assert [a.node for a in run.agents] == ["node-1", "node-2"]
    assert {a.state for a in run.agents} == {jobs_pb2.AGENT_STATE_FINISHED}
    assert first.batches > 0
    assert first.bytes > 0
    assert (second.batches, second.HasField("data_time")) == (0, False)


def test_a_forecast_stores_nothing_and_says_what_a_run_would_need(stub, nodes, tmp_path):
    request = jobs_pb2.ForecastJobRequest(
        kfl="response.status == 500 and limit(9)", probe_seconds=2, duration_minutes=60
    )
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stub.ForecastJob, request, timeout=30)
        wait_until(lambda: all(node.is_recording() for node in nodes))
        nodes[0].sees(3)
        nodes[1].sees(1)
        found = asked.result()
    assert (found.agents, found.answered, found.probe_seconds) == (2, 2, 2)
    assert (found.entries_per_second, found.streams_per_second) == (2.0, 2.0)
    assert found.expected_bytes == pytest.approx(found.bytes_per_second * 3600, rel=0.01)
    assert found.bytes_per_second > 100
    assert found.fits
    assert "2 of 2 agents saw 2.0 entries in 2.0 streams a second" in found.summary
    assert "60 min need about" in found.summary
    assert list((tmp_path / "recordings").iterdir()) == []
    assert len(stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10).jobs) == 0
    wait_until(lambda: not any(node.uplink.assignments for node in nodes))


def test_a_forecast_without_agents_says_so(stub):
    found = stub.ForecastJob(jobs_pb2.ForecastJobRequest(), timeout=30)
    assert found.agents == 0
    assert found.summary == "No agent is connected, so nothing is known about the traffic."
