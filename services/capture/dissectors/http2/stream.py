"""One stream of an HTTP/2 connection: what both sides said in it, and the exchange that it is."""

from dataclasses import dataclass
from typing import Any

from services.capture.dissectors import graphql
from services.capture.dissectors.http1.bodies import show
from services.capture.dissectors.http2 import grpc
from services.capture.dissectors.http2.headers import UNKNOWN, Pair
from services.capture.dissectors.objectcalls import Exchange

VERSION = "HTTP/2"

Json = dict[str, Any]


@dataclass(slots=True)
class Http2Exchange(Exchange):
    """An exchange that knows what it is called."""

    abbr: str = VERSION


class Half:
    """What one side said in a stream."""

    def __init__(self) -> None:
        self.headers: list[Pair] | None = None
        self.trailers: list[Pair] = []
        self.headers_size = 0  # octets of both
        self.size = 0  # octets of all frames
        self.body = bytearray()
        self.body_size = 0
        self.is_body_cut = False
        self.messages = grpc.Messages()
        self.begin_ns = self.end_ns = 0
        self.is_over = False
        self.is_cut = False
        """Octets of it were not captured."""

    def value(self, name: str) -> str | None:
        """Return the first value of a field."""
        for key, value in self.headers or ():
            if key == name:
                return value
        return None

    @property
    def lacks_names(self) -> bool:
        """Whether the names of some fields are in a part of the table that was not seen."""
        return any(name == UNKNOWN for name, _ in self.headers or ())

    def take_body(self, octets: memoryview, frame: int, room: int) -> int:
        """Take octets of the body; keep at most `room` of them, and return how many. frame: how
        long the frame is that begins here, 0 if none does.
        """
        self.body_size += len(octets)
        self.messages.feed(octets, frame)
        kept = 0 if self.is_body_cut else min(len(octets), room)
        self.body += octets[:kept]
        self.is_body_cut |= kept < len(octets)
        return kept

    def lose_body(self, octets: int) -> None:
        """So many octets of the body are missing."""
        self.body_size += octets
        self.messages.skip(octets)
        self.is_body_cut = self.is_cut = True

    def shown(self, call: bool, body_limit: int) -> Json:
        """Return what a request and a response have both. call: whether it is one of gRPC;
        body_limit: octets of a decoded body, 0 to leave bodies out.
        """
        found: Json = {
            "httpVersion": VERSION,
            "headers": _with_one_cookie(self.headers or []),
            "headersSize": self.headers_size,
            "bodySize": self.body_size,
        }
        if self.trailers:
            found["trailers"] = _joined(self.trailers)
        if call:
            found |= self.messages.shown()
        if not body_limit:
            return found
        if call:
            kind = (self.value("content-type") or "").lower()
            coding = self.value("grpc-encoding") or ""
            body, is_all = grpc.body(bytes(self.body), coding, kind.endswith("+json"))
            is_base64, truncated = False, self.is_body_cut or not is_all
        else:
            coding = self.value("content-encoding") or ""
            body, is_base64, truncated = show(
                bytes(self.body), coding, self.is_body_cut, body_limit
            )
        found["body"] = body
        if is_base64:
            found["bodyEncoding"] = "base64"
        if truncated:
            found["bodyTruncated"] = True
        return found


def _with_one_cookie(fields: list[Pair]) -> list[Pair]:
    """Join cookies that were sent apart so that the table has them (RFC 9113, 8.2.3)."""
    crumbs = [value for name, value in fields if name == "cookie"]
    if len(crumbs) < 2:
        return fields
    others = [pair for pair in fields if pair[0] != "cookie"]
    return [*others, ("cookie", "; ".join(crumbs))]


def _joined(fields: list[Pair]) -> Json:
    found: dict[str, list[str]] = {}
    for name, value in fields:
        found.setdefault(name, []).append(value)
    return {name: ", ".join(values) for name, values in found.items()}


