"""Interfaces that come and go, and sockets that share one, in namespaces."""

import socket
import subprocess
import sys

import numpy as np
import pytest

from services.capture.frames.afpacket import AfPacket
from services.capture.frames.batch import CaptureError
from services.capture.frames.interfaces import open_interfaces
from services.capture.kernelfilter import Filterable
from services.capture.worker import open_source
from services.runtime.settings import CaptureSettings
from tests.integration.capture.veth import frames_until, ip

pytestmark = pytest.mark.root

RING = 8 << 20


def say(text: bytes, address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(text, (address, 9))


def is_heard(source, text: bytes) -> bool:
    found = frames_until(source, lambda frames: any(text in frame for frame in frames))
    return any(text in frame for frame, _, _ in found)


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


def add_pair(namespace, name: str, number: int) -> None:
    ip("-n", namespace.name, "link", "add", name, "type", "veth", "peer", f"{name}x")
    ip("-n", namespace.name, "link", "set", f"{name}x", "up")
    ip("-n", namespace.name, "addr", "add", f"10.9{number}.0.1/24", "dev", name)
    ip("-n", namespace.name, "link", "set", name, "up", "arp", "off")


def test_an_interface_that_fits_a_wildcard_is_captured_from_when_it_comes(namespace):
    source = open_interfaces(["pod*"], RING)
    add_pair(namespace, "pod1", 1)
    frames_until(source, lambda _: bool(source._sources), seconds=10)
    say(b"new here", "10.91.0.2")
    assert is_heard(source, b"new here")
    source.close()


def test_an_interface_that_goes_ends_nothing_and_is_found_again(namespace):
    add_pair(namespace, "pod1", 1)
    source = open_interfaces(["pod1", "here"], RING)
    ip("-n", namespace.name, "link", "del", "pod1")
    frames_until(source, lambda _: "pod1" not in source._sources, seconds=10)
    say(b"over there", "10.77.0.2")
    assert is_heard(source, b"over there")
    add_pair(namespace, "pod1", 1)
    frames_until(source, lambda _: "pod1" in source._sources, seconds=10)
    say(b"back again", "10.91.0.2")
    assert is_heard(source, b"back again")
    source.close()


def test_a_name_without_wildcards_has_to_be_there(namespace):
    with pytest.raises(CaptureError, match="there is no interface 'pod1'; there are any, lo, here"):
        open_interfaces(["pod1"], RING)


def test_a_program_holds_for_interfaces_that_come_later(namespace):
    source = open_interfaces(["pod*"], RING)
    source.attach([(0x06, 0, 0, 0)])  # keep nothing
    add_pair(namespace, "pod1", 1)
    frames_until(source, lambda _: bool(source._sources), seconds=10)
    say(b"not seen", "10.91.0.2")
    source.attach(None)
    say(b"seen", "10.91.0.2")
    frames = frames_until(source, lambda frames: any(b"seen" in f for f in frames))
    assert [f for f, _, _ in frames if b"not seen" in f] == []
    source.close()


UDP_SENDER = """
import socket, sys
for port in range(20000, 20000 + int(sys.argv[1])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("10.77.0.1", port))
        for _ in range(3):
            sender.sendto(b"flow", ("10.77.0.2", 9))
"""


def test_sockets_of_a_group_share_the_flows_and_lose_none(namespace):
    ip("-n", namespace.name, "neigh", "add", "10.77.0.2", "lladdr", "02:00:00:00:00:01", "dev",
       "here")  # fmt: skip
    sources = [AfPacket("here", block_count=8, fanout_group=77) for _ in range(2)]
    command = ["ip", "netns", "exec", namespace.name, sys.executable, "-c", UDP_SENDER, "50"]
    subprocess.run(command, check=True)
    ports = []
    for source in sources:
        frames = frames_until(source, lambda _: False, seconds=0.5)
        ports.append([int.from_bytes(f[34:36], "big") for f, _, _ in frames if f.endswith(b"flow")])
        source.close()
    counted = np.bincount(np.array(ports[0] + ports[1]) - 20000, minlength=50)
    assert counted.tolist() == [3] * 50
    assert not set(ports[0]) & set(ports[1])
    assert ports[0]
    assert ports[1]


def test_a_filter_of_the_operator_holds_whatever_the_jobs_need(namespace):
    settings = CaptureSettings(interface=["lo"], bpf="udp port 9999")
    source = open_source(settings)
    assert not isinstance(source, Filterable)
    for port in (9998, 9999):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"to %d" % port, ("127.0.0.1", port))
    found = frames_until(source, lambda frames: any(b"to 9999" in frame for frame in frames))
    assert [frame[-7:] for frame, _, _ in found if b"to " in frame] == [b"to 9999"]
    source.close()


def test_a_wrong_filter_of_the_operator_ends_the_agent_with_the_reason(namespace):
    with pytest.raises(CaptureError, match="the capture filter 'prot 80' is not right"):
        open_source(CaptureSettings(interface=["lo"], bpf="prot 80"))
