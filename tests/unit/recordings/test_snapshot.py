import shutil
import threading

import pyarrow as pa
import pytest

from recordings import journal, layout, segments, snapshot
from recordings.journal import Journal, JournalRecord
from recordings.manifest import Manifest


class Run:
    """A run as its writer would keep it."""

    def __init__(self, data, part, name="checkout", number=1):
        self.folder = layout.run(data, name, number)
        self.folder.mkdir(parents=True)
        self.part = part
        self.manifest = Manifest(name, number)
        self.manifest.save(self.folder)
        self.journal = None
        self.stored = 0

    def append(self, *times):
        if self.journal is None:
            self.journal = Journal(self.folder, self.manifest.journal)
        part = self.part("packets", *[{"time": time} for time in times])
        self.journal.append(JournalRecord("agent-1", "node-1", times[0], (part,)))
        self.stored += len(times)

    def roll(self):
        self.journal.close()
        number = self.journal.number
        records = journal.read(self.journal.path).records
        batches = [b for r in records for p in r.parts for b in p.batches()]
        segment = segments.write(self.folder, "packets", batches, number)
        self.manifest = Manifest(
            self.manifest.job,
            self.manifest.run,
            segments=(*self.manifest.segments, segment),
            journal=number + 1,
            counts={"packets": self.stored},
        )
        self.manifest.save(self.folder)
        self.journal.path.unlink()
        self.journal = None

    def close(self):
        if self.journal:
            self.journal.close()


@pytest.fixture
def run(tmp_path, part):
    run = Run(tmp_path, part)
    yield run
    run.close()


def times(table):
    return table.column("time").cast(pa.int64()).to_pylist()


def test_rows_are_there_as_soon_as_they_are_written(tmp_path, run):
    reader = snapshot.Reader(tmp_path)
    assert reader.snapshot("checkout").rows("packets") == 0
    run.append(1, 2)
    assert times(reader.snapshot("checkout").tail("packets")) == [1, 2]
    run.append(3)
    taken = reader.snapshot("checkout")
    assert times(taken.tail("packets")) == [1, 2, 3]
    assert taken.tail("entries").num_rows == 0
    assert taken.time_range("packets") == (1, 3)
    assert taken.time_range("entries") is None


def test_rows_move_from_the_tail_to_files(tmp_path, run):
    reader = snapshot.Reader(tmp_path)
    run.append(1, 2)
    before = reader.snapshot("checkout")
    run.roll()
    run.append(3)
    taken = reader.snapshot("checkout")
    assert taken.files("packets") == [run.folder / "packets-00000001.parquet"]
    assert times(taken.tail("packets")) == [3]
    assert times(before.tail("packets")) == [1, 2]  # what was taken stays as it was
    assert taken.rows("packets") == 3
    assert taken.time_range("packets") == (1, 3)
    assert taken.bytes == sum(p.stat().st_size for p in run.folder.glob("[jp]*"))


def test_only_what_is_new_is_read(tmp_path, run, monkeypatch):
    reader = snapshot.Reader(tmp_path)
    offsets = []
    read = journal.read

    def spy(path, offset=0, limit=None):
        offsets.append(offset)
        return read(path, offset, limit)

    monkeypatch.setattr(journal, "read", spy)
    run.append(1)
    reader.snapshot("checkout")
    size = run.journal.size
    run.append(2)
    reader.snapshot("checkout")
    assert offsets == [0, size]


def test_a_reader_keeps_no_more_than_it_may(tmp_path, part):
    runs = [Run(tmp_path, part, name) for name in ("a", "b", "c")]
    for run in runs:
        run.append(*range(100))
    reader = snapshot.Reader(tmp_path, memory=runs[0].journal.size * 2)
    for name in "abc":
        reader.snapshot(name)
    assert [folder.parent.name for folder in reader._kept] == ["b", "c"]
    for run in runs:
        run.close()


