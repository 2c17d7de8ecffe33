# mypy: ignore-errors
"""Protocols that are read as a library reads them: an object for each stream, dicts as messages.

A protocol is a class of Conversation, and `of(class)` its line's dissector in the registry. Like
h11: octets and gaps go in, exchanges come out, or nothing yet, or ProtocolError, which ends the
dissection of this stream and of no other. No input, no output, no clock.
"""

from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from services.capture.dissectors.dissector import IS_SERVER, OTHER_MISSED, Dissector, ProtocolKind
from services.capture.dissectors.objectcalls import Exchange, ObjectCalls
from services.capture.reassembly import DATA, ENDED, GAP, IN_HELD, OPENED

DEFAULT_BODY = 64 << 10  # octets: what the scheduler lets a run keep if nobody says more
LARGEST_BODY = 2 << 20  # octets: the most that it lets a run keep, and a few of MOST_BUFFERED
MOST_CONVERSATIONS = 1 << 16  # streams of one protocol at once, a few KB each
MOST_BUFFERED = 64 << 20  # octets of messages that all of them wait for the rest of
SHARE_FREED = 8  # an eighth of that goes at once, so that looking for the largest is seldom
MOST_EXCHANGES = 1 << 16  # of one batch: what is more is lost, and counted
MOST_PAST = 64  # exchanges of a stream that are remembered, for when it matches late
MOST_PAST_EXCHANGES = 1 << 15  # of all streams
MOST_PAST_OCTETS = 16 << 20  # their weight; as objects they take some times of it
LEAST_WEIGHT = 1 << 9  # octets: what two dicts and an Exchange take without any values
MOST_FAULTS = 100  # different ones that are told apart until somebody asks


class ProtocolError(Exception):
    """These octets are not of the protocol; the text says why."""


