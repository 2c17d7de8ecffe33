"""Every example of docs/clients.md, run as it stands there against real services."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import NODE, ROOT
from tests.e2e.test_grpc import BUF
from tests.unit.gateway.conftest import Served

TEXT = (ROOT / "docs" / "clients.md").read_text()

BLOCKS = re.findall(r"^```(sh|python|js)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(served: Served, tmp_path: Path) -> Path:
    """A folder with what the examples expect in the current one."""
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    (tmp_path / ".data").symlink_to(served.data)
    (tmp_path / "node_modules").symlink_to(NODE)
    return tmp_path


def example(words: str) -> tuple[str, str]:
    """Language and text of the one example that has these words."""
    (found,) = [(language, text) for language, text in BLOCKS if words in text]
    return found


def run(words: str, served: Served, folder: Path) -> str:
    """Run the example; return what it writes."""
    language, text = example(words)
    for port, address in (
        (8897, served.scheduler),
        (8898, served.query),
        (8899, served.gateway),
    ):
        text = text.replace(f"127.0.0.1:{port}", address)
    command = {
        "sh": ["bash", "-euc", text],
        "python": [sys.executable, "-W", "error", "-c", text],
        "js": ["node", "-e", text],
    }[language]
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    if BUF:
        path.insert(0, str(Path(BUF).parent))
    # The generated modules are those of the example, and not those of the project.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**variables, "PATH": ":".join(path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_run_by_a_test_of_this_file() -> None:
    here = Path(__file__).read_text()
    words = re.findall(r'run\("([^"]+)", served', here)
    assert sorted(example(each)[1] for each in words) == sorted(text for _, text in BLOCKS)


def test_curl_makes_a_job_and_stops_it(served: Served, folder: Path) -> None:
    said = run("errors:stop", served, folder)
    assert '"name":"shop"' in said
    assert "JOB_STATE_STOPPED" in said
    assert httpx.delete(f"http://{served.gateway}/api/v1/jobs/errors").status_code == 200


def test_curl_reads_lines(served: Served, folder: Path) -> None:
    lines = [json.loads(line) for line in run("-d limit=3", served, folder).splitlines()]
    assert [next(iter(line)) for line in lines] == ["entry"] * 3 + ["loss", "status"]


def test_curl_listens_to_events(served: Served, folder: Path) -> None:
    said = run("text/event-stream", served, folder)
    assert said.count("event: entry\n") == 10
    assert "event: status\n" in said
    assert "event: end\n" not in said


def test_curl_watches_live_traffic(served: Served, folder: Path) -> None:
    assert '"status":' in run("-d follow=true --max-time 2", served, folder)


def test_curl_saves_an_export(served: Served, folder: Path) -> None:
    run("-OJ", served, folder)
    assert (folder / "shop.pcapng").read_bytes()[:4] == b"\n\r\r\n"


def test_an_arrow_stream_becomes_a_data_frame(served: Served, folder: Path) -> None:
    assert "12431.0" in run("vnd.apache.arrow", served, folder)


@pytest.mark.skipif(BUF is None, reason="needs buf in .cache/buf, on PATH or in BUF")
def test_buf_asks_by_reflection(served: Served, folder: Path) -> None:
    said = run("buf curl", served, folder)
    assert "recorder.v1.QueryService/Query" in said
    assert '"entriesScanned"' in said


def test_a_generated_client_in_python(served: Served, folder: Path) -> None:
    run("grpc_tools.protoc", served, folder)
    assert run("query_pb2_grpc.QueryServiceStub", served, folder).split() == [
        *("/api/cart", "500"),
        *("/api/cart", "200"),
        *("/api/cart", "200"),
    ]


@pytest.mark.node
def test_a_generated_client_in_node(served: Served, folder: Path) -> None:
    job = {"name": "seen-by-node", "startTime": "03:00"}
    url = f"http://{served.gateway}/api/v1/jobs"
    assert httpx.post(url, json=job).status_code == 201
    said = run("grpc.loadPackageDefinition", served, folder)
    assert httpx.delete(f"{url}/seen-by-node").status_code == 200
    assert "seen-by-node JOB_STATE_SCHEDULED\n" in said
    assert [line for line in said.splitlines() if line.isdigit()] == ["500", "200", "200"]


def test_duckdb_reads_the_files(served: Served, folder: Path) -> None:
    said = run("duckdb.sql", served, folder)
    assert re.search(r"200\D+30\D", said)
    assert re.search(r"500\D+10\D", said)


def test_pandas_reads_the_files(served: Served, folder: Path) -> None:
    said = run("pandas.read_parquet", served, folder)
    assert re.search(r"^200\D* 30$", said, re.MULTILINE)


def test_the_tools_are_there() -> None:
    assert shutil.which("curl"), "needs curl, as .ci/run installs it"
