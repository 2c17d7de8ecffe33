import os
import shutil
import threading

import pytest

from recordings import layout, merging, segments, verify
from recordings.journal import Journal, JournalRecord
from recordings.manifest import AgentMark, Manifest, Retired
from recordings.snapshot import NotFoundError

NAME = "checkout"


@pytest.fixture
def make(tmp_path, rows, part):
    """Write a run with two segments of packets, one of losses, and a journal of two records."""

    def write(number=1, name=NAME):
        folder = layout.run(tmp_path, name, number)
        folder.mkdir(parents=True)
        written = [
            segments.write(folder, "packets", rows("packets", *[{}] * 3).to_batches(), 1),
            segments.write(folder, "packets", rows("packets", {}).to_batches(), 2),
            segments.write(folder, "losses", rows("losses", {}).to_batches(), 2),
        ]
        Manifest(
            *(name, number, "http", tuple(written), 3),
            agents={"a": AgentMark(2, 2)},
            counts={"packets": 4, "losses": 1},
            lost_packets=3,
        ).save(folder)
        journal = Journal(folder, 3)
        journal.append(JournalRecord("a", "node-1", 3, (part("packets", {}, {}),)))
        journal.sync()
        journal.append(JournalRecord("a", "node-1", 4, (part("entries", {}),)))
        journal.close()
        return folder

    return write


def check(data, run=None, settle_seconds=0.0):
    return list(verify.check(data, NAME, run, settle_seconds))


def difference(data):
    """Return the first difference of the only run."""
    (found,) = check(data)
    assert found.difference is not None
    return found.difference.file, found.difference.expected, found.difference.found


def flip(path, place):
    octets = bytearray(path.read_bytes())
    octets[place] ^= 4
    path.write_bytes(octets)


def change(folder, **fields):
    Manifest(
        **{**{n: getattr(Manifest.load(folder), n) for n in Manifest.__slots__}, **fields}
    ).save(folder)


def test_what_is_as_it_was_written_is_counted(tmp_path, make):
    folder = make()
    make(2)
    first, second = check(tmp_path)
    assert (first.run, first.difference, second.run) == (1, None, 2)
    assert first.rows == {"entries": 1, "streams": 0, "packets": 6, "losses": 1}
    assert (first.segments, first.journals) == (3, 1)
    assert first.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert [found.run for found in check(tmp_path, 2)] == [2]


def test_merged_segments_are_looked_into_as_well(tmp_path, make):
    folder = make()
    packets, losses = Manifest.load(folder).segments[:2], Manifest.load(folder).segments[2:]
    merged = segments.write(
        folder, "packets", merging.rows(folder, packets, lambda: None), 1, last=2
    )
    retired = tuple(Retired(segment.file, segment.bytes, 1) for segment in packets)
    change(folder, segments=(merged, *losses), retired=retired)
    assert check(tmp_path)[0].rows["packets"] == 6
    (folder / packets[0].file).unlink()
    assert check(tmp_path)[0].difference is None
    change(folder, segments=(merged, *packets, *losses), retired=())
    assert difference(tmp_path)[:2] == (
        "0001/packets-00000001.parquet",
        "packets of journals 3 or later",
    )


@pytest.mark.parametrize("place", [4, 200, -9, -1])
def test_a_flipped_bit_in_a_segment(tmp_path, make, place):
    path = make() / "packets-00000001.parquet"
    before = merging.sha256(path)
    flip(path, place)
    assert difference(tmp_path) == (
        "0001/packets-00000001.parquet",
        f"SHA-256 {before}",
        merging.sha256(path),
    )


def test_a_flipped_bit_in_a_manifest(tmp_path, make):
    path = make() / "manifest.json"
    flip(path, path.read_bytes().index(b'"kfl": "') + 8)
    file, expected, found = difference(tmp_path)
    assert (file, expected) == ("0001/manifest.json", "a manifest that can be used")
    assert "it was damaged, or changed by hand" in found


def test_a_flipped_bit_in_a_journal(tmp_path, make):
    flip(make() / "journal-00000003.log", 100)
    file, expected, found = difference(tmp_path)
    assert (file, expected) == ("0001/journal-00000003.log", "records that match their CRC-32")
    assert "the record at octet 24 does not match its checksum" in found


@pytest.mark.parametrize("file", ["packets-00000002.parquet", "manifest.json"])
def test_a_truncated_file(tmp_path, make, file):
    path = make() / file
    os.truncate(path, path.stat().st_size - 1)
    assert difference(tmp_path)[0] == f"0001/{file}"


def test_a_record_that_is_being_written_is_no_difference(tmp_path, make):
    path = make() / "journal-00000003.log"
    os.truncate(path, path.stat().st_size - 1)
    (found,) = check(tmp_path)
    assert (found.difference, found.rows["entries"], found.rows["packets"]) == (None, 0, 6)
    Journal(path.parent, 4).close()
    assert difference(tmp_path)[0] == "0001/journal-00000003.log"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("losses-00000002.parquet", "octets"),
        ("manifest.json", "a manifest"),
    ],
)
def test_a_missing_file(tmp_path, make, file, expected):
    (make() / file).unlink()
    name, words, found = difference(tmp_path)
    assert (name, found) == (f"0001/{file}", "no such file")
    assert expected in words


