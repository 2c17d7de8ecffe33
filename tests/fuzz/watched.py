"""An agent that is given batches, and what must be true of it whatever is in them.

Only the network is missing: in place of the uplink is a receiver that looks at every table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import orjson
import pyarrow as pa

from recordings import entry, schema
from services.capture.agent import Agent, Engine
from services.capture.assignments import Assignment
from services.capture.duplicates import TRANSLATIONS
from services.capture.frames.batch import FrameBatch, Loss
from services.capture.headers import (
    COPY,
    DECODED,
    FRAGMENT,
    KEPT_COPY,
    MALFORMED,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    TRANSLATED,
    UNSUPPORTED,
)
from services.capture.packetstore import PacketStore
from services.capture.pipeline import Pipeline, PipelineOptions
from services.runtime.clock import MovedClock
from tests.fuzz.frames import Batch, apart
from tests.unit.capture.conversation import RST

EVERYTHING = "tcp or udp or icmp or sctp"
STATEMENTS = (
    EVERYTHING,
    "http and response.status >= 500",
    'http and request.headers["Host"] == "a" and response.body.contains("hello")',
    'request.path.startsWith("/p") and request.queryString["q"] == "1"',
    'dns and request.questions.*.name == r"a"',
    "elapsedTime > 1000 and src.port > 1024",
    'http and redact("request.headers.cookie", "response.body", "src.ip")',
    "tcp and limit(5)",
    "response.body.json().items.*.price > 100",
)
BODY_LIMIT = 4096
LOOKED_AT = 40
"""Entries of a table that are turned into JSON: all would take most of the time."""

STORE_OCTETS = 4 << 20
"""Of the packet store: so little that it overruns."""

MOST_MADE = 64
"""Octets of entries for each octet that came: names in DNS point to each other, and a call of two
octets has columns. What waits from earlier batches comes on top, see MOST_WAITING."""
MOST_WAITING = 256 << 20

TELLS = {DECODED, TRANSLATED, COPY, KEPT_COPY}
REASONS = {UNSUPPORTED, MALFORMED, FRAGMENT}


class Source:
    """In place of a socket: the fuzzer hands batches to the agent itself."""

    def losses(self) -> list[Loss]:
        return []


class Receiver:
    """In place of the uplink: looks at what it gets, and counts."""

    revision = 1

    def __init__(self) -> None:
        self.assignments = tuple(
            Assignment(f"job-{number}", 1, text, 0, 1 << 62, BODY_LIMIT)
            for number, text in enumerate(STATEMENTS)
        )
        self.elsewhere: dict[tuple[str, int], int] = {}
        self.rows: Counter[tuple[str, str]] = Counter()
        self.octets = 0
        self.overrun = 0
        self.lost: Counter[str] = Counter()
        self.streams: set[str] = set()
        self.used: set[str] = set()
        self.entries: list[pa.Table] = []
        self.tables: list[pa.Table] = []
        """Of the last batch."""

    def tell_matched(self, job: str, run: int, hits: int) -> None:
        """What a run with a limit tells is not needed by anybody here."""

    def send(self, job: str, run: int, parts: Sequence[tuple[str, pa.Table]], final: bool) -> None:
        for name, table in parts:
            assert table.schema.equals(schema.PARTS[name]), f"{name} is not of its schema"
            table.validate(full=True)
            self.tables.append(table)
            self.rows[job, name] += table.num_rows
            if name == "entries":
                self.octets += table.nbytes
                _look_at(table)
            if job == "job-0":
                self._count(name, table)

    def _count(self, name: str, table: pa.Table) -> None:
        """Count what the run has that records everything."""
        if name == "streams":
            self.streams.update(table["stream"].to_pylist())
        elif name == "losses":
            for kind, packets in zip(
                table["kind"].to_pylist(), table["packets"].to_pylist(), strict=True
            ):
                self.lost[kind] += packets
        elif name != "tallies":
            self.used.update(table["stream"].unique().to_pylist())
            if name == "entries":
                self.entries.append(table)


def _look_at(table: pa.Table) -> None:
    """Check that entries can be built, and that their JSON is JSON."""
    rows = table.slice(0, LOOKED_AT)
    for each in entry.objects(rows):
        orjson.dumps(each)
    for column in ("request", "response"):
        for text in rows[column].to_pylist():
            assert text is None or isinstance(orjson.loads(text), dict), text


class Watched:
    """An agent with small tables, so that they overflow."""

    def __init__(self, most_flows: int, networks_apart: bool) -> None:
        options = PipelineOptions(
            "fuzz", "192.0.2.1", most_flows=most_flows, networks_apart=networks_apart
        )
        self.pipeline = Pipeline(options)
        self.pipeline.flows.seed[:] = self.pipeline.fragments.seed[:] = 7  # a case comes again
        store = PacketStore(STORE_OCTETS, self.pipeline.most_streams)
        self.receiver = Receiver()
        self.clock = MovedClock(datetime(2026, 1, 1, tzinfo=UTC))
        self.agent = Agent(
            Source(),
            lambda: Engine(self.pipeline, store, BODY_LIMIT),
            self.receiver,
            "fuzz",
            self.clock,
            replay=True,
            ignore_times=True,
        )
        self.frames = self.frames_octets = self.in_streams = self.fragments = self.unknown = 0
        self.others = 0  # of in_streams, those that may never be of a call: neither TCP nor UDP
        self.told = 0

    def take(self, batch: FrameBatch) -> None:
        """Take a batch; AssertionError, or whatever is wrong."""
        self.receiver.tables.clear()
        self.clock.move(timedelta(milliseconds=70))
        self.agent.take(batch)
        count = len(batch.frames)
        self.frames += count
        self.frames_octets += int(batch.frames["captured_length"].sum())
        packets = self.pipeline.packets[:count]
        self._count(packets, batch)

    def _count(self, packets: np.ndarray, batch: FrameBatch) -> None:
        status, streams = packets["status"], packets["stream"]
        assert set(np.unique(status).tolist()) <= TELLS | REASONS, "a status that nobody knows"
        is_told = np.isin(status, list(TELLS))
        has_stream = streams != 0
        untold = np.isin(status, [UNSUPPORTED, MALFORMED]) & has_stream
        assert not untold.any(), "a packet that could not be read has a stream"
        # An acknowledgement or a RST of a connection that was never seen begins no stream.
        bare = (packets["payload_length"] == 0) | (packets["tcp_flags"] & RST > 0)
        lost = (status == DECODED) & ~has_stream & ~((packets["protocol"] == PROTOCOL_TCP) & bare)
        assert not lost.any(), "a packet that was read has no stream"
        self.told += int(np.count_nonzero(~is_told))
        late, late_streams = self.pipeline.late
        assert len(late.frames) == len(late_streams)
        self.in_streams += int(np.count_nonzero(has_stream)) + int(np.count_nonzero(late_streams))
        is_other = ~np.isin(packets["protocol"], [PROTOCOL_TCP, PROTOCOL_UDP])
        self.others += int(np.count_nonzero(has_stream & is_other)) + len(late_streams)
        self.fragments += int(np.count_nonzero((status == FRAGMENT) & ~has_stream))
        self.fragments -= len(late_streams)
        if not self.pipeline.fragments.state[0].filled:
            self._within(packets[status == DECODED], batch.frames[status == DECODED])

    def _within(self, packets: np.ndarray, frames: np.ndarray) -> None:
        """Check that what each packet carries lies in its own frame."""
        begin = packets["payload_offset"]
        end = begin + packets["payload_length"]
        assert (packets["payload_length"] >= 0).all(), "a payload of less than nothing"
        assert (begin >= frames["offset"]).all(), "a payload before its frame"
        assert (end <= frames["offset"] + frames["captured_length"]).all(), "a payload behind it"

    def end(self) -> None:
        """End the capture; check that nothing is missing without a reason."""
        self.receiver.tables.clear()
        matcher = self.agent._matcher
        failed = matcher._failed if matcher else ()
        assert not failed, f"filters failed: {failed}"
        self.agent.end()
        assert self.agent.progress.frames == self.frames
        assert self.pipeline.open_streams == 0, "streams are open after the end"
        received = self.receiver
        stored = received.rows["job-0", "packets"] + received.lost["store_overrun"]
        # A flow that turns out to be another one, translated, has been recorded as that one.
        is_exact = self.pipeline.sightings.counts[TRANSLATIONS] == 0
        least = self.in_streams - self.others if is_exact else 0
        assert least <= stored <= self.in_streams, (
            f"of {self.in_streams} packets in streams {stored} were stored, or told as lost"
        )
        assert received.used <= received.streams, "rows of streams that nobody told of"
        assert received.lost["fragment"] <= self.fragments, (
            f"{received.lost['fragment']} fragments are told as lost, and {self.fragments} are"
        )
        most = MOST_MADE * self.frames_octets * len(STATEMENTS) + MOST_WAITING
        assert received.octets < most, f"{received.octets} octets of {self.frames_octets}"


class Twins:
    """Two agents that get the same frames between different octets, and must say the same."""

    def __init__(self, fillings: Sequence[bytes], most_flows: int, networks_apart: bool) -> None:
        self.fillings = fillings
        self.agents = [Watched(most_flows, networks_apart) for _ in fillings]

    def take(self, batch: Batch) -> None:
        for filling, each in zip(self.fillings, self.agents, strict=True):
            each.take(apart(batch.rows, batch.octets, filling))
        self._compare()

    def end(self) -> None:
        for each in self.agents:
            each.end()
        self._compare()

    def _compare(self) -> None:
        first, *others = (each.receiver.tables for each in self.agents)
        for other in others:
            assert len(first) == len(other), "what lies between the frames was read"
            for one, two in zip(first, other, strict=True):
                assert one.equals(two), "what lies between the frames was read"
