"""The same filters over gRPC and over HTTP, and by plain Python over the same entries."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pyarrow as pa
import pytest
from recorder.v1 import query_pb2, query_pb2_grpc

from services.query.app import App as Query
from services.runtime.channel import open_channel
from services.runtime.settings import QuerySettings
from tests.unit.gateway.conftest import gateway
from tests.unit.query import generated
from tests.unit.query.conftest import START_NS, written

FILTERS = [
    'record("mixed")',
    'record("web")',
    'record("mixed") or record("web")',
    'record("mixed") and http and response.status >= 500',
    'record("mixed") and response.status in [404, 503]',
    'record("mixed") and not (response.status == 200)',
    'record("mixed") and dns and request.questions.*.name == "b."',
    'record("mixed") and redis and request.command == "GET"',
    'record("mixed") and amqp',
    'record("mixed") and src.name == "größe" and dst.name != "cart"',
    'record("mixed") and src.name in ["日本", "a.b"]',
    'record("mixed") and request.path.startsWith("/api/")',
    'record("mixed") and request.path == r"^/api/.*[0-9]$"',
    'record("mixed") and request.headers["user-agent"] == "curl/8"',
    'record("mixed") and request.headers["User-Agent"] == r"日本"',
    'record("mixed") and response.body.contains("done")',
    'record("mixed") and response.body.json().state == "done"',
    'record("mixed") and elapsedTime > 300',
    'record("mixed") and elapsedTimeUs == 0',
    'record("mixed") and requestSize > 100 and responseSize < 5000',
    'record("mixed") and error.type == "timeout"',
    'record("mixed") and error == nil and tcp',
    'record("mixed") and src.port == 443 and node.name == "node-é"',
    'record("mixed") and src.ip == "10.0.0.1"',
    'record("mixed") and grpc and response.grpcStatus == 5',
    '(record("web") and http) or (record("mixed") and dns)',
    'record("mixed") and response.status == 999',
    'record("empty")',
]

Key = tuple[str, str]


@dataclass
class Both:
    """Clients of both, and all entries."""

    stub: query_pb2_grpc.QueryServiceStub
    http: httpx.Client
    entries: list[dict[str, Any]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """A query service over generated recordings, and a gateway before it."""
    with written(tmp_path_factory.mktemp("same") / "data") as disk:
        entries = generated.write(disk, START_NS)
        query = Query(QuerySettings(listen="127.0.0.1:0", data=disk.data))
        query.start()
        assert query.server is not None
        try:
            with (
                gateway("127.0.0.1:1", query.server.address) as address,
                open_channel(query.server.address) as channel,
                httpx.Client(base_url=f"http://{address}", timeout=60) as client,
            ):
                yield Both(query_pb2_grpc.QueryServiceStub(channel), client, entries)
        finally:
            query.stop()


def plain(entries: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """What the filter itself says, in the order of time."""
    found = generated.expected(entries, text)
    order = sorted(found, key=lambda e: (e["start_ns"], e["node"]["name"], e["stream"], e["index"]))
    return [{key: value for key, value in each.items() if key != "start_ns"} for each in order]


def over_grpc(both: Both, text: str) -> list[dict[str, Any]]:
    request = query_pb2.QueryRequest(kfl=text, format=query_pb2.ENTRY_FORMAT_JSON)
    parts = both.stub.Query(request, timeout=60)
    return [json.loads(part.json) for part in parts if part.WhichOneof("part") == "json"]


def over_http(both: Both, text: str) -> list[dict[str, Any]]:
    answer = both.http.get("/api/v1/query", params={"kfl": text})
    assert answer.status_code == 200, answer.text
    parts = [json.loads(line) for line in answer.text.splitlines()]
    return [part["entry"] for part in parts if "entry" in part]


def keys(entries: list[dict[str, Any]]) -> list[Key]:
    return [(entry["startTime"], entry["id"]) for entry in entries]


@pytest.mark.parametrize("text", FILTERS)
def test_grpc_http_and_python_say_the_same(both: Both, text: str) -> None:
    wanted = plain(both.entries, text)
    assert over_grpc(both, text) == wanted
    assert over_http(both, text) == wanted


@pytest.mark.parametrize("text", FILTERS)
def test_so_do_arrow_and_exports(both: Both, text: str) -> None:
    wanted = plain(both.entries, text)
    accept = {"accept": "application/vnd.apache.arrow.stream"}
    answer = both.http.get("/api/v1/query", params={"kfl": text}, headers=accept)
    with pa.ipc.open_stream(io.BytesIO(answer.content)) as reader:
        table = reader.read_all()
    times = table["start_time"].cast(pa.int64()).to_pylist()
    ids = [
        f"{row['node_name']}/{row['stream']}-{row['index']}"
        for row in table.select(["node_name", "stream", "index"]).to_pylist()
    ]
    assert len(times) == len(wanted)
    assert ids == [entry["id"] for entry in wanted]
    lines = both.http.post(
        "/api/v1/export", json={"kfl": text, "format": "EXPORT_FORMAT_JSON_LINES"}
    )
    assert [json.loads(line) for line in lines.text.splitlines()] == wanted


def test_the_filters_choose(both: Both) -> None:
    """Else equality would say nothing."""
    sizes = {text: len(plain(both.entries, text)) for text in FILTERS}
    nothing = [text for text, size in sizes.items() if not size]
    assert nothing == FILTERS[-2:], nothing
    assert len(set(sizes.values())) > len(FILTERS) // 2


@pytest.mark.parametrize(
    "text",
    ['record("mixed") and response.status == ', 'record("mixde")', 'record("mixed") and', "http"],
)
def test_what_is_wrong_is_the_same_sentence(both: Both, text: str) -> None:
    answer = both.http.get("/api/v1/query", params={"kfl": text})
    with pytest.raises(Exception) as caught:  # noqa: PT011 - grpc.RpcError, which has no text
        over_grpc(both, text)
    said = str(caught.value.details())  # type: ignore[attr-defined]
    assert answer.status_code in (400, 404)
    assert answer.json()["detail"] in said
