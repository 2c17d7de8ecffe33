"""Agents that deliver to one scheduler: rates, many agents at once, latency, and flat memory.

Scheduler, query service and agents are processes of their own, over gRPC on loopback, on the disk
of BENCH_DATA. Agents are the real uplink; what they send was captured: the calls and packets of the
benchmark capture. BENCH_ONLY=rate,crowd,latency,memory measures some of it.
"""

import hashlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import live
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from recorder.v1 import jobs_pb2, jobs_pb2_grpc, query_pb2, query_pb2_grpc

from recordings import schema
from services.capture import outbox
from services.capture.dissect import tables
from services.capture.frames import open_capture
from services.capture.uplink import Uplink
from services.runtime.channel import open_channel

CAPTURE = Path(os.environ.get("BENCH_CAPTURE", ".cache/bench/traffic.pcap")).absolute()
DATA = Path(os.environ.get("BENCH_DATA", ".cache/bench")).absolute()
ONLY = os.environ.get("BENCH_ONLY", "rate,crowd,latency,memory").split(",")
SECONDS = float(os.environ.get("BENCH_SECONDS", "20"))
BATCHES = int(os.environ.get("BENCH_BATCHES", "1_000_000"))
AGENTS = 200
CROWD_PROCESSES = 4
PACKETS = 50_000
PACKETS_A_SECOND = 120_000
"""Of which nearly a tenth ends an entry."""
BATCH_ROWS = {"entries": 2_000, "packets": 1_000}
QUERY = "127.0.0.1:8898"
JOB = "bench"

Agent = subprocess.Popen[str]


# ------------------------------------------------------------------------------ processes


@contextmanager
def service(role: str, folder: Path, *flags: object) -> Iterator[tuple[int, str]]:
    """Run a service; give its pid and address."""
    log = folder / f"{role}.log"
    program = [sys.executable, "-m", "services.cli.main", role, "--data", folder / "data"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*map(str, program), "--listen", "127.0.0.1:0", *map(str, flags)],
            stderr=out, env={**os.environ, "RECORDER_LOG_FORMAT": "json"},
        )  # fmt: skip
    try:
        until(lambda: '"address"' in log.read_text(), 60)
        (address,) = re.findall(r'"address": ?"([^"]+)"', log.read_text())
        yield process.pid, address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


