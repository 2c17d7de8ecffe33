import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from recordings import archive, layout, segments
from recordings.archive import AnotherRunError
from recordings.manifest import Manifest
from recordings.remote import Remote, RemoteError
from recordings.schema import TABLES

NOW = 1_800_000_000_000_000_000
RUN = "recordings/checkout/0001"


@pytest.fixture
def run(tmp_path, rows):
    """Make a run on disk with some segments of packets, of a MiB of noise each."""

    def make(*numbers, id="one", folder="data", size=1 << 20):
        at = layout.run(tmp_path / folder, "checkout", 1)
        at.mkdir(parents=True, exist_ok=True)
        found = []
        for number in numbers:
            table = rows("packets", {"frame": os.urandom(size)})
            found.append(segments.write(at, "packets", table.to_batches(), number))
        counts = {**dict.fromkeys(TABLES, 0), "packets": len(numbers)}
        manifest = Manifest(
            "checkout", 1, "http", tuple(found), max(numbers, default=0) + 1, counts=counts, id=id
        )
        manifest.save(at)
        return at, manifest

    return make


def test_a_copy_is_a_run_as_on_disk(run, bucket):
    folder, manifest = run(1, 2)
    heard = []
    remote = Remote(bucket.url())
    copied = archive.copy(folder, manifest, remote, NOW, heard.append)
    files = bucket.files()
    assert set(files) == {f"{RUN}/{path.name}" for path in folder.iterdir()}
    for segment in manifest.segments:
        assert bucket.read(f"{RUN}/{segment.file}") == (folder / segment.file).read_bytes()
    assert archive.load(remote, "checkout", 1) == manifest
    assert copied.bytes == copied.sent == sum(files.values())
    assert copied.is_settled
    assert heard == [manifest.segments[0].bytes, sum(s.bytes for s in manifest.segments)]


def test_what_is_there_is_not_sent_again(run, bucket):
    folder, manifest = run(1, 2)
    remote = Remote(bucket.url())
    archive.copy(folder, manifest, remote, NOW)
    before, answered = bucket.proxy.sent, bucket.proxy.answered
    again = archive.copy(folder, manifest, remote, NOW)
    assert again.sent == 0
    assert bucket.proxy.sent - before < 50_000
    assert bucket.proxy.answered - answered < 50_000  # nor is it read again

    third = segments.write(folder, "packets", _rows(folder, manifest), 3)
    more = replace(manifest, segments=(*manifest.segments, third), journal=4)
    grown = archive.copy(folder, more, remote, NOW)
    assert third.bytes < grown.sent < third.bytes + 5_000
    assert archive.load(remote, "checkout", 1) == more


def _rows(folder, manifest):
    return segments.read_rows(folder / manifest.segments[0].file, "packets", 0).to_batches()


@pytest.mark.parametrize("after", [100, 1_500_000, 2_600_000])
def test_a_connection_that_breaks_is_told_and_the_copy_goes_on_later(run, bucket, after):
    folder, manifest = run(1, 2, 3)
    remote = Remote(bucket.url())
    bucket.proxy.cut(after)
    with pytest.raises(RemoteError, match=rf"^s3://{bucket.name}/recorder/recordings/checkout"):
        archive.copy(folder, manifest, remote, NOW)
    assert f"{RUN}/{layout.MANIFEST}" not in bucket.files()
    there = [s for s in manifest.segments if bucket.files().get(f"{RUN}/{s.file}") == s.bytes]
    bucket.proxy.mend()
    copied = archive.copy(folder, manifest, remote, NOW)
    missing = sum(s.bytes for s in manifest.segments) - sum(s.bytes for s in there)
    assert missing < copied.sent < missing + 5_000
    assert archive.load(remote, "checkout", 1) == manifest


KILLED = """
import os, signal, sys
from pathlib import Path
from recordings import archive
from recordings.manifest import Manifest
from recordings.remote import Remote

folder, url, pieces = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

def pause():
    global pieces
    pieces -= 1
    if not pieces:
        os.kill(os.getpid(), signal.SIGKILL)

archive.copy(folder, Manifest.load(folder), Remote(url), 1, pause=pause)
"""


