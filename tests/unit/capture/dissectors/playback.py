"""What the sides of a stream say, played to a conversation: whole, in pieces, with holes, damaged.

What was said is a list of parts: a side, and octets or the number of those that are lost (0 for not
known). A third value is the time in ns; without one it is the number of the part, from 1.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from random import Random

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange, dumped

Part = tuple[int, bytes | int] | tuple[int, bytes | int, int]
Timed = list[tuple[int, bytes | int, int]]
ODD = (0, 1, 0x30, 0x7F, 0x80, 0xCE, 0xFF)
"""Octets that mean something to many protocols: lengths, signs, tags, ends."""


def timed(said: Iterable[Part]) -> Timed:
    """Give each part its time."""
    return [
        (side, octets, *(time_ns or [number]))
        for number, (side, octets, *time_ns) in enumerate(said, 1)
    ]


def play(
    new: Callable[[], Conversation], said: Iterable[Part], piece: int = 1 << 30
) -> list[Exchange]:
    """Return the exchanges of a stream whose segments have at most `piece` octets."""
    conversation, time_ns = new(), 0
    for side, octets, time_ns in in_pieces(said, piece):
        if conversation.is_over:
            break
        if isinstance(octets, int):
            conversation.gap(side, octets, time_ns)
        else:
            conversation.receive(side, memoryview(octets), time_ns)
    conversation.close(time_ns)
    return conversation.exchanges


def in_pieces(said: Iterable[Part], size: int | Callable[[], int]) -> Timed:
    """Cut all parts into pieces of so many octets, or of as many as `size` says of each."""
    pieces: Timed = []
    for side, octets, time_ns in timed(said):
        if isinstance(octets, int):
            pieces.append((side, octets, time_ns))
            continue
        at = 0
        while at < len(octets):
            length = size if isinstance(size, int) else size()
            pieces.append((side, octets[at : at + length], time_ns))
            at += length
    return pieces


def cut(said: Iterable[Part], places: Iterable[int]) -> Timed:
    """Cut what was said at places counted from its beginning, whoever said it."""
    pieces: Timed = []
    wanted, at = set(places), 0
    for side, octets, time_ns in timed(said):
        here = (each - at for each in wanted if 0 < each - at < len(octets))
        edges = sorted({0, len(octets), *here})
        pieces += [(side, octets[a:b], time_ns) for a, b in pairwise(edges)]
        at += len(octets)
    return pieces


def with_hole(said: Iterable[Part], where: int, begin: int, size: int, known: bool = True) -> Timed:
    """Leave out `size` octets from `begin` of the part number `where`; it may tell how many."""
    parts = timed(said)
    side, octets, time_ns = parts[where]
    lost = len(octets[begin : begin + size])
    around = octets[:begin], lost if known else 0, octets[begin + lost :]
    parts[where : where + 1] = [(side, each, time_ns) for each in around if each != b""]
    return parts


def with_gaps(said: Iterable[Part], size: int) -> Iterator[tuple[int, Timed]]:
    """Yield (part, what was said without some of its octets) for a hole at each of them."""
    parts = timed(said)
    for where, (_, octets, _) in enumerate(parts):
        for begin in range(len(octets)):
            yield where, with_hole(parts, where, begin, size)


def play_with_hole(
    new: Callable[[], Conversation], said: Iterable[Part], where: int, begin: int, size: int
) -> list[Exchange]:
    """As play, without some octets."""
    return play(new, with_hole(said, where, begin, size))


def losing_each(
    new: Callable[[], Conversation], said: Iterable[Part], known: bool
) -> Iterator[tuple[int, list[Exchange]]]:
    """Yield (part, exchanges) without each part; it may be told how long it was."""
    parts = timed(said)
    for where, (_, octets, _) in enumerate(parts):
        yield where, play(new, with_hole(parts, where, 0, len(octets), known))


def without_login(exchanges: list[Exchange]) -> list[Exchange]:
    """What a login tells is in all entries behind it, but is lost with it."""
    for exchange in exchanges:
        exchange.version = ""
        for key in ("user", "database"):
            (exchange.request or {}).pop(key, None)
    return exchanges


def damaged(said: Iterable[Part], chance: Random) -> Timed:
    """Change octets, take some away, put some in; lose parts, cut, repeat and exchange them."""
    parts = timed(said)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(parts))
        side, octets, time_ns = parts[place]
        if isinstance(octets, int):
            continue
        what = chance.randrange(10)
        if what == 0:
            parts.insert(chance.randrange(len(parts)), parts.pop(place))
        elif what == 1:
            parts.insert(chance.randrange(len(parts)), parts[place])
        elif what == 2:
            parts[place] = side, chance.choice((0, 1, len(octets))), time_ns
        elif what == 3:
            parts[place] = side, octets[: chance.randrange(len(octets) + 1)], time_ns
        else:
            parts[place] = side, _changed(octets, chance), time_ns
    return parts


def _changed(octets: bytes, chance: Random) -> bytes:
    changed = bytearray(octets)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(changed) + 1)
        chosen = chance.choice((*ODD, chance.randrange(256)))
        if chance.random() < 0.6:
            changed[at : at + 1] = bytes([chosen])
        else:
            changed[at : at + chance.randrange(3)] = bytes([chosen] * chance.randrange(3))
    return bytes(changed)


def bear_damage(
    new: Callable[[], Conversation], said: Iterable[Part], rounds: int, seed: int
) -> None:
    """Play it damaged, many times: see survives()."""
    parts, chance = timed(said), Random(seed)
    for _ in range(rounds):
        survives(new, in_pieces(damaged(parts, chance), chance.choice((1, 7, 1 << 30))))
        survives(new, [(parts[0][0], chance.randbytes(chance.randrange(60)))])


def survives(new: Callable[[], Conversation], said: Iterable[Part]) -> None:
    """Whatever is said, only ProtocolError may be raised, and what comes out can be written."""
    conversation = new()
    try:
        play(lambda: conversation, said)
    except ProtocolError:
        conversation.close(1 << 40)
    assert dumped([(each.request, each.response) for each in conversation.exchanges])
