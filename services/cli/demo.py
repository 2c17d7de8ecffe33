"""The demo's traffic: a small HTTP server and a small DNS server on loopback, and their clients.

The same conversations are either made for real, for a capture agent on `lo`, or written to a
capture file (`write_capture`) where the process may not capture.
"""

from __future__ import annotations

import http.client
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"
DNS_PORT = 53
CLIENT_SECONDS = 5.0

MAX_BODY_BYTES = 65536
"""Largest body that the demo's server reads; its client sends far less."""

EXCHANGES = (
    ("GET", "/", None),
    ("GET", "/api/cart?id=7", None),
    ("POST", "/api/orders", b'{"item": "tea", "count": 2}'),
    ("GET", "/api/orders/1", None),
    ("GET", "/nowhere", None),
    ("PUT", "/api/orders/1", b'{"count": 3}'),
    ("POST", "/api/payments", b'{"order": 1, "card": "none"}'),
    ("DELETE", "/api/orders/1", None),
)
"""What one client asks, over one connection: method, target, body."""

ANSWERS = {
    ("GET", "/"): (200, "text/plain", b"The demo shop is open.\n"),
    ("GET", "/api/cart"): (200, "application/json", b'{"id": 7, "items": ["tea"]}'),
    ("POST", "/api/orders"): (201, "application/json", b'{"order": 1}'),
    ("GET", "/api/orders/1"): (200, "application/json", b'{"order": 1, "item": "tea"}'),
    ("PUT", "/api/orders/1"): (200, "application/json", b'{"order": 1, "count": 3}'),
    ("POST", "/api/payments"): (500, "application/json", b'{"error": "the bank is away"}'),
    ("DELETE", "/api/orders/1"): (204, "", b""),
}
"""Status, content type and body; everything else is 404."""

A, AAAA = 1, 28
NOERROR, NXDOMAIN = 0, 3
NAMES = {
    ("shop.demo.test", A): socket.inet_aton("192.0.2.10"),
    ("shop.demo.test", AAAA): socket.inet_pton(socket.AF_INET6, "2001:db8::10"),
    ("bank.demo.test", A): socket.inet_aton("192.0.2.20"),
}
"""What the DNS server knows; every other name does not exist (RFC 6761: .test never does)."""

QUESTIONS = (
    ("shop.demo.test", A),
    ("shop.demo.test", AAAA),
    ("bank.demo.test", A),
    ("nobody.demo.test", A),
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the demo's servers listen, on loopback."""

    http: int
    dns: int


class _Shop(BaseHTTPRequestHandler):
    """Answers from ANSWERS, over connections that are kept."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment, not the body 40 ms later (Nagle)
    server_version = "demo-shop/1"
    sys_version = ""

    def _answer(self) -> None:
        # The body is read, so that the next request begins where this one ends.
        length = self.headers.get("Content-Length", "0")
        self.rfile.read(min(int(length), MAX_BODY_BYTES) if length.isdigit() else 0)
        missing = (404, "text/plain", b"There is no such page.\n")
        target = self.path.partition("?")[0]
        status, kind, body = ANSWERS.get((self.command, target), missing)
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Say nothing: the recording shows what was asked."""


class _Names(socketserver.BaseRequestHandler):
    """Answers DNS questions from NAMES."""

    def handle(self) -> None:
        datagram, sock = self.request
        answer = dns_answer(datagram)
        if answer is not None:
            sock.sendto(answer, self.client_address)


@contextmanager
def serving() -> Iterator[Ports]:
    """Run both servers on loopback until the block ends."""
    with (
        ThreadingHTTPServer((HOST, 0), _Shop) as shop,
        _name_server() as names,
    ):
        shop.daemon_threads = names.daemon_threads = True
        servers = (shop, names)
        threads = [threading.Thread(target=server.serve_forever) for server in servers]
        for thread in threads:
            thread.start()
        try:
            yield Ports(shop.server_address[1], names.server_address[1])
        finally:
            for server, thread in zip(servers, threads, strict=True):
                server.shutdown()
                thread.join()


def _name_server() -> socketserver.ThreadingUDPServer:
    """Return a DNS server on its own port, or on a free one where that may not be had."""
    try:
        return socketserver.ThreadingUDPServer((HOST, DNS_PORT), _Names)
    except OSError:  # another server has it, or only root may
        return socketserver.ThreadingUDPServer((HOST, 0), _Names)


def make_traffic(ports: Ports) -> None:
    """Have the conversations once, for real. Raises OSError when the servers do not answer."""
    for name, kind in QUESTIONS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(CLIENT_SECONDS)
            client.connect((HOST, ports.dns))
            client.send(dns_question(name, kind, identity=kind))
            client.recv(4096)
    connection = http.client.HTTPConnection(HOST, ports.http, timeout=CLIENT_SECONDS)
    try:
        for method, target, body in EXCHANGES:
            headers = {"User-Agent": "recorder-demo/1"}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, target, body, headers)
            connection.getresponse().read()
    finally:
        connection.close()


def dns_question(name: str, kind: int, identity: int) -> bytes:
    """Return a DNS query for one name (RFC 1035, section 4)."""
    head = struct.pack("!6H", identity, 0x0100, 1, 0, 0, 0)  # recursion desired
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return head + labels + b"\0" + struct.pack("!2H", kind, 1)


