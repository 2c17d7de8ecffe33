import json
import shutil
import time
from typing import Any

import grpc
import pyarrow as pa
import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import query_pb2

from recordings import schema
from services.query import asked, base, query_rpc
from services.runtime.errors import read_violations

JSON = query_pb2.ENTRY_FORMAT_JSON
ARROW = query_pb2.ENTRY_FORMAT_ARROW


def at(time_ns: int) -> Timestamp:
    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


class Told:
    """An answer, sorted out."""

    def __init__(self, parts: list[query_pb2.QueryResponse]) -> None:
        self.kinds = [part.WhichOneof("part") for part in parts]
        self.entries: list[dict[str, Any]] = []
        for part in parts:
            if part.WhichOneof("part") == "json":
                self.entries.append(json.loads(part.json))
            elif part.WhichOneof("part") == "entry":
                self.entries.append(json_format.MessageToDict(part.entry))
        self.losses = [part.loss for part in parts if part.WhichOneof("part") == "loss"]
        self.status = parts[-1].status

    def values(self, *path: str) -> list[Any]:
        found: list[Any] = []
        for entry in self.entries:
            value: Any = entry
            for key in path:
                value = value[key]
            found.append(value)
        return found


def ask(stub: Any, kfl: str, **fields: Any) -> Told:
    fields.setdefault("format", JSON)
    return Told(list(stub.Query(query_pb2.QueryRequest(kfl=kfl, **fields))))


def ask_arrow(stub: Any, kfl: str) -> pa.Table:
    parts = stub.Query(query_pb2.QueryRequest(kfl=kfl, format=ARROW))
    return pa.concat_tables(
        pa.ipc.open_stream(part.arrow_ipc).read_all()
        for part in parts
        if part.WhichOneof("part") == "arrow_ipc"
    )


