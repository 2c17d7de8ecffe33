"""HAR, Parquet and JSON lines of entries, in octets that come as they are made. Called by export.

A table of ENTRIES and `record` goes in, octets come out; what a file knows of the rest (what was
asked, and what is missing) is in its comments.
"""

import io
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from recordings import entry, schema
from recordings.redaction import Redactions
from services.query import har

COLUMNS = schema.ENTRIES.append(pa.field("record", pa.string(), nullable=False))
"""Of a Parquet file: those of a recording's own files, and the recording."""

GROUP_ROWS = 65_536
GROUP_BYTES = 32 << 20
"""A row group is written when it has one of these: it is held in memory until then."""

COMMENT_KEY = b"recorder"
"""Key of the comment in the metadata of a Parquet file."""


class File(Protocol):
    """A file of entries that is being made."""

    def head(self) -> bytes:
        """Return what comes before the first entry."""

    def rows(self, table: pa.Table) -> bytes:
        """Return octets of the entries of a table, or of some before."""

    def end(self) -> bytes:
        """Return what closes the file."""


class JsonLines:
    """An entry a line, as `Query` gives it."""

    def __init__(self, redactions: Redactions, comment: str) -> None:
        del comment
        self._redactions = redactions

    def head(self) -> bytes:
        """Return nothing."""
        return b""

    def rows(self, table: pa.Table) -> bytes:
        """Return the entries of a table."""
        found = _objects(table, self._redactions)
        return b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in found)

    def end(self) -> bytes:
        """Return nothing."""
        return b""


class Har:
    """A HAR 1.2 of entries of HTTP."""

    def __init__(self, redactions: Redactions, comment: str) -> None:
        self._redactions = redactions
        self._comment = comment
        self._is_first = True

    def head(self) -> bytes:
        """Return what comes before the first entry."""
        log = har.head("Traffic Recorder", version("traffic-recorder"))
        opened = orjson.dumps({"log": {**log, "comment": self._comment}})
        return opened.removesuffix(b"}}") + b',"entries":['

    def rows(self, table: pa.Table) -> bytes:
        """Return the entries of a table, behind a comma where others are before them."""
        made = [orjson.dumps(har.entry(each)) for each in _objects(table, self._redactions)]
        comma = b"" if self._is_first or not made else b",\n"
        self._is_first = self._is_first and not made
        return comma + b",\n".join(made)

    def end(self) -> bytes:
        """Return what closes the file."""
        return b"]}}\n"


class Parquet:
    """A Parquet file of COLUMNS."""

    def __init__(self, redactions: Redactions, comment: str) -> None:
        self._redactions = redactions
        self._sink = _Sink()
        self._schema = COLUMNS.with_metadata({COMMENT_KEY: comment.encode()})
        self._writer = pq.ParquetWriter(
            self._sink, self._schema, compression="zstd", compression_level=1
        )
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self._bytes = 0

    def head(self) -> bytes:
        """Return the first octets."""
        return self._sink.take()

    def rows(self, table: pa.Table) -> bytes:
        """Return the octets of a row group when there is enough for one."""
        table = self._redactions.apply_to_table(table)
        self._waiting.append(table.select(COLUMNS.names).cast(self._schema))
        self._rows += table.num_rows
        self._bytes += table.nbytes
        if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()
        return self._sink.take()

    def end(self) -> bytes:
        """Return what closes the file."""
        self._flush()
        self._writer.close()
        return self._sink.take()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), GROUP_ROWS)
        self._waiting, self._rows, self._bytes = [], 0, 0


class _Sink(io.RawIOBase):
    """Takes the octets of a file and gives them away."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, octets: Any) -> int:
        piece = bytes(octets)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def take(self) -> bytes:
        """Return what has come since."""
        octets = b"".join(self._pieces)
        self._pieces.clear()
        return octets


def _objects(table: pa.Table, redactions: Redactions) -> Sequence[dict[str, Any]]:
    found = entry.objects(table)
    for each in found:
        redactions.apply(each)
    return found
