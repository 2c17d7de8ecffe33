import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recordings import journal, layout
from recordings.journal import Journal, JournalRecord


def write(folder, part, count, sync_each=True, number=1):
    """Write records 1 to count and return the journal's path and where each record ends."""
    file = Journal(folder, number)
    ends = []
    for sequence in range(1, count + 1):
        rows = part("packets", *[{"frame": bytes([sequence]) * 60}] * sequence)
        file.append(JournalRecord("agent-1", "node-1", sequence, (rows,), sequence - 1))
        if sync_each:
            file.sync()
        ends.append(file.size)
    file.sync()
    file.close()
    return file.path, ends


def sequences(records):
    return [record.sequence for record in records]


def test_what_is_appended_is_read(tmp_path, part):
    parts = (part("entries", {}, {}), part("losses", {}))
    file = Journal(tmp_path)
    file.append(JournalRecord("agent-1", "node-é", 7, parts, 6))
    file.append(JournalRecord("agent-2", "", 1, ()))
    file.sync()
    reading = journal.read(file.path)
    file.close()
    assert reading.damage is None
    assert reading.next_offset == file.path.stat().st_size
    assert reading.records == [
        JournalRecord("agent-1", "node-é", 7, parts, 6),
        JournalRecord("agent-2", "", 1, ()),
    ]
    assert reading.records[0].parts[0].batches()[0].num_rows == 2


def test_reading_goes_on_where_it_ended(tmp_path, part):
    file = Journal(tmp_path)
    seen, offset = [], 0
    for sequence in range(1, 6):
        file.append(JournalRecord("a", "n", sequence, (part("packets", {}),)))
        reading = journal.read(file.path, offset)
        seen += sequences(reading.records)
        offset = reading.next_offset
    file.close()
    assert seen == [1, 2, 3, 4, 5]


def test_reading_stops_after_its_limit_with_whole_records(tmp_path, part):
    path, ends = write(tmp_path, part, 5)
    reading = journal.read(path, 0, 1)
    assert sequences(reading.records) == [1]
    assert (reading.next_offset, reading.damage) == (ends[0], None)


def test_a_journal_is_not_opened_twice(tmp_path):
    Journal(tmp_path).close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path)


def test_a_cut_at_any_octet_loses_only_the_record_that_is_cut(tmp_path, part):
    path, ends = write(tmp_path, part, 3)
    whole = path.read_bytes()
    for size in random.Random(1).sample(range(len(whole)), 150):
        path.write_bytes(whole[:size])
        complete = sum(end <= size for end in ends)
        reading = journal.read(path)
        assert len(reading.records) == complete
        if size not in (journal.FILE_HEAD, *ends):
            assert reading.damage.is_torn
            assert reading.damage.offset == (reading.next_offset)
        scan = journal.scan(path)
        assert len(scan.records) == complete
        assert not scan.rotten
        assert scan.end == (
            [journal.FILE_HEAD, *ends][complete] if size >= journal.FILE_HEAD else 0
        )


