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
        run_missed=jobs_pb2.RUN_MISSED_LATE,
        on_full=jobs_pb2.ON_FULL_STOP,
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
        run_missed=jobs_pb2.RUN_MISSED_SKIP,
        labels={"team": "shop", "example.com/tier": "web"},
        description="What fails at night",
        size_limit_bytes=1 << 30,
        on_full=jobs_pb2.ON_FULL_DROP_OLDEST,
    )
    job = stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=10).job
    assert job.spec == spec
    assert job.next_start_time.ToDatetime().isoformat() == "2028-02-28T22:30:00"
    assert stub.GetJob(jobs_pb2.GetJobRequest(name="night_1-a"), timeout=10).job == job
    starts = [time.ToDatetime().isoformat() for time in job.next_start_times]
    assert starts[0] == "2028-02-28T22:30:00"
    assert starts[1:] == [
        f"{day}T22:30:00" for day in ("2028-02-29", "2028-03-01", "2028-03-02", "2028-03-03")
    ]


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
        ("duration_minutes", 43201),
        ("duration_minutes", 2**32 - 1),
        ("expiration_minutes", 0),
        ("expiration_minutes", 2**32 - 1),
        ("body_limit", 2**32 - 1),
        ("run_missed", 9),
        ("on_full", 9),
        ("labels", {"a b": "c"}),
        ("labels", {"a": "-"}),
        ("labels", {f"l{n}": "" for n in range(65)}),
        ("description", "x" * 1025),
        ("description", "\x1b[2J"),
        ("size_limit_bytes", 1000),
        ("size_limit_bytes", 2**60),
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
    assert violations(stub, expiration_minutes=0) == [
        Violation("spec.expiration_minutes", "0 is out of range: 1 to 5256000 minutes.")
    ]


def test_daily_runs_that_would_overlap_are_refused(stub):
    [violation] = violations(stub, duration_minutes=1441, daily_iterations=2)
    assert violation.field == "spec.duration_minutes"
    assert "daily runs would overlap" in violation.description
    assert create(stub, duration_minutes=2 * 1440).spec.duration_minutes == 2880


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
        while response.synced:
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


def changes_until_synced(watch):
    seen = []
    while not (response := next(watch)).synced:
        seen.append((response.job.spec.name, response.deleted))
    return sorted(seen), response


def test_a_watcher_that_comes_back_gets_what_has_changed_since(stub, world):
    for name in ("same", "changed", "deleted"):
        create(stub, name=name, start_time="22:00")
    watch = stub.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=30)
    seen, synced = changes_until_synced(watch)
    assert seen == [("changed", False), ("deleted", False), ("same", False)]
    watch.cancel()
    world.lifecycle.stop_job("changed")
    world.lifecycle.delete_job("deleted")
    world.create("fresh", start_time="22:00")
    request = jobs_pb2.WatchJobsRequest(after_revision=synced.revision)
    watch = stub.WatchJobs(request, timeout=30)
    seen, again = changes_until_synced(watch)
    assert seen == [("changed", False), ("deleted", True), ("fresh", False)]
    assert (again.revision > synced.revision, again.reset) == (True, False)
    watch.cancel()


def test_a_watcher_with_a_revision_that_is_not_known_gets_everything(stub, world):
    create(stub)
    watch = stub.WatchJobs(jobs_pb2.WatchJobsRequest(after_revision=1 << 40), timeout=30)
    seen, synced = changes_until_synced(watch)
    assert (seen, synced.reset) == ([("checkout", False)], True)
    watch.cancel()


def listed(stub, **fields):
    answer = stub.ListJobs(jobs_pb2.ListJobsRequest(**fields), timeout=10)
    return [job.spec.name for job in answer.jobs], answer.next_page_token


def test_jobs_are_found_by_words_states_and_labels(stub, world):
    create(stub, name="one", kfl="response.status == 500", labels={"team": "shop"})
    create(stub, name="two", start_time="22:00", description="Night of the Sale")
    create(stub, name="three", start_time="22:00", labels={"team": "web", "old": ""})
    world.move(2 * SECOND)
    assert listed(stub, search="STATUS 500")[0] == ["one"]
    assert listed(stub, search="sale")[0] == ["two"]
    assert listed(stub, search="team=web")[0] == ["three"]
    assert listed(stub, states=[jobs_pb2.JOB_STATE_SCHEDULED])[0] == ["three", "two"]
    assert listed(stub, labels="team")[0] == ["one", "three"]
    assert listed(stub, labels="team!=shop, !old")[0] == ["two"]
    assert listed(stub, labels="team=shop", states=[jobs_pb2.JOB_STATE_SCHEDULED])[0] == []
    for wrong in ({"labels": "a b"}, {"states": [77]}, {"page_size": 1001}, {"page_token": "?"}):
        error = refused(stub.ListJobs, jobs_pb2.ListJobsRequest(**wrong), timeout=10)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_pages_neither_repeat_nor_skip_when_jobs_come_and_go(stub, world):
    for name in ("a", "b", "c", "d"):
        create(stub, name=name, start_time="22:00")
        world.move(SECOND)
    first, token = listed(stub, page_size=2)
    assert first == ["a", "b"]
    world.lifecycle.delete_job("b")
    create(stub, name="e", start_time="22:00")
    second, token = listed(stub, page_size=2, page_token=token)
    assert second == ["c", "d"]
    assert listed(stub, page_size=2, page_token=token) == (["e"], "")
    request = jobs_pb2.ListJobsRequest(search="x", page_token=token)
    assert "another question" in refused(stub.ListJobs, request, timeout=10).details()


