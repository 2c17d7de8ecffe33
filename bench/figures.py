"""Questions beside rows over a recording of 10 million entries, against an expert's SQL.

Both sides ask an engine of the same settings, on the same pinned core, in turns. Ours is the whole
call of the query service over loopback; the expert's is what someone who knows DuckDB and these
columns would type, over the files.
Times are CPU seconds of the process, which other users of the machine hardly change. The recording
is that of bench/filters.py, with the same BENCH_ROWS; ONLY_QUESTION=2 measures one.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recorder.v1 import query_pb2, query_pb2_grpc

sys.path.insert(0, str(Path(__file__).parent))
from filters import DATA, MEMORY_BYTES, NAME, record

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

FAILED = (
    "(response_status >= 500 OR error_type IS NOT NULL"
    " OR (protocol_name = 'dns' AND (response->>'$.code') <> 'NOERROR')"
    " OR (protocol_abbr = 'gRPC' AND CAST(response->>'$.grpcStatus' AS INT) <> 0))"
)
SUMS = (
    f"count(*), count(*) FILTER (WHERE {FAILED}), sum(request_size), sum(response_size),"
    " quantile_disc(elapsed_us, [0.5, 0.9, 0.99])"
)
TOP = "GROUP BY 1 ORDER BY 2 DESC LIMIT 11"
PEERS = ", ".join(
    f"CASE WHEN {side}_name <> '' THEN {side}_name ELSE {side}_ip END" for side in ("src", "dst")
)
AGENT = "list_filter(request_headers, lambda h: lower(h.name) = 'user-agent')[1].value"
ALL = f'record("{NAME}")'


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of both."""

    name: str
    request: Any
    sql: str
    times: int = 1
    """How often the expert asks."""


def _of(kfl: str) -> query_pb2.Question:
    return query_pb2.Question(kfl=kfl)


def _top(of: str, kfl: str = ALL) -> query_pb2.TopRequest:
    return query_pb2.TopRequest(question=_of(kfl), field=of)


SCAN = "FROM read_parquet(?)"
DIMENSIONS = (
    "SELECT *, request_method || ' ' || request_path AS path, response_status AS status,"
    " concat(src_name, '.', src_namespace, ' → ', dst_name, '.', dst_namespace) AS peers"
)
SIDE = query_pb2.Side(question=_of(ALL))

