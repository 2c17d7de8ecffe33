"""Messages of MongoDB: how long they are, how they look, what is in them.

https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/ and, of before 6.0,
https://www.mongodb.com/docs/manual/legacy-opcodes/.
"""

import zlib
from dataclasses import dataclass, field
from typing import Any

import pyarrow
import zstandard

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.inbox import Message
from services.capture.dissectors.mongodb.bson import Reader
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

Json = dict[str, Any]

HEAD = 16  # octets of length, number, number of the request, kind
LONGEST = 48_000_000 + 16 * 1024  # octets: the server's MaxMessageSizeBytes
MOST_KEPT = 256 << 10  # octets of a message; a first batch has 101 documents, mostly of less
MOST_PLAIN = 1 << 20  # octets that one message is decompressed to; of more, the first ones
MOST_WINDOW = 8 << 20  # octets that zstd may look back: what level 19 uses
MOST_DOCUMENTS = 16  # of one message that are told; the others are counted

REPLY, UPDATE, INSERT, QUERY, GET_MORE, DELETE, KILL_CURSORS = 1, 2001, 2002, 2004, 2005, 2006, 2007
COMPRESSED, MSG = 2012, 2013
OPCODES = {
    REPLY: "OP_REPLY", UPDATE: "OP_UPDATE", INSERT: "OP_INSERT", QUERY: "OP_QUERY",
    GET_MORE: "OP_GET_MORE", DELETE: "OP_DELETE", KILL_CURSORS: "OP_KILL_CURSORS",
    COMPRESSED: "OP_COMPRESSED", MSG: "OP_MSG",
}  # fmt: skip

CHECKSUM, MORE_TO_COME, EXHAUST_ALLOWED = 1, 2, 1 << 16
KNOWN_FLAGS = CHECKSUM | MORE_TO_COME  # of those that a reader has to know, 0 to 15
SNAPPY, ZLIB, ZSTD = 1, 2, 3
COMPRESSORS = {0: "noop", SNAPPY: "snappy", ZLIB: "zlib", ZSTD: "zstd"}

CURSOR_NOT_FOUND, QUERY_FAILURE = 1, 2  # flags of OP_REPLY


def measure(data: bytearray) -> int:
    """Return the size of a message; see Inbox."""
    if len(data) < HEAD:
        return 0
    size = int.from_bytes(data[:4], "little")
    opcode = int.from_bytes(data[12:16], "little")
    if not HEAD <= size <= LONGEST:
        raise ProtocolError(f"a message cannot have {size} octets")
    if opcode not in OPCODES:
        raise ProtocolError(f"there is no message of kind {opcode}")
    return size


def find(data: bytearray) -> int:
    """Return where a message may begin; see Inbox."""
    last = len(data) - HEAD
    for at in range(last + 1):
        if data[at + 3] <= LONGEST >> 24 and data[at + 14] == data[at + 15] == 0:
            size = int.from_bytes(data[at : at + 4], "little")
            opcode = data[at + 12] | data[at + 13] << 8
            if opcode in OPCODES and HEAD <= size <= LONGEST:
                return at
    return -1 - max(last + 1, 0)


@dataclass(slots=True)
class Body:
    """What a message says."""

    opcode: int
    flags: int = 0
    collection: str = ""
    """With its database, of the older kinds."""
    documents: list[Json] = field(default_factory=list)
    """Of OP_MSG: the first is the command or its answer."""
    total: int = 0
    """Documents, also those that are not here."""
    sequences: dict[str, tuple[list[Json], int]] = field(default_factory=dict)
    """Of OP_MSG, by name: documents, and how many there were."""
    cursor: int = 0
    count: int = 0
    """Documents that are asked for."""
    compressor: str = ""
    is_cut: bool = False


def _u32(octets: bytes, at: int) -> int:
    if at + 4 > len(octets):
        raise ProtocolError("a message ends within a number")
    return int.from_bytes(octets[at : at + 4], "little")


def _i64(octets: bytes, at: int) -> int:
    if at + 8 > len(octets):
        raise ProtocolError("a message ends within a number")
    return int.from_bytes(octets[at : at + 8], "little", signed=True)


def _name(octets: bytes, at: int) -> tuple[str, int]:
    end = octets.find(b"\0", at)
    if end < 0:
        raise ProtocolError("a name has no end")
    return octets[at:end].decode("utf-8", "replace"), end + 1


def read_body(message: Message) -> Body:
    """Read a message. Of one that was cut, what is here. Raises ProtocolError."""
    octets, is_whole = message.octets[HEAD:], not message.is_cut
    opcode = _u32(message.octets, 12)
    compressor = ""
    if opcode == COMPRESSED:
        opcode, octets, is_whole, compressor = _decompress(octets, is_whole)
    body = Body(opcode, compressor=compressor)
    reader = Reader(octets, is_whole)
    try:
        READERS[opcode](body, octets, reader)
    except ProtocolError:
        if is_whole:
            raise
    body.is_cut = reader.is_cut or body.total > len(body.documents)
    return body


