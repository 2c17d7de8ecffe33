"""What the JSON of requests and responses says, type by type."""

import ipaddress
import json
import struct

import numpy as np
import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRRMX, DNSRROPT, DNSRRSOA, DNSRRSRV

from services.capture.columns import new_spans
from services.capture.dissectors.dns import records
from services.capture.dissectors.dns.codes import NUMBER_OF_TYPE


def name(text):
    labels = text.encode().split(b".") if text else []
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def message(*parts, flags=0x8180, questions=0, answers=0, authorities=0, additionals=0):
    header = struct.pack(">6H", 7, flags, questions, answers, authorities, additionals)
    return header + b"".join(parts)


def record(type_code, data, owner=b"\0", class_code=1, ttl=300):
    return owner + struct.pack(">HHIH", type_code, class_code, ttl, len(data)) + data


def test_a_query_and_its_response(dissect):
    owner = "www.example.com"
    response = DNS(
        id=7,
        qr=1,
        qd=[DNSQR(qname=owner)],
        an=[
            DNSRR(rrname=owner, type="CNAME", ttl=60, rdata="web.example.com"),
            DNSRR(rrname="web.example.com", type="A", ttl=30, rdata="192.0.2.1"),
            DNSRR(rrname="web.example.com", type="AAAA", ttl=30, rdata="2001:db8::1"),
        ],
        ns=[
            DNSRR(rrname="example.com", type="NS", ttl=9, rdata="ns1.example.com"),
            DNSRRSOA(
                rrname="example.com",
                ttl=9,
                mname="ns1.example.com",
                rname="hostmaster.example.com",
                serial=4294967295,
                refresh=2,
                retry=3,
                expire=4,
                minimum=5,
            ),
        ],
        ar=[
            DNSRRMX(rrname="example.com", ttl=8, preference=10, exchange="mx.example.com"),
            DNSRRSRV(rrname="a.b", ttl=8, priority=1, weight=2, port=443, target="web.example.com"),
            DNSRR(
                rrname="example.com", type="TXT", ttl=8, rdata=[b"v=spf1 -all", b'say "\xc3\xa9"']
            ),
            DNSRROPT(rclass=1232, extrcode=0, version=0, z=0x8000),
        ],
    ).compress()
    assert dissect(bytes(DNS(qd=[DNSQR(qname=owner, qtype="HTTPS", qclass="CH")]))) == {
        "opCode": "QUERY",
        "questions": [{"name": owner, "type": "HTTPS", "class": "CH"}],
    }
    found = dissect(bytes(response))
    assert found["code"] == "NOERROR"
    common = {"class": "IN", "ttl": 8}
    assert found["answers"] == [
        {"name": owner, "type": "CNAME", "class": "IN", "ttl": 60, "cname": "web.example.com"},
        {"name": "web.example.com", "type": "A", "class": "IN", "ttl": 30, "ip": "192.0.2.1"},
        {"name": "web.example.com", "type": "AAAA", "class": "IN", "ttl": 30, "ip": "2001:db8::1"},
    ]
    soa = {
        "mname": "ns1.example.com",
        "rname": "hostmaster.example.com",
        "serial": 4294967295,
        "refresh": 2,
        "retry": 3,
        "expire": 4,
        "minimum": 5,
    }
    assert found["authorities"] == [
        {"name": "example.com", "type": "NS", "class": "IN", "ttl": 9, "ns": "ns1.example.com"},
        {"name": "example.com", "type": "SOA", "class": "IN", "ttl": 9, "soa": soa},
    ]
    srv = {"priority": 1, "weight": 2, "port": 443, "target": "web.example.com"}
    assert found["additionals"] == [
        {
            "name": "example.com",
            "type": "MX",
            **common,
            "mx": {"preference": 10, "exchange": "mx.example.com"},
        },
        {"name": "a.b", "type": "SRV", **common, "srv": srv},
        {"name": "example.com", "type": "TXT", **common, "txts": ["v=spf1 -all", 'say "é"']},
        {
            "name": ".",
            "type": "OPT",
            "opt": {"udpSize": 1232, "extendedRcode": 0, "version": 0, "do": True},
        },
    ]


