import random

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from recordings import layout, merging, segments
from recordings.manifest import Manifest
from recordings.schema import TABLES


def no_pause():
    pass


def merge(folder, sources):
    first, last = layout.span(sources[0].file)[0], layout.span(sources[-1].file)[1]
    rows = merging.rows(folder, sources, no_pause)
    return segments.write(folder, sources[0].table, rows, first, last=last)


@pytest.fixture
def write(tmp_path, rows):
    """Write segments of given times; the node's name says when a row arrived."""
    count = 0

    def make(times, number, table="packets"):
        nonlocal count
        changes = []
        for time in times:
            changes.append({segments.TIME_COLUMNS[table]: time, "node_name": f"n{count}"})
            count += 1
        return segments.write(tmp_path, table, rows(table, *changes).to_batches(), number)

    return make


@pytest.fixture
def several(write):
    """Segments of many row groups that overlap in time, with rows of the same time."""

    def make(seed):
        chance = random.Random(seed)
        return [
            write(
                [10 * number + chance.randrange(40) for _ in range(chance.randrange(1, 40))], number
            )
            for number in range(1, 12)
        ]

    return make


def arrived(folder, sources):
    return pa.concat_tables(segments.read_rows(folder / s.file, s.table, 0) for s in sources)


def by_time(table, time="time"):
    order = sorted(
        range(table.num_rows), key=table.column(time).cast(pa.int64()).to_pylist().__getitem__
    )
    return table.take(order)


@pytest.mark.parametrize("table", TABLES)
def test_rows_of_every_table_are_merged_by_time(tmp_path, write, table):
    sources = [write([5, 3, 9], 1, table), write([4, 9, 1, 3], 2, table), write([20], 3, table)]
    expected = by_time(arrived(tmp_path, sources), segments.TIME_COLUMNS[table])
    merged = merge(tmp_path, sources)
    assert merged.file == f"{table}-00000001-00000003.parquet"
    assert (merged.rows, merged.min_time_ns, merged.max_time_ns) == (8, 1, 20)
    found = pq.read_table(tmp_path / merged.file)
    assert found.schema.equals(segments.schema_of(table, is_merged=True))
    assert found.drop_columns(segments.ARRIVAL).equals(expected)


@pytest.mark.parametrize("held", [0, 100_000])
@pytest.mark.parametrize("seed", range(5))
def test_rows_are_merged_whatever_can_be_held(tmp_path, several, monkeypatch, seed, held):
    monkeypatch.setattr(segments, "ROW_GROUP_ROWS", 7)
    monkeypatch.setattr(merging, "STEP_ROWS", 5)
    monkeypatch.setattr(merging, "DECODED_BYTES", held)
    sources = several(seed)
    before = arrived(tmp_path, sources)
    merged = merge(tmp_path, sources)
    found = pq.read_table(tmp_path / merged.file).drop_columns(segments.ARRIVAL)
    assert found.equals(by_time(before))
    for begin in (0, 1, 17, before.num_rows - 1, before.num_rows):
        again = segments.read_rows(tmp_path / merged.file, "packets", begin)
        assert again.equals(before.slice(begin))


def test_merged_segments_are_merged_again(tmp_path, several):
    sources = several(9)
    before = arrived(tmp_path, sources)
    parts = [merge(tmp_path, sources[:4]), merge(tmp_path, sources[4:7]), *sources[7:]]
    merged = merge(tmp_path, parts)
    assert merged.file == "packets-00000001-00000011.parquet"
    found = pq.read_table(tmp_path / merged.file).drop_columns(segments.ARRIVAL)
    assert found.equals(by_time(before))
    assert segments.read_rows(tmp_path / merged.file, "packets", 0).equals(before)


def test_no_more_than_a_few_row_groups_are_held(tmp_path, write, monkeypatch):
    sources = [write(range(1000 * n, 1000 * (n + 1)), n) for n in range(1, 30)]
    held = merging._Held
    most = 0

    class Watched(held):
        def take(self, number, rows):
            nonlocal most
            found = super().take(number, rows)
            most = max(most, len(self._held))
            return found

    monkeypatch.setattr(merging, "_Held", Watched)
    monkeypatch.setattr(merging, "STEP_ROWS", 100)
    assert merge(tmp_path, sources).rows == 29_000
    assert most == 1


def test_segments_that_overlap_too_much_are_refused(tmp_path, write, monkeypatch):
    sources = [write(range(n, 1000, 10), n) for n in range(1, 10)]
    monkeypatch.setattr(merging, "STEP_ROWS", 10)
    monkeypatch.setattr(merging, "DECODED_BYTES", 0)
    monkeypatch.setattr(merging, "MOST_AGAIN_BYTES", 10_000)
    with pytest.raises(merging.TangledError):
        merge(tmp_path, sources)
    assert len(list(tmp_path.iterdir())) == len(sources)


@pytest.mark.parametrize("place", [5, 300, -5])
def test_a_damaged_segment_is_not_merged(tmp_path, write, place):
    sources = [write([1, 2], 1), write([3, 4], 2)]
    path = tmp_path / sources[1].file
    octets = bytearray(path.read_bytes())
    octets[place] ^= 1
    path.write_bytes(octets)
    with pytest.raises(
        merging.DamagedError, match=r"packets-00000002\.parquet is damaged: its SHA"
    ):
        merge(tmp_path, sources)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_column_is_found_when_its_segment_was_merged_away(tmp_path, several):
    sources = several(3)
    parts = [merge(tmp_path, sources[:4]), merge(tmp_path, sources[4:9])]
    merged = merge(tmp_path, [*parts, *sources[9:]])
    Manifest("checkout", 1, segments=(merged,)).save(tmp_path)
    for gone in [*sources, *parts]:
        path = tmp_path / gone.file
        before = merging.read_column(path, "node_name")
        path.unlink()
        assert merging.read_column(path, "node_name").to_pylist() == before.to_pylist()
    with pytest.raises(FileNotFoundError):
        merging.read_column(tmp_path / "streams-00000001.parquet", "node_name")


def test_merged_segments_say_that_they_are_sorted(tmp_path, several):
    merged = merge(tmp_path, several(1))
    metadata = pq.ParquetFile(tmp_path / merged.file).metadata
    (sorting,) = metadata.row_group(0).sorting_columns
    assert metadata.schema.column(sorting.column_index).name == "time"
    times = pq.read_table(tmp_path / merged.file)["time"]
    assert pc.all(pc.less_equal(times[:-1], times[1:])).as_py()
