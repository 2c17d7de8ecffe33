"""How much work a packet makes, counted: lines of the kernels that run, as plain Python.

Run by test_work.py, in a process of its own, with NUMBA_DISABLE_JIT=1: seed, episode, frames.
Whoever finds a packet that makes much more work than another can stop an agent with few of them.
"""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import Any

import numpy as np

from services.capture.kernel import ROOM
from tests.fuzz import run
from tests.fuzz.seeds import Seeds
from tests.fuzz.watched import Watched

LINES_OF_A_BATCH = 20_000
"""Tables that are looked through: 2,048 datagrams of fragments, several times."""
LINES_OF_A_FRAME = 2_000
"""Layers, tunnels in tunnels, the flow table, duplicates, and a stream that ends."""
LINES_OF_AN_OCTET = 40
"""Framing looks at each octet a few times; a name in DNS may be read again for each pointer."""

lines = 0


def _count(frame: FrameType, event: str, argument: Any) -> Any:
    global lines
    if frame.f_code.co_filename.startswith(str(ROOM)):
        lines += event == "line"
        return _count
    return None


def main(seed: int, number: int, frames: int) -> None:
    """Print the share of what is allowed that has been used, where it was most.

    From the begin on: a stream that ends, or matches, makes work that its packets brought before.
    """
    assert os.environ.get("NUMBA_DISABLE_JIT") == "1", "lines of compiled code cannot be counted"
    np.seterr(all="ignore")  # hashes overflow, which compiled code does not tell
    worst, allowed = 0.0, 0
    take = Watched.take

    def counted(watched: Watched, batch: Any) -> None:
        global lines
        nonlocal worst, allowed
        sys.settrace(_count)
        try:
            take(watched, batch)
        finally:
            sys.settrace(None)
        octets = int(batch.frames["captured_length"].sum())
        many = len(batch.frames)
        allowed += LINES_OF_A_BATCH + LINES_OF_A_FRAME * many + LINES_OF_AN_OCTET * octets
        worst = max(worst, lines / allowed)
        assert lines <= allowed, f"{lines} lines, and {allowed} are allowed so far"

    Watched.take = counted  # type: ignore[method-assign]
    run.FRAMES = frames
    run.run(seed, number, Seeds(seed))
    print(f"{worst:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
