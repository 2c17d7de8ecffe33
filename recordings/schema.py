"""The tables of a recording, as Arrow schemas. Capture fills them, the scheduler stores them as
they are, the query service reads them; entry.py turns rows of ENTRIES into the JSON that people
see.

A field of an entry's `request` or `response` that is asked for often is a column of its own, named
after its path (`response.status` is response_status). The rest is JSON text in `request` and
`response`. An object of the entry is the union of both; a null column is a key that is not there.
"""

from typing import TypeVar

import pyarrow as pa

VERSION = 1
"""Raised when a column changes its meaning; a reader refuses what is newer than it knows."""

TIMESTAMP = pa.timestamp("ns", "UTC")

HEADERS = pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("value", pa.string())]))
"""As on the wire: order, case and repetitions kept. Not a map: DuckDB refuses repeated keys."""


def _peer(side: str) -> list[pa.Field]:
    """Columns of one end of the stream; the names are null or "" where nothing is known."""
    return [
        pa.field(f"{side}_ip", pa.string()),
        pa.field(f"{side}_port", pa.uint16()),
        pa.field(f"{side}_name", pa.string()),  # service, else pod, else DNS name, else ""
        pa.field(f"{side}_namespace", pa.string()),
        pa.field(f"{side}_pod", pa.string()),
        pa.field(f"{side}_service", pa.string()),
        pa.field(f"{side}_dns", pa.string()),
        pa.field(f"{side}_labels", pa.string()),  # JSON object
    ]


def _message(side: str) -> list[pa.Field]:
    """Columns that a request and a response both have."""
    return [
        pa.field(f"{side}_http_version", pa.string()),  # HTTP/1.1
        pa.field(f"{side}_headers", HEADERS),
        pa.field(f"{side}_headers_size", pa.int64()),  # octets of the head on the wire
        pa.field(f"{side}_body_size", pa.int64()),  # octets on the wire, without chunk framing
        pa.field(f"{side}_body", pa.string()),  # decoded; base64 where it is not UTF-8
        pa.field(f"{side}_body_base64", pa.bool_()),
        pa.field(f"{side}_body_truncated", pa.bool_()),
        pa.field(side, pa.string()),  # JSON object: what has no column of its own
    ]


ENTRIES = pa.schema(
    [
        pa.field("start_time", TIMESTAMP, nullable=False),  # first octet of the first message
        pa.field("index", pa.int32(), nullable=False),  # number of the entry in its stream, from 0
        pa.field("stream", pa.string(), nullable=False),  # 16 hex digits, as in STREAMS
        pa.field("node_name", pa.string(), nullable=False),
        pa.field("node_ip", pa.string(), nullable=False),
        pa.field("protocol_name", pa.string(), nullable=False),  # http
        pa.field("protocol_version", pa.string(), nullable=False),  # 1.1, or ""
        pa.field("protocol_abbr", pa.string(), nullable=False),  # HTTP
        pa.field("transport", pa.string(), nullable=False),  # tcp, udp, icmp or sctp
        pa.field("tls", pa.bool_(), nullable=False),
        *_peer("src"),  # who asked
        *_peer("dst"),  # who answered
        pa.field("elapsed_us", pa.int64()),  # first octet of the request to last of the response
        pa.field("request_size", pa.int64()),  # octets of the message on the wire
        pa.field("response_size", pa.int64()),
        pa.field("request_method", pa.string()),
        pa.field("request_url", pa.string()),  # the request target
        pa.field("request_path", pa.string()),  # up to its question mark
        *_message("request"),
        pa.field("response_status", pa.int32()),
        pa.field("response_status_text", pa.string()),
        *_message("response"),
        pa.field("error_type", pa.string()),  # as error.type in kfl/fields.py
        pa.field("error_msg", pa.string()),
    ]
)
"""One row for each API call."""

STREAMS = pa.schema(
    [
        pa.field("stream", pa.string(), nullable=False),
        pa.field("node_name", pa.string(), nullable=False),
        pa.field("transport", pa.string(), nullable=False),  # tcp, udp, icmp or sctp
        pa.field("client_ip", pa.string(), nullable=False),
        pa.field("client_port", pa.uint16(), nullable=False),
        pa.field("server_ip", pa.string(), nullable=False),
        pa.field("server_port", pa.uint16(), nullable=False),
        pa.field("first_time", TIMESTAMP, nullable=False),  # of its first packet seen
        pa.field("matched_time", TIMESTAMP, nullable=False),  # when an entry first matched
        pa.field("from_start", pa.bool_(), nullable=False),  # its first packet is in PACKETS
        # Null where there is none. Older releases lack what follows: see ADDED.
        pa.field("vlan", pa.string()),  # its id, or two as in 100.5, the outer one first
        pa.field("tunnel", pa.string()),  # kind and id as in "vxlan 42", or kind
        # Where the node translates addresses between client and server:
        pa.field("called_ip", pa.string()),  # whom the client called: a service
        pa.field("called_port", pa.uint16()),
        pa.field("seen_ip", pa.string()),  # whom the server saw call
        pa.field("seen_port", pa.uint16()),
    ]
)
"""One row for each L4 stream, written when it first matches."""

