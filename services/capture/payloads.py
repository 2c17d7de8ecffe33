# mypy: ignore-errors
"""Cuts what packets carry, behind their TCP, UDP or SCTP header. `agent` does so for redact().

The octets of a packet cannot be replaced by name: a value may be compressed, or lie in two packets.
"""

import numpy as np

from services.capture.headers import (
    DECODED,
    is_known_link,
    read_link,
    read_network,
    read_transport,
)
from services.capture.kernel import kernel
from services.capture.packetstore import Packets


@kernel
def headers_size(octets, position, end, link_type):
    """Return the octets of a frame up to its payload; 0 where that cannot be told.

    What a tunnel carries is its payload: nothing is left of the packet inside.
    """
    if not is_known_link(link_type):
        return 0
    ethertype, at, _ = read_link(octets, position, end, link_type, 0)
    transport = read_transport(octets, read_network(octets, at, end, ethertype))
    return transport.payload_offset - position if transport.status == DECODED else 0


@kernel
def cut_rows(octets: np.ndarray, rows: np.ndarray) -> None:
    """Shorten the captured length of rows (packetring.STORED) to that of the headers."""
    for index in range(len(rows)):
        row = rows[np.uint64(index)]
        end = row.position + row.captured_length
        row.captured_length = headers_size(octets, row.position, end, row.link_type)


def without_payloads(packets: Packets, is_empty: bool = False) -> Packets:
    """Return packets of which only the headers are captured; `is_empty`: not even these."""
    rows = packets.rows.copy()
    if is_empty:
        rows["captured_length"] = 0
    else:
        cut_rows(packets.octets, rows)
    return Packets(packets.octets, rows)
