# mypy: ignore-errors
"""Which stream is of which protocol of the registry, and its octets to that dissector.

The pipeline calls it behind the reassembly. A flow has one STATE row; a stream that is of none of
the protocols costs a look at that row for each of its segments. Looked at are the first octets of
each side; after a gap, and in the middle of a stream, those of the next few segments; and those
behind HTTP/1, where that hands a stream over.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from services.capture.decode import PACKET
from services.capture.dissectors.conversation import DEFAULT_BODY
from services.capture.dissectors.dissector import (
    FOUND,
    IS_FIRST,
    OTHER_MISSED,
    Dissector,
    ProtocolKind,
)
from services.capture.dissectors.http1.handover import Handover
from services.capture.dissectors.pending import Pending
from services.capture.dissectors.signatures import TOO_SHORT, bits_of, look, new_table
from services.capture.flows import STREAM, Streams, stream_row
from services.capture.headers import PROTOCOL_UDP
from services.capture.kernel import kernel
from services.capture.reassembly import DATA, GAP, IN_HELD, OPENED

# What is known of a stream; from FIRST_PROTOCOL on, the number of its protocol.
UNKNOWN, NONE, PENDING, FIRST_PROTOCOL = 0, 1, 2, 3

LOOKS_AT_START = 1  # segments of a side that are looked at: what begins otherwise is of no protocol
LOOKS_MIDSTREAM = 8  # most segments begin a message, and a few that do not must not decide
BOTH = 3  # sides
ALL_PROTOCOLS = 0xFFFF_FFFF_FFFF_FFFF
FAILURES = ("refused", "broken", "fault", "no_room")
"""Of another protocol after all; no sense in it, after some; an error of ours; too much at once."""
MOST_PENDING = 1024  # streams whose first segment says too little; others of that kind are let go

# fmt: off
STATE = np.dtype((np.record, [
    ("stream", np.int64),    # number of the stream that this is about
    ("refused", np.uint64),  # 1 << number of each protocol that it turned out not to be of
    ("looks", np.uint8, 2),  # that are left, of the client and of the server
    ("missed", np.uint8),    # 1 << side, of those that said what no dissector was given
    ("state", np.uint8),
]))
# fmt: on


@kernel
def begin_state(state, stream, streams):
    """Know nothing of a new stream."""
    is_whole = stream_row(streams, stream).from_start
    state.stream = stream
    state.refused = np.uint64(0)
    state.state = UNKNOWN
    state.missed = 0 if is_whole else BOTH
    looks = LOOKS_AT_START if is_whole else LOOKS_MIDSTREAM
    state.looks[np.uint64(0)] = state.looks[np.uint64(1)] = looks


@kernel
def look_again(state):
    """Octets are missing: what comes now may begin a message."""
    if state.state == NONE:
        state.state = UNKNOWN
    state.missed = BOTH
    state.looks[np.uint64(0)] = state.looks[np.uint64(1)] = LOOKS_MIDSTREAM


@kernel
def fruitless(state, server):
    """Count a look that found nothing."""
    looks = state.looks[np.uint64(server)]
    state.looks[np.uint64(server)] = looks - 1 if looks > 0 else 0
    state.missed |= np.uint8(1 << server)
    if state.looks[np.uint64(0)] == 0 and state.looks[np.uint64(1)] == 0:
        state.state = NONE


@kernel
def look_at(table, wanted, state, row, server, octets, position, length):
    """Set the state by the first octets of a segment or datagram; row: its STREAM."""
    if state.looks[np.uint64(server)] == 0:
        state.missed |= np.uint8(1 << server)
        return
    found = look(
        table, wanted, state.refused, server, np.int64(row.ports >> np.uint64(16)) & 0xFFFF,
        np.int64(row.ports) & 0xFFFF, octets, position, position + length,
    )  # fmt: skip
    if found >= 0:
        state.state = FIRST_PROTOCOL + found
    elif found == TOO_SHORT:
        state.state = PENDING
    else:
        fruitless(state, server)


@kernel
def add_found(found, filled, row, marks, code):
    """Say that a row is wanted."""
    each = found[np.uint64(filled)]
    each.row = row
    each.marks = marks
    each.code = code


@kernel
def first_marks(state, server):
    """Return the marks of the row by which a stream was recognised."""
    return IS_FIRST | (OTHER_MISSED if state.missed >> (1 - server) & 1 else 0)


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
            if old >= FIRST_PROTOCOL and segment.kind == OPENED:
                add_found(found, filled, row, 0, old)  # it says that the stream before has ended
                filled += 1
                continue
        if state.state == NONE and segment.kind != GAP:
            continue
        stream = stream_row(streams, segment.stream)
        server = 1 if segment.direction & 1 != stream.client else 0
        marks = server
        if state.state <= NONE:
            if segment.kind == GAP:
                look_again(state)
            if segment.kind != DATA:
                continue
            place, length = segment.position, segment.length
            if segment.place == IN_HELD:
                look_at(table, wanted, state, stream, server, held, place, length)
            else:
                look_at(table, wanted, state, stream, server, frames, place, length)
            if state.state <= NONE:
                continue
            marks |= first_marks(state, server)
        add_found(found, filled, row, marks, state.state)
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
        stream = stream_row(streams, packet.stream)
        server = 1 if packet.direction != stream.client else 0
        marks = server
        if state.state == UNKNOWN:
            place, length = packet.payload_offset, np.int64(packet.payload_length)
            look_at(table, wanted, state, stream, server, octets, place, length)
            if state.state == PENDING:
                state.state = UNKNOWN
                fruitless(state, server)
            if state.state < FIRST_PROTOCOL:
                continue
            marks |= first_marks(state, server)
        add_found(found, filled, row, marks, state.state)
        filled += 1
    return filled


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
        self._body_limit = DEFAULT_BODY
        self.failed: Counter[tuple[str, str]] = Counter()
        """By protocol and one of FAILURES: streams that were not dissected, or not to their end."""
        self._broken: Counter[str] = Counter()  # by protocol, since losses() was asked
        self._wanted = {"tcp": bits_of(self._table, ()), "udp": bits_of(self._table, ())}
        self._abbrs = {kind.abbr: number for number, kind in enumerate(self._kinds)}
        self._has_tcp = False  # some protocol on it is wanted
        self.want(None)

    @property
    def body_limit(self) -> int:
        """Octets of each body that are kept, 0 for none; may be changed between batches."""
        return self._body_limit

    @body_limit.setter
    def body_limit(self, octets: int) -> None:
        self._body_limit = octets
        for dissector in self.dissectors.values():
            dissector.body_limit = octets

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
        self.body_limit = self._body_limit
        self._has_tcp = any(self._kinds[number].transport == "tcp" for number in numbers)
        for transport in self._wanted:
            mine = [n for n in numbers if self._kinds[n].transport == transport]
            self._wanted[transport] = bits_of(self._table, mine)
        keep = np.isin(self._states["state"], [FIRST_PROTOCOL + number for number in numbers])
        self._states["state"][~keep] = UNKNOWN
        self._states["looks"][~keep] = LOOKS_MIDSTREAM
        self._states["missed"][~keep] = BOTH
        self._pending.clear()

    def take_segments(
        self,
        segments: np.ndarray,
        frames: np.ndarray,
        held: np.ndarray,
        handovers: Sequence[Handover] = (),
    ) -> None:
        """Give SEGMENT rows to the dissectors that want them. handovers: of these rows, in their
        order; rows are changed to what is behind HTTP/1.
        """
        if not self._has_tcp:
            return
        first = 0
        for each in handovers:
            self._take(segments[first : each.row], frames, held)
            self._hand_over(segments[each.row], each)
            first = each.row + (segments["length"][each.row] == 0)
        self._take(segments[first:], frames, held)

    def _hand_over(self, segment: np.record, handover: Handover) -> None:
        """Begin anew with a stream, behind its HTTP/1."""
        _shorten(segment, int(segment["position"]) + int(segment["length"]) - handover.position)
        number, flow = handover.stream, int(segment["direction"]) >> 1
        self._pending.pop(number, None)
        stream = self._streams.rows[number & (len(self._streams.rows) - 1)]
        if not stream["from_start"]:  # that was a guess, and HTTP knows
            stream["client"] = handover.client
        state = self._states[flow]
        state["stream"], state["state"] = number, UNKNOWN
        state["refused"] = state["missed"] = 0
        state["looks"] = LOOKS_AT_START
        if not handover.abbr:
            return
        place = self._abbrs.get(handover.abbr, -1)
        dissector = self.dissectors.get(place)
        is_read = dissector is not None and dissector.take_over(
            number, int(stream["client"]), handover.about
        )
        state["state"] = FIRST_PROTOCOL + place if is_read else NONE

    def _take(self, segments: np.ndarray, frames: np.ndarray, held: np.ndarray) -> None:
        wanted = self._wanted["tcp"]
        while len(segments):  # once more for each protocol that has refused some of them
            found = self._room(len(segments))
            count = find_segments(
                self._table, wanted, self._states, self._streams, segments, frames, held, found
            )
            again = []
            for code, mine in _by_code(found[:count]):
                chosen = segments[mine["row"]]
                if code == PENDING:
                    rows = mine["row"].copy()
                    again += self._take_pending(segments, rows, mine["marks"], frames, held)
                else:
                    number = code - FIRST_PROTOCOL
                    refused = self._give(number, chosen, mine["marks"], frames, held)
                    again += mine["row"][refused].tolist()
                    again += self._follow(number, segments, mine["row"])
            segments = segments[np.sort(np.array(again, np.int64))]

    def take_datagrams(self, packets: np.ndarray, octets: np.ndarray) -> None:
        """Give PACKET rows of UDP to the dissectors that want them."""
        assert packets.dtype == PACKET
        wanted = self._wanted["udp"]
        if not wanted.any():
            return
        while len(packets):
            found = self._room(len(packets))
            count = find_datagrams(
                self._table, wanted, self._states, self._streams, packets, octets, found
            )
            again = []
            for code, mine in _by_code(found[:count]):
                number = code - FIRST_PROTOCOL
                chosen = packets[mine["row"]]
                self.dissectors[number].take_datagrams(chosen, mine["marks"].copy(), octets)
                refused = self._settle(number, chosen["stream"], chosen["flow"], mine["marks"])
                again += mine["row"][refused].tolist()
            packets = packets[np.sort(np.array(again, np.int64))]

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """Those streams are over."""
        for dissector in self.dissectors.values():
            dissector.end_streams(numbers, now)
        if self._pending:
            for number in numbers.tolist():
                self._pending.pop(number, None)

    def losses(self) -> list[tuple[str, str]]:
        """Return (kind of loss, sentence) of what was not dissected since the last call."""
        found = []
        for name, count in self._broken.items():
            streams = "1 stream" if count == 1 else f"{count} streams"
            detail = f"the rest of {streams} of {name}, whose octets made no sense"
            found.append(("undissected", detail))
        self._broken.clear()
        for number, dissector in self.dissectors.items():
            name = self._kinds[number].name
            if dissector.overrun:
                detail = f"{dissector.overrun} calls or streams of {name}, for want of room"
                found.append(("table_overrun", detail))
                self.failed[name, "no_room"] += dissector.overrun
                dissector.overrun = 0
            for where, count in dissector.faults.items():
                detail = f"the dissector of {name} failed {count} times: {where}"
                found.append(("undissected", detail))
                self.failed[name, "fault"] += count
            dissector.faults.clear()
        return found

    def _room(self, rows: int) -> np.ndarray:
        if rows > len(self._found):
            self._found = np.zeros(rows, FOUND)
        return self._found

    def _give(
        self, number: int, segments: np.ndarray, marks: np.ndarray, *places: np.ndarray
    ) -> np.ndarray:
        """Let a dissector take rows; return which of them are to be looked at once more."""
        streams, flows = segments["stream"].copy(), segments["direction"] >> 1
        self.dissectors[number].followed.clear()
        self.dissectors[number].take(segments, marks.copy(), *places)
        return self._settle(number, streams, flows, marks)

    def _settle(
        self, number: int, streams: np.ndarray, flows: np.ndarray, marks: np.ndarray
    ) -> np.ndarray:
        """Note which streams a dissector reads no more. Return which rows (bool) are of one that it
        refused; those may be of another protocol.
        """
        dissector, name = self.dissectors[number], self._kinds[number].name
        again = np.zeros(len(streams), np.bool_)
        if not (dissector.refused or dissector.broken or dissector.over):
            return again
        if dissector.refused:
            self.failed[name, "refused"] += len(dissector.refused)
        if dissector.broken:
            self.failed[name, "broken"] += len(dissector.broken)
            self._broken[name] += len(dissector.broken)
        rows = dict(zip(streams.tolist(), flows.tolist(), strict=True))
        begun = set(streams[marks & IS_FIRST != 0].tolist())
        for ended in (dissector.broken, dissector.over):
            for stream in ended:
                if stream in dissector.followed:
                    self._begin_anew(stream, rows)
                else:
                    self._set_state(stream, rows, NONE, ALL_PROTOCOLS)
        for stream in dissector.refused:
            self._set_state(stream, rows, UNKNOWN, 1 << number, is_whole=stream in begun)
        again |= np.isin(streams, dissector.refused)
        for each in (dissector.broken, dissector.over, dissector.refused):
            each.clear()
        return again

    def _follow(self, number: int, segments: np.ndarray, rows: np.ndarray) -> list[int]:
        """Return which of the rows that a dissector got are behind its part of a stream."""
        found: list[int] = []
        for stream, (place, unread) in self.dissectors[number].followed.items():
            if _shorten(segments[rows[place]], unread):
                found.append(int(rows[place]))
            later = rows[place + 1 :]
            found += later[segments["stream"][later] == stream].tolist()
        return found

    def _begin_anew(self, stream: int, flows: dict[int, int]) -> None:
        """Look for another protocol, as at the start of a stream."""
        self._set_state(stream, flows, UNKNOWN, 0)
        if stream in flows and self._states[flows[stream]]["stream"] == stream:
            self._states[flows[stream]]["looks"] = LOOKS_AT_START
            self._states[flows[stream]]["missed"] = 0

    def _set_state(
        self, stream: int, flows: dict[int, int], code: int, refused: int, is_whole: bool = True
    ) -> None:
        if stream not in flows or self._states[flows[stream]]["stream"] != stream:
            return  # it had to make room for another one, or has ended
        state = self._states[flows[stream]]
        state["refused"] |= np.uint64(refused)
        state["state"] = code
        if not is_whole:
            state["looks"] = LOOKS_MIDSTREAM
            state["missed"] = BOTH

    def _take_pending(
        self, all_segments: np.ndarray, rows: np.ndarray, marks: np.ndarray, *places: np.ndarray
    ) -> list[int]:
        """Keep rows of streams that have said too little, until they have said enough. Return which
        ones are to be looked at once more.
        """
        segments, (frames, held) = all_segments[rows], places
        again: list[int] = []
        codes: dict[int, int] = {}  # of streams that did in this call
        later: dict[int, list[int]] = {}  # their other rows, by protocol
        names = ("stream", "direction", "kind", "place", "position", "length")
        columns = zip(*(segments[name].tolist() for name in names), marks.tolist(), strict=True)
        for row, (stream, direction, kind, place, position, length, mark) in enumerate(columns):
            code = codes.get(stream, PENDING)
            if code == PENDING:
                octets = (held if place == IN_HELD else frames)[position : position + length]
                said = octets.tobytes() if kind == DATA else b""
                pending = self._pending_of(stream)
                if pending is not None:
                    pending.add(segments[row : row + 1], mark, said)
                code = NONE if pending is None else self._decide(pending, stream, held)
                if code == UNKNOWN and _shorten(all_segments[rows[row]], pending.unread):
                    again.append(int(rows[row]))
                if code != PENDING:
                    codes[stream] = code
                    self._pending.pop(stream, None)
                    self._note(stream, direction >> 1, code, pending)
            elif code >= FIRST_PROTOCOL:
                later.setdefault(code - FIRST_PROTOCOL, []).append(row)
            elif code == UNKNOWN:
                again.append(int(rows[row]))
        for number, mine in later.items():
            self._give(number, segments[mine], marks[mine], frames, held)
            again += self._follow(number, all_segments, rows[mine])
        return again

    def _pending_of(self, stream: int) -> Pending | None:
        if stream not in self._pending and len(self._pending) < MOST_PENDING:
            self._pending[stream] = Pending()
        return self._pending.get(stream)

    def _decide(self, pending: Pending, stream: int, held: np.ndarray) -> int:
        """Look at what a pending stream has said so far; return its state. If it is of a protocol,
        that one has got all of it.
        """
        row = self._streams.rows[stream & (len(self._streams.rows) - 1)]
        ports = int(row["ports"]) >> 16 & 0xFFFF, int(row["ports"]) & 0xFFFF
        while True:
            found, waits = self._look_at_both(pending, ports)
            if found < 0:
                return PENDING if waits and not pending.is_full else NONE
            segments, marks, octets = pending.replay()
            if not self._give(found, segments, marks, octets, held).any():
                for _, pending.unread in self.dissectors[found].followed.values():
                    return UNKNOWN
                return FIRST_PROTOCOL + found
            pending.refused |= 1 << found

    def _look_at_both(self, pending: Pending, ports: tuple[int, int]) -> tuple[int, bool]:
        """Return the number of the protocol that fits, -1 for none, and whether one still may."""
        waits = False
        for side, said in enumerate(pending.said):
            waits |= pending.lost[side]
            if said:
                octets = np.frombuffer(bytearray(said), np.uint8)
                found = look(
                    self._table, self._wanted["tcp"], np.uint64(pending.refused), side, *ports,
                    octets, 0, len(said),
                )  # fmt: skip
                if found >= 0:
                    return int(found), False
                waits |= found == TOO_SHORT
        return -1, waits

    def _note(self, stream: int, flow: int, code: int, pending: Pending | None) -> None:
        """Set the state of a stream that is not pending any more."""
        state = self._states[flow]
        if state["stream"] != stream or state["state"] == NONE:  # its dissector was done at once
            return
        state["state"] = code
        if pending is not None:
            state["refused"] |= np.uint64(pending.refused)
        if code == NONE and pending is not None:
            for side, said in enumerate(pending.said):
                state["looks"][side] -= min(int(state["looks"][side]), 1 if said else 0)
            state["state"] = UNKNOWN if state["looks"].any() else NONE
            state["missed"] = BOTH


def _shorten(segment: np.record, octets: int) -> bool:
    """Leave only so many octets of the end of a SEGMENT row; return whether any are left."""
    octets = min(octets, int(segment["length"]))
    segment["position"] += int(segment["length"]) - octets
    segment["length"] = octets
    return octets > 0


def _by_code(found: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Return FOUND rows by their code."""
    return [(code, found[found["code"] == code]) for code in np.unique(found["code"]).tolist()]
