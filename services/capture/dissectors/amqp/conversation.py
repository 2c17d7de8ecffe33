"""A connection of AMQP 0-9-1: methods, paired with their answers, and messages with their bodies.

What waits for an answer is told when it comes. What has none (publish, deliver, ack …) is told at
once, or when its body is whole. Either side may ask: `connection start` is the server's.
"""

from collections.abc import Iterable
from typing import TypeAlias

from services.capture.dissectors.amqp.frames import (
    BODY,
    GREETING,
    HEADER,
    HEARTBEAT,
    LOST_ALL,
    METHOD,
    Frame,
    FrameReader,
)
from services.capture.dissectors.amqp.methods import METHODS, Method, read_properties
from services.capture.dissectors.amqp.pending import Content, Waiting
from services.capture.dissectors.amqp.values import Reader
from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.objectcalls import Exchange, Json
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

MOST_HELD = 4 << 20  # octets of a connection's messages that are not yet whole, or not answered
MOST_CONTENTS = 2048  # bodies at once: channels that RabbitMQ allows
MOST_WAITING = 1024  # methods of a connection that wait for an answer; a channel has one or two
MOST_CONSUMERS = 4096  # whose queue is remembered
MOST_CODE_OF_PEACE = 200  # reply code of a close without a complaint

Problem: TypeAlias = tuple[str | None, str | None]
"""Type and text of an error; None twice for none."""

_VERSIONS = {
    b"AMQP\x00\x00\x09\x01": "0-9-1",
    b"AMQP\x01\x01\x00\x09": "0-9",
    b"AMQP\x01\x01\x08\x00": "0-8",
}
_TUNE_OK = 10 << 16 | 31
_CLOSE, _CHANNEL_CLOSE = 10 << 16 | 50, 20 << 16 | 40
_CHANNEL_CLOSED = 20 << 16 | 41
_OF_0_8 = {10 << 16 | 60: _CLOSE, 10 << 16 | 61: 10 << 16 | 51}  # which had a redirect before them
_CONSUME_OK, _CANCEL_OK, _DELIVER = 60 << 16 | 21, 60 << 16 | 31, 60 << 16 | 60
_BASIC = 60

_GAP = "gap", "octets are missing"
_NO_REQUEST = "pair-not-found", "the request was not seen"
_NO_ANSWER = "pair-not-found", "the stream ended before an answer"
_UNFINISHED = "malformed", "another method came before the body was whole"
_TOO_MANY = "pair-not-found", "too many methods wait for an answer"
_NO_BODY = "pair-not-found", "the stream ended before the body was whole"


