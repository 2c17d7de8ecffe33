# mypy: ignore-errors
"""Walk the records of a capture file: one FRAME row for each packet, nothing copied.

pcapfile.py and pcapng.py call these with the octets that are in memory. A walk ends when the rows
are full or when it meets something that it cannot decide; it then returns where, and a state.
"""

import numpy as np

from services.capture.frames.batch import UNDIRECTED
from services.capture.kernel import (
    kernel,
    read_u8,
    read_u16_little_endian,
    read_u32_little_endian,
)

# How a walk ended. In all cases the position returned is that of the record it could not take.
ROWS_FULL = 0
SHORT = 1  # the record is not whole in these octets
SKIP = 2  # a block nobody needs, `size` octets long, goes beyond these octets
CONTROL = 3  # a section header or an interface description
FRAME_TOO_LONG = 4
BAD_BLOCK_LENGTH = 5  # under 12, or not a multiple of 4
LENGTHS_DIFFER = 6  # at the beginning of the block and at its end
# The following concern one block only: the walk can go on after `size` octets.
UNKNOWN_INTERFACE = 7
FRAME_OUTSIDE_BLOCK = 8

LARGEST_FRAME = 262_144
"""Octets. What tcpdump and Wireshark take at most (MAXIMUM_SNAPLEN); longer is damage."""

LARGEST_BLOCK = 1_048_576
"""Octets of a pcapng block that has to be whole in memory: a frame and generous options."""

LARGEST_INT32 = 2**31 - 1
LATEST = 2**63 - 1 - 86_400 * 10**9
"""ns since 1970, in the year 2262: the last that int64 holds less a day, so that a time-out, added
to the time of a packet, does not make a time long ago of it."""
NANOSECONDS = 1_000_000_000

SECTION_HEADER_BLOCK = 0x0A0D0D0A  # reads the same in both byte orders
INTERFACE_DESCRIPTION_BLOCK = 1
PACKET_BLOCK = 2
SIMPLE_PACKET_BLOCK = 3
ENHANCED_PACKET_BLOCK = 6
SMALLEST_BLOCK = 12
PACKET_BLOCK_OVERHEAD = 32  # header, interface, timestamp, two lengths, length again
SIMPLE_PACKET_BLOCK_OVERHEAD = 16

# fmt: off
INTERFACE = np.dtype((np.record, [
    ("link_type", np.int64),
    ("snaplen", np.int64),         # octets; 0: no limit
    ("shift", np.int64),           # a unit of its timestamps is 2**-shift seconds, or DECIMAL
    ("multiplier", np.uint64),     # DECIMAL: nanoseconds in a unit, or 0
    ("largest", np.uint64),        # DECIMAL: what can be multiplied without passing LATEST
    ("divisor", np.uint64),        # DECIMAL without a multiplier: units in a nanosecond
    ("offset_ns", np.int64),       # added to every timestamp
]))
# fmt: on
DECIMAL = -1


@kernel
def read_u32_in_order(octets, at, big_endian):
    """Return the unsigned 32-bit integer at `at`."""
    value = read_u32_little_endian(octets, at)
    if big_endian:
        value = value >> 24 | (value >> 8 & 0xFF00) | (value << 8 & 0xFF0000) | (value & 0xFF) << 24
    return value


@kernel
def read_u16_in_order(octets, at, big_endian):
    """Return the unsigned 16-bit integer at `at`."""
    value = read_u16_little_endian(octets, at)
    if big_endian:
        value = value >> 8 | (value & 0xFF) << 8
    return value


CACHE_LINE = 64
TOUCHED_AHEAD = 4096  # octets


@kernel
def touch_ahead(octets, touched, position, unused):
    """Load an octet of each cache line before the walk gets there; return (touched, unused).

    A record's length says where the next one is, so a walk waits for memory at every record. These
    loads wait for nothing: 17 ns a record of 450 octets instead of 90, and who reads the packets
    afterwards finds them in the cache.
    """
    touched = max(touched, position)
    until = min(position + TOUCHED_AHEAD, len(octets))
    while touched < until:
        unused += read_u8(octets, touched)
        touched += CACHE_LINE
    return touched, unused


