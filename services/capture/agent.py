"""The capture loop: frames in, batches for the scheduler out. `app` and `importing` run it.

It has a thread to itself, and does nothing else than to hand each batch from one part to the next:
source, pipeline, packet store, matching, and one buffer for each run.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kfl import coarse
from kfl.packets import Packets as Needed
from services.capture.assignments import ActiveRun, Assignment, Assignments
from services.capture.dissectors.dns import DnsCalls
from services.capture.frames.afpacket import ANY, AfPacket
from services.capture.frames.batch import CaptureError, FrameBatch, FrameSource, Loss
from services.capture.identity.names import Known, Names
from services.capture.kernelfilter import Filterable, KernelFilter, no_names
from services.capture.livebox import FLUSH_SECONDS as LIVE_FLUSH_SECONDS
from services.capture.liverun import LiveRun
from services.capture.matching import Calls, Matcher, chosen_rows
from services.capture.packetstore import Overwritten, Packets, PacketStore, choose, packets_table
from services.capture.pipeline import MOST_FLOWS, Pipeline, PipelineOptions
from services.capture.probe import Probe
from services.capture.runbuffer import RunBuffer
from services.capture.sampling import ALL_STREAMS, described
from services.capture.targets import ALL_PODS, TargetsFile
from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks
from services.runtime.clock import Clock, SystemClock
from services.runtime.logging import logger

LOOK_SECONDS = 0.05
"""How often the agent looks whether a run begins or ends; a new list is noticed at once."""

CLOCK_STEP_NS = 200_000_000
"""A wall clock that moves so much against the monotonic one was set: slewing moves it by half a
millisecond in a second, and less than this is no trouble."""

AHEAD_NS = 1_500_000_000
"""How long before a run begins the engine is made, and the kernel keeps what it needs, so that none
of it is late."""

HELD_NS = 250_000_000
"""Longer than a ring holds a frame back and a poll waits: what comes so long after the end was
asked for, also if it is nothing, says that all from before has come."""

DRAIN_SECONDS = 5.0
"""How long an agent that is to end waits for that; a machine that is so busy has dropped some."""

WAIT_SECONDS = 0.2
"""How often the wait for a first assignment looks whether the agent was told to stop."""

PACKET_MEMORY = 256 << 20
"""Octets of packets whose stream has not matched yet: seconds of a busy node."""

PACKET_BYTES = 768 << 10
PACKET_ROWS = 8192
"""Octets of packets, and packets, that are copied at once: a batch of less than a megabyte still
fits when the storage limit is near, and what the store has of a stream may be larger than any."""

REFRESH_SECONDS = 0.2
"""Between two looks at which addresses a name stands for: 5 ms with 10,000 pods."""

NAMELESS_NS = 2_000_000_000
"""A time without names that is told: what a new list takes is less."""

DNS_ANSWERS = Needed(
    coarse.all_of([coarse.transports("udp"), coarse.ports([(53, 53)])]), frozenset({"dns"})
)
"""What names of addresses outside of the cluster are learned from."""

MOST_BODY = 1 << 30
"""Octets of one body: no limit but those of the jobs."""

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """What turns frames into calls, and keeps frames until their stream matches."""

    pipeline: Pipeline
    store: PacketStore
    most_body: int
    """Octets of a body that are kept, whatever a job asks for."""


NewEngine = Callable[[], Engine]


def new_engine_factory(
    node: str,
    node_ip: str,
    packet_memory: int = PACKET_MEMORY,
    most_body: int = MOST_BODY,
    packet_disk: int = 0,
    packet_folder: Path | None = None,
    networks_apart: bool = True,
    most_flows: int = MOST_FLOWS,
    sample: float = ALL_STREAMS,
    known: Callable[[], Known | None] = lambda: None,
) -> NewEngine:
    """Return what makes an engine whenever recording begins; sizes are in octets.

    packet_disk: keep that much of packets in a file in `packet_folder`, and none in memory.
    networks_apart, most_flows, sample, known: as PipelineOptions has them.
    """

    def new_engine() -> Engine:
        options = PipelineOptions(
            node_name=node,
            node_ip=node_ip,
            networks_apart=networks_apart,
            most_flows=most_flows,
            sample=sample,
            known=known,
        )
        pipeline = Pipeline(options)
        return Engine(pipeline, new_store(pipeline.most_streams), most_body)

    def new_store(most_streams: int) -> PacketStore:
        if packet_disk:
            try:
                return PacketStore(packet_disk, most_streams, packet_folder)
            except CaptureError as error:
                _log.warning("packets are kept in memory", reason=str(error))
        return PacketStore(packet_memory, most_streams)

    return new_engine


@dataclass(slots=True)
class Progress:
    """What the agent has recorded; other threads may read it."""

    frames: int = 0  # that were looked at
    octets: int = 0
    entries: int = 0  # these three once for each run
    streams: int = 0
    packets: int = 0
    messages: Counter[str] = field(default_factory=Counter)
    """Calls that were dissected, by protocol."""
    matches: Counter[str] = field(default_factory=Counter)
    """Streams that matched, by job."""
    losses: Counter[str] = field(default_factory=Counter)
    """By kind; the next two count what was lost."""
    lost_packets: Counter[str] = field(default_factory=Counter)
    lost_octets: Counter[str] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Streams that were not dissected, or not to their end, by protocol and why."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """Of the capture thread, by stage of the work."""
    copies: int = 0  # frames of packets that had been seen before, on another interface
    left_out_packets: int = 0  # of streams that are not in the sample
    left_out_octets: int = 0
    open_streams: int = 0  # now; so is what follows
    stored_packets: int = 0
    overwritten_packets: int = 0


class Agent:
    """Records what the scheduler assigns, from one source."""

    def __init__(
        self,
        source: FrameSource,
        new_engine: NewEngine,
        uplink: Uplink | Uplinks,
        node: str,
        clock: Clock | None = None,
        *,
        replay: bool = False,
        ignore_times: bool = False,
        names: Names | None = None,
        targets: TargetsFile | None = None,
    ) -> None:
        """`replay`: the source is a file, which is not read before there is something to record.

        `ignore_times`: a run is recorded from the first frame to the last, whatever the time is.
        `names`: of addresses, which are to be known; the engine has them too.
        `targets`: whose traffic alone is captured.
        """
        self._source = source
        self._new_engine = new_engine
        self._uplink = uplink
        self._node = node
        self._clock = clock or SystemClock()
        self._replay = replay
        is_translated = isinstance(source, AfPacket) and source.interface == ANY
        filterable = source if isinstance(source, Filterable) else None
        self._targets = targets
        self._listed: list[Assignment] = []  # narrowed to the targets
        self._names = names
        self._names_revision = 0
        self._next_refresh = 0.0
        self._nameless_ns = 0  # since when names are missing, or get old; 0 when they do not
        self._nameless_note = ""
        resolver, besides = (no_names, None) if names is None else (names.addresses, DNS_ANSWERS)
        self._kernel = KernelFilter(filterable, resolver, is_translated, besides)
        self._assignments = Assignments(ignore_times)
        self._engine: Engine | None = None
        self._prepared: Engine | None = None
        """For the first run that begins."""
        self._matcher: Matcher | None = None
        self._buffers: dict[tuple[str, int], RunBuffer] = {}
        self._revision = 0
        self._next_look = 0.0
        self._last_frame_ns = 0
        self._begin_ns = _time_ns(self._clock)
        self._offset_ns: int | None = None  # of the wall clock against the monotonic one
        self.progress = Progress()
        self._lap_began = 0.0
        self._end_asked = 0.0  # monotonic; 0 until then
        self._end_asked_ns = 0

    def run(self, stop: threading.Event) -> None:
        """Record until the source ends or `stop` is set; everything is with the uplink then.

        Raises CaptureError when the source cannot be read on; what came before it is kept.
        """
        self._lap_began = time.thread_time()
        try:
            if self._replay:
                self._wait_for_work(stop)
            if not stop.is_set():
                for batch in self._source.batches():
                    self.take(batch)
                    if stop.is_set() and self._is_drained(batch):
                        break
        finally:
            self.end()

    def _is_drained(self, batch: FrameBatch) -> bool:
        """Whether all that was on the wire when the end was asked for has been taken."""
        if self._replay:
            return True
        now = self._clock.monotonic()
        if not self._end_asked:
            self._end_asked, self._end_asked_ns = now, _time_ns(self._clock)
        if not len(batch.frames):  # the ring may still hold some back
            return now >= self._end_asked + HELD_NS / 1e9
        is_late = int(batch.frames["timestamp"][-1]) > self._end_asked_ns + HELD_NS
        return is_late or now >= self._end_asked + DRAIN_SECONDS

    def take(self, batch: FrameBatch) -> None:
        """Record one batch; an empty one only lets time pass."""
        self._lap("source")
        now = self._clock.monotonic()
        if now >= self._next_look or self._uplink.revision != self._revision:
            self._look()
            self._next_look = now + LOOK_SECONDS
        if self._engine is None:
            # Nobody asked for anything, so what was lost meanwhile concerns nobody either.
            self._source.losses()
            return
        if len(batch.frames):
            self._last_frame_ns = int(batch.frames["timestamp"][-1])
            self.progress.frames += len(batch.frames)
            self.progress.octets += int(batch.frames["captured_length"].sum())
            octets = int(batch.frames["original_length"].sum(dtype=np.int64))
            for buffer in self._buffers.values():
                buffer.see(_span(batch.frames), len(batch.frames), octets, now)
        self._record(self._engine, batch, now)
        self._tell_losses(self._engine, now)
        for buffer in self._buffers.values():
            if buffer.is_due(now):
                buffer.flush(now)
        self._measure(self._engine)

    def _lap(self, stage: str) -> None:
        """Count the processor time since the last call as this stage's."""
        now = time.thread_time()
        seconds = self.progress.cpu_seconds
        seconds[stage] = seconds.get(stage, 0.0) + now - self._lap_began
        self._lap_began = now

    def _measure(self, engine: Engine) -> None:
        self._lap("send")
        self.progress.open_streams = engine.pipeline.open_streams
        self.progress.stored_packets = engine.store.stored_packets
        self.progress.overwritten_packets = engine.store.overwritten_packets

    def end(self) -> None:
        """Finish: calls that still wait for an answer are recorded without, and all runs end."""
        now = self._clock.monotonic()
        if self._engine is not None:
            self._keep(self._engine, self._engine.pipeline.end(), now)
            self._tell_losses(self._engine, now)
        self._tell_nameless(self._assignments.active, _time_ns(self._clock))
        for run in self._assignments.end():
            self._buffers.pop(run.key).flush(now, final=True)
        self._engine = self._matcher = None

    def _wait_for_work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._look()
            if self._assignments.active:
                return
            self._uplink.wait_for_assignments(self._revision, WAIT_SECONDS)

    def _look(self) -> None:
        """Find out what to record now."""
        has_changed = self._targets is not None and self._targets.look(self._clock.monotonic())
        if self._uplink.revision != self._revision or has_changed:
            self._revision = self._uplink.revision
            targets = ALL_PODS if self._targets is None else self._targets.current
            self._listed = [
                replace(each, kfl=targets.narrow(each.kfl)) for each in self._uplink.assignments
            ]
            # A file is read once, so nothing of it is there to be tried.
            self._assignments.update(
                [a for a in self._listed if not (self._replay and (a.probe or a.live))]
            )
        now_ns = _time_ns(self._clock)
        self._watch_clock(now_ns)
        changes = self._assignments.advance(now_ns)
        self._prepare(now_ns)
        if self._names is not None:
            self._watch_names(self._names, changes.ended, now_ns)
        for run in changes.ended:
            self._buffers.pop(run.key).flush(self._clock.monotonic(), final=True)
            _log.info("run ended", job=run.key[0], run=run.key[1])
        if not self._assignments.active:
            # The next run is not to see calls that were under way now.
            self._engine = self._matcher = None
            return
        if self._engine is None or self._matcher is None:
            self._engine, self._prepared = self._prepared or self._new_engine(), None
            self._engine.pipeline.lap = self._lap
            self._matcher = Matcher(self._engine.pipeline.most_streams)
            self._last_frame_ns = now_ns
        self._engine.pipeline.dissectors = self._kernel.packets.dissectors
        for run in changes.started:
            self._matcher.begin(run)
            self._buffers[run.key] = self._new_buffer(run)
            self._tell_matched(run)
            if (
                not (self._replay or run.assignment.probe or run.assignment.live)
                and run.assignment.start_ns < self._begin_ns
            ):
                self._buffers[run.key].lose([self._late(run)], self._clock.monotonic())
            _log.info("run started", job=run.key[0], run=run.key[1], kfl=run.assignment.kfl)
        if self._engine.pipeline.sample is not None:
            for buffer in self._buffers.values():
                detail = described(self._engine.pipeline.sample_percent)
                buffer.tell_sample(detail, self._clock.monotonic())

    def _new_buffer(self, run: ActiveRun) -> RunBuffer:
        if run.assignment.live:
            return RunBuffer(run, LiveRun(self._uplink), self._node, LIVE_FLUSH_SECONDS)
        sink = Probe(self._uplink) if run.assignment.probe else self._uplink
        return RunBuffer(run, sink, self._node)

    def _watch_clock(self, now_ns: int) -> None:
        """Put a clock that was set into every run's ledger."""
        now = self._clock.monotonic()
        offset_ns = now_ns - int(now * 1e9)
        before, self._offset_ns = self._offset_ns, offset_ns
        step_ns = 0 if before is None else offset_ns - before
        if self._replay or abs(step_ns) < CLOCK_STEP_NS:
            return
        way = "forward" if step_ns > 0 else "back"
        detail = f"the clock of this node was set {way} by {abs(step_ns) / 1e9:.3f} s"
        first, last = sorted((now_ns - step_ns, now_ns))
        loss = Loss("clock_step", first, last, detail=detail)
        _log.warning("the clock was set", step_seconds=step_ns / 1e9)
        self.progress.losses[loss.kind] += 1
        for buffer in self._buffers.values():
            buffer.lose([loss], now)

    def _prepare(self, now_ns: int) -> None:
        """Get ready for what the runs need that are on, or soon will be."""
        statements = {run.assignment.kfl for run in self._assignments.active}
        for assignment in self._listed:
            is_soon = assignment.start_ns - AHEAD_NS <= now_ns < assignment.stop_ns
            if is_soon or assignment.live:
                statements.add(assignment.kfl)
        if not statements:
            self._prepared = None
        elif self._engine is None and self._prepared is None:
            self._prepared = self._new_engine()  # before the ring begins to fill
        self._kernel.follow(statements)

    def _watch_names(self, names: Names, ended: Sequence[ActiveRun], now_ns: int) -> None:
        """Let the kernel keep what names mean now, and put times without them into ledgers."""
        now = self._clock.monotonic()
        if names.revision != self._names_revision and now >= self._next_refresh:
            self._names_revision = names.revision
            self._next_refresh = now + REFRESH_SECONDS
            self._kernel.refresh()
        note = names.note
        self._tell_nameless(ended if note else self._assignments.active, now_ns)
        self._nameless_ns = (self._nameless_ns or now_ns) if note else 0
        self._nameless_note = note

    def _tell_nameless(self, runs: Sequence[ActiveRun], now_ns: int) -> None:
        """Put the time without names that ends now, if it is one, into the ledgers of runs."""
        for run in runs if self._nameless_ns else ():
            first_ns = max(self._nameless_ns, run.assignment.start_ns)
            if run.key in self._buffers and now_ns - first_ns > NAMELESS_NS:
                loss = Loss("nameless", first_ns, now_ns, detail=self._nameless_note)
                self._buffers[run.key].lose([loss], self._clock.monotonic())

    def _late(self, run: ActiveRun) -> Loss:
        """Return what a run misses that was on before this agent: the one before it may have died.

        Nobody knows how much it had delivered, so the time is all that can be told.
        """
        detail = (
            "an agent began to capture on this node while the recording was on; what no other one "
            "had delivered by then is not there"
        )
        return Loss("agent_restart", run.assignment.start_ns, self._begin_ns, detail=detail)

    def _record(self, engine: Engine, batch: FrameBatch, now: float) -> None:
        pipeline = engine.pipeline
        pipeline.body_limit = min(self._assignments.body_limit, engine.most_body)
        copies = pipeline.copies
        calls = pipeline.take(batch)
        if self._names is not None:
            for part in calls:
                if isinstance(part.calls, DnsCalls):
                    self._names.learn(part.calls)
        self.progress.copies += pipeline.copies - copies
        # Fragments of earlier batches, whose stream is only known now, come first.
        parts = [pipeline.late, (batch, np.ascontiguousarray(pipeline.packet_streams))]
        parts = [(frames, streams) for frames, streams in parts if len(streams)]
        for frames, streams in parts:
            engine.store.put(frames, streams)
        self._lap("store")
        assert self._matcher is not None
        # Of streams that match only now, the store has this batch's packets too.
        before = [self._matcher.bits.of(streams) for _, streams in parts]
        self._keep(engine, calls, now)
        for (frames, streams), bits in zip(parts, before, strict=True):
            for run, rows in chosen_rows(bits, self._assignments.active):
                self._add_packets(engine, run, choose(frames, streams, rows), now)
        self._lap("record")

    def _keep(self, engine: Engine, calls: Sequence[Calls], now: float) -> None:
        """Record the calls that match, and what came before them in their streams."""
        assert self._matcher is not None
        for part in calls:
            self.progress.messages[part.protocol] += len(part)
        elsewhere = self._uplink.elsewhere
        for run in self._assignments.active:
            run.elsewhere = elsewhere.get(run.key, 0)
        matches = self._matcher.match(calls, self._assignments.active)
        for run in self._assignments.active:
            self._tell_matched(run)
        self._lap("match")
        for run, numbers in matches.opened:
            self._open(engine, run, numbers, now)
            for earlier in engine.pipeline.earlier(numbers):
                entries = earlier.entries(np.arange(len(earlier)))
                self._buffers[run.key].add("entries", entries, now)
                self.progress.entries += entries.num_rows
        for run, entries in matches.entries:
            self._buffers[run.key].add("entries", entries, now)
            self.progress.entries += entries.num_rows

    def _tell_matched(self, run: ActiveRun) -> None:
        """Tell the scheduler, at the begin and whenever it changes, how much of a limit is used."""
        is_sent = not (run.assignment.probe or run.assignment.live)
        if run.filter.limit is not None and is_sent and run.told != run.hits:
            run.told = run.hits
            self._uplink.tell_matched(*run.key, run.hits)

    def _open(
        self, engine: Engine, run: ActiveRun, numbers: npt.NDArray[np.int64], now: float
    ) -> None:
        """Begin to record streams: their rows, and all of their packets that the store has."""
        buffer = self._buffers[run.key]
        is_whole = ~engine.store.are_incomplete(numbers)
        matched_ns = np.full(len(numbers), self._last_frame_ns, np.int64)
        buffer.add("streams", engine.pipeline.streams_table(numbers, matched_ns, is_whole), now)
        self.progress.streams += len(numbers)
        self.progress.matches[run.key[0]] += len(numbers)
        self._add_packets(engine, run, engine.store.take(numbers), now)
        if not is_whole.all():
            cut = numbers[~is_whole]
            ids = engine.pipeline.stream_ids(cut).to_pylist()
            lost = map(engine.store.losses, cut.tolist())
            buffer.lose([self._overrun(*each) for each in zip(ids, lost, strict=True)], now)

    def _overrun(self, stream: str, lost: Overwritten) -> Loss:
        if lost.packets:
            start_ns, end_ns = lost.first_ns, lost.last_ns
        else:
            start_ns = end_ns = self._last_frame_ns
        detail = "packets from before the match had left the packet store"
        if not lost.is_exact:
            detail = "too many streams to count all packets that had left the packet store"
        return Loss("store_overrun", start_ns, end_ns, lost.packets, lost.bytes, stream, detail)

    def _add_packets(self, engine: Engine, run: ActiveRun, packets: Packets, now: float) -> None:
        for begin, end in _pieces(packets.rows["captured_length"]):
            buffer = self._buffers[run.key]
            wanted = packets.rows[begin:end]
            octets = int(wanted["original_length"].sum(dtype=np.int64))
            buffer.match(_span(wanted), len(wanted), octets, now)
            piece = buffer.redacted(Packets(packets.octets, packets.rows[begin:end]))
            buffer.add("packets", packets_table(piece, engine.pipeline.stream_ids, self._node), now)
            if buffer.is_due(now):
                buffer.flush(now)
        self.progress.packets += len(packets.rows)

    def _tell_losses(self, engine: Engine, now: float) -> None:
        """Put what every run may have missed into every run's ledger."""
        losses = self._source.losses() + engine.pipeline.losses()
        for loss in losses:
            self.progress.losses[loss.kind] += 1
            self.progress.lost_packets[loss.kind] += loss.packets
            self.progress.lost_octets[loss.kind] += loss.bytes
        self.progress.failed += engine.pipeline.recogniser.failed
        engine.pipeline.recogniser.failed.clear()
        left_out = engine.pipeline.left_out()
        if left_out is not None:
            self.progress.left_out_packets += left_out.packets
            self.progress.left_out_octets += left_out.bytes
        for buffer in self._buffers.values():
            buffer.lose(losses, now)
            if left_out is not None:
                buffer.sum_up(left_out)


def _pieces(lengths: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of rows that are copied at once; a single one may be larger."""
    ends = np.cumsum(lengths, dtype=np.int64)
    begin = 0
    while begin < len(lengths):
        before = int(ends[begin - 1]) if begin else 0
        end = int(np.searchsorted(ends, before + PACKET_BYTES, side="right"))
        end = min(max(end, begin + 1), begin + PACKET_ROWS)
        yield begin, end
        begin = end


def _span(rows: npt.NDArray[np.void]) -> tuple[int, int]:
    """Return the first and the last time of frames, or packets; there is one at least."""
    return int(rows["timestamp"].min()), int(rows["timestamp"].max())


def _time_ns(clock: Clock) -> int:
    return int(clock.now().timestamp() * 1_000_000) * 1000
