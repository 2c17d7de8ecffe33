"""A capture agent on a wire at full speed: what it drops, and what a packet costs.

Two namespaces joined by a veth pair; a sender pinned to one core replays the benchmark capture with
other addresses each time around. Peers see the same, one after the other, in the same run. As root.
"""

import itertools
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CAPTURE = Path(os.environ.get("BENCH_CAPTURE", ".cache/bench/traffic.pcap")).absolute()
SECONDS = float(os.environ.get("BENCH_SECONDS", "30"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
PACKETS = 700_000
"""Of the capture; what is sent must be in memory."""
SHARE = 0.01
"""Of the packets that belong to a stream with an answer 500."""
ALL_RATE = 150_000
"""Packets a second of the run in which everything is recorded."""

HERE = Path(__file__).parent
SENDER_CORE, READER_CORE = 1, 0
SCHEDULER, METRICS = "127.0.0.1:8897", "127.0.0.1:9109"
names = itertools.count()

SURICATA = """%YAML 1.1
---
af-packet: [{interface: rx, threads: 1, cluster-id: 99, cluster-type: cluster_flow, ring-size: 200000, tpacket-v3: yes, use-mmap: yes, block-size: 1048576}]
outputs:
  - eve-log: {enabled: yes, filetype: regular, filename: eve.json, types: [http]}
stream: {memcap: 512mb, checksum-validation: no, reassembly: {memcap: 1gb, depth: 0}}
flow: {memcap: 512mb, hash-size: 65536, prealloc: 10000}
app-layer: {protocols: {http: {enabled: yes, libhtp: {default-config: {personality: IDS}}}}}
"""  # noqa: E501


def prepare(folder: Path) -> tuple[Path, Path]:
    """The sender, and the part of the capture that it sends; answers 500 only in a share of it."""
    sender, part = folder / "replay", folder / "part.pcap"
    subprocess.run(["gcc", "-O2", "-o", sender, HERE / "replay.c"], check=True)
    octets = bytearray(CAPTURE.read_bytes())
    at, packets = 24, 0
    counts: dict[bytes, int] = {}
    answers: list[tuple[int, bytes]] = []
    while at + 16 <= len(octets) and packets < PACKETS:
        length = int.from_bytes(octets[at + 8 : at + 12], "little")
        frame = at + 16
        network = 20 if octets[frame + 12 : frame + 14] == b"\x08\x00" else 40
        ports = bytes(octets[frame + 14 + network : frame + 18 + network])
        flow = min(ports, ports[2:] + ports[:2])
        counts[flow] = counts.get(flow, 0) + 1
        found = octets.find(b"HTTP/1.1 500", frame, frame + length)
        while found >= 0:
            answers.append((found, flow))
            found = octets.find(b"HTTP/1.1 500", found + 1, frame + length)
        at, packets = frame + length, packets + 1
    chosen: set[bytes] = set()
    share = 0
    for flow in sorted({flow for _, flow in answers}, key=lambda flow: counts[flow]):
        if share < SHARE * packets:
            chosen.add(flow)
            share += counts[flow]
    for found, flow in answers:
        if flow not in chosen:
            octets[found + 9 : found + 12] = b"200"
    part.write_bytes(octets[:at])
    print(f"{packets} packets, {share / packets:.2%} of them in streams with an answer 500")
    return sender, part


@contextmanager
def wire() -> Iterator[str]:
    """A namespace with the interface rx, whose other end `there` is in another."""
    name = f"trb-{os.getpid()}-{next(names)}"
    for each in (name, f"{name}-tx"):
        subprocess.run(["ip", "netns", "add", each], check=True)
        subprocess.run(
            ["ip", "netns", "exec", each, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"],
            check=False,
        )
        subprocess.run(["ip", "-n", each, "link", "set", "lo", "up"], check=True)
    pair = ["link", "add", "rx", "type", "veth", "peer", "there", "netns", f"{name}-tx"]
    subprocess.run(["ip", "-n", name, *pair], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "rx", "up"], check=True)
    subprocess.run(["ip", "-n", f"{name}-tx", "link", "set", "there", "up"], check=True)
    try:
        yield name
    finally:
        for each in (name, f"{name}-tx"):
            subprocess.run(["ip", "netns", "del", each], check=False)


def inside(name: str, core: int, *command: object) -> list[str]:
    return ["ip", "netns", "exec", name, "taskset", "-c", str(core), *map(str, command)]


def send(name: str, sender: Path, part: Path, rate: float = 0) -> tuple[int, float]:
    """Send for SECONDS; return (packets, seconds)."""
    command = inside(f"{name}-tx", SENDER_CORE, sender, "there", part, SECONDS)
    done = subprocess.run(
        [*command, *([str(rate)] if rate else [])], check=True, capture_output=True, text=True
    )
    packets, seconds = done.stdout.split()
    return int(packets), float(seconds)


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and all of its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_of(pid: int) -> int:
    """Peak memory in octets."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) * 1024


def page(name: str) -> dict[str, float]:
    """The agent's figures."""
    code = (
        "import urllib.request;"
        f"print(urllib.request.urlopen('http://{METRICS}/metrics').read().decode())"
    )
    done = subprocess.run(
        ["ip", "netns", "exec", name, sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
    )
    found = {}
    for line in done.stdout.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.rpartition(" ")
            found[key.replace('{worker="0"}', "")] = float(value)
    return found


def started(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=log.parent)


def until(test: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not test():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise SystemExit("it did not start; see the logs")
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    process.send_signal(number)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


Result = tuple[int, float, int, float, int]
"""Packets sent, seconds, dropped, CPU seconds, peak memory."""


def recorder(folder: Path, sender: Path, part: Path, kfl: str, rate: float = 0) -> Result:
    program = Path(sys.executable).with_name("recorder")
    with wire() as name:
        data = folder / name
        data.mkdir()
        scheduler = started(
            inside(name, SENDER_CORE, program, "scheduler", "--data", data / "data",
                   "--storage-limit", "16Gi", "--listen", SCHEDULER),
            data / "scheduler.log",
        )  # fmt: skip
        log = data / "capture.log"
        agent = started(
            inside(name, READER_CORE, program, "capture", "--interface", "rx",
                   "--scheduler", SCHEDULER, "--metrics", METRICS, "--node", "bench"),
            log,
        )  # fmt: skip
        try:
            until(lambda: b"capture agent runs" in log.read_bytes(), 300)
            create = ["jobs", "create", "bench", "--kfl", kfl, "--scheduler", SCHEDULER]
            subprocess.run(
                ["ip", "netns", "exec", name, str(program), *create],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            until(lambda: b"run started" in log.read_bytes())
            before = cpu_of(agent.pid)
            packets, seconds = send(name, sender, part, rate)
            time.sleep(2)
            used = cpu_of(agent.pid) - before
            figures = page(name)
            peak = peak_of(agent.pid)
            stages = {
                key.partition('stage="')[2].partition('"')[0]: value
                for key, value in figures.items()
                if "cpu_seconds_total{" in key
            }
            shares = ", ".join(
                f"{stage} {1e9 * value / packets:.0f}" for stage, value in sorted(stages.items())
            )
            print(f"    ns a packet by stage: {shares}")
            lost = {
                key: value
                for key, value in figures.items()
                if "lost_packets_total" in key and value
            }
            if lost:
                print(f"    lost: {lost}")
            dropped = int(figures["recorder_capture_kernel_dropped_packets_total"])
            return packets, seconds, dropped, used, peak
        finally:
            end(agent)
            end(scheduler)


def tcpdump(folder: Path, sender: Path, part: Path) -> Result:
    with wire() as name:
        log = folder / f"{name}.tcpdump"
        command = ["tcpdump", "-i", "rx", "-s", "0", "-B", "65536", "-w", "/dev/null"]
        process = started(inside(name, READER_CORE, *command), log)
        try:
            until(lambda: b"listening on" in log.read_bytes())
            before = cpu_of(process.pid)
            packets, seconds = send(name, sender, part)
            time.sleep(1)
            used, peak = cpu_of(process.pid) - before, peak_of(process.pid)
        finally:
            end(process, signal.SIGINT)
        (dropped,) = re.findall(r"(\d+) packets? dropped by kernel", log.read_text())
        return packets, seconds, int(dropped), used, peak


def suricata(folder: Path, sender: Path, part: Path) -> Result:
    with wire() as name:
        where = folder / f"{name}-suricata"
        where.mkdir()
        (where / "suricata.yaml").write_text(SURICATA)
        log = where / "out.log"
        command = ["suricata", "-c", "suricata.yaml", "-l", ".", "--af-packet=rx", "-k", "none",
                   "--set", "runmode=single", "-S", "/dev/null"]  # fmt: skip
        process = started(inside(name, READER_CORE, *command), log)
        try:
            until(lambda: b"started" in log.read_bytes().lower())
            time.sleep(2)
            before = cpu_of(process.pid)
            packets, seconds = send(name, sender, part)
            time.sleep(2)
            used, peak = cpu_of(process.pid) - before, peak_of(process.pid)
        finally:
            end(process)
        found = re.findall(r"kernel_drops?:? (\d+)|drops?: (\d+)", log.read_text())
        dropped = max((int(a or b) for a, b in found), default=-1)
        return packets, seconds, dropped, used, peak


def main() -> None:
    if os.geteuid():
        raise SystemExit("as root, please: it makes network namespaces")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        sender, part = prepare(folder)
        runs = {
            "recorder, 1 % matches": lambda: recorder(
                folder, sender, part, "http and response.status == 500"
            ),
            f"recorder, all, {ALL_RATE:,}/s": lambda: recorder(
                folder, sender, part, "tcp or udp", ALL_RATE
            ),
            "tcpdump -w /dev/null": lambda: tcpdump(folder, sender, part),
        }
        if shutil.which("suricata"):
            runs["Suricata, http to EVE"] = lambda: suricata(folder, sender, part)
        wanted = os.environ.get("BENCH_LIVE", "")
        results: dict[str, list[Result]] = {}
        for _ in range(ROUNDS):
            for title, run in runs.items():
                if wanted in title:
                    results.setdefault(title, []).append(run())
                    packets, seconds, dropped, used, peak = results[title][-1]
                    print(
                        f"  {title:26} {packets / seconds:10,.0f}/s  dropped {dropped:9,}"
                        f"  {1e6 * used / packets:5.2f} us CPU a packet  {peak >> 20} MiB",
                        flush=True,
                    )
        print("medians:")
        for title, found in results.items():
            rate = statistics.median(packets / seconds for packets, seconds, *_ in found)
            cost = sorted(1e6 * used / packets for packets, _, _, used, _ in found)
            drops = statistics.median(dropped / packets for packets, _, dropped, _, _ in found)
            print(
                f"  {title:26} {rate:10,.0f}/s  dropped {drops:7.3%}  "
                f"{statistics.median(cost):5.2f} us ({cost[0]:.2f}-{cost[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
