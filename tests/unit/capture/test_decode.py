"""What a packet says, layer by layer, and what a broken one does not make us read."""

import struct

import numpy as np
import pytest

from services.capture import decode, fragments
from services.capture.flows import NO_FLOW, find_flows, new_flows, new_keys
from services.capture.headers import DECODED, FRAGMENT, MALFORMED, UNSUPPORTED
from tests.unit.capture import conversation as wire

SCTP = b"\0\1\0\2" + bytes(8) + b"hello"
IP4 = wire.ipv4("10.0.0.1", "10.0.0.2", 6, wire.tcp(40000, 80, 7, 8, wire.ACK, b"hello"))
IP6 = wire.ipv6("fd00::1", "fd00::2", 17, wire.udp(5000, 53, b"question"))


def decoded(frames, link_type=wire.ETHERNET, flows=None):
    batch = wire.batch(frames, link_type)
    packets, kept = decode.new_packets(len(frames)), fragments.new_fragments()
    fragments.begin_batch(kept, batch.frames)
    flows, keys = flows or new_flows(64), new_keys(len(frames))
    decode.decode_frames(batch.octets, batch.frames, packets, keys, flows, kept)
    find_flows(packets, keys, 0, flows)
    return batch.octets, packets


def payload(octets, packet):
    start = int(packet["payload_offset"])
    return octets[start : start + int(packet["payload_length"])].tobytes()


@pytest.mark.parametrize(
    ("frame", "link_type"),
    [
        (wire.ethernet(IP4), 1),
        (wire.ethernet(IP4, vlans=(5,)), 1),
        (wire.ethernet(IP4, vlans=(5, 6)), 1),
        (IP4, 101),
        (IP4, 12),
        (IP4, 228),
        (b"\2\0\0\0" + IP4, 0),
        (b"\0\0\0\2" + IP4, 108),
        (b"\0" * 14 + b"\x08\0" + IP4, 113),
        (b"\x08\0" + b"\0" * 18 + IP4, 276),
    ],
)
def test_a_tcp_packet_is_found_behind_every_link_header(frame, link_type):
    octets, packets = decoded([frame], link_type)
    packet = packets[0]
    assert packet["status"] == DECODED
    assert (packet["source_port"], packet["destination_port"]) == (40000, 80)
    assert (packet["sequence"], packet["acknowledgement"]) == (7, 8)
    assert packet["tcp_flags"] == wire.ACK
    assert payload(octets, packet) == b"hello"


def test_udp_over_ipv6_has_a_flow():
    octets, packets = decoded([wire.ethernet(IP6)] * 2)
    assert payload(octets, packets[0]) == b"question"
    assert packets["flow"][0] == packets["flow"][1] != NO_FLOW


@pytest.mark.parametrize(
    ("protocol", "header", "ports"), [(132, 12, (1, 2)), (1, 0, (0, 0)), (58, 0, (0, 0))]
)
def test_sctp_has_ports_and_icmp_has_none(protocol, header, ports):
    octets, packets = decoded([wire.ethernet(wire.ipv4("1.1.1.1", "2.2.2.2", protocol, SCTP))])
    row = packets[0]
    assert (row["protocol"], row["source_port"], row["destination_port"]) == (protocol, *ports)
    assert (row["header_length"], payload(octets, row)) == (header, SCTP[header:])


def test_ipv6_extension_headers_are_passed():
    hop_by_hop = bytes([60, 0]) + b"\0" * 6
    options = bytes([17, 1]) + b"\0" * 14
    packet = wire.ipv6("fd00::1", "fd00::2", 0, wire.udp(1, 2, b"x"), hop_by_hop + options)
    octets, packets = decoded([wire.ethernet(packet)])
    assert payload(octets, packets[0]) == b"x"


def test_an_atomic_fragment_is_a_whole_packet_and_others_are_not():
    atomic = bytes([17, 0, 0, 0]) + b"\0\0\0\1"
    first = bytes([17, 0, 0, 1]) + b"\0\0\0\1"
    frames = [
        wire.ethernet(wire.ipv6("::1", "::2", 44, wire.udp(1, 2, b""), header))
        for header in (atomic, first)
    ]
    frames.append(wire.ethernet(wire.ipv4("1.1.1.1", "2.2.2.2", 17, b"12345678", fragment=0x2000)))
    frames.append(wire.ethernet(wire.ipv4("1.1.1.1", "2.2.2.2", 17, b"12345678", fragment=2)))
    assert decoded(frames)[1]["status"].tolist() == [DECODED, FRAGMENT, FRAGMENT, FRAGMENT]


