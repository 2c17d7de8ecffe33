"""What an older release recorded is read as if its later columns were there, and empty."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recordings import schema, segments
from recordings.journal import Part

LATER = sorted(schema.ADDED)


@pytest.fixture
def old_streams(rows):
    """Two rows of the table of streams as it was before it had LATER."""
    return rows("streams", {}, {"client_port": 7}).drop_columns(LATER)


def part(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return Part("streams", table.num_rows, sink.getvalue().to_pybytes())


def test_old_rows_of_a_journal_have_todays_columns(old_streams):
    (batch,) = part(old_streams).batches()
    assert batch.schema == schema.STREAMS
    assert batch["client_port"].to_pylist() == [45168, 7]
    assert batch["vlan"].to_pylist() == batch["tunnel"].to_pylist() == [None, None]


def test_old_files_have_todays_columns(tmp_path, old_streams, rows):
    path = tmp_path / "streams-00000001.parquet"
    pq.write_table(old_streams, path)
    assert segments.read_rows(path, "streams", 1).equals(rows("streams", {"client_port": 7}))


def test_other_columns_are_not_taken_for_older_ones(old_streams, rows):
    for table in (
        old_streams.drop_columns(["from_start"]),
        old_streams.rename_columns(["x", *old_streams.column_names[1:]]),
        rows("streams", {}).append_column("more", pa.array([1])),
    ):
        assert not schema.is_known("streams", table.schema)
        with pytest.raises(pa.ArrowInvalid, match="another schema"):
            part(table).batches()
    assert schema.is_known("streams", schema.STREAMS)
