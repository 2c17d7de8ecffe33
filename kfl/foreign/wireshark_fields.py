"""Wireshark's fields that have KFL: `wireshark` looks here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NO_NAMES: Mapping[int, str] = {}


@dataclass(frozen=True, slots=True)
class Rule:
    """A field of Wireshark in KFL: paths of which any may have the value.

    `kind` is text, number, address, port, seconds, flag or named; `word` the protocol without which
    Wireshark has no such field; `names` the texts that entries have for Wireshark's numbers.
    """

    paths: tuple[str, ...]
    kind: str = "text"
    word: str = ""
    names: Mapping[int, str] = field(default_factory=dict)
    negated: bool = False  # the flag is set when the value is missing


_TYPES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA"}
_TYPES |= {33: "SRV", 41: "OPT", 43: "DS", 46: "RRSIG", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS"}
_TYPES |= {255: "ANY", 257: "CAA"}
_CODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
_OPCODES = {1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}

_BOTH_IPS = ("src.ip", "dst.ip")


def _headers(name: str) -> tuple[str, str]:
    return f"request.headers.{name}", f"response.headers.{name}"


def _http(*paths: str, kind: str = "text") -> Rule:
    return Rule(paths, kind, "http")


def _dns(*paths: str, kind: str = "text", names: Mapping[int, str] = NO_NAMES) -> Rule:
    return Rule(paths, kind, "dns", names)


FIELDS: dict[str, Rule] = {
    **{
        f"{ip}.{name}": Rule(paths, "address")
        for ip in ("ip", "ipv6")
        for name, paths in (("src", ("src.ip",)), ("dst", ("dst.ip",)), ("addr", _BOTH_IPS))
    },
    **{
        f"{word}.{name}": Rule(paths, "port", word)
        for word in ("tcp", "udp", "sctp")
        for name, paths in (
            ("port", ("src.port", "dst.port")),
            ("srcport", ("src.port",)),
            ("dstport", ("dst.port",)),
        )
    },
    "http.request": Rule(("request",), "flag", "http"),
    "http.response": Rule(("response",), "flag", "http"),
    "http.request.method": _http("request.method"),
    "http.request.uri": _http("request.url"),
    "http.request.uri.path": _http("request.path"),
    "http.request.version": _http("request.httpVersion"),
    "http.response.version": _http("response.httpVersion"),
    "http.response.code": _http("response.status", kind="number"),
    "http.response.phrase": _http("response.statusText"),
    "http.host": _http("request.headers.Host"),
    "http.user_agent": _http("request.headers.User-Agent"),
    "http.referer": _http("request.headers.Referer"),
    "http.cookie": _http("request.headers.Cookie"),
    "http.authorization": _http("request.headers.Authorization"),
    "http.accept": _http("request.headers.Accept"),
    "http.x_forwarded_for": _http("request.headers.X-Forwarded-For"),
    "http.set_cookie": _http("response.headers.Set-Cookie"),
    "http.server": _http("response.headers.Server"),
    "http.location": _http("response.headers.Location"),
    "http.content_type": _http(*_headers("Content-Type")),
    "http.content_encoding": _http(*_headers("Content-Encoding")),
    "http.content_length": _http(*_headers("Content-Length"), kind="number"),
    "http.connection": _http(*_headers("Connection")),
    "http.transfer_encoding": _http(*_headers("Transfer-Encoding")),
    "http.file_data": _http("request.body", "response.body"),
    "http.time": _http("elapsed_time", kind="seconds"),
    "http2.headers.method": Rule(("request.method",), "text", "http2"),
    "http2.headers.path": Rule(("request.url",), "text", "http2"),
    "http2.headers.status": Rule(("response.status",), "number", "http2"),
    "dns.qry.name": _dns("request.questions.*.name"),
    "dns.qry.type": _dns("request.questions.*.type", kind="named", names=_TYPES),
    "dns.resp.name": _dns("response.answers.*.name"),
    "dns.resp.type": _dns("response.answers.*.type", kind="named", names=_TYPES),
    "dns.resp.ttl": _dns("response.answers.*.ttl", kind="number"),
    "dns.a": _dns("response.answers.*.ip"),
    "dns.aaaa": _dns("response.answers.*.ip"),
    "dns.cname": _dns("response.answers.*.cname"),
    "dns.flags.rcode": _dns("response.code", kind="named", names=_CODES),
    "dns.flags.response": Rule(("response",), "flag", "dns"),
    "dns.time": _dns("elapsed_time", kind="seconds"),
    "tls.handshake.extensions_server_name": Rule(("tls_sni",)),
    "tls.handshake.ja3": Rule(("tls_ja3",)),
    "tls.handshake.ja4": Rule(("tls_ja4",)),
    "kafka.api_key": Rule(("kafka_api_key",), "number"),
    "kafka.api_version": Rule(("kafka_api_version",), "number"),
    "kafka.client_id": Rule(("kafka_client_id",)),
    "kafka.correlation_id": Rule(("kafka_correlation_id",), "number"),
    "amqp.exchange": Rule(("amqp_exchange",)),
    "amqp.routing_key": Rule(("amqp_routing_key",)),
    "amqp.queue": Rule(("amqp_queue",)),
    "mysql.query": Rule(("request.query",), "text", "mysql"),
    "pgsql.query": Rule(("request.query",), "text", "postgresql"),
    "websocket.opcode": Rule(("ws_opcode",), "named", "", _OPCODES),
    "frame.time_epoch": Rule(("timestamp",), "epoch"),
}
FIELDS |= {
    name.replace("tls.", "ssl.", 1): rule for name, rule in FIELDS.items() if name[:4] == "tls."
}

WORDS = {
    **{
        name: name
        for name in ("http", "http2", "grpc", "dns", "tls", "tcp", "udp", "sctp", "icmp", "ldap")
    },
    **{name: name for name in ("kafka", "amqp", "mysql", "radius", "diameter", "redis")},
    "ssl": "tls",
    "resp": "redis",
    "websocket": "ws",
    "pgsql": "postgresql",
    "mongo": "mongodb",
    "icmpv6": "icmp",
    "icmp6": "icmp",
}
"""Wireshark's protocols that are words of KFL."""

SEARCHED = {
    "http": (
        *("request.url", "request.headers.*", "request.body"),
        *("response.headers.*", "response.body"),
    ),
    "http2": (
        *("request.url", "request.headers.*", "request.body"),
        *("response.headers.*", "response.body"),
    ),
}
"""Where `http contains` looks."""

ABOUT_PACKETS = "it is about packets, and KFL is about calls"

PACKET_PREFIXES = (
    *("frame", "eth", "tcp", "udp", "ip", "ipv6", "icmp", "icmpv6", "vlan", "sll", "data", "sctp"),
    *("arp", "wlan", "ppp", "gre", "vxlan"),
)
"""Fields of these that have no rule say something about single packets."""
