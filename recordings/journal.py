"""The journal of a run: batches as they came, on disk before they are acknowledged.

The scheduler's writer appends; snapshot reads while it does; both read after a crash.

A file begins with a head of 24 octets: the magic, a version, eight random octets (the *salt*), and
a CRC-32 of these. Records follow without gaps; integers are little-endian:

    salt       8   marks where a record begins. Since it is random, no traffic that was captured
                   into a record can look like a record, and what another file left on the disk
                   is not taken for one
    checksum   4   CRC-32 (zlib.crc32) of the body, then of the rest of the head
    length     4   octets of the body
    agent, parts, node   1, 1, 2   octets of the agent's name, number of parts, octets of the node
    flags      4   0
    sequence   8   the agent's number of the batch
    settled    8   all batches of the agent up to this number were on disk, or refused, before
    synced     8   octets of this file that were known to be on disk before this record
    body           agent, node, then each part: table 1, zero 3, rows 4, octets 4, Arrow IPC stream

CRC-32 and not CRC-32C: both find every burst of up to 32 bits and miss one in 2^32 of the rest;
CRC-32 is in the standard library, at 2.6 GB/s, more than the disk takes.

`synced` tells the two kinds of damage apart. What was synced may have been acknowledged: damage
there is bit rot, what lies behind it is good, and the loss must be told. What was not synced is
torn: it was never acknowledged, and the agent sends it again.
"""

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pyarrow as pa

from recordings import layout, schema

MAGIC: Final = b"TRJOURNL"
VERSION: Final = 1
LONGEST_BODY: Final = 64 << 20
"""Octets. Far above any batch that is taken; a length beyond it is damage, and is not allocated."""
MOST_PARTS: Final = 255
LONGEST_AGENT: Final = 128
LONGEST_NODE: Final = 253
"""Octets; the longest DNS name (RFC 1035, 2.3.4), which the names of nodes are."""

SELF: Final = ":scheduler"
"""The agent in records that the scheduler makes; no agent can have a colon in its name."""

TABLE_CODES: Final = {"entries": 1, "streams": 2, "packets": 3, "losses": 4, "tallies": 5}
"""As in the enum Table of ingest.proto."""
TABLE_NAMES: Final = {code: name for name, code in TABLE_CODES.items()}

_FILE: Final = struct.Struct("<8sI8sI")
_CHECKED: Final = struct.Struct("<IBBHIQQQ")  # the head of a record behind its checksum
_PART: Final = struct.Struct("<B3xII")
_SALT_SIZE: Final = 8
_HEAD_SIZE: Final = _SALT_SIZE + 4 + _CHECKED.size

FILE_HEAD: Final = _FILE.size
"""Octets before the first record."""


class Part(NamedTuple):
    """Rows of one table."""

    table: str
    """A key of schema.PARTS."""
    rows: int
    octets: bytes
    """An Arrow IPC stream."""

    def batches(self) -> list[pa.RecordBatch]:
        """Return the rows; pa.ArrowInvalid when the octets are not what the writer checked.

        Rows of an older release get the columns that it did not have, with nulls.
        """
        with pa.ipc.open_stream(self.octets) as stream:
            if not schema.is_known(self.table, stream.schema):
                raise pa.ArrowInvalid(f"a part of table {self.table} has another schema")
            return [schema.with_all_columns(self.table, batch) for batch in stream]


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """One batch of one agent."""

    agent: str
    node: str
    sequence: int
    parts: tuple[Part, ...]
    settled: int = 0
    """All of the agent's batches up to this number, of all runs, are on disk or were refused."""


class Encoded(NamedTuple):
    """A record that only lacks what is known when it is appended; made on any thread."""

    fields: tuple[int, int, int, int]  # octets of the body and the agent, parts, octets of the node
    sequence: int
    checksum: int  # of the body
    body: list[bytes]

    @property
    def size(self) -> int:
        """Octets of the record in the file."""
        return _HEAD_SIZE + self.fields[0]


class Damage(NamedTuple):
    """Where a journal cannot be read on, and why."""

    offset: int
    reason: str
    """A sentence with the file's name."""
    is_torn: bool
    """The file ends within the record: it is being written, or its writer was killed."""


class Reading(NamedTuple):
    """What read() found."""

    records: list[JournalRecord]
    next_offset: int
    """Where to go on when the file has grown."""
    damage: Damage | None


class Rotten(NamedTuple):
    """Octets of a journal that were on disk and cannot be read any more."""

    offset: int
    size: int
    reason: str


class Scan(NamedTuple):
    """What is in a journal that nobody writes to any more."""

    records: list[JournalRecord]
    rotten: list[Rotten]
    end: int
    """Octets up to here are to be kept; behind it is a torn tail."""
    torn: Damage | None


