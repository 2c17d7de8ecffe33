"""The ring against real interfaces, in network namespaces that each test has to itself."""

import fcntl
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from services.capture.frames.afpacket import (
    AfPacket,
    missing_capability,
    open_interfaces,
)
from services.capture.frames.batch import CaptureError

pytestmark = pytest.mark.root

NUMBER = slice(20, 28)
"""Where a test frame has its number: behind the Ethernet header, 14, and six octets of zeros."""

names = itertools.count()

SENDER = """
import socket, sys
interface, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind((interface, 0))
frame = bytearray(b"\\2" * 12 + b"\\x88\\xb5" + bytes(size - 14))
for number in range(count):
    frame[20:28] = number.to_bytes(8, "big")
    sender.send(frame)
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Namespace:
    """A network namespace with an interface `here`, whose other end `there` is in another."""

    def __init__(self, name: str) -> None:
        self.name, self.far = name, f"{name}-far"

    def far_python(self, code: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Run Python code at the other end."""
        command = ["ip", "netns", "exec", self.far, sys.executable, "-c", code]
        return subprocess.Popen([*command, *map(str, arguments)])

    def send(
        self, count: int, size: int = 600, interface: str = "there"
    ) -> subprocess.Popen[bytes]:
        """Send numbered frames from the other end."""
        return self.far_python(SENDER, interface, count, size)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """Two namespaces joined by a veth pair; what the test's thread opens is in the first.

    Without IPv6, which would add frames of its own.
    """
    space = Namespace(f"tr-{os.getpid()}-{next(names)}")
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        for name in (space.name, space.far):
            ip("netns", "add", name)
            for kind in ("all", "default"):
                setting = f"net.ipv6.conf.{kind}.disable_ipv6=1"
                command = ["ip", "netns", "exec", name, "sysctl", "-qw", setting]
                subprocess.run(command, check=False, capture_output=True)
            ip("-n", name, "link", "set", "lo", "up")
        ip(
            "-n",
            space.name,
            "link",
            "add",
            "here",
            "type",
            "veth",
            "peer",
            "there",
            "netns",
            space.far,
        )
        ip("-n", space.name, "addr", "add", "10.77.0.1/24", "dev", "here")
        ip("-n", space.far, "addr", "add", "10.77.0.2/24", "dev", "there")
        ip("-n", space.name, "link", "set", "here", "up")
        ip("-n", space.far, "link", "set", "there", "up")
        inside = os.open(f"/run/netns/{space.name}", os.O_RDONLY)
        set_namespace(inside)
        os.close(inside)
        yield space
    finally:
        set_namespace(outside)
        os.close(outside)
        for name in (space.name, space.far):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def set_namespace(descriptor: int) -> None:
    """Move this thread; os.setns came with Python 3.12."""
    import ctypes

    clone_newnet = 0x40000000
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, clone_newnet):
        raise OSError(ctypes.get_errno(), "setns")


def frames_until(
    source, enough: Callable[[list[bytes]], bool], seconds: float = 20
) -> list[tuple[bytes, int, int]]:
    """Return (octets, original length, link type) of what comes until `enough` says so."""
    found: list[tuple[bytes, int, int]] = []
    deadline = time.monotonic() + seconds
    for octets, rows in source.batches():
        for row in rows:
            begin, length = int(row.offset), int(row.captured_length)
            frame = octets[begin : begin + length].tobytes()
            found.append((frame, int(row.original_length), int(row.link_type)))
        if enough([frame for frame, _, _ in found]) or time.monotonic() > deadline:
            return found
    return found


def numbers_until_idle(source, sender: subprocess.Popen[bytes]) -> np.ndarray:
    """Return the numbers of the frames that come, until the sender is done and nothing is left."""
    found = []
    for octets, rows in source.batches():
        if len(rows):
            where = rows["offset"][:, None] + np.arange(NUMBER.start, NUMBER.stop)
            found.append(octets[where].view(">u8")[:, 0].astype(np.int64))
        elif sender.poll() is not None:
            break
    assert sender.returncode == 0
    return np.concatenate(found) if found else np.zeros(0, np.int64)


# ------------------------------------------------------------------------------ what comes


def test_every_frame_comes_once_in_order_and_at_speed(namespace):
    source = AfPacket("here")
    numbers = numbers_until_idle(source, namespace.send(150_000))
    losses = source.losses()
    counts = source.counts
    source.close()
    assert losses == []
    assert np.array_equal(numbers, np.arange(150_000))
    assert counts.frames == 150_000


