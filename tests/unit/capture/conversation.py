"""Frames of conversations that a test spells out, as a capture would show them."""

import ipaddress
import itertools
import struct

import numpy as np

from services.capture.frames.batch import FRAME, FrameBatch

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ETHERNET = 1
MILLISECOND = 1_000_000
START = 1_700_000_000 * 1_000_000_000


def ipv4(source, destination, protocol, payload, fragment=0, identification=1, hops=64):
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identification, fragment, hops, protocol, 0,
        ipaddress.ip_address(source).packed, ipaddress.ip_address(destination).packed,
    )  # fmt: skip
    return header + payload


def ipv6(source, destination, protocol, payload, extensions=b""):
    header = struct.pack("!IHBB", 6 << 28, len(extensions) + len(payload), protocol, 64)
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return header + packed + extensions + payload


def fragments(packet, cuts, identification=1):
    """The packet (no extension headers) in fragments that begin at the octets `cuts` and at 0.

    Cuts are multiples of 8; pairs of (begin, end) may be given instead, to have them overlap.
    """
    is_6 = packet[0] >> 4 == 6
    head, payload = packet[: 40 if is_6 else 20], packet[40 if is_6 else 20 :]
    if not cuts or isinstance(cuts[0], int):
        edges = [0, *cuts, len(payload)]
        cuts = list(itertools.pairwise(edges))
    found = []
    for begin, end in cuts:
        more = end < len(payload)
        if is_6:
            extra = struct.pack("!BBHI", head[6], 0, begin | more, identification)
            size = struct.pack("!HB", 8 + end - begin, 44)
            found.append(head[:4] + size + head[7:] + extra + payload[begin:end])
        else:
            size = struct.pack("!HHH", 20 + end - begin, identification, more << 13 | begin // 8)
            found.append(head[:2] + size + head[8:] + payload[begin:end])
    return found


def tcp(source_port, destination_port, sequence, acknowledgement, flags, payload=b""):
    return struct.pack(
        "!HHIIBBHHH", source_port, destination_port, sequence % 2**32, acknowledgement % 2**32,
        5 << 4, flags, 65535, 0, 0,
    ) + payload  # fmt: skip


def udp(source_port, destination_port, payload):
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def ethernet(packet, vlans=()):
    ethertype = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    tags = b"".join(struct.pack("!HH", 0x8100, vlan) for vlan in vlans)
    return b"\2" * 6 + b"\4" * 6 + tags + struct.pack("!H", ethertype) + packet


def batch(frames, link_type=ETHERNET, start=START, originals=None, interfaces=None):
    """A FrameBatch of frames (bytes), a millisecond apart; each a (ns, bytes) pair or bytes."""
    pairs = [
        each if isinstance(each, tuple) else (start + number * MILLISECOND, each)
        for number, each in enumerate(frames)
    ]
    rows = np.zeros(len(pairs), FRAME)
    offset = 0
    for number, (timestamp, frame) in enumerate(pairs):
        length = len(frame) if originals is None else originals[number]
        rows[number] = (timestamp, offset, len(frame), length, link_type, 0, 0)
        offset += len(frame)
    if interfaces is not None:
        rows["interface"] = interfaces
    octets = np.frombuffer(bytearray(b"".join(frame for _, frame in pairs)), np.uint8)
    return FrameBatch(octets, rows)


class Conversation:
    """A TCP connection, seen from the wire: `frames` in the order in which they were sent."""

    def __init__(self, client="10.0.0.1", server="10.0.0.2", client_port=40000, server_port=80,
                 first=(1000, 9000), vlans=()):  # fmt: skip
        self.ends = {"client": (client, client_port), "server": (server, server_port)}
        self.next = {"client": first[0], "server": first[1]}
        self.vlans = vlans
        self.frames = []

    def _send(self, who, flags, payload=b""):
        other = "server" if who == "client" else "client"
        (source, source_port), (target, target_port) = self.ends[who], self.ends[other]
        segment = tcp(source_port, target_port, self.next[who], self.next[other], flags, payload)
        build = ipv6 if ":" in source else ipv4
        self.frames.append(ethernet(build(source, target, 6, segment), self.vlans))
        self.next[who] += len(payload) + bool(flags & (SYN | FIN))
        return self

    def open(self):
        self._send("client", SYN)
        self._send("server", SYN | ACK)
        return self._send("client", ACK)

    def client(self, octets, size=1460):
        return self._say("client", octets, size)

    def server(self, octets, size=1460):
        return self._say("server", octets, size)

    def _say(self, who, octets, size):
        for start in range(0, len(octets), size):
            self._send(who, PSH | ACK, octets[start : start + size])
        return self

    def skip(self, who, size):
        """These octets were sent, but the capture did not see them."""
        self.next[who] += size
        return self

    def close(self, first="server"):
        other = "server" if first == "client" else "client"
        self._send(first, FIN | ACK)
        return self._send(other, FIN | ACK)

    def reset(self, who):
        return self._send(who, RST)


def hot_columns(calls):
    """All hot columns of calls as lists, but those that say nothing of their own of each call."""
    columns, found = calls.columns(), {}
    for name in columns:
        if name.endswith(("_headers", "_keys", "_abbrs")):
            continue
        column = columns[name]
        if callable(column):
            column = column(np.arange(len(calls)))
        if hasattr(column, "to_pylist"):
            found[name] = column.to_pylist()
        else:
            found[name] = np.broadcast_to(column, len(calls)).tolist()
    return found
