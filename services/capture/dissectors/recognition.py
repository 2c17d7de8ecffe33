# mypy: ignore-errors
"""Which stream is of which protocol of the registry, and its octets to that dissector.

The pipeline calls it behind the reassembly. A flow has one STATE row; a stream that is of none of
the protocols costs a look at that row for each of its segments. Looked at are the first octets of
each side; after a gap, and in the middle of a stream, those of the next few segments.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from services.capture.decode import PACKET
from services.capture.dissectors.dissector import FOUND, Dissector, ProtocolKind
from services.capture.dissectors.signatures import (
    LONGEST,
    NO_BITS,
    TOO_SHORT,
    bits_of,
    look,
    new_table,
)
from services.capture.flows import STREAM, Streams, stream_row
from services.capture.headers import PROTOCOL_UDP
from services.capture.kernel import kernel
from services.capture.reassembly import DATA, GAP, IN_FRAMES, IN_HELD, OPENED, SEGMENT

# What is known of a stream; from FIRST_PROTOCOL on, the number of its protocol.
UNKNOWN, NONE, PENDING, FIRST_PROTOCOL = 0, 1, 2, 3

LOOKS_AT_START = 1  # segments of a side that are looked at: what begins otherwise is of no protocol
LOOKS_MIDSTREAM = 8  # most segments begin a message, and a few that do not must not decide
MOST_PENDING = 1024  # streams whose first segment says too little; others of that kind are let go
MOST_PENDING_ROWS = 2 * LONGEST  # as many segments as their octets can need

# fmt: off
STATE = np.dtype((np.record, [
    ("stream", np.int64),   # number of the stream that this is about
    ("refused", np.uint64),  # signatures of protocols that it turned out not to be of
    ("looks", np.uint8, 2),  # that are left, of the client and of the server
    ("state", np.uint8),
]))
# fmt: on


@kernel
def begin_state(state, stream, streams):
    """Know nothing of a new stream."""
    state.stream = stream
    state.refused = np.uint64(0)
    state.state = UNKNOWN
    looks = LOOKS_AT_START if stream_row(streams, stream).from_start else LOOKS_MIDSTREAM
    state.looks[np.uint64(0)] = state.looks[np.uint64(1)] = looks


@kernel
def look_again(state):
    """Octets are missing: what comes now may begin a message."""
    if state.state == NONE:
        state.state = UNKNOWN
    state.looks[np.uint64(0)] = state.looks[np.uint64(1)] = LOOKS_MIDSTREAM


@kernel
def fruitless(state, server):
    """Count a look that found nothing."""
    looks = state.looks[np.uint64(server)]
    state.looks[np.uint64(server)] = looks - 1 if looks > 0 else 0
    if state.looks[np.uint64(0)] == 0 and state.looks[np.uint64(1)] == 0:
        state.state = NONE


@kernel
def look_at(table, wanted, state, streams, side, octets, position, length):
    """Set the state by the first octets of a side; return whether it is the server."""
    row = stream_row(streams, state.stream)
    server = 1 if side != row.client else 0
    if state.looks[np.uint64(server)] == 0:
        return server
    found = look(
        table, wanted & ~state.refused, server, np.int64(row.ports >> np.uint64(16)) & 0xFFFF,
        np.int64(row.ports) & 0xFFFF, octets, position, position + length,
    )  # fmt: skip
    if found >= 0:
        state.state = FIRST_PROTOCOL + found
    elif found == TOO_SHORT:
        state.state = PENDING
    else:
        fruitless(state, server)
    return server


@kernel
def add_found(found, filled, row, server, code):
    """Say that a row is wanted."""
    each = found[np.uint64(filled)]
    each.row = row
    each.server = server
    each.code = code


@kernel
def find_segments(table, wanted, states, streams, segments, frames, held, found):
    """Fill `found` (FOUND) with the rows of SEGMENT that some dissector wants; return how many."""
    filled = 0
    for row in range(len(segments)):
        segment = segments[np.uint64(row)]
        state = states[np.uint64(segment.direction >> 1)]
        if state.stream != segment.stream:
            old = state.state
            begin_state(state, segment.stream, streams)
            if old >= FIRST_PROTOCOL:  # its stream has ended: the first row of the next one says so
                add_found(found, filled, row, 0, old)
                filled += 1
                if segment.kind == OPENED:
                    continue
        if state.state <= NONE:
            if segment.kind == GAP:
                look_again(state)
            if state.state == NONE or segment.kind != DATA:
                continue
            octets_in_held = segment.place == IN_HELD
            side = segment.direction & 1
            if octets_in_held:
                look_at(table, wanted, state, streams, side, held, segment.position, segment.length)
            else:
                look_at(
                    table, wanted, state, streams, side, frames, segment.position, segment.length
                )
            if state.state <= NONE:
                continue
        server = 1 if segment.direction & 1 != stream_row(streams, segment.stream).client else 0
        add_found(found, filled, row, server, state.state)
        filled += 1
    return filled


@kernel
def find_datagrams(table, wanted, states, streams, packets, octets, found):
    """As find_segments, for rows of PACKET: a datagram is whole, so none waits for more."""
    filled = 0
    for row in range(len(packets)):
        packet = packets[np.uint64(row)]
        if packet.protocol != PROTOCOL_UDP or packet.stream == 0 or packet.payload_length <= 0:
            continue
        state = states[np.uint64(packet.flow)]
        if state.stream != packet.stream:
            begin_state(state, packet.stream, streams)
        if state.state == NONE:
            continue
        if state.state == UNKNOWN:
            server = look_at(
                table, wanted, state, streams, np.int64(packet.direction), octets,
                packet.payload_offset, np.int64(packet.payload_length),
            )  # fmt: skip
            if state.state == PENDING:
                state.state = UNKNOWN
                fruitless(state, server)
            if state.state < FIRST_PROTOCOL:
                continue
        server = 1 if packet.direction != stream_row(streams, packet.stream).client else 0
        add_found(found, filled, row, server, state.state)
        filled += 1
    return filled


class Pending:
    """A stream whose first segments are too short to tell; what it said is kept until they do."""

    def __init__(self) -> None:
        self.rows: list[tuple[np.record, int]] = []  # SEGMENT in their order, whether the server's
        self.octets: list[bytes] = []  # of each
        self.said = [b"", b""]  # by side

    def add(self, segment: np.record, server: int, octets: bytes) -> None:
        """Keep a segment."""
        self.rows.append((segment.copy(), server))
        self.octets.append(octets)
        self.said[server] += octets[: LONGEST - len(self.said[server])]

    def replay(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (SEGMENT rows, whether each is the server's, the octets that these lie in)."""
        segments = np.zeros(len(self.rows), SEGMENT)
        for place, (row, _) in enumerate(self.rows):
            segments[place] = row
        lengths = [len(each) for each in self.octets]
        segments["position"] = np.cumsum([0, *lengths[:-1]])
        segments["place"] = IN_FRAMES
        servers = np.array([server for _, server in self.rows], np.uint8)
        return segments, servers, np.frombuffer(bytearray().join(self.octets) or b"\0", np.uint8)


