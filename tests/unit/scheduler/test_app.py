"""The whole scheduler in this process: what start and stop leave behind."""

import threading

import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.runtime.channel import open_channel
from services.runtime.errors import UserError
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import Scheduler


def settings(data, listen="127.0.0.1:0"):
    return SchedulerSettings(listen=listen, data=data)


def names(address):
    with open_channel(address) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        jobs = stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10).jobs
        return [job.spec.name for job in jobs]


def test_jobs_are_there_after_a_restart_and_no_thread_is_left(tmp_path):
    before = set(threading.enumerate())
    scheduler = Scheduler(settings(tmp_path))
    with open_channel(scheduler.address) as channel:
        spec = jobs_pb2.JobSpec(name="nightly", start_time="23:59")
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10)
    scheduler.stop()
    ours = {thread.name for thread in set(threading.enumerate()) - before}
    assert not {name for name in ours if name.startswith(("lifecycle", "writer", "roller"))}
    again = Scheduler(settings(tmp_path))
    assert names(again.address) == ["nightly"]
    again.stop()


def test_a_second_scheduler_of_the_same_folder_is_refused(tmp_path):
    first = Scheduler(settings(tmp_path))
    with pytest.raises(UserError, match="Another scheduler uses the data folder"):
        Scheduler(settings(tmp_path))
    assert names(first.address) == []
    first.stop()


def test_what_cannot_start_leaves_the_folder_free(tmp_path):
    first = Scheduler(settings(tmp_path / "a"))
    with pytest.raises(OSError, match="another process has that port"):
        Scheduler(settings(tmp_path / "b", first.address))
    first.stop()
    Scheduler(settings(tmp_path / "b")).stop()


def test_a_folder_that_cannot_be_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot use the data folder"):
        Scheduler(settings(tmp_path / "file"))
