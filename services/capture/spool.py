"""Batches on the node's disk until the scheduler has them: an agent that is killed forgets nothing.

`outbox` keeps each batch here before it is sent, and takes up again what an agent before it left.
A folder has one agent at a time:

    lock             held while the process lives
    agent            its name, under which the scheduler counts its batches
    sent             (serial, number, CRC-32) of each batch that got a number
    missing          what had to be dropped, see missing.py
    00000001.batches records: CRC-32, octets, serial, then a Batch of ingest.proto without number

A batch's *serial* counts on over restarts; its *number* is the scheduler's, given when it is sent.
Files are written without a sync, so a node that loses power loses seconds; the kernel rarely writes
what is acknowledged and removed within that time. A file goes when all of its batches have settled.
"""

import contextlib
import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from recorder.v1 import ingest_pb2

from services.capture.frames.batch import CaptureError
from services.runtime.logging import logger

FILE_BYTES = 16 << 20
"""A file is closed above this size; what is left of it when few of its batches wait is waste."""

LONGEST_BATCH = 64 << 20
"""Octets; a length beyond it is damage."""

SMALLEST_BATCH = 4096
"""Octets; so that the limit of the disk is one of the memory for what is known of each batch."""

SENT_RECORDS = 65_536
"""The file `sent` is written anew, with what has not settled, when it has this many records."""

