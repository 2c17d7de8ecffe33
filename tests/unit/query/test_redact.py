from typing import Any

import pyarrow as pa
import pytest

from recordings import entry, schema
from services.query.redact import REDACTED, Redactions


@pytest.fixture
def row(disk: Any) -> pa.Table:
    return disk.table(
        "entries",
        [
            {
                "response_headers": [
                    {"name": "Set-Cookie", "value": "session=s3cret"},
                    {"name": "Server", "value": "nginx"},
                ],
                "request": '{"payload": {"user": "ann", "roles": ["a", "b"]}}',
                "src_pod": "checkout-5d",
                "src_labels": '{"app": "checkout"}',
            }
        ],
    )


def redacted(row: pa.Table, *paths: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry as JSON, and the entry that the redacted table gives."""
    found = entry.objects(row)[0]
    redactions = Redactions(paths)
    redactions.apply(found)
    table = redactions.apply_to_table(row)
    assert table.schema.equals(schema.ENTRIES)
    return found, entry.objects(table)[0]


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("request.method", ("request", "method")),
        ("method", ("request", "method")),
        ('request.headers["HOST"]', ("request", "headers", "Host")),
        ("request.headers.host", ("request", "headers", "Host")),
        ("request.payload.user", ("request", "payload", "user")),
        ("src.ip", ("src", "ip")),
        ("src.pod.name", ("src", "pod", "name")),
        ("src.pod.metadata.name", ("src", "pod", "name")),
        ("node.name", ("node", "name")),
        ("protocol.name", ("protocol", "name")),
    ],
)
def test_a_value_is_hidden_as_json_and_as_a_column(
    row: pa.Table, path: str, where: tuple[str, ...]
) -> None:
    for value in redacted(row, path):
        found: Any = value
        for key in where:
            found = found[key]
        assert found == REDACTED


def test_what_is_not_named_stays(row: pa.Table) -> None:
    before = entry.objects(row)[0]
    found, _ = redacted(row, "response.headers.server", "request.payload.roles[1]", "no.such.path")
    before["response"]["headers"]["Server"] = REDACTED
    before["request"]["payload"]["roles"][1] = REDACTED
    assert found == before


@pytest.mark.parametrize(
    "path",
    ["response.cookies", "response.cookies.session", "response.headers", "response.headers.*"],
)
def test_a_cookie_is_hidden_in_every_place(row: pa.Table, path: str) -> None:
    as_json, as_columns = redacted(row, path)
    assert "s3cret" not in str(as_json["response"]) + str(as_columns["response"])


@pytest.mark.parametrize(
    "path", ["request.url", "request.path", "request.pathSegments[1]", "request.queryString.id"]
)
def test_a_part_of_the_target_is_hidden_in_every_place(row: pa.Table, path: str) -> None:
    as_json, _ = redacted(row, path)
    assert "/api/cart" not in str(as_json["request"])


def test_wildcards(row: pa.Table) -> None:
    found, _ = redacted(row, "request.payload.roles.*", "request..user", "response.headers.*")
    assert found["request"]["payload"] == {"user": REDACTED, "roles": [REDACTED, REDACTED]}
    assert set(found["response"]["headers"].values()) == {REDACTED}


def test_numbers_become_text_in_json_and_null_in_columns(row: pa.Table) -> None:
    as_json, as_columns = redacted(row, "response.status", "elapsedTime", "dst.port")
    assert as_json["response"]["status"] == as_json["elapsedTime"] == REDACTED
    assert "status" not in as_columns["response"]
    assert as_columns["elapsedTimeUs"] is as_columns["dst"]["port"] is None


def test_a_whole_side_is_hidden(row: pa.Table) -> None:
    as_json, as_columns = redacted(row, "request")
    assert as_json["request"] == REDACTED
    for secret in ("session", "/api", "ann", "GET"):
        assert secret not in str(as_columns["request"])


def test_null_stays_null(row: pa.Table) -> None:
    as_json, as_columns = redacted(row, "error", "src.dns")
    assert as_json["error"] is as_columns["error"] is None
