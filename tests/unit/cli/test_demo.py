"""The demo's servers and its capture file, looked at by other software."""

import http.client
import socket
import struct

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import IP, TCP, UDP
from scapy.utils import rdpcap

from services.cli import demo

PORTS = demo.Ports(8080, 53)


def test_servers_answer_and_leave(closed_port):
    with demo.serving() as ports:
        demo.make_traffic(ports)
        connection = http.client.HTTPConnection(demo.HOST, ports.http, timeout=10)
        statuses = []
        for method, target, body in demo.EXCHANGES:
            connection.request(method, target, body)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        connection.close()
    assert statuses == [200, 200, 201, 200, 404, 200, 500, 204]
    with socket.socket() as probe:
        assert probe.connect_ex((demo.HOST, ports.http)) != 0


@pytest.mark.parametrize(
    ("name", "kind", "code", "data"),
    [
        ("shop.demo.test", 1, 0, "192.0.2.10"),
        ("SHOP.demo.test", 28, 0, "2001:db8::10"),
        ("bank.demo.test", 28, 0, None),
        ("nobody.demo.test", 1, 3, None),
    ],
)
def test_dns_answers(name, kind, code, data):
    answer = DNS(demo.dns_answer(demo.dns_question(name, kind, identity=77)))
    assert (answer.id, answer.qr, answer.rcode) == (77, 1, code)
    assert answer.qd[0].qname.decode() == f"{name}."
    assert [record.rdata for record in answer.an] == ([data] if data else [])


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"\0" * 11,
        b"\0" * 12,
        demo.dns_question("a.test", 1, 1)[:-1],
        demo.dns_question("a.test", 1, 1)[:14],
        struct.pack("!6H", 1, 0x0100, 1, 0, 0, 0) + b"\xff" * 20,
        struct.pack("!6H", 1, 0x8100, 1, 0, 0, 0) + b"\1a\0\0\1\0\1",
    ],
)
def test_no_answer_to_what_is_no_question(query):
    assert demo.dns_answer(query) is None


@pytest.fixture(scope="module")
def packets(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "demo.pcap"
    count = demo.write_capture(path, PORTS, start_ns=1_700_000_000_123_456_789)
    found = rdpcap(str(path))
    assert len(found) == count
    return found


def test_checksums_and_lengths_are_right(packets):
    for packet in packets:
        again = IP(bytes(packet[IP]))
        for layer in (again, again.payload):
            layer.chksum, old = None, layer.chksum
            assert type(layer)(bytes(layer)).chksum == old or layer is again.payload
        rebuilt = IP(bytes(again))
        assert bytes(rebuilt) == bytes(packet[IP])
        assert packet[IP].len == len(packet[IP])


def test_tcp_is_one_whole_connection(packets):
    segments = [packet[TCP] for packet in packets if TCP in packet]
    assert [str(s.flags) for s in segments[:3]] == ["S", "SA", "A"]
    assert [str(s.flags) for s in segments[-3:]] == ["FA", "FA", "A"]
    following = {}
    octets = {}
    for segment in segments:
        data = bytes(segment.payload)
        assert segment.seq == following.get(segment.sport, segment.seq)
        following[segment.sport] = segment.seq + len(data) + bool(segment.flags & 0x03)
        octets[segment.sport] = octets.get(segment.sport, b"") + data
    assert octets[PORTS.http].count(b"HTTP/1.1 ") == len(demo.EXCHANGES)
    assert b"HTTP/1.1 500 Internal Server Error" in octets[PORTS.http]
    assert octets[demo.CLIENT_PORT].count(b"User-Agent: recorder-demo/1") == len(demo.EXCHANGES)


def test_times_go_forward_from_the_start(packets):
    times = [int(packet.time * 10**9) for packet in packets]
    assert times == sorted(set(times))
    assert times[0] // 10**9 == 1_700_000_000
    assert sum(UDP in packet for packet in packets) == 2 * len(demo.QUESTIONS)
