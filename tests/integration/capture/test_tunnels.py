"""HTTP and DNS between two network namespaces, through tunnels and in fragments.

The servers, clients and TCP are real, and so are the frames; what makes and undoes the tunnels is a
small program, since not every kernel has them all.
"""

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from recordings import entry
from services.capture.frames.afpacket import AfPacket
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.integration.capture.veth import ip

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

ENDS = {"here": ("10.77.0.1", "10.99.0.1"), "there": ("10.77.0.2", "10.99.0.2")}
LARGE = 300_000  # octets of a file that takes many segments
RING_BLOCKS = 8

TUNNEL = r"""
import fcntl, os, select, socket, struct, subprocess, sys

kind, interface, local, remote, inside, mtu = sys.argv[1:]
TAP, TUN, NO_HEADER = 2, 1, 0x1000
WIRES = {"vlan", "qinq", "mpls", "pppoe"}  # beside IP: frames that are sent and received as such
bridged = kind in ("vxlan", "geneve", "gretap")
device = os.open("/dev/net/tun", os.O_RDWR)
flags = (TAP if bridged else TUN) | NO_HEADER
fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", b"inner", flags))
subprocess.run(["ip", "addr", "add", inside + "/24", "dev", "inner"], check=True)
subprocess.run(["ip", "link", "set", "inner", "mtu", mtu, "up"], check=True)

HEADERS = {
    "vxlan": b"\x08\0\0\0\0\0\x2a\0",
    "geneve": b"\x02\0\x65\x58\0\0\x07\0" + b"\x01\x07\x01\x01abcd",
    "gre": b"\x30\0\x08\0\0\0\0\x4d\0\0\0\x01",
    "gretap": b"\x20\0\x65\x58\0\0\0\x4d",
    "ipip": b"",
    "vlan": b"\x81\0\0\x05\x08\0",
    "qinq": b"\x88\xa8\0\x64\x81\0\0\x05\x08\0",
    "mpls": b"\x88\x47\0\x06\x40\x40\0\x0c\x81\x40",
}
if kind in ("vxlan", "geneve"):
    port = {"vxlan": 4789, "geneve": 6081}[kind]
    outer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    outer.setsockopt(socket.IPPROTO_IP, 10, 0)  # no path MTU discovery: what is too long is cut
    outer.bind((local, port))
    to = (remote, port)
elif kind in WIRES:
    outer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    outer.bind((interface, 0))
    to = None
else:
    protocol = 4 if kind == "ipip" else 47
    outer = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    outer.setsockopt(socket.IPPROTO_IP, 10, 0)
    to = (remote, 0)

def wrap(packet):
    if kind == "pppoe":
        session = struct.pack("!HHHH", 0x1100, 9, len(packet) + 2, 0x21)
        return b"\xff" * 6 + b"\2" * 6 + b"\x88\x64" + session + packet
    if kind in WIRES:
        return b"\xff" * 6 + b"\2" * 6 + HEADERS[kind] + packet
    return HEADERS[kind] + packet

def unwrap(octets):
    if kind in WIRES:
        start = octets.find(b"\x45\0", 14)  # the tag may have been taken off
        return octets[start:] if start > 0 and octets[start + 16:][:4] == mine else b""
    if kind not in ("vxlan", "geneve"):
        octets = octets[20:]  # a raw socket gives the IP header too
    return octets[len(HEADERS[kind]):]

mine = socket.inet_aton(inside)
print("ready", flush=True)
while True:
    for ready in select.select([device, outer], [], [])[0]:
        if ready is device:
            packet = os.read(device, 65536)
            if bridged or packet[0] >> 4 == 4:
                outer.send(wrap(packet)) if to is None else outer.sendto(wrap(packet), to)
        else:
            packet = unwrap(outer.recv(65536))
            if packet:
                os.write(device, packet)
"""

