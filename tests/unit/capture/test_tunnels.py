"""Packets in VLANs and tunnels, as scapy builds them: what is inside is the packet, and whose it is
is told by VLAN and tunnel too."""

import itertools

import numpy as np
import pytest
from scapy.contrib.erspan import ERSPAN_II
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from services.capture.decode import decode_frames
from services.capture.flows import new_keys
from services.capture.headers import DECODED, MALFORMED, UNSUPPORTED
from services.capture.networks import tunnel_texts, vlan_texts
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
OUTER4, OUTER6 = IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")
PAYLOAD = b"GET / HTTP/1.1\r\n\r\n"
SAID = TCP(sport=40000, dport=80, flags="PA", seq=7, ack=8) / Raw(PAYLOAD)
INNER4 = IP(src="10.0.0.1", dst="10.0.0.2") / SAID
INNER6 = IPv6(src="fd00::1", dst="fd00::2") / SAID
INSIDE = Ether(**MACS) / INNER4


def udp(port):
    return UDP(sport=50000, dport=port, chksum=0)


def ethernet(*layers):
    packet = Ether(**MACS)
    for layer in layers:
        packet = packet / layer
    return bytes(packet)


def shim(ethertype, header, inner):
    """A frame whose layers scapy does not know how to join."""
    return bytes(Ether(**MACS, type=ethertype))[:14] + header + bytes(inner)


def label(number, last):
    return (number << 12 | last << 8 | 64).to_bytes(4, "big")


TOP = label(100, 0) + label(200, 1)
OVN_OPTION = GeneveOptions(classid=0x0102, type=0x80, data=b"\0\1\0\2")
OPTION = GeneveOptions(classid=0x0107, type=1, data=b"12345678")