def encode(agent: str, node: str, sequence: int, parts: Sequence[Part]) -> Encoded:
    """Lay out a record; ValueError when it does not fit the format."""
    names = (agent.encode(), node.encode())
    if not len(names[0]) <= LONGEST_AGENT or not len(names[1]) <= LONGEST_NODE:
        raise ValueError("The name of an agent or of a node is too long for a journal.")
    if len(parts) > MOST_PARTS:
        raise ValueError(f"A batch has {len(parts)} parts; a journal takes {MOST_PARTS}.")
    body = [*names]
    for table, rows, octets in parts:
        body += (_PART.pack(TABLE_CODES[table], rows, len(octets)), octets)
    length = sum(map(len, body))
    if length > LONGEST_BODY:
        raise ValueError(f"A batch has {length} octets; a journal takes {LONGEST_BODY}.")
    checksum = 0
    for piece in body:
        checksum = zlib.crc32(piece, checksum)
    fields = (length, len(names[0]), len(parts), len(names[1]))
    return Encoded(fields, sequence, checksum, body)


class Journal:
    """A journal file that is being written, by one thread. All methods raise OSError."""

    def __init__(self, folder: Path, number: int = 1) -> None:
        """Make the file; FileExistsError when it is there, since nothing is appended to it then."""
        self.number = number
        self.path = layout.journal(folder, number)
        self._salt = os.urandom(_SALT_SIZE)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._is_named = False  # the folder was synced since the file was made
        self.size = FILE_HEAD
        """Octets of the file."""
        self.synced = 0
        """Octets that are on disk for sure."""
        try:
            _write_all(self._file, [_file_head(self._salt)])
        except OSError:
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    def append(self, record: JournalRecord) -> int:
        """Append a record, not yet safe; return its octets."""
        encoded = encode(record.agent, record.node, record.sequence, record.parts)
        return self.append_encoded(encoded, record.settled)

    def append_encoded(self, encoded: Encoded, settled: int) -> int:
        """Append what encode() made, not yet safe; return its octets. Leaves no part on failure."""
        tail = _CHECKED.pack(*encoded.fields, 0, encoded.sequence, settled, self.synced)
        checksum = zlib.crc32(tail, encoded.checksum)
        head = self._salt + checksum.to_bytes(4, "little") + tail
        try:
            _write_all(self._file, [head, *encoded.body])
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise
        self.size += encoded.size
        return encoded.size

    def sync(self) -> None:
        """Make all that was appended safe: it survives a power cut."""
        os.fdatasync(self._file)
        if not self._is_named:
            layout.sync(self.path.parent)
            self._is_named = True
        self.synced = self.size

    def take_back(self) -> None:
        """Remove what was appended since the last sync, as if it had never come."""
        size = max(self.synced, FILE_HEAD)
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)
        self.size = size
        os.fdatasync(self._file)

    def close(self) -> None:
        """Close the file; what was not synced may be lost."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def read(path: Path, offset: int = 0, limit: int | None = None) -> Reading:
    """Read the records from `offset` on, of a file that may be growing.

    Stops before a record that is torn or damaged, and after about `limit` octets (None: all).
    FileNotFoundError when the file has become segments meanwhile.
    """
    records: list[JournalRecord] = []
    with path.open("rb") as file:
        salt = _salt(path, file.read(FILE_HEAD))
        if isinstance(salt, Damage):
            return Reading([], 0, salt)
        first = position = max(offset, FILE_HEAD)
        file.seek(position)
        while limit is None or position - first < limit:
            octets = file.read(_HEAD_SIZE)
            if not octets:
                break
            octets += file.read(_body_size(octets, salt))
            found = _parse(octets, 0, salt)
            if isinstance(found, _Bad):
                return Reading(records, position, found.at(path, position))
            records.append(found.record)
            position += found.end
    return Reading(records, position, None)


def scan(path: Path) -> Scan:
    """Read all of a file that nobody writes to any more, also what lies behind bit rot.

    ValueError when a later version of this program wrote it.
    """
    octets = path.read_bytes()
    salt = _salt(path, octets[:FILE_HEAD])
    if isinstance(salt, Damage):
        if salt.is_torn:
            return Scan([], [], 0, salt if octets else None)
        # The head is rotten, but the first record begins with the salt as well.
        salt = octets[FILE_HEAD : FILE_HEAD + _SALT_SIZE]
    found, breaks = _spans(octets, salt)
    synced = max((record.synced for _, record in found), default=0)
    # Behind the first break after what is known to be synced, nothing is known to be acknowledged.
    tail = next(((o, stop, bad) for o, stop, bad in breaks if o >= synced), None)
    end = tail[0] if tail else len(octets)
    rotten = [Rotten(o, stop - o, bad.at(path, o).reason) for o, stop, bad in breaks if o < end]
    records = [record.record for offset, record in found if offset < end]
    return Scan(records, rotten, end, tail[2].at(path, end) if tail else None)


class _Found(NamedTuple):
    record: JournalRecord
    end: int  # where the next record begins
    synced: int


class _Bad(NamedTuple):
    why: str
    is_cut: bool

    def at(self, path: Path, offset: int) -> Damage:
        return Damage(offset, f"{path.name}: the record at octet {offset} {self.why}.", self.is_cut)


def _spans(
    octets: bytes, salt: bytes
) -> tuple[list[tuple[int, _Found]], list[tuple[int, int, _Bad]]]:
    """Return good records with their offsets, and begin, end and reason of what is bad."""
    spans: list[tuple[int, _Found]] = []
    breaks: list[tuple[int, int, _Bad]] = []
    position = FILE_HEAD
    while position < len(octets):
        found = _parse(octets, position, salt)
        if isinstance(found, _Found):
            spans.append((position, found))
            position = found.end
            continue
        start = position
        # On with the next place that carries the salt and is a record: few are not, it is random.
        while isinstance(_parse(octets, position, salt), _Bad):
            position = octets.find(salt, position + 1)
            if position < 0:
                position = len(octets)
                break
        breaks.append((start, position, found))
    return spans, breaks


def _parse(octets: bytes, position: int, salt: bytes) -> _Found | _Bad:
    """Return the record at a position, or what is wrong with it."""
    start = position + _HEAD_SIZE
    left = len(octets) - position
    if octets[position : position + _SALT_SIZE] != salt[:left]:
        return _Bad("does not begin with the mark of this file", False)
    if left < _HEAD_SIZE:
        return _Bad(f"is cut: its head has {_HEAD_SIZE} octets, {left} are there", True)
    tail = octets[position + _SALT_SIZE + 4 : start]
    length, agent, parts, node, _, sequence, settled, synced = _CHECKED.unpack(tail)
    if length > LONGEST_BODY:
        return _Bad(f"claims {length} octets; at most {LONGEST_BODY} are written", False)
    if start + length > len(octets):
        why = f"is cut: its body has {length} octets, {left - _HEAD_SIZE} are there"
        return _Bad(why, True)
    body = memoryview(octets)[start : start + length]
    checksum = int.from_bytes(octets[position + _SALT_SIZE : position + _SALT_SIZE + 4], "little")
    if zlib.crc32(tail, zlib.crc32(body)) != checksum:
        return _Bad("does not match its checksum", False)
    found = _parse_body(body, agent, node, parts)
    if isinstance(found, str):
        return _Bad(found, False)
    record = JournalRecord(found[0], found[1], sequence, found[2], settled)
    return _Found(record, start + length, synced)


def _parse_body(
    body: memoryview, agent: int, node: int, count: int
) -> tuple[str, str, tuple[Part, ...]] | str:
    """Return the names and parts; a checksum that fits says who wrote it, not that it is right."""
    position = agent + node
    parts = []
    for _ in range(count):
        if position + _PART.size > len(body):
            return "has a part that is cut"
        code, rows, length = _PART.unpack_from(body, position)
        position += _PART.size
        if code not in TABLE_NAMES:
            return f"has a part of table {code}, which this version does not know"
        if position + length > len(body):
            return "has a part that is cut"
        parts.append(Part(TABLE_NAMES[code], rows, bytes(body[position : position + length])))
        position += length
    if position != len(body):
        return "has octets behind its last part"
    try:
        return str(body[:agent], "utf-8"), str(body[agent : agent + node], "utf-8"), tuple(parts)
    except UnicodeDecodeError:
        return "has names that are not UTF-8"


def _body_size(head: bytes, salt: bytes) -> int:
    """Return the octets to read for the body of a record; 0 when its head is not a good one."""
    if len(head) < _HEAD_SIZE or head[:_SALT_SIZE] != salt:
        return 0
    length: int = _CHECKED.unpack_from(head, _SALT_SIZE + 4)[0]
    return length if length <= LONGEST_BODY else 0


def _file_head(salt: bytes) -> bytes:
    return _FILE.pack(MAGIC, VERSION, salt, zlib.crc32(_FILE.pack(MAGIC, VERSION, salt, 0)))


def _salt(path: Path, head: bytes) -> bytes | Damage:
    """Return the salt from a file's head, or what is wrong with it; ValueError if it is newer."""
    if len(head) < FILE_HEAD:
        return Damage(0, f"{path.name}: the file ends within its head.", True)
    magic, version, salt, checksum = _FILE.unpack(head)
    if magic != MAGIC or checksum != zlib.crc32(_FILE.pack(magic, version, salt, 0)):
        return Damage(0, f"{path.name}: the head of the file is damaged.", False)
    if version != VERSION:
        raise ValueError(
            f"{path}: this is version {version} of the journal, and only version {VERSION} is "
            "known here; use the release that wrote it, or a later one."
        )
    return bytes(salt)


def _write_all(file: int, pieces: list[bytes]) -> None:
    """Write all pieces, in one call when the system takes them."""
    most = os.sysconf("SC_IOV_MAX")
    for begin in range(0, len(pieces), most):
        views: Iterator[memoryview] = map(memoryview, pieces[begin : begin + most])
        waiting = [view for view in views if len(view)]
        while waiting:
            written = os.writev(file, waiting)
            while waiting and written >= len(waiting[0]):
                written -= len(waiting[0])
                waiting.pop(0)
            if waiting:
                waiting[0] = waiting[0][written:]
