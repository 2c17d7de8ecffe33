# mypy: ignore-errors
"""Entries of streams in which no protocol was recognised: one for each, when it ends."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from services.capture.headers import PROTOCOL_TCP, PROTOCOL_UDP


class TransportCalls:
    """Ended streams without entries, all of TCP or all of UDP."""

    def __init__(self, name: str, rows: np.ndarray):
        self.protocol_name, self.protocol_abbr = name, name.upper()
        self.rows = rows
        self.streams = rows["number"]
        self.request_direction = rows["client"]
        self.start_ns, self.end_ns = rows["first_timestamp"], rows["last_timestamp"]
        self.has_request, self.has_response = (
            self._of_side("packets", side) > 0 for side in (rows["client"], rows["client"] ^ 1)
        )
        self.request_size = self._of_side("octets", rows["client"])
        self.response_size = self._of_side("octets", rows["client"] ^ 1)

    def __len__(self) -> int:
        return len(self.rows)

    def _of_side(self, field: str, side: np.ndarray) -> np.ndarray:
        return self.rows[field][np.arange(len(self.rows)), side]

    def columns(self) -> Mapping[str, Any]:
        """Return hot columns, or how to make them."""
        return {
            "transport": self.protocol_name,
            "error_type": None,
            "request": lambda: lambda rows: self.details(rows)["request"],
            "response": lambda: lambda rows: self.details(rows)["response"],
        }

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """State, packets and octets each way, as JSON."""
        chosen = TransportCalls(self.protocol_name, self.rows[rows])
        client = chosen.rows["client"]
        states = ["closed" if closed else "idle" for closed in chosen.rows["closed"]]
        sides = []
        for side in (client, client ^ 1):
            packets, octets = chosen._of_side("packets", side), chosen._of_side("octets", side)
            sides.append(
                [
                    f'{{"packets":{p},"bytes":{o},"state":"{s}"}}' if p else None
                    for p, o, s in zip(packets.tolist(), octets.tolist(), states, strict=True)
                ]
            )
        return {
            "request": pa.array(sides[0], pa.string()),
            "response": pa.array(sides[1], pa.string()),
        }


def unrecognised(rows: np.ndarray) -> list[TransportCalls]:
    """Return calls for those of the ended STREAM rows that made no entry."""
    rows = rows[rows["entries"] == 0]
    protocol = rows["ports"] >> np.uint64(32)
    parts = (("tcp", rows[protocol == PROTOCOL_TCP]), ("udp", rows[protocol == PROTOCOL_UDP]))
    return [TransportCalls(name, part) for name, part in parts if len(part)]
