"""The exchange that a stream was, of what is kept of it: made for entries that are wanted."""

from dataclasses import dataclass
from typing import Any

from services.capture.dissectors import graphql
from services.capture.dissectors.http1.bodies import show
from services.capture.dissectors.http2 import grpc
from services.capture.dissectors.http2.fields import Pair
from services.capture.dissectors.http2.messages import SIZE
from services.capture.dissectors.objectcalls import Exchange

VERSION, GRPC, VERSION_NUMBER = "HTTP/2", "gRPC", "2.0"
ERRORS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR",
    "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
"""RFC 9113, 7."""

Json = dict[str, Any]


@dataclass(slots=True)
class Http2Exchange(Exchange):
    """An exchange that knows what it is called."""

    abbr: str = VERSION


@dataclass(frozen=True, slots=True)
class Half:
    """What one side said in a stream."""

    headers: list[Pair]
    trailers: list[Pair]
    headers_size: int
    """Octets of both."""
    body: bytes
    body_size: int
    is_body_cut: bool
    message_count: int
    compressed: int
    """How many of the messages are compressed."""
    sizes: bytes
    """Of the first messages, each in 4 octets."""

    def value(self, name: str) -> str | None:
        """Return the first value of a field."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def shown(self, call: bool, body_limit: int) -> Json:
        """Return what a request and a response have both. call: whether it is one of gRPC;
        body_limit: octets of a decoded body, 0 to leave bodies out.
        """
        found: Json = {
            "httpVersion": VERSION,
            "headers": with_one_cookie(self.headers),
            "headersSize": self.headers_size,
            "bodySize": self.body_size,
        }
        if self.trailers:
            found["trailers"] = _joined(self.trailers)
        if call:
            found |= self._messages()
        if not body_limit:
            return found
        body, is_base64, truncated = self.shown_body(call, body_limit)
        found["body"] = body
        if is_base64:
            found["bodyEncoding"] = "base64"
        if truncated:
            found["bodyTruncated"] = True
        return found

    def shown_body(self, call: bool, body_limit: int) -> tuple[str, bool, bool]:
        """Return the body's text, whether that is base64, and whether it is not all."""
        if call:
            kind = (self.value("content-type") or "").lower()
            coding = self.value("grpc-encoding") or ""
            body, is_all = grpc.body(self.body, coding, kind.endswith("+json"))
            return body, False, self.is_body_cut or not is_all
        coding = self.value("content-encoding") or ""
        return show(self.body, coding, self.is_body_cut, body_limit)

    def _messages(self) -> Json:
        ends = range(SIZE, len(self.sizes) + 1, SIZE)
        sizes = [int.from_bytes(self.sizes[end - SIZE : end], "big") for end in ends]
        found: Json = {"messageCount": self.message_count, "messageSizes": sizes}
        if self.compressed:
            found["messagesCompressed"] = self.compressed
        return found


def with_one_cookie(fields: list[Pair]) -> list[Pair]:
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


def request_of(half: Half, number: int, call: bool, pushed: bool, body_limit: int) -> Json:
    """Return a request of the stream `number`; call: whether it is one of gRPC."""
    url = half.value(":path")
    if url is None:
        url = half.value(":authority") if half.value(":method") == "CONNECT" else None
    found = half.shown(call, body_limit) | {"streamId": number}
    method = half.value(":method")
    if method is not None:
        found["method"] = method
    if url is not None:
        found["url"], found["path"] = url, url.partition("?")[0]
        if call:
            found |= grpc.name_call(found["path"])
    if pushed:
        found["pushed"] = True
    return found


def response_of(half: Half, number: int, call: bool, body_limit: int) -> Json:
    """Return a response, likewise."""
    found = half.shown(call, body_limit) | {"streamId": number}
    status = half.value(":status")
    if status is not None and status.isascii() and status.isdigit() and len(status) == 3:
        found["status"] = int(status)
    if call:
        found |= grpc.status([*half.headers, *half.trailers])
    return found


def tell_graphql(asking: Half, answering: Half, request: Json, response: Json | None) -> bool:
    """Add what is asked and what went wrong, if it is GraphQL; return whether it is."""
    said = graphql.told_request(
        asking.value("content-type"), request.get("url", ""),
        None if "bodyEncoding" in request else request.get("body"), asking.is_body_cut,
    )  # fmt: skip
    request |= said
    if said and response is not None:
        response |= graphql.told_response(answering.value("content-type"), response.get("body"))
    return bool(said)


def error_name(code: int) -> str:
    """Return an error's name and its code."""
    return f"{ERRORS[code]} ({code})" if code < len(ERRORS) else str(code)
