"""A node with pods, a bridge and a service: each call is recorded once, with the addresses that
people expect. The access logs of the servers are the truth.
"""

import itertools
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from recordings import entry
from services.capture.agent import new_engine_factory
from services.capture.frames.interfaces import open_interfaces
from services.capture.pipeline import Pipeline, PipelineOptions
from services.capture.warmup import warm_up
from tests.integration.capture.veth import ip, set_namespace

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

NODE, CLIENT, SERVICE = "10.88.0.1", "10.88.0.2", "10.96.0.10"
PODS = {2: CLIENT, 3: "10.88.0.3", 4: "10.88.0.4"}
SERVERS = {PODS[3], PODS[4]}
RULES = """
table ip service {
  chain pre {
    type nat hook prerouting priority -100;
    ip daddr 10.96.0.10 tcp dport 80 dnat to numgen inc mod 2 map {
      0 : 10.88.0.3, 1 : 10.88.0.4
    } : 8080
    ip daddr 10.96.0.10 udp dport 53 dnat to 10.88.0.3:5353
  }
  chain out {
    type nat hook output priority -100;
    ip daddr 10.96.0.10 tcp dport 80 dnat to 10.88.0.3:8080
  }
  chain post {
    type nat hook postrouting priority 100;
    ip saddr 10.88.0.0/24 ip daddr 10.88.0.0/24 ct status dnat masquerade fully-random
  }
}
"""
SERVER = """
import http.server, os, socket, threading

def log(line):
    os.write(1, f"{line}\\n".encode())  # print() of several threads would mix their lines

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        log(self.path)
        size = int(self.path.rpartition("-")[2])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(b"x" * size)
    def log_message(self, *args):
        pass

def names():
    questions = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    questions.bind(("0.0.0.0", 5353))
    while True:
        asked, whom = questions.recvfrom(512)
        log("dns " + asked[12:].split(bytes(1))[0][1:].decode())
        answer = bytes.fromhex("c00c000100010000003c000401020304")
        head = asked[:2] + bytes.fromhex("81800001000100000000")
        questions.sendto(head + asked[12:] + answer, whom)

threading.Thread(target=names, daemon=True).start()
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
CALLS = """
import http.client, sys
host, port, paths = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
for path in paths:
    client = http.client.HTTPConnection(host, port, timeout=20)
    client.request("GET", path)
    client.getresponse().read()
    client.close()
"""
ONE_CONNECTION = """
import http.client, sys
client = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
for path in sys.argv[3:]:
    if path == "wait":
        print("waits", flush=True)
        sys.stdin.readline()
        continue
    client.request("GET", path)
    client.getresponse().read()
client.close()
"""
QUESTIONS = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
for number, name in enumerate(sys.argv[2:]):
    if len(sys.argv) % 2 == 0:
        client.connect((sys.argv[1], 53))
    label = name.encode()
    head = (1000 + number).to_bytes(2, "big") + bytes.fromhex("01000001000000000000")
    question = bytes([len(label)]) + label + bytes.fromhex("0000010001")
    client.sendto(head + question, (sys.argv[1], 53))
    client.recv(512)
"""
numbers = itertools.count()


