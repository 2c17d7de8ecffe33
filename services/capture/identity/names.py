"""The names of addresses by time, for lookups of many at once. `agent` asks, one thread writes.

An address has had several owners: each is an interval, a row of a sorted array. Its key is the
address, the port and the begin, so the last key up to that of a question is the interval that can
hold it, and one binary search in NumPy answers a whole batch.

A writer makes a new Directory of each batch of changes; readers keep the one they have for as long
as they need to say the same twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kfl import coarse, core
from services.capture.addresses import address_text
from services.capture.identity.dnsnames import Calls, DnsNames
from services.capture.identity.owners import ANY_PORT, OPEN_NS, Change, Owner, peers

KEPT_NS = 600 * 10**9
"""How long an interval is known after its end: calls are told of when they are over, most of them
within minutes."""

MOST_ENDED = 32_768
"""Intervals that have ended and are kept, the latest ones; with 200 changes a second, 160 s."""

FADING_NS = 30 * 10**9
"""How long the kernel keeps packets of an address that has no accepted owner any more."""

MOST_HOSTS = 1024
"""Addresses that one test makes a filter of; more fit in no program of the kernel."""

MOST_TESTS = 256
"""Tests whose verdicts are remembered; each run has a few."""

NOBODY = -1

_TEXT = np.dtype("S26")  # compares as octets, and a search in NumPy knows it

# fmt: off
_PLACE = np.dtype([("high", ">u8"), ("low", ">u8"), ("port", ">u2")])
_KEY = np.dtype([("high", ">u8"), ("low", ">u8"), ("port", ">u2"), ("time", ">u8")])
# fmt: on

Words = npt.NDArray[np.uint64]
Ports = npt.NDArray[np.uint16]
Times = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Directory:
    """Who had which address when; it does not change."""

    keys: npt.NDArray[np.void] = field(default_factory=lambda: np.empty(0, _KEY))
    """Sorted as octets: address, port, begin."""
    ends: Times = field(default_factory=lambda: np.empty(0, np.int64))
    """Nanoseconds since 1970: the first moment after the interval."""
    owners: Rows = field(default_factory=lambda: np.empty(0, np.int32))
    """Place in `known`."""
    nodes: npt.NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    """Of each interval: it is of an address that several share."""
    known: Sequence[Owner] = ()

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, high: Words, low: Words, ports: Ports, times: Times) -> Rows:
        """Return the owner of each address at a time, as a place in `known`, or NOBODY.

        Four arrays of the same length: halves of addresses as `addresses` has them, ports, and
        nanoseconds since 1970. A port that somebody has on a shared address goes before that.
        """
        if not len(self.keys):
            return np.full(len(high), NOBODY, np.int32)
        found = self._search(high, low, np.zeros(len(high), np.uint16), times)
        owners = np.where(found == NOBODY, NOBODY, self.owners[found]).astype(np.int32)
        shared = np.flatnonzero((found != NOBODY) & self.nodes[found])
        if len(shared):
            nothing = np.zeros(len(shared), np.uint64)
            asked, when = ports[shared], times[shared]
            for each in (
                self._search(nothing, nothing, asked, when),
                self._search(high[shared], low[shared], asked, when),
            ):
                is_known = (each != NOBODY) & (asked != ANY_PORT)
                owners[shared[is_known]] = self.owners[each[is_known]]
        return owners

    def _search(self, high: Words, low: Words, ports: Ports, times: Times) -> npt.NDArray[np.int64]:
        """Return the interval of each, by its row, or NOBODY."""
        asked = np.empty(len(high), _KEY)
        asked["high"], asked["low"], asked["port"] = high, low, ports
        asked["time"] = np.maximum(times, 0)
        rows = np.searchsorted(self.keys.view(_TEXT), asked.view(_TEXT), side="right") - 1
        near = self.keys[rows]  # of -1 the last, which is of another place or begins later
        fits = (near["high"] == high) & (near["low"] == low) & (near["port"] == ports)
        fits &= (near["time"] <= asked["time"]) & (times < self.ends[rows])
        return np.where(fits, rows, NOBODY)


class Known(NamedTuple):
    """All names, as they were at one moment."""

    cluster: Directory
    dns: Directory
    """Names that DNS answers gave addresses."""


class Names:
    """What is known at this moment. One thread may tell of the cluster, and another one of DNS."""

    def __init__(self) -> None:
        self.revision = 0
        """Another one after each change."""
        self.is_complete = False
        """All that there is, is known: until then nobody can say whose address something is not."""
        self.note = "the API server has not answered yet"
        """Why names are missing, or get old; "" when they are not."""
        self._known = Known(Directory(), Directory())
        self._lock = threading.Lock()
        self._dns = DnsNames()
        self._verdicts: dict[coarse.Peer, dict[Owner, bool]] = {}

    def known(self) -> Known | None:
        """Return all names; None where there are none."""
        known = self._known
        return known if len(known.cluster) or len(known.dns) else None

    def take(self, changes: Sequence[Change], is_complete: bool, note: str = "") -> None:
        """Take changes into account; of two about the same place and begin the later one counts."""
        with self._lock:
            self._known = self._known._replace(cluster=_changed(self._known.cluster, changes))
            self.is_complete, self.note = is_complete, note
            self.revision += 1

    def learn(self, calls: Calls) -> None:
        """Take answers of DNS into account."""
        changes = self._dns.read(calls)
        if changes:
            with self._lock:
                self._known = self._known._replace(dns=_changed(self._known.dns, changes))
                self.revision += 1

    def addresses(self, peer: coarse.Peer) -> list[str] | None:
        """Return the addresses whose names a test accepts, for the kernel's filter; None when that
        cannot be told. For one thread.
        """
        keys = {
            each.steps[0] for each in core.walk(peer.condition) if isinstance(each, core.Select)
        }
        if not self.is_complete or len(keys - {core.Key("dns")}) < len(keys) > 1:
            return None  # of DNS and a cluster's names together, not every pair is known
        if len(self._verdicts) > MOST_TESTS:
            self._verdicts.clear()
        before, now = self._verdicts.get(peer, {}), {}
        accepts = peer.test()
        found: set[tuple[int, int]] = set()
        for directory in self._known:
            verdicts = []
            for owner in directory.known:
                verdict = before.get(owner)
                if verdict is None:
                    verdict = any(map(accepts, peers(owner)))
                now[owner] = verdict
                verdicts.append(verdict)
            found |= _accepted(directory, np.array(verdicts, np.bool_), time.time_ns())
        self._verdicts[peer] = now
        return [address_text(*each) for each in found] if len(found) <= MOST_HOSTS else None


def _accepted(
    directory: Directory, verdicts: npt.NDArray[np.bool_], now_ns: int
) -> set[tuple[int, int]]:
    """Return the halves of the addresses whose owners are accepted, of now and a while ago."""
    if not len(directory):
        return set()
    is_wanted = verdicts[directory.owners] & (directory.ends > now_ns - FADING_NS)
    keys = directory.keys
    on_nodes = (keys["high"] == 0) & (keys["low"] == 0)
    if (is_wanted & on_nodes).any():
        is_wanted |= directory.nodes
    rows = keys[is_wanted & ~on_nodes]
    return set(zip(rows["high"].tolist(), rows["low"].tolist(), strict=True))


def _changed(old: Directory, changes: Sequence[Change]) -> Directory:
    latest = {(each.place, each.begin_ns): each for each in changes}
    return _without_old(_merged(old, list(latest.values())), time.time_ns()) if latest else old


def _merged(old: Directory, changes: Sequence[Change]) -> Directory:
    octets = b"".join(each.place + max(each.begin_ns, 0).to_bytes(8, "big") for each in changes)
    keys = np.frombuffer(octets, _KEY)
    order = np.argsort(keys.view(_TEXT), kind="stable")
    keys = keys[order]
    ends = np.array([each.end_ns for each in changes], np.int64)[order]
    known = [*old.known]
    places: dict[Owner, int] = {}
    owners = np.empty(len(changes), np.int32)
    for row, each in enumerate(changes):
        if each.owner not in places:
            places[each.owner] = len(known)
            known.append(each.owner)
        owners[row] = places[each.owner]
    owners = owners[order]
    nodes = np.array([each.owner.is_node for each in changes], np.bool_)[order]
    at = np.searchsorted(old.keys.view(_TEXT), keys.view(_TEXT))
    is_there = np.zeros(len(keys), np.bool_)
    inside = np.flatnonzero(at < len(old.keys))
    is_there[inside] = old.keys[at[inside]].view(_TEXT) == keys[inside].view(_TEXT)

    def merged(before: npt.NDArray[Any], now: npt.NDArray[Any]) -> npt.NDArray[Any]:
        before = before.copy()
        before[at[is_there]] = now[is_there]
        return np.insert(before, at[~is_there], now[~is_there])

    rows = merged(old.ends, ends), merged(old.owners, owners), merged(old.nodes, nodes)
    return Directory(merged(old.keys, keys), *rows, known)


def _without_old(found: Directory, now_ns: int) -> Directory:
    """Leave out what ended long ago, and owners that nothing leads to, once they are many."""
    ended = found.ends != OPEN_NS
    oldest_ns = now_ns - KEPT_NS
    if int(np.count_nonzero(ended)) > MOST_ENDED:
        several = np.partition(found.ends[ended], -MOST_ENDED)
        oldest_ns = max(oldest_ns, int(several[-MOST_ENDED]))
    kept = found.ends >= oldest_ns
    if kept.all() and len(found.known) <= 2 * len(found) + 64:
        return found
    used, owners = np.unique(found.owners[kept], return_inverse=True)
    known = [found.known[place] for place in used.tolist()]
    rows = (found.keys[kept], found.ends[kept], owners.astype(np.int32), found.nodes[kept])
    return Directory(*rows, known)
