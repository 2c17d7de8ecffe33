"""pcapng blocks, as octets. Called by packetfiles; knows nothing of recordings.

Format: draft-ietf-opsawg-pcapng-03. Little-endian, time stamps in nanoseconds, one section.
"""

import ipaddress
import struct
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
NAME_RESOLUTION = 4
ENHANCED_PACKET = 6

RECORD_IPV4 = 1
RECORD_IPV6 = 2

BYTE_ORDER_MAGIC = 0x1A2B3C4D
UNKNOWN_LENGTH = 0xFFFFFFFFFFFFFFFF

OPTION_COMMENT = 1
OPTION_APPLICATION = 4
OPTION_INTERFACE_NAME = 2
OPTION_INTERFACE_DESCRIPTION = 3
OPTION_TIME_RESOLUTION = 9

NANOSECONDS = b"\x09"
"""if_tsresol: 10^-9 s."""

MAX_OPTION_BYTES = 0xFFFF
"""The length of an option is 16 bits; a longer comment becomes several."""

MAX_NAME_BYTES = 253
"""Of a name; what DNS allows, RFC 1035."""

NAMES_IN_BLOCK = 1000
"""Addresses in one block, which readers hold in memory."""

Option = tuple[int, bytes]

_HEAD = np.dtype(
    [
        ("kind", "<u4"),
        ("total", "<u4"),
        ("interface", "<u4"),
        ("high", "<u4"),
        ("low", "<u4"),
        ("length", "<u4"),
        ("original", "<u4"),
    ]
)
"""Enhanced Packet Block up to its packet."""

_TAIL = np.dtype([("padding", "<u4"), ("total", "<u4")])


def section(application: str, comments: Sequence[str]) -> bytes:
    """Return a Section Header Block; its length is not known while it is written."""
    options = [option for text in comments for option in comment(text)]
    options.append((OPTION_APPLICATION, application.encode()))
    head = struct.pack("<IHHQ", BYTE_ORDER_MAGIC, 1, 0, UNKNOWN_LENGTH)
    return _block(SECTION_HEADER, head + _options(options))


def interface(link_type: int, name: str, description: str, note: str = "") -> bytes:
    """Return an Interface Description Block: no limit on the length of packets, nanoseconds."""
    options = [
        *comment(note),
        (OPTION_INTERFACE_NAME, _cut(name)),
        (OPTION_INTERFACE_DESCRIPTION, _cut(description)),
        (OPTION_TIME_RESOLUTION, NANOSECONDS),
    ]
    return _block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0) + _options(options))


def packets(
    interfaces: np.ndarray,
    times_ns: np.ndarray,
    frames: Sequence[bytes],
    original: np.ndarray,
    notes: Mapping[int, str],
) -> bytes:
    """Return an Enhanced Packet Block for each frame; `notes` are by its number, from 0."""
    lengths = np.fromiter(map(len, frames), np.uint32, len(frames))
    padding = -lengths.astype(np.int64) % 4
    times = np.maximum(times_ns, 0)
    options = {row: _options(comment(note)) for row, note in notes.items()}
    heads = np.zeros(len(frames), _HEAD)
    heads["kind"] = ENHANCED_PACKET
    heads["total"] = lengths + padding + _HEAD.itemsize + 4
    rows = np.fromiter(options, np.int64, len(options))
    heads["total"][rows] += np.fromiter(map(len, options.values()), np.uint32, len(options))
    heads["interface"] = interfaces
    heads["high"] = times >> 32
    heads["low"] = times & 0xFFFFFFFF
    heads["length"] = lengths
    heads["original"] = np.maximum(original, lengths)
    tails = np.zeros(len(frames), _TAIL)
    tails["total"] = heads["total"]
    before, behind = memoryview(heads.tobytes()), memoryview(tails.tobytes())
    pieces: list[bytes | memoryview] = []
    head, tail = _HEAD.itemsize, _TAIL.itemsize
    for row, (frame, pad) in enumerate(zip(frames, padding.tolist(), strict=True)):
        at, end = row * head, row * tail
        # Of the four octets of padding only so many as are needed.
        pieces += (before[at : at + head], frame)
        if row in options:
            pieces += (behind[end : end + pad], options[row], behind[end + 4 : end + tail])
        else:
            pieces.append(behind[end + 4 - pad : end + tail])
    return b"".join(pieces)


def names(found: Mapping[str, Sequence[str]]) -> Iterator[bytes]:
    """Yield Name Resolution Blocks: what addresses are called, the best name first.

    What is no address, and control characters in names, are left out.
    """
    records = [record for ip, known in found.items() if (record := _name_record(ip, known))]
    for begin in range(0, len(records), NAMES_IN_BLOCK):
        end = struct.pack("<HH", 0, 0)
        yield _block(NAME_RESOLUTION, b"".join(records[begin : begin + NAMES_IN_BLOCK]) + end)


def _name_record(ip: str, known: Sequence[str]) -> bytes:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return b""
    value = address.packed
    for name in known:
        octets = _cut("".join(c for c in name if c.isprintable()), MAX_NAME_BYTES)
        if octets and len(value) + len(octets) < MAX_OPTION_BYTES:
            value += octets + b"\0"
    if len(value) == len(address.packed):
        return b""
    kind = RECORD_IPV4 if address.version == 4 else RECORD_IPV6
    return struct.pack("<HH", kind, len(value)) + _padded(value)


def comment(text: str) -> list[Option]:
    """Return `text` as comments, cut between characters where one option would be too short."""
    options = []
    octets = text.encode()
    while octets:
        piece = octets[:MAX_OPTION_BYTES].decode(errors="ignore").encode()
        options.append((OPTION_COMMENT, piece))
        octets = octets[len(piece) :]
    return options


def _cut(text: str, most: int = MAX_OPTION_BYTES) -> bytes:
    return text.encode()[:most].decode(errors="ignore").encode()


def _options(options: Sequence[Option]) -> bytes:
    if not options:
        return b""
    parts = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(parts) + struct.pack("<HH", 0, 0)


def _padded(octets: bytes) -> bytes:
    return octets + bytes(-len(octets) % 4)


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length
