"""One connection of Diameter: requests and answers of both peers, paired by hop-by-hop identifier.

RFC 6733, section 3. Over SCTP each message comes alone, over TCP they are in a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.diameter import names
from services.capture.dissectors.diameter.avps import Room, avps
from services.capture.dissectors.inbox import Inbox, Message, finder
from services.capture.dissectors.objectcalls import Exchange

Json = dict[str, Any]

VERSION, HEAD = 1, 20  # octets of a header
REQUEST, PROXIABLE, ERROR, RETRANSMITTED, RESERVED = 0x80, 0x40, 0x20, 0x10, 0x0F
MOST_KEPT = 64 << 10  # octets of a message; a subscriber's data has some thousand
MOST_WAITING = 1024  # requests of both sides
TLS_HANDSHAKE = 0x16  # of a record, which follows when the peers have agreed on it
SESSION_ID, RESULT_CODE, EXPERIMENTAL_RESULT, EXPERIMENTAL_CODE = 263, 268, 297, 298


def measure(octets: bytearray, at: int = 0) -> int:
    """Return the size of a message; see Inbox."""
    if len(octets) < at + 4:
        if octets[at : at + 1] not in (b"", bytes([VERSION])):
            raise ProtocolError("a message does not begin with Diameter's version")
        return 0
    size = int.from_bytes(octets[at + 1 : at + 4], "big")
    if octets[at] != VERSION or size < HEAD or size % 4:
        raise ProtocolError("what begins here is no header of Diameter")
    return size


def is_plausible(octets: bytearray, at: int) -> bool | None:
    """See finder. Looks at the header and the first AVP's."""
    try:
        size = measure(octets, at)
    except ProtocolError:
        return False
    if len(octets) < at + min(size, HEAD + 8) or size == 0:
        return None
    command = int.from_bytes(octets[at + 5 : at + 8], "big")
    if size > MOST_KEPT or octets[at + 4] & RESERVED or command not in names.COMMANDS:
        return False
    if size == HEAD:
        return True
    first = int.from_bytes(octets[at + HEAD + 5 : at + HEAD + 8], "big")
    return HEAD + 8 <= HEAD + first <= size and octets[at + HEAD + 4] & 0x1F == 0


find = finder(bytes([VERSION]), is_plausible)


@dataclass(slots=True)
class Waiting:
    """A request without its answer."""

    request: Json
    start_ns: int
    size: int


