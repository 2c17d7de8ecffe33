"""Files of archived runs on this disk for as long as a question reads them, and then as there is
room. The query service has one; readers of archives say which files there are.

Never more than the limit: room is taken before a file is fetched, for all files of a question at
once, and what was read least recently goes first. A file counts once its SHA-256 is right.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from recordings import archive, layout
from recordings.manifest import Manifest
from recordings.remote import Remote, never
from recordings.segments import Segment

PREFIX: Final = "recorder-cache-"
"""Begins the name of a cache's folder."""
LOCK: Final = "lock"
"""File that the process of a cache's folder has locked."""
BLOCK: Final = 4096
"""Octets that a file's last piece takes on most file systems."""
WAIT_SECONDS: Final = 30.0
"""How long a question waits for the room that others hold."""
LOOK_SECONDS: Final = 0.25
"""How often one that waits looks whether it is still wanted."""


class CacheFullError(OSError):
    """The files of a question do not fit; the text is a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


class DamagedObjectError(OSError):
    """A file there is not what was sent; the text is a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(slots=True)
class _File:
    """A file that is here, or is being fetched."""

    bytes: int
    holders: int = 0
    is_here: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Of who fetches it."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Where a folder's files are from."""

    remote: Remote
    key: str
    segments: Mapping[str, Segment]


class CacheFolder:
    """A folder for a Cache, which goes with its process, or when the next one begins."""

    def __init__(self, base: Path) -> None:
        """Make it in `base`, and remove those whose process was killed. Raises OSError."""
        for left in base.glob(f"{PREFIX}*"):
            with suppress(OSError):  # of another user, or just removed by another process
                _remove_if_left(left)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        made = layout.temporary(self.path / LOCK)  # nobody may find it before it is locked
        self._lock = os.open(made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        made.rename(self.path / LOCK)

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_if_left(folder: Path) -> None:
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
        return
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(lock)


class Cache:
    """A folder of this process alone. Methods are safe for many threads."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Take at most `limit` octets of an empty folder."""
        self.folder = folder.resolve()
        self.limit = limit
        self._change = threading.Condition()
        self._runs: dict[Path, _Run] = {}
        self._files: OrderedDict[Path, _File] = OrderedDict()
        self._used = 0

    @property
    def used(self) -> int:
        """Octets that are here, or are being fetched."""
        with self._change:
            return self._used

    def know(self, remote: Remote, manifest: Manifest, *, only_remote: bool = False) -> Path:
        """Return the folder in which a run's files will be, once they are held.

        only_remote: not those that the manifest has on disk.
        """
        place = hashlib.sha256(f"{remote.url} {manifest.id}".encode()).hexdigest()[:16]
        folder = layout.run(self.folder / place, manifest.job, manifest.run)
        wanted = (s for s in manifest.segments if s.is_remote or not only_remote)
        segments = {segment.file: segment for segment in wanted}
        with self._change:
            before = self._runs.get(folder)
            # Questions that have begun may want what was merged since.
            known = {**before.segments, **segments} if before else segments
            key = archive.key(manifest.job, manifest.run)
            self._runs[folder] = _Run(remote, key, known)
        return folder

    def forget(self, folder: Path) -> None:
        """Fetch no more for a folder that know() gave."""
        with self._change:
            self._runs.pop(folder, None)

    @contextmanager
    def held(self, paths: Iterable[Path], pause: Callable[[], None] = never) -> Iterator[None]:
        """Have those of these files here that are of archives; the others are left alone.

        `pause` is called between pieces of work and may raise. Raises CacheFullError,
        DamagedObjectError, RemoteError, and FileNotFoundError when one has gone.
        """
        mine = {path: self._segment(path) for path in paths if self._is_mine(path)}
        if not mine:
            yield
            return
        self._take(mine, pause)
        try:
            for path, segment in mine.items():
                self._fetch(path, segment, pause)
            yield
        finally:
            self._let_go(mine)

    def _is_mine(self, path: Path) -> bool:
        return path.is_relative_to(self.folder)

    def _segment(self, path: Path) -> Segment:
        run = self._runs.get(path.parent)
        if run is None or path.name not in run.segments:
            raise FileNotFoundError(f"{path.name} is in no archive any more.")
        return run.segments[path.name]

    def _take(self, mine: Mapping[Path, Segment], pause: Callable[[], None]) -> None:
        """Hold all files, with room for those that are not here."""
        wanted = {path: _on_disk(segment.bytes) for path, segment in mine.items()}
        if sum(wanted.values()) > self.limit:
            raise CacheFullError(
                f"The question needs {_spoken(sum(wanted.values()))} of archived files, and there "
                f"is room for {_spoken(self.limit)}. Ask for a shorter time, or let the query "
                "service have a larger --cache-limit."
            )
        deadline = time.monotonic() + WAIT_SECONDS
        with self._change:
            while not self._make_room(wanted):
                pause()
                if time.monotonic() > deadline:
                    raise CacheFullError(
                        "Other questions hold the room for archived files. Ask again when they "
                        "have ended."
                    )
                self._change.wait(LOOK_SECONDS)
            for path, octets in wanted.items():
                if path not in self._files:
                    self._files[path] = _File(octets)
                    self._used += octets
                self._files[path].holders += 1
                self._files.move_to_end(path)

    def _make_room(self, wanted: Mapping[Path, int]) -> bool:
        """Remove what nobody holds, as far as that is needed; False when it is not enough."""
        missing = sum(octets for path, octets in wanted.items() if path not in self._files)
        idle = [p for p, file in self._files.items() if not file.holders and p not in wanted]
        free = self.limit - self._used
        if missing > free + sum(self._files[path].bytes for path in idle):
            return False
        for path in idle:
            if missing <= free:
                break
            free += self._drop(path)
        return True

    def _drop(self, path: Path) -> int:
        """Remove a file that nobody holds, and return its octets."""
        path.unlink(missing_ok=True)
        octets = self._files.pop(path).bytes
        self._used -= octets
        return octets

    def _fetch(self, path: Path, segment: Segment, pause: Callable[[], None]) -> None:
        file, run = self._files[path], self._runs.get(path.parent)
        with file.lock:
            if file.is_here:
                return
            if run is None:
                raise FileNotFoundError(f"{path.name} is in no archive any more.")
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch(run.remote, f"{run.key}/{path.name}", segment, path, pause)
            file.is_here = True

    def _let_go(self, mine: Iterable[Path]) -> None:
        with self._change:
            for path in mine:
                file = self._files[path]
                file.holders -= 1
                if not file.holders and not file.is_here:
                    self._drop(path)
            self._change.notify_all()


def fetch(
    remote: Remote, key: str, segment: Segment, path: Path, pause: Callable[[], None] = never
) -> None:
    """Fetch a segment to a path; it is there whole or not at all.

    Raises DamagedObjectError, RemoteError, FileNotFoundError, OSError.
    """
    temporary = layout.temporary(path)
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("wb") as file:
            for octets in remote.chunks(key):
                size += len(octets)
                if size > segment.bytes:
                    break
                digest.update(octets)
                file.write(octets)
                pause()
        if size != segment.bytes or digest.hexdigest() != segment.sha256:
            raise DamagedObjectError(
                f"{remote.below(key)} is damaged: it is not what was sent. Put it back from a "
                "copy, or delete the run."
            )
        temporary.rename(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _on_disk(octets: int) -> int:
    return -(-octets // BLOCK) * BLOCK


def _spoken(octets: int) -> str:
    return f"{octets / (1 << 20):.1f} MiB".replace(".0 ", " ")
