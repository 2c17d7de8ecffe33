"""What helps to write statements, over gRPC."""

from typing import Any

import grpc
import pytest
from recorder.v1 import query_pb2

import kfl
from services.query.language_rpc import MAX_TEXT


def test_the_catalogue_is_all_there(stub: Any) -> None:
    fields = {each.name: each for each in stub.ListFields(query_pb2.ListFieldsRequest()).fields}
    assert len(fields) == len(kfl.fields.CATALOGUE)
    status = fields["response.status"]
    assert (status.type, status.column) == ("number", "response_status")
    assert fields["elapsedTime"].unit == "ms"
    assert "node_name" in fields["node.name"].aliases


def test_completion_knows_recordings_and_macros(disk: Any, serve_queries: Any) -> None:
    disk.run("slow-cart")
    stub = serve_queries(macros={"shopping": 'dst.name == "cart"'})

    def inserts(text: str) -> list[str]:
        found = stub.Complete(query_pb2.CompleteRequest(text=text, caret=len(text)))
        return [each.insert for each in found.candidates]

    assert inserts('record("') == ['"slow-cart"']
    assert "shopping" in inserts("shop")
    assert "status" in inserts("response.sta")
    found = stub.Complete(query_pb2.CompleteRequest(text="http and dn", caret=11))
    assert (found.start, found.end) == (9, 11)
    assert all(each.kind and each.insert for each in found.candidates)


def test_tokens_of_any_text(stub: Any) -> None:
    text = 'response.status == "größe" ☃'
    tokens = stub.Tokens(query_pb2.TokensRequest(text=text)).tokens
    assert [(text[each.start : each.end], each.kind) for each in tokens][:2] == [
        ("response", "field"),
        (".", "operator"),
    ]
    assert tokens[-1].kind == "unknown"


def test_explain(serve_queries: Any) -> None:
    stub = serve_queries(macros={"failed": "response.status >= 500"})
    told = stub.Explain(query_pb2.ExplainRequest(kfl="http and failed")).explanation
    assert "response.status >= 500" in told
    assert "Parquet" in told


@pytest.mark.parametrize(
    "call",
    [
        lambda stub: stub.Explain(query_pb2.ExplainRequest(kfl="http and")),
        lambda stub: stub.Complete(query_pb2.CompleteRequest(text="http", caret=5)),
        lambda stub: stub.Complete(query_pb2.CompleteRequest(text="x" * (MAX_TEXT + 1))),
        lambda stub: stub.Tokens(query_pb2.TokensRequest(text="x" * (MAX_TEXT + 1))),
    ],
)
def test_what_is_wrong_is_refused(stub: Any, call: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(stub)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in caught.value.details()