class Recogniser:
    """The protocols of the registry, for one pipeline."""

    def __init__(self, kinds: Sequence[ProtocolKind], most_flows: int, streams: Streams) -> None:
        assert streams.rows.dtype == STREAM
        self._kinds = tuple(kinds)
        self._most_flows, self._streams = most_flows, streams
        self._table = new_table((each.signatures, each.ports) for each in self._kinds)
        self._states = np.zeros(most_flows, STATE)
        self._found = np.zeros(0, FOUND)
        self._pending: dict[int, Pending] = {}  # by the number of the stream
        self.dissectors: dict[int, Dissector] = {}  # by the number of the protocol
        self.refused: Counter[str] = Counter()
        """By protocol: streams that looked like it, and were not."""
        self.broken: Counter[str] = Counter()
        """By protocol: streams of which the rest was not understood."""
        self._wanted = {"tcp": NO_BITS, "udp": NO_BITS}
        self.want(None)

    def want(self, names: frozenset[str] | None) -> None:
        """Look for these protocols from now on, in streams that are under way too; None for all.

        What waits in a protocol that was not wanted before, or is not any more, is forgotten.
        """
        old = self.dissectors
        numbers = [n for n, kind in enumerate(self._kinds) if names is None or kind.name in names]
        if old and list(old) == numbers:
            return
        self.dissectors = {
            number: old.get(number) or self._kinds[number].new_dissector(
                self._kinds[number], self._most_flows
            )
            for number in numbers
        }  # fmt: skip
        for transport in self._wanted:
            mine = [n for n in numbers if self._kinds[n].transport == transport]
            self._wanted[transport] = bits_of(self._table, mine)
        keep = np.isin(self._states["state"], [FIRST_PROTOCOL + number for number in numbers])
        self._states["state"][~keep] = UNKNOWN
        self._states["looks"][~keep] = LOOKS_MIDSTREAM
        self._pending.clear()

    def take_segments(self, segments: np.ndarray, frames: np.ndarray, held: np.ndarray) -> None:
        """Give SEGMENT rows to the dissectors that want them."""
        wanted = self._wanted["tcp"]
        if not wanted or not len(segments):
            return
        found = self._room(2 * len(segments))  # a row may end one stream and begin another
        count = find_segments(
            self._table, wanted, self._states, self._streams, segments, frames, held, found
        )
        found = found[:count]
        for code in np.unique(found["code"]).tolist():
            mine = found[found["code"] == code]
            chosen = segments[mine["row"]]
            if code == PENDING:
                self._take_pending(chosen, mine["server"], frames, held)
            else:
                self._give(code - FIRST_PROTOCOL, chosen, mine["server"], frames, held)

    def take_datagrams(self, packets: np.ndarray, octets: np.ndarray) -> None:
        """Give PACKET rows of UDP to the dissectors that want them."""
        assert packets.dtype == PACKET
        wanted = self._wanted["udp"]
        if not wanted or not len(packets):
            return
        found = self._room(len(packets))
        count = find_datagrams(
            self._table, wanted, self._states, self._streams, packets, octets, found
        )
        found = found[:count]
        for code in np.unique(found["code"]).tolist():
            mine = found[found["code"] == code]
            number = code - FIRST_PROTOCOL
            chosen = packets[mine["row"]]
            self.dissectors[number].take_datagrams(chosen, mine["server"].copy(), octets)
            self._drop_failed(number, {int(p["stream"]): int(p["flow"]) for p in chosen})

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """Those streams are over."""
        for dissector in self.dissectors.values():
            dissector.end_streams(numbers, now)
        if self._pending:
            for number in numbers.tolist():
                self._pending.pop(number, None)

    def losses(self) -> list[tuple[str, str]]:
        """Return (kind of loss, sentence) of what was not dissected since the last call."""
        found = [
            ("undissected", f"{count} streams of {name}, whose octets made no sense")
            for name, count in self.broken.items()
        ]
        self.broken.clear()
        for number, dissector in self.dissectors.items():
            if dissector.overrun:
                detail = f"{dissector.overrun} calls of {self._kinds[number].name}: no room"
                found.append(("table_overrun", detail))
                dissector.overrun = 0
        return found

    def _room(self, rows: int) -> np.ndarray:
        if rows > len(self._found):
            self._found = np.zeros(rows, FOUND)
        return self._found

    def _give(self, number: int, segments: np.ndarray, servers: np.ndarray, *places: np.ndarray):
        flows = dict(zip(segments["stream"].tolist(), (segments["direction"] >> 1).tolist()))
        self.dissectors[number].take(segments, servers.copy(), *places)
        self._drop_failed(number, flows)

    def _drop_failed(self, number: int, flows: dict[int, int]) -> None:
        """Forget what a dissector did not understand; what was refused is looked at once more."""
        dissector, name = self.dissectors[number], self._kinds[number].name
        bits = bits_of(self._table, [number])
        for failed, counter, state in (
            (dissector.refused, self.refused, UNKNOWN),
            (dissector.broken, self.broken, NONE),
        ):
            for stream in failed:
                counter[name] += 1
                row = self._states[flows[stream]]
                if row["stream"] == stream:
                    row["refused"] |= bits
                    row["state"] = state
                    row["looks"] = LOOKS_AT_START
            failed.clear()

    def _take_pending(
        self, segments: np.ndarray, servers: np.ndarray, frames: np.ndarray, held: np.ndarray
    ) -> None:
        for segment, server in zip(segments, servers.tolist(), strict=True):
            state = self._states[segment["direction"] >> 1]
            stream = int(segment["stream"])
            if state["stream"] == stream and state["state"] == NONE:
                continue
            if state["stream"] == stream and state["state"] >= FIRST_PROTOCOL:  # meanwhile
                chosen, side = np.array([segment], SEGMENT), np.array([server], np.uint8)
                self._give(int(state["state"]) - FIRST_PROTOCOL, chosen, side, frames, held)
                continue
            pending = self._pending.get(stream)
            if pending is None:
                if len(self._pending) >= MOST_PENDING:
                    state["state"] = NONE
                    continue
                pending = self._pending[stream] = Pending()
            source = held if segment["place"] == IN_HELD else frames
            octets = source[segment["position"] :][: segment["length"]].tobytes()
            pending.add(segment, server, octets if segment["kind"] == DATA else b"")
            self._decide(pending, stream, state, held)

    def _decide(self, pending: Pending, stream: int, state: np.record, held: np.ndarray) -> None:
        """Look at what a pending stream has said so far."""
        ports = int(self._streams.rows["ports"][stream & (len(self._streams.rows) - 1)])
        wanted = self._wanted["tcp"] & ~state["refused"]
        waits = False
        for side, said in enumerate(pending.said):
            octets = np.frombuffer(bytearray(said) or b"\0", np.uint8)
            found = look(
                self._table, wanted, side, ports >> 16 & 0xFFFF, ports & 0xFFFF, octets, 0,
                len(said),
            )  # fmt: skip
            if found >= 0 and said:
                del self._pending[stream]
                if state["stream"] == stream:
                    state["state"] = FIRST_PROTOCOL + found
                segments, servers, joined = pending.replay()
                self._give(int(found), segments, servers, joined, held)
                return
            waits |= found == TOO_SHORT and len(said) > 0
        if not waits or len(pending.rows) >= MOST_PENDING_ROWS:
            del self._pending[stream]
            if state["stream"] == stream:
                state["state"] = NONE
