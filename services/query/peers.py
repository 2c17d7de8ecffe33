"""Entries added up by who asked whom, and by stream. Called by figures_rpc and lookup_rpc."""

# ruff: noqa: S608 - the only text put into SQL is names from the schema and from this room.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from kfl.sql.pieces import Piece
from recordings import schema
from services.query import counts, figures, plan
from services.query.engine import Session
from services.query.figures import SUMS, Figures
from services.query.matched import Column, Matched, Rows, stored
from services.query.plan import Source


@dataclass(frozen=True, slots=True)
class Peer:
    """One end: by its name, else by its address."""

    name: str
    namespace: str
    ip: str
    port: int = 0


@dataclass(frozen=True, slots=True)
class Edge:
    """Calls of one peer to another in one protocol."""

    src: Peer
    dst: Peer
    protocol: str
    figures: Figures


def peer_columns() -> list[Column]:
    """Return the columns that by_peers() needs beside those of figures."""
    return [each for side in ("src", "dst") for each in _peer_columns(side)]


def _peer_columns(side: str) -> list[Column]:
    """Return the name and its namespace, or the address and a NULL: few keys are quick keys."""
    named = f"{side}_name <> ''"
    who = f"CASE WHEN {named} THEN {side}_name ELSE coalesce({side}_ip, '') END"
    namespace = f"CASE WHEN {named} THEN coalesce({side}_namespace, '') END"

    def names(_: pa.Table, rows: Rows) -> pa.Array:
        return pa.array([row[side]["name"] or row[side]["ip"] for row in rows], pa.string())

    def namespaces(_: pa.Table, rows: Rows) -> pa.Array:
        found = [row[side]["namespace"] if row[side]["name"] else None for row in rows]
        return pa.array(found, pa.string())

    return [
        Column(side, pa.string(), Piece(who), names),
        Column(f"{side}_namespace", pa.string(), Piece(namespace), namespaces),
    ]


def by_peers(session: Session, found: Matched, limit: int) -> list[Edge]:
    """Return who calls whom, the most calls first; one more than `limit` when there are more."""
    keys = "src, src_namespace, dst, dst_namespace, protocol_abbr"
    question = found.then(
        f"SELECT {keys}, {SUMS} FROM {{}} GROUP BY {keys}"
        f" ORDER BY entries DESC, {keys} LIMIT {limit + 1}"
    )
    return [
        Edge(_peer(row, "src"), _peer(row, "dst"), row["protocol_abbr"], figures.read(row))
        for row in counts.rows(session, question)
    ]


def _peer(row: Mapping[str, Any], side: str) -> Peer:
    namespace = row[f"{side}_namespace"]
    return Peer("", "", row[side]) if namespace is None else Peer(row[side], namespace, "")


# ------------------------------------------------------------------------------ by stream


@dataclass(frozen=True, slots=True)
class Connection:
    """A stream with sums over its entries. Times in microseconds since 1970."""

    record: str
    node: str
    stream: str
    transport: str
    protocols: tuple[str, ...]
    src: Peer
    dst: Peer
    state: str
    start_us: int
    end_us: int
    figures: Figures


_SIDES = tuple(
    f"{side}_{part}" for side in ("src", "dst") for part in ("name", "namespace", "ip", "port")
)

_STATE = (
    "CASE WHEN protocol_name IN ('tcp', 'udp') THEN"
    " coalesce(TRY(json_extract_string(request, '$.state')),"
    " TRY(json_extract_string(response, '$.state'))) END"
)


def stream_columns() -> list[Column]:
    """Return the columns that by_stream() needs beside those of figures."""
    record = Column(
        "record", pa.string(), Piece("record"), lambda table, _: table["record"].combine_chunks()
    )
    names = ("start_time", "index", "stream", "node_name", "protocol_abbr", "transport", *_SIDES)
    return [record, *map(stored, names), Column("state", pa.string(), Piece(_STATE), _states)]


def _states(_: pa.Table, rows: Rows) -> pa.Array:
    found = []
    for row in rows:
        sides = [row[side] or {} for side in ("request", "response")]
        states = [side["state"] for side in sides if isinstance(side.get("state"), str)]
        found.append(states[0] if states and row["protocol"]["name"] in ("tcp", "udp") else None)
    return pa.array(found, pa.string())


def by_stream(
    session: Session, found: Matched, streams: Sequence[Source], limit: int
) -> list[Connection]:
    """Return streams, the most octets first; one more than `limit` when there are more.

    `streams` are the sources of STREAMS, which know when a stream's first packet was.
    """
    sides = ", ".join(f"{name} := {name}" for name in _SIDES)
    question = found.then(
        "SELECT record, node_name, stream, any_value(transport) AS transport,"
        " list(DISTINCT protocol_abbr ORDER BY protocol_abbr) AS protocols,"
        f' arg_min(struct_pack({sides}), ("index", start_time)) AS peers,'
        " max(state) AS state, min(epoch_us(start_time)) AS start_us,"
        f" max(epoch_us(start_time) + coalesce(elapsed_us, 0)) AS end_us, {SUMS}"
        " FROM {} GROUP BY record, node_name, stream"
        " ORDER BY request_bytes + response_bytes DESC, record, node_name, stream"
        f" LIMIT {limit + 1}"
    )
    rows = list(counts.rows(session, question))
    begins = first_packets(session, streams, rows)
    return [_connection(row, begins) for row in rows]


def first_packets(
    session: Session, streams: Sequence[Source], rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str, str], int]:
    """Return the time of the first packet in microseconds, by record, node and stream."""
    if not rows:
        return {}
    keys = ("record", "node_name", "stream")
    wanted = pa.table({key: pa.array([row[key] for row in rows], pa.string()) for key in keys})
    found: dict[tuple[str, str, str], int] = {}
    for row in counts.rows(session, plan.of_streams(schema.STREAMS, streams, wanted)):
        key = (row["record"], row["node_name"], row["stream"])
        first = plan.microseconds(row["first_time"])
        found[key] = min(found.get(key, first), first)
    return found


def _connection(row: Mapping[str, Any], begins: Mapping[tuple[str, str, str], int]) -> Connection:
    ends = [_end(row["peers"], side) for side in ("src", "dst")]
    begin = begins.get((row["record"], row["node_name"], row["stream"]), row["start_us"])
    return Connection(
        record=row["record"],
        node=row["node_name"],
        stream=row["stream"],
        transport=row["transport"],
        protocols=tuple(row["protocols"]),
        src=ends[0],
        dst=ends[1],
        state=row["state"] or "",
        start_us=min(begin, row["start_us"]),
        end_us=row["end_us"],
        figures=figures.read(dict(row)),
    )


def _end(peers: Mapping[str, Any], side: str) -> Peer:
    name, namespace, ip = (peers[f"{side}_{part}"] or "" for part in ("name", "namespace", "ip"))
    return Peer(name, namespace, ip, peers[f"{side}_port"] or 0)
