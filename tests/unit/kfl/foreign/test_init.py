import pytest

import kfl
from kfl.foreign import foreign_dialect


@pytest.mark.parametrize(
    ("text", "column", "whose", "kfl_of_it"),
    [
        ("tcp.port == 80", 1, "Wireshark", "In KFL: tcp and (src.port == 80 or dst.port == 80)"),
        ("host 10.0.0.1 and port 80", 1, "BPF", "In KFL: (src.ip"),
        ("not arp", 5, "Wireshark", "No entry is ARP. In KFL: true"),
        ("http and tcp.port == 80", 10, "`tcp.port`", "In KFL: http and tcp and"),
        ('http contains "abc"', 1, "Wireshark", 'request.body.contains("abc")'),
        ('frame contains "x"', 1, "Wireshark", "has no KFL: it is about packets"),
        ("tcp.analysis.retransmission", 1, "Wireshark", "has no KFL: it is about packets"),
        ("tcp[13] & 2 != 0", 1, "BPF", "has no KFL: it is about packets"),
        ("udp and\n tcp[13] & 2 != 0", 2, "BPF", "Without it: udp"),
        ("port (80 or 443)", 1, "BPF", "In KFL: src.port == 80 or"),
        ("tcp.port == 80 and status", 20, "Wireshark", "`status` has no KFL"),
        ('tcp.port == 80 and request.headers["a"] == "b"', 1, "", '(request.headers["a"] == "b")'),
        ("tcp.port == 80 ^^ udp", 1, "Wireshark", "for example"),
    ],
)
def test_the_error_gives_the_kfl(text, column, whose, kfl_of_it):
    (error,) = [problem for problem in kfl.check(text) if problem.is_error][:1]
    assert whose in error.message
    assert error.column == column
    assert kfl_of_it in error.suggestion


@pytest.mark.parametrize(
    "text",
    [
        *("redis.command == 1", "http.status == 500", "conn.state", "kafka.client.id"[:12]),
        *(
            "port in [80, 443]",
            'host contains "cart"',
            "request.ip == 1",
            "ip == '10.0.0.1'",
            'x == "tcp.port == 80"',
            "foo # port 80",
        ),
        *("request.tcp.port", "src.ip", "", "response.status == 500 and"),
    ],
)
def test_slips_in_kfl_are_no_other_language(text):
    assert foreign_dialect(text) is None
    assert not any("Wireshark" in problem.message for problem in kfl.check(text))


@pytest.mark.parametrize(
    "part", ["tcp.port == 80 or ", "(", "not ", "port 80 or ", "ip[", "http.", "tcp "]
)
def test_the_longest_texts_are_answered_soon(part):
    assert kfl.check("tcp.port == 1 or " + part * 900)
    assert kfl.check("port 1 or " + part * 900)
