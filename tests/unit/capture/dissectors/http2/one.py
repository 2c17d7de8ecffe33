"""One connection of the HTTP/2 dissector, played to as a Conversation is."""

import numpy as np

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.dissector import IS_SERVER
from services.capture.dissectors.http2.entries import Http2Dissector
from services.capture.dissectors.http2.exchange import Http2Exchange
from services.capture.dissectors.http2.fields import clear, pairs, read_block
from services.capture.dissectors.http2.framing import MOST_LISTED
from services.capture.dissectors.http2.rows import (
    MOST_TABLE,
    NOBODY,
    SMALL_TABLE,
    new_connections,
)
from services.capture.dissectors.registry import PROTOCOLS
from services.capture.reassembly import DATA, ENDED, GAP, IN_FRAMES, SEGMENT

(KIND,) = [each for each in PROTOCOLS if each.abbr == "HTTP/2"]
STREAM = 7
NOTHING = np.zeros(0, np.uint8)


class Http2:
    """Conversation's contract; the streams of one connection."""

    is_over = False

    def __init__(self) -> None:
        self.dissector = Http2Dissector(KIND, 4)
        self.exchanges: list[Http2Exchange] = []

    @property
    def state(self):
        return self.dissector._state

    @property
    def body_limit(self) -> int:
        return self.dissector.body_limit

    @body_limit.setter
    def body_limit(self, octets: int) -> None:
        self.dissector.body_limit = octets

    @property
    def bodies(self) -> int:
        """Octets of bodies that are kept of open streams."""
        return int(self.state.connections["bodies"][0])

    @property
    def buffered(self) -> int:
        """Octets that wait for the rest of a frame or a block."""
        return int(self.state.totals["waiting"][0])

    def _take(self, kind: int, side: int, octets, length: int, time_ns: int) -> None:
        segments = np.zeros(1, SEGMENT)
        segments["kind"], segments["place"], segments["timestamp"] = kind, IN_FRAMES, time_ns
        segments["stream"], segments["direction"], segments["length"] = STREAM, side, length
        marks = np.array([IS_SERVER if side else 0], np.uint8)
        self.dissector.take(segments, marks, octets, NOTHING)
        calls = self.dissector.calls()
        if calls is not None:
            self.exchanges += [calls.exchange(row) for row in range(len(calls))]
        if self.dissector.refused or self.dissector.broken:
            raise ProtocolError("it makes no sense")

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        self._take(DATA, side, np.frombuffer(bytearray(octets), np.uint8), len(octets), time_ns)

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        self._take(GAP, side, NOTHING, octets, time_ns)

    def close(self, time_ns: int) -> None:
        self.dissector.refused.clear()
        self.dissector.broken.clear()
        self._take(ENDED, 0, NOTHING, 0, time_ns)


class HeaderReader:
    """The blocks of one side of a connection, in their order."""

    def __init__(self) -> None:
        self.state = new_connections(1, streams=8, arena_octets=1 << 10)
        self.state.tables["large"] = NOBODY
        clear(self.state, self.state.tables[0], SMALL_TABLE)

    def forget(self) -> None:
        clear(self.state, self.state.tables[0], MOST_TABLE)

    def read(self, block: bytes) -> list[tuple[str, str]]:
        octets = np.frombuffer(bytearray(block), np.uint8)
        if not read_block(self.state, 0, octets, 0, len(octets), MOST_LISTED):
            raise ProtocolError("it is no block")
        return pairs(self.state.scratch[: self.state.found["used"][0]].tobytes())
