"""Conversations of LDAP, made of messages as RFC 4511 has them."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.ldap import CLDAP, LDAP, names
from services.capture.dissectors.ldap.exchange import (
    MOST_ENTRIES,
    MOST_KEPT,
    MOST_WAITING,
    ConnectionlessLdap,
    Ldap,
)
from services.capture.dissectors.ldap.filters import MOST_CHARACTERS, MOST_DEPTH, filter_text
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.first_octets import fits
from tests.unit.capture.dissectors.playback import bear_damage, in_pieces, play, with_gaps


def ber(tag, *contents, long=False):
    """One element; contents are octets, or texts."""
    content = b"".join(c.encode() if isinstance(c, str) else c for c in contents)
    if long:  # as Active Directory writes all lengths
        return bytes([tag, 0x84]) + struct.pack(">I", len(content)) + content
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    size = (len(content).bit_length() + 7) // 8
    return bytes([tag, 0x80 | size]) + len(content).to_bytes(size, "big") + content


def number(value, tag=0x02):
    return ber(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def string(text):
    return ber(0x04, text)


def message(id, tag, *contents, controls=b"", long=False):
    return ber(0x30, number(id), ber(tag, *contents, long=long), controls, long=long)


def attribute(name, *values):
    return ber(0x30, string(name), ber(0x31, *(string(v) for v in values)))


def result(code, matched="", said=""):
    return number(code, 0x0A) + string(matched) + string(said)


def bind(id, dn="cn=admin,dc=shop", password="Swordfish"):
    return message(id, names.BIND, number(3), string(dn), ber(0x80, password))


def search(id, asked=b"\x87\x0bobjectClass", dn="dc=shop", attributes=("mail",), **how):
    parts = string(dn), number(2, 0x0A), number(0, 0x0A), number(0), number(0), ber(0x01, b"\0")
    chosen = ber(0x30, *(string(each) for each in attributes))
    return message(id, names.SEARCH, *parts, asked, chosen, **how)


def entry(id, dn="uid=ann,dc=shop", *attributes, **how):
    listed = ber(0x30, *(attributes or [attribute("mail", "ann@shop")]))
    return message(id, names.SEARCH_ENTRY, string(dn), listed, **how)


def done(id, code=0, **how):
    return message(id, names.SEARCH_DONE, result(code), **how)


def answer(id, tag, code=0, *more):
    return message(id, tag, result(code), *more)


LOGIN = [(CLIENT, bind(1)), (SERVER, answer(1, names.BIND_RESPONSE))]
STORY = [
    *LOGIN,
    (CLIENT, search(2)),
    (SERVER, entry(2) + entry(2, "uid=bob,dc=shop") + done(2)),
    (CLIENT, message(3, names.DELETE, "uid=ann,dc=shop")),
    (SERVER, answer(3, names.DELETE_RESPONSE, 32)),
    (CLIENT, message(4, names.UNBIND)),
]


def only(story):
    (exchange,) = play(Ldap, story)
    return exchange


def test_a_session_is_an_exchange_for_each_operation():
    login, found, deleted, unbind = play(Ldap, STORY)
    assert login.request == {
        "type": "bind", "messageId": 1, "version": 3, "dn": "cn=admin,dc=shop",
        "authentication": "simple", "password": "[redacted]",
    }  # fmt: skip
    assert login.response["resultCode"] == 0
    assert login.response["result"] == "success"
    assert (login.start_ns, login.end_ns) == (1, 2)
    assert found.request["dn"] == "dc=shop"
    assert found.request["filter"] == "(objectClass=*)"
    assert found.request["scope"] == "wholeSubtree"
    assert found.request["attributes"] == ["mail"]
    assert found.response["type"] == "searchResultDone"
    assert found.response["entryCount"] == 2
    assert [each["dn"] for each in found.response["entries"]] == [
        "uid=ann,dc=shop", "uid=bob,dc=shop",
    ]  # fmt: skip
    assert found.response["entries"][0]["attributes"] == {"mail": ["ann@shop"]}
    assert found.request_size == len(STORY[2][1])
    assert found.response_size == len(STORY[3][1])
    assert deleted.request["dn"] == "uid=ann,dc=shop"
    assert deleted.response["result"] == "noSuchObject"
    assert unbind.request == {"type": "unbind", "messageId": 4}
    assert (unbind.response, unbind.error_type) == (None, None)
    assert all(each.version == "3" for each in (login, found, deleted, unbind))


def test_answers_in_another_order_go_to_their_requests():
    story = [
        (CLIENT, search(7, dn="ou=slow") + search(8, dn="ou=fast")),
        (SERVER, entry(7, "uid=slow1") + entry(8, "uid=fast") + done(8)),
        (SERVER, entry(7, "uid=slow2") + done(7, 4)),
    ]
    fast, slow = play(Ldap, story)
    assert fast.request["dn"] == "ou=fast"
    assert [each["dn"] for each in fast.response["entries"]] == ["uid=fast"]
    assert slow.request["dn"] == "ou=slow"
    assert [each["dn"] for each in slow.response["entries"]] == ["uid=slow1", "uid=slow2"]
    assert slow.response["result"] == "sizeLimitExceeded"


@pytest.mark.parametrize(
    ("octets", "wanted"),
    [
        (ber(0xA3, string("uid"), string("ann")), "(uid=ann)"),
        (ber(0xA5, string("age"), string("7")), "(age>=7)"),
        (ber(0xA6, string("age"), string("7")), "(age<=7)"),
        (ber(0xA8, string("cn"), string("an")), "(cn~=an)"),
        (ber(0xA3, string("cn"), string(r"a*(b)\c")), r"(cn=a\2a\28b\29\5cc)"),
        (ber(0xA3, string("id"), string(b"\xff\0")), r"(id=\ff\00)"),
        (ber(0xA3, string("userPassword"), string("Hunter")), "(userPassword=[redacted])"),
        (ber(0xA4, string("cn"), ber(0x30, ber(0x80, "a"), ber(0x81, "b"), ber(0x82, "c"))),
         "(cn=a*b*c)"),
        (ber(0xA4, string("cn"), ber(0x30, ber(0x81, "b"))), "(cn=*b*)"),
        (ber(0xA4, string("cn"), ber(0x30, ber(0x82, "b"))), "(cn=*b)"),
        (ber(0xA9, ber(0x81, "2.5.13.5"), ber(0x82, "cn"), ber(0x83, "ann"), ber(0x84, b"\xff")),
         "(cn:dn:2.5.13.5:=ann)"),
        (ber(0xA0, ber(0x87, "a"), ber(0xA1, ber(0x87, "b"), ber(0xA2, ber(0x87, "c")))),
         "(&(a=*)(|(b=*)(!(c=*))))"),
        (ber(0xA0), "(&)"),
    ],
)  # fmt: skip
def test_filters_are_told_as_people_write_them(octets, wanted):
    assert filter_text(octets, 0, len(octets)) == (wanted, len(octets))


def test_filters_are_cut_in_depth_and_in_length():
    deep = ber(0x87, "uid")
    for _ in range(3000):
        deep = ber(0xA2, deep)
    assert filter_text(deep, 0, len(deep))[0] == "(!" * MOST_DEPTH + "…" + ")" * MOST_DEPTH
    wide = ber(0xA1, *(ber(0xA3, string("uid"), string(f"user{n}")) for n in range(9000)))
    found = only([(CLIENT, search(1, wide)), (SERVER, done(1))]).request["filter"]
    assert len(found) < MOST_CHARACTERS + 50
    assert found.endswith("…)")


def test_each_operation_has_what_it_asks_for():
    change = ber(0x30, number(2, 0x0A), attribute("mail", "a@b"))
    secret = ber(0x30, number(0, 0x0A), attribute("userPassword;lang-en", "Hunter2"))
    story = [
        (CLIENT, message(1, names.MODIFY, string("uid=a"), ber(0x30, change, secret))),
        (CLIENT, message(2, names.ADD, string("uid=b"), ber(
            0x30, attribute("uid", "b"), attribute("unicodePwd", "Hunter2"),
            attribute("photo", b"\xff\xd8"), attribute("cn", "Jörg".encode()),
        ))),
        (CLIENT, message(
            3, names.MODIFY_DN, string("uid=b"), string("uid=c"), ber(1, b"\1"), ber(0x80, "ou=x"),
        )),
        (CLIENT, message(4, names.COMPARE, string("uid=c"), ber(0x30, string("sn"), string("C")))),
        (CLIENT, message(5, names.COMPARE, string("uid=c"), ber(
            0x30, string("userPassword"), string("Hunter2")
        ))),
        (CLIENT, message(6, names.EXTENDED, ber(0x80, names.PASSWORD_MODIFY), ber(0x81, ber(
            0x30, ber(0x80, "uid=c"), ber(0x81, "Hunter2"), ber(0x82, "Hunter3"),
        )))),
        (CLIENT, message(7, names.BIND, number(3), string(""), ber(
            0xA3, string("PLAIN"), string("\0ann\0Hunter2"),
        ))),
    ]  # fmt: skip
    exchanges = play(Ldap, story)
    assert "Hunter" not in str(exchanges)
    modify, add, rename, compare, secret, password, login = (each.request for each in exchanges)
    assert modify["changes"] == [
        {"operation": "replace", "attribute": "mail", "values": ["a@b"]},
        {"operation": "add", "attribute": "userPassword;lang-en", "values": ["[redacted]"]},
    ]
    assert add["attributes"] == {
        "uid": ["b"], "unicodePwd": ["[redacted]"], "photo": [{"base64": "/9g="}], "cn": ["Jörg"],
    }  # fmt: skip
    assert rename == {
        "type": "modifyDN", "messageId": 3, "dn": "uid=b", "newRDN": "uid=c",
        "deleteOldRDN": True, "newSuperior": "ou=x",
    }  # fmt: skip
    assert (compare["attribute"], compare["value"]) == ("sn", "C")
    assert secret["value"] == "[redacted]"
    assert (password["name"], password["dn"]) == ("Password Modify", "uid=c")
    assert (login["mechanism"], login["credentials"]) == ("PLAIN", "[redacted]")
    assert {each.error_type for each in exchanges} == {"pair-not-found"}


def test_an_entry_does_not_tell_a_password():
    story = [(CLIENT, search(1)), (SERVER, entry(1, "uid=a", attribute("userPassword", "Hunter2")))]
    story.append((SERVER, done(1)))
    found = only(story)
    assert found.response["entries"][0]["attributes"] == {"userPassword": ["[redacted]"]}


def test_controls_and_referrals_are_told():
    paged = ber(0x30, string("1.2.840.113556.1.4.319"), ber(1, b"\xff"), string(b"\x30\0"))
    unknown = ber(0x30, string("1.2.3"))
    elsewhere = ber(0xA3, string("ldap://other/"))
    story = [
        (CLIENT, search(1, controls=ber(0xA0, paged, unknown))),
        (SERVER, message(1, names.SEARCH_REFERENCE, string("ldap://a/"), string("ldap://b/"))),
        (SERVER, message(1, names.SEARCH_DONE, result(10, "dc=x", "go away"), elsewhere)),
    ]
    found = only(story)
    assert found.request["controls"] == [
        {"oid": "1.2.840.113556.1.4.319", "name": "Paged Results", "criticality": True},
        {"oid": "1.2.3"},
    ]
    assert found.response["references"] == ["ldap://a/", "ldap://b/"]
    assert found.response["referenceCount"] == 1
    assert found.response["referrals"] == ["ldap://other/"]
    assert found.response["matchedDN"] == "dc=x"
    assert found.response["message"] == "go away"


def test_after_start_tls_nothing_is_read():
    conversation = Ldap()
    start = message(1, names.EXTENDED, ber(0x80, names.START_TLS))
    story = [(CLIENT, start), (SERVER, answer(1, names.EXTENDED_RESPONSE, 0)), (CLIENT, b"\x16\3")]
    (found,) = play(lambda: conversation, story)
    assert found.request["name"] == "StartTLS"
    assert conversation.is_over
    refused = [(CLIENT, start), (SERVER, answer(1, names.EXTENDED_RESPONSE, 2)), *STORY]
    assert len(play(Ldap, refused)) == 5


def test_after_a_bind_that_encrypts_nothing_is_read():
    conversation = Ldap()
    sasl = ber(0xA3, string("GSSAPI"), string(b"\x60\x01"))
    story = [
        (CLIENT, message(1, names.BIND, number(3), string(""), sasl)),
        (SERVER, answer(1, names.BIND_RESPONSE)),
        (CLIENT, search(2)),
        (SERVER, done(2)),
        (CLIENT, b"\0\0\0\x40" + bytes(64)),
    ]
    assert len(play(lambda: conversation, story)) == 2
    assert conversation.is_over


def test_an_abandoned_request_says_so():
    story = [(CLIENT, search(1) + message(2, names.ABANDON, b"\x01"))]
    abandon, asked = play(Ldap, story)
    assert abandon.request == {"type": "abandon", "messageId": 2, "abandonedId": 1}
    assert asked.error_type == "pair-not-found"
    assert asked.error_msg == "the client abandoned it"


def test_a_notice_of_disconnection_has_no_request():
    notice = ber(0x8A, "1.3.6.1.4.1.1466.20036")
    story = [*LOGIN, (SERVER, answer(0, names.EXTENDED_RESPONSE, 52, notice))]
    _, found = play(Ldap, story)
    assert (found.request, found.error_type) == (None, None)
    assert found.response["name"] == "Notice of Disconnection"
    assert found.asked_by == CLIENT


def test_a_capture_that_begins_in_the_middle_pairs_what_it_can():
    story = [(SERVER, entry(5) + done(5)), (CLIENT, search(6)), (SERVER, done(6))]
    alone, pair = play(Ldap, story)
    assert (alone.request, alone.error_type) == (None, "pair-not-found")
    assert alone.response["entryCount"] == 1
    assert pair.error_type is None
    swapped = play(Ldap, [(1 - side, octets) for side, octets in story])
    assert [each.asked_by for each in swapped] == [SERVER, SERVER]


def test_after_a_gap_that_is_not_known_the_next_message_is_found():
    middle = bind(1)[5:] + search(2)
    story = [(CLIENT, 0), (CLIENT, middle), (SERVER, 0), (SERVER, done(2)[3:] + done(2))]
    found = only(story)
    assert (found.request["messageId"], found.response["resultCode"]) == (2, 0)


@given(st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_segments_change_nothing(size):
    assert play(Ldap, STORY, size) == play(Ldap, STORY)


@pytest.mark.parametrize("size", [1, 9, 30])
def test_a_gap_costs_only_what_it_touches(size):
    whole = play(Ldap, STORY)
    for part, story in with_gaps(STORY, size):
        found = play(Ldap, story)
        hit = {0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3}[part]
        rest = [each for n, each in enumerate(whole) if n != hit]
        assert [each for each in found if each in rest] == rest
        extra = [each for each in found if each not in rest]
        if part != 3:  # a search without one of its results is still a search
            assert {each.error_type for each in extra} <= {"gap"}


def test_a_long_message_is_told_by_its_head():
    big = message(2, names.ADD, string("uid=a"), ber(0x30, attribute("x", "y" * 2 * MOST_KEPT)))
    story = [*LOGIN, (CLIENT, big), (SERVER, answer(2, names.ADD_RESPONSE)), *STORY[2:4]]
    for size in (1000, len(big)):
        _, added, _ = play(Ldap, in_pieces(story, size))
        assert added.request == {"type": "add", "messageId": 2, "bodyTruncated": True}
        assert added.request_size == len(big)
        assert added.response["resultCode"] == 0
    half = big[: len(big) // 2]
    conversation = Ldap()
    play(lambda: conversation, in_pieces([(CLIENT, half)], 1000))
    assert conversation.buffered <= MOST_KEPT


def test_a_gap_in_a_long_message_does_not_lose_the_next():
    big = message(2, names.ADD, string("uid=a"), ber(0x30, attribute("x", "y" * 2 * MOST_KEPT)))
    story = [(CLIENT, big[:-5000]), (CLIENT, 4000), (CLIENT, big[-1000:] + search(3))]
    assert only([*story, (SERVER, done(3))]).request["messageId"] == 3


def test_of_many_results_the_first_are_kept():
    entries = b"".join(entry(1, f"uid={n}") for n in range(50))
    found = only([(CLIENT, search(1)), (SERVER, entries + done(1))])
    assert found.response["entryCount"] == 50
    assert len(found.response["entries"]) == MOST_ENTRIES
    assert found.response["bodyTruncated"]
    assert found.response_size == len(entries + done(1))


def test_requests_that_are_never_answered_are_bounded():
    conversation = Ldap()
    for n in range(3 * MOST_WAITING):
        conversation.receive(CLIENT, memoryview(search(n)), n)
    assert len(conversation.exchanges) == 2 * MOST_WAITING
    assert conversation.buffered == MOST_WAITING * len(search(3 * MOST_WAITING))
    conversation.close(0)
    assert len(conversation.exchanges) == 3 * MOST_WAITING
    assert conversation.buffered == 0


def test_what_is_kept_is_counted_until_it_is_told():
    conversation = Ldap()
    sizes = []
    for side, octets in [*STORY[2:4], (SERVER, entry(9) + entry(9) + done(9)), *STORY[4:6]]:
        conversation.receive(side, memoryview(octets), 0)
        sizes.append(conversation.buffered)
    assert sizes == [len(STORY[2][1]), 0, 0, len(STORY[4][1]), 0]


def test_lengths_of_active_directory():
    story = [(CLIENT, search(1, long=True)), (SERVER, entry(1, long=True) + done(1, long=True))]
    assert only(story).response["entryCount"] == 1


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x30\x80\x02\x01\x01\x60\x00\x00\x00",
        ber(0x30, number(1), ber(0x04, "public"), ber(0xA0, b"")),  # SNMP
        ber(0x30, number(-1), ber(names.UNBIND)),
        message(1, names.BIND, b"\x02\x01"),
        message(1, 0x7A, number(3)),
    ],
)
def test_what_is_no_ldap_is_refused(octets):
    conversation = Ldap()
    with pytest.raises(ProtocolError):
        conversation.receive(CLIENT, memoryview(octets), 0)
    assert not conversation.understood


def test_one_strange_message_does_not_end_the_rest():
    strange = message(2, names.ADD, b"\x04\x7f")
    found = play(Ldap, [*LOGIN, (CLIENT, strange), *STORY[2:4]])
    assert found[1].request is not None
    assert [each.error_type for each in found] == [None, "pair-not-found", None]


def test_datagrams_have_whole_messages():
    ping = search(1, attributes=("NetLogon",), dn="", long=True)
    (found,) = play(
        ConnectionlessLdap,
        [(CLIENT, ping), (SERVER, entry(1, "", attribute("netlogon", b"\x17\0")) + done(1))],
    )
    assert found.request["attributes"] == ["NetLogon"]
    assert found.response["entries"][0]["attributes"] == {"netlogon": [{"base64": "FwA="}]}
    with pytest.raises(ProtocolError):
        ConnectionlessLdap().receive(CLIENT, memoryview(ping[:-1]), 0)


def test_wrong_octets_raise_nothing_else():
    bear_damage(Ldap, STORY, 3000, seed=389)
    bear_damage(ConnectionlessLdap, STORY[2:4], 500, seed=390)


def test_streams_are_recognised_on_any_port():
    for octets in (
        bind(1),
        search(200),
        search(70000),
        search(1, long=True),
        search(1, dn="x" * 200),
    ):
        assert fits(LDAP, octets)
    assert fits(LDAP, done(1), SERVER)
    for octets in (
        b"\x16\3\1\0\xc8\1\0\0\xc4",
        b"0123456789\r\n",
        ber(0x30, number(1), string("p")),
    ):
        assert not fits(LDAP, octets)
    assert fits(CLDAP, search(1), port=389)
    assert not fits(CLDAP, search(1))
