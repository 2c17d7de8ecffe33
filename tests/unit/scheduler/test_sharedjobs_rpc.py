"""Any of several schedulers answers people as the leader does."""

import threading

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.runtime.channel import open_channel
from services.runtime.settings import SchedulerSettings
from services.scheduler import sharedjobs_rpc
from services.scheduler.app import Scheduler

pytestmark = pytest.mark.postgresql


@pytest.fixture
def schedulers(tmp_path, postgresql):
    url = postgresql.database()
    made = [
        Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=tmp_path / name, database_url=url))
        for name in ("one", "two")
    ]
    yield made
    for scheduler in made:
        scheduler.stop()


@pytest.fixture
def stubs(schedulers):
    channels = [open_channel(scheduler.address) for scheduler in schedulers]
    yield [jobs_pb2_grpc.JobsServiceStub(channel) for channel in channels]
    for channel in channels:
        channel.close()


def create(stub, name="nightly", **fields):
    spec = jobs_pb2.JobSpec(name=name, start_time="23:59", daily_iterations=0, **fields)
    return stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=30).job


def test_all_answer_alike(stubs):
    jobs = [create(stub, f"job-{number}") for number, stub in enumerate(stubs)]
    for stub in stubs:
        assert list(stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=30).jobs) == jobs


def test_a_refusal_is_passed_on_with_its_details(stubs):
    said = []
    for stub in stubs:
        with pytest.raises(grpc.RpcError) as refused:
            create(stub, "Not A Name", duration_minutes=99_999)
        status = rpc_status.from_call(refused.value)
        details = error_details_pb2.BadRequest()
        assert status.details[0].Unpack(details)
        said.append((status.code, status.message, details))
    assert said[0] == said[1]
    assert len(said[0][2].field_violations) == 2


def test_a_watch_at_any_sees_what_is_changed_at_another(stubs):
    for watched, changed in (stubs, stubs[::-1]):
        watch = watched.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=60)
        assert any(answer.synced for answer in watch)
        create(changed, "watched")
        assert any(answer.job.spec.name == "watched" for answer in watch)
        changed.DeleteJob(jobs_pb2.DeleteJobRequest(name="watched"), timeout=30)
        assert any(answer.deleted for answer in watch)
        watch.cancel()


def test_calls_wait_for_the_next_leader(schedulers, stubs):
    create(stubs[0])
    for stub in stubs:
        stub.GetJob(jobs_pb2.GetJobRequest(name="nightly"), timeout=30)
    stopping = threading.Thread(target=schedulers[0].stop)
    stopping.start()
    while stopping.is_alive():
        found = stubs[1].GetJob(jobs_pb2.GetJobRequest(name="nightly"), timeout=30)
        assert found.job.spec.name == "nightly"
    stopping.join()
    assert create(stubs[1], "new").spec.name == "new"


def test_without_a_leader_a_call_ends_with_a_sentence(schedulers, stubs, monkeypatch):
    monkeypatch.setattr(sharedjobs_rpc, "LEADER_SECONDS", 0.5)
    passed_on = ((sharedjobs_rpc.PASSED_ON, "1"),)
    create(stubs[0])
    followers = [stub for stub in stubs if not answers(stub, passed_on)]
    assert len(followers) == 1
    with pytest.raises(grpc.RpcError) as refused:
        followers[0].ListJobs(jobs_pb2.ListJobsRequest(), metadata=passed_on, timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "No scheduler leads now; try again in a moment."


def answers(stub, metadata):
    try:
        stub.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata, timeout=30)
    except grpc.RpcError:
        return False
    return True