def refusal(stub: Any, kfl: str, **fields: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        ask(stub, kfl, **fields)
    assert "Traceback" not in caught.value.details()
    return caught.value


@pytest.fixture
def two(disk: Any) -> Any:
    """Recordings checkout-500s, in Parquet and journal, and slow-cart, in a journal."""
    start = disk.start_ns
    run = disk.run("checkout-500s")
    run.append(
        entries=[
            {"index": 0, "start_time": start + 3000, "response_status": 500},
            {"index": 1, "start_time": start, "response_status": 404},
        ],
        losses=[{}],
    )
    run.turn()
    run.append(entries=[{"index": 2, "start_time": start + 1, "response_status": 503}])
    later = disk.run("checkout-500s", 2)
    later.append(entries=[{"index": 3, "start_time": start + 5000, "response_status": 500}])
    disk.run("slow-cart").append(
        entries=[
            {"index": 10, "start_time": start + 2, "response_status": 200, "elapsed_us": 9_000_000},
            {"index": 11, "start_time": start + 4000, "response_status": 500, "elapsed_us": 5},
        ]
    )
    return disk


def test_an_answer_is_in_the_order_of_time_from_files_and_journals_of_all_runs(
    two: Any, stub: Any
) -> None:
    told = ask(stub, 'record("checkout-500s")')
    assert told.values("index") == [1, 2, 0, 3]
    assert told.values("record") == ["checkout-500s"] * 4
    assert told.values("startTime")[:2] == [
        "2025-11-22T23:12:00.123456789Z", "2025-11-22T23:12:00.123456790Z",
    ]  # fmt: skip
    assert told.kinds == ["json"] * 4 + ["loss", "status"]
    assert (told.status.entries, told.status.entries_scanned) == (4, 4)
    assert list(told.status.recordings) == ["checkout-500s"]
    assert not told.status.truncated
    assert told.status.elapsed_ms > 0


def test_latest_first(two: Any, stub: Any) -> None:
    told = ask(stub, 'record("checkout-500s")', descending=True)
    assert told.values("index") == [3, 0, 2, 1]


def test_each_recording_has_its_own_condition(two: Any, stub: Any) -> None:
    told = ask(
        stub,
        '(record("checkout-500s") and response.status == 500) '
        'or (record("slow-cart") and elapsedTime > 1000)',
    )
    assert told.values("record") == ["slow-cart", "checkout-500s", "checkout-500s"]
    assert told.values("index") == [10, 0, 3]
    assert told.status.entries_scanned == 6


def test_only_named_recordings_are_read(two: Any, stub: Any) -> None:
    assert ask(stub, 'record("slow-cart")').values("index") == [10, 11]


def test_all_formats_say_the_same(two: Any, stub: Any) -> None:
    as_json = ask(stub, 'record("checkout-500s")')
    as_objects = ask(stub, 'record("checkout-500s")', format=query_pb2.ENTRY_FORMAT_OBJECT)
    assert as_objects.entries == as_json.entries
    assert ask(stub, 'record("checkout-500s")', format=0).entries == as_json.entries
    table = ask_arrow(stub, 'record("checkout-500s")')
    assert table.schema.equals(schema.ENTRIES)
    assert table["index"].to_pylist() == as_json.values("index")
    assert table["start_time"][0].value == two.start_ns


@pytest.mark.parametrize(
    ("statement", "limit", "expected"),
    [
        ('record("checkout-500s")', 2, [1, 2]),
        ('record("checkout-500s") and limit(3)', 0, [1, 2, 0]),
        ('record("checkout-500s") and limit(3)', 1, [1]),
        ('record("checkout-500s") and limit(1)', 3, [1]),
        ('record("checkout-500s") and response.body.matches(r"brok.n") and limit(1)', 3, [1]),
    ],
)
def test_both_limits_hold_and_more_is_told(
    two: Any, stub: Any, statement: str, limit: int, expected: list[int]
) -> None:
    told = ask(stub, statement, limit=limit)
    assert told.values("index") == expected
    assert told.status.truncated
    assert told.status.entries == len(expected)


@pytest.mark.parametrize(
    "kfl",
    ['record("slow-cart")', 'record("slow-cart") and response.body.json().a == 1'],
)
def test_a_count_is_the_number_of_entries_and_none_is_sent(two: Any, stub: Any, kfl: str) -> None:
    wanted = len(ask(stub, kfl).entries)
    for more in ({}, {"limit": 2}, {"limit": 1000}):
        request = query_pb2.QueryRequest(kfl=kfl, format=query_pb2.ENTRY_FORMAT_COUNT, **more)
        parts = [part for part in stub.Query(request) if part.WhichOneof("part") == "status"]
        assert parts[0].status.entries == min(wanted, more.get("limit", wanted))
    assert "format" in str(refusal(stub, kfl, follow=True, format=query_pb2.ENTRY_FORMAT_COUNT))


def test_a_limit_that_is_just_reached_cuts_nothing(two: Any, stub: Any) -> None:
    told = ask(stub, 'record("checkout-500s")', limit=4)
    assert len(told.entries) == 4
    assert not told.status.truncated


def test_the_time_range_is_exact_to_the_nanosecond(two: Any, stub: Any) -> None:
    start = two.start_ns
    both = 'record("checkout-500s") or record("slow-cart")'
    assert ask(stub, both, start_time=at(start + 1)).values("index") == [2, 10, 0, 11, 3]
    assert ask(stub, both, end_time=at(start + 2)).values("index") == [1, 2]
    window = {"start_time": at(start + 1), "end_time": at(start + 4000)}
    assert ask(stub, both, **window).values("index") == [2, 10, 0]
    assert ask(stub, both, **window, limit=1).values("index") == [2]


def test_times_at_the_ends_of_the_calendar_are_taken(two: Any, stub: Any) -> None:
    everything = {
        "start_time": Timestamp(seconds=-62135596800),
        "end_time": Timestamp(seconds=253402300799, nanos=999_999_999),
    }
    assert len(ask(stub, 'record("slow-cart")', **everything).entries) == 2
    late = Timestamp(seconds=253402300000)
    assert ask(stub, 'record("slow-cart")', start_time=late).entries == []


def test_losses_come_with_the_answer(two: Any, stub: Any) -> None:
    told = ask(stub, 'record("checkout-500s") and response.status == 1')
    assert told.kinds == ["loss", "status"]
    loss = told.losses[0]
    assert (loss.recording, loss.node, loss.kind) == ("checkout-500s", "node-1", "kernel_drop")
    assert (loss.packets, loss.detail) == (3, "The ring was full.")
    assert loss.start_time.ToNanoseconds() == two.start_ns
    assert ask(stub, 'record("checkout-500s")', start_time=at(two.start_ns + 10**9)).losses == []


def test_a_filter_that_sql_cannot_decide_is_decided_all_the_same(disk: Any, stub: Any) -> None:
    disk.run("bodies").append(
        entries=[
            {"index": 0, "response_body": '{"error": {"code": 7}}'},
            {"index": 1, "response_body": '{"error": {"code": 8}}'},
            {"index": 2, "response_body": "no JSON"},
        ]
    )
    told = ask(stub, 'record("bodies") and response.body.json().error.code == 8')
    assert told.values("index") == [1]


def test_without_a_recording_it_says_which_there_are(two: Any, stub: Any) -> None:
    error = refusal(stub, "http and response.status == 500")
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert '"checkout-500s" and "slow-cart"' in error.details()


def test_live_traffic_beside_a_recording_is_left_out_and_said_so(two: Any, stub: Any) -> None:
    told = ask(stub, '(record("slow-cart") and response.status == 200) or dns')
    assert told.values("index") == [10]
    assert any("Live traffic" in warning for warning in told.status.warnings)


def test_an_unknown_recording_names_the_nearest(two: Any, stub: Any) -> None:
    error = refusal(stub, 'record("checkout-500") and http')
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert 'Did you mean "checkout-500s"?' in error.details()


@pytest.mark.parametrize(
    "name",
    [
        "slow-cart/../checkout-500s",
        "../recordings/slow-cart",
        "slow-cart/0001",
        "/etc/passwd",
        "slow-cart'); DROP TABLE x; --",
        "slow-cart*",
        "*",
        "",
        "slow-cart\\u0000",
        "x" * 300,
    ],
)
def test_what_is_no_name_becomes_no_path(two: Any, stub: Any, name: str) -> None:
    error = refusal(stub, f'record("{name}")')
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert read_violations(error)[0].field == "kfl"


def test_a_path_in_a_name_is_refused_with_near_recordings(two: Any, stub: Any) -> None:
    error = refusal(stub, 'record("slow-cart/../checkout-500s")')
    assert "slow-cart" in error.details().split("Did you mean")[1]


def test_a_statement_that_is_wrong_is_told_with_its_place(two: Any, stub: Any) -> None:
    error = refusal(stub, 'record("slow-cart") and\n respons.status == 500')
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    violation = read_violations(error)[0]
    assert violation.field == "kfl"
    assert "line 2, column 2" in violation.description
    assert "response" in violation.description


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limit": asked.MAX_LIMIT + 1}, "limit"),
        ({"follow": True, "descending": True}, "descending"),
        ({"format": 99}, "format"),
        ({"start_time": Timestamp(seconds=1 << 60)}, "start_time"),
        ({"start_time": Timestamp(seconds=5), "end_time": Timestamp(seconds=5)}, "end_time"),
    ],
)
def test_a_request_that_is_wrong_is_told_by_field(
    two: Any, stub: Any, fields: dict[str, Any], field: str
) -> None:
    error = refusal(stub, 'record("slow-cart")', **fields)
    assert [violation.field for violation in read_violations(error)] == [field]


