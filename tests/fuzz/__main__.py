"""Fuzz by hand: `make test/fuzz PACKETS=5000000`, or DISSECTOR=KAFKA-tcp CASES=1000000 for one
dissector alone; `python -m tests.fuzz --help` says the rest.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import time
import warnings
from pathlib import Path

from tests.fuzz import case, dissectors
from tests.fuzz.seeds import Seeds
from tests.fuzz.session import MEMORY_MIB, session

HANG_SECONDS = 300
"""A batch of cases takes a second; this long, and what it does is shown."""


def main() -> int:
    """Run episodes until there were enough packets; 1 when something is wrong."""
    warnings.simplefilter("error")
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000, help="how many at least")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    parser.add_argument("--seed", type=int, help="by chance if not given")
    parser.add_argument("--episode", type=int, help="only this one")
    parser.add_argument("--case", type=Path, help="the folder of a case that failed before")
    parser.add_argument(
        "--dissector", help=f"all, or one of {', '.join(dissectors.NAMES)}: see --cases"
    )
    parser.add_argument("--cases", type=int, default=1_000_000, help="how many streams for it")
    parser.add_argument("--batch", type=int, default=0, help="of cases, to begin with")
    asked = parser.parse_args()
    if asked.case:
        said = case.run_again(asked.case)
        print(said or "nothing is wrong with it any more")
        return 1 if said else 0
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed
    if asked.dissector:
        return _dissectors(asked, seed)
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


def _dissectors(asked: argparse.Namespace, seed: int) -> int:
    """Give damaged streams to one dissector, or to one after the other."""
    faulthandler.enable()
    names = dissectors.NAMES if asked.dissector == "all" else [asked.dissector]
    failed = 0
    for name in names:
        begin = time.monotonic()
        if asked.seconds < float("inf"):
            faulthandler.dump_traceback_later(asked.seconds + HANG_SECONDS, exit=True)
        try:
            done = dissectors.fuzz(name, asked.cases, seed, asked.seconds, asked.batch)
        except dissectors.FailedError as error:
            print(error, flush=True)
            failed += 1
            continue
        finally:
            faulthandler.cancel_dump_traceback_later()
        print(
            f"{name}: seed {seed}, {done.cases:,} cases, {done.octets:,} octets in "
            f"{time.monotonic() - begin:,.0f} s: {done.entries:,} entries, {done.refused:,} "
            f"streams not read to their end; dearest batch {done.slowest[1]}, "
            f"{done.slowest[0]:.1f} us an octet",
            flush=True,
        )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
