"""Frames of small HTTP conversations, made by scapy."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

from services.capture.frames.batch import FRAME, FrameBatch

START_NS = 1_700_000_000_000_000_000
ETHERNET = 1


class Conversation:
    """One TCP connection to port 80; every method returns the frames that it adds, in order."""

    def __init__(self, client_port: int, server: str = "10.0.0.2") -> None:
        self._port = client_port
        self._server = server
        self._next = [1000, 5000]  # sequence numbers of client and server

    def opening(self) -> list[Packet]:
        syn = self._frame(0, "S")
        self._next[0] += 1
        answer = self._frame(1, "SA")
        self._next[1] += 1
        return [syn, answer, self._frame(0, "A")]

    def raw(self, octets: bytes) -> list[Packet]:
        """A request, octet for octet."""
        return [self._data(0, octets)]

    def answer(self, octets: bytes) -> list[Packet]:
        """A response, octet for octet."""
        return [self._data(1, octets)]

    def request(self, path: str, method: str = "GET") -> list[Packet]:
        return [self._data(0, f"{method} {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())]

    def response(self, status: int, body: bytes = b"") -> list[Packet]:
        head = f"HTTP/1.1 {status} Because\r\nContent-Length: {len(body)}\r\n\r\n"
        return [self._data(1, head.encode() + body)]

    def call(self, path: str, status: int, body: bytes = b"") -> list[Packet]:
        return self.request(path) + self.response(status, body)

    def closing(self) -> list[Packet]:
        first = self._frame(0, "FA")
        self._next[0] += 1
        second = self._frame(1, "FA")
        self._next[1] += 1
        return [first, second, self._frame(0, "A")]

    def _data(self, side: int, octets: bytes) -> Packet:
        frame = self._frame(side, "PA") / Raw(octets)
        self._next[side] += len(octets)
        return frame

    def _frame(self, side: int, flags: str) -> Packet:
        ends: list[tuple[str, int]] = [("10.0.0.1", self._port), (self._server, 80)]
        (source, source_port), (target, target_port) = ends[side], ends[1 - side]
        macs = ["02:00:00:00:00:01", "02:00:00:00:00:02"]
        return (
            Ether(src=macs[side], dst=macs[1 - side])
            / IP(src=source, dst=target)
            / TCP(
                sport=source_port,
                dport=target_port,
                flags=flags,
                seq=self._next[side],
                ack=0 if flags == "S" else self._next[1 - side],
            )
        )


class Wire:
    """Gives frames their times: a microsecond apart, over all batches."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def batch(self, packets: Sequence[Packet]) -> FrameBatch:
        """Return the frames as a source yields them."""
        octets = [bytes(packet) for packet in packets]
        frames = np.zeros(len(octets), FRAME)
        offset = 0
        for row, each in enumerate(octets):
            self.now_ns += 1000
            frames[row] = (self.now_ns, offset, len(each), len(each), ETHERNET, 0, 0)
            offset += len(each)
        return FrameBatch(np.frombuffer(bytearray(b"".join(octets)), np.uint8), frames)


def write_pcap(path: Path, packets: Sequence[Packet]) -> None:
    """Write a capture file, whose frames are a microsecond apart."""
    for number, packet in enumerate(packets):
        moment: Any = START_NS / 1e9 + number / 1e6
        packet.time = moment
    wrpcap(str(path), list(packets))
