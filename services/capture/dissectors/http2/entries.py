# mypy: ignore-errors
"""Columns and entries of HTTP/2 calls, some of which are gRPC's, and what the recogniser calls: a
Dissector of kernels.
"""

import functools
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from services.capture.columns import new_spans, text_column
from services.capture.dissectors import graphql
from services.capture.dissectors.conversation import LARGEST_BODY
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.http1.handover import Asked
from services.capture.dissectors.http2 import fields, upgrade
from services.capture.dissectors.http2.exchange import (
    GRPC,
    VERSION,
    VERSION_NUMBER,
    Half,
    Http2Exchange,
    error_name,
    request_of,
    response_of,
    tell_graphql,
    with_one_cookie,
)
from services.capture.dissectors.http2.framing import take_segments
from services.capture.dissectors.http2.rows import (
    ANSWER_LOST,
    BODY,
    BUFFER,
    FIELDS,
    GIVEN_UP,
    HALF,
    LEFT_BY_CLIENT,
    LEFT_BY_SERVER,
    NO_ANSWER,
    NO_END,
    NO_REQUEST,
    NOTHING,
    OF_HALF,
    REFUSED,
    REQUEST_CUT,
    RESET_BY_CLIENT,
    RESET_BY_SERVER,
    RESPONSE_CUT,
    SIZES,
    STREAM,
    TRAILERS,
    Connections,
    new_connections,
)
from services.capture.dissectors.objectcalls import ObjectCalls

MOST_CALLS = 1 << 17  # of one batch: what is more is lost, and counted
MOST_UPGRADED = 1 << 10  # streams that HTTP/1 was upgraded in, and that have not begun
MOST_PAST = 1 << 15  # calls that are remembered, for when their stream matches late
RESET = "the {} reset the stream: {}"
LEFT = "the {} went away before it took this: {}"
PROBLEMS = {
    NOTHING: (None, None),
    RESET_BY_CLIENT: ("reset", RESET),
    RESET_BY_SERVER: ("reset", RESET),
    LEFT_BY_CLIENT: ("reset", LEFT),
    LEFT_BY_SERVER: ("reset", LEFT),
    NO_REQUEST: ("pair-not-found", "the request was not seen"),
    ANSWER_LOST: ("gap", "the answer was not captured"),
    REQUEST_CUT: ("gap", "the request was not captured whole"),
    RESPONSE_CUT: ("gap", "the response was not captured whole"),
    NO_ANSWER: ("pair-not-found", "the stream ended before an answer"),
    NO_END: ("pair-not-found", "the stream ended before the answer did"),
    GIVEN_UP: ("timeout", "its end was not seen, and more streams followed than are kept"),
}
"""What a call lacks, as an entry's error says it."""
TYPES = pa.array([PROBLEMS[each][0] for each in range(len(PROBLEMS))], pa.string())
ABBRS = pa.array([VERSION, GRPC], pa.string())
NAMES = frozenset({VERSION, GRPC, graphql.ABBR})
SIDES = {"request": 0, "response": 1}


class Told(NamedTuple):
    """Streams that were told of."""

    streams: np.ndarray  # STREAM
    halves: np.ndarray  # HALF, (streams, 2): that of the side that asks, and the other one
    buffers: np.ndarray  # BUFFER, (streams, 2, OF_HALF): theirs

    def of(self, rows) -> "Told":
        """Return some of them."""
        return Told(*(each[rows] for each in self))


def nothing_told(rows: int) -> Told:
    """Return rows to be filled."""
    return Told(
        np.zeros(rows, STREAM), np.zeros((rows, 2), HALF), np.zeros((rows, 2, OF_HALF), BUFFER)
    )


