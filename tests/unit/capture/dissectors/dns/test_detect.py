"""What looks like DNS on a port that says nothing."""

import struct

import numpy as np
import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRROPT

from services.capture.dissectors.dns import looks_like_dns

ASK = DNSQR(qname="example.com")


def looks(octets):
    return bool(looks_like_dns(np.frombuffer(bytearray(octets), np.uint8), 0, len(octets)))


@pytest.mark.parametrize(
    "message",
    [
        DNS(rd=1, qd=[ASK]),
        DNS(rd=1, ad=1, qd=[DNSQR(qname="", qtype="NS")], ar=[DNSRROPT(rclass=1232)]),
        DNS(qr=1, ra=1, qd=[ASK], an=[DNSRR(rrname="example.com", rdata="192.0.2.1")] * 20),
        DNS(qr=1, rcode=3, qd=[ASK]),
        DNS(opcode=4, aa=1, qd=[DNSQR(qname="example.com", qtype="SOA")]),
    ],
    ids=["query", "query with EDNS", "response", "name error", "notify"],
)
def test_dns(message):
    octets = bytes(message)
    assert looks(octets)
    assert not any(looks(octets[:end]) for end in range(len(octets)))
    assert not looks(octets + b"\0")


QUERY = bytes(DNS(rd=1, qd=[ASK]))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        bytes(512),
        b"\xff" * 512,
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        QUERY[:2] + b"\x78" + QUERY[3:],
        QUERY[:3] + b"\x40" + QUERY[4:],
        QUERY[:3] + b"\x03" + QUERY[4:],
        QUERY[:4] + struct.pack(">4H", 2, 0, 0, 0) + QUERY[12:],
        QUERY[:-2] + b"\x12\x34",
        QUERY[:-4] + b"\0\0\0\1",
    ],
    ids=[
        "nothing", "zeros", "ones", "HTTP", "opcode 15", "reserved bit", "query with a code",
        "two questions", "unknown class", "type 0",
    ],
)  # fmt: skip
def test_not_dns(octets):
    assert not looks(octets)


def test_random_octets_are_not_dns():
    random = np.random.default_rng(3)
    assert not any(looks(random.bytes(int(random.integers(100)))) for _ in range(5000))
