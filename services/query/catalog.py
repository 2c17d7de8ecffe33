"""Which recordings there are, and what is in them now. Called by query_rpc.

A name is checked before a path is made of it, and a snapshot is taken afresh for every question.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from kfl.errors import nearest
from recordings import layout, names, snapshot
from services.query.plan import ALWAYS, Source, Window

NAMES_SHOWN = 10
"""Recordings that an error lists; `ListRecordings` has them all."""

LONGEST_SHOWN = 80
"""Characters of what was asked for in which near names are looked for."""

_NO_NAME = re.compile(r"[^a-z0-9_-]+")


class UnknownRecordingError(Exception):
    """There is no recording of that name; the text is a sentence that names the nearest ones."""

    def __init__(self, sentence: str, *, is_name: bool) -> None:
        super().__init__(sentence)
        self.is_name = is_name
        """It could be the name of a recording."""


@dataclass(frozen=True, slots=True)
class Summary:
    """How much a recording holds. Times in nanoseconds since 1970, None without entries."""

    name: str
    runs: int
    entries: int
    streams: int
    packets: int
    bytes: int
    first_ns: int | None
    last_ns: int | None


class Opened:
    """A recording as it was at one moment."""

    def __init__(self, taken: snapshot.Snapshot) -> None:
        self.taken = taken
        self.name = taken.name

    @property
    def damage(self) -> tuple[str, ...]:
        """Sentences about what cannot be read."""
        of_runs = [sentence for run in self.taken.runs for sentence in run.damage]
        return (*self.taken.damage, *of_runs)

    def source(self, table: str, window: Window = ALWAYS) -> Source:
        """Return the files of a table that may have rows in the window, and the journal's rows."""
        files: list[Path] = []
        times: list[tuple[int, int]] = []
        tails: list[tuple[str, pa.Table]] = []
        rows = 0
        for run in self.taken.runs:
            for segment in run.manifest.segments:
                if segment.table == table and window.touches(
                    segment.min_time_ns, segment.max_time_ns
                ):
                    files.append(run.folder / segment.file)
                    times.append((segment.min_time_ns, segment.max_time_ns))
                    rows += segment.rows
            tail = run.tail(table)
            if tail.num_rows:
                # In the order of texts behind the run's files, before those of the next run.
                tails.append((f"{run.folder}/~tail", tail))
                rows += tail.num_rows
        return Source(self.name, tuple(files), tuple(tails), rows, tuple(times))


class Catalog:
    """The recordings below `<data>/recordings` of one or several folders.

    Where several schedulers take data, each has a part of a recording in a folder of its own.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = tuple(dict.fromkeys(folder.resolve() for folder in folders))
        memory = snapshot.DEFAULT_MEMORY // len(self.folders)
        self._readers = [snapshot.Reader(folder, memory) for folder in self.folders]

    def names(self) -> list[str]:
        """Return the names of all recordings, sorted."""
        return sorted({name for reader in self._readers for name in reader.names()})

    def check(self, name: str) -> None:
        """Raise UnknownRecordingError unless there is a recording of that name now."""
        try:
            names.check(name)
        except ValueError as error:
            raise UnknownRecordingError(f"{error} {self.suggest(name)}", is_name=False) from None
        if not any(_is_there(folder, name) for folder in self.folders):
            sentence = f'There is no recording "{name}". {self.suggest(name)}'
            if not self._near(name):
                sentence += " A job has one when its first run has begun."
            raise UnknownRecordingError(sentence, is_name=True)

    def open(self, name: str) -> Opened:
        """Return the recording as it is now. Raises UnknownRecordingError."""
        self.check(name)
        parts = []
        for folder, reader in zip(self.folders, self._readers, strict=True):
            if _is_there(folder, name):
                with suppress(snapshot.NotFoundError):
                    parts.append(reader.snapshot(name))
        if not parts:
            sentence = f'The recording "{name}" was deleted just now. {self.suggest(name)}'
            raise UnknownRecordingError(sentence, is_name=True)
        return Opened(snapshot.together(parts))

    def suggest(self, name: str) -> str:
        """Return a sentence with the recordings nearest to `name`, or with those that there are."""
        near = self._near(name)
        if near:
            return f"Did you mean {_quoted(near[:NAMES_SHOWN], 'or')}?"
        return self.listing()

    def _near(self, name: str) -> list[str]:
        known = self.names()
        # What someone tried to make a path of is near to what stands between its slashes.
        words = _NO_NAME.split(name[:LONGEST_SHOWN].lower())
        return list(
            dict.fromkeys(found for word in (name, *words) for found in nearest(word, known))
        )

    def listing(self) -> str:
        """Return a sentence with the recordings that there are."""
        known = self.names()
        if not known:
            return "There are no recordings yet; create one with `recorder jobs create`."
        if len(known) > NAMES_SHOWN:
            shown = _quoted(known[:NAMES_SHOWN], ",")
            return f"There are {len(known)} recordings, among them {shown}."
        return f"There {'is' if len(known) == 1 else 'are'} {_quoted(known, 'and')}."

    def summaries(self) -> list[Summary]:
        """Return what every recording holds, by name; one that vanishes meanwhile is left out."""
        found = []
        for name in self.names():
            try:
                found.append(_summary(self.open(name)))
            except UnknownRecordingError:
                continue
        return found


def _is_there(data: Path, name: str) -> bool:
    folder = layout.recording(data, name)
    # A link could lead out of the data.
    return not folder.is_symlink() and folder.is_dir()


def _summary(opened: Opened) -> Summary:
    taken = opened.taken
    first, last = taken.time_range("entries") or (None, None)
    return Summary(
        name=opened.name,
        runs=len({run.run for run in taken.runs}),
        entries=taken.rows("entries"),
        streams=taken.rows("streams"),
        packets=taken.rows("packets"),
        bytes=taken.bytes,
        first_ns=first,
        last_ns=last,
    )


def _quoted(names: list[str], last: str) -> str:
    quoted = [f'"{name}"' for name in names]
    if last == "," or len(quoted) == 1:
        return ", ".join(quoted)
    return f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"
