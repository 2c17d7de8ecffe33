"""An entry in one row, for `ask`, `dissect` and the demo: when, what was asked, how it went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADERS = ("TIME", "PROTOCOL", "STATUS", "METHOD", "PATH", "FROM", "TO", "ELAPSED")

CSV_HEADERS = (
    *("time", "record", "node", "stream", "index", "protocol", "status", "method", "path"),
    *("src_ip", "src_port", "src_name", "dst_ip", "dst_port", "dst_name"),
    *("elapsed_us", "request_size", "response_size", "error"),
)


def row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of HEADERS."""
    return (
        str(entry.get("startTime", ""))[:23].replace("T", " "),
        str(_part(entry, "protocol").get("abbr", "")),
        status(entry),
        method(entry),
        path(entry),
        peer(_part(entry, "src")),
        peer(_part(entry, "dst")),
        elapsed(entry.get("elapsedTimeUs")),
    )


def csv_row(entry: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the cells of CSV_HEADERS."""
    src, dst = _part(entry, "src"), _part(entry, "dst")
    return (
        entry.get("startTime"),
        entry.get("record"),
        _part(entry, "node").get("name"),
        entry.get("stream"),
        entry.get("index"),
        _part(entry, "protocol").get("name"),
        status(entry),
        method(entry),
        path(entry),
        *(src.get("ip"), src.get("port"), src.get("name")),
        *(dst.get("ip"), dst.get("port"), dst.get("name")),
        entry.get("elapsedTimeUs"),
        entry.get("requestSize"),
        entry.get("responseSize"),
        _part(entry, "error").get("type"),
    )


def status(entry: Mapping[str, Any]) -> str:
    """Return how it went: 404, NXDOMAIN, or the kind of error when there is no answer."""
    response, error = _part(entry, "response"), _part(entry, "error")
    for key in ("status", "code", "grpcStatus"):
        if response.get(key) not in (None, ""):
            return str(response[key])
    return str(error.get("type", ""))


def method(entry: Mapping[str, Any]) -> str:
    """Return what was asked for: GET, a type of DNS question, a command."""
    request = _part(entry, "request")
    question = _question(request)
    if question:
        return str(question.get("type", ""))
    for key in ("method", "command", "apiKeyName", "opCode"):
        if request.get(key):
            return str(request[key])
    return ""


def path(entry: Mapping[str, Any]) -> str:
    """Return what it was about: a path, a name, a key."""
    request = _part(entry, "request")
    question = _question(request)
    if question:
        return str(question.get("name", ""))
    for key in ("path", "url", "key", "query", "sni"):
        if request.get(key):
            return str(request[key])
    return ""


def peer(side: Mapping[str, Any]) -> str:
    """Return name:port, or ip:port where there is no name."""
    host = str(side.get("name") or side.get("ip") or "")
    port = side.get("port")
    if ":" in host:
        host = f"[{host}]"
    return f"{host}:{port}" if port else host


def elapsed(microseconds: object) -> str:
    """Return a duration as a person reads it: 12.4 ms."""
    if not isinstance(microseconds, int | float):
        return ""
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds / 1_000_000:.2f} s"


def _question(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    questions = request.get("questions")
    if isinstance(questions, list) and questions and isinstance(questions[0], dict):
        return questions[0]
    return None


def _part(entry: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under a key; {} where there is none, or a null."""
    value = entry.get(key)
    return value if isinstance(value, dict) else {}
