"""The ICMP messages between two addresses: an echo and its reply are a call, all others alone.

RFC 792, RFC 4443, RFC 4861 (neighbours), RFC 8335 (extended echo). The data of an echo are
not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.icmp import names
from services.capture.dissectors.icmp.quoted import quoted
from services.capture.dissectors.objectcalls import Exchange

Json = dict[str, Any]

SMALLEST, HEAD = 4, 8  # octets: type, code and checksum; and what most types have next
MOST_WAITING = 1024  # questions between two addresses
WEIGHT = 1024  # octets: about what one of them takes
TIMEOUT_NS = 10_000_000_000
"""So long a question waits for its answer, as ping does."""
SECOND = 1_000_000_000
QUENCH = 4
REDIRECT, UNREACHABLE, NEEDED, PROBLEM = 5, 3, 4, 12
TOO_BIG, PROBLEM_V6, SOLICITATION, ADVERTISEMENT, REDIRECT_V6 = 2, 4, 135, 136, 137


@dataclass(slots=True)
class Waiting:
    """A question without its answer."""

    request: Json
    start_ns: int
    size: int


class Icmp(Conversation):
    """Messages of ICMP for IPv4."""

    version = 4

    def __init__(self) -> None:
        super().__init__()
        self._waiting: dict[tuple[int, int, int, int], Waiting] = {}
        """By side, type, identifier and sequence; those that came first are first."""
        self._answered_by = names.ANSWERED_BY[self.version]
        self._questions = {answer: asked for asked, answer in self._answered_by.items()}

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return WEIGHT * len(self._waiting)

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        message = bytes(octets)
        if len(message) < SMALLEST:
            raise ProtocolError("a message of ICMP has a type, a code and a checksum")
        self.understood = True
        self._expire(time_ns)
        told = self._read(message)
        kind = message[0]
        if kind in self._answered_by and len(message) >= HEAD:
            self._ask((side, kind, *_identity(kind, message)), told, time_ns, len(message))
        elif kind in self._questions and len(message) >= HEAD:
            asked = self._questions[kind], *_identity(kind, message)
            self._answer(side, asked, told, time_ns, len(message))
        else:
            self.exchanges.append(Exchange(time_ns, time_ns, told, None, len(message), 0, side))

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        for key, waiting in self._waiting.items():
            self._give_up(key[0], waiting, max(time_ns, waiting.start_ns))
        self._waiting.clear()

    def _ask(self, key: tuple[int, int, int, int], told: Json, time_ns: int, size: int) -> None:
        before = self._waiting.pop(key, None)
        if before is not None:
            self._give_up(key[0], before, time_ns)
        elif len(self._waiting) >= MOST_WAITING:
            oldest = next(iter(self._waiting))
            self._give_up(oldest[0], self._waiting.pop(oldest), time_ns)
        self._waiting[key] = Waiting(told, time_ns, size)

    def _answer(
        self, side: int, asked: tuple[int, int, int], told: Json, time_ns: int, size: int
    ) -> None:
        for asker in (side ^ 1, side):  # who pings itself is both sides
            waiting = self._waiting.pop((asker, *asked), None)
            if waiting is not None:
                times = waiting.start_ns, time_ns
                sizes = waiting.size, size
                self.exchanges.append(Exchange(*times, waiting.request, told, *sizes, asker))
                return
        why = "pair-not-found", "the request of this reply was not seen"
        self.exchanges.append(Exchange(time_ns, time_ns, None, told, 0, size, side ^ 1, *why))

    def _expire(self, now: int) -> None:
        while self._waiting:
            oldest = next(iter(self._waiting))
            if now - self._waiting[oldest].start_ns <= TIMEOUT_NS:
                return
            self._give_up(oldest[0], self._waiting.pop(oldest), now)

    def _give_up(self, side: int, asked: Waiting, now: int) -> None:
        end = min(now, asked.start_ns + TIMEOUT_NS)
        why = ("timeout", f"no reply came in {TIMEOUT_NS // SECOND} seconds")
        if end < asked.start_ns + TIMEOUT_NS:
            why = ("pair-not-found", "no reply was seen")
        self.exchanges.append(
            Exchange(asked.start_ns, end, asked.request, None, asked.size, 0, side, *why)
        )

    def _read(self, message: bytes) -> Json:
        kind, code = message[0], message[1]
        told: Json = {
            "type": names.TYPES[self.version].get(kind, f"type {kind}"),
            "typeNumber": kind,
            "code": code,
            "version": self.version,
            "length": len(message),
        }
        code_name = names.CODES.get((self.version, kind), {}).get(code)
        if code_name is not None:
            told["codeName"] = code_name
        if len(message) < HEAD:
            return told
        if kind in self._answered_by or kind in self._questions:
            told["identifier"], told["sequence"] = _identity(kind, message)
        elif kind in names.ERRORS[self.version]:
            about = quoted(message[HEAD:])
            if about is not None:
                told["about"] = about
        self._note_more(told, kind, code, message)
        return told

    def _note_more(self, told: Json, kind: int, code: int, message: bytes) -> None:
        """Tell what a type has of its own."""
        if kind == REDIRECT:
            told["gateway"] = str(ip_address(message[4:8]))
        elif kind == UNREACHABLE and code == NEEDED:
            told["mtu"] = int.from_bytes(message[6:8], "big")
        elif kind == PROBLEM:
            told["pointer"] = message[4]


class Icmp6(Icmp):
    """Messages of ICMPv6."""

    version = 6

    def _note_more(self, told: Json, kind: int, code: int, message: bytes) -> None:  # noqa: ARG002
        """Tell what a type has of its own."""
        if kind == TOO_BIG:
            told["mtu"] = int.from_bytes(message[4:8], "big")
        elif kind == PROBLEM_V6:
            told["pointer"] = int.from_bytes(message[4:8], "big")
        elif kind in (SOLICITATION, ADVERTISEMENT, REDIRECT_V6) and len(message) >= HEAD + 16:
            told["target"] = str(ip_address(message[8:24]))


def _identity(kind: int, message: bytes) -> tuple[int, int]:
    """Return (identifier, sequence); an extended echo has a sequence of one octet, RFC 8335."""
    identifier = int.from_bytes(message[4:6], "big")
    is_extended = kind in (42, 43, 160, 161)
    return identifier, message[6] if is_extended else int.from_bytes(message[6:8], "big")
