# mypy: ignore-errors
"""From frames to calls: decode, put in order, dissect. One object for each capture process.

What it keeps is bounded and made at the start; nothing here allocates for each packet.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from services.capture import reassembly
from services.capture.calls import Calls, Node, ProtocolCalls, stream_texts, streams_table
from services.capture.decode import decode_frames, new_packets, note_networks
from services.capture.dissectors.byprotocol import ByProtocol
from services.capture.dissectors.dissector import Dissector, ProtocolKind
from services.capture.dissectors.dns import Dns, DnsCalls, DnsOptions
from services.capture.dissectors.dns.detect import find_datagrams
from services.capture.dissectors.dns.tcp import DnsStreams
from services.capture.dissectors.http1.entries import Http1Calls
from services.capture.dissectors.http1.exchange import forget_overwritten
from services.capture.dissectors.http1.framing import frame_segments
from services.capture.dissectors.http1.handover import Handover, handovers
from services.capture.dissectors.http1.midstream import begin_midstream
from services.capture.dissectors.http1.past import new_past, recall, remember
from services.capture.dissectors.http1.rows import NO_MESSAGE, new_framer
from services.capture.dissectors.recognition import Recogniser
from services.capture.dissectors.registry import PROTOCOLS
from services.capture.dissectors.transport import unrecognised
from services.capture.duplicates import (
    COPIES,
    forget_copies,
    is_needed,
    mark_copies,
    new_sightings,
)
from services.capture.flows import (
    EVICTED,
    FIRST_EVICTED,
    LAST_EVICTED,
    ROWS_USED,
    STREAMS_ENDED,
    STREAMS_OPENED,
    ended_since,
    find_flows,
    new_flows,
    new_keys,
    new_streams,
)
from services.capture.fragments import (
    begin_batch,
    expire,
    link_fragments,
    move_frames,
    new_fragments,
    with_room,
)
from services.capture.frames.batch import LATEST_NS, MOST_FRAMES, FrameBatch, Loss
from services.capture.identity.names import Known
from services.capture.lazymemory import keep_large_tables_lazy
from services.capture.sampling import ALL_STREAMS, leave_out, left_out, new_sample
from services.capture.timewheel import END_OF_TIME, SECOND

DNS_PORTS = np.array([53, 5353, 5355])  # DNS; mDNS, RFC 6762; LLMNR, RFC 4795
MULTICAST_PORTS = (5353, 5355)
SEGMENT_ROWS = 2 * MOST_FRAMES
BEGIN_AS_HTTP1 = frozenset({Http1Calls.protocol_name, "ws"})
"""Protocols that cannot be found without HTTP/1."""
GIVEN_UP = (
    "datagrams of which fragments never came",
    "datagrams that had to make room for others",
    "datagrams whose fragments overlap, contradict each other, or are cut by the snaplen",
)
"""Why, in the order of fragments.NEVER_CAME and the next."""
NOTHING = np.zeros(1, np.uint8)  # where the octets would be of segments that have none
STREAMS_FOR_A_FLOW = 2  # so that as many ended streams as there are flows keep their rows
SMALLEST_STREAMS = 4 * MOST_FRAMES  # each packet of a batch may end one and begin another
PART_EVICTED = 64  # of the flows: a full table makes room for some at once, not for each new one
MOST_FLOWS = 1 << 17
"""With what dissectors, matching and packet store keep for each, 110 MiB when all are in use."""


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How a pipeline works."""

    node_name: str = ""
    node_ip: str = ""
    body_limit: int = 0
    """Octets of each body to keep; 0 keeps none."""
    most_flows: int = MOST_FLOWS
    """Flows followed at once, rounded up to a power of two. For one more, another one has to go:
    its stream is cut short, which is a loss."""
    networks_apart: bool = True
    """Whether the same five-tuple in another VLAN or tunnel is another stream. Not on several
    interfaces, which show a packet with and without its tag."""
    sample: float = ALL_STREAMS
    """Percent of the streams that are looked at, see `sampling`."""
    known: Callable[[], Known | None] = lambda: None
    """Names of addresses at the moment; None when there are none."""


