"""The thread that merges small segments into large ones; the scheduler starts and stops it.

A question costs a little for each file that it opens, so the number of files must not grow with the
age of a recording. Neighbours of one table are merged when that makes them GROWTH times larger than
the largest of them, or as large as a segment should be: so each row is written again a few times at
most, the logarithm of how much smaller its first segment was. When a run has ended, what is left is
merged once more.

It is never in a hurry: one merge at a time, working half of the time, behind all other reads and
writes. What it writes is reserved in the quota first, and given up when a run needs the room.
"""

import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa

from recordings import layout, merging, segments
from recordings.manifest import Manifest
from recordings.schema import TABLES
from recordings.segments import Segment
from services.runtime.logging import logger
from services.scheduler.quota import Budget, Quota, on_disk
from services.scheduler.roller import Roller
from services.scheduler.runfiles import RunFiles

TARGET_BYTES: Final = 128 << 20
"""Octets of a large segment. One of half of this is large enough, and is not written again."""
TARGET_ROWS: Final = 8_000_000
"""Rows of a large segment: some 24 octets of memory each while it is merged."""
GROWTH: Final = 8
"""How many times larger than the largest before a merged segment is. More would leave more small
segments, fewer would write each row more often."""
MOST_SEGMENTS: Final = 4096
"""Merged at once; their names and times go into the manifest again, as retired."""
GRACE_SECONDS: Final = 900.0
"""How long what was merged is kept for readers that have an earlier manifest: half as long again as
an export may work. Who reads an answer slowly finds its rows in the merged segment."""
LOOK_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 60.0
"""Pause when there was no room, or a merge was given up."""
MOST_PAUSE_SECONDS: Final = 1.0
"""In one piece, so that it soon sees when it is to end."""
SPARE_BYTES: Final = 1 << 30
SPARE_SHARE: Final = 8
"""A merge leaves so much to others: an eighth of the limit and of the disk, or a GiB."""
OVERHEAD_BYTES: Final = 64 << 10
"""Reserved for a merged segment beyond the octets of its sources: footer, manifest."""
RETIRED_LINE_BYTES: Final = 256
"""In the manifest and its temporary file, for each segment that was merged."""
IOPRIO_SET: Final = {"x86_64": 251, "aarch64": 30}
"""Number of the system call, which the standard library lacks."""
LEAST_IOPRIO: Final = (2 << 13) | 7
"""Class "best effort", the last of its eight levels (ioprio_set(2))."""


class Clock(Protocol):
    """The part of a clock that is needed here."""

    def now(self) -> datetime:
        """Return the wall time, aware."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class Store(Protocol):
    """The part of the writer that is needed here."""

    @property
    def roller(self) -> Roller:
        """The thread that publishes manifests."""

    def runs(self) -> list[RunFiles]:
        """Return all runs on disk."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When to merge, and how fast; tests have small ones."""

    target_bytes: int = TARGET_BYTES
    grace_seconds: float = GRACE_SECONDS
    look_seconds: float = LOOK_SECONDS
    is_gentle: bool = True
    """Pause for as long as it works."""


DEFAULT_POLICY: Final = Policy()

Key = tuple[str, int]


class AbandonedError(Exception):
    """The merge was given up because the room is needed, or the scheduler ends."""


def choose(
    found: Sequence[Segment],
    policy: Policy,
    *,
    is_ended: bool,
    most: int = MOST_SEGMENTS,
    room: int = TARGET_BYTES,
) -> list[Segment]:
    """Return neighbours of one table that are to be merged, or nothing.

    `found` are the segments of a run in the order of arrival; at most `most` are returned, of at
    most `room` octets.
    """
    best: list[Segment] = []
    for table in TABLES:
        mine = [segment for segment in found if segment.table == table]
        for window in _windows(mine, policy, is_ended=is_ended, most=most, room=room):
            if len(window) > len(best):
                best = window
    return best


def _windows(
    found: Sequence[Segment], policy: Policy, *, is_ended: bool, most: int, room: int
) -> Iterator[list[Segment]]:
    """Yield runs of neighbours that are worth a merge, none of them twice."""
    begin, limit = 0, min(policy.target_bytes, room)
    while begin < len(found):
        window: list[Segment] = []
        size = rows = 0
        for segment in found[begin : begin + most]:
            size, rows = size + segment.bytes, rows + segment.rows
            if _is_large(segment, policy) or size > limit or rows > TARGET_ROWS:
                break
            window.append(segment)
        if len(window) > 1:
            size, largest = sum(s.bytes for s in window), max(s.bytes for s in window)
            if is_ended or size >= policy.target_bytes // 2 or size >= GROWTH * largest:
                yield window
                begin += len(window)
                continue
            # Nothing that begins before the largest one grows enough, since it has to end before.
            begin += next(i for i, s in enumerate(window) if s.bytes == largest)
        begin += 1


