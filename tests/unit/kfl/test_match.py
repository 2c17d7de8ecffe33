import pytest

import kfl


def matches(text, entry):
    return kfl.compile(text).matches(entry)


def test_an_entry_without_transport_is_told_by_its_protocol():
    for name, word in (("http", "tcp"), ("redis", "tcp"), ("tcp", "tcp"), ("dns", "udp")):
        assert matches(word, {"protocol": {"name": name}})
        other = "udp" if word == "tcp" else "tcp"
        assert not matches(other, {"protocol": {"name": name}})
    assert matches("udp", {"protocol": {"name": "ldap"}, "transport": "udp"})


@pytest.mark.parametrize(
    ("protocol", "true", "false"),
    [
        (
            {"name": "http", "version": "1.1", "abbr": "HTTP"},
            ["http"],
            ["http2", "grpc", "ws", "tls"],
        ),
        ({"name": "http", "version": "2.0", "abbr": "HTTP/2"}, ["http", "http2"], ["grpc", "gql"]),
        ({"name": "http", "version": "2.0", "abbr": "gRPC"}, ["http", "http2", "grpc"], ["gql"]),
        ({"name": "http", "version": "1.1", "abbr": "GQL"}, ["http", "gql"], ["http2", "grpc"]),
        ({"name": "ws", "version": "", "abbr": "WS"}, ["ws", "http", "tcp"], ["http2"]),
        ({"name": "tls", "version": "1.3", "abbr": "TLS"}, ["tls", "tcp"], ["http"]),
        ({"name": "udp", "abbr": "UDP"}, ["udp", "conn", "flow", "udp_conn"], ["tcp_conn", "tcp"]),
    ],
)
def test_protocol_words(protocol, true, false):
    entry = {"protocol": protocol}
    assert [word for word in true if not matches(word, entry)] == []
    assert [word for word in false if matches(word, entry)] == []


def test_missing_makes_the_smallest_comparison_false_and_no_more():
    dns = {"protocol": {"name": "dns"}, "response": {"code": "NOERROR"}}
    assert matches("response.status == 500 or dns", dns)
    assert not matches("response.status != 1", dns)
    assert matches("!(response.status == 1)", dns)
    assert matches("!response.status", dns)
    assert matches("not response.status.startsWith('5')", dns)
    assert matches("(response.status == 1) == false", dns)
    assert not matches("size(response.status) != 3", dns)
    assert not matches("response.status + 1 != 3", dns)


def test_only_names_of_headers_ignore_case():
    entry = {
        "request": {"headers": {"X-Id": "1", "x": {"A": 1}}, "cookies": {"Id": "1"}},
        "response": {"body": '{"headers": {"X-Id": 1}}'},
    }
    assert matches("request.headers['x-ID'] == 1", entry)
    assert matches("'x-id' in request.headers", entry)
    assert matches("(tls ? request.cookies : request.headers)['x-iD'] == 1", entry)
    assert matches("'x-iD' in (tls ? request.cookies : request.headers)", entry)
    assert matches("map_get((tls ? request : request.headers), 'X-ID', 0) == 1", entry)
    assert not matches("request..X == 1", entry)
    assert matches("request.headers..X.A == 1", entry)
    assert not matches("request.headers.x.a == 1", entry)
    assert not matches("request.cookies.id == 1", entry)
    assert not matches("response.body.json().headers['x-id'] == 1", entry)


def test_half_a_surrogate_pair_in_an_entry_is_no_reason_to_fail():
    entry = {"request": {"path": "\ud800x"}}
    assert matches('request.path == r"x$"', entry)
    assert matches('request.path.endsWith("x")', entry)
    assert not matches("request.path.json().a == 1", entry)


def test_deep_values_do_not_exhaust_the_stack():
    deep = current = {}
    for _ in range(20_000):
        current["a"] = {}
        current = current["a"]
    current["name"] = "x"
    assert matches('request..name == "x"', {"request": deep})
