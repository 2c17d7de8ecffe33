"""Damage to conversations: what a hostile or broken network can do to frames and to their order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np

from services.capture.frames.batch import UNDIRECTED
from tests.fuzz.frames import Piece
from tests.unit.capture import conversation as wire
from tests.unit.capture import talks

SECOND = 1_000_000_000
JUMPS_NS = (
    0, -1, -1000, -SECOND, SECOND, 61 * SECOND, -61 * SECOND, 3600 * SECOND, -3600 * SECOND,
    10**8 * SECOND, -(10**8) * SECOND, 1 << 62, -(1 << 62),
)  # fmt: skip
"""Of the time between two frames: a clock that is set, a file that was put together, nonsense."""

OCTETS = (0, 1, 0x0A, 0x0D, 0x20, 0x3A, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
WORDS = (0, 1, 7, 8, 19, 20, 28, 0x1FFF, 0x2000, 0x3FFF, 0x7FFF, 0x8000, 0xC00C, 0xFFFE, 0xFFFF)
SEQUENCE_STEPS = (1, -1, 5, -5, 1460, -1460, 70_000, -70_000, 1 << 27, 1 << 31, -(1 << 31), -1)
ETHERTYPES = (0x0800, 0x86DD, 0x8100, 0x88A8, 0x9100, 0x8847, 0x8848, 0x8864, 0x0806, 0x6558)
PROTOCOLS = (0, 1, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139, 140)
LINK_TYPES = (0, 1, 12, 14, 101, 108, 113, 228, 229, 276, 105, 127, 195, 65_535)
MOST_OCTETS = 70_000
"""Of a damaged frame: a little more than an IP packet can be long."""

Pieces = list[Piece]


# Of one frame ------------------------------------------------------------------------------------


def bits(chance: random.Random, frame: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        frame[_place(chance, frame)] ^= 1 << chance.randrange(8)


def octets(chance: random.Random, frame: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 2, 4))):
        frame[_place(chance, frame)] = chance.choice(OCTETS)


def words(chance: random.Random, frame: bytearray) -> None:
    """Two octets at once: lengths, counts, pointers, offsets."""
    if len(frame) >= 2:
        at = _place(chance, frame) & ~1
        near = len(frame) - at + chance.randrange(-4, 5)
        value = chance.choice((*WORDS, near & 0xFFFF, chance.randrange(1 << 16)))
        frame[at : at + 2] = value.to_bytes(2, "big")


def cut(chance: random.Random, frame: bytearray) -> None:
    del frame[_place(chance, frame) :]


def longer(chance: random.Random, frame: bytearray) -> None:
    frame += chance.choice((bytes(1), b"\xff" * 7, chance.randbytes(60), bytes(frame)))


def shifted(chance: random.Random, frame: bytearray) -> None:
    """Octets that go, or come, in the middle."""
    at = _place(chance, frame)
    if chance.random() < 0.5:
        del frame[at : at + chance.randrange(1, 9)]
    else:
        frame[at:at] = chance.randbytes(chance.randrange(1, 9))


def doubled(chance: random.Random, frame: bytearray) -> None:
    """A part of it again and again: options, labels, chunks, names."""
    at = _place(chance, frame)
    part = frame[at : at + chance.choice((1, 2, 4, 20, 60))]
    frame[at:at] = part * chance.choice((1, 3, 20, 200))


def link(chance: random.Random, frame: bytearray) -> None:
    if len(frame) >= 14:
        frame[12:14] = chance.choice(ETHERTYPES).to_bytes(2, "big")


def tags(chance: random.Random, frame: bytearray) -> None:
    kinds = (b"\x81\0", b"\x88\xa8", b"\x91\0")
    count = chance.randrange(1, 6)
    more = chance.choice(kinds) + chance.choice((0, 1, 4095)).to_bytes(2, "big")
    frame[12:12] = more * count


def network(chance: random.Random, frame: bytearray) -> None:
    """A field of the IP header: version and size, lengths, fragment bits, protocol."""
    at = _network_at(frame)
    if at < 0:
        return
    is_4 = frame[at] >> 4 == 4
    offset = chance.choice((0, 2, 3, 4, 5, 6, 7, 9) if is_4 else (0, 4, 5, 6, 40, 41, 42, 43))
    if at + offset < len(frame):
        usual = PROTOCOLS if offset in (6, 9, 40) else OCTETS
        frame[at + offset] = chance.choice((*usual, chance.randrange(256)))


def sequence(chance: random.Random, frame: bytearray) -> None:
    """A field of the TCP header: sequence, acknowledgement, size, flags."""
    at = _tcp_at(frame)
    if at < 0:
        return
    kind = chance.random()
    if kind < 0.6:
        field = at + (4 if kind < 0.4 else 8)
        _add(frame, field, chance.choice(SEQUENCE_STEPS))
    elif kind < 0.8:
        frame[at + 13] = chance.choice((2, 4, 0x11, 0x12, 0x14, 0x18, 3, 0, 0xFF))
    else:
        frame[at + 12] = chance.choice((0, 0x40, 0x50, 0x60, 0xF0))


OF_A_FRAME: tuple[Callable[[random.Random, bytearray], None], ...] = (
    bits, octets, words, words, cut, longer, shifted, doubled, link, tags, network, network,
    sequence, sequence,
)  # fmt: skip


OF_A_FILE = (bits, octets, words, cut, shifted, doubled)
"""What needs no frame."""


def _place(chance: random.Random, frame: bytearray) -> int:
    """Any octet; half of the time one of the headers."""
    size = len(frame) if chance.random() < 0.5 else min(len(frame), 120)
    return chance.randrange(max(size, 1)) if frame else 0


def _network_at(frame: bytearray | bytes) -> int:
    """Where the IP header begins behind Ethernet and VLANs, or -1."""
    at = 12
    while frame[at : at + 2] in (b"\x81\0", b"\x88\xa8"):
        at += 4
    return at + 2 if frame[at : at + 2] in (b"\x08\0", b"\x86\xdd") and len(frame) > at + 2 else -1


def _tcp_at(frame: bytearray | bytes) -> int:
    """Where the TCP header of a plain packet begins, or -1."""
    at = _network_at(frame)
    if at < 0:
        return -1
    is_4 = frame[at] >> 4 == 4
    size, field = (20, 9) if is_4 else (40, 6)
    if len(frame) < at + size + 20 or frame[at + field] != 6:
        return -1
    return at + size


def _add(frame: bytearray, at: int, step: int) -> None:
    value = int.from_bytes(frame[at : at + 4], "big") + step
    frame[at : at + 4] = (value & 0xFFFFFFFF).to_bytes(4, "big")


# Of a conversation -------------------------------------------------------------------------------


def renumbered(chance: random.Random, pieces: Pieces) -> Pieces:
    """The same conversation of other addresses, so that it is a flow of its own."""
    mask = chance.randrange(1, 1 << 8)
    found = []
    for piece in pieces:
        at = _network_at(piece.frame)
        if at < 0 or piece.link_type != wire.ETHERNET or len(piece.frame) < at + 40:
            found.append(piece)
            continue
        frame = bytearray(piece.frame)
        places = (14, 18) if frame[at] >> 4 == 4 else (12, 28)
        for place in places:
            frame[at + place] ^= mask
        found.append(_with(piece, frame))
    return found


def as_it_is(chance: random.Random, pieces: Pieces) -> Pieces:
    return pieces


def lost(chance: random.Random, pieces: Pieces) -> Pieces:
    return [each for each in pieces if chance.random() < 0.8]


def again(chance: random.Random, pieces: Pieces) -> Pieces:
    """Some twice or often, some much later."""
    found = list(pieces)
    for _ in range(chance.randrange(1, 5)):
        at, to = chance.randrange(len(pieces)), chance.randrange(len(found) + 1)
        found[to:to] = [pieces[at]] * chance.choice((1, 1, 2, 30))
    return found


def out_of_order(chance: random.Random, pieces: Pieces) -> Pieces:
    found = list(pieces)
    if chance.random() < 0.2:
        chance.shuffle(found)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(found))
        found.insert(chance.randrange(len(found)), found.pop(at))
    return found


def around_the_wrap(chance: random.Random, pieces: Pieces) -> Pieces:
    """Sequence numbers of both sides go over 2**32 within the conversation."""
    first: dict[bytes, int] = {}
    found = []
    for piece in pieces:
        at = _tcp_at(piece.frame)
        if at < 0:
            found.append(piece)
            continue
        frame = bytearray(piece.frame)
        own, other = bytes(frame[at : at + 2]), bytes(frame[at + 2 : at + 4])
        number = int.from_bytes(frame[at + 4 : at + 8], "big")
        step = first.setdefault(own, -number - chance.randrange(1, 200))
        _add(frame, at + 4, step)
        _add(frame, at + 8, first.get(other, 0))
        found.append(_with(piece, frame))
    return found


def overlapping(chance: random.Random, pieces: Pieces) -> Pieces:
    """Segments sent again that begin and end elsewhere, and some that say something else."""
    found = []
    for piece in pieces:
        found.append(piece)
        at = _tcp_at(piece.frame)
        if at < 0 or chance.random() < 0.6:
            continue
        frame = bytearray(piece.frame)
        _add(frame, at + 4, chance.choice((-3, -1, 0, 1, 2, 7)))
        if chance.random() < 0.5:
            del frame[at + 20 + chance.randrange(1, 40) :]
        elif chance.random() < 0.5:
            frame += b"more of it"
        if chance.random() < 0.3:
            frame[at + 20 :] = bytes(len(frame) - at - 20)
        found.append(_with(piece, frame))
    return found


def fragmented(chance: random.Random, pieces: Pieces) -> Pieces:
    """In fragments, some of which overlap, are lost, or come twice."""
    found: Pieces = []
    for piece in pieces:
        frame = piece.frame
        if frame[12:14] not in (b"\x08\0", b"\x86\xdd") or len(frame) < 62 or piece.link_type != 1:
            found.append(piece)
            continue
        size = len(frame) - (54 if frame[12] == 0x86 else 34)
        cuts = sorted({8 * chance.randrange(1, size // 8 + 1) for _ in range(3)})
        edges = [0, *(each for each in cuts if each < size), size]
        pairs = [
            (max(0, begin - 8 * (chance.random() < 0.1)), end)
            for begin, end in itertools.pairwise(edges)
        ]
        parts = wire.fragments(frame[14:], pairs, chance.randrange(1 << 16))
        made = [_with(piece, frame[:14] + part) for part in parts]
        if chance.random() < 0.3:
            chance.shuffle(made)
        found += again(chance, made) if chance.random() < 0.1 else made
    return lost(chance, found) if chance.random() < 0.3 else found


def in_tunnels(chance: random.Random, pieces: Pieces) -> Pieces:
    """Up to six tunnels in each other; whether all frames go through the same ones is chance."""
    numbers = np.random.default_rng(chance.randrange(1 << 32))
    count = chance.choice((1, 1, 2, 3, 6))
    for _ in range(count):
        kinds = talks.carriers(numbers, ("10.1.0.1", "10.1.0.2"))
        carry = chance.choice(kinds)
        pieces = [
            _with(piece, carry(piece.frame))
            if _network_at(piece.frame) == 14 and len(piece.frame) < 60_000
            else piece
            for piece in pieces
        ]
    return pieces


def tagged(chance: random.Random, pieces: Pieces) -> Pieces:
    """In a VLAN, whose tag the interface may have taken off."""
    tag = chance.choice((1, 5, 4095, 0xE005, 0xFFFF))
    found = []
    for piece in pieces:
        if chance.random() < 0.5:
            found.append(_with(piece, piece.frame, vlan=tag))
        else:
            octets = piece.frame[:12] + b"\x81\0" + tag.to_bytes(2, "big") + piece.frame[12:]
            found.append(_with(piece, octets))
    return found


def elsewhere(chance: random.Random, pieces: Pieces) -> Pieces:
    """Seen on several interfaces of a node, coming and leaving."""
    found = []
    for piece in pieces:
        for _ in range(chance.choice((1, 1, 2, 4, 12))):
            number = chance.choice((0, 1, 2, 3, -1, -2, -3, UNDIRECTED | 4, UNDIRECTED | 5))
            found.append(_with(piece, piece.frame, interface=number))
    return found


def other_link(chance: random.Random, pieces: Pieces) -> Pieces:
    """Of another link layer, with the header that belongs to it, or not."""
    kind = chance.choice(LINK_TYPES)
    found = []
    for piece in pieces:
        ethertype, packet = piece.frame[12:14], piece.frame[14:]
        if kind == 276:
            head = ethertype + bytes(18)
        else:
            size = {0: 4, 108: 4, 113: 16, 1: 14}.get(kind, 0)
            head = (bytes(16) + ethertype)[-size:] if size else b""
        found.append(_with(piece, head + packet, link_type=kind))
    return found


def at_other_times(chance: random.Random, pieces: Pieces) -> Pieces:
    return [
        _with(piece, piece.frame, after_ns=chance.choice(JUMPS_NS))
        if chance.random() < 0.2
        else piece
        for piece in pieces
    ]


def cut_by_snaplen(chance: random.Random, pieces: Pieces) -> Pieces:
    length = chance.choice((0, 13, 14, 33, 34, 54, 68, 96, 200))
    return [
        _with(piece, piece.frame[:length], cut=max(0, len(piece.frame) - length))
        for piece in pieces
    ]


def spliced(chance: random.Random, pieces: Pieces) -> Pieces:
    """The head of one frame with the tail of another."""
    found = list(pieces)
    for _ in range(chance.randrange(1, 6)):
        one, other = chance.choice(pieces).frame, chance.choice(pieces).frame
        head, tail = chance.randrange(len(one) + 1), chance.randrange(len(other) + 1)
        made = (one[:head] + other[tail:])[:MOST_OCTETS]
        found.insert(chance.randrange(len(found)), _with(pieces[0], made))
    return found


def each_damaged(chance: random.Random, pieces: Pieces) -> Pieces:
    """Every frame by its own chance, which is small or large."""
    share = chance.choice((0.02, 0.1, 0.5, 1.0))
    found = []
    for piece in pieces:
        if chance.random() < share:
            frame = bytearray(piece.frame)
            for _ in range(chance.choice((1, 1, 1, 3))):
                if frame:
                    chance.choice(OF_A_FRAME)(chance, frame)
            piece = _with(piece, frame[:MOST_OCTETS])
        found.append(piece)
    return found


OF_A_CONVERSATION: tuple[Callable[[random.Random, Pieces], Pieces], ...] = (
    as_it_is, lost, again, out_of_order, around_the_wrap, overlapping, fragmented, in_tunnels,
    tagged, elsewhere, other_link, at_other_times, cut_by_snaplen, spliced,
)  # fmt: skip
WEIGHTS = (8, 3, 3, 3, 3, 3, 3, 3, 2, 1, 1, 1, 1, 1)


def damaged(chance: random.Random, pieces: Pieces) -> Pieces:
    """Return a conversation with some of this done to it."""
    for damage in chance.choices(OF_A_CONVERSATION, WEIGHTS, k=chance.randrange(4)):
        if pieces:
            pieces = damage(chance, pieces)
    return each_damaged(chance, pieces)


def _with(piece: Piece, frame: bytes | bytearray, **changed: int) -> Piece:
    kept = {
        name: getattr(piece, name) for name in ("after_ns", "cut", "link_type", "vlan", "interface")
    }
    return Piece(bytes(frame), **{**kept, **changed})
