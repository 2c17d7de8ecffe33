import random
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from recordings import archive, cache, layout, segments
from recordings.cache import Cache, CacheFolder, CacheFullError, DamagedObjectError
from recordings.manifest import Manifest
from recordings.remote import Remote, RemoteError

SIZE = 100 << 10
FITS = 3
"""Files of that size that fit."""
LIMIT = FITS * (SIZE + (8 << 10))


class Archive:
    """An archived run with segments of noise, and a cache for it."""

    def __init__(self, url, folder, rows, numbers):
        at = layout.run(folder / "data", "checkout", 1)
        at.mkdir(parents=True)
        made = tuple(
            segments.write(at, "packets", rows("packets", {"frame": noise(n)}).to_batches(), n)
            for n in numbers
        )
        self.manifest = Manifest("checkout", 1, segments=made, journal=99, id="one")
        self.remote = Remote(url)
        archive.copy(at, self.manifest, self.remote, 1)
        (folder / "cache").mkdir()
        self.cache = Cache(folder / "cache", LIMIT)
        there = self.cache.know(self.remote, self.manifest)
        self.paths = [there / segment.file for segment in made]
        self.octets = [(at / segment.file).read_bytes() for segment in made]

    def here(self):
        """Return the octets that are on disk."""
        octets = 0
        for path in self.paths[0].parent.iterdir() if self.paths[0].parent.exists() else ():
            with suppress(FileNotFoundError):  # removed just now
                octets += path.stat().st_size
        return octets


def noise(seed):
    return random.Random(seed).randbytes(SIZE)


@pytest.fixture
def archived(bucket, tmp_path, rows):
    return Archive(bucket.url(), tmp_path, rows, range(1, 9))


def test_a_file_is_here_while_it_is_held_and_is_not_fetched_twice(archived, bucket):
    path = archived.paths[0]
    with archived.cache.held([path]):
        assert path.read_bytes() == archived.octets[0]
    answered = bucket.proxy.answered
    with archived.cache.held([path]):
        assert path.read_bytes() == archived.octets[0]
    assert bucket.proxy.answered == answered


def test_other_files_are_left_alone(archived, tmp_path):
    with archived.cache.held([tmp_path / "data" / "nothing.parquet"]):
        pass
    assert archived.cache.used == 0


def test_what_was_read_least_recently_goes_first(archived):
    for place in (0, 1, 2, 0, 3):
        with archived.cache.held([archived.paths[place]]):
            pass
    assert [path.exists() for path in archived.paths[:4]] == [True, False, True, True]


def test_the_limit_is_never_exceeded(archived):
    limit, most, stop = archived.cache.limit, [0], threading.Event()

    def watch():
        while not stop.is_set():
            most[0] = max(most[0], archived.here(), archived.cache.used)

    def read(seed):
        chosen = random.Random(seed)
        for _ in range(20):
            wanted = chosen.sample(range(8), chosen.randint(1, FITS))
            with archived.cache.held([archived.paths[place] for place in wanted]):
                for place in wanted:
                    assert archived.paths[place].read_bytes() == archived.octets[place]
                    read_right.append(place)

    read_right = []
    watcher = threading.Thread(target=watch)
    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    watcher.start()
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    watcher.join()
    assert len(read_right) >= 80
    assert SIZE < most[0] <= limit
    assert archived.here() <= archived.cache.used <= limit


def test_a_question_that_needs_more_is_told(archived):
    with (
        pytest.raises(CacheFullError, match=r"needs 0\.8 MiB .* room for 0\.3 MiB\. Ask for a sh"),
        archived.cache.held(archived.paths),
    ):
        pass
    assert archived.here() == 0


def test_one_that_waits_for_others_is_told_when_it_is_too_long(archived, monkeypatch):
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.0)
    with (
        archived.cache.held(archived.paths[:2]),
        pytest.raises(CacheFullError, match="Other questions hold the room"),
        archived.cache.held(archived.paths[2:4]),
    ):
        pass
    with archived.cache.held(archived.paths[2:4]):
        pass


def test_one_that_waits_can_be_given_up(archived):
    def give_up():
        raise InterruptedError

    with (
        archived.cache.held(archived.paths[:2]),
        pytest.raises(InterruptedError),
        archived.cache.held(archived.paths[2:4], give_up),
    ):
        pass


@pytest.mark.parametrize("change", ["longer", "shorter", "other"])
def test_a_damaged_file_is_found_and_not_kept(archived, bucket, change):
    octets = archived.octets[0]
    damaged = {"longer": octets + b"x", "shorter": octets[:-1], "other": octets[:-1] + b"x"}
    key = f"recordings/checkout/0001/{archived.paths[0].name}"
    bucket.write(key, damaged[change])
    for _ in range(2):
        with (
            pytest.raises(DamagedObjectError, match=rf"^s3://{bucket.name}/recorder/{key} is dam"),
            archived.cache.held(archived.paths[:1]),
        ):
            pass
    assert archived.here() == archived.cache.used == 0
    bucket.write(key, octets)
    with archived.cache.held(archived.paths[:1]):
        assert archived.paths[0].read_bytes() == octets


def test_a_connection_that_breaks_leaves_nothing(archived, bucket):
    bucket.proxy.cut()
    with pytest.raises(RemoteError), archived.cache.held(archived.paths[:2]):
        pass
    assert archived.here() == archived.cache.used == 0
    bucket.proxy.mend()
    with archived.cache.held(archived.paths[:2]):
        pass


def test_what_has_gone_is_a_file_that_is_not_there(archived, bucket):
    bucket.delete(f"recordings/checkout/0001/{archived.paths[0].name}")
    with pytest.raises(FileNotFoundError), archived.cache.held(archived.paths[:1]):
        pass
    archived.cache.forget(archived.paths[1].parent)
    with pytest.raises(FileNotFoundError), archived.cache.held(archived.paths[1:2]):
        pass
    assert archived.cache.used == 0
    assert archived.here() == 0


KILLED = """
import os, signal, sys
from pathlib import Path
from recordings.cache import CacheFolder
folder = CacheFolder(Path(sys.argv[1]))
(folder.path / "file").write_bytes(b"x")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_when_the_next_one_begins(tmp_path):
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    (tmp_path / "recorder-cache-of-nobody").mkdir()
    assert len(list(tmp_path.iterdir())) == 2
    one, other = CacheFolder(tmp_path), CacheFolder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        one.path.name,
        other.path.name,
        "recorder-cache-of-nobody",
    }
    one.close()
    other.close()
    assert len(list(tmp_path.iterdir())) == 1
