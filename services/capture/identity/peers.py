"""What entries say of the peers of many calls at once. `calls` makes columns of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from services.capture.identity.names import Known, Ports, Rows, Times, Words
from services.capture.identity.owners import Owner

MOST_KNOWN = (1 << 21) - 2
"""Owners of a directory: three of them are one number of 63 bits."""

_NOBODY = Owner("")


class Ends(NamedTuple):
    """Addresses, as two halves, and ports of one end of each call."""

    high: Words
    low: Words
    ports: Ports

    def at(self, rows: npt.NDArray[np.intp]) -> Ends:
        """Return those of some calls."""
        return Ends(self.high[rows], self.low[rows], self.ports[rows])


class Peers:
    """One side of some calls: who each of them is, and their names as columns."""

    def __init__(self, known: Known, own: Ends, called: Ends | None, times: Times) -> None:
        """own: the ends as they see themselves. called: as the other side sees them, where that
        tells more: what a client calls may be a service. times: nanoseconds since 1970.
        """
        owners = known.cluster.find(*own, times)
        services = np.full(len(times), -1, np.int32)
        names = known.dns.find(*own, times)
        if called is not None:
            others = (called.high != own.high) | (called.low != own.low)
            rows = np.flatnonzero(others | (called.ports != own.ports))
            if len(rows):
                services[rows] = known.cluster.find(*called.at(rows), times[rows])
                told = known.dns.find(*called.at(rows), times[rows])
                names[rows] = np.where(told >= 0, told, names[rows])
        codes, self._places = np.unique(_code(owners, services, names), return_inverse=True)
        alone = known.cluster.known
        self._owners = [
            alone[code - 1] if 0 < code <= MOST_KNOWN else _joined(known, *_parts(code))
            for code in codes.tolist()
        ]

    def column(self, name: str) -> pa.StringArray:
        """Return one field of Owner for each call; "" where nothing is known, of labels null."""
        found = [getattr(owner, name) for owner in self._owners]
        texts = pa.array(
            [each or None for each in found] if name == "labels" else found, pa.string()
        )
        return texts.take(pa.array(self._places))


def _code(owners: Rows, services: Rows, names: Rows) -> npt.NDArray[np.int64]:
    """Return one number for each three places, each -1 to MOST_KNOWN."""
    three = [each.astype(np.int64) + 1 for each in (owners, services, names)]
    code: npt.NDArray[np.int64] = three[0] | three[1] << 21 | three[2] << 42
    return code


def _parts(code: int) -> tuple[int, int, int]:
    mask = MOST_KNOWN + 1
    return (code & mask) - 1, (code >> 21 & mask) - 1, (code >> 42) - 1


def _joined(known: Known, owner: int, service: int, name: int) -> Owner:
    """Return what is known of a peer that has an address, was called by one, and has a DNS name."""
    found = known.cluster.known[owner] if owner >= 0 else _NOBODY
    if service >= 0 and known.cluster.known[service].is_service:
        called = known.cluster.known[service]
        found = found._replace(
            name=called.name, service=called.name, namespace=found.namespace or called.namespace
        )
    if name >= 0:
        dns = known.dns.known[name].dns
        found = found._replace(dns=dns, name=found.name or dns)
    return found
