"""The catalogue of an entry's fields: one list for checking, documentation, completion and SQL.

A field's first name is KFL1's where it has one; the aliases are other spellings of the same value.
What a request and a response hold is in `kfl1`, KFL2's own names are in `kfl2`.
"""

from __future__ import annotations

from collections.abc import Iterator

from kfl.field import Field
from kfl.kfl1 import MESSAGES
from kfl.kfl2 import KFL2

__all__ = ["CATALOGUE", "NAMES", "Field"]


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
    Field(
        "stream",
        "text",
        "the L4 stream, 16 hex digits",
        ("stream",),
        "stream",
        ("conn_id", "flow_id"),
    ),
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
    Field("transport", "text", "tcp, udp, icmp or sctp", ("transport",), "transport"),
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
    *MESSAGES,
    Field("error", "map", "why a side is missing; nil when none is", ("error",)),
    Field(
        "error.type",
        "text",
        "pair-not-found, timeout, gap, malformed, reset, closed or alert",
        ("error.type",),
        "error_type",
    ),
    Field("error.msg", "text", "the same as a sentence", ("error.msg",), "error_msg"),
)

CATALOGUE: tuple[Field, ...] = (*_ENTRY, *KFL2)
"""Every field."""

NAMES: dict[str, Field] = {
    name: field for field in CATALOGUE for name in (field.name, *field.aliases)
}
"""Every name and alias."""
