"""Fuzz by hand: `make test/fuzz PACKETS=5000000`; `python -m tests.fuzz --help` says the rest."""

from __future__ import annotations

import argparse
import random
import sys
import time
import warnings
from pathlib import Path

from tests.fuzz import case
from tests.fuzz.seeds import Seeds
from tests.fuzz.session import MEMORY_MIB, session


def main() -> int:
    """Run episodes until there were enough packets; 1 when something is wrong."""
    warnings.simplefilter("error")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000, help="how many at least")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    parser.add_argument("--seed", type=int, help="by chance if not given")
    parser.add_argument("--episode", type=int, help="only this one")
    parser.add_argument("--case", type=Path, help="the folder of a case that failed before")
    asked = parser.parse_args()
    if asked.case:
        said = case.run_again(asked.case)
        print(said or "nothing is wrong with it any more")
        return 1 if said else 0
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    begin = time.monotonic()
    seeds = Seeds(seed)
    print(f"seed {seed}: {seeds}", flush=True)
    first = asked.episode or 0
    most = sys.maxsize if asked.episode is None else 1
    done = session(seed, seeds, asked.packets, asked.seconds, first, most, say=print)
    took = time.monotonic() - begin
    print(
        f"{done.packets:,} packets in {done.episodes:,} episodes and {took:,.0f} s: "
        f"{done.entries:,} entries, {done.told:,} packets that could not be read; "
        f"memory {done.memory[0]} MiB first, at most {max(done.memory)} MiB "
        f"(limit {MEMORY_MIB} above the first); dearest episode {done.slowest[1]}, "
        f"{done.slowest[0]:.0f} us a packet"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
