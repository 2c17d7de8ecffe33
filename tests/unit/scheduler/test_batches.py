import random
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recordings.journal import Part
from recordings.schema import ENTRIES, PACKETS, STREAMS, TABLES
from services.scheduler import batches
from services.scheduler.batches import Batch, RefusedError, Rows, check
from tests.unit.scheduler.stored import LOSS, PACKET, batch, encode, packets


def refused(found):
    with pytest.raises(RefusedError) as caught:
        check(found, "agent-1", "node-1")
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    return text


def with_part(part):
    return Batch(1, "checkout", 1, (part,))


def test_a_good_batch_is_counted():
    parts = (packets("a", 1, 5), encode("losses", [LOSS, {**LOSS, "packets": -9}]))
    checked = check(Batch(1, "checkout", 1, parts), "agent-1", "node-1")
    assert checked.rows == Rows(packets=5, losses=2, lost_packets=3)
    assert checked.packet_bytes == 300
    assert checked.segment_bytes > 0


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_columns_are_taken(compression):
    part = encode("packets", [{**PACKET, "frame": b"x" * 1000}] * 100, compression=compression)
    assert check(with_part(part), "agent-1", "node-1").rows.packets == 100


def test_an_empty_batch_is_taken():
    assert check(Batch(1, "checkout", 1, (), True), "agent-1", "node-1").rows == Rows()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"job": "../x"}, "cannot name a recording"),
        ({"run": 0}, "0 is not the number of a run"),
        ({"sequence": 0}, "0 cannot be the number of a batch"),
        ({"parts": (packets("a", 1),) * 65}, "A batch has 65 parts"),
    ],
)
def test_what_a_batch_says_of_itself_is_checked(changes, why):
    assert why in refused(replace(batch("a", 1), **changes))


def test_the_size_is_checked(monkeypatch):
    monkeypatch.setattr(batches, "MAX_BATCH_BYTES", 1000)
    assert "at most 1000 are taken" in refused(batch("a", 1, size=2000))


def test_rows_have_to_be_as_many_as_claimed():
    part = packets("a", 1)._replace(rows=4)
    assert refused(with_part(part)) == "The part of table packets claims 4 rows, and has 3."


def test_the_schema_has_to_be_the_tables():
    part = packets("a", 1)._replace(table="entries")
    assert "does not have that table's schema" in refused(with_part(part))


LATER = tuple(STREAMS.names[STREAMS.names.index("vlan") :])
"""Columns of streams that were added since the first release."""


def test_an_agent_of_an_older_release_may_lack_later_columns():
    older = pa.schema([field for field in STREAMS if field.name not in LATER])
    row = {"stream": "1", "node_name": "n", "transport": "tcp", "client_port": 1, "server_port": 2}
    row |= {"client_ip": "", "server_ip": "", "first_time": 1, "matched_time": 2}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, older) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist([{**row, "from_start": True}], schema=older))
    part = Part("streams", 1, sink.getvalue().to_pybytes())
    assert check(with_part(part), "agent-1", "node-1").rows.streams == 1


def test_nulls_are_refused_where_none_may_be():
    nullable = pa.schema([field.with_nullable(True) for field in PACKETS])
    rows = pa.RecordBatch.from_pylist([{**PACKET, "frame": None}], nullable)
    sneaked = pa.RecordBatch.from_arrays(rows.columns, schema=PACKETS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, PACKETS) as stream:
        stream.write_batch(sneaked)
    part = Part("packets", 1, sink.getvalue().to_pybytes())
    assert refused(with_part(part)) == "Column frame of table packets must not be null."


def test_a_text_that_is_not_utf8_is_refused():
    part = encode("packets", [{**PACKET, "frame": b"", "node_name": "node-MARK"}])
    bad = part._replace(octets=part.octets.replace(b"node-MARK", b"node-\xff\xff\xff\xff"))
    assert "cannot be read as Arrow IPC" in refused(with_part(bad))


def test_a_small_batch_that_unpacks_to_gigabytes_is_not_unpacked():
    """1 KiB of zstd can hold 100 MiB of zeros."""
    part = encode("packets", [{**PACKET, "frame": bytes(100 << 20)}], compression="zstd")
    assert len(part.octets) < 100_000
    before = pa.total_allocated_bytes()
    assert f"unpacks to more than {64 << 20} octets" in refused(with_part(part))
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_a_dictionary_is_refused():
    schema = pa.schema([pa.field("stream", pa.dictionary(pa.int32(), pa.string()))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(
            pa.RecordBatch.from_arrays([pa.array(["a"]).dictionary_encode()], schema=schema)
        )
    assert "schema" in refused(with_part(Part("packets", 1, sink.getvalue().to_pybytes())))


@pytest.mark.parametrize("octets", [b"", b"\x00" * 64, b"\xff" * 64, b"ARROW1\x00\x00" * 4])
def test_octets_that_are_no_arrow_are_refused(octets):
    assert "packets" in refused(with_part(Part("packets", 0, octets)))


HEADERS = [{"name": "a", "value": "b"}] * 3
ENTRY = {
    **dict.fromkeys(ENTRIES.names, "x"),
    **{f.name: 7 for f in ENTRIES if pa.types.is_integer(f.type) or pa.types.is_timestamp(f.type)},
    **{f.name: True for f in ENTRIES if pa.types.is_boolean(f.type)},
    "request_headers": HEADERS,
    "response_headers": HEADERS,
}
PARTS = [
    encode("entries", [ENTRY] * 3),
    encode("entries", [ENTRY] * 3, compression="zstd"),
    packets("a", 1),
]


@settings(max_examples=150)
@given(st.integers(0, 2), st.integers(0, 2**32), st.integers(1, 4))
def test_damaged_octets_are_refused_or_right_and_never_crash(which, seed, flips):
    part = PARTS[which]
    octets = bytearray(part.octets)
    chance = random.Random(seed)
    for _ in range(flips):
        octets[chance.randrange(len(octets))] = chance.randrange(256)
    try:
        found = batches.decode(part._replace(octets=bytes(octets)), 1 << 20)
    except RefusedError:
        return
    rows = pa.Table.from_batches(found, TABLES[part.table])
    pq.write_table(rows, pa.BufferOutputStream())