@kernel
def with_unused(state, unused):
    """Return `state`, and keep the compiler from leaving out the loads: unused >> 62 is 0."""
    return state + (unused >> 62)


@kernel
def walk_pcap(
    octets: np.ndarray,
    position: int,
    frames: np.ndarray,
    big_endian: bool,
    header_size: int,
    unit_ns: int,
    link_type: int,
) -> tuple[int, int, int]:
    """Fill `frames` with the records from `position` on.

    unit_ns: nanoseconds in a unit of the second half of a timestamp. Return (rows filled, position,
    state).
    """
    row = 0
    end = len(octets)
    touched = unused = 0
    while row < len(frames):
        touched, unused = touch_ahead(octets, touched, position, unused)
        start = position + header_size
        if start > end:
            return row, position, SHORT
        captured_length = read_u32_in_order(octets, position + 8, big_endian)
        if captured_length > LARGEST_FRAME:
            return row, position, FRAME_TOO_LONG
        if start + captured_length > end:
            return row, position, SHORT
        seconds = read_u32_in_order(octets, position, big_endian)
        fraction = read_u32_in_order(octets, position + 4, big_endian)
        frame = frames[np.uint64(row)]
        frame.timestamp = seconds * NANOSECONDS + fraction * unit_ns
        frame.offset = start
        frame.captured_length = captured_length
        frame.original_length = min(
            read_u32_in_order(octets, position + 12, big_endian), LARGEST_INT32
        )
        frame.link_type = link_type
        frame.interface = 0
        row += 1
        position = start + captured_length
    return row, position, with_unused(ROWS_FULL, unused)


