"""Diameter over SCTP: each message is a message of SCTP, RFC 6733, section 2.1.1.

Peers say so by the payload protocol identifier; some say nothing, and then the message tells.
"""

from __future__ import annotations

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.diameter.exchange import HEAD, Diameter, is_plausible, measure
from services.capture.dissectors.sctp import chunks as wire
from services.capture.dissectors.sctp.chunks import Chunk, Data, chunks, read_data

UNSPECIFIED, DIAMETER, DIAMETER_IN_DTLS = 0, 46, 47
MOST_PARTIAL = 16  # messages in several chunks, at once
MOST_OCTETS = 64 << 10  # of each
MOST_SEEN = 1024  # chunks that are known by their number, since they may be sent again
SEEN_WEIGHT = 128  # octets: about what the number of one takes


class DiameterOverSctp(Conversation):
    """One pair of addresses and ports."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = Diameter()
        self.exchanges = self._inner.exchanges
        self._partial: dict[tuple[int, int], tuple[int, bytearray]] = {}
        """By side and stream: the next number, and the octets so far."""
        self._seen: dict[tuple[int, int], None] = {}  # side and number; the oldest are first

    @property
    def buffered(self) -> int:
        """See Conversation."""
        partial = sum(len(octets) for _, octets in self._partial.values())
        return self._inner.buffered + partial + SEEN_WEIGHT * len(self._seen)

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        packet = bytes(octets)
        for chunk in chunks(packet):
            data = read_data(packet, chunk) if chunk.type == wire.DATA else None
            if data is None or not self._is_new(side, data.tsn):
                continue
            if data.payload == DIAMETER_IN_DTLS:
                raise ProtocolError("the messages are encrypted")
            whole = self._whole(side, chunk, data, packet[data.begin : chunk.end])
            if whole is not None:
                self._take(side, data, whole, time_ns)

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        self._inner.close(time_ns)

    def _is_new(self, side: int, tsn: int) -> bool:
        if (side, tsn) in self._seen:
            return False
        if len(self._seen) >= MOST_SEEN:
            del self._seen[next(iter(self._seen))]
        self._seen[side, tsn] = None
        return True

    def _whole(self, side: int, chunk: Chunk, data: Data, octets: bytes) -> bytes | None:
        """Return a message when this chunk completes it. Parts that come in another order are given
        up: they are rare, since Diameter's messages fit into a packet.
        """
        key = side, data.stream
        is_first, is_last = chunk.flags & wire.FIRST_FRAGMENT, chunk.flags & wire.LAST_FRAGMENT
        if is_first and is_last:
            return octets
        expected, begun = self._partial.pop(key, (None, bytearray()))
        if is_first:
            begun = bytearray()
        elif expected != data.tsn:
            return None
        begun += octets
        if is_last:
            return bytes(begun)
        if len(begun) <= MOST_OCTETS and len(self._partial) < MOST_PARTIAL:
            self._partial[key] = (data.tsn + 1) & 0xFFFFFFFF, begun
        return None

    def _take(self, side: int, data: Data, message: bytes, time_ns: int) -> None:
        octets = bytearray(message)
        is_whole = len(octets) >= HEAD and octets[0] == 1 and measure(octets, 0) == len(octets)
        if is_whole and (data.payload == DIAMETER or is_plausible(octets, 0)):
            self._inner.receive(side, memoryview(message), time_ns)
            self.understood = True
        elif not self.understood:
            raise ProtocolError("the messages of this association are not Diameter's")
