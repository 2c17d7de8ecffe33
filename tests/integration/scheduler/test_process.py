"""The scheduler as a process of its own: ended politely, killed, and started again."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from recordings import schema, snapshot
from services.capture.uplink import Uplink
from services.runtime.channel import open_channel

PROGRAM = """
import sys
from pathlib import Path
from services.runtime.errors import UserError
from services.runtime.logging import configure
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import run
configure(format="json")
try:
    sys.exit(run(SchedulerSettings(listen=sys.argv[2], data=Path(sys.argv[1]), grace_seconds=20)))
except (UserError, OSError) as error:
    sys.exit(str(error))
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def begin(listen: str = "127.0.0.1:0") -> subprocess.Popen[str]:
        arguments = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path), listen]
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        found = re.search(r'"address": ?"([^"]+)"', line)
        if found:
            return found[1]
    raise AssertionError("The process did not say where it serves: " + "".join(said))


def packets(count: int) -> pa.Table:
    row = {
        "stream": "0123456789abcdef",
        "node_name": "node-a",
        "time": datetime.now(UTC),
        "link_type": 1,
        "original_length": 60,
        "frame": bytes(60),
    }
    return pa.Table.from_pylist([row] * count, schema.PACKETS)


def wait_for_state(stub: jobs_pb2_grpc.JobsServiceStub, name: str, state: int) -> jobs_pb2.Job:
    for response in stub.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=60):
        if response.job.spec.name == name and response.job.state == state:
            return response.job
    raise AssertionError(f"{name} never came into state {state}.")


def test_it_serves_is_healthy_and_keeps_its_jobs(start: Start) -> None:
    process = start()
    with open_channel(address(process)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("recorder.v1.JobsService", "recorder.v1.IngestService"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = health.Check(request, timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        spec = jobs_pb2.JobSpec(name="nightly", start_time="23:59", daily_iterations=0)
        job = stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10).job
        watch = stub.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=60)
        while not next(watch).synced:
            pass
        process.send_signal(signal.SIGTERM)
        assert list(watch) == []
        assert process.wait(30) == 0
    with open_channel(address(start())) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        assert list(stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10).jobs) == [job]


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_recording_goes_on_when_the_scheduler_was_ended(
    start: Start, end: signal.Signals
) -> None:
    process = start()
    at = address(process)
    uplink = Uplink(at, "node-a", "127.0.0.1")
    uplink.start()
    try:
        with open_channel(at) as channel:
            stub = jobs_pb2_grpc.JobsServiceStub(channel)
            spec = jobs_pb2.JobSpec(name="live")
            stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10)
            wait_for_state(stub, "live", jobs_pb2.JOB_STATE_RECORDING)
            uplink.send("live", 1, [("packets", packets(3))])
            assert uplink.flush(30)
            process.send_signal(end)
            process.wait(30)
        uplink.send("live", 1, [("packets", packets(4))])  # while it is away
        again = start(at)
        assert address(again) == at
        with open_channel(at) as channel:
            stub = jobs_pb2_grpc.JobsServiceStub(channel)
            assert uplink.flush(30)
            uplink.send("live", 1, [("packets", packets(5))], final=True)
            assert uplink.flush(30)
            job = stub.StopJob(jobs_pb2.StopJobRequest(name="live"), timeout=30).job
    finally:
        uplink.stop()
    assert job.state == jobs_pb2.JOB_STATE_STOPPED
    [run] = job.runs
    # So soon after a restart the run still waits for agents that have yet to reconnect.
    assert (run.state, run.packets) == (jobs_pb2.JOB_STATE_RECORDING, 12)
    assert list(run.nodes) == ["node-a"]


def test_an_agent_learns_of_a_job_at_once_and_of_its_stop(start: Start, tmp_path: Path) -> None:
    at = address(start())
    uplink = Uplink(at, "node-a", "127.0.0.1")
    uplink.start()
    try:
        with open_channel(at) as channel:
            stub = jobs_pb2_grpc.JobsServiceStub(channel)
            assert uplink.wait_for_assignments(0, 30)
            assert uplink.assignments == ()
            spec = jobs_pb2.JobSpec(name="live", kfl="dns", duration_minutes=1, body_limit=7)
            stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10)
            assert uplink.wait_for_assignments(1, 30)
            [assignment] = uplink.assignments
            wait_for_state(stub, "live", jobs_pb2.JOB_STATE_RECORDING)
            uplink.send("live", 1, [("packets", packets(5))], final=True)
            assert uplink.flush(30)
            assert (assignment.job, assignment.run, assignment.kfl) == ("live", 1, "dns")
            assert assignment.stop_ns - assignment.start_ns == 60 * 10**9
            assert assignment.body_limit == 7
            job = stub.StopJob(jobs_pb2.StopJobRequest(name="live"), timeout=30).job
            # It did not wait: the only agent had said that it was done.
            assert [run.state for run in job.runs] == [jobs_pb2.JOB_STATE_STOPPED]
            assert [run.packets for run in job.runs] == [5]
            recording = snapshot.open(tmp_path, "live")
            assert recording.tail("packets").num_rows == 0, "all is in Parquet"
            assert uplink.wait_for_assignments(2, 30)
            assert uplink.assignments == ()
    finally:
        uplink.stop()


def test_a_data_folder_has_one_scheduler(start: Start) -> None:
    first = start()
    address(first)
    second = start()
    _, said = second.communicate(timeout=30)
    assert second.returncode == 1
    assert "Another scheduler uses the data folder" in said
    assert "Traceback" not in said
    assert first.poll() is None


def test_an_address_that_is_taken_is_told_in_a_sentence(start: Start, tmp_path: Path) -> None:
    at = address(start())
    other = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "other"), at],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert other.returncode == 1
    assert f"Cannot listen on {at}: another process has that port." in other.stderr
    assert "Traceback" not in other.stderr
