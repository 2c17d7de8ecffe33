"""Twelve questions that people ask, against what an expert would write for each, in one run.

A recording of 10 million entries as the compactor leaves it, and 2 GiB of packets of its first
minutes. Ours is the whole call over loopback; the expert's is SQL for the same files in an engine
of the same settings, and Python where a file is to be written. Both in turns, on one pinned core;
times are CPU seconds of the process, which other users of the machine hardly change.

BENCH_ROWS, BENCH_ROUNDS, and ONLY_QUESTION=2,7 as for the other benches; TSHARK=1 compares tshark.
"""

import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from recorder.v1 import query_pb2, query_pb2_grpc

sys.path.insert(0, str(Path(__file__).parent))
import filters

from recordings import layout, schema, segments
from recordings.journal import Journal, JournalRecord, Part
from recordings.manifest import Manifest
from services.query.catalog import Catalog
from services.query.engine import Engine, Session
from services.query.engine import Question as Sql
from services.query.query_rpc import QueryService, add_to
from services.runtime.channel import open_channel
from services.runtime.server import serve

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
ONLY = [int(number) for number in os.environ.get("ONLY_QUESTION", "").split(",") if number]
GOAL = 1.2
ENOUGH_SECONDS = 60.0
PACKET_BYTES = 2 << 30
MERGED = 8
"""Files of a minute in one merged one."""
MEMORY_BYTES = 512 * 10**6
"""Of the engine, as the service has it if not told otherwise."""

NAME = "asked"
DATA = filters.DATA.with_name(f"asked-{filters.ROWS}")
ALL = f'record("{NAME}")'

# ------------------------------------------------------------------------------ the recording