def _is_large(segment: Segment, policy: Policy) -> bool:
    return segment.bytes >= policy.target_bytes // 2 or segment.rows >= TARGET_ROWS // 2


def _yield_disk() -> None:
    """Let this thread's reads and writes wait for those of all others, where the kernel can.

    Its share of the processor is bounded by pauses. With a lower priority it could be kept waiting
    while it holds the interpreter's lock, and acknowledgements with it.
    """
    number = IOPRIO_SET.get(platform.machine())
    if sys.platform == "linux" and number is not None:
        ctypes.CDLL(None).syscall(number, 1, 0, LEAST_IOPRIO)


def _reserved(chosen: Sequence[Segment], octets: int) -> int:
    """Return what a merged segment of so many octets may add to what is on disk."""
    return on_disk(octets) + OVERHEAD_BYTES + on_disk(RETIRED_LINE_BYTES * len(chosen))


def _discard(run: RunFiles, merged: Segment) -> None:
    """Remove a segment that could not be published; not if it was, but perhaps not for good."""
    with suppress(OSError, ValueError):
        if merged not in Manifest.load(run.folder).segments:
            (run.folder / merged.file).unlink(missing_ok=True)


class Compactor:
    """Merges segments of all runs of a writer, until it is stopped."""

    def __init__(
        self, store: Store, quota: Quota, clock: Clock, policy: Policy = DEFAULT_POLICY
    ) -> None:
        self._store = store
        self._quota = quota
        self._clock = clock
        self._policy = policy
        self._done: dict[Key, tuple[int, bool]] = {}  # segments and is_open when all was merged
        self._most: dict[Key, int] = {}  # to merge at once, where MOST_SEGMENTS are too many
        self._damaged: set[Path] = set()
        self._not_before: dict[Key, float] = {}
        self._stop = threading.Event()
        self._way = threading.Condition()
        self._is_merging = self._is_unwanted = False
        self._thread = threading.Thread(target=self._loop, name="compactor", daemon=True)
        self._log = logger(__name__)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is under way, and end. Before the writer stops."""
        self._stop.set()
        with self._way:
            self._is_unwanted = True
            self._way.notify_all()
        self._thread.join()

    @property
    def is_merging(self) -> bool:
        """Whether octets are reserved for a merge."""
        return self._is_merging

    def make_way(self) -> None:
        """Give up the merge that is under way, and return when its octets are given back."""
        with self._way:
            self._is_unwanted = True
            self._way.notify_all()
            self._way.wait_for(lambda: not self._is_merging)
            self._is_unwanted = self._stop.is_set()

    def look(self) -> bool:
        """Merge once in each run where there is something to merge; tell whether there was."""
        runs = self._store.runs()
        known = {(run.job, run.run) for run in runs}
        self._done = {key: state for key, state in self._done.items() if key in known}
        self._most = {key: most for key, most in self._most.items() if key in known}
        self._not_before = {key: at for key, at in self._not_before.items() if key in known}
        merged = False
        due_ns = self._now_ns() - int(self._policy.grace_seconds * 1e9)
        for run in runs:
            if self._stop.is_set():
                return False
            if run.has_retired(due_ns):
                self._store.roller.drop_retired(run, due_ns).result()
            merged |= self._merge_one(run)
        return merged

    def _loop(self) -> None:
        _yield_disk()
        while not self._stop.is_set():
            try:
                goes_on = self.look()
            except Exception:
                # A bug. Nothing is lost by it: recordings stay as they are, in more files.
                self._log.exception("segments not merged")
                goes_on = False
            if not goes_on:
                self._stop.wait(self._policy.look_seconds)

    def _merge_one(self, run: RunFiles) -> bool:
        key, state = (run.job, run.run), (run.segments, run.is_open)
        now = self._clock.monotonic()
        if self._done.get(key) == state or self._not_before.get(key, now) > now:
            return False
        try:
            chosen = self._choose(run, TARGET_BYTES)
            if not chosen:
                self._done[key] = state
                return False
            room = self._room(run.folder) - _reserved(chosen, 0)
            if sum(segment.bytes for segment in chosen) > room:
                chosen = self._choose(run, room)
            if not chosen:
                raise AbandonedError
            self._merge(run, chosen)
            return True
        except AbandonedError:
            self._not_before[key] = now + RETRY_SECONDS
        except merging.TangledError as error:
            if len(chosen) > 2:
                self._most[key] = max(2, len(chosen) // 2)
                return True
            self._not_before[key] = now + RETRY_SECONDS
            self._tell(run, error)
        except merging.DamagedError as error:
            self._damaged.add(run.folder / error.file)
            self._tell(run, error)
            return True
        except (OSError, ValueError, pa.ArrowException) as error:
            self._not_before[key] = now + RETRY_SECONDS
            if not run.is_deleted:
                self._tell(run, error)
        return False

    def _choose(self, run: RunFiles, room: int) -> list[Segment]:
        if run.is_deleted:
            return []
        parts: list[list[Segment]] = [[]]
        for segment in run.whole().segments:
            if segment.is_remote or run.folder / segment.file in self._damaged:
                parts.append([])  # nothing is merged across it
            else:
                parts[-1].append(segment)
        most = self._most.get((run.job, run.run), MOST_SEGMENTS)
        chosen = (
            choose(part, self._policy, is_ended=not run.is_open, most=most, room=room)
            for part in parts
        )
        return max(chosen, key=len)

    def _merge(self, run: RunFiles, chosen: list[Segment]) -> None:
        """Write one segment and publish it. AbandonedError when there is no room for it."""
        octets = _reserved(chosen, sum(segment.bytes for segment in chosen))
        with self._way:
            if self._is_unwanted or not self._quota.reserve(octets, self._spare()):
                raise AbandonedError
            self._is_merging = True
        budget = Budget(self._quota, octets)
        merged: Segment | None = None
        begin = time.monotonic()
        try:
            merged = self._write(run, chosen, budget)
            publish = partial(
                run.publish_merged, chosen, merged, octets + budget.extra, self._now_ns()
            )
            with self._way:
                # From here on the roller is busy with it, and it takes no longer than to wait.
                published = self._store.roller.do(publish)
                self._is_merging = False
                self._way.notify_all()
            published.result()
        except BaseException:
            if merged is not None:
                _discard(run, merged)
            self._quota.release(octets + budget.extra)
            raise
        finally:
            with self._way:
                self._is_merging = False
                self._way.notify_all()
            pa.default_memory_pool().release_unused()
        self._log.info(
            "segments merged",
            job=run.job,
            run=run.run,
            file=merged.file,
            segments=len(chosen),
            octets=merged.bytes,
            seconds=round(time.monotonic() - begin, 1),
        )

    def _write(self, run: RunFiles, chosen: list[Segment], budget: Budget) -> Segment:
        first, last = layout.span(chosen[0].file)[0], layout.span(chosen[-1].file)[1]
        batches = merging.rows(run.folder, chosen, self._new_pause())
        table = chosen[0].table
        return segments.write(run.folder, table, batches, first, budget.allow, last)

    def _new_pause(self) -> Callable[[], None]:
        """Return what is called between pieces of work: it waits for as long as they took."""
        begun = time.monotonic()

        def pause() -> None:
            nonlocal begun
            worked = min(time.monotonic() - begun, MOST_PAUSE_SECONDS)
            with self._way:
                if self._policy.is_gentle and not self._is_unwanted:
                    self._way.wait(worked)
                if self._is_unwanted:
                    raise AbandonedError
            begun = time.monotonic()

        return pause

    def _room(self, folder: Path) -> int:
        """Return how many octets may be written, when others are left what they may need."""
        disk = os.statvfs(folder)
        spare = min(disk.f_blocks * disk.f_frsize // SPARE_SHARE, SPARE_BYTES)
        room = disk.f_bavail * disk.f_frsize - spare
        if self._quota.limit is not None:
            room = min(room, self._quota.limit - self._spare() - self._quota.used)
        return room

    def _spare(self) -> int:
        return min((self._quota.limit or 0) // SPARE_SHARE, SPARE_BYTES)

    def _tell(self, run: RunFiles, error: Exception) -> None:
        self._log.error("segments not merged", job=run.job, run=run.run, error=str(error))

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000
