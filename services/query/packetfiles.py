"""pcapng and pcap files of the packets of streams. Called by export.

A pcapng has one interface for each node and link type, packets in the order of time, names of
addresses, and comments that say what was asked, which recordings a stream is from, and what is
known to be missing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.query import answer, pcap, pcapng, plan
from services.query.engine import EngineError, Session
from services.query.ledger import Counts
from services.query.matched import Matched
from services.query.plan import FILE, Source
from services.query.streams import Streams, translated

MAX_GROUP = 4096
"""Packets of one time that are looked at together. Only a capture file without times has more."""

APPLICATION = "Traffic Recorder"

ETHERNET = 1
"""LINKTYPE_ETHERNET: what a pcap file without packets says."""


class LinkTypesError(EngineError):
    """Packets that do not fit into one pcap file."""


@dataclass(frozen=True, slots=True)
class Packets:
    """Some packets in the order of time. Arrays of the same length."""

    times_ns: np.ndarray
    keys: np.ndarray
    """Number of the stream."""
    link_types: np.ndarray
    original: np.ndarray
    """Octets on the wire."""
    frames: list[bytes]


class PcapNg:
    """Octets of a pcapng."""

    def __init__(self, streams: Streams, comments: Sequence[str], counts: Sequence[Counts]) -> None:
        self._streams = streams
        self._comments = comments
        self._counts = counts
        self._interfaces: dict[tuple[int, int], int] = {}
        self._is_noted = streams.none_seen()

    def head(self, names: Mapping[str, Sequence[str]]) -> bytes:
        """Return the section's header, and the names of addresses."""
        head = pcapng.section(APPLICATION, self._comments)
        return b"".join([head, *pcapng.names(names)])

    def blocks(self, found: Packets) -> bytes:
        """Return the packets' blocks; before them, those of interfaces that are new.

        A stream's note stands beside its first packet.
        """
        nodes = self._streams.node_numbers[found.keys]
        both = nodes.astype(np.int64) << 16 | found.link_types
        kinds, place = np.unique(both, return_inverse=True)
        parts: list[bytes] = []
        numbers = np.array([self._interface(int(kind), parts) for kind in kinds], np.int64)
        rows = self._first_ones(found.keys)
        texts = self._streams.notes(found.keys[rows])
        parts.append(
            pcapng.packets(
                numbers[place],
                found.times_ns,
                found.frames,
                found.original,
                dict(zip(rows.tolist(), texts, strict=True)),
            )
        )
        return b"".join(parts)

    def _interface(self, kind: int, parts: list[bytes]) -> int:
        node, link_type = kind >> 16, kind & 0xFFFF
        number = self._interfaces.get((node, link_type))
        if number is None:
            number = self._interfaces[node, link_type] = len(self._interfaces)
            name = self._streams.nodes[node]
            said = [each.sentence() for each in self._counts if each.found.node == name]
            made = pcapng.interface(link_type, name, f"node {name}", "\n".join(said))
            parts.append(made)
        return number

    def _first_ones(self, keys: np.ndarray) -> np.ndarray:
        """Return the rows that are the first of their stream."""
        known, rows = np.unique(keys, return_index=True)
        fresh = ~self._is_noted[known]
        self._is_noted[known] = True
        return np.asarray(rows[fresh])


class Pcap:
    """Octets of a pcap."""

    def __init__(self, link_type: int) -> None:
        self._link_type = link_type

    def head(self) -> bytes:
        """Return the file's header."""
        return pcap.header(self._link_type)

    def blocks(self, found: Packets) -> bytes:
        """Return the packets' records."""
        return pcap.packets(found.times_ns, found.frames, found.original)


def link_type(session: Session, streams: Streams, sources: Sequence[Source]) -> int:
    """Return the one link type of the packets of streams. Raises LinkTypesError, EngineError."""
    question = Matched(plan.packets(sources, streams.wanted(), ordered=False).question).then(
        "SELECT DISTINCT link_type FROM {} ORDER BY link_type"
    )
    found = [kind for batch in session.rows(question) for kind in batch["link_type"].to_pylist()]
    if len(found) > 1:
        raise LinkTypesError(
            f"The packets have the link types {', '.join(map(str, found))}, and a pcap file has "
            "one. Ask for pcapng, or for what one node has seen."
        )
    return found[0] if found else ETHERNET


def names(session: Session, streams: Streams, sources: Sequence[Source]) -> dict[str, list[str]]:
    """Return what the addresses in packets of streams are called. Raises EngineError."""
    known = streams.names()
    if known:
        for there, here in translated(session, streams, sources).items():
            if here in known:
                known.setdefault(there, known[here])
    return known


def packets(session: Session, streams: Streams, sources: Sequence[Source]) -> Iterator[Packets]:
    """Yield the packets of streams, each once. Raises EngineError."""
    planned = plan.packets(sources, streams.wanted())
    for table in answer.rows(session, planned):
        with session.working():
            table = _once_each(table)
            yield Packets(
                answer.nanoseconds_of(table["time"]),
                table["key"].to_numpy(),
                table["link_type"].to_numpy().astype(np.int64),
                table["original_length"].to_numpy(),
                table["frame"].to_pylist(),
            )


def _once_each(table: pa.Table) -> pa.Table:
    """Leave out what is there twice because several recordings, or runs, hold the same stream.

    Copies of a packet have the same time, so they come in one table. A packet that one place has
    twice was on the wire twice.
    """
    times = answer.nanoseconds_of(table["time"])
    same = np.concatenate([[False], times[1:] == times[:-1], [False]])
    # A row is looked at when the one before it, or behind it, has its time.
    rows = np.flatnonzero(same[1:] | same[:-1])
    if not len(rows):
        return table
    places = pc.unique(table[FILE])
    if len({_folder(name) for name in places.to_pylist()}) < 2:
        return table
    chosen = table.take(pa.array(rows))
    columns = [chosen[name].to_pylist() for name in ("key", "link_type", "original_length")]
    copies = zip(times[rows].tolist(), *columns, chosen["frame"].to_pylist(), strict=True)
    folders = map(_folder, chosen[FILE].to_pylist())
    keep = np.ones(table.num_rows, np.bool_)
    group: tuple[int, int] = (-1, 0)
    given: Counter[tuple[object, ...]] = Counter()
    seen: Counter[tuple[object, ...]] = Counter()
    for row, copy, folder in zip(rows.tolist(), copies, folders, strict=True):
        if copy[0] != group[0] or group[1] == MAX_GROUP:
            group = (copy[0], 0)
            given.clear()
            seen.clear()
        group = (group[0], group[1] + 1)
        seen[*copy, folder] += 1
        if seen[*copy, folder] > given[copy]:
            given[copy] += 1
        else:
            keep[row] = False
    return table.filter(pa.array(keep))


def _folder(file: str) -> str:
    """Return the folder of the run that a row is from."""
    return file.rpartition("/")[0]
