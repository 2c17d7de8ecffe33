"""What a filter lets through before dissection, as people would say it."""

import pytest

import kfl
from kfl import coarse
from kfl.packets import Packets
from kfl.words import WORDS


def needed(text):
    return kfl.compile(text).packets()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "everything"),
        ("false", "nothing"),
        ("http", "tcp"),
        ("dns", "udp or (tcp and port 53)"),
        ("tcp and dns", "tcp and port 53"),
        ("grpc or redis", "tcp"),
        ("icmp", "icmp"),
        ("diameter", "sctp or tcp"),
        ("ldap", "tcp or udp"),
        ("conn", "tcp or udp"),
        ("tls", "tcp or udp"),
        ("http and dns", "nothing"),
        ("status_code == 500", "tcp"),
        ("response.status == 500", "everything"),
        ("not http", "everything"),
        ("src.port == 80", "port 80"),
        ('dst.port == "80"', "port 80"),
        ("http and dst.port in [80, 443, 8080]", "tcp and (port 80 or port 443 or port 8080)"),
        ("dst.port > 1024", "port 1025-65535"),
        ("dst.port <= 79.5", "port 0-79"),
        ("dst.port != 80", "everything"),
        ("not (dst.port != 80)", "port 80"),
        ('dst.port == r"^80$"', "everything"),
        ("dst.port % 2 == 0", "everything"),
        ("dst.port == 70000", "nothing"),
        ("icmp and dst.port == 80", "nothing"),
        ('src.ip == "10.0.0.1" and dst.ip == "10.0.0.9"', "host 10.0.0.1 and host 10.0.0.9"),
        ('src.ip in ["10.0.0.0", "10.0.0.1", "fd00::1"]', "net 10.0.0.0/31 or host fd00::1"),
        ('src.ip == "::0001"', "nothing"),
        ('src.ip == "FD00::1"', "nothing"),
        ('src.ip.startsWith("10.1.")', "net 10.1.0.0/16"),
        ('src.ip.startsWith("10.1")', "everything"),
        ('src.ip.startsWith("10.300.")', "everything"),
        ('src.ip.contains("10.0.0.1")', "everything"),
        ('src.ip == r"^10"', "everything"),
        ('src.ip != "10.0.0.1"', "everything"),
        ('src.name == "shop"', 'a peer with name == "shop"'),
        ('dst.pod == "a" and http', 'tcp and a peer with pod.name == "a"'),
        ('"a" in pods', 'a peer with "a" in [pod.name]'),
        ('src.name != "shop"', "everything"),
        ('src.name == ""', "everything"),
        ('not (src.name == "shop")', "everything"),
        ('src.labels.app == "a"', 'a peer with pod.labels.app == "a"'),
        ("src.name == dst.name", "everything"),
        ('transport == "udp"', "udp"),
        ('transport == "quic"', "everything"),
        ('protocol.name == "redis"', "tcp"),
        ('record("a") and http', "tcp"),
        ('http and limit(3) and redact("request.body")', "tcp"),
        ('node.name == "n1"', "everything"),
        ("tcp ? dst.port == 80 : udp", "udp or (tcp and port 80)"),
        ("http and src.port == 80 or http and src.port == 81", "tcp and port 80-81"),
        ('http or http and src.ip == "10.0.0.1"', "tcp"),
    ],
)
def test_the_packets_of_a_filter(text, shown):
    assert coarse.show(needed(text).tree) == shown


@pytest.mark.parametrize(
    ("text", "dissectors"),
    [
        ("http", {"http", "ws"}),
        ("grpc", {"http"}),
        ("dns or redis", {"dns", "redis"}),
        ("http and protocol.name == 'ws'", {"ws"}),
        ('protocol.name in ["dns", "gone"]', {"dns", "gone"}),
        ("false", set()),
        ("http and dns", set()),
        ("tls", None),  # what is inside can be anything
        ("tcp", None),
        ("conn", None),  # nothing recognised: everything has been tried
        ("udp_flow", None),
        ("not http", None),
        ('src.ip == "10.0.0.1"', None),
    ],
)
def test_the_dissectors_of_a_filter(text, dissectors):
    assert needed(text).dissectors == dissectors


def test_every_word_is_carried_somehow():
    assert {name for word in WORDS.values() for name in word.names} == set(coarse.CARRIED)


def test_the_union_of_many_filters_is_simple():
    def union(*texts):
        return Packets.union(map(needed, texts))

    assert coarse.show(union("http", "dns").tree) == "tcp or udp"
    assert union("http", "dns").dissectors == {"http", "ws", "dns"}
    assert coarse.show(union("http", "redis and dst.port == 6379").tree) == "tcp"
    assert union("http", "true") == needed("true")
    assert union("dns", "false") == needed("dns")
    assert union() == needed("false")


def test_names_become_addresses_when_they_are_asked_for():
    http = needed('http and src.name == "shop"')
    asked = []

    def resolver(test):
        accepts = test.test()
        asked.append([name for name in ("shop", "till") if accepts({"name": name})])
        return ["10.0.0.7", "fd00::7"]

    found = http.resolved(resolver)
    assert asked == [["shop"]]
    assert coarse.show(found.tree) == "tcp and (host 10.0.0.7 or host fd00::7)"
    assert found.dissectors == http.dissectors
    assert coarse.show(http.resolved(lambda _: None).tree) == "tcp"
    assert coarse.show(http.resolved(lambda _: []).tree) == "nothing"


def test_long_lists_are_shown_in_short():
    ports = ", ".join(str(n * 10) for n in range(40))
    assert coarse.show(needed(f"dst.port in [{ports}]").tree).endswith("port 70 or 32 more")
