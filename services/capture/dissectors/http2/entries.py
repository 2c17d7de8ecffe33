# mypy: ignore-errors
"""Columns of HTTP/2 calls, some of which are gRPC's: as conversation has them, and HTTP's own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from services.capture.dissectors.conversation import ConversationDissector
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.http2.connection import Http2
from services.capture.dissectors.objectcalls import ObjectCalls


class Http2Calls(ObjectCalls):
    """Some calls; their exchanges are stream.Http2Exchange."""

    def _abbrs(self, exchanges) -> pa.Array:
        return pa.array([each.abbr for each in exchanges], pa.string())

    def columns(self) -> Mapping[str, Any]:
        """See ObjectCalls.columns; headers and bodies can be asked for alone."""
        found = {
            **super().columns(),
            "transport": "tcp",
            "protocol_abbr": lambda: self._abbrs(self.exchanges),
            "protocol_version": "2.0",
        }
        for side in ("request", "response"):
            found |= {
                f"{side}_headers": lambda name, side=side: self._header(side, name),
                f"{side}_body": lambda side=side: lambda rows: self._bodies(side, rows),
            }
        return found

    def _header(self, side: str, name: str) -> pa.Array:
        """The value of a header (lower case); several as one, as an entry shows them."""
        found = []
        for message in self._messages(side):
            pairs = message["headers"] if message else ()
            values = [value for each, value in pairs if each.lower() == name]
            found.append(", ".join(values) if values else None)
        return pa.array(found, pa.string())

    def _bodies(self, side: str, rows: np.ndarray) -> pa.Array:
        messages = self._messages(side, rows)
        return pa.array([each.get("body") if each else None for each in messages], pa.string())

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """See ObjectCalls.details."""
        chosen = [self.exchanges[row] for row in rows.tolist()]
        return super().details(rows) | {"protocol_abbr": self._abbrs(chosen)}


class Http2Dissector(ConversationDissector):
    """All connections."""

    def __init__(self, kind: ProtocolKind, most_flows: int) -> None:  # noqa: ARG002
        super().__init__(kind, Http2)

    def _calls(self, exchanges, numbers, directions) -> Http2Calls:
        return Http2Calls(
            self._kind.name, self._kind.abbr, exchanges,
            np.array(numbers, np.int64), np.array(directions, np.uint8),
        )  # fmt: skip
