"""Frames without what they carry."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.packetstore import choose
from services.capture.payloads import without_payloads
from tests.unit.capture.conversation import ACK, batch, ethernet, ipv4, ipv6, tcp, udp

V4, V6 = ("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")
SECRET = b"s3cret"
OPTIONS = tcp(1, 2, 3, 4, ACK)[:12] + b"\x80" + tcp(1, 2, 3, 4, ACK)[13:] + b"\1" * 12
"""A TCP header of 32 octets."""


def cut(frame, link_type=1, **more):
    """The octets of a frame that are left."""
    frames = batch([frame], link_type)
    packets = choose(frames, np.ones(1, np.int64), np.array([0]))
    shorter = without_payloads(packets, **more)
    row = shorter.rows[0]
    assert packets.rows[0]["captured_length"] == len(frame), "the argument stays as it is"
    assert row["original_length"] == len(frame)
    return bytes(shorter.octets[row["position"] : row["position"] + row["captured_length"]])


@pytest.mark.parametrize(
    "headers",
    [
        ethernet(ipv4(*V4, 6, tcp(1, 2, 3, 4, ACK))),
        ethernet(ipv4(*V4, 6, OPTIONS)),
        ethernet(ipv4(*V4, 17, udp(1, 2, b""))),
        ethernet(ipv4(*V4, 6, tcp(1, 2, 3, 4, ACK)), vlans=(5, 6)),
        ethernet(ipv6(*V6, 6, tcp(1, 2, 3, 4, ACK))),
        ethernet(ipv6(*V6, 0, tcp(1, 2, 3, 4, ACK), b"\6\0" + bytes(6))),
    ],
)
def test_headers_are_left(headers):
    assert cut(headers + SECRET) == cut(headers) == headers
    assert cut(headers + SECRET, is_empty=True) == b""


def test_of_icmp_nothing_is_left_and_of_sctp_its_header():
    message = ethernet(ipv4(*V4, 1, bytes(8) + SECRET))
    assert cut(message) == message[:34]
    packet = ethernet(ipv4(*V4, 132, bytes(range(12)) + SECRET))
    assert cut(packet) == packet[: 34 + 12]


def test_a_raw_frame():
    packet = ipv4(*V4, 6, tcp(1, 2, 3, 4, ACK))
    assert cut(packet + SECRET, 101) == packet


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        SECRET,
        ethernet(ipv4(*V4, 6, SECRET)),
        ethernet(ipv4(*V4, 89, SECRET * 9)),
        ethernet(ipv4(*V4, 6, tcp(1, 2, 3, 4, ACK) + SECRET, fragment=5)),
    ],
)
def test_of_what_is_not_understood_nothing_is_left(frame):
    assert cut(frame) == b""
    assert cut(frame, 999) == b""


@given(st.binary(max_size=80), st.sampled_from([0, 1, 12, 101, 113, 276, 7]))
def test_any_octets(frame, link_type):
    assert frame.startswith(cut(frame, link_type))
