"""One entry or one stream with what belongs to it."""

import json
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from recorder.v1 import query_pb2

from services.runtime.errors import read_violations

STREAM = "00000000000000a1"


@pytest.fixture
def shop(disk: Any) -> Any:
    """`shop`: a stream of three calls in two batches, and another one; `copy` has one of them."""
    start = disk.start_ns
    run = disk.run("shop")
    run.append(
        entries=[
            {"index": 1, "start_time": start + 2000, "request_size": 10, "response_size": 70},
            {"index": 0, "start_time": start, "request_size": 5, "response_size": 20},
            {"index": 0, "stream": "00000000000000b2", "response_body": "x" * 100_000},
        ],
        streams=[{"first_time": start - 5000}],
        packets=[{"time": start - 5000, "original_length": 90}, {"time": start + 3000}],
        losses=[{}],
    )
    run.turn()
    run.append(
        entries=[{"index": 2, "start_time": start + 1_000_000, "response_status": 200}],
        packets=[{"time": start + 2_000_000}, {"stream": "00000000000000b2"}],
    )
    disk.run("copy").append(entries=[{"index": 1, "start_time": start + 2000}])
    return disk


def entry(stub: Any, id: str, **more: Any) -> query_pb2.GetEntryResponse:
    found: query_pb2.GetEntryResponse = stub.GetEntry(query_pb2.GetEntryRequest(id=id, **more))
    return found


def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    violations = [f"{each.field}: {each.description}" for each in read_violations(caught.value)]
    return caught.value.code(), " ".join(violations) or caught.value.details()


def test_an_entry_has_its_stream_and_its_packets(shop: Any, stub: Any) -> None:
    found = entry(stub, f"node-1/{STREAM}-1", kfl='record("shop")')
    told = json_format.MessageToDict(found.entry)
    assert told["id"] == f"node-1/{STREAM}-1"
    assert told["startTime"].endswith(".123458789Z")
    assert told["response"]["body"] == "broken"
    assert list(found.recordings) == ["shop"]
    assert (found.stream.client.ip, found.stream.server.port) == ("10.244.0.9", 80)
    assert found.stream.first_time.ToMicroseconds() == (shop.start_ns - 5000) // 1000
    assert (found.packets.packets, found.packets.bytes) == (3, 90 + 60 + 60)
    assert found.packets.recorded_bytes == 180
    assert found.packets.last_time.ToMicroseconds() == (shop.start_ns + 2_000_000) // 1000
    assert [loss.kind for loss in found.account.losses] == ["kernel_drop"]


def test_without_a_statement_all_recordings_are_looked_in(shop: Any, stub: Any) -> None:
    found = entry(stub, f"node-1/{STREAM}-1")
    assert list(found.recordings) == ["copy", "shop"]
    assert not found.HasField("stream")
    assert found.packets.packets == 0
    assert list(entry(stub, f"node-1/{STREAM}-2").recordings) == ["shop"]


def test_bodies_are_cut_and_marked(shop: Any, stub: Any) -> None:
    large = "node-1/00000000000000b2-0"
    response = entry(stub, large).entry["response"]
    assert len(response["body"]) == 65536
    assert response["bodyTruncated"]
    assert entry(stub, large, body_limit=7).entry["response"]["body"] == "x" * 7
    whole = entry(stub, large, body_limit=1 << 20).entry["response"]
    assert len(whole["body"]) == 100_000
    assert "bodyTruncated" not in whole


def test_redacted_values_are_hidden(shop: Any, stub: Any) -> None:
    text = 'record("shop") and redact("response.body") and redact("src.ip") # a comment'
    found = entry(stub, f"node-1/{STREAM}-1", kfl=text)
    assert found.entry["response"]["body"] == "[REDACTED]"
    assert found.stream.client.ip != "10.244.0.9"