class Http2Calls:
    """Some calls; good until the dissector goes on."""

    protocol_name, protocol_abbr = "http", VERSION

    def __init__(self, state: Connections, told: Told) -> None:
        """Take streams whose octets are still kept."""
        self.state, self.told = state, told
        streams = told.streams
        self.streams, self.request_direction = streams["packets"], streams["direction"]
        self.start_ns, self.end_ns = streams["start"], streams["end"]
        self.has_request = streams["has_request"].astype(np.bool_)
        self.has_response = streams["has_response"].astype(np.bool_)
        self.request_size, self.response_size = told.halves["frames_size"].T

    def __len__(self) -> int:
        return len(self.told.streams)

    # ---------------------------------------------------------------------------- hot columns

    def columns(self) -> Mapping[str, Any]:
        """Return hot columns, or how to make them."""
        return {
            "transport": "tcp",
            "protocol_abbr": self._abbrs,
            "protocol_abbrs": NAMES,
            "protocol_version": VERSION_NUMBER,
            "error_type": lambda: TYPES.take(pa.array(self.told.streams["lacks"])),
            "request_method": lambda: self._text("method"),
            "request_url": lambda: self._urls,
            "request_path": lambda: pc.list_element(
                pc.split_pattern(self._urls, "?", max_splits=1), 0
            ),
            "response_status": lambda: np.where(
                self.has_response, self.told.halves["status"][:, 1], -1
            ).astype(np.int32),
            "request_headers": lambda name: self._header("request", name),
            "response_headers": lambda name: self._header("response", name),
            "request_body": lambda: lambda rows: self._bodies("request", rows),
            "response_body": lambda: lambda rows: self._bodies("response", rows),
        }

    def _abbrs(self) -> pa.Array:
        found = ABBRS.take(pa.array(self.told.streams["is_call"]))
        rows = [row for row in self._may_be_graphql() if self.exchange(row).abbr == graphql.ABBR]
        if not rows:
            return found
        names = found.to_pylist()
        for row in rows:
            names[row] = graphql.ABBR
        return pa.array(names, pa.string())

    def _may_be_graphql(self) -> list[int]:
        """Rows whose heads let them be GraphQL."""
        kinds = pc.utf8_lower(pc.utf8_ltrim_whitespace(self._header("request", "content-type")))
        may = pc.match_substring(self._urls, graphql.IN_TARGET).fill_null(False)
        for kind in graphql.KINDS:
            may = pc.or_(may, pc.starts_with(kinds, kind).fill_null(False))
        may = may.to_numpy(zero_copy_only=False) & self.has_request
        return np.flatnonzero(may & (self.told.streams["is_call"] == 0)).tolist()

    def _lists(self, side: str) -> np.ndarray:
        """The spans of the lists of fields."""
        buffers = self.told.buffers[:, SIDES[side], FIELDS]
        spans = new_spans(len(self))
        spans["position"] = buffers["at"] % len(self.state.arena.octets)
        spans["length"] = buffers["kept"]
        return spans

    def _text(self, name: str) -> pa.Array:
        """A hot field of requests."""
        spans = self._lists("request")
        asking = self.told.halves[:, 0]
        spans["position"] += asking[f"{name}_at"]
        spans["length"] = asking[name]
        return text_column(self.state.arena.octets, spans)

    @functools.cached_property
    def _urls(self) -> pa.Array:
        """Targets; CONNECT has none, but an authority."""
        paths = self._text("path")
        if paths.null_count == 0:
            return paths
        is_connect = pc.equal(self._text("method"), "CONNECT")
        authorities = pc.if_else(is_connect, self._text("authority"), pa.scalar(None, pa.string()))
        return pc.coalesce(paths, authorities)

    def _header(self, side: str, name: str) -> pa.Array:
        """The value of a header (lower case); several as one, as an entry shows them."""
        octets, lists = self.state.arena.octets, self._lists(side)
        spans, counts = new_spans(len(self)), np.zeros(len(self), np.int64)
        wanted = np.frombuffer(bytearray(name.encode()), np.uint8)
        fields.find_values(octets, lists, wanted, spans, counts)
        texts = text_column(octets, spans)
        several = np.flatnonzero(counts > 1)
        if not len(several):
            return texts
        found = texts.to_pylist()
        for row in several.tolist():
            pairs = with_one_cookie(fields.pairs(self._octets(row, SIDES[side], FIELDS)))
            found[row] = ", ".join(value for each, value in pairs if each.lower() == name)
        return pa.array(found, pa.string())

    def _bodies(self, side: str, rows: np.ndarray) -> pa.Array:
        there = self.has_request if side == "request" else self.has_response
        limit = int(self.state.totals["body_limit"][0])
        there = there & (limit > 0)
        calls = self.told.streams["is_call"]
        texts = [
            self._half(row, SIDES[side]).shown_body(bool(calls[row]), limit)[0]
            if there[row] else None
            for row in rows.tolist()
        ]  # fmt: skip
        return pa.array(texts, pa.string())

    # -------------------------------------------------------------------------------- entries

    def _octets(self, row: int, side: int, which: int) -> bytes:
        buffer, arena = self.told.buffers[row, side, which], self.state.arena.octets
        begin = int(buffer["at"]) % len(arena)
        return arena[begin : begin + int(buffer["kept"])].tobytes()

    def _half(self, row: int, side: int) -> Half:
        half = self.told.halves[row, side]
        return Half(
            headers=fields.pairs(self._octets(row, side, FIELDS)),
            trailers=fields.pairs(self._octets(row, side, TRAILERS)),
            headers_size=int(half["headers_size"]),
            body=self._octets(row, side, BODY),
            body_size=int(half["body_size"]),
            is_body_cut=bool(half["body_cut"]),
            message_count=int(half["messages"]),
            compressed=int(half["compressed"]),
            sizes=self._octets(row, side, SIZES),
        )

    def exchange(self, row: int) -> Http2Exchange:
        """Return what a stream was."""
        stream = self.told.streams[row]
        number, call = int(stream["number"]), bool(stream["is_call"])
        limit = int(self.state.totals["body_limit"][0])
        abbr = GRPC if call else VERSION
        asking, answering = self._half(row, 0), self._half(row, 1)
        request = response = None
        if stream["has_request"]:
            request = request_of(asking, number, call, bool(stream["pushed"]), limit)
        if stream["has_response"]:
            response = response_of(answering, number, call, limit)
        if request is not None and not call and tell_graphql(asking, answering, request, response):
            abbr = graphql.ABBR
        kind, sentence = PROBLEMS[int(stream["lacks"])]
        if kind == "reset":
            by_client = int(stream["lacks"]) in (RESET_BY_CLIENT, LEFT_BY_CLIENT)
            who = "client" if by_client else "server"
            sentence = sentence.format(who, error_name(int(stream["code"])))
        return Http2Exchange(
            int(stream["start"]), int(stream["end"]), request, response,
            int(self.request_size[row]), int(self.response_size[row]), int(stream["client"]),
            kind, sentence, VERSION_NUMBER, abbr=abbr,
        )  # fmt: skip

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return the columns of the table of entries that are HTTP's, for the chosen rows."""
        exchanges = [self.exchange(row) for row in rows.tolist()]
        chosen = ObjectCalls(
            self.protocol_name, self.protocol_abbr, exchanges,
            self.streams[rows], self.request_direction[rows],
        )  # fmt: skip
        abbrs = pa.array([each.abbr for each in exchanges], pa.string())
        return chosen.details(np.arange(len(rows))) | {"protocol_abbr": abbrs}


