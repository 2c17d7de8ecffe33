"""Programs for the kernel: run by a machine like the kernel's, over frames made with scapy."""

import ipaddress
import shutil
import subprocess

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from scapy.all import (
    GRE,
    ICMP,
    IP,
    SCTP,
    TCP,
    UDP,
    Dot1AD,
    Dot1Q,
    Ether,
    ICMPv6EchoRequest,
    IPOption,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PPPoE,
    Raw,
)
from scapy.contrib.mpls import MPLS
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP
from scapy.layers.vxlan import VXLAN

import kfl
from kfl import coarse
from services.capture.bpf import MOST_INSTRUCTIONS, programs
from services.capture.frames import CaptureError, open_capture
from tests.conftest import CAPTURES
from tests.unit.capture.bpfmachine import run
from tests.unit.kfl.onepacket import UNKNOWN, Packet, accepts

MAC = "02:00:00:00:00:01"
ETHER = Ether(src=MAC, dst=MAC)  # or scapy asks the network for them
HTTP_80 = TCP(sport=40000, dport=80, flags="PA")
V4, V6 = IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")


def tree_of(text):
    return kfl.compile(text).packets().tree


def keeps(text, frame, *, tunnels=False, **where):
    tree = tree_of(text)
    program = next(programs(tree, tunnels=tunnels))
    return run(program.instructions, bytes(frame), **where) > 0


# ------------------------------------------------------------------------------ one thing at a time


@pytest.mark.parametrize(
    ("text", "kept", "dropped"),
    [
        ("http", [V4 / TCP(), V6 / TCP()], [V4 / UDP(), V4 / ICMP(), V4 / SCTP(), V6 / UDP()]),
        (
            "dns",
            [V4 / UDP(dport=9), V6 / UDP(), V4 / TCP(sport=53), V6 / TCP(dport=53)],
            [V4 / TCP(dport=80), V6 / TCP(sport=530), V4 / SCTP(dport=53)],
        ),
        ("icmp", [V4 / ICMP(), V6 / ICMPv6EchoRequest()], [V4 / TCP(), V6 / UDP()]),
        ("sctp", [V4 / SCTP(), V6 / SCTP()], [V4 / TCP()]),
        ("dst.port == 80", [V4 / HTTP_80, V4 / UDP(sport=80), V6 / HTTP_80], [V4 / TCP(dport=81)]),
        (
            "tcp and dst.port > 1024",
            [V4 / TCP(sport=1, dport=1025), V4 / TCP(sport=65535, dport=80)],
            [V4 / TCP(sport=1024, dport=80)],
        ),
        (
            'src.ip == "10.0.0.1"',
            [V4 / UDP(), IP(src="10.9.9.9", dst="10.0.0.1") / TCP(), V4 / ICMP()],
            [IP(src="10.0.0.2", dst="10.0.0.3") / TCP(), V6 / UDP(), ARP(psrc="10.0.0.1")],
        ),
        (
            'src.ip == "fd00::1" and http',
            [V6 / TCP(), IPv6(src="fd01::1", dst="fd00::1") / TCP()],
            [V6 / UDP(), IPv6(src="fd00::2", dst="fd00::1:1") / TCP(), V4 / TCP()],
        ),
        (
            'src.ip.startsWith("10.1.")',
            [IP(src="10.1.255.9", dst="1.1.1.1") / UDP()],
            [IP(src="10.10.0.0", dst="10.0.1.1") / UDP()],
        ),
        ("false", [], [V4 / TCP(), ARP()]),
        ("true", [V4 / TCP(), ARP(), Raw(b"?")], []),
        ('src.name == "a"', [V4 / TCP(), ARP()], []),  # nobody knows names here
    ],
)
def test_what_is_kept(text, kept, dropped):
    for packet in kept:
        assert keeps(text, ETHER / packet), packet.summary()
    for packet in dropped:
        assert not keeps(text, ETHER / packet), packet.summary()