def _decompress(octets: bytes, is_whole: bool) -> tuple[int, bytes, bool, str]:
    """Return (kind, octets, whether they are all, name of the compressor)."""
    opcode, size = _u32(octets, 0), _u32(octets, 4)
    if len(octets) < 9:
        raise ProtocolError("a compressed message names no compressor")
    number, data = octets[8], octets[9:]
    if opcode not in READERS or number not in COMPRESSORS or size > LONGEST:
        raise ProtocolError("a compressed message names no kind or compressor that is known")
    name, most = COMPRESSORS[number], min(size, MOST_PLAIN)
    try:
        if number == ZLIB:
            plain = zlib.decompressobj().decompress(data, most) if most else b""
        elif number == ZSTD:
            decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW)
            plain = decompressor.stream_reader(data).read(most)
        elif number == SNAPPY and size <= MOST_PLAIN and is_whole:
            plain = pyarrow.decompress(data, size, codec="snappy", asbytes=True)
        else:  # snappy has no beginning without its end
            plain = b"" if number == SNAPPY else data
    except (zlib.error, zstandard.ZstdError, OSError, ValueError) as error:
        raise ProtocolError("a compressed message cannot be decompressed") from error
    return opcode, plain, is_whole and len(plain) == size, name


def _read_msg(body: Body, octets: bytes, reader: Reader) -> None:
    body.flags = _u32(octets, 0)
    if body.flags & 0xFFFF & ~KNOWN_FLAGS:
        raise ProtocolError("a message has flags that are not known")
    end = len(octets) - (4 if body.flags & CHECKSUM else 0)
    at = 4
    while at < end:
        kind, at = octets[at], at + 1
        if kind == 0:
            document, at = reader.document(at)
            body.documents.append(document)
            body.total += 1
        elif kind == 1:
            at = _read_sequence(body, octets, reader, at)
        else:
            raise ProtocolError(f"there is no section of kind {kind}")
    if len(body.documents) != 1:
        raise ProtocolError("a message has one document beside its sequences")


def _read_sequence(body: Body, octets: bytes, reader: Reader, at: int) -> int:
    end = at + _u32(octets, at)
    name, at = _name(octets, at + 4)
    documents: list[Json] = []
    body.sequences[name] = documents, 0
    while at < min(end, len(octets)):
        if len(documents) < MOST_DOCUMENTS:
            document, at = reader.document(at)
            documents.append(document)
        else:
            at = reader.skip(at)
            reader.is_cut = True
        body.sequences[name] = documents, body.sequences[name][1] + 1
    if at > end:
        raise ProtocolError("a document is longer than its sequence")
    return end


def _read_documents(body: Body, octets: bytes, reader: Reader, at: int) -> None:
    while at < len(octets):
        if len(body.documents) < MOST_DOCUMENTS:
            document, at = reader.document(at)
            body.documents.append(document)
        else:
            at = reader.skip(at)
        body.total += 1


def _read_reply(body: Body, octets: bytes, reader: Reader) -> None:
    body.flags, body.cursor = _u32(octets, 0), _i64(octets, 4)
    body.count = _u32(octets, 16)
    _read_documents(body, octets, reader, 20)


def _read_query(body: Body, octets: bytes, reader: Reader) -> None:
    body.flags = _u32(octets, 0)
    body.collection, at = _name(octets, 4)
    body.count = _u32(octets, at + 4)
    _read_documents(body, octets, reader, at + 8)


def _read_get_more(body: Body, octets: bytes, reader: Reader) -> None:  # noqa: ARG001
    body.collection, at = _name(octets, 4)
    body.count, body.cursor = _u32(octets, at), _i64(octets, at + 4)


def _read_insert(body: Body, octets: bytes, reader: Reader) -> None:
    body.flags = _u32(octets, 0)
    body.collection, at = _name(octets, 4)
    _read_documents(body, octets, reader, at)


def _read_change(body: Body, octets: bytes, reader: Reader) -> None:
    """OP_UPDATE and OP_DELETE."""
    body.collection, at = _name(octets, 4)
    body.flags = _u32(octets, at)
    _read_documents(body, octets, reader, at + 4)


def _read_kill(body: Body, octets: bytes, reader: Reader) -> None:  # noqa: ARG001
    body.count = _u32(octets, 4)


READERS = {
    MSG: _read_msg, REPLY: _read_reply, QUERY: _read_query, GET_MORE: _read_get_more,
    INSERT: _read_insert, UPDATE: _read_change, DELETE: _read_change, KILL_CURSORS: _read_kill,
}  # fmt: skip


def _octets(*values: bytes | int) -> tuple[bytes, ...]:
    return tuple(each if isinstance(each, bytes) else bytes([each]) for each in values)


_LENGTH = (ANY, ANY, ANY, b"\0\1\2")
_MSG = (*_LENGTH, *(ANY,) * 8, *_octets(0xDD, 7, 0, 0, b"\0\1\2\3", 0, b"\0\1", 0, b"\0\1"))
_WRAPPED = (*_LENGTH, *(ANY,) * 8, *_octets(0xDC, 7, 0, 0, b"\1\xd4\xdd", b"\0\7", 0, 0))
_OLD = (*_LENGTH, *(ANY,) * 8, *_octets(b"\xd1\xd2\xd4\xd5\xd6\xd7", 7, 0, 0, b"\0\1\4\2\x10", 0))
_REPLY = (*_LENGTH, *(ANY,) * 8, *_octets(1, 0, 0, 0, bytes(range(16)), 0, 0, 0))

SIGNATURES = (
    *(Signature(side, octets) for side in (CLIENT, SERVER) for octets in (_MSG, _WRAPPED)),
    Signature(CLIENT, _OLD),
    Signature(SERVER, _REPLY),
)
"""The head of a message, with its kind, and the flags behind it."""
