"""Damaged messages, each in an array that ends where it ends, so that any over-read raises."""

import json
import os

import numpy as np
import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRRMX, DNSRROPT, DNSRRSOA, DNSRRSRV

from services.capture.columns import new_spans
from services.capture.dissectors.dns import looks_like_dns
from services.capture.dissectors.dns.codes import NUMBER_OF_TYPE
from services.capture.dissectors.dns.data import LAYOUTS
from services.capture.dissectors.dns.message import DECODED, HEADER_SIZE, read_message
from services.capture.dissectors.dns.records import LONGEST_JSON, put_requests, put_responses

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "15000"))

OWNER = "www.example.com"


def seeds():
    """Messages in which each layout, each section and compression occur."""
    yield bytes(DNS(qd=[DNSQR(qname=OWNER)], ar=[DNSRROPT(rclass=1232)]))
    yield bytes(
        DNS(
            qr=1,
            qd=[DNSQR(qname=OWNER)],
            an=[
                DNSRR(rrname=OWNER, type="CNAME", rdata="web.example.com"),
                DNSRR(rrname="web.example.com", type="AAAA", rdata="2001:db8::1"),
                DNSRR(rrname="web.example.com", type="TXT", rdata=[b"x" * 20, "é".encode()]),
            ],
            ns=[DNSRRSOA(rrname="example.com", mname="ns.example.com", rname="a.example.com")],
            ar=[
                DNSRRMX(rrname="example.com", exchange="mx.example.com"),
                DNSRRSRV(rrname=OWNER, port=443, target="web.example.com"),
                DNSRROPT(rclass=1232),
            ],
        ).compress()
    )
    random = np.random.default_rng(5)
    for kind in LAYOUTS:
        data = {
            "NSEC": b"\1b\0\0\6\x40\0\0\0\0\3\1\1\x40",
            "NSEC3": b"\1\0\0\x0a\2\xaa\xbb\5" + bytes(5) + b"\0\1\x40",
            "HTTPS": bytes.fromhex(
                "0001 00 0001000302 6832 000300020050 00040004c0000201".replace(" ", "")
            ),
            "NAPTR": b"\0\1\0\1\1u\3sip\2ab\1c\0",
            "CAA": b"\0\5issueca.test",
            "RRSIG": bytes(18) + b"\xc0\x0c" + bytes(9),
            "HINFO": b"\3x86\2os",
        }.get(kind, random.bytes(12))
        header = bytes.fromhex("0001 8180 0001 0001 0000 0000".replace(" ", ""))
        tail = (
            NUMBER_OF_TYPE[kind].to_bytes(2, "big") + b"\0\1\0\0\0\1" + len(data).to_bytes(2, "big")
        )
        yield header + b"\1a\0\0\1\0\1" + b"\xc0\x0c" + tail + data


def mutate(random, seed, other):
    octets = bytearray(seed)
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(len(octets))) if octets else 0
        match int(random.integers(7)):
            case 0:
                del octets[at:]
            case 1:
                del octets[at : at + int(random.integers(4))]
            case 2:
                octets[at:at] = random.bytes(int(random.integers(4)))
            case 3:
                octets[at : at + 2] = bytes(
                    [0xC0 | int(random.integers(4)), int(random.integers(64))]
                )
            case 4:
                octets[at:] = other[at:]
            case _:
                octets[at : at + 1] = bytes([int(random.integers(256))])
    return bytes(octets)


@pytest.mark.timeout(3600 if MUTATIONS > 100_000 else 120)
def test_no_message_leads_out_of_its_array_and_all_text_is_json():
    random = np.random.default_rng(int(os.environ.get("FUZZ_SEED", "11")))
    whole = list(seeds())
    text = np.empty(LONGEST_JSON, np.uint8)
    offsets = np.zeros(2, np.int32)
    spans = new_spans(1)
    decoded = 0
    for _ in range(MUTATIONS):
        seed, other = (whole[int(random.integers(len(whole)))] for _ in range(2))
        message = mutate(random, seed, other)
        octets = np.frombuffer(bytearray(message), np.uint8)
        read = read_message(octets, 0, len(octets))
        decoded += read.status == DECODED
        assert read.read <= read.declared
        looks_like_dns(octets, 0, len(octets))
        if len(octets) < HEADER_SIZE:
            continue
        spans["length"] = len(octets)
        counts = []
        for put, lists in (
            (put_requests, ["questions"]),
            (put_responses, ["answers", "authorities", "additionals"]),
        ):
            assert put(octets, spans, 0, text, offsets) == 1
            found = json.loads(text[: offsets[1]].tobytes())
            counts.append(sum(len(found[name]) for name in lists))
        # The first pass and the writers stop at the same place.
        questions = int.from_bytes(message[4:6], "big")
        assert counts == [min(read.read, questions), max(read.read - questions, 0)]
    assert MUTATIONS // 10 < decoded < MUTATIONS