def test_frames_are_octet_by_octet_what_was_sent(namespace):
    send = """
import socket, sys
from scapy.all import IP, TCP, UDP, Ether, Raw, conf
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("there", 0))
for size in (0, 1, 2, 100, 1400):
    for layer in (TCP(dport=80, flags="PA"), UDP(dport=53)):
        ethernet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        network = IP(src="10.77.0.9", dst="10.77.0.8")
        sender.send(bytes(ethernet / network / layer / Raw(b"x" * size)))
"""
    from scapy.all import IP, TCP, UDP, Ether, Raw

    expected = [
        bytes(
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            / IP(src="10.77.0.9", dst="10.77.0.8")
            / layer
            / Raw(b"x" * size)
        )
        for size in (0, 1, 2, 100, 1400)
        for layer in (TCP(dport=80, flags="PA"), UDP(dport=53))
    ]
    source = AfPacket("here")
    before_ns = time.time_ns()
    sender = namespace.far_python(send)
    batches = source.batches()
    times: list[int] = []
    found: list[bytes] = []
    while len(found) < len(expected) and time.time_ns() < before_ns + 60 * 10**9:
        octets, rows = next(batches)
        times += rows["timestamp"].tolist()
        found += [octets[row.offset :][: row.captured_length].tobytes() for row in rows]
        assert (rows["link_type"] == 1).all()
        assert (rows["original_length"] == rows["captured_length"]).all()
    assert sender.wait() == 0
    source.close()
    assert found == expected
    assert times == sorted(times)
    assert before_ns <= times[0] <= times[-1] <= time.time_ns()


def test_what_is_sent_is_seen_as_well(namespace):
    source = AfPacket("here")
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.sendto(b"to the other side", ("10.77.0.2", 9))
    found = frames_until(source, lambda frames: any(b"other side" in f for f in frames))
    sender.close()
    source.close()
    assert any(b"to the other side" in frame for frame, _, _ in found)


@pytest.mark.parametrize("interface", ["lo", "any"])
def test_loopback_shows_each_packet_once(namespace, interface):
    source = AfPacket(interface)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for number in range(100):
            sender.sendto(b"number %03d" % number, ("127.0.0.1", 9))
    found = frames_until(source, lambda frames: sum(b"number" in f for f in frames) >= 100, 5)
    found += frames_until(source, lambda _: True)
    copies = source.counts.loopback_copies
    source.close()
    payloads = [frame[42:] for frame, _, link_type in found if frame[42:48] == b"number"]
    assert payloads == [b"number %03d" % number for number in range(100)]
    assert {link_type for _, _, link_type in found} == {1}
    assert (copies > 0) == (interface == "any")


def test_any_gives_tunnels_as_raw_ip_and_the_others_as_ethernet(namespace):
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    tun_without_header = 0x1001
    fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH22x", b"tunnel", tun_without_header))
    ip("-n", namespace.name, "addr", "add", "10.88.0.1/24", "dev", "tunnel")
    ip("-n", namespace.name, "link", "set", "tunnel", "up")
    source = AfPacket()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"in the tunnel", ("10.88.0.2", 9))
        sender.sendto(b"beside it", ("10.77.0.2", 9))
    wanted = (b"in the tunnel", b"beside it")
    found = frames_until(source, lambda f: all(any(w in x for x in f) for w in wanted))
    source.close()
    os.close(tunnel)
    inner = [frame for frame, _, link_type in found if link_type == 101]
    assert len(inner) == 1
    assert inner[0][0] == 0x45
    assert inner[0].endswith(b"in the tunnel")
    outer = [frame for frame, _, link_type in found if link_type == 1]
    assert any(frame.endswith(b"beside it") for frame in outer)


def test_a_vlan_tag_does_not_hide_the_packet(namespace):
    frame = b"\2" * 12 + b"\x81\x00\x00\x07\x08\x00" + b"inner packet" + bytes(40)
    send = "import socket; s = socket.socket(17, 3, 0); s.bind(('there', 0)); s.send(%r)"
    source = AfPacket("here")
    sender = namespace.far_python(send % frame)
    found = frames_until(source, lambda frames: any(b"inner packet" in f for f in frames))
    sender.wait()
    source.close()
    (tagged,) = [octets for octets, _, _ in found if b"inner packet" in octets]
    assert tagged in (frame, frame[:12] + frame[16:])


