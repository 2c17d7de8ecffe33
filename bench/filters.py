"""Filters over a recording of 10 million entries, against the SQL that an expert would write.

Both sides ask the same engine of the query service, on the same pinned core, in turns: how many
entries match, and the last 100 of them. Ours is the SQL of `services.query.plan` from the filter
and the recording's manifest; the expert's names the columns that it knows to decide, and the files.

Times are CPU seconds of the process, which other users of the machine hardly change.

BENCH_ROWS=500000 makes a smaller recording; it is made once and kept. ONLY_FILTER=2 measures one.
"""

import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

import kfl
from recordings import layout, schema, segments
from recordings.manifest import Manifest
from services.query import plan
from services.query.catalog import Catalog
from services.query.engine import Engine, Question, Session

ROWS = int(os.environ.get("BENCH_ROWS", "10_000_000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
ONLY = [int(number) for number in os.environ.get("ONLY_FILTER", "").split(",") if number]

FILE_ROWS = 62_500
"""Rows of a file: about what the writer makes of the entries of a minute."""
BLOCKS = 8
"""Different blocks of rows; they come again with later times."""
START_NS = 1_767_225_600_123_456_789
MINUTE_NS = 60_000_000_000
MEMORY_BYTES = 4 << 30
LAST = 100
GOAL = 1.2
ENOUGH_SECONDS = 45.0
"""After so long, and three runs of each, a question is measured no more."""

NAME = "filters"
DATA = Path(os.environ.get("BENCH_DATA", ".cache/bench")).absolute() / f"filters-{ROWS}"

# ------------------------------------------------------------------------------ the recording

SERVICES = [
    *("checkout", "cart", "catalogue", "payment", "shipping", "frontend", "orders", "users"),
    *("kube-prometheus-stack-prometheus-node-exporter", "recommendation", "email", "currency"),
]
AGENTS = ["kube-probe/1.27+", "Go-http-client/1.1", "python-requests/2.31.0", "okhttp/4.12.0"] + [
    f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{version}.0 Safari/537.36"
    for version in range(100, 136)
]
PATHS = [
    f"/api/{service}/{what}"
    for service in SERVICES
    for what in ("list", "search", "status", "items/%d", "items/%d/price", "users/%d/orders")
]
REQUEST_HEADERS = [
    *("Host", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Content-Type"),
    *("Content-Length", "Connection", "Authorization", "X-Request-Id", "X-Forwarded-For"),
    *("X-Forwarded-Proto", "Traceparent", "Cache-Control", "Cookie"),
]
RESPONSE_HEADERS = [
    *("Content-Type", "Content-Length", "Date", "Server", "Cache-Control", "Vary", "ETag"),
    *("X-Content-Type-Options", "X-Frame-Options", "Strict-Transport-Security", "Connection"),
    *("X-Request-Id", "X-Envoy-Upstream-Service-Time", "Via", "Set-Cookie"),
]


class Block:
    """Rows of one file, in the order of arrival, beginning at 0 ns."""

    def __init__(self, number: int) -> None:
        self._random = np.random.default_rng(number)
        self._columns: dict[str, pa.Array] = {}
        kinds = self._random.choice(4, FILE_ROWS, p=[0.8, 0.12, 0.05, 0.03])
        self._kinds = kinds
        self._is_http = kinds == 0
        names = np.array(["http", "dns", "redis", "kafka"], object)[kinds]
        sources = self._pick(SERVICES)
        targets = self._pick(SERVICES)
        times = np.sort(self._random.integers(0, MINUTE_NS, FILE_ROWS))
        elapsed = self._random.gamma(2.0, 12_000.0, FILE_ROWS).astype(np.int64)
        # A call comes into the recording when it ends.
        order = np.argsort(times + elapsed * 1000, kind="stable")
        self.times = times[order]
        self._text("stream", [f"{n:016x}" for n in self._random.integers(0, 2**60, FILE_ROWS)])
        self._set("index", self._random.integers(0, 40, FILE_ROWS))
        self._text("node_name", self._pick([f"node-{n}" for n in range(12)]))
        self._text("node_ip", self._pick([f"10.0.0.{n}" for n in range(12)]))
        self._text("protocol_name", names)
        self._text("protocol_version", np.where(self._is_http, "1.1", ""))
        self._text("protocol_abbr", np.char.upper(names.astype(str)))
        self._text("transport", np.where(kinds == 1, "udp", "tcp"))
        self._set("tls", np.zeros(FILE_ROWS, np.bool_))
        for side, peers in (("src", sources), ("dst", targets)):
            self._text(f"{side}_ip", self._pick([f"10.244.{n // 250}.{n}" for n in range(1500)]))
            self._set(f"{side}_port", self._random.integers(1024, 65536, FILE_ROWS))
            self._text(f"{side}_name", peers)
            self._text(f"{side}_namespace", self._pick(["shop", "monitoring", "default"]))
            self._text(f"{side}_pod", [f"{peer}-7c9f-{n % 9}" for n, peer in enumerate(peers)])
            self._text(f"{side}_service", peers)
            self._text(f"{side}_labels", [f'{{"app":"{peer}"}}' for peer in peers])
        self._set("elapsed_us", elapsed[order])
        self._set("request_size", self._random.integers(60, 2000, FILE_ROWS))
        self._set("response_size", self._random.integers(60, 9000, FILE_ROWS))
        self._messages(targets)

    def table(self, begin_ns: int) -> pa.Table:
        times = pa.array(self.times + begin_ns).cast(schema.TIMESTAMP)
        columns = {"start_time": times, **self._columns}
        return pa.table(
            [
                columns.get(each.name, pa.nulls(FILE_ROWS, each.type)).cast(each.type)
                for each in schema.ENTRIES
            ],
            schema=schema.ENTRIES,
        )

    def _pick(self, values: Sequence[str]) -> np.ndarray:
        return np.array(values, object)[self._random.integers(0, len(values), FILE_ROWS)]

    def _set(self, name: str, values: np.ndarray, mask: np.ndarray | None = None) -> None:
        self._columns[name] = pa.array(values, mask=mask)

    def _text(
        self, name: str, values: Sequence[str] | np.ndarray, mask: np.ndarray | None = None
    ) -> None:
        self._columns[name] = pa.array(np.asarray(values, object), pa.string(), mask=mask)

    def _messages(self, hosts: np.ndarray) -> None:
        no_http = ~self._is_http
        numbers = self._random.integers(0, 5000, FILE_ROWS)
        paths = [
            path % number if "%d" in path else path
            for path, number in zip(self._pick(PATHS), numbers, strict=True)
        ]
        urls = [
            f"{path}?page={n}" if n % 3 else path for path, n in zip(paths, numbers, strict=True)
        ]
        methods = self._random.choice(
            ["GET", "POST", "PUT", "DELETE"], FILE_ROWS, p=[0.7, 0.2, 0.06, 0.04]
        )
        statuses = self._random.choice(
            [200, 201, 204, 302, 404, 500, 503],
            FILE_ROWS,
            p=[0.8, 0.07, 0.05, 0.03, 0.035, 0.01, 0.005],
        )
        self._text("request_method", methods, no_http)
        self._text("request_url", urls, no_http)
        self._text("request_path", paths, no_http)
        self._set("response_status", statuses, no_http)
        self._text("response_status_text", np.array(["OK"] * FILE_ROWS), no_http)
        self._headers("request", REQUEST_HEADERS, {"Host": hosts, "User-Agent": self._pick(AGENTS)})
        self._headers("response", RESPONSE_HEADERS, {})
        bodies = [
            f'{{"id":{number},"state":"{"failed" if number % 100 == 0 else "done"}"}}'
            for number in numbers
        ]
        for side, share in (("request", 0.2), ("response", 0.5)):
            has_body = self._random.random(FILE_ROWS) < share
            self._text(f"{side}_http_version", np.array(["HTTP/1.1"] * FILE_ROWS), no_http)
            self._set(f"{side}_headers_size", self._random.integers(300, 900, FILE_ROWS), no_http)
            self._set(f"{side}_body_size", np.where(has_body, 30, 0), no_http)
            self._text(f"{side}_body", np.where(has_body, bodies, ""), no_http)
            self._set(f"{side}_body_base64", np.zeros(FILE_ROWS, np.bool_), no_http)
            self._set(f"{side}_body_truncated", np.zeros(FILE_ROWS, np.bool_), no_http)
            made = [
                self._json(side, kind, number)
                for kind, number in zip(self._kinds, numbers, strict=True)
            ]
            self._text(side, made, self._is_http)

    def _json(self, side: str, kind: int, number: int) -> str:
        host = f"{SERVICES[number % 12]}.shop.svc.cluster.local"
        command = ("GET", "SET", "HGETALL", "EXPIRE")[number % 4]
        api = ("Fetch", "Produce", "Metadata")[number % 3]
        if side == "request":
            return (
                "",
                f'{{"id":{number},"opcode":"QUERY","questions":'
                f'[{{"name":"{host}","type":"A","class":"IN"}}]}}',
                f'{{"type":"Array","command":"{command}","key":"session:{number}"}}',
                f'{{"apiKeyName":"{api}","apiVersion":7,"clientID":"client-{number % 30}",'
                f'"correlationID":{number}}}',
            )[kind]
        return (
            "",
            f'{{"id":{number},"code":"NOERROR","answers":[{{"name":"{host}","type":"A",'
            f'"ttl":30,"ip":"10.96.0.{number % 250}"}}]}}',
            f'{{"type":"Bulk String","value":"{number * 7919}"}}',
            f'{{"correlationID":{number}}}',
        )[kind]

    def _headers(self, side: str, names: list[str], given: dict[str, np.ndarray]) -> None:
        """Most values are few; ids are another one for each call."""
        width = len(names)
        values = np.empty((FILE_ROWS, width), object)
        for place, name in enumerate(names):
            if name in given:
                values[:, place] = given[name]
            elif name in ("X-Request-Id", "Traceparent", "ETag"):
                ids = self._random.integers(0, 2**63, FILE_ROWS)
                values[:, place] = [f"{n:016x}-{n % 9973:08x}" for n in ids]
            else:
                values[:, place] = self._pick([f"{name}: value number {n}" for n in range(60)])
        rows = np.flatnonzero(self._is_http)
        structs = pa.StructArray.from_arrays(
            [
                pa.array(np.tile(np.array(names, object), len(rows)), pa.string()),
                pa.array(values[rows].ravel(), pa.string()),
            ],
            ["name", "value"],
        )
        ends = np.concatenate([[0], np.cumsum(self._is_http) * width]).astype(np.int32)
        offsets = pa.array(ends, mask=np.append(~self._is_http, False))
        self._columns[f"{side}_headers"] = pa.ListArray.from_arrays(offsets, structs)


def record() -> None:
    """Make the recording, unless it is there."""
    folder = layout.run(DATA, NAME, 1)
    if (folder / layout.MANIFEST).exists():
        return
    shutil.rmtree(DATA, ignore_errors=True)
    folder.mkdir(parents=True)
    begin = time.perf_counter()
    blocks = [Block(number) for number in range(min(BLOCKS, max(1, ROWS // FILE_ROWS)))]
    written = []
    for number in range(max(1, ROWS // FILE_ROWS)):
        table = blocks[number % len(blocks)].table(START_NS + number * MINUTE_NS)
        written.append(segments.write(folder, "entries", table.to_batches(8192), number + 1))
    rows = sum(each.rows for each in written)
    Manifest(job=NAME, run=1, segments=tuple(written), counts={"entries": rows}).save(folder)
    size = sum(each.bytes for each in written)
    print(
        f"made {rows:,} entries in {len(written)} files, {size / 2**20:,.0f} MiB, "
        f"in {time.perf_counter() - begin:.0f} s"
    )


# ------------------------------------------------------------------------------ questions


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of both."""

    kfl: str
    sql: str
    """The expert's condition."""
    values: list[object] = field(default_factory=list)


def _later(minutes: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(START_NS // 10**9 + minutes * 60))


def _agent(test: str) -> str:
    """The expert knows that a name hardly comes twice."""
    return (
        f"len(list_filter(request_headers, lambda h: lower(h.name) = 'user-agent' AND {test})) > 0"
    )


PROBE = "kube-probe/1.27+"
NODE_EXPORTER = "kube-prometheus-stack-prometheus-node-exporter"
FROM, TO = _later(3), _later(5)

QUESTIONS = (
    Asked("response.status == 500", "response_status = 500"),
    Asked(
        'http and request.path.startsWith("/api/checkout/items/1")',
        "protocol_name = 'http' AND starts_with(request_path, ?)",
        ["/api/checkout/items/1"],
    ),
    Asked(
        'src.name == "checkout" and response.status in [500, 503]',
        "src_name = ? AND response_status IN (500, 503)",
        ["checkout"],
    ),
    Asked('request.headers["User-Agent"] == "kube-probe/1.27+"', _agent("h.value = ?"), [PROBE]),
    Asked(
        'request.headers["User-Agent"] == r"Chrome/13[0-9]"',
        _agent("regexp_matches(h.value, ?)"),
        ["Chrome/13[0-9]"],
    ),
    Asked(
        'request.method == "DELETE" and request.path == "/api/cart/status"',
        "request_method = ? AND request_path = ?",
        ["DELETE", "/api/cart/status"],
    ),
    Asked("elapsedTime > 100", "elapsed_us >= 101000"),
    Asked(
        'dns and request.questions.*.name == "cart.shop.svc.cluster.local"',
        "protocol_name = 'dns' AND list_contains(request->>'$.questions[*].name', ?)",
        ["cart.shop.svc.cluster.local"],
    ),
    Asked(
        'redis and request.command == "GET"',
        "protocol_name = 'redis' AND (request->>'$.command') = ?",
        ["GET"],
    ),
    Asked(
        'response.body.contains("failed")',
        "contains(response_body, ?)",
        ["failed"],
    ),
    Asked(
        f'timestamp >= timestamp("{FROM}") and timestamp < timestamp("{TO}")'
        " and response.status == 500",
        f"start_time >= '{FROM}' AND start_time < '{TO}' AND response_status = 500",
    ),
    Asked(
        f'(response.status == 500) and (request.headers["User-Agent"] == "{PROBE}")'
        f' and (src.name == "{NODE_EXPORTER}")',
        f"response_status = 500 AND src_name = ? AND {_agent('h.value = ?')}",
        [NODE_EXPORTER, PROBE],
    ),
)


def ours(asked: Asked, source: plan.Source) -> tuple[Question, Question]:
    """The questions of the query service; the count is over the rows that it would look at."""
    statement = kfl.compile(f'record("{NAME}") and {asked.kfl}')
    planned = plan.entries(statement, [source], descending=True)
    assert planned.is_exact, asked.kfl
    sql = planned.question.sql
    inner = sql[: sql.rindex(" ORDER BY ")]
    counted = Question(
        f"SELECT count(*) FROM ({inner})", planned.question.parameters, planned.question.tables
    )
    last = plan.entries(statement, [source], descending=True, limit=LAST).question
    return counted, last


def experts(asked: Asked, files: list[str]) -> tuple[Question, Question]:
    """What someone who knows DuckDB and the schema would type.

    The newest file first, since DuckDB then skips the others; in their own order, the last entries
    take as long as reading everything.
    """
    scan = f"FROM read_parquet(?) WHERE {asked.sql}"
    last = f"SELECT * {scan} ORDER BY start_time DESC LIMIT {LAST}"
    return (
        Question(f"SELECT count(*) {scan}", [files, *asked.values], {}),
        Question(last, [files[::-1], *asked.values], {}),
    )


def seconds(session: Session, question: Question) -> tuple[float, list[pa.RecordBatch]]:
    """CPU seconds of the process, which the machine's other users hardly change; the answer."""
    begin = time.process_time()
    batches = list(session.rows(question))
    return time.process_time() - begin, batches


def measure(session: Session, mine: Question, theirs: Question) -> tuple[list[float], list[float]]:
    """Seconds of both, in turns, after one run of each that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    begin = time.monotonic()
    for number in range(ROUNDS + 1):
        for side, question in enumerate((mine, theirs)):
            took, _ = seconds(session, question)
            if number:
                times[side].append(took)
        if len(times[0]) >= 3 and time.monotonic() - begin > ENOUGH_SECONDS:
            break
    return times


def _spread(times: list[float]) -> str:
    low, high = min(times), max(times)
    return f"{statistics.median(times) * 1000:8.0f} ms ({low * 1000:.0f} to {high * 1000:.0f})"


def compare(session: Session, asked: Asked, source: plan.Source) -> list[str]:
    """Measure one question and print it; return the parts that are slower than the goal."""
    begin = time.process_time()
    mine = ours(asked, source)
    planning = (time.process_time() - begin) / 2
    theirs = experts(asked, [str(path) for path in source.files])
    answers = [seconds(session, each[0])[1][0].column(0)[0].as_py() for each in (mine, theirs)]
    assert answers[0] == answers[1], (asked.kfl, answers)
    print(f"   {answers[0]:,} entries match; planned in {planning * 1000:.0f} ms")
    slow = []
    for what, one, other in zip(("count", "last"), mine, theirs, strict=True):
        my_times, their_times = measure(session, one, other)
        ratio = statistics.median(my_times) / statistics.median(their_times)
        both = f"{_spread(my_times)}  expert {_spread(their_times)}"
        print(f"   {what:5} {both}  ratio {ratio:.2f}", flush=True)
        if ratio > GOAL:
            slow.append(f"{what} {ratio:.2f}")
    return slow


def main() -> None:
    record()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    source = Catalog(DATA).open(NAME).source("entries")
    engine = Engine(DATA, memory_limit_bytes=MEMORY_BYTES, threads=1)
    print(f"{source.rows:,} entries in {len(source.files)} files; medians of {ROUNDS}, one core")
    slow = []
    try:
        with engine.session(3600.0) as session:
            for number, asked in enumerate(QUESTIONS, 1):
                if not ONLY or number in ONLY:
                    print(f"{number:2} {asked.kfl}")
                    slow += [f"{number} {what}" for what in compare(session, asked, source)]
    finally:
        engine.close()
    print(f"above {GOAL}: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
