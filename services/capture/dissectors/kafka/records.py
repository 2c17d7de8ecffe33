"""Read the records of a produce request or a fetch response: batches of version 2, and message sets
of versions 0 and 1 (https://kafka.apache.org/documentation/#recordbatch, KIP-32, KIP-98).
"""

import base64
import functools
import struct
import zlib
from typing import Any

import cramjam
import zstandard

from services.capture.dissectors.kafka.values import (
    MOST_ITEMS,
    MOST_OCTETS,
    IncompleteError,
    Reader,
)
from services.capture.dissectors.objectcalls import Late

MOST_RECORDS = 256  # of a message that are told; of all others, the number
MOST_UNPACKED = 1 << 20  # octets that a batch is unpacked to: what the broker takes by default
MOST_UNPACKED_IN_ALL = 4 << 20  # octets, of one message
MOST_BATCHES = 64  # of a message that are told
LONGEST_WINDOW = 8 << 20  # octets that zstd may look back: what it takes at its highest levels

_HEAD = struct.Struct(">qiibIhiqqqhii")
_OLD_HEAD = struct.Struct(">qiIbb")
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
_CODEC, _TRANSACTIONAL, _CONTROL = 7, 0x10, 0x20
_MAGIC_AT = 16
_SHORTEST = _MAGIC_AT + 1
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEAD = 16
_NO_PRODUCER = -1


class _UnpackError(Exception):
    """The octets are not of this compression, or too many."""


class _Counts:
    """What was read of the records of a message, so that they have one limit together."""

    __slots__ = ("headers", "limit", "octets", "records", "unpacked")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """Octets that are read of all of them."""
        self.headers = self.octets = self.records = self.unpacked = 0


class _Outer(Reader):
    """The octets of some batches."""

    __slots__ = ("counts",)

    def __init__(self, octets: bytes, counts: _Counts) -> None:
        super().__init__(octets, 0, len(octets))
        self.counts = counts


def read_records(reader: Reader) -> Late | None:
    """Return the batches, which are read when they are asked for."""
    length = reader.count()
    if length < 0:
        return None
    at = reader.skip(length)
    if reader.late is None:
        reader.late = _Counts(reader.body_limit)
    octets = bytes(reader.data[at : at + length])
    return Late(functools.partial(_read_batches, octets, reader.late))


def _read_batches(octets: bytes, counts: _Counts) -> list[dict[str, Any]]:
    """Return the batches; the last may be cut, as brokers send as much as fits."""
    outer = _Outer(octets, counts)
    at, end = 0, len(octets)
    batches: list[dict[str, Any]] = []
    while end - at >= _SHORTEST and len(batches) < MOST_BATCHES:
        size = int.from_bytes(octets[at + 8 : at + 12], "big", signed=True)
        if size < _SHORTEST - 12:
            break
        after = at + 12 + size
        batch = _read_batch(outer, at, min(after, end))
        if batch is None:
            break
        batches.append(batch)
        if after > end:
            break
        at = after
    if at < end and len(batches) == MOST_BATCHES:
        batches[-1]["moreBatches"] = True
    return batches


def _read_batch(outer: _Outer, at: int, end: int) -> dict[str, Any] | None:
    magic = outer.data[at + _MAGIC_AT]
    if magic < 2:
        return _read_message(outer, at, end)
    if magic > 2 or end - at < _HEAD.size:
        return None
    (
        base_offset, _, leader_epoch, _, _, attributes, _,
        base_time, max_time, producer, epoch, sequence, count,
    ) = _HEAD.unpack_from(outer.data, at)  # fmt: skip
    codec = attributes & _CODEC
    batch: dict[str, Any] = {
        "baseOffset": base_offset, "partitionLeaderEpoch": leader_epoch, "magic": magic,
        "compression": _CODECS[codec] if codec < len(_CODECS) else codec,
        "isTransactional": attributes & _TRANSACTIONAL != 0,
        "isControl": attributes & _CONTROL != 0,
        "baseTimestamp": base_time, "maxTimestamp": max_time, "recordCount": count,
    }  # fmt: skip
    if producer != _NO_PRODUCER:
        batch |= {"producerId": producer, "producerEpoch": epoch, "baseSequence": sequence}
    found = batch["records"] = []
    try:
        reader = _unpacked(outer, at + _HEAD.size, end, codec)
        for _ in range(count):
            if not _has_room(outer):
                break
            found.append(_read_record(outer, reader, base_offset, base_time))
            outer.counts.records += 1
    except (_UnpackError, IncompleteError):
        pass
    if len(found) < count:
        batch["recordsTruncated"] = True
    return batch


def _has_room(outer: _Outer) -> bool:
    return outer.counts.records < MOST_RECORDS and outer.counts.octets < outer.counts.limit


