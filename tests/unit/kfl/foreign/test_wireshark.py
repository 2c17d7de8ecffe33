import pytest

import kfl
from kfl.foreign.translation import NotThisLanguageError
from kfl.foreign.wireshark import translate
from kfl.foreign.wireshark_fields import FIELDS, WORDS


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tcp.port == 80", "tcp and (src.port == 80 or dst.port == 80)"),
        ("udp.dstport == 53", "udp and dst.port == 53"),
        ("tcp.port eq 0x50", "tcp and (src.port == 80 or dst.port == 80)"),
        ("tcp.srcport > 1023", "tcp and src.port > 1023"),
        ("tcp.port != 22", "tcp and src.port != 22 and dst.port != 22"),
        ("tcp.dstport in {80, 443}", "tcp and dst.port in [80, 443]"),
        (
            "tcp.dstport in {80, 8000..8080}",
            "tcp and (dst.port in [80] or (dst.port >= 8000 and dst.port <= 8080))",
        ),
        ("ip.addr == 10.0.0.0/8", 'src.ip.startsWith("10.") or dst.ip.startsWith("10.")'),
        ("ip.src == 10.1.2.3", 'src.ip == "10.1.2.3"'),
        ("ip.dst != 10.1.2.3", 'dst.ip != "10.1.2.3"'),
        ("ip.addr != 10.1.2.3", 'src.ip != "10.1.2.3" and dst.ip != "10.1.2.3"'),
        ("!(ip.addr == 10.1.2.3)", 'not (src.ip == "10.1.2.3" or dst.ip == "10.1.2.3")'),
        ("ip.src in {10.0.0.1, 10.2.0.0/16}", 'src.ip == "10.0.0.1" or src.ip.startsWith("10.2.")'),
        ("ipv6.src == FE80::1", 'src.ip == "fe80::1"'),
        (
            "http.response.code == 500 && ip.src == 10.1.2.3",
            'http and response.status == 500 and src.ip == "10.1.2.3"',
        ),
        (
            "http.request.method == GET or http.request.method == 'PUT'",
            '(http and request.method == "GET") or (http and request.method == "PUT")',
        ),
        ('http.request.uri contains "/a\\"b"', 'http and request.url.contains("/a\\"b")'),
        ('http.request.uri matches "api"', 'http and request.url.matches("(?i)api")'),
        ('http.host matches r"^a\\."', 'http and request.headers.Host.matches("(?i)^a\\\\.")'),
        ("http.user_agent", 'http and request.headers["User-Agent"] != nil'),
        ("http.request", "http and request != nil"),
        ("http.request == 0", "http and request == nil"),
        ("http.time > 0.25", 'http and elapsed_time > duration("250ms")'),
        ("http.time >= 2", 'http and elapsed_time >= duration("2s")'),
        ("dns.qry.name == a.b", 'dns and request.questions.*.name == "a.b"'),
        ("dns.qry.type == 28", 'dns and request.questions.*.type == "AAAA"'),
        ("dns.qry.type in {1, 28}", 'dns and request.questions.*.type in ["A", "AAAA"]'),
        ("dns.flags.rcode != 0", 'dns and response.code != "NOERROR"'),
        ("dns.flags.response == true", "dns and response != nil"),
        ('ssl.handshake.extensions_server_name == "a"', 'tls_sni == "a"'),
        ("frame.time_epoch >= 1763853120.5", "timestamp >= 1763853120500"),
        ("websocket.opcode == 8", 'ws_opcode == "close"'),
        ("not arp", "true"),
        ("not arp and tcp", "tcp"),
        ("arp || udp", "udp"),
        ("ip", 'not src.ip.contains(":")'),
        ("ipv6 and pgsql", 'src.ip.contains(":") and postgresql'),
        ("tcp and frame", "tcp"),
        ("a or (tcp and (udp or not http))".replace("a or ", ""), "tcp and (udp or not http)"),
        ("tcp.port == 80 and response.status == 500", None),
    ],
)
def test_display_filters_in_kfl(text, wanted):
    done = translate(text)
    assert not done.lost
    assert wanted is None or done.text == wanted
    assert not [problem for problem in kfl.check(done.text) if "beside" in problem.message]
    kfl.compile(done.text)


