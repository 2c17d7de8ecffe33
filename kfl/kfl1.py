"""What a request and a response hold, by protocol: KFL1's names. `fields` puts them in.

Below `request` and `response` any path may be asked for; these are the ones that dissectors write.
A name that several protocols share has the meanings of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from kfl.field import Field

_WEB = ("http", "ws")


def _of(
    path: str,
    type: str,
    meaning: str,
    *protocols: str,
    column: str | None = None,
) -> Field:
    return Field(path, type, meaning, (path,), column, protocols=protocols)


def _both(key: str, type: str, meaning: str, *protocols: str) -> Iterator[Field]:
    """The same in a request and in a response; `{}` in the meaning is the side."""
    for side in ("request", "response"):
        yield _of(f"{side}.{key}", type, meaning.format(side), *protocols)


def _http(side: str) -> Iterator[Field]:
    yield _of(
        f"{side}.httpVersion",
        "text",
        f"HTTP version of the {side}, as HTTP/1.1",
        "http",
        column=f"{side}_http_version",
    )
    yield _of(
        f"{side}.headers",
        "map",
        f"headers of the {side}; their names match without regard to case",
        "http",
        column=f"{side}_headers",
    )
    yield _of(f"{side}.cookies", "map", f"cookies of the {side}", "http")
    yield _of(
        f"{side}.headersSize",
        "number",
        f"octets of the head of the {side} on the wire",
        "http",
        column=f"{side}_headers_size",
    )
    yield _of(
        f"{side}.bodySize",
        "number",
        f"octets of the body of the {side} on the wire",
        *_WEB,
        column=f"{side}_body_size",
    )
    yield _of(
        f"{side}.body",
        "any",
        f"body of the {side}, decoded; base64 where it is not UTF-8",
        *(*_WEB, "amqp"),
        column=f"{side}_body",
    )
    yield _of(f"{side}.bodyEncoding", "text", "base64 where the body is", *_WEB)
    yield _of(f"{side}.bodyTruncated", "bool", "the body was cut", *_WEB)


_HTTP = (
    *_http("request"),
    _of(
        "request.method",
        "text",
        "HTTP method; AMQP method, as basic publish; Diameter command",
        *("http", "amqp", "diameter"),
        column="request_method",
    ),
    _of("request.url", "text", "request target", "http", column="request_url"),
    _of(
        "request.path",
        "text",
        "request target up to its question mark",
        "http",
        column="request_path",
    ),
    _of("request.pathSegments", "list", "the path, split at its slashes", "http"),
    _of(
        "request.queryString",
        "map",
        "fields of the query, decoded; a repeated one is a list",
        "http",
    ),
    Field(
        "request.query",
        "any",
        "HTTP: the same as request.queryString; databases: text of the query",
        ("request.queryString", "request.query"),
        how="first",
        protocols=("http", "mysql", "postgresql", "mongodb"),
    ),
    *_http("response"),
    _of(
        "response.status",
        "number",
        "HTTP status; of a database, a text",
        *("http", "mysql", "postgresql", "mongodb"),
        column="response_status",
    ),
    _of(
        "response.statusText",
        "text",
        "text beside the status",
        "http",
        column="response_status_text",
    ),
    _of("request.grpcService", "text", "gRPC service", "grpc"),
    _of("request.grpcMethod", "text", "gRPC method", "grpc"),
    _of("response.grpcStatus", "number", "gRPC status, 0 is OK", "grpc"),
    _of("response.grpcMessage", "text", "gRPC status message", "grpc"),
    _of("request.gqlOperationType", "text", "GraphQL: query, mutation or subscription", "gql"),
    _of("request.gqlOperationName", "text", "name of the operation", "gql"),
    _of("request.gqlFields", "list", "what it selects at its top", "gql"),
    _of("request.gqlOperations", "list", "of a batch: list of {type, name, fields}", "gql"),
    _of("response.gqlErrors", "list", "list of {message, path, code}", "gql"),
    _of("response.gqlErrorCount", "number", "errors that the answer tells of", "gql"),
    *_both(
        "opcode",
        "text",
        "kind of message: of WebSocket, as text or close; of MongoDB, as OP_MSG",
        *("ws", "mongodb"),
    ),
)

_RECORDS = "list of {name, type, class, ttl, ip, cname, ns, ptr, txts, soa, srv, mx, opt}"

_DNS = (
    _of("request.opCode", "text", "kind of question, as QUERY", "dns"),
    _of("request.questions", "list", "list of {name, type, class}", "dns"),
    _of(
        "response.code",
        "any",
        "DNS: response code, as NOERROR; RADIUS, ICMP: number of the code",
        *("dns", "radius", "icmp"),
    ),
    _of("response.answers", "list", f"answers: {_RECORDS}", "dns"),
    _of("response.authorities", "list", f"authorities: {_RECORDS}", "dns"),
    _of("response.additionals", "list", f"additional records: {_RECORDS}", "dns"),
)

_QUEUES = (
    *_both(
        "type",
        "any",
        "Redis: type of the value, as Array; LDAP: operation; ICMP: type of the message",
        *("redis", "ldap", "icmp"),
    ),
    *_both(
        "command",
        "text",
        "command: of Redis, as GET; of a database, as COM_QUERY, SELECT or find",
        *("redis", "mysql", "postgresql", "mongodb"),
    ),
    *_both("key", "text", "key", "redis"),
    *_both("value", "any", "value", "redis"),
    *_both("keyword", "text", "what follows the key and the value", "redis"),
    *_both("apiKey", "number", "number of the API", "kafka"),
    *_both("apiKeyName", "text", "name of the API, as Produce", "kafka"),
    *_both("apiVersion", "number", "version of the API", "kafka"),
    _of("request.clientID", "text", "name that the client gives itself", "kafka"),
    *_both("correlationID", "number", "number that pairs request and response", "kafka"),
    *_both("size", "number", "size field of the {}", "kafka"),
    *_both("payload", "any", "fields of the {}, by the API", "kafka"),
    _of("response.method", "text", "AMQP method; Diameter command", "amqp", "diameter"),
    *_both("exchange", "text", "exchange", "amqp"),
    *_both("routingKey", "text", "routing key", "amqp"),
    *_both("queue", "text", "queue", "amqp"),
    _of("request.mandatory", "bool", "to be returned when it cannot be routed", "amqp"),
    _of("request.immediate", "bool", "to be returned when nobody takes it at once", "amqp"),
    *_both("properties", "map", "properties of the message, its headers among them", "amqp"),
)

_TLS = (
    _of("request.sni", "text", "server name asked for", "tls"),
    _of("request.versions", "list", "versions offered", "tls"),
    *_both("alpn", "any", "application protocols offered, or the one agreed on", "tls"),
    _of("request.cipherSuites", "list", "cipher suites offered", "tls"),
    _of("request.ja3", "text", "JA3 fingerprint of the client", "tls"),
    _of("request.ja4", "text", "JA4 fingerprint of the client", "tls"),
    _of("response.version", "any", "version agreed on, as TLS 1.3; ICMP: 4 or 6", "tls", "icmp"),
    _of("response.cipherSuite", "text", "cipher suite agreed on", "tls"),
    _of(
        "response.certificates",
        "list",
        "chain of the server: list of {subject, issuer, notBefore, notAfter, sans}",
        "tls",
    ),
)

_DATABASES = (
    _of("request.database", "text", "database", "mysql", "postgresql", "mongodb"),
    _of("request.user", "text", "user", "mysql", "postgresql"),
    _of("request.statementId", "number", "number of a prepared statement", "mysql"),
    _of("request.collection", "text", "collection", "mongodb"),
    _of(
        "response.error",
        "any",
        "why it failed: {code, message}, of MongoDB also codeName",
        *("mysql", "postgresql", "mongodb", "kafka"),
    ),
    _of("response.rows", "any", "rows returned", "mysql", "postgresql", "mongodb"),
    _of("response.affected", "number", "rows changed", "mysql", "postgresql", "mongodb"),
)

_DIRECTORIES = (
    _of("request.dn", "text", "name of the object asked for", "ldap"),
    _of("request.filter", "any", "filter of a search", "ldap", "mongodb"),
    _of("response.resultCode", "any", "result", "ldap", "diameter"),
    _of("request.code", "any", "number of the code", "radius", "icmp"),
    *_both("codeName", "text", "name of the code, as Access-Request", "radius"),
    *_both("identifier", "number", "number that pairs request and response", "radius", "icmp"),
    *_both("authenticator", "text", "authenticator, in hex", "radius"),
    *_both("attributes", "any", "attributes of the {}", "radius", "ldap"),
    *_both("commandCode", "number", "number of the command", "diameter"),
    *_both("applicationId", "number", "number of the application", "diameter"),
    *_both("sessionId", "text", "session", "diameter"),
    *_both("avps", "any", "attribute-value pairs", "diameter"),
)

_TRANSPORT = (
    *_both("state", "text", "closed, or idle when it just fell silent", "tcp_conn", "udp_conn"),
    *_both("packets", "number", "packets of that side", "tcp_conn", "udp_conn"),
    *_both("bytes", "number", "octets of that side", "tcp_conn", "udp_conn"),
    _of("request.version", "number", "version of ICMP, 4 or 6", "icmp"),
    *_both("length", "number", "octets of the message or chunk", "icmp", "sctp"),
    *_both("sequence", "number", "sequence number of an echo", "icmp"),
    *_both("chunkType", "text", "type of the chunk, as DATA", "sctp"),
    *_both("checksum", "number", "checksum of the packet", "sctp"),
)

MESSAGES: tuple[Field, ...] = (
    Field("request", "map", "the request; nil when there was none", ("request",), "request"),
    Field("response", "map", "the response; nil when there was none", ("response",), "response"),
    *(*_HTTP, *_DNS, *_QUEUES, *_TLS, *_DATABASES, *_DIRECTORIES, *_TRANSPORT),
)
"""Every field of a request and a response that some protocol has."""