def test_a_reader_says_where_and_why_it_stopped(tmp_path, part):
    path, ends = write(tmp_path, part, 3)
    octets = bytearray(path.read_bytes())
    octets[ends[0] + 100] ^= 1
    path.write_bytes(octets)
    reading = journal.read(path)
    assert sequences(reading.records) == [1]
    assert reading.damage.offset == ends[0]
    assert not reading.damage.is_torn
    assert reading.damage.reason == (
        f"journal-00000001.log: the record at octet {ends[0]} does not match its checksum."
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit_never_gives_wrong_rows_and_never_hides_the_rest(
    tmp_path_factory, part, place, bit
):
    path, ends = write(tmp_path_factory.mktemp("rot"), part, 4)
    octets = bytearray(path.read_bytes())
    place %= len(octets)
    octets[place] ^= 1 << bit
    path.write_bytes(octets)
    hit = sum(end <= place for end in ends) + 1 if place >= journal.FILE_HEAD else None
    expected = [s for s in range(1, 5) if s != hit]
    scan = journal.scan(path)
    assert sequences(scan.records) == expected
    for record in scan.records:
        frames = record.parts[0].batches()[0].column("frame").to_pylist()
        assert frames == [bytes([record.sequence]) * 60] * record.sequence
    if hit is not None and hit < 4:  # what comes behind says that it had been synced
        assert [rotten.offset for rotten in scan.rotten] == [ends[hit - 2] if hit > 1 else 24]
    if hit == 4:
        assert scan.torn.offset == ends[2]


def test_what_was_never_synced_is_torn_with_all_that_follows(tmp_path, part):
    """Pages of one group reach the disk in any order; none of it was acknowledged."""
    path, ends = write(tmp_path, part, 4, sync_each=False)
    octets = bytearray(path.read_bytes())
    octets[ends[0] : ends[1]] = bytes(ends[1] - ends[0])
    path.write_bytes(octets)
    scan = journal.scan(path)
    assert sequences(scan.records) == [1]
    assert not scan.rotten
    assert (scan.end, scan.torn.offset) == (ends[0], ends[0])


def test_a_record_inside_of_a_frame_is_not_taken_for_one(tmp_path, part):
    """Traffic can hold what another journal holds; after rot it must not come to life."""
    other, _ = write(tmp_path, part, 1, number=9)
    file = Journal(tmp_path, 1)
    for sequence in (1, 2, 3):
        hostile = part("packets", {"frame": other.read_bytes()})
        file.append(JournalRecord("a", "n", sequence, (hostile,)))
        file.sync()
    file.close()
    octets = bytearray(file.path.read_bytes())
    octets[journal.FILE_HEAD] ^= 0xFF
    file.path.write_bytes(octets)
    assert sequences(journal.scan(file.path).records) == [2, 3]


def test_a_length_that_claims_gigabytes_is_damage(tmp_path, part):
    path, _ = write(tmp_path, part, 1)
    octets = bytearray(path.read_bytes())
    octets[journal.FILE_HEAD + 12 : journal.FILE_HEAD + 16] = b"\xff\xff\xff\xff"
    path.write_bytes(octets)
    assert "claims 4294967295 octets" in journal.read(path).damage.reason


@pytest.mark.parametrize("octets", [b"", b"TRJ", b"\x00" * 24, b"\x00" * 5000, b"x" * 5000])
def test_what_is_no_journal_gives_no_records(tmp_path, octets):
    path = tmp_path / "journal-00000001.log"
    path.write_bytes(octets)
    assert journal.read(path).records == []
    assert journal.scan(path).records == []


def test_a_later_version_is_refused_with_what_to_do(tmp_path, part, monkeypatch):
    monkeypatch.setattr(journal, "VERSION", 2)
    path, _ = write(tmp_path, part, 1)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"version 2 of the journal.*use the release that wrote"):
        journal.read(path)
    with pytest.raises(ValueError, match="version 2 of the journal"):
        journal.scan(path)


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, part):
    file = Journal(tmp_path)
    with pytest.raises(ValueError, match="too long"):
        file.append(JournalRecord("a" * 129, "n", 1, ()))
    with pytest.raises(ValueError, match="256 parts"):
        file.append(JournalRecord("a", "n", 1, (part("packets", {}),) * 256))
    file.close()
    assert file.path.stat().st_size == journal.FILE_HEAD


def test_many_pieces_are_written_whole(tmp_path, part):
    small = part("packets", {})
    file = Journal(tmp_path)
    file.append(JournalRecord("a", "n", 1, (small,) * 255))
    file.append(JournalRecord("a", "n", 2, (small,) * 255))
    file.close()
    assert [len(r.parts) for r in journal.read(layout.journal(tmp_path, 1)).records] == [255, 255]
