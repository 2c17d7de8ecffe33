"""What is attached to a source while jobs come and go."""

import pytest
from scapy.all import ICMP, IP, TCP, UDP, Ether

import kfl
from services.capture.frames.batch import CaptureError
from services.capture.kernelfilter import KernelFilter
from tests.unit.capture.bpfmachine import run

MAC = "02:00:00:00:00:01"


def packet(layer, host="10.0.0.1"):
    return bytes(Ether(src=MAC, dst=MAC) / IP(src=host, dst="10.0.0.9") / layer)


HTTP, DNS, PING = packet(TCP(dport=80)), packet(UDP(dport=53)), packet(ICMP())


class Socket:
    """Takes programs like a socket of a kernel that allows them `room` instructions."""

    def __init__(self, room=4096):
        self.room = room
        self.programs = []

    def attach(self, program):
        if program and len(program) > self.room:
            raise CaptureError("the kernel refuses the BPF program: Cannot allocate memory")
        self.programs.append(program)

    def keeps(self, frame):
        program = self.programs[-1]
        return program is None or run(program, frame) > 0


@pytest.fixture
def socket():
    return Socket()


def test_what_any_of_the_jobs_needs_is_kept(socket):
    kernel = KernelFilter(socket)
    kernel.follow({"dns"})
    assert [socket.keeps(frame) for frame in (HTTP, DNS, PING)] == [False, True, False]
    kernel.follow({"dns", "http and response.status == 500"})
    assert [socket.keeps(frame) for frame in (HTTP, DNS, PING)] == [True, True, False]
    assert kernel.packets.dissectors == {"dns", "http", "ws"}
    kernel.follow({"http and response.status == 500"})
    assert [socket.keeps(frame) for frame in (HTTP, DNS, PING)] == [True, False, False]
    kernel.follow({"dns", "response.status == 500"})
    assert [socket.keeps(frame) for frame in (HTTP, DNS, PING)] == [True, True, True]
    assert kernel.packets.dissectors is None


def test_without_jobs_nothing_is_kept(socket):
    kernel = KernelFilter(socket)
    kernel.follow(set())
    assert not any(map(socket.keeps, (HTTP, DNS, PING)))
    assert kernel.packets.dissectors == frozenset()


def test_of_a_source_without_a_filter_the_dissectors_are_known():
    needs = KernelFilter(None)
    for statements, dissectors in (
        ({"dns"}, {"dns"}),
        ({"dns", "http"}, {"dns", "http", "ws"}),
        ({"dns", "tcp"}, None),
        ({"dns", "response.status == 500"}, None),
        (set(), set()),
    ):
        needs.follow(statements)
        assert needs.packets.dissectors == dissectors


def test_a_statement_that_cannot_be_compiled_needs_nothing(socket):
    KernelFilter(socket).follow({"dns", "http and and"})
    assert [socket.keeps(frame) for frame in (HTTP, DNS)] == [False, True]


def test_the_kernel_is_asked_only_when_something_changed(socket):
    kernel = KernelFilter(socket)
    for statements in ({"dns"}, {"dns"}, {"dns", "dns and limit(3)"}, {"dns", "false"}):
        kernel.follow(statements)
    assert len(socket.programs) == 1


def test_names_are_the_addresses_that_they_have_now(socket):
    peers = {"10.0.0.1": {"name": "shop"}}

    def resolver(test):
        accepts = test.test()
        return [address for address, peer in peers.items() if accepts(peer)]

    kernel = KernelFilter(socket, resolver)
    kernel.follow({'http and src.name == "shop"'})
    there, elsewhere = HTTP, packet(TCP(dport=80), "10.0.0.2")
    assert (socket.keeps(there), socket.keeps(elsewhere)) == (True, False)
    peers["10.0.0.2"] = {"name": "shop"}
    del peers["10.0.0.1"]
    kernel.refresh()
    assert (socket.keeps(there), socket.keeps(elsewhere)) == (False, True)


def test_what_is_needed_besides_is_kept_while_there_is_a_statement(socket):
    kernel = KernelFilter(socket, besides=kfl.compile("dns").packets())
    kernel.follow({"http"})
    assert (socket.keeps(HTTP), socket.keeps(DNS)) == (True, True)
    assert kernel.packets.dissectors >= {"http", "dns"}
    kernel.follow(set())
    assert (socket.keeps(HTTP), socket.keeps(DNS)) == (False, False)


def test_where_names_are_not_known_every_host_is_kept(socket):
    KernelFilter(socket).follow({'http and src.name == "shop"'})
    assert (socket.keeps(HTTP), socket.keeps(DNS)) == (True, False)


@pytest.mark.parametrize(("room", "kept"), [(400, True), (260, True), (10, True), (4096, False)])
def test_a_kernel_with_little_room_gets_a_coarser_program(room, kept):
    socket = Socket(room)
    hosts = ", ".join(f'"10.1.{n}.1"' for n in range(200))
    KernelFilter(socket).follow({f"http and src.ip in [{hosts}]"})
    assert socket.keeps(packet(TCP(dport=80), "10.1.7.1"))
    assert socket.keeps(HTTP) == kept


def test_a_kernel_that_takes_nothing_ends_the_capture():
    class Broken:
        def attach(self, program):
            raise CaptureError("the kernel refuses the BPF program: Bad file descriptor")

    with pytest.raises(CaptureError, match="Bad file descriptor"):
        KernelFilter(Broken()).follow({"dns"})


def test_where_addresses_are_translated_both_ends_of_a_stream_are_kept(socket):
    """The packets of a call to a service have its pod's address, or the client's, never both."""
    statement = 'http and src.ip == "10.0.0.1" and dst.port == 8080'
    called, served = packet(TCP(dport=80)), packet(TCP(dport=8080), "10.0.0.7")
    other = packet(TCP(dport=80), "10.0.0.7")
    KernelFilter(socket).follow({statement})
    assert not any(map(socket.keeps, (called, served, other, DNS)))
    KernelFilter(socket, is_translated=True).follow({statement, "dns"})
    assert [socket.keeps(f) for f in (called, served, other, DNS)] == [True, True, False, True]
