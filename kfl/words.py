"""The protocol words: one table, from which `match`, `sql`, `columns` and the documentation come.

A word tests what every entry says about its protocol: name, version, abbreviation, transport and
whether it was encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProtocolWord:
    """True for an entry when one of the given sets has its value; `names` narrows the others, and
    where `is_both`, it is to be in both of them.
    """

    name: str
    meaning: str
    names: frozenset[str] = frozenset()  # protocol.name
    versions: frozenset[str] = frozenset()  # protocol.version
    abbrs: frozenset[str] = frozenset()  # protocol.abbr
    transport: str = ""  # transport
    encrypted: bool = False  # tls is true, or protocol.name is among the names
    is_both: bool = False  # versions and abbrs


TCP_PROTOCOLS = frozenset(
    {"tcp", "http", "ws", "redis", "kafka", "amqp", "tls", "postgresql", "mysql", "mongodb", "ldap"}
)
"""Protocols that run over TCP: they decide for an entry that does not name its transport."""

UDP_PROTOCOLS = frozenset({"udp", "dns", "radius"})
"""The same for UDP."""

_NO_HTTP_FIELDS = frozenset({"dns", "redis", "kafka", "tls", "tcp", "udp", "icmp"})
"""Protocols whose requests and responses have none of HTTP's fields, in columns or in JSON."""

HTTP_IN_COLUMNS = _NO_HTTP_FIELDS | {"http"}
"""Protocols for which a null column of one of HTTP's fields means that there is no such field."""

_NAME_WORDS = {
    "ws": "WebSocket messages",
    "dns": "DNS",
    "redis": "Redis",
    "kafka": "Kafka",
    "amqp": "AMQP 0-9-1",
    "icmp": "ICMP",
    "sctp": "SCTP",
    "ldap": "LDAP",
    "radius": "RADIUS",
    "diameter": "Diameter",
    "mysql": "MySQL",
    "postgresql": "PostgreSQL",
    "mongodb": "MongoDB",
}

_HTTP = frozenset({"http", "ws"})
_ON_HTTP = frozenset({"http"})
_HTTP2 = frozenset({"2", "2.0"})
_GRAPHQL = frozenset({"GQL"})
_L4 = frozenset({"tcp", "udp"})

WORDS: dict[str, ProtocolWord] = {
    word.name: word
    for word in (
        ProtocolWord("http", "HTTP/1.x and HTTP/2, gRPC, GraphQL and WebSocket", _HTTP),
        ProtocolWord(
            "http2",
            "HTTP/2, and what runs over it",
            frozenset({"http"}),
            _HTTP2,
            frozenset({"HTTP/2"}),
        ),
        ProtocolWord("grpc", "gRPC", frozenset({"http"}), abbrs=frozenset({"gRPC"})),
        ProtocolWord("gql", "GraphQL", _ON_HTTP, abbrs=_GRAPHQL),
        ProtocolWord("graphql", "the same as gql", _ON_HTTP, abbrs=_GRAPHQL),
        ProtocolWord(
            "gqlv1",
            "GraphQL over HTTP/1",
            _ON_HTTP,
            frozenset({"1.0", "1.1"}),
            _GRAPHQL,
            is_both=True,
        ),
        ProtocolWord("gqlv2", "GraphQL over HTTP/2", _ON_HTTP, _HTTP2, _GRAPHQL, is_both=True),
        ProtocolWord(
            "tls", "TLS, and any protocol inside of it", frozenset({"tls"}), encrypted=True
        ),
        ProtocolWord("tcp", "everything over TCP", TCP_PROTOCOLS, transport="tcp"),
        ProtocolWord("udp", "everything over UDP", UDP_PROTOCOLS, transport="udp"),
        ProtocolWord("conn", "connections in which no other protocol was recognised", _L4),
        ProtocolWord("flow", "the same as conn", _L4),
        ProtocolWord("tcp_conn", "TCP connections of that kind", frozenset({"tcp"})),
        ProtocolWord("tcp_flow", "the same as tcp_conn", frozenset({"tcp"})),
        ProtocolWord("udp_conn", "UDP flows of that kind", frozenset({"udp"})),
        ProtocolWord("udp_flow", "the same as udp_conn", frozenset({"udp"})),
        *(ProtocolWord(name, text, frozenset({name})) for name, text in _NAME_WORDS.items()),
    )
}
"""Every word, by its name."""

OF_GRAPHQL = frozenset({"gql", "graphql", "gqlv1", "gqlv2"})
"""Words for GraphQL, which is known by the bodies of requests."""

NARROWER = {
    "http": {"http2", "grpc", "ws"} | OF_GRAPHQL,
    "http2": {"grpc", "gqlv2"},
    "gql": OF_GRAPHQL - {"gql"},
    "graphql": OF_GRAPHQL - {"graphql"},
    "tcp": TCP_PROTOCOLS - {"tcp"} | {"http2", "grpc", "tcp_conn", "tcp_flow"} | OF_GRAPHQL,
    "udp": {"udp_conn", "udp_flow"},
    "conn": {"tcp_conn", "udp_conn"},
    "flow": {"tcp_flow", "udp_flow"},
}
"""Words that say more than a word, so that `http and grpc` is known to be about gRPC."""
