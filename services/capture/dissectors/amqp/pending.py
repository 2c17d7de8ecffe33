"""What a connection of AMQP is waiting for: answers, and the bodies of messages."""

import base64
from dataclasses import dataclass, field

from services.capture.dissectors.objectcalls import Json


@dataclass(slots=True)
class Waiting:
    """A method that was sent and not yet answered."""

    answers: frozenset[int]
    message: Json
    began_ns: int
    size: int
    asked_by: int
    is_doubtful: bool = False
    """Octets of the other side are missing since, the answer perhaps among them."""


@dataclass(slots=True)
class Content:
    """A method whose header or body is still to come."""

    message: Json
    began_ns: int
    size: int
    asked: Waiting | None = None
    """What it answers."""
    is_answer: bool = False
    has_header: bool = False
    left: int = 0
    """Octets of the body that are to come."""
    lacks: bool = False
    """Some are missing."""
    held: int = 0
    """Octets of its header."""
    body: bytearray = field(default_factory=bytearray)

    def put_body(self) -> None:
        """Put the body, as far as it came, into the message: text, else base64."""
        message, body = self.message, self.body
        try:
            message["body"] = body.decode()
        except UnicodeDecodeError as wrong:
            is_cut_character = len(body) < message["bodySize"] and wrong.start > len(body) - 4
            if is_cut_character:
                message["body"] = body[: wrong.start].decode()
            else:
                message["body"] = base64.b64encode(body).decode("ascii")
                message["bodyEncoding"] = "base64"
        if len(body) < message["bodySize"]:
            message["bodyTruncated"] = True