@kernel
def nanoseconds(high, low, interface):
    """Return the time of a 64-bit timestamp, 0 to LATEST, so that no difference overflows."""
    units = np.uint64(high) << np.uint64(32) | np.uint64(low)
    if interface.shift != DECIMAL:
        time = binary_nanoseconds(units, interface.shift)
    elif interface.multiplier == 0:
        time = np.int64(units // interface.divisor)
    else:
        time = np.int64(min(units, interface.largest) * interface.multiplier)
    if interface.offset_ns > 0 and time > LATEST - interface.offset_ns:
        return LATEST
    return max(0, time + interface.offset_ns)


@kernel
def binary_nanoseconds(units, shift):
    """Return units of 2**-shift seconds (shift is 0 to 127) in nanoseconds, at most LATEST."""
    seconds = np.int64(0)
    if shift < 64:
        if units >> np.uint64(shift) > np.uint64(LATEST // NANOSECONDS - 1):
            return LATEST
        seconds = np.int64(units >> np.uint64(shift))
        units &= (np.uint64(1) << np.uint64(shift)) - np.uint64(1)
    if shift > 32:  # so that the product below stays in 64 bits; what is lost is under 1 ns
        units = units >> np.uint64(shift - 32) if shift - 32 < 64 else np.uint64(0)
        shift = 32
    fraction = units * np.uint64(NANOSECONDS) >> np.uint64(shift)
    return seconds * NANOSECONDS + np.int64(fraction)


@kernel
def read_packet_block(octets, position, size, big_endian, old, interfaces, frame):
    """Fill `frame` from an enhanced (or old) packet block; return a state, ROWS_FULL when well."""
    if size < PACKET_BLOCK_OVERHEAD:
        return FRAME_OUTSIDE_BLOCK
    if old:
        index = read_u16_in_order(octets, position + 8, big_endian)
    else:
        index = read_u32_in_order(octets, position + 8, big_endian)
    if index >= len(interfaces):
        return UNKNOWN_INTERFACE
    captured_length = read_u32_in_order(octets, position + 20, big_endian)
    if captured_length > size - PACKET_BLOCK_OVERHEAD:
        return FRAME_OUTSIDE_BLOCK
    if captured_length > LARGEST_FRAME:
        return FRAME_TOO_LONG
    interface = interfaces[np.uint64(index)]
    frame.timestamp = nanoseconds(
        read_u32_in_order(octets, position + 12, big_endian),
        read_u32_in_order(octets, position + 16, big_endian),
        interface,
    )
    frame.offset = position + 28
    frame.captured_length = captured_length
    frame.original_length = min(read_u32_in_order(octets, position + 24, big_endian), LARGEST_INT32)
    frame.link_type = interface.link_type
    frame.interface = index + 1 | UNDIRECTED if len(interfaces) > 1 else 0
    return ROWS_FULL


@kernel
def read_simple_packet_block(octets, position, size, big_endian, interfaces, time, frame):
    """Fill `frame` from a simple packet block, which has no time of its own; return a state."""
    if size < SIMPLE_PACKET_BLOCK_OVERHEAD:
        return FRAME_OUTSIDE_BLOCK
    if len(interfaces) == 0:
        return UNKNOWN_INTERFACE
    interface = interfaces[np.uint64(0)]
    original_length = read_u32_in_order(octets, position + 8, big_endian)
    captured_length = min(original_length, size - SIMPLE_PACKET_BLOCK_OVERHEAD)
    if interface.snaplen > 0:
        captured_length = min(captured_length, interface.snaplen)
    if captured_length > LARGEST_FRAME:
        return FRAME_TOO_LONG
    frame.timestamp = time
    frame.offset = position + 12
    frame.captured_length = captured_length
    frame.original_length = min(original_length, LARGEST_INT32)
    frame.link_type = interface.link_type
    frame.interface = 1 | UNDIRECTED if len(interfaces) > 1 else 0
    return ROWS_FULL


@kernel
def walk_pcapng(
    octets: np.ndarray,
    position: int,
    frames: np.ndarray,
    row: int,
    big_endian: bool,
    interfaces: np.ndarray,
    time: int,
) -> tuple[int, int, int, int]:
    """Fill `frames` from `row` on with the packets of the blocks from `position` on.

    interfaces: INTERFACE rows, as described so far in this section. time: nanoseconds, of the
    packet before. Return (rows filled, position, state, size of the block there or 0).
    """
    end = len(octets)
    touched = unused = 0
    while row < len(frames):
        touched, unused = touch_ahead(octets, touched, position, unused)
        if position + SMALLEST_BLOCK > end:
            return row, position, SHORT, 0
        kind = read_u32_in_order(octets, position, big_endian)
        if kind in (SECTION_HEADER_BLOCK, INTERFACE_DESCRIPTION_BLOCK):
            return row, position, CONTROL, 0
        size = read_u32_in_order(octets, position + 4, big_endian)
        if size < SMALLEST_BLOCK or size % 4 != 0:
            return row, position, BAD_BLOCK_LENGTH, 0
        simple = kind == SIMPLE_PACKET_BLOCK
        packet = kind in (ENHANCED_PACKET_BLOCK, PACKET_BLOCK)
        if (simple or packet) and size > LARGEST_BLOCK:
            return row, position, FRAME_TOO_LONG, size
        if position + size > end:
            return row, position, SHORT if simple or packet else SKIP, size
        if read_u32_in_order(octets, position + size - 4, big_endian) != size:
            return row, position, LENGTHS_DIFFER, 0
        if simple or packet:
            frame = frames[np.uint64(row)]
            if packet:
                state = read_packet_block(
                    octets, position, size, big_endian, kind == PACKET_BLOCK, interfaces, frame
                )
            else:
                state = read_simple_packet_block(
                    octets, position, size, big_endian, interfaces, time, frame
                )
            if state != ROWS_FULL:
                return row, position, state, size
            time = frame.timestamp
            row += 1
        position += size
    return row, position, with_unused(ROWS_FULL, unused), 0
