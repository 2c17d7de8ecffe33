"""What each job may have on disk, and which of its data goes first when it wants more.

lifecycle.py says what is allowed; the writer asks before it stores, and drops what is found here.
A run that is pinned, and another job's run, is never found.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recordings import layout
from recordings.manifest import Manifest
from recordings.segments import Segment
from services.scheduler.jobs import Job, OnFull
from services.scheduler.quota import StorageFullError, spoken
from services.scheduler.runfiles import RunFiles

DROPPED_OLDEST = "dropped_oldest"
"""The kind of loss that says what went."""

SHARE = 32
"""Dropped is at least this part of what there is: each time costs a manifest and a ledger row."""


class OwnLimitError(StorageFullError):
    """A job has as much on disk as it may have by itself."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one job may have."""

    size_limit: int = 0
    """Octets on disk of all its runs; 0 is no limit."""
    drops_oldest: bool = False
    kept: frozenset[int] = frozenset()
    """Runs of which nothing is dropped."""


def of(job: Job) -> Allowance:
    """Return what a job may have."""
    kept = frozenset(run.number for run in job.runs if run.pinned)
    drops = job.spec.on_full is OnFull.DROP_OLDEST and not job.spec.pinned
    return Allowance(job.spec.size_limit, drops, kept)


def check(allowance: Allowance, runs: Iterable[RunFiles], more: int) -> None:
    """Raise OwnLimitError unless a job with these runs may have `more` octets."""
    if allowance.size_limit and sum(run.bytes() for run in runs) + more > allowance.size_limit:
        limit = spoken(allowance.size_limit)
        raise OwnLimitError(f"The job's own size limit of {limit} is reached.")


@dataclass(frozen=True, slots=True)
class Victim:
    """The oldest data of a job: a whole run, or what the first journals of an open one became."""

    run: RunFiles
    is_whole: bool
    last: int
    """Number of the last journal whose segments go."""
    segments: tuple[Segment, ...]

    @property
    def sentence(self) -> str:
        """Say what goes."""
        rows = {
            t: sum(s.rows for s in self.segments if s.table == t) for t in ("entries", "packets")
        }
        what = f"run {self.run.run}" if self.is_whole else f"the oldest data of run {self.run.run}"
        return (
            f"{what} made room for newer data, as the job wants it: {rows['entries']} entries and "
            f"{rows['packets']} packets, {spoken(sum(s.bytes for s in self.segments))} on disk"
        )

    def loss(self, time_ns: int) -> dict[str, object]:
        """Return it as columns of LOSSES; `time_ns` is now."""
        return {
            "start_time": min((s.min_time_ns for s in self.segments), default=time_ns),
            "end_time": max((s.max_time_ns for s in self.segments), default=time_ns),
            "packets": sum(s.rows for s in self.segments if s.table == "packets"),
            "bytes": sum(s.bytes for s in self.segments),
            "detail": self.sentence,
        }


def oldest(allowance: Allowance, runs: Iterable[RunFiles], octets: int) -> Victim | None:
    """Return what of a job's runs goes first to make room for `octets`; None when nothing may.

    Raises OSError and ManifestError when a manifest cannot be read.
    """
    if not allowance.drops_oldest:
        return None
    for run in sorted(runs, key=lambda run: run.run):
        if run.run in allowance.kept:
            continue
        manifest = run.whole()
        data = [s for s in manifest.segments if s.table != "losses"]
        if not run.is_open:
            return Victim(run, True, layout.LAST_NUMBER, tuple(data))
        if data:
            last = _cut(data, max(octets, sum(s.bytes for s in data) // SHARE))
            gone = tuple(s for s in data if layout.span(s.file)[1] <= last)
            return Victim(run, False, last, gone)
    return None


def without(manifest: Manifest, last: int) -> tuple[list[Segment], Mapping[str, int]]:
    """Return the segments that go when the first journals' data does, and the counts that stay."""
    gone = [s for s in manifest.segments if s.table != "losses" and layout.span(s.file)[1] <= last]
    counts = dict(manifest.counts)
    for segment in gone:
        counts[segment.table] = max(0, counts.get(segment.table, 0) - segment.rows)
    return gone, counts


def _cut(data: list[Segment], octets: int) -> int:
    """Return up to which journal segments go, so that they are `octets`, and no journal in part."""
    spans = [(*layout.span(segment.file), segment.bytes) for segment in data]
    last = 0
    while sum(size for _, end, size in spans if end <= last) < octets:
        later = [end for _, end, _ in spans if end > last]
        if not later:
            break
        last = min(later)
        # Of other tables, more journals may have been merged into one segment.
        while straddling := [end for begin, end, _ in spans if begin <= last < end]:
            last = max(straddling)
    return last
