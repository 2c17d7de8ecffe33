"""pcap files, as octets. Called by packetfiles; knows nothing of recordings.

Format: draft-ietf-opsawg-pcap-06. Little-endian, time stamps in nanoseconds.
"""

import struct
from collections.abc import Sequence

import numpy as np

MAGIC_NANOSECONDS = 0xA1B23C4D

MAX_FRAME = 262_144
"""Snaplen in the header: the largest that libpcap reads."""

_RECORD = np.dtype([("second", "<u4"), ("rest", "<u4"), ("length", "<u4"), ("original", "<u4")])

_LAST_SECOND = 2**32 - 1


def header(link_type: int) -> bytes:
    """Return the head of a file."""
    return struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, MAX_FRAME, link_type)


def packets(times_ns: np.ndarray, frames: Sequence[bytes], original: np.ndarray) -> bytes:
    """Return a record for each frame. Times outside of 1970 to 2106 become the nearest."""
    heads = np.zeros(len(frames), _RECORD)
    seconds, heads["rest"] = np.divmod(np.maximum(times_ns, 0), 10**9)
    heads["second"] = np.minimum(seconds, _LAST_SECOND)
    lengths = np.fromiter(map(len, frames), np.uint32, len(frames))
    heads["length"] = lengths
    heads["original"] = np.maximum(original, lengths)
    octets = memoryview(heads.tobytes())
    size = _RECORD.itemsize
    pieces: list[bytes | memoryview] = []
    for at, frame in zip(range(0, len(octets), size), frames, strict=True):
        pieces += (octets[at : at + size], frame)
    return b"".join(pieces)
