"""Packets of RADIUS, made as RFC 2865 has them."""

import pytest

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.radius import RADIUS
from services.capture.dissectors.radius.exchange import SAME_NS, Radius
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.first_octets import fits
from tests.unit.capture.dissectors.playback import bear_damage, play


def attribute(kind, value):
    value = value.encode() if isinstance(value, str) else value
    return bytes([kind, 2 + len(value)]) + value


def vendor(number, *attributes):
    return attribute(26, number.to_bytes(4, "big") + b"".join(attributes))


def packet(code, identifier, *attributes, authenticator=b"\x5a" * 16):
    body = b"".join(attributes)
    return bytes([code, identifier]) + (20 + len(body)).to_bytes(2, "big") + authenticator + body


def shown(*attributes):
    (found,) = play(Radius, [(CLIENT, packet(1, 1, *attributes))])
    return found.request["attributes"]


ASK = packet(1, 7, attribute(1, "ann"), attribute(2, b"\x13" * 16))
ACCEPT = packet(2, 7, attribute(18, "hello"), authenticator=b"\xa5" * 16)
STORY = [
    (CLIENT, ASK),
    (SERVER, ACCEPT),
    (CLIENT, packet(4, 8, attribute(40, b"\0\0\0\1"))),
    (SERVER, packet(5, 8)),
]


def test_a_login_is_one_exchange_without_its_password():
    found, _ = play(Radius, STORY)
    assert found.request == {
        "code": 1, "codeName": "Access-Request", "identifier": 7, "authenticator": "5a" * 16,
        "attributes": {"User-Name": "ann", "User-Password": "[redacted]"},
    }  # fmt: skip
    assert found.response == {
        "code": 2, "codeName": "Access-Accept", "identifier": 7, "authenticator": "a5" * 16,
        "attributes": {"Reply-Message": "hello"},
    }  # fmt: skip
    assert (found.request_size, found.response_size) == (len(ASK), len(ACCEPT))
    assert (found.start_ns, found.end_ns, found.asked_by) == (1, 2, CLIENT)
    assert found.error_type is None


@pytest.mark.parametrize(
    ("octets", "wanted"),
    [
        (attribute(4, bytes([192, 0, 2, 1])), {"NAS-IP-Address": "192.0.2.1"}),
        (attribute(4, b"\1\2"), {"NAS-IP-Address": "0102"}),
        (attribute(95, bytes(15) + b"\1"), {"NAS-IPv6-Address": "::1"}),
        (attribute(97, b"\0\x40\x20\x01\x0d\xb8"), {"Framed-IPv6-Prefix": "2001:db8::/64"}),
        (attribute(6, b"\0\0\0\2"), {"Service-Type": "Framed"}),
        (attribute(6, b"\0\0\0\x63"), {"Service-Type": 99}),
        (attribute(27, b"\0\0\x0e\x10"), {"Session-Timeout": 3600}),
        (attribute(27, b""), {"Session-Timeout": ""}),
        (attribute(55, b"\x65\0\0\0"), {"Event-Timestamp": 0x65000000}),
        (attribute(1, b"J\xf6rg"), {"User-Name": "J\\xf6rg"}),
        (attribute(64, b"\1\0\0\x0d"), {"Tunnel-Type": "VLAN"}),
        (attribute(81, b"\x0142"), {"Tunnel-Private-Group-Id": "42"}),
        (attribute(81, b"42"), {"Tunnel-Private-Group-Id": "42"}),
        (attribute(25, b"\1\2") + attribute(25, b"\3"), {"Class": ["0102", "03"]}),
        (attribute(200, b"\1\2"), {"Attribute-200": 258}),
        (attribute(214, b"\xff" * 16), {"Attribute-214": {"size": 16}}),
        (attribute(241, b"\1\0\0\0\1"), {"Attribute-241.1": {"size": 5}}),
        (vendor(9, attribute(1, "shell:priv-lvl=15")), {"Cisco-AVPair": "shell:priv-lvl=15"}),
        (vendor(9, attribute(1, "leap:session-key=Hunter2")),
         {"Cisco-AVPair": "leap:session-key=[redacted]"}),
        (vendor(10415, attribute(1, "26201"), attribute(2, b"\0\0\0\7")),
         {"3GPP-IMSI": "26201", "3GPP-Charging-ID": 7}),
        (vendor(4711, attribute(3, "x")), {"Vendor-4711-3": "x"}),
        (vendor(4711, attribute(3, b"\xff" * 32)), {"Vendor-4711-3": {"size": 32}}),
        (vendor(4711, b"\1\xffabc"), {"Vendor-4711-Specific": {"size": 9}}),
    ],
)  # fmt: skip
def test_attributes_have_names_and_readable_values(octets, wanted):
    assert shown(octets) == wanted


@pytest.mark.parametrize("kind", [2, 3, 69, 70, 79, 80, 84])
def test_passwords_and_proofs_are_never_told(kind):
    assert list(shown(attribute(kind, "Hunter2Hunter2")).values()) == ["[redacted]"]


