"""Calls a second of each protocol of the registry, over its golden captures.

A pipeline reads each capture once, and what it gives to the dissector is kept; new dissectors then
take it again and again, so of a small capture the begin and the end of all count. In long batches
the capture's streams come many times over, as many streams at once, each with octets of its own.
CPU time of this thread, best of some rounds; entries are the JSON and columns that only calls get
that may match.
"""

import os
import sys
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
from services.capture.reassembly import IN_HELD

GOLDEN = Path(__file__).parents[1] / "tests/golden/captures"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
ROUND_SECONDS = 0.3
FLOWS = 1 << 12
LONG_ROWS = 1 << 14  # segments or datagrams of a long batch: as many as frames of a batch
LONG_OCTETS = 32 << 20
STREAMS = 1 << 40  # more than have a number in a capture
GOAL = 20_000
"""Messages a second of a dissector in plain Python, enough for what a node sees of most of them."""

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


def replayed(kind: ProtocolKind, taken: Taken) -> tuple[float, float, int, int]:
    """Return (seconds to take all, seconds to make entries of all, calls, messages)."""
    dissector = kind.new_dissector(kind, FLOWS)
    # Dissectors may change the rows; none may change the octets.
    given = [(name, [own(each) for each in arguments]) for name, arguments in taken]
    begun = time.thread_time()
    for name, arguments in given:
        getattr(dissector, name)(*arguments)
    calls = dissector.calls()
    done = time.thread_time()
    if calls is None:
        return done - begun, 0.0, 0, 0
    calls.details(np.arange(len(calls)))
    made = time.thread_time() - done
    messages = int(calls.has_request.sum() + calls.has_response.sum())
    return done - begun, made, len(calls), messages


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


def lengthened(taken: Taken) -> Taken:
    """Return the same with each stream many times over."""
    rows = max((len(arguments[0]) for _, arguments in taken), default=0)
    octets = max((arguments[2].size for _, arguments in taken if len(arguments) > 2), default=0)
    copies = min(FLOWS // flows_of(taken), LONG_ROWS // max(rows, 1), LONG_OCTETS // max(octets, 1))
    return [(name, several(name, arguments, max(copies, 1), taken)) for name, arguments in taken]


def flows_of(taken: Taken) -> int:
    """Return how many flows there are at most."""
    flows = [
        int((rows["direction"] >> 1 if name == "take" else rows["flow"]).max()) + 1
        for name, (rows, *_) in taken
        if name != "end_streams" and len(rows)
    ]
    return max(flows, default=1)


def several(name: str, arguments: list[Any], copies: int, taken: Taken) -> list[Any]:
    """Return what a method is called with, each time with other streams, flows and places."""
    number = np.repeat(np.arange(copies), len(arguments[0]))
    if name == "end_streams":
        return [np.tile(arguments[0], copies) + number * STREAMS, arguments[1]]
    rows, marks, octets, *held = arguments
    rows, marks = np.tile(rows, copies), np.tile(marks, copies)
    rows["stream"] += number * STREAMS
    if name == "take":
        rows["direction"] += (number * 2 * flows_of(taken)).astype(np.int32)
        rows["position"] += np.where(rows["place"] == IN_HELD, 0, number * octets.size)
    else:
        rows["flow"] += (number * flows_of(taken)).astype(rows["flow"].dtype)
        rows["payload_offset"] += (number * octets.size).astype(rows["payload_offset"].dtype)
    return [rows, marks, np.tile(octets, copies), *held]


def measure(kind: ProtocolKind, taken: Taken) -> tuple[float, float, int, int]:
    """Return (seconds to take all, the same of entries, calls, messages) of the best round."""
    best, best_entries, calls, messages = float("inf"), float("inf"), 0, 0
    for _ in range(ROUNDS):
        seconds = entry_seconds = 0.0
        turns = 0
        until = time.monotonic() + ROUND_SECONDS
        while turns == 0 or time.monotonic() < until:
            taking, making, calls, messages = replayed(kind, taken)
            seconds, entry_seconds, turns = seconds + taking, entry_seconds + making, turns + 1
        best, best_entries = min(best, seconds / turns), min(best_entries, entry_seconds / turns)
    return best, best_entries, calls, messages


def captures(kind: ProtocolKind) -> Iterator[tuple[Path, Taken]]:
    for path in sorted(GOLDEN.glob("*.pcap*")):
        taken, calls = given_to(kind, path)
        if calls:
            yield path, taken


def main() -> None:
    names = sys.argv[1:]
    print(
        "| protocol | capture | calls | calls/s | entries/s | long: calls/s | messages/s | goal |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for kind in PROTOCOLS:
        if names and kind.name not in names:
            continue
        found = False
        for path, taken in captures(kind):
            found = True
            each, entry, calls, _ = measure(kind, taken)
            long, _, more, messages = measure(kind, lengthened(taken))
            row = f"{calls} | {calls / each:,.0f} | {calls / entry:,.0f}"
            row += f" | {more / long:,.0f} | {messages / long:,.0f} | {GOAL:,}"
            print(f"| {kind.abbr} | {path.name} | {row} |", flush=True)
        if not found:
            print(f"| {kind.abbr} | no golden capture | | | | | | {GOAL:,} |")


if __name__ == "__main__":
    main()
