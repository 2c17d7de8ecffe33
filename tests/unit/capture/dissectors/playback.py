"""What two sides say, played to a conversation: whole, in pieces, or with holes."""

from collections.abc import Callable, Iterable

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange

Said = tuple[int, bytes]


def play(
    new: Callable[[], Conversation], said: Iterable[Said], piece: int = 1 << 30
) -> list[Exchange]:
    """The exchanges of a stream whose segments have at most `piece` octets. Times count from 1."""
    conversation = new()
    time_ns = 0
    for side, octets in said:
        time_ns += 1
        for at in range(0, len(octets), piece):
            if not conversation.is_over:
                conversation.receive(side, memoryview(octets)[at : at + piece], time_ns)
    conversation.close(time_ns + 1)
    return conversation.exchanges


def play_with_hole(
    new: Callable[[], Conversation], said: Iterable[Said], where: int, begin: int, size: int
) -> list[Exchange]:
    """The same without `size` octets from `begin` of the part number `where`."""
    conversation = new()
    for number, (side, octets) in enumerate(said):
        if number != where:
            conversation.receive(side, memoryview(octets), number + 1)
            continue
        if begin:
            conversation.receive(side, memoryview(octets)[:begin], number + 1)
        conversation.gap(side, min(size, len(octets) - begin), number + 1)
        if octets[begin + size :]:
            conversation.receive(side, memoryview(octets)[begin + size :], number + 1)
        if conversation.is_over:
            break
    conversation.close(1 << 20)
    return conversation.exchanges


def survives(new: Callable[[], Conversation], said: Iterable[Said]) -> None:
    """Whatever is said, nothing is raised but ProtocolError."""
    conversation = new()
    try:
        for number, (side, octets) in enumerate(said):
            if conversation.is_over:
                break
            conversation.receive(side, memoryview(octets), number)
    except ProtocolError:
        pass
    conversation.close(1 << 20)
