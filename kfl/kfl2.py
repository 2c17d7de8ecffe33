"""KFL2's own names, each for a value under one protocol. `fields` puts them into the catalogue.

The list is Kubeshark's reference of KFL2's variables, so that filters that people have can be
compiled. A name whose value no entry has is `absent`: it is missing in every entry, and `check`
says so.
"""

from __future__ import annotations

from collections.abc import Iterator

from kfl.field import Field


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
    chosen = how or ("one" if len(paths) == 1 else "first")
    return Field(
        name,
        type,
        meaning,
        paths,
        column,
        unit=unit,
        guard=guard,
        how=chosen,
        protocols=(guard,) if guard else (),
    )


def _sizes(guard: str, word: str = "size") -> Iterator[Field]:
    """`redis_request_size` and the like; `word` is size or length, but in the total."""
    for side in ("request", "response"):
        path = f"{side}Size"
        yield _of(guard, f"{guard}_{side}_{word}", "number", f"octets of the {side}", path)
    paths = ("requestSize", "responseSize")
    yield _of(guard, f"{guard}_total_size", "number", "octets of both", *paths, how="sum")


def _sides(guard: str) -> Iterator[Field]:
    for side in ("request", "response"):
        meaning = f"the entry has a {side}"
        yield _of(guard, f"{guard}_{side}", "bool", meaning, side, how="present")


def _either(guard: str, name: str, type: str, meaning: str, key: str) -> Field:
    """The value of the request; of the response where there is no request."""
    return _of(guard, name, type, meaning, f"request.{key}", f"response.{key}")


def _database(name: str, code: str) -> Iterator[Field]:
    error = "response.error"
    yield _of(name, f"{name}_command", "text", "command", "request.command")
    yield _of(name, f"{name}_database", "text", "database", "request.database")
    yield from (*_sides(name), *_sizes(name))
    yield _of(
        name,
        f"{name}_success",
        "bool",
        "there is a response, and it is no error",
        *("response", error),
        how="success",
    )
    yield _of(name, f"{name}_error_code", code, "code of the error", f"{error}.code")
    paths = (f"{error}.message", error)
    yield _of(name, f"{name}_error_message", "text", "what the error says", *paths)


def _transport(guard: str) -> Iterator[Field]:
    yield _either(
        guard, f"{guard}_state", "text", "closed, or idle when it just fell silent", "state"
    )
    for peer, side in (("local", "request"), ("remote", "response")):
        who = "the client" if peer == "local" else "the server"
        packets, octets = f"{side}.packets", f"{side}.bytes"
        yield _of(guard, f"{guard}_{peer}_pkts", "number", f"packets sent by {who}", packets)
        yield _of(guard, f"{guard}_{peer}_bytes", "number", f"octets sent by {who}", octets)
        if guard == "flow":
            for name, path, what in (("pps", packets, "packets"), ("bps", octets, "octets")):
                yield _of(
                    guard,
                    f"{guard}_{peer}_{name}",
                    "number",
                    f"{what} a second sent by {who}",
                    *(path, "elapsedTimeUs"),
                    how="rate",
                )


def _absent(why: str, type: str, **names: str) -> Iterator[Field]:
    """Names without a value; each with its meaning."""
    for name, meaning in names.items():
        yield Field(name, type, meaning, (name,), absent=why)


_HTTP = (
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
    _of("grpc", "grpc_method", "text", "gRPC method", "request.grpcMethod"),
    _of("grpc", "grpc_service", "text", "gRPC service", "request.grpcService"),
    _of("grpc", "grpc_status", "number", "gRPC status, 0 is OK", "response.grpcStatus"),
    _of("grpc", "grpc_message", "text", "gRPC status message", "response.grpcMessage"),
    _of("gql", "gql_operation_type", "text", "query, mutation …", "request.gqlOperationType"),
    _of("gql", "gql_operation_name", "text", "name of it", "request.gqlOperationName"),
    _of("gql", "gql_error_count", "number", "errors in the answer", "response.gqlErrorCount"),
    _either("ws", "ws_opcode", "text", "kind of message", "opcode"),
    *_sides("ws"),
    _of("ws", "ws_request_payload_data", "text", "what the client sent", "request.body"),
    _of("ws", "ws_response_payload_data", "text", "what the server sent", "response.body"),
    _of("ws", "ws_request_payload_length", "number", "octets of it", "request.bodySize"),
    _of("ws", "ws_response_payload_length", "number", "octets of it", "response.bodySize"),
)