DIGEST = bytes(range(4))
CASES = [
    ("PTR", name("a.b"), {"ptr": "a.b"}),
    ("NS", name(""), {"ns": "."}),
    ("DNAME", name("b"), {"dname": "b"}),
    ("TXT", b"\0\2\xff\n", {"txts": ["", "\\255\\010"]}),
    ("TXT", b"\2\\\x7f", {"txts": ["\\\\\\127"]}),
    ("HINFO", b"\3x86\0", {"hinfo": {"cpu": "x86", "os": ""}}),
    ("RP", name("a.b") + name(""), {"rp": {"mbox": "a.b", "txt": "."}}),
    ("CAA", b"\x80\5issueca.test", {"caa": {"flags": 128, "tag": "issue", "value": "ca.test"}}),
    ("URI", struct.pack(">HH", 1, 2) + b"https://a",
     {"uri": {"priority": 1, "weight": 2, "target": "https://a"}}),
    ("DS", struct.pack(">HBB", 60485, 8, 2) + DIGEST,
     {"ds": {"keyTag": 60485, "algorithm": 8, "digestType": 2, "digest": "00010203"}}),
    ("DNSKEY", struct.pack(">HBB", 257, 3, 8) + DIGEST,
     {"dnskey": {"flags": 257, "protocol": 3, "algorithm": 8, "publicKey": "AAECAw=="}}),
    ("RRSIG",
     struct.pack(">HBBIIIH", 1, 8, 2, 300, 1700000000, 1600000000, 5) + name("a") + DIGEST[:3],
     {"rrsig": {"typeCovered": "A", "algorithm": 8, "labels": 2, "originalTTL": 300,
                "expiration": 1700000000, "inception": 1600000000, "keyTag": 5, "signer": "a",
                "signature": "AAEC"}}),
    ("NSEC", name("b.a") + bytes.fromhex("0006 4000 0000 0003 0101 40"),
     {"nsec": {"next": "b.a", "types": ["A", "RRSIG", "NSEC", "CAA"]}}),
    ("NSEC3", b"\1\0\0\x0a\2\xaa\xbb\5" + bytes(5) + bytes.fromhex("0001 40"),
     {"nsec3": {"hashAlgorithm": 1, "flags": 0, "iterations": 10, "salt": "aabb",
                "next": "00000000", "types": ["A"]}}),
    ("NAPTR", struct.pack(">HH", 100, 10) + b"\1u\7E2U+sip\5!^.*$" + name(""),
     {"naptr": {"order": 100, "preference": 10, "flags": "u", "services": "E2U+sip",
                "regexp": "!^.*$", "replacement": "."}}),
    ("SSHFP", b"\4\2" + DIGEST, {"sshfp": {"algorithm": 4, "type": 2, "fingerprint": "00010203"}}),
    ("TLSA", b"\3\1\1" + DIGEST,
     {"tlsa": {"usage": 3, "selector": 1, "matchingType": 1, "certificate": "00010203"}}),
    ("HTTPS",
     struct.pack(">H", 1) + name("") + bytes.fromhex("0001 0006 02 6832 02 6833")
     + bytes.fromhex("0003 0002 01bb 0004 0004 c0000201 0006 0010") + bytes(15) + b"\1"
     + bytes.fromhex("ff00 0001 07"),
     {"svcb": {"priority": 1, "target": ".", "params": {
         "alpn": ["h2", "h3"], "port": 443, "ipv4hint": ["192.0.2.1"], "ipv6hint": ["::1"],
         "key65280": "\\007"}}}),
    # What does not fit its type is shown as it is.
    ("A", b"\1\2\3", {"data": "\\# 3 010203"}),
    ("A", b"", {"data": "\\# 0"}),
    ("MX", b"\0\1", {"data": "\\# 2 0001"}),
    ("SOA", name("a") + name("b") + bytes(19), {"data": "\\# 25 016100016200" + "00" * 19}),
    ("CNAME", b"\xc0\x00", {"data": "\\# 2 c000"}),
    ("TXT", b"\5ab", {"data": "\\# 3 056162"}),
    ("NSEC", name("a") + b"\0\x21" + bytes(33), {"data": "\\# 38 0161000021" + "00" * 33}),
    ("HTTPS", b"\0\1\0" + bytes.fromhex("0003 0002 0001 0001 0000"),
     {"data": "\\# 13 00010000030002000100010000"}),
    ("NULL", b"\xde\xad", {"data": "\\# 2 dead"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "data", "members"), CASES)
def test_record_data(dissect, kind, data, members):
    found = dissect(message(record(NUMBER_OF_TYPE[kind], data), answers=1))
    assert found["answers"] == [{"name": ".", "type": kind, "class": "IN", "ttl": 300, **members}]


def test_numbers_without_a_name(dissect):
    parts = name("a"), struct.pack(">HH", 65280, 32), record(32769, b"", class_code=9)
    found = dissect(message(*parts, flags=0x180F | 0x8000, questions=1, answers=1))
    assert found["code"] == "RCODE15"
    assert found["answers"][0]["type"] == "DLV"
    assert found["answers"][0]["class"] == "CLASS9"
    query = dissect(message(*parts[:2], flags=0x1800, questions=1))
    assert query == {
        "opCode": "OPCODE3",
        "questions": [{"name": "a", "type": "TYPE65280", "class": "CLASS32"}],
    }


def test_the_response_code_has_its_upper_bits_in_edns(dissect):
    opt = record(41, b"", class_code=4096, ttl=0x01000000)
    found = dissect(message(opt, flags=0x8000, additionals=1))
    assert found["code"] == "BADVERS"
    assert found["additionals"][0]["opt"] == {
        "udpSize": 4096, "extendedRcode": 1, "version": 0, "do": False,
    }  # fmt: skip


def test_multicast_flags_of_the_class(dissect):
    question = name("a.local") + struct.pack(">HH", 12, 0x8001)
    assert dissect(message(question, flags=0, questions=1))["questions"] == [
        {"name": "a.local", "type": "PTR", "class": "IN", "unicastResponse": True}
    ]
    answer = record(1, b"\1\2\3\4", class_code=0x8001)
    (found,) = dissect(message(answer, flags=0x8400, answers=1))["answers"]
    assert found["class"] == "IN"
    assert found["cacheFlush"] is True


def test_odd_octets_of_names_are_in_presentation_form(dissect):
    label = 'a.b"\\ é\x00;'.encode()
    question = bytes([len(label)]) + label + b"\3com\0" + struct.pack(">HH", 1, 1)
    (found,) = dissect(message(question, flags=0, questions=1))["questions"]
    assert found["name"] == 'a\\.b\\"\\\\\\032\\195\\169\\000\\;.com'


def test_a_cut_response_gives_what_could_be_read(dissect):
    whole = message(record(1, b"\1\2\3\4"), record(1, b"\1\2\3\4"), answers=2)
    assert [answer["ip"] for answer in dissect(whole[:-1])["answers"]] == ["1.2.3.4"]
    assert dissect(whole[:20])["answers"] == []


@pytest.mark.parametrize("address", ["::", "::1", "1::", "1:0:0:2::3", "1:0:2:0:0:3:0:0", "a:b::c"])
def test_addresses_are_written_as_rfc_5952_says(dissect, address):
    packed = ipaddress.ip_address(address).packed
    (found,) = dissect(message(record(28, packed), answers=1))["answers"]
    assert found["ip"] == str(ipaddress.ip_address(address))


def test_a_message_that_would_grow_without_bound_is_cut():
    owner = b"".join(b"\x3f" + b"\0" * 63 for _ in range(3)) + b"\0"
    question = owner + struct.pack(">HH", 1, 1)
    rows = 3000
    octets = message(
        question, *[record(1, b"\1\2\3\4", b"\xc0\x0c")] * rows, questions=1, answers=rows
    )
    spans = new_spans(3)
    spans["length"] = len(octets)
    spans["length"][1] = -1
    column = records.json_column(np.frombuffer(bytearray(octets), np.uint8), spans, responses=True)
    column.validate(full=True)
    first, none, last = column.to_pylist()
    assert none is None
    assert first == last
    assert len(first) <= records.LONGEST_JSON
    found = json.loads(first)
    assert found["recordsTruncated"] is True
    assert 100 < len(found["answers"]) < rows


def test_many_messages_become_one_column():
    octets = message(record(16, b"\x40" + b"x" * 64), answers=1)
    spans = new_spans(40_000)
    spans["length"] = len(octets)
    column = records.json_column(np.frombuffer(bytearray(octets), np.uint8), spans, responses=True)
    column.validate(full=True)
    assert len(column) == 40_000
    assert len(set(column.to_pylist())) == 1