class Node:
    """Namespaces of a node and three pods; servers run in two of them."""

    def __init__(self, folder: Path, is_bridge_translating: bool) -> None:
        self.folder = folder
        self.name = f"tr-node-{os.getpid()}-{next(numbers)}"
        self.pods = {number: f"{self.name}-{number}" for number in PODS}
        self.started: list[subprocess.Popen[bytes]] = []
        self.is_bridge_translating = is_bridge_translating

    def up(self) -> None:
        for name in (self.name, *self.pods.values()):
            ip("netns", "add", name)
            self.run(name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            ip("-n", name, "link", "set", "lo", "up")
        self.run(self.name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        ip("-n", self.name, "link", "add", "cni0", "type", "bridge")
        ip("-n", self.name, "addr", "add", f"{NODE}/24", "dev", "cni0")
        ip("-n", self.name, "link", "set", "cni0", "up")
        switch = "net.bridge.bridge-nf-call-iptables"
        if Path("/proc/sys", *switch.split(".")).exists():
            value = int(self.is_bridge_translating)
            self.run(self.name, "sysctl", "-qw", f"{switch}={value}")
        elif self.is_bridge_translating:
            pytest.skip("needs the module br_netfilter")
        for number, pod in self.pods.items():
            veth = f"veth{number}"
            pair = ["link", "add", veth, "netns", self.name, "type", "veth"]
            ip(*pair, "peer", "name", "eth0", "netns", pod)
            ip("-n", self.name, "link", "set", veth, "master", "cni0", "up")
            self.run(self.name, "bridge", "link", "set", "dev", veth, "hairpin", "on")
            ip("-n", pod, "addr", "add", f"{PODS[number]}/24", "dev", "eth0")
            ip("-n", pod, "link", "set", "eth0", "up")
            ip("-n", pod, "route", "add", "default", "via", NODE)
        self.run(self.name, "nft", "-f", "-", input=RULES.encode())
        ip("-n", self.name, "route", "add", f"{SERVICE}/32", "dev", "cni0")
        for number in (3, 4):
            with self.log(number).open("wb") as log:
                self.start(self.pods[number], SERVER, stdout=log)
        for number in (3, 4):
            self.wait_for(PODS[number], 8080)

    def wait_for(self, address: str, port: int) -> None:
        """Until somebody listens."""
        look = f"import socket; socket.create_connection(('{address}', {port}), 1)"
        deadline = time.monotonic() + 30
        while self.start(self.name, look, stderr=subprocess.DEVNULL).wait():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def down(self) -> None:
        for process in self.started:
            process.kill()
            process.wait()
        for name in (self.name, *self.pods.values()):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def run(self, name: str, *command: str, input: bytes | None = None) -> None:
        command = ("ip", "netns", "exec", name, *command)
        subprocess.run(command, check=True, capture_output=True, input=input)

    def start(self, name: str, code: str, *arguments: object, **options):
        command = ["ip", "netns", "exec", name, sys.executable, "-c", code]
        self.started.append(subprocess.Popen([*command, *map(str, arguments)], **options))
        return self.started[-1]

    def log(self, number: int) -> Path:
        return self.folder / f"log{number}"

    def served(self) -> dict[str, str]:
        """Path, or "dns" and name, to the address of the pod that served it."""
        logs = {PODS[number]: self.log(number).read_text() for number in (3, 4)}
        return {line: pod for pod, log in logs.items() for line in log.splitlines()}


@pytest.fixture(params=[True, False], ids=["bridge translates", "routing translates"])
def node(request, tmp_path):
    made = Node(tmp_path, request.param)
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        made.up()
        inside = os.open(f"/run/netns/{made.name}", os.O_RDONLY)
        set_namespace(inside)
        os.close(inside)
        yield made
    finally:
        set_namespace(outside)
        os.close(outside)
        made.down()


class Recorder:
    """What the pipeline makes of all frames of a source until it is quiet."""

    def __init__(self):
        warm_up(new_engine_factory("", "", 1 << 20)())  # before there is a ring that could overrun
        self.source = open_interfaces(["any"], 64 << 20)
        self.pipeline = Pipeline(PipelineOptions(most_flows=4096, networks_apart=False))
        self.entries: list[dict] = []
        self.kept: list[bytes] = []
        self.streams: dict[str, dict] = {}

    def until_done(self, *processes):
        quiet = 0
        for batch in self.source.batches():
            self._take(self.pipeline.take(batch))
            streams = self.pipeline.packet_streams
            for frame in batch.frames[streams != 0]:
                self.kept.append(batch.octets[frame.offset :][: frame.captured_length].tobytes())
            known = np.unique(streams[streams != 0])
            rows = self.pipeline.streams_table(known, np.zeros_like(known), known > 0)
            names = ["stream", "called_ip", "called_port", "seen_ip"]
            self.streams |= {row["stream"]: row for row in rows.select(names).to_pylist()}
            running = [process for process in processes if process.poll() is None]
            quiet = 0 if len(batch.frames) or running else quiet + 1
            if quiet == 3:
                break
        assert all(process.returncode == 0 for process in processes)
        return self

    def end(self):
        self._take(self.pipeline.end())
        assert self.source.losses() + self.pipeline.losses() == []
        self.source.close()
        return self

    def _take(self, calls):
        for part in calls:
            self.entries += entry.objects(part.entries(np.arange(len(part))))

    def calls(self, protocol="http"):
        return [each for each in self.entries if each["protocol"]["name"] == protocol]


def paths(prefix, count, size=10):
    return [f"/{prefix}{number}-{size}" for number in range(count)]


def seen(calls):
    return Counter(call["request"]["path"] for call in calls)


def test_each_call_is_recorded_once_with_the_pods_that_called_and_served(node):
    recorder = Recorder()
    client = node.pods[2]
    to_service, to_pod, from_node, service_from_node = (
        paths(prefix, 10) for prefix in ("service", "pod", "node", "out")
    )
    long, again = paths("long", 3, 300_000), paths("again", 30, 2000)
    recorder.until_done(
        node.start(client, CALLS, SERVICE, 80, *to_service, *long),
        node.start(client, CALLS, PODS[3], 8080, *to_pod),
        node.start(client, ONE_CONNECTION, SERVICE, 80, *again),
        node.start(node.name, CALLS, PODS[4], 8080, *from_node),
        node.start(node.name, CALLS, SERVICE, 80, *service_from_node),
    ).end()
    served = node.served()
    expected = to_service + to_pod + from_node + service_from_node + long + again
    assert set(expected) <= set(served)
    calls = recorder.calls()
    assert seen(calls) == Counter(expected)
    assert recorder.calls("tcp") == []
    for call in calls:
        path = call["request"]["path"]
        assert call["response"]["status"] == 200
        assert call["error"] is None
        assert call["response"]["bodySize"] == int(path.rpartition("-")[2])
        assert (call["dst"]["ip"], call["dst"]["port"]) == (served[path], 8080), path
        expected_source = NODE if path in from_node + service_from_node else CLIENT
        assert call["src"]["ip"] == expected_source, path
        stream = recorder.streams[call["stream"]]
        called = (stream["called_ip"], stream["called_port"])
        through_service = path in to_service + long + again
        assert called == ((SERVICE, 80) if through_service else (None, None)), path
        assert stream["seen_ip"] == NODE or not through_service, path
    assert recorder.pipeline.copies > 0


def test_a_recording_has_one_copy_of_each_packet_with_the_addresses_of_its_stream(node):
    recorder = Recorder()
    recorder.until_done(node.start(node.pods[2], CALLS, SERVICE, 80, *paths("x", 5, 5000))).end()
    tcp = [frame for frame in recorder.kept if frame[12:14] == b"\x08\x00" and frame[23] == 6]
    ends = {frozenset((frame[26:30], frame[30:34])) for frame in tcp}
    assert ends == {frozenset(bytes(map(int, a.split("."))) for a in (CLIENT, SERVICE))}
    # Time to live and what follows from it apart, no packet is there twice.
    assert len({frame[26:] for frame in tcp}) == len(tcp)
    answered = sum(len(frame) for frame in tcp if frame[26:30] == bytes([10, 96, 0, 10]))
    assert answered > 25_000


def test_questions_to_a_service_are_recorded_once(node):
    recorder = Recorder()
    names = [f"name{number}" for number in range(20)]
    others = [f"other{number}" for number in range(21)]
    recorder.until_done(
        node.start(node.pods[2], QUESTIONS, SERVICE, *names),
        node.start(node.pods[4], QUESTIONS, SERVICE, *others),
    ).end()
    calls = recorder.calls("dns")
    asked = Counter(call["request"]["questions"][0]["name"] for call in calls)
    assert asked == Counter(names + others)
    for call in calls:
        name = call["request"]["questions"][0]["name"]
        assert call["src"]["ip"] == (CLIENT if name in names else PODS[4])
        assert (call["dst"]["ip"], call["dst"]["port"]) == (PODS[3], 5353)
        assert call["response"]["answers"][0]["ip"] == "1.2.3.4"
    assert recorder.calls("udp") == []


@pytest.mark.parametrize("is_answered_first", [False, True])
def test_a_connection_that_was_open_before_is_one_too(node, is_answered_first):
    first, rest = paths("before", 1), paths("after", 6)
    script = ["wait", *rest] if not is_answered_first else [rest[0], "wait", *rest[1:]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    client = node.start(node.pods[2], ONE_CONNECTION, SERVICE, 80, *first, *script, **pipes)
    assert client.stdout.readline() == b"waits\n"
    recorder = Recorder()
    client.stdin.write(b"\n")
    client.stdin.close()
    recorder.until_done(client).end()
    client.stdout.close()
    expected = rest[1:] if is_answered_first else rest
    assert seen(recorder.calls()) == Counter(expected)
    served = node.served()
    for call in recorder.calls():
        assert call["src"]["ip"] == CLIENT
        assert call["dst"]["ip"] == served[call["request"]["path"]]
        assert recorder.streams[call["stream"]]["called_ip"] == SERVICE
