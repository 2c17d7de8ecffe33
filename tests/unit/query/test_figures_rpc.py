"""What all questions that count have in common."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from recorder.v1 import query_pb2

from services.query import matched
from services.runtime.errors import read_violations
from tests.unit.query.generated import (
    STATEMENTS,
    at,
    figures,
    figures_of,
    question,
    refused,
)


def test_redacted_values_are_not_told(mixed: Any) -> None:
    text = 'record("web") and redact("src.name")'
    found = mixed.stub.Top(query_pb2.TopRequest(question=question(text), field="src.name"))
    assert {value.value for value in found.values} <= {"[REDACTED]", ""}
    assert found.account.status.entries == len(mixed.of("web"))
    edges = mixed.stub.ServiceMap(query_pb2.ServiceMapRequest(question=question(text))).edges
    assert {edge.src.name for edge in edges} <= {"[REDACTED]", ""}


def test_what_is_not_looked_at_any_more_is_said(
    mixed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matched, "MAX_LOOKED_AT", 30)
    found = mixed.stub.Top(query_pb2.TopRequest(question=question(STATEMENTS[5]), field="src.name"))
    (warning,) = found.account.status.warnings
    assert warning.startswith("Not all is counted")
    assert "30 entries" in warning


def test_the_time_is_exact_to_the_nanosecond(mixed: Any) -> None:
    ordered = sorted(mixed.of("mixed"), key=lambda e: e["start_ns"])
    first, last = ordered[10]["start_ns"], ordered[200]["start_ns"]
    inside = [e for e in ordered if first <= e["start_ns"] < last]
    asked = question('record("mixed")', start_time=at(first), end_time=at(last))
    found = mixed.stub.Top(query_pb2.TopRequest(question=asked, field="record"))
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


def test_every_answer_has_its_account(mixed: Any) -> None:
    for call in calls(mixed.stub, 'record("mixed") and limit(1)'):
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
    mixed: Any, text: str, code: grpc.StatusCode, says: str
) -> None:
    for call in calls(mixed.stub, text):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == code
        told = str([v.description for v in read_violations(caught.value)])
        assert says in caught.value.details() + told


def test_limits_are_bounded(mixed: Any) -> None:
    asked = question('record("web")')
    most = 2**32 - 1
    for call in (
        lambda: mixed.stub.Top(query_pb2.TopRequest(question=asked, field="tls", limit=most)),
        lambda: mixed.stub.ServiceMap(query_pb2.ServiceMapRequest(question=asked, limit=most)),
        lambda: mixed.stub.Connections(query_pb2.ConnectionsRequest(question=asked, limit=most)),
        lambda: mixed.stub.Histogram(
            query_pb2.HistogramRequest(question=asked, by="tls", by_limit=most)
        ),
    ):
        assert "It is at most" in refused(call)


def test_the_deadline_holds(mixed: Any) -> None:
    own = mixed.serve(deadline_seconds=0.0)
    for call in calls(own, 'record("mixed")'):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