def is_multicast(packets: np.ndarray) -> np.ndarray:
    """Whether each of the PACKET rows is of a protocol whose questions go to a group."""
    ports = ("source_port", "destination_port")
    return np.logical_or(*(np.isin(packets[port], MULTICAST_PORTS) for port in ports))


class Pipeline:
    """Takes batches of frames, gives calls."""

    def __init__(
        self, options: PipelineOptions, protocols: Sequence[ProtocolKind] = PROTOCOLS
    ) -> None:
        """`protocols` are those that are known by their first octets, besides HTTP/1 and DNS."""
        keep_large_tables_lazy()
        self.node = Node(options.node_name, options.node_ip, options.known)
        most_flows = 1 << (options.most_flows - 1).bit_length()
        self.flows = new_flows(most_flows, options.networks_apart)
        self.streams = new_streams(max(STREAMS_FOR_A_FLOW * most_flows, SMALLEST_STREAMS))
        self.reassembler = reassembly.new_reassembler(most_flows)
        self.segments = reassembly.new_segments(SEGMENT_ROWS)
        self.packets, self._keys = new_packets(MOST_FRAMES), new_keys(MOST_FRAMES)
        self.sightings = new_sightings()
        self.fragments = new_fragments()
        self._rows_found = np.empty(MOST_FRAMES, np.int64)
        self.sample_percent = options.sample
        self.sample = new_sample(options.sample) if options.sample < ALL_STREAMS else None
        self._dissectors: frozenset[str] | None = None
        self._has_http1 = self._has_dns = True
        self.framer = new_framer(most_flows, options.body_limit)
        self._past = new_past(len(self.framer.messages))
        self.dns = Dns(DnsOptions())
        self.dns_streams = DnsStreams()
        self.recogniser = Recogniser(protocols, most_flows, self.streams)
        self.recogniser.body_limit = options.body_limit
        self.by_protocol = ByProtocol(most_flows, self.streams)
        self.packet_streams = np.zeros(0, np.int64)
        """int64, one for each frame of the last batch: its stream's number, or 0."""
        self.packets_taken = 0
        self._http1: list[np.ndarray] = []
        self._collected: list[Calls] = []
        self._recognised: list[tuple[Dissector, Calls]] = []  # those of them with their dissector
        self._ended = 0
        self._overwritten = 0  # HTTP messages of calls that nobody has been told of
        self._now = self._last_sweep = 0
        self.lap: Callable[[str], None] = lambda _: None
        """Called after each stage of the work, with its name: for whoever measures."""

    @property
    def most_streams(self) -> int:
        """A power of two: number & (most_streams - 1) is an open stream's own."""
        return len(self.streams.rows)

    @property
    def body_limit(self) -> int:
        """Octets of each body that are kept; may be changed between batches."""
        return int(self.framer.totals["body_limit"][0])

    @body_limit.setter
    def body_limit(self, octets: int) -> None:
        if octets != self.body_limit:
            self.framer.totals["body_limit"] = self.recogniser.body_limit = octets

    @property
    def dissectors(self) -> frozenset[str] | None:
        """Names of the protocols that are looked for, as entries have them; None for all, and for
        streams in which none of them is. May be changed between batches: what a stream said before
        then is not known, and what waits for an answer in a protocol that is no more looked for is
        forgotten.
        """
        return self._dissectors

    @dissectors.setter
    def dissectors(self, names: frozenset[str] | None) -> None:
        if names == self._dissectors:
            return
        self._dissectors = names
        had_http1, had_dns = self._has_http1, self._has_dns
        self._has_http1 = names is None or not names.isdisjoint(BEGIN_AS_HTTP1)
        self._has_dns = names is None or DnsCalls.protocol_name in names
        directions = self.reassembler.directions[: 2 * int(self.flows.counts[ROWS_USED])]
        if self._has_http1 and not had_http1:
            begin_midstream(self.framer, directions)
        if self._has_dns != had_dns:
            self.dns, self.dns_streams = Dns(DnsOptions()), DnsStreams()
        if self._has_dns and not had_dns:
            begun = (directions["hint"] == reassembly.DNS_HINT) & (directions["started"] != 0)
            self.dns_streams.begin_midstream(np.flatnonzero(begun).tolist())
        self.recogniser.want(names)
        self.by_protocol.want(names)

    def take(self, batch: FrameBatch) -> list[Calls]:
        """Take a batch; return the calls that it completed, good until the next one. One without
        frames completes what has waited for too long by the time that it tells.
        """
        octets, frames, passed_ns = batch
        if len(frames) > len(self.packets):
            self.packets, self._keys = new_packets(len(frames)), new_keys(len(frames))
            self._rows_found = np.empty(len(frames), np.int64)
        packets = self.packets[: len(frames)]
        whole = self._decode(octets, frames, packets)
        if self.sample is not None:
            leave_out(frames, packets, self._keys, self.fragments, self.sample)
        self.lap("decode")
        has_copies = is_needed(frames)
        row = 0
        while row < len(frames):
            first, row = row, find_flows(packets, self._keys, row, self.flows)
            self.lap("decode")
            part = packets[first:row]
            if has_copies:
                places = octets, frames[first:row]
                mark_copies(self.sightings, *places, whole, part, self.flows, self.streams)
                self.lap("copies")
            self._reassemble(whole, part)
            self._take_datagrams(whole, part)
            if row < len(frames):
                self.make_room(len(frames) - row, int(frames["timestamp"][row]))
        state = self.fragments.state[0]
        if state.networks:
            note_networks(packets, self.streams)
        if has_copies:
            forget_copies(packets)
        if state.filled:
            link_fragments(self.fragments, packets)
        self.packet_streams = packets["stream"]
        self.packets_taken += len(frames)
        if len(frames):
            # The latest of this batch, not of all: a clock that was set back must not end sweeping.
            self._now = int(frames["timestamp"].max())
        elif passed_ns and not passed_ns <= self._now <= passed_ns + LATEST_NS:
            self._now = passed_ns  # unless the last frame tells it better
        if abs(self._now - self._last_sweep) >= SECOND:
            self._last_sweep = self._now
            self._sweep(self._now)
        calls = self._collect()
        self.lap("dissect")
        return calls

    @property
    def late(self) -> tuple[FrameBatch, np.ndarray]:
        """Frames of earlier batches, and the streams (int64) that they turned out to belong to:
        fragments of datagrams that the last batch completed.
        """
        kept = self.fragments
        count = int(kept.state["late"][0])
        return FrameBatch(kept.work, kept.late[:count]), kept.late_streams[:count]

    def end(self) -> list[Calls]:
        """End all streams, as at the end of a capture; return what was waiting."""
        expire(self.fragments, END_OF_TIME)
        number = 0
        while number < self.flows.counts[ROWS_USED]:
            number, filled = reassembly.end_all(
                self.reassembler, self.flows, self.streams, number, self.segments
            )
            self._take_segments(NOTHING, filled)
        self.dns.end()  # after the messages that waited for lost ones have been delivered
        return self._collect()

    def earlier(self, numbers: np.ndarray) -> list[Calls]:
        """Return the calls of these streams from before the last batch, as far as they are still
        known (DNS's never are); good until the next take().
        """
        new = [part.streams[part.index == 0] for part in self._collected]
        numbers = np.setdiff1d(numbers, np.concatenate(new)) if new else numbers
        if len(numbers) == 0:
            return []
        calls, indexes = recall(self._past, self.framer, numbers, self.most_streams)
        found = [(Http1Calls(self.framer, calls), indexes)] if len(calls) else []
        for dissector in self._dissectors_of_objects():
            known = dissector.earlier(numbers)
            if known is not None:
                found.append(known)
        return [Calls(part, self.streams, self.node, indexes) for part, indexes in found]

    def _dissectors_of_objects(self) -> Iterator[Dissector]:
        """Those that remember their calls themselves."""
        yield from self.recogniser.dissectors.values()
        yield from self.by_protocol.dissectors

    @property
    def open_streams(self) -> int:
        """Streams that have not ended."""
        return int(self.streams.counts[STREAMS_OPENED] - self.streams.counts[STREAMS_ENDED])

    @property
    def copies(self) -> int:
        """Packets so far that had been seen before, on another interface."""
        return int(self.sightings.counts[COPIES])

    @property
    def conflicts(self) -> int:
        """Segments so far that said something else than an earlier one with the same octets."""
        return int(self.reassembler.state["conflicts"][0])

    def left_out(self) -> Loss | None:
        """What is not in the sample, and came since the last call."""
        return None if self.sample is None else left_out(self.sample, self.sample_percent)

    def losses(self) -> list[Loss]:
        """What was lost since the last call."""
        found = self._decoding_losses()
        state = self.reassembler.state[0]
        if state.gaps:
            found.append(
                Loss(
                    "gap",
                    int(state.first_gap),
                    int(state.last_gap),
                    bytes=int(state.gap_octets),
                    detail=f"{state.gaps} gaps in TCP streams",
                )
            )
            state.gaps = state.gap_octets = 0
        counts = self.flows.counts
        if counts[EVICTED]:
            detail = (
                f"{counts[EVICTED]} streams were cut short to make room: more than "
                f"{len(self.flows.rows)} flows at once"
            )
            first, last = sorted((int(counts[FIRST_EVICTED]), int(counts[LAST_EVICTED])))
            found.append(Loss("table_overrun", first, last, detail=detail))
            counts[EVICTED] = 0
        totals = self.framer.totals[0]
        overwritten = self._overwritten + int(totals.overwritten)
        if overwritten:
            detail = f"{overwritten} HTTP answers, which more messages followed than are kept"
            found.append(Loss("table_overrun", self._now, self._now, detail=detail))
            self._overwritten = totals.overwritten = 0
        return found + [
            Loss(kind, self._now, self._now, detail=detail)
            for kind, detail in self.recogniser.losses() + self.by_protocol.losses()
        ]

    def _decoding_losses(self) -> list[Loss]:
        found = []
        state = self.fragments.state[0]
        if state.lost_frames:
            reasons = zip(state.given_up.tolist(), GIVEN_UP, strict=True)
            detail = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
            first, last = int(state.first_loss), int(state.last_loss)
            frames, octets = int(state.lost_frames), int(state.lost_octets)
            found.append(Loss("fragment", first, last, frames, octets, detail=detail))
            state.given_up[:] = state.lost_frames = state.lost_octets = 0
        if state.unknown_links:
            detail = f"link type {state.unknown_link}, https://www.tcpdump.org/linktypes.html"
            count = int(state.unknown_links)
            found.append(Loss("unknown_link", self._now, self._now, count, detail=detail))
            state.unknown_links = 0
        return found

    def stream_ids(self, numbers: np.ndarray) -> pa.Array:
        """The text that names each of the streams."""
        return stream_texts(self.streams.rows["id"][numbers & (self.most_streams - 1)])

    def streams_table(
        self, numbers: np.ndarray, matched_ns: np.ndarray, from_start: np.ndarray
    ) -> pa.Table:
        """Make the table of streams; `from_start`: its first packet seen is among the packets."""
        return streams_table(self._rows(numbers), self.node, matched_ns, from_start)

    def _rows(self, numbers: np.ndarray) -> np.ndarray:
        return self.streams.rows[numbers & (self.most_streams - 1)]

    def _decode(self, octets: np.ndarray, frames: np.ndarray, packets: np.ndarray) -> np.ndarray:
        """Fill PACKET rows; return the octets that their positions are in."""
        needed = begin_batch(self.fragments, frames)
        if needed > len(self.fragments.work) or len(frames) > len(self.fragments.completed):
            self.fragments = with_room(self.fragments, needed, len(frames))
            begin_batch(self.fragments, frames)
        decode_frames(octets, frames, packets, self._keys, self.flows, self.fragments)
        if not self.fragments.state[0].filled:
            return octets
        move_frames(self.fragments, octets, frames, packets)
        work: np.ndarray = self.fragments.work
        return work

    def _reassemble(self, octets: np.ndarray, packets: np.ndarray) -> None:
        row = 0
        while row < len(packets):
            row, filled = reassembly.reassemble(
                self.reassembler, octets, packets, row, self.flows, self.streams, self.segments
            )
            self.lap("reassembly")
            self._take_segments(octets, filled)
            self.lap("dissect")

    def _take_segments(self, octets: np.ndarray, filled: int) -> None:
        held = self.reassembler.octets
        row = 0 if self._has_http1 else filled
        handed: list[Handover] = []
        while row < filled:
            row, calls = frame_segments(self.framer, self.segments, row, filled, octets, held)
            if calls:
                self._http1.append(self.framer.calls[:calls].copy())
                handed += handovers(self.framer, self._http1[-1])
        self.recogniser.take_segments(self.segments[:filled], octets, held, handed)
        if not self._has_dns:
            return
        of_dns = np.flatnonzero(self.segments["hint"][:filled] == reassembly.DNS_HINT)
        if len(of_dns):
            self.dns_streams.take(self.segments[of_dns], octets, held, self.dns)

    def _take_datagrams(self, octets: np.ndarray, packets: np.ndarray) -> None:
        self.recogniser.take_datagrams(packets, octets)
        self.by_protocol.take(packets, octets)
        if not self._has_dns:
            return
        found = find_datagrams(octets, packets, DNS_PORTS, self._rows_found[: len(packets)])
        if found == 0:
            return
        packets = packets[self._rows_found[:found]]
        self.dns.take(
            octets,
            packets["payload_offset"].copy(),
            packets["payload_offset"] + packets["payload_length"],
            packets["timestamp"].copy(),
            packets["stream"].copy(),
            packets["direction"].astype(np.int64),
            is_multicast(packets),
        )

    def make_room(self, packets: int, now: int) -> None:
        """End flows of a full table, for some of the new ones that so many packets may bring."""
        wanted = max(1, min(len(self.flows.rows) // PART_EVICTED, packets))
        self._end_flows(reassembly.make_room, now, wanted)

    def _sweep(self, now: int) -> None:
        """End the streams that are idle at `now`."""
        self._end_flows(reassembly.end_idle, now)
        if self.fragments.state[0].used:
            expire(self.fragments, now)
        self.dns.expire(now)

    def _end_flows(self, kernel: Callable[..., tuple[bool, int]], *arguments: int) -> None:
        is_done = False
        while not is_done:
            is_done, filled = kernel(
                self.reassembler, self.flows, self.streams, *arguments, self.segments
            )
            self._take_segments(NOTHING, filled)

    def _collect(self) -> list[Calls]:
        ended = ended_since(self.streams, self._ended)
        self._ended = int(self.streams.counts[STREAMS_ENDED])
        if len(ended):
            self.dns.end_streams(ended, self._now)
        for dissector, part in self._recognised:
            dissector.remember(part.calls, part.index)
        self.recogniser.end_streams(ended, self._now)
        self.by_protocol.end_streams(ended, self._now)
        for part in self._collected:
            if isinstance(part.calls, Http1Calls):
                remember(self._past, part.calls.calls, part.index)
        found: list[ProtocolCalls] = []
        if self._http1:
            http1 = np.concatenate(self._http1)
            self._http1 = []
            self._overwritten += forget_overwritten(self.framer, http1)
            http1 = http1[(http1["request"] != NO_MESSAGE) | (http1["response"] != NO_MESSAGE)]
            if len(http1):
                found.append(Http1Calls(self.framer, http1))
        dns = self.dns.calls()
        if dns is not None and len(dns):
            found.append(dns)
        calls = [Calls(part, self.streams, self.node) for part in found]
        self._recognised = [
            (dissector, Calls(part, self.streams, self.node))
            for dissector in self._dissectors_of_objects()
            if (part := dissector.calls()) is not None
        ]
        calls += [part for _, part in self._recognised]
        # Whether a stream has none of the protocols is known only when all were looked for.
        wants_rest = self._dissectors is None and len(ended)
        rest = unrecognised(self._rows(ended)) if wants_rest else []
        self._collected = calls + [Calls(part, self.streams, self.node) for part in rest]
        return self._collected