@pytest.mark.parametrize(
    "network",
    [
        Dot1Q(vlan=7) / V4,
        Dot1AD(vlan=7) / Dot1Q(vlan=8) / V4,
        Dot1AD(vlan=7) / Dot1Q(vlan=8) / Dot1Q(vlan=9) / V6,
        IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption(b"\x83\x07\x04\1\2\3\4"), b"\1"]),
        V6 / IPv6ExtHdrHopByHop(),
        V6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting(addresses=["fd00::7"]) / IPv6ExtHdrDestOpt(),
        V6 / AH(payloadlen=4, icv=b"x" * 12),
        V6 / IPv6ExtHdrFragment(offset=0, m=1),
    ],
    ids=lambda network: network.summary(),
)
def test_headers_in_between_are_skipped(network):
    text = 'dst.port == 80 and http and src.ip in ["10.0.0.1", "fd00::1"]'
    # Built of layers that do not know each other's numbers.
    for layer in (AH,):
        if network.haslayer(layer):
            network[layer].nh = 6
    assert keeps(text, ETHER / network / HTTP_80)
    assert not keeps(text, ETHER / network / TCP(sport=80 << 8, dport=8080))


def test_fragments_are_kept_unless_their_hosts_or_transport_say_otherwise():
    v4 = ETHER / IP(src="10.0.0.1", dst="10.0.0.2", frag=100, proto=6) / Raw(b"x" * 40)
    v6 = ETHER / V6 / IPv6ExtHdrFragment(offset=9, nh=6) / Raw(b"x" * 40)
    for fragment in (v4, v6):
        assert keeps("http and dst.port == 80", fragment)
        assert keeps('dst.port == 80 and dst.ip in ["10.0.0.2", "fd00::2"]', fragment)
        assert not keeps("dst.port == 80 and udp", fragment)
        assert not keeps('dst.port == 80 and dst.ip in ["10.0.0.3", "fd00::3"]', fragment)
    first = ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / TCP(dport=81)
    assert not keeps("http and dst.port == 80", first)


def test_what_is_not_understood_is_kept():
    many = V6
    for _ in range(5):
        many = many / IPv6ExtHdrDestOpt()
    for packet in (many / UDP(), V4 / AH(payloadlen=4), V6 / IPv6ExtHdrFragment(offset=9, nh=60)):
        assert keeps("http and dst.port == 80", ETHER / packet), packet.summary()


INNER = ETHER / V4 / HTTP_80
TUNNELS = [
    V4 / UDP(sport=5, dport=4789) / VXLAN() / INNER,
    V6 / UDP(sport=5, dport=8472) / VXLAN() / INNER,
    V4 / UDP(sport=5, dport=6081) / Raw(bytes(INNER)),
    V4 / GRE() / INNER,
    V4 / INNER[IP],
    V4 / V6,
    V6 / GRE() / INNER,
    IP(src="1.1.1.1", dst="2.2.2.2", proto=137) / Raw(bytes(8)),
    MPLS(label=5, s=1) / INNER[IP],
    PPPoE(type=1, code=0) / Raw(b"\x00\x21" + bytes(INNER[IP])),
]


@pytest.mark.parametrize("packet", TUNNELS, ids=lambda packet: packet.summary()[:60])
def test_tunnels_are_kept_while_they_are_followed(packet):
    text = 'http and src.ip == "10.9.9.9"'
    frame = (
        Ether(src=MAC, dst=MAC, type=0x8864) / packet if packet.haslayer(PPPoE) else ETHER / packet
    )
    assert keeps(text, frame, tunnels=True)
    assert not keeps(text, frame, tunnels=False)
    assert not keeps("false", frame, tunnels=True)


def test_an_address_of_ipv4_within_ipv6_is_kept():
    # An entry shows it as 10.0.0.1.
    frame = ETHER / IPv6(src="::ffff:10.0.0.1", dst="fd00::1") / TCP()
    assert keeps('src.ip == "10.0.0.1"', frame)
    assert not keeps('src.ip == "10.0.0.1"', ETHER / V6 / TCP())


@pytest.mark.parametrize(("hardware", "header"), [(65534, b""), (512, b"\xff\x03\x00\x21")])
def test_interfaces_without_ethernet_headers(hardware, header):
    for network, ethertype in ((V4, 0x0800), (V6, 0x86DD)):
        for port, kept in ((80, True), (81, False)):
            frame = header + bytes(network / TCP(sport=9, dport=port))
            where = {"hardware": hardware, "protocol": ethertype, "network": len(header)}
            text = 'http and dst.port == 80 and src.ip in ["10.0.0.1", "fd00::1"]'
            assert keeps(text, frame, **where) == kept
    assert not keeps("http", b"", hardware=hardware, protocol=0x0806)


def test_the_snaplen_is_what_is_kept_of_a_frame():
    program = next(programs(tree_of("http"), snaplen=96))
    assert run(program.instructions, bytes(INNER)) == 96
    whole = next(programs(tree_of("http")))
    assert run(whole.instructions, bytes(INNER)) == 0xFFFFFFFF


