import pytest

from recordings import archive, archivecheck, layout, segments
from recordings.manifest import Manifest
from recordings.remote import Remote
from recordings.schema import TABLES
from recordings.snapshot import NotFoundError

RUN = "recordings/checkout/0001"


@pytest.fixture
def remote(bucket, tmp_path, rows):
    """An archive with two runs of the recording checkout."""
    found = Remote(bucket.url())
    for run in (1, 2):
        at = layout.run(tmp_path, "checkout", run)
        at.mkdir(parents=True)
        made = [
            segments.write(at, "packets", rows("packets", {"frame": b"x" * run}).to_batches(), n)
            for n in (1, 2)
        ]
        counts = {**dict.fromkeys(TABLES, 0), "packets": 2}
        manifest = Manifest("checkout", run, "", tuple(made), 3, counts=counts, id=str(run))
        archive.copy(at, manifest, found, 1)
    return found


def test_a_good_archive(remote, bucket):
    one, two = archivecheck.check(remote, "checkout")
    assert one.difference is two.difference is None
    assert (one.run, one.segments, one.journals, one.rows["packets"]) == (1, 2, 0, 2)
    assert one.bytes + two.bytes == sum(bucket.files().values())
    (only,) = archivecheck.check(remote, "checkout", 2)
    assert only == two


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda o: o[:100] + bytes([o[100] ^ 1]) + o[101:], r"expected SHA-256 .*, found "),
        (lambda o: o[:-1], r"expected \d+ octets, found \d+\."),
        (lambda o: o + b"x", r"expected \d+ octets, found more\."),
    ],
)
def test_a_damaged_file_is_found(remote, bucket, damage, sentence):
    key = f"{RUN}/packets-00000002.parquet"
    bucket.write(key, damage(bucket.read(key)))
    one, two = archivecheck.check(remote, "checkout")
    assert two.difference is None
    assert one.difference.file == "0001/packets-00000002.parquet"
    with pytest.raises(AssertionError, match=sentence):
        raise AssertionError(one.difference.sentence())


def test_a_missing_file_is_found(remote, bucket):
    bucket.delete(f"{RUN}/packets-00000002.parquet")
    one, _ = archivecheck.check(remote, "checkout")
    assert "found no such file" in one.difference.sentence()


def test_what_should_not_be_there_is_found(remote, bucket):
    bucket.write(f"{RUN}/notes.txt", b"by hand")
    bucket.write("recordings/checkout/notes.txt", b"by hand")
    one, _, around = archivecheck.check(remote, "checkout")
    assert one.difference.file == "0001/notes.txt"
    assert around.difference.found == "a file of 7 octets"


def test_a_damaged_manifest_is_found(remote, bucket):
    octets = bucket.read(f"{RUN}/manifest.json")
    bucket.write(f"{RUN}/manifest.json", octets.replace(b'"rows": 1', b'"rows": 2'))
    one, _ = archivecheck.check(remote, "checkout")
    assert "it says that its SHA-256 is" in one.difference.sentence()
    bucket.delete(f"{RUN}/manifest.json")
    one, _ = archivecheck.check(remote, "checkout")
    assert (
        one.difference.sentence() == "0001/manifest.json: expected a manifest, found no such file."
    )


def test_what_is_not_there(remote):
    with pytest.raises(NotFoundError, match='no recording "other" in s3://bucket'):
        list(archivecheck.check(remote, "other"))
    with pytest.raises(NotFoundError, match="has no run 3; its runs are 1, 2"):
        list(archivecheck.check(remote, "checkout", 3))
    with pytest.raises(ValueError, match="name"):
        list(archivecheck.check(remote, "../x"))