@contextmanager
def agents(count: int, mode: str, address: str, *arguments: object) -> Iterator["list[Agent]"]:
    """Run this file as agents; they say `ready`, go on when told, and say what they have done."""
    started = [
        subprocess.Popen(
            [sys.executable, __file__, mode, address, f"node-{n}", *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for n in range(count)
    ]  # fmt: skip
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise SystemExit("it took too long; see the logs")
        time.sleep(0.02)


def memory_of(pid: int, what: str = "VmRSS") -> int:
    """Resident memory in octets; VmHWM is its peak."""
    (line,) = re.findall(rf"{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(line) * 1024


def cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def create(address: str) -> None:
    with open_channel(address) as channel:
        spec = jobs_pb2.JobSpec(name=JOB, kfl="http or dns or tcp or udp")
        jobs_pb2_grpc.JobsServiceStub(channel).CreateJob(jobs_pb2.CreateJobRequest(spec=spec))


# ------------------------------------------------------------------------------ what agents send


def captured(table: str) -> pa.Table:
    """Calls or packets of the capture, as an agent has them; made once and kept."""
    path = DATA / f"ingest-{table}.parquet"
    if not path.exists():
        found = _entries() if table == "entries" else packets(PACKETS)
        pq.write_table(found, path, compression="zstd")
    return pq.read_table(path, schema=schema.TABLES[table])


def _entries() -> pa.Table:
    found = []
    for each in tables(str(CAPTURE), None, 1024):
        found.append(each)
        if sum(part.num_rows for part in found) >= 40_000:
            break
    return pa.concat_tables(found)[:40_000]


def packets(most: int) -> pa.Table:
    """Return the first packets of the capture, each with a text for its stream."""
    columns: dict[str, list[object]] = {name: [] for name in schema.PACKETS.names}
    source = open_capture(CAPTURE)
    for batch in source.batches():
        for row in batch.frames:
            begin = int(row["offset"])
            frame = bytes(batch.octets[begin : begin + int(row["captured_length"])])
            columns["stream"].append(_stream_of(frame))
            columns["node_name"].append("node-0")
            columns["time"].append(int(row["timestamp"]))
            columns["link_type"].append(int(row["link_type"]))
            columns["original_length"].append(int(row["original_length"]))
            columns["frame"].append(frame)
        if len(columns["frame"]) >= most:
            break
    source.close()
    return pa.table(columns, schema=schema.PACKETS)[:most]


def _stream_of(frame: bytes) -> str:
    """Text that is the same for both directions of a flow."""
    addresses = frame[26:34] if frame[12:14] == b"\x08\x00" else frame[22:54]
    half = len(addresses) // 2
    place = 34 if half == 4 else 54
    ports = frame[place : place + 4]
    ends = sorted([addresses[:half] + ports[:2], addresses[half:] + ports[2:]])
    return hashlib.blake2s(b"".join(ends), digest_size=8).hexdigest()


# ------------------------------------------------------------------------------ agents


def agent_rate(address: str, node: str, table: str, seconds: str) -> None:
    """Deliver as fast as it goes; say rows, octets and seconds until all was acknowledged."""
    whole, rows = captured(table), BATCH_ROWS[table]
    pieces = [whole[at : at + rows] for at in range(0, whole.num_rows, rows)]
    sizes = [len(outbox.encode(piece)) for piece in pieces]
    uplink = Uplink(address, node, "", blocking=True)
    uplink.start()
    uplink.wait_for_assignments(0, 30)
    wait_to_go()
    begin = time.monotonic()
    sent = octets = number = 0
    while time.monotonic() - begin < float(seconds):
        which = number % len(pieces)
        uplink.send(JOB, 1, [(table, pieces[which])])
        sent, octets, number = sent + pieces[which].num_rows, octets + sizes[which], number + 1
    assert uplink.flush(120)
    print(sent, octets, time.monotonic() - begin, flush=True)
    uplink.stop()


def agent_crowd(address: str, node: str, count: str, seconds: str) -> None:
    """Be many agents that each deliver 50 entries a second; say how long each answer took."""
    piece = captured("entries")[:50]
    uplinks = [Uplink(address, f"{node}-{n}", "") for n in range(int(count))]
    for uplink in uplinks:
        uplink.start()
    for uplink in uplinks:
        assert uplink.wait_for_assignments(0, 60)
    wait_to_go()
    delays: list[float] = []
    end = time.monotonic() + float(seconds)

    def deliver(uplink: Uplink, offset: float) -> None:
        time.sleep(offset)
        while (begin := time.monotonic()) < end:
            uplink.send(JOB, 1, [("entries", piece)])
            assert uplink.flush(60)
            delays.append(time.monotonic() - begin)
            time.sleep(max(0.0, 1 - delays[-1]))

    threads = [
        threading.Thread(target=deliver, args=(uplink, number / len(uplinks)))
        for number, uplink in enumerate(uplinks)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(*(round(delay, 6) for delay in delays), flush=True)
    wait_to_go()


def agent_small(address: str, node: str, batches: str) -> None:
    """Deliver batches of an entry each; say every hundredth of them that is acknowledged."""
    whole = captured("entries")
    uplink = Uplink(address, node, "", memory_limit=4 << 20, blocking=True)
    uplink.start()
    uplink.wait_for_assignments(0, 30)
    wait_to_go()
    for number in range(1, int(batches) + 1):
        uplink.send(JOB, 1, [("entries", whole[number % whole.num_rows :][:1])])
        if number % (int(batches) // 100) == 0:
            assert uplink.flush(60)
            print(number, flush=True)
    uplink.stop()


def follow(address: str) -> None:
    """Follow the recording; say, at the end, how old entries were when they came."""
    ages: list[np.ndarray] = []
    request = query_pb2.QueryRequest(
        kfl=f'record("{JOB}")', follow=True, format=query_pb2.ENTRY_FORMAT_ARROW
    )
    with open_channel(address) as channel:
        call = query_pb2_grpc.QueryServiceStub(channel).Query(request)
        signal.signal(signal.SIGTERM, lambda *_: call.cancel())
        print("ready", flush=True)
        try:
            for response in call:
                if response.WhichOneof("part") != "arrow_ipc":
                    continue
                now = time.time_ns()
                rows = outbox.decode(response.arrow_ipc)
                rows = rows.filter(pc.is_valid(rows["elapsed_us"]))  # others waited for an answer
                ends = rows["start_time"].cast(pa.int64()).to_numpy()
                ages.append(now - ends - rows["elapsed_us"].to_numpy() * 1000)
        except grpc.RpcError:
            pass
    found = np.concatenate(ages) / 1e9
    print(len(found), *np.percentile(found, [50, 99, 100]), flush=True)


def wait_to_go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


# ------------------------------------------------------------------------------ measurements


def rate(folder: Path) -> None:
    for table in ("packets", "entries"):
        with service("scheduler", folder, "--storage-limit", "32Gi") as (pid, address):
            create(address)
            before = cpu_of(pid)
            with agents(2, "rate", address, table, SECONDS) as processes:
                done = [process.stdout.readline().split() for process in processes]
            rows, octets = (sum(int(each[n]) for each in done) for n in (0, 1))
            seconds = max(float(each[2]) for each in done)
            row(
                f"two agents, {table}",
                f"{octets / seconds / 1e6:,.0f} MB/s, {rows / seconds:,.0f} rows/s",
                f"{octets / (cpu_of(pid) - before) / 1e6:,.0f} MB a CPU second of the scheduler, "
                f"peak {memory_of(pid, 'VmHWM') >> 20} MiB",
            )
        shutil.rmtree(folder / "data")


def crowd(folder: Path) -> None:
    with service("scheduler", folder, "--storage-limit", "32Gi") as (pid, address):
        create(address)
        alone = memory_of(pid)
        with agents(
            CROWD_PROCESSES, "crowd", address, AGENTS // CROWD_PROCESSES, SECONDS
        ) as processes:
            delays = sorted(
                float(text) for process in processes for text in process.stdout.readline().split()
            )
            row(
                f"{AGENTS} agents, {len(delays) / SECONDS:.0f} batches/s",
                f"answer after {1000 * statistics.median(delays):.0f} ms, "
                f"99 %: {1000 * delays[len(delays) * 99 // 100]:.0f} ms",
                f"{alone >> 20} MiB alone, {memory_of(pid) >> 20} MiB with them",
            )
    shutil.rmtree(folder / "data")


def memory(folder: Path) -> None:
    with service("scheduler", folder, "--storage-limit", "32Gi") as (pid, address):
        create(address)
        found = {}
        with agents(1, "small", address, BATCHES) as (process,):
            begin = time.monotonic()
            for percent in range(1, 101):
                assert process.stdout.readline()
                found[percent] = memory_of(pid) >> 20
            seconds = time.monotonic() - begin
        row(
            f"{BATCHES:,} batches of an entry",
            f"{found[10]}, {found[50]}, {found[100]} MiB at 10, 50 and 100 %",
            f"{BATCHES / seconds:,.0f} batches/s",
        )
    shutil.rmtree(folder / "data")


def latency(folder: Path) -> None:
    """From the wire: sender and agent as in live.py, in a network namespace."""
    if os.geteuid():
        row("packet to query", "needs root", "")
        return
    sender, part = live.prepare(folder)
    program = Path(sys.executable).with_name("recorder")
    with live.wire() as name:
        started = []
        try:

            def run(role: str, core: int, ready: bytes, *flags: object) -> None:
                log = folder / f"{role}.log"
                started.append(live.started(live.inside(name, core, program, role, *flags), log))
                live.until(lambda: ready in log.read_bytes(), 300)

            core, data = live.SENDER_CORE, ("--data", folder / "data")
            at = ("--listen", live.SCHEDULER)
            run("scheduler", core, b"serves", *data, *at, "--storage-limit", "32Gi")
            run("query", core, b"is ready", *data, "--listen", QUERY)
            run(
                "capture", live.READER_CORE, b"capture agent runs",
                "--interface", "rx", "--scheduler", live.SCHEDULER,
            )  # fmt: skip
            job = ["jobs", "create", JOB, "--kfl", "http or dns", "--scheduler", live.SCHEDULER]
            subprocess.run(
                live.inside(name, core, program, *job), check=True, stdout=subprocess.DEVNULL
            )
            live.until(lambda: b"run started" in (folder / "capture.log").read_bytes())
            command = live.inside(name, core, sys.executable, __file__, "follow", QUERY)
            follower = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            started.append(follower)
            assert follower.stdout.readline() == "ready\n"
            packets, seconds = live.send(name, sender, part, PACKETS_A_SECOND)
            time.sleep(3)
            follower.terminate()
            entries, median, most, worst = map(float, follower.stdout.readline().split())
            row(
                f"packet to follower, {entries / seconds:,.0f} entries/s",
                f"{median:.2f} s, 99 %: {most:.2f} s, last: {worst:.2f} s",
                f"{packets / seconds:,.0f} packets/s",
            )
        finally:
            for process in reversed(started):
                live.end(process)
    shutil.rmtree(folder / "data")


def disk(folder: Path) -> None:
    """What the disk does alone, for comparison: writes of 4 MiB, each synced."""
    octets, begin, size = os.urandom(4 << 20), time.monotonic(), 0
    with (folder / "disk").open("wb") as file:
        while time.monotonic() - begin < 5:
            size += file.write(octets)
            file.flush()
            os.fdatasync(file.fileno())
    row("the disk alone, 4 MiB a sync", f"{size / (time.monotonic() - begin) / 1e6:,.0f} MB/s", "")
    (folder / "disk").unlink()


def row(*columns: str) -> None:
    print("| " + " | ".join(columns) + " |", flush=True)


AGENT_MODES = {"rate": agent_rate, "crowd": agent_crowd, "small": agent_small, "follow": follow}
MEASUREMENTS = {"rate": rate, "crowd": crowd, "latency": latency, "memory": memory}


def main() -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    for table in BATCH_ROWS:
        captured(table)
    row("what", "measured", "beside")
    row("---", "---", "---")
    for name in ONLY:
        with tempfile.TemporaryDirectory(dir=DATA) as folder:
            disk(Path(folder))
            MEASUREMENTS[name](Path(folder))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        AGENT_MODES[sys.argv[1]](*sys.argv[2:])
    else:
        main()