SERVER = r"""
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = bytes(int(sys.argv[2]) if self.path == "/large" else 5)
        self.send_response(500 if self.path == "/fails" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 8080), Handler)
print("ready", flush=True)
server.serve_forever()
"""

RESOLVER = r"""
import socket, struct, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.socket(family, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, client = server.recvfrom(65536)
    text = b"".join(b"\xff" + bytes([65 + n]) * 255 for n in range(16))  # 4 KiB
    record = struct.pack("!HHHIH", 0xC00C, 16, 1, 60, len(text)) + text
    server.sendto(query[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0) + query[12:] + record, client)
"""

CLIENT = r"""
import socket, struct, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
client = socket.socket(family, socket.SOCK_DGRAM)
client.settimeout(20)
name = b"\5large\4test\0"
query = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", 16, 1)
client.sendto(query, (sys.argv[1], 53))
assert len(client.recv(65536)) > 4096
"""


class Programs:
    """Python programs in network namespaces, ended with the test."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, namespace: str, code: str, *arguments: object) -> None:
        """Start one, and wait until it says that it is ready."""
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", code]
        process = subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE)
        self._running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

    def end(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def programs() -> Iterator[Programs]:
    running = Programs()
    yield running
    running.end()


class Seen:
    """What a pipeline makes of an interface: entries, and the streams of its packets."""

    def __init__(self, interface: str, apart: bool = True) -> None:
        self.pipeline = Pipeline(PipelineOptions(networks_apart=apart))
        self.source = AfPacket(interface, block_count=RING_BLOCKS)
        self.entries: list[dict] = []
        self.streams = np.zeros(0, np.int64)  # of each frame
        self.losses: list = []

    def run(self, process: subprocess.Popen[bytes]) -> "Seen":
        """Take what comes until nothing came in a whole wait after the process had ended."""
        has_ended = False
        for batch in self.source.batches():
            self._keep(self.pipeline.take(batch))
            self.streams = np.concatenate([self.streams, self.pipeline.packet_streams])
            self.streams = np.concatenate([self.streams, self.pipeline.late[1]])
            if has_ended and not len(batch.frames):
                break
            has_ended = process.poll() is not None
        assert process.returncode == 0
        self._keep(self.pipeline.end())
        self.losses = self.source.losses() + self.pipeline.losses()
        self.source.close()
        return self

    def _keep(self, found: list) -> None:
        for calls in found:
            table = calls.entries(np.arange(len(calls)))
            # What hosts say by themselves, as for neighbours, is none of it.
            by_itself = ("icmp", "udp")
            found = entry.objects(table)
            self.entries += [e for e in found if e["protocol"]["name"] not in by_itself]

    def row(self, entry_of_it: dict) -> dict:
        """The stream of an entry, as in the table of streams."""
        numbers = np.unique(self.streams[self.streams != 0])
        ones = np.ones(len(numbers))
        table = self.pipeline.streams_table(numbers, ones.astype(np.int64), ones.astype(np.bool_))
        table = table.select(["stream", "vlan", "tunnel"])
        (row,) = [r for r in table.to_pylist() if r["stream"] == entry_of_it["stream"]]
        return row


def call(namespace, address: str, *paths: str) -> subprocess.Popen[bytes]:
    """Ask an HTTP server for all paths, on one connection."""
    urls = [part for path in paths for part in (f"http://{address}:8080{path}", "-o", "/dev/null")]
    command = ["ip", "netns", "exec", namespace.name, "curl", "-sS", "--max-time", "30", *urls]
    return subprocess.Popen(command)


def join(namespace, programs: Programs, kind: str, mtu: int) -> None:
    """Make a tunnel between the namespaces, and a server at its far end."""
    for name, side, other in ((namespace.name, "here", "there"), (namespace.far, "there", "here")):
        outer, inner = ENDS[side]
        programs.start(name, TUNNEL, kind, side, outer, ENDS[other][0], inner, mtu)
    programs.start(namespace.far, SERVER, ENDS["there"][1], LARGE)


PATHS = ("/a", "/fails", "/large")
ANSWERS = [("/a", 200, 5), ("/fails", 500, 5), ("/large", 200, LARGE)]
TUNNELS = [
    ("vxlan", None, "vxlan 42"),
    ("geneve", None, "geneve 7"),
    ("gre", None, "gre 77"),
    ("gretap", None, "gre 77"),
    ("ipip", None, "ipip"),
    ("vlan", "5", None),
    ("qinq", "100.5", None),
    ("mpls", None, "mpls"),
    ("pppoe", None, "pppoe 9"),
]


def answers(seen: Seen) -> list[tuple[str, int, int]]:
    return [
        (e["request"]["path"], e["response"]["status"], e["response"]["bodySize"])
        for e in seen.entries
    ]


@pytest.mark.parametrize(("kind", "vlan", "tunnel"), TUNNELS)
@pytest.mark.parametrize("interface", ["here", "any"])
def test_http_through_a_tunnel_is_one_entry_a_call(
    namespace, programs, kind, vlan, tunnel, interface
):
    """On "any" each packet is seen twice, in the tunnel and out of it."""
    join(namespace, programs, kind, 1400)
    seen = Seen(interface, apart=interface != "any")
    seen.run(call(namespace, ENDS["there"][1], *PATHS))
    assert answers(seen) == ANSWERS
    assert [e["error"] for e in seen.entries] == [None] * 3
    for found in seen.entries:
        assert (found["src"]["ip"], found["dst"]["ip"]) == ("10.99.0.1", "10.99.0.2")
        assert found["dst"]["port"] == 8080
    row = seen.row(seen.entries[0])
    assert (row["vlan"], row["tunnel"]) == (vlan, tunnel)
    assert seen.losses == []


@pytest.mark.parametrize("kind", ["vxlan", "gre"])
def test_http_through_a_tunnel_whose_packets_are_fragments(namespace, programs, kind):
    join(namespace, programs, kind, 4000)
    seen = Seen("here").run(call(namespace, ENDS["there"][1], *PATHS))
    assert answers(seen) == ANSWERS
    assert seen.losses == []
    # The frames of the connection: far more than its segments of 4,000 octets.
    stream = np.bincount(np.unique(seen.streams, return_inverse=True)[1]).max()
    assert stream > LARGE // 1480


@pytest.mark.parametrize(("client", "server"), [("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")])
def test_a_dns_answer_in_fragments_is_one_entry_with_all_frames(
    namespace, programs, client, server
):
    for name, side, address in (
        (namespace.name, "here", client),
        (namespace.far, "there", server),
    ):
        ip("-n", name, "link", "set", side, "mtu", "1280")
        if ":" in address:
            setting = f"net.ipv6.conf.{side}.disable_ipv6=0"
            command = ["ip", "netns", "exec", name, "sysctl", "-qw", setting]
            subprocess.run(command, check=True)
            ip("-n", name, "addr", "add", f"{address}/64", "dev", side, "nodad")
    programs.start(namespace.far, RESOLVER, server)
    time.sleep(0.2)
    seen = Seen("here")
    command = ["ip", "netns", "exec", namespace.name, sys.executable, "-c", CLIENT, server]
    seen.run(subprocess.Popen(command))
    (found,) = seen.entries
    assert found["request"]["questions"] == [{"name": "large.test", "type": "TXT", "class": "IN"}]
    assert found["response"]["code"] == "NOERROR"
    assert len(found["response"]["answers"]) == 1
    assert found["error"] is None
    assert (found["src"]["ip"], found["dst"]["ip"]) == (client, server)
    _, packets = np.unique(seen.streams[seen.streams != 0], return_counts=True)
    assert packets.tolist().count(1 + 4) == 1  # a query, and 4 KiB at 1,280 octets
    assert seen.losses == []
