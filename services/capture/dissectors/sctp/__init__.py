# mypy: ignore-errors
"""SCTP: the IP header says so. `byprotocol` calls it."""

from services.capture.dissectors import conversation
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.sctp.exchange import Sctp

SCTP = ProtocolKind("sctp", "SCTP", "sctp", frozenset(), (), conversation.of(Sctp))
