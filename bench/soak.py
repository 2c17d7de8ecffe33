"""Whether memory stays flat: agent, scheduler and query service for MINUTES on a wire.

Two namespaces joined by a veth pair, as in live.py; a sender replays the benchmark capture at RATE
with other addresses each time around, so that new flows come all the time. One job records a share
of it until the end; short ones come, are kept for a minute, and are removed; a question is asked
with each sample. As root, by hand: `make bench ONLY=soak`.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from live import (
    CAPTURE,
    METRICS,
    READER_CORE,
    SCHEDULER,
    SENDER_CORE,
    cpu_of,
    end,
    inside,
    page,
    prepare,
    started,
    until,
    wire,
)

MINUTES = float(os.environ.get("MINUTES", "30"))
RATE = int(os.environ.get("RATE", "20000"))
"""Packets a second: a busy node on most days, and little of a core."""
SAMPLE_SECONDS = 10
SHORT_JOB_SECONDS = 120
"""A run of a minute begins this often; it is removed a minute after its end."""
SHOWN_MINUTES = (5, 10, 20, 30)
SLOPE_MINUTES = 20
"""The last of them, by which growth is told: caches and rings are full by then."""
QUERY = "127.0.0.1:8898"
JOB = "http and response.status == 500"
QUESTION = 'record("long") and response.status == 500'


@dataclass
class Samples:
    """Seconds since the begin, and MiB of each process then."""

    times: list[float] = field(default_factory=list)
    resident: dict[str, list[float]] = field(default_factory=dict)

    def take(self, seconds: float, pids: dict[str, int]) -> None:
        self.times.append(seconds)
        for name, pid in pids.items():
            self.resident.setdefault(name, []).append(resident_of(pid))

    def at(self, name: str, minutes: float) -> float:
        """MiB at this time, or at the end if that was before."""
        index = int(np.searchsorted(self.times, 60 * minutes))
        return self.resident[name][min(index, len(self.times) - 1)]

    def slope(self, name: str) -> float:
        """MiB an hour, by least squares."""
        times = np.array(self.times)
        late = times >= times[-1] - 60 * SLOPE_MINUTES
        return float(3600 * np.polyfit(times[late], np.array(self.resident[name])[late], 1)[0])


def resident_of(pid: int) -> float:
    """MiB of a process."""
    (line,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) / 1024


def command(name: str, *arguments: str) -> str:
    """Run a command of the command line in the namespace; return what it wrote."""
    program = Path(sys.executable).with_name("recorder")
    done = subprocess.run(
        ["ip", "netns", "exec", name, str(program), *arguments],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout


def soak(folder: Path, sender: Path, part: Path) -> None:
    program = Path(sys.executable).with_name("recorder")
    with wire() as name:
        data = folder / "data"
        services = {
            "scheduler": ["--data", data, "--storage-limit", "8Gi", "--listen", SCHEDULER],
            "query": ["--data", data, "--listen", QUERY],
            "capture": ["--interface", "rx", "--scheduler", SCHEDULER, "--metrics", METRICS,
                        "--node", "soak"],
        }  # fmt: skip
        said = {"scheduler": "scheduler serves", "query": "query service is ready",
                "capture": "capture agent runs"}  # fmt: skip
        children: dict[str, subprocess.Popen[bytes]] = {}
        replay: subprocess.Popen[bytes] | None = None
        try:
            for service, arguments in services.items():
                log = folder / f"{service}.log"
                core = READER_CORE if service == "capture" else SENDER_CORE
                children[service] = started(inside(name, core, program, service, *arguments), log)
                until(lambda log=log, text=said[service]: text.encode() in log.read_bytes(), 300)
            long = ("jobs", "create", "long", "--kfl", JOB, "--scheduler", SCHEDULER)
            command(name, *long, "--duration", str(int(MINUTES) + 60))
            log = folder / "capture.log"
            until(lambda: b"run started" in log.read_bytes())
            line = inside(f"{name}-tx", SENDER_CORE, sender, "there", part, 60 * MINUTES, RATE)
            replay = started(line, folder / "replay.log")
            samples = watch(name, {each: child.pid for each, child in children.items()}, replay)
            sent = (folder / "replay.log").read_text().split()
            report(name, samples, int(sent[0]), children)
        finally:
            if replay is not None:
                end(replay)
            for child in reversed(children.values()):
                end(child)


def watch(name: str, pids: dict[str, int], replay: subprocess.Popen[bytes]) -> Samples:
    """Take samples until the sender has ended; let jobs come and go meanwhile."""
    samples, begin, jobs = Samples(), time.monotonic(), 0
    while replay.poll() is None:
        seconds = time.monotonic() - begin
        if seconds >= jobs * SHORT_JOB_SECONDS and seconds < 60 * MINUTES - SHORT_JOB_SECONDS:
            command(name, "jobs", "create", f"short-{jobs}", "--kfl", "dns", "--duration", "1",
                    "--expiration", "1", "--scheduler", SCHEDULER)  # fmt: skip
            jobs += 1
        command(name, "ask", QUESTION, "--limit", "20", "--query-address", QUERY)
        samples.take(seconds, pids)
        if len(samples.times) % 6 == 1:
            now = {each: round(values[-1]) for each, values in samples.resident.items()}
            print(f"  {seconds / 60:5.1f} min  {now}", flush=True)
        time.sleep(max(0.0, begin + len(samples.times) * SAMPLE_SECONDS - time.monotonic()))
    return samples


def report(
    name: str, samples: Samples, sent: int, children: dict[str, subprocess.Popen[bytes]]
) -> None:
    """Print the table of memory, and what came of the packets."""
    shown = [minutes for minutes in SHOWN_MINUTES if minutes <= MINUTES]
    head = "".join(f"{f'{minutes} min':>9}" for minutes in shown)
    print(f"{'RSS, MiB':12}{head}{'MiB/h':>9}{'CPU s':>9}")
    for service, child in children.items():
        values = "".join(f"{samples.at(service, minutes):9.0f}" for minutes in shown)
        print(f"{service:12}{values}{samples.slope(service):9.1f}{cpu_of(child.pid):9.0f}")
    figures = page(name)
    print(f"sent {sent:,} packets, {sent / samples.times[-1]:,.0f} a second")
    for key, value in sorted(figures.items()):
        if value and not re.search("cpu_seconds|created|bucket|_sum", key):
            print(f"  {key:76}{value:14,.0f}")


def main() -> None:
    if os.geteuid():
        raise SystemExit("as root, please: it makes network namespaces")
    if not CAPTURE.exists():
        print(f"skipped: {CAPTURE} is not there; make bench/capture makes it")
        return
    print(f"{MINUTES:g} minutes at {RATE:,} packets a second")
    with tempfile.TemporaryDirectory() as made:
        sender, part = prepare(Path(made))
        soak(Path(made), sender, part)


if __name__ == "__main__":
    main()
