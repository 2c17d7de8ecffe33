# mypy: ignore-errors
"""LDAP: RFC 4511 over TCP, and the searches of Active Directory over UDP."""

from collections.abc import Iterable

from services.capture.dissectors import conversation
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.ldap import names
from services.capture.dissectors.ldap.exchange import ConnectionlessLdap, Ldap
from services.capture.dissectors.signatures import ANY, CLIENT, SERVER, Signature

PORTS = frozenset({389, 3268})  # a directory, and Active Directory's global catalogue

_MESSAGE, _NUMBER = bytes([names.MESSAGE]), b"\x02"
_SHORT = bytes(range(5, 128))
_LENGTHS = ((b"\x81", ANY), (b"\x82", ANY, ANY), (b"\x84", b"\0", bytes(range(16)), ANY, ANY))
_OPERATIONS = bytes(sorted(names.OPERATIONS))
_BEGINNINGS = (
    # SNMP begins in the same way, but has no number of a message, and no such tag behind it.
    (_MESSAGE, _SHORT, _NUMBER, b"\x01", ANY, _OPERATIONS),
    (_MESSAGE, _SHORT, _NUMBER, b"\x02\x03\x04", ANY, ANY),
    *((_MESSAGE, *length, _NUMBER, b"\x01\x02\x03\x04", ANY, ANY) for length in _LENGTHS),
)
_WEAK = ((_MESSAGE, _SHORT + b"\x81\x82\x84"),)


def _signatures(
    beginnings: Iterable[tuple[bytes, ...]], only_on_port: bool = False
) -> tuple[Signature, ...]:
    """Both sides: in the middle of a stream, who opened it may be a guess."""
    return tuple(
        Signature(side, octets, only_on_port) for side in (CLIENT, SERVER) for octets in beginnings
    )


LDAP = ProtocolKind(
    "ldap", "LDAP", "tcp", PORTS, _signatures(_BEGINNINGS), conversation.of(Ldap)
)  # fmt: skip
CLDAP = ProtocolKind(
    "ldap", "LDAP", "udp", frozenset({389}), _signatures(_WEAK, only_on_port=True),
    conversation.of(ConnectionlessLdap),
)  # fmt: skip
