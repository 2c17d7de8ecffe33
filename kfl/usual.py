"""Values, headers and arguments that are often there, for completion. Others are as good."""

from __future__ import annotations

from kfl.words import WORDS

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE")

_HTTP_VERSIONS = ("HTTP/1.1", "HTTP/2", "HTTP/1.0")

_STATUS = (
    *(200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409),
    *(410, 413, 415, 422, 429, 500, 501, 502, 503, 504),
)

VALUES: dict[str, tuple[str | int, ...]] = {
    "protocol.name": tuple(
        dict.fromkeys(
            name
            for word in WORDS.values()
            for name in (word.name, *sorted(word.names))
            if name in word.names
        )
    ),
    "protocol.version": ("1.1", "2", "1.0"),
    "protocol.abbr": tuple(
        dict.fromkeys(("HTTP", *(abbr for word in WORDS.values() for abbr in sorted(word.abbrs))))
    ),
    "transport": ("tcp", "udp"),
    "error.type": ("timeout", "pair-not-found", "gap", "malformed", "reset", "closed", "alert"),
    "request.method": _METHODS,
    "request.httpVersion": _HTTP_VERSIONS,
    "response.httpVersion": _HTTP_VERSIONS,
    "request.bodyEncoding": ("base64",),
    "response.bodyEncoding": ("base64",),
    "response.status": _STATUS,
    "response.statusText": ("OK", "Not Found", "Internal Server Error", "Bad Gateway"),
    "response.code": ("NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"),
    "request.questions.*.type": ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT", "HTTPS"),
    "request.command": ("GET", "SET", "DEL", "EXPIRE", "HGET", "HSET", "INCR", "PUBLISH"),
    "request.apiKeyName": ("Produce", "Fetch", "Metadata", "OffsetCommit", "JoinGroup"),
    "response.grpcStatus": tuple(range(17)),
    "response.version": ("TLS 1.3", "TLS 1.2"),
    "request.state": ("closed", "idle"),
    "response.state": ("closed", "idle"),
}
"""By path; `*` is any element."""

_OF_BOTH = (
    *("Content-Type", "Content-Length", "Content-Encoding", "Cache-Control", "Connection"),
    *("Date", "X-Request-Id", "traceparent", "Transfer-Encoding", "Via", "Upgrade"),
)

HEADERS: dict[str, tuple[str, ...]] = {
    "request": (
        *("Host", "User-Agent", "Authorization", "Accept", "Cookie", "Referer", "Origin"),
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "X-Api-Key", "Accept-Encoding"),
        *("Accept-Language", "If-None-Match", "If-Modified-Since", "Range", *_OF_BOTH),
    ),
    "response": (
        *("Set-Cookie", "Location", "Server", "ETag", "Last-Modified", "Vary", "Retry-After"),
        *("WWW-Authenticate", "Access-Control-Allow-Origin", "Strict-Transport-Security"),
        *("Accept-Ranges", "Age", "Expires", *_OF_BOTH),
    ),
}
"""Names of headers, by side."""

LABELS = ("app", "app.kubernetes.io/name", "app.kubernetes.io/version", "tier", "version")
"""Names of labels of pods."""

ARGUMENTS: dict[str, tuple[str | int, ...]] = {
    "duration": ("5m", "30s", "1h", "250ms", "1h30m"),
    "timestamp": ("2026-03-14T22:00:00Z",),
    "datetime": ("10/19/2021, 6:29:02 PM",),
    "limit": (10, 100, 1000),
    **dict.fromkeys(("seconds", "minutes", "hours"), (-1, -5, -10, -30)),
    **dict.fromkeys(("days", "weeks", "months", "years"), (-1, -2, -3)),
}
"""By function. Each takes a value that is written in the filter, and nothing else."""

OFTEN = (
    *("http", "dns", "response.status", "request.path", "request.method", "src.name", "dst.name"),
    *("response", "request", "src", "dst", "record", "grpc", "redis", "kafka", "tls", "http2"),
    *("request.headers", "response.headers", "request.body", "response.body", "elapsedTime"),
    *("src.ip", "dst.ip", "src.port", "dst.port", "src.namespace", "dst.namespace", "timestamp"),
    *("protocol.name", "node.name", "status_code", "method", "path", "dns_questions", "error"),
    *("status", "headers", "body", "name", "ip", "port", "namespace", "pod", "service", "labels"),
    *("questions", "answers", "url", "code", "command"),
    *("contains", "startsWith", "matches", "endsWith", "and", "or", "not", "in", "==", "!="),
)
"""Names that people write most, first. The others follow in the order of their tables."""
