import time

import pytest

import kfl

NS = 1_000_000_000
NEW_YEAR = 1_767_225_600 * NS


def shown(text: str) -> str:
    return kfl.compile(text).prune().show()


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("response.status == 500", "response_status in 500..500"),
        ("500 <= response.status", "response_status in 500.."),
        ('response.status == "500.0"', "response_status in 500..500"),
        ("status_code in [503, 500]", "protocol_name in http, ws; response_status in 500, 503"),
        ("dst.port in [80, 443] and dst.port > 80", "dst_port in 443..443"),
        ("src.port < 1024 or src.port == 8080", "src_port in ..8080"),
        ("src.port == 8080 or src.port == 80 or src.port == 9", "src_port in 9, 80, 8080"),
        ("src.port == nil", "src_port in null"),
        ("dst.port == 1.5 or dst.port == true or dst.port == nil", "dst_port in null"),
        ('src.name in ["b", "a"]', "src_name in a, b"),
        ('src.name == "a" or src.name == "b" or http', "anything may match"),
        ('src.pod.metadata.name == "x" and tcp', "src_pod in x; transport in tcp"),
        ('redis_command == "GET"', "protocol_name in redis"),
        ("http or dns", "protocol_name in dns, http, ws"),
        ("elapsedTime > 100", "elapsed_us in 101000.."),
        ("elapsedTime == 7", "elapsed_us in 7000..7999"),
        ("requestSize >= 1.5", "request_size in 2.."),
        ("http ? dst.port == 80 : src.port == 9", "anything may match"),
        ("http ? dst.port == 80 : dst.port == 53", "dst_port in 53, 80"),
        ("response.status == 1 and not (response.status == 2)", "response_status in 1..1"),
        ('record("a") and dst.port == 80', "dst_port in 80..80"),
    ],
)  # fmt: skip
def test_says_where_matches_lie(text: str, bounds: str) -> None:
    assert shown(text) == bounds


@pytest.mark.parametrize(
    "text",
    [
        "response.status != 500",
        "not (response.status == 500)",
        "tls",
        'src.name == ""',
        'src.name == "80" and false or src.name == 80',
        'src.name == r"^a"',
        'request.headers["x-a"] == "a"',
        "response.status == 18446744073709551615",
        "src.port == dst.port",
        'record("a")',
        'src.pod.namespace == ""',
    ],
)
def test_what_cannot_be_told_is_open(text: str) -> None:
    assert shown(text) == "anything may match"


@pytest.mark.parametrize(
    "text",
    [
        "response.status == 500 and response.status == 404",
        'http and src.name == "a" and dns',
        "dst.port > 80 and dst.port <= 80",
        "dst.port in []",
        "false",
        'src.port == "http"',
        'startTime > "2026-01-01T00:00:00Z"',
        'startTime == "2026-01-01"',
        "elapsedTime == 1.5",
    ],
)
def test_a_contradiction_matches_nothing(text: str) -> None:
    found = kfl.compile(text).prune()
    assert found.nothing
    assert found.show() == "nothing can match"


def test_times_are_nanoseconds_from_the_first_until_before_the_last() -> None:
    found = kfl.compile(
        'timestamp >= timestamp("2026-01-01T00:00:00Z")'
        ' and timestamp < timestamp("2026-01-01T00:00:01.5Z") and dns'
    ).prune()
    assert (found.start_ns, found.end_ns) == (NEW_YEAR, NEW_YEAR + 1_500_000_000)
    assert found.show() == (
        "protocol_name in dns; start_time from 2026-01-01T00:00:00Z;"
        " start_time before 2026-01-01T00:00:01.5Z"
    )
    # A millisecond is as long as a million nanoseconds.
    until = kfl.compile('timestamp <= timestamp("2026-01-01T00:00:00Z")').prune()
    assert (until.start_ns, until.end_ns) == (None, NEW_YEAR + 1_000_000)


def test_a_start_time_is_one_nanosecond() -> None:
    found = kfl.compile('startTime == "2026-01-01T00:00:00.000000007Z"').prune()
    assert (found.start_ns, found.end_ns) == (NEW_YEAR + 7, NEW_YEAR + 8)


def test_now_is_when_the_filter_was_compiled() -> None:
    before = time.time_ns()
    found = kfl.compile('timestamp > now() - duration("5m") or timestamp > hours(-1)').prune()
    assert found.start_ns is not None
    assert abs(found.start_ns - (before - 3600 * NS)) < 600 * NS


def test_a_null_may_hide_a_value_in_json_unless_the_protocol_has_none() -> None:
    assert kfl.compile("response.status == 500").prune().columns["response_status"].holds(None)
    only_http = 'response.status == 500 and protocol.name == "http"'
    assert not kfl.compile(only_http).prune().columns["response_status"].holds(None)
    assert not kfl.compile("dst.port == 80").prune().columns["dst_port"].holds(None)


def test_many_values_are_shown_in_part() -> None:
    assert shown(named(100)).endswith("n006, n007 and 92 more")


def test_a_set_has_an_end() -> None:
    assert shown(named(300)) == "anything may match"
    assert shown(f"src.port in {list(range(300))}") == "src_port in 0..299"


def named(count: int) -> str:
    listed = ", ".join(f'"n{number:03}"' for number in range(count))
    return f"src.name in [{listed}]"
