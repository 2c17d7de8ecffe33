"""A pcapng file of the packets of every stream in which an entry matches. Called by query_rpc.

The file has one interface for each node and link type, packets in the order of time, and comments
that say what was asked, which recordings a stream is from, and what is known to be missing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from kfl import Filter
from services.query import answer, pcapng, plan
from services.query.engine import EngineError, Session
from services.query.ledger import Counts, Loss
from services.query.plan import FILE, Source

CHUNK_BYTES = 256 << 10
"""Octets of the file that are sent at a time: the size at which gRPC is fastest."""

MAX_STREAMS = 1_000_000
"""Streams in one file. Their numbers are held in memory, some 200 octets each."""

MAX_GROUP = 4096
"""Packets of one time that are looked at together. Only a capture file without times has more."""

APPLICATION = "Traffic Recorder"


class TooMuchError(EngineError):
    """More matches than one file may hold."""


StreamKey = tuple[str, str]
"""Node and number of a stream; numbers are unique on a node."""


def export(
    session: Session,
    filter: Filter,
    entry_sources: Sequence[Source],
    packet_sources: Sequence[Source],
    losses: Sequence[Loss],
    counts: Sequence[Counts] = (),
) -> Iterator[bytes]:
    """Yield the file in pieces of about CHUNK_BYTES. Raises EngineError."""
    streams = matching_streams(session, filter, entry_sources)
    notes = {
        key: f"{_listed('recording', records)}, stream {key[1]}" for key, records in streams.items()
    }
    head = pcapng.section(APPLICATION, _section_comments(filter, entry_sources, losses, counts))
    waiting, size = [head], len(head)
    for block in _packet_blocks(session, plan.packets(packet_sources, _wanted(streams)), notes):
        waiting.append(block)
        size += len(block)
        if size >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def matching_streams(
    session: Session, filter: Filter, sources: Sequence[Source]
) -> dict[StreamKey, set[str]]:
    """Return the streams in which an entry matches, each with the recordings that say so."""
    window = plan.Window()
    limit = filter.limit
    planned = plan.entries(filter, sources, limit=None if limit is None else limit + 1)
    found = answer.of_plan(session, planned, filter, window)
    streams: dict[StreamKey, set[str]] = {}
    for table in answer.Answer(found, limit):
        columns = (table[name].to_pylist() for name in ("node_name", "stream", "record"))
        for node, stream, record in zip(*columns, strict=True):
            streams.setdefault((node, stream), set()).add(record)
        if len(streams) > MAX_STREAMS:
            raise TooMuchError(
                f"More than {MAX_STREAMS} streams match, which is too much for one file. "
                "Narrow the statement, or add limit(n)."
            )
    return streams


def _wanted(streams: Mapping[StreamKey, set[str]]) -> pa.Table:
    rows = [(record, *key) for key, records in streams.items() for record in sorted(records)]
    names = ("record", "node_name", "stream")
    return pa.table(
        {name: pa.array([row[i] for row in rows], pa.string()) for i, name in enumerate(names)}
    )


class _Packet(NamedTuple):
    """A row of PACKETS, and where it is from."""

    time_ns: int
    key: StreamKey
    link_type: int
    original_length: int
    frame: bytes
    place: tuple[str, str]
    """Recording and folder of the run."""


def _packet_blocks(
    session: Session, planned: plan.Plan, notes: dict[StreamKey, str]
) -> Iterator[bytes]:
    """Yield a block for each packet, and one for each interface before its first packet.

    A stream's note stands beside its first packet.
    """
    interfaces: dict[tuple[str, int], int] = {}
    for packet in _once_each(_packets(session, planned)):
        node = packet.key[0]
        number = interfaces.get((node, packet.link_type))
        if number is None:
            number = interfaces[node, packet.link_type] = len(interfaces)
            yield pcapng.interface(packet.link_type, node, f"node {node}")
        yield pcapng.packet(
            number,
            packet.time_ns,
            packet.frame,
            packet.original_length,
            notes.pop(packet.key, ""),
        )


def _packets(session: Session, planned: plan.Plan) -> Iterator[_Packet]:
    names = ("node_name", "stream", "link_type", "original_length", "frame", "record", FILE)
    for table in answer.rows(session, planned):
        times = answer.nanoseconds_of(table["time"]).tolist()
        columns = (table[name].to_pylist() for name in names)
        for time_ns, node, stream, link_type, length, frame, record, file in zip(
            times, *columns, strict=True
        ):
            place = (record, file.rpartition("/")[0])
            yield _Packet(time_ns, (node, stream), link_type, length, frame, place)


def _once_each(packets: Iterable[_Packet]) -> Iterator[_Packet]:
    """Leave out what is there twice because several recordings, or runs, hold the same stream.

    Copies of a packet have the same time, so they come in one group. A packet that one place has
    twice was on the wire twice.
    """
    group: list[_Packet] = []
    for packet in packets:
        if group and (packet.time_ns != group[0].time_ns or len(group) == MAX_GROUP):
            yield from _without_copies(group)
            group = []
        group.append(packet)
    yield from _without_copies(group)


def _without_copies(group: list[_Packet]) -> Iterator[_Packet]:
    if len(group) < 2:
        yield from group
        return
    given: Counter[_Packet] = Counter()
    seen: Counter[_Packet] = Counter()
    for packet in group:
        copy = packet._replace(place=("", ""))
        seen[packet] += 1
        if seen[packet] > given[copy]:
            given[copy] += 1
            yield packet


def _section_comments(
    filter: Filter, sources: Sequence[Source], losses: Sequence[Loss], counts: Sequence[Counts]
) -> list[str]:
    lines = [_listed("recording", {source.record for source in sources}), filter.text]
    if losses:
        missing = [loss.sentence() for loss in losses]
        lines.append("\n".join(["Known to be missing:", *missing]))
    else:
        lines.append("Nothing is known to be missing.")
    if counts:
        lines.append("\n".join(["Seen by nodes:", *(each.sentence() for each in counts)]))
    return lines


def _listed(word: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    return f"{word}{'s' if len(ordered) > 1 else ''} {', '.join(ordered)}"
