# mypy: ignore-errors
"""Columns and entries of TLS handshakes, and what the recogniser calls: a Dissector of kernels.

JSON, fingerprints and certificates are made of the octets that the kernels kept, and only for the
rows that are asked for.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from services.capture.columns import NO_VALUE, binary_column, new_spans, number_column
from services.capture.dissectors.conversation import count_fault
from services.capture.dissectors.dissector import ProtocolKind
from services.capture.dissectors.objectcalls import dumped
from services.capture.dissectors.pastcalls import PastCalls
from services.capture.dissectors.tls.certificates import chain
from services.capture.dissectors.tls.ciphersuites import cipher_suite
from services.capture.dissectors.tls.framing import frame_segments
from services.capture.dissectors.tls.hello import (
    LONGEST_NAME,
    client_hello,
    old_client_hello,
    server_hello,
    text,
)
from services.capture.dissectors.tls.names import alert, version
from services.capture.dissectors.tls.rows import (
    ANSWER_LOST,
    BROKEN,
    CALL,
    CLIENT_ENDED,
    FORGOTTEN,
    IS_OVER,
    IS_RESUMED,
    MALFORMED,
    NO_ANSWER,
    NO_HELLO,
    NO_REQUEST,
    NOT_SAID,
    OLD,
    OLD_ANSWER,
    REFUSED,
    REQUEST_CUT,
    RESPONSE_CUT,
    SERVER_ENDED,
    WHOLE,
    Framer,
    forget_overwritten,
    new_framer,
)
from services.capture.dissectors.tls.wire import ANSWER_UNSEEN, REQUEST_UNSEEN

MOST_PAST = 1 << 15  # handshakes that are remembered, for when their stream matches late
PROBLEMS = {
    NO_REQUEST: REQUEST_UNSEEN,
    NO_ANSWER: ANSWER_UNSEEN,
    ANSWER_LOST: ("gap", "the answer was not captured"),
    REQUEST_CUT: ("gap", "the request was not captured whole"),
    RESPONSE_CUT: ("gap", "the response was not captured whole"),
    MALFORMED: ("malformed", "the ClientHello announces more than it has"),
    CLIENT_ENDED: ("alert", "the client ended the handshake: {} ({})"),
    SERVER_ENDED: ("alert", "the server ended the handshake: {} ({})"),
    FORGOTTEN: ("timeout", "more handshakes followed than are kept"),
}
"""What a handshake lacks, as an entry's error says it."""

Json = dict[str, Any]


class TlsCalls:
    """Some handshakes; good until the framer goes on."""

    protocol_name, protocol_abbr = "tls", "TLS"

    def __init__(self, framer: Framer, calls: np.ndarray, faults: Counter[str]) -> None:
        """Take rows of CALL, whose octets are still kept. faults: as a Dissector has them."""
        self._octets, self._faults = framer.arena.octets, faults
        self.calls = calls
        self.streams, self.request_direction = calls["stream"], calls["direction"]
        self.start_ns, self.end_ns = calls["start"], calls["end"]
        self.request_size, self.response_size = calls["request_size"], calls["response_size"]
        self.has_request = calls["request"]["is_there"] != 0
        self.has_response = calls["response"]["is_there"] != 0

    def __len__(self) -> int:
        return len(self.calls)

    def columns(self) -> Mapping[str, Any]:
        """Return hot columns, or how to make them."""
        return {
            "transport": "tcp",
            "protocol_version": lambda: self._versions(np.arange(len(self))),
            "error_type": lambda: self._problems(self.calls)[0],
            "request.sni": lambda: self._names("request"),
            "response.alpn": lambda: self._names("response"),
            "response.version": lambda: self._numbers("version", version),
            "response.cipherSuite": lambda: self._numbers("suite", cipher_suite),
            "request": lambda: lambda rows: self._texts("request", _request, rows),
            "response": lambda: lambda rows: self._texts("response", _response, rows),
        }

    def _names(self, side: str) -> pa.StringArray:
        """Return the server's name that was asked for, or the protocol that was chosen."""
        told = self.calls[side]
        has_hello = (told["is_there"] != 0) & (told["hello"] != NO_HELLO)
        spans = new_spans(len(told))
        spans["position"] = told["hello_at"] % len(self._octets) + told["name_at"]
        is_named = has_hello & (told["name_length"] > 0)
        lengths = np.minimum(told["name_length"], LONGEST_NAME)
        # A client that asks for no name asks for ""; a server may say nothing of protocols.
        is_empty = has_hello & (side == "request")
        spans["length"] = np.where(is_named, lengths, np.where(is_empty, 0, NO_VALUE))
        names = binary_column(self._octets, spans).to_pylist()
        return pa.array([None if each is None else text(each) for each in names], pa.string())

    def _numbers(self, field: str, name: Callable[[int], str]) -> pa.StringArray:
        """Return what servers chose, by the names of the numbers."""
        told = self.calls["response"]
        is_told = (told["is_there"] != 0) & (told["hello"] != NO_HELLO)
        if field == "suite":
            is_told &= told["hello"] != OLD_ANSWER
        known, places = np.unique(np.where(is_told, told[field], -1), return_inverse=True)
        names = [None if each < 0 else name(each) for each in known.tolist()]
        return pa.array(names, pa.string()).take(number_column(places.astype(np.int64)))

    def _versions(self, rows: np.ndarray) -> pa.StringArray:
        """Return the versions that servers chose, without the name TLS."""
        full = self._numbers("version", lambda each: version(each).rpartition(" ")[2])
        return full.take(number_column(rows)).fill_null("")

    @staticmethod
    def _problems(calls: np.ndarray) -> tuple[pa.Array, pa.Array]:
        lacks = zip(calls["lacks"].tolist(), calls["alert"].tolist(), strict=True)
        found = [
            (kind, sentence and sentence.format(alert(number), number))
            for each, number in lacks
            for kind, sentence in (PROBLEMS.get(each, (None, None)),)
        ]
        return tuple(pa.array([each[n] for each in found], pa.string()) for n in (0, 1))

    def _texts(
        self, side: str, shown: Callable[[np.ndarray, np.void], Json], rows: np.ndarray
    ) -> pa.StringArray:
        """Return what one side told as JSON."""
        texts = [
            self._text(shown, each) if each["is_there"] else None for each in self.calls[side][rows]
        ]
        return pa.array(texts, pa.string())

    def _text(self, shown: Callable[[np.ndarray, np.void], Json], told: np.void) -> str:
        try:
            return dumped(shown(self._octets, told))
        except Exception as error:  # it must not end the capture of all others
            count_fault(self._faults, error)
            return "{}"

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return the columns of the table of entries that are TLS's own."""
        types, texts = self._problems(self.calls[rows])
        return {
            "protocol_version": self._versions(rows),
            "error_type": types,
            "error_msg": texts,
            "request": self._texts("request", _request, rows),
            "response": self._texts("response", _response, rows),
        }


