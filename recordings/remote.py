"""Files elsewhere than on the disk of the recordings: on S3, or in another folder.

The archive writes through it, the query service's cache and `recorder verify` read. Keys are paths
below the URL, as recordings.layout makes them.

Memory is bounded by what S3 wants as one part of an upload (10 MiB, more for files of many GiB),
and one chunk.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs as pafs

from recordings import layout, places

CHUNK: Final = 1 << 20
"""Octets that are read and sent at a time."""
CONNECT_SECONDS: Final = 5.0
REQUEST_SECONDS: Final = 30.0
"""How long S3 may be silent."""
MOST_ATTEMPTS: Final = 3
"""Of a request; who asks tries again later."""
LONGEST_REASON: Final = 300
"""Characters of what S3 said that are shown."""

_AWS: Final = re.compile(r"AWS Error (\w+) during \w+ operation: (.*)", re.DOTALL)
_NOISE: Final = re.compile(r"(curlCode: \d+, |; Details: .*| ?\(Request ID: .*| with address : .*)")


class RemoteError(OSError):
    """The other place cannot be used now; the text is a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands below a key."""

    name: str
    """The last part of its key."""
    bytes: int
    is_folder: bool


def never() -> None:
    """Do nothing between pieces of work."""


class Remote:
    """A folder elsewhere. Methods are safe for many threads, and raise RemoteError."""

    def __init__(self, url: str) -> None:
        """Nothing is reached yet. Raises ValueError with a sentence."""
        scheme, self._root, options = places.split(url)
        self.url = f"{scheme}://{self._root}"
        """Without options; what people are shown."""
        self.is_local = scheme == "file"
        if self.is_local:
            self._files: Any = pafs.LocalFileSystem()
        else:
            self._files = pafs.S3FileSystem(
                **options,
                connect_timeout=CONNECT_SECONDS,
                request_timeout=REQUEST_SECONDS,
                retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=MOST_ATTEMPTS),
                # Parts that wait to be sent would pile up in memory.
                background_writes=False,
                # A small file is one request, and is there whole or not at all.
                allow_delayed_open=True,
            )

    def below(self, key: str) -> str:
        """Return the URL of a key."""
        return f"{self.url}/{key}"

    def put(self, key: str, path: Path, pause: Callable[[], None] = never) -> None:
        """Send a file; what was there is replaced when it is whole.

        `pause` is called between pieces of work and may raise. OSError for the file itself.
        """
        with path.open("rb", buffering=0) as file:
            self._write(key, iter(lambda: file.read(CHUNK), b""), pause)

    def put_octets(self, key: str, octets: bytes) -> None:
        """Send a file's octets."""
        self._write(key, iter([octets]), never)

    def read(self, key: str, most: int) -> bytes:
        """Return a file's octets, at most one more than `most`; FileNotFoundError without it."""
        with self._reading(key), self._files.open_input_stream(self._path(key)) as stream:
            octets: bytes = stream.read(most + 1)
            return octets

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield a file's octets piece by piece; FileNotFoundError without it."""
        with self._reading(key):
            stream = self._files.open_input_stream(self._path(key))
        with stream:
            while True:
                with self._reading(key):
                    octets = stream.read(CHUNK)
                if not octets:
                    return
                yield octets

    def sha256(self, key: str, pause: Callable[[], None] = never) -> str:
        """Read a file back and return its SHA-256, in hex; FileNotFoundError without it."""
        digest = hashlib.sha256()
        for octets in self.chunks(key):
            digest.update(octets)
            pause()
        return digest.hexdigest()

    def list(self, key: str) -> list[Entry]:
        """Return what stands directly below a key, by name; nothing when nothing does."""
        selector = pafs.FileSelector(self._path(key), allow_not_found=True)
        with self._telling(key):
            found = self._files.get_file_info(selector)
        entries = [
            Entry(info.base_name, info.size or 0, info.type == pafs.FileType.Directory)
            for info in found
        ]
        return sorted(entries, key=lambda entry: entry.name)

    def delete(self, key: str) -> None:
        """Remove a file; nothing when it is not there."""
        try:
            with self._reading(key):
                self._files.delete_file(self._path(key))
        except FileNotFoundError:
            pass

    def delete_below(self, key: str) -> None:
        """Remove all that stands below a key; nothing when nothing does."""
        try:
            with self._reading(key):
                self._files.delete_dir(self._path(key))
        except FileNotFoundError:
            pass

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _write(self, key: str, chunks: Iterator[bytes], pause: Callable[[], None]) -> None:
        target = self._path(key)
        # S3 shows a file when it is whole; a folder shows what is there.
        path = f"{target}{layout.TEMPORARY}" if self.is_local else target
        with self._telling(key):
            if self.is_local:
                self._files.create_dir(target.rpartition("/")[0], recursive=True)
            stream = self._files.open_output_stream(path)
        try:
            while octets := next(chunks, b""):
                with self._telling(key):
                    stream.write(octets)
                pause()
        except BaseException:
            self._abandon(stream, path)
            raise
        with self._telling(key):
            stream.close()
            if self.is_local:
                _sync(Path(path))
                self._files.move(path, target)
                layout.sync(Path(target).parent)

    def _abandon(self, stream: Any, path: str) -> None:
        """Remove what was sent of a file: to close a stream is the only end that it has."""
        try:
            stream.close()
            self._files.delete_file(path)
        except (OSError, pa.ArrowException):
            return  # what is there has another checksum, and is sent again

    @contextmanager
    def _telling(self, key: str) -> Iterator[None]:
        """Say errors in a sentence."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            raise RemoteError(f"{self.below(key)}: {_reason(error)}.") from error

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """The same, but what is not there is a FileNotFoundError."""
        with self._telling(key):
            try:
                yield
            except FileNotFoundError:
                missing = True
            else:
                missing = False
        if missing:
            raise FileNotFoundError(f"{self.below(key)} is not there.")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    """Return what S3, or the disk, said, in a few words."""
    text = " ".join(str(error).split())
    found = _AWS.search(text)
    words = found[2] if found else getattr(error, "strerror", None) or text
    words = _NOISE.sub("", words).strip().rstrip(".")
    if found and (not words or found[1] != "NETWORK_CONNECTION"):
        words = f"{found[1].lower().replace('_', ' ')}{f' ({words})' if words else ''}"
    return words[:LONGEST_REASON]
