"""Entries of HTTP as a HAR 1.2. Called by entryfiles; knows nothing of recordings.

Format: http://www.softwareishard.com/blog/har-12-spec/. Entries are the JSON of
recordings.entry, in which redact() may have put text in the place of anything.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

Json = dict[str, Any]

NOT_KNOWN = -1
"""What a HAR says for a size that is not known."""

_HOST = re.compile(r"[A-Za-z0-9._~-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")

_SCHEME = re.compile(r"https?://", re.IGNORECASE)

_URL_CHARACTERS = "!$%&'()*+,-./:;=?@_~"
"""What stays as it is in the target of a request: all that RFC 3986 lets stand there."""


def head(creator: str, version: str) -> Json:
    """Return the log without its entries."""
    return {"version": "1.2", "creator": {"name": creator, "version": version}}


def entry(found: Mapping[str, Any]) -> Json:
    """Return an entry as HAR has it; its own id, and who called whom, in the comment."""
    request, response = _object(found.get("request")), _object(found.get("response"))
    elapsed_us = found.get("elapsedTimeUs")
    # The wait begins with the first octet of the request and ends with the last of the response.
    elapsed = elapsed_us / 1000 if isinstance(elapsed_us, int) and elapsed_us > 0 else 0
    made: Json = {
        "startedDateTime": found["startTime"],
        "time": elapsed,
        "request": _request(found, request),
        "response": _response(found, response),
        "cache": {},
        "timings": {"send": 0, "wait": elapsed, "receive": 0},
        "connection": f"{_text(_object(found.get('node')).get('name'))}/{_text(found['stream'])}",
        "comment": _comment(found),
    }
    address = _address(_object(found.get("dst")).get("ip"))
    if address:
        made["serverIPAddress"] = address
    return made


def _request(found: Mapping[str, Any], request: Json) -> Json:
    headers = _pairs(request.get("headers"))
    made: Json = {
        "method": _text(request.get("method")),
        "url": _url(found, request, headers),
        "httpVersion": _text(request.get("httpVersion")),
        "cookies": _pairs(request.get("cookies")),
        "headers": headers,
        "queryString": _pairs(request.get("queryString")),
        "headersSize": _size(request.get("headersSize")),
        "bodySize": _size(request.get("bodySize")),
    }
    body = request.get("body")
    if isinstance(body, str) and body:
        made["postData"] = {"mimeType": _header(headers, "content-type"), "text": body}
        notes = _notes(request)
        if notes:
            made["postData"]["comment"] = notes
    return made


def _response(found: Mapping[str, Any], response: Json) -> Json:
    headers = _pairs(response.get("headers"))
    wire = _size(response.get("bodySize"))
    text = response.get("body")
    text = text if isinstance(text, str) else ""
    is_base64 = response.get("bodyEncoding") == "base64"
    octets = len(text) // 4 * 3 - text[-2:].count("=") if is_base64 else len(text.encode())
    if response.get("bodyTruncated") or not text:
        octets = max(octets, wire, 0)
    content: Json = {
        "size": octets,
        "mimeType": _header(headers, "content-type") or "x-unknown",
    }
    if text:
        content["text"] = text
    if is_base64:
        content["encoding"] = "base64"
    if notes := _notes(response):
        content["comment"] = notes
    made: Json = {
        # What readers of HAR take for a call without an answer.
        "status": _number(response.get("status"), 0),
        "statusText": _text(response.get("statusText")),
        "httpVersion": _text(response.get("httpVersion")),
        "cookies": _pairs(response.get("cookies")),
        "headers": headers,
        "content": content,
        "redirectURL": _header(headers, "location"),
        "headersSize": _size(response.get("headersSize")),
        "bodySize": wire,
    }
    error = _object(found.get("error"))
    if error:
        made["_error"] = ": ".join(filter(None, (_text(error.get(k)) for k in ("type", "msg"))))
    return made


def _url(found: Mapping[str, Any], request: Json, headers: list[Json]) -> str:
    """Return the absolute URL of a request: a HAR has no other ones."""
    target = quote(_text(request.get("url")).partition("#")[0], safe=_URL_CHARACTERS)
    if _SCHEME.match(target):
        return target
    scheme = "https" if found.get("tls") else "http"
    host = _header(headers, "host") or _header(headers, ":authority")
    if not _HOST.fullmatch(host):
        host = _host_of(_object(found.get("dst")))
    if target and not target.startswith("/"):
        # A CONNECT names a host, an OPTIONS can ask for *.
        return f"{scheme}://{host}/{target}"
    return f"{scheme}://{host}{target}"


def _host_of(peer: Json) -> str:
    address = _address(peer.get("ip")) or "unknown.invalid"
    host = f"[{address}]" if ":" in address else address
    port = peer.get("port")
    return f"{host}:{port}" if isinstance(port, int) else host


def _address(ip: object) -> str:
    try:
        return str(ipaddress.ip_address(ip)) if isinstance(ip, str) else ""
    except ValueError:
        return ""


def _comment(found: Mapping[str, Any]) -> str:
    ends = (_object(found.get(side)) for side in ("src", "dst"))
    names = [_text(end.get("name")) or _text(end.get("ip")) for end in ends]
    return f"{_text(found.get('id'))}, {' to '.join(names)}"


def _notes(message: Json) -> str:
    said = (
        ("bodyTruncated", True, "The recording has only the beginning."),
        ("bodyEncoding", "base64", "In base64."),
    )
    return " ".join(text for key, value, text in said if message.get(key) == value)


def _pairs(found: object) -> list[Json]:
    """Return what has names and values as HAR lists it; a value that came twice is there twice."""
    return [
        {"name": name, "value": _text(value)}
        for name, values in _object(found).items()
        for value in (values if isinstance(values, list) else [values])
    ]


def _header(headers: list[Json], name: str) -> str:
    return next((str(each["value"]) for each in headers if each["name"].lower() == name), "")


def _object(found: object) -> Json:
    return found if isinstance(found, dict) else {}


def _text(found: object) -> str:
    return found if isinstance(found, str) else "" if found is None else str(found)


def _number(found: object, otherwise: int) -> int:
    return found if isinstance(found, int) else otherwise


def _size(found: object) -> int:
    return max(_number(found, NOT_KNOWN), NOT_KNOWN)