_DNS_DATA = ("name", "ip", "cname", "ns", "ptr")

_PEERS = (
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
    _of("", "has_pcap", "bool", "its packets are recorded with it", "stream", how="present"),
)

_DNS = (
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
    *_sizes("dns", "length"),
)

_QUEUES = (
    _of("redis", "redis_type", "text", "type of the request", "request.type"),
    _of("redis", "redis_command", "text", "Redis command", "request.command"),
    _of("redis", "redis_key", "text", "Redis key", "request.key"),
    _of("redis", "redis_value", "text", "Redis value", "request.value"),
    *_sides("redis"),
    *_sizes("redis"),
    _either("kafka", "kafka_api_key", "number", "number of the API", "apiKey"),
    _either("kafka", "kafka_api_key_name", "text", "name of the API", "apiKeyName"),
    _either("kafka", "kafka_api_version", "number", "version of the API", "apiVersion"),
    _of("kafka", "kafka_client_id", "text", "name of the client", "request.clientID"),
    _either("kafka", "kafka_correlation_id", "number", "correlation id", "correlationID"),
    _either("kafka", "kafka_size", "number", "size field", "size"),
    _of(
        "kafka",
        "kafka_request_summary",
        "list",
        "topics of the request",
        *(f"request.payload.{path}" for path in ("topic", "topics.*.topic", "topics.*.name")),
        *(f"request.payload.topicData.*.{key}" for key in ("topic", "name")),
        how="all",
    ),
    *_sides("kafka"),
    *_sizes("kafka"),
    _either("amqp", "amqp_method", "text", "AMQP method, as basic publish", "method"),
    _either("amqp", "amqp_exchange", "text", "exchange", "exchange"),
    _either("amqp", "amqp_routing_key", "text", "routing key", "routingKey"),
    _either("amqp", "amqp_queue", "text", "queue", "queue"),
    _of(
        "amqp",
        "amqp_summary",
        "list",
        "exchange, routing key and queue of the request",
        *("request.exchange", "request.routingKey", "request.queue"),
        how="all",
    ),
    *_sides("amqp"),
    *_sizes("amqp", "length"),
)

_TLS = (
    _of("tls", "tls_sni", "text", "server name asked for", "request.sni"),
    _of("tls", "tls_version", "text", "version agreed on", "response.version"),
    _of("tls", "tls_versions", "list", "versions offered", "request.versions"),
    _of("tls", "tls_cipher_suite", "text", "cipher suite agreed on", "response.cipherSuite"),
    _of("tls", "tls_cipher_suites", "list", "cipher suites offered", "request.cipherSuites"),
    _of("tls", "tls_alpn", "any", "application protocol", "response.alpn", "request.alpn"),
    _of("tls", "tls_ja3", "text", "JA3 fingerprint of the client", "request.ja3"),
    _of("tls", "tls_ja4", "text", "JA4 fingerprint of the client", "request.ja4"),
    _of("tls", "tls_subjects", "list", "of certificates", "response.certificates.*.subject"),
    _of("tls", "tls_issuers", "list", "of certificates", "response.certificates.*.issuer"),
    _of("tls", "tls_sans", "list", "names in certificates", "response.certificates.*.sans.*"),
    _of("tls", "tls_summary", "text", "the same as tls_sni", "request.sni"),
    _of(
        "tls",
        "tls_info",
        "list",
        "version and cipher suite agreed on",
        *("response.version", "response.cipherSuite"),
        how="all",
    ),
    *_sizes("tls"),
)

