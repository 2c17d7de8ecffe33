"""Frames as RFC 9113 has them, for tests."""

from hpack import Encoder

from services.capture.dissectors.http2.frames import PREFACE
from services.capture.dissectors.signatures import CLIENT, SERVER

REQUEST = [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", "/a?b=1")]
RESPONSE = [(":status", "200"), ("content-type", "text/plain")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def data(stream: int, octets: bytes, end=False, padding: int | None = None) -> bytes:
    if padding is None:
        return frame(0, int(end), stream, octets)
    return frame(0, 8 | int(end), stream, bytes([padding]) + octets + bytes(padding))


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(
        4, 0, 0, b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in pairs)
    )


def message(octets: bytes, flag: int = 0) -> bytes:
    """One of gRPC's."""
    return bytes([flag]) + len(octets).to_bytes(4, "big") + octets


class Talk:
    """What both sides say, with their tables of fields."""

    def __init__(self, begins: bool = True):
        self.said: list[tuple[int, bytes]] = []
        self.encoders = Encoder(), Encoder()
        if begins:
            self.said += [(CLIENT, PREFACE + settings((3, 100))), (SERVER, settings())]

    def block(self, side: int, fields) -> bytes:
        return self.encoders[side].encode(list(fields))

    def headers(self, side, stream, fields, end=False, kind=1) -> "Talk":
        block = self.block(side, fields)
        self.said.append((side, frame(kind, 4 | int(end), stream, block)))
        return self

    def asks(self, stream, fields=REQUEST, body: bytes | None = None) -> "Talk":
        self.headers(CLIENT, stream, fields, body is None)
        return self if body is None else self.client(data(stream, body, True))

    def answers(self, stream, fields=RESPONSE, body=b"hello", trailers=None) -> "Talk":
        self.headers(SERVER, stream, fields)
        self.server(data(stream, body, trailers is None))
        return self if trailers is None else self.headers(SERVER, stream, trailers, True)

    def client(self, octets: bytes) -> "Talk":
        self.said.append((CLIENT, octets))
        return self

    def server(self, octets: bytes) -> "Talk":
        self.said.append((SERVER, octets))
        return self