@given(st.binary(max_size=80), st.sampled_from([1, 65534]), st.sampled_from([0x0800, 0x86DD, 0]))
def test_any_octets_end_the_program(frame, hardware, protocol):
    tree = tree_of('dns and src.ip in ["10.0.0.1", "fd00::1"]')
    for begin in (b"", bytes(12) + b"\x08\0", bytes(12) + b"\x86\xdd"):
        program = next(programs(tree)).instructions
        assert run(program, begin + frame, hardware, protocol) in (0, 0xFFFFFFFF)


# ------------------------------------------------------------------------------ size


def addresses(count):
    return [ipaddress.ip_network(f"10.{n >> 8}.{n & 255}.{n * 37 & 255}") for n in range(count)]


def test_many_hosts_are_found_by_halving():
    tree = coarse.hosts(addresses(800))
    (exact, coarser) = programs(tree)
    assert (exact.left_out, coarser.left_out) == ("", "hosts")
    for network in tree.networks[::50]:
        frame = ETHER / IP(src="1.1.1.1", dst=str(network.network_address)) / TCP()
        assert run(exact.instructions, bytes(frame))
    assert not run(exact.instructions, bytes(ETHER / IP(src="10.0.0.1", dst="11.0.0.1") / UDP()))


def test_long_jumps_arrive():
    tests = [
        coarse.all_of([coarse.hosts([network]), coarse.ports([(n, n)])])
        for n, network in enumerate(addresses(120))
    ]
    (exact, *_) = programs(coarse.any_of(tests))
    assert len(exact.instructions) > 1000
    for n, network in enumerate(addresses(120)):
        for port in (n, n + 1):
            host = str(network.network_address)
            frame = ETHER / IP(src=host, dst="1.1.1.1") / TCP(sport=port, dport=40000)
            assert bool(run(exact.instructions, bytes(frame))) == (port == n)


@pytest.mark.parametrize(
    ("tree", "left_out"),
    [
        (coarse.all_of([coarse.hosts(addresses(3000)), coarse.ports([(80, 80)])]), "hosts"),
        (coarse.ports((n, n) for n in range(0, 60000, 9)), "hosts and ports"),
    ],
)
def test_what_is_too_large_becomes_coarser_and_says_so(tree, left_out):
    tree = coarse.all_of([coarse.transports("tcp"), tree])
    first = next(programs(tree))
    assert first.left_out == left_out
    assert len(first.instructions) <= MOST_INSTRUCTIONS
    assert run(first.instructions, bytes(INNER))
    assert not run(first.instructions, bytes(ETHER / V4 / UDP()))


# ------------------------------------------------------------------------------ any tree

HOSTS_4 = ["10.0.0.1", "10.0.0.2", "10.0.1.1", "11.0.0.0", "255.255.255.255"]
HOSTS_6 = ["fd00::1", "fd00::2", "fd00:0:0:1::1", "::1", "ff02::fb"]
NETS = [
    *HOSTS_4,
    *HOSTS_6,
    "10.0.0.0/24",
    "0.0.0.0/0",
    "fd00::/64",
    "fd00::/40",
    "::/0",
    "fd00::/96",
]
PORTS = [0, 1, 53, 80, 81, 1024, 65535]

leaves = st.one_of(
    st.sets(st.sampled_from(sorted(coarse.TRANSPORTS)), min_size=1).map(
        lambda names: coarse.transports(*names)
    ),
    st.lists(st.tuples(st.sampled_from(PORTS), st.integers(0, 90)), min_size=1, max_size=12).map(
        lambda found: coarse.ports((low, min(low + more, 65535)) for low, more in found)
    ),
    st.sets(st.sampled_from(NETS), min_size=1).map(coarse.hosts_of),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(coarse.all_of),
        st.lists(inner, min_size=1, max_size=4).map(coarse.any_of),
    ),
    max_leaves=8,
)


