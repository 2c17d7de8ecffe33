"""Conversations of Diameter, made of messages as RFC 6733 has them."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.diameter import DIAMETER, names
from services.capture.dissectors.diameter.avps import MOST_AVPS, MOST_DEPTH
from services.capture.dissectors.diameter.exchange import MOST_KEPT, MOST_WAITING, Diameter
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.first_octets import fits
from tests.unit.capture.dissectors.playback import bear_damage, in_pieces, play, with_gaps

THREE_GPP = names.VENDOR_3GPP


def avp(code, value, vendor=0):
    value = value.encode() if isinstance(value, str) else value
    value = struct.pack(">I", value) if isinstance(value, int) else value
    head = struct.pack(">I", vendor) if vendor else b""
    flags = 0xC0 if vendor else 0x40
    length = 8 + len(head) + len(value)
    return struct.pack(">II", code, flags << 24 | length) + head + value + bytes(-length % 4)


def message(code, link, *avps, flags=0x80, app=0):
    body = b"".join(avps)
    heads = 1 << 24 | 20 + len(body), flags << 24 | code, app, link, link + 1000
    return struct.pack(">5I", *heads) + body


def answer(code, link, *avps, flags=0, app=0, result=2001):
    return message(code, link, avp(268, result), *avps, flags=flags, app=app)


def values(*avps):
    (found,) = play(Diameter, [(CLIENT, message(272, 1, *avps))])
    return found.request["avps"]


ORIGIN = avp(264, "pgw.shop"), avp(296, "shop")
SESSION = avp(263, "pgw.shop;1;2")
STORY = [
    (CLIENT, message(257, 1, *ORIGIN, avp(257, b"\0\1\x7f\0\0\1"))),
    (SERVER, answer(257, 1, *ORIGIN)),
    (CLIENT, message(272, 2, SESSION, *ORIGIN, avp(416, 1), app=16777238)),
    (SERVER, answer(272, 2, SESSION, *ORIGIN, app=16777238)),
    (SERVER, message(280, 3, *ORIGIN)),
    (CLIENT, answer(280, 3, *ORIGIN)),
]


def test_each_command_is_an_exchange_of_the_peer_that_asked():
    capabilities, credit, watchdog = play(Diameter, STORY)
    assert capabilities.request["method"] == "Capabilities-Exchange"
    assert capabilities.request["avps"][2] == {
        "code": 257, "name": "Host-IP-Address", "value": "127.0.0.1",
    }  # fmt: skip
    assert credit.request["method"] == "Credit-Control"
    assert credit.request["commandCode"] == 272
    assert (credit.request["applicationId"], credit.request["application"]) == (16777238, "Gx")
    assert credit.request["sessionId"] == credit.response["sessionId"] == "pgw.shop;1;2"
    assert (credit.response["resultCode"], credit.response["result"]) == (2001, "SUCCESS")
    assert (credit.request_size, credit.response_size) == (len(STORY[2][1]), len(STORY[3][1]))
    assert (credit.start_ns, credit.end_ns) == (3, 4)
    assert credit.version == "1"
    assert (watchdog.request["method"], watchdog.asked_by) == ("Device-Watchdog", SERVER)


def test_answers_in_another_order_go_to_their_requests():
    asked = b"".join(message(272, n, avp(263, f"s{n}")) for n in range(5))
    answered = b"".join(answer(272, n, avp(263, f"s{n}")) for n in (3, 0, 4, 1, 2))
    found = play(Diameter, [(CLIENT, asked), (SERVER, answered)])
    assert [each.request["sessionId"] for each in found] == ["s3", "s0", "s4", "s1", "s2"]
    assert all(each.request["sessionId"] == each.response["sessionId"] for each in found)


def test_both_peers_may_use_the_same_identifier():
    story = [
        (CLIENT, message(280, 7)), (SERVER, message(280, 7)),
        (CLIENT, answer(280, 7)), (SERVER, answer(280, 7)),
    ]  # fmt: skip
    found = play(Diameter, story)
    assert [each.asked_by for each in found] == [SERVER, CLIENT]
    assert [each.error_type for each in found] == [None, None]


@pytest.mark.parametrize(
    ("octets", "wanted"),
    [
        (avp(1, "ann"), {"code": 1, "name": "User-Name", "value": "ann"}),
        (avp(2, "Hunter2"), {"code": 2, "name": "User-Password", "value": "[redacted]"}),
        (avp(462, b"\2\1\0\4"), {"code": 462, "name": "EAP-Payload", "value": "[redacted]"}),
        (avp(8, b"\x0a\0\0\1"), {"code": 8, "name": "Framed-IP-Address", "value": "10.0.0.1"}),
        (avp(257, b"\0\2" + bytes(15) + b"\1"),
         {"code": 257, "name": "Host-IP-Address", "value": "::1"}),
        (avp(447, b"\xff" * 8), {"code": 447, "name": "Value-Digits", "value": -1}),
        (avp(55, 3_913_056_000),
         {"code": 55, "name": "Event-Timestamp", "value": "2024-01-01T00:00:00+00:00"}),
        (avp(451, 0),
         {"code": 451, "name": "Tariff-Time-Change", "value": "2036-02-07T06:28:16+00:00"}),
        (avp(701, b"\x94\x71", THREE_GPP),
         {"code": 701, "name": "MSISDN", "vendorId": THREE_GPP, "value": "9471"}),
        (avp(1450, b"K" * 32, THREE_GPP),
         {"code": 1450, "name": "KASME", "vendorId": THREE_GPP, "value": "[redacted]"}),
        (avp(16, b"H" * 32, 311), {"code": 16, "vendorId": 311, "value": "[redacted]"}),
        (avp(9999, "text"), {"code": 9999, "value": "text"}),
        (avp(9999, b"\0\0\0\7", 42), {"code": 9999, "vendorId": 42, "value": 7}),
        (avp(9999, b"\xff" * 16, 42), {"code": 9999, "vendorId": 42, "size": 16}),
        (avp(443, avp(450, 1) + avp(444, "2620")), {
            "code": 443, "name": "Subscription-Id", "value": [
                {"code": 450, "name": "Subscription-Id-Type", "value": 1},
                {"code": 444, "name": "Subscription-Id-Data", "value": "2620"},
            ],
        }),
        (avp(443, b"\0\0\0\1\0\0\0\1"), {"code": 443, "name": "Subscription-Id", "value": []}),
    ],
)  # fmt: skip
def test_pairs_have_names_and_readable_values(octets, wanted):
    assert values(octets) == [wanted]


def test_groups_have_a_depth_and_messages_a_number_of_pairs():
    deep = avp(263, "s")
    for _ in range(200):
        deep = avp(279, deep)
    (found,) = values(deep)
    depth = 0
    while "value" in found:
        (found,) = found["value"]
        depth += 1
    assert (depth, found["name"]) == (MOST_DEPTH, "Failed-AVP")
    (found,) = play(Diameter, [(CLIENT, message(272, 1, *[avp(415, 1)] * (MOST_AVPS + 5)))])
    assert len(found.request["avps"]) == MOST_AVPS
    assert found.request["bodyTruncated"]


def test_results_of_3gpp_are_told():
    result = avp(297, avp(266, THREE_GPP) + avp(298, 5001))
    story = [(CLIENT, message(316, 1)), (SERVER, message(316, 1, result, flags=0x40))]
    (found,) = play(Diameter, story)
    assert (found.response["resultCode"], found.response["result"]) == (5001, "USER_UNKNOWN")


def test_flags_are_told():
    story = [(CLIENT, message(272, 1, flags=0xD0)), (SERVER, answer(272, 1, flags=0x60))]
    (found,) = play(Diameter, story)
    assert (found.request["proxiable"], found.request["retransmitted"]) == (True, True)
    assert found.response["error"]


def test_a_side_alone_says_that_the_other_is_missing():
    (asked,) = play(Diameter, [(CLIENT, message(272, 1))])
    (answered,) = play(Diameter, [(SERVER, answer(272, 1))])
    assert (asked.response, asked.error_type) == (None, "pair-not-found")
    assert (answered.request, answered.error_type) == (None, "pair-not-found")
    assert answered.asked_by == CLIENT
    wrong = play(Diameter, [(CLIENT, message(272, 1)), (SERVER, answer(280, 1))])
    assert [each.error_type for each in wrong] == ["pair-not-found"] * 2


def test_tls_ends_it():
    conversation = Diameter()
    play(lambda: conversation, [*STORY[:2], (CLIENT, b"\x16\3\1\0\5hello")])
    assert conversation.is_over


@given(st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_segments_change_nothing(size):
    assert play(Diameter, STORY, size) == play(Diameter, STORY)


@pytest.mark.parametrize("size", [1, 11, 70])
def test_a_gap_costs_only_what_it_touches(size):
    whole = play(Diameter, STORY)
    for part, story in with_gaps(STORY, size):
        found = play(Diameter, story)
        rest = [each for n, each in enumerate(whole) if n != part // 2]
        assert [each for each in found if each in rest] == rest
        assert {each.error_type for each in found if each not in rest} == {"gap"}


def test_after_a_gap_that_is_not_known_the_next_message_is_found():
    story = [(CLIENT, 0), (CLIENT, STORY[0][1][9:] + STORY[2][1]), STORY[3]]
    (found,) = play(Diameter, story)
    assert found.request["method"] == "Credit-Control"


def test_a_long_message_is_told_by_its_header():
    big = message(272, 2, SESSION, avp(9999, "x" * 2 * MOST_KEPT))
    (found,) = play(Diameter, in_pieces([(CLIENT, big), (SERVER, answer(272, 2))], 1000))
    assert (found.request["commandCode"], found.request["avps"]) == (272, [])
    assert found.request["bodyTruncated"]
    assert found.request_size == len(big)


def test_requests_that_are_never_answered_are_bounded():
    conversation = Diameter()
    for n in range(3 * MOST_WAITING):
        conversation.receive(CLIENT, memoryview(message(280, n)), n)
    assert len(conversation.exchanges) == 2 * MOST_WAITING
    assert conversation.buffered == MOST_WAITING * 20
    conversation.close(0)
    assert len(conversation.exchanges) == 3 * MOST_WAITING
    assert conversation.buffered == 0


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\2" + STORY[0][1][1:],
        b"\1\0\0\x12" + bytes(16),
        message(272, 1, flags=0x81),
        message(272, 1, b"\0\0\1\x07\x40\0\0\x07"),
        message(272, 1, b"\0\0\1\x07\x40\0\0\x20"),
    ],
)
def test_what_is_no_diameter_is_refused(octets):
    conversation = Diameter()
    with pytest.raises(ProtocolError):
        conversation.receive(CLIENT, memoryview(octets), 0)
    assert not conversation.understood


def test_wrong_octets_raise_nothing_else():
    rich = message(316, 9, avp(443, avp(450, 1)), avp(55, 1), avp(1413, avp(1414, b""), THREE_GPP))
    bear_damage(Diameter, [*STORY, (CLIENT, rich)], 3000, seed=3868)


def test_streams_are_recognised_on_any_port():
    assert fits(DIAMETER, STORY[0][1])
    assert fits(DIAMETER, STORY[3][1], SERVER)
    assert fits(DIAMETER, message(8388635, 1, app=16777302))
    assert not fits(DIAMETER, b"\1\0\0\0\1\0\0\0\0\0\0\0")  # COM_QUIT of MySQL
    assert not fits(DIAMETER, b"\x16\3\1\0\xc8\1\0\0\xc4\3\3\0")
