"""GraphQL over HTTP: what entries say of it, and filters that find it in each way of running."""

import json

import duckdb
import numpy as np
import pytest

import kfl
from recordings.entry import objects
from services.capture.frames import open_capture
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation
from tests.unit.capture.dissectors.recorded import CAPTURES

ANSWER = b'{"data": {"hello": "world"}}'
FAILED = b'{"data": null, "errors": [{"message": "no shelf", "extensions": {"code": "EMPTY"}}]}'


def request(body, kind=b"application/json", target=b"/graphql", method=b"POST"):
    head = b"%s %s HTTP/1.1\r\nHost: a\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (method, target, kind, len(body)) + body


def response(body, kind=b"application/json"):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


def asked(document, **others):
    return json.dumps({"query": document, **others}).encode()


def calls_of(frames, **options):
    pipeline = Pipeline(PipelineOptions(most_flows=64, **{"body_limit": 1000, **options}))
    return pipeline.take(wire.batch(frames))


def entry_of(said, answer=None, **options):
    talk = Conversation().open().client(said)
    if answer is not None:
        talk.server(answer)
    calls = calls_of(talk.frames, **options)
    return objects(calls[0].entries(np.arange(1)))[0] if answer is not None else calls


NAMED = asked("query Who($id: ID!) { me: user(id: $id) { name } ok }", operationName="Who")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            request(NAMED),
            {"OperationType": "query", "OperationName": "Who", "Fields": ["user", "ok"]},
        ),
        (request(asked("mutation { a }")), {"OperationType": "mutation", "Fields": ["a"]}),
        (request(b"{ a }", b"application/graphql"), {"OperationType": "query", "Fields": ["a"]}),
        (request(asked("{ a }"), b"Application/JSON; charset=utf-8"),
         {"OperationType": "query", "Fields": ["a"]}),
        (b"GET /graphql?query=subscription+S+%7B+a+%7D HTTP/1.1\r\n\r\n",
         {"OperationType": "subscription", "OperationName": "S", "Fields": ["a"]}),
        (request(b'{"extensions": {"persistedQuery": {"sha256Hash": "ab"}}}'),
         {"Operations": [{"type": "", "name": "", "fields": []}]}),
    ],
)  # fmt: skip
def test_a_request_tells_what_it_asks_for(said, told):
    found = entry_of(said, response(ANSWER))
    assert found["protocol"] == {"name": "http", "version": "1.1", "abbr": "GQL"}
    mine = {key: value for key, value in found["request"].items() if key.startswith("gql")}
    assert mine == {f"gql{key}": value for key, value in told.items()}
    assert not [key for key in found["response"] if key.startswith("gql")]


@pytest.mark.parametrize(
    "said",
    [
        request(b'{"query": "shoes"}'),
        request(b'{"page": 1}'),
        request(b"query=%7Ba%7D", b"application/x-www-form-urlencoded"),
        request(asked("{ a }"), b"text/plain"),
        request(b"\xff\xfe{", b"application/json"),
        b"GET /search?query=shoes HTTP/1.1\r\n\r\n",
        b"GET /search?jquery=%7B+a HTTP/1.1\r\n\r\n",
    ],
)
def test_other_requests_are_http(said):
    found = entry_of(said, response(ANSWER))
    assert found["protocol"]["abbr"] == "HTTP"
    assert not [key for key in found["request"] if key.startswith("gql")]


def test_errors_in_a_200_are_told():
    found = entry_of(request(asked("{ shelf }")), response(FAILED))
    assert found["response"]["status"] == 200
    assert found["response"]["gqlErrorCount"] == 1
    assert found["response"]["gqlErrors"] == [{"message": "no shelf", "code": "EMPTY"}]


def test_the_beginning_of_a_long_request_is_enough():
    found = entry_of(request(asked("query Long { a " + "b " * 2000 + "}")), response(ANSWER))
    assert found["request"]["bodyTruncated"]
    assert (found["protocol"]["abbr"], found["request"]["gqlOperationName"]) == ("GQL", "Long")


def test_without_bodies_only_what_is_in_the_target_can_be_known():
    get = b"GET /graphql?query=%7B+a+%7D HTTP/1.1\r\n\r\n"
    assert entry_of(get, response(ANSWER), body_limit=0)["protocol"]["abbr"] == "GQL"
    post = request(asked("{ a }"))
    assert entry_of(post, response(ANSWER), body_limit=0)["protocol"]["abbr"] == "HTTP"


FILTERS = {  # and how many of the recorded calls match
    "graphql": 12,
    "gql": 12,
    "gqlv1": 6,
    "gqlv2": 6,
    "graphql and http2": 6,
    "http": 14,
    "http and not gql": 2,
    "http2": 7,
    "grpc": 0,
    'gql_operation_type == "mutation"': 2,
    'request.gqlOperationName == "Who"': 2,
    "response.gqlErrorCount > 0 and response.status == 200": 4,
    'gqlv2 and response.gqlErrors.*.message.contains("shelf")': 1,
    'gqlv1 or request.path == "/plain"': 8,
}


@pytest.fixture(scope="module")
def recorded():
    """(calls, their entries as a table and as objects) of the recorded server."""
    source = open_capture(CAPTURES / "graphql-core.pcap")
    pipeline = Pipeline(PipelineOptions(most_flows=64, body_limit=1 << 16))
    found = []
    try:
        for batch in source.batches():
            for calls in pipeline.take(batch):
                table = calls.entries(np.arange(len(calls)))
                found.append((dict(calls.constants), _whole(calls), table, objects(table)))
    finally:
        source.close()
    return found


def _whole(calls):
    """Its hot columns, made while they are good."""
    columns = calls.columns()
    names = ("protocol_abbr", "protocol_version", "request_path", "response_status")
    return {**calls.constants, **{name: columns[name] for name in names}}


@pytest.mark.parametrize(("text", "many"), FILTERS.items())
def test_filters_find_it_in_each_way_of_running(recorded, text, many):
    chosen = kfl.compile(text)
    sql = chosen.sql()
    matched = 0
    for constants, columns, table, entries in recorded:
        truths = np.array([chosen.matches(each) for each in entries])
        matched += truths.sum()
        may, must = chosen.bounds(columns, len(entries))
        assert not (truths & ~may).any()
        assert not (must & ~truths).any()
        possible, _ = chosen.bounds(constants, 1)
        assert possible.all() or not truths.any()
        with duckdb.connect() as duck:
            duck.register("stored", table)
            answers = duck.execute(f"SELECT {sql.text} FROM stored", sql.parameters).fetchall()
        shown = np.array([answer for (answer,) in answers])
        assert (shown >= truths).all()
        assert not sql.exact or (shown == truths).all()
    assert matched == many
    dissectors = chosen.packets().dissectors
    assert dissectors is None or "http" in dissectors


def test_hot_columns_alone_decide_about_words(recorded):
    for text in ("graphql", "gqlv1", "gqlv2", "http and not graphql"):
        for _, columns, _, entries in recorded:
            may, must = kfl.compile(text).bounds(columns, len(entries))
            assert (may == must).all()


def test_words_of_other_protocols_do_not_look_at_bodies(recorded):
    (constants, *_) = recorded[0]
    for text in ("grpc", "ws", "redis"):
        assert not kfl.compile(text).bounds(constants, 1)[0].any()


def test_a_filter_for_a_word_needs_http_and_nothing_else():
    for word in ("graphql", "gql", "gqlv1", "gqlv2"):
        assert kfl.compile(word).packets().dissectors == {"http"}
    assert kfl.compile("http").packets().dissectors == {"http", "ws"}