def record() -> None:
    """Make the recording, unless it is there."""
    folder = layout.run(DATA, NAME, 1)
    if (folder / layout.MANIFEST).exists():
        return
    filters.record()
    shutil.rmtree(DATA, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = sorted(layout.run(filters.DATA, filters.NAME, 1).glob("entries-*.parquet"))
    written: list[segments.Segment] = []
    room = PACKET_BYTES
    for begin in range(0, len(sources), MERGED):
        numbers = range(begin, min(begin + MERGED, len(sources)))
        tables = [entries(sources[number], number) for number in numbers]
        place = (begin + 1, begin + len(numbers))
        written.append(write(folder, "entries", tables, *place))
        parts = []
        for table in tables:
            if room > 0:
                parts.append(packets(table))
                room -= pc.sum(pc.binary_length(parts[-1]["frame"])).as_py()
        if parts:
            written.append(write(folder, "packets", parts, *place))
            rows = [streams(table) for table in tables[: len(parts)]]
            written.append(write(folder, "streams", rows, *place))
        print(f"{numbers[-1] + 1} of {len(sources)} files", flush=True)
    counts = {
        table: sum(each.rows for each in written if each.table == table)
        for table in ("entries", "streams", "packets")
    }
    Manifest(job=NAME, run=1, segments=tuple(written), counts=counts).save(folder)
    print(f"made {counts}, {sum(each.bytes for each in written) / 2**20:,.0f} MiB")


def entries(path: Path, number: int) -> pa.Table:
    """A file's rows by time, with streams that no other file has."""
    table = pq.read_table(path, use_threads=False).sort_by("start_time")
    streams = pc.utf8_replace_slice(table["stream"], 0, 2, f"{number:02x}")
    return table.set_column(table.schema.get_field_index("stream"), table.field("stream"), streams)


def write(
    folder: Path, name: str, tables: list[pa.Table], first: int, last: int
) -> segments.Segment:
    """Write tables, by time, as a merged segment."""
    whole = segments.schema_of(name, is_merged=True)

    def batches() -> Iterator[pa.RecordBatch]:
        for number, table in enumerate(tables, first):
            arrival = pa.array(np.arange(table.num_rows) + (number << 32))
            yield from (table.append_column(segments.ARRIVAL, arrival).cast(whole).to_batches(8192))

    return segments.write(folder, name, batches(), first, last=last)


def streams(table: pa.Table) -> pa.Table:
    """Rows about streams of entries."""
    same = {
        "stream": "stream",
        "node_name": "node_name",
        "transport": "transport",
        "client_ip": "src_ip",
        "client_port": "src_port",
        "server_ip": "dst_ip",
        "server_port": "dst_port",
        "first_time": "start_time",
        "matched_time": "start_time",
    }
    columns = {name: table[source] for name, source in same.items()}
    columns["from_start"] = pa.array(np.ones(table.num_rows, np.bool_))
    nulls = {
        name: pa.nulls(table.num_rows, schema.STREAMS.field(name).type) for name in schema.ADDED
    }
    found = {**columns, **nulls}
    return pa.table([found[name] for name in schema.STREAMS.names], schema=schema.STREAMS)


def packets(table: pa.Table) -> pa.Table:
    """A packet for each request and each response of HTTP, by time."""
    table = table.filter(pc.equal(table["protocol_name"], "http"))
    starts = table["start_time"].cast(pa.int64()).to_numpy()
    times = np.concatenate([starts, starts + table["elapsed_us"].to_numpy() * 1000])
    frames = [*frames_of(table, "request"), *frames_of(table, "response")]
    order = np.argsort(times, kind="stable")
    both = [0, 0]
    rows = {
        "stream": pa.chunked_array([chunk for _ in both for chunk in table["stream"].chunks]),
        "node_name": pa.chunked_array([c for _ in both for c in table["node_name"].chunks]),
        "time": pa.array(times).cast(schema.TIMESTAMP),
        "link_type": pa.array(np.ones(len(times), np.uint16)),
        "original_length": pa.array([len(frame) for frame in frames], pa.uint32()),
        "frame": pa.array(frames, pa.binary()),
    }
    return pa.table(rows, schema=schema.PACKETS).take(order)


def address(text: str) -> bytes:
    """Four octets of what looks like an address."""
    return bytes(int(word) % 256 for word in text.split("."))


def frames_of(table: pa.Table, side: str) -> Iterator[bytes]:
    """Frames whose TCP payload is one side of the calls."""
    if side == "request":
        heads = zip(
            table["request_method"].to_pylist(), table["request_url"].to_pylist(), strict=True
        )
        lines = [f"{method} {url} HTTP/1.1\r\n" for method, url in heads]
    else:
        lines = [f"HTTP/1.1 {status} OK\r\n" for status in table["response_status"].to_pylist()]
    bodies = table[f"{side}_body"].to_pylist()
    fields = [
        [(e["name"], len(body) if e["name"] == "Content-Length" else e["value"]) for e in headers]
        for headers, body in zip(table[f"{side}_headers"].to_pylist(), bodies, strict=True)
    ]
    ends = ("src", "dst") if side == "request" else ("dst", "src")
    ips = [[address(ip) for ip in table[f"{end}_ip"].to_pylist()] for end in ends]
    ports = table["src_port"].to_pylist()
    for line, headers, body, source, target, port in zip(
        lines, fields, bodies, *ips, ports, strict=True
    ):
        text = "".join(f"{name}: {value}\r\n" for name, value in headers)
        payload = f"{line}{text}\r\n{body}".encode()
        there = (port, 80, 1, 1) if side == "request" else (80, port, 1, 2)
        yield (
            bytes(12)
            + b"\x08\x00"
            + struct.pack(">BBHHHBBH", 0x45, 0, 40 + len(payload), 0, 0x4000, 64, 6, 0)
            + source
            + target
            + struct.pack(">HHIIBBHHH", *there, 0x50, 0x18, 64240, 0, 0)
            + payload
        )


# ------------------------------------------------------------------------------ questions


@dataclass(frozen=True, slots=True)
class Files:
    """What there is, and one call in the middle of the packets."""

    entries: list[str]
    streams: list[str]
    packets: list[str]
    node: str
    stream: str
    index: int
    header: str


@dataclass(frozen=True, slots=True)
class Bench:
    """Both sides."""

    stub: Any
    session: Session
    files: Files

    def sql(self, text: str, *values: object) -> pa.Table | None:
        """The answer to the expert's SQL, in which $entries and others stand for files."""
        given: list[object] = []
        waiting = list(values)
        for piece in text.replace("?", " ? ").split():
            word = piece.strip("(),")
            if word.startswith("$"):
                given.append(getattr(self.files, word[1:]))
            elif word == "?":
                given.append(waiting.pop(0))
        for name in ("entries", "streams", "packets"):
            text = text.replace(f"${name}", "read_parquet(?)")
        batches = list(self.session.rows(Sql(text, given, {})))
        return pa.Table.from_batches(batches) if batches else None


Side = Callable[[Bench], object]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of both; each side returns something of which both have the same amount."""

    name: str
    ours: Side
    expert: Side
    is_selective: bool = False


def _of(kfl: str = "") -> query_pb2.Question:
    return query_pb2.Question(kfl=f"{ALL} and {kfl}" if kfl else ALL)


def _rows(bench: Bench, kfl: str, **fields: Any) -> int:
    request = query_pb2.QueryRequest(
        kfl=f"{ALL} and {kfl}" if kfl else ALL, format=query_pb2.ENTRY_FORMAT_ARROW, **fields
    )
    return sum(
        sum(batch.num_rows for batch in pa.ipc.open_stream(part.arrow_ipc))
        for part in bench.stub.Query(request)
        if part.WhichOneof("part") == "arrow_ipc"
    )


def _export(bench: Bench, kfl: str) -> int:
    with Path(os.devnull).open("wb") as file:
        for part in bench.stub.Export(query_pb2.ExportRequest(kfl=f"{ALL} and {kfl}")):
            file.write(part.chunk)
    return int(part.summary.packets)


def _pcapng(found: pa.Table | None) -> int:
    """What someone writes who knows the format and Python."""
    if found is None:
        return 0
    interfaces: dict[str, int] = {}
    with Path(os.devnull).open("wb") as file:
        file.write(struct.pack("<IIIHHQI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, 2**64 - 1, 28))
        rows = zip(
            found["node_name"].to_pylist(),
            found["time"].cast(pa.int64()).to_pylist(),
            found["frame"].to_pylist(),
            found["original_length"].to_pylist(),
            strict=True,
        )
        for node, micros, frame, length in rows:
            number = interfaces.get(node)
            if number is None:
                number = interfaces[node] = len(interfaces)
                name = node.encode() + bytes(-len(node) % 4)
                total = 24 + len(name) + 4
                file.write(
                    struct.pack("<IIHHIHH", 1, total, 1, 0, 0, 2, len(node))
                    + name
                    + struct.pack("<II", 0, total)
                )
            pad = -len(frame) % 4
            total = 32 + len(frame) + pad
            head = (6, total, number, micros >> 32, micros & 0xFFFFFFFF, len(frame), length)
            file.write(struct.pack("<7I", *head) + frame + bytes(pad) + struct.pack("<I", total))
    return found.num_rows


SUMS = (
    "count(*), count(*) FILTER (WHERE response_status >= 500 OR error_type IS NOT NULL"
    " OR (protocol_name = 'dns' AND (response->>'$.code') <> 'NOERROR')"
    " OR (protocol_abbr = 'gRPC' AND CAST(response->>'$.grpcStatus' AS INT) <> 0)),"
    " sum(request_size), sum(response_size), quantile_disc(elapsed_us, [0.5, 0.9, 0.99])"
)
PEERS = ", ".join(
    f"CASE WHEN {side}_name <> '' THEN {side}_name ELSE {side}_ip END" for side in ("src", "dst")
)
PATH = "/api/checkout/status"
POD = "checkout-7c9f-3"
BY_HEADER = (
    "len(list_filter(request_headers, lambda h:"
    " lower(h.name) = 'x-request-id' AND h.value = ?)) > 0"
)
ONE = "stream = ? AND node_name = ?"
FRAMES = "SELECT node_name, time, frame, original_length FROM $packets"


def _entry(bench: Bench) -> int:
    files = bench.files
    answer = bench.stub.GetEntry(
        query_pb2.GetEntryRequest(id=f"{files.node}/{files.stream}-{files.index}", kfl=ALL)
    )
    return int(answer.packets.packets)


def _experts_entry(bench: Bench) -> int:
    files = bench.files
    one = (files.stream, files.node)
    found = bench.sql(f"SELECT * FROM $entries WHERE {ONE} AND index = {files.index}", *one)
    bench.sql(f"SELECT * FROM $streams WHERE {ONE}", *one)
    sums = bench.sql(
        "SELECT count(*) AS n, sum(original_length), sum(octet_length(frame)), min(time), max(time)"
        f" FROM $packets WHERE {ONE}",
        *one,
    )
    assert found is not None
    assert sums is not None
    found.to_pylist()
    return int(sums["n"][0].as_py())


def _count(bench: Bench, kfl: str = "response.status == 500") -> int:
    request = query_pb2.QueryRequest(kfl=f"{ALL} and {kfl}", format=query_pb2.ENTRY_FORMAT_COUNT)
    *_, last = bench.stub.Query(request)
    return int(last.status.entries)


def _size(table: pa.Table | None) -> int:
    return 0 if table is None else len(table.to_pylist())


QUESTIONS = (
    Asked(
        "count of `response.status == 500`",
        _count,
        lambda b: b.sql("SELECT count(*) FROM $entries WHERE response_status = 500")[0][0].as_py(),
    ),
    Asked(
        "p99 of a path by the minute",
        lambda b: len(
            b.stub.Histogram(
                query_pb2.HistogramRequest(
                    question=_of(f'http and request.path == "{PATH}"'), bucket_ms=60_000
                )
            ).buckets
        ),
        lambda b: _size(
            b.sql(
                "SELECT time_bucket(INTERVAL 1 MINUTE, start_time), count(*),"
                " quantile_disc(elapsed_us, 0.99) FROM $entries"
                " WHERE protocol_name = 'http' AND request_path = ? GROUP BY 1 ORDER BY 1",
                PATH,
            )
        ),
    ),
    Asked(
        "all calls of a pod, as Arrow",
        lambda b: _rows(b, f'src.pod.name == "{POD}"'),
        lambda b: (
            b.sql("SELECT * FROM $entries WHERE src_pod = ? ORDER BY start_time", POD).num_rows
        ),
    ),
    Asked(
        "the call with a header's value",
        lambda b: _rows(b, f'request.headers["X-Request-Id"] == "{b.files.header}"'),
        lambda b: (
            b.sql(
                f"SELECT * FROM $entries WHERE {BY_HEADER} ORDER BY start_time", b.files.header
            ).num_rows
        ),
    ),
    Asked(
        "last 100 whose body contains a word",
        lambda b: _rows(b, 'response.body.contains("failed")', limit=100, descending=True),
        lambda b: (
            b.sql(
                "SELECT * FROM $entries WHERE contains(response_body, 'failed')"
                " ORDER BY start_time DESC LIMIT 100"
            ).num_rows
        ),
    ),
    Asked(
        "last 100",
        lambda b: _rows(b, "", limit=100, descending=True),
        lambda b: b.sql("SELECT * FROM $entries ORDER BY start_time DESC LIMIT 100").num_rows,
        is_selective=True,
    ),
    Asked("an entry by its id, with its stream", _entry, _experts_entry, is_selective=True),
    Asked(
        "service map",
        lambda b: len(b.stub.ServiceMap(query_pb2.ServiceMapRequest(question=_of())).edges) > 0,
        lambda b: (
            _size(
                b.sql(
                    f"SELECT {PEERS}, src_namespace, dst_namespace, protocol_abbr, {SUMS}"
                    " FROM $entries GROUP BY ALL ORDER BY 6 DESC LIMIT 1001"
                )
            )
            > 0
        ),
    ),
    Asked(
        "histogram of everything",
        lambda b: len(
            b.stub.Histogram(query_pb2.HistogramRequest(question=_of(), bucket_ms=300_000)).buckets
        ),
        lambda b: _size(
            b.sql(
                f"SELECT time_bucket(INTERVAL 5 MINUTE, start_time), {SUMS} FROM $entries"
                " GROUP BY 1 ORDER BY 1"
            )
        ),
    ),
    Asked(
        "export of a stream",
        lambda b: _export(b, f'stream == "{b.files.stream}" and node.name == "{b.files.node}"'),
        lambda b: _pcapng(
            b.sql(f"{FRAMES} WHERE {ONE} ORDER BY time", b.files.stream, b.files.node)
        ),
        is_selective=True,
    ),
    Asked(
        "export of 1 %",
        lambda b: _export(b, "response.status == 500"),
        lambda b: _pcapng(
            b.sql(
                f"{FRAMES} WHERE (node_name, stream) IN (SELECT node_name, stream FROM $entries"
                " WHERE response_status = 500) ORDER BY time"
            )
        ),
    ),
)


def files() -> Files:
    """What the expert knows."""
    opened = Catalog(DATA).open(NAME)
    found = {name: list(map(str, opened.source(name).files)) for name in schema.TABLES}
    table = pq.read_table(found["packets"][0], columns=["stream", "node_name"])
    stream, node = (table[name][table.num_rows // 2].as_py() for name in table.column_names)
    row = pq.read_table(
        found["entries"][0],
        columns=["index", "request_headers"],
        filters=[("stream", "=", stream), ("node_name", "=", node)],
    )
    headers = {each["name"]: each["value"] for each in row["request_headers"][0].as_py()}
    # The newest file first: DuckDB then skips the others when the last entries are wanted.
    return Files(
        found["entries"][::-1],
        found["streams"],
        found["packets"],
        node,
        stream,
        row["index"][0].as_py(),
        headers["X-Request-Id"],
    )


def seconds(call: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of the process, and what the call gave."""
    begin = time.process_time()
    found = call()
    return time.process_time() - begin, found


def compare(bench: Bench, asked: Asked) -> tuple[float, float]:
    """Medians of both in CPU seconds."""
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.monotonic()
    for number in range(ROUNDS + 1):
        amounts = []
        for side, call in enumerate((asked.ours, asked.expert)):
            took, amount = seconds(lambda call=call: call(bench))
            amounts.append(amount)
            if number:
                times[side].append(took)
        assert amounts[0] == amounts[1], (asked.name, amounts)
        if times[0] and time.monotonic() - begin > ENOUGH_SECONDS:
            break
    return statistics.median(times[0]), statistics.median(times[1])


# ------------------------------------------------------------------------------ follow, tshark


def follow(stub: Any, folder: Path) -> float:
    """Median seconds from a batch on disk to the follower who has its entry."""
    run = layout.run(folder, "followed", 1)
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    Manifest(job="followed", run=1).save(run)
    journal = Journal(run, 1)
    template = pq.ParquetFile(files().entries[0]).read_row_group(0).slice(0, 1)
    sent: list[float] = []
    got: list[float] = []
    call = stub.Query(
        query_pb2.QueryRequest(
            kfl='record("followed")', follow=True, format=query_pb2.ENTRY_FORMAT_JSON
        )
    )

    def read() -> None:
        for part in call:
            if part.WhichOneof("part") == "json":
                got.append(time.monotonic())
                if len(got) == 30:
                    return

    reader = threading.Thread(target=read)
    reader.start()
    batch = template.select(schema.ENTRIES.names).cast(schema.ENTRIES).to_batches()[0]
    for number in range(30):
        time.sleep(0.1 + 0.013 * number)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema.ENTRIES) as writer:
            writer.write_batch(batch)
        part = Part("entries", 1, sink.getvalue().to_pybytes())
        journal.append(JournalRecord("agent", "node-1", number + 1, (part,)))
        journal.sync()
        sent.append(time.monotonic())
    reader.join(30)
    call.cancel()
    journal.close()
    shutil.rmtree(run.parent)
    return statistics.median(b - a for a, b in zip(sent, got, strict=True))