@pytest.mark.parametrize(
    ("id", "code", "says"),
    [
        ("nonsense", grpc.StatusCode.INVALID_ARGUMENT, "id: "),
        ("", grpc.StatusCode.INVALID_ARGUMENT, "id: "),
        (f"node-1/{STREAM}-x", grpc.StatusCode.INVALID_ARGUMENT, "look like"),
        ("n" * 100_000, grpc.StatusCode.INVALID_ARGUMENT, "id: "),
        (f'"\n or http\u2028/{STREAM}-0', grpc.StatusCode.NOT_FOUND, "There is no entry"),
        (f"node-1/{STREAM}-9", grpc.StatusCode.NOT_FOUND, 'in the recording "shop"'),
        (f"node-1/{STREAM}-9999999999", grpc.StatusCode.NOT_FOUND, "There is no entry"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    shop: Any, stub: Any, id: str, code: grpc.StatusCode, says: str
) -> None:
    got, sentence = refusal(lambda: entry(stub, id, kfl='record("shop")'))
    assert got == code
    assert says in sentence


def test_a_wrong_statement_is_told_of_the_statement(shop: Any, stub: Any) -> None:
    code, sentence = refusal(lambda: entry(stub, f"node-1/{STREAM}-0", kfl="http and and"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert sentence.startswith("kfl: ")
    assert "column 10" in sentence
    code, sentence = refusal(lambda: entry(stub, f"node-1/{STREAM}-0", kfl="http"))
    assert code == grpc.StatusCode.FAILED_PRECONDITION


# ------------------------------------------------------------------------------ GetStream


def stream(stub: Any, id: str, **more: Any) -> list[query_pb2.GetStreamResponse]:
    more.setdefault("format", query_pb2.ENTRY_FORMAT_JSON)
    return list(stub.GetStream(query_pb2.GetStreamRequest(id=id, **more)))


def test_a_stream_is_its_sums_and_its_calls_in_order(shop: Any, stub: Any) -> None:
    parts = stream(stub, STREAM, kfl='record("shop")')
    assert [part.WhichOneof("part") for part in parts] == ["summary", *["json"] * 3, "account"]
    assert [json.loads(part.json)["index"] for part in parts[1:-1]] == [0, 1, 2]
    summary = parts[0].summary
    sums = summary.connection.figures
    assert (sums.entries, sums.errors) == (3, 2)
    assert (sums.request_bytes, sums.response_bytes) == (15, 90)
    assert summary.packets.packets == 3
    assert summary.stream.id == STREAM
    assert not parts[-1].account.status.truncated
    objects = stream(stub, STREAM, kfl='record("shop")', format=0)
    assert [part.entry["index"] for part in objects[1:-1]] == [0, 1, 2]


def test_a_limit_and_a_condition(shop: Any, stub: Any) -> None:
    parts = stream(stub, STREAM, kfl='record("shop")', limit=2)
    assert len(parts) == 4
    assert parts[-1].account.status.truncated
    failing = stream(stub, STREAM, kfl='record("shop") and response.status == 500')
    assert len(failing) == 4
    assert not failing[-1].account.status.truncated


def test_the_node_decides_where_two_have_a_stream_of_that_id(shop: Any, stub: Any) -> None:
    shop.runs[0].append(entries=[{"node_name": "node-2", "index": 7}])
    parts = stream(stub, STREAM, kfl='record("shop")')
    assert parts[0].summary.connection.node == "node-1"
    assert len(parts) == 5
    assert "node-2" in parts[-1].account.status.warnings[0]
    (_, only, _) = stream(stub, STREAM, kfl='record("shop")', node="node-2")
    assert json.loads(only.json)["index"] == 7


@pytest.mark.parametrize(
    ("id", "more", "code"),
    [
        ("xyz", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("0" * 16, {}, grpc.StatusCode.NOT_FOUND),
        (STREAM, {"format": query_pb2.ENTRY_FORMAT_ARROW}, grpc.StatusCode.INVALID_ARGUMENT),
        (STREAM, {"limit": 2**32 - 1}, grpc.StatusCode.INVALID_ARGUMENT),
        (STREAM, {"node": "n" * 1000}, grpc.StatusCode.INVALID_ARGUMENT),
        (STREAM, {"kfl": 'record("shpo")'}, grpc.StatusCode.NOT_FOUND),
    ],
)
def test_a_wrong_question_about_a_stream_is_a_sentence(
    shop: Any, stub: Any, id: str, more: dict[str, Any], code: grpc.StatusCode
) -> None:
    got, sentence = refusal(lambda: stream(stub, id, **more))
    assert got == code
    assert sentence.endswith((".", "?"))


def test_without_recordings_it_says_so(disk: Any, stub: Any) -> None:
    code, sentence = refusal(lambda: entry(stub, f"node-1/{STREAM}-1"))
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "no recordings yet" in sentence
