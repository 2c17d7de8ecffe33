import pytest

from services.cli import summary

HTTP = {
    "startTime": "2026-11-22T23:12:00.123456789Z",
    "record": "demo",
    "stream": "8f3a",
    "index": 4,
    "node": {"name": "node-1", "ip": "10.0.0.7"},
    "protocol": {"name": "http", "version": "1.1", "abbr": "HTTP"},
    "src": {"ip": "10.244.0.9", "port": 45168, "name": "checkout"},
    "dst": {"ip": "2001:db8::1", "port": 80, "name": ""},
    "elapsedTimeUs": 12431,
    "requestSize": 412,
    "responseSize": 9210,
    "request": {"method": "GET", "url": "/api/cart?id=7", "path": "/api/cart"},
    "response": {"status": 500},
    "error": None,
}
DNS = {
    "protocol": {"abbr": "DNS"},
    "request": {"opCode": "Query", "questions": [{"name": "a.test", "type": "AAAA"}]},
    "response": {"code": "NXDOMAIN"},
}


def test_a_row_of_http():
    assert summary.row(HTTP) == (
        "2026-11-22 23:12:00.123",
        "HTTP",
        "500",
        "GET",
        "/api/cart",
        "checkout:45168",
        "[2001:db8::1]:80",
        "12.4 ms",
    )
    assert len(summary.row(HTTP)) == len(summary.HEADERS)


def test_a_row_of_dns():
    assert summary.row(DNS)[1:5] == ("DNS", "NXDOMAIN", "AAAA", "a.test")


def test_a_request_without_an_answer_shows_why():
    entry = HTTP | {"response": None, "error": {"type": "timeout", "msg": "…"}}
    assert summary.status(entry) == "timeout"


@pytest.mark.parametrize("entry", [{}, {"request": None, "src": None, "error": None}])
def test_an_entry_with_nothing_in_it_is_an_empty_row(entry):
    assert set(summary.row(entry)) == {""}
    assert len(summary.csv_row(entry)) == len(summary.CSV_HEADERS)


def test_csv_has_numbers_as_numbers():
    row = dict(zip(summary.CSV_HEADERS, summary.csv_row(HTTP), strict=True))
    assert row["elapsed_us"] == 12431
    assert row["dst_ip"] == "2001:db8::1"
    assert row["record"] == "demo"


@pytest.mark.parametrize(
    ("microseconds", "text"), [(0, "0 µs"), (999, "999 µs"), (2500000, "2.50 s"), (None, "")]
)
def test_elapsed(microseconds, text):
    assert summary.elapsed(microseconds) == text