@st.composite
def packets(draw):
    """A frame, and what it shows."""
    is_v4 = draw(st.booleans())
    hosts = tuple(draw(st.sampled_from(HOSTS_4 if is_v4 else HOSTS_6)) for _ in range(2))
    ports = tuple(draw(st.sampled_from(PORTS)) for _ in range(2))
    name = draw(st.sampled_from(["tcp", "udp", "sctp", "icmp", "other"]))
    number = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1 if is_v4 else 58, "other": 89}[name]
    after = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big") + bytes(20)
    later = draw(st.integers(0, 4)) == 0
    if is_v4:
        options = draw(st.sampled_from([b"", b"\1\1\1\1", b"\1" * 40]))
        network = IP(src=hosts[0], dst=hosts[1], proto=number, frag=8 if later else 0)
        network = bytes(network / Raw(options + after))
        octets = bytes([0x45 + len(options) // 4]) + network[1:]
    else:
        network = IPv6(src=hosts[0], dst=hosts[1])
        for _ in range(draw(st.integers(0, 2))):
            network = network / IPv6ExtHdrDestOpt(options=[])
        if later:
            network = network / IPv6ExtHdrFragment(offset=8)
        network.lastlayer().nh = number
        octets = bytes(network / Raw(after))
    tags = b"".join(draw(st.lists(st.sampled_from([b"\x81\0\0\7", b"\x88\xa8\0\7"]), max_size=3)))
    ethertype = b"\x08\x00" if is_v4 else b"\x86\xdd"
    shown = None if name in ("icmp", "other") else UNKNOWN if later else ports
    return bytes(12) + tags + ethertype + octets, Packet(name, hosts, shown)


@settings(max_examples=150, deadline=None)
@given(trees, st.lists(packets(), min_size=4, max_size=8))
def test_a_program_says_what_its_tree_says(tree, found):
    program = next(programs(tree, tunnels=False)).instructions
    with_tunnels = next(programs(tree)).instructions
    for frame, packet in found:
        wanted = accepts(tree, packet)
        assert bool(run(program, frame)) == wanted, packet
        assert run(with_tunnels, frame) or not wanted, packet


# ------------------------------------------------------------------------------ tcpdump's word

EXPRESSIONS = [
    ("http", "tcp"),
    ("dns", "udp or tcp port 53"),
    ("udp and src.port == 53", "udp port 53"),
    ("tcp and dst.port in [80, 443, 8080]", "tcp port 80 or tcp port 443 or tcp port 8080"),
    ("tcp and dst.port < 1024", "tcp portrange 0-1023"),
    ('src.ip.startsWith("10.")', "ip net 10.0.0.0/8"),
    ('src.ip.startsWith("192.168.") and tcp', "ip net 192.168.0.0/16 and tcp"),
    ("icmp", "icmp or icmp6"),
    ("sctp", "sctp"),
]
LARGEST_CAPTURE, MOST_FRAMES = 1_000_000, 1_000


def frames_of(path, most):
    """Frames of Ethernet, from the beginning of a capture."""
    found = []
    source = open_capture(path)
    try:
        for octets, rows, _ in source.batches():
            for row in rows[: most - len(found)]:
                if row.link_type == 1:
                    found.append(octets[row.offset :][: row.captured_length].tobytes())
    except CaptureError:
        pass  # damaged at its end
    finally:
        source.close()
    return found


def is_plain(frame):
    """IPv4 or IPv6 at once, no later fragment, and a transport right behind it."""
    if frame[12:14] == b"\x08\x00" and len(frame) > 34:
        return not (frame[20] & 0x1F or frame[21]) and frame[23] != 51
    return frame[12:14] == b"\x86\xdd" and frame[20:21] in (b"\x06", b"\x11", b"\x3a", b"\x84")


@pytest.mark.captures
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="needs tcpdump")
def test_of_real_captures_no_less_is_kept_than_by_tcpdump_and_of_plain_packets_no_more(tmp_path):
    sizes = {path: path.stat().st_size for path in sorted(CAPTURES.rglob("*.pcap"))}
    small = [path for path, size in sizes.items() if size < LARGEST_CAPTURE]
    kept = 0
    for number, path in enumerate(small):
        frames = frames_of(path, MOST_FRAMES)
        for text, expression in EXPRESSIONS[number % 3 :: 3] if frames else ():
            out = tmp_path / "kept.pcap"
            command = ["tcpdump", "-Z", "root", "-r", path, "-w", out, expression]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                continue  # a capture that tcpdump does not read
            theirs = set(frames_of(out, len(frames)))
            program = next(programs(tree_of(text), tunnels=False)).instructions
            for frame in frames:
                ours = run(program, frame) > 0
                assert ours or frame not in theirs, (path.name, text, frame.hex())
                if ours and is_plain(frame):
                    assert frame in theirs, (path.name, text, frame.hex())
                kept += ours
    assert kept > 500