class Diameter(Conversation):
    """One connection."""

    def __init__(self) -> None:
        super().__init__()
        self._inboxes = tuple(Inbox(measure, find, MOST_KEPT) for _ in range(2))
        self._waiting: dict[tuple[int, int], Waiting] = {}  # by side and hop-by-hop identifier
        self._kept_octets = 0  # of those requests
        self._has_gaps = False

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return sum(map(len, self._inboxes)) + self._kept_octets

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        is_between = self.understood and self._inboxes[side].is_between
        if is_between and octets[:1] == bytes([TLS_HANDSHAKE]):
            self.is_over = True
            return
        self._inboxes[side].feed(octets, time_ns)
        for message in self._inboxes[side].messages(time_ns):
            self._take(side, message)

    def gap(self, side: int, octets: int, time_ns: int) -> None:  # noqa: ARG002
        """See Conversation."""
        self._has_gaps |= octets > 0
        self._inboxes[side].gap(octets)

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        for (side, _), waiting in self._waiting.items():
            self._give_up(side, waiting, max(time_ns, waiting.start_ns))
        self._waiting.clear()
        self._kept_octets = 0

    def _take(self, side: int, message: Message) -> None:
        flags, link = message.octets[4], int.from_bytes(message.octets[12:16], "big")
        told = self._read(message)
        self.understood = True
        if flags & REQUEST:
            self._make_room((side, link), message.began_ns)
            self._waiting[side, link] = Waiting(told, message.began_ns, message.size)
            self._kept_octets += len(message.octets)
            return
        asker = side ^ 1
        waiting = self._waiting.get((asker, link))
        if waiting is None or waiting.request["commandCode"] != told["commandCode"]:
            lacks = self._lack("the request of this answer was not seen")
            self._add(asker, None, told, message.began_ns, message.end_ns, message.size, lacks)
            return
        self._pop((asker, link))
        self._add(asker, waiting, told, waiting.start_ns, message.end_ns, message.size)

    def _make_room(self, key: tuple[int, int], now: int) -> None:
        """Give up what waited with this key, or, when too many wait, the one that came first."""
        if key not in self._waiting:
            if len(self._waiting) < MOST_WAITING:
                return
            key = next(iter(self._waiting))
        self._give_up(key[0], self._pop(key), now)

    def _pop(self, key: tuple[int, int]) -> Waiting:
        waiting = self._waiting.pop(key)
        self._kept_octets -= min(waiting.size, MOST_KEPT)
        return waiting

    def _read(self, message: Message) -> Json:
        """Return a message; of one that was cut, or is wrong inside, only its header."""
        told = _header(message.octets)
        try:
            if not message.is_cut:
                room = Room()
                told["avps"] = avps(message.octets, HEAD, message.size, room)
                _note_first(told, told["avps"], bool(message.octets[4] & REQUEST))
                return told if room.left else told | {"bodyTruncated": True}
        except ProtocolError:
            if not self.understood:
                raise
            return told | {"avps": [], "malformed": True}
        return told | {"avps": [], "bodyTruncated": True}

    def _give_up(self, side: int, waiting: Waiting, now: int) -> None:
        lacks = self._lack("no answer was seen")
        self._add(side, waiting, None, waiting.start_ns, now, 0, lacks)

    def _lack(self, why: str) -> tuple[str, str]:
        if self._has_gaps:
            return "gap", f"{why}: octets of the stream are missing"
        return "pair-not-found", why

    def _add(
        self, asker: int, waiting: Waiting | None, answer: Json | None, start_ns: int, end_ns: int,
        size: int, lacks: tuple[str | None, str | None] = (None, None),
    ) -> None:  # fmt: skip
        request, asked = (waiting.request, waiting.size) if waiting else (None, 0)
        self.exchanges.append(
            Exchange(start_ns, end_ns, request, answer, asked, size, asker, *lacks, str(VERSION))
        )


def _header(octets: bytes) -> Json:
    flags, command = octets[4], int.from_bytes(octets[5:8], "big")
    application = int.from_bytes(octets[8:12], "big")
    if flags & RESERVED:
        raise ProtocolError("a flag is set that Diameter has none of")
    found: Json = {
        "method": names.COMMANDS.get(command, f"Command-{command}"),
        "commandCode": command,
        "applicationId": application,
        "application": names.APPLICATIONS.get(application, ""),
        "hopByHopId": int.from_bytes(octets[12:16], "big"),
        "endToEndId": int.from_bytes(octets[16:20], "big"),
        "proxiable": bool(flags & PROXIABLE),
    }
    if flags & ERROR:
        found["error"] = True
    if flags & RETRANSMITTED:
        found["retransmitted"] = True
    return found


def _note_first(told: Json, pairs: list[Json], is_request: bool) -> None:
    """Put beside the pairs what people ask for: the session, and how it went."""
    for pair in pairs:
        if "vendorId" in pair:
            continue
        code: int = pair["code"]
        value: Any = pair.get("value")
        if code == SESSION_ID:
            told.setdefault("sessionId", value)
        elif is_request:
            continue
        elif code == RESULT_CODE:
            told |= {"resultCode": value, "result": names.RESULTS.get(value, "")}
        elif code == EXPERIMENTAL_RESULT and isinstance(value, list):
            for inner in value:
                if inner["code"] == EXPERIMENTAL_CODE and "resultCode" not in told:
                    number: Any = inner.get("value")
                    name = names.EXPERIMENTAL_RESULTS.get(number, "")
                    told |= {"resultCode": number, "result": name}
