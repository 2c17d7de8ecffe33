import pytest

import kfl
from kfl.foreign.bpf import translate
from kfl.foreign.translation import NotThisLanguageError

PORT_80 = "(src.port == 80 or dst.port == 80)"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("host 10.0.0.1", 'src.ip == "10.0.0.1" or dst.ip == "10.0.0.1"'),
        ("src host 10.0.0.1", 'src.ip == "10.0.0.1"'),
        ("src 10.0.0.1 && dst 10.0.0.2", 'src.ip == "10.0.0.1" and dst.ip == "10.0.0.2"'),
        ("src or dst host 10.0.0.1", 'src.ip == "10.0.0.1" or dst.ip == "10.0.0.1"'),
        ("src and dst port 53", "src.port == 53 and dst.port == 53"),
        ("host FD00::1", 'src.ip == "fd00::1" or dst.ip == "fd00::1"'),
        ("host 10.0.0.0/8", 'src.ip.startsWith("10.") or dst.ip.startsWith("10.")'),
        ("host 10.0.0.1 and port 80", None),
        ("tcp port 80", f"tcp and {PORT_80}"),
        ("tcp dst port https", "tcp and dst.port == 443"),
        ("port domain", "src.port == 53 or dst.port == 53"),
        ("port 80 or 443", None),
        ("port (80 or 443)", None),
        ("src port not 22", "not (src.port == 22)"),
        (
            "udp portrange 1000-2000",
            "udp and ((src.port >= 1000 and src.port <= 2000)"
            " or (dst.port >= 1000 and dst.port <= 2000))",
        ),
        ("dst portrange 90-80", "dst.port >= 80 and dst.port <= 90"),
        ("src net 10.0.0.0/8", 'src.ip.startsWith("10.")'),
        ("dst net 192.168", 'dst.ip.startsWith("192.168.")'),
        ("src net 10.0.0.0 mask 255.255.0.0", 'src.ip.startsWith("10.0.")'),
        (
            "src net 10.0.0.0/8 and tcp dst port 443",
            'src.ip.startsWith("10.") and tcp and dst.port == 443',
        ),
        ("tcp and not port 22", "tcp and not (src.port == 22 or dst.port == 22)"),
        ("ip proto 17", "udp"),
        ("ip proto \\tcp", "tcp"),
        ("ip6 and icmp6", 'src.ip.contains(":") and icmp'),
        ("not arp and tcp", "tcp"),
        ("arp host 10.0.0.1 or udp", "udp"),
        ("host cart", 'src.name == "cart" or dst.name == "cart"'),
        ("tcp or udp and port 80", f"(tcp or udp) and {PORT_80}"),  # equal precedence
        ("not tcp and udp", "not tcp and udp"),
    ],
)
def test_capture_filters_in_kfl(text, wanted):
    done = translate(text)
    assert not done.lost
    assert wanted is None or done.text == wanted
    assert not kfl.compile(done.text).warnings


@pytest.mark.parametrize(
    ("text", "lost", "left"),
    [
        ("tcp[13] & 2 != 0", ["tcp[13] & 2 != 0"], ""),
        ("udp and tcp[tcpflags] & (tcp-syn|tcp-ack) != 0", None, "udp"),
        ("(ip[0] & 0xf) != 5 and udp", ["(ip[0] & 0xf) != 5"], "udp"),
        ("tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - 1) != 0)", None, PORT_80),
        ("ether host 00:11:22:33:44:55", ["ether host 00:11:22:33:44:55"], ""),
        ("ip broadcast or udp", ["ip broadcast"], "udp"),
        ("vlan 10 and udp", ["vlan 10"], "udp"),
        ("less 100", ["less 100"], ""),
        ("port 99999", ["port 99999"], ""),
        ("port nosuch", ["port nosuch"], ""),
        ("net 10.0.0.0/9", ["net 10.0.0.0/9"], ""),
        ("net 10.0.0.0/99", ["net 10.0.0.0/99"], ""),
        ("host 10.0.0", ["host 10.0.0"], ""),
        ("ip proto 89 or udp", ["ip proto 89"], "udp"),
    ],
)
def test_parts_without_kfl_are_named(text, lost, left):
    done = translate(text)
    assert lost is None or [each.part for each in done.lost] == lost
    assert done.lost
    assert all(each.why for each in done.lost)
    assert left in done.text
    assert bool(left) == bool(done.text)


@pytest.mark.parametrize(
    "text",
    ["", "and", "port", "tcp udp", "(tcp", "tcp)", "80", "tcp port 80 90", "(" * 60, "foo bar"],
)
def test_what_is_no_capture_filter(text):
    with pytest.raises(NotThisLanguageError):
        translate(text)


CALL = {
    "protocol": {"name": "http"},
    "transport": "tcp",
    "src": {"ip": "10.1.2.3", "port": 40000, "name": "shop"},
    "dst": {"ip": "192.168.0.9", "port": 80, "name": "cart"},
}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("host 10.1.2.3", True),
        ("src host 192.168.0.9", False),
        ("dst host 192.168.0.9", True),
        ("net 10", True),
        ("net 11", False),
        ("net 192.168.0.0/16 and tcp", True),
        ("tcp port 80", True),
        ("udp port 80", False),
        ("port 80 or 443", True),
        ("port (443 or 8080)", False),
        ("not port 80", False),
        ("portrange 70-90", True),
        ("src portrange 70-90", False),
        ("udp or tcp and port 81", False),
        ("tcp or udp and port 81", False),
        ("tcp or (udp and port 81)", True),
        ("host cart and not arp", True),
        ("ip6", False),
        ("ip", True),
        ("src and dst port 80", False),
        ("not host 10.1.2.3 and 10.1.2.4", False),
    ],
)
def test_the_kfl_says_the_same_of_entries(text, matches):
    assert kfl.compile(translate(text).text).matches(CALL) is matches
