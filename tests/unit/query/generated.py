"""A generated recording with what dissectors make and what they never would, and the plain way to
count its entries."""

import json
import random
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import query_pb2

import kfl
from kfl import Filter
from recordings import entry
from services.runtime.errors import read_violations

Entries = list[dict[str, Any]]

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
NAMES = ["checkout", "cart", "", None, "größe", "日本", "q\"uo'te", "a.b"]
PATHS = ["/", "/api/cart", "/api/größe", "/api/items/1", None]
AGENTS = ["curl/8", "Mozilla/5.0 (日本)", "", 'say "hi"\\']
COMMANDS = ["GET", "SET", 7, 1.5, 1e20, True, None, ["a", "b", "a"], {"x": 1}, 'q"\\n', 2**70, []]


STATEMENTS = [
    'record("mixed")',
    'record("web")',
    'record("mixed") and response.status >= 400',
    'record("mixed") and src.name == "größe"',
    '(record("web") and http) or (record("mixed") and dns)',
    'record("mixed") and response.body.json().state == "done"',  # not exact in SQL
    'record("mixed") and response.status == 999',
    'record("empty")',
]


def at(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def question(text: str, **more: Any) -> query_pb2.Question:
    return query_pb2.Question(kfl=text, **more)


def expected(entries: Entries, text: str) -> Entries:
    return matching(entries, kfl.compile(text))


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = read_violations(caught.value)
    return f"{violation.field}: {violation.description}"


def rows(seed: int, count: int, start_ns: int) -> list[dict[str, Any]]:
    """Rows of ENTRIES; later ones may begin earlier."""
    chance = random.Random(seed)
    return [_row(chance, start_ns, number) for number in range(count)]


def write(disk: Any, start_ns: int) -> list[dict[str, Any]]:
    """Write the recordings of the fixture `mixed`; their entries, in no order."""
    every: list[dict[str, Any]] = []

    def add(run: Any, name: str, found: list[dict[str, Any]]) -> None:
        run.append(entries=found)
        every.extend(objects(disk.table("entries", found), name))

    for number in (1, 2):
        run = disk.run("mixed", number)
        begin = start_ns + number * HOUR
        add(run, "mixed", rows(number, 150, begin))
        run.turn()
        add(run, "mixed", rows(number + 10, 60, begin + 60 * SECOND))
    disk.runs[-1].append(losses=[{}])
    web = [row for row in rows(5, 120, start_ns) if row["protocol_name"] == "http"]
    run = disk.run("web")
    add(run, "web", web[:40])
    run.turn()
    add(run, "web", web[40:])
    disk.run("empty")
    return every


def _row(chance: random.Random, start_ns: int, number: int) -> dict[str, Any]:
    pick = chance.choice
    protocol, abbr = pick(
        [
            *[("http", "HTTP")] * 4,
            ("http", "gRPC"),
            ("dns", "DNS"),
            ("redis", "REDIS"),
            ("tcp", "TCP"),
            ("amqp", "AMQP"),
        ]
    )
    row: dict[str, Any] = {
        "start_time": start_ns + chance.randrange(90 * SECOND),
        "index": number,
        "stream": f"{chance.randrange(12):016x}",
        "node_name": pick(["node-1", "node-é"]),
        "protocol_name": protocol,
        "protocol_abbr": abbr,
        "elapsed_us": pick([None, 0, 5, *[chance.randrange(10**6) for _ in range(6)]]),
        "request_size": pick([None, 0, chance.randrange(5000)]),
        "response_size": pick([None, chance.randrange(9000)]),
        "error_type": pick([None] * 9 + ["timeout"]),
        "request_method": None,
        "request_path": None,
        "request_url": None,
        "request_headers": None,
        "response_status": None,
        "response_headers": None,
        "response_body": None,
        "request_http_version": None,
    }
    for side in ("src", "dst"):
        row |= {
            f"{side}_name": pick(NAMES),
            f"{side}_namespace": pick([None, "", "shop"]),
            f"{side}_ip": pick(["10.0.0.1", "10.0.0.2", "fe80::1", None]),
            f"{side}_port": pick([80, 443, None]),
        }
    return row | _messages(chance, protocol, abbr)


def _messages(chance: random.Random, protocol: str, abbr: str) -> dict[str, Any]:
    pick = chance.choice
    if protocol == "http":
        path = pick(PATHS)
        return {
            "request_method": pick(["GET", "POST", None]),
            "request_path": path,
            "request_url": path and path + pick(["", "?id=1", "?id=2&id=3", "?id=%ff", "?id=ü"]),
            "request_headers": pick([None, [], [{"name": "User-Agent", "value": pick(AGENTS)}]]),
            "response_status": pick([200, 200, 204, 404, 500, 503, None]),
            "response_body": pick([None, "", '{"state":"done"}', '{"state":["a",1]}', "<a/>"]),
            "request": pick([None, "{}"]),
            "response": json.dumps({"grpcStatus": pick([0, 5])}) if abbr == "gRPC" else "{}",
        }
    if protocol == "dns":
        questions = [{"name": pick(["a.", "b.", "ü."])} for _ in range(chance.randrange(4))]
        return {
            "request": json.dumps({"questions": questions}),
            "response": pick([None, '{"code":"NOERROR"}', '{"code":"NXDOMAIN"}', "{}", "damaged"]),
        }
    if protocol == "redis":
        command = json.dumps({"command": pick(COMMANDS)}, ensure_ascii=pick([True, False]))
        return {"request": pick([command, command, "damaged", None]), "response": "{}"}
    if protocol == "tcp":
        sides = [pick([None, {"state": "closed"}, {"state": "idle"}, {}]) for _ in range(2)]
        request, response = (None if side is None else json.dumps(side) for side in sides)
        return {"request": request, "response": response}
    return {
        "request": json.dumps({"path": pick(["/x", 5, ["p", "q"]]), "method": "Publish"}),
        "response": json.dumps({"status": pick([200, 500, "501"])}),
    }


def objects(table: pa.Table, record: str) -> list[dict[str, Any]]:
    """The entries of rows, with `start_ns` beside what they have."""
    named = table.append_column("record", pa.array([record] * table.num_rows, pa.string()))
    found = entry.objects(named)
    times = table["start_time"].cast(pa.int64()).to_pylist()
    return [{**each, "start_ns": time} for each, time in zip(found, times, strict=True)]


def matching(found: list[dict[str, Any]], filter: Filter) -> list[dict[str, Any]]:
    """The entries for which the filter says yes."""
    return [each for each in found if filter.matches(each, each["record"])]


def is_error(each: dict[str, Any]) -> bool:
    """The definition, written a second time."""
    response = each["response"] or {}
    status = response.get("status")
    if isinstance(status, str):
        status = int(status)
    if (status is not None and status >= 500) or each["error"] is not None:
        return True
    if each["protocol"]["name"] == "dns":
        return response.get("code", "NOERROR") != "NOERROR"
    return each["protocol"]["abbr"] == "gRPC" and response.get("grpcStatus", 0) != 0


def figures(found: list[dict[str, Any]]) -> tuple[Any, ...]:
    """(entries, errors, request octets, response octets, (p50, p90, p99) or None)."""
    times = sorted(e["elapsedTimeUs"] for e in found if e["elapsedTimeUs"] is not None)
    quantiles = tuple(
        times[max(0, ceil(Fraction(share) * len(times)) - 1)]
        for share in ("0.5", "0.9", "0.99")
        if times
    )
    return (
        len(found),
        sum(map(is_error, found)),
        sum(e["requestSize"] or 0 for e in found),
        sum(e["responseSize"] or 0 for e in found),
        quantiles or None,
    )


def figures_of(message: Any) -> tuple[Any, ...]:
    """The same of a message."""
    latency = message.latency
    return (
        message.entries,
        message.errors,
        message.request_bytes,
        message.response_bytes,
        (latency.p50_us, latency.p90_us, latency.p99_us) if message.HasField("latency") else None,
    )


def grouped(found: list[dict[str, Any]], keys: Any) -> dict[Any, tuple[Any, ...]]:
    """Figures by each of the keys that an entry has."""
    groups = defaultdict(list)
    for each in found:
        for key in keys(each):
            groups[key].append(each)
    return {key: figures(entries) for key, entries in groups.items()}
