"""JobsService over a real gRPC server on loopback, as clients see it."""

import threading
from datetime import timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.runtime.channel import open_channel
from services.runtime.errors import Violation, read_violations
from services.runtime.server import serve
from services.scheduler.jobs_rpc import JobsService

SECOND, MINUTE, HOUR = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours"))


MACROS = {"https": "tls and (http or http2)", "mine": 'record("mine")'}


@pytest.fixture
def stub(world):
    def add(server):
        service = JobsService(world.lifecycle, MACROS)
        jobs_pb2_grpc.add_JobsServiceServicer_to_server(service, server)
        return [jobs_pb2.DESCRIPTOR.services_by_name["JobsService"].full_name]

    server = serve("127.0.0.1:0", add)
    channel = open_channel(server.address)
    yield jobs_pb2_grpc.JobsServiceStub(channel)
    channel.close()
    server.stop(0)


def create(stub, **fields):
    fields.setdefault("name", "checkout")
    request = jobs_pb2.CreateJobRequest(spec=jobs_pb2.JobSpec(**fields))
    return stub.CreateJob(request, timeout=10).job


def refused(call, *arguments, **fields) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **fields)
    return caught.value


def violations(stub, **fields) -> list[Violation]:
    error = refused(create, stub, **fields)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    return read_violations(error)


def stamp(time) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message


def test_defaults_are_filled_in(stub, world):
    job = create(stub)
    assert job.spec == jobs_pb2.JobSpec(
        name="checkout",
        kfl="http or dns",
        daily_iterations=1,
        duration_minutes=240,
        expiration_minutes=2880,
        body_limit=65536,
    )
    assert job.state == jobs_pb2.JOB_STATE_SCHEDULED
    assert job.create_time == stamp(world.clock.now())
    assert job.next_start_time == stamp(world.clock.now() + SECOND)
    assert list(job.runs) == []


def test_what_is_asked_for_is_kept(stub):
    spec = jobs_pb2.JobSpec(
        name="night_1-a",
        kfl="response.status == 500",
        start_time="22:30",
        daily_iterations=0,
        duration_minutes=1,
        expiration_minutes=1,
        body_limit=0,
    )
    job = stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10).job
    assert job.spec == spec
    assert job.next_start_time.ToDatetime().isoformat() == "2028-02-28T22:30:00"
    assert stub.GetJob(jobs_pb2.GetJobRequest(name="night_1-a"), timeout=10).job == job


def test_a_job_shows_its_runs(stub, world):
    create(stub, duration_minutes=1)
    world.move(SECOND)
    began = world.clock.now()
    job = stub.GetJob(jobs_pb2.GetJobRequest(name="checkout"), timeout=10).job
    assert job.state == jobs_pb2.JOB_STATE_RECORDING
    assert not job.HasField("next_start_time")
    [run] = job.runs
    assert (run.number, run.state) == (1, jobs_pb2.JOB_STATE_RECORDING)
    assert (run.start_time, run.end_time) == (stamp(began), stamp(began + MINUTE))
    assert run.bytes > 0
    assert not run.HasField("expire_time")
    world.move(HOUR)
    [run] = stub.GetJob(jobs_pb2.GetJobRequest(name="checkout"), timeout=10).job.runs
    assert run.state == jobs_pb2.JOB_STATE_COMPLETED
    assert run.expire_time == stamp(began + MINUTE + 2880 * MINUTE)


def test_jobs_are_listed_oldest_first(stub, world):
    for name in ("zebra", "apple"):
        create(stub, name=name)
        world.move(SECOND)
    jobs = stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10).jobs
    assert [job.spec.name for job in jobs] == ["zebra", "apple"]


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "_a", "a b", "../etc", "a/b", "a.b", "a" * 64, "ä", "a\n", "a\0"]
)
def test_a_wrong_name_is_named(stub, world, name):
    [violation] = violations(stub, name=name)
    assert violation.field == "spec.name"
    assert violation.description
    assert not (world.data / "recordings" / "checkout").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start_time", "25:00"),
        ("start_time", "noon"),
        ("daily_iterations", 3651),
        ("duration_minutes", 0),
        ("duration_minutes", 1441),
        ("duration_minutes", 2**32 - 1),
        ("expiration_minutes", 0),
        ("expiration_minutes", 2**32 - 1),
        ("body_limit", 2**32 - 1),
        ("kfl", "response.status =="),
        ("kfl", "respnse.status == 500"),
        ("kfl", 'record("checkout") and http'),
        ("kfl", "(" * 5000),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_kept(stub, world, field, value):
    [violation] = violations(stub, **{field: value})
    assert violation.field == f"spec.{field}"
    assert world.lifecycle.jobs() == []
    assert not (world.data / "recordings" / "checkout").exists()
    create(stub)


def test_a_wrong_filter_is_told_with_its_place_and_what_would_be_right(stub):
    [violation] = violations(stub, kfl="http and\n respons.status == 500")
    assert "line 2, column 2" in violation.description
    assert "response" in violation.description


def test_a_number_that_is_wrong_is_told_with_what_would_be_right(stub):
    assert violations(stub, duration_minutes=1441) == [
        Violation("spec.duration_minutes", "1441 is out of range: 1 to 1440 minutes.")
    ]


