"""Programs in the kernel itself, between two network namespaces."""

import fcntl
import os
import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from scapy.all import ICMP, IP, TCP, UDP, Dot1AD, Dot1Q, Ether, IPv6, IPv6ExtHdrDestOpt, Raw

import kfl
from kfl import coarse
from services.capture.bpf import MOST_INSTRUCTIONS, programs
from services.capture.frames.afpacket import AfPacket
from services.capture.frames.interfaces import open_interfaces
from services.capture.kernelfilter import KernelFilter
from tests.integration.capture.veth import frames_until, ip
from tests.unit.capture.bpfmachine import run

pytestmark = pytest.mark.root

SEND = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("there", 0))
for frame in sys.argv[1:]:
    sender.send(bytes.fromhex(frame))
"""

SEND_NUMBERED = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("there", 0))
frame, count = bytearray.fromhex(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    frame[-8:] = number.to_bytes(8, "big")
    sender.send(frame)
"""

MAC = "02:00:00:00:00:01"
LAST = b"the last frame"


def frame(*layers, payload=b""):
    found = Ether(src=MAC, dst=MAC)
    for layer in layers:
        found = found / layer
    return bytes(found / Raw(payload))


V4, V6 = IP(src="10.77.0.8", dst="10.77.0.9"), IPv6(src="fd00::8", dst="fd00::9")
TAGS = Dot1Q(vlan=7), Dot1AD(vlan=7) / Dot1Q(vlan=8)

FRAMES = {
    "http": frame(V4, TCP(sport=9, dport=80, flags="PA")),
    "http over IPv6": frame(V6, TCP(sport=9, dport=80)),
    "http in a VLAN": frame(TAGS[0], V4, TCP(sport=9, dport=80)),
    "http in two VLANs": frame(TAGS[1], V4, TCP(sport=9, dport=80)),
    "http behind options": frame(V6, IPv6ExtHdrDestOpt(), TCP(sport=80, dport=9)),
    "ssh": frame(V4, TCP(sport=9, dport=22)),
    "dns": frame(V4, UDP(sport=9, dport=53)),
    "dns in two VLANs": frame(TAGS[1], V6, UDP(sport=9, dport=53)),
    "dns over TCP": frame(V4, TCP(sport=53, dport=9)),
    "another host": frame(IP(src="10.77.0.1", dst="10.77.1.1"), TCP(sport=9, dport=80)),
    "ping": frame(V4, ICMP()),
    "a fragment": frame(IP(src="10.77.0.8", dst="10.77.0.9", frag=7, proto=6), payload=b"x" * 40),
    "VXLAN": frame(V4, UDP(sport=9, dport=4789), payload=b"x" * 60),
    "not IP": frame(payload=b"x" * 60)[:12] + b"\x88\xb5" + b"x" * 60,
}


def attach(source, text):
    """Attach what a statement needs; return the program."""
    program = next(programs(kfl.compile(text).packets().tree)).instructions
    source.attach(program)
    return program


def send(namespace, frames):
    assert namespace.far_python(SEND, *(each.hex() for each in frames)).wait() == 0


def untagged(octets):
    """A frame as the network stack sees it, which takes the outer VLAN tag off."""
    return octets[:12] + octets[16:] if octets[12:14] in (b"\x81\x00", b"\x88\xa8") else octets


@pytest.mark.parametrize(
    "text",
    [
        "http",
        "dns",
        "http and dst.port == 80",
        'http and src.ip in ["10.77.0.8", "fd00::8"] and dst.port == 80',
        'src.ip == "10.77.0.9" or udp',
        "icmp",
        "true",
    ],
)
def test_the_kernel_keeps_what_the_program_says(namespace, text):
    source = AfPacket("here")
    program = attach(source, text)
    last = frame(V4, UDP(sport=9, dport=4789), payload=LAST)  # a tunnel: always kept
    send(namespace, [*FRAMES.values(), last])
    found = frames_until(source, lambda frames: any(LAST in each for each in frames))
    source.close()
    came = {octets for octets, _, _ in found}
    for name, sent in FRAMES.items():
        # The kernel takes the outer tag off, and both are to be judged alike.
        verdicts = {run(program, octets) > 0 for octets in (sent, untagged(sent))}
        assert verdicts == {untagged(sent) in came}, name


