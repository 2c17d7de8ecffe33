"""Packets of SCTP, as RFC 9260 has them, to test its own calls and those of Diameter on it."""

import struct

TAG, CHECKSUM = 0x01020304, 0xDEADBEEF


def packet(*chunks, ports=(40000, 3868)):
    return struct.pack(">2H2I", *ports, TAG, CHECKSUM) + b"".join(chunks)


def chunk(kind, value=b"", flags=0):
    return struct.pack(">2BH", kind, flags, 4 + len(value)) + value + bytes(-len(value) % 4)


def data(tsn, payload, stream=0, protocol=0, flags=3):
    return chunk(0, struct.pack(">I2HI", tsn, stream, 0, protocol) + payload, flags)


def init(kind=1, addresses=()):
    parameters = b"".join(struct.pack(">2H", 5, 8) + each for each in addresses)
    return chunk(kind, struct.pack(">2I2HI", 7, 65536, 10, 5, 1000) + parameters)