def test_what_arrived_since_is_found_wherever_it_is_now(tmp_path, run):
    reader = snapshot.Reader(tmp_path)
    run.append(1, 2, 3)
    cursor = reader.snapshot("checkout").cursor("packets")
    run.append(4)
    run.roll()
    run.append(5)
    taken = reader.snapshot("checkout")
    assert times(taken.rows_after("packets", cursor)) == [4, 5]
    assert times(taken.rows_after("packets", {})) == [1, 2, 3, 4, 5]
    assert times(taken.rows_after("packets", taken.cursor("packets"))) == []


def test_all_runs_are_seen_in_their_order(tmp_path, run, part):
    second = Run(tmp_path, part, number=2)
    second.append(9)
    run.append(7)
    taken = snapshot.open(tmp_path, "checkout")
    assert [view.run for view in taken.runs] == [1, 2]
    assert times(taken.tail("packets")) == [7, 9]
    second.close()


def test_a_record_that_is_half_written_comes_later(tmp_path, run):
    reader = snapshot.Reader(tmp_path)
    run.append(1)
    first = run.journal.size
    run.append(2)
    octets = run.journal.path.read_bytes()
    run.journal.path.write_bytes(octets[: first + 30])
    taken = reader.snapshot("checkout")
    assert times(taken.tail("packets")) == [1]
    assert taken.runs[0].damage == ()
    run.journal.path.write_bytes(octets)
    assert times(reader.snapshot("checkout").tail("packets")) == [1, 2]


def test_damage_is_told_and_what_is_before_it_is_there(tmp_path, run):
    run.append(1)
    first = run.journal.size
    run.append(2)
    octets = bytearray(run.journal.path.read_bytes())
    octets[first + 60] ^= 1
    run.journal.path.write_bytes(octets)
    taken = snapshot.open(tmp_path, "checkout")
    assert times(taken.tail("packets")) == [1]
    assert taken.runs[0].damage == (
        f"journal-00000001.log: the record at octet {first} does not match its checksum.",
    )


def test_one_damaged_run_does_not_hide_another(tmp_path, run, part):
    second = Run(tmp_path, part, number=2)
    second.append(9)
    (run.folder / "manifest.json").write_text("{")
    taken = snapshot.open(tmp_path, "checkout")
    assert times(taken.tail("packets")) == [9]
    assert "0001/manifest.json cannot be used" in taken.damage[0]
    second.close()


def test_names_are_checked_before_a_path_is_made(tmp_path, run):
    with pytest.raises(ValueError, match="cannot name a recording"):
        snapshot.open(tmp_path, "x/../checkout")
    with pytest.raises(snapshot.NotFoundError, match='There is no recording "other"'):
        snapshot.open(tmp_path, "other")


def test_a_recording_made_again_does_not_show_old_rows(tmp_path, run, part):
    reader = snapshot.Reader(tmp_path)
    run.append(1, 2)
    reader.snapshot("checkout")
    shutil.rmtree(run.folder.parent)
    with pytest.raises(snapshot.NotFoundError):
        reader.snapshot("checkout")
    again = Run(tmp_path, part)
    again.append(5)
    assert times(reader.snapshot("checkout").tail("packets")) == [5]
    again.close()


def test_every_view_is_whole_while_the_writer_goes_on(tmp_path, run):
    """Each row is seen exactly once, in order, however files come and go meanwhile."""
    reader = snapshot.Reader(tmp_path)
    is_done = threading.Event()
    problems = []

    def look():
        seen = 0
        while not is_done.is_set():
            found = times(reader.snapshot("checkout").rows_after("packets", {}))
            if found != list(range(len(found))) or len(found) < seen:
                problems.append(found)
            seen = len(found)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for round_ in range(25):
        for step in range(4):
            run.append(4 * round_ + step)
        run.roll()
    is_done.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert times(reader.snapshot("checkout").rows_after("packets", {})) == list(range(100))