class Conversation:
    """One stream. Sides are signatures.CLIENT, who opened it, and SERVER."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        """What is complete. Whoever takes it empties it."""
        self.understood = False
        """Some message made sense, so that the stream is of this protocol."""
        self.is_over = False
        """What follows is of no interest: it is encrypted, or of another protocol."""
        self.unread: int | None = None
        """Where that begins with octets that tell what it is (TLS, after STARTTLS), how many of
        what was received last are of it."""
        self.body_limit = DEFAULT_BODY
        """Octets of each body to keep, 0 for none. Who takes the exchanges may change it."""

    @property
    def buffered(self) -> int:
        """Octets that are kept until their message is whole; every conversation bounds its own."""
        return 0

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """Take what a side said next; of a datagram, all of it. Raises ProtocolError.

        `octets` are the caller's: what is needed later is to be copied.
        """
        raise NotImplementedError

    def gap(self, side: int, octets: int, time_ns: int) -> None:  # noqa: ARG002
        """So many octets of a side were lost, 0 for not known. Raises ProtocolError if no message
        can be found after it.

        In the middle of a stream receive() comes first with what looks like the beginning of a
        message, and before it gap(other side, 0), unless that raises ProtocolError at once.
        """
        raise ProtocolError("octets are missing")

    def close(self, time_ns: int) -> None:
        """The stream is over: add what still waits for an answer to `exchanges`."""


class _Stream:
    """What the dissector keeps of one stream."""

    __slots__ = ("buffered", "conversation", "direction", "past", "past_octets")

    def __init__(self, conversation: Conversation, direction: int) -> None:
        self.conversation: Conversation | None = conversation  # None when it is not read any more
        self.direction = direction  # of the client
        self.buffered = 0
        self.past: deque[tuple[Exchange, int]] = deque()  # and the number of its entry


class ConversationDissector:
    """All streams of one protocol: see dissector.Dissector."""

    def __init__(self, kind: ProtocolKind, new: Callable[[], Conversation]) -> None:
        self._kind, self._new = kind, new
        self._streams: dict[int, _Stream] = {}
        self._ended: list[int] = []  # streams that are remembered until the next batch
        self._done: list[tuple[int, int, Exchange]] = []  # stream, direction that asked
        self._order: deque[int] = deque()  # streams, one for each exchange that is remembered
        self._past_octets = 0
        self._body_limit = DEFAULT_BODY
        self.buffered = 0
        self.refused: list[int] = []
        self.broken: list[int] = []
        self.over: list[int] = []
        self.followed: dict[int, tuple[int, int]] = {}
        self.overrun = 0
        self.faults: Counter[str] = Counter()

    def take(
        self, segments: np.ndarray, marks: np.ndarray, frames: np.ndarray, held: np.ndarray
    ) -> None:
        """See Dissector.take."""
        places = memoryview(frames), memoryview(held)
        names = ("timestamp", "position", "stream", "direction", "length", "kind", "place")
        columns = (segments[name].tolist() for name in names)
        for row, (time_ns, position, number, direction, length, kind, place, mark) in enumerate(
            zip(*columns, marks.tolist(), strict=True)
        ):
            if kind == OPENED:  # the one before it is in the next end_streams()
                continue
            server = mark & IS_SERVER
            stream = self._stream(number, (direction & 1) ^ server)
            if stream is None or stream.conversation is None:
                continue
            if mark & OTHER_MISSED:
                self._miss(stream, 1 - server, time_ns)
            if kind == DATA:
                octets = places[place == IN_HELD][position : position + length]
                unread = self._do(number, stream, "receive", server, octets, time_ns)
                if unread is not None:
                    self.followed[number] = row, unread
            elif kind == GAP:
                self._do(number, stream, "gap", server, length, time_ns)
            elif kind == ENDED:
                self._end(number, stream, time_ns)

    def take_datagrams(self, packets: np.ndarray, marks: np.ndarray, octets: np.ndarray) -> None:
        """See Dissector.take_datagrams."""
        place = memoryview(octets)
        names = ("timestamp", "payload_offset", "stream", "direction", "payload_length")
        columns = (packets[name].tolist() for name in names)
        for time_ns, position, number, direction, length, mark in zip(
            *columns, marks.tolist(), strict=True
        ):
            server = mark & IS_SERVER
            stream = self._stream(number, (direction & 1) ^ server)
            if stream is not None and stream.conversation is not None:
                payload = place[position : position + length]
                self._do(number, stream, "receive", server, payload, time_ns)

    @property
    def body_limit(self) -> int:
        """See Dissector.body_limit."""
        return self._body_limit

    @body_limit.setter
    def body_limit(self, octets: int) -> None:
        self._body_limit = min(octets, LARGEST_BODY)
        for stream in self._streams.values():
            if stream.conversation is not None:
                stream.conversation.body_limit = self._body_limit

    def _new_conversation(self) -> Conversation:
        conversation = self._new()
        conversation.body_limit = self._body_limit
        return conversation

    def take_over(self, number: int, direction: int, about) -> bool:
        """Begin in a stream behind HTTP/1; return whether there is room. direction: of the client;
        about: see Handover, for `after_http1` of the class.
        """
        if number not in self._streams and self._stream(number, direction) is None:
            return False
        stream = self._streams[number]
        conversation = self._new.after_http1(about)
        conversation.body_limit = self._body_limit
        conversation.understood = True  # other octets are a fault, not of another protocol
        stream.conversation, stream.direction = conversation, direction
        return True

    def _stream(self, number: int, direction: int) -> _Stream | None:
        stream = self._streams.get(number)
        if stream is None:
            if len(self._streams) >= MOST_CONVERSATIONS:
                self.overrun += 1
                self.broken.append(number)
                return None
            stream = self._streams[number] = _Stream(self._new_conversation(), direction)
        return stream

    def _miss(self, stream: _Stream, side: int, time_ns: int) -> None:
        """Tell a new conversation that one side's place is not known; one that can find no message
        then gets what comes as it is, which mostly begins one.
        """
        try:
            stream.conversation.gap(side, 0, time_ns)
        except ProtocolError:
            stream.conversation = self._new_conversation()
        except Exception as error:
            count_fault(self.faults, error)
            stream.conversation = self._new_conversation()

    def _do(self, number: int, stream: _Stream, what: str, *arguments) -> int | None:
        """Let the conversation take something; end it when it cannot. Return Conversation.unread
        when it has come to its end.
        """
        conversation = stream.conversation
        try:
            getattr(conversation, what)(*arguments)
            failed = False
        except ProtocolError:
            failed = True
        except Exception as error:  # it must not end the capture of all others
            count_fault(self.faults, error)
            failed = True
        if conversation.exchanges:
            conversation.understood = True
            self._take_exchanges(number, stream, conversation)
        self.buffered += conversation.buffered - stream.buffered
        stream.buffered = conversation.buffered
        if failed:
            (self.broken if conversation.understood else self.refused).append(number)
            self._end(number, stream, arguments[-1])
        elif conversation.is_over:
            self.over.append(number)
            self._end(number, stream, arguments[-1])
        if self.buffered > MOST_BUFFERED:
            self._make_room(arguments[-1])
        return conversation.unread if conversation.is_over and not failed else None

    def _make_room(self, time_ns: int) -> None:
        """End the conversations that wait with the most octets."""
        largest = sorted(self._streams.items(), key=lambda each: each[1].buffered, reverse=True)
        for number, stream in largest:
            if self.buffered <= MOST_BUFFERED - MOST_BUFFERED // SHARE_FREED:
                break
            self.overrun += 1
            self.over.append(number)
            self._end(number, stream, time_ns)

    def _end(self, number: int, stream: _Stream, time_ns: int) -> None:
        """Close a conversation; what is remembered of it stays until the next batch."""
        conversation, stream.conversation = stream.conversation, None
        if conversation is None:
            return
        if conversation.understood:
            try:
                conversation.close(time_ns)
            except Exception as error:
                count_fault(self.faults, error)
            self._take_exchanges(number, stream, conversation)
        self.buffered -= stream.buffered
        stream.buffered = 0

    def _take_exchanges(self, number: int, stream: _Stream, conversation: Conversation) -> None:
        room = MOST_EXCHANGES - len(self._done)
        self.overrun += max(0, len(conversation.exchanges) - room)
        self._done += [
            (number, stream.direction ^ each.asked_by, each)
            for each in conversation.exchanges[:room]
        ]
        conversation.exchanges.clear()

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """See Dissector.end_streams; called once for each batch."""
        for number in self._ended:
            stream = self._streams.pop(number, None)
            if stream is not None:
                self._past_octets -= sum(_weight(each) for each, _ in stream.past)
        self._ended = [number for number in numbers.tolist() if number in self._streams]
        for number in self._ended:
            self._end(number, self._streams[number], now)

    def calls(self) -> ObjectCalls | None:
        """See Dissector.calls."""
        if not self._done:
            return None
        numbers, directions, exchanges = zip(*self._done, strict=True)
        self._done = []
        return self._calls(exchanges, numbers, directions)

    def _calls(self, exchanges, numbers, directions) -> ObjectCalls:
        return ObjectCalls(
            self._kind.name, self._kind.abbr, exchanges,
            np.array(numbers, np.int64), np.array(directions, np.uint8),
        )  # fmt: skip

    def remember(self, calls: ObjectCalls, indexes: np.ndarray) -> None:
        """See Dissector.remember."""
        for number, index, exchange in zip(
            calls.streams.tolist(), indexes.tolist(), calls.exchanges, strict=True
        ):
            stream = self._streams.get(number)
            if stream is None:
                continue
            if len(stream.past) == MOST_PAST:
                self._past_octets -= _weight(stream.past.popleft()[0])
            stream.past.append((exchange, index))
            self._past_octets += _weight(exchange)
            self._order.append(number)
        while self._past_octets > MOST_PAST_OCTETS or len(self._order) > MOST_PAST_EXCHANGES:
            oldest = self._streams.get(self._order.popleft())
            if oldest is not None and oldest.past:
                self._past_octets -= _weight(oldest.past.popleft()[0])

    def earlier(self, numbers: np.ndarray) -> tuple[ObjectCalls, np.ndarray] | None:
        """See Dissector.earlier."""
        found = [
            (number, stream.direction ^ exchange.asked_by, exchange, index)
            for number in numbers.tolist()
            if (stream := self._streams.get(number)) is not None
            for exchange, index in stream.past
        ]
        if not found:
            return None
        streams, directions, exchanges, indexes = zip(*found, strict=True)
        return self._calls(exchanges, streams, directions), np.array(indexes, np.int32)


def count_fault(faults: Counter[str], error: Exception) -> None:
    """Count an error that no dissector may raise, which is a mistake of ours, by its place."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    place = Path(trace.tb_frame.f_code.co_filename)
    where = f"{type(error).__name__} in {place.parent.name}/{place.name}:{trace.tb_lineno}"
    if where in faults or len(faults) < MOST_FAULTS:
        faults[where] += 1


def _weight(exchange: Exchange) -> int:
    return max(exchange.size, LEAST_WEIGHT)


def of(new: Callable[[], Conversation]) -> Callable[[ProtocolKind, int], Dissector]:
    """Return what makes the dissector of a class of conversations."""
    return lambda kind, _: ConversationDissector(kind, new)
