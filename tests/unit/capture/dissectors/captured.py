"""TCP streams of a small capture file, given to conversations without the engine around them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.utils import PcapReader

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.signatures import CLIENT, SERVER

GOLDEN = Path(__file__).parents[3] / "golden" / "captures"

Segment = tuple[int, bytes, int]


def segments(path: Path) -> Iterator[list[Segment]]:
    """Yield the segments of each stream: side, octets, time; none is lost or twice in the file."""
    streams: dict[frozenset[tuple[str, int]], list[Segment]] = {}
    client: dict[frozenset[tuple[str, int]], tuple[str, int]] = {}
    with PcapReader(str(path)) as packets:
        for packet in packets:
            if TCP not in packet:
                continue
            address = packet[IP] if IP in packet else packet[IPv6]
            tcp = packet[TCP]
            source, target = (address.src, tcp.sport), (address.dst, tcp.dport)
            key = frozenset((source, target))
            client.setdefault(key, source)
            payload = bytes(tcp.payload)
            if payload:
                side = CLIENT if client[key] == source else SERVER
                streams.setdefault(key, []).append((side, payload, int(packet.time * 10**9)))
    yield from streams.values()


def exchanges(path: Path, new: Callable[[], Conversation]) -> list[Exchange]:
    """Return what all streams of a file give, in the order of their beginnings."""
    found = []
    for stream in segments(path):
        found += played(new(), [(side, octets) for side, octets, _ in stream])
    return found


def played(conversation: Conversation, steps: list[tuple[int, bytes | int]]) -> list[Exchange]:
    """Give octets, or gaps of so many, one a nanosecond; close it, and return the exchanges."""
    time_ns = 0
    for time_ns, (side, step) in enumerate(steps, 1):
        if conversation.is_over:
            break
        if isinstance(step, int):
            conversation.gap(side, step, time_ns)
        else:
            conversation.receive(side, memoryview(step), time_ns)
    conversation.close(time_ns)
    return conversation.exchanges


def cut(
    session: Sequence[tuple[int, bytes]], places: Iterable[int]
) -> list[tuple[int, bytes | int]]:
    """Cut what was said at places counted from its beginning, whoever said it."""
    steps: list[tuple[int, bytes | int]] = []
    wanted, at = set(places), 0
    for side, octets in session:
        here = (each - at for each in wanted if 0 < each - at < len(octets))
        steps += [(side, octets[a:b]) for a, b in pairwise(sorted({0, len(octets), *here}))]
        at += len(octets)
    return steps


def survives(conversation: Conversation, steps: list[tuple[int, bytes | int]]) -> None:
    """Whatever comes, only ProtocolError may be raised, and little is kept."""
    try:
        played(conversation, steps)
    except ProtocolError:
        conversation.close(1 << 40)
