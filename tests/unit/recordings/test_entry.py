import json

import pyarrow as pa
import pytest

from recordings import entry
from recordings.schema import ENTRIES

HTTP = {
    "elapsed_us": 12431,
    "request_size": 412,
    "response_size": 9210,
    "request_method": "GET",
    "request_url": "/api/cart?id=7&q=a%20b+c&id=8&flag",
    "request_path": "/api/cart",
    "request_http_version": "HTTP/1.1",
    "request_headers": [
        {"name": "User-Agent", "value": "kube-probe/1.27+"},
        {"name": "Cookie", "value": "a=1; b=x=y; broken"},
        {"name": "Accept", "value": "a"},
        {"name": "accept", "value": "b"},
    ],
    "request_headers_size": 180,
    "request_body_size": 0,
    "request_body": "",
    "response_status": 500,
    "response_status_text": "Internal Server Error",
    "response_http_version": "HTTP/1.1",
    "response_headers": [
        {"name": "Set-Cookie", "value": "s=1; Path=/"},
        {"name": "Set-Cookie", "value": "t=2"},
    ],
    "response_body_size": 3,
    "response_body": "AAEC",
    "response_body_base64": True,
    "response_body_truncated": True,
}


def one(table):
    (found,) = entry.objects(table)
    json.dumps(found)  # is plain JSON
    return found


def test_an_http_call_in_full(entry_row):
    names = {"src_name": "checkout", "src_namespace": "shop", "src_pod": "checkout-5d"}
    more = {"src_service": "checkout", "src_labels": '{"app": "checkout"}'}
    assert one(entry_row(**HTTP, **names, **more)) == {
        "id": "node-1/8f3a000000000001-0",
        "index": 0,
        "stream": "8f3a000000000001",
        "record": None,
        "node": {"name": "node-1", "ip": "10.0.0.7"},
        "protocol": {"name": "http", "version": "1.1", "abbr": "HTTP"},
        "transport": "tcp",
        "tls": False,
        "src": {
            "ip": "10.244.0.9",
            "port": 45168,
            "name": "checkout",
            "namespace": "shop",
            "pod": {"name": "checkout-5d", "namespace": "shop", "labels": {"app": "checkout"}},
            "service": {"name": "checkout", "namespace": "shop"},
            "dns": "",
        },
        "dst": {
            "ip": "10.96.0.50",
            "port": 80,
            "name": "",
            "namespace": "",
            "pod": {"name": "", "namespace": "", "labels": {}},
            "service": {"name": "", "namespace": ""},
            "dns": "",
        },
        "timestamp": 1763853120123,
        "startTime": "2025-11-22T23:12:00.123456789Z",
        "elapsedTime": 12,
        "elapsedTimeUs": 12431,
        "requestSize": 412,
        "responseSize": 9210,
        "request": {
            "method": "GET",
            "url": "/api/cart?id=7&q=a%20b+c&id=8&flag",
            "path": "/api/cart",
            "pathSegments": ["api", "cart"],
            "queryString": {"id": ["7", "8"], "q": "a b c", "flag": ""},
            "httpVersion": "HTTP/1.1",
            "headers": {
                "User-Agent": "kube-probe/1.27+",
                "Cookie": "a=1; b=x=y; broken",
                "Accept": "a, b",
            },
            "cookies": {"a": "1", "b": "x=y"},
            "headersSize": 180,
            "bodySize": 0,
            "body": "",
        },
        "response": {
            "status": 500,
            "statusText": "Internal Server Error",
            "httpVersion": "HTTP/1.1",
            "headers": {"Set-Cookie": ["s=1; Path=/", "t=2"]},
            "cookies": {"s": "1", "t": "2"},
            "bodySize": 3,
            "body": "AAEC",
            "bodyEncoding": "base64",
            "bodyTruncated": True,
        },
        "error": None,
    }


def test_one_cookie_is_a_list_too(entry_row):
    found = one(entry_row(response_headers=[{"name": "set-cookie", "value": "a=1"}]))
    assert found["response"] == {"headers": {"set-cookie": ["a=1"]}, "cookies": {"a": "1"}}


@pytest.mark.parametrize(
    ("path", "segments"), [("/", [""]), ("/a//b/", ["a", "", "b", ""]), ("*", ["*"])]
)
def test_path_segments(entry_row, path, segments):
    found = one(entry_row(request_path=path, request_url=path))
    assert found["request"]["pathSegments"] == segments
    assert found["request"]["queryString"] == {}


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("&&", {}),
        ("a=%C3%A9&%61=2", {"a": ["é", "2"]}),
        ("a=%zz&b=%ff", {"a": "%zz", "b": "\ufffd"}),
        ("a=1?b=2", {"a": "1?b=2"}),
        ("=x", {"": "x"}),
    ],
)
def test_query_strings(entry_row, query, fields):
    found = one(entry_row(request_url=f"/?{query}"))
    assert found["request"]["queryString"] == fields


def test_a_missing_side_is_null(entry_row):
    found = one(entry_row(request_method="GET", error_type="timeout", error_msg="no answer"))
    assert found["request"] == {"method": "GET", "cookies": {}}
    assert found["response"] is None
    assert found["error"] == {"type": "timeout", "msg": "no answer"}
    assert found["elapsedTime"] is None


def test_another_protocol_is_its_json(entry_row):
    text = '{"opCode": "Query", "questions": [{"name": "a.b", "type": "A"}]}'
    dns = {"protocol_name": "dns", "protocol_abbr": "DNS", "transport": "udp"}
    found = one(entry_row(**dns, request=text, response="{}"))
    assert found["request"] == json.loads(text)
    assert found["response"] == {}
    assert found["transport"] == "udp"


def test_columns_win_over_the_text(entry_row):
    found = one(entry_row(response_status=500, response='{"status": 200, "extra": [1]}'))
    assert found["response"] == {"status": 500, "extra": [1], "cookies": {}}


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "NaN", "[" * 5000, '{"a": "\\ud800"}'])
def test_bad_json_never_raises(entry_row, text):
    found = one(entry_row(request=text, src_labels=text))
    assert found["request"] == {"cookies": {}}
    assert found["src"]["pod"]["labels"] == {}


def test_a_slice_a_chunked_table_and_a_record_column(entry_row):
    names = [[{"name": f"h{i}", "value": str(i)}] if i % 3 else None for i in range(12)]
    table = pa.concat_tables([entry_row(index=i, request_headers=n) for i, n in enumerate(names)])
    table = table.append_column("record", pa.array(["checkout"] * 12))
    whole = entry.objects(table)
    assert [e["index"] for e in whole] == list(range(12))
    assert [e["request"] and e["request"]["headers"] for e in whole] == [
        {f"h{i}": str(i)} if i % 3 else None for i in range(12)
    ]
    assert entry.objects(table.slice(4, 5)) == whole[4:9]
    assert entry.objects(table.combine_chunks().slice(4, 5)) == whole[4:9]
    assert {e["record"] for e in whole} == {"checkout"}


def test_a_table_without_rows_or_without_columns(entry_row):
    assert entry.objects(ENTRIES.empty_table()) == []
    few = entry_row(request_method="GET").select(["start_time", "request_method"])
    found = one(few)
    assert found["request"] == {"method": "GET"}
    assert found["startTime"] == "2025-11-22T23:12:00.123456789Z"


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_763_853_120_000_000_001, "2025-11-22T23:12:00.000000001Z"),
    ],
)
def test_times_have_nine_digits(ns, text):
    assert entry.rfc3339(ns) == text
