"""Rows of recordings, as capture would make them."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from recordings.journal import Part
from recordings.schema import ENTRIES, TABLES

MOMENT = 1_763_853_120_123_456_789  # 2025-11-22T23:12:00.123456789Z

ROWS: dict[str, dict[str, Any]] = {
    "entries": {
        "start_time": MOMENT,
        "index": 0,
        "stream": "8f3a000000000001",
        "node_name": "node-1",
        "node_ip": "10.0.0.7",
        "protocol_name": "http",
        "protocol_version": "1.1",
        "protocol_abbr": "HTTP",
        "transport": "tcp",
        "tls": False,
        "src_ip": "10.244.0.9",
        "src_port": 45168,
        "dst_ip": "10.96.0.50",
        "dst_port": 80,
    },
    "streams": {
        "stream": "8f3a000000000001",
        "node_name": "node-1",
        "transport": "tcp",
        "client_ip": "10.244.0.9",
        "client_port": 45168,
        "server_ip": "10.96.0.50",
        "server_port": 80,
        "first_time": MOMENT,
        "matched_time": MOMENT,
        "from_start": True,
    },
    "packets": {
        "stream": "8f3a000000000001",
        "node_name": "node-1",
        "time": MOMENT,
        "link_type": 1,
        "original_length": 60,
        "frame": b"\x00" * 60,
    },
    "losses": {
        "node_name": "node-1",
        "kind": "kernel_drop",
        "start_time": MOMENT,
        "end_time": MOMENT,
        "packets": 3,
        "bytes": 180,
        "detail": "",
    },
}


def rows_of(table: str, *changes: dict[str, Any]) -> pa.Table:
    """Return a table with one row for each set of changed columns."""
    return pa.Table.from_pylist([{**ROWS[table], **c} for c in changes], TABLES[table])


def part_of(table: str, *changes: dict[str, Any]) -> Part:
    """Return rows as a batch carries them."""
    rows = rows_of(table, *changes)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return Part(table, rows.num_rows, sink.getvalue().to_pybytes())


@pytest.fixture
def rows() -> Callable[..., pa.Table]:
    return rows_of


@pytest.fixture
def part() -> Callable[..., Part]:
    return part_of


@pytest.fixture
def entry_row() -> Callable[..., pa.Table]:
    """Make a table of one entry with every column not given null or as usual."""

    def make(**columns: Any) -> pa.Table:
        nulls = dict.fromkeys(ENTRIES.names)
        return pa.Table.from_pylist([{**nulls, **ROWS["entries"], **columns}], ENTRIES)

    return make
