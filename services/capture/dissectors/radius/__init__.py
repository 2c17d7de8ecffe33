# mypy: ignore-errors
"""RADIUS over UDP: RFC 2865, 2866, 5176 and 5997."""

from services.capture.dissectors import conversation
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.radius import names
from services.capture.dissectors.radius.exchange import Radius
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

PORTS = frozenset({1812, 1813, 1645, 1646, 3799})  # the middle ones were before IANA's
_CODE = bytes(names.CODES)
_LENGTH = bytes(range(17)), ANY  # up to 4096
_TYPE = bytes([*range(1, 193), *range(241, 247)])
_HEAD = (_CODE, ANY, *_LENGTH, *((ANY,) * 16))
_WITH_ATTRIBUTE = (*_HEAD, _TYPE, bytes(range(3, 256)))

RADIUS = ProtocolKind(
    "radius", "RADIUS", "udp", PORTS,
    tuple(
        signature
        for side in (CLIENT, SERVER)  # whoever sent the first packet that was seen is the client
        for signature in (Signature(side, _WITH_ATTRIBUTE), Signature(side, _HEAD, True))
    ),
    conversation.of(Radius),
)  # fmt: skip