# What the frame is; its VLANs and tunnel as the table of streams has them.
FRAMES = {
    "plain": (ethernet(INNER4), None, None),
    "plain 6": (ethernet(INNER6), None, None),
    "vlan": (ethernet(Dot1Q(vlan=5), INNER4), "5", None),
    "priority": (ethernet(Dot1Q(vlan=0, prio=3), INNER4), None, None),
    "qinq": (ethernet(Dot1AD(vlan=100), Dot1Q(vlan=5), INNER6), "100.5", None),
    "three tags": (ethernet(Dot1AD(vlan=1), Dot1Q(vlan=2), Dot1Q(vlan=3), INNER4), "1.2", None),
    "vxlan": (ethernet(OUTER4, udp(4789), VXLAN(vni=42), INSIDE), None, "vxlan 42"),
    "vxlan 8472": (ethernet(OUTER4, udp(8472), VXLAN(vni=1), INSIDE), None, "vxlan 1"),
    "vxlan 6": (
        ethernet(OUTER6, udp(4789), VXLAN(vni=0xFFFFFF), Ether(**MACS), INNER6),
        None,
        "vxlan 16777215",
    ),
    "vxlan 0": (ethernet(OUTER4, udp(4789), VXLAN(vni=0), INSIDE), None, "vxlan 0"),
    "vlan vxlan vlan": (
        ethernet(Dot1Q(vlan=7), OUTER4, udp(4789), VXLAN(vni=42), Ether(**MACS), Dot1Q(vlan=8),
                 INNER4),
        "7.8",
        "vxlan 42",
    ),
    "geneve": (ethernet(OUTER4, udp(6081), GENEVE(vni=9), INSIDE), None, "geneve 9"),
    "geneve options": (
        ethernet(OUTER6, udp(6081), GENEVE(vni=9, options=[OPTION, OPTION]), INSIDE),
        None,
        "geneve 9",
    ),
    "geneve ip": (ethernet(OUTER4, udp(6081), GENEVE(vni=9, proto=0x0800), INNER4), None,
                  "geneve 9"),
    "geneve ip with options": (
        ethernet(OUTER4, udp(6081), GENEVE(vni=9, proto=0x0800, options=[OPTION]), INNER4),
        None,
        "geneve 9",
    ),
    "geneve ip 6": (ethernet(OUTER4, udp(6081), GENEVE(vni=9, proto=0x86DD), INNER6), None,
                    "geneve 9"),
    "ovn": (ethernet(OUTER4, udp(6081), GENEVE(vni=9, options=[OVN_OPTION]), INSIDE), None, "ovn"),
    "gre": (ethernet(OUTER4, GRE(), INNER4), None, "gre"),
    "gre 6": (ethernet(OUTER6, GRE(), INNER6), None, "gre"),
    "gre key": (ethernet(OUTER4, GRE(key_present=1, key=77), INNER4), None, "gre 77"),
    "gre checksum": (ethernet(OUTER4, GRE(chksum_present=1), INNER4), None, "gre"),
    "gre all": (
        ethernet(OUTER4, GRE(chksum_present=1, key_present=1, key=0xFFFFFFFF, seqnum_present=1),
                 INNER6),
        None,
        "gre 4294967295",
    ),
    "gretap": (ethernet(OUTER4, GRE(proto=0x6558, key_present=1, key=77), INSIDE), None, "gre 77"),
    "nvgre": (
        ethernet(OUTER4, GRE(proto=0x6558, key_present=1, key=0x123456_9A), INSIDE),
        None,
        "gre 305419930",
    ),
    "erspan 2": (
        ethernet(OUTER4, GRE(seqnum_present=1), ERSPAN_II(session_id=33), INSIDE),
        None,
        "erspan 33",
    ),
    "erspan 1": (ethernet(OUTER4, GRE(proto=0x88BE), INSIDE), None, "gre"),
    "4in4": (ethernet(OUTER4, INNER4), None, "ipip"),
    "6in4": (ethernet(OUTER4, INNER6), None, "ipip"),
    "4in6": (ethernet(OUTER6, INNER4), None, "ipip"),
    "6in6": (ethernet(OUTER6, INNER6), None, "ipip"),
    "6in6 with a hop-by-hop header": (ethernet(OUTER6, IPv6ExtHdrHopByHop(), INNER6), None, "ipip"),
    "mpls": (ethernet(MPLS(label=3, s=1), INNER4), None, "mpls"),
    "mpls 6": (shim(0x8847, TOP, INNER6), None, "mpls"),
    "mpls multicast": (shim(0x8848, TOP, INNER4), None, "mpls"),
    "mpls in a vlan": (ethernet(Dot1Q(vlan=5), MPLS(label=3, s=1), INNER4), "5", "mpls"),
    "mpls in gre": (ethernet(OUTER4, GRE(proto=0x8847), Raw(TOP + bytes(INNER4))), None, "mpls"),
    "pseudo-wire": (shim(0x8847, TOP + bytes(4), INSIDE), None, "mpls"),
    "pseudo-wire without a control word": (shim(0x8847, TOP, INSIDE), None, "mpls"),
    "pseudo-wire with a vlan": (
        shim(0x8847, TOP + bytes(4), Ether(**MACS) / Dot1Q(vlan=9) / INNER4), "9", "mpls",
    ),
    "pppoe": (ethernet(PPPoE(sessionid=0x1234), PPP(proto=0x21), INNER4), None, "pppoe 4660"),
    "pppoe 6": (
        ethernet(Dot1Q(vlan=7), PPPoE(sessionid=1), PPP(proto=0x57), INNER6), "7", "pppoe 1",
    ),
    "vxlan in gre": (
        ethernet(OUTER4, GRE(key_present=1, key=1), OUTER4, udp(4789), VXLAN(vni=2), INSIDE),
        None,
        "vxlan 2",
    ),
    "ipip in vxlan": (
        ethernet(OUTER4, udp(4789), VXLAN(vni=2), Ether(**MACS), OUTER4, INNER4), None, "vxlan 2",
    ),
    "ipip in ipip in ipip in ipip": (
        ethernet(OUTER4, OUTER4, OUTER6, OUTER4, INNER6), None, "ipip",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pipelines():
    """New pipelines, each used once; making one costs more than a test."""
    return {apart: Pipeline(PipelineOptions(networks_apart=apart)) for apart in (True, False)}


times = itertools.count(wire.START, 2000 * 10**9)


def decoded(pipeline, frames, link_type=wire.ETHERNET, **changes):
    """The PACKET rows of frames, long after those before; the octets that are their payloads."""
    batch = wire.batch(frames, link_type, next(times))
    for name, value in changes.items():
        batch.frames[name] = value
    pipeline.take(wire.batch([b""], start=int(batch.frames["timestamp"][0])))
    pipeline.take(batch)
    packets = pipeline.packets[: len(frames)].copy()
    payloads = [
        batch.octets[p["payload_offset"] :][: p["payload_length"]].tobytes() for p in packets
    ]
    return packets, payloads


def alone(pipeline, frame):
    """The PACKET row of a frame that is an array of its own, so that any read beyond it raises."""
    batch = wire.batch([frame], start=next(times))
    packets = pipeline.packets[:1]
    decode_frames(*batch[:2], packets, new_keys(1), pipeline.flows, pipeline.fragments)
    begin = packets[0]["payload_offset"]
    return packets[0], batch.octets[begin:][: packets[0]["payload_length"]].tobytes()


@pytest.mark.parametrize("name", FRAMES)
def test_the_packet_inside_is_the_packet(pipelines, name):
    frame, vlan, tunnel = FRAMES[name]
    (packet,), (payload,) = decoded(pipelines[True], [frame])
    assert packet["status"] == DECODED
    assert payload == PAYLOAD
    assert packet["missing"] == 0
    assert (packet["protocol"], packet["sequence"], packet["acknowledgement"]) == (6, 7, 8)
    assert (packet["source_port"], packet["destination_port"]) == (40000, 80)
    table = pipelines[True].streams_table(
        np.array([packet["stream"]]), np.zeros(1, np.int64), np.ones(1, np.bool_)
    )
    (row,) = table.to_pylist()
    is_6 = bytes(INNER6)[8:40] in frame
    ends = ("fd00::1", "fd00::2") if is_6 else ("10.0.0.1", "10.0.0.2")
    assert (row["client_ip"], row["server_ip"]) == ends
    assert (row["vlan"], row["tunnel"]) == (vlan, tunnel)


@pytest.mark.parametrize("name", FRAMES)
def test_a_tunnel_cut_anywhere_is_not_read_beyond_and_says_what_is_missing(pipelines, name):
    frame, _, _ = FRAMES[name]
    for length in range(len(frame)):
        packet, payload = alone(pipelines[True], frame[:length])
        if packet["status"] == DECODED and packet["protocol"] == 6:
            assert payload == PAYLOAD[: len(payload)]
            assert packet["missing"] == len(PAYLOAD) - len(payload)
        else:
            # Cut within the inner headers: nothing, or the tunnel's own datagram.
            assert packet["status"] in (MALFORMED, UNSUPPORTED, DECODED)
            assert packet["status"] != DECODED or packet["destination_port"] in (4789, 8472, 6081)


def test_a_tag_that_the_interface_took_off_is_the_outer_vlan(pipelines):
    frames = [ethernet(INNER4), ethernet(Dot1Q(vlan=5), INNER4)]
    packets, _ = decoded(pipelines[True], frames, vlan=0xE000 | 100)
    assert vlan_texts(packets["network"]).to_pylist() == ["100", "100.5"]
    assert tunnel_texts(packets["network"]).to_pylist() == [None, None]


@pytest.mark.parametrize(("link_type", "header"), [(101, b""), (113, bytes(14) + b"\x08\0")])
def test_a_tunnel_is_found_behind_any_link_header(pipelines, link_type, header):
    frame = header + ethernet(OUTER4, udp(4789), VXLAN(vni=42), INSIDE)[14:]
    _, (payload,) = decoded(pipelines[True], [frame], link_type)
    assert payload == PAYLOAD


def test_a_segment_of_64_kib_in_a_tunnel(pipelines):
    """Segmentation offload: the inner packet is as large as can be, the outer one larger."""
    said = bytes(65_000)
    inner = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=80, flags="A")
    outer = bytearray(ethernet(OUTER4, udp(4789), VXLAN(vni=42), inner / Raw(said)))
    outer[16:18] = bytes(2)  # its length did not fit
    for frame in (bytes(outer), ethernet(OUTER4, udp(4789), VXLAN(vni=42), inner / Raw(said))):
        (packet,), (payload,) = decoded(pipelines[True], [frame])
        assert (payload, packet["missing"]) == (said, 0)


NO_TUNNELS = {
    "no id": b"\0" * 8 + bytes(INSIDE),
    "reserved octet": b"\x08\0\0\0\0\0\1\xff" + bytes(INSIDE),
    "short": b"\x08\0\0\0\0\0\1",
    "no ethernet": b"\x08\0\0\0\0\0\1\0" + b"hello, world, this is text",
    "broken packet": b"\x08\0\0\0\0\0\1\0" + bytes(INSIDE)[:14] + b"\x45\0\0\1" + bytes(30),
    "broken segment": b"\x08\0\0\0\0\0\1\0" + bytes(INSIDE)[:46] + bytes(30),
}


@pytest.mark.parametrize("name", NO_TUNNELS)
def test_on_the_port_of_a_tunnel_may_be_any_datagram(pipelines, name):
    said = NO_TUNNELS[name]
    for port in (4789, 8472, 6081):
        frame = ethernet(OUTER4, udp(port), Raw(said))
        (packet,), (payload,) = decoded(pipelines[True], [frame])
        assert (packet["status"], packet["protocol"]) == (DECODED, 17)
        assert packet["destination_port"] == port
        assert payload == said
        assert packet["network"] == 0


def test_what_is_no_transport_inside_is_unsupported(pipelines):
    frames = [
        ethernet(OUTER4, udp(4789), VXLAN(vni=1), Ether(**MACS), ARP()),
        ethernet(OUTER4, GRE(proto=0x880B, version=1), Raw(bytes(20))),
        ethernet(OUTER4, GRE(routing_present=1), Raw(bytes(20))),
        ethernet(PPPoE(sessionid=1), PPP(proto=0xC021), Raw(bytes(20))),
        ethernet(PPPoE(code=9, sessionid=1), PPP(proto=0x21), INNER4),
        shim(0x8847, label(1, 0) * 9, b""),
        ethernet(*[OUTER4] * 13, INNER4),
    ]
    packets, _ = decoded(pipelines[True], frames)
    assert packets["status"].tolist() == [UNSUPPORTED] * len(frames)
    assert packets["stream"].tolist() == [0] * len(frames)


def test_layers_without_end_cost_no_time(pipelines):
    """A frame of nothing but headers, each of which says that one more comes."""
    bridged = bytes(12) + b"\x65\x58"
    frames = [bridged * 4000, b"\2" * 12 + b"\x88\x47" + bytes(60_000), bytes(14) * 2]
    frames.append(bytes(12) + b"\x08\0" + bytes(OUTER4 / GRE(proto=0x6558)) + bridged * 4000)
    packets, _ = decoded(pipelines[True], frames)
    assert set(packets["status"].tolist()) <= {UNSUPPORTED, MALFORMED}


def networks(kind):
    """Frames of one five-tuple, in two networks each."""
    return {
        "vlan": [ethernet(Dot1Q(vlan=n), INNER4) for n in (5, 6)],
        "inner vlan": [ethernet(Dot1AD(vlan=5), Dot1Q(vlan=n), INNER4) for n in (5, 6)],
        "vxlan": [ethernet(OUTER4, udp(4789), VXLAN(vni=n), INSIDE) for n in (5, 6)],
        "geneve": [ethernet(OUTER4, udp(6081), GENEVE(vni=n), INSIDE) for n in (5, 6)],
        "pppoe": [ethernet(PPPoE(sessionid=n), PPP(proto=0x21), INNER4) for n in (5, 6)],
        "kinds": [
            ethernet(OUTER4, udp(4789), VXLAN(vni=5), INSIDE),
            ethernet(OUTER4, udp(6081), GENEVE(vni=5), INSIDE),
        ],
        "none and vlan": [ethernet(INNER4), ethernet(Dot1Q(vlan=6), INNER4)],
    }[kind]


KINDS = ["vlan", "inner vlan", "vxlan", "geneve", "pppoe", "kinds", "none and vlan"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_five_tuple_in_another_network_is_another_stream(pipelines, kind):
    packets, _ = decoded(pipelines[True], networks(kind) * 2)
    first, second, again, again_too = packets["stream"].tolist()
    assert (first, second) == (again, again_too)
    assert first != second
    assert 0 not in (first, second)
    ids = pipelines[True].stream_ids(np.array([first, second])).to_pylist()
    assert ids[0] != ids[1]


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_packet_is_seen_with_and_without_its_network_it_is_one_stream(pipelines, kind):
    pipeline = pipelines[False]
    packets, _ = decoded(pipeline, [ethernet(INNER4), *networks(kind)])
    assert len(set(packets["stream"].tolist())) == 1
    (row,) = pipeline.streams_table(
        packets["stream"][:1].copy(), np.zeros(1, np.int64), np.ones(1, np.bool_)
    ).to_pylist()
    assert row["vlan"] or row["tunnel"]


def test_what_holds_for_one_direction_keeps_nothing_apart(pipelines):
    """Labels, tunnels on one side only, datapaths of OVN, and keys, which mirrors use freely."""
    back = IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=80, dport=40000, flags="A", seq=8, ack=25)
    pairs = [
        (shim(0x8847, label(1, 1), INNER4), shim(0x8847, label(2, 1), back)),
        (ethernet(OUTER4, INNER4), ethernet(back)),
        (ethernet(OUTER4, GRE(), INNER4), ethernet(back)),
        tuple(
            ethernet(OUTER4, udp(6081), GENEVE(vni=n, options=[OVN_OPTION]), Ether(**MACS), packet)
            for n, packet in ((1, INNER4), (2, back))
        ),
        tuple(
            ethernet(OUTER4, GRE(proto=0x6558, key_present=1, key=0x500000 + n), Ether(**MACS),
                     packet)
            for n, packet in ((1, INNER4), (2, back))
        ),
    ]  # fmt: skip
    for pair in pairs:
        packets, _ = decoded(pipelines[True], list(pair))
        assert packets["stream"][0] == packets["stream"][1] != 0
        assert packets["direction"].tolist() == [0, 1]
