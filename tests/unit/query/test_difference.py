"""What is different between recordings and runs."""

from typing import Any

import pytest
from recorder.v1 import query_pb2

from services.query import difference
from tests.unit.query.generated import (
    HOUR,
    SECOND,
    at,
    figures,
    figures_of,
    question,
    refused,
)


def side(text: str, run: int = 0, **more: Any) -> query_pb2.Side:
    return query_pb2.Side(question=question(text, **more), run=run)


def test_a_recording_is_not_different_from_itself(mixed: Any) -> None:
    same = side('record("mixed")')
    found = mixed.stub.Diff(query_pb2.DiffRequest(before=same, after=same))
    assert list(found.differences) == []
    assert (found.threshold, found.least_entries) == (2.0, 10)
    assert found.account.status.entries == 840


def test_runs_are_told_apart_and_figures_are_what_counting_gives(mixed: Any) -> None:
    asked = query_pb2.DiffRequest(
        before=side('record("mixed")', 1), after=side('record("mixed")', 2), threshold=1.01
    )
    asked.limit = 2000
    found = mixed.stub.Diff(asked)
    apart = HOUR
    middle = min(e["start_ns"] for e in mixed.of("mixed")) + apart // 2
    for differs in found.differences:
        if differs.dimension != query_pb2.DIMENSION_PATH:
            continue
        for after, told in ((False, differs.before), (True, differs.after)):
            mine = [
                e
                for e in mixed.of("mixed")
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


def test_what_is_too_rare_to_be_compared_has_not_appeared(
    releases: Any, serve_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each side the most frequent values are compared, with all that the other has of them."""
    monkeypatch.setattr(difference, "MAX_VALUES", 5)
    stub = serve_queries()
    found = stub.Diff(
        query_pb2.DiffRequest(before=side('record("old")'), after=side('record("new")'))
    )
    told = {d.value: list(d.changes) for d in found.differences if d.dimension == 1}
    busy, slow = [query_pb2.CHANGE_RATE], [query_pb2.CHANGE_LATENCY]
    assert told == {"GET /busy": busy, "GET /slow": slow}
    assert [w for w in found.account.status.warnings if w.startswith("Only the 5 most frequent")]
    whole = stub.Diff(
        query_pb2.DiffRequest(
            before=side('record("old") and request.path == "/gone"'), after=side('record("new")')
        )
    )
    vanished = [d.value for d in whole.differences if query_pb2.CHANGE_VANISHED in d.changes]
    assert vanished == ["GET /gone"]


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
