"""The pcapng file format, draft-ietf-opsawg-pcapng: sections of blocks.

The kernel walks the packets and what can be skipped; section headers and interface descriptions,
of which there are few, are read here.
"""

import struct

import numpy as np

from services.capture.frames import walk
from services.capture.frames.fileformat import Damage, Need, Walked, link_type_of

SECTION_HEADER = b"\x0a\x0d\x0d\x0a"
BYTE_ORDER_MAGIC = 0x1A2B3C4D
SMALLEST_SECTION_HEADER_BLOCK = 28
SMALLEST_INTERFACE_DESCRIPTION_BLOCK = 20

OPTION_END, OPTION_TSRESOL, OPTION_TSOFFSET = 0, 9, 14
MICROSECONDS = 6
"""Timestamps of an interface without if_tsresol are in 10**-6 seconds."""

MOST_INTERFACES = 65_536
"""Of one section. The old packet block can name that many; memory must not grow with a file."""

FIRST_INTERFACES = 16
"""Rows of the interface table at first; it doubles."""

EARLIEST_OFFSET_S, LATEST_OFFSET_S = -(2**32), 2**32
"""Bounds of if_tsoffset, ±136 years, so that times stay in 64 bits."""

STOPS = {
    walk.BAD_BLOCK_LENGTH: "has a length that is under 12 or not a multiple of 4",
    walk.LENGTHS_DIFFER: "does not end with the length that it begins with",
}
LEAVES_OUT = {
    walk.UNKNOWN_INTERFACE: "names an interface that was not described",
    walk.FRAME_OUTSIDE_BLOCK: "says that its packet has more octets than the block",
    walk.FRAME_TOO_LONG: f"says that its packet has more than {walk.LARGEST_FRAME} octets",
}


class _BadBlockError(Exception):
    """A section header or interface description that cannot be read; the text says what it does."""


def is_pcapng(first: bytes) -> bool:
    """Say whether a file that begins with `first` (12 octets) begins with a section header."""
    return first[:4] == SECTION_HEADER and BYTE_ORDER_MAGIC in (
        int.from_bytes(first[8:12], "little"),
        int.from_bytes(first[8:12], "big"),
    )


class PcapngFormat:
    """Reads the blocks of one file, section by section."""

    def __init__(self) -> None:
        self._big_endian = False
        self._interfaces = np.zeros(FIRST_INTERFACES, walk.INTERFACE)
        self._interface_count = 0
        self._time = 0  # of the last packet: what a simple packet block, without time, is given

    def walk(self, octets: np.ndarray, position: int, frames: np.ndarray) -> Walked:
        """Fill `frames` (FRAME rows) with the packets in octets[position:].

        A packet that cannot be read though its block can is left out, and reported.
        """
        row = 0
        left_out: dict[int, Damage] = {}
        while True:
            row, position, state, size = walk.walk_pcapng(
                octets,
                position,
                frames,
                row,
                self._big_endian,
                self._interfaces[: self._interface_count],
                self._time,
            )
            if row > 0:
                self._time = int(frames["timestamp"][row - 1])
            if state == walk.CONTROL:
                try:
                    size = self._read_control_block(octets, position)
                except _BadBlockError as error:
                    stop = Damage(position, str(error))
                    return Walked(row, position, Need.NOTHING, (*left_out.values(), stop))
                if size == 0:
                    return Walked(row, position, Need.OCTETS, tuple(left_out.values()))
            elif state in LEAVES_OUT:
                first = left_out.get(state)
                left_out[state] = Damage(
                    first.position if first else position,
                    LEAVES_OUT[state],
                    first.packets + 1 if first else 1,
                )
            elif state in STOPS:
                stop = Damage(position, STOPS[state])
                return Walked(row, position, Need.NOTHING, (*left_out.values(), stop))
            elif state != walk.SKIP:
                need = Need.ROWS if state == walk.ROWS_FULL else Need.OCTETS
                return Walked(row, position, need, tuple(left_out.values()))
            position += size
            if position > len(octets):
                return Walked(row, position, Need.OCTETS, tuple(left_out.values()))

    def _read_control_block(self, octets: np.ndarray, position: int) -> int:
        """Take up a section header or an interface description.

        Return its size in octets, or 0 when it is not whole. Raises _BadBlockError.
        """
        head = octets[position : position + 12].tobytes()
        is_section = head[:4] == SECTION_HEADER
        if is_section:
            if not is_pcapng(head):
                raise _BadBlockError("begins a section but has no byte-order magic")
            self._big_endian = int.from_bytes(head[8:12], "big") == BYTE_ORDER_MAGIC
        order = ">" if self._big_endian else "<"
        size: int
        (size,) = struct.unpack(order + "I", head[4:8])
        smallest = (
            SMALLEST_SECTION_HEADER_BLOCK if is_section else SMALLEST_INTERFACE_DESCRIPTION_BLOCK
        )
        if size < smallest or size > walk.LARGEST_BLOCK or size % 4:
            raise _BadBlockError(
                f"has {size} octets; that kind has {smallest} to {walk.LARGEST_BLOCK}, "
                "a multiple of 4"
            )
        if position + size > len(octets):
            return 0
        block = octets[position : position + size].tobytes()
        if block[4:8] != block[-4:]:
            raise _BadBlockError(STOPS[walk.LENGTHS_DIFFER])
        if is_section:
            self._interface_count = 0
        else:
            self._add_interface(block[8:-4], order)
        return size

    def _add_interface(self, body: bytes, order: str) -> None:
        """Add a row for an interface description, section 4.2."""
        if self._interface_count == MOST_INTERFACES:
            raise _BadBlockError(f"describes one interface more than {MOST_INTERFACES}")
        if self._interface_count == len(self._interfaces):
            more = np.zeros(2 * len(self._interfaces), walk.INTERFACE)
            more[: self._interface_count] = self._interfaces
            self._interfaces = more
        link_type, _, snaplen = struct.unpack_from(order + "HHI", body)
        resolution, offset_s = _timing(body, order)
        row = self._interfaces[self._interface_count]
        row["link_type"] = link_type_of(link_type)
        row["snaplen"] = snaplen
        row["offset_ns"] = offset_s * walk.NANOSECONDS
        exponent = resolution & 0x7F
        row["shift"] = exponent if resolution & 0x80 else walk.DECIMAL
        row["multiplier"] = 10 ** (9 - exponent) if exponent <= 9 else 0
        row["largest"] = walk.LATEST // 10 ** (9 - exponent) if exponent <= 9 else 0
        row["divisor"] = min(10 ** max(exponent - 9, 0), 2**64 - 1)
        self._interface_count += 1


def _timing(body: bytes, order: str) -> tuple[int, int]:
    """Return if_tsresol and if_tsoffset (seconds) of an interface description's body."""
    resolution, offset_s = MICROSECONDS, 0
    at = 8
    while at + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, at)
        value = body[at + 4 : at + 4 + length]
        if code == OPTION_END or len(value) < length:
            break
        if code == OPTION_TSRESOL and length == 1:
            resolution = value[0]
        elif code == OPTION_TSOFFSET and length == 8:
            (offset_s,) = struct.unpack(order + "q", value)
        at += 4 + (length + 3) // 4 * 4
    return resolution, min(max(offset_s, EARLIEST_OFFSET_S), LATEST_OFFSET_S)
