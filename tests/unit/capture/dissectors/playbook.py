"""Reads small recorded captures (pcap, Ethernet, IPv4) and lets conversations take their octets.

Only for captures without losses or retransmissions: what reassembly does is tested elsewhere.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange, dumped
from services.capture.dissectors.signatures import CLIENT, SERVER

CAPTURES = Path(__file__).parents[3] / "golden" / "captures"
Said = list[tuple[int, bytes, int]]  # side, octets, time in ns


def connections(name: str, port: int) -> list[Said]:
    """Return what was said in each connection to a port, in the order in which they began."""
    found: dict[tuple[bytes, int], Said] = {}
    for time_ns, frame in _frames(CAPTURES / name):
        ip = frame[14:]
        head = (ip[0] & 15) * 4
        tcp = ip[head : int.from_bytes(ip[2:4], "big")]
        source, target = struct.unpack(">HH", tcp[:4])
        payload = tcp[(tcp[12] >> 4) * 4 :]
        side = CLIENT if target == port else SERVER
        key = (ip[12:16], source) if side == CLIENT else (ip[16:20], target)
        if port in (source, target) and payload:
            found.setdefault(key, []).append((side, payload, time_ns))
    return list(found.values())


def _frames(path: Path) -> Iterator[tuple[int, bytes]]:
    data, at = path.read_bytes(), 24
    assert data[:4] == b"\xd4\xc3\xb2\xa1"
    assert data[20:24] == b"\x01\0\0\0"
    while at < len(data):
        seconds, micros, length, whole = struct.unpack_from("<IIII", data, at)
        assert length == whole
        yield (seconds * 10**6 + micros) * 1000, data[at + 16 : at + 16 + length]
        at += 16 + length


def play(new: Callable[[], Conversation], said: Said) -> list[Exchange]:
    """Let a conversation take what was said; return all of its exchanges."""
    conversation = new()
    for side, octets, time_ns in said:
        if conversation.is_over:
            break
        conversation.receive(side, memoryview(octets), time_ns)
    conversation.close(said[-1][2])
    return conversation.exchanges


def split(said: Said, lengths: Callable[[], int]) -> Said:
    """Return the same in other segments, each as long as `lengths` says; times stay."""
    pieces: Said = []
    for side, octets, time_ns in said:
        at = 0
        while at < len(octets):
            length = lengths()
            pieces.append((side, octets[at : at + length], time_ns))
            at += length
    return pieces


def facts(exchanges: list[Exchange]) -> list[tuple[object, ...]]:
    """Return what does not depend on how the octets came."""
    return [
        (e.start_ns, e.end_ns, e.request, e.response, e.request_size, e.response_size, e.error_type)
        for e in exchanges
    ]


def play_with_gap(
    new: Callable[[], Conversation], said: Said, lost: int, known: bool = True
) -> list[Exchange]:
    """As play, but segment `lost` is missing."""
    conversation = new()
    for number, (side, octets, time_ns) in enumerate(said):
        if conversation.is_over:
            break
        if number == lost:
            conversation.gap(side, len(octets) if known else 0, time_ns)
        else:
            conversation.receive(side, memoryview(octets), time_ns)
    conversation.close(said[-1][2])
    return conversation.exchanges


def play_damaged(new: Callable[[], Conversation], said: Said, random: Random) -> None:
    """Play it with some octets changed, and some segments lost, twice or exchanged.

    Raises what no conversation may: everything but ProtocolError.
    """
    damaged = list(said)
    for _ in range(random.randint(1, 6)):
        place = random.randrange(len(damaged))
        side, octets, time_ns = damaged[place]
        choice = random.randrange(6)
        if choice == 0:
            damaged.pop(place)
            if not damaged:
                return
        elif choice == 1:
            damaged.insert(random.randrange(len(damaged)), (side, octets, time_ns))
        elif choice == 2:
            damaged[place] = (side, octets[: random.randrange(len(octets) + 1)], time_ns)
        else:
            changed = bytearray(octets) or bytearray(1)
            for _ in range(random.randint(1, 4)):
                changed[random.randrange(len(changed))] = random.choice(
                    (0, 1, 255, random.randrange(256))
                )
            damaged[place] = (side, bytes(changed), time_ns)
    conversation = new()
    try:
        for side, octets, time_ns in damaged:
            if random.random() < 0.03:
                conversation.gap(side, random.choice((0, 1, len(octets))), time_ns)
                continue
            conversation.receive(side, memoryview(octets), time_ns)
            if conversation.is_over:
                break
    except ProtocolError:
        pass
    conversation.close(0)
    for exchange in conversation.exchanges:
        assert dumped([exchange.request, exchange.response])
