# mypy: ignore-errors
"""Walk the packets in a block of a TPACKET_V3 ring; afpacket.py calls this.

Offsets are those of struct tpacket3_hdr and struct sockaddr_ll in linux/if_packet.h. The headers
are in the byte order of the machine, and aligned, so they are read through views of the ring.
"""

import numpy as np

from services.capture.frames.batch import UNDIRECTED
from services.capture.frames.walk import touch_ahead, with_unused
from services.capture.kernel import kernel, read_u8

NANOSECONDS = 1_000_000_000

NEXT_OFFSET, SECONDS, FRACTION_NS, SNAPLEN, LENGTH = 0, 4, 8, 12, 16
STATUS, LINK_OFFSET, NETWORK_OFFSET, VLAN = 20, 24, 26, 32
STATUS_VLAN_VALID = 0x10
ADDRESS = 48  # of the sockaddr_ll, behind the header
ADDRESS_PROTOCOL, ADDRESS_INTERFACE = ADDRESS + 2, ADDRESS + 4
ADDRESS_HARDWARE, ADDRESS_PACKET_TYPE = ADDRESS + 8, ADDRESS + 10
PACKET_HEADER_SIZE = 68
SMALLEST_SLOT = 96  # octets that a packet takes at least: headers, 16 for a link header, alignment

PACKET_OUTGOING = 4
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_ARP = 0x0800, 0x86DD, 0x0806
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101

TELL_NOTHING, TELL_NUMBER, TELL_PLACE = 0, 1, 2  # of the interface: see FRAME

# Elements of `counts`.
LOOPBACK_COPIES, UNKNOWN_LINK_LAYER, OUTSIDE_BLOCK = 0, 1, 2
UNKNOWN_HARDWARE, UNKNOWN_ETHERTYPE = 3, 4  # of the last packet of an unknown link layer
COUNTS = 5


@kernel
def read_network_order_u16(octets, at):
    """Return the 16-bit integer that is in network order in every header."""
    return read_u8(octets, at) << 8 | read_u8(octets, at + 1)


@kernel
def read_slot(octets, words, halves, at, block_end, tell, frame, counts):
    """Fill `frame` from the packet whose header is at `at`; return False to leave it out."""
    captured_length = np.int64(words[np.uint64(at + SNAPLEN >> 2)])
    original_length = np.int64(words[np.uint64(at + LENGTH >> 2)])
    link = np.int64(halves[np.uint64(at + LINK_OFFSET >> 1)])
    hardware = np.int64(halves[np.uint64(at + ADDRESS_HARDWARE >> 1)])
    if at + link + captured_length > block_end:
        counts[np.uint64(OUTSIDE_BLOCK)] += 1
        return False
    link_type = LINKTYPE_ETHERNET
    if hardware == ARPHRD_LOOPBACK:
        if read_u8(octets, at + ADDRESS_PACKET_TYPE) == PACKET_OUTGOING:
            counts[np.uint64(LOOPBACK_COPIES)] += 1
            return False
    elif hardware != ARPHRD_ETHER:
        # Tunnels, PPP and others: begin at the network header, where the kernel says it is.
        ethertype = read_network_order_u16(octets, at + ADDRESS_PROTOCOL)
        skipped = np.int64(halves[np.uint64(at + NETWORK_OFFSET >> 1)]) - link
        known = ethertype in (ETHERTYPE_IPV4, ETHERTYPE_IPV6)
        if not known or skipped < 0 or skipped > captured_length:
            if ethertype != ETHERTYPE_ARP:  # nothing is missed by it
                counts[np.uint64(UNKNOWN_LINK_LAYER)] += 1
                counts[np.uint64(UNKNOWN_HARDWARE)] = hardware
                counts[np.uint64(UNKNOWN_ETHERTYPE)] = ethertype
            return False
        link_type = LINKTYPE_RAW
        link += skipped
        captured_length -= skipped
        original_length -= skipped
    frame.timestamp = np.int64(words[np.uint64(at + SECONDS >> 2)]) * NANOSECONDS + np.int64(
        words[np.uint64(at + FRACTION_NS >> 2)]
    )
    frame.offset = at + link
    frame.captured_length = captured_length
    frame.original_length = original_length
    frame.link_type = link_type
    frame.vlan = 0
    if words[np.uint64(at + STATUS >> 2)] & STATUS_VLAN_VALID:
        frame.vlan = words[np.uint64(at + VLAN >> 2)] & 0xFFFF
    interface = np.int64(words[np.uint64(at + ADDRESS_INTERFACE >> 2)])
    if tell == TELL_NOTHING:
        interface = 0
    elif tell == TELL_NUMBER:
        interface |= UNDIRECTED
    elif read_u8(octets, at + ADDRESS_PACKET_TYPE) == PACKET_OUTGOING:
        interface = -interface
    frame.interface = interface
    return True


@kernel
def walk_block(
    octets: np.ndarray,
    words: np.ndarray,
    halves: np.ndarray,
    at: int,
    block_end: int,
    packets: int,
    tell: int,
    frames: np.ndarray,
    row: int,
    counts: np.ndarray,
) -> int:
    """Fill `frames` from `row` on with the `packets` packets of a block, the first at `at`.

    tell: TELL_NOTHING, TELL_NUMBER or TELL_PLACE.

    octets, words (uint32), halves (uint16): the ring. counts: COUNTS elements, of what is left
    out. Return the rows filled.
    """
    touched = unused = 0
    for _ in range(packets):
        if at + PACKET_HEADER_SIZE > block_end or row == len(frames):
            counts[np.uint64(OUTSIDE_BLOCK)] += 1
            break
        touched, unused = touch_ahead(octets, touched, at, unused)
        frame = frames[np.uint64(row)]
        if read_slot(octets, words, halves, at, block_end, tell, frame, counts):
            row += 1
        at += np.int64(words[np.uint64(at + NEXT_OFFSET >> 2)])
    return with_unused(row, unused)