_DATABASES = (
    *_database("mysql", "number"),
    _of("mysql", "mysql_query", "text", "text of the query", "request.query"),
    _of("mysql", "mysql_statement_id", "number", "prepared statement", "request.statementId"),
    *_database("postgresql", "text"),  # SQLSTATE, as 23505 or 42P01
    _of("postgresql", "postgresql_query", "text", "text of the query", "request.query"),
    _of("postgresql", "postgresql_user", "text", "user", "request.user"),
    *_database("mongodb", "number"),
    _of("mongodb", "mongodb_collection", "text", "collection", "request.collection"),
    _either("mongodb", "mongodb_opcode", "text", "kind of message, as OP_MSG", "opcode"),
    _of(
        "mongodb", "mongodb_error_code_name", "text", "name of the error", "response.error.codeName"
    ),
)

_DIRECTORIES = (
    _either("ldap", "ldap_type", "text", "operation", "type"),
    _of(
        "ldap",
        "ldap_summary",
        "list",
        "object and filter of the request",
        *("request.dn", "request.filter"),
        how="all",
    ),
    *_sides("ldap"),
    *_sizes("ldap", "length"),
    _either("radius", "radius_code", "number", "number of the code", "code"),
    _either("radius", "radius_code_name", "text", "name of the code", "codeName"),
    _of("radius", "radius_request_authenticator", "text", "in hex", "request.authenticator"),
    *_sides("radius"),
    *_sizes("radius", "length"),
    _either("diameter", "diameter_method", "text", "command", "method"),
    _of(
        "diameter",
        "diameter_summary",
        "list",
        "command and session of the request",
        *("request.method", "request.sessionId"),
        how="all",
    ),
    *_sides("diameter"),
    *_sizes("diameter", "length"),
)

_NETWORK = (
    _either("icmp", "icmp_type", "any", "type of the message", "type"),
    _either("icmp", "icmp_version", "number", "4 or 6", "version"),
    _either("icmp", "icmp_length", "number", "octets of the message", "length"),
    _either("sctp", "sctp_chunk_type", "text", "type of the chunk", "chunkType"),
    _either("sctp", "sctp_length", "number", "octets of the chunk", "length"),
    _either("sctp", "sctp_checksum", "number", "checksum of the packet", "checksum"),
    _of("tcp", "tcp_error_type", "text", "why a side is missing", "error.type"),
    _of("tcp", "tcp_error_message", "text", "the same as a sentence", "error.msg"),
    _of("udp", "udp_length", "number", "octets of the request", "requestSize"),
    *_transport("conn"),
    *_transport("flow"),
)

_ABSENT = (
    *_absent(
        "an entry is about a call, not about one packet",
        "any",
        tcp_method="what a TCP packet does",
        tcp_payload="octets of a TCP packet",
        udp_payload="octets of a UDP packet",
        udp_checksum="checksum of a UDP packet",
    ),
    *_absent(
        "all frames come from the wire, or from a file",
        "any",
        capture="how an entry was captured",
        capture_source="where its frames came from",
        capture_backend="the same, in fewer words",
        capture_source_code="the same, as a number",
    ),
    *_absent(
        "a call is an entry of its own; its `stream` is that of the connection",
        "any",
        conn_l7_detected="protocols on the connection",
        flow_l7_detected="protocols on the flow",
        conn_group_id="group of the connection",
        flow_group_id="group of the flow",
    ),
    *_absent(
        "only names and labels of peers are known",
        "any",
        local_annotations="annotations of the pod that asked",
        remote_annotations="annotations of the pod that answered",
        local_process_name="process that asked",
        remote_process_name="process that answered",
        local_node_name="node of the pod that asked",
        remote_node_name="node of the pod that answered",
        local_resolution_status="why the name of who asked is not known",
        remote_resolution_status="why the name of who answered is not known",
    ),
    *_absent(
        "nodes have names; use node.name",
        "any",
        worker="agent that captured it",
        node_id="number of the node",
    ),
)

KFL2: tuple[Field, ...] = (
    *(*_HTTP, *_PEERS, *_DNS, *_QUEUES, *_TLS, *_DATABASES, *_DIRECTORIES, *_NETWORK),
    *_ABSENT,
)
"""Every name of KFL2 that is not one of KFL1's."""
