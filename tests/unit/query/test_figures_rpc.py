"""Counts against a plain evaluation in Python of the same filter over the same entries."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import query_pb2

import kfl
from services.query import counts, matched
from services.runtime.errors import read_violations
from tests.unit.query import generated
from tests.unit.query.generated import SECOND, figures, figures_of, grouped, matching

HOUR = 3600 * SECOND

Entries = list[dict[str, Any]]

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


@pytest.fixture
def entries(disk: Any) -> Entries:
    """`mixed`: two runs, in files and in journals. `web`: HTTP alone. `empty`: nothing."""
    disk.start_ns = disk.start_ns // SECOND * SECOND
    every: Entries = []

    def add(run: Any, name: str, rows: list[dict[str, Any]]) -> None:
        run.append(entries=rows)
        every.extend(generated.objects(disk.table("entries", rows), name))

    for number in (1, 2):
        run = disk.run("mixed", number)
        begin = disk.start_ns + number * HOUR
        add(run, "mixed", generated.rows(number, 150, begin))
        run.turn()
        add(run, "mixed", generated.rows(number + 10, 60, begin + 60 * SECOND))
    disk.runs[-1].append(losses=[{}])
    web = [row for row in generated.rows(5, 120, disk.start_ns) if row["protocol_name"] == "http"]
    run = disk.run("web")
    add(run, "web", web[:40])
    run.turn()
    add(run, "web", web[40:])
    disk.run("empty")
    return every


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


# ------------------------------------------------------------------------------ Histogram


@pytest.mark.parametrize("text", STATEMENTS)
def test_a_histogram_is_what_counting_gives(entries: Entries, stub: Any, text: str) -> None:
    found = stub.Histogram(query_pb2.HistogramRequest(question=question(text), bucket_ms=10_000))
    told = {b.start_time.ToNanoseconds(): figures_of(b.figures) for b in found.buckets}
    counted = expected(entries, text)
    width = 10 * SECOND
    assert told == grouped(counted, lambda e: [e["start_ns"] // width * width])
    assert list(told) == sorted(told)
    assert found.account.status.entries == len(counted)


@pytest.mark.parametrize("field", ["response.status", "src.name", "request.questions.*.name"])
def test_a_histogram_tells_the_most_frequent_values_apart(
    entries: Entries, stub: Any, field: str
) -> None:
    text = 'record("mixed")'
    asked = query_pb2.HistogramRequest(question=question(text), bucket_ms=60_000, by=field)
    asked.by_limit = 2
    found = stub.Histogram(asked)
    top = stub.Top(query_pb2.TopRequest(question=question(text), field=field, limit=2))
    best = [value.value for value in top.values]
    assert len(best) == 2

    def keys(each: Any) -> list[Any]:
        bucket = each["start_ns"] // (60 * SECOND) * 60 * SECOND
        values = VALUES[field](each) or [None]
        return [(bucket, value if value in best else None) for value in values]

    told = {
        (b.start_time.ToNanoseconds(), b.value if b.HasField("value") else None): b.figures
        for b in found.buckets
    }
    plain = grouped(entries_of(entries, "mixed"), keys)
    assert {key: figures_of(value) for key, value in told.items()} == plain
    assert found.account.status.entries == len(entries_of(entries, "mixed"))


def entries_of(entries: Entries, name: str) -> Entries:
    return [each for each in entries if each["record"] == name]


def test_a_bucket_is_chosen_from_the_time(entries: Entries, stub: Any, disk: Any) -> None:
    both = stub.Histogram(query_pb2.HistogramRequest(question=question('record("mixed")')))
    assert both.bucket_ms == 60_000
    start = at(disk.start_ns + HOUR)
    end = at(disk.start_ns + HOUR + 20 * SECOND)
    asked = question('record("mixed")', start_time=start, end_time=end)
    narrow = stub.Histogram(query_pb2.HistogramRequest(question=asked))
    assert narrow.bucket_ms == 200
    assert (
        stub.Histogram(
            query_pb2.HistogramRequest(question=question('record("empty")'))
        ).account.status.entries
        == 0
    )


def test_too_many_buckets_are_refused_with_what_would_be_right(entries: Entries, stub: Any) -> None:
    asked = query_pb2.HistogramRequest(question=question('record("mixed")'), bucket_ms=1)
    told = refused(lambda: stub.Histogram(asked))
    assert "more than 10000 buckets" in told
    least = int(told.split(" ms is the least")[0].split()[-1])
    asked.bucket_ms = least
    assert len(stub.Histogram(asked).buckets) <= counts.MAX_BUCKETS
    asked.bucket_ms = 2**64 - 1
    assert sum(b.figures.entries for b in stub.Histogram(asked).buckets) == 420


# ------------------------------------------------------------------------------ Top

VALUES: dict[str, Callable[[Any], list[Any]]] = {
    "src.name": lambda e: [e["src"]["name"]],
    "response.status": lambda e: _texts((e["response"] or {}).get("status")),
    "status_code": lambda e: (
        _texts((e["response"] or {}).get("status")) if e["protocol"]["name"] == "http" else []
    ),
    "request.path": lambda e: _texts((e["request"] or {}).get("path")),
    'request.headers["user-agent"]': lambda e: _texts(
        ((e["request"] or {}).get("headers") or {}).get("User-Agent")
    ),
    "request.command": lambda e: _texts((e["request"] or {}).get("command")),
    "request.questions.*.name": lambda e: list(
        dict.fromkeys(q["name"] for q in (e["request"] or {}).get("questions", []))
    ),
    "request.queryString.id": lambda e: _texts(
        ((e["request"] or {}).get("queryString") or {}).get("id")
    ),
    "elapsedTime": lambda e: _texts(e["elapsedTime"]),
    "tls": lambda e: _texts(e["tls"]),
    "size(request.path)": lambda e: (
        _texts(len(path))
        if isinstance(path := (e["request"] or {}).get("path"), str | list)
        else []
    ),
    "record": lambda e: [e["record"]],
}


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    kept = [i for i in items if i is not None and not isinstance(i, dict)]
    return list(dict.fromkeys(str(i).lower() if isinstance(i, bool) else str(i) for i in kept))


@pytest.mark.parametrize("field", VALUES)
@pytest.mark.parametrize("text", [STATEMENTS[0], STATEMENTS[1], STATEMENTS[5]])
def test_top_values_are_what_counting_gives(
    entries: Entries, stub: Any, text: str, field: str
) -> None:
    counted = expected(entries, text)
    found = stub.Top(query_pb2.TopRequest(question=question(text), field=field, limit=1000))
    told = [(value.value, figures_of(value.figures)) for value in found.values]
    plain = grouped(counted, VALUES[field])
    assert dict(told) == plain
    assert told == sorted(told, key=lambda each: (-each[1][0], each[0].encode()))
    assert found.without == sum(not VALUES[field](each) for each in counted)
    assert found.different == len(plain)
    assert found.account.status.entries == len(counted)
    assert not found.account.status.truncated
    assert not found.account.status.warnings


def test_a_limit_says_that_there_is_more(entries: Entries, stub: Any) -> None:
    asked = query_pb2.TopRequest(question=question('record("mixed")'), field="src.name", limit=2)
    found = stub.Top(asked)
    assert len(found.values) == 2
    assert found.account.status.truncated
    assert found.different == 7


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("", "Name a field"),
        ("500", "Name a field"),
        ('record("web")', "Name a field"),
        ("request.headers", 'request.headers["name"]'),
        ("src.name ==", "line 1"),
        ("((((", "line 1"),
    ],
)
def test_what_is_no_field_is_refused_with_a_sentence(
    entries: Entries, stub: Any, field: str, says: str
) -> None:
    asked = query_pb2.TopRequest(question=question('record("web")'), field=field)
    assert says in refused(lambda: stub.Top(asked))


def test_a_field_that_is_doubtful_is_said(entries: Entries, stub: Any) -> None:
    asked = query_pb2.TopRequest(question=question('record("web")'), field="response.statu")
    found = stub.Top(asked)
    assert found.without == found.account.status.entries
    assert any("response.status" in warning for warning in found.account.status.warnings)


def test_a_field_of_a_macro(entries: Entries, serve_queries: Any) -> None:
    stub = serve_queries(macros={"caller": "src.name"})
    asked = query_pb2.TopRequest(question=question('record("web")'), field="caller")
    assert len(stub.Top(asked).values) == 7


def test_redacted_values_are_not_told(entries: Entries, stub: Any) -> None:
    text = 'record("web") and redact("src.name")'
    found = stub.Top(query_pb2.TopRequest(question=question(text), field="src.name"))
    assert {value.value for value in found.values} <= {"[REDACTED]", ""}
    assert found.account.status.entries == len(entries_of(entries, "web"))
    edges = stub.ServiceMap(query_pb2.ServiceMapRequest(question=question(text))).edges
    assert {edge.src.name for edge in edges} <= {"[REDACTED]", ""}


def test_what_is_not_looked_at_any_more_is_said(
    entries: Entries, stub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched, "MAX_LOOKED_AT", 30)
    found = stub.Top(query_pb2.TopRequest(question=question(STATEMENTS[5]), field="src.name"))
    (warning,) = found.account.status.warnings
    assert warning.startswith("Not all is counted")
    assert "30 entries" in warning


# ------------------------------------------------------------------------------ ServiceMap


def _peer(each: Any) -> tuple[str, str, str]:
    name = each["name"]
    return (name, each["namespace"], "") if name else ("", "", each["ip"])


@pytest.mark.parametrize("text", STATEMENTS)
def test_a_map_is_what_counting_gives(entries: Entries, stub: Any, text: str) -> None:
    found = stub.ServiceMap(query_pb2.ServiceMapRequest(question=question(text), limit=5000))
    told = {
        (*((p.name, p.namespace, p.ip) for p in (edge.src, edge.dst)), edge.protocol): figures_of(
            edge.figures
        )
        for edge in found.edges
    }
    counted = expected(entries, text)
    assert told == grouped(
        counted, lambda e: [(_peer(e["src"]), _peer(e["dst"]), e["protocol"]["abbr"])]
    )
    assert found.account.status.entries == len(counted)


# ------------------------------------------------------------------------------ Connections


@pytest.mark.parametrize("text", STATEMENTS)
def test_connections_are_what_counting_gives(entries: Entries, stub: Any, text: str) -> None:
    found = stub.Connections(query_pb2.ConnectionsRequest(question=question(text)))
    counted = expected(entries, text)
    told = {(c.recording, c.node, c.stream): c for c in found.connections}
    plain = grouped(counted, lambda e: [(e["record"], e["node"]["name"], e["stream"])])
    assert {key: figures_of(each.figures) for key, each in told.items()} == plain
    for key, connection in told.items():
        mine = [e for e in counted if (e["record"], e["node"]["name"], e["stream"]) == key]
        first = min(mine, key=lambda e: (e["index"], e["start_ns"]))
        begin = min(e["start_ns"] // 1000 for e in mine)
        end = max(e["start_ns"] // 1000 + (e["elapsedTimeUs"] or 0) for e in mine)
        assert connection.start_time.ToMicroseconds() == begin
        assert connection.duration_us == end - begin
        assert list(connection.protocols) == sorted({e["protocol"]["abbr"] for e in mine})
        assert (connection.src.name, connection.src.ip) == (
            first["src"]["name"],
            first["src"]["ip"],
        )
        octets = sum(e["requestSize"] or 0 for e in mine)
        rate = octets * 1e6 / (end - begin) if end > begin else 0.0
        assert connection.request_bytes_per_second == pytest.approx(rate)


def test_a_connection_begins_with_its_first_packet_and_has_its_state(disk: Any, stub: Any) -> None:
    run = disk.run("conns")
    start = disk.start_ns // 1000 * 1000
    sides = {"request": '{"state":"closed","bytes":10}', "response": None}
    run.append(
        entries=[
            {
                **dict.fromkeys(("request_method", "request_url", "request_path"), None),
                **{"protocol_name": "tcp", "protocol_abbr": "TCP", "start_time": start},
                **{"elapsed_us": 2_000_000, "request_size": 10, "response_size": 40, **sides},
            }
        ],
        streams=[{"first_time": start - 3_000_000_000}],
    )
    asked = query_pb2.ConnectionsRequest(question=question('record("conns") and conn'))
    (found,) = stub.Connections(asked).connections
    assert (found.state, list(found.protocols)) == ("closed", ["TCP"])
    assert found.start_time.ToNanoseconds() == start - 3_000_000_000
    assert found.duration_us == 5_000_000
    assert (found.request_bytes_per_second, found.response_bytes_per_second) == (2.0, 8.0)


# ------------------------------------------------------------------------------ Diff


def side(text: str, run: int = 0, **more: Any) -> query_pb2.Side:
    return query_pb2.Side(question=question(text, **more), run=run)


def test_a_recording_is_not_different_from_itself(entries: Entries, stub: Any) -> None:
    mixed = side('record("mixed")')
    found = stub.Diff(query_pb2.DiffRequest(before=mixed, after=mixed))
    assert list(found.differences) == []
    assert (found.threshold, found.least_entries) == (2.0, 10)
    assert found.account.status.entries == 840


def test_runs_are_told_apart_and_figures_are_what_counting_gives(
    entries: Entries, stub: Any
) -> None:
    asked = query_pb2.DiffRequest(
        before=side('record("mixed")', 1), after=side('record("mixed")', 2), threshold=1.01
    )
    asked.limit = 5000
    found = stub.Diff(asked)
    apart = HOUR
    middle = min(e["start_ns"] for e in entries_of(entries, "mixed")) + apart // 2
    for differs in found.differences:
        if differs.dimension != query_pb2.DIMENSION_PATH:
            continue
        for after, told in ((False, differs.before), (True, differs.after)):
            mine = [
                e
                for e in entries_of(entries, "mixed")
                if (e["start_ns"] > middle) is after and _path(e) == differs.value
            ]
            assert told.entries == len(mine)
            if mine:
                assert figures_of(told) == figures(mine)
    assert {d.dimension for d in found.differences} == {1, 2, 3}


def _path(each: Any) -> str | None:
    request = each["request"] or {}
    method, path = request.get("method"), request.get("path")
    texts = isinstance(method, str) and isinstance(path, str)
    return f"{method} {path}" if texts else None


@pytest.fixture
def releases(disk: Any) -> Any:
    """`old` and `new`: paths come and go, one gets slow, one gets more calls."""
    start = disk.start_ns // SECOND * SECOND

    def calls(path: str, count: int, elapsed_us: int, status: int = 200) -> list[dict[str, Any]]:
        return [
            {
                **{"request_path": path, "request_url": path, "response_status": status},
                **{"elapsed_us": elapsed_us, "start_time": start + n * 100 * SECOND // count},
            }
            for n in range(count)
        ] + [{"start_time": start + 100 * SECOND, "request_path": "/end", "response_status": 204}]

    disk.run("old").append(
        entries=calls("/same", 20, 100) + calls("/gone", 3, 100) + calls("/slow", 20, 100)
        + calls("/busy", 20, 100)
    )  # fmt: skip
    disk.run("new").append(
        entries=calls("/same", 25, 120) + calls("/came", 4, 100, 500) + calls("/slow", 20, 900)
        + calls("/busy", 60, 100)
    )  # fmt: skip
    return disk


def test_what_appeared_vanished_or_changed(releases: Any, stub: Any) -> None:
    found = stub.Diff(
        query_pb2.DiffRequest(before=side('record("old")'), after=side('record("new")'))
    )
    told = {
        (d.dimension, d.value): [query_pb2.Change.Name(c) for c in d.changes]
        for d in found.differences
        if d.dimension != query_pb2.DIMENSION_PEERS
    }
    assert told == {
        (1, "GET /came"): ["CHANGE_APPEARED"],
        (2, "500"): ["CHANGE_APPEARED"],
        (1, "GET /gone"): ["CHANGE_VANISHED"],
        (1, "GET /busy"): ["CHANGE_RATE"],
        (1, "GET /slow"): ["CHANGE_LATENCY"],
        (2, "200"): ["CHANGE_LATENCY"],
    }
    assert (found.before_seconds, found.after_seconds) == (100.0, 100.0)
    busy = next(d for d in found.differences if d.value == "GET /busy")
    assert (busy.before_rate, busy.after_rate) == (0.2, 0.6)
    strict = query_pb2.DiffRequest(
        before=side('record("old")'), after=side('record("new")'), threshold=10, limit=1
    )
    kinds = [list(d.changes) for d in stub.Diff(strict).differences]
    assert kinds == [[query_pb2.CHANGE_APPEARED], [query_pb2.CHANGE_VANISHED]]


def test_rates_are_over_the_time_that_was_asked_for(releases: Any, stub: Any) -> None:
    start = releases.start_ns // SECOND * SECOND
    half = {"start_time": at(start), "end_time": at(start + 50 * SECOND)}
    found = stub.Diff(
        query_pb2.DiffRequest(before=side('record("old")', **half), after=side('record("old")'))
    )
    assert (found.before_seconds, found.after_seconds) == (50.0, 100.0)
    assert not [d for d in found.differences if query_pb2.CHANGE_RATE in d.changes]


def test_a_run_that_is_not_there_is_told_with_those_that_are(releases: Any, stub: Any) -> None:
    asked = query_pb2.DiffRequest(before=side('record("old")', 7), after=side('record("new")'))
    assert refused(lambda: stub.Diff(asked)) == "run: old has no run 7; its runs are 1."
    asked = query_pb2.DiffRequest(
        before=side('record("old")'), after=side('record("new")'), threshold=0.5
    )
    assert "above 1" in refused(lambda: stub.Diff(asked))


# ------------------------------------------------------------------------------ all of them


def test_the_time_is_exact_to_the_nanosecond(entries: Entries, stub: Any) -> None:
    mixed = sorted(entries_of(entries, "mixed"), key=lambda e: e["start_ns"])
    first, last = mixed[10]["start_ns"], mixed[200]["start_ns"]
    inside = [e for e in mixed if first <= e["start_ns"] < last]
    asked = question('record("mixed")', start_time=at(first), end_time=at(last))
    found = stub.Top(query_pb2.TopRequest(question=asked, field="record"))
    assert figures_of(found.values[0].figures) == figures(inside)


def calls(stub: Any, text: str) -> list[Callable[[], Any]]:
    asked = question(text)
    return [
        lambda: stub.Histogram(query_pb2.HistogramRequest(question=asked)),
        lambda: stub.Top(query_pb2.TopRequest(question=asked, field="src.name")),
        lambda: stub.ServiceMap(query_pb2.ServiceMapRequest(question=asked)),
        lambda: stub.Connections(query_pb2.ConnectionsRequest(question=asked)),
        lambda: stub.Diff(
            query_pb2.DiffRequest(
                before=query_pb2.Side(question=asked), after=query_pb2.Side(question=asked)
            )
        ),
    ]


def test_every_answer_has_its_account(entries: Entries, stub: Any) -> None:
    for call in calls(stub, 'record("mixed") and limit(1)'):
        account = call().account
        assert list(account.status.recordings) == ["mixed"]
        assert account.status.entries_scanned in (420, 840)
        assert account.status.entries in (420, 840)
        assert [loss.kind for loss in account.losses] == ["kernel_drop"]
        assert "limit() has no effect here" in account.status.warnings[0]


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("http and and", grpc.StatusCode.INVALID_ARGUMENT, "line 1"),
        ('record("wbe")', grpc.StatusCode.NOT_FOUND, '"web"'),
        ("http", grpc.StatusCode.FAILED_PRECONDITION, "Name a recording"),
        ('record("../web")', grpc.StatusCode.INVALID_ARGUMENT, "web"),
    ],
)
def test_a_wrong_statement_is_told_as_by_query(
    entries: Entries, stub: Any, text: str, code: grpc.StatusCode, says: str
) -> None:
    for call in calls(stub, text):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == code
        told = str([v.description for v in read_violations(caught.value)])
        assert says in caught.value.details() + told


def test_limits_are_bounded(entries: Entries, stub: Any) -> None:
    asked = question('record("web")')
    most = 2**32 - 1
    for call in (
        lambda: stub.Top(query_pb2.TopRequest(question=asked, field="tls", limit=most)),
        lambda: stub.ServiceMap(query_pb2.ServiceMapRequest(question=asked, limit=most)),
        lambda: stub.Connections(query_pb2.ConnectionsRequest(question=asked, limit=most)),
        lambda: stub.Histogram(query_pb2.HistogramRequest(question=asked, by="tls", by_limit=most)),
    ):
        assert "It is at most" in refused(call)


def test_the_deadline_holds(entries: Entries, serve_queries: Any) -> None:
    stub = serve_queries(deadline_seconds=0.0)
    for call in calls(stub, 'record("mixed")'):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