def test_microsofts_keys_are_never_told():
    kinds = (1, 3, 4, 5, 6, 11, 12, 16, 17, 19, 20, 25, 26, 27)
    found = shown(vendor(311, *(attribute(kind, "Hunter2") for kind in kinds)))
    assert set(found.values()) == {"[redacted]"}
    assert len(found) == len(kinds)


def test_of_eap_it_is_told_what_it_is():
    parts = attribute(79, b"\2\x2a\0\x50\x04Hunter2"), attribute(79, "Hunter3")
    (found,) = play(Radius, [(CLIENT, packet(1, 1, *parts))])
    assert found.request["eap"] == {"code": "Response", "identifier": 42, "type": "MD5-Challenge"}
    assert found.request["attributes"] == {"EAP-Message": "[redacted]"}


def test_a_packet_that_is_sent_again_is_the_same_call():
    (found,) = play(Radius, [(CLIENT, ASK), (CLIENT, ASK), (CLIENT, ASK), (SERVER, ACCEPT)])
    assert found.request["retransmissions"] == 2
    assert (found.start_ns, found.end_ns) == (1, 4)
    late = [(CLIENT, ASK), (SERVER, ACCEPT), (CLIENT, ASK), (SERVER, ACCEPT)]
    (found,) = play(Radius, late)
    assert "retransmissions" not in found.request


def test_an_identifier_that_is_used_again_is_another_call():
    other = packet(1, 7, attribute(1, "bob"), authenticator=b"\x11" * 16)
    lost, answered = play(Radius, [(CLIENT, ASK), (CLIENT, other), (SERVER, ACCEPT)])
    assert (lost.response, lost.error_type) == (None, "pair-not-found")
    assert answered.request["attributes"]["User-Name"] == "bob"
    conversation = Radius()
    for time_ns in (0, SAME_NS + 1):
        conversation.receive(CLIENT, memoryview(ASK), time_ns)
    assert len(conversation.exchanges) == 1


def test_answers_in_another_order_go_to_their_requests():
    asked = [(CLIENT, packet(1, n, attribute(1, f"user{n}"))) for n in range(5)]
    answered = [(SERVER, packet(3, n, attribute(18, f"no {n}"))) for n in (3, 0, 4, 1, 2)]
    found = play(Radius, asked + answered)
    for each in found:
        number = each.request["identifier"]
        assert each.response["attributes"]["Reply-Message"] == f"no {number}"
    assert len(found) == 5


def test_what_is_kept_is_counted():
    conversation = Radius()
    for n in range(600):
        asked = packet(1, n % 256, authenticator=n.to_bytes(16, "big"))
        conversation.receive(CLIENT, memoryview(asked), n)
    assert conversation.buffered == 256 * 20
    conversation.close(0)
    assert conversation.buffered == 0


def test_the_server_may_ask():
    story = [(CLIENT, packet(43, 1, attribute(1, "ann"))), (SERVER, packet(45, 1))]
    (found,) = play(Radius, [(1 - side, octets) for side, octets in story])
    assert (found.request["codeName"], found.response["codeName"]) == ("CoA-Request", "CoA-NAK")
    assert found.asked_by == SERVER


def test_a_side_alone_says_that_the_other_is_missing():
    for story in ([(CLIENT, ASK)], [(SERVER, ACCEPT)]):
        (found,) = play(Radius, story)
        assert found.error_type == "pair-not-found"
    wrong, asked = play(Radius, [(CLIENT, ASK), (SERVER, packet(5, 7))])
    assert (wrong.request, asked.response) == (None, None)


def test_what_follows_a_packet_is_no_part_of_it():
    (found,) = play(Radius, [(CLIENT, ASK + b"padding")])
    assert found.request_size == len(ASK)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\1\1\0\x14",
        packet(1, 1)[:19],
        packet(99, 1),
        packet(1, 1, b"\1"),
        packet(1, 1, b"\1\1"),
        packet(1, 1, b"\1\x09abc"),
        packet(1, 1, *(attribute(1, "x" * 200) for _ in range(21))),
        packet(1, 1, attribute(1, "ann"))[:-1],
    ],
)
def test_what_is_no_radius_is_refused(octets):
    conversation = Radius()
    with pytest.raises(ProtocolError):
        conversation.receive(CLIENT, memoryview(octets), 0)
    assert not conversation.understood


def test_wrong_octets_raise_nothing_else():
    values = vendor(9, attribute(1, "a=b")), attribute(97, b"\0\x40"), attribute(64, b"\1\0\0\3")
    rich = packet(1, 9, *values, attribute(79, b"\1\2\0\4"), attribute(4, bytes(4)))
    whole = [*STORY, (CLIENT, rich)]
    bear_damage(Radius, whole, 5000, seed=1812)
    assert len(play(Radius, whole)) == 3


def test_packets_are_recognised():
    assert fits(RADIUS, ASK, port=50000)
    assert fits(RADIUS, packet(5, 8), port=1813)
    assert not fits(RADIUS, packet(5, 8), port=50000)
    assert not fits(
        RADIUS, b"\x12\x34\1\0\0\1\0\0\0\0\0\0\3www\7example\3com\0\0\1\0\1", port=50000
    )
