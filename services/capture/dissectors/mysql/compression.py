"""The compressed protocol of MySQL: packets within frames that are zlib or zstd, or plain.

https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_compression.html
"""

import zlib

import zstandard

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.inbox import Message
from services.capture.dissectors.mysql import packets as wire
from services.capture.dissectors.signatures import CLIENT

HEAD = 7  # octets of length, number, and length before compression
MOST_KEPT = 1 << 20  # octets of a frame: servers send results in frames of 16 KiB or a little more
MOST_PLAIN = 1 << 20  # octets of one frame that are decompressed: what is more counts as lost
MOST_WINDOW = 8 << 20  # octets that zstd may look back: what level 19 uses
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def measure(data: bytearray) -> int:
    """Return the size of a frame; see Inbox."""
    if len(data) < HEAD:
        return 0
    return HEAD + (data[0] | data[1] << 8 | data[2] << 16)


def find(data: bytearray) -> int:
    """Return where a frame may begin; see Inbox."""
    last = len(data) - HEAD - wire.HEAD
    for at in range(last + 1):
        if looks_like_frame(data, at):
            return at
    return -1 - max(last + 1, 0)


def looks_like_frame(data: bytes | bytearray, at: int) -> bool:
    """Say whether a frame may begin here; needs its head and four octets more."""
    size = int.from_bytes(data[at : at + 3], "little")
    plain = int.from_bytes(data[at + 4 : at + 7], "little")
    body = data[at + HEAD : at + HEAD + 4]
    if plain:
        return size < plain and (body[:1] == b"\x78" or body == ZSTD_MAGIC)
    return size >= wire.HEAD and int.from_bytes(body[:3], "little") + wire.HEAD <= size


def could_be_compressed(side: int, data: bytes) -> bool:
    """Say whether what a side said first in the middle of a connection begins with a frame."""
    if len(data) < HEAD + wire.HEAD + 1 or not looks_like_frame(data, 0):
        return False
    plain = int.from_bytes(data[4:7], "little")
    if plain:
        return True
    number = 0 if side == CLIENT else 1
    return data[3] == number and data[HEAD + 3] == number


def decompress(frame: Message) -> tuple[bytes, int]:
    """Return (octets, how many there are), of a frame that was cut only the first ones."""
    plain = int.from_bytes(frame.octets[4:7], "little")
    body = frame.octets[HEAD:]
    if not plain:
        return body, frame.size - HEAD
    most = min(plain, MOST_PLAIN)
    try:
        if body[:4] == ZSTD_MAGIC:
            reader = zstandard.ZstdDecompressor(max_window_size=MOST_WINDOW)
            octets = reader.stream_reader(body).read(most)
        else:
            octets = zlib.decompressobj().decompress(body, most)
    except (zlib.error, zstandard.ZstdError) as error:
        raise ProtocolError("a compressed packet cannot be decompressed") from error
    if len(octets) < most and not frame.is_cut:
        raise ProtocolError("a compressed packet is shorter than it says")
    return octets, plain
