# mypy: ignore-errors
"""Columns of HTTP/1 calls: the hot ones at once, the others for the rows that are asked for."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.capture.columns import (
    NO_VALUE,
    list_column,
    new_spans,
    number_column,
    text_column,
)
from services.capture.dissectors import graphql
from services.capture.dissectors.http1 import headers as heads_of
from services.capture.dissectors.http1.bodies import BodyColumns, body_columns
from services.capture.dissectors.http1.queries import abbrs, columns_of_graphql
from services.capture.dissectors.http1.rows import (
    ANSWER_LOST,
    COMPLETE,
    NO_ANSWER,
    NO_MESSAGE,
    NO_REQUEST,
    REQUEST_FORGOTTEN,
    TIMED_OUT,
    Framer,
)

SHORTEST_HEADER_LINE = 2  # ":\n", a name may be empty: an upper bound of lines from octets

_KEYS = {"httpVersion", "headersSize", "bodySize", "body", "bodyEncoding", "bodyTruncated"}
REQUEST_KEYS = frozenset(
    {"method", "url", "path", "headers", "cookies", "pathSegments", "queryString"}
    | _KEYS
    | graphql.REQUEST_KEYS
)
RESPONSE_KEYS = frozenset(
    {"status", "statusText", "headers", "cookies"} | _KEYS | graphql.RESPONSE_KEYS
)
"""What an entry's request and response can have; a filter on anything else finds nothing."""

ABBRS = frozenset({"HTTP", graphql.ABBR})

PROBLEMS = {
    NO_REQUEST: ("pair-not-found", "the request was not seen"),
    NO_ANSWER: ("pair-not-found", "the stream ended before an answer"),
    ANSWER_LOST: ("gap", "the answer was not captured"),
    REQUEST_FORGOTTEN: ("timeout", "the answer came after the request had been given up"),
    TIMED_OUT: ("timeout", "no answer was seen"),
}
"""What a call lacks, as an entry's error says it."""


