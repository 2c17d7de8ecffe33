# mypy: ignore-errors
"""Tell DNS messages from other octets by their structure, for ports that say nothing."""

import numpy as np

from services.capture.dissectors.dns.codes import CLASSES
from services.capture.dissectors.dns.message import (
    BAD_NAME,
    HEADER_SIZE,
    QUESTION_TAIL_SIZE,
    count_records,
    question_end,
    record_count,
)
from services.capture.headers import PROTOCOL_UDP
from services.capture.kernel import kernel, read_u8, read_u16

MOST_QUESTIONS = 1
"""Nobody asks more at once outside of multicast (RFC 9619)."""
MOST_ADDITIONALS_OF_A_QUERY = 2
"""OPT and TSIG."""
MOST_RECORDS = 512
"""Records of a response; 512 of the shortest make a message of 6 KB."""
HIGHEST_RCODE = 11
"""The last one that the header's four bits can say and that has a meaning (RFC 8490)."""

OPCODE_QUERY, OPCODE_NOTIFY, OPCODE_UPDATE = 0, 4, 5
RESERVED_BIT = 0x40
NETBIOS_PORT = 137  # its name service has the structure of DNS, and other names (RFC 1002)
KNOWN_CLASSES = tuple(CLASSES)


@kernel
def is_known_class(code):
    """Say whether a class has a name."""
    return code in KNOWN_CLASSES


@kernel
def is_header_sane(octets, message):
    """Check opcode, reserved bit, response code and counts of a header that is whole."""
    opcode = read_u8(octets, message + 2) >> 3 & 0x0F
    flags = read_u8(octets, message + 3)
    is_response = read_u8(octets, message + 2) & 0x80 != 0
    if opcode != OPCODE_QUERY and opcode != OPCODE_NOTIFY and opcode != OPCODE_UPDATE:
        return False
    if flags & RESERVED_BIT or (flags & 0x0F) > (HIGHEST_RCODE if is_response else 0):
        return False
    if read_u16(octets, message + 4) != MOST_QUESTIONS:
        return False
    if opcode == OPCODE_QUERY and not is_response:
        # IXFR queries carry a SOA record as an authority (RFC 1995, section 3).
        return (
            read_u16(octets, message + 6) == 0
            and read_u16(octets, message + 8) <= 1
            and read_u16(octets, message + 10) <= MOST_ADDITIONALS_OF_A_QUERY
        )
    return record_count(octets, message) <= MOST_RECORDS


@kernel
def first_question_end(octets, message, end):
    """Return the position after a question with a known class, or BAD_NAME."""
    after = question_end(octets, message, message + HEADER_SIZE, end)
    if after < 0 or read_u16(octets, after - QUESTION_TAIL_SIZE) == 0:
        return np.int64(BAD_NAME)
    if not is_known_class(read_u16(octets, after - 2)):
        return np.int64(BAD_NAME)
    return after


@kernel
def looks_like_dns(octets, start, end):
    """Say whether octets[start:end] are one whole DNS message with one question.

    octets: uint8. The header must be sane, and question and records end where the message does.
    Random octets pass about once in 2**50 times. Messages of mDNS without a question do not pass.
    """
    if start + HEADER_SIZE > end or not is_header_sane(octets, start):
        return False
    position = first_question_end(octets, start, end)
    if position < 0:
        return False
    records = record_count(octets, start)
    read, position = count_records(octets, start, position, end, 0, records)
    return read == records and position == end


@kernel
def may_begin_dns(octets, start, end):
    """As looks_like_dns, for the beginning of a message that may go on behind `end`."""
    if start + HEADER_SIZE > end or not is_header_sane(octets, start):
        return False
    return first_question_end(octets, start, end) >= 0


@kernel
def is_dns(octets, packet, ports):
    """Say whether a UDP packet with payload is DNS: by its port, or by its structure."""
    for index in range(len(ports)):
        port = ports[np.uint64(index)]
        if packet.source_port == port or packet.destination_port == port:
            return True
    if packet.source_port == NETBIOS_PORT or packet.destination_port == NETBIOS_PORT:
        return False
    start = packet.payload_offset
    return looks_like_dns(octets, start, start + np.int64(packet.payload_length))


@kernel
def find_datagrams(octets, packets, ports, rows):
    """Fill `rows` with the rows of those PACKET rows that are DNS over UDP; return how many."""
    found = 0
    for row in range(len(packets)):
        packet = packets[np.uint64(row)]
        if packet.protocol != PROTOCOL_UDP or packet.stream == 0 or packet.payload_length <= 0:
            continue
        if is_dns(octets, packet, ports):
            rows[np.uint64(found)] = row
            found += 1
    return found