@pytest.mark.parametrize(
    "value",
    [
        "' OR 1=1 --",
        "'; DROP TABLE entries; --",
        "') UNION ALL SELECT * FROM read_csv('/etc/passwd') --",
        "$1",
        "?",
        "%",
        '\\" or true or \\"',
    ],
)
def test_a_hostile_value_is_a_value(two: Any, stub: Any, value: str) -> None:
    for statement in (
        f'record("slow-cart") and request.path == "{value}"',
        f'record("slow-cart") and request.headers["{value}"] == "x"',
        f'record("slow-cart") and response.body.contains("{value}")',
        f'record("slow-cart") and src.name in ["{value}"]',
    ):
        assert ask(stub, statement).entries == []


def test_redacted_values_are_not_in_the_answer_in_any_format(two: Any, stub: Any) -> None:
    kfl = (
        'record("slow-cart") and redact("request.cookies.session", "request.queryString", '
        '"src.ip", "response.body")'
    )
    told = ask(stub, kfl)
    text = json.dumps(told.entries)
    for secret in ("s3cret", "id=7", "10.244.0.9", "broken"):
        assert secret not in text
    assert told.values("response", "body") == ["[REDACTED]"] * 2
    assert told.values("request", "headers", "Host") == ["cart"] * 2
    table = ask_arrow(stub, kfl)
    assert table.schema.equals(schema.ENTRIES)
    for secret in ("s3cret", "id=7", "10.244.0.9", "broken"):
        assert secret not in str(table.drop_columns(["start_time"]).to_pydict())
    assert table["dst_ip"].to_pylist() == ["10.96.0.50"] * 2


