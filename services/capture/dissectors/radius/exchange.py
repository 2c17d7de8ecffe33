"""One pair of ports between which RADIUS is spoken: packets paired by identifier.

RFC 2865, section 3; RFC 2866; RFC 5176 (the next of 3576), where servers ask; RFC 5997. A datagram
is a packet. A client that hears nothing sends the same packet again, which is the same call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange
from services.capture.dissectors.radius import names
from services.capture.dissectors.radius.attributes import attributes

Json = dict[str, Any]

HEAD = 20  # octets: code, identifier, length, authenticator
MOST_OCTETS = 4096  # of a packet, RFC 2865, section 3
SAME_NS = 30_000_000_000
"""So long a packet that is the same as one before was sent again. Servers remember answers for 5 to
30 seconds, RFC 5080, section 2.2.2."""


@dataclass(slots=True)
class Asked:
    """The last request with an identifier."""

    code: int
    authenticator: bytes
    request: Json
    start_ns: int
    size: int
    answer: bytes = b""
    """Authenticator of the response, when it came."""


class Radius(Conversation):
    """One stream. Identifiers are an octet, so at most 512 requests are known."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[tuple[int, int], Asked] = {}  # by side and identifier
        self._kept_octets = 0  # of those

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return self._kept_octets

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        packet = bytes(octets[: MOST_OCTETS + 1])
        length = int.from_bytes(packet[2:4], "big")
        if not HEAD <= length <= len(octets) or length > MOST_OCTETS:
            raise ProtocolError("the length of a packet is not that of its datagram")
        if packet[0] not in names.CODES:
            raise ProtocolError(f"no packet has the code {packet[0]}")
        message = _message(packet[:length])
        self.understood = True
        if packet[0] in names.ANSWERS:
            self._take_request(side, packet[:length], message, time_ns)
        else:
            self._take_response(side ^ 1, packet[:length], message, time_ns)

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        for (side, _), asked in self._asked.items():
            self._give_up(side, asked, max(time_ns, asked.start_ns))
        self._asked.clear()
        self._kept_octets = 0

    def _take_request(self, side: int, packet: bytes, message: Json, time_ns: int) -> None:
        key, authenticator = (side, packet[1]), packet[4:HEAD]
        before = self._asked.get(key)
        if before is not None:
            is_same = (before.code, before.authenticator) == (packet[0], authenticator)
            if is_same and time_ns - before.start_ns <= SAME_NS:
                if not before.answer:
                    again = before.request.get("retransmissions", 0) + 1
                    before.request["retransmissions"] = again
                return
            self._give_up(side, before, time_ns)
            self._kept_octets -= before.size
            del self._asked[key]  # so that it is put at the end
        self._kept_octets += len(packet)
        self._asked[key] = Asked(packet[0], authenticator, message, time_ns, len(packet))

    def _take_response(self, side: int, packet: bytes, message: Json, time_ns: int) -> None:
        asked, authenticator = self._asked.get((side, packet[1])), packet[4:HEAD]
        if asked is not None and asked.answer == authenticator:
            return  # sent again
        if asked is None or asked.answer or packet[0] not in names.ANSWERS[asked.code]:
            why = "pair-not-found", "the request of this response was not seen"
            self.exchanges.append(
                Exchange(time_ns, time_ns, None, message, 0, len(packet), side, *why)
            )
            return
        asked.answer = authenticator
        sizes = asked.size, len(packet)
        self.exchanges.append(
            Exchange(asked.start_ns, time_ns, asked.request, message, *sizes, side)
        )

    def _give_up(self, side: int, asked: Asked, now: int) -> None:
        if not asked.answer:
            why = "pair-not-found", "no response was seen"
            self.exchanges.append(
                Exchange(asked.start_ns, now, asked.request, None, asked.size, 0, side, *why)
            )


def _message(packet: bytes) -> Json:
    found, eap = attributes(packet, HEAD, len(packet))
    message: Json = {
        "code": packet[0],
        "codeName": names.CODES[packet[0]],
        "identifier": packet[1],
        "authenticator": packet[4:HEAD].hex(),
        "attributes": found,
    }
    return message if eap is None else message | {"eap": eap}