class Amqp(Conversation):
    """One connection. The parser of frames is in `frames`, that of methods in `methods`."""

    def __init__(self) -> None:
        super().__init__()
        self._readers = (FrameReader(), FrameReader())
        self._waiting: dict[int, list[Waiting]] = {}  # by channel
        self._contents: tuple[dict[int, Content], dict[int, Content]] = ({}, {})  # by channel
        self._queues: dict[int, dict[str, str]] = {}  # by channel and consumer
        self._waiting_count = self._consumer_count = self._held_octets = 0
        self._seen = [False, False]
        self._lossy = [False, False]
        self._version = "0-9-1"
        self._greeting: tuple[Json, int] | None = None

    @property
    def buffered(self) -> int:
        """See Conversation."""
        return len(self._readers[0].data) + len(self._readers[1].data) + self._held_octets

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        self._seen[side] = True
        reader = self._readers[side]
        for frame in reader.feed(octets, time_ns):
            if frame.kind == BODY:
                self._take_body(side, frame, reader.data, time_ns)
            elif frame.kind == METHOD:
                self._take_method(side, frame, reader.data, time_ns)
            elif frame.kind == HEADER:
                self._take_header(side, frame, reader.data, time_ns)
            elif frame.kind == GREETING:
                self._take_greeting(side, frame, reader.data, time_ns)
            elif frame.kind == HEARTBEAT:
                self.understood = True

    def _take_greeting(self, side: int, frame: Frame, data: bytearray, time_ns: int) -> None:
        greeting = bytes(data[frame.at - 7 : frame.end + 1])
        if side == CLIENT:
            if greeting not in _VERSIONS:
                raise ProtocolError("not a version of AMQP that is read here")
            self._version = _VERSIONS[greeting]
            self._greeting = {"method": "protocol header", "version": self._version}, frame.began_ns
        elif not greeting.startswith(b"AMQP"):
            raise ProtocolError("not AMQP")
        else:  # the version that the server would speak; it hangs up
            version = _VERSIONS.get(greeting, greeting[4:].hex("."))
            asked, began_ns = self._greeting or (None, time_ns)
            answer = {"method": "protocol header", "version": version}
            self._tell(
                began_ns, time_ns, asked, answer, frame.size if asked else 0, frame.size, CLIENT,
                ("closed", f"the server does not speak this version, but {version}"),
            )  # fmt: skip
            self.is_over = True
        self.understood = True

    def _take_method(self, side: int, frame: Frame, data: bytearray, time_ns: int) -> None:
        if frame.end - frame.at < 4:
            raise ProtocolError("a method without its number")
        number = int.from_bytes(data[frame.at : frame.at + 4], "big")
        if self._version == "0-8":
            number = _OF_0_8.get(number, number)
        method = METHODS.get(number) or self._unknown(number)
        if frame.is_cut:
            message: Json = {"method": method.name, "argumentsTruncated": True}
        else:
            message = method.read(Reader(data, frame.at + 4, frame.end))
        message["channel"] = frame.channel
        self.understood = True
        if frame.channel in self._contents[side]:
            self._finish(side, frame.channel, time_ns, _UNFINISHED)
        if number == _TUNE_OK:
            self._agree(message)
        elif number == _DELIVER:
            queue = self._queues.get(frame.channel, {}).get(message.get("consumerTag", ""))
            message |= {} if queue is None else {"queue": queue}
        if method.is_answer:
            waiting = self._asked(1 - side, frame.channel, number)
            if number == _CONSUME_OK and waiting is not None:
                self._remember_queue(frame.channel, message, waiting)
            elif number == _CANCEL_OK:
                self._forget_queue(frame.channel, message)
            if method.has_content:
                content = Content(message, frame.began_ns, frame.size, waiting, True)
                self._expect_content(side, frame.channel, content)
            else:
                self._answer(side, waiting, message, frame.began_ns, time_ns, frame.size)
                if number == _CHANNEL_CLOSED:
                    self._end_channel(frame.channel, time_ns)
        elif method.has_content:
            content = Content(message, frame.began_ns, frame.size)
            self._expect_content(side, frame.channel, content)
        elif not method.answers or message.get("noWait"):
            self._tell(frame.began_ns, time_ns, message, None, frame.size, 0, side)
        else:
            if number in (_CLOSE, _CHANNEL_CLOSE):
                self._close(side, frame.channel, number, message, time_ns)
            self._wait(side, frame, method, message, time_ns)

    def _unknown(self, number: int) -> Method:
        if not self.understood:
            raise ProtocolError("no such method")
        name = f"class {number >> 16} method {number & 0xFFFF}"
        return Method(name, frozenset(), False, False, ())

    def _agree(self, message: Json) -> None:
        """Both have agreed on the longest frame; 0 is no limit."""
        if message.get("frameMax"):
            for reader in self._readers:
                reader.most_frame = min(reader.most_frame, message["frameMax"])

    def _remember_queue(self, channel: int, answer: Json, waiting: Waiting) -> None:
        of_channel = self._queues.setdefault(channel, {})
        tag, queue = answer.get("consumerTag", ""), waiting.message.get("queue", "")
        if tag in of_channel:
            of_channel[tag] = queue
        elif self._consumer_count < MOST_CONSUMERS:
            of_channel[tag] = queue
            self._consumer_count += 1

    def _forget_queue(self, channel: int, answer: Json) -> None:
        if self._queues.get(channel, {}).pop(answer.get("consumerTag", ""), None) is not None:
            self._consumer_count -= 1

    # What waits for an answer.

    def _wait(self, side: int, frame: Frame, method: Method, message: Json, time_ns: int) -> None:
        queue = self._waiting.get(frame.channel, [])
        lost = [each for each in queue if each.is_doubtful and each.asked_by == side]
        self._give_up(frame.channel, lost, time_ns, _GAP)  # else it had been answered before
        waiting = Waiting(method.answers, message, frame.began_ns, frame.size, side)
        if self._waiting_count == MOST_WAITING or self._held_octets > MOST_HELD:
            self._tell(frame.began_ns, time_ns, message, None, frame.size, 0, side, _TOO_MANY)
            return
        self._waiting.setdefault(frame.channel, []).append(waiting)
        self._waiting_count += 1
        self._held_octets += frame.size

    def _asked(self, side: int, channel: int, number: int) -> Waiting | None:
        """Return, and forget, what a side asked that this method answers."""
        queue = self._waiting.get(channel, [])
        for place, each in enumerate(queue):
            if each.asked_by == side and number in each.answers:
                del queue[place]
                self._waiting_count -= 1
                self._held_octets -= each.size
                if not queue:
                    del self._waiting[channel]
                return each
        return None

    def _answer(
        self, side: int, waiting: Waiting | None, answer: Json,
        began_ns: int, time_ns: int, size: int, error: Problem = (None, None),
    ) -> None:  # fmt: skip
        if waiting is None:
            error = _GAP if self._lossy[1 - side] else _NO_REQUEST
            self._tell(began_ns, time_ns, None, answer, 0, size, 1 - side, error)
            return
        self._tell(
            waiting.began_ns, time_ns, waiting.message, answer, waiting.size, size,
            waiting.asked_by, _closing(waiting.message) or error,
        )  # fmt: skip

    def _give_up(self, channel: int, lost: Iterable[Waiting], time_ns: int, error: Problem) -> None:
        """Tell of methods of a channel that get no answer any more."""
        gone = {id(each) for each in lost}
        if not gone:
            return
        queue = self._waiting.pop(channel)
        kept = [each for each in queue if id(each) not in gone]
        if kept:
            self._waiting[channel] = kept
        self._waiting_count -= len(gone)
        for each in queue:
            if id(each) in gone:
                self._held_octets -= each.size
                self._tell(
                    each.began_ns, time_ns, each.message, None, each.size, 0, each.asked_by,
                    _closing(each.message) or error,
                )  # fmt: skip

    def _close(self, side: int, channel: int, number: int, message: Json, time_ns: int) -> None:
        """A close is the answer to whatever its side was asked."""
        reason = _closing(message) or _NO_ANSWER
        for each in list(self._waiting) if number == _CLOSE else [channel]:
            lost = [one for one in self._waiting.get(each, []) if one.asked_by != side]
            self._give_up(each, lost, time_ns, reason)

    def _end_channel(self, channel: int, time_ns: int) -> None:
        """What was not answered by now is not answered any more."""
        self._give_up(channel, self._waiting.get(channel, []), time_ns, _NO_ANSWER)
        self._consumer_count -= len(self._queues.pop(channel, {}))

    # Messages.

    def _expect_content(self, side: int, channel: int, content: Content) -> None:
        if len(self._contents[side]) >= MOST_CONTENTS:
            raise ProtocolError(f"more than {MOST_CONTENTS} messages at once")
        self._contents[side][channel] = content

    def _take_header(self, side: int, frame: Frame, data: bytearray, time_ns: int) -> None:
        content = self._contents[side].get(frame.channel)
        if content is None or content.has_header:  # its method was lost, or before the capture
            return
        if frame.end - frame.at < 14:
            raise ProtocolError("a content header is too short")
        if int.from_bytes(data[frame.at : frame.at + 2], "big") != _BASIC:
            raise ProtocolError("a content header of another class than its method")
        content.left = int.from_bytes(data[frame.at + 4 : frame.at + 12], "big")
        if frame.is_cut or self._held_octets > MOST_HELD:
            content.message["propertiesTruncated"] = True
        else:
            reader = Reader(data, frame.at + 12, frame.end)
            content.message["properties"] = read_properties(reader)
            content.held = frame.size
            self._held_octets += frame.size
        content.message["bodySize"] = content.left
        content.has_header = True
        content.size += frame.size
        if content.left == 0:
            self._finish(side, frame.channel, time_ns)

    def _take_body(self, side: int, frame: Frame, data: bytearray, time_ns: int) -> None:
        content = self._contents[side].get(frame.channel)
        if content is None or not content.has_header:
            return
        length = frame.end - frame.at
        content.size += frame.size
        if length > content.left:
            raise ProtocolError("a body is longer than its header says")
        content.left -= length
        room = min(self.body_limit - len(content.body), MOST_HELD - self._held_octets, length)
        if room > 0 and not content.lacks:  # what follows a hole is no part of a beginning
            content.body += memoryview(data)[frame.at : frame.at + room]
            self._held_octets += room
        if content.left == 0 and frame.is_last:
            self._finish(side, frame.channel, time_ns)

    def _finish(self, side: int, channel: int, time_ns: int, error: Problem = (None, None)) -> None:
        """Tell of a message as far as it came."""
        content = self._contents[side].pop(channel)
        self._held_octets -= len(content.body) + content.held
        if content.has_header and self.body_limit:
            content.put_body()
        if content.lacks:
            error = _GAP
        if content.is_answer:
            self._answer(
                side, content.asked, content.message,
                content.began_ns, time_ns, content.size, error,
            )  # fmt: skip
        else:
            self._tell(
                content.began_ns, time_ns, content.message, None, content.size, 0, side, error
            )

    # What is missing.

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation."""
        reader = self._readers[side]
        channel, lacks = reader.gap(octets)
        content = self._contents[side].get(channel)
        if lacks is not None and content is not None and content.has_header:
            content.left = max(0, content.left - lacks)
            content.size += octets
            content.lacks = True
            if content.left == 0 and not reader.is_in_frame:
                self._finish(side, channel, time_ns)
            return
        if lacks is not None:
            return
        for each in list(self._contents[side]) if channel == LOST_ALL else [channel]:
            if each in self._contents[side]:
                self._finish(side, each, time_ns, _GAP)
        if self._seen[side]:  # else the capture begins here
            self._lossy[side] = True
        for queue in self._waiting.values():
            for waiting in queue:
                waiting.is_doubtful |= waiting.asked_by != side

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        for side in (CLIENT, SERVER):
            for channel in list(self._contents[side]):
                self._finish(side, channel, time_ns, _NO_BODY)
        for channel in list(self._waiting):
            self._end_channel(channel, time_ns)

    def _tell(
        self, began_ns: int, time_ns: int, request: Json | None, response: Json | None,
        request_size: int, response_size: int, asked_by: int, error: Problem = (None, None),
    ) -> None:  # fmt: skip
        self.exchanges.append(
            Exchange(
                began_ns,
                time_ns,
                request,
                response,
                request_size,
                response_size,
                asked_by,
                *error,
                version=self._version,
            )
        )


def _closing(message: Json) -> Problem | None:
    """Return the error that a close tells of, None where it is no close, or a peaceful one."""
    code = message.get("replyCode", 0)
    if code <= MOST_CODE_OF_PEACE:
        return None
    return "closed", f"{code} {message.get('replyText', '')}".rstrip()


_LOWS = bytes({number & 0xFF for number in METHODS})
_METHOD_START = (
    b"\x01", ANY, ANY, b"\0", bytes(range(4)), ANY, ANY,  # type, channel, size up to MOST_HEAD
    b"\0", bytes({number >> 16 for number in METHODS}), b"\0", _LOWS,
)  # fmt: skip
_HEARTBEAT = (b"\x08", *(b"\0",) * 6, b"\xce")
SIGNATURES = (
    Signature(CLIENT, (b"A", b"M", b"Q", b"P", b"\0\1", b"\0\1", b"\0\x08\x09", b"\0\1\x09")),
    *(
        Signature(side, octets)
        for side in (CLIENT, SERVER)
        for octets in (_METHOD_START, _HEARTBEAT)
    ),
)