_HEAD = struct.Struct("<IIQ")  # CRC-32 of what follows, octets of the message, serial
_SENT = struct.Struct("<QQI")
_SUFFIX = ".batches"

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a batch is."""

    serial: int
    file: int
    offset: int
    """Of its message."""
    length: int


@dataclass(slots=True)
class _File:
    number: int
    first: int
    """Serial of its first batch."""
    size: int = 0
    waiting: set[int] = field(default_factory=set)
    """Serials of batches that have not settled."""


class SpoolFullError(Exception):
    """The disk takes no more; the text says why."""


class Spool:
    """The batches of one agent. Not thread-safe."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        """Open the folder, or make it. Raises CaptureError when it cannot be used."""
        self.limit_bytes = limit_bytes
        self.left: list[tuple[Place, int]] = []
        """Batches that were there, in order, each with its number; 0 when it was never sent."""
        self.folder = folder
        self._files: dict[int, _File] = {}
        self._of: dict[int, int] = {}  # serial -> file
        self._numbers: dict[int, int] = {}
        self._records = 0
        self._serial = 0
        self._writing: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CaptureError(f"another agent uses the spool {folder}") from None
            self._load()
        except OSError as error:
            raise CaptureError(f"cannot use the spool {folder}: {error.strerror}") from None

    @property
    def agent_id(self) -> str:
        """Whose batches these are; "" when nobody said."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self.folder / "agent").read_text().strip()
        return ""

    @property
    def next_serial(self) -> int:
        """Serial that the next batch gets."""
        return self._serial + 1

    @property
    def first_serial(self) -> int:
        """No batch before this serial is in any file."""
        return min((file.first for file in self._files.values()), default=self.next_serial)

    @property
    def used_bytes(self) -> int:
        """Octets of all files of batches; each batch counts SMALLEST_BATCH at least."""
        return sum(max(f.size, SMALLEST_BATCH * len(f.waiting)) for f in self._files.values())

    def name(self, agent_id: str) -> None:
        """Say whose batches these are from now on; their numbers are void."""
        beside = self.folder / "agent.new"
        beside.write_text(agent_id)
        self._numbers.clear()
        self._write_sent()
        beside.replace(self.folder / "agent")

    def append(self, message: bytes) -> Place:
        """Keep a batch. Raises SpoolFullError when the disk is full or broken."""
        self._serial += 1
        checked = _HEAD.pack(0, len(message), self._serial)[4:]
        head = struct.pack("<I", zlib.crc32(message, zlib.crc32(checked))) + checked
        file = self._last_file()
        try:
            descriptor = self._open_last(file)
            _write_all(descriptor, head + message, file.size)
        except OSError as error:
            raise SpoolFullError(error.strerror or str(error)) from None
        place = Place(self._serial, file.number, file.size + _HEAD.size, len(message))
        file.size = place.offset + len(message)
        file.waiting.add(self._serial)
        self._of[self._serial] = file.number
        return place

    def read(self, place: Place) -> bytes:
        """Return the message of a batch that has not settled. Raises OSError when it is gone."""
        with self._path(place.file).open("rb") as file:
            file.seek(place.offset)
            message = file.read(place.length)
        if len(message) != place.length:
            raise OSError(f"{self._path(place.file)} was cut")
        return message

    def sent(self, serial: int, number: int) -> None:
        """Note the number of a batch; to be called before it is sent."""
        self._numbers[serial] = number
        if self._records >= SENT_RECORDS:
            self._write_sent()
            return
        with contextlib.suppress(OSError), (self.folder / "sent").open("ab") as file:
            file.write(_sent_record(serial, number))
            self._records += 1

    def settle(self, serial: int) -> None:
        """Forget a batch: it was acknowledged, or had to make room."""
        self._numbers.pop(serial, None)
        number = self._of.pop(serial, None)
        if number is None:
            return
        file = self._files[number]
        file.waiting.discard(serial)
        if not file.waiting and (number != max(self._files) or file.size >= FILE_BYTES):
            self._remove(file)

    def close(self) -> None:
        """Let go of the folder; what has not settled stays there."""
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None
        if not self._of:
            for file in list(self._files.values()):
                self._remove(file)
            for name in ("agent", "sent"):
                (self.folder / name).unlink(missing_ok=True)
        os.close(self._lock)

    # ------------------------------------------------------------------ files

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}{_SUFFIX}"

    def _last_file(self) -> _File:
        if self._files:
            last = self._files[max(self._files)]
            if last.size < FILE_BYTES:
                return last
        self._close_writing()
        number = max(self._files, default=0) + 1
        self._files[number] = _File(number, self._serial)
        return self._files[number]

    def _open_last(self, file: _File) -> int:
        if self._writing is None:
            self._writing = os.open(self._path(file.number), os.O_WRONLY | os.O_CREAT, 0o600)
        return self._writing

    def _close_writing(self) -> None:
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def _remove(self, file: _File) -> None:
        if file.number == max(self._files):
            self._close_writing()
        self._path(file.number).unlink(missing_ok=True)
        del self._files[file.number]

    def _write_sent(self) -> None:
        """Write the file `sent` anew."""
        beside = self.folder / "sent.new"
        beside.write_bytes(b"".join(_sent_record(*pair) for pair in self._numbers.items()))
        beside.replace(self.folder / "sent")
        self._records = len(self._numbers)

    # ------------------------------------------------------------------ what was left

    def _load(self) -> None:
        numbers = dict(self._read_sent())
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            if path.stem.isdigit():
                self._load_file(path, numbers)
        self._numbers = {place.serial: number for place, number in self.left if number}
        self.left.sort(key=lambda item: item[0].serial)
        self._write_sent()

    def _load_file(self, path: Path, numbers: dict[int, int]) -> None:
        records = list(_records(path))
        file = _File(int(path.stem), min((serial for serial, *_ in records), default=0))
        self._files[file.number] = file
        for serial, offset, length in records:
            self.left.append((Place(serial, file.number, offset, length), numbers.get(serial, 0)))
            self._serial = max(self._serial, serial)
            self._of[serial] = file.number
            file.waiting.add(serial)
            file.size = offset + length
        torn = path.stat().st_size - file.size
        if torn:
            _log.warning("the end of a spool's file cannot be read", file=str(path), octets=torn)
            os.truncate(path, file.size)
        if not file.waiting:
            self._remove(file)

    def _read_sent(self) -> Iterator[tuple[int, int]]:
        try:
            octets = (self.folder / "sent").read_bytes()
        except FileNotFoundError:
            return
        for offset in range(0, len(octets) - _SENT.size + 1, _SENT.size):
            serial, number, checksum = _SENT.unpack_from(octets, offset)
            if checksum == zlib.crc32(octets[offset : offset + 16]):
                yield serial, number


def _sent_record(serial: int, number: int) -> bytes:
    pair = struct.pack("<QQ", serial, number)
    return pair + struct.pack("<I", zlib.crc32(pair))


def _records(path: Path) -> Iterator[tuple[int, int, int]]:
    """Yield (serial, offset of the message, its octets) up to the first that is not whole."""
    with path.open("rb") as file:
        offset = 0
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            checksum, length, serial = _HEAD.unpack(head)
            if length > LONGEST_BATCH:
                return
            message = file.read(length)
            if len(message) != length or zlib.crc32(message, zlib.crc32(head[4:])) != checksum:
                return
            yield serial, offset + _HEAD.size, length
            offset += _HEAD.size + length


def _write_all(descriptor: int, octets: bytes, offset: int) -> None:
    """Write at `offset`, over what a failed attempt left there."""
    view = memoryview(octets)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view = view[written:]
        offset += written


def message_of(octets: bytes) -> ingest_pb2.Batch:
    """Return the batch that append() was given."""
    return ingest_pb2.Batch.FromString(octets)