class Side:
    """The requests, or the responses, of some calls: arrays of the same length as the calls."""

    def __init__(self, framer: Framer, numbers: np.ndarray, are_responses: bool):
        self.framer = framer
        self.are_responses = are_responses
        self.present = numbers != NO_MESSAGE
        self._rows = numbers & (len(framer.messages) - 1)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, name: str) -> np.ndarray:
        """A field of the messages; what it has where there is no message means nothing."""
        # One field at a time: few filters ask for more than one of all calls.
        return self.framer.messages[name][self._rows]

    @functools.cached_property
    def octets(self) -> np.ndarray:
        return self.framer.arena.octets

    @functools.cached_property
    def heads(self) -> np.ndarray:
        spans = new_spans(len(self))
        spans["position"] = self["head"] % len(self.octets)
        spans["length"] = np.where(self.present, self["length"], NO_VALUE)
        return spans

    @functools.cached_property
    def lines(self) -> np.ndarray:
        lines = heads_of.new_start_lines(len(self.heads))
        heads_of.read_start_lines(self.octets, self.heads, self.are_responses, lines)
        return lines

    @functools.cached_property
    def headers(self) -> tuple[np.ndarray, np.ndarray]:
        """(header rows, offsets of those of each message)."""
        present = np.maximum(self.heads["length"], 0)
        rows = heads_of.new_headers(int(present.sum()) // SHORTEST_HEADER_LINE + len(self.heads))
        offsets = np.empty(len(self.heads) + 1, np.int32)
        count = heads_of.index_headers(self.octets, self.heads, rows, offsets)
        return rows[:count], offsets

    def header_list(self) -> pa.Array:
        """The headers as on the wire, list<struct<name, value>>."""
        rows, offsets = self.headers
        name = text_column(self.octets, rows["name"])
        value = text_column(self.octets, rows["value"])
        return list_column(
            offsets, pa.StructArray.from_arrays([name, value], ["name", "value"]), self.present
        )

    def header(self, name: str) -> pa.Array:
        """The value of header `name` (lower case); several as one, as an entry shows them."""
        values, is_repeated = new_spans(len(self.heads)), np.zeros(len(self.heads), np.bool_)
        wanted = np.frombuffer(bytearray(name.encode()), np.uint8)
        headers, offsets = self.headers
        heads_of.find_header(self.octets, headers, wanted, values, is_repeated)
        texts = text_column(self.octets, values)
        if not is_repeated.any():
            return texts
        found = texts.to_pylist()
        for row in np.flatnonzero(is_repeated):
            mine = headers[offsets[row] : offsets[row + 1]]
            names = text_column(self.octets, mine["name"]).to_pylist()
            given = zip(names, text_column(self.octets, mine["value"]).to_pylist(), strict=True)
            found[row] = ", ".join(value for each, value in given if each.lower() == name)
        return pa.array(found, pa.string())

    def text(self, field: str) -> pa.Array:
        return text_column(self.octets, self.lines[field])

    def number(self, name: str) -> pa.Array:
        return number_column(self[name].astype(np.int64), self.present)

    def details(self, side: str, body_limit: int) -> dict[str, pa.Array]:
        """The columns that a request and a response both have."""
        columns = {
            f"{side}_http_version": self.text("version"),
            f"{side}_headers": self.header_list(),
            f"{side}_headers_size": self.number("length"),
            f"{side}_body_size": self.number("body_octets"),
        }
        if body_limit:
            found = self.bodies(body_limit)
            columns[f"{side}_body"] = found.body
            columns[f"{side}_body_base64"] = found.is_base64
            columns[f"{side}_body_truncated"] = found.truncated
        return columns

    def bodies(self, limit: int) -> BodyColumns:
        """The bodies, of at most `limit` octets each."""
        return body_columns(
            self.framer.pieces,
            self.framer.arena,
            self["first_piece"],
            self["body_octets"],
            self.header("content-encoding").to_pylist(),
            self.present,
            limit,
        )


class Http1Calls:
    """Some HTTP/1 calls; good until the framer goes on."""

    protocol_name, protocol_abbr = "http", "HTTP"

    def __init__(self, framer: Framer, calls: np.ndarray):
        self.framer = framer
        self.calls = calls
        self.streams = calls["stream"]
        self.request_direction = (calls["direction"] & 1).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.calls)

    @functools.cached_property
    def request(self) -> Side:
        return Side(self.framer, self.calls["request"], are_responses=False)

    @functools.cached_property
    def response(self) -> Side:
        return Side(self.framer, self.calls["response"], are_responses=True)

    @property
    def has_request(self) -> np.ndarray:
        return self.request.present

    @property
    def has_response(self) -> np.ndarray:
        return self.response.present

    @property
    def start_ns(self) -> np.ndarray:
        """Nanoseconds since 1970 of the first octet of the first message seen."""
        return np.where(
            self.has_request, self.request["first_timestamp"], self.response["first_timestamp"]
        )

    @property
    def end_ns(self) -> np.ndarray:
        return np.where(self.has_response, self.response["end_timestamp"], self.calls["timestamp"])

    @property
    def request_size(self) -> np.ndarray:
        return self.request["length"] + self.request["body_octets"]

    @property
    def response_size(self) -> np.ndarray:
        return self.response["length"] + self.response["body_octets"]

    def columns(self) -> dict[str, Any]:
        """Hot columns, or how to make them, named as in the table of entries."""
        request, response = self.request, self.response
        return {
            "protocol_abbr": lambda: abbrs(self),
            "protocol_abbrs": ABBRS,
            "protocol_version": lambda: _version(request.text("version"), response.text("version")),
            "transport": "tcp",
            "request_method": lambda: request.text("method"),
            "request_url": lambda: request.text("target"),
            "request_path": lambda: request.text("path"),
            "response_status": lambda: np.where(
                response.present, response["status"].astype(np.int32), np.int32(-1)
            ),
            "request_headers": request.header,
            "response_headers": response.header,
            "request_body": lambda: self._bodies("request"),
            "response_body": lambda: self._bodies("response"),
            "error_type": lambda: pa.array(self.problems()[0], pa.string()),
            "request_keys": REQUEST_KEYS,
            "response_keys": RESPONSE_KEYS,
        }

    def chosen(self, rows: np.ndarray) -> "Http1Calls":
        """Return some of them (int64)."""
        return Http1Calls(self.framer, self.calls[rows])

    def _bodies(self, side: str) -> Callable[[np.ndarray], pa.Array] | None:
        limit = int(self.framer.totals["body_limit"][0])
        if not limit:
            return None
        return lambda rows: getattr(self.chosen(rows), side).bodies(limit).body

    def problems(self) -> tuple[list[str | None], list[str | None]]:
        """(error_type, error_msg) of each call."""
        types: list[str | None] = [None] * len(self)
        messages: list[str | None] = [None] * len(self)
        lacks = self.calls["lacks"]
        for row in np.flatnonzero(lacks):
            types[row], messages[row] = PROBLEMS[int(lacks[row])]
        for name, side in (("request", self.request), ("response", self.response)):
            cut = (side["outcome"] != COMPLETE) | (side["missing_octets"] > 0)
            for row in np.flatnonzero(side.present & cut):
                if types[row] is None:
                    types[row], messages[row] = "gap", f"the {name} was not captured whole"
        return types, messages

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """The columns of the table of entries that are HTTP's, for the chosen rows."""
        chosen = self.chosen(rows)
        request, response = chosen.request, chosen.response
        limit = int(self.framer.totals["body_limit"][0])
        types, messages = chosen.problems()
        asked, answered = request.details("request", limit), response.details("response", limit)
        columns = {
            "protocol_version": _version(
                asked["request_http_version"], answered["response_http_version"]
            ),
            "request_method": request.text("method"),
            "request_url": request.text("target"),
            "request_path": request.text("path"),
            **asked,
            "response_status": number_column(response["status"].astype(np.int32), response.present),
            "response_status_text": response.text("reason"),
            **answered,
            "error_type": pa.array(types, pa.string()),
            "error_msg": pa.array(messages, pa.string()),
        }
        return columns | columns_of_graphql(chosen, columns)


# Typed: for a Python value Arrow would look for pandas each time.
_NAMELESS = pa.scalar("HTTP/", pa.string())
_EMPTY, _NULL = pa.scalar("", pa.string()), pa.scalar(None, pa.string())


def _version(mine: pa.Array, other: pa.Array) -> pa.Array:
    """The version of each call, "1.1": as the request has it, or else the response, or ""."""
    first, second = (pc.if_else(pc.equal(each, _EMPTY), _NULL, each) for each in (mine, other))
    return pc.utf8_slice_codeunits(pc.coalesce(first, second, _NAMELESS), len("HTTP/"))
