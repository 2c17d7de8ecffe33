"""What an agent's loop costs as traffic and jobs grow: CPU a packet, and peak memory.

The agent with its packet store, filters and buffers runs over the benchmark capture; only the
network is missing. Each line is a process of its own, for its peak memory; what compiles and faults
in is over before it is measured, since PACKETS packets are taken first.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from services.capture.agent import Agent, new_engine_factory
from services.capture.assignments import Assignment
from services.capture.frames import open_capture
from services.capture.frames.batch import FrameBatch, Loss

CAPTURE = Path(os.environ.get("BENCH_CAPTURE", ".cache/bench/traffic.pcap")).absolute()
BATCH = int(os.environ.get("BENCH_BATCH", "2048"))
"""Frames of a batch: what a ring gives every ten milliseconds at 200,000 packets a second."""
PACKETS = int(os.environ.get("BENCH_PACKETS", "80000"))
"""At 1x."""
BEGINS = (0, 600_000)
"""Packets of the capture with which the pieces of 1x begin: HTTP, DNS."""
TIMES = (1, 4, 16)
JOBS = (1, 10, 50)
WARM_UPS = range(252, 256)
"""Numbers of copies with which nothing is measured: they touch all rings once."""
SECOND = 1_000_000_000
BODY_LIMIT = 65_536
PACKET_MEMORY = 64 << 20
"""Of the packet store: so little that it has been touched once before measuring begins."""

KINDS = (
    'http and response.status == 503 and request.path == "/orders/{0}"',
    'request.path.startsWith("/api/v{0}/")',
    'request.headers["X-Tenant"] == "tenant-{0}"',
    'src.name == "checkout-{0}" and response.status >= 500',
    'dns and request.questions[0].name == "db{0}.prod.example"',
    'http and response.body.contains("stack trace {0}")',
    'request.method == "DELETE" and request.path.contains("/carts/{0}")',
    'dst.ip == "10.9.8.{0}" and elapsedTime > 2000',
    'request.headers["User-Agent"].startsWith("crawler/{0}") and response.status != 200',
    "redis and dst.port == 63{0:02}",
)
"""Narrow jobs, as people have them: none matches here, so that finding is measured, not storing."""


class Assigned:
    """In place of the uplink: runs of these filters, and nobody who takes what they send."""

    revision = 1

    def __init__(self, filters: Sequence[str]) -> None:
        self.assignments = tuple(
            Assignment(f"job-{number}", 1, text, 0, 1 << 62, BODY_LIMIT)
            for number, text in enumerate(filters)
        )
        self.elsewhere: dict[tuple[str, int], int] = {}

    def send(self, *batch: object) -> None:
        """Let go of a batch."""


def pieces() -> list[FrameBatch]:
    """Read the traffic of 1x: HTTP from the beginning of the capture, DNS from its middle."""
    source = open_capture(CAPTURE)
    found, number = [], 0
    for batch in source.batches():
        for first in range(0, len(batch.frames), BATCH):
            frames = batch.frames[first : first + BATCH]
            if any(begin <= number < begin + PACKETS // len(BEGINS) for begin in BEGINS):
                found.append(copied(FrameBatch(batch.octets, frames), 0, 0))
            number += len(frames)
    source.close()
    return found


def copied(batch: FrameBatch, number: int, later_ns: int) -> FrameBatch:
    """Return a copy of Ethernet frames, with one octet of each IP address changed, and later."""
    frames = batch.frames.copy()
    first, last = int(frames["offset"][0]), frames[-1]
    octets = batch.octets[first : int(last["offset"]) + int(last["captured_length"])].copy()
    frames["offset"] -= first
    frames["timestamp"] += later_ns
    is_ipv6 = octets[frames["offset"] + 12] == 0x86
    for ipv4, ipv6 in ((27, 24), (31, 40)):  # the second, the third octet of an address
        octets[frames["offset"] + np.where(is_ipv6, ipv6, ipv4)] ^= number
    return FrameBatch(octets, frames)


class Traffic:
    """The pieces several times, each time from other addresses: one after the other, or at once."""

    def __init__(self, times: int, at_once: bool) -> None:
        self._pieces, self._times, self._at_once = pieces(), times, at_once
        ends = (self._pieces[at].frames["timestamp"][at] for at in (0, -1))
        self.begin_ns, end_ns = map(int, ends)
        self._span_ns = end_ns - self.begin_ns + SECOND

    def batches(self) -> Iterator[FrameBatch]:
        """Yield what warms up, then what is to be measured."""
        for number in WARM_UPS:
            for batch in self._pieces:
                yield copied(batch, number, (number - WARM_UPS.stop) * self._span_ns)
        if self._at_once:
            for batch in self._pieces:
                for number in range(self._times):
                    yield copied(batch, number, 0)
        else:
            for number in range(self._times):
                for batch in self._pieces:
                    yield copied(batch, number, number * self._span_ns)

    def losses(self) -> list[Loss]:
        """None."""
        return []

    def close(self) -> None:
        """Nothing is open."""


def filters(jobs: int) -> list[str]:
    """Return as many different statements."""
    return [KINDS[number % len(KINDS)].format(number // len(KINDS)) for number in range(jobs)]


def measure(statements: list[str], times: int, at_once: bool) -> dict[str, Any]:
    """Run an agent; return its figures."""
    uplink, source = Assigned(statements), Traffic(times, at_once)
    agent = Agent(
        source, new_engine_factory("bench", "192.0.2.1", PACKET_MEMORY), uplink, "bench",
        replay=True, ignore_times=True,
    )  # fmt: skip
    figures = agent.progress
    spent, warm, stages, is_warm, max_streams = 0.0, 0, {}, True, 0
    for batch in source.batches():
        if is_warm and batch.frames["timestamp"][0] >= source.begin_ns:
            is_warm = False
            spent, warm, stages = 0.0, figures.frames, dict(figures.cpu_seconds)
        start = time.thread_time()
        agent.take(batch)
        spent += time.thread_time() - start
        max_streams = max(max_streams, figures.open_streams)
    agent.end()
    source.close()
    packets = figures.frames - warm
    return {
        "packets": packets,
        "streams": max_streams,
        "calls": sum(figures.messages.values()),
        "entries": figures.entries,
        "ns": 1e9 * spent / packets,
        "stages": {
            stage: round(1e9 * (seconds - stages[stage]) / packets)
            for stage, seconds in figures.cpu_seconds.items()
            if stage != "source"
        },
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    }


def measured(statements: list[str], times: int = 1, at_once: bool = False) -> dict[str, Any]:
    """Measure in a process of its own."""
    task = json.dumps([statements, times, at_once])
    done = subprocess.run(
        [sys.executable, __file__, task], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(*json.loads(sys.argv[1]))))
        return
    if not CAPTURE.exists():
        print(f"skipped: {CAPTURE} is not there; make bench/capture makes it")
        return
    status = ["http and response.status == 503"]
    groups: dict[str, dict[str, tuple[list[str], int, bool]]] = {
        "packets": {f"{times}x": (status, times, False) for times in TIMES},
        "packets, and as many more flows": {f"{times}x": (status, times, True) for times in TIMES},
        "jobs": {str(jobs): (filters(jobs), 1, False) for jobs in JOBS},
        "everything is recorded, packets": {
            f"{times}x": (["tcp or udp"], times, False) for times in TIMES
        },
        "one job": {text: ([text], 1, False) for text in filters(len(KINDS))},
    }
    wanted = os.environ.get("BENCH_JOBS", "")
    print(f"{PACKETS:,} packets at 1x, batches of {BATCH:,}; ns and ratios are of CPU a packet")
    for title, group in groups.items():
        if wanted not in title:
            continue
        head = f"{'packets':>10} {'ns':>7} {'ratio':>6} {'match':>7} {'streams':>7} {'MiB':>5}"
        print(f"{title:64} {head}")
        first = 0.0
        for name, task in group.items():
            found = measured(*task)
            first = first or found["ns"]
            print(
                f"  {name:62} {found['packets']:10,} {found['ns']:7.0f} {found['ns'] / first:6.2f}"
                f" {found['stages']['match']:7}"
                f" {found['streams']:7,} {found['peak'] >> 20:5}",
                flush=True,
            )
            if os.environ.get("BENCH_STAGES"):
                print(f"    {found['calls']} calls, {found['entries']} stored, {found['stages']}")


if __name__ == "__main__":
    main()
