import numpy as np
import pyarrow as pa
import pytest

import kfl


def texts(*values):
    return np.array(values, object)


HTTP_AND_DNS = {
    "protocol_name": texts("http", "http", "dns", "postgresql"),
    "protocol_abbr": texts("HTTP", "gRPC", "DNS", "PGSQL"),
    "transport": texts("tcp", "tcp", "udp", "tcp"),
    "tls": np.array([False, True, False, False]),
    "response_status": np.array([500, 200, -1, -1], np.int32),
    "request_method": texts("GET", "POST", "", ""),
    "src_name": texts("a", "", "b", "a"),
    "src_port": np.array([1, 2, 3, 4], np.int64),
    "elapsed_us": np.array([1500, 999, -1, 0]),
}


@pytest.mark.parametrize(
    ("text", "may", "must"),
    [
        ("http", "1100", "1100"),
        ("grpc", "0100", "0100"),
        ("tls", "0100", "0100"),
        ("tcp", "1101", "1101"),
        ("http2", "1100", "0000"),  # its version is not given
        ("http and response.status == 500", "1000", "1000"),
        ("response.status == 500", "1001", "1000"),  # PostgreSQL may have one in its JSON
        ("response.status != 500", "0101", "0100"),
        ("not (response.status == 500)", "0111", "0110"),
        ("status_code >= 200", "1100", "1100"),
        ("status_code in [200, 201]", "0100", "0100"),
        ("status_code == '500'", "1000", "1000"),
        ("status_code == r'^2'", "0100", "0100"),
        ("status_code / 100 == 5", "1000", "1000"),
        ("src.name == 'a'", "1001", "1001"),
        ("src.name", "1011", "1011"),
        ("src.name == ''", "0100", "0100"),
        ("request.method == 'GET'", "1001", "1000"),
        ("elapsedTime == 1", "1000", "1000"),
        ("elapsedTime < 1", "0101", "0101"),
        ("elapsedTime == nil", "0010", "0010"),
        ("src.port > 2", "0011", "0011"),
        ("src.port > 2 ? dns : http", "1110", "1110"),
        ("dst.port == 1", "1111", "0000"),  # not given
        ("dns and dst.port == 1", "0010", "0000"),
        ("dns or dst.port == 1", "1111", "0010"),
        ("request.headers.a == 1", "1111", "0000"),
        ("record('a')", "1111", "0000"),
        ("request.body.json().a == 1", "1111", "0000"),
        ("limit(3)", "1111", "1111"),
    ],
)
def test_rows_that_may_and_rows_that_must_match(text, may, must):
    found = kfl.compile(text)
    masks = found.bounds(HTTP_AND_DNS, 4)
    assert ["".join("1" if bit else "0" for bit in mask) for mask in masks] == [may, must]
    assert found.columns(HTTP_AND_DNS, 4).tolist() == [bit == "1" for bit in may]


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("http", True),
        ("http and src.port == 80", True),
        ("tls or elapsedTime > 100", True),
        ("not dns and src.name == 'a'", True),
        ("http2", False),
        ("response.status == 500", False),
        ("request.headers.a == 1", False),
        ("record('a')", False),
    ],
)
def test_exact_filters_need_no_entry(text, exact):
    assert kfl.compile(text).is_exact is exact


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('tls_sni == "b"', "0100"),
        ('tls_sni != "b"', "1010"),
        ('request.sni.endsWith("a")', "1000"),
        ('request.sni == r"^[ab]$"', "1100"),
        ("request.sni in ['a', 'b']", "1100"),
        ("request.sni", "1100"),
        ("request.sni == nil", "0000"),
        ('tls and not (request.sni == "b")', "1011"),
    ],
)
def test_a_column_of_one_key_saves_the_text_of_its_message(text, found):
    def unwanted(rows):
        raise AssertionError("the message is not needed")

    messages = [{"sni": "a"}, {"sni": "b"}, {"sni": ""}, None]
    columns = {
        "protocol_name": "tls", "tls": False, "request": unwanted,
        "request.sni": pa.array([each and each["sni"] for each in messages], pa.string()),
    }  # fmt: skip
    chosen = kfl.compile(text)
    may, must = chosen.bounds(columns, 4)
    assert "".join(str(int(each)) for each in must) == found
    assert may.tolist() == must.tolist()
    entries = [{"protocol": {"name": "tls"}, "tls": False, "request": each} for each in messages]
    assert [chosen.matches(each) for each in entries] == must.tolist()


def test_no_rows_are_no_problem():
    assert kfl.compile("http and status_code == 1").columns({}, 0).tolist() == []
