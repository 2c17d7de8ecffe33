# mypy: ignore-errors
"""ICMP and ICMPv6: the IP header says which. `byprotocol` calls them."""

from services.capture.dissectors import conversation
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.icmp.exchange import Icmp, Icmp6

ICMP, ICMP6 = (
    ProtocolKind("icmp", "ICMP", "icmp", frozenset(), (), conversation.of(each))
    for each in (Icmp, Icmp6)
)