def test_redaction_does_not_change_what_matches(two: Any, stub: Any) -> None:
    told = ask(stub, 'record("slow-cart") and src.name == "checkout" and redact("src.name")')
    assert told.values("src", "name") == ["[REDACTED]"] * 2


class Following:
    """A question that is followed, part by part."""

    def __init__(self, stub: Any, kfl: str, **fields: Any) -> None:
        request = query_pb2.QueryRequest(kfl=kfl, follow=True, format=JSON, **fields)
        self.call = stub.Query(request, timeout=60)

    def next(self) -> Any:
        part = next(self.call)
        kind = part.WhichOneof("part")
        return json.loads(part.json)["index"] if kind == "json" else kind


def test_what_is_recorded_is_followed_once_each_across_segments(disk: Any, stub: Any) -> None:
    run = disk.run("live")
    run.append(entries=[{"index": 0}], losses=[{}])
    following = Following(stub, 'record("live") and response.status == 500')
    assert [following.next() for _ in range(3)] == [0, "loss", "status"]
    run.append(entries=[{"index": 1}, {"index": 2, "response_status": 200}])
    run.turn()
    run.append(entries=[{"index": 3}])
    assert [following.next(), following.next()] == [1, 3]
    run.turn()
    later = disk.run("live", 2)
    later.append(entries=[{"index": 4}], losses=[{}])
    assert [following.next(), following.next()] == [4, "loss"]
    following.call.cancel()


def test_a_limit_ends_what_is_followed(disk: Any, stub: Any) -> None:
    run = disk.run("live")
    run.append(entries=[{"index": 0}])
    following = Following(stub, 'record("live")', limit=2)
    assert [following.next(), following.next()] == [0, "status"]
    run.append(entries=[{"index": 1}, {"index": 2}])
    assert following.next() == 1
    with pytest.raises(StopIteration):
        following.next()


def test_a_recording_deleted_while_followed_is_told(disk: Any, stub: Any) -> None:
    disk.run("live").append(entries=[{"index": 0}])
    following = Following(stub, 'record("live")')
    assert [following.next(), following.next()] == [0, "status"]
    shutil.rmtree(disk.data / "recordings" / "live")
    with pytest.raises(grpc.RpcError) as caught:
        following.next()
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert '"live" was deleted while it was read' in caught.value.details()


def test_a_recording_deleted_while_a_query_runs_is_one_clear_error(disk: Any, stub: Any) -> None:
    run = disk.run("big")
    for first in range(0, 20_000, 5_000):
        run.append(
            entries=[
                {"index": i, "start_time": disk.start_ns + i, "response_body": "x" * 2000}
                for i in range(first, first + 5_000)
            ]
        )
        run.turn()
    call = stub.Query(query_pb2.QueryRequest(kfl='record("big")', format=JSON))
    seen = [json.loads(next(call).json)["index"]]
    shutil.rmtree(disk.data / "recordings" / "big")
    with pytest.raises(grpc.RpcError) as caught:
        seen.extend(json.loads(part.json)["index"] for part in call)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert '"big" was deleted while it was read' in caught.value.details()
    assert seen == list(range(len(seen)))


def test_cancelling_ends_the_work(disk: Any, engine: Any, stub: Any) -> None:
    disk.run("big").append(
        entries=[{"index": i, "response_body": "x" * 5000} for i in range(5_000)]
    )
    call = stub.Query(query_pb2.QueryRequest(kfl='record("big")', format=JSON))
    next(call)
    assert engine._sessions
    call.cancel()
    for _ in range(1000):
        if not engine._sessions:
            break
        time.sleep(0.01)
    assert not engine._sessions


def test_a_question_over_its_time_is_ended_with_a_sentence(two: Any, serve_queries: Any) -> None:
    stub = serve_queries(deadline_seconds=1e-9)
    error = refusal(stub, 'record("slow-cart")')
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "was ended after 1e-09 s of work" in error.details()


