"""A real server on loopback, asked by a real client."""

import json
import socket
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from recorder.v1 import jobs_pb2, jobs_pb2_grpc
from structlog.testing import capture_logs

from services.runtime.channel import open_channel
from services.runtime.errors import (
    UserError,
    Violation,
    already_exists,
    failed_precondition,
    invalid_argument,
    not_found,
    read_violations,
)
from services.runtime.server import serve

BUF = Path(__file__).parents[3] / ".cache/buf/node_modules/.bin/buf"


class Jobs(jobs_pb2_grpc.JobsServiceServicer):
    def CreateJob(self, request, context):  # noqa: N802
        invalid_argument(
            context,
            [
                Violation("spec.name", "'A B' has a space; use a-z, 0-9, - and _."),
                Violation("spec.kfl", "Line 1, column 3: expected a value."),
            ],
        )

    def GetJob(self, request, context):  # noqa: N802
        match request.name:
            case "absent":
                not_found(context, "There is no job 'absent'.")
            case "taken":
                already_exists(context, "There is a job 'taken'.")
            case "ended":
                failed_precondition(context, "The job 'ended' has ended.")
            case "wrong":
                raise UserError("That cannot be asked.")
            case "bug":
                raise KeyError("secret\nsecond line")
        return jobs_pb2.GetJobResponse(job=jobs_pb2.Job(reason=request.name))

    def WatchJobs(self, request, context):  # noqa: N802
        yield jobs_pb2.WatchJobsResponse(deleted=True)
        raise ZeroDivisionError("after one")


def add_jobs(server):
    jobs_pb2_grpc.add_JobsServiceServicer_to_server(Jobs(), server)
    return ["recorder.v1.JobsService"]


@pytest.fixture
def server():
    running = serve("127.0.0.1:0", add_jobs, workers=4)
    yield running
    running.stop(0)


@pytest.fixture
def stub(server):
    with open_channel(server.address) as channel:
        yield jobs_pb2_grpc.JobsServiceStub(channel)


def get(stub, name):
    return stub.GetJob(jobs_pb2.GetJobRequest(name=name))


def test_answers_on_a_free_port(server, stub):
    assert server.port > 0
    assert get(stub, "x").job.reason == "x"


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("absent", grpc.StatusCode.NOT_FOUND, "There is no job 'absent'."),
        ("taken", grpc.StatusCode.ALREADY_EXISTS, "There is a job 'taken'."),
        ("ended", grpc.StatusCode.FAILED_PRECONDITION, "The job 'ended' has ended."),
        ("wrong", grpc.StatusCode.INVALID_ARGUMENT, "That cannot be asked."),
    ],
)
def test_errors_have_a_code_and_a_sentence(stub, name, code, sentence):
    with pytest.raises(grpc.RpcError) as caught:
        get(stub, name)
    assert (caught.value.code(), caught.value.details()) == (code, sentence)
    assert read_violations(caught.value) == []


def test_violations_come_back_as_they_were_sent(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.CreateJob(jobs_pb2.CreateJobRequest())
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in read_violations(caught.value)] == ["spec.name", "spec.kfl"]
    assert "expected a value" in read_violations(caught.value)[1].description
    assert "spec.name: 'A B' has a space" in caught.value.details()


def test_a_bug_is_one_line_for_the_caller_and_a_traceback_in_the_log(stub):
    with capture_logs() as lines, pytest.raises(grpc.RpcError) as caught:
        get(stub, "bug")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "GetJob failed inside the service: KeyError" in caught.value.details()
    assert "\n" not in caught.value.details()
    assert lines[0]["method"] == "/recorder.v1.JobsService/GetJob"
    assert "Traceback" in lines[0]["exception"]
    assert get(stub, "still there").job.reason == "still there"


def test_a_bug_in_a_stream_comes_after_what_was_sent(stub):
    answers = stub.WatchJobs(jobs_pb2.WatchJobsRequest())
    assert next(answers).deleted
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_health_and_reflection_for_all_services(server):
    with open_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "recorder.v1.JobsService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        answers = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        names = {service.name for service in next(answers).list_services_response.service}
    assert {"recorder.v1.JobsService", "grpc.health.v1.Health"} <= names


@pytest.mark.skipif(not BUF.exists(), reason="buf is not in .cache/buf; .ci/run puts it there")
def test_buf_curl_by_reflection(server):
    answer = subprocess.run(
        [
            *(BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge"),
            *("-d", '{"name": "by-curl"}'),
            f"http://{server.address}/recorder.v1.JobsService/GetJob",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["job"]["reason"] == "by-curl"


def test_a_message_above_the_limit_is_refused(stub):
    with pytest.raises(grpc.RpcError) as caught:
        get(stub, "x" * (17 << 20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(get(stub, "x" * (15 << 20)).job.reason) == 15 << 20


def test_a_port_that_is_taken_is_a_sentence(server):
    with pytest.raises(OSError, match=r"another process has that port.*--listen"):
        serve(server.address, add_jobs)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(OSError, match="another process"):
            serve(f"127.0.0.1:{other.getsockname()[1]}", add_jobs)


def test_an_address_of_another_machine_is_a_sentence():
    with pytest.raises(OSError, match=r"^Cannot listen on 192\.0\.2\.1:1000: .*--listen"):
        serve("192.0.2.1:1000", add_jobs)


def test_after_stop_nothing_answers():
    running = serve("127.0.0.1:0", add_jobs)
    running.stop(0)
    with open_channel(running.address) as channel, pytest.raises(grpc.RpcError) as caught:
        get(jobs_pb2_grpc.JobsServiceStub(channel), "x")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
