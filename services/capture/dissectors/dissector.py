# mypy: ignore-errors
"""What a protocol has to offer to be dissected. `registry` lists them, `recognition` calls them.

Most are made by `conversation.of`, from a class that takes the octets of one stream. One whose
messages are too many for a Python object each (`redis`) is a Dissector itself, of kernels.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from services.capture.calls import ProtocolCalls
from services.capture.dissectors.signatures import Signature

# Marks of a row.
IS_SERVER = 1  # it is the server's
IS_FIRST = 2  # by it the stream was recognised
OTHER_MISSED = 4  # and what the other side had said before is not known

# fmt: off
FOUND = np.dtype((np.record, [
    ("row", np.int32),    # of a SEGMENT or PACKET
    ("marks", np.uint8),  # IS_SERVER …
    ("code", np.uint8),   # as recognition.STATE has it
]))
# fmt: on


class Dissector(Protocol):
    """All streams of one protocol."""

    refused: list[int]
    """Streams of which nothing was understood, so that they are of another protocol, perhaps."""
    broken: list[int]
    """Streams that made sense until now; they are no more dissected."""
    over: list[int]
    """Streams of which the rest is of no interest. All three are emptied by the caller."""
    followed: dict[int, tuple[int, int]]
    """Of those that are over, the ones whose rest is to be recognised by its first octets: the row
    of the last take() behind which it begins, and how many octets of that row are of it. Emptied by
    the caller."""
    overrun: int
    """Calls and streams that were lost since room ran out, since the caller last set it to 0."""
    faults: Counter[str]
    """Errors of ours that ended the dissection of a stream (it is among those above), by what and
    where they are; no word of it is from the wire. Emptied by the caller."""

    body_limit: int
    """Octets of each body to keep, 0 for none; set by the caller at any time."""

    def take(
        self, segments: np.ndarray, marks: np.ndarray, frames: np.ndarray, held: np.ndarray
    ) -> None:
        """Take rows of reassembly.SEGMENT, in their order, which may be changed; marks: uint8, as
        in FOUND; frames, held: uint8, the places of their octets. The OPENED row of a flow's next
        stream comes, too, where the one before was of this protocol: it says that that one has
        ended, and nothing else.
        """
        ...

    def take_datagrams(self, packets: np.ndarray, marks: np.ndarray, octets: np.ndarray) -> None:
        """Take rows of decode.PACKET, in their order, whose payloads lie in `octets`."""
        ...

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """Those streams (int64) are over at `now` (ns); some were not of this protocol."""
        ...

    def calls(self) -> ProtocolCalls | None:
        """Return the calls that were completed since the last call, good until the next take."""
        ...

    def remember(self, calls: ProtocolCalls, indexes: np.ndarray) -> None:
        """Keep those of calls(), and the numbers of their entries (int32), for earlier()."""
        ...

    def earlier(self, numbers: np.ndarray) -> tuple[ProtocolCalls, np.ndarray] | None:
        """Return remembered calls of these streams, and the numbers of their entries."""
        ...


@dataclass(frozen=True, slots=True)
class ProtocolKind:
    """One line of the registry."""

    name: str
    """As protocol.name in an entry."""
    abbr: str
    transport: Literal["tcp", "udp", "icmp", "sctp"]
    ports: frozenset[int]
    """Where it usually is: a hint, where signatures of several protocols fit or are weak."""
    signatures: Iterable[Signature]
    new_dissector: Callable[["ProtocolKind", int], Dissector]
    """Called with this and how many flows there can be at once."""
