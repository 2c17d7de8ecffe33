"""Which protocols the entries of a source are of. Called by plan, so that SQL need not look for a
field in places where no protocol that is there has it.

A file does not change once it is written, so what it holds is kept; the next question knows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from services.query.plan import Source

COLUMN = "protocol_name"

KNOWN_FILES = 65_536
"""Files whose protocols are kept: some 200 octets each."""


def of(sources: Iterable[Source]) -> frozenset[str] | None:
    """Return every protocol name in the rows; None when a file cannot be read."""
    found: set[str] = set()
    try:
        for source in sources:
            for _, tail in source.tails:
                found |= _unique(tail[COLUMN])
            for path in source.files:
                with source.hold([path]):
                    # A recording that is deleted and made again has files of the same names.
                    status = path.stat()
                    found |= _of_file(path, status.st_ino, status.st_mtime_ns)
    except (OSError, pa.ArrowException):
        return None  # the engine says what is wrong with it
    return frozenset(found)


@lru_cache(KNOWN_FILES)
def _of_file(path: Path, inode: int, changed_ns: int) -> frozenset[str]:
    del inode, changed_ns
    with pq.ParquetFile(path, read_dictionary=[COLUMN]) as file:
        return _unique(file.read(columns=[COLUMN], use_threads=False)[COLUMN])


def _unique(column: pa.ChunkedArray) -> frozenset[str]:
    return frozenset(pc.unique(column).to_pylist())
