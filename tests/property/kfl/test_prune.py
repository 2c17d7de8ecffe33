"""Bounds never leave out a match; what SQL is told about protocols never changes an answer."""

import duckdb
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from recordings import entry as entry_json
from tests.property.kfl.filters import compiled, filters, fmt
from tests.property.kfl.rows import rows, table_of

pytestmark = pytest.mark.timeout(900)  # many filters, each in several ways

SLOW = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def duck():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET threads = 1")
    yield connection
    connection.close()


FIELDS = [
    *("timestamp", "startTime", "elapsedTime", "elapsedTimeUs", "requestSize", "src.port"),
    *("dst.port", "index", "response.status", "status_code", "request.bodySize", "src.name"),
    *("src.pod", "src.pod.namespace", "dst.service.namespace", "request.method", "request.path"),
    *("protocol.name", "protocol.version", "transport", "error.type", "request.httpVersion"),
]

CONSTANTS = [
    *("0", "1", "80", "200", "500", "999", "1.5", "-3", "1e9", "1000000000000", "true", "nil"),
    *('""', '"80"', '"80.0"', '"a"', '"b"', '"GET"', '"tcp"', '"http"', '"1.1"', 'r"."'),
    *("[80, 443]", '["a", "b"]', "[]", '[500, "200", [1]]', "now()", "hours(-400000)"),
    *('timestamp("2001-09-09T01:46:40Z")', '"1970-01-01T00:00:00.000000001Z"', "9007199254740993"),
]

comparisons = fmt(
    "{} {} {}",
    st.sampled_from(FIELDS),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in"]),
    st.sampled_from(CONSTANTS),
)
words = st.sampled_from(["http", "dns", "amqp", "tcp", "udp", "tls", "http2", "redis_key"])
bounded = st.recursive(
    st.one_of(comparisons, comparisons, words),
    lambda inner: st.one_of(
        fmt("({} and {})", inner, inner),
        fmt("({} or {})", inner, inner),
        fmt("not ({})", inner),
        fmt("({} ? {} : {})", inner, inner, inner),
    ),
    max_leaves=5,
)


def is_regular(entry):
    """A hot field of a message is one value, as recordings.schema says."""
    sides = [entry[side] or {} for side in ("request", "response")]
    hot = ("method", "path", "url", "status", "bodySize", "body", "httpVersion")
    return not any(isinstance(side.get(key), list | dict) for side in sides for key in hot)


@SLOW
@given(
    st.lists(st.one_of(bounded, bounded, filters), min_size=8, max_size=8),
    st.lists(rows(), min_size=8, max_size=8),
)
def test_bounds_never_leave_out_a_match(texts, found):
    entries = entry_json.objects(table_of(found))
    for text in texts:
        chosen = compiled(text)
        if chosen is None:
            continue
        prune = chosen.prune()
        assert prune.show()
        for entry, row in zip(entries, found, strict=True):
            if not is_regular(entry) or not chosen.matches(entry):
                continue
            assert not prune.nothing, text
            for column, bound in prune.columns.items():
                assert bound.holds(row.get(column)), (text, column)
            ns = row["start_time"]
            assert prune.start_ns is None or prune.start_ns <= ns, text
            assert prune.end_ns is None or ns < prune.end_ns, text


@pytest.mark.timeout(900)
@settings(SLOW, max_examples=10)
@given(
    texts=st.lists(st.one_of(bounded, filters), min_size=6, max_size=6),
    found=st.lists(rows(), min_size=8, max_size=8),
    any_protocol=st.booleans(),
)
def test_a_where_with_known_protocols_finds_the_same_rows(texts, found, any_protocol, duck):
    if not any_protocol:
        found = [row for row in found if row["protocol_name"] not in ("amqp", "ws")]
    table = table_of(found)
    entries = entry_json.objects(table)
    duck.register("entries", table)
    duck.execute("CREATE OR REPLACE TEMP TABLE stored AS SELECT * FROM entries")
    protocols = {row["protocol_name"] for row in found}
    for text in texts:
        chosen = compiled(text)
        if chosen is None:
            continue
        wanted = [row for row, entry in enumerate(entries) if chosen.matches(entry)]
        sql = chosen.sql(protocols=lambda: protocols)
        answers = duck.execute(
            f"SELECT rowid FROM stored WHERE {sql.where} ORDER BY rowid", sql.parameters
        ).fetchall()
        got = [row for (row,) in answers]
        assert got == wanted if sql.exact else set(got) >= set(wanted), text