class Http2Dissector:
    """All connections: see dissector.Dissector."""

    def __init__(self, kind: ProtocolKind, most_flows: int) -> None:  # noqa: ARG002
        self._state = new_connections(most_flows)
        self._found: list[Told] = []
        self._count = 0
        self._past: Told | None = None  # a ring, made when the first calls come
        self._past_indexes = np.zeros(MOST_PAST, np.int32)
        self._remembered = 0
        self.refused: list[int] = []
        self.broken: list[int] = []
        self.over: list[int] = []
        self.followed: dict[int, tuple[int, int]] = {}
        self._upgraded: dict[int, tuple[int, Asked | None]] = {}
        self.overrun = 0
        self.faults: Counter[str] = Counter()

    def take(
        self, segments: np.ndarray, marks: np.ndarray, frames: np.ndarray, held: np.ndarray
    ) -> None:
        """See Dissector.take."""
        if self._upgraded:
            self._begin_upgraded(segments)
        self._take(segments, marks, frames, held)

    def _take(
        self, segments: np.ndarray, marks: np.ndarray, frames: np.ndarray, held: np.ndarray
    ) -> None:
        row = 0
        totals = self._state.totals
        while row < len(segments):
            row = take_segments(self._state, segments, marks, row, frames, held)
            finished, failed = int(totals["finished"][0]), int(totals["failed"][0])
            if finished:
                self._tell(self._state.finished[:finished])
            for stream, what in self._state.failed[:failed].tolist():
                (self.refused if what == REFUSED else self.broken).append(stream)
        self.overrun += int(totals["lost"][0])
        totals["lost"] = 0

    @property
    def body_limit(self) -> int:
        """See Dissector.body_limit."""
        return int(self._state.totals["body_limit"][0])

    @body_limit.setter
    def body_limit(self, octets: int) -> None:
        self._state.totals["body_limit"] = min(octets, LARGEST_BODY)

    def take_over(self, number: int, direction: int, about: Asked | None) -> bool:
        """Begin in a stream behind HTTP/1; return whether there is room. direction: of the client;
        about: the request that asked for it, if it was seen.
        """
        if len(self._upgraded) >= MOST_UPGRADED:
            return False
        self._upgraded[number] = direction, about
        return True

    def _begin_upgraded(self, segments: np.ndarray) -> None:
        """Let the connections begin whose first segments are among these."""
        streams, rows = np.unique(segments["stream"], return_index=True)
        flows = dict(
            zip(streams.tolist(), (segments["direction"][rows] >> 1).tolist(), strict=True)
        )
        for number in self._upgraded.keys() & flows.keys():
            direction, asked = self._upgraded.pop(number)
            flow = flows[number]
            octets = upgrade.frames_of(asked) if asked else b""
            parts = np.zeros(0, np.uint8), np.frombuffer(bytearray(octets), np.uint8)
            for part in parts:
                row = upgrade.segment_of(
                    number, 2 * flow + direction, len(part), asked.begin_ns if asked else 0
                )
                self._take(row, np.zeros(1, np.uint8), part, part)
                upgrade.begin(self._state, flow)
            upgrade.end(self._state, flow, asked)

    def _tell(self, slots: np.ndarray) -> None:
        """Take streams out of the state before their rows are others'."""
        self.overrun += max(0, self._count + len(slots) - MOST_CALLS)
        slots = slots[: MOST_CALLS - self._count]
        self._count += len(slots)
        streams = self._state.streams[slots]
        order = np.stack([streams["client"], streams["client"] ^ 1], axis=1)
        halves = 2 * slots[:, None] + order
        buffers = OF_HALF * halves[..., None] + np.arange(OF_HALF)
        self._found.append(Told(streams, self._state.halves[halves], self._state.buffers[buffers]))

    def take_datagrams(self, packets: np.ndarray, marks: np.ndarray, octets: np.ndarray) -> None:
        """There are none."""

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """Their segments have said so."""

    def _are_kept(self, told: Told) -> np.ndarray:
        """Whether all octets of each are still in the arena."""
        oldest = self._state.arena.write[0] - len(self._state.arena.octets)
        gone = (told.buffers["kept"] > 0) & (told.buffers["at"] < oldest)
        return ~gone.any(axis=(1, 2))

    def calls(self) -> Http2Calls | None:
        """See Dissector.calls."""
        if not self._found:
            return None
        told = Told(*(np.concatenate(parts) for parts in zip(*self._found, strict=True)))
        self._found, self._count = [], 0
        kept = self._are_kept(told)
        if not kept.all():
            self.overrun += int((~kept).sum())
            told = told.of(kept)
        return Http2Calls(self._state, told) if len(told.streams) else None

    def remember(self, calls: Http2Calls, indexes: np.ndarray) -> None:
        """See Dissector.remember."""
        if self._past is None:
            self._past = nothing_told(MOST_PAST)
        kept, indexes = calls.told.of(slice(-MOST_PAST, None)), indexes[-MOST_PAST:]
        where = (self._remembered + np.arange(len(indexes))) % MOST_PAST
        for past, new in zip(self._past, kept, strict=True):
            past[where] = new
        self._past_indexes[where] = indexes
        self._remembered += len(indexes)

    def earlier(self, numbers: np.ndarray) -> tuple[Http2Calls, np.ndarray] | None:
        """See Dissector.earlier."""
        if self._past is None:
            return None
        order = np.arange(max(0, self._remembered - MOST_PAST), self._remembered) % MOST_PAST
        chosen = order[np.isin(self._past.streams["packets"][order], numbers)]
        found = self._past.of(chosen)
        kept = self._are_kept(found)
        if not kept.any():
            return None
        return Http2Calls(self._state, found.of(kept)), self._past_indexes[chosen[kept]]
