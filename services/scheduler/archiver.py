"""The thread that copies runs to the archive; the scheduler starts and stops it.

A run is copied when it has ended, once an hour while it records and while its segments are merged,
and when somebody asks. Nothing waits for it: what goes wrong is told in the run's state and tried
again, later each time.
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, Protocol

from recordings import archive
from recordings.archive import AnotherRunError
from recordings.manifest import Manifest
from recordings.remote import Remote, RemoteError
from services.runtime.logging import logger
from services.scheduler.archives import Archives
from services.scheduler.compactor import DEFAULT_POLICY, choose
from services.scheduler.database import StoreError
from services.scheduler.jobs import Archived, ArchiveState
from services.scheduler.jobstore import WHOLE_JOB
from services.scheduler.roller import Roller
from services.scheduler.runfiles import RunFiles

EVERY_SECONDS: Final = 3600.0
"""How often a run that records is copied."""
MOVE_SECONDS: Final = 600.0
"""How often, when that is where it lives: small segments have been merged by then."""
MOVE_BYTES: Final = 64 << 20
"""Octets of finished segments on disk from which on they are moved before that."""
MERGE_SECONDS: Final = 300.0
"""How long a run that has ended waits to be merged before it is moved, after which it cannot be."""
LOOK_SECONDS: Final = 1.0
FIRST_PAUSE_SECONDS: Final = 5.0
LONGEST_PAUSE_SECONDS: Final = 900.0
"""Before the archive is tried again; the pause doubles with each failure."""
MOST_TRIES: Final = 10
"""Of a run whose files are merged while they are copied; then it waits like one that failed."""

Key = tuple[str, int]


class Clock(Protocol):
    """The part of a clock that is needed here."""

    def now(self) -> datetime:
        """Return the wall time, aware."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class Store(Protocol):
    """The part of the writer that is needed here."""

    def runs(self) -> list[RunFiles]:
        """Return all runs on disk."""

    def finish_segments(self, job: str, run: int) -> None:
        """Turn what a run has in journals into segments."""

    @property
    def roller(self) -> Roller:
        """The thread that publishes manifests."""


class EndingError(Exception):
    """The scheduler ends."""


@dataclass(slots=True)
class _Known:
    """What is known of one run's copy."""

    at: float
    """When it was copied last, or first seen; by the clock's monotonic()."""
    manifest: Manifest | None = None
    """As it was copied, without its segments."""
    has_ended: bool = False
    """It had when it was copied."""
    is_settled: bool = False
    failures: int = 0
    not_before: float = 0.0


