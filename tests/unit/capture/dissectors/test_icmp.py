"""Messages of ICMP, as RFC 792, 4443 and 4861 have them."""

import struct
from ipaddress import ip_address

import pytest

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.icmp.exchange import MOST_WAITING, TIMEOUT_NS, Icmp, Icmp6
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import bear_damage, play


def message(kind, code=0, rest=b"\0\0\0\0", data=b""):
    return bytes([kind, code, 0xAB, 0xCD]) + rest + data


def echo(kind, identifier, sequence, data=b"x" * 56):
    return message(kind, 0, struct.pack(">2H", identifier, sequence), data)


def ipv4(protocol, payload, offset=0):
    ends = ip_address("10.0.0.1").packed + ip_address("10.0.0.2").packed
    return struct.pack(">2B3H2BH", 0x45, 0, 60, 1, offset, 64, protocol, 0) + ends + payload


def ipv6(protocol, payload):
    ends = ip_address("fd00::1").packed + ip_address("fd00::2").packed
    return struct.pack(">IH2B", 6 << 28, len(payload), protocol, 64) + ends + payload


PORTS = struct.pack(">2HI", 40000, 443, 7)


def only(kind, octets):
    (found,) = play(kind, [(CLIENT, octets)])
    return found


@pytest.mark.parametrize(("kind", "asked", "replied"), [(Icmp, 8, 0), (Icmp6, 128, 129)])
def test_an_echo_and_its_reply_are_a_call(kind, asked, replied):
    story = [(CLIENT, echo(asked, 3, 9)), (SERVER, echo(replied, 3, 9))]
    (found,) = play(kind, story)
    assert found.request == {
        "type": "echo request", "typeNumber": asked, "code": 0, "version": kind.version,
        "length": 64, "identifier": 3, "sequence": 9,
    }  # fmt: skip
    assert (found.response["type"], found.response["sequence"]) == ("echo reply", 9)
    assert (found.request_size, found.response_size) == (64, 64)
    assert (found.start_ns, found.end_ns, found.error_type) == (1, 2, None)


def test_replies_go_to_their_requests():
    asked = [(CLIENT, echo(8, 3, n)) for n in range(4)] + [(SERVER, echo(8, 3, 0))]
    replied = [(SERVER, echo(0, 3, n)) for n in (2, 0, 3)] + [(CLIENT, echo(0, 3, 0))]
    found = play(Icmp, asked + replied)
    assert [(e.asked_by, e.request["sequence"], e.error_type) for e in found] == [
        (CLIENT, 2, None), (CLIENT, 0, None), (CLIENT, 3, None), (SERVER, 0, None),
        (CLIENT, 1, "pair-not-found"),
    ]  # fmt: skip


def test_who_pings_itself_gets_its_replies():
    (found,) = play(Icmp, [(CLIENT, echo(8, 3, 1)), (CLIENT, echo(0, 3, 1))])
    assert (found.response["type"], found.error_type) == ("echo reply", None)


def test_a_request_waits_for_ten_seconds():
    conversation = Icmp()
    conversation.receive(CLIENT, memoryview(echo(8, 3, 1)), 0)
    conversation.receive(CLIENT, memoryview(echo(8, 3, 2)), TIMEOUT_NS + 1)
    (lost,) = conversation.exchanges
    assert (lost.request["sequence"], lost.error_type, lost.end_ns) == (1, "timeout", TIMEOUT_NS)
    conversation.exchanges.clear()
    conversation.receive(SERVER, memoryview(echo(0, 3, 1)), TIMEOUT_NS + 2)
    (late,) = conversation.exchanges
    assert (late.request, late.error_type) == (None, "pair-not-found")


@pytest.mark.parametrize(
    ("kind", "octets", "wanted"),
    [
        (Icmp, message(3, 3, data=ipv4(6, PORTS)), {
            "type": "destination unreachable", "codeName": "port unreachable",
            "about": {"transport": "tcp", "src": {"ip": "10.0.0.1", "port": 40000},
                      "dst": {"ip": "10.0.0.2", "port": 443}},
        }),
        (Icmp, message(3, 4, b"\0\0\x05\x14", ipv4(17, PORTS)), {
            "codeName": "fragmentation needed", "mtu": 1300,
        }),
        (Icmp, message(11, 0, data=ipv4(1, echo(8, 5, 6)[:8])), {
            "type": "time exceeded", "codeName": "time to live exceeded in transit",
            "about": {"transport": "icmp", "src": {"ip": "10.0.0.1"}, "dst": {"ip": "10.0.0.2"},
                      "type": 8, "identifier": 5, "sequence": 6},
        }),
        (Icmp, message(3, 2, data=ipv4(6, PORTS, offset=7)), {
            "about": {"transport": "tcp", "src": {"ip": "10.0.0.1"}, "dst": {"ip": "10.0.0.2"}},
        }),
        (Icmp, message(3, 2, data=ipv4(89, PORTS)), {
            "codeName": "protocol unreachable",
            "about": {"transport": "protocol 89", "src": {"ip": "10.0.0.1"},
                      "dst": {"ip": "10.0.0.2"}},
        }),
        (Icmp, message(5, 1, bytes([10, 0, 0, 254]), ipv4(6, PORTS)), {
            "type": "redirect", "codeName": "host", "gateway": "10.0.0.254",
        }),
        (Icmp, message(12, 0, b"\x08\0\0\0"), {"type": "parameter problem", "pointer": 8}),
        (Icmp, message(99), {"type": "type 99", "typeNumber": 99}),
        (Icmp, b"\3\1\0\0", {"type": "destination unreachable", "length": 4}),
        (Icmp6, message(1, 4, data=ipv6(17, PORTS)), {
            "codeName": "port unreachable",
            "about": {"transport": "udp", "src": {"ip": "fd00::1", "port": 40000},
                      "dst": {"ip": "fd00::2", "port": 443}},
        }),
        (Icmp6, message(2, 0, b"\0\0\x05\0", ipv6(0, b"\6\0" + bytes(6) + PORTS)), {
            "type": "packet too big", "mtu": 1280,
            "about": {"transport": "tcp", "src": {"ip": "fd00::1", "port": 40000},
                      "dst": {"ip": "fd00::2", "port": 443}},
        }),
        (Icmp6, message(135, 0, data=ip_address("fd00::2").packed), {
            "type": "neighbor solicitation", "target": "fd00::2",
        }),
    ],
)  # fmt: skip
def test_other_messages_stand_alone(kind, octets, wanted):
    found = only(kind, octets)
    assert {key: found.request.get(key) for key in wanted} == wanted
    assert (found.response, found.error_type) == (None, None)


def test_a_flood_without_replies_is_bounded():
    conversation = Icmp()
    for n in range(2 * MOST_WAITING):
        conversation.receive(CLIENT, memoryview(echo(8, 1, n, b"")), n)
    assert len(conversation.exchanges) == MOST_WAITING


def test_wrong_octets_raise_nothing_else():
    with pytest.raises(ProtocolError):
        Icmp().receive(CLIENT, memoryview(b"\3\1\0"), 0)
    quoting = [(CLIENT, message(3, 3, data=ipv4(6, PORTS))), (CLIENT, echo(8, 1, 1))]
    bear_damage(Icmp, quoting, 2000, seed=1)
    v6 = [(CLIENT, message(1, 4, data=ipv6(0, b"\6\0" + bytes(6) + PORTS)))]
    bear_damage(Icmp6, v6, 2000, seed=58)
