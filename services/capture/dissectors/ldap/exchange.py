"""One connection of LDAP, or one pair of ports of connectionless LDAP: messages paired by number.

RFC 4511; over UDP as in RFC 1798 and MS-ADTS, section 6.3.3. What a search finds comes in a message
for each entry; they are one response, with how many there were and the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.ldap import names
from services.capture.dissectors.ldap.messages import (
    TRUNCATED,
    LdapMessage,
    entry,
    open_message,
    references,
    request,
    response,
)
from services.capture.dissectors.lengths import UNKNOWN, Framing, Message, Side
from services.capture.dissectors.objectcalls import Exchange

Json = dict[str, Any]

MOST_KEPT = 256 << 10  # octets of a message; entries with a photo are smaller
MOST_SIZE = 1 << 30  # octets of a message that can be one; servers take a hundredth of it
MOST_WAITING = 1024  # requests of a connection; servers work at fewer at once
MOST_ENTRIES = 10  # of a search, that are kept
MOST_ENTRY_OCTETS = 64 << 10  # of all of them
MOST_REFERENCES = 64  # of a search, that are kept

SMALLEST_CONTENT = 5  # of a message: a number of one octet, and unbind
LDAP_VERSION = "3"
UNPROTECTED = frozenset({"EXTERNAL", "PLAIN", "ANONYMOUS", "LOGIN", "CRAM-MD5"})
"""SASL mechanisms after which nothing is ever encrypted. After others it may be."""


def measure(octets: bytearray, at: int) -> int:
    """See lengths.Framing."""
    if len(octets) <= at:
        return UNKNOWN
    if octets[at] != names.MESSAGE:
        raise ProtocolError("a message does not begin with the tag of a SEQUENCE")
    if len(octets) < at + 2:
        return UNKNOWN
    length, head = octets[at + 1], 2
    if length >= 0x80:
        head += length - 0x80
        if not 2 < head <= 6:
            raise ProtocolError("a message's length is indefinite, or too long")
        if len(octets) < at + head:
            return UNKNOWN
        length = int.from_bytes(octets[at + 2 : at + head], "big")
    if not SMALLEST_CONTENT <= length <= MOST_SIZE:
        raise ProtocolError("no message is that short, or that long")
    return head + length


def is_plausible(octets: bytearray, at: int) -> bool | None:
    """See lengths.Framing. A message is a number and an operation, which fill it."""
    try:
        size = measure(octets, at)
        if size == UNKNOWN:
            return None
        position = at + 2 + (octets[at + 1] & 0x7F if octets[at + 1] >= 0x80 else 0)
        if octets[position] != 0x02 or not 0 < octets[position + 1] <= 4:
            return False
        position += 2 + octets[position + 1]
        if octets[position] not in names.OPERATIONS:
            return False
        length, position = octets[position + 1], position + 2
        if length >= 0x80:
            if not 0 < length - 0x80 <= 4:
                return False
            head = octets[position : position + length - 0x80]
            position += length - 0x80
            if len(octets) < position:
                return None
            length = int.from_bytes(head, "big")
        rest = at + size - position - length
        if rest > 0 and len(octets) > position + length:
            return octets[position + length] == names.CONTROLS
    except IndexError:
        return None
    except ProtocolError:
        return False
    return rest >= 0


FRAMING = Framing(bytes([names.MESSAGE]), MOST_KEPT, measure, is_plausible)


@dataclass(slots=True)
class Waiting:
    """A request without its answer, or what a search whose request was not seen has found."""

    request: Json | None
    tag: int
    start_ns: int
    asked_by: int
    size: int = 0
    response_size: int = 0
    entries: list[Json] = field(default_factory=list)
    entry_octets: int = 0
    entry_count: int = 0
    references: list[str] = field(default_factory=list)
    reference_count: int = 0
    intermediate_count: int = 0
    end_ns: int = 0
    is_abandoned: bool = False


class Ldap(Conversation):
    """One stream."""

    def __init__(self) -> None:
        super().__init__()
        self._sides = Side(FRAMING), Side(FRAMING)
        self._waiting: dict[int, Waiting] = {}  # by the message's number
        self._kept_octets = 0  # of those requests, and of the entries that were found
        self._has_gaps = False
        self._may_be_encrypted = False

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return self._sides[0].buffered + self._sides[1].buffered + self._kept_octets

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        if self._may_be_encrypted and self._sides[side].is_between and bytes(octets[:1]) == b"\0":
            self.is_over = True  # the length of a buffer of SASL, RFC 4422, section 3.7
            return
        for message in self._sides[side].take(octets, time_ns):
            self._take(side, message)
            if self.is_over:
                return

    def gap(self, side: int, octets: int, time_ns: int) -> None:  # noqa: ARG002
        """See Conversation."""
        self._has_gaps |= octets > 0
        self._sides[side].gap(octets)

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        for waiting in self._waiting.values():
            self._give_up(waiting, max(time_ns, waiting.start_ns))
        self._waiting.clear()
        self._kept_octets = 0

    def _take(self, side: int, message: Message) -> None:
        opened = open_message(message.octets, message.is_cut)
        if opened.tag in names.REQUESTS:
            self._take_request(side, message, opened)
        else:
            self._take_response(side, message, opened)
        self.understood = True

    def _read(
        self, read: Callable[[bytes, LdapMessage], Json], kinds: dict[int, str], message: Message,
        opened: LdapMessage,
    ) -> Json:  # fmt: skip
        """Return a message; of one that was cut, or is wrong inside, only what it is."""
        head = {"type": kinds[opened.tag], "messageId": opened.id}
        if message.is_cut:
            return head | {TRUNCATED: True}
        try:
            return read(message.octets, opened)
        except ProtocolError:
            if not self.understood:
                raise
            return head | {"malformed": True}

    def _take_request(self, side: int, message: Message, opened: LdapMessage) -> None:
        asked = self._read(request, names.REQUESTS, message, opened)
        size, start_ns = message.size, message.start_ns
        if opened.tag not in names.ANSWERED_BY:
            self.exchanges.append(
                Exchange(start_ns, message.end_ns, asked, None, size, 0, side, version=LDAP_VERSION)
            )
            abandoned = self._waiting.get(asked.get("abandonedId", -1))
            if abandoned is not None:
                abandoned.is_abandoned = True
            return
        self._make_room(opened.id, start_ns)
        self._waiting[opened.id] = Waiting(asked, opened.tag, start_ns, side, size)
        self._kept_octets += len(message.octets)

    def _take_response(self, side: int, message: Message, opened: LdapMessage) -> None:
        waiting = self._waiting.get(opened.id)
        if waiting is None or not _can_answer(opened.tag, waiting.tag):
            waiting = Waiting(None, opened.tag, message.start_ns, side ^ 1)
            if opened.tag in PARTS:
                self._take_part_alone(opened, waiting)
        waiting.response_size += message.size
        waiting.end_ns = message.end_ns
        if opened.tag in PARTS:
            before = waiting.entry_octets
            _add_part(waiting, message, opened)
            self._kept_octets += waiting.entry_octets - before
            return
        answer = self._read(response, names.RESPONSES, message, opened)
        if self._waiting.get(opened.id) is waiting:
            self._pop(opened.id)
        self._finish(waiting, answer, opened)
        self._look_at_security(waiting.request, answer)

    def _take_part_alone(self, opened: LdapMessage, waiting: Waiting) -> None:
        """Collect the rest of what a search found whose request was not seen."""
        self._make_room(opened.id, waiting.start_ns)
        waiting.tag = names.SEARCH
        self._waiting[opened.id] = waiting

    def _make_room(self, number: int, now: int) -> None:
        """Give up what waited with this number, or, when too many wait, the one that came first."""
        if number not in self._waiting:
            if len(self._waiting) < MOST_WAITING:
                return
            number = next(iter(self._waiting))
        self._give_up(self._pop(number), now)

    def _pop(self, number: int) -> Waiting:
        waiting = self._waiting.pop(number)
        self._kept_octets -= min(waiting.size, MOST_KEPT) + waiting.entry_octets
        return waiting

    def _finish(self, waiting: Waiting, answer: Json, opened: LdapMessage) -> None:
        if opened.tag == names.SEARCH_DONE or waiting.entry_count:
            answer |= _found(waiting)
        if waiting.intermediate_count:
            answer["intermediateCount"] = waiting.intermediate_count
        lacks: tuple[str | None, str | None] = (None, None)
        if waiting.request is None and opened.id != 0:  # 0: nobody asked, RFC 4511, section 4.4
            lacks = self._lack("the request of this response was not seen")
        elif waiting.request is not None and waiting.request.get("authentication") == "sicily":
            answer.pop("matchedDN", None)  # a challenge, not a name
        self._add(waiting, answer, waiting.end_ns, lacks)

    def _give_up(self, waiting: Waiting, now: int) -> None:
        """Tell of a request that has no answer, or of a search's results that never ended."""
        why = "the client abandoned it" if waiting.is_abandoned else "no response was seen"
        answer: Json | None = None
        if waiting.response_size:
            why = "the end of the results was not seen"
            answer = {"type": names.RESPONSES[names.SEARCH_ENTRY]} | _found(waiting)
            now = waiting.end_ns
        self._add(waiting, answer, now, self._lack(why))

    def _lack(self, why: str) -> tuple[str, str]:
        if self._has_gaps:
            return "gap", f"{why}: octets of the stream are missing"
        return "pair-not-found", why

    def _add(
        self,
        waiting: Waiting,
        answer: Json | None,
        end_ns: int,
        lacks: tuple[str | None, str | None],
    ) -> None:
        sizes = waiting.size, waiting.response_size
        self.exchanges.append(
            Exchange(
                waiting.start_ns, end_ns, waiting.request, answer, *sizes, waiting.asked_by, *lacks,
                version=LDAP_VERSION,
            )
        )  # fmt: skip

    def _look_at_security(self, asked: Json | None, answer: Json) -> None:
        """After StartTLS all is encrypted; after a bind by SASL it may be."""
        if answer["type"] not in ("bindResponse", "extendedResponse") or asked is None:
            return
        if answer.get("resultCode") == 0:
            if asked.get("oid") == names.START_TLS:
                self.is_over, self.unread = True, 0
            mechanism = asked.get("mechanism", "EXTERNAL").upper()
            self._may_be_encrypted |= mechanism not in UNPROTECTED


