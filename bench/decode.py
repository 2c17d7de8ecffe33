"""The decode and flow kernel against the same in C (bench/decode.c, gcc -O3), on one core.

Fails when the kernel takes more than LARGEST_RATIO times as long: then Numba has stopped doing what
it did when services/capture/kernel.py was written.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from services.capture.decode import decode_frames, new_packets
from services.capture.flows import new_flows, new_streams
from services.capture.frames import open_capture
from services.capture.frames.batch import MOST_FRAMES

CAPTURE = Path(os.environ.get("BENCH_CAPTURE", ".cache/bench/traffic.pcap"))
SOURCE = Path(__file__).with_suffix(".c")
ROUNDS = 9
LARGEST_RATIO = 1.5


def kernel_round() -> float:
    """Nanoseconds a packet, less what reading the file takes."""
    flows, streams, packets = new_flows(1 << 16), new_streams(1 << 18), new_packets(MOST_FRAMES)
    source = open_capture(CAPTURE)
    seconds, count = 0.0, 0
    for octets, frames in source.batches():
        for offset in range(int(frames["offset"][0]), int(frames["offset"][-1]), 4096):
            octets[offset]  # bring the pages in before the clock starts, as MAP_POPULATE does in C
        start = time.process_time()
        decode_frames(octets, frames, packets[: len(frames)], flows, streams)
        seconds += time.process_time() - start
        count += len(frames)
    source.close()
    return seconds * 1e9 / count


def c_rounds() -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "decode"
        subprocess.run(["gcc", "-O3", "-o", program, SOURCE], check=True)
        done = subprocess.run(
            [program, CAPTURE, str(ROUNDS)], check=True, capture_output=True, text=True
        )
        return [float(line) for line in done.stdout.split()]


def show(name: str, values: list[float]) -> float:
    median = statistics.median(values)
    print(f"{name:<8} {median:7.1f} ns a packet ({min(values):.1f} to {max(values):.1f})")
    return median


def main() -> int:
    if not CAPTURE.exists():
        print(f"skipped: {CAPTURE} is not there; make bench/capture makes it")
        return 0
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    kernel_round()  # compiles, or loads what was compiled
    ours = show("kernel", [kernel_round() for _ in range(ROUNDS)])
    if subprocess.run(["which", "gcc"], capture_output=True).returncode:
        print("no gcc here: nothing to compare with")
        return 0
    ratio = ours / show("C", c_rounds())
    print(f"ratio    {ratio:7.2f} (at most {LARGEST_RATIO})")
    return int(ratio > LARGEST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
