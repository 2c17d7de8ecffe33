"""Whether what is on disk of a recording is what was written. `recorder verify` calls it.

It may look while the scheduler writes: what differs is looked at again when a manifest was
published meanwhile, and a file that no manifest names yet has SETTLE_SECONDS to be named or to go.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recordings import journal, layout, merging, segments
from recordings import manifest as manifests
from recordings.manifest import Manifest, ManifestError
from recordings.schema import TABLES
from recordings.segments import Segment
from recordings.snapshot import NotFoundError

SETTLE_SECONDS: Final = 10.0
"""How long a file may be there before its manifest; the publication waits for other runs' work."""
LOOK_AGAIN_SECONDS: Final = 0.1
MOST_TRIES: Final = 1000
"""Of a run whose writer publishes meanwhile; what was checked is not read again."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as it was written."""

    file: str
    """Its path below the recording."""
    expected: str
    found: str

    def sentence(self) -> str:
        """Return it for people."""
        return f"{self.file}: expected {self.expected}, found {self.found}."


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of one run."""

    run: int | None
    """None is the recording's folder itself."""
    rows: dict[str, int] = field(default_factory=dict)
    """By table, journals included."""
    segments: int = 0
    journals: int = 0
    bytes: int = 0
    """Of segments, journals and the manifest."""
    difference: Difference | None = None
    """The first one."""


class _Differs(Exception):  # noqa: N818 - not an error of this program
    """Carries the first difference."""

    def __init__(self, file: str, expected: str, found: str, *, may_pass: bool = False) -> None:
        super().__init__(file)
        self.difference = Difference(file, expected, found)
        self.may_pass = may_pass
        """It may be as it should in a moment."""


def check(
    data: Path, name: str, run: int | None = None, settle_seconds: float = SETTLE_SECONDS
) -> Iterator[Checked]:
    """Yield what is found of each run of a recording, or of one run, oldest first.

    ValueError for a bad name or number, NotFoundError when there is no such recording or run. A run
    that is deleted meanwhile is left out.
    """
    folder = layout.recording(data, name)
    if run is not None:
        layout.run(data, name, run)
    if folder.is_symlink() or not folder.is_dir():
        raise NotFoundError(f'There is no recording "{name}" in {layout.root(data)}.')
    runs = layout.runs(data, name)
    if run is not None and run not in runs:
        there = f"its runs are {', '.join(map(str, runs))}" if runs else "it has none"
        raise NotFoundError(f'The recording "{name}" has no run {run}; {there}.')
    for each in runs if run is None else [run]:
        found = _Run(folder / f"{each:04d}", name, each).check(settle_seconds)
        if found is not None:
            yield found
    if run is None:
        found = _around(folder, {*runs, *layout.runs(data, name)})
        if found is not None:
            yield found


def _around(folder: Path, runs: set[int]) -> Checked | None:
    """Return what should not be beside the runs of a recording."""
    known = {f"{number:04d}" for number in runs}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name not in known:
                what = Difference(entry.name, "folders of runs only", _kind(entry))
                return Checked(None, difference=what)
    return None


