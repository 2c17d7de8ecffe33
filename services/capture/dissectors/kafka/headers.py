"""What a request of Kafka begins with, whole or cut, and how to know it among other octets."""

import re
import struct
from dataclasses import dataclass

from services.capture.dissectors.kafka.framing import LONGEST, Message
from services.capture.dissectors.kafka.messages import APIS, REQUEST, is_known, read_payload
from services.capture.dissectors.kafka.values import IncompleteError, Reader
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

MOST_VERSION = 40  # of a request that is not known: twice of what there is
MOST_KEY = 256  # of one that is not known
LONGEST_CLIENT = 1024  # octets of a client's name
PRODUCE, METADATA, CONTROLLED_SHUTDOWN = 0, 3, 7
NAME_AT = 12  # octets of a request before the length of the client's name

_HEAD = struct.Struct(">hhi")  # key, version, correlation id
_BEGINNING = struct.Struct(">Ihhih")  # with the length, and that of the client's name
_NAME = re.compile(rb"[!-~]+")  # what clients call themselves, where nothing else is known
_FIRST_PRODUCE = 3  # version; those before were given up in 2017, and are mostly zeros
_SHORTEST = 8  # octets of a request: the oldest has no client


@dataclass(frozen=True, slots=True)
class Header:
    """What the header of a request says."""

    key: int
    version: int
    correlation: int
    client: str | None
    end: int
    """Where it ends, but for tagged fields."""

    def is_plausible(self, is_kafka: bool) -> bool:
        """Whether it may be a request; of one that is not known, where the stream is of Kafka."""
        if not 0 <= self.version <= MOST_VERSION:
            return False
        if self.client is not None and not self.client.isprintable():
            return False
        return 0 <= self.key <= MOST_KEY if is_kafka else self.key in APIS


def read_header(message: Message) -> Header | None:
    """Read the header of a request, but for its tagged fields; None where it is too short."""
    if message.end - message.at < _HEAD.size:
        return None
    key, version, correlation = _HEAD.unpack_from(message.data, message.at)
    at = message.at + _HEAD.size
    if key == CONTROLLED_SHUTDOWN and version == 0:
        return Header(key, version, correlation, None, at)
    reader = Reader(message.data, at, message.end)
    try:
        length = reader.i16()
        if length < 0:
            return Header(key, version, correlation, None, reader.at)
        if length > LONGEST_CLIENT:
            return None
        at = reader.skip(length)
        client = bytes(message.data[at : reader.at]).decode()
    except (IncompleteError, UnicodeDecodeError):
        return None
    return Header(key, version, correlation, client, reader.at)


def may_begin(data: bytearray) -> bool:
    """Whether these octets may be a request; also where too few of them are there to say."""
    if len(data) < _BEGINNING.size:
        return True
    size, key, version, _, length = _BEGINNING.unpack_from(data)
    return (
        _SHORTEST <= size <= LONGEST
        and key in APIS
        and 0 <= version <= MOST_VERSION
        and length <= LONGEST_CLIENT
        and _name(data, 0, length).decode("utf-8", "ignore").isprintable()
    )


def begins(data: bytearray, at: int, client: bytes) -> bool:
    """Whether a request surely begins at data[at:], of a client of this name; b"" for not known."""
    if len(data) - at < _BEGINNING.size:
        return False
    size, key, version, _, length = _BEGINNING.unpack_from(data, at)
    if not (_SHORTEST <= size <= LONGEST and is_known(key, version)):
        return False
    name = _name(data, at, length) if length <= LONGEST_CLIENT else b""
    if client:
        if not name or not client.startswith(name):
            return False
    elif not _NAME.fullmatch(name) or (key == PRODUCE and version < _FIRST_PRODUCE):
        return False
    end = at + 4 + size
    if end > len(data):
        return True
    start = at + _BEGINNING.size + len(name)
    _, reader, failed = read_payload(REQUEST, key, version, data, start, end)
    return failed is None and (reader.at == end or bool(client))


def _name(data: bytearray, at: int, length: int) -> bytes:
    start = at + _BEGINNING.size
    return bytes(data[start : start + max(0, length)])


_VERSIONS = bytes(range(20))
_PREFIX = (b"\0", bytes(range(8)), ANY, ANY, b"\0")  # less than 128 MiB, and a key below 256
_SUFFIX = (
    bytes((*range(32), 0x7F)), ANY, ANY, ANY,  # ids count from 0, or are Java's highest, for SASL
    b"\0\xff", ANY,  # length of the client's name
)  # fmt: skip
_KEYS = bytes(sorted(APIS))
# Not Produce of version 0: it looks as frames of HTTP/2 and sessions of ZooKeeper do. A response
# begins with two numbers, which are nothing to know it by.
_REQUESTS = (
    (*_PREFIX, b"\0", b"\0", _VERSIONS[1:], *_SUFFIX),
    (*_PREFIX, _KEYS[1:], b"\0", _VERSIONS, *_SUFFIX),
)
SIGNATURES = (
    *(Signature(CLIENT, each) for each in _REQUESTS),
    # In the middle of a stream it is a guess who is the client.
    *(Signature(SERVER, each) for each in _REQUESTS),
    Signature(CLIENT, (*_PREFIX, _KEYS, b"\0", _VERSIONS, ANY, *_SUFFIX[1:]), only_on_port=True),
)
