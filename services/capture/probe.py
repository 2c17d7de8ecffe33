"""What a run would have recorded: `agent` counts the rows of a probe instead of sending them."""

from collections import Counter

import pyarrow as pa

from services.capture.outbox import Parts
from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks


class Probe:
    """Takes the tables of one probe as an uplink would; the last ones end it, and tell."""

    def __init__(self, uplink: Uplink | Uplinks) -> None:
        self._uplink = uplink
        self._rows: Counter[str] = Counter()
        self._bytes = 0

    def send(self, job: str, run: int, parts: Parts, final: bool = False) -> None:
        """Count tables; names and rows as Uplink.send takes them."""
        del job
        for name, table in parts:
            if name == "tallies":
                continue
            self._rows[name] += table.num_rows
            self._bytes += _stored_size(table)
        if final:
            rows = self._rows
            counts = (rows["entries"], rows["streams"], rows["packets"], self._bytes)
            self._uplink.tell_probed(run, *counts)


def _stored_size(table: pa.Table) -> int:
    """Return about how many octets rows take on disk, where columns are compressed by zstd."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table)
    return int(sink.tell())
