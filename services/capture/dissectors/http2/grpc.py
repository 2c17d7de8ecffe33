"""gRPC over HTTP/2: messages in DATA frames, a status in the trailers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import contextlib
from typing import Any
from urllib.parse import unquote

import orjson

from services.capture.dissectors.http1.bodies import uncode
from services.capture.dissectors.http2 import protobuf
from services.capture.dissectors.objectcalls import dumped

CONTENT_TYPE = "application/grpc"
OTHER_TYPE = "application/grpc-web"  # has its trailers in the body
HEAD = 5  # octets before each message: whether it is compressed, and its length
MOST_SIZES = 100  # messages of which the size is told; all of them count
MOST_SHOWN = 100  # messages that are shown
LONGEST_MESSAGE = 1 << 16  # octets of one that is decompressed

Json = dict[str, Any]


class Messages:
    """Counts the messages of one side of a call, as its DATA comes."""

    __slots__ = ("_head", "_is_lost", "_left", "_was_lost", "compressed", "count", "sizes")

    def __init__(self) -> None:
        self.count = 0
        self.compressed = 0
        """How many of them are compressed."""
        self.sizes: list[int] = []
        self._is_lost = False  # where the next one begins is not known, or there are none
        self._was_lost = False
        self._head = bytearray()
        self._left = 0  # octets of the message

    def feed(self, octets: memoryview, frame: int) -> None:
        """Take the next octets; frame: how long the frame is that begins here, 0 if none does."""
        if self._is_lost and frame and len(octets) >= HEAD:
            # Most frames of DATA hold one message.
            fits = int.from_bytes(octets[1:HEAD], "big") + HEAD == frame
            self._is_lost = octets[0] > 1 or not fits
        at, end = 0, len(octets)
        while at < end and not self._is_lost:
            if self._left:
                taken = min(self._left, end - at)
                self._left -= taken
            else:
                taken = min(HEAD - len(self._head), end - at)
                self._head += octets[at : at + taken]
                if len(self._head) == HEAD:
                    self._begin()
            at += taken

    def _begin(self) -> None:
        flag, self._left = self._head[0], int.from_bytes(self._head[1:], "big")
        self._head.clear()
        if flag > 1:
            self._lose()
            return
        self.count += 1
        self.compressed += flag
        if len(self.sizes) < MOST_SIZES:
            self.sizes.append(self._left)

    def skip(self, octets: int) -> None:
        """So many octets are missing, 0 for not known."""
        if 0 < octets <= self._left:
            self._left -= octets
        else:
            self._lose()

    def _lose(self) -> None:
        self._is_lost = self._was_lost = True
        self._left = 0
        self._head.clear()

    @property
    def is_whole(self) -> bool:
        """Whether there are messages, and nothing else."""
        return self.count > 0 and not (self._was_lost or self._left or self._head)

    def shown(self) -> Json:
        """Return what an entry says of them."""
        found: Json = {"messageCount": self.count, "messageSizes": self.sizes}
        if self.compressed:
            found["messagesCompressed"] = self.compressed
        return found


def is_grpc(content_type: str | None) -> bool:
    """Whether a Content-Type is that of gRPC, whatever encodes its messages."""
    kind = (content_type or "").lower()
    return kind.startswith(CONTENT_TYPE) and not kind.startswith(OTHER_TYPE)


def name_call(path: str) -> Json:
    """Return the service and the method of a path, as /package.Service/Method."""
    service, slash, method = path.lstrip("/").rpartition("/")
    return {"grpcService": service, "grpcMethod": method} if slash else {}


def status(fields: list[tuple[str, str]]) -> Json:
    """Return the status in trailers, or in headers where there was nothing else to say."""
    found: Json = {}
    for name, value in fields:
        if name == "grpc-status" and value.isascii() and value.isdigit() and len(value) < 10:
            found["grpcStatus"] = int(value)
        elif name == "grpc-message":
            found["grpcMessage"] = unquote(value)
    return found


def body(octets: bytes, coding: str, is_json: bool) -> tuple[str, bool]:
    """Return the messages that lie whole in these octets, as a JSON list, and whether these are
    all: of Protocol Buffers, fields by number; coding: the value of grpc-encoding.
    """
    found: list[Any] = []
    at = 0
    while at + HEAD <= len(octets) and len(found) < MOST_SHOWN:
        begin = at + HEAD
        end = begin + int.from_bytes(octets[at + 1 : begin], "big")
        if end > len(octets) or octets[at] > 1:
            break
        message: bytes | None = octets[begin:end]
        if octets[at]:
            message = uncode(octets[begin:end], coding, LONGEST_MESSAGE)
        found.append(_shown(message, octets[begin:end], is_json))
        at = end
    return dumped(found), at == len(octets)


def _shown(message: bytes | None, octets: bytes, is_json: bool) -> Any:
    if message is None:
        return f"{len(octets)} octets, compressed"
    if is_json:
        with contextlib.suppress(orjson.JSONDecodeError):
            orjson.loads(message)
            return orjson.Fragment(message)  # as it is: it may be deeper than can be written
    return protobuf.message(message)
