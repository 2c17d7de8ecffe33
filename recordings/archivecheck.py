"""Whether an archive has of a recording what its manifests say. `recorder verify` calls it.

One segment at a time is fetched, checked as on disk, and removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recordings import archive, layout, names
from recordings.remote import Remote
from recordings.segments import Segment
from recordings.snapshot import NotFoundError
from recordings.verify import Checked, Difference, Item, RunCheck


def check(remote: Remote, name: str, run: int | None = None) -> Iterator[Checked]:
    """Yield what is found of each run of a recording in an archive, or of one, oldest first.

    ValueError for a bad name or number, NotFoundError when there is no such recording or run,
    RemoteError when the archive cannot be listed.
    """
    names.check(name)
    if run is not None:
        archive.key(name, run)
    found = remote.list(archive.key(name))
    runs = [int(e.name) for e in found if e.is_folder and layout.is_run(e.name)]
    if not runs:
        raise NotFoundError(f'There is no recording "{name}" in {remote.url}.')
    if run is not None and run not in runs:
        there = ", ".join(map(str, runs))
        raise NotFoundError(f'The recording "{name}" has no run {run}; its runs are {there}.')
    for each in runs if run is None else [run]:
        checked = _ArchivedRun(remote, name, each).check(settle_seconds=0)
        if checked is not None:
            yield checked
    if run is None:
        for entry in found:
            if not (entry.is_folder and layout.is_run(entry.name)):
                what = Difference(entry.name, "folders of runs only", _words(entry.bytes))
                yield Checked(None, difference=what)
                return


class _ArchivedRun(RunCheck):
    """The check of one run in an archive."""

    def __init__(self, remote: Remote, name: str, number: int) -> None:
        super().__init__(Path(f"{number:04d}"), name, number)
        self._there = remote
        self._place = archive.key(name, number)

    def is_there(self) -> bool:
        """Whether the run is there at all."""
        return bool(self._there.list(self._place))

    def read_manifest(self) -> bytes:
        """Return the manifest as it is now. FileNotFoundError, OSError, ManifestError."""
        return archive.read_octets(self._there, self._name, self._number)

    def there(self) -> dict[str, Item]:
        """Return what stands where the run is, by name."""
        return {
            entry.name: Item(
                "a folder" if entry.is_folder else _words(entry.bytes), not entry.is_folder
            )
            for entry in self._there.list(self._place)
        }

    def journals(self) -> list[int]:
        """Return nothing: journals are never archived."""
        return []

    @contextmanager
    def opened(self, segment: Segment) -> Iterator[Path]:
        """Have a segment's file on this disk. FileNotFoundError, OSError."""
        with self.fetched(self._there, segment) as path:
            yield path


def _words(octets: int) -> str:
    return f"a file of {octets} octets"
