"""Recognises filters of other programs, so that errors can say what to write here."""

from __future__ import annotations

import re

from kfl.errors import KflError

_WIRESHARK_FIELD = re.compile(
    r"(?<![\w.])(?:(?:ip|ipv6|tcp|udp|eth|frame|icmp|icmpv6|arp|vlan|sll)\.(?:[a-z_]+)"
    r"|(?:http|http2|dns|tls|ssl|grpc|redis|kafka|amqp|mysql|pgsql|mongo|websocket|sctp|ldap)"
    r"\.[a-z_]+(?:\.[a-z_]+)*)\b"
)

_BPF = re.compile(
    r"(?:^|[\s(!])(?:(?:src|dst)\s+(?:host|net|port|portrange)\s+\S"
    r"|(?:host|net|port|portrange)\s+[\w.:/-]+"
    r"|(?:src|dst)\s+\d+\.\d+"
    r"|(?:ip6?|tcp|udp|ether|arp)\s+(?:host|port|net|portrange|proto|src|dst|multicast|broadcast)\b"
    r"|(?:tcp|udp|ip|ip6|icmp|ether)\s*\[)",
)

_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'')

_TRANSLATIONS = {
    "ip.src": "src.ip",
    "ip.dst": "dst.ip",
    "ip.addr": "src.ip or dst.ip",
    "ipv6.src": "src.ip",
    "ipv6.dst": "dst.ip",
    "tcp.port": "src.port or dst.port",
    "udp.port": "src.port or dst.port",
    "tcp.srcport": "src.port",
    "tcp.dstport": "dst.port",
    "udp.srcport": "src.port",
    "udp.dstport": "dst.port",
    "http.request.method": "request.method",
    "http.request.uri": "request.url",
    "http.request.full_uri": "request.url",
    "http.request.version": "request.httpVersion",
    "http.response.code": "response.status",
    "http.response.phrase": "response.statusText",
    "http.host": 'request.headers["Host"]',
    "http.user_agent": 'request.headers["User-Agent"]',
    "http.cookie": 'request.headers["Cookie"]',
    "http.content_type": 'response.headers["Content-Type"]',
    "http.time": "elapsedTime",
    "dns.qry.name": "request.questions.*.name",
    "dns.qry.type": "request.questions.*.type",
    "dns.flags.rcode": "response.code",
    "dns.resp.name": "response.answers.*.name",
    "dns.a": "response.answers.*.ip",
    "tls.handshake.extensions_server_name": "request.sni",
    "frame.time": "timestamp",
}


def foreign_dialect(text: str) -> KflError | None:
    """The error for a filter that is clearly Wireshark's or tcpdump's; None when it is not."""
    plain = _TEXT.sub(lambda found: " " * len(found.group()), text)
    field = _WIRESHARK_FIELD.search(plain)
    if field:
        name = field.group()
        ours = _TRANSLATIONS.get(name)
        return KflError(
            f"`{name}` is a field of Wireshark's display filters, which KFL does not use.",
            *_place(text, field.start()),
            f"Here it is {ours}." if ours else "See the list of KFL's fields.",
        )
    bpf = _BPF.search(plain)
    if bpf:
        start = bpf.start() + (len(bpf.group()) - len(bpf.group().lstrip(" \t\r\n(!")))
        return KflError(
            "This looks like a capture filter (BPF, as in tcpdump), which KFL does not use.",
            *_place(text, start),
            'Write, for example, src.ip == "10.0.0.1" or dst.port == 80.',
        )
    return None


def _place(text: str, offset: int) -> tuple[int, int]:
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1