def test_a_missing_journal(tmp_path, make):
    folder = make()
    Journal(folder, 4).close()
    (folder / "journal-00000003.log").unlink()
    assert difference(tmp_path) == (
        "0001/journal-00000003.log",
        "a journal, since 4 is there",
        "no such file",
    )


@pytest.mark.parametrize(
    "file", ["packets-00000004.parquet", "journal-00000001.log", "notes.txt", ".x", "a.tmp"]
)
def test_an_extra_file(tmp_path, make, file):
    (make() / file).write_bytes(b"12345")
    assert difference(tmp_path) == (
        f"0001/{file}",
        "no file that the manifest does not list",
        "a file of 5 octets",
    )


def test_what_is_neither_file_nor_run(tmp_path, make):
    folder = make()
    (folder / "losses-00000002.parquet").rename(tmp_path / "x")
    (folder / "losses-00000002.parquet").symlink_to(tmp_path / "x")
    assert difference(tmp_path) == ("0001/losses-00000002.parquet", "files only", "a link")
    (folder.parent / "notes").mkdir()
    _, found = check(tmp_path)
    assert (found.run, found.difference.file, found.difference.found) == (None, "notes", "a folder")
    assert len(check(tmp_path, 1)) == 1


def test_files_that_are_being_written_are_no_difference(tmp_path, make):
    folder = make()
    for name in ("manifest.json.tmp", "packets-00000003.parquet.tmp"):
        (folder / name).write_bytes(b"1")
    assert check(tmp_path)[0].difference is None


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        ({"job": "other"}, "the manifest of recording checkout", "other"),
        ({"run": 7}, "the manifest of run 1", "7"),
        ({"counts": {"packets": 5, "losses": 1}}, "4 rows of packets in segments", "5"),
        ({"lost_packets": 4}, "3 lost packets in segments", "4"),
    ],
)
def test_a_manifest_that_is_another_ones(tmp_path, make, changes, expected, found):
    change(make(), **changes)
    assert difference(tmp_path) == ("0001/manifest.json", expected, found)


def test_a_manifest_that_lies_about_a_segment(tmp_path, make, rows):
    folder = make()
    packets, *others = Manifest.load(folder).segments
    path = folder / packets.file
    for table in ("streams", "packets"):
        written = segments.write(folder, table, rows(table, {}).to_batches(), 1)
        if written.file != packets.file:
            (folder / written.file).replace(path)
        found = segments.Segment(*("packets", packets.file, 3, written.bytes, 0, 0, written.sha256))
        change(folder, segments=(found, *others))
        file, expected, _ = difference(tmp_path)
        assert file == f"0001/{packets.file}"
        assert expected == ("the columns of packets" if table == "streams" else "3 rows")


def test_numbers_that_are_in_segments_do_not_come_again(tmp_path, make):
    change(make(), agents={"a": AgentMark(3, 3)})
    assert difference(tmp_path) == (
        "0001/journal-00000003.log",
        "a number above 3 for the next batch of 'a'",
        "3",
    )


def test_what_is_not_there_is_not_checked(tmp_path, make):
    make()
    with pytest.raises(NotFoundError, match='no recording "other"'):
        list(verify.check(tmp_path, "other"))
    with pytest.raises(NotFoundError, match="has no run 9; its runs are 1"):
        list(verify.check(tmp_path, NAME, 9))
    with pytest.raises(ValueError, match="cannot name a recording"):
        list(verify.check(tmp_path, "../x"))


def test_one_damaged_run_does_not_hide_another(tmp_path, make):
    (make() / "losses-00000002.parquet").unlink()
    make(2)
    first, second = check(tmp_path)
    assert (first.difference is None, second.difference) == (False, None)


def test_a_run_that_is_deleted_meanwhile_is_left_out(tmp_path, make, monkeypatch):
    folder = make()
    make(2)
    sha256 = merging.sha256

    def deleted(path):
        if path.parent == folder:
            shutil.rmtree(folder, ignore_errors=True)
        return sha256(path)

    monkeypatch.setattr(merging, "sha256", deleted)
    assert [found.run for found in check(tmp_path)] == [2]


def test_what_is_published_meanwhile_is_waited_for(tmp_path, make, rows):
    folder = make()
    before = Manifest.load(folder)
    segment = segments.write(folder, "streams", rows("streams", {}).to_batches(), 2)

    def publish():
        change(folder, segments=(*before.segments, segment), counts={**before.counts, "streams": 1})

    timer = threading.Timer(0.3, publish)
    timer.start()
    (found,) = check(tmp_path, settle_seconds=60)
    timer.join()
    assert (found.difference, found.rows["streams"]) == (None, 1)
