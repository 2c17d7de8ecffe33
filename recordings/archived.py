"""Recordings in an archive, read as those on disk are. The query service's catalog has a reader for
each archive that it is told.

What changes in an archive does so hourly, so what was read of it is good for a while.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recordings import archive, layout, names
from recordings.cache import Cache
from recordings.manifest import Manifest, ManifestError
from recordings.remote import Remote, RemoteError
from recordings.snapshot import NotFoundError, RunView, Snapshot

REFRESH_SECONDS: Final = 30.0
"""How long what was read is shown, also that nothing could be read."""
MOST_RUNS: Final = 4096
"""Runs whose manifest is kept."""
READERS: Final = 8
"""Manifests that are read at once."""


@dataclass(slots=True)
class _Known:
    """What was read of a recording."""

    taken: Snapshot
    at: float
    octets: dict[int, bytes]
    """Of each run's manifest."""


class ArchiveReader:
    """Takes snapshots of recordings in one archive. Safe for many threads."""

    def __init__(
        self, remote: Remote, cache: Cache, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = remote.url
        self._remote = remote
        self._cache = cache
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._names: list[str] = []
        self._names_at: float | None = None
        self._trouble = ""
        self._known: OrderedDict[str, _Known] = OrderedDict()

    @property
    def trouble(self) -> str:
        """Why it could not be listed the last time, as a sentence; "" when it could."""
        return self._trouble

    def names(self) -> list[str]:
        """Return the names of the recordings there, sorted; those known last when it is away."""
        with self._lock:
            now = self._monotonic()
            if self._names_at is None or now - self._names_at >= REFRESH_SECONDS:
                self._names_at = now
                try:
                    found = self._remote.list(layout.root(Path()).name)
                except RemoteError as error:
                    self._trouble = str(error)
                else:
                    self._trouble = ""
                    self._names = [e.name for e in found if e.is_folder and _is_name(e.name)]
            return self._names

    def snapshot(self, name: str) -> Snapshot:
        """Return a recording as it was a short while ago; NotFoundError without it.

        What cannot be read is in its `damage`.
        """
        if name not in self.names():
            raise NotFoundError(f'There is no recording "{name}" in {self.url}.')
        with self._lock:
            known = self._known.get(name)
            now = self._monotonic()
            if known is None or now - known.at >= REFRESH_SECONDS:
                known = self._known[name] = self._read(name, known)
                known.at = now
                self._shorten()
            self._known.move_to_end(name)
            return known.taken

    def _read(self, name: str, before: _Known | None) -> _Known:
        try:
            found = self._remote.list(archive.key(name))
        except RemoteError as error:
            runs = () if before is None else before.taken.runs
            return _Known(Snapshot(name, runs, (str(error),)), 0, before.octets if before else {})
        numbers = [int(e.name) for e in found if e.is_folder and layout.is_run(e.name)]
        views = {run.run: run for run in before.taken.runs} if before else {}
        octets: dict[int, bytes] = {}
        damage: list[str] = []

        def read(number: int) -> RunView | None:
            try:
                fresh = archive.read_octets(self._remote, name, number)
                if before and fresh == before.octets.get(number) and number in views:
                    view = views[number]
                else:
                    view = self._view(archive.parse(self._remote, name, number, fresh))
            except FileNotFoundError:  # it is being removed, or was never whole
                return None
            except (ManifestError, RemoteError) as error:
                damage.append(str(error))
                return None
            octets[number] = fresh
            return view

        with ThreadPoolExecutor(READERS) as pool:
            runs = tuple(view for view in pool.map(read, sorted(numbers)) if view is not None)
        for view in views.values():
            if view.run not in octets:
                self._cache.forget(view.folder)
        return _Known(Snapshot(name, runs, tuple(sorted(damage))), 0, octets)

    def _view(self, manifest: Manifest) -> RunView:
        folder = self._cache.know(self._remote, manifest)
        return RunView(manifest.run, folder, manifest, {}, (), 0, manifest.ledger, self._cache.held)

    def _shorten(self) -> None:
        """Forget the recordings that nobody has asked for the longest."""
        held = sum(len(known.taken.runs) for known in self._known.values())
        while held > MOST_RUNS and len(self._known) > 1:
            _, gone = self._known.popitem(last=False)
            held -= len(gone.taken.runs)
            for run in gone.taken.runs:
                self._cache.forget(run.folder)


def _is_name(text: str) -> bool:
    try:
        names.check(text)
    except ValueError:
        return False
    return True
