"""Sums over entries: how many, how many failed, octets, latency. For counts, peers, difference."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

import kfl
from kfl.sql.pieces import Piece
from services.query.matched import Column, stored
from services.query.selector import Protocols

_ANY_PROTOCOL = "response.status >= 500 or error.type != nil"

_BY_PROTOCOL = {"dns": 'response.code != "NOERROR"', "grpc": "response.grpcStatus != 0"}
"""What failed in a protocol, by its word. gRPC runs over HTTP, whose status is 200 all the same."""

FAILED = " or ".join(
    [_ANY_PROTOCOL, *(f"{word} and {condition}" for word, condition in _BY_PROTOCOL.items())]
)
"""KFL for the entries that are counted as errors."""

_NAMES = {"dns": "dns", "grpc": "http"}
"""The protocol.name without which there is none of a word's entries."""

QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over entries. Octets; microseconds that so many of QUANTILES did not exceed."""

    entries: int
    errors: int
    request_bytes: int
    response_bytes: int
    latency_us: tuple[int, int, int] | None
    """None when no entry has an elapsed time."""


SUMS = (
    "count(*) AS entries, count(*) FILTER (WHERE failed) AS errors,"
    " coalesce(sum(request_size), 0)::BIGINT AS request_bytes,"
    " coalesce(sum(response_size), 0)::BIGINT AS response_bytes,"
    f" quantile_disc(elapsed_us, [{', '.join(map(str, QUANTILES))}]) AS latency_us"
)
"""SQL for the columns of Figures, over `columns()`."""


def columns(protocols: Protocols) -> list[Column]:
    """Return what SUMS needs."""
    return [*map(stored, ("elapsed_us", "request_size", "response_size")), failed(protocols)]


def failed(protocols: Protocols) -> Column:
    """Return whether an entry is an error."""
    statement = kfl.compile(FAILED)
    return Column(
        "failed",
        pa.bool_(),
        _failed_in_sql(protocols),
        lambda _, rows: pa.array([statement.matches(row) for row in rows], pa.bool_()),
    )


def _failed_in_sql(protocols: Protocols) -> Piece:
    """One condition after the other: a CASE asks no more of a row than it must, unlike an OR."""
    known = protocols()
    parts = [("WHEN {} THEN TRUE", [_ANY_PROTOCOL])]
    for word, condition in _BY_PROTOCOL.items():
        if known is None or _NAMES[word] in known:
            parts.append(("WHEN {} THEN {}", [word, condition]))
    text, values = "", []
    for template, statements in parts:
        found = [kfl.compile(statement).sql(protocols=protocols) for statement in statements]
        text += " " + template.format(*(f"({each.text})" for each in found))
        values += [value for each in found for value in each.parameters]
    return Piece(f"CASE{text} ELSE FALSE END", tuple(values))


def read(row: dict[str, Any]) -> Figures:
    """Return the figures in a row of an answer."""
    latency = row["latency_us"]
    return Figures(
        row["entries"],
        row["errors"],
        row["request_bytes"],
        row["response_bytes"],
        None if latency is None else (latency[0], latency[1], latency[2]),
    )
