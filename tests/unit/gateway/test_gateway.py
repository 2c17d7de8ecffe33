"""Real services, asked over HTTP as programs and browsers ask."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import httpx
import pyarrow as pa
import pytest
from recorder.v1 import query_pb2, query_pb2_grpc

from services.gateway.exchange import MAX_BODY_BYTES
from services.gateway.gateway import MAX_HEADERS
from services.runtime.channel import open_channel
from tests.unit.gateway.conftest import PAGE, SHOP, Served, events, gateway, lines

EVENTS = {"accept": "text/event-stream"}


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = dict(response.json())
    assert found["status"] == status
    assert found["detail"].endswith(".")
    return found


def test_entries_come_as_lines_with_losses_and_a_status(client: httpx.Client) -> None:
    response = client.get("/api/v1/query", params={"kfl": SHOP, "limit": "2"})
    assert response.headers["content-type"] == "application/x-ndjson"
    *entries, loss, status = lines(response)
    assert [each["entry"]["response"]["status"] for each in entries] == [500, 200]
    assert loss["loss"]["kind"] == "kernel_drop"
    assert status["status"]["truncated"] is True


def test_a_body_asks_the_same_as_parameters(client: httpx.Client) -> None:
    kfl = f"{SHOP} and response.status == 500"
    by_get = lines(client.get("/api/v1/query", params={"kfl": kfl}))
    by_post = lines(client.post("/api/v1/query", json={"kfl": kfl}))
    assert [each for each in by_get if "entry" in each] == [
        each for each in by_post if "entry" in each
    ]
    assert len([each for each in by_get if "entry" in each]) == 10


def test_entries_come_as_events(client: httpx.Client) -> None:
    response = client.get("/api/v1/query", params={"kfl": SHOP, "limit": "2"}, headers=EVENTS)
    assert response.headers["content-type"] == "text/event-stream"
    found = events(response.text)
    assert [name for name, _ in found] == ["entry", "entry", "loss", "status", "end"]


def test_entries_come_as_one_arrow_stream_for_pandas(client: httpx.Client) -> None:
    accept = {"accept": "application/vnd.apache.arrow.stream"}
    response = client.get("/api/v1/query", params={"kfl": SHOP}, headers=accept)
    with pa.ipc.open_stream(io.BytesIO(response.content)) as reader:
        frame = reader.read_pandas()
    assert sorted(frame.response_status.value_counts().to_dict().items()) == [(200, 30), (500, 10)]
    with pa.ipc.open_stream(io.BytesIO(response.content)) as reader:
        *_, last = reader.iter_batches_with_custom_metadata()
    said = json.loads(last.custom_metadata["recorder"])
    assert said["status"]["entries"] == "40"
    assert [each["kind"] for each in said["losses"]] == ["kernel_drop"]


def test_an_export_is_the_file_that_grpc_gives(client: httpx.Client, served: Served) -> None:
    response = client.get("/api/v1/export", params={"kfl": SHOP})
    assert response.headers["content-disposition"] == 'attachment; filename="shop.pcapng"'
    with open_channel(served.query) as channel:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        chunks = stub.Export(query_pb2.ExportRequest(kfl=SHOP), timeout=30)
        assert response.content == b"".join(each.chunk for each in chunks)


@pytest.mark.parametrize(
    ("asked", "accept", "kind", "media_type"),
    [
        ({"format": "EXPORT_FORMAT_HAR"}, "*/*", "har", "application/json"),
        ({}, "application/json", "har", "application/json"),
        ({}, "application/vnd.tcpdump.pcap", "pcap", "application/vnd.tcpdump.pcap"),
        ({}, "application/vnd.apache.parquet", "parquet", "application/vnd.apache.parquet"),
        ({}, "application/x-ndjson", "jsonl", "application/x-ndjson"),
        ({"format": "EXPORT_FORMAT_PCAPNG"}, "text/html, */*", "pcapng", "application/x-pcapng"),
    ],
)
def test_every_kind_of_file_is_had_by_its_name_or_media_type(
    client: httpx.Client, asked: dict[str, str], accept: str, kind: str, media_type: str
) -> None:
    response = client.get(
        "/api/v1/export", params={"kfl": SHOP, **asked}, headers={"accept": accept}
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == media_type
    assert response.headers["content-disposition"] == f'attachment; filename="shop.{kind}"'
    begins = {
        "har": b'{"log":',
        "pcap": b"\x4d\x3c\xb2\xa1",
        "pcapng": b"\n\r\r\n",
        "parquet": b"PAR1",
        "jsonl": b'{"id":',
    }
    assert response.content.startswith(begins[kind])


@pytest.mark.parametrize("format", [False, "HAR", 99])
def test_a_kind_of_file_that_there_is_not_is_refused(client: httpx.Client, format: object) -> None:
    response = client.post("/api/v1/export", json={"kfl": SHOP, "format": format})
    assert response.status_code == 400
    assert "format" in response.json()["detail"]


def test_one_entry_its_stream_and_figures(client: httpx.Client) -> None:
    entry = client.get("/api/v1/entries/node-1/0000000000000001-0").json()
    assert entry["entry"]["response"]["status"] == 200
    assert entry["packets"]["packets"] == "4"
    stream = lines(client.get("/api/v1/streams/0000000000000001", params={"kfl": SHOP}))
    assert [next(iter(each)) for each in stream] == ["summary", *["entry"] * 4, "account"]
    top = client.get("/api/v1/top", params={"kfl": SHOP, "field": "response.status"}).json()
    assert [(v["value"], v["figures"]["entries"]) for v in top["values"]] == [
        ("200", "30"),
        ("500", "10"),
    ]
    sides = {"before.kfl": SHOP, "after.kfl": SHOP}
    assert client.get("/api/v1/diff", params=sides).json()["differences"] == []


def test_the_life_of_a_job(client: httpx.Client) -> None:
    job = {"name": "life", "kfl": "http", "startTime": "03:00", "labels": {"team": "net"}}
    made = client.post("/api/v1/jobs", json=job)
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/jobs/life"
    assert made.json()["job"]["spec"]["durationMinutes"] == 240
    assert problem(client.post("/api/v1/jobs", json=job), 409)["code"] == "ALREADY_EXISTS"
    found = client.get("/api/v1/jobs", params={"labels": "team=net"}).json()["jobs"]
    assert [each["spec"]["name"] for each in found] == ["life"]
    assert client.post("/api/v1/jobs/life:extend", json={"dailyIterations": 3}).status_code == 200
    assert client.post("/api/v1/jobs/life:pin", json={"reason": "why"}).status_code == 200
    refused = problem(client.delete("/api/v1/jobs/life"), 400)
    assert refused["code"] == "FAILED_PRECONDITION"
    assert client.post("/api/v1/jobs/life:unpin").status_code == 200
    assert client.post("/api/v1/jobs/life:stop").json()["job"]["state"] == "JOB_STATE_STOPPED"
    assert client.delete("/api/v1/jobs/life").json() == {}
    problem(client.get("/api/v1/jobs/life"), 404)


def test_a_watch_goes_on_from_the_last_event(client: httpx.Client) -> None:
    def watch(last: str = "") -> tuple[str, list[dict[str, Any]]]:
        """Return the id at which all was seen, and what came before it."""
        headers = {**EVENTS, **({"last-event-id": last} if last else {})}
        found: list[dict[str, Any]] = []
        revision = ""
        with client.stream("GET", "/api/v1/jobs:watch", headers=headers) as response:
            for line in response.iter_lines():
                if line.startswith("id: "):
                    revision = line.removeprefix("id: ")
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
                    if found[-1]["synced"]:
                        break
        return revision, [each for each in found if "job" in each]

    for name in ("one", "two"):
        client.post("/api/v1/jobs", json={"name": name, "startTime": "03:00"})
    revision, jobs = watch()
    assert {each["job"]["spec"]["name"] for each in jobs} >= {"one", "two"}
    client.post("/api/v1/jobs/two:stop")
    revision, jobs = watch(revision)
    assert [each["job"]["spec"]["name"] for each in jobs] == ["two"]
    assert watch(revision)[1] == []
    for name in ("one", "two"):
        client.delete(f"/api/v1/jobs/{name}")


def test_what_is_wrong_with_a_statement_names_the_field(client: httpx.Client) -> None:
    found = problem(client.get("/api/v1/query", params={"kfl": "http and"}), 400)
    assert found["code"] == "INVALID_ARGUMENT"
    assert [each["field"] for each in found["violations"]] == ["kfl"]
    unknown = client.get("/api/v1/query", params={"kfl": 'record("nothing")'}, headers=EVENTS)
    assert problem(unknown, 404)["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/jobs/%2e%2e%2f", 404),
        ("PUT", "/api/v1/jobs/a", 405),
        ("GET", "/api/v1/jobs/a:stop", 405),
        ("GET", "/api/v1/query?colour=red", 400),
    ],
)
def test_what_is_not_there(client: httpx.Client, method: str, path: str, status: int) -> None:
    problem(client.request(method, path), status)


def test_what_can_be_used_at_a_path(client: httpx.Client) -> None:
    assert client.put("/api/v1/jobs/a").headers["allow"] == "DELETE, GET, OPTIONS"
    assert client.options("/api/v1/jobs/a").headers["allow"] == "DELETE, GET, OPTIONS"


def test_a_head_is_a_get_without_its_body(client: httpx.Client) -> None:
    response = client.head("/api/v1/recordings")
    assert response.status_code == 200
    assert int(response.headers["content-length"]) > 10
    assert response.content == b""


def test_bodies_that_are_not_taken(client: httpx.Client) -> None:
    form = client.post("/api/v1/jobs", data={"name": "a"})
    problem(form, 415)
    text = client.post(
        "/api/v1/jobs", content=b'{"name":"a"}', headers={"content-type": "text/plain"}
    )
    problem(text, 415)
    large = client.post("/api/v1/jobs", json={"name": "a" * MAX_BODY_BYTES})
    problem(large, 413)
    chunks = (b"x" * 65536 for _ in range(100))
    problem(client.post("/api/v1/jobs", content=chunks), 413)
    problem(client.get("/api/v1/jobs", headers={"accept": "image/png"}), 406)
    problem(client.get("/api/v1/jobs", headers={f"x-{i}": "" for i in range(MAX_HEADERS)}), 431)
    problem(client.get("/api/v1/jobs", headers={"grpc-timeout": "soon"}), 400)


def test_pages_of_other_sites_may_not_call(client: httpx.Client) -> None:
    for origin in ("https://evil.example.com", "null"):
        refused = client.post("/api/v1/jobs", json={"name": "evil"}, headers={"origin": origin})
        problem(refused, 403)
    problem(client.get("/api/v1/jobs", headers={"host": "evil.example.com"}), 421)
    problem(client.get("/api/v1/jobs/evil"), 404)


def test_a_page_that_is_listed_may(client: httpx.Client) -> None:
    asked = {"origin": PAGE, "access-control-request-method": "DELETE"}
    before = client.options("/api/v1/jobs/a", headers=asked)
    assert before.status_code == 200
    assert before.headers["access-control-allow-origin"] == PAGE
    assert "DELETE" in before.headers["access-control-allow-methods"]
    assert "content-type" in before.headers["access-control-allow-headers"]
    assert client.get("/api/v1/jobs", headers=asked).headers["access-control-allow-origin"] == PAGE
    wrong = client.get("/api/v1/query", params={"kfl": "and"}, headers=asked)
    assert problem(wrong, 400)
    assert wrong.headers["access-control-allow-origin"] == PAGE


def test_health_is_that_of_the_services(client: httpx.Client, served: Served) -> None:
    assert client.get("/health").json() == {"scheduler": "SERVING", "query service": "SERVING"}
    with gateway(served.scheduler, "127.0.0.1:1") as address:
        response = httpx.get(f"http://{address}/health")
        assert response.status_code == 503
        assert response.json() == {"scheduler": "SERVING", "query service": "NOT_SERVING"}
        found = problem(httpx.get(f"http://{address}/api/v1/recordings"), 503)
        assert "127.0.0.1:1 does not answer" in found["detail"]
        assert httpx.get(f"http://{address}/api/v1/jobs").status_code == 200


def test_a_gateway_that_ends_ends_its_followers(served: Served) -> None:
    params = {"kfl": SHOP, "follow": "true"}
    with gateway(served.scheduler, served.query) as address:
        stream = httpx.stream("GET", f"http://{address}/api/v1/query", params=params, timeout=30)
        response = stream.__enter__()
        read = response.iter_lines()
        while "status" not in json.loads(next(read)):
            pass
        begin = time.monotonic()
    # As a whole answer, and long before the grace is over.
    assert list(read) == []
    assert time.monotonic() - begin < 4
    stream.__exit__(None, None, None)
