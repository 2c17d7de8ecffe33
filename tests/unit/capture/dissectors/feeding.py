"""Gives what was said in streams to the dissector of a protocol, as the recogniser does.

For what holds for every line of the registry, be it a conversation or made of kernels. What was
said is as playback has it.
"""

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from recordings.entry import objects
from services.capture.calls import Calls, Node
from services.capture.decode import PACKET
from services.capture.dissectors.byprotocol import BY_PROTOCOL
from services.capture.dissectors.dissector import Dissector, ProtocolKind
from services.capture.dissectors.registry import PROTOCOLS
from services.capture.dissectors.signatures import CLIENT, SERVER, bits_of, look, new_table
from services.capture.flows import new_streams
from services.capture.headers import PROTOCOL_TCP, PROTOCOL_UDP
from services.capture.reassembly import DATA, ENDED, GAP, SEGMENT
from tests.unit.capture.dissectors.playback import Part, timed
from tests.unit.capture.dissectors.recorded import CAPTURES, Stream, streams

MOST_FLOWS = 64
KINDS = (*PROTOCOLS, *(kind for _, kind in BY_PROTOCOL))
NAMES = [f"{kind.abbr}-{kind.transport}" for kind in PROTOCOLS]
NAMES += [f"{kind.abbr}-{number}" for number, kind in BY_PROTOCOL]
NUMBERS = {"tcp": PROTOCOL_TCP, "udp": PROTOCOL_UDP}
TABLE = new_table((kind.signatures, kind.ports) for kind in PROTOCOLS)
STREAMS = new_streams(1 << 10)
NO_OCTETS = np.zeros(1, np.uint8)

Json = dict[str, Any]


def recorded() -> dict[str, list[Stream]]:
    """Return the streams of all golden captures by the protocol that they are of, see NAMES."""
    found: dict[str, list[Stream]] = {name: [] for name in NAMES}
    for path in sorted(CAPTURES.glob("*.pcap")):
        for stream in streams(path.name):
            for place in _kinds_of(stream):
                found[NAMES[place]].append(stream)
    return found


def _kinds_of(stream: Stream) -> Iterable[int]:
    """Yield the places in KINDS of the protocols of a stream."""
    for place, (protocol, _) in enumerate(BY_PROTOCOL, len(PROTOCOLS)):
        if protocol == stream.protocol:
            yield place
    wanted = [n for n, k in enumerate(PROTOCOLS) if NUMBERS[k.transport] == stream.protocol]
    for side in (CLIENT, SERVER):
        first = next((octets for whose, octets, _ in stream.said if whose == side), b"")
        array = np.frombuffer(bytearray(first), np.uint8)
        bits, none = bits_of(TABLE, wanted), np.uint64(0)
        found = look(TABLE, bits, none, side, stream.port, 0, array, 0, len(array))
        if found >= 0:
            yield int(found)
            return


@functools.cache
def dissector_of(kind: ProtocolKind) -> Dissector:
    """Return the dissector of all tests: made of kernels, it has tables of many megabytes."""
    return kind.new_dissector(kind, MOST_FLOWS)


@functools.cache
def numbers_of(kind: ProtocolKind) -> Iterator[int]:
    """Numbers of streams that its dissector has not had."""
    return itertools.count(1)


def give(dissector: Dissector, kind: ProtocolKind, told: Mapping[int, Iterable[Part]]) -> None:
    """Give what was said in streams, by their numbers."""
    rows = [(number, *part) for number, said in told.items() for part in timed(said)]
    if kind.transport != "tcp":  # a datagram that is lost leaves no row
        rows = [row for row in rows if isinstance(row[2], bytes)]
    place = b"".join(octets for _, _, octets, _ in rows if isinstance(octets, bytes))
    octets = np.frombuffer(bytearray(place or b"x"), np.uint8)
    marks = np.array([side for _, side, _, _ in rows], np.uint8)
    if kind.transport == "tcp":
        dissector.take(_segments(rows), marks, octets, NO_OCTETS)
    else:
        dissector.take_datagrams(_packets(rows), marks, octets)


def _segments(rows: list[tuple[int, int, bytes | int, int]]) -> np.ndarray:
    filled, position, sent = [], 0, dict[tuple[int, int], int]()
    for number, side, what, time_ns in rows:
        is_data = isinstance(what, bytes)
        length = len(what) if is_data else what
        read = sent.get((number, 1 - side), 0)
        kind = DATA if is_data else GAP
        direction = 2 * (number % MOST_FLOWS) + side
        filled.append((time_ns, position, number, direction, length, read, kind, 0, is_data, 0, 0))
        sent[number, side] = sent.get((number, side), 0) + length
        position += length if is_data else 0
    return np.array(filled, SEGMENT)


def _packets(rows: list[tuple[int, int, bytes | int, int]]) -> np.ndarray:
    packets = np.zeros(len(rows), PACKET)
    position = 0
    for row, (number, side, octets, time_ns) in zip(packets, rows, strict=True):
        row["timestamp"], row["stream"], row["direction"] = time_ns, number, side
        row["payload_offset"], row["payload_length"] = position, len(octets)
        position += len(octets)
    return packets


def end(dissector: Dissector, kind: ProtocolKind, numbers: Iterable[int], now: int) -> None:
    """End streams."""
    numbers = list(numbers)
    if kind.transport == "tcp":
        rows = np.zeros(len(numbers), SEGMENT)
        rows["timestamp"], rows["stream"], rows["kind"] = now, numbers, ENDED
        rows["direction"] = 2 * (rows["stream"] % MOST_FLOWS)
        dissector.take(rows, np.zeros(len(rows), np.uint8), NO_OCTETS, NO_OCTETS)
    dissector.end_streams(np.array(numbers, np.int64), now)


def take(dissector: Dissector) -> list[tuple[int, Json]]:
    """Return (stream, entry) of the calls since the last call, without what numbers them."""
    made = dissector.calls()
    if made is None:
        return []
    calls = Calls(made, STREAMS, Node("", ""))
    found = objects(calls.entries(np.arange(len(calls))))
    for each in found:
        del each["id"], each["index"]
    return list(zip(made.streams.tolist(), found, strict=True))


def entries(kind: ProtocolKind, *stories: Iterable[Part], batches: int = 1) -> list[list[Json]]:
    """Return the entries of each of some streams, whose parts come in so many batches."""
    dissector, found = dissector_of(kind), list[list[Json]]()
    for first in range(0, len(stories), MOST_FLOWS):
        told = {next(numbers_of(kind)): timed(s) for s in stories[first : first + MOST_FLOWS]}
        of_stream: dict[int, list[Json]] = {number: [] for number in told}
        now = max((time_ns for said in told.values() for *_, time_ns in said), default=0)
        for batch in range(batches):
            share = {
                number: said[batch * len(said) // batches : (batch + 1) * len(said) // batches]
                for number, said in told.items()
            }
            give(dissector, kind, share)
            for number, entry in take(dissector):
                of_stream[number].append(entry)
        end(dissector, kind, told, now)
        for number, entry in take(dissector):
            of_stream[number].append(entry)
        found += of_stream.values()
    assert not dissector.faults
    assert json.dumps(found)
    return found
