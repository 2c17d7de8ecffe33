"""What other programs see: buf curl finds every method by reflection, and calls it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2

from tests.e2e.services import ROOT, Recorder
from tests.unit.capture.traffic import Conversation, write_pcap

IN_PROJECT = ROOT / ".cache/buf/node_modules/.bin/buf"
BUF = os.environ.get("BUF") or shutil.which("buf") or shutil.which(str(IN_PROJECT))

pytestmark = pytest.mark.skipif(BUF is None, reason=f"needs buf in {IN_PROJECT}, on PATH or in BUF")

COMMON = {
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}
JOBS = {
    f"{verb}Job"
    for verb in ("Create", "Get", "Stop", "Extend", "Pin", "Unpin", "Archive", "Delete")
}
JOBS |= {"ForecastJob", "ListJobs", "WatchJobs"}
QUERY = {"Query", "Export", "Check", "ListRecordings", "GetEntry", "GetStream", "Histogram", "Top"}
QUERY |= {"ServiceMap", "Connections", "Diff", "ListFields", "Complete", "Tokens", "Explain"}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Scheduler and query service, and a recording named shop."""
    made = Recorder(tmp_path_factory.mktemp("grpc"))
    try:
        made.start_scheduler()
        made.start_query()
        talk, file = Conversation(40001), made.folder / "shop.pcap"
        frames = talk.opening() + talk.call("/a", 200) + talk.call("/b", 500, b"oh")
        write_pcap(file, frames + talk.closing())
        made.say("import", str(file), "--record", "shop")
        yield made
    finally:
        made.close()


