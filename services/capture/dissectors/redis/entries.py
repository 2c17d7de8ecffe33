# mypy: ignore-errors
"""Columns and entries of Redis calls, and what the recogniser calls: a Dissector of kernels."""

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.pastcalls import PastCalls
from services.capture.dissectors.redis import values
from services.capture.dissectors.redis.exchange import forget_overwritten
from services.capture.dissectors.redis.framing import frame_segments
from services.capture.dissectors.redis.rows import (
    ANSWER_LOST,
    BROKEN,
    CALL,
    FORGOTTEN,
    IS_OVER,
    NO_ANSWER,
    NO_MESSAGE,
    NO_REQUEST,
    REFUSED,
    Framer,
    new_framer,
)

MOST_PAST = 1 << 16  # calls that are remembered, for when their stream matches late
PROBLEMS = {
    NO_REQUEST: ("pair-not-found", "the command was not seen"),
    NO_ANSWER: ("pair-not-found", "the stream ended before a reply"),
    ANSWER_LOST: ("gap", "the reply was not captured"),
    FORGOTTEN: ("timeout", "more commands followed than are kept"),
}
"""What a call lacks, as an entry's error says it. Pushed messages and those without a reply lack
nothing."""


class RedisCalls:
    """Some calls; good until the framer goes on."""

    protocol_name, protocol_abbr = "redis", "REDIS"

    def __init__(self, framer: Framer, calls: np.ndarray) -> None:
        """Take rows of CALL, whose messages are still kept."""
        self.framer, self.calls = framer, calls
        self.streams, self.request_direction = calls["stream"], calls["direction"]
        self.has_request = calls["request"] != NO_MESSAGE
        self.has_response = calls["response"] != NO_MESSAGE

    def __len__(self) -> int:
        return len(self.calls)

    def _of(self, side: str, field: str) -> np.ndarray:
        """A field of the messages; what it has where there is no message means nothing."""
        return self.framer.messages[field][self.calls[side] & (len(self.framer.messages) - 1)]

    @functools.cached_property
    def start_ns(self) -> np.ndarray:
        """Of the first octet of the first message seen."""
        begun = self._of("request", "first_time"), self._of("response", "first_time")
        return np.where(self.has_request, *begun)

    @functools.cached_property
    def end_ns(self) -> np.ndarray:
        """Of the last octet of the reply, or when it was given up."""
        return np.where(self.has_response, self._of("response", "time"), self.calls["time"])

    @functools.cached_property
    def request_size(self) -> np.ndarray:
        """Octets of the command."""
        return self._of("request", "size")

    @functools.cached_property
    def response_size(self) -> np.ndarray:
        """Octets of the reply."""
        return self._of("response", "size")

    def columns(self) -> Mapping[str, Any]:
        """Return hot columns, or how to make them."""
        return {
            "transport": "tcp",
            "error_type": lambda: self._problems(self.calls)[0],
            "request": lambda: lambda rows: self._texts("request", rows),
            "response": lambda: lambda rows: self._texts("response", rows),
        }

    @staticmethod
    def _problems(calls: np.ndarray) -> tuple[pa.Array, pa.Array]:
        found = [PROBLEMS.get(each, (None, None)) for each in calls["lacks"].tolist()]
        return tuple(pa.array([each[n] for each in found], pa.string()) for n in (0, 1))

    def _octets(self, side: str, rows: np.ndarray) -> list[bytes | None]:
        """What is kept of the messages, None where there is none."""
        arena = self.framer.arena.octets
        begins = (self._of(side, "at")[rows] % len(arena)).tolist()
        lengths = self._of(side, "kept")[rows].tolist()
        present = (self.calls[side][rows] != NO_MESSAGE).tolist()
        return [
            arena[begin : begin + length].tobytes() if is_there else None
            for begin, length, is_there in zip(begins, lengths, present, strict=True)
        ]

    def _texts(self, side: str, rows: np.ndarray) -> pa.StringArray:
        """Return the commands or the replies as JSON."""
        asked = self._octets("request", rows)
        if side == "request":
            shown = [None if each is None else values.command(each) for each in asked]
        else:
            answers = zip(self._octets("response", rows), asked, strict=True)
            shown = [
                None if each is None else values.reply(each, command or b"")
                for each, command in answers
            ]
        texts = [None if each is None else orjson.dumps(each).decode() for each in shown]
        return pa.array(texts, pa.string())

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return the columns of the table of entries that are Redis's own."""
        types, texts = self._problems(self.calls[rows])
        return {
            "error_type": types,
            "error_msg": texts,
            "request": self._texts("request", rows),
            "response": self._texts("response", rows),
        }


class RedisDissector:
    """All Redis streams: see dissector.Dissector."""

    def __init__(self, kind: ProtocolKind, most_flows: int) -> None:  # noqa: ARG002
        self._framer = new_framer(most_flows)
        self._found: list[np.ndarray] = []
        self._past = PastCalls(CALL, MOST_PAST)
        self.refused: list[int] = []
        self.broken: list[int] = []
        self.over: list[int] = []
        self.followed: dict[int, tuple[int, int]] = {}
        self.body_limit = 0  # what commands and replies say is bounded by the framer
        self.overrun = 0
        self.faults: Counter[str] = Counter()

    def take(
        self, segments: np.ndarray, marks: np.ndarray, frames: np.ndarray, held: np.ndarray
    ) -> None:
        """See Dissector.take."""
        row = 0
        totals = self._framer.totals
        while row < len(segments):
            row = frame_segments(self._framer, segments, marks, row, frames, held)
            calls, failed = int(totals["calls"][0]), int(totals["failed"][0])
            if calls:
                self._found.append(self._framer.calls[:calls].copy())
            for stream, what in self._framer.failed[:failed].tolist():
                lists = {REFUSED: self.refused, BROKEN: self.broken, IS_OVER: self.over}
                lists[what].append(stream)

    def take_datagrams(self, packets: np.ndarray, marks: np.ndarray, octets: np.ndarray) -> None:
        """There are none."""

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """Their segments have said so."""

    def calls(self) -> RedisCalls | None:
        """See Dissector.calls."""
        if not self._found:
            return None
        found = np.concatenate(self._found)
        self._found = []
        self.overrun += forget_overwritten(self._framer, found)
        self.overrun += int(self._framer.totals["forgotten"][0])
        self._framer.totals["forgotten"] = 0
        found = found[(found["request"] != NO_MESSAGE) | (found["response"] != NO_MESSAGE)]
        return RedisCalls(self._framer, found) if len(found) else None

    def remember(self, calls: RedisCalls, indexes: np.ndarray) -> None:
        """See Dissector.remember."""
        self._past.add(calls.calls, indexes)

    def earlier(self, numbers: np.ndarray) -> tuple[RedisCalls, np.ndarray] | None:
        """See Dissector.earlier."""
        found, indexes = self._past.of(numbers)
        whole = found.copy()
        forget_overwritten(self._framer, whole)
        is_whole = (whole["request"] == found["request"]) & (whole["response"] == found["response"])
        if not is_whole.any():
            return None
        return RedisCalls(self._framer, found[is_whole]), indexes[is_whole]
