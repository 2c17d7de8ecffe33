# mypy: ignore-errors
"""Streams whose first segments are too short to tell their protocol. `recognition` asks."""

import numpy as np

from services.capture.dissectors.dissector import IS_SERVER
from services.capture.dissectors.signatures import LONGEST
from services.capture.reassembly import DATA, GAP, IN_FRAMES

MOST_ROWS = 2 * LONGEST  # as many segments as the octets of two signatures can need
MOST_OCTETS = 1 << 14  # what the other side says meanwhile is kept too


class Pending:
    """The segments of a stream, in their order, and copies of their octets."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []  # SEGMENT, one element each
        self._marks: list[int] = []  # see dissector.FOUND
        self._octets: list[bytes] = []
        self._kept = 0
        self.said = [b"", b""]
        """By side: its first octets, after the last gap."""
        self.lost = [False, False]
        """By side: a gap was the last that came of it."""
        self.unread = 0
        """Octets of what came last that are behind a conversation which is over by now."""
        self.refused = 0
        """1 << number of each protocol that these octets turned out not to be of."""

    @property
    def is_full(self) -> bool:
        """Nothing more is to be kept of it."""
        return len(self._rows) >= MOST_ROWS or self._kept > MOST_OCTETS

    def add(self, segment: np.ndarray, marks: int, octets: bytes) -> None:
        """Keep a row of SEGMENT, and its octets if it is DATA."""
        self._rows.append(segment.copy())
        self._marks.append(marks)
        self._octets.append(octets)
        self._kept += len(octets)
        side = marks & IS_SERVER
        if segment["kind"][0] == GAP:
            self.said[side] = b""
            self.lost[side] = True
        elif segment["kind"][0] == DATA:
            self.lost[side] = False
            self.said[side] += octets[: LONGEST - len(self.said[side])]

    def replay(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (SEGMENT rows, their marks, the octets that these lie in)."""
        segments = np.concatenate(self._rows)
        lengths = [len(each) for each in self._octets]
        segments["position"] = np.cumsum([0, *lengths[:-1]])
        segments["place"] = IN_FRAMES
        joined = bytearray().join(self._octets) or bytearray(1)
        return segments, np.array(self._marks, np.uint8), np.frombuffer(joined, np.uint8)
