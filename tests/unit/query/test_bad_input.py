"""Every RPC with what is wrong, hostile or too much: a sentence each, and nothing else happens."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from recorder.v1 import query_pb2

HOSTILE = [
    "' OR 1=1 --",
    "'; DROP TABLE entries; --",
    "') UNION ALL SELECT * FROM read_csv('/etc/passwd') --",
    "\"; COPY (SELECT 1) TO '/tmp/x'; --",
    "../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\x",
    "shop/../shop",
    "a\x00b",
    "\N{RIGHT-TO-LEFT OVERRIDE}shop",
    "x" * 2000,
]

Ask = Callable[[Any, str], Any]


def every(answer: Any) -> list[Any]:
    return list(answer)


def question(text: str) -> query_pb2.Question:
    return query_pb2.Question(kfl=text)


OF_STATEMENTS: dict[str, Ask] = {
    "Query": lambda stub, kfl: every(stub.Query(query_pb2.QueryRequest(kfl=kfl))),
    "Export": lambda stub, kfl: every(stub.Export(query_pb2.ExportRequest(kfl=kfl))),
    "HAR": lambda stub, kfl: every(stub.Export(query_pb2.ExportRequest(kfl=kfl, format=3))),
    "Histogram": lambda stub, kfl: stub.Histogram(
        query_pb2.HistogramRequest(question=question(kfl))
    ),
    "Top": lambda stub, kfl: stub.Top(
        query_pb2.TopRequest(question=question(kfl), field="src.name")
    ),
    "ServiceMap": lambda stub, kfl: stub.ServiceMap(
        query_pb2.ServiceMapRequest(question=question(kfl))
    ),
    "Connections": lambda stub, kfl: stub.Connections(
        query_pb2.ConnectionsRequest(question=question(kfl))
    ),
    "Diff": lambda stub, kfl: stub.Diff(
        query_pb2.DiffRequest(
            before=query_pb2.Side(question=question(kfl)),
            after=query_pb2.Side(question=question(kfl)),
        )
    ),
    "GetEntry": lambda stub, kfl: stub.GetEntry(
        query_pb2.GetEntryRequest(id="node-1/00000000000000a1-0", kfl=kfl)
    ),
    "GetStream": lambda stub, kfl: every(
        stub.GetStream(query_pb2.GetStreamRequest(id="00000000000000a1", kfl=kfl))
    ),
}
"""Every RPC that reads recordings, asked with a statement."""

FINE = 'record("shop")'


@pytest.fixture
def shop(disk: Any, stub: Any) -> Any:
    """A recording that answers all of them."""
    disk.run("shop").append(entries=[{}], streams=[{}], packets=[{}])
    return stub


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    said = caught.value.details()
    assert said
    for leaked in ("root:", "Traceback", "duckdb", "Error:"):
        assert leaked not in said
    return caught.value.code(), said


def quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@pytest.mark.parametrize("rpc", OF_STATEMENTS)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_of_a_recording_is_refused(shop: Any, rpc: str, name: str) -> None:
    ask = OF_STATEMENTS[rpc]
    code, said = refused(lambda: ask(shop, f'record("{quoted(name)}")'))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert len(said) < 3000


@pytest.mark.parametrize("rpc", OF_STATEMENTS)
@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_value_is_a_value(shop: Any, rpc: str, value: str) -> None:
    text = quoted(value)
    one = f'request.path == "{text}" or request.headers["{text}"] == "{text}"'
    more = f'dst.name in ["{text}"] or response.body.contains("{text}")'
    ask = OF_STATEMENTS[rpc]
    text = f"{FINE} and ({one} or {more})"
    if rpc in ("GetEntry", "GetStream"):
        assert refused(lambda: ask(shop, text))[0] == grpc.StatusCode.NOT_FOUND
    else:
        ask(shop, text)


@pytest.mark.parametrize("value", HOSTILE)
def test_a_hostile_field_id_or_node_is_refused(shop: Any, value: str) -> None:
    top = query_pb2.TopRequest(question=question(FINE), field=value)
    by = query_pb2.HistogramRequest(question=question(FINE), by=value)
    entry = query_pb2.GetEntryRequest(id=value, kfl=FINE)
    stream = query_pb2.GetStreamRequest(id=value, kfl=FINE)
    for call in (
        lambda: shop.Top(top),
        lambda: shop.Histogram(by),
        lambda: shop.GetEntry(entry),
        lambda: list(shop.GetStream(stream)),
    ):
        assert refused(call)[0] == grpc.StatusCode.INVALID_ARGUMENT
    node = query_pb2.GetStreamRequest(id="00000000000000a1", node=value, kfl=FINE)
    code, _ = refused(lambda: list(shop.GetStream(node)))
    assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


MOST = 2**32 - 1

HUGE = {
    "Query": lambda stub: every(stub.Query(query_pb2.QueryRequest(kfl=FINE, limit=MOST))),
    "Top": lambda stub: stub.Top(
        query_pb2.TopRequest(question=question(FINE), field="src.name", limit=MOST)
    ),
    "Histogram": lambda stub: stub.Histogram(
        query_pb2.HistogramRequest(question=question(FINE), by="src.name", by_limit=MOST)
    ),
    "ServiceMap": lambda stub: stub.ServiceMap(
        query_pb2.ServiceMapRequest(question=question(FINE), limit=MOST)
    ),
    "Connections": lambda stub: stub.Connections(
        query_pb2.ConnectionsRequest(question=question(FINE), limit=MOST)
    ),
    "Diff": lambda stub: stub.Diff(
        query_pb2.DiffRequest(
            before=query_pb2.Side(question=question(FINE)),
            after=query_pb2.Side(question=question(FINE)),
            limit=MOST,
        )
    ),
    "GetEntry": lambda stub: stub.GetEntry(
        query_pb2.GetEntryRequest(id="node-1/00000000000000a1-0", kfl=FINE, body_limit=MOST)
    ),
    "GetStream": lambda stub: every(
        stub.GetStream(query_pb2.GetStreamRequest(id="00000000000000a1", kfl=FINE, limit=MOST))
    ),
}


@pytest.mark.parametrize("rpc", HUGE)
def test_a_huge_limit_is_refused_with_the_most_that_there_is(shop: Any, rpc: str) -> None:
    code, said = refused(lambda: HUGE[rpc](shop))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "at most" in said


@pytest.mark.parametrize(
    "costly",
    [
        "(" * 500 + "http" + ")" * 500,
        " or ".join(f"src.port == {i}" for i in range(3000)),
        'request.path == "' + "x" * 20_000 + '"',
        'request.path == r"' + "(a{1,1000}){1,1000}" * 4 + '"',
        "request..a..b..c..d == 1",
        "limit(" + "9" * 400 + ")",
    ],
    ids=["brackets", "alternatives", "text", "regex", "paths", "digits"],
)
@pytest.mark.parametrize("rpc", OF_STATEMENTS)
def test_a_statement_that_costs_too_much_is_refused(shop: Any, rpc: str, costly: str) -> None:
    code, _ = refused(lambda: OF_STATEMENTS[rpc](shop, f"{FINE} and {costly}"))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("rpc", OF_STATEMENTS)
def test_work_beyond_its_time_ends_with_a_sentence(shop: Any, serve_queries: Any, rpc: str) -> None:
    stub = serve_queries(deadline_seconds=1e-9)
    code, said = refused(lambda: OF_STATEMENTS[rpc](stub, FINE))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "s of work. Ask for" in said
