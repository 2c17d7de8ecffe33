"""The query service as a process of its own, as in a container."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from recorder.v1 import query_pb2, query_pb2_grpc

from services.runtime.channel import open_channel

PROGRAM = """
import sys
from pathlib import Path
from services.query.app import run
from services.runtime.logging import configure
from services.runtime.settings import QuerySettings
configure(format="json")
sys.exit(run(QuerySettings(listen="127.0.0.1:0", data=Path(sys.argv[1]), grace_seconds=10)))
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "recordings").mkdir()
    started = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    yield started
    if started.poll() is None:
        started.kill()
    started.communicate()


def address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r'"address": ?"([^"]+)"', line)
        if found:
            return found[1]
    raise AssertionError("The process did not say where it serves.")


def test_it_serves_is_healthy_and_ends_on_sigterm(
    process: subprocess.Popen[str], tmp_path: Path
) -> None:
    with open_channel(address(process)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="recorder.v1.QueryService")
        answer = health.Check(request, timeout=30)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = query_pb2_grpc.QueryServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.Query(query_pb2.QueryRequest(kfl="http"), timeout=30))
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        assert len(list(tmp_path.glob("recorder-query-*"))) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert list(tmp_path.glob("recorder-query-*")) == []


def test_all_that_can_be_asked_is_answered_by_a_process(
    process: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Every RPC over an empty folder: a sentence, or an answer, and never UNIMPLEMENTED."""
    told = {}
    with open_channel(address(process)) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        service = query_pb2.DESCRIPTOR.services_by_name["QueryService"]
        for method in service.methods:
            request = getattr(query_pb2, method.input_type.name)()
            try:
                answer = getattr(stub, method.name)(request, timeout=30)
                if method.server_streaming:
                    list(answer)
                told[method.name] = grpc.StatusCode.OK
            except grpc.RpcError as error:
                told[method.name] = error.code()
    asked = {"Check", "Complete", "Explain", "ListFields", "ListRecordings", "Tokens"}
    assert {name for name, code in told.items() if code == grpc.StatusCode.OK} == asked
    wrong = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
    assert {told[name] for name in told.keys() - asked} <= set(wrong)
