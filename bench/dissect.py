"""`recorder dissect` as a whole process against tshark and Suricata, on one core.

Every program reads the same capture, pinned to the same core, in turns; CPU seconds (user and
system) of the whole process are the kernel's own accounting of it. tshark reads only the first
packets, since it would take minutes for all.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from services.capture.frames import open_capture

CAPTURE = Path(os.environ.get("BENCH_CAPTURE", ".cache/bench/traffic.pcap")).absolute()
RECORDER = Path(sys.executable).with_name("recorder")
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
TSHARK_PACKETS = 200_000
START = 65_536
"""Octets of the capture of which next to nothing is left but the start of the process."""
ONLY_START = ", first 64 KiB"
SURICATA = """%YAML 1.1
---
outputs:
  - eve-log: {enabled: yes, filetype: regular, filename: eve.json, types: [http, dns, tls, flow]}
stream: {memcap: 512mb, checksum-validation: no, reassembly: {memcap: 1gb, depth: 0}}
flow: {memcap: 512mb, hash-size: 65536, prealloc: 10000}
app-layer:
  protocols:
    tls: {enabled: yes, detection-ports: {dp: 443}}
    http: {enabled: yes, libhtp: {default-config: {personality: IDS}}}
    dns:
      tcp: {enabled: yes, detection-ports: {dp: 53}}
      udp: {enabled: yes, detection-ports: {dp: 53}}
"""


def cpu_seconds(command: list[str], folder: str, core: int) -> tuple[float, float, int]:
    """Run once; return (CPU seconds, wall seconds, peak memory in octets)."""
    start = time.perf_counter()
    with (Path(folder) / "output").open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, cwd=folder,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[0]} ended with {process.returncode}")
    wall = time.perf_counter() - start
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss * 1024


def count_packets() -> int:
    source = open_capture(CAPTURE)
    try:
        return sum(len(batch.frames) for batch in source.batches())
    finally:
        source.close()


def programs(folder: Path, packets: int) -> dict[str, tuple[list[str], int]]:
    """Name to (command, packets that it reads)."""
    with CAPTURE.open("rb") as file:
        (folder / "start.pcap").write_bytes(file.read(START))
    (folder / "suricata.yaml").write_text(SURICATA)
    recorder = [str(RECORDER), "dissect"]
    ways = {
        "count": ["--output", "count"],
        "count of 500s": ["--kfl", "response.status == 500", "--output", "count"],
        "Parquet, no bodies": ["--output", "parquet", "--body-limit", "0", "-o", "without.parquet"],
        "Parquet, bodies": ["--output", "parquet", "-o", "with.parquet"],
    }
    capture = str(CAPTURE)
    found: dict[str, tuple[list[str], int]] = {}
    for way, options in ways.items():
        found[f"recorder, {way}{ONLY_START}"] = ([*recorder, "start.pcap", *options], 0)
        found[f"recorder, {way}"] = ([*recorder, capture, *options], packets)
    if shutil.which("suricata"):
        command = ["suricata", "-r", capture, "-S", "/dev/null", "-l", ".", "-c", "suricata.yaml"]
        found["Suricata, EVE"] = ([*command, "--runmode", "single", "-k", "none"], packets)
    if shutil.which("tshark"):
        fields = ["http.request.method", "http.request.uri", "http.response.code", "dns.qry.name"]
        command = ["tshark", "-n", "-r", capture, "-c", str(TSHARK_PACKETS), "-T", "fields"]
        command += [part for field in fields for part in ("-e", field)]
        found["tshark -T fields"] = (command, min(TSHARK_PACKETS, packets))
    return found


def main() -> int:
    if not CAPTURE.exists():
        print(f"skipped: {CAPTURE} is not there; make bench/capture makes it")
        return 0
    packets = count_packets()
    core = max(os.sched_getaffinity(0))
    results: dict[str, list[tuple[float, float, int]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        todo = programs(Path(folder), packets)
        for turn in range(ROUNDS + 1):  # the first one warms caches and is not counted
            for name, (command, _) in todo.items():
                if name.startswith("tshark") and turn > 2:
                    continue
                measured = cpu_seconds(command, folder, core)
                if turn:
                    results.setdefault(name, []).append(measured)
                (Path(folder) / "eve.json").unlink(missing_ok=True)
    print(f"{packets} packets, {CAPTURE.stat().st_size / 1e6:.0f} MB, core {core}")
    print(
        f"{'program':<42} {'CPU s':>7} {'spread':>13} {'wall s':>7} {'k pkt/CPU s':>11}"
        f" {'less start':>10} {'MiB':>5}"
    )
    medians = {name: statistics.median(each[0] for each in rows) for name, rows in results.items()}
    for name, (_, read) in todo.items():
        seconds = [each[0] for each in results[name]]
        spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
        wall = statistics.median(each[1] for each in results[name])
        rate = f"{read / medians[name] / 1000:.0f}" if read else "-"
        left = medians[name] - medians.get(name + ONLY_START, 0)
        less = f"{read / left / 1000:.0f}" if read else "-"
        memory = max(each[2] for each in results[name]) >> 20
        print(
            f"{name:<42} {medians[name]:7.2f} {spread:>13} {wall:7.2f} {rate:>11} {less:>10}"
            f" {memory:5}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
