# mypy: ignore-errors
"""DNS for the pipeline: messages in, calls out, columns of entries for those that are asked for."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from services.capture.columns import NO_VALUE
from services.capture.dissectors.dns.exchange import (
    CAPTURE_ENDED,
    COPY_ANSWERED,
    CROWDED_OUT,
    EXPIRED,
    NO_QUERY,
    NOTHING,
    STREAM_ENDED,
    give_up_all,
    give_up_before,
    give_up_streams,
    new_done,
    new_queries,
    take_messages,
)
from services.capture.dissectors.dns.records import json_column

SECOND = 1_000_000_000

PATIENCE = 10 * SECOND
"""Nanoseconds for which a query waits: a resolver asks again after 5 s (resolv.conf(5)), so a
response after 10 s finds nobody who still wants it."""

ERROR_TYPES = {
    EXPIRED: "timeout",
    STREAM_ENDED: "timeout",
    CAPTURE_ENDED: "timeout",
    CROWDED_OUT: "timeout",
    NO_QUERY: "pair-not-found",
    COPY_ANSWERED: "pair-not-found",
}
MALFORMED = "malformed"
"""Error of a call whose messages are both there, or need not be, but are cut or damaged."""


@dataclass(frozen=True, slots=True)
class DnsOptions:
    """How much may wait."""

    most_waiting: int = 1 << 16
    """Queries without a response, a power of two; above it the oldest is given up. 6,500 unanswered
    queries in each second of PATIENCE."""
    waiting_octets: int = 1 << 23
    """Octets of their messages, a power of two: 128 for each query."""


class Dns:
    """Takes whole DNS messages, from UDP or from TCP, and pairs them to calls."""

    def __init__(self, options: DnsOptions | None = None):
        """Raises ValueError when a size in `options` is not a power of two."""
        options = options or DnsOptions()
        self._queries = new_queries(options.most_waiting, options.waiting_octets)
        self._done = new_done(0, 0)
        self._given = (0, 0)  # calls and octets that calls() has given away
        self._latest = 0  # ns: the latest time seen

    @property
    def ignored(self) -> int:
        """Messages that were shorter than a DNS header."""
        return int(self._done.used[2])

    def take(
        self,
        octets: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        timestamps: np.ndarray,
        streams: np.ndarray,
        directions: np.ndarray,
        multicast: np.ndarray | None = None,
    ) -> None:
        """Take the messages octets[starts[i]:ends[i]], in the order of the wire.

        octets: uint8, writable, needed during this call only. The others have one element for each
        message: timestamps in ns, directions 0 or 1 of the stream. multicast: bool, whether the
        message is of mDNS or LLMNR (ports 5353, 5355), where queries and responses travel on
        different five-tuples, so that neither misses the other. Raises IndexError when a message
        leaves `octets`.
        """
        if len(starts) == 0:
            return
        sizes = np.asarray(ends, np.int64) - np.asarray(starts, np.int64)
        if multicast is None:
            multicast = np.zeros(len(starts), np.bool_)
        self._forget_given()
        self._make_room(len(starts), int(sizes.sum()))
        take_messages(
            self._queries,
            self._done,
            octets,
            *(
                np.ascontiguousarray(values, np.int64)
                for values in (starts, ends, timestamps, streams, directions)
            ),
            np.ascontiguousarray(multicast, np.bool_),
        )
        self._latest = max(self._latest, int(np.max(timestamps)))

    def end_streams(self, numbers: np.ndarray, timestamp: int) -> None:
        """Those streams are over at `timestamp` (ns): give up their queries."""
        if self._waits():
            self._make_room(0, 0)
            numbers = np.sort(np.ascontiguousarray(numbers, np.int64))
            give_up_streams(self._queries, self._done, numbers, timestamp)

    def expire(self, now_ns: int) -> None:
        """Give up the queries that have waited for longer than PATIENCE."""
        if self._waits():
            self._make_room(0, 0)
            give_up_before(self._queries, self._done, now_ns - PATIENCE, PATIENCE)

    def end(self) -> None:
        """Give up all that wait, as at the end of a capture."""
        if self._waits():
            self._make_room(0, 0)
            give_up_all(self._queries, self._done, self._latest)

    def calls(self) -> "DnsCalls | None":
        """Return the calls that were finished since the last call, good until the next take()."""
        count, octets = int(self._done.used[0]), int(self._done.used[1])
        first = self._given[0]
        self._given = (count, octets)
        if count == first:
            return None
        return DnsCalls(self._done.calls[first:count], self._done.octets)

    def _waits(self) -> bool:
        numbers = self._queries.waiting.numbers
        return bool(numbers[0] < numbers[1])

    def _forget_given(self) -> None:
        """Move what was not given away to the beginning."""
        calls, octets = self._given
        if calls == 0:
            return
        used = self._done.used
        rest = self._done.calls[calls : used[0]].copy()
        for side in ("request", "response"):
            rest[side]["position"] -= np.where(rest[side]["length"] == NO_VALUE, 0, octets)
        self._done.calls[: len(rest)] = rest
        messages = self._done.octets[octets : used[1]].copy()
        self._done.octets[: len(messages)] = messages
        used[:2] = len(rest), len(messages)
        self._given = (0, 0)

    def _make_room(self, messages: int, octets: int) -> None:
        """Grow `done` for so many messages, and for all that wait, should they be given up."""
        numbers = self._queries.waiting.numbers
        calls = int(self._done.used[0] + numbers[1] - numbers[0]) + messages
        octets += int(self._done.used[1])
        if self._waits():
            oldest = self._queries.rows[int(numbers[0]) & (len(self._queries.rows) - 1)]
            octets += int(self._queries.written[0] - oldest["position"])
        if calls > len(self._done.calls) or octets > len(self._done.octets):
            old = self._done
            new = new_done(
                max(2 * calls, len(old.calls)),
                max(2 * octets, len(old.octets)),
            )
            new.calls[: old.used[0]] = old.calls[: old.used[0]]
            new.octets[: old.used[1]] = old.octets[: old.used[1]]
            new.used[:] = old.used
            self._done = new


class DnsCalls:
    """Finished calls: a query with its response, or one of them alone."""

    protocol_name = "dns"
    protocol_abbr = "DNS"

    def __init__(self, calls: np.ndarray, octets: np.ndarray):
        self._calls = calls
        self._octets = octets
        self.streams = np.ascontiguousarray(calls["stream"])
        """int64: number of the stream of each call."""
        self.request_direction = np.ascontiguousarray(calls["direction"])
        """uint8: which direction of the stream asked."""
        self.start_ns = np.ascontiguousarray(calls["start"])
        """int64, nanoseconds since 1970: of the query, else of the response."""
        self.end_ns = np.ascontiguousarray(calls["end"])
        """int64: of the response, or of when it was given up."""
        self.has_request = calls["request"]["length"] != NO_VALUE
        self.has_response = calls["response"]["length"] != NO_VALUE
        self.request_size = np.where(self.has_request, calls["request"]["length"], 0)
        """int64, octets of the DNS message; 0 when there is none."""
        self.response_size = np.where(self.has_response, calls["response"]["length"], 0)

    def __len__(self) -> int:
        return len(self._calls)

    def columns(self) -> dict[str, Callable[[], Any]]:
        """Return how to make each hot column, by its name in the table of entries."""
        return {
            "error_type": self._errors,
            "request": lambda: functools.partial(self._messages, "request"),
            "response": lambda: functools.partial(self._messages, "response"),
        }

    def _errors(self) -> pa.StringArray:
        types = self._error_types(self._calls)
        return pa.array(types, pa.string(), mask=types == "")

    def _messages(self, side: str, rows: np.ndarray) -> pa.StringArray:
        """The JSON text of some messages."""
        return json_column(self._octets, self._calls[side][rows], responses=side == "response")

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return request, response, error_type and error_msg of the chosen rows (int64)."""
        chosen = self._calls[rows]
        types = self._error_types(chosen)
        wrong = np.flatnonzero(types != "")
        errors = pa.nulls(len(chosen), pa.string()), pa.nulls(len(chosen), pa.string())
        if len(wrong):
            messages = np.full(len(chosen), None, object)
            messages[wrong] = [_sentence(call) for call in chosen[wrong]]
            types[types == ""] = None
            errors = pa.array(types, pa.string()), pa.array(messages, pa.string())
        return {
            "request": self._messages("request", rows),
            "response": self._messages("response", rows),
            "error_type": errors[0],
            "error_msg": errors[1],
        }

    @staticmethod
    def _error_types(calls: np.ndarray) -> np.ndarray:
        """Return an object array of str, "" for a call without an error."""
        types = np.full(len(calls), "", object)
        types[_is_cut(calls, "request") | _is_cut(calls, "response")] = MALFORMED
        lacks = calls["lacks"]
        if lacks.any():
            for reason, name in ERROR_TYPES.items():
                types[lacks == reason] = name
        return types


def _is_cut(calls: np.ndarray, side: str) -> np.ndarray:
    return calls[f"{side}_read"] < calls[f"{side}_declared"]


def _sentence(call: np.record) -> str:
    """Say what is wrong with a call."""
    waited = f"{(call['end'] - call['start']) / SECOND:.3f} s after the query"
    sentences = {
        NOTHING: "",
        EXPIRED: f"No response came within {PATIENCE // SECOND} s.",
        STREAM_ENDED: f"No response came before the stream ended, {waited}.",
        CAPTURE_ENDED: f"No response came before the capture ended, {waited}.",
        CROWDED_OUT: f"No response came before too many other queries waited, {waited}.",
        COPY_ANSWERED: "The same query, sent before, had the answer.",
        NO_QUERY: "The query that this response answers was not seen.",
    }
    found = [sentences[int(call["lacks"])]]
    for side in ("request", "response"):
        if call[f"{side}_read"] < call[f"{side}_declared"]:
            found.append(
                f"The {side} is cut or damaged: {call[f'{side}_read']} of the "
                f"{call[f'{side}_declared']} questions and records that its header promises "
                "could be read."
            )
    return " ".join(sentence for sentence in found if sentence)
