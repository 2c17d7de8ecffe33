"""A file of what matched, in pieces: packets of whole streams, or entries. Called by export_rpc."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from recorder.v1 import query_pb2

from kfl import Filter
from recordings.redaction import Redactions
from services.query import answer, entryfiles, packetfiles, plan
from services.query.engine import Session
from services.query.ledger import Counts, Loss
from services.query.packetfiles import Pcap, PcapNg
from services.query.plan import ALWAYS, Source
from services.query.streams import Streams, listed, matching

CHUNK_BYTES = 256 << 10
"""Octets of the file that are sent at a time: the size at which gRPC is fastest."""

ENTRY_FILES: Mapping[int, Callable[[Redactions, str], entryfiles.File]] = {
    query_pb2.EXPORT_FORMAT_HAR: entryfiles.Har,
    query_pb2.EXPORT_FORMAT_PARQUET: entryfiles.Parquet,
    query_pb2.EXPORT_FORMAT_JSON_LINES: entryfiles.JsonLines,
}
"""Files of entries; the others are of packets."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The next octets of a file, and the share of its time that it has come to, 0 to 1."""

    octets: bytes
    share: float


@dataclass(slots=True)
class Asked:
    """What a file is to be made of."""

    filter: Filter
    format: int
    tables: Mapping[str, Sequence[Source]]
    """What there is of each table of the recordings."""
    losses: Sequence[Loss] = ()
    counts: Sequence[Counts] = ()
    damage: Sequence[str] = ()

    @property
    def comments(self) -> list[str]:
        """What was asked, and what is known to be missing."""
        lines = [
            listed("recording", {source.record for source in self.tables["entries"]}),
            self.filter.text,
        ]
        missing = [*(loss.sentence() for loss in self.losses), *self.damage]
        if missing:
            lines.append("\n".join(["Known to be missing:", *missing]))
        else:
            lines.append("Nothing is known to be missing.")
        if self.counts:
            lines.append("\n".join(["Seen by nodes:", *(c.sentence() for c in self.counts)]))
        return lines


@dataclass(slots=True)
class Export:
    """A file that is being made; how much is in it is known when it has ended."""

    session: Session
    asked: Asked
    entries: int = 0
    streams: int = 0
    packets: int = 0
    truncated: bool = False
    """More match than a limit() let through."""

    def pieces(self) -> Iterator[Piece]:
        """Yield the file. Raises EngineError, before the first octet for what is wrong at once."""
        is_of_entries = self.asked.format in ENTRY_FILES
        waiting, size, share = [], 0, 0.0
        for piece in self._of_entries() if is_of_entries else self._of_packets():
            waiting.append(piece.octets)
            size += len(piece.octets)
            share = piece.share
            if size >= CHUNK_BYTES:
                octets = b"".join(waiting)
                for begin in range(0, size, CHUNK_BYTES):
                    yield Piece(octets[begin : begin + CHUNK_BYTES], share)
                waiting, size = [], 0
        if size:
            yield Piece(b"".join(waiting), share)

    def _of_entries(self) -> Iterator[Piece]:
        asked = self.asked
        sources = asked.tables["entries"]
        limit = asked.filter.limit
        planned = plan.entries(asked.filter, sources, limit=None if limit is None else limit + 1)
        make = ENTRY_FILES[asked.format]
        file = make(Redactions(asked.filter.redactions), "\n".join(asked.comments))
        first, last = _time_range(asked.filter, sources)
        found = answer.Answer(answer.of_plan(self.session, planned, asked.filter, ALWAYS), limit)
        yield Piece(file.head(), 0.0)
        for table in found:
            time_ns = int(answer.nanoseconds_of(table["start_time"])[-1])
            with self.session.working():
                octets = file.rows(table)
            yield Piece(octets, _share(time_ns, first, last))
        self.entries, self.truncated = found.entries, found.truncated
        yield Piece(file.end(), 1.0)

    def _of_packets(self) -> Iterator[Piece]:
        asked, session = self.asked, self.session
        sources = asked.tables["packets"]
        found = matching(session, asked.filter, asked.tables["entries"])
        self.entries, self.truncated = found.entries, found.truncated
        file: PcapNg | Pcap
        if asked.format == query_pb2.EXPORT_FORMAT_PCAP:
            file = Pcap(packetfiles.link_type(session, found, sources))
            yield Piece(file.head(), 0.0)
        else:
            file = PcapNg(found, asked.comments, asked.counts)
            names = packetfiles.names(session, found, asked.tables["streams"])
            yield Piece(file.head(names), 0.0)
        yield from self._blocks(file, found)

    def _blocks(self, file: PcapNg | Pcap, found: Streams) -> Iterator[Piece]:
        seen = found.none_seen()
        times = found.first_us * 1000, found.last_us * 1000
        for part in packetfiles.packets(self.session, found, self.asked.tables["packets"]):
            seen[part.keys] = True
            self.packets += len(part.frames)
            with self.session.working():
                octets = file.blocks(part)
            yield Piece(octets, _share(int(part.times_ns[-1]), *times))
        self.streams = int(seen.sum())


def _time_range(filter: Filter, sources: Sequence[Source]) -> tuple[int, int]:
    """Return the nanoseconds between which the answer lies, as far as it is known before."""
    prune = filter.prune()
    firsts = [first for source in sources for first, _ in source.times]
    lasts = [last for source in sources for _, last in source.times]
    tails = [
        answer.nanoseconds_of(tail["start_time"]) for source in sources for _, tail in source.tails
    ]
    firsts += [int(times.min()) for times in tails]
    lasts += [int(times.max()) for times in tails]
    first, last = min(firsts, default=0), max(lasts, default=0)
    if prune.start_ns is not None:
        first = max(first, prune.start_ns)
    if prune.end_ns is not None:
        last = min(last, prune.end_ns)
    return first, last


def _share(time_ns: int, first_ns: int, last_ns: int) -> float:
    """Return the share of a time that has passed; packets may be from before and from behind it."""
    return min(max((time_ns - first_ns) / max(last_ns - first_ns, 1), 0.0), 1.0)
