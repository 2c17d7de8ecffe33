"""Bodies as a run with a small limit gets them."""

import base64

import pyarrow as pa
import pytest

from recordings import schema
from services.capture.bodies import cut_bodies


def entries(*bodies: str | None, in_base64: bool = False) -> pa.Table:
    """Entries that have these response bodies and nothing else."""
    columns = {
        "response_body": pa.array(bodies, pa.string()),
        "response_body_base64": pa.array([in_base64] * len(bodies)),
        "response_body_truncated": pa.array([False] * len(bodies)),
    }
    return pa.table(
        [columns.get(f.name, pa.nulls(len(bodies), f.type)) for f in schema.ENTRIES],
        schema=pa.schema([f.with_nullable(True) for f in schema.ENTRIES]),
    )


@pytest.mark.parametrize(
    ("body", "limit", "kept"),
    [
        ("0123456789", 10, "0123456789"),
        ("0123456789", 4, "0123"),
        ("0123456789", 0, ""),
        ("ääää", 4, "ää"),
        ("ääää", 5, "ää"),
        ("", 0, ""),
        (None, 0, None),
    ],
)
def test_a_body_is_cut_to_the_limit(body: str | None, limit: int, kept: str | None) -> None:
    cut = cut_bodies(entries("x" * 100, body), limit).to_pylist()[1]
    assert cut["response_body"] == kept
    assert cut["response_body_truncated"] is (kept != body)


def test_the_limit_counts_octets_and_not_their_base64() -> None:
    octets = bytes(range(255, 245, -1))
    table = entries(base64.b64encode(octets).decode(), in_base64=True)
    whole = cut_bodies(table, 10).to_pylist()[0]
    assert not whole["response_body_truncated"]
    cut = cut_bodies(table, 7).to_pylist()[0]
    assert base64.b64decode(cut["response_body"]) == octets[:7]
    assert cut["response_body_truncated"]


def test_entries_keep_their_schema() -> None:
    table = entries("0123456789")
    assert cut_bodies(table, 3).schema == table.schema
