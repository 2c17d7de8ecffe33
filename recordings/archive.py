"""A run copied to another place: its segments, then the manifest that lists them.

The scheduler's archiver calls it, as often as it likes: what is there already is not sent again.
The place has the form of a data folder, recordings/<name>/<run>/…, without journals. A reader sees
the manifest before or this one, as with the writer's own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from recordings import layout
from recordings import manifest as manifests
from recordings.manifest import Manifest, ManifestError, Retired
from recordings.remote import Remote, RemoteError, never
from recordings.segments import Segment

GRACE_SECONDS: Final = 900.0
"""How long a file that was merged into another, or dropped, stays for those who read an earlier
manifest; as long as on the scheduler's disk."""


class AnotherRunError(OSError):
    """The place of a run has one of another job; the text is a sentence."""

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True)
class Copied:
    """What came of a copy."""

    bytes: int
    """Octets there, manifest included."""
    sent: int
    """Of these, those that were sent now."""
    is_settled: bool
    """Nothing is left to be removed there."""


def key(name: str, run: int | None = None, file: str = "") -> str:
    """Return the key of a recording, a run or a file; ValueError when there can be none such."""
    root = Path("/")
    path = layout.recording(root, name) if run is None else layout.run(root, name, run)
    return str((path / file).relative_to(root))


def load(remote: Remote, name: str, run: int) -> Manifest:
    """Return the manifest of a run there. FileNotFoundError, ManifestError, RemoteError."""
    return parse(remote, name, run, read_octets(remote, name, run))


def read_octets(remote: Remote, name: str, run: int) -> bytes:
    """Return the manifest's octets. FileNotFoundError, ManifestError when it is huge."""
    place = key(name, run, layout.MANIFEST)
    octets = remote.read(place, manifests.LONGEST)
    if len(octets) > manifests.LONGEST:
        most = manifests.LONGEST
        raise ManifestError(f"{remote.below(place)} cannot be used: it has over {most} octets.")
    return octets


def parse(remote: Remote, name: str, run: int, octets: bytes) -> Manifest:
    """Return what a manifest there says. Raises ManifestError."""
    place = remote.below(key(name, run, layout.MANIFEST))
    found = Manifest.parse(octets, Path(place))
    if (found.job, found.run) != (name, run):
        raise ManifestError(f"{place} cannot be used: it is of run {found.run} of {found.job}.")
    return found


def copy(
    folder: Path,
    manifest: Manifest,
    remote: Remote,
    now_ns: int,
    on_octets: Callable[[int], None] = lambda _: None,
    pause: Callable[[], None] = never,
) -> Copied:
    """Bring what a manifest lists to its place, and publish it there.

    `on_octets` hears how many octets are there of the new manifest's; `pause` is called between
    pieces of work and may raise. Raises FileNotFoundError when a file of the run has gone,
    AnotherRunError, RemoteError.
    """
    return _Copy(folder, manifest, remote, now_ns, on_octets, pause).do()


class _Copy:
    """One copy of one run."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        remote: Remote,
        now_ns: int,
        on_octets: Callable[[int], None],
        pause: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._remote = remote
        self._now_ns = now_ns
        self._on_octets = on_octets
        self._pause = pause
        self._place = key(manifest.job, manifest.run)
        self._bytes = self._sent = 0
        self._old = b""  # the manifest that is there

    def do(self) -> Copied:
        before = self._before()
        there = {e.name: e.bytes for e in self._remote.list(self._place) if not e.is_folder}
        known = {segment.file: segment.sha256 for segment in before.segments}
        for segment in self._manifest.segments:
            self._bring(segment, there, known)
            self._bytes += segment.bytes
            self._on_octets(self._bytes)
        here = tuple(replace(each, is_remote=False) for each in self._manifest.segments)
        fresh = replace(self._manifest, segments=here, retired=self._retired(before), storage="")
        octets = fresh.encode()
        if octets != self._old:
            self._publish(octets)
        self._sweep(there, fresh)
        size = self._bytes + len(octets)
        return Copied(size, self._sent, not fresh.retired)

    def _before(self) -> Manifest:
        """Return the manifest that is there, an empty one without it. Raises AnotherRunError."""
        name, run = self._manifest.job, self._manifest.run
        try:
            self._old = read_octets(self._remote, name, run)
            before = parse(self._remote, name, run, self._old)
        except (FileNotFoundError, ManifestError):  # one that is damaged is of no use to anybody
            return Manifest(name, run)
        if before.id != self._manifest.id:
            raise AnotherRunError(
                f"{self._remote.below(self._place)} has a run of an earlier job named {name}. "
                "Nothing there is replaced: remove it, or record under another name."
            )
        return before

    def _bring(self, segment: Segment, there: Mapping[str, int], known: Mapping[str, str]) -> None:
        place = f"{self._place}/{segment.file}"
        if there.get(segment.file) == segment.bytes and (
            known.get(segment.file) == segment.sha256
            or self._remote.sha256(place, self._pause) == segment.sha256
        ):
            return
        if segment.is_remote:
            raise RemoteError(
                f"{self._remote.below(place)} is gone or damaged, and it was nowhere else."
            )
        self._remote.put(place, self._folder / segment.file, self._pause)
        self._sent += segment.bytes
        try:
            found = self._remote.sha256(place, self._pause)
        except FileNotFoundError as error:  # those of the run itself mean something else
            raise RemoteError(str(error)) from None
        if found != segment.sha256:
            self._remote.delete(place)
            raise RemoteError(
                f"{self._remote.below(place)}: what came back has the SHA-256 {found}, not "
                f"{segment.sha256}: the file was damaged here, there or on the way."
            )

    def _publish(self, octets: bytes) -> None:
        place = f"{self._place}/{layout.MANIFEST}"
        self._remote.put_octets(place, octets)
        self._sent += len(octets)
        try:
            is_there = self._remote.read(place, len(octets)) == octets
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise RemoteError(f"{self._remote.below(place)}: what came back is not what was sent.")

    def _retired(self, before: Manifest) -> tuple[Retired, ...]:
        """Return what readers of the manifest before may need for a while yet."""
        kept = {segment.file for segment in self._manifest.segments}
        since_ns = self._now_ns - int(GRACE_SECONDS * 1e9)
        known = [gone for gone in before.retired if since_ns < gone.since_ns <= self._now_ns]
        fresh = [Retired(s.file, s.bytes, self._now_ns) for s in before.segments]
        return tuple(gone for gone in (*known, *fresh) if gone.file not in kept)

    def _sweep(self, there: Mapping[str, int], fresh: Manifest) -> None:
        """Remove files that no manifest names any more, and what a crash left."""
        named: Sequence[Segment | Retired] = (*fresh.segments, *fresh.retired)
        for name in sorted(there.keys() - {each.file for each in named}):
            if layout.is_segment(name.removesuffix(layout.TEMPORARY)):
                self._remote.delete(f"{self._place}/{name}")


def remove(remote: Remote, name: str, run: int | None = None) -> None:
    """Remove a recording or one run of it there, manifests first. Raises RemoteError."""
    place = key(name, run)
    runs = [place] if run is not None else [f"{place}/{e.name}" for e in remote.list(place)]
    for each in runs:
        remote.delete(f"{each}/{layout.MANIFEST}")
    remote.delete_below(place)
