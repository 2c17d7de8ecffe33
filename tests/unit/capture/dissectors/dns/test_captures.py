"""Real captures: what we read in each DNS message is what tshark reads in it."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import NoPayload, Padding
from scapy.utils import PcapReader

from services.capture.dissectors.dns import DnsStream
from services.capture.dissectors.dns.codes import CLASSES, RCODES, type_name

SECTIONS = {"an": "answers", "ns": "authorities", "ar": "additionals"}
MULTICAST_FLAG = 0x8000


def raw(name):
    """Turn presentation form into what tshark shows: octets as they are, a word for the root."""
    text = re.sub(r"\\(\d{3}|.)", lambda m: chr(int(m[1])) if len(m[1]) == 3 else m[1], name)
    return "<Root>" if name == "." else text.encode("latin-1").decode("utf-8", "replace")


def class_name(code):
    return CLASSES.get(code & ~MULTICAST_FLAG, f"CLASS{code}")


def payloads(path):
    """Yield (frame, octets) of each DNS message, numbered as tshark does."""
    streams = defaultdict(DnsStream)
    with PcapReader(str(path)) as packets:
        for frame, packet in enumerate(packets, 1):
            if UDP in packet:
                yield frame, packet[UDP].payload.original
            elif TCP in packet and not isinstance(packet[TCP].payload, NoPayload | Padding):
                key = (packet[TCP].sport, packet[TCP].dport)
                for message in streams[key].receive(packet[TCP].payload.original):
                    yield frame, message


def members(ours):
    """Return (type, name, ttl, value) of one of our records, as tshark names the value."""
    value = next(
        (ours[key] for key in ("ip", "cname", "ns", "ptr") if key in ours),
        ours.get("mx", {}).get("exchange") or ours.get("soa", {}).get("mname"),
    )
    return ours["type"], raw(ours["name"]), ours.get("ttl"), value and raw(value)


def expected_members(theirs):
    data = theirs["data"]
    names = ("a", "aaaa", "cname", "ns", "ptr.domain_name", "mx.mail_exchange", "soa.mname")
    value = next((data[name] for name in names if name in data), None)
    return type_name(theirs["type"]), theirs["name"], theirs["ttl"], value


FILES = [
    "CESNET+ipfixprobe/tests/functional/inputs/dns.pcap",
    "CESNET+ipfixprobe/tests/functional/inputs/mixed.pcap",
    "CESNET+ipfixprobe/tests/functional/inputs/vlan.pcap",
    "deepflowio+deepflow/agent/resources/test/flow_generator/dns/dns-tcp-multi.pcap",
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/raw_ip.pcap",
    "seladb+PcapPlusPlus/Tests/Pcap++Test/PcapExamples/too_many_interfaces.pcapng",
    "urso+beats/packetbeat/tests/system/pcaps/dns_mx.pcap",
    "urso+beats/packetbeat/tests/system/pcaps/dns_tcp_axfr.pcap",
    "urso+beats/packetbeat/tests/system/pcaps/dns_udp_edns_ds.pcap",
]


@pytest.mark.captures
@pytest.mark.parametrize("name", FILES)
def test_messages_are_read_as_tshark_reads_them(captures: Path, dissect, name):
    results = captures.parent / "oracle" / "results" / f"{name}.dns.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines() if line]
    theirs = defaultdict(list)
    for row in rows:
        if not row.get("in_icmp"):
            theirs[row["frame"]].append(row)
    ours = defaultdict(list)
    for frame, message in payloads(captures / name):
        if frame in theirs:
            ours[frame].append(message)
    assert {frame: len(found) for frame, found in ours.items()} == {
        frame: len(found) for frame, found in theirs.items()
    }
    for frame, messages in ours.items():
        for message, row in zip(messages, theirs[frame], strict=True):
            compare(dissect(message), row)


def compare(found, row):
    if row["kind"] == "query":
        assert found["opCode"] == "QUERY"
        assert [(raw(q["name"]), q["type"], q["class"]) for q in found["questions"]] == [
            (q["name"], type_name(q["type"]), class_name(q["cls"])) for q in row["questions"]
        ]
        return
    assert found["code"] == RCODES[row["rcode"]]
    for theirs, ours in SECTIONS.items():
        assert [members(record) for record in found[ours]] == [
            expected_members(record) for record in row["answers"] if record["section"] == theirs
        ]