ADDED = frozenset({"vlan", "tunnel", "called_ip", "called_port", "seen_ip", "seen_port"})
"""Columns of STREAMS that files of older releases do not have."""

PACKETS = pa.schema(
    [
        pa.field("stream", pa.string(), nullable=False),
        pa.field("node_name", pa.string(), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("link_type", pa.uint16(), nullable=False),  # LINKTYPE_, tcpdump.org/linktypes.html
        pa.field("original_length", pa.uint32(), nullable=False),  # octets on the wire
        pa.field("frame", pa.binary(), nullable=False),  # octets as captured
    ]
)
"""One row for each frame of the streams in STREAMS."""

LOSSES = pa.schema(
    [
        pa.field("node_name", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # one of LOSS_KINDS
        pa.field("start_time", TIMESTAMP, nullable=False),
        pa.field("end_time", TIMESTAMP, nullable=False),
        pa.field("packets", pa.int64(), nullable=False),  # 0 when not known
        pa.field("bytes", pa.int64(), nullable=False),  # 0 when not known
        pa.field("stream", pa.string()),  # null when it is not about one stream
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""One row for each thing known to be missing."""

LOSS_KINDS = {
    "kernel_drop": "the kernel dropped packets because the ring was full",
    "gap": "octets of a TCP stream were never seen",
    "store_overrun": "packets had left the packet store before their stream matched",
    "fragment": "fragments of packets never became whole packets",
    "unknown_link": "packets of a link layer that is not known here were not read",
    "undissected": "octets of streams made no sense in their protocol, and were not dissected",
    "table_overrun": "streams were cut short or calls forgotten because a table was full",
    "uplink_overrun": "batches were dropped because the scheduler was away for too long",
    "capture_damage": "a capture file was cut or damaged",
    "agent_restart": "a capture agent stopped or started while the run was on",
    "agent_gone": "a capture agent died or was cut off, and did not deliver all that it had",
    "dropped_oldest": "the oldest data made room for newer, as the job wanted it",
    "clock_step": "a node's clock was set while the run was on",
    "nameless": "names of pods and services were not known, or old; addresses were recorded",
    "sampled": "streams that are not in the sample were not looked at",
    "redacted": "what packets carried was not stored, since values were to be hidden",
    "live_overrun": "live traffic was not taken fast enough, or had no room in memory",
    "storage_limit": "the storage limit was reached",
    "disk_full": "the scheduler's disk took nothing for a while; agents kept what they could",
    "storage_damage": "octets of the recording were damaged on the scheduler's disk",
}
"""Every kind of loss, and what it means."""

TALLIES = pa.schema(
    [
        pa.field("agent_id", pa.string(), nullable=False),  # "": who sent it
        pa.field("node_name", pa.string(), nullable=False),
        pa.field("begin_time", TIMESTAMP, nullable=False),  # when it began to count
        pa.field("end_time", TIMESTAMP, nullable=False),  # up to when it has counted
        pa.field("seen_packets", pa.int64(), nullable=False),  # that the kernel let through
        pa.field("seen_bytes", pa.int64(), nullable=False),  # of them, on the wire
        pa.field("matched_packets", pa.int64(), nullable=False),  # of streams that matched
        pa.field("matched_bytes", pa.int64(), nullable=False),
    ]
)
"""What an agent has counted for a run since it began; each row replaces the one before. It is in
journals only: manifests have the sums."""

TABLES = {"entries": ENTRIES, "streams": STREAMS, "packets": PACKETS, "losses": LOSSES}
"""Every table of a recording, by the name that its files begin with."""

PARTS = {**TABLES, "tallies": TALLIES}
"""Everything that a batch and a journal can have."""


Rows = TypeVar("Rows", pa.RecordBatch, pa.Table)


def is_known(table: str, schema: pa.Schema) -> bool:
    """Whether rows of a table have today's columns, or the first of them: later ones were added,
    and may be null.
    """
    today = PARTS[table]
    if len(schema) > len(today) or not schema.equals(pa.schema(list(today)[: len(schema)])):
        return False
    return all(field.nullable for field in list(today)[len(schema) :])


def with_all_columns(table: str, rows: Rows) -> Rows:
    """Return rows that is_known() accepts with today's columns."""
    today = PARTS[table]
    later: list[pa.Field] = [today.field(name) for name in today.names[rows.num_columns :]]
    columns = [*rows.columns, *(pa.nulls(rows.num_rows, field.type) for field in later)]
    return type(rows).from_arrays(columns, schema=today) if later else rows
