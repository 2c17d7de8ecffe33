"""An association of SCTP, or one path of it: its begin and end as calls, and its data as counts.

RFC 9260. INIT and INIT ACK are a call, SHUTDOWN and SHUTDOWN ACK, too; an ABORT stands alone unless
it answers an INIT. When the association ends there is one call more, of DATA, which counts all
chunks of both sides.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from services.capture.dissectors.conversation import Conversation
from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.sctp import chunks as wire
from services.capture.dissectors.sctp.chunks import Chunk, Packet, chunks, read_packet

Json = dict[str, Any]

MOST_STREAMS = 1024  # of one side, that are told apart
MOST_PAYLOADS = 16  # payload protocols, of one side
STREAM_WEIGHT = 64  # octets: about what the number of a stream takes
ANSWERED_BY = {wire.INIT: wire.INIT_ACK, wire.SHUTDOWN: wire.SHUTDOWN_ACK}
QUESTIONS = {answer: asked for asked, answer in ANSWERED_BY.items()}


@dataclass(slots=True)
class Waiting:
    """A chunk that has an answer, which did not come yet."""

    side: int
    request: Json
    start_ns: int
    size: int


@dataclass(slots=True)
class Said:
    """What one side of an association has sent."""

    packets: int = 0
    octets: int = 0
    chunks: Counter[str] = field(default_factory=Counter)
    data_octets: int = 0
    streams: set[int] = field(default_factory=set)
    payloads: dict[str, None] = field(default_factory=dict)
    tag: int = 0
    checksum: int = 0

    def told(self, state: str) -> Json | None:
        """Return it as a request or response; None when it was nothing."""
        if not self.packets:
            return None
        return {
            "chunkType": "DATA",
            "length": self.data_octets,
            "checksum": self.checksum,
            "verificationTag": self.tag,
            "dataChunks": self.chunks["DATA"] + self.chunks["I-DATA"],
            "streams": len(self.streams),
            "payloadProtocols": list(self.payloads),
            "chunks": dict(self.chunks),
            "packets": self.packets,
            "bytes": self.octets,
            "state": state,
        }


class Sctp(Conversation):
    """One pair of addresses and ports."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[int, Waiting] = {}  # by the type of the chunk
        self._said = Said(), Said()
        self._start_ns = self._end_ns = 0
        self._asked_by = 0

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return STREAM_WEIGHT * sum(len(said.streams) for said in self._said)

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        packet = bytes(octets)
        head = read_packet(packet)
        self.understood = True
        if not (self._said[0].packets or self._said[1].packets):
            self._start_ns, self._asked_by = time_ns, side
        self._end_ns = time_ns
        said = self._said[side]
        said.packets += 1
        said.octets += len(packet)
        said.tag, said.checksum = head.verification_tag, head.checksum
        for chunk in chunks(packet):
            said.chunks[wire.TYPES.get(chunk.type, "other")] += 1
            if chunk.type == wire.DATA:
                _note_data(said, packet, chunk)
            else:
                self._take_control(side, packet, head, chunk, time_ns)

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        self._end("idle", max(time_ns, self._end_ns))

    def _take_control(
        self, side: int, packet: bytes, head: Packet, chunk: Chunk, time_ns: int
    ) -> None:
        if chunk.type in ANSWERED_BY:
            told = _control(packet, head, chunk)
            before = self._waiting.get(chunk.type)
            if before is not None and before.side == side:
                before.request["retransmissions"] = before.request.get("retransmissions", 0) + 1
            else:
                self._waiting[chunk.type] = Waiting(side, told, time_ns, chunk.length)
        elif chunk.type in QUESTIONS:
            self._answer(side, _control(packet, head, chunk), chunk, time_ns)
        elif chunk.type == wire.ABORT:
            told = _control(packet, head, chunk)
            asked = self._waiting.get(wire.INIT)
            if asked is not None and asked.side != side:
                self._add(self._waiting.pop(wire.INIT), told, chunk, time_ns)
            else:
                self.exchanges.append(Exchange(time_ns, time_ns, told, None, chunk.length, 0, side))
            self._end("aborted", time_ns)
        elif chunk.type == wire.SHUTDOWN_COMPLETE:
            self._end("closed", time_ns)

    def _answer(self, side: int, told: Json, chunk: Chunk, time_ns: int) -> None:
        asked = self._waiting.get(QUESTIONS[chunk.type])
        if asked is None or asked.side == side:
            return  # sent again, as it is counted
        self._add(self._waiting.pop(QUESTIONS[chunk.type]), told, chunk, time_ns)

    def _add(self, asked: Waiting, told: Json, chunk: Chunk, time_ns: int) -> None:
        sizes = asked.size, chunk.length
        self.exchanges.append(
            Exchange(asked.start_ns, time_ns, asked.request, told, *sizes, asked.side)
        )

    def _end(self, state: str, now: int) -> None:
        """Tell what is left of an association, and know nothing of the next one."""
        for asked in self._waiting.values():
            why = "pair-not-found", "no answer was seen"
            self.exchanges.append(
                Exchange(asked.start_ns, now, asked.request, None, asked.size, 0, asked.side, *why)
            )
        self._waiting.clear()
        asker = self._asked_by
        request, response = (self._said[side].told(state) for side in (asker, asker ^ 1))
        if any(each and each["dataChunks"] for each in (request, response)):
            sizes = self._said[asker].octets, self._said[asker ^ 1].octets
            times = self._start_ns, self._end_ns
            self.exchanges.append(Exchange(*times, request, response, *sizes, asker))
        self._said = Said(), Said()


def _note_data(said: Said, packet: bytes, chunk: Chunk) -> None:
    said.data_octets += max(0, chunk.length - wire.DATA_HEAD)
    data = wire.read_data(packet, chunk)
    if data is None:
        return
    if len(said.streams) < MOST_STREAMS:
        said.streams.add(data.stream)
    if len(said.payloads) < MOST_PAYLOADS:
        said.payloads[wire.PAYLOADS.get(data.payload, str(data.payload))] = None


def _control(packet: bytes, head: Packet, chunk: Chunk) -> Json:
    told: Json = {
        "chunkType": wire.TYPES[chunk.type],
        "length": chunk.length,
        "checksum": head.checksum,
        "verificationTag": head.verification_tag,
    }
    if chunk.type in (wire.INIT, wire.INIT_ACK):
        told |= wire.read_init(packet, chunk)
    elif chunk.type == wire.ABORT:
        told["causes"] = wire.read_causes(packet, chunk)
    return told
