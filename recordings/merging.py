"""Merged segments: the rows of several in the order of time. The scheduler's compactor writes them.

Memory is bounded whatever the segments are: their times are read first and put into order, eight
octets a row. Then each row group is read when its first row comes, and dropped after its last one;
what overlaps in time is held together, up to DECODED_BYTES.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recordings import layout
from recordings.manifest import Manifest
from recordings.segments import ARRIVAL, TIME_COLUMNS, Segment, schema_of

STEP_ROWS: Final = 4096
"""Rows that are put into order at a time."""
DECODED_BYTES: Final = 192 << 20
"""Octets of row groups that are held: three of the largest that segments.write makes."""
MOST_AGAIN_BYTES: Final = 2 << 30
"""Octets of row groups that may be read a second time, because those that overlap in time are more
than can be held. Beyond it fewer segments should be merged at once."""

_NUMBER_BITS: Final = 32
_CHUNK: Final = 1 << 20


class DamagedError(ValueError):
    """A segment is not what was written; the text is a sentence."""

    def __init__(self, file: str, what: str) -> None:
        super().__init__(f"{file} is damaged: {what}.")
        self.file = file


class TangledError(ValueError):
    """So many segments overlap in time that they cannot be merged at once."""


def rows(
    folder: Path, sources: Sequence[Segment], pause: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of neighbouring segments of one table by time, with the column ARRIVAL.

    Rows of the same time stay in the order of arrival. `pause` is called between pieces of work.
    Raises DamagedError, TangledError, OSError.
    """
    groups: list[_Group] = []
    times = []
    for source in sources:
        times.append(_times(folder, source, groups))
        pause()
    starts = np.array([group.start for group in groups])
    order = np.argsort(np.concatenate(times), kind="stable")
    del times
    held = _Held(folder, groups)
    for begin in range(0, len(order), STEP_ROWS):
        chosen = order[begin : begin + STEP_ROWS]
        numbers = np.searchsorted(starts, chosen, side="right") - 1
        parts, places = [], []
        for number in np.unique(numbers):
            places.append(np.flatnonzero(numbers == number))
            parts.append(held.take(int(number), chosen[places[-1]] - starts[number]))
        found = pa.concat_tables(parts)
        if len(parts) > 1:
            found = found.take(np.argsort(np.concatenate(places)))
        yield from found.combine_chunks().to_batches()
        pause()


def read_column(path: Path, column: str) -> pa.ChunkedArray:
    """Return a column of a segment as it was when its name was learned.

    When it was merged and removed since, its rows are found in what it was merged into. OSError
    when the recording has gone.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=[column])[column]
    except FileNotFoundError:
        table, (first, last) = path.name.partition("-")[0], layout.span(path.name)
        for segment in Manifest.load(path.parent).segments:
            merged = layout.span(segment.file)
            if segment.table == table and merged[0] <= first and last <= merged[1]:
                break
        else:
            raise
    with pq.ParquetFile(path.parent / segment.file) as file:
        whole = file.read(columns=[column, ARRIVAL])
    numbers = pc.shift_right(whole[ARRIVAL], _NUMBER_BITS)
    mine = whole.filter(pc.and_(pc.greater_equal(numbers, first), pc.less_equal(numbers, last)))
    # A merged segment's rows are by time already, and the merge kept their order.
    return (mine if layout.is_merged(path.name) else mine.sort_by(ARRIVAL))[column]


class _Group(NamedTuple):
    """A row group of a source."""

    source: Segment
    number: int
    start: int
    """Its first row, among those of all sources."""
    row: int
    """Its first row in its file."""
    rows: int


def _times(folder: Path, source: Segment, groups: list[_Group]) -> np.ndarray:
    """Check a segment, add its row groups, and return the times of its rows."""
    path = folder / source.file
    digest = sha256(path)
    if digest != source.sha256:
        raise DamagedError(source.file, f"its SHA-256 is {digest}, not {source.sha256}")
    with pq.ParquetFile(path) as file:
        start, row = (groups[-1].start + groups[-1].rows if groups else 0), 0
        for number in range(file.num_row_groups):
            count = file.metadata.row_group(number).num_rows
            groups.append(_Group(source, number, start + row, row, count))
            row += count
        time = TIME_COLUMNS[source.table]
        found = file.read(columns=[time], use_threads=False)[time].cast(pa.int64()).to_numpy()
    if len(found) != source.rows:
        raise DamagedError(source.file, f"it has {len(found)} rows, not {source.rows}")
    return np.asarray(found)


class _Held:
    """Row groups, read when they are needed."""

    def __init__(self, folder: Path, groups: Sequence[_Group]) -> None:
        self._folder = folder
        self._groups = groups
        self._left = [group.rows for group in groups]
        self._held: OrderedDict[int, pa.Table] = OrderedDict()
        self._size = self._again = 0

    def take(self, number: int, rows: np.ndarray) -> pa.Table:
        """Return rows of a group; it is dropped with its last one."""
        group = self._held.pop(number, None)
        if group is None:
            group = self._read(number)
        else:
            self._size -= group.nbytes
        self._left[number] -= len(rows)
        if self._left[number]:
            self._held[number] = group
            self._size += group.nbytes
            while self._size > DECODED_BYTES and len(self._held) > 1:
                self._size -= self._held.popitem(last=False)[1].nbytes
        return group.take(rows)

    def _read(self, number: int) -> pa.Table:
        source, of_file, _, row, rows = self._groups[number]
        with pq.ParquetFile(self._folder / source.file) as file:
            group = file.read_row_group(of_file, use_threads=False)
        if self._left[number] < rows:
            self._again += group.nbytes
            if self._again > MOST_AGAIN_BYTES:
                raise TangledError("Too many segments overlap in time to be merged at once.")
        if not layout.is_merged(source.file):
            begin = (layout.span(source.file)[0] << _NUMBER_BITS) + row
            group = group.append_column(ARRIVAL, pa.array(np.arange(begin, begin + rows)))
        return group.cast(schema_of(source.table, is_merged=True)).combine_chunks()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while octets := file.read(_CHUNK):
            digest.update(octets)
    return digest.hexdigest()
