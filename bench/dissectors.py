"""Calls a second of each protocol of the registry, over its golden captures.

A pipeline reads each capture once, and what it gives to the dissector is kept; new dissectors then
take it again and again, so of a small capture the begin and the end of all count. CPU time of this
thread, best of some rounds; entries are the JSON and columns that only calls get that may match.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from services.capture.calls import Calls
from services.capture.dissectors.dissector import Dissector, ProtocolKind
from services.capture.dissectors.registry import PROTOCOLS
from services.capture.frames import open_capture
from services.capture.pipeline import Pipeline, PipelineOptions

GOLDEN = Path(__file__).parents[1] / "tests/golden/captures"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
ROUND_SECONDS = 0.3
FLOWS = 1 << 12
GOAL = 20_000
"""Calls a second of a dissector in plain Python; enough for what a node sees of most protocols."""

Taken = list[tuple[str, list[Any]]]


def recording(kind: ProtocolKind, taken: Taken) -> ProtocolKind:
    """Return a kind whose dissector keeps what it is called with."""

    def new(_: ProtocolKind, most_flows: int) -> Dissector:
        dissector = kind.new_dissector(kind, most_flows)
        for name in ("take", "take_datagrams", "end_streams"):
            setattr(dissector, name, kept(name, getattr(dissector, name)))
        return dissector

    def kept(name: str, method: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            copies = [each.copy() if isinstance(each, np.ndarray) else each for each in arguments]
            taken.append((name, copies))
            method(*arguments)

        return call

    return replace(kind, new_dissector=new)


def own(argument: Any) -> Any:
    """Return a copy of rows, and anything else as it is."""
    has_rows = isinstance(argument, np.ndarray) and argument.dtype.names
    return argument.copy() if has_rows else argument


def replayed(kind: ProtocolKind, taken: Taken) -> tuple[float, float, int]:
    """Return (seconds to take all, seconds to make entries of all, calls)."""
    dissector = kind.new_dissector(kind, FLOWS)
    # Dissectors may change the rows; none may change the octets.
    given = [(name, [own(each) for each in arguments]) for name, arguments in taken]
    begun = time.thread_time()
    for name, arguments in given:
        getattr(dissector, name)(*arguments)
    calls = dissector.calls()
    done = time.thread_time()
    if calls is None:
        return done - begun, 0.0, 0
    calls.details(np.arange(len(calls)))
    return done - begun, time.thread_time() - done, len(calls)


def given_to(kind: ProtocolKind, path: Path) -> tuple[Taken, int]:
    """Return what a dissector gets of a capture, and how many calls a pipeline finds in it."""
    taken: Taken = []
    pipeline = Pipeline(PipelineOptions(most_flows=FLOWS), [recording(kind, taken)])
    pipeline.dissectors = frozenset({kind.name})
    found: list[Calls] = []
    for batch in open_capture(path).batches():
        found += pipeline.take(batch)
    found += pipeline.end()
    return taken, sum(len(part) for part in found)


def measure(kind: ProtocolKind, taken: Taken) -> tuple[float, float, int]:
    """Return (microseconds a call, the same of entries, calls) of the best round."""
    best, best_entries, calls = float("inf"), float("inf"), 0
    for _ in range(ROUNDS):
        seconds = entry_seconds = 0.0
        turns = 0
        until = time.monotonic() + ROUND_SECONDS
        while turns == 0 or time.monotonic() < until:
            taking, making, calls = replayed(kind, taken)
            seconds, entry_seconds, turns = seconds + taking, entry_seconds + making, turns + 1
        if calls:
            best = min(best, seconds / turns / calls)
            best_entries = min(best_entries, entry_seconds / turns / calls)
    return best * 1e6, best_entries * 1e6, calls


def captures(kind: ProtocolKind) -> Iterator[tuple[Path, Taken]]:
    for path in sorted(GOLDEN.glob("*.pcap*")):
        taken, calls = given_to(kind, path)
        if calls:
            yield path, taken


def main() -> None:
    print("| protocol | capture | calls | calls/s | goal | entries/s |")
    print("|---|---|---|---|---|---|")
    for kind in PROTOCOLS:
        found = False
        for path, taken in captures(kind):
            found = True
            each, entry, calls = measure(kind, taken)
            if calls:
                row = f"{calls} | {1e6 / each:,.0f} | {GOAL:,} | {1e6 / entry:,.0f}"
                print(f"| {kind.abbr} | {path.name} | {row} |", flush=True)
        if not found:
            print(f"| {kind.abbr} | no golden capture | | | {GOAL:,} | |")


if __name__ == "__main__":
    main()
