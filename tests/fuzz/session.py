"""Many episodes in one process: ends at the first that is wrong, or that hangs, or takes memory."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

from tests.fuzz import case, run
from tests.fuzz.frames import Batch
from tests.fuzz.run import FailedError, Figures
from tests.fuzz.seeds import Seeds

MEMORY_MIB = 150
"""How much more memory may be in use than after WARM_UP episodes: two engines with full rings."""
WARM_UP = 20

HANGS_SECONDS = 200.0
"""Processor time after which a batch never ends: it takes a fraction of a second."""
LOOK_SECONDS = 5.0

REPORTED = 50
"""Episodes between two lines of progress."""


def session(
    seed: int,
    seeds: Seeds,
    packets: int,
    seconds: float,
    first: int = 0,
    most: int = sys.maxsize,
    say: Callable[[str], None] = lambda _: None,
) -> Figures:
    """Run episodes until there were so many packets, or seconds; AssertionError says how to run
    again what was wrong.
    """
    total = Figures()
    begin = time.monotonic()
    watch = Watch(seed)
    try:
        while (
            total.packets < packets and time.monotonic() - begin < seconds and total.episodes < most
        ):
            number = first + total.episodes
            try:
                figures = run.run(seed, number, seeds, watch.begin(number))
            except FailedError as failure:
                watch.end()
                said = case.write(failure, case.smallest(failure), seed)
                raise AssertionError(said) from failure.error
            add(total, figures)
            warm = total.memory[min(WARM_UP, len(total.memory)) - 1]
            assert total.memory[-1] <= warm + MEMORY_MIB, (
                f"seed {seed}, up to episode {number}: {total.memory[-1]} MiB, {warm} at first"
            )
            if total.episodes % REPORTED == 0:
                say(
                    f"  {total.packets:,} packets, {total.entries:,} entries, "
                    f"{total.memory[-1]} MiB, {time.monotonic() - begin:,.0f} s"
                )
    finally:
        watch.end()
    return total


def add(total: Figures, figures: Figures) -> None:
    total.episodes += figures.episodes
    total.packets += figures.packets
    total.entries += figures.entries
    total.told += figures.told
    total.slowest = max(total.slowest, figures.slowest)
    total.memory += figures.memory


class Watch:
    """Ends the process when a batch hangs, since a kernel that does cannot be interrupted."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = -1
        self._batches: list[Batch] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def begin(self, number: int) -> list[Batch]:
        """Watch an episode; return the list that it is to put its batches into."""
        self._number, self._batches = number, []
        return self._batches

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        seen, since = (-1, -1), 0.0
        while not self._over.wait(LOOK_SECONDS):
            now = (self._number, len(self._batches))
            if now != seen:
                seen, since = now, time.process_time()
            elif time.process_time() - since > HANGS_SECONDS:
                self._give_up()

    def _give_up(self) -> None:
        faulthandler.dump_traceback()
        episode = run.begin(self._seed, self._number)[1]
        failure = FailedError(episode, self._batches, TimeoutError("it hangs"))
        print(case.write(failure, self._batches, self._seed), file=sys.stderr, flush=True)
        os._exit(1)
