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
from pathlib import Path

import numpy as np
import pytest

from services.capture.frames.afpacket import AfPacket, missing_capability
from services.capture.frames.batch import CaptureError
from tests.integration.capture.veth import (
    frames_until,
    ip,
    numbers_until_idle,
)

pytestmark = pytest.mark.root

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
        octets, rows, _ = next(batches)
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


def test_the_tag_that_was_taken_off_is_in_the_row(namespace):
    frame = b"\2" * 12 + b"\x81\x00\x60\x07\x08\x00" + b"inner packet" + bytes(40)
    send = "import socket; s = socket.socket(17, 3, 0); s.bind(('there', 0)); s.send(%r)"
    source = AfPacket("here")
    sender = namespace.far_python(send % frame)
    tags = {}
    for octets, rows, _ in source.batches():
        for row in rows:
            tags[octets[row.offset :][: row.captured_length].tobytes()] = int(row.vlan)
        if frame[:12] + frame[16:] in tags:
            break
    sender.wait()
    source.close()
    assert tags[frame[:12] + frame[16:]] == 0x6007
    assert [tag for octets, tag in tags.items() if b"inner packet" not in octets] in ([], [0])


def test_a_link_layer_that_nobody_reads_is_a_loss_that_says_which(namespace):
    if not Path("/dev/net/tun").exists():
        pytest.skip("needs /dev/net/tun")
    tunnel = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH22x", b"tunnel", 0x0001))
    ip("-n", namespace.name, "link", "set", "tunnel", "up")
    source = AfPacket()
    for _ in range(3):
        os.write(tunnel, b"\0\0\x88\xb5" + bytes(60))  # its EtherType, and octets
    os.write(tunnel, b"\0\0\x08\x06" + bytes(28))  # ARP tells no calls, so none are missed
    frames_until(source, lambda _: source.counts.unknown_link_layer == 3)
    (loss,) = source.losses()
    again = source.losses()
    source.close()
    os.close(tunnel)
    assert (loss.kind, loss.packets) == ("unknown_link", 3)
    assert "on any; the last one: hardware type 65534" in loss.detail
    assert "0x88b5" in loss.detail
    assert again == []


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
    for octets, rows, _ in source.batches():
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
