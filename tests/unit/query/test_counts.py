"""Counts by time and value against a plain evaluation in Python of the same filter."""

from collections.abc import Callable
from typing import Any

import pytest
from recorder.v1 import query_pb2

from services.query import counts
from tests.unit.query.generated import (
    HOUR,
    SECOND,
    STATEMENTS,
    at,
    expected,
    figures_of,
    grouped,
    question,
    refused,
)


@pytest.mark.parametrize("text", STATEMENTS)
def test_a_histogram_is_what_counting_gives(mixed: Any, text: str) -> None:
    found = mixed.stub.Histogram(
        query_pb2.HistogramRequest(question=question(text), bucket_ms=10_000)
    )
    told = {b.start_time.ToNanoseconds(): figures_of(b.figures) for b in found.buckets}
    counted = expected(mixed.entries, text)
    width = 10 * SECOND
    assert told == grouped(counted, lambda e: [e["start_ns"] // width * width])
    assert list(told) == sorted(told)
    assert found.account.status.entries == len(counted)


@pytest.mark.parametrize("field", ["response.status", "src.name", "request.questions.*.name"])
def test_a_histogram_tells_the_most_frequent_values_apart(mixed: Any, field: str) -> None:
    text = 'record("mixed")'
    asked = query_pb2.HistogramRequest(question=question(text), bucket_ms=60_000, by=field)
    asked.by_limit = 2
    found = mixed.stub.Histogram(asked)
    top = mixed.stub.Top(query_pb2.TopRequest(question=question(text), field=field, limit=2))
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
    plain = grouped(mixed.of("mixed"), keys)
    assert {key: figures_of(value) for key, value in told.items()} == plain
    assert found.account.status.entries == len(mixed.of("mixed"))


def test_a_bucket_is_chosen_from_the_time(mixed: Any) -> None:
    both = mixed.stub.Histogram(query_pb2.HistogramRequest(question=question('record("mixed")')))
    assert both.bucket_ms == 60_000
    start = at(mixed.start_ns + HOUR)
    end = at(mixed.start_ns + HOUR + 20 * SECOND)
    asked = question('record("mixed")', start_time=start, end_time=end)
    narrow = mixed.stub.Histogram(query_pb2.HistogramRequest(question=asked))
    assert narrow.bucket_ms == 200
    assert (
        mixed.stub.Histogram(
            query_pb2.HistogramRequest(question=question('record("empty")'))
        ).account.status.entries
        == 0
    )


def test_too_many_buckets_are_refused_with_what_would_be_right(mixed: Any) -> None:
    asked = query_pb2.HistogramRequest(question=question('record("mixed")'), bucket_ms=1)
    told = refused(lambda: mixed.stub.Histogram(asked))
    assert "more than 10000 buckets" in told
    least = int(told.split(" ms is the least")[0].split()[-1])
    asked.bucket_ms = least
    assert len(mixed.stub.Histogram(asked).buckets) <= counts.MAX_BUCKETS
    asked.bucket_ms = 2**64 - 1
    assert sum(b.figures.entries for b in mixed.stub.Histogram(asked).buckets) == 420


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
def test_top_values_are_what_counting_gives(mixed: Any, text: str, field: str) -> None:
    counted = expected(mixed.entries, text)
    found = mixed.stub.Top(query_pb2.TopRequest(question=question(text), field=field, limit=1000))
    told = [(value.value, figures_of(value.figures)) for value in found.values]
    plain = grouped(counted, VALUES[field])
    assert dict(told) == plain
    assert told == sorted(told, key=lambda each: (-each[1][0], each[0].encode()))
    assert found.without == sum(not VALUES[field](each) for each in counted)
    assert found.different == len(plain)
    assert found.account.status.entries == len(counted)
    assert not found.account.status.truncated
    assert not found.account.status.warnings


def test_a_limit_says_that_there_is_more(mixed: Any) -> None:
    asked = query_pb2.TopRequest(question=question('record("mixed")'), field="src.name", limit=2)
    found = mixed.stub.Top(asked)
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
def test_what_is_no_field_is_refused_with_a_sentence(mixed: Any, field: str, says: str) -> None:
    asked = query_pb2.TopRequest(question=question('record("web")'), field=field)
    assert says in refused(lambda: mixed.stub.Top(asked))


def test_long_values_are_told_apart_but_shown_cut(disk: Any, serve_queries: Any) -> None:
    bodies = ["x" * 300 + end for end in "aab"]
    disk.run("long").append(entries=[{"response_body": body} for body in bodies])
    stub = serve_queries()
    asked = query_pb2.TopRequest(question=question('record("long")'), field="response.body")
    told = [(value.value, value.figures.entries) for value in stub.Top(asked).values]
    assert told == [("x" * 256, 2), ("x" * 256, 1)]


@pytest.mark.parametrize(
    "field",
    [
        """request["a'); DROP TABLE x; --"]""",
        'request["{}?"]',
        'request.headers["\\u2028\'{}"]',
        'request.a["*"].*.b',
        "src.pod.labels['日本']",
    ],
)
def test_a_hostile_field_is_a_field_that_nothing_has(mixed: Any, field: str) -> None:
    found = mixed.stub.Top(query_pb2.TopRequest(question=question('record("mixed")'), field=field))
    assert (len(found.values), found.without) == (0, 420)


def test_a_field_that_is_doubtful_is_said(mixed: Any) -> None:
    asked = query_pb2.TopRequest(question=question('record("web")'), field="response.statu")
    found = mixed.stub.Top(asked)
    assert found.without == found.account.status.entries
    assert any("response.status" in warning for warning in found.account.status.warnings)


def test_a_field_of_a_macro(mixed: Any) -> None:
    own = mixed.serve(macros={"caller": "src.name"})
    asked = query_pb2.TopRequest(question=question('record("web")'), field="caller")
    assert len(own.Top(asked).values) == 7