def buf(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert BUF is not None
    command = [BUF, "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments[:-1]]
    return subprocess.run(
        [*command, f"http://{address}{arguments[-1]}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def call(address: str, method: str, request: object) -> list[dict[str, Any]]:
    """Call a method; return the answers."""
    ran = buf(address, "-d", json.dumps(request), f"/recorder.v1.{method}")
    assert ran.returncode == 0, ran.stderr
    decoder, text, found = json.JSONDecoder(), ran.stdout.strip(), []
    while text:
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:].strip()
    return found


def refusal(address: str, method: str, request: object) -> tuple[str, dict[str, str]]:
    """Call a method that refuses; return the code and what is wrong with each field."""
    ran = buf(address, "-d", json.dumps(request), f"/recorder.v1.{method}")
    assert ran.returncode != 0, ran.stdout
    error = json.loads(ran.stderr)
    assert error["message"]
    violations: dict[str, str] = {}
    for detail in error.get("details", []):
        assert detail["type"] == "google.rpc.BadRequest"
        octets = detail["value"]
        bad = error_details_pb2.BadRequest.FromString(
            base64.b64decode(octets + "=" * (-len(octets) % 4))
        )
        violations |= {each.field: each.description for each in bad.field_violations}
    return error["code"], violations


def methods(address: str) -> set[str]:
    ran = buf(address, "--list-methods", "")
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def until(text: str, lines: Iterable[str]) -> None:
    """Read on until a line has the text."""
    assert any(text in line for line in lines), f"the watch ended before {text}"


def test_reflection_lists_every_method(serving: Recorder) -> None:
    of_scheduler = {f"recorder.v1.JobsService/{name}" for name in JOBS}
    of_scheduler |= {"recorder.v1.IngestService/Connect", "recorder.v1.LiveService/Watch"}
    of_query = {f"recorder.v1.QueryService/{name}" for name in QUERY}
    for address, wanted in (
        (serving.scheduler_address, of_scheduler),
        (serving.query_address, of_query),
    ):
        found = methods(address)
        assert {name for name in found if name.startswith("recorder.")} == wanted
        assert found >= COMMON


def test_health_is_told_for_each_service(serving: Recorder) -> None:
    for address, name in (
        (serving.scheduler_address, "recorder.v1.JobsService"),
        (serving.scheduler_address, "recorder.v1.IngestService"),
        (serving.query_address, "recorder.v1.QueryService"),
    ):
        ran = buf(address, "-d", json.dumps({"service": name}), "/grpc.health.v1.Health/Check")
        assert json.loads(ran.stdout) == {"status": "SERVING"}


def test_a_job_lives_and_ends(serving: Recorder) -> None:
    at = serving.scheduler_address
    spec = {"name": "life", "kfl": "http", "durationMinutes": 1}
    [created] = call(at, "JobsService/CreateJob", {"spec": spec})
    assert created["job"]["spec"]["expirationMinutes"] == 2880
    assert created["job"]["state"] in ("JOB_STATE_SCHEDULED", "JOB_STATE_RECORDING")
    [found] = call(at, "JobsService/GetJob", {"name": "life"})
    assert found["job"]["spec"] == created["job"]["spec"]
    [listed] = call(at, "JobsService/ListJobs", {})
    assert [job["spec"]["name"] for job in listed["jobs"]] == ["shop", "life"]
    assert listed["jobs"][0]["state"] == "JOB_STATE_COMPLETED"
    assert listed["jobs"][0]["runs"][0]["entries"] == "2"

    watch = subprocess.Popen(
        [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", "{}",
         f"http://{at}/recorder.v1.JobsService/WatchJobs"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # buf from npm is a process that starts another one
    )  # fmt: skip
    try:
        assert watch.stdout is not None
        lines = watch.stdout
        until('"life"', lines)
        [stopped] = call(at, "JobsService/StopJob", {"name": "life"})
        assert stopped["job"]["state"] == "JOB_STATE_STOPPED"
        until("JOB_STATE_STOPPED", lines)
        assert call(at, "JobsService/DeleteJob", {"name": "life"}) == [{}]
        until('"deleted": true', lines)
    finally:
        os.killpg(watch.pid, signal.SIGKILL)
        watch.communicate()
    assert refusal(at, "JobsService/GetJob", {"name": "life"})[0] == "not_found"


def test_a_recording_is_asked_checked_and_exported(serving: Recorder, tmp_path: Path) -> None:
    at = serving.query_address
    [listed] = call(at, "QueryService/ListRecordings", {})
    [shop] = listed["recordings"]
    assert (shop["name"], shop["runs"], shop["entries"]) == ("shop", 1, "2")

    question = {"kfl": 'record("shop") and response.status == 500'}
    entry, counts, status = call(at, "QueryService/Query", question)
    assert entry["entry"]["request"]["path"] == "/b"
    assert entry["entry"]["response"]["status"] == 500
    assert status["status"]["entries"] == "1"
    assert status["status"]["entriesScanned"] == "2"
    told = counts["counts"]
    assert told["recording"] == "shop"
    assert int(told["storedPackets"]) == int(told["matchedPackets"]) > 0, told
    text, *_ = call(at, "QueryService/Query", {**question, "format": "ENTRY_FORMAT_JSON"})
    assert json.loads(text["json"]) == entry["entry"]
    arrow, *_ = call(at, "QueryService/Query", {**question, "format": "ENTRY_FORMAT_ARROW"})
    assert base64.b64decode(arrow["arrowIpc"])

    parts = call(at, "QueryService/Export", {"kfl": 'record("shop")'})
    file = tmp_path / "shop.pcapng"
    file.write_bytes(b"".join(base64.b64decode(part.get("chunk", "")) for part in parts))
    assert len(serving.say("dissect", str(file)).lines) == 2

    [checked] = call(at, "QueryService/Check", question)
    assert checked["ok"]
    assert checked["recordings"] == ["shop"]
    [checked] = call(at, "QueryService/Check", {"kfl": "http and\nrespons.status == 500"})
    [wrong] = checked["diagnostics"]
    assert (wrong["isError"], wrong["line"], wrong["column"]) == (True, 2, 1)
    assert "response" in wrong["suggestion"]


def test_an_agent_is_welcomed_and_given_its_assignments(serving: Recorder) -> None:
    at = serving.scheduler_address
    serving.say("jobs", "create", "now", "--kfl", "dns")
    hello = {"protocolVersion": 1, "agentId": "node-9-1", "node": "node-9", "nodeIp": "10.0.0.9"}
    welcome, assigned = call(at, "IngestService/Connect", {"hello": hello})
    assert int(welcome["welcome"]["maxBatchBytes"]) > 1 << 20
    [run] = assigned["assignments"]["assignments"]
    assert (run["job"], run["run"], run["kfl"]) == ("now", 1, "dns")
    serving.say("jobs", "delete", "now")
    wrong = {**hello, "protocolVersion": 7}
    assert refusal(at, "IngestService/Connect", {"hello": wrong})[0] == "failed_precondition"
    batch = {"batch": {"sequence": 1, "job": "shop", "run": 1}}
    assert refusal(at, "IngestService/Connect", batch)[0] == "invalid_argument"


def test_what_is_wrong_is_told_field_by_field(serving: Recorder) -> None:
    at = serving.scheduler_address
    before = call(at, "JobsService/ListJobs", {})
    spec = {
        "name": "../shop",
        "kfl": "respons.status == 500",
        "startTime": "25:00",
        "dailyIterations": 100_000,
        "durationMinutes": 0,
        "expirationMinutes": 0,
        "bodyLimit": 4_000_000_000,
    }
    code, wrong = refusal(at, "JobsService/CreateJob", {"spec": spec})
    assert code == "invalid_argument"
    assert set(wrong) == {
        *("spec.name", "spec.kfl", "spec.start_time", "spec.daily_iterations"),
        *("spec.duration_minutes", "spec.expiration_minutes", "spec.body_limit"),
    }
    assert "line 1, column 1" in wrong["spec.kfl"]
    assert "Did you mean response" in wrong["spec.kfl"]
    assert refusal(at, "JobsService/CreateJob", {"spec": {"name": "shop"}})[0] == "already_exists"
    assert set(refusal(at, "JobsService/CreateJob", {})[1]) == {"spec.name"}
    assert call(at, "JobsService/ListJobs", {}) == before
    assert sorted(path.name for path in (serving.data / "recordings").iterdir()) == ["shop"]

    at = serving.query_address
    for method in ("Query", "Export"):
        code, wrong = refusal(at, f"QueryService/{method}", {"kfl": 'record("shop") and ('})
        assert code == "invalid_argument"
        assert set(wrong) == {"kfl"}
        assert refusal(at, f"QueryService/{method}", {"kfl": 'record("shp")'})[0] == "not_found"
