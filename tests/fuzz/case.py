"""What failed, made as small as it can be in a while, and written down so that it can be run again.

First whole batches go, then frames; what is left still fails with the same kind of error.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import orjson

from tests.fuzz.frames import Batch, load, save, write_pcap
from tests.fuzz.run import Episode, FailedError, again

SECONDS = 60.0
"""How long to look for something smaller: most cases are small by then."""

T = TypeVar("T")


def smallest(failure: FailedError, seconds: float = SECONDS) -> list[Batch]:
    """Return batches that still fail; all of them when they do not fail again."""
    deadline = time.monotonic() + seconds
    kind = _kind(str(failure))

    def fails(batches: list[Batch]) -> bool:
        return _kind(again(failure.episode, batches)) == kind

    if not failure.batches or not fails(failure.batches):
        return failure.batches
    batches = _fewer(failure.batches, fails, deadline)
    for number in reversed(range(len(batches))):

        def fails_with(rows: list[int], of: list[Batch] = batches, number: int = number) -> bool:
            return fails(_with(of, number, rows))

        rows = _fewer(list(range(len(batches[number].rows))), fails_with, deadline)
        batches = _with(batches, number, rows)
    return batches


def _kind(error: str) -> str:
    """Return what an error says first, without its numbers."""
    return re.sub(r"\d+", "", error.partition("\n")[0])


def _with(batches: list[Batch], number: int, rows: list[int]) -> list[Batch]:
    return [*batches[:number], batches[number].chosen(rows), *batches[number + 1 :]]


def _fewer(items: list[T], fails: Callable[[list[T]], bool], deadline: float) -> list[T]:
    """Leave out parts, large ones first, as long as it fails without them; one item stays."""
    part = len(items) // 2
    while part and time.monotonic() < deadline:
        first = 0
        while first < len(items) and time.monotonic() < deadline:
            rest = items[:first] + items[first + part :]
            if rest and fails(rest):
                items = rest
            else:
                first += part
        part //= 2
    return items


def write(failure: FailedError, batches: list[Batch], seed: int) -> str:
    """Write a case to a temporary folder; return how to run it again."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    episode = failure.episode
    save(folder / "case.npz", batches)
    write_pcap(folder / "case.pcapng", batches)
    said = {
        "number": episode.number,
        "most_flows": episode.most_flows,
        "networks_apart": episode.networks_apart,
        "has_twin": episode.has_twin,
    }
    (folder / "episode.json").write_bytes(orjson.dumps(said))
    frames = sum(len(batch.rows) for batch in batches)
    return (
        f"seed {seed}, episode {episode.number}: {failure}\n"
        f"{frames} frames in {len(batches)} batches; to look at them: {folder}/case.pcapng\n"
        f"to run them again: make test/fuzz CASE={folder}\n"
        f"to run the episode again: make test/fuzz SEED={seed} EPISODE={episode.number}"
    )


def run_again(folder: Path) -> str:
    """Run a case that was written; return what is wrong, or ""."""
    episode = Episode(**orjson.loads((folder / "episode.json").read_bytes()))
    return again(episode, load(folder / "case.npz"))
