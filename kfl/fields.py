"""The catalogue of an entry's fields: one list for checking, documentation, completion and SQL.

A field's first name is KFL1's where it has one; the aliases are other spellings of the same value.
Fields with a `guard` stand for a value under one protocol and are missing under all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """One name that a filter may use.

    `type` is text, number, bool, list, map or any. `paths` are where the JSON of an entry has it,
    in KFL's notation. `how` says what is made of them: `one` value, the `first` that is there, a
    list of `all`, whether it is `present`, the `sum`, or the `rate` a second.
    """

    name: str
    type: str
    meaning: str
    paths: tuple[str, ...]
    column: str | None = None
    aliases: tuple[str, ...] = ()
    unit: str = ""
    guard: str = ""
    how: str = "one"

    @property
    def is_open(self) -> bool:
        """A path may go on below it."""
        return self.type in ("map", "list", "any")


def _peer(side: str, who: str) -> Iterator[Field]:
    pod, service = f"{side}.pod", f"{side}.service"
    yield Field(f"{side}.ip", "text", f"IP address of {who}", (f"{side}.ip",), f"{side}_ip")
    yield Field(f"{side}.port", "number", f"port of {who}", (f"{side}.port",), f"{side}_port")
    yield Field(
        f"{side}.name",
        "text",
        f"best name known for {who}: service, else pod, else DNS name",
        (f"{side}.name",),
        f"{side}_name",
    )
    yield Field(
        f"{side}.namespace",
        "text",
        f"namespace of {who}",
        (f"{side}.namespace",),
        f"{side}_namespace",
    )
    yield Field(
        pod,
        "text",
        f"pod name of {who}",
        (f"{pod}.name",),
        f"{side}_pod",
        (f"{pod}.name", f"{pod}.metadata.name"),
    )
    yield Field(
        f"{pod}.namespace",
        "text",
        f'namespace of the pod of {who}, "" without a pod',
        (f"{pod}.namespace",),
        f"{side}_namespace",
        (f"{pod}.metadata.namespace",),
    )
    yield Field(
        service,
        "text",
        f"service name of {who}",
        (f"{service}.name",),
        f"{side}_service",
        (f"{service}.name", f"{service}.metadata.name"),
    )
    yield Field(
        f"{service}.namespace",
        "text",
        f'namespace of the service of {who}, "" without a service',
        (f"{service}.namespace",),
        f"{side}_namespace",
        (f"{service}.metadata.namespace",),
    )
    yield Field(f"{side}.dns", "text", f"DNS name of {who}", (f"{side}.dns",), f"{side}_dns")
    yield Field(
        f"{side}.labels",
        "map",
        f"labels of the pod of {who}",
        (f"{pod}.labels",),
        f"{side}_labels",
        (f"{pod}.labels", f"{pod}.metadata.labels"),
    )


def _message(side: str) -> Iterator[Field]:
    yield Field(side, "map", f"the {side}; nil when there was none", (side,), side)
    yield Field(
        f"{side}.httpVersion",
        "text",
        f"HTTP version of the {side}, as HTTP/1.1",
        (f"{side}.httpVersion",),
        f"{side}_http_version",
    )
    yield Field(
        f"{side}.headers",
        "map",
        f"headers of the {side}; their names match without regard to case",
        (f"{side}.headers",),
        f"{side}_headers",
    )
    yield Field(f"{side}.cookies", "map", f"cookies of the {side}", (f"{side}.cookies",))
    yield Field(
        f"{side}.headersSize",
        "number",
        f"octets of the head of the {side} on the wire",
        (f"{side}.headersSize",),
        f"{side}_headers_size",
    )
    yield Field(
        f"{side}.bodySize",
        "number",
        f"octets of the body of the {side} on the wire",
        (f"{side}.bodySize",),
        f"{side}_body_size",
    )
    yield Field(
        f"{side}.body",
        "any",
        f"body of the {side}, decoded; base64 where it is not UTF-8",
        (f"{side}.body",),
        f"{side}_body",
    )
    yield Field(
        f"{side}.bodyEncoding", "text", "base64 where the body is", (f"{side}.bodyEncoding",)
    )
    yield Field(f"{side}.bodyTruncated", "bool", "the body was cut", (f"{side}.bodyTruncated",))


def _of(
    guard: str,
    name: str,
    type: str,
    meaning: str,
    *paths: str,
    how: str = "",
    unit: str = "",
    column: str | None = None,
) -> Field:
    """A KFL2 name."""
    chosen = how or ("one" if len(paths) == 1 else "first")
    return Field(name, type, meaning, paths, column, unit=unit, guard=guard, how=chosen)


def _sizes(guard: str, request: str, response: str, total: str) -> Iterator[Field]:
    yield _of(guard, request, "number", "octets of the request", "requestSize")
    yield _of(guard, response, "number", "octets of the response", "responseSize")
    yield _of(guard, total, "number", "octets of both", "requestSize", "responseSize", how="sum")


def _sides(guard: str) -> Iterator[Field]:
    for side in ("request", "response"):
        meaning = f"the entry has a {side}"
        yield _of(guard, f"{guard}_{side}", "bool", meaning, side, how="present")


def _transport(prefix: str) -> Iterator[Field]:
    guard = prefix
    yield _of(
        guard,
        f"{prefix}_state",
        "text",
        "closed, or idle when it just fell silent",
        "request.state",
        "response.state",
    )
    for peer, side in (("local", "request"), ("remote", "response")):
        who = "the client" if peer == "local" else "the server"
        packets, octets = f"{side}.packets", f"{side}.bytes"
        yield _of(guard, f"{prefix}_{peer}_pkts", "number", f"packets sent by {who}", packets)
        yield _of(guard, f"{prefix}_{peer}_bytes", "number", f"octets sent by {who}", octets)
        if prefix == "flow":
            for name, path, what in (("pps", packets, "packets"), ("bps", octets, "octets")):
                yield _of(
                    guard,
                    f"{prefix}_{peer}_{name}",
                    "number",
                    f"{what} a second sent by {who}",
                    path,
                    "elapsedTimeUs",
                    how="rate",
                )


_ENTRY = (
    Field(
        "timestamp",
        "number",
        "begin of the first message, milliseconds since 1970",
        ("timestamp",),
        "start_time",
        unit="ms",
    ),
    Field(
        "startTime", "text", "the same in RFC 3339, with nanoseconds", ("startTime",), "start_time"
    ),
    Field(
        "elapsedTime",
        "number",
        "milliseconds from the request's first octet to the response's last",
        ("elapsedTime",),
        "elapsed_us",
        unit="ms",
    ),
    Field(
        "elapsedTimeUs",
        "number",
        "the same in microseconds",
        ("elapsedTimeUs",),
        "elapsed_us",
        ("elapsed_time",),
        unit="us",
    ),
    Field("id", "text", "unique name of the entry", ("id",)),
    Field("index", "number", "number of the entry in its stream, from 0", ("index",), "index"),
    Field("stream", "text", "the L4 stream, 16 hex digits", ("stream",), "stream"),
    Field("record", "text", "recording that the entry is from", ("record",), "record"),
    Field("node", "map", "the node that saw it", ("node",)),
    Field("node.name", "text", "name of the node", ("node.name",), "node_name", ("node_name",)),
    Field("node.ip", "text", "address of the node", ("node.ip",), "node_ip", ("node_ip",)),
    Field("protocol", "map", "the protocol", ("protocol",), None, ("proto",)),
    Field(
        "protocol.name",
        "text",
        "protocol, such as http",
        ("protocol.name",),
        "protocol_name",
        ("proto.name",),
    ),
    Field(
        "protocol.version",
        "text",
        "its version, such as 1.1",
        ("protocol.version",),
        "protocol_version",
        ("proto.version",),
    ),
    Field(
        "protocol.abbr",
        "text",
        "its abbreviation, such as HTTP/2 or gRPC",
        ("protocol.abbr",),
        "protocol_abbr",
        ("proto.abbr",),
    ),
    Field("transport", "text", "tcp or udp", ("transport",), "transport"),
    Field("tls", "bool", "it was encrypted; also the protocol word", ("tls",), "tls"),
    Field("src", "map", "who asked", ("src",)),
    *_peer("src", "who asked"),
    Field("dst", "map", "who answered", ("dst",)),
    *_peer("dst", "who answered"),
    Field(
        "requestSize",
        "number",
        "octets of the request on the wire",
        ("requestSize",),
        "request_size",
    ),
    Field(
        "responseSize",
        "number",
        "octets of the response on the wire",
        ("responseSize",),
        "response_size",
    ),
    *_message("request"),
    Field("request.method", "text", "method", ("request.method",), "request_method"),
    Field("request.url", "text", "request target", ("request.url",), "request_url"),
    Field(
        "request.path",
        "text",
        "request target up to its question mark",
        ("request.path",),
        "request_path",
    ),
    Field(
        "request.pathSegments", "list", "the path, split at its slashes", ("request.pathSegments",)
    ),
    Field(
        "request.queryString",
        "map",
        "fields of the query, decoded; a repeated one is a list",
        ("request.queryString",),
        None,
        ("request.query",),
    ),
    *_message("response"),
    Field("response.status", "number", "status", ("response.status",), "response_status"),
    Field(
        "response.statusText",
        "text",
        "text beside the status",
        ("response.statusText",),
        "response_status_text",
    ),
    Field("error", "map", "why a side is missing; nil when none is", ("error",)),
    Field(
        "error.type",
        "text",
        "pair-not-found, timeout, gap or malformed",
        ("error.type",),
        "error_type",
    ),
    Field("error.msg", "text", "the same as a sentence", ("error.msg",), "error_msg"),
)

_DNS_DATA = ("name", "ip", "cname", "ns", "ptr")

_KFL2 = (
    _of("http", "method", "text", "HTTP method", "request.method", column="request_method"),
    _of("http", "url", "text", "HTTP request target", "request.url", column="request_url"),
    _of("http", "path", "text", "HTTP path", "request.path", column="request_path"),
    _of("http", "query_string", "map", "fields of the query", "request.queryString"),
    _of(
        "http", "status_code", "number", "HTTP status", "response.status", column="response_status"
    ),
    _of("http", "http_version", "text", "HTTP version", "request.httpVersion"),
    _of("http", "request_headers_size", "number", "octets of the head", "request.headersSize"),
    _of("http", "request_body_size", "number", "octets of the body", "request.bodySize"),
    _of("http", "response_headers_size", "number", "octets of the head", "response.headersSize"),
    _of("http", "response_body_size", "number", "octets of the body", "response.bodySize"),
    *(
        _of("", f"{what}s", "list", f"{what} names of both sides", *paths, how="all")
        for what, paths in (
            ("namespace", ("src.namespace", "dst.namespace")),
            ("pod", ("src.pod.name", "dst.pod.name")),
            ("service", ("src.service.name", "dst.service.name")),
        )
    ),
    _of("", "dns_resolutions", "list", "DNS names of both sides", "src.dns", "dst.dns", how="all"),
    _of("", "local_labels", "map", "labels of the pod that asked", "src.pod.labels"),
    _of("", "remote_labels", "map", "labels of the pod that answered", "dst.pod.labels"),
    _of("dns", "dns_questions", "list", "names asked for", "request.questions.*.name"),
    _of("dns", "dns_question_types", "list", "types asked for", "request.questions.*.type"),
    _of(
        "dns",
        "dns_answers",
        "list",
        "names and values of the answers",
        *(f"response.answers.*.{key}" for key in _DNS_DATA),
        how="all",
    ),
    *_sides("dns"),
    *_sizes("dns", "dns_request_length", "dns_response_length", "dns_total_size"),
    _of("grpc", "grpc_method", "text", "gRPC method", "request.grpcMethod"),
    _of("grpc", "grpc_service", "text", "gRPC service", "request.grpcService"),
    _of("grpc", "grpc_status", "number", "gRPC status, 0 is OK", "response.grpcStatus"),
    _of("grpc", "grpc_message", "text", "gRPC status message", "response.grpcMessage"),
    _of("ws", "ws_opcode", "text", "kind of message", "request.opcode", "response.opcode"),
    *_sides("ws"),
    _of("redis", "redis_type", "text", "type of the request", "request.type"),
    _of("redis", "redis_command", "text", "Redis command", "request.command"),
    _of("redis", "redis_key", "text", "Redis key", "request.key"),
    _of("redis", "redis_value", "text", "Redis value", "request.value"),
    *_sides("redis"),
    *_sizes("redis", "redis_request_size", "redis_response_size", "redis_total_size"),
    _of("kafka", "kafka_api_key", "number", "Kafka API key", "request.apiKey"),
    _of("kafka", "kafka_api_key_name", "text", "name of the API key", "request.apiKeyName"),
    _of("kafka", "kafka_api_version", "number", "version of the API", "request.apiVersion"),
    _of("kafka", "kafka_client_id", "text", "client id", "request.clientID"),
    _of("kafka", "kafka_correlation_id", "number", "correlation id", "request.correlationID"),
    _of("kafka", "kafka_size", "number", "size field", "request.size", "response.size"),
    *_sides("kafka"),
    *_sizes("kafka", "kafka_request_size", "kafka_response_size", "kafka_total_size"),
    _of("amqp", "amqp_method", "text", "AMQP method", "request.method", "response.method"),
    _of("amqp", "amqp_exchange", "text", "exchange", "request.exchange"),
    _of("amqp", "amqp_routing_key", "text", "routing key", "request.routingKey"),
    _of("amqp", "amqp_queue", "text", "queue", "request.queue"),
    *_sides("amqp"),
    *_sizes("amqp", "amqp_request_length", "amqp_response_length", "amqp_total_size"),
    _of("tls", "tls_sni", "text", "server name asked for", "request.sni"),
    _of("tls", "tls_version", "text", "version agreed on", "response.version"),
    _of("tls", "tls_versions", "list", "versions offered", "request.versions"),
    _of("tls", "tls_cipher_suite", "text", "cipher suite agreed on", "response.cipherSuite"),
    _of("tls", "tls_cipher_suites", "list", "cipher suites offered", "request.cipherSuites"),
    _of("tls", "tls_alpn", "any", "application protocol", "response.alpn", "request.alpn"),
    _of("tls", "tls_ja3", "text", "JA3 fingerprint of the client", "request.ja3"),
    _of("tls", "tls_ja4", "text", "JA4 fingerprint of the client", "request.ja4"),
    *_sizes("tls", "tls_request_size", "tls_response_size", "tls_total_size"),
    *(
        field
        for name in ("mysql", "postgresql", "mongodb")
        for field in (
            _of(name, f"{name}_command", "text", "command", "request.command"),
            _of(name, f"{name}_database", "text", "database", "request.database"),
            *_sides(name),
            *_sizes(name, f"{name}_request_size", f"{name}_response_size", f"{name}_total_size"),
        )
    ),
    _of("mysql", "mysql_query", "text", "text of the query", "request.query"),
    _of("postgresql", "postgresql_query", "text", "text of the query", "request.query"),
    _of("postgresql", "postgresql_user", "text", "user", "request.user"),
    _of("mongodb", "mongodb_collection", "text", "collection", "request.collection"),
    *(field for name in ("ldap", "radius", "diameter") for field in _sides(name)),
    *_transport("conn"),
    *_transport("flow"),
)

CATALOGUE: tuple[Field, ...] = (*_ENTRY, *_KFL2)
"""Every field."""

NAMES: dict[str, Field] = {
    name: field for field in CATALOGUE for name in (field.name, *field.aliases)
}
"""Every name and alias."""
