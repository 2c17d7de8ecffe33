"""The classic pcap file format, draft-ietf-opsawg-pcap: a header, then records."""

import struct

import numpy as np

from services.capture.frames import walk
from services.capture.frames.fileformat import Damage, Need, Walked, link_type_of

FILE_HEADER_SIZE = 24
RECORD_HEADER_SIZE = 16
KUZNETZOV_RECORD_HEADER_SIZE = 24
"""Alexey Kuznetzov's patched libpcap adds interface, protocol and packet type to each record."""

MICROSECOND_NS, NANOSECOND_NS = 1_000, 1

# Magic number: (nanoseconds in a unit of the fraction, size of a record's header).
MAGIC_NUMBERS = {
    0xA1B2C3D4: (MICROSECOND_NS, RECORD_HEADER_SIZE),
    0xA1B23C4D: (NANOSECOND_NS, RECORD_HEADER_SIZE),
    0xA1B2CD34: (MICROSECOND_NS, KUZNETZOV_RECORD_HEADER_SIZE),
}


def is_pcap(first: bytes) -> bool:
    """Say whether a file that begins with `first` has one of the magic numbers."""
    return len(first) >= 4 and (
        int.from_bytes(first[:4], "little") in MAGIC_NUMBERS
        or int.from_bytes(first[:4], "big") in MAGIC_NUMBERS
    )


class PcapFormat:
    """Reads the records of one file, whose byte order, units and link type its header gives."""

    def __init__(self, header: bytes) -> None:
        """`header`: the first FILE_HEADER_SIZE octets, for which is_pcap() is true."""
        self._big_endian = int.from_bytes(header[:4], "big") in MAGIC_NUMBERS
        order = ">" if self._big_endian else "<"
        magic, *_, link_type = struct.unpack(order + "IHHiIII", header)
        self._unit_ns, self._header_size = MAGIC_NUMBERS[magic]
        self._link_type = link_type_of(link_type)

    def walk(self, octets: np.ndarray, position: int, frames: np.ndarray) -> Walked:
        """Fill `frames` (FRAME rows) with the packets in octets[position:]."""
        rows, position, state = walk.walk_pcap(
            octets,
            position,
            frames,
            self._big_endian,
            self._header_size,
            self._unit_ns,
            self._link_type,
        )
        if state == walk.FRAME_TOO_LONG:
            text = f"says that its packet has more than {walk.LARGEST_FRAME} octets"
            return Walked(rows, position, Need.NOTHING, (Damage(position, text),))
        return Walked(rows, position, Need.ROWS if state == walk.ROWS_FULL else Need.OCTETS)
