"""Two network namespaces joined by a veth pair, numbered frames, and what a source yields."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

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
    for octets, rows, _ in source.batches():
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
    for octets, rows, _ in source.batches():
        if len(rows):
            where = rows["offset"][:, None] + np.arange(NUMBER.start, NUMBER.stop)
            found.append(octets[where].view(">u8")[:, 0].astype(np.int64))
        elif sender.poll() is not None:
            break
    assert sender.returncode == 0
    return np.concatenate(found) if found else np.zeros(0, np.int64)
