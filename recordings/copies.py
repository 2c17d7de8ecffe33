"""Where an entry shows the values of columns, and where it shows the same value again.

`redaction` needs it: what is hidden in one place could be read in another.
"""

from recordings import schema

MESSAGES = ("request", "response")
PEERS = ("src", "dst")
COOKIES = {"request": "cookie", "response": "set-cookie"}
"""The header that holds what `cookies` shows."""

Place = tuple[str, ...]
"""Keys from an entry down."""


def _columns() -> dict[str, tuple[Place, ...]]:
    """Return the places of an entry at which each column of ENTRIES is seen; see entry.py."""
    names: dict[str, tuple[str, ...]] = {
        "start_time": ("timestamp", "startTime"),
        "elapsed_us": ("elapsedTime", "elapsedTimeUs"),
        "request_size": ("requestSize",),
        "response_size": ("responseSize",),
    }
    for prefix, keys in (("node", "name ip"), ("protocol", "name version abbr")):
        names |= {f"{prefix}_{key}": (f"{prefix}.{key}",) for key in keys.split()}
    names |= {"error_type": ("error.type",), "error_msg": ("error.msg",)}
    for peer in PEERS:
        pod, service = f"{peer}.pod", f"{peer}.service"
        names |= {f"{peer}_{key}": (f"{peer}.{key}",) for key in ("ip", "port", "name", "dns")}
        names[f"{peer}_namespace"] = tuple(f"{owner}.namespace" for owner in (peer, pod, service))
        names |= {f"{peer}_pod": (f"{pod}.name",), f"{peer}_labels": (f"{pod}.labels",)}
        names[f"{peer}_service"] = (f"{service}.name",)
    for side in MESSAGES:
        for key, name in (
            ("httpVersion", "http_version"),
            ("headersSize", "headers_size"),
            ("bodySize", "body_size"),
            ("bodyEncoding", "body_base64"),
            ("bodyTruncated", "body_truncated"),
            ("headers", "headers"),
            ("body", "body"),
        ):
            names[f"{side}_{name}"] = (f"{side}.{key}",)
    for name, place in (
        ("request_method", "request.method"),
        ("request_url", "request.url"),
        ("request_path", "request.path"),
        ("response_status", "response.status"),
        ("response_status_text", "response.statusText"),
    ):
        names[name] = (place,)
    return {
        name: tuple(tuple(place.split(".")) for place in names.get(name, (name,)))
        for name in schema.ENTRIES.names
    }


COLUMNS = _columns()


def _copies() -> list[tuple[Place, Place]]:
    """Return pairs of places: who sees the second one knows the value of the first one."""
    pairs: list[tuple[Place, Place]] = []

    def add(hidden: str, copy: str) -> None:
        pairs.append((tuple(hidden.split(".")), tuple(copy.split("."))))

    for places in COLUMNS.values():
        pairs += [(one, other) for one in places for other in places if one != other]
    for key in ("node.name", "stream", "index"):
        add(key, "id")
    for part in ("path", "queryString"):
        add("request.url", f"request.{part}")
    add("request.path", "request.pathSegments")
    add("request.pathSegments", "request.path")
    for part in ("grpcService", "grpcMethod"):
        add("request.path", f"request.{part}")
    for key in ("grpcStatus", "grpcMessage"):
        header = key.replace("grpc", "grpc-").lower()
        for part in ("headers", "trailers"):
            add(f"response.{key}", f"response.{part}.{header}")
            add(f"response.{part}.{header}", f"response.{key}")
    for side, cookie in COOKIES.items():
        add(f"{side}.cookies", f"{side}.headers.{cookie}")
        add(f"{side}.headers.{cookie}", f"{side}.cookies")
        add(f"{side}.bodySize", f"{side}.headers.content-length")
    return pairs


COPIES = _copies()

PARTS: tuple[tuple[Place, Place], ...] = tuple(
    (("request", of), ("request", key))
    for of in ("body", "url", "queryString")
    for key in ("gqlOperationType", "gqlOperationName", "gqlFields", "gqlOperations")
) + tuple((("response", "body"), ("response", key)) for key in ("gqlErrors", "gqlErrorCount"))
"""Pairs of places: the second one shows values of which some may be in the first one."""

PEER_NAMES = ("name", "service", "pod", "dns")
"""Columns of a peer; the first one is a copy of one of the others."""