@pytest.mark.parametrize("pieces", [3, 9, 14])
def test_a_copy_that_was_killed_half_way_is_taken_up_again(run, bucket, pieces):
    folder, manifest = run(1, 2, size=4 << 20)
    command = [sys.executable, "-c", KILLED, str(folder), bucket.url(), str(pieces)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    files = bucket.files()
    assert f"{RUN}/{layout.MANIFEST}" not in files
    whole = [s for s in manifest.segments if files.get(f"{RUN}/{s.file}") == s.bytes]
    assert set(files) == {f"{RUN}/{s.file}" for s in whole}  # nothing is there in part
    copied = archive.copy(folder, manifest, Remote(bucket.url()), NOW)
    assert copied.bytes - copied.sent == sum(s.bytes for s in whole)
    assert archive.load(Remote(bucket.url()), "checkout", 1) == manifest


def test_a_file_that_was_damaged_before_its_manifest_was_there_is_sent_again(run, bucket):
    folder, manifest = run(1)
    [segment] = manifest.segments
    bucket.write(f"{RUN}/{segment.file}", b"\0" * segment.bytes)
    archive.copy(folder, manifest, Remote(bucket.url()), NOW)
    assert bucket.read(f"{RUN}/{segment.file}") == (folder / segment.file).read_bytes()


def test_a_file_that_is_damaged_here_never_gets_into_a_manifest_there(run, bucket):
    folder, manifest = run(1)
    [segment] = manifest.segments
    octets = bytearray((folder / segment.file).read_bytes())
    octets[1000] ^= 1
    (folder / segment.file).write_bytes(octets)
    with pytest.raises(RemoteError, match=f"has the SHA-256 [0-9a-f]+, not {segment.sha256}: the"):
        archive.copy(folder, manifest, Remote(bucket.url()), NOW)
    assert bucket.files() == {}


def test_another_run_of_the_same_name_is_not_replaced(run, bucket):
    remote = Remote(bucket.url())
    archive.copy(*run(1), remote, NOW)
    before = {key: bucket.read(key) for key in bucket.files()}
    with pytest.raises(AnotherRunError, match=r"0001 has a run of an earlier job named checkout"):
        archive.copy(*run(1, 2, id="two", folder="other"), remote, NOW)
    assert {key: bucket.read(key) for key in bucket.files()} == before


def test_what_was_merged_stays_for_readers_for_a_while(run, bucket):
    folder, manifest = run(1, 2)
    remote = Remote(bucket.url())
    archive.copy(folder, manifest, remote, NOW)
    whole = segments.write(folder, "packets", _merged(folder, manifest), 1, last=2)
    merged = replace(manifest, segments=(whole,))
    copied = archive.copy(folder, merged, remote, NOW + 1)
    assert not copied.is_settled
    assert archive.load(remote, "checkout", 1).segments == (whole,)
    old = {f"{RUN}/{segment.file}" for segment in manifest.segments}
    assert old < set(bucket.files())
    later = NOW + 1 + int(archive.GRACE_SECONDS * 1e9)
    assert archive.copy(folder, merged, remote, later).is_settled
    assert set(bucket.files()) == {f"{RUN}/{whole.file}", f"{RUN}/{layout.MANIFEST}"}


def _merged(folder, manifest):
    from recordings import merging

    return merging.rows(folder, manifest.segments, lambda: None)


def test_files_of_others_are_left_alone(run, bucket):
    bucket.write(f"{RUN}/notes.txt", b"by hand")
    archive.copy(*run(1), Remote(bucket.url()), NOW)
    assert bucket.read(f"{RUN}/notes.txt") == b"by hand"


def test_a_removed_recording_is_gone(run, bucket):
    remote = Remote(bucket.url())
    archive.copy(*run(1), remote, NOW)
    bucket.write("recordings/checkout2/0001/x", b"another one")
    archive.remove(remote, "checkout")
    assert bucket.files() == {"recordings/checkout2/0001/x": 11}
    archive.remove(remote, "checkout")


def test_a_manifest_of_another_place_is_refused(run, bucket):
    remote = Remote(bucket.url())
    archive.copy(*run(1), remote, NOW)
    octets = bucket.read(f"{RUN}/{layout.MANIFEST}")
    assert json.loads(octets)["job"] == "checkout"
    bucket.write(f"recordings/other/0002/{layout.MANIFEST}", octets)
    with pytest.raises(ValueError, match="it is of run 1 of checkout"):
        archive.load(remote, "other", 2)


def test_a_folder_does_as_well(run, tmp_path):
    folder, manifest = run(1, 2)
    archive.copy(folder, manifest, Remote((tmp_path / "there").as_uri()), NOW)
    there = layout.run(tmp_path / "there", "checkout", 1)
    assert {p.name: p.read_bytes() for p in there.iterdir() if p.name != layout.MANIFEST} == {
        s.file: (folder / s.file).read_bytes() for s in manifest.segments
    }
    assert Manifest.load(there) == manifest