def _part(octets: np.ndarray, at: int, length: int) -> bytes:
    begin = int(at) % len(octets)
    return octets[begin : begin + int(length)].tobytes()


def _hello(octets: np.ndarray, told: np.void) -> bytes:
    return _part(octets, told["hello_at"], told["hello_length"])


def _request(octets: np.ndarray, told: np.void) -> Json:
    """Return what a client said, as an entry has it."""
    found: Json = {}
    if told["hello"] == OLD:
        found = old_client_hello(_hello(octets, told)).shown("t")
    elif told["hello"] != NO_HELLO:
        found = client_hello(_hello(octets, told), told["hello"] == WHOLE).shown("t")
    return found | _others(octets, told)


def _response(octets: np.ndarray, told: np.void) -> Json:
    """Return what a server said, as an entry has it."""
    found: Json = {}
    if told["hello"] == OLD_ANSWER:
        found["version"] = version(int(told["version"]))
    elif told["hello"] != NO_HELLO:
        found = server_hello(_hello(octets, told), told["hello"] == WHOLE).shown()
    if told["retried"]:
        found["helloRetryRequest"] = True
    if told["resumed"] != NOT_SAID:
        found["resumed"] = bool(told["resumed"] == IS_RESUMED)
    return found | _others(octets, told)


def _others(octets: np.ndarray, told: np.void) -> Json:
    """Return what both sides may say besides a hello."""
    found: Json = {}
    if told["chain"] != NO_HELLO:
        listed = _part(octets, told["chain_at"], told["chain_length"])
        found["certificates"] = chain(listed, told["chain"] == WHOLE)
    if told["alert"]:
        found["alert"] = alert(int(told["alert"]) - 1)
    return found


class TlsDissector:
    """All TLS streams: see dissector.Dissector."""

    def __init__(self, kind: ProtocolKind, most_flows: int) -> None:  # noqa: ARG002
        self._framer = new_framer(most_flows)
        self._found: list[np.ndarray] = []
        self._past = PastCalls(CALL, MOST_PAST)
        self.refused: list[int] = []
        self.broken: list[int] = []
        self.over: list[int] = []
        self.followed: dict[int, tuple[int, int]] = {}
        self.body_limit = 0  # there are none
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
            ended = self._framer.failed[:failed]
            for what, streams in (
                (REFUSED, self.refused), (BROKEN, self.broken), (IS_OVER, self.over),
            ):  # fmt: skip
                streams += ended[ended[:, 1] == what, 0].tolist()

    def take_datagrams(self, packets: np.ndarray, marks: np.ndarray, octets: np.ndarray) -> None:
        """There are none: QUIC is a protocol of its own."""

    def end_streams(self, numbers: np.ndarray, now: int) -> None:
        """Their segments have said so."""

    def calls(self) -> TlsCalls | None:
        """See Dissector.calls."""
        if not self._found:
            return None
        found = np.concatenate(self._found)
        self._found = []
        self.overrun += forget_overwritten(self._framer, found)
        self.overrun += int(self._framer.totals["forgotten"][0])
        self._framer.totals["forgotten"] = 0
        is_there = (found["request"]["is_there"] != 0) | (found["response"]["is_there"] != 0)
        return TlsCalls(self._framer, found[is_there], self.faults) if is_there.any() else None

    def remember(self, calls: TlsCalls, indexes: np.ndarray) -> None:
        """See Dissector.remember."""
        self._past.add(calls.calls, indexes)

    def earlier(self, numbers: np.ndarray) -> tuple[TlsCalls, np.ndarray] | None:
        """See Dissector.earlier."""
        found, indexes = self._past.of(numbers)
        if len(found) == 0:
            return None
        told = found["lacks"].copy()
        forget_overwritten(self._framer, found)
        is_whole = (found["lacks"] != FORGOTTEN) | (told == FORGOTTEN)
        if not is_whole.any():
            return None
        return TlsCalls(self._framer, found[is_whole], self.faults), indexes[is_whole]
