"""What every source of frames yields."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

# fmt: off
FRAME = np.dtype((np.record, [
    ("timestamp", np.int64),        # nanoseconds since 1970
    ("offset", np.int64),           # position of the frame's first octet
    ("captured_length", np.int32),  # octets
    ("original_length", np.int32),  # octets on the wire
    ("link_type", np.int32),        # LINKTYPE_, https://www.tcpdump.org/linktypes.html
    ("vlan", np.int32),             # the tag that the interface took off, 802.1Q's TCI, or 0
    ("interface", np.int32),        # where it was seen, see UNDIRECTED; 0 from a source of one
]))
# fmt: on

UNDIRECTED = 1 << 29
"""Of FRAME's interface, besides the number: nobody knows whether the packet came in or was leaving.
The number alone is one that came in; one that was leaving has the negative number."""

MOST_FRAMES = 16_384
"""Most frames of a batch: more would leave the processor's caches, fewer would cost calls."""
MOST_OCTETS = 8 << 20
"""Octets after which a batch ends: what its messages keep must fit in the dissectors' rings."""


LATEST_NS = 1_000_000_000
"""How long after its time a frame is seen at the latest, where its interface has nothing to give.

The kernel hands over a block when it is twice as old as afpacket.BLOCK_TIMEOUT_MS at most. A frame
gets its time before it is in the block, and may wait for its processor between: milliseconds, but
tenths of a second on a busy machine. Nothing is late by this second: questions wait for ten."""


class FrameBatch(NamedTuple):
    """Some frames, in the order in which they came."""

    octets: np.ndarray
    """uint8, writable, one dimension: all frames lie in it. Good until the next batch is asked for.
    """
    frames: np.ndarray
    """FRAME, one row for each frame; each lies inside `octets`."""
    passed_ns: int = 0
    """Nanoseconds since 1970, of an empty batch: no frame from before this time will come. 0 when
    that is not known: what time it is only frames tell then, as in a file."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something known to be missing; a row of recordings.schema.LOSSES without the node."""

    kind: str
    start_ns: int
    end_ns: int
    packets: int = 0
    bytes: int = 0
    stream: str | None = None
    detail: str = ""


class CaptureError(Exception):
    """A source cannot be opened or read; the text is a sentence for people."""


class FrameSource(Protocol):
    """Frames in batches."""

    def batches(self) -> Iterator[FrameBatch]:
        """Yield batches until the source ends.

        A live source yields an empty one when nothing came within its poll timeout, so that its
        caller can look at other things; with the time that has passed, see FrameBatch.
        """
        ...

    def losses(self) -> list[Loss]:
        """Return what was lost since the last call: kernel drops, damage of a file."""
        ...

    def close(self) -> None:
        """Let go of the socket or file."""
        ...
