# mypy: ignore-errors
"""Which HTTP/1 calls are GraphQL, and what their entries say of it. `entries` asks.

Heads leave few calls that could be; only the bodies of these are looked at.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.capture.dissectors import graphql
from services.capture.dissectors.http1.exchange import SWITCHING_PROTOCOLS
from services.capture.dissectors.objectcalls import dumped

Bodies = tuple[list[str | None], list[bool], list[bool]]
"""Of some requests: the text, whether it is base64, and whether it was cut."""


def abbrs(calls) -> pa.StringArray:
    """Return the abbreviation of the protocol of each call."""
    limit = int(calls.framer.totals["body_limit"][0])

    def bodies(rows: np.ndarray) -> Bodies:
        found = calls.chosen(rows).request.bodies(limit)
        return tuple(column.to_pylist() for column in found)

    targets = calls.request.text("target")
    return _abbrs(calls, _asked(calls, targets, bodies if limit else None))


def columns_of_graphql(calls, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Return the columns of entries that are other ones where some are GraphQL; columns: those that
    all have as HTTP.
    """
    names = ("request_body", "request_body_base64", "request_body_truncated")

    def bodies(rows: np.ndarray) -> Bodies:
        return tuple(columns[name].take(pa.array(rows)).to_pylist() for name in names)

    has_bodies = "request_body" in columns
    asked = _asked(calls, columns["request_url"], bodies if has_bodies else None)
    if not asked:
        return {}
    rows = np.array(list(asked), np.int64)
    kinds = calls.chosen(rows).response.header("content-type").to_pylist()
    answers = {}
    if has_bodies:
        texts = columns["response_body"].take(pa.array(rows)).to_pylist()
        for row, kind, text in zip(asked, kinds, texts, strict=True):
            answers[row] = graphql.told_response(kind, text)
    return {
        "protocol_abbr": _abbrs(calls, asked),
        **{
            side: pa.array([dumped(of[n]) if of.get(n) else None for n in range(len(calls))])
            for side, of in (("request", asked), ("response", answers)) if any(of.values())
        },
    }  # fmt: skip


def _abbrs(calls, asked: dict[int, dict[str, Any]]) -> pa.StringArray:
    names = [calls.protocol_abbr] * len(calls)
    for row in asked:
        names[row] = graphql.ABBR
    return pa.array(names, pa.string())


def _asked(
    calls, targets: pa.StringArray, bodies: Callable[[np.ndarray], Bodies] | None
) -> dict[int, dict[str, Any]]:
    """Return what the requests say of GraphQL, by row. bodies: None where none is kept."""
    request = calls.request
    in_target = pc.fill_null(pc.match_substring(targets, graphql.IN_TARGET), False)
    may = request.present & (
        (request["body_octets"] > 0) | in_target.to_numpy(zero_copy_only=False)
    )
    # After an upgrade to HTTP/2 its stream 1 is what the request has asked.
    may &= ~(calls.response.present & (calls.response["status"] == SWITCHING_PROTOCOLS))
    rows = np.flatnonzero(may)
    if not len(rows):
        return {}
    urls = [each or "" for each in targets.take(pa.array(rows)).to_pylist()]
    kinds = calls.chosen(rows).request.header("content-type").to_pylist()
    may = [graphql.may_ask(kind, url) for kind, url in zip(kinds, urls, strict=True)]
    rows = rows[may]
    if not len(rows):
        return {}
    heads = [pair for pair, each in zip(zip(kinds, urls, strict=True), may, strict=True) if each]
    none = [None] * len(rows), [False] * len(rows), [False] * len(rows)
    found = zip(rows.tolist(), heads, *(bodies(rows) if bodies else none), strict=True)
    told = {
        row: graphql.told_request(kind, url, None if is_base64 else text, bool(is_cut))
        for row, (kind, url), text, is_base64, is_cut in found
    }
    return {row: said for row, said in told.items() if said}
