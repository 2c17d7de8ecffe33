"""What an agent sends for one run, checked before the writer lets it near a disk.

Every octet comes from another machine. A batch that passes can be stored, read and turned into
Parquet without a surprise: what Arrow's own reader does not check (offsets that lead outside, texts
that are not UTF-8, nulls where none may be, buffers that grow when they are unpacked) is checked
here, on the thread of the session that brought it.
"""

import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from recordings import journal, layout, names
from recordings.journal import Part
from recordings.ledger import Ledger
from recordings.schema import PARTS, is_known

MAX_BATCH_BYTES: Final = 8 << 20
"""Octets of a batch's message; an entry with two bodies of a few MiB fits, and gRPC takes it."""
MAX_DECODED_BYTES: Final = 64 << 20
"""Octets of a batch's columns in memory, after decompression."""
MOST_PARTS: Final = 64
"""An agent sends one part a table; some more are harmless, and many would only cost."""


class RefusedError(ValueError):
    """A batch cannot be stored; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Data of one agent for one run, stored as a whole or not at all."""

    sequence: int
    job: str
    run: int
    parts: tuple[Part, ...]
    final: bool = False


class Rows(NamedTuple):
    """How much a batch, a journal or a run holds."""

    entries: int = 0
    streams: int = 0
    packets: int = 0
    losses: int = 0
    lost_packets: int = 0

    def plus(self, other: "Rows") -> "Rows":
        """Return the sum."""
        return Rows(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


NO_ROWS: Final = Rows()


@dataclass(frozen=True, slots=True)
class Checked:
    """A batch that may be stored."""

    sequence: int
    rows: Rows
    packet_bytes: int
    record: journal.Encoded
    ledger: Ledger
    """What it adds to its run's."""
    segment_bytes: int
    """Octets that its rows take in segments at most."""


def check(batch: Batch, agent: str, node: str) -> Checked:
    """Return the batch as it will be stored; RefusedError says what is wrong with it."""
    try:
        names.check(batch.job)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    if not layout.FIRST_RUN <= batch.run <= layout.LAST_RUN:
        raise RefusedError(f"{batch.run} is not the number of a run.")
    if not 0 < batch.sequence < 2**63:
        raise RefusedError(f"{batch.sequence} cannot be the number of a batch; they count from 1.")
    if len(batch.parts) > MOST_PARTS:
        raise RefusedError(f"A batch has {len(batch.parts)} parts; at most {MOST_PARTS} are taken.")
    size = sum(len(part.octets) for part in batch.parts)
    if size > MAX_BATCH_BYTES:
        raise RefusedError(f"A batch has {size} octets; at most {MAX_BATCH_BYTES} are taken.")
    rows, ledger = Rows(), Ledger()
    decoded = packet_bytes = 0
    for part in batch.parts:
        batches = decode(part, MAX_DECODED_BYTES - decoded)
        decoded += sum(found.nbytes for found in batches)
        rows = rows.plus(count(part.table, batches))
        ledger.add(part.table, batches, node, agent)
        if part.table == "packets":
            packet_bytes += sum(pc.sum(b.column("original_length")).as_py() or 0 for b in batches)
    try:
        record = journal.encode(agent, node, batch.sequence, batch.parts)
    except ValueError as error:
        raise RefusedError(str(error)) from None
    # Parquet's plain encoding has four octets a text where Arrow has four, too; zstd grows what it
    # cannot shrink by less than a part in 255. An eighth is far above both.
    bound = max(decoded, size)
    return Checked(batch.sequence, rows, packet_bytes, record, ledger, bound + bound // 8)


def decode(part: Part, most: int) -> list[pa.RecordBatch]:
    """Return the rows of a part, of at most `most` octets; RefusedError when anything is wrong."""
    try:
        _check_messages(part, most)
        batches = part.batches()
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowException, OSError, struct.error, OverflowError) as error:
        why = (str(error).splitlines() or [""])[0][:200]
        raise RefusedError(
            f"The part of table {part.table} cannot be read as Arrow IPC: {why}."
        ) from None
    found = sum(batch.num_rows for batch in batches)
    if found != part.rows:
        raise RefusedError(
            f"The part of table {part.table} claims {part.rows} rows, and has {found}."
        )
    for batch in batches:
        for field, column in zip(PARTS[part.table], batch.columns, strict=True):
            if not field.nullable and column.null_count:
                raise RefusedError(f"Column {field.name} of table {part.table} must not be null.")
    if sum(batch.nbytes for batch in batches) > most:
        raise RefusedError(f"The part of table {part.table} has more than {most} octets.")
    return batches


def count(table: str, batches: list[pa.RecordBatch]) -> Rows:
    """Return how much the rows of one table are."""
    if table == "tallies":
        return NO_ROWS
    rows = sum(batch.num_rows for batch in batches)
    if table != "losses":
        return Rows(**{table: rows})
    # A count below 0 would hide other losses.
    lost = (pc.sum(pc.max_element_wise(b.column("packets"), 0)).as_py() for b in batches)
    return Rows(losses=rows, lost_packets=sum(value or 0 for value in lost))


def _check_messages(part: Part, most: int) -> None:
    """Look at the messages before Arrow unpacks them: compressed buffers say how large they get."""
    size = 0
    reader = pa.ipc.MessageReader.open_stream(part.octets)
    for number, message in enumerate(reader):
        if number == 0:
            if message.type != "schema" or not is_known(part.table, pa.ipc.read_schema(message)):
                raise RefusedError(
                    f"The part of table {part.table} does not have that table's schema; "
                    "agent and scheduler have to be of the same release."
                )
            continue
        if message.type != "record batch":
            raise RefusedError(f"The part of table {part.table} has a {message.type} in it.")
        size += _unpacked(message.metadata.to_pybytes(), message.body)
        if size > most:
            raise RefusedError(
                f"The part of table {part.table} unpacks to more than {most} octets."
            )


def _unpacked(metadata: bytes, body: pa.Buffer) -> int:
    """Return the octets of a record batch after decompression, as its buffers claim.

    Arrow allocates what a buffer claims before it unpacks it. Format/Message.fbs and
    Format/Columnar.rst ("Compression") of Apache Arrow; struct.error when it is cut.
    """
    batch = _reference(metadata, _slot(metadata, _reference(metadata, 0), 2))
    buffers = _slot(metadata, batch, 2)
    if not buffers or not _slot(metadata, batch, 3):
        return int(body.size)
    vector = _reference(metadata, buffers)
    count = _unsigned(metadata, vector)
    octets = memoryview(body)
    size = 0
    for number in range(min(count, len(metadata) // 16)):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
        if length >= 8:
            if not 0 <= offset <= len(octets) - 8:
                raise pa.ArrowInvalid("a buffer lies outside of its message")
            claimed = int.from_bytes(octets[offset : offset + 8], "little", signed=True)
            if claimed < -1:
                raise pa.ArrowInvalid("a buffer has a negative size")
            size += length if claimed == -1 else claimed
    return size


def _slot(octets: bytes, table: int, slot: int) -> int:
    """Return where a field of a flatbuffers table lies, 0 when it is not there."""
    (back,) = struct.unpack_from("<i", octets, table)
    vtable = table - back
    if vtable < 0:
        raise struct.error("a table of fields lies before its message")
    size, _ = struct.unpack_from("<HH", octets, vtable)
    if 4 + 2 * slot + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", octets, vtable + 4 + 2 * slot)
    return table + offset if offset else 0


def _reference(octets: bytes, place: int) -> int:
    return place + _unsigned(octets, place)


def _unsigned(octets: bytes, place: int) -> int:
    value: int = struct.unpack_from("<I", octets, place)[0]
    return value