class ConnectionlessLdap(Ldap):
    """Datagrams: each has whole messages."""

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        super().receive(side, octets, time_ns)
        if self._sides[side].buffered:
            raise ProtocolError("a datagram ends within a message")


PARTS = frozenset({names.SEARCH_ENTRY, names.SEARCH_REFERENCE, names.INTERMEDIATE})
"""Responses that come before the last one."""


def _can_answer(tag: int, asked: int) -> bool:
    if tag == names.INTERMEDIATE:
        return True
    if tag in PARTS:
        return asked == names.SEARCH
    return tag == names.ANSWERED_BY.get(asked)


def _add_part(waiting: Waiting, message: Message, opened: LdapMessage) -> None:
    if opened.tag == names.SEARCH_REFERENCE:
        waiting.reference_count += 1
        if len(waiting.references) < MOST_REFERENCES and not message.is_cut:
            waiting.references += references(message.octets, opened)
    elif opened.tag == names.INTERMEDIATE:
        waiting.intermediate_count += 1
    else:
        waiting.entry_count += 1
        octets = waiting.entry_octets + len(message.octets)
        is_kept = not message.is_cut and octets <= MOST_ENTRY_OCTETS
        if len(waiting.entries) < MOST_ENTRIES and is_kept:
            try:
                waiting.entries.append(entry(message.octets, opened))
            except ProtocolError:
                return  # counted; the other entries may be right
            waiting.entry_octets = octets


def _found(waiting: Waiting) -> Json:
    """Return what a search found."""
    found: Json = {"entryCount": waiting.entry_count, "entries": waiting.entries}
    if len(waiting.entries) < waiting.entry_count:
        found[TRUNCATED] = True
    if waiting.reference_count:
        found |= {"referenceCount": waiting.reference_count, "references": waiting.references}
    return found