def tshark(bench: Bench) -> None:
    """CPU seconds of tshark and of ours, for the answers 500 of the packets that there are."""
    path = DATA / "all.pcapng"
    begin = time.monotonic()
    with path.open("wb") as file:
        until = filters._later(MINUTES)
        kfl = f'{ALL} and http and timestamp < timestamp("{until}")'
        for part in bench.stub.Export(query_pb2.ExportRequest(kfl=kfl)):
            file.write(part.chunk)
    print(f"exported {path.stat().st_size:,} octets in {time.monotonic() - begin:.0f} s")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = subprocess.run(
        [
            "tshark",
            "-r",
            path,
            "-Y",
            "http.response.code == 500",
            "-T",
            "fields",
            "-e",
            "frame.number",
        ],
        capture_output=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    theirs = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    kfl = f'response.status == 500 and timestamp < timestamp("{until}")'
    _count(bench, kfl)
    mine, count = seconds(lambda: _count(bench, kfl))
    print(
        f"tshark {theirs:.1f} s for {len(found.stdout.splitlines())}, ours {mine * 1000:.0f} ms for"
        f" {count}: {theirs / mine:.0f} times faster"
    )
    path.unlink()


MINUTES = 16


def main() -> None:
    record()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    engine = Engine(DATA, memory_limit_bytes=MEMORY_BYTES, threads=1)
    service = QueryService(Catalog(DATA), engine, 3600.0)
    server = serve("127.0.0.1:0", add_to(service))
    slow = []
    try:
        with engine.session(36000.0) as session, open_channel(server.address) as channel:
            stub = query_pb2_grpc.QueryServiceStub(channel)
            bench = Bench(stub, session, files())
            for number, asked in enumerate(QUESTIONS, 1):
                if ONLY and number not in ONLY:
                    continue
                mine, other = compare(bench, asked)
                print(
                    f"{number:2} {asked.name:38} {mine * 1000:8.0f} ms  expert"
                    f" {other * 1000:8.0f} ms  ratio {mine / other:.2f}",
                    flush=True,
                )
                if mine / other > GOAL or (asked.is_selective and mine > 0.1):
                    slow.append(f"{number} ({mine / other:.2f})")
            if not ONLY or 12 in ONLY:
                print(f"12 follow: {follow(stub, DATA) * 1000:.0f} ms")
            if os.environ.get("TSHARK"):
                tshark(bench)
    finally:
        service.close()
        server.stop(5.0)
        engine.close()
    print(f"above {GOAL}, or selective and above 100 ms: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
