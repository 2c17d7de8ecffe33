"""pcapng blocks, as octets. Called by export; knows nothing of recordings.

Format: draft-ietf-opsawg-pcapng-03. Little-endian, time stamps in nanoseconds, one section.
"""

import struct
from collections.abc import Sequence

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
ENHANCED_PACKET = 6

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

Option = tuple[int, bytes]


def section(application: str, comments: Sequence[str]) -> bytes:
    """Return a Section Header Block; its length is not known while it is written."""
    options = [option for text in comments for option in comment(text)]
    options.append((OPTION_APPLICATION, application.encode()))
    head = struct.pack("<IHHQ", BYTE_ORDER_MAGIC, 1, 0, UNKNOWN_LENGTH)
    return _block(SECTION_HEADER, head + _options(options))


def interface(link_type: int, name: str, description: str) -> bytes:
    """Return an Interface Description Block: no limit on the length of packets, nanoseconds."""
    options = [
        (OPTION_INTERFACE_NAME, _cut(name)),
        (OPTION_INTERFACE_DESCRIPTION, _cut(description)),
        (OPTION_TIME_RESOLUTION, NANOSECONDS),
    ]
    return _block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0) + _options(options))


def packet(
    interface: int, time_ns: int, frame: bytes, original_length: int, note: str = ""
) -> bytes:
    """Return an Enhanced Packet Block; `interface` counts interface blocks from 0."""
    # There is no time before 1970 in this format.
    time = max(time_ns, 0)
    head = struct.pack(
        "<IIIII",
        interface,
        time >> 32 & 0xFFFFFFFF,
        time & 0xFFFFFFFF,
        len(frame),
        max(original_length, len(frame)),
    )
    return _block(ENHANCED_PACKET, head + _padded(frame) + _options(comment(note) if note else []))


def comment(text: str) -> list[Option]:
    """Return `text` as comments, cut between characters where one option would be too short."""
    options = []
    octets = text.encode()
    while octets:
        piece = octets[:MAX_OPTION_BYTES].decode(errors="ignore").encode()
        options.append((OPTION_COMMENT, piece))
        octets = octets[len(piece) :]
    return options


def _cut(text: str) -> bytes:
    return text.encode()[:MAX_OPTION_BYTES].decode(errors="ignore").encode()


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
