"""Sums over entries: how many, how many failed, octets, latency. For counts, peers, difference."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

import kfl
from kfl.sql.pieces import Piece, parameter, put
from services.query.matched import Column, stored
from services.query.selector import Protocols

_ANY_PROTOCOL = "response.status >= 500 or error.type != nil"


@dataclass(frozen=True, slots=True)
class _Rule:
    """What failed in a protocol: a key of its responses that is not what it is when all is well."""

    word: str
    protocol: str
    """The protocol.name without which there is none of the word's entries."""
    key: str
    well: str
    """In JSON, and in KFL."""

    @property
    def condition(self) -> str:
        return f"response.{self.key} != {self.well}"


_RULES = (
    _Rule("dns", "dns", "code", '"NOERROR"'),
    # It runs over HTTP, whose status is 200 all the same.
    _Rule("grpc", "http", "grpcStatus", "0"),
    _Rule("gql", "http", "gqlErrorCount", "0"),
)

FAILED = " or ".join([_ANY_PROTOCOL, *(f"{rule.word} and {rule.condition}" for rule in _RULES)])
"""KFL for the entries that are counted as errors."""

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
    piece = put("CASE WHEN {} THEN TRUE", _sql(_ANY_PROTOCOL, protocols))
    for rule in _RULES:
        if known is None or rule.protocol in known:
            # Nearly all are as they should be, which one look tells.
            piece = put(
                "{} WHEN {} THEN"
                " CASE coalesce(CAST(TRY(json_extract(response, {})) AS VARCHAR), {})"
                " WHEN {} THEN FALSE ELSE {} END",
                piece,
                _sql(rule.word, protocols),
                parameter(f"$.{rule.key}"),
                parameter(rule.well),
                parameter(rule.well),
                _sql(rule.condition, protocols),
            )
    return put("{} ELSE FALSE END", piece)


def _sql(statement: str, protocols: Protocols) -> Piece:
    found = kfl.compile(statement).sql(protocols=protocols)
    return Piece(found.text, tuple(found.parameters))


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
