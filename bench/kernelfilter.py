"""CPU of an agent on an interface full of HTTP, with a job for DNS: when everything comes and all
of it is dissected, when everything comes (as with an open `--bpf`), and with the kernel filter.

Runs itself in a network namespace, as root. A sender gives HTTP conversations to one end of a veth
pair, at the same pace in every round, and a DNS query now and then; the agent, a process of its
own, captures at the other end. CPU seconds are those of its process, while frames come.
"""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection
from pathlib import Path

from recorder.v1 import ingest_pb2

from services.capture.agent import Agent, new_engine_factory
from services.capture.frames.interfaces import open_interfaces
from services.capture.kernelfilter import KernelFilter
from services.capture.uplink import Uplink
from services.capture.warmup import warm_up
from tests.unit.capture import ingest_server
from tests.unit.capture.ingest_server import Ingest
from tests.unit.capture.traffic import Conversation

SECONDS = float(os.environ.get("BENCH_SECONDS", "8"))
PACE = int(os.environ.get("BENCH_PACE", "60000"))  # frames a second
BURST = 100
RING = 64 << 20
MOST_ADDRESSES = 250

ALL, OPEN, FILTERED = "everything, all dissected", "everything", "kernel filter"


def http_frames() -> list[bytearray]:
    """Frames of one connection with 20 calls of 1 KB answers."""
    talk = Conversation(40_000)
    packets = talk.opening()
    for _ in range(20):
        packets += talk.call("/cart?item=7", 200, b"x" * 1000)
    return [bytearray(bytes(packet)) for packet in packets + talk.closing()]


def send() -> None:
    """Send for SECONDS, each connection from another address and port."""
    from scapy.all import DNS, DNSQR, IP, UDP, Ether

    frames = http_frames()
    mac = "02:00:00:00:00:01"
    query = bytes(
        Ether(src=mac, dst=mac)
        / IP(src="10.0.0.3", dst="10.0.0.4")
        / UDP(sport=9999, dport=53)
        / DNS(id=7, qd=DNSQR(qname="shop.example"))
    )
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind(("there", 0))
    begin, sent, connection = time.monotonic(), 0, 0
    while time.monotonic() - begin < SECONDS:
        client = (connection % 60_000 + 1024).to_bytes(2, "big")
        host = bytes([10, 1, connection // 60_000 % MOST_ADDRESSES, 1])
        connection += 1
        for frame in frames:
            from_client = frame[36:38] == b"\0P"
            at, port = (26, 34) if from_client else (30, 36)
            frame[at : at + 4], frame[port : port + 2] = host, client
            sender.send(frame)
        sender.send(query)
        sent += len(frames) + 1
        time.sleep(max(0.0, sent / PACE - (time.monotonic() - begin)))
    print(sent)


class EveryDissector(KernelFilter):
    """What statements need is not asked."""

    def follow(self, statements: Collection[str]) -> None:
        """Leave it at everything."""


def capture(mode: str) -> None:
    """Capture until stdin ends; print CPU seconds, frames seen, and losses."""
    now = int(time.time())
    wanted = ingest_pb2.Assignment(job="names", run=1, kfl="dns", body_limit=100)
    wanted.start_time.seconds, wanted.stop_time.seconds = now - 10, now + 1000
    with tempfile.TemporaryDirectory() as folder:
        server, port = ingest_server.serve(Ingest(Path(folder) / "stored", assignments=[wanted]))
        uplink = Uplink(f"127.0.0.1:{port}", "node-1", "10.0.0.7")
        uplink.start()
        uplink.wait_for_assignments(0, 30)
        new_engine = new_engine_factory("node-1", "10.0.0.7")
        warm_up(new_engine())
        source = open_interfaces(["here"], RING)
        agent = Agent(source, new_engine, uplink, "node-1")
        if mode != FILTERED:
            agent._kernel = (EveryDissector if mode == ALL else KernelFilter)(None)
        stop = threading.Event()
        thread = threading.Thread(target=agent.run, args=[stop])
        thread.start()
        while not agent._buffers:
            time.sleep(0.01)
        before = cpu_seconds()
        print("ready", flush=True)
        sys.stdin.read()
        after = cpu_seconds()
        lost = sum(loss.packets for loss in source.losses())
        stop.set()
        thread.join()
        seen = agent.progress
        print(after - before, seen.frames, seen.entries, seen.losses["kernel_drop"], lost)
        uplink.flush(10)
        uplink.stop()
        source.close()
        server.stop(0)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(mode: str) -> None:
    command = [sys.executable, __file__, "capture", mode]
    agent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert agent.stdin is not None
    assert agent.stdout is not None
    while agent.stdout.readline().strip() != "ready":
        pass
    sent = subprocess.run(
        [sys.executable, __file__, "send"], capture_output=True, text=True, check=True
    )
    time.sleep(0.5)
    agent.stdin.close()
    seconds, frames, entries, drops, lost = agent.stdout.read().split()[-5:]
    agent.wait(30)
    print(
        f"{mode:24} {float(seconds):6.2f} CPU s; {sent.stdout.strip()} frames sent, {frames} seen, "
        f"{entries} entries, losses {drops} {lost}",
        flush=True,
    )


def main() -> None:
    match sys.argv[1:]:
        case ["send"]:
            send()
        case ["capture", mode]:
            capture(mode)
        case ["inside"]:
            for line in (
                "link set lo up",
                "link add here type veth peer there",
                "link set here up",
                "link set there up",
            ):
                subprocess.run(["ip", *line.split()], check=True)
            for mode in (ALL, OPEN, FILTERED) * 2:
                measure(mode)
        case _ if os.geteuid():
            print("needs root, for a network namespace")
        case _:
            command = ["unshare", "--net", sys.executable, __file__, "inside"]
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
            sys.exit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
