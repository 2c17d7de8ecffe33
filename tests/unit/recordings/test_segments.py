import hashlib

import pyarrow.parquet as pq
import pytest

from recordings import segments
from recordings.schema import TABLES


@pytest.mark.parametrize("table", TABLES)
def test_a_segment_has_the_rows_in_their_order(tmp_path, rows, table):
    time = segments.TIME_COLUMNS[table]
    found = rows(table, {time: 5}, {time: 3}, {time: 9})
    segment = segments.write(tmp_path, table, found.to_batches(), 4)
    path = tmp_path / segment.file
    assert segment.file == f"{table}-00000004.parquet"
    assert pq.read_table(path).equals(found)
    assert (segment.rows, segment.min_time_ns, segment.max_time_ns) == (3, 3, 9)
    assert segment.bytes == path.stat().st_size
    assert segment.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in tmp_path.iterdir()] == [segment.file]


def test_headers_bodies_and_frames_have_no_statistics(tmp_path, rows):
    header = [{"name": "Host", "value": "x"}]
    found = rows("entries", {"request_headers": header, "request_body": "b", "request": "{}"})
    segment = segments.write(tmp_path, "entries", found.to_batches())
    group = pq.ParquetFile(tmp_path / segment.file).metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    without = {c.path_in_schema for c in columns if not c.is_stats_set}
    assert {"request_headers.list.element.name", "request_body", "request"} <= without
    assert not {"start_time", "response_status", "request_path"} & without
    assert {c.compression for c in columns} == {"ZSTD"}


def test_row_groups_are_bounded(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(segments, "ROW_GROUP_ROWS", 10)
    one = rows("packets", *[{}] * 4).to_batches()
    segment = segments.write(tmp_path, "packets", one * 6)
    metadata = pq.ParquetFile(tmp_path / segment.file).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [8, 8, 8]


def test_rows_are_read_from_any_row_on(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(segments, "ROW_GROUP_ROWS", 4)
    batches = [rows("packets", *[{"time": 10 * i + j} for j in range(4)]) for i in range(3)]
    segment = segments.write(tmp_path, "packets", [b for t in batches for b in t.to_batches()])
    whole = pq.read_table(tmp_path / segment.file)
    for begin in range(14):
        found = segments.read_rows(tmp_path / segment.file, "packets", begin)
        assert found.equals(whole.slice(begin))


def test_what_may_not_be_written_leaves_nothing(tmp_path, rows):
    def allow(octets):
        raise OSError(28, "The limit is reached.")

    with pytest.raises(OSError, match="limit"):
        segments.write(tmp_path, "packets", rows("packets", {}).to_batches(), 1, allow)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_no_segment(tmp_path):
    with pytest.raises(ValueError, match="no rows"):
        segments.write(tmp_path, "packets", [])
    assert list(tmp_path.iterdir()) == []
