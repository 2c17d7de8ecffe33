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

import numpy as np

from services.capture.decode import decode_frames, new_packets
from services.capture.flows import find_flows, new_flows, new_keys
from services.capture.fragments import new_fragments
from services.capture.frames import open_capture
from services.capture.frames.batch import MOST_FRAMES

CAPTURE = Path(os.environ.get("BENCH_CAPTURE", ".cache/bench/traffic.pcap"))
SOURCE = Path(__file__).with_suffix(".c")
ROUNDS = 9
LARGEST_RATIO = 1.5


def frames_of_file() -> np.ndarray:
    """FRAME rows of the whole file; their offsets are positions in it, as it is not zipped."""
    source = open_capture(CAPTURE)
    try:
        return np.concatenate([batch.frames.copy() for batch in source.batches()])
    finally:
        source.close()


def kernel_round(octets: np.ndarray, frames: np.ndarray) -> float:
    """Nanoseconds a packet. As in C, the file and the frames' places are in memory before."""
    flows, fragments = new_flows(1 << 16), new_fragments()
    packets, keys = new_packets(MOST_FRAMES), new_keys(MOST_FRAMES)
    start = time.process_time()
    for first in range(0, len(frames), MOST_FRAMES):
        rows = frames[first : first + MOST_FRAMES]
        decode_frames(octets, rows, packets[: len(rows)], keys, flows, fragments)
        find_flows(packets[: len(rows)], keys, 0, flows)
    return (time.process_time() - start) * 1e9 / len(frames)


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
    octets, frames = np.fromfile(CAPTURE, np.uint8), frames_of_file()
    kernel_round(octets, frames)  # compiles, or loads what was compiled
    ours = show("kernel", [kernel_round(octets, frames) for _ in range(ROUNDS)])
    if subprocess.run(["which", "gcc"], capture_output=True).returncode:
        print("no gcc here: nothing to compare with")
        return 0
    ratio = ours / show("C", c_rounds())
    print(f"ratio    {ratio:7.2f} (at most {LARGEST_RATIO})")
    return int(ratio > LARGEST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