def dns_answer(query: bytes) -> bytes | None:
    """Return the answer to a query with one question, None for anything else."""
    if len(query) < 12 or query[2] & 0x80 or query[4:6] != b"\0\1":
        return None
    labels, at = [], 12
    while at < len(query) and 0 < query[at] < 64:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    end = at + 5
    if at >= len(query) or query[at] or end > len(query):
        return None
    kind = int.from_bytes(query[at + 1 : at + 3], "big")
    name = ".".join(labels).lower()
    address = NAMES.get((name, kind))
    known = any(name == other for other, _ in NAMES)
    code = NOERROR if known else NXDOMAIN
    counts = struct.pack("!4H", 1, int(address is not None), 0, 0)
    head = query[:2] + struct.pack("!H", 0x8580 | code) + counts
    record = b""
    if address is not None:
        record = struct.pack("!3HIH", 0xC00C, kind, 1, 60, len(address)) + address
    return head + query[12:end] + record


# The same conversations as a capture file.

ETHERNET = 1
SNAPLEN = 262144
STEP_NS = 200_000  # between two frames
CLIENT_PORT = 45000
MSS = 1460


def write_capture(path: Path, ports: Ports, start_ns: int | None = None) -> int:
    """Write the conversations as a pcap file with nanoseconds; return the number of frames.

    Made from what the servers would say, with IPv4, TCP and UDP headers whose checksums are right
    (https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html).
    """
    time_ns = time.time_ns() if start_ns is None else start_ns
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, SNAPLEN, ETHERNET))
        count = 0
        for count, frame in enumerate(_frames(ports), start=1):  # noqa: B007 - used after
            seconds, nanoseconds = divmod(time_ns, 10**9)
            file.write(struct.pack("<4I", seconds, nanoseconds, len(frame), len(frame)) + frame)
            time_ns += STEP_NS
    return count


def _frames(ports: Ports) -> Iterator[bytes]:
    for number, (name, kind) in enumerate(QUESTIONS):
        query = dns_question(name, kind, identity=number + 1)
        answer = dns_answer(query)
        assert answer is not None
        client = CLIENT_PORT + 1 + number
        yield _udp(client, ports.dns, query)
        yield _udp(ports.dns, client, answer)
    yield from _http_frames(ports.http)


def _http_frames(port: int) -> Iterator[bytes]:
    """Yield one connection: handshake, each exchange, and its end (RFC 9293)."""
    syn, ack, push, fin = 0x02, 0x10, 0x08, 0x01
    mine, its = 1000, 9000  # sequence numbers of client and server
    yield _tcp(CLIENT_PORT, port, mine, 0, syn)
    yield _tcp(port, CLIENT_PORT, its, mine + 1, syn | ack)
    mine, its = mine + 1, its + 1
    yield _tcp(CLIENT_PORT, port, mine, its, ack)
    for method, target, body in EXCHANGES:
        request, response = _request(method, target, body, port), _response(method, target)
        yield _tcp(CLIENT_PORT, port, mine, its, push | ack, request)
        mine += len(request)
        yield _tcp(port, CLIENT_PORT, its, mine, push | ack, response)
        its += len(response)
        yield _tcp(CLIENT_PORT, port, mine, its, ack)
    yield _tcp(CLIENT_PORT, port, mine, its, fin | ack)
    yield _tcp(port, CLIENT_PORT, its, mine + 1, fin | ack)
    yield _tcp(CLIENT_PORT, port, mine + 1, its + 1, ack)


def _request(method: str, target: str, body: bytes | None, port: int) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: {HOST}:{port}\r\nUser-Agent: recorder-demo/1\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + (body or b"")


def _response(method: str, target: str) -> bytes:
    missing = (404, "text/plain", b"There is no such page.\n")
    status, kind, body = ANSWERS.get((method, target.partition("?")[0]), missing)
    head = f"HTTP/1.1 {status} {http.client.responses[status]}\r\nServer: demo-shop/1\r\n"
    if status != 204:
        head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _tcp(
    source: int, target: int, sequence: int, acknowledged: int, flags: int, data: bytes = b""
) -> bytes:
    assert len(data) <= MSS
    header = struct.pack(
        "!2H2I4H", source, target, sequence, acknowledged, 5 << 12 | flags, 65535, 0, 0
    )
    checksum = _checksum(_pseudo_header(socket.IPPROTO_TCP, header + data) + header + data)
    return _ip(socket.IPPROTO_TCP, header[:16] + struct.pack("!H", checksum) + header[18:] + data)


def _udp(source: int, target: int, data: bytes) -> bytes:
    header = struct.pack("!4H", source, target, 8 + len(data), 0)
    checksum = _checksum(_pseudo_header(socket.IPPROTO_UDP, header + data) + header + data)
    return _ip(socket.IPPROTO_UDP, header[:6] + struct.pack("!H", checksum or 0xFFFF) + data)


def _pseudo_header(protocol: int, segment: bytes) -> bytes:
    address = socket.inet_aton(HOST)
    return address + address + struct.pack("!2H", protocol, len(segment))


def _ip(protocol: int, payload: bytes) -> bytes:
    """Return an Ethernet frame with an IPv4 packet (RFC 791)."""
    address = socket.inet_aton(HOST)
    fixed = struct.pack("!2B3H2BH", 0x45, 0, 20 + len(payload), 0, 0x4000, 64, protocol, 0)
    header = fixed + address + address
    header = header[:10] + struct.pack("!H", _checksum(header)) + header[12:]
    return bytes(12) + b"\x08\x00" + header + payload


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