class Archiver:
    """Copies all runs of a writer, until it is stopped."""

    def __init__(
        self,
        store: Store,
        remote: Remote,
        archives: Archives,
        clock: Clock,
        *,
        moves: bool = False,
    ) -> None:
        """`moves`: recordings live there, so that what was copied goes from the disk."""
        self._store = store
        self._moves = moves
        self._remote = remote
        self._archives = archives
        self._clock = clock
        self._known: dict[Key, _Known] = {}
        self._failures = 0
        self._not_before = 0.0  # when the archive is tried again
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="archiver", daemon=True)
        self._log = logger(__name__)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Give up what is under way, and end. The next one goes on with it."""
        self._stop.set()
        self._archives.wake.set()
        self._thread.join()

    def look(self) -> None:
        """Remove and copy all that is due. Raises StoreError, EndingError."""
        now = self._clock.monotonic()
        asked = set(self._archives.asked())
        if now < self._not_before and not asked:
            return
        held = self._remove()
        runs = {(run.job, run.run): run for run in self._store.runs()}
        self._known = {key: known for key, known in self._known.items() if key in runs}
        for key in asked - runs.keys():
            self._archives.not_here(key)
        for key, run in runs.items():
            known = self._known.setdefault(key, _Known(now))
            is_due = _is_ripe(run, known, now) if self._moves else _is_due(run, known, now)
            if key[0] not in held and (key in asked or is_due):
                self._copy(run, known, is_asked=key in asked)
                self._pause()
                if self._clock.monotonic() < self._not_before:
                    return  # one that was asked for will be tried when its turn comes

    def _loop(self) -> None:
        while not self._stop.is_set():
            self._archives.wake.clear()
            with suppress(EndingError):
                try:
                    self.look()
                except StoreError as error:
                    self._log.warning("state of the archive not stored", error=str(error))
                except Exception:
                    # A bug. Recording goes on without it.
                    self._log.exception("runs not copied to the archive")
            self._archives.wake.wait(LOOK_SECONDS)

    def _pause(self) -> None:
        if self._stop.is_set():
            raise EndingError

    def _remove(self) -> set[str]:
        """Remove what was deleted with its archive; return the names of what could not be."""
        held = set()
        for removal in self._archives.removals():
            self._pause()
            try:
                run = None if removal.run == WHOLE_JOB else removal.run
                archive.remove(self._remote, removal.job, run)
            except (OSError, ValueError) as error:
                held.add(removal.job)
                self._log.error("archive not removed", job=removal.job, error=str(error))
                self._back_off()
            else:
                self._archives.removed(removal)
        return held

    def _copy(self, run: RunFiles, known: _Known, *, is_asked: bool) -> None:
        key = (run.job, run.run)
        before = self._archives.known(key) or Archived(state=ArchiveState.WAITING)
        shown = replace(before, state=ArchiveState.COPYING)
        self._archives.copying(key, shown)

        def on_octets(octets: int) -> None:
            self._archives.copying(key, replace(shown, bytes=octets))

        try:
            if is_asked:
                self._store.finish_segments(*key)
            found = self._try(run, known, on_octets)
        except (OSError, ValueError) as error:
            if run.is_deleted:
                self._archives.not_here(key)
            else:
                self._fail(run, known, before, error, is_asked)
        else:
            known.failures = self._failures = 0
            self._not_before = 0.0
            known.at, known.is_settled = self._clock.monotonic(), found.is_settled
            done = Archived(
                state=ArchiveState.COPIED, bytes=found.bytes, copy_time=self._clock.now()
            )
            self._archives.save(key, done, was_asked=is_asked)
            self._log.info("run copied", job=run.job, run=run.run, octets=found.sent)
        finally:
            self._archives.copying(key, None)

    def _try(
        self, run: RunFiles, known: _Known, on_octets: Callable[[int], None]
    ) -> archive.Copied:
        """Copy a run as it is now; again when its segments are merged meanwhile."""
        for _ in range(MOST_TRIES):
            has_ended = _has_ended(run)
            manifest = run.whole()
            try:
                found = archive.copy(
                    run.folder, manifest, self._remote, self._now_ns(), on_octets, self._pause
                )
            except FileNotFoundError:
                if run.is_deleted:
                    raise
                continue
            if self._moves:
                self._move(run, manifest)
            known.manifest, known.has_ended = replace(run.manifest, segments=()), has_ended
            return found
        raise OSError("Its segments changed too often while they were copied.")

    def _move(self, run: RunFiles, copied: Manifest) -> None:
        """Let the manifest say that segments live there."""
        files = {segment.file for segment in copied.segments}
        move = partial(run.moved, files, self._remote.url, self._now_ns())
        self._store.roller.do(move).result()

    def _fail(
        self, run: RunFiles, known: _Known, before: Archived, error: Exception, is_asked: bool
    ) -> None:
        known.failures += 1
        known.not_before = self._clock.monotonic() + _pause_after(known.failures)
        if isinstance(error, RemoteError):
            self._back_off()
        told = f"{error}".rstrip(".") + "."
        if not isinstance(error, AnotherRunError):
            told += f" It is tried again in {_spoken(_pause_after(known.failures))}."
        failed = replace(before, state=ArchiveState.FAILED, error=told)
        self._archives.save((run.job, run.run), failed, was_asked=is_asked)
        self._log.warning("run not copied", job=run.job, run=run.run, error=str(error))

    def _back_off(self) -> None:
        """Leave the archive alone for a while."""
        self._failures += 1
        self._not_before = self._clock.monotonic() + _pause_after(self._failures)

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000


def _is_due(run: RunFiles, known: _Known, now: float) -> bool:
    if known.failures:
        return now >= known.not_before
    if _has_ended(run) and not known.has_ended:
        return True
    if now - known.at < EVERY_SECONDS:
        return False
    return not known.is_settled or known.manifest != replace(run.manifest, segments=())


def _is_ripe(run: RunFiles, known: _Known, now: float) -> bool:
    """Tell whether a run's segments are to be moved now, when that is where they live."""
    if known.failures:
        return now >= known.not_before
    if not run.here_bytes:
        return _is_due(run, known, now)
    if run.here_bytes >= MOVE_BYTES:
        return True
    if _has_ended(run):
        here = [segment for segment in run.whole().segments if not segment.is_remote]
        is_merged = not choose(here, DEFAULT_POLICY, is_ended=True)
        return is_merged or now - known.at >= MERGE_SECONDS
    return now - known.at >= MOVE_SECONDS


def _has_ended(run: RunFiles) -> bool:
    return not run.is_open and not run.tails


def _pause_after(failures: int) -> float:
    return float(min(FIRST_PAUSE_SECONDS * 2 ** min(failures - 1, 20), LONGEST_PAUSE_SECONDS))


def _spoken(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return "a minute" if seconds < 120 else f"{seconds / 60:.0f} minutes"
