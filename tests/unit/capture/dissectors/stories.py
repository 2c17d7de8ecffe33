"""What every conversation has to bear: any cut into segments, lost octets, octets that are wrong.

A story is a list of (side, octets), as both sides of a stream said them.
"""

import random
from collections.abc import Iterable

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange

Story = list[tuple[int, bytes]]
SECOND = 1_000_000_000


def told(conversation: Conversation, story: Iterable[tuple[int, bytes | int]]) -> list[Exchange]:
    """Return what a conversation makes of a story, one part a second; a number is a gap."""
    found = []
    now = 0
    for side, octets in story:
        now += SECOND
        if isinstance(octets, int):
            conversation.gap(side, octets, now)
        else:
            conversation.receive(side, memoryview(octets), now)
        found += conversation.exchanges
        conversation.exchanges.clear()
        if conversation.is_over:
            break
    conversation.close(now)
    return found + conversation.exchanges


def meanings(exchanges: Iterable[Exchange]) -> list[tuple]:
    """Return what exchanges say but for their times."""
    return [(e.request, e.response, e.size, e.asked_by, e.error_type) for e in exchanges]


def in_pieces(story: Story, size: int) -> Story:
    """Cut all parts into pieces of so many octets."""
    return [
        (side, octets[at : at + size])
        for side, octets in story for at in range(0, len(octets), size)
    ]  # fmt: skip


def with_gaps(story: Story, size: int) -> Iterable[tuple[int, list[tuple[int, bytes | int]]]]:
    """Yield (part, the story without some of its octets) for a gap at each octet of each part."""
    for part, (side, octets) in enumerate(story):
        for at in range(len(octets)):
            lost = min(size, len(octets) - at)
            pieces = [(side, octets[:at]), (side, lost), (side, octets[at + lost :])]
            whole = [(s, each) for s, each in pieces if each != b""]
            yield part, [*story[:part], *whole, *story[part + 1 :]]


def bear_mutations(new: type[Conversation], story: Story, rounds: int, seed: int) -> None:
    """Tell a story with octets changed, left out and put in; only ProtocolError may be raised."""
    chance = random.Random(seed)
    for _ in range(rounds):
        changed = []
        for side, octets in story:
            mutated = bytearray(octets)
            for _ in range(chance.randrange(4)):
                at = chance.randrange(len(mutated) + 1)
                chosen = chance.choice([0, 1, 0x30, 0x7F, 0x80, 0xFF, chance.randrange(256)])
                mutated[at : at + chance.randrange(3)] = bytes([chosen] * chance.randrange(3))
            changed.append((side, bytes(mutated)))
        conversation = new()
        try:
            told(conversation, in_pieces(changed, chance.choice([1, 7, 100_000])))
        except ProtocolError:
            continue
        finally:
            conversation.close(0)