def test_an_interface_that_comes_later_is_in_any(namespace):
    source = AfPacket("any")
    ip("-n", namespace.name, "link", "add", "later", "type", "veth", "peer", "other")
    ip("-n", namespace.name, "link", "set", "other", "up")
    ip("-n", namespace.name, "addr", "add", "10.99.0.1/24", "dev", "later")
    ip("-n", namespace.name, "link", "set", "later", "up", "arp", "off")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"new here", ("10.99.0.2", 9))
    found = frames_until(source, lambda frames: any(b"new here" in f for f in frames))
    source.close()
    assert any(frame.endswith(b"new here") for frame, _, _ in found)


def test_several_interfaces_are_one_source(namespace):
    source = open_interfaces(["lo", "here", "lo"], 8 << 20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"round here", ("127.0.0.1", 9))
        sender.sendto(b"over there", ("10.77.0.2", 9))
    wanted = (b"round here", b"over there")
    found = frames_until(source, lambda f: all(any(w in x for x in f) for w in wanted))
    assert sum(b"round here" in frame and frame[23] == 17 for frame, _, _ in found) == 1
    assert source.losses() == []
    batch = next(source.batches())
    assert len(batch.frames) == 0
    source.close()


# ------------------------------------------------------------------------------ limits and losses


def test_what_a_full_ring_drops_is_counted_exactly(namespace):
    source = AfPacket("here", block_count=2)
    before_ns = time.time_ns()
    assert namespace.send(20_000).wait() == 0  # nobody reads meanwhile
    done = namespace.send(0)
    done.wait()
    numbers = numbers_until_idle(source, done)
    (loss,) = source.losses()
    after = source.losses()
    source.close()
    assert 0 < len(numbers) < 20_000
    assert len(numbers) + loss.packets == 20_000
    assert np.array_equal(numbers, np.arange(len(numbers)))
    assert loss.kind == "kernel_drop"
    assert "the ring of here (2 MiB) was full" in loss.detail
    assert before_ns - 10**10 <= loss.start_ns <= loss.end_ns <= time.time_ns()
    assert after == []


def test_after_an_overrun_the_ring_goes_on(namespace):
    source = AfPacket("here", block_count=2)
    namespace.send(20_000).wait()
    first = namespace.send(0)
    first.wait()
    numbers_until_idle(source, first)
    assert len(source.losses()) == 1
    numbers = numbers_until_idle(source, namespace.send(1_000))
    assert source.losses() == []
    source.close()
    assert np.array_equal(numbers, np.arange(1_000))


def test_a_batch_is_untouched_until_the_next_one_is_asked_for(namespace):
    source = AfPacket("here", block_count=2)
    sender = namespace.send(5_000)
    batches = source.batches()
    batch = next(batches)
    while not len(batch.frames):
        batch = next(batches)
    kept = [batch.octets[row.offset :][: row.captured_length].tobytes() for row in batch.frames]
    namespace.send(20_000, 900).wait()
    sender.wait()
    again = [batch.octets[row.offset :][: row.captured_length].tobytes() for row in batch.frames]
    source.close()
    assert again == kept


def test_frames_are_cut_at_the_snaplen(namespace):
    source = AfPacket("here", snaplen=64)
    sender = namespace.send(3)
    found = frames_until(source, lambda frames: len(frames) >= 3)
    sender.wait()
    source.close()
    assert [(len(frame), length) for frame, length, _ in found] == [(64, 600)] * 3


def test_a_filter_is_swapped_on_the_open_source(namespace):
    only_900 = [(0x80, 0, 0, 0), (0x15, 0, 1, 900), (0x06, 0, 0, 262144), (0x06, 0, 0, 0)]
    source = AfPacket("here", program=only_900, snaplen=100)
    for size in (600, 900):
        namespace.send(2, size).wait()
    found = frames_until(source, lambda frames: len(frames) >= 2)
    source.attach(None)
    namespace.send(2, 600).wait()
    found += frames_until(source, lambda frames: len(frames) >= 2)
    source.close()
    assert [(len(frame), length) for frame, length, _ in found] == [(100, 900)] * 2 + [
        (100, 600)
    ] * 2


@pytest.mark.parametrize(
    "program", [[(0x15, 9, 9, 0)], [(0x00, 0, 0, 2**33), (0x06, 0, 0, 1)], [(0x06, 0, 0, 0)] * 5000]
)
def test_a_bad_filter_is_refused_and_leaves_nothing_open(namespace, program):
    with pytest.raises(CaptureError, match="BPF program"):
        AfPacket("here", program=program)


# ------------------------------------------------------------------------------ opening and closing