class _Run:
    """The check of one run; it remembers what was good, for when it begins again."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        self._folder = folder
        self._name = name
        self._number = number
        self._lost: dict[Segment, int] = {}  # packets, by segment that is good

    def check(self, settle_seconds: float) -> Checked | None:
        """Return what is found, or None when the run is deleted meanwhile."""
        deadline = time.monotonic() + settle_seconds
        found: Difference | None = None
        for _ in range(MOST_TRIES):
            octets = b""
            try:
                octets = self._manifest()
                return self._compare(octets)
            except _Differs as differs:
                found = differs.difference
                if not self._folder.exists():
                    return None
                if self._is_published_since(octets):
                    continue
                if not differs.may_pass or time.monotonic() > deadline:
                    break
            time.sleep(LOOK_AGAIN_SECONDS)
        return Checked(self._number, difference=found)

    def _is_published_since(self, octets: bytes) -> bool:
        try:
            return manifests.read_octets(self._folder) != octets
        except (OSError, ManifestError):
            return False

    def _manifest(self) -> bytes:
        try:
            return manifests.read_octets(self._folder)
        except FileNotFoundError:
            is_new = self._folder.is_dir() and not any(self._folder.iterdir())
            raise self._differs(
                layout.MANIFEST, "a manifest", "no such file", may_pass=is_new
            ) from None
        except (OSError, ManifestError) as error:
            raise self._unusable(error) from None

    def _compare(self, octets: bytes) -> Checked:
        try:
            manifest = Manifest.parse(octets, Path(layout.MANIFEST))
        except ManifestError as error:
            raise self._unusable(error) from None
        for what, expected, found in (
            ("recording", self._name, manifest.job),
            ("run", self._number, manifest.run),
        ):
            self._require(layout.MANIFEST, f"the manifest of {what} {{}}", expected, found)
        self._look_around(manifest)
        rows = dict.fromkeys(TABLES, 0)
        lost = 0
        for segment in manifest.segments:
            if segment not in self._lost:
                self._lost[segment] = self._look_into(segment)
            rows[segment.table] += segment.rows
            lost += self._lost[segment]
        for table, count in rows.items():
            words = f"{{}} rows of {table} in segments"
            self._require(layout.MANIFEST, words, count, manifest.counts.get(table, 0))
        self._require(layout.MANIFEST, "{} lost packets in segments", lost, manifest.lost_packets)
        if manifest.ledger.stored:
            stored = sum(amount.packets for amount in manifest.ledger.stored.values())
            words = "a ledger of {} packets in segments"
            self._require(layout.MANIFEST, words, rows["packets"], stored)
        journals, size = self._look_at_journals(manifest, rows)
        size += len(octets) + sum(segment.bytes for segment in manifest.segments)
        return Checked(self._number, rows, len(manifest.segments), journals, size)

    def _look_around(self, manifest: Manifest) -> None:
        """Compare the names in the folder with those that should be there."""
        with os.scandir(self._folder) as entries:
            there = {entry.name: entry for entry in entries}
        last = dict.fromkeys(TABLES, 0)
        for segment in manifest.segments:
            first, end = layout.span(segment.file)
            if not last[segment.table] < first <= end < manifest.journal:
                expected = f"{segment.table} of journals {last[segment.table] + 1} or later"
                raise self._differs(segment.file, expected, f"those of {first} to {end}")
            last[segment.table] = end
            if segment.file not in there:
                raise self._differs(segment.file, f"{segment.bytes} octets", "no such file")
        known = {layout.MANIFEST, *(s.file for s in manifest.segments)}
        known |= {retired.file for retired in manifest.retired}
        numbers = layout.journals(self._folder)
        known |= {layout.journal(self._folder, n).name for n in numbers if n >= manifest.journal}
        passing = {layout.journal(self._folder, n).name for n in numbers}
        for name, entry in sorted(there.items()):
            if not entry.is_file(follow_symlinks=False):
                raise self._differs(name, "files only", _kind(entry))
            base = name.removesuffix(layout.TEMPORARY)
            if name in known or (base != name and (base in known or layout.is_segment(base))):
                continue
            try:
                is_new = time.time() - entry.stat().st_mtime < SETTLE_SECONDS
            except FileNotFoundError:
                continue  # a journal, removed since its rows are in segments
            expected = "no file that the manifest does not list"
            may_pass = name in passing or (is_new and layout.is_segment(name))
            raise self._differs(name, expected, _kind(entry), may_pass=may_pass)

    def _look_into(self, segment: Segment) -> int:
        """Compare a segment with what the manifest says of it; return the packets it says lost."""
        path, file = self._folder / segment.file, segment.file
        try:
            self._require(file, "{} octets", segment.bytes, path.stat().st_size)
            self._require(file, "SHA-256 {}", segment.sha256, merging.sha256(path))
            with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
                schema = segments.schema_of(segment.table, is_merged=layout.is_merged(segment.file))
                if not parquet.schema_arrow.equals(schema):
                    wrong = sorted(set(schema) ^ set(parquet.schema_arrow), key=str)
                    raise self._differs(
                        file, f"the columns of {segment.table}", f"other ones: {wrong[0]}"
                    )
                self._require(file, "{} rows", segment.rows, parquet.metadata.num_rows)
                time_column = segments.TIME_COLUMNS[segment.table]
                lost_column = ["packets"] if segment.table == "losses" else []
                table = parquet.read(columns=[time_column, *lost_column], use_threads=False)
        except FileNotFoundError:
            raise self._differs(file, f"{segment.bytes} octets", "no such file") from None
        except (OSError, pa.ArrowException) as error:
            raise self._differs(file, "a file that can be read", _words(error)) from None
        times = pc.min_max(table[time_column].cast(pa.int64()))
        self._require(file, "{} as its first time", segment.min_time_ns, times["min"].as_py())
        self._require(file, "{} as its last time", segment.max_time_ns, times["max"].as_py())
        return sum(max(0, n) for n in table["packets"].to_pylist()) if lost_column else 0

    def _look_at_journals(self, manifest: Manifest, rows: dict[str, int]) -> tuple[int, int]:
        """Check the journals, add their rows, and return how many there are and their octets."""
        numbers = [n for n in layout.journals(self._folder) if n >= manifest.journal]
        last = {name: mark.last for name, mark in manifest.agents.items()}
        size = 0
        for place, number in enumerate(numbers):
            expected = layout.journal(self._folder, manifest.journal + place)
            if number != manifest.journal + place:
                raise self._differs(
                    expected.name, f"a journal, since {numbers[-1]} is there", "no such file"
                )
            size += self._look_at_journal(expected, rows, last, is_last=number == numbers[-1])
        return len(numbers), size

    def _look_at_journal(
        self, path: Path, rows: dict[str, int], last: dict[str, int], *, is_last: bool
    ) -> int:
        try:
            size = path.stat().st_size
            scan = journal.scan(path)
        except FileNotFoundError:
            raise self._differs(path.name, "a journal", "no such file") from None
        except (OSError, ValueError) as error:
            raise self._differs(path.name, "a file that can be read", _words(error)) from None
        bad = [rotten.reason for rotten in scan.rotten]
        # The end of the last journal is being written, or was when the writer was killed.
        if scan.torn and not (scan.torn.is_torn and is_last):
            bad.append(scan.torn.reason)
        if bad:
            raise self._differs(path.name, "records that match their CRC-32", _words(bad[0]))
        for record in scan.records:
            before = last.get(record.agent, 0)
            if record.sequence <= before:
                raise self._differs(
                    path.name,
                    f"a number above {before} for the next batch of {record.agent!a}",
                    str(record.sequence),
                )
            last[record.agent] = record.sequence
            for part in record.parts:
                try:
                    count = sum(batch.num_rows for batch in part.batches())
                except (OSError, pa.ArrowException) as error:
                    expected = f"rows of {part.table}"
                    raise self._differs(path.name, expected, _words(error)) from None
                self._require(path.name, f"{{}} rows of {part.table}", part.rows, count)
                if part.table in rows:
                    rows[part.table] += count
        return size

    def _require(self, file: str, words: str, expected: object, found: object) -> None:
        if expected != found:
            raise self._differs(file, words.format(expected), str(found))

    def _differs(self, file: str, expected: str, found: str, *, may_pass: bool = False) -> _Differs:
        return _Differs(f"{self._folder.name}/{file}", expected, found, may_pass=may_pass)

    def _unusable(self, error: Exception) -> _Differs:
        words = _words(error)
        why = words.partition(" cannot be used: ")[2] or words
        return self._differs(layout.MANIFEST, "a manifest that can be used", why)


def _words(error: object) -> str:
    """Return what an error says, as a part of a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next(iter(str(error).splitlines()), "").rstrip(".")


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "a link"
    if entry.is_dir():
        return "a folder"
    return f"a file of {entry.stat(follow_symlinks=False).st_size} octets"