def test_questions_beyond_the_number_that_there_is_room_for_are_refused(
    disk: Any, serve_queries: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_CONCURRENT", 1)
    monkeypatch.setattr(query_rpc, "MAX_FOLLOWERS", 1)
    monkeypatch.setattr(base, "QUEUE_SECONDS", 0.05)
    stub = serve_queries()
    disk.run("big").append(
        entries=[{"index": i, "response_body": "x" * 5000} for i in range(5_000)]
    )
    disk.run("small").append(entries=[{}])
    running = stub.Query(query_pb2.QueryRequest(kfl='record("big")', format=JSON))
    next(running)
    error = refusal(stub, 'record("small")')
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Ask again when one has ended" in error.details()
    assert len(list(running)) == 5_000
    assert len(ask(stub, 'record("small")').entries) == 1
    following = Following(stub, 'record("small")')
    assert [following.next(), following.next()] == [0, "status"]
    error = refusal(stub, 'record("small")', follow=True)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    following.call.cancel()


def test_damage_of_a_journal_is_a_warning(two: Any, stub: Any) -> None:
    journal = next((two.data / "recordings" / "slow-cart" / "0001").glob("journal-*.log"))
    with journal.open("ab") as file:
        file.write(bytes(200))
    told = ask(stub, 'record("slow-cart")')
    assert told.values("index") == [10, 11]
    assert any(journal.name in warning for warning in told.status.warnings)


def test_an_empty_recording_has_an_empty_answer(disk: Any, stub: Any) -> None:
    disk.run("empty")
    told = ask(stub, 'record("empty")')
    assert told.kinds == ["status"]


def test_a_recording_made_again_under_its_name_has_its_own_entries(disk: Any, stub: Any) -> None:
    for status in (200, 500):
        run = disk.run("again")
        run.append(entries=[{"response_status": status}])
        run.turn()
        assert ask(stub, 'record("again")').values("response", "status") == [status]
        shutil.rmtree(disk.data / "recordings" / "again")


def test_check_explains(two: Any, stub: Any) -> None:
    found = stub.Check(query_pb2.CheckRequest(kfl='record("slow-cart") and response.status == 500'))
    assert found.ok
    assert list(found.recordings) == ["slow-cart"]
    assert found.explanation


def test_check_says_what_is_wrong_and_where(two: Any, stub: Any) -> None:
    found = stub.Check(query_pb2.CheckRequest(kfl="http and\nrespons.status == 500"))
    assert not found.ok
    wrong = found.diagnostics[0]
    assert (wrong.is_error, wrong.line, wrong.column) == (True, 2, 1)
    found = stub.Check(query_pb2.CheckRequest(kfl='http and\n record("slow-card")'))
    assert not found.ok
    assert (found.diagnostics[-1].line, found.diagnostics[-1].column) == (2, 9)
    assert '"slow-cart"' in found.diagnostics[-1].message


def test_words_of_operators_are_known(two: Any, serve_queries: Any) -> None:
    stub = serve_queries(
        macros={"failed": "http and status_code >= 500", "shop": 'record("checkout-500s")'}
    )
    assert ask(stub, "shop and failed").values("response", "status") == [503, 500, 500]
    assert stub.Check(query_pb2.CheckRequest(kfl="shop and failed")).recordings == ["checkout-500s"]
    assert "Did you mean failed" in refusal(stub, "shop and faild").details()
    found = stub.Check(query_pb2.CheckRequest(kfl="http and\n  failed.status"))
    assert (found.diagnostics[0].line, found.diagnostics[0].column) == (2, 3)


def test_recordings_are_listed_with_what_they_hold(two: Any, stub: Any) -> None:
    first, second = stub.ListRecordings(query_pb2.ListRecordingsRequest()).recordings
    assert (first.name, first.runs, first.entries) == ("checkout-500s", 2, 4)
    assert first.first_entry_time.ToNanoseconds() == two.start_ns
    assert first.last_entry_time.ToNanoseconds() == two.start_ns + 5000
    assert first.bytes > 0
    assert (second.name, second.entries, second.packets) == ("slow-cart", 2, 0)


def test_no_recordings_are_an_empty_list(stub: Any) -> None:
    assert not stub.ListRecordings(query_pb2.ListRecordingsRequest()).recordings
    assert "There are no recordings yet" in refusal(stub, "http").details()
