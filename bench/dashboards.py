"""Fifty dashboards at once before one query process: what fails, how long they wait, its memory.

The recording is that of bench/questions.py. A dashboard has four panels of the last quarter of an
hour, which it asks for at once, over a connection of its own, and again when all are there.
"""

import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import query_pb2, query_pb2_grpc

sys.path.insert(0, str(Path(__file__).parent))
import questions

from services.query.catalog import Catalog
from services.runtime.channel import open_channel

DASHBOARDS = int(os.environ.get("BENCH_DASHBOARDS", "50"))
REFRESHES = int(os.environ.get("BENCH_ROUNDS", "2"))
MINUTES = 15
GOAL_MIB = 1024


def asked(start_ns: int, kfl: str = questions.ALL) -> query_pb2.Question:
    start = Timestamp()
    # A browser's times are in milliseconds; nanoseconds are looked at one by one.
    start.FromMilliseconds(start_ns // 10**6)
    return query_pb2.Question(kfl=kfl, start_time=start)


def panels(stub: Any, start_ns: int) -> list[Callable[[], object]]:
    """What a dashboard asks."""
    every = asked(start_ns)
    failed = query_pb2.QueryRequest(
        kfl=f"{questions.ALL} and response.status >= 500",
        start_time=every.start_time,
        limit=100,
        descending=True,
        format=query_pb2.ENTRY_FORMAT_JSON,
    )
    return [
        lambda: stub.Histogram(
            query_pb2.HistogramRequest(question=every, bucket_ms=15_000, by="response.status")
        ),
        lambda: stub.Top(query_pb2.TopRequest(question=every, field="request.path")),
        lambda: stub.ServiceMap(query_pb2.ServiceMapRequest(question=every)),
        lambda: list(stub.Query(failed)),
    ]


def watch(address: str, start_ns: int, times: list[float], wrong: list[str]) -> None:
    """Be a dashboard."""
    with open_channel(address) as channel, ThreadPoolExecutor(4) as pool:
        stub = query_pb2_grpc.QueryServiceStub(channel)
        for _ in range(REFRESHES):
            begin = time.monotonic()
            for panel in [pool.submit(ask) for ask in panels(stub, start_ns)]:
                try:
                    panel.result()
                except grpc.RpcError as error:
                    wrong.append(f"{error.code().name}: {error.details()}")
            times.append(time.monotonic() - begin)


def most_mib(pid: int) -> float:
    """Most resident memory that a process has had, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    questions.record()
    last = max(
        last for _, last in Catalog(questions.DATA).open(questions.NAME).source("entries").times
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-m", "services.cli.main", "query", "--listen", address]
    process = subprocess.Popen([*command, "--data", str(questions.DATA)], stderr=subprocess.DEVNULL)
    try:
        with open_channel(address) as channel:
            grpc.channel_ready_future(channel).result(60)
        times: list[float] = []
        wrong: list[str] = []
        arguments = (address, last - MINUTES * 60 * 10**9, times, wrong)
        threads = [threading.Thread(target=watch, args=arguments) for _ in range(DASHBOARDS)]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begin
        print(
            f"{DASHBOARDS} dashboards, {DASHBOARDS * REFRESHES * 4} questions in {took:.1f} s, "
            f"{len(wrong)} errors; all four panels after {statistics.median(times):.1f} s, "
            f"at most {max(times):.1f} s; {most_mib(process.pid):.0f} MiB (at most {GOAL_MIB})"
        )
        for each in sorted(set(wrong)):
            print(f"  {each}")
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
