"""What a capture agent tells Prometheus. `app` serves it, `workers` gathers it from processes."""

from typing import Any

from services.capture.agent import Agent
from services.capture.frames import FrameSource
from services.capture.outbox import Counters
from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks
from services.runtime.metrics import Figures, Histogram, Kind, Snapshot

KINDS = (
    Kind("capture_packets_total", "Packets that were looked at."),
    Kind("capture_bytes_total", "Octets of these packets."),
    Kind("capture_kernel_dropped_packets_total", "Packets that the kernel dropped."),
    Kind("capture_ring_freezes_total", "How often the ring was full."),
    Kind("capture_unknown_link_packets_total", "Packets of a link layer that is not read."),
    Kind("capture_copies_total", "Packets seen again, on another interface of the node."),
    Kind("capture_left_out_packets_total", "Packets of streams that are not in the sample."),
    Kind("capture_left_out_bytes_total", "Octets of these packets."),
    Kind("capture_streams_open", "TCP connections and UDP exchanges now.", type="gauge"),
    Kind("capture_messages_total", "Calls dissected.", ("protocol",)),
    Kind("capture_matched_streams_total", "Streams that a job's filter matched.", ("job",)),
    Kind("capture_recorded_entries_total", "Entries sent, once for each job."),
    Kind("capture_recorded_packets_total", "Packets sent, once for each job."),
    Kind("capture_losses_total", "Things known to be missing, such as gaps.", ("kind",)),
    Kind("capture_lost_packets_total", "Packets known to be missing.", ("kind",)),
    Kind("capture_lost_bytes_total", "Octets known to be missing.", ("kind",)),
    Kind("capture_stored_packets", "Packets kept for streams yet to match.", type="gauge"),
    Kind("capture_overwritten_packets_total", "Packets that had to leave the packet store."),
    Kind("capture_uplink_bytes", "Octets that the scheduler has yet to store.", type="gauge"),
    Kind("capture_spool_bytes", "Octets of the spool's files.", type="gauge"),
    Kind("capture_batches_total", "Batches, by what became of them.", ("state",)),
    Kind("capture_reconnects_total", "Sessions with the scheduler that broke."),
    Kind("capture_cpu_seconds_total", "Processor time of the capture thread.", ("stage",)),
)
"""Every metric; those that end in _total only grow while the process lives."""

BATCH_STATES = ("queued", "acknowledged", "refused", "dropped", "unspooled")

PROCESS_LABEL = "worker"


def snapshot(agent: Agent, source: FrameSource, uplink: Uplink | Uplinks) -> Snapshot:
    """Return all figures now. May be called on any thread."""
    done, sent = agent.progress, uplink.counters
    counts: Any = getattr(source, "counts", None)  # a file has none

    def alone(value: float) -> dict[tuple[str, ...], float]:
        return {(): value}

    def by(values: Any) -> dict[tuple[str, ...], float]:
        return {(label,): value for label, value in list(values.items())}

    values: dict[str, dict[tuple[str, ...], float]] = {
        "capture_packets_total": alone(done.frames),
        "capture_bytes_total": alone(done.octets),
        "capture_copies_total": alone(done.copies),
        "capture_left_out_packets_total": alone(done.left_out_packets),
        "capture_left_out_bytes_total": alone(done.left_out_octets),
        "capture_streams_open": alone(done.open_streams),
        "capture_messages_total": by(done.messages),
        "capture_matched_streams_total": by(done.matches),
        "capture_recorded_entries_total": alone(done.entries),
        "capture_recorded_packets_total": alone(done.packets),
        "capture_losses_total": by(done.losses),
        "capture_lost_packets_total": by(done.lost_packets),
        "capture_lost_bytes_total": by(done.lost_octets),
        "capture_stored_packets": alone(done.stored_packets),
        "capture_overwritten_packets_total": alone(done.overwritten_packets),
        "capture_uplink_bytes": alone(uplink.used_bytes),
        "capture_spool_bytes": alone(uplink.spool_bytes),
        "capture_batches_total": {(state,): getattr(sent, state) for state in BATCH_STATES},
        "capture_reconnects_total": alone(uplink.reconnects),
        "capture_cpu_seconds_total": by(done.cpu_seconds),
    }
    if counts is not None:
        values["capture_kernel_dropped_packets_total"] = alone(counts.dropped)
        values["capture_ring_freezes_total"] = alone(counts.freezes)
        values["capture_unknown_link_packets_total"] = alone(counts.unknown_link_layer)
    delay = sent.delay
    return Snapshot(values, {delay.name: (tuple(delay.counts), delay.total[0])})


def figures(snapshots: Any) -> Figures:
    """Return the collector of agents' snapshots, by the number of the worker."""
    shape: Histogram = Counters().delay
    return Figures(KINDS, [shape], PROCESS_LABEL, snapshots)