QUESTIONS = (
    Asked(
        "Histogram",
        query_pb2.HistogramRequest(question=_of(ALL), bucket_ms=300_000),
        f"SELECT time_bucket(INTERVAL 5 MINUTE, start_time), {SUMS} {SCAN} GROUP BY 1 ORDER BY 1",
    ),
    Asked(
        "Histogram",
        query_pb2.HistogramRequest(
            question=_of(f"{ALL} and http and response.status >= 500"), bucket_ms=300_000
        ),
        f"SELECT time_bucket(INTERVAL 5 MINUTE, start_time), {SUMS} {SCAN}"
        " WHERE protocol_name = 'http' AND response_status >= 500 GROUP BY 1 ORDER BY 1",
    ),
    Asked(
        "Histogram by response.status",
        query_pb2.HistogramRequest(question=_of(ALL), bucket_ms=300_000, by="response.status"),
        f"WITH top AS (SELECT response_status AS s, count(*) {SCAN} WHERE response_status IS NOT"
        " NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 5)"
        " SELECT time_bucket(INTERVAL 5 MINUTE, start_time),"
        f" CASE WHEN response_status IN (SELECT s FROM top) THEN response_status END, {SUMS} {SCAN}"
        " GROUP BY 1, 2 ORDER BY 1",
    ),
    Asked(
        "Top response.status",
        _top("response.status"),
        f"SELECT response_status, {SUMS} {SCAN} {TOP}",
    ),
    Asked("Top src.name", _top("src.name"), f"SELECT src_name, {SUMS} {SCAN} {TOP}"),
    Asked("Top request.path", _top("request.path"), f"SELECT request_path, {SUMS} {SCAN} {TOP}"),
    Asked(
        'Top request.headers["User-Agent"]',
        _top('request.headers["User-Agent"]'),
        f"SELECT {AGENT}, {SUMS} {SCAN} {TOP}",
    ),
    Asked(
        "Top request.command",
        _top("request.command", f"{ALL} and redis"),
        f"SELECT request->>'$.command', {SUMS} {SCAN} WHERE protocol_name = 'redis' {TOP}",
    ),
    Asked(
        "Top request.questions.*.name",
        _top("request.questions.*.name", f"{ALL} and dns"),
        f"SELECT name, {SUMS} FROM (SELECT *, unnest(request->>'$.questions[*].name') AS name"
        f" {SCAN} WHERE protocol_name = 'dns') {TOP}",
    ),
    Asked(
        "ServiceMap",
        query_pb2.ServiceMapRequest(question=_of(ALL)),
        f"SELECT {PEERS}, src_namespace, dst_namespace, protocol_abbr, {SUMS} {SCAN}"
        " GROUP BY ALL ORDER BY 6 DESC LIMIT 1001",
    ),
    Asked(
        "Connections",
        query_pb2.ConnectionsRequest(question=_of(f'{ALL} and src.name == "cart" and redis')),
        "SELECT node_name, stream, any_value(transport), list(DISTINCT protocol_abbr),"
        " first(src_name), first(src_ip), first(src_port), first(dst_name), first(dst_ip),"
        " first(dst_port), min(start_time), max(start_time + to_microseconds(elapsed_us)),"
        f" {SUMS} {SCAN} WHERE src_name = 'cart' AND protocol_name = 'redis' GROUP BY 1, 2"
        " ORDER BY sum(request_size) + sum(response_size) DESC LIMIT 101",
    ),
    Asked(
        "Diff",
        query_pb2.DiffRequest(before=SIDE, after=SIDE),
        f"SELECT path, status, peers, {SUMS} FROM ({DIMENSIONS} {SCAN})"
        " GROUP BY GROUPING SETS ((path), (status), (peers)) ORDER BY 4 DESC LIMIT 20001",
        times=2,
    ),
)


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of the process."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def measure(mine: Callable[[], object], theirs: Callable[[], object]) -> tuple[list[float], ...]:
    """Seconds of both, in turns, after one run of each that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.monotonic()
    for number in range(ROUNDS + 1):
        for side, call in enumerate((mine, theirs)):
            took = seconds(call)
            if number:
                times[side].append(took)
        if len(times[0]) >= 2 and time.monotonic() - begin > ENOUGH_SECONDS:
            break
    return times


def compare(stub: Any, session: Session, asked: Asked, files: list[str]) -> float:
    """Measure one question and print it; return the ratio."""
    rpc = getattr(stub, type(asked.request).__name__.removesuffix("Request"))
    sql = Sql(asked.sql, [files] * asked.sql.count("read_parquet(?)"), {})

    def theirs() -> None:
        for _ in range(asked.times):
            for batch in session.rows(sql):
                batch.to_pylist()

    my_times, their_times = measure(lambda: rpc(asked.request), theirs)
    mine, other = statistics.median(my_times), statistics.median(their_times)
    print(
        f"   {mine * 1000:8.0f} ms  expert {other * 1000:8.0f} ms  ratio {mine / other:.2f}",
        flush=True,
    )
    return mine / other


def main() -> None:
    record()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    catalog = Catalog(DATA)
    source = catalog.open(NAME).source("entries")
    files = [str(path) for path in source.files]
    engine = Engine(DATA, memory_limit_bytes=MEMORY_BYTES, threads=1)
    service = QueryService(catalog, engine, 3600.0)
    server = serve("127.0.0.1:0", add_to(service))
    print(f"{source.rows:,} entries in {len(files)} files; medians of {ROUNDS}, one core")
    slow = []
    try:
        with engine.session(36000.0) as session, open_channel(server.address) as channel:
            stub = query_pb2_grpc.QueryServiceStub(channel)
            for number, asked in enumerate(QUESTIONS, 1):
                if not ONLY or number in ONLY:
                    print(f"{number:2} {asked.name}")
                    ratio = compare(stub, session, asked, files)
                    if ratio > GOAL:
                        slow.append(f"{number} {ratio:.2f}")
    finally:
        service.close()
        server.stop(5.0)
        engine.close()
    print(f"above {GOAL}: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
