"""Figures of a process for Prometheus, at /metrics over HTTP. Every service that has some uses it.

The text format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # imported where it is used: it takes as long as all the rest of a command
    from prometheus_client.metrics_core import Metric

PREFIX = "recorder_"


@dataclass(frozen=True, slots=True)
class Kind:
    """One metric: its name without the prefix, what it says, and its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    type: Literal["counter", "gauge"] = "counter"


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often a value was at most each of `bounds`, or above all of them; counted by `add`."""

    name: str
    help: str
    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    """One more than bounds; not cumulative."""
    total: list[float] = field(default_factory=lambda: [0.0])
    """One element: the sum of all values."""

    def __post_init__(self) -> None:
        self.counts[:] = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        """Count a value."""
        place = sum(value > bound for bound in self.bounds)
        self.counts[place] += 1
        self.total[0] += value


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All figures of a process at one moment; can be sent from one to another."""

    values: Mapping[str, Mapping[tuple[str, ...], float]]
    """By the metric's name, and the values of its labels."""
    histograms: Mapping[str, tuple[tuple[int, ...], float]]
    """Counts and total by name."""


class Figures:
    """Gives Prometheus the snapshots of one or several processes, told apart by a label.

    What prometheus_client calls a collector.
    """

    def __init__(
        self,
        kinds: Sequence[Kind],
        histograms: Sequence[Histogram],
        process_label: str,
        snapshots: Callable[[], Mapping[str, Snapshot]],
    ) -> None:
        """`snapshots` is asked at each scrape; its keys are values of `process_label`."""
        self._kinds = kinds
        self._histograms = histograms
        self._label = process_label
        self._snapshots = snapshots

    def collect(self) -> list[Metric]:
        """All metrics, now."""
        snapshots = self._snapshots()
        return [
            *(self._family(kind, snapshots) for kind in self._kinds),
            *(self._histogram(histogram, snapshots) for histogram in self._histograms),
        ]

    def _family(self, kind: Kind, snapshots: Mapping[str, Snapshot]) -> Metric:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        make = CounterMetricFamily if kind.type == "counter" else GaugeMetricFamily
        family = make(PREFIX + kind.name, kind.help, labels=[self._label, *kind.labels])
        for process, snapshot in snapshots.items():
            for labels, value in snapshot.values.get(kind.name, {}).items():
                family.add_metric([process, *labels], value)
        return family

    def _histogram(self, histogram: Histogram, snapshots: Mapping[str, Snapshot]) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(
            PREFIX + histogram.name, histogram.help, labels=[self._label]
        )
        bounds = [*map(str, histogram.bounds), "+Inf"]
        for process, snapshot in snapshots.items():
            if histogram.name not in snapshot.histograms:
                continue
            counts, total = snapshot.histograms[histogram.name]
            sums = [sum(counts[: place + 1]) for place in range(len(counts))]
            family.add_metric([process], list(zip(bounds, sums, strict=True)), total)
        return family


class MetricsServer:
    """Answers GET /metrics until it is stopped."""

    def __init__(self, address: str, figures: Figures) -> None:
        """Listen on host:port. Raises OSError with a sentence when the address cannot be had."""
        from prometheus_client import CollectorRegistry, start_http_server

        registry = CollectorRegistry(auto_describe=False)
        registry.register(figures)
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(
                int(port), addr=host.strip("[]"), registry=registry
            )
        except OSError as error:
            raise OSError(
                f"Cannot serve metrics on {address}: {error.strerror}. Choose another address "
                "with --metrics."
            ) from None
        self.port = int(self._server.server_port)

    def stop(self) -> None:
        """End; returns when the port is free."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
