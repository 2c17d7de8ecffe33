"""gRPC over HTTP/2 in entries: messages in DATA frames, a status in the trailers.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

import contextlib
from typing import Any
from urllib.parse import unquote

import orjson

from services.capture.dissectors.http1.bodies import uncode
from services.capture.dissectors.http2 import protobuf
from services.capture.dissectors.http2.messages import HEAD
from services.capture.dissectors.objectcalls import dumped

MOST_SHOWN = 100  # messages that are shown
LONGEST_MESSAGE = 1 << 16  # octets of one that is decompressed

Json = dict[str, Any]


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
