"""Entries as the messages that a client asked for. Called by query_rpc."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from recorder.v1 import query_pb2

from recordings import entry, schema
from recordings.redaction import Redactions
from services.runtime.channel import MAX_MESSAGE_BYTES

ARROW_BYTES = 256 << 10
"""Arrow octets in one message: the size at which gRPC is fastest."""

ENVELOPE_BYTES = 64
"""What a message needs beside its entry."""

Messages = Iterator[query_pb2.QueryResponse]


class Formatter:
    """Makes messages of tables of ENTRIES and `record`, with the redactions of a statement."""

    def __init__(self, format: int, redactions: Sequence[str]) -> None:
        makers: dict[int, Callable[[pa.Table], Messages]] = {
            query_pb2.ENTRY_FORMAT_JSON: self._json,
            query_pb2.ENTRY_FORMAT_ARROW: self._arrow,
            query_pb2.ENTRY_FORMAT_COUNT: self._nothing,
        }
        self._make = makers.get(format, self._object)
        self._redactions = Redactions(redactions)
        self.left_out = 0
        """Entries that are larger than a message may be."""

    def messages(self, table: pa.Table) -> Messages:
        """Yield messages that hold all entries of the table that fit into one."""
        for message in self._make(table):
            if message.ByteSize() <= MAX_MESSAGE_BYTES - ENVELOPE_BYTES:
                yield message
            else:
                self.left_out += 1

    def _objects(self, table: pa.Table) -> Iterable[dict[str, Any]]:
        for found in entry.objects(table):
            self._redactions.apply(found)
            yield found

    def _object(self, table: pa.Table) -> Messages:
        for found in self._objects(table):
            message = query_pb2.QueryResponse()
            message.entry.update(found)
            yield message

    def _nothing(self, table: pa.Table) -> Messages:
        del table
        yield from ()

    def _json(self, table: pa.Table) -> Messages:
        for found in self._objects(table):
            yield query_pb2.QueryResponse(json=orjson.dumps(found).decode())

    def _arrow(self, table: pa.Table) -> Messages:
        table = self._redactions.apply_to_table(table).select(schema.ENTRIES.names)
        table = table.cast(schema.ENTRIES)
        rows = max(1, table.num_rows * ARROW_BYTES // max(table.nbytes, 1))
        for start in range(0, table.num_rows, rows):
            yield from self._ipc(table.slice(start, rows))

    def _ipc(self, table: pa.Table) -> Messages:
        """Yield the table as one message, or as several where large entries came together."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema.ENTRIES) as writer:
            writer.write_table(table)
        octets = sink.getvalue()
        if octets.size > MAX_MESSAGE_BYTES - ENVELOPE_BYTES and table.num_rows > 1:
            half = table.num_rows // 2
            # Not slices: with one whose lists are all empty go the offsets of the whole table's.
            yield from self._ipc(table.take(np.arange(half)))
            yield from self._ipc(table.take(np.arange(half, table.num_rows)))
        else:
            yield query_pb2.QueryResponse(arrow_ipc=octets.to_pybytes())