@pytest.mark.parametrize(
    ("text", "lost", "left"),
    [
        ("tcp.analysis.retransmission", ["tcp.analysis.retransmission"], ""),
        ('frame contains "x"', ['frame contains "x"'], ""),
        ("tcp.flags & 0x02 and udp", ["tcp.flags & 0x02"], "udp"),
        ("udp and not tcp.flags.syn == 1", ["tcp.flags.syn == 1"], "udp"),
        ("http.host == a or eth.addr == 0:1:2:3:4:5", ["eth.addr == 0:1:2:3:4:5"], "Host"),
        ("ip.src == 10.0.0.0/12", ["ip.src == 10.0.0.0/12"], ""),
        ("ip.src == cart", ["ip.src == cart"], ""),
        ("ip.src > 10.0.0.1", ["ip.src > 10.0.0.1"], ""),
        ('http.host > "a"', ['http.host > "a"'], ""),
        ("tcp.port == http", ["tcp.port == http"], ""),
        ("dns.qry.type == 999", ["dns.qry.type == 999"], ""),
        ('http.request.uri matches "(?=a)"', ['http.request.uri matches "(?=a)"'], ""),
        ("http.nothing == 1 and tcp[0:2] == 1", ["http.nothing == 1", "tcp[0:2] == 1"], ""),
        ("any tcp.port == 80", ["any tcp.port == 80"], ""),
    ],
)
def test_parts_without_kfl_are_named(text, lost, left):
    done = translate(text)
    assert [each.part for each in done.lost] == lost
    assert all(text[each.offset :].startswith(each.part) for each in done.lost)
    assert all(each.why for each in done.lost)
    assert left in done.text
    assert bool(left) == bool(done.text)


@pytest.mark.parametrize(
    "text",
    [
        *("tcp.port ==", "and", "(tcp", "tcp)", "tcp udp", "tcp ^^ udp", "", "tcp and", '"x'),
        "(" * 60 + "tcp" + ")" * 60,
        " or ".join(["tcp"] * 600),
    ],
)
def test_what_is_no_display_filter(text):
    if text == "tcp.port ==":
        assert translate(text).lost
        return
    with pytest.raises(NotThisLanguageError):
        translate(text)


@pytest.mark.parametrize("field", FIELDS)
def test_every_field_gives_kfl_that_compiles(field):
    values = {"address": "10.0.0.1", "flag": "1", "named": "1"}
    value = values.get(FIELDS[field].kind, "5")
    for text in (f"{field} == {value}", f"{field} != {value}", field):
        done = translate(text)
        assert not done.lost
        assert not any(problem.is_error for problem in kfl.check(done.text)), done.text


@pytest.mark.parametrize("word", WORDS)
def test_every_protocol_is_a_word(word):
    kfl.compile(translate(word).text)


ENTRY = {
    "protocol": {"name": "http", "version": "1.1", "abbr": "HTTP"},
    "transport": "tcp",
    "tls": False,
    "src": {"ip": "10.1.2.3", "port": 40000, "name": "shop"},
    "dst": {"ip": "10.9.0.1", "port": 80, "name": "cart"},
    "timestamp": 1763853120123,
    "elapsedTimeUs": 300_000,
    "request": {"method": "GET", "url": "/api?q=1", "headers": {"host": "cart"}, "body": "abc"},
    "response": {"status": 500, "headers": {"Content-Type": "text/html"}, "body": "xyz"},
}
DNS = {
    "protocol": {"name": "dns", "version": "", "abbr": "DNS"},
    "transport": "udp",
    "tls": False,
    "src": {"ip": "fd00::1", "port": 40000},
    "dst": {"ip": "fd00::2", "port": 53},
    "request": {"questions": [{"name": "a.b", "type": "AAAA"}]},
    "response": {"code": "NXDOMAIN", "answers": []},
}


@pytest.mark.parametrize(
    ("text", "http", "dns"),
    [
        ("tcp.port == 80", True, False),
        ("udp.port == 53", False, True),
        ("tcp.port == 53", False, False),
        ("tcp.port != 80", False, False),
        ("tcp.port != 81", True, False),
        ("ip.addr == 10.9.0.0/16", True, False),
        ("ip.addr == 10.8.0.0/16", False, False),
        ("ip.addr != 10.1.2.3", False, True),
        ("ipv6.addr == FD00::0002", False, True),
        ("!(ip.src == 10.1.2.3)", False, True),
        ("http.response.code >= 500", True, False),
        ("http.response.code != 500", False, False),
        ("not http.response.code == 500", False, True),
        ("http.host == cart", True, False),
        ("http.host != cart", False, False),
        ("http.content_type contains html", True, False),
        ('http.content_type != "text/html"', False, False),
        ('http.content_type != "text/plain"', True, False),
        ('http.request.method matches "^get$"', True, False),
        ('http contains "xyz"', True, False),
        ('http contains "cart"', True, False),
        ('http contains "nope"', False, False),
        ("http.time > 0.2 and http.time < 0.4", True, False),
        ("http.time > 0.3", False, False),
        ("dns.flags.rcode == 3", False, True),
        ("dns.flags.rcode in {0, 2}", False, False),
        ('dns.qry.name contains "a" && dns.qry.type == 28', False, True),
        ("ip", True, False),
        ("ipv6", False, True),
        ("arp", False, False),
        ("not arp", True, True),
        ("frame.time_epoch > 1763853120 and tcp", True, False),
        ("tcp.port in {1..79, 81}", False, False),
        ("tcp.port in {1..79, 80}", True, False),
    ],
)
def test_the_kfl_says_the_same_of_entries(text, http, dns):
    found = kfl.compile(translate(text).text)
    assert [found.matches(ENTRY), found.matches(DNS)] == [http, dns]