def test_a_job_that_is_extended_says_so_in_its_history(stub, world):
    create(stub, duration_minutes=10)
    world.move(MINUTE)
    request = jobs_pb2.ExtendJobRequest(name="checkout", duration_minutes=30, daily_iterations=2)
    job = stub.ExtendJob(request, timeout=10).job
    [run] = job.runs
    assert run.end_time.seconds - run.start_time.seconds == 30 * 60
    assert job.spec.daily_iterations == 2
    [change] = stub.GetJob(jobs_pb2.GetJobRequest(name="checkout"), timeout=10).changes[-1:]
    assert change.reason == "Extended by request: 2 days, run 1 lasts 30 minutes."
    assert change.from_state == change.to_state == jobs_pb2.JOB_STATE_RECORDING
    for wrong, code in (
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"duration_minutes": 0}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"daily_iterations": 9999}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"duration_minutes": 30}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"duration_minutes": 1500}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"daily_iterations": 1}, grpc.StatusCode.FAILED_PRECONDITION),
        ({"expiration_minutes": 60}, grpc.StatusCode.FAILED_PRECONDITION),
    ):
        request = jobs_pb2.ExtendJobRequest(name="checkout", **wrong)
        assert refused(stub.ExtendJob, request, timeout=10).code() is code


def test_what_is_pinned_is_kept_until_it_is_unpinned(stub, world):
    create(stub, duration_minutes=1)
    world.move(2 * MINUTE)
    request = jobs_pb2.PinJobRequest(name="checkout", run=1, reason="Case 4711")
    [run] = stub.PinJob(request, timeout=10).job.runs
    assert (run.pinned, run.HasField("expire_time")) == (True, False)
    world.move(100 * 24 * HOUR)
    assert world.folders() == [1]
    delete = jobs_pb2.DeleteJobRequest(name="checkout")
    error = refused(stub.DeleteJob, delete, timeout=10)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details().startswith("Run 1 of the job checkout is pinned.")
    changes = stub.GetJob(jobs_pb2.GetJobRequest(name="checkout"), timeout=10).changes
    assert (changes[-1].run, changes[-1].reason) == (1, "Pinned: Case 4711")
    stub.UnpinJob(jobs_pb2.UnpinJobRequest(name="checkout", run=1), timeout=10)
    assert world.folders() == []


def test_a_pinned_job_is_deleted_by_force(stub, world):
    create(stub, pinned=True)
    error = refused(stub.DeleteJob, jobs_pb2.DeleteJobRequest(name="checkout"), timeout=10)
    assert "The job checkout is pinned." in error.details()
    stub.DeleteJob(jobs_pb2.DeleteJobRequest(name="checkout", force=True), timeout=10)
    assert world.lifecycle.jobs() == []


def test_watchers_are_let_go_when_the_scheduler_ends(stub, world):
    create(stub)
    watch = stub.WatchJobs(jobs_pb2.WatchJobsRequest(), timeout=30)
    next(watch)
    world.lifecycle.stop()
    assert [response for response in watch if not response.synced] == []


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
    assert [a.kfl for a in world.lifecycle.sessions.assignments()[1]] == [job.expanded_kfl]
    world.restart()  # perhaps with other words
    assert [a.kfl for a in world.lifecycle.sessions.assignments()[1]] == [job.expanded_kfl]


def test_what_is_wrong_with_words_of_operators_is_said(stub):
    (wrong,) = violations(stub, kfl="htps")
    assert "Did you mean" in wrong.description
    assert "https" in wrong.description
    (wrong,) = violations(stub, kfl="mine and http")
    assert "what is recorded already" in wrong.description
    (wrong,) = violations(stub, kfl=" or ".join(["https"] * 1200))
    assert "With the words of operators put in" in wrong.description
