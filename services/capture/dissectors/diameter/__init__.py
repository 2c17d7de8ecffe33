# mypy: ignore-errors
"""Diameter over TCP: RFC 6733. Over SCTP it is found by `services.capture.sctp`."""

from services.capture.dissectors import conversation
from services.capture.dissectors.diameter.exchange import Diameter
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

PORTS = frozenset({3868})

_FLAGS = bytes(range(0, 256, 16))
_COMMAND = b"\x00\x80", b"\x00\x01", ANY  # 256 to 511, and the vendors' from 8388608
_APPLICATION = b"\x00\x01\xff", b"\x00\xff"  # IANA's, 3GPP's from 16777216, the relays'
_HEADER = (b"\x01", b"\x00", ANY, bytes(range(0, 256, 4)), _FLAGS, *_COMMAND, *_APPLICATION)

DIAMETER = ProtocolKind(
    "diameter", "DIAMETER", "tcp", PORTS,
    tuple(Signature(side, _HEADER) for side in (CLIENT, SERVER)), conversation.of(Diameter),
)  # fmt: skip