def _read_record(outer: _Outer, reader: Reader, offset: int, time: int) -> dict[str, Any]:
    """Read a record of version 2."""
    size = reader.signed_varint()
    start = reader.at
    reader.skip(1)  # attributes, of which none is used
    record: dict[str, Any] = {
        "timestamp": time + reader.signed_varint(), "offset": offset + reader.signed_varint(),
    }  # fmt: skip
    _put(outer, record, "key", reader, reader.signed_varint())
    _put(outer, record, "value", reader, reader.signed_varint())
    headers: dict[str, Any] = {}
    for _ in range(reader.signed_varint()):
        outer.counts.headers += 1
        if outer.counts.headers > MOST_ITEMS:
            raise IncompleteError(f"more than {MOST_ITEMS} headers")
        length = reader.signed_varint()
        at = reader.skip(length)
        name = bytes(reader.data[at : at + min(length, MOST_OCTETS)]).decode("utf-8", "replace")
        _put(outer, headers, name, reader, reader.signed_varint())
    if headers:
        record["headers"] = headers
    if reader.at - start != size:
        raise IncompleteError("a record is not as long as it says")
    return record


def _put(outer: _Outer, target: dict[str, Any], name: str, reader: Reader, length: int) -> None:
    """Put a key or value of so many octets, -1 for null, as text, else in base64."""
    if length < 0:
        target[name] = None
        return
    at = reader.skip(length)
    kept = min(length, max(0, outer.counts.limit - outer.counts.octets))
    octets = bytes(reader.data[at : at + kept])
    outer.counts.octets += kept
    try:
        target[name] = octets.decode()
    except UnicodeDecodeError as error:
        if kept < length and error.start > kept - 4:  # a character that was cut
            target[name] = octets[: error.start].decode()
        else:
            target[name] = base64.b64encode(octets).decode("ascii")
            target[f"{name}Encoding"] = "base64"
    if kept < length:
        target[f"{name}Truncated"] = True


def _read_message(outer: _Outer, at: int, end: int) -> dict[str, Any] | None:
    """Read a message of version 0 or 1; one that is compressed holds others."""
    if end - at < _OLD_HEAD.size:
        return None
    offset, _, _, magic, attributes = _OLD_HEAD.unpack_from(outer.data, at)
    codec = attributes & _CODEC
    batch: dict[str, Any] = {
        "baseOffset": offset, "magic": magic,
        "compression": _CODECS[codec] if codec < len(_CODECS) else codec,
    }  # fmt: skip
    found = batch["records"] = []
    try:
        reader = Reader(outer.data, at, end)
        if codec == 0:
            found.append(_read_old(outer, reader))
        else:
            reader.at += _OLD_HEAD.size + (8 if magic else 0)
            reader.skip(max(0, reader.i32()))
            length = reader.i32()
            inside = _unpacked(outer, reader.at, min(reader.at + length, end), codec)
            while inside.at < inside.end and _has_room(outer):
                found.append(_read_old(outer, inside))
    except (_UnpackError, IncompleteError):
        batch["recordsTruncated"] = True
    return batch


def _read_old(outer: _Outer, reader: Reader) -> dict[str, Any]:
    at = reader.skip(_OLD_HEAD.size)
    offset, size, _, magic, _ = _OLD_HEAD.unpack_from(reader.data, at)
    record: dict[str, Any] = {"offset": offset}
    if magic:
        time = reader.skip(8)
        record["timestamp"] = int.from_bytes(reader.data[time : time + 8], "big", signed=True)
    _put(outer, record, "key", reader, reader.i32())
    _put(outer, record, "value", reader, reader.i32())
    outer.counts.records += 1
    if reader.at != at + 12 + size:
        raise IncompleteError("a message is not as long as it says")
    return record


def _unpacked(outer: _Outer, at: int, end: int, codec: int) -> Reader:
    if codec == 0:
        return Reader(outer.data, at, end)
    if outer.counts.unpacked >= MOST_UNPACKED_IN_ALL:
        raise _UnpackError
    packed = bytes(outer.data[at:end])
    try:
        octets = _UNPACK[codec](packed)
    except (IndexError, zlib.error, zstandard.ZstdError, cramjam.DecompressionError) as error:
        outer.counts.unpacked += MOST_UNPACKED  # as much work as any
        raise _UnpackError from error
    outer.counts.unpacked += len(octets)
    return Reader(octets, 0, len(octets))


def _gzip(packed: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(packed, MOST_UNPACKED)


def _snappy(packed: bytes) -> bytes:
    """Raw, or in the blocks of snappy-java, which Kafka's own client makes."""
    if not packed.startswith(_XERIAL):
        return _snappy_block(packed, MOST_UNPACKED)
    found = bytearray()
    at = _XERIAL_HEAD
    while at + 4 <= len(packed) and len(found) < MOST_UNPACKED:
        size = int.from_bytes(packed[at : at + 4], "big")
        found += _snappy_block(packed[at + 4 : at + 4 + size], MOST_UNPACKED - len(found))
        at += 4 + size
    return bytes(found)


def _snappy_block(packed: bytes, most: int) -> bytes:
    if cramjam.snappy.decompress_raw_len(packed) > most:
        raise _UnpackError
    return bytes(cramjam.snappy.decompress_raw(packed))


def _lz4(packed: bytes) -> bytes:
    found = bytearray(MOST_UNPACKED)
    length = cramjam.lz4.decompress_into(packed, found)
    return bytes(memoryview(found)[:length])


def _zstd(packed: bytes) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=LONGEST_WINDOW)
    with unpacker.stream_reader(packed) as stream:
        return stream.read(MOST_UNPACKED)


_UNPACK = (bytes, _gzip, _snappy, _lz4, _zstd)
