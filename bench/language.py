"""How fast filters are: the reference over one entry of 3 KB, and columns over a batch.

python bench/language.py
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import kfl

SHORT = "http and response.status == 500"

SEED = (
    '(response.status == 500) and (request.headers["User-Agent"] == "kube-probe/1.27+")'
    ' and (src.name == "kube-prometheus-stack-prometheus-node-exporter")'
)
"""The filter of the product's own example."""

GOALS = {SHORT: 1_000_000, SEED: 300_000}
"""Entries a second on one core."""

FILTERS = (
    SHORT,
    SEED,
    "dns",
    'request.headers["user-agent"] == "kube-probe/1.27+"',
    'request.headers["X-Missing"] == "a"',
    'request.headers["User-Agent"] == r"^kube"',
    'src.name == "checkout" and response.status in [500, 502, 503]',
    'request.path.startsWith("/api/") and not (status_code == 200)',
    "response.body.json().items.*.price > 100",
)

ROWS = 4096

ROUNDS = 7

ENTRY = {
    "id": "node-1/8f3a-4",
    "index": 4,
    "stream": "8f3a",
    "node": {"name": "node-1", "ip": "10.0.0.7"},
    "protocol": {"name": "http", "version": "1.1", "abbr": "HTTP"},
    "transport": "tcp",
    "tls": False,
    "src": {
        "ip": "10.244.0.9",
        "port": 45168,
        "name": "kube-prometheus-stack-prometheus-node-exporter",
    },
    "dst": {"ip": "10.96.0.50", "port": 80, "name": "cart"},
    "timestamp": 1763853120123,
    "request": {
        "method": "GET",
        "url": "/api/cart?id=7",
        "path": "/api/cart",
        "headers": {
            "Host": "cart",
            **{f"X-{n}": "v" * 32 for n in range(10)},
            "User-Agent": "kube-probe/1.27+",
            **{f"Y-{n}": "v" * 32 for n in range(10)},
        },
        "body": "",
    },
    "response": {
        "status": 500,
        "headers": {"Content-Type": "application/json"},
        "body": '{"items": [' + ", ".join(f'{{"price": {n}}}' for n in range(75)) + "]}",
    },
    "error": None,
}


def rounds(run: Callable[[], object], seconds: float = 0.3) -> list[float]:
    """Runs a second in each round, ascending."""
    found = []
    for _ in range(ROUNDS):
        count, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            for _ in range(100):
                run()
            count += 100
        found.append(count / took)
    return sorted(found)


def shown(rates: list[float], factor: int = 1) -> str:
    """The median, and from the slowest round to the quickest."""
    slowest, middle, quickest = rates[0], statistics.median(rates), rates[-1]
    return (
        f"{middle * factor:13,.0f}  ({slowest * factor:,.0f} to {quickest * factor:,.0f})"
    ).ljust(50)


def main() -> None:
    start = time.perf_counter()
    code = "import time; t = time.perf_counter(); import kfl; print(time.perf_counter() - t)"
    took = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(f"import kfl           {float(took.stdout) * 1000:8.1f} ms")
    start = time.perf_counter()
    kfl.compile(SHORT)
    print(f"first compile        {(time.perf_counter() - start) * 1000:8.1f} ms")
    for text in (SHORT, SEED):
        print(f"compile/s  {shown(rounds(lambda text=text: kfl.compile(text), 0.1))}{text[:60]}")
    size = len(json.dumps(ENTRY))
    print(f"matches, entries of {size:,} octets a second on one core:")
    for text in FILTERS:
        matches = kfl.compile(text).matches
        rates = rounds(lambda matches=matches: matches(ENTRY))
        goal = GOALS.get(text)
        verdict = "" if goal is None else f"  goal {goal:,}: {statistics.median(rates) / goal:.1f}x"
        print(f"{shown(rates)}{text[:60]}{verdict}")
    columns = {
        "protocol_name": np.full(ROWS, "http", object),
        "response_status": np.full(ROWS, 200, np.int64),
        "request_path": np.array([f"/api/{n % 50}" for n in range(ROWS)], object),
        "src_name": np.full(ROWS, "checkout", object),
    }
    print("columns, rows a second on one core:")
    for text in FILTERS:
        compiled = kfl.compile(text)
        rates = rounds(lambda compiled=compiled: compiled.columns(columns, ROWS), 0.1)
        print(f"{shown(rates, ROWS)}{text[:60]}")


if __name__ == "__main__":
    main()
