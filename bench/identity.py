"""What names of addresses cost: memory, time after a start, CPU while a cluster changes, lookups.

An API server of our own, in a process of its own, has 10,000 pods with 500 services, and 200
times a second a pod goes or another one gets its address. Watcher and names are an agent's. Lookups
are in time of the processor.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from services.capture.identity.names import Names
from services.capture.identity.peers import Ends, Peers
from services.capture.identity.watcher import open_watcher
from tests.apiserver import ApiServer, endpoints, node, pod, service

PODS = int(os.environ.get("BENCH_PODS", "10000"))
CHANGES = int(os.environ.get("BENCH_CHANGES", "200"))
"""Of pods, each second: half of them end, and half begin."""
SECONDS = float(os.environ.get("BENCH_SECONDS", "20"))
SERVICES = 500
NODES = 100
CALLS = 2048
"""Of a batch."""
LABELS = {"app.kubernetes.io/name": "shop", "app.kubernetes.io/instance": "shop-production"}
FILLER = [{"name": f"VARIABLE_{n}", "value": "x" * 40} for n in range(60)]
"""So that a pod is as large as real ones are: 7 KB."""


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def made(number: int, generation: int) -> dict:
    labels = LABELS | {"pod-template-hash": f"{number:x}"}
    where = {"host": f"172.16.0.{number % NODES}", "node": f"node-{number % NODES}"}
    name, namespace = f"shop-{number}-{generation}", f"team-{number % 50}"
    found = pod(name, address(number), namespace, labels=labels, **where)
    found["spec"]["containers"][0]["env"] = FILLER
    return found


def serve(told: Connection, path: Path) -> None:
    """Be the API server: fill it, then change it when asked to."""
    api = ApiServer()
    pods = {number: made(number, 0) for number in range(PODS)}
    for number in range(NODES):
        api.put("nodes", node(f"node-{number}", f"172.16.0.{number}"))
    for each in pods.values():
        api.put("pods", each)
    for number in range(SERVICES):
        api.put("services", service(f"service-{number}", f"10.200.{number >> 8}.{number & 255}"))
        behind = [pods[each] for each in range(number, PODS, SERVICES)]
        api.put("endpointslices", endpoints(f"slice-{number}", f"service-{number}", *behind))
    for kind in api.events:
        api.events[kind].clear()  # a list tells of these
    api.forgotten = 0
    api.start().kubeconfig(path)
    told.send(True)
    told.recv()
    begin, changed = time.monotonic(), 0
    while not told.poll():
        due = int((time.monotonic() - begin) * CHANGES) - changed
        for _ in range(max(0, due) // 2):
            number = changed // 2 % PODS
            api.delete("pods", pods[number])
            pods[number] = made(number, 1 + changed // 2 // PODS)
            api.put("pods", pods[number])
            changed += 2
        time.sleep(0.01)
    told.send(changed)
    api.stop()


def resident() -> float:
    """MiB of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> None:
    context = multiprocessing.get_context("spawn")
    told, teller = context.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kubeconfig"
        server = context.Process(target=serve, args=(teller, path))
        server.start()
        told.recv()
        measure(told, path)
        server.join()


def measure(told: Connection, path: Path) -> None:
    before, cpu = resident(), time.process_time()
    names = Names()
    watcher = open_watcher(str(path), "node-1")
    watcher.add(names.take)
    begin = time.monotonic()
    watcher.start()
    while not names.is_complete:
        time.sleep(0.01)
    known = names.known()
    print(
        f"{len(known.cluster):,} addresses: known {time.monotonic() - begin:.1f} s after the start,"
        f" {time.process_time() - cpu:.1f} s of CPU, {resident() - before:.0f} MiB"
    )
    told.send(True)
    begin, cpu, most = time.monotonic(), time.process_time(), 0.0
    while time.monotonic() < begin + SECONDS:
        time.sleep(0.2)
        most = max(most, resident())
    cpu, took = time.process_time() - cpu, time.monotonic() - begin
    told.send(True)
    changed = told.recv()
    print(
        f"{changed / took:.0f} changes/s for {took:.0f} s: {100 * cpu / took:.1f} % of a core,"
        f" {most - before:.0f} MiB at most, {len(names.known().cluster):,} intervals"
    )
    watcher.stop()
    look_up(names)


def look_up(names: Names) -> None:
    """Look up both sides of batches of calls, and make their five columns."""
    chance, now = np.random.default_rng(1), time.time_ns()
    numbers = chance.integers(0, PODS, (2, CALLS)).astype(np.uint64) | np.uint64(10 << 24)
    low = numbers | np.uint64(0xFFFF << 32)
    own, called = (Ends(np.zeros_like(half), half, half.astype(np.uint16)) for half in low)
    times = np.full(CALLS, now - 10**9)
    rounds = 200
    begin = time.process_time()
    for _ in range(rounds):
        names.known().cluster.find(*own, times)
    found = time.process_time() - begin
    begin = time.process_time()
    for _ in range(rounds):
        for other in (None, called):
            peers = Peers(names.known(), own, other, times)
            for column in ("name", "namespace", "pod", "service", "dns"):
                peers.column(column)
    columns = time.process_time() - begin
    count = rounds * CALLS
    print(
        f"lookups: {count / found / 1e6:.2f} million addresses/s;"
        f" both sides of a call with their columns: {columns / count * 1e9:.0f} ns"
    )


if __name__ == "__main__":
    sys.exit(main())
