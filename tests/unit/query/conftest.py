"""Recordings on disk, as the scheduler writes them, and a query service that answers over them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pyarrow as pa
import pytest
from recorder.v1 import query_pb2_grpc

from recordings import layout, schema, segments
from recordings.journal import Journal, JournalRecord, Part
from recordings.manifest import Manifest
from services.query.catalog import Catalog
from services.query.engine import Engine
from services.query.query_rpc import QueryService, add_to
from services.runtime.channel import open_channel
from services.runtime.server import serve
from tests.unit.query import generated

START_NS = 1_763_853_120_123_456_789
"""2025-11-22T23:12:00.123456789Z"""

Row = dict[str, Any]

ENTRY: Row = {
    "start_time": START_NS,
    "index": 0,
    "stream": "00000000000000a1",
    "node_name": "node-1",
    "node_ip": "10.0.0.7",
    "protocol_name": "http",
    "protocol_version": "1.1",
    "protocol_abbr": "HTTP",
    "transport": "tcp",
    "tls": False,
    "src_ip": "10.244.0.9",
    "src_port": 45168,
    "src_name": "checkout",
    "dst_ip": "10.96.0.50",
    "dst_port": 80,
    "dst_name": "cart",
    "elapsed_us": 12431,
    "request_method": "GET",
    "request_url": "/api/cart?id=7",
    "request_path": "/api/cart",
    "request_http_version": "HTTP/1.1",
    "request_headers": [
        {"name": "Host", "value": "cart"},
        {"name": "Cookie", "value": "session=s3cret"},
    ],
    "request": "{}",
    "response_status": 500,
    "response_headers": [{"name": "Content-Type", "value": "text/plain"}],
    "response_body": "broken",
    "response": "{}",
}

STREAM: Row = {
    "stream": "00000000000000a1",
    "node_name": "node-1",
    "transport": "tcp",
    "client_ip": "10.244.0.9",
    "client_port": 45168,
    "server_ip": "10.96.0.50",
    "server_port": 80,
    "first_time": START_NS,
    "matched_time": START_NS,
    "from_start": True,
}

PACKET: Row = {
    "stream": "00000000000000a1",
    "node_name": "node-1",
    "time": START_NS,
    "link_type": 1,
    "original_length": 60,
    "frame": bytes(60),
}

LOSS: Row = {
    "node_name": "node-1",
    "kind": "kernel_drop",
    "start_time": START_NS,
    "end_time": START_NS + 1000,
    "packets": 3,
    "bytes": 0,
    "stream": None,
    "detail": "The ring was full.",
}

DEFAULTS = {"entries": ENTRY, "streams": STREAM, "packets": PACKET, "losses": LOSS}


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows of a table, with defaults for what they leave out."""
    filled = [{**DEFAULTS[name], **row} for row in rows]
    columns = {
        field.name: pa.array([row.get(field.name) for row in filled], field.type)
        for field in schema.TABLES[name]
    }
    return pa.table(columns, schema=schema.TABLES[name])


