"""One entry or one stream, with what belongs to it. Called by lookup_rpc."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from kfl.show import show_text
from recordings import schema
from recordings.redaction import Redactions
from services.query import counts, plan
from services.query.engine import Session
from services.query.matched import Matched
from services.query.plan import Source

MAX_NAME = 253
"""Characters of a node's name, RFC 1123."""

_ID = re.compile(r"(?P<node>.+)/(?P<stream>[0-9a-f]{16})-(?P<index>[0-9]{1,10})", re.DOTALL)

_STREAM = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Packets:
    """What a recording has of a stream's packets. Octets; times in microseconds since 1970."""

    packets: int
    bytes: int
    recorded_bytes: int
    first_us: int
    last_us: int


def entry_condition(id: str) -> str:
    """Return KFL for the entry of an id. Raises ValueError with a sentence."""
    found = _ID.fullmatch(id[: MAX_NAME + 32])
    if found is None or len(id) > MAX_NAME + 32:
        raise ValueError(
            f'"{id[:80]}" is not the id of an entry; they look like node-1/00000000000000a1-0.'
        )
    node = show_text(found["node"])
    return f'node.name == {node} and stream == "{found["stream"]}" and index == {found["index"]}'


def stream_condition(id: str, node: str) -> str:
    """Return KFL for the entries of a stream. Raises ValueError with a sentence."""
    if not _STREAM.fullmatch(id):
        raise ValueError(
            f'"{id[:80]}" is not the id of a stream: 16 hex digits, as in 00000000000000a1.'
        )
    if len(node) > MAX_NAME:
        raise ValueError(f"A node's name has at most {MAX_NAME} characters.")
    on_node = f" and node.name == {show_text(node)}" if node else ""
    return f'stream == "{id}"{on_node}'


def cut_bodies(entry: Mapping[str, Any], limit: int) -> None:
    """Cut bodies to `limit` characters, in place; those that were cut have bodyTruncated."""
    for side in ("request", "response"):
        message = entry[side]
        body = (message or {}).get("body")
        if isinstance(body, str) and len(body) > limit:
            # Whole groups of four characters can be decoded.
            is_base64 = message.get("bodyEncoding") == "base64"
            message["body"] = body[: limit // 4 * 4 if is_base64 else limit]
            message["bodyTruncated"] = True


def stream_row(
    session: Session, source: Source, node: str, stream: str, redactions: Sequence[str]
) -> dict[str, Any] | None:
    """Return what STREAMS has of a stream, its times in microseconds; None if nothing."""
    rows = list(session.rows(plan.of_stream(schema.STREAMS, source, node, stream)))
    if not rows:
        return None
    # After an agent came back there can be two; the first knows the beginning.
    table = pa.Table.from_batches(rows).sort_by("first_time").slice(0, 1)
    row: dict[str, Any] = Redactions(redactions).apply_to_streams(table).to_pylist()[0]
    return {
        **row,
        **{name: plan.microseconds(row[name]) for name in ("first_time", "matched_time")},
    }


def packets(session: Session, source: Source, node: str, stream: str) -> Packets:
    """Return what there is of a stream's packets. Raises EngineError."""
    found = Matched(plan.of_stream(schema.PACKETS, source, node, stream))
    question = found.then(
        "SELECT count(*) AS packets, coalesce(sum(original_length), 0)::BIGINT AS bytes,"
        " coalesce(sum(octet_length(frame)), 0)::BIGINT AS recorded_bytes,"
        ' coalesce(min(epoch_us("time")), 0) AS first_us,'
        ' coalesce(max(epoch_us("time")), 0) AS last_us FROM {}'
    )
    (row,) = counts.rows(session, question)
    return Packets(**row)