class Stream:
    """Both halves: that of the side that asks, and that of the one that answers."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.asking, self.answering = Half(), Half()
        self.is_pushed = False
        self.error: tuple[str, str] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected."""
        return self.error is not None or (self.asking.is_over and self.answering.is_over)

    @property
    def is_call(self) -> bool:
        """Whether it is a call of gRPC; where names of fields are not known, by what they carry."""
        halves = self.asking, self.answering
        if any(grpc.is_grpc(half.value("content-type")) for half in halves):
            return True
        if any(name == "grpc-status" for half in halves for name, _ in half.trailers):
            return True
        is_unknown = any(half.lacks_names or half.headers is None for half in halves)
        return (
            is_unknown
            and all(half.value("content-type") is None for half in halves)
            and all(half.messages.is_whole for half in halves)
        )

    def exchange(
        self, asked_by: int, error: tuple[str, str] | None, body_limit: int
    ) -> Http2Exchange | None:
        """Return what it is when it is over. error: what it lacks where nothing else is wrong;
        body_limit: as Half.shown.
        """
        asking, answering = self.asking, self.answering
        has_request = asking.headers is not None or asking.body_size > 0
        has_response = answering.headers is not None or answering.body_size > 0
        if not has_request and not has_response:
            return None
        call = self.is_call
        halves = [
            h for h, is_there in ((asking, has_request), (answering, has_response)) if is_there
        ]
        error = self.error or self._lack(has_request, has_response, error)
        kind, sentence = error or (None, None)
        request = self._request(call, body_limit) if has_request else None
        response = self._response(call, body_limit) if has_response else None
        abbr = "gRPC" if call else VERSION
        if request is not None and not call and self._tell_graphql(request, response):
            abbr = graphql.ABBR
        return Http2Exchange(
            halves[0].begin_ns, max(half.end_ns for half in halves), request, response,
            asking.size, answering.size, asked_by, kind, sentence, "2.0", abbr=abbr,
        )  # fmt: skip

    def _tell_graphql(self, request: Json, response: Json | None) -> bool:
        """Add what is asked and what went wrong, if it is GraphQL; return whether it is."""
        said = graphql.told_request(
            self.asking.value("content-type"), request.get("url", ""),
            None if "bodyEncoding" in request else request.get("body"), self.asking.is_body_cut,
        )  # fmt: skip
        request |= said
        if said and response is not None:
            response |= graphql.told_response(
                self.answering.value("content-type"), response.get("body")
            )
        return bool(said)

    def _lack(
        self, has_request: bool, has_response: bool, error: tuple[str, str] | None
    ) -> tuple[str, str] | None:
        if not has_request:
            return "pair-not-found", "the request was not seen"
        if not has_response:
            is_lost = self.answering.is_cut
            return ("gap", "the answer was not captured") if is_lost else error
        for name, half in (("request", self.asking), ("response", self.answering)):
            if half.is_cut or half.headers is None:
                return "gap", f"the {name} was not captured whole"
        return None if self.answering.is_over else error

    def _request(self, call: bool, body_limit: int) -> Json:
        half = self.asking
        url = half.value(":path")
        if url is None:
            url = half.value(":authority") if half.value(":method") == "CONNECT" else None
        found = half.shown(call, body_limit) | {"streamId": self.number}
        method = half.value(":method")
        if method is not None:
            found["method"] = method
        if url is not None:
            found["url"], found["path"] = url, url.partition("?")[0]
            if call:
                found |= grpc.name_call(found["path"])
        if self.is_pushed:
            found["pushed"] = True
        return found

    def _response(self, call: bool, body_limit: int) -> Json:
        half = self.answering
        found = half.shown(call, body_limit) | {"streamId": self.number}
        status = half.value(":status")
        if status is not None and status.isascii() and status.isdigit() and len(status) == 3:
            found["status"] = int(status)
        if call:
            found |= grpc.status([*(half.headers or ()), *half.trailers])
        return found