def test_an_unknown_interface_is_refused_with_those_that_there_are(namespace):
    with pytest.raises(CaptureError, match="no interface 'eth7'; there are any, lo, here"):
        AfPacket("eth7")


@pytest.mark.parametrize("interface", ["", "a" * 300, "nul\0"])
def test_an_odd_name_is_an_unknown_interface(namespace, interface):
    with pytest.raises(CaptureError, match="there is no interface"):
        AfPacket(interface)


@pytest.mark.parametrize("snaplen", [0, -1, 262_145])
def test_an_odd_snaplen_is_refused(snaplen):
    with pytest.raises(CaptureError, match="it can be 1 to 262144"):
        AfPacket("lo", snaplen=snaplen)


def test_an_idle_interface_yields_empty_batches(namespace):
    source = AfPacket("here")
    sizes = [len(batch.frames) for batch, _ in zip(source.batches(), range(3), strict=False)]
    source.close()
    assert sizes == [0, 0, 0]


def test_an_interface_that_goes_down_and_up_again_goes_on(namespace):
    source = AfPacket("here")
    batches = source.batches()
    ip("-n", namespace.name, "link", "set", "here", "down")
    assert [len(next(batches).frames) for _ in range(3)] == [0, 0, 0]
    ip("-n", namespace.name, "link", "set", "here", "up")
    numbers = numbers_until_idle(source, namespace.send(100))
    source.close()
    assert np.array_equal(numbers, np.arange(100))


def test_an_interface_that_is_removed_ends_the_capture_with_a_sentence(namespace):
    source = AfPacket("here")
    ip("-n", namespace.name, "link", "del", "here")
    with pytest.raises(CaptureError, match="the interface here is gone"):
        for _ in itertools.islice(source.batches(), 20):
            pass
    source.close()


def test_a_batch_stays_readable_when_its_source_is_closed(namespace):
    source = AfPacket("here")
    namespace.send(10).wait()
    batches = source.batches()
    batch = next(batches)
    while not len(batch.frames):
        batch = next(batches)
    source.close()
    source.close()
    assert batch.octets[batch.frames[0].offset :][:2].tobytes() == b"\2\2"
    assert list(batches) == []
    assert source.losses() == []


def test_nothing_is_left_open(namespace):
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(3):
        source = AfPacket("here", block_count=4)
        next(source.batches())
        source.close()
    assert "socket:" not in Path("/proc/self/maps").read_text()
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_without_the_capability_a_sentence_says_how_to_get_it():
    code = """
import ctypes
from services.capture.frames.afpacket import AfPacket, missing_capability
from services.capture.frames.batch import CaptureError
print(missing_capability())
try:
    AfPacket("lo")
except CaptureError as error:
    print(error)
"""
    found = subprocess.run(
        ["setpriv", "--bounding-set", "-net_raw", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = found.stdout.splitlines()
    assert first == second
    for word in ("CAP_NET_RAW", "setcap", "--cap-add NET_RAW", "capabilities.add"):
        assert word in first
    assert missing_capability() is None


def test_a_ring_that_memory_does_not_allow_is_refused(namespace):
    with pytest.raises(CaptureError, match="the kernel gives no ring of 4194304 MiB"):
        AfPacket("here", block_count=2**22)


def test_jumbo_segments_come_whole(namespace):
    """Segmentation offload: a TCP segment on veth can have 64 KiB."""
    receive = """
import socket
server = socket.create_server(("10.77.0.2", 8080))
print("ready", flush=True)
connection, _ = server.accept()
while connection.recv(1 << 20):
    pass
"""
    server = namespace.far_python(receive)
    source = AfPacket("here")
    total = 4 << 20
    for _ in range(100):
        try:
            client = socket.create_connection(("10.77.0.2", 8080), 5)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)

    def talk():
        client.sendall(bytes(total))
        client.close()

    talker = threading.Thread(target=talk)
    talker.start()
    lengths: list[int] = []
    payload = 0
    for octets, rows in source.batches():
        for row in rows:
            frame = octets[row.offset :][: row.captured_length]
            assert row.captured_length == row.original_length
            if frame[12] == 8 and frame[23] == 6 and frame[29] == 1 and frame[33] == 2:
                total_length = struct.unpack(">H", frame[16:18].tobytes())[0]
                payload += total_length - 20 - (int(frame[46]) >> 4) * 4
                lengths.append(int(row.captured_length))
        if not len(rows) and not talker.is_alive() and server.poll() is not None:
            break
    talker.join()
    source.close()
    assert server.returncode == 0
    assert payload >= total
    assert max(lengths) > 1514