def test_octets_behind_the_ip_packet_are_not_payload():
    octets, packets = decoded([wire.ethernet(IP4) + b"padding"])
    assert payload(octets, packets[0]) == b"hello"


def test_a_cut_frame_says_how_much_is_missing():
    octets, packets = decoded([wire.ethernet(IP4)[:-2]])
    assert payload(octets, packets[0]) == b"hel"
    assert packets["missing"][0] == 2


def test_a_length_of_zero_is_segmentation_offload():
    offloaded = IP4[:2] + b"\0\0" + IP4[4:]
    octets, packets = decoded([wire.ethernet(offloaded)])
    assert payload(octets, packets[0]) == b"hello"


def test_what_is_no_ip_is_unsupported_and_what_is_cut_is_malformed():
    arp = b"\2" * 12 + b"\x08\x06" + b"\0" * 28
    frames = [arp, wire.ethernet(IP4)[:30], wire.ethernet(IP4)[:40], b"", b"\0" * 13]
    assert decoded(frames)[1]["status"].tolist() == [UNSUPPORTED] + [MALFORMED] * 4


def test_an_unknown_link_type_is_unsupported():
    assert decoded([wire.ethernet(IP4)], link_type=147)[1]["status"][0] == UNSUPPORTED


def test_both_directions_are_one_flow():
    there = wire.ethernet(IP4)
    back = wire.ethernet(wire.ipv4("10.0.0.2", "10.0.0.1", 6, wire.tcp(80, 40000, 1, 1, wire.ACK)))
    packets = decoded([there, back])[1]
    assert packets["flow"][0] == packets["flow"][1]
    assert packets["direction"].tolist() == [0, 1]


def test_a_frame_outside_its_octets_is_malformed_and_nothing_is_read():
    batch = wire.batch([wire.ethernet(IP4)])
    batch.frames["captured_length"] = 10_000
    packets = decode.new_packets(1)
    decode.decode_frames(batch.octets, batch.frames, packets, new_keys(1), new_flows(4),
                         fragments.new_fragments())  # fmt: skip
    assert packets["status"][0] == MALFORMED


SEEDS = [
    wire.ethernet(IP4),
    wire.ethernet(IP4, vlans=(5, 6)),
    wire.ethernet(IP6),
    wire.ethernet(wire.ipv6("::1", "::2", 0, wire.udp(1, 2, b"x"), bytes([17, 0]) + b"\0" * 6)),
    wire.ethernet(wire.ipv6("::1", "::2", 44, wire.udp(1, 2, b"x"), bytes([17]) + b"\0" * 7)),
    wire.ethernet(wire.ipv6("::1", "::2", 51, wire.udp(1, 2, b"x"), bytes([17, 2]) + b"\0" * 14)),
]


@pytest.mark.parametrize("link_type", [0, 1, 101, 108, 113, 228, 229, 276])
def test_no_mutation_of_a_frame_reads_beyond_it(link_type):
    """Each frame is an array of its own, so that any read beyond it raises IndexError."""
    random = np.random.default_rng(link_type)
    flows, keys, packets = new_flows(1 << 12), new_keys(1), decode.new_packets(1)
    kept = fragments.new_fragments()
    for turn in range(3000):
        frame = bytearray(SEEDS[turn % len(SEEDS)])
        for _ in range(random.integers(0, 4)):
            frame[random.integers(len(frame))] = random.integers(256)
        frame = bytes(frame[: random.integers(len(frame) + 1)])
        batch = wire.batch([frame], link_type)
        decode.decode_frames(batch.octets, batch.frames, packets, keys, flows, kept)
        if packets["status"][0] == DECODED:
            end = packets["payload_offset"][0] + packets["payload_length"][0]
            assert packets["payload_length"][0] >= 0
            assert end <= len(frame)


def test_a_udp_length_shorter_than_its_header_gives_no_negative_payload():
    broken = wire.ipv4("1.1.1.1", "2.2.2.2", 17, struct.pack("!HHHH", 1, 2, 3, 0))
    assert decoded([wire.ethernet(broken)])[1]["payload_length"][0] == 0
