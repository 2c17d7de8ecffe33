import hashlib
import os

import pytest

from recordings.remote import Remote, RemoteError

FILE = "recordings/a/0001/packets-00000001.parquet"


@pytest.fixture(params=["s3", "file"])
def remote(request, tmp_path):
    if request.param == "file":
        return Remote((tmp_path / "there").as_uri())
    return Remote(request.getfixturevalue("bucket").url())


def test_what_was_put_is_there(remote, tmp_path):
    octets = os.urandom((11 << 20) + 5)  # more than a part of an upload
    path = tmp_path / "file"
    path.write_bytes(octets)
    remote.put(FILE, path)
    assert remote.sha256(FILE) == hashlib.sha256(octets).hexdigest()
    assert b"".join(remote.chunks(FILE)) == octets
    assert [(e.name, e.bytes) for e in remote.list("recordings/a/0001")] == [
        ("packets-00000001.parquet", len(octets))
    ]
    assert [(e.name, e.is_folder) for e in remote.list("recordings")] == [("a", True)]


def test_small_files_are_replaced(remote):
    remote.put_octets("recordings/a", b"one")
    remote.put_octets("recordings/a", b"two!")
    assert remote.read("recordings/a", 100) == b"two!"
    assert remote.read("recordings/a", 2) == b"two"  # one more than the most that may be there


def test_what_is_not_there(remote):
    assert remote.list("recordings/a") == []
    with pytest.raises(FileNotFoundError, match=r"recordings/a is not there"):
        remote.read("recordings/a", 1)
    with pytest.raises(FileNotFoundError):
        remote.sha256("recordings/a")
    remote.delete("recordings/a")
    remote.delete_below("recordings/a")


def test_what_was_removed_is_gone(remote):
    for name in ("a/0001/x", "a/0002/x", "ab/0001/x"):
        remote.put_octets(f"recordings/{name}", b"x")
    remote.delete("recordings/a/0001/x")
    remote.delete_below("recordings/a")
    assert remote.list("recordings/a/0002") == []
    assert [e.name for e in remote.list("recordings/ab/0001")] == ["x"]


def test_an_upload_that_was_given_up_leaves_nothing(remote, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(3 << 20))

    def give_up():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.put(FILE, path, give_up)
    assert remote.list("recordings/a/0001") == []


def test_a_bucket_that_is_not_there_is_said(bucket):
    remote = Remote(bucket.url().replace(bucket.name, "nowhere"))
    with pytest.raises(RemoteError, match=r"^s3://nowhere/recorder/a: no such bucket \(The speci"):
        remote.put_octets("a", b"x")


def test_a_server_that_is_not_there_is_said(bucket):
    remote = Remote(bucket.url())
    bucket.proxy.close()
    with pytest.raises(RemoteError) as raised:
        remote.put_octets("a", b"x")
    text = str(raised.value)
    assert text.startswith(f"s3://{bucket.name}/recorder/a: ")
    assert text.endswith(".")
    assert len(text) < 200
    assert "Request" not in text


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "there").write_text("a file")
    with pytest.raises(RemoteError, match=r"^file:///.*/there/a/b: "):
        Remote((tmp_path / "there").as_uri()).put_octets("a/b", b"x")