def test_nothing_comes_without_jobs_and_everything_when_detached(namespace):
    source = AfPacket("here")
    KernelFilter(source).follow(set())
    send(namespace, FRAMES.values())
    assert frames_until(source, lambda frames: True) == []
    source.attach(None)
    send(namespace, FRAMES.values())
    found = frames_until(source, lambda frames: len(frames) >= len(FRAMES))
    source.close()
    assert {octets for octets, _, _ in found} == set(map(untagged, FRAMES.values()))


def test_a_swap_loses_nothing_that_both_programs_keep(namespace):
    count = 60_000
    source = AfPacket("here")
    kernel = KernelFilter(source)
    sent = frame(V4, UDP(sport=9, dport=53), payload=bytes(8))
    kernel.follow({"dns"})
    sender = namespace.far_python(SEND_NUMBERED, sent.hex(), count)
    jobs = [{"dns"}, {"dns", "http"}, {"dns and dst.port == 53", "redis"}, {"true"}]
    numbers, swaps = [], 0
    for octets, rows, _ in source.batches():
        for _ in range(20):
            kernel.follow(jobs[swaps % len(jobs)])
            swaps += 1
        # IPv6's own traffic may come too while everything is kept.
        rows = rows[rows["captured_length"] == len(sent)]
        if len(rows):
            where = rows["offset"][:, None] + np.arange(len(sent) - 8, len(sent))
            numbers.append(octets[where].view(">u8")[:, 0].astype(np.int64))
        elif sender.poll() is not None:
            break
    losses = source.losses()
    source.close()
    assert sender.returncode == 0
    assert losses == []
    assert swaps > 100
    assert np.array_equal(np.concatenate(numbers), np.arange(count))


def test_all_interfaces_get_the_program_and_those_that_come_later(namespace):
    source = open_interfaces(["here", "late*"], 4 << 20)
    KernelFilter(source).follow({"dns"})
    ip("-n", namespace.name, "link", "add", "later", "type", "veth", "peer", "other")
    for name in ("later", "other"):
        ip("-n", namespace.name, "link", "set", name, "up")
    time.sleep(1.1)  # until the list of interfaces is looked at again
    next(source.batches())
    send(namespace, [FRAMES["http"], FRAMES["dns"]])
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind(("other", 0))
        for name in ("http over IPv6", "dns in two VLANs"):
            sender.send(FRAMES[name])
    found = frames_until(source, lambda frames: len(frames) >= 2)
    source.close()
    wanted = {FRAMES["dns"], untagged(FRAMES["dns in two VLANs"])}
    assert {octets for octets, _, _ in found} == wanted


def test_interfaces_without_ethernet_are_filtered_on_any(namespace):
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    tun_without_header = 0x1001
    fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH22x", b"tunnel", tun_without_header))
    ip("-n", namespace.name, "addr", "add", "10.88.0.1/24", "dev", "tunnel")
    ip("-n", namespace.name, "link", "set", "tunnel", "up")
    source = AfPacket()
    attach(source, 'udp and dst.port == 99 and dst.ip == "10.88.0.2"')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for host, port in (("10.88.0.2", 98), ("10.88.0.3", 99), ("10.88.0.2", 99)):
            sender.sendto(b"to %s %d" % (host.encode(), port), (host, port))
    found = frames_until(source, lambda frames: any(b"10.88.0.2 99" in f for f in frames))
    # From the tunnel to the host, as the kernel receives it.
    inward = IP(src="10.88.0.2", dst="10.88.0.1") / UDP(sport=99, dport=5) / Raw(b"back")
    for sport in (98, 99):
        inward[UDP].sport = sport
        os.write(tunnel, bytes(inward))
    found += frames_until(source, lambda frames: any(b"back" in f for f in frames))
    source.close()
    os.close(tunnel)
    assert [octets[28:] for octets, _, _ in found] == [b"to 10.88.0.2 99", b"back"]


def test_the_kernel_takes_large_programs(namespace):
    hosts = coarse.hosts_of([f"10.{n >> 8}.{n & 255}.{n * 37 & 255}" for n in range(700)])
    source = AfPacket("here")
    exact = next(programs(hosts))
    assert 2000 < len(exact.instructions) <= MOST_INSTRUCTIONS
    source.attach(exact.instructions)
    inside = frame(IP(src="10.0.5.185", dst="10.99.0.1"), TCP())
    outside = frame(IP(src="10.0.5.184", dst="10.99.0.1"), TCP())
    send(namespace, [outside, inside])
    found = frames_until(source, lambda frames: len(frames) >= 1)
    source.close()
    assert [octets for octets, _, _ in found] == [inside]
