"""Where the files of a recording lie. Every path is made here, and only from checked names.

<data>/recordings/<name>/<run>/manifest.json, journal-00000001.log, entries-00000001.parquet,
entries-00000002-00000009.parquet (merged of eight), … As texts, the names of a table's segments are
in the order of arrival.
"""

import os
import re
from pathlib import Path

from recordings import names
from recordings.schema import TABLES

FIRST_RUN = 1
LAST_RUN = 999_999
"""A run a day for 2700 years; a number of a run beyond it is a mistake or an attack."""
LAST_NUMBER = 99_999_999
"""Of journals and segments; a journal a second lasts for three years."""

MANIFEST = "manifest.json"
TEMPORARY = ".tmp"
"""Ends the name of a file that is being written; it is published by rename, or swept."""
DELETED = ".deleted-"
"""Begins the name of a folder that is being deleted; no recording can have such a name."""

_RUN = re.compile(r"[0-9]{4,6}", re.ASCII)
_JOURNAL = re.compile(r"journal-([0-9]{8})\.log", re.ASCII)
_SEGMENT = re.compile(rf"({'|'.join(TABLES)})-([0-9]{{8}})(?:-([0-9]{{8}}))?\.parquet", re.ASCII)


def root(data: Path) -> Path:
    """Return the folder of all recordings."""
    return data / "recordings"


def recording(data: Path, name: str) -> Path:
    """Return the folder of a recording; ValueError when the name may not be one."""
    return root(data) / names.check(name)


def run(data: Path, name: str, number: int) -> Path:
    """Return the folder of one run; ValueError when the name or the number may not be one."""
    if not FIRST_RUN <= number <= LAST_RUN:
        raise ValueError(f"{number} is not the number of a run; runs count from {FIRST_RUN}.")
    return recording(data, name) / f"{number:04d}"


def journal(folder: Path, number: int) -> Path:
    """Return the path of a run's journal file."""
    return folder / f"journal-{_checked(number):08d}.log"


def segment(folder: Path, table: str, number: int, last: int | None = None) -> Path:
    """Return the path of a run's Parquet file; KeyError when there is no such table.

    It has the rows of journal `number`, or of those from `number` to `last`.
    """
    TABLES[table]
    numbers = f"{_checked(number):08d}" + ("" if last is None else f"-{_checked(last):08d}")
    return folder / f"{table}-{numbers}.parquet"


def temporary(path: Path) -> Path:
    """Return the name that a file has until it is published."""
    return path.with_name(path.name + TEMPORARY)


def is_segment(file: str) -> bool:
    """Tell whether `file` is a name that segment() gives."""
    return _SEGMENT.fullmatch(file) is not None


def is_merged(file: str) -> bool:
    """Tell whether a segment of this name was merged of others."""
    match = _SEGMENT.fullmatch(file)
    return match is not None and match[3] is not None


def span(file: str) -> tuple[int, int]:
    """Return the first and last journal that a segment has rows of; ValueError for other names."""
    match = _SEGMENT.fullmatch(file)
    if match is None:
        raise ValueError(f"{file[:80]!a} is not the name of a segment.")
    return int(match[2]), int(match[3] or match[2])


def is_run(folder: str) -> bool:
    """Tell whether `folder` is a name that run() gives."""
    return _RUN.fullmatch(folder) is not None and f"{int(folder):04d}" == folder and int(folder) > 0


def recordings(data: Path) -> list[str]:
    """Return the names of the recordings on disk, sorted."""
    return sorted(entry.name for entry in _folders(root(data)) if _is_name(entry.name))


def runs(data: Path, name: str) -> list[int]:
    """Return the numbers of a recording's runs on disk, sorted."""
    return sorted(int(e.name) for e in _folders(recording(data, name)) if is_run(e.name))


def journals(folder: Path) -> list[int]:
    """Return the numbers of a run's journal files, sorted; FileNotFoundError without the folder."""
    with os.scandir(folder) as entries:
        matches = [_JOURNAL.fullmatch(entry.name) for entry in entries]
    return sorted(int(match[1]) for match in matches if match)


def sync(folder: Path) -> None:
    """Make names that were made or removed in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checked(number: int) -> int:
    if not 0 < number <= LAST_NUMBER:
        raise ValueError(f"{number} cannot number a file; files count from 1 to {LAST_NUMBER}.")
    return number


def _is_name(text: str) -> bool:
    try:
        names.check(text)
    except ValueError:
        return False
    return True


def _folders(folder: Path) -> list[os.DirEntry[str]]:
    """Return the real folders in `folder`; a link could lead out of the data."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