class WrittenRun:
    """A run that is being recorded."""

    def __init__(self, data: Path, name: str, number: int) -> None:
        self.folder = layout.run(data, name, number)
        self.folder.mkdir(parents=True)
        self._manifest = Manifest(job=name, run=number)
        self._journal = Journal(self.folder, 1)
        self._manifest.save(self.folder)
        self._sequence = 0
        self._waiting: dict[str, list[pa.RecordBatch]] = {}

    def append(self, **tables: Sequence[Mapping[str, Any]]) -> None:
        """Append a batch to the journal: rows by table."""
        self._sequence += 1
        parts = []
        for name, rows in tables.items():
            batches = table(name, rows).to_batches()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, schema.TABLES[name]) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            parts.append(Part(name, len(rows), sink.getvalue().to_pybytes()))
            self._waiting.setdefault(name, []).extend(batches)
        self._journal.append(JournalRecord("agent", "node-1", self._sequence, tuple(parts)))
        self._journal.sync()

    def turn(self) -> None:
        """Turn the journal into segments, as the scheduler does about once a minute."""
        number = self._journal.number
        written = [
            segments.write(self.folder, name, batches, number)
            for name, batches in self._waiting.items()
        ]
        counts = dict(self._manifest.counts)
        for segment in written:
            counts[segment.table] = counts.get(segment.table, 0) + segment.rows
        old = self._journal
        self._journal = Journal(self.folder, number + 1)
        self._manifest = Manifest(
            job=self._manifest.job,
            run=self._manifest.run,
            segments=(*self._manifest.segments, *written),
            journal=number + 1,
            counts=counts,
        )
        self._manifest.save(self.folder)
        old.close()
        old.path.unlink()
        self._waiting = {}

    def close(self) -> None:
        self._journal.close()


class Disk:
    """A data folder."""

    start_ns = START_NS
    table = staticmethod(table)

    def __init__(self, data: Path) -> None:
        self.data = data
        self.runs: list[WrittenRun] = []

    def run(self, name: str, number: int = 1) -> WrittenRun:
        """Begin a run."""
        made = WrittenRun(self.data, name, number)
        self.runs.append(made)
        return made

    def catalog(self) -> Catalog:
        return Catalog(self.data)


Serve = Callable[..., query_pb2_grpc.QueryServiceStub]


@contextmanager
def written(data: Path) -> Iterator[Disk]:
    """A data folder whose runs are closed in the end."""
    found = Disk(data)
    yield found
    for run in found.runs:
        run.close()


@contextmanager
def started(disk: Disk) -> Iterator[Engine]:
    """An engine over the disk."""
    made = Engine(disk.data.resolve(), memory_limit_bytes=256 << 20, threads=2)
    yield made
    made.close()


@contextmanager
def served(disk: Disk, engine: Engine) -> Iterator[Serve]:
    """Serve the disk over gRPC on loopback; each call returns a stub."""
    ends: list[Callable[[], object]] = []

    def start(
        deadline_seconds: float = 30.0, macros: Mapping[str, str] = MappingProxyType({})
    ) -> query_pb2_grpc.QueryServiceStub:
        service = QueryService(disk.catalog(), engine, deadline_seconds, macros)
        server = serve("127.0.0.1:0", add_to(service))
        channel: grpc.Channel = open_channel(server.address)
        ends.extend([channel.close, service.close, lambda: server.stop(5.0)])
        return query_pb2_grpc.QueryServiceStub(channel)

    yield start
    for end in ends:
        end()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with written(tmp_path / "data") as found:
        yield found


@pytest.fixture
def engine(disk: Disk) -> Iterator[Engine]:
    with started(disk) as made:
        yield made


@pytest.fixture
def serve_queries(disk: Disk, engine: Engine) -> Iterator[Serve]:
    with served(disk, engine) as start:
        yield start


@pytest.fixture
def stub(serve_queries: Serve) -> query_pb2_grpc.QueryServiceStub:
    return serve_queries()


@dataclass
class Generated:
    """Generated recordings that nothing changes, their entries, and a service that answers."""

    start_ns: int
    entries: list[dict[str, Any]]
    serve: Serve
    stub: query_pb2_grpc.QueryServiceStub

    def of(self, name: str) -> list[dict[str, Any]]:
        """The entries of a recording."""
        return [each for each in self.entries if each["record"] == name]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """`mixed`: two runs an hour apart, in files and journals. `web`: HTTP alone. `empty`."""
    with written(tmp_path_factory.mktemp("generated") / "data") as disk:
        start = START_NS // generated.SECOND * generated.SECOND
        entries = generated.write(disk, start)
        with started(disk) as engine, served(disk, engine) as serve_it:
            yield Generated(start, entries, serve_it, serve_it())