def test_all_that_is_wrong_is_told_at_once(stub):
    found = violations(
        stub, name="A", kfl="((", start_time="9", duration_minutes=0, expiration_minutes=0
    )
    assert [violation.field for violation in found] == [
        "spec.name",
        "spec.kfl",
        "spec.start_time",
        "spec.duration_minutes",
        "spec.expiration_minutes",
    ]


def test_an_imported_job_has_no_timetable(stub):
    found = violations(stub, imported=True, start_time="10:00", daily_iterations=2)
    assert [v.field for v in found] == ["spec.start_time", "spec.daily_iterations"]
    job = create(stub, imported=True)
    assert job.state == jobs_pb2.JOB_STATE_RECORDING


def test_a_request_without_a_spec_is_answered_with_a_sentence(stub):
    error = refused(stub.CreateJob, jobs_pb2.CreateJobRequest(), timeout=10)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "name of a recording is empty" in error.details()


def test_a_name_that_is_taken(stub):
    create(stub)
    error = refused(create, stub)
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    assert error.details().startswith("There is a job named checkout already: it is scheduled.")


def test_of_many_who_want_a_name_one_gets_it(stub):
    results = []

    def ask():
        try:
            results.append(create(stub).spec.name)
        except grpc.RpcError as error:
            results.append(error.code())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("checkout") == 1
    assert results.count(grpc.StatusCode.ALREADY_EXISTS) == 7


@pytest.mark.parametrize("method", ["GetJob", "StopJob", "DeleteJob"])
def test_a_job_that_is_not_there(stub, method):
    create(stub)
    request = getattr(jobs_pb2, f"{method}Request")
    error = refused(getattr(stub, method), request(name="chekout"), timeout=10)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "There is no job named chekout. Did you mean checkout?"
    error = refused(getattr(stub, method), request(name="../x"), timeout=10)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in read_violations(error)] == ["name"]


def test_stop_and_delete(stub, world):
    create(stub)
    world.move(MINUTE)
    job = stub.StopJob(jobs_pb2.StopJobRequest(name="checkout"), timeout=10).job
    assert job.state == jobs_pb2.JOB_STATE_STOPPED
    assert [run.state for run in job.runs] == [jobs_pb2.JOB_STATE_STOPPED]
    assert world.folders() == [1]
    stub.DeleteJob(jobs_pb2.DeleteJobRequest(name="checkout"), timeout=10)
    assert world.folders() == []
    assert list(stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=10).jobs) == []


def test_what_has_ended_cannot_be_stopped(stub, world):
    create(stub, duration_minutes=1)
    world.move(HOUR)
    error = refused(stub.StopJob, jobs_pb2.StopJobRequest(name="checkout"), timeout=10)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "The job checkout has ended already: it is completed."


def test_watchers_see_every_job_and_each_change(stub, world):
    create(stub, name="first")
    watch = stub.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=30)

    def next_seen():
        response = next(watch)
        return response.job.spec.name, response.job.state, response.deleted

    assert next_seen() == ("first", jobs_pb2.JOB_STATE_SCHEDULED, False)
    create(stub, name="second", start_time="22:00")
    assert next_seen() == ("second", jobs_pb2.JOB_STATE_SCHEDULED, False)
    world.move(SECOND)
    assert next_seen() == ("first", jobs_pb2.JOB_STATE_RECORDING, False)
    stub.DeleteJob(jobs_pb2.DeleteJobRequest(name="second"), timeout=10)
    assert next_seen() == ("second", jobs_pb2.JOB_STATE_SCHEDULED, True)
    watch.cancel()


def test_watchers_are_let_go_when_the_scheduler_ends(stub, world):
    create(stub)
    watch = stub.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=30)
    next(watch)
    world.lifecycle.stop()
    assert list(watch) == []


def test_a_full_storage_is_told_and_nothing_is_kept(stub, world):
    world.writer._quota.adopt(64 << 20)
    error = refused(create, stub)
    world.writer._quota.release(64 << 20)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "storage limit of 64 MiB" in error.details()
    assert world.lifecycle.jobs() == []


def test_a_job_keeps_what_words_of_operators_meant_when_it_was_created(stub, world):
    job = create(stub, kfl="https and  status_code >= 500")
    assert job.spec.kfl == "https and  status_code >= 500"  # as it was written
    assert job.expanded_kfl == "tls and (http or http2) and status_code >= 500"
    assert create(stub, name="plain", start_time="23:59", kfl="http  or dns").expanded_kfl == ""
    world.move(2 * SECOND)
    assert [a.kfl for a in world.lifecycle.assignments()[1]] == [job.expanded_kfl]
    world.restart()  # perhaps with other words
    assert [a.kfl for a in world.lifecycle.assignments()[1]] == [job.expanded_kfl]


def test_what_is_wrong_with_words_of_operators_is_said(stub):
    (wrong,) = violations(stub, kfl="htps")
    assert "Did you mean" in wrong.description
    assert "https" in wrong.description
    (wrong,) = violations(stub, kfl="mine and http")
    assert "what is recorded already" in wrong.description
    (wrong,) = violations(stub, kfl=" or ".join(["https"] * 1200))
    assert "With the words of operators put in" in wrong.description
