"""A connection of Kafka: requests, and responses that have their correlation ids."""

from dataclasses import dataclass

from services.capture.dissectors.conversation import Conversation, ProtocolError
from services.capture.dissectors.kafka.errors import name_of
from services.capture.dissectors.kafka.framing import (
    LONGEST,
    MOST_KEPT,
    NOT_FOUND,
    Framer,
    Message,
)
from services.capture.dissectors.kafka.headers import (
    METADATA,
    NAME_AT,
    PRODUCE,
    Header,
    begins,
    may_begin,
    read_header,
)
from services.capture.dissectors.kafka.messages import (
    APIS,
    REQUEST,
    RESPONSE,
    is_known,
    read_payload,
)
from services.capture.dissectors.kafka.topics import TopicNames
from services.capture.dissectors.kafka.values import IncompleteError, Reader
from services.capture.dissectors.objectcalls import Exchange, Json
from services.capture.dissectors.signatures import CLIENT, SERVER

MOST_WAITING = 1024  # requests of a connection without a response; clients have 5 at once
MOST_WAITING_OCTETS = 8 << 20  # of those, as far as they are kept
MOST_TRIES = 64  # places of a segment where one may begin
MOST_SOUGHT = 16  # correlation ids that are looked for after octets were lost

_SASL_HANDSHAKE = 17
_GAP = "gap", "octets are missing"
_NO_REQUEST = "pair-not-found", "the request was not seen"
_NO_RESPONSE = "pair-not-found", "the stream ended before a response"
_TOO_MANY = "pair-not-found", "too many requests wait for a response"


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request without a response, as yet."""

    request: Json
    began_ns: int
    size: int
    number: int
    error: tuple[str, str] | None
    held: int
    """Octets of it that are kept."""
    is_doubtful: bool = False
    """Octets of responses are missing since."""


class Kafka(Conversation):
    """One connection; see Conversation."""

    def __init__(self) -> None:
        super().__init__()
        self._asker: int | None = None  # the side whose the requests are
        self._framers = self._new_framers()  # of who asks, and of who answers
        self._waiting: dict[int, list[_Waiting]] = {}  # by correlation id
        self._waiting_count = self._waiting_octets = self._number = 0
        self._client = b""
        self._topics = TopicNames()
        self._lossy = False  # requests were lost
        self._has_doubts = False  # some that wait are doubtful
        self._is_raw = False  # SASL's tokens have no header (SaslHandshake, version 0)

    def _new_framers(self) -> tuple[Framer, Framer]:
        return Framer(self._find_request), Framer(self._find_response)

    @property
    def buffered(self) -> int:
        """See Conversation."""
        framers = self._framers
        kept = sum(len(each.data) + len(each.kept) for each in framers)
        return kept + self._waiting_octets

    def receive(self, side: int, octets: memoryview, time_ns: int) -> None:
        """See Conversation."""
        if self._asker is None:
            self._choose_asker(side, octets)
        is_asker = side == self._asker
        take = self._take_request if is_asker else self._take_response
        framer = self._framers[not is_asker]
        framer.most_kept = max(MOST_KEPT, 2 * self.body_limit)
        for message in framer.feed(octets, time_ns):
            try:
                take(message, time_ns)
            except ProtocolError:
                if not framer.is_unsure:
                    raise
                framer.search_again()
            else:
                framer.is_unsure = False
        is_new = is_asker and not self.understood and not framer.is_searching
        if is_new and not may_begin(framer.data):
            # Do not wait for the rest: another protocol may want these octets.
            raise ProtocolError("no request begins like this")

    def _choose_asker(self, side: int, octets: memoryview) -> None:
        """In the middle of a stream it is a guess who is the client, and a request says more."""
        self._asker = CLIENT
        if side == SERVER and begins(bytearray(octets), 0, b""):
            self._asker = SERVER
            self._framers = self._new_framers()
            self._framers[1].gap(0)

    def gap(self, side: int, octets: int, time_ns: int) -> None:
        """See Conversation."""
        is_asker = side == (self._asker or CLIENT)
        message = self._framers[not is_asker].gap(octets)
        if is_asker:
            self._lossy |= octets > 0
        else:
            self._has_doubts = True
            for queue in self._waiting.values():
                for waiting in queue:
                    waiting.is_doubtful = True
        if message is not None:
            (self._take_request if is_asker else self._take_response)(message, time_ns)

    def close(self, time_ns: int) -> None:
        """See Conversation."""
        for waiting in [one for queue in self._waiting.values() for one in queue]:
            self._give_up(waiting, time_ns, _GAP if waiting.is_doubtful else _NO_RESPONSE)

    # Requests.

    def _take_request(self, message: Message, time_ns: int) -> None:
        header = read_header(message)
        if header is None or not header.is_plausible(self.understood):
            if self._is_raw or message.lacks:  # a token; or so little of it that nothing is known
                return
            raise ProtocolError("no request begins like this")
        request: Json = {
            "apiKey": header.key, "apiKeyName": _name(header.key), "apiVersion": header.version,
            "clientID": header.client, "correlationID": header.correlation, "size": message.size,
        }  # fmt: skip
        error = None
        if is_known(header.key, header.version):
            error = self._read_request(message, header, request)
        elif self._is_raw:
            return
        elif not self.understood and not header.client:
            raise ProtocolError("neither a known request nor a client with a name")
        if self._is_raw and error is not None:
            return
        self.understood = True
        self._is_raw = header.key == _SASL_HANDSHAKE and header.version == 0
        self._client = (header.client or "").encode()
        if message.lacks:
            error = _GAP
        size = message.size + 4
        if header.key == PRODUCE and request.get("payload", {}).get("acks") == 0:
            self._tell(message.began_ns, time_ns, request, None, size, 0, error)
            return
        self._number += 1
        held = message.end - message.at
        self._wait(_Waiting(request, message.began_ns, size, self._number, error, held), time_ns)

    def _read_request(
        self, message: Message, header: Header, request: Json
    ) -> tuple[str, str] | None:
        """Put the payload into a request; return what is wrong with it."""
        payload, reader, failed = read_payload(
            REQUEST,
            header.key,
            header.version,
            message.data,
            header.end,
            message.end,
            self.body_limit,
        )
        request["payload"] = payload
        self._topics.put(payload)
        if message.is_cut:
            request["payloadTruncated"] = True
            return None
        # librdkafka leaves octets behind some requests, and brokers do not mind.
        is_whole = failed is None and (reader.at == message.end or bool(header.client))
        if not self.understood and not is_whole:
            raise ProtocolError("the request is not of the length that its fields have")
        return _wrong(request, reader, failed)

    def _wait(self, waiting: _Waiting, time_ns: int) -> None:
        self._waiting.setdefault(waiting.request["correlationID"], []).append(waiting)
        self._waiting_count += 1
        self._waiting_octets += waiting.held
        while self._waiting_count > MOST_WAITING or self._waiting_octets > MOST_WAITING_OCTETS:
            self._give_up(next(iter(self._waiting.values()))[0], time_ns, _TOO_MANY)

    def _forget(self, waiting: _Waiting) -> None:
        identity = waiting.request["correlationID"]
        queue = self._waiting[identity]
        queue.remove(waiting)
        if not queue:
            del self._waiting[identity]
        self._waiting_count -= 1
        self._waiting_octets -= waiting.held

    def _give_up(self, waiting: _Waiting, time_ns: int, error: tuple[str, str]) -> None:
        self._forget(waiting)
        self._tell(
            waiting.began_ns, time_ns, waiting.request, None, waiting.size, 0,
            waiting.error or error,
        )  # fmt: skip

    # Responses.

    def _take_response(self, message: Message, time_ns: int) -> None:
        if message.end - message.at < 4:
            if message.lacks or self._is_raw:
                return
            raise ProtocolError("a response without its correlation id")
        identity = _number(message.data, message.at)
        queue = self._waiting.get(identity)
        response: Json = {"correlationID": identity, "size": message.size}
        if queue is None:
            if not self._is_raw:
                self._take_unasked(response, message, time_ns)
            return
        waiting = queue[0]
        self._forget(waiting)
        request = waiting.request
        key, version = request["apiKey"], request["apiVersion"]
        response = {
            "apiKey": key, "apiKeyName": request["apiKeyName"], "apiVersion": version, **response,
        }  # fmt: skip
        error = waiting.error
        if is_known(key, version):
            error = self._read_response(message, response) or error
        if message.lacks:
            error = _GAP
        self._drop_older(waiting, time_ns)
        self._tell(
            waiting.began_ns, time_ns, request, response, waiting.size, message.size + 4, error
        )

    def _read_response(self, message: Message, response: Json) -> tuple[str, str] | None:
        key, version = response["apiKey"], response["apiVersion"]
        payload, found, failed = read_payload(
            RESPONSE, key, version, message.data, message.at + 4, message.end, self.body_limit
        )
        response["payload"] = payload
        if key == METADATA:
            self._topics.learn(payload)
        self._topics.put(payload)
        if found.code:
            response["error"] = {"code": found.code, "message": name_of(found.code)}
        if message.is_cut:
            response["payloadTruncated"] = True
            return None
        return _wrong(response, found, failed)

    def _take_unasked(self, response: Json, message: Message, time_ns: int) -> None:
        if self.understood:  # else it may be of any protocol
            error = _GAP if self._lossy else _NO_REQUEST
            self._tell(message.began_ns, time_ns, None, response, 0, message.size + 4, error)

    def _drop_older(self, answered: _Waiting, time_ns: int) -> None:
        """Brokers answer in order, so that what is older had its response among the lost octets."""
        if not self._has_doubts:
            return
        lost = [
            one for queue in self._waiting.values() for one in queue
            if one.is_doubtful and one.number < answered.number
        ]  # fmt: skip
        for each in lost:
            self._give_up(each, time_ns, _GAP)
        self._has_doubts = answered.is_doubtful

    def _tell(
        self, began_ns: int, time_ns: int, request: Json | None, response: Json | None,
        request_size: int, response_size: int, error: tuple[str, str] | None,
    ) -> None:  # fmt: skip
        self.exchanges.append(
            Exchange(
                began_ns, time_ns, request, response, request_size, response_size,
                self._asker or CLIENT, *(error or (None, None)),
            )
        )  # fmt: skip

    # After octets were lost.

    def _find_request(self, data: bytearray, segment: int, is_fresh: bool) -> tuple[int, int]:
        """Look for a header at the beginning of a segment, and before the client's name."""
        if is_fresh and len(data) < NAME_AT + 2:
            return NOT_FOUND, len(data)
        for at in (0, segment) if is_fresh else (segment,):
            if begins(data, at, self._client):
                return at, 0
        name = len(self._client).to_bytes(2, "big") + self._client
        if not self._client:
            return NOT_FOUND, 0
        at = data.find(name, NAME_AT)
        tries = 0  # each may read all that is there
        while at >= 0 and tries < MOST_TRIES:
            tries += 1
            if begins(data, at - NAME_AT, self._client):
                return at - NAME_AT, 0
            at = data.find(name, at + 1)
        return NOT_FOUND, NAME_AT + len(name)

    def _find_response(self, data: bytearray, segment: int, is_fresh: bool) -> tuple[int, int]:
        """Look for the id of a request that waits: at the beginning of a segment; elsewhere where
        the whole response is there.
        """
        if is_fresh and len(data) < 8:
            return NOT_FOUND, len(data)
        for at in (0, segment) if is_fresh else (segment,):
            size = int.from_bytes(data[at : at + 4], "big")
            if 4 <= size <= LONGEST and self._awaits(data, at + 4):
                return at, 0
        places = []
        tries = 0
        for identity in list(self._waiting)[:MOST_SOUGHT]:
            at = data.find((identity & 0xFFFFFFFF).to_bytes(4, "big"), 4)
            while at >= 0 and tries < MOST_TRIES:
                tries += 1
                if self._is_response(data, at - 4, identity):
                    places.append(at - 4)
                    break
                at = data.find((identity & 0xFFFFFFFF).to_bytes(4, "big"), at + 1)
        return (min(places), 0) if places else (NOT_FOUND, 0)

    def _awaits(self, data: bytearray, at: int) -> bool:
        return _number(data, at) in self._waiting

    def _is_response(self, data: bytearray, at: int, identity: int) -> bool:
        """Whether data[at:] has the whole response to this request."""
        request = self._waiting[identity][0].request
        key, version = request["apiKey"], request["apiVersion"]
        size = int.from_bytes(data[at : at + 4], "big")
        end = at + 4 + size
        if size < 4 or end > len(data) or not is_known(key, version):
            return False
        _, found, failed = read_payload(RESPONSE, key, version, data, at + 8, end)
        return failed is None and found.at == end


def _number(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big", signed=True)


def _name(key: int) -> str:
    return APIS[key].name if key in APIS else f"api {key}"


def _wrong(message: Json, reader: Reader, failed: IncompleteError | None) -> tuple[str, str] | None:
    """Return the error of a payload that could not be read, if it is one."""
    if failed is None:
        return None
    if reader.room < 0:
        message["payloadTruncated"] = True
        return None
    return "malformed", str(failed)
