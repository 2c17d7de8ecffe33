"""Messages of the protos as what a caller of HTTP asked for. Called by gateway.

A stream is JSON lines, server-sent events, an Arrow stream, or octets of a file; each is a Form,
which makes octets of one message after the other.
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import io
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import orjson
import pyarrow as pa
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from recorder.v1 import query_pb2

from recordings.schema import ENTRIES
from services.gateway.problems import Problem

JSON = "application/json"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
ARROW = "application/vnd.apache.arrow.stream"

EXPORTS = {
    query_pb2.EXPORT_FORMAT_PCAPNG: ("application/x-pcapng", "pcapng"),
    query_pb2.EXPORT_FORMAT_PCAP: ("application/vnd.tcpdump.pcap", "pcap"),
    query_pb2.EXPORT_FORMAT_HAR: (JSON, "har"),
    query_pb2.EXPORT_FORMAT_PARQUET: ("application/vnd.apache.parquet", "parquet"),
    query_pb2.EXPORT_FORMAT_JSON_LINES: (LINES, "jsonl"),
}
"""Media type of each kind of file, and what its name ends with; the usual kind first."""

MAX_RANGES = 16
"""Media ranges of an Accept header that are looked at; browsers send eight."""

_RECORD = re.compile(r"record\(\s*[\"']([a-z0-9][a-z0-9_-]{0,62})[\"']\s*\)")
_WEIGHT = re.compile(r"\s*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)


def choose(accept: str, offered: Sequence[str]) -> str | None:
    """Return which of `offered`, best first, an Accept header likes most; None when none.

    RFC 9110, section 12.5.1.
    """
    if not accept.strip():
        return offered[0]
    ranges = [_range(text) for text in accept.split(",", MAX_RANGES)[:MAX_RANGES]]
    best, most = None, 0.0
    for media_type in offered:
        weight = _weight(media_type, ranges)
        if weight > most:
            best, most = media_type, weight
    return best


def _range(text: str) -> tuple[str, float]:
    name, *parameters = text.split(";")
    found = (_WEIGHT.fullmatch(each) for each in parameters)
    weight = next((float(each[1]) for each in found if each), 1.0)
    return name.strip().lower(), weight


def _weight(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the weight of the narrowest range that a media type is in; 0 when there is none."""
    for wanted in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        for name, weight in ranges:
            if name == wanted:
                return weight
    return 0.0


def to_json(message: Message) -> bytes:
    """Return a message as proto's JSON, in one line; an entry as the query service wrote it.

    https://protobuf.dev/programming-guides/json/
    """
    kinds = (query_pb2.QueryResponse, query_pb2.GetStreamResponse)
    if isinstance(message, kinds) and message.WhichOneof("part") == "json":
        return b'{"entry":' + message.json.encode() + b"}"
    return orjson.dumps(MessageToDict(message, always_print_fields_with_no_presence=True))


class Form(Protocol):
    """A way to write a stream of messages."""

    media_type: str

    def write(self, message: Message) -> bytes:
        """Return the octets of one message."""

    def end(self) -> bytes:
        """Return what comes behind the last one."""

    def fail(self, problem: Problem) -> bytes | None:
        """Return what tells of a problem; None when only a connection that breaks can."""

    def idle(self) -> bytes:
        """Return what says that more may come; empty when nothing can."""


class Lines:
    """A JSON object a line; a problem is the last, as `error`."""

    media_type = LINES

    def write(self, message: Message) -> bytes:
        """Return a line."""
        return to_json(message) + b"\n"

    def end(self) -> bytes:
        """Return nothing."""
        return b""

    def fail(self, problem: Problem) -> bytes | None:
        """Return the last line."""
        return b'{"error":' + problem.json() + b"}\n"

    def idle(self) -> bytes:
        """Return nothing: an empty line is no JSON."""
        return b""


class Events:
    """An event for each message, named after what it has; a problem is the event `error`.

    What ends by itself ends with the event `end`, since an EventSource would ask again.
    """

    media_type = EVENTS

    def write(self, message: Message) -> bytes:
        """Return an event; with an id, from which a watch goes on."""
        name = "message"
        if message.DESCRIPTOR.oneofs:
            name = message.WhichOneof(message.DESCRIPTOR.oneofs[0].name) or name
        # How an entry is sent is no concern of who listens.
        event = _event("entry" if name == "json" else name, to_json(message))
        revision = getattr(message, "revision", 0)
        return b"id: %d\n" % revision + event if revision else event

    def end(self) -> bytes:
        """Return the last event."""
        return _event("end", b"{}")

    def fail(self, problem: Problem) -> bytes | None:
        """Return the last event."""
        return _event("error", problem.json())

    def idle(self) -> bytes:
        """Return a comment."""
        return b":\n\n"


def _event(name: str, data: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


class Octets:
    """The octets of a file."""

    def __init__(self, media_type: str) -> None:
        self.media_type = media_type

    def prepare(self, request: query_pb2.ExportRequest) -> None:
        """Let a request name the kind of file, unless it does: then the media type is that one's.

        A kind that there is not is for the query service to refuse.
        """
        if not request.format:
            kinds = {media_type: kind for kind, (media_type, _) in EXPORTS.items()}
            request.format = kinds[self.media_type]
        elif request.format in EXPORTS:
            self.media_type = EXPORTS[request.format][0]

    def write(self, message: Message) -> bytes:
        """Return the next octets."""
        return bytes(message.chunk)  # type: ignore[attr-defined]

    def end(self) -> bytes:
        """Return nothing."""
        return b""

    def fail(self, problem: Problem) -> bytes | None:
        """Return None: a file has no place for it."""
        del problem
        return None

    def idle(self) -> bytes:
        """Return nothing."""
        return b""


class Arrow:
    """One Arrow IPC stream of all entries.

    Its last batch has no rows, and metadata: `recorder`, which is JSON with the status, the losses
    and the counts of nodes.
    """

    media_type = ARROW

    def __init__(self) -> None:
        self._sink = io.BytesIO()
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._schema = ENTRIES
        self._rest: dict[str, list[Any]] = {}

    def write(self, message: Message) -> bytes:
        """Return the batches of a message; what is not of entries waits for the end."""
        assert isinstance(message, query_pb2.QueryResponse)
        part = message.WhichOneof("part") or ""
        if part != "arrow_ipc":
            said = MessageToDict(message, always_print_fields_with_no_presence=True)
            self._rest.setdefault(part, []).append(said.get(part))
            return b""
        with pa.ipc.open_stream(message.arrow_ipc) as reader:
            writer = self._writer_of(reader.schema)
            for batch in reader:
                writer.write_batch(batch)
        return self._take()

    def end(self) -> bytes:
        """Return the last batch and the end of the stream."""
        writer = self._writer_of(self._schema)
        said = {
            "status": next(iter(self._rest.get("status", [])), None),
            "losses": self._rest.get("loss", []),
            "counts": self._rest.get("counts", []),
        }
        empty = pa.RecordBatch.from_pylist([], schema=self._schema)
        writer.write_batch(empty, custom_metadata={"recorder": orjson.dumps(said)})
        writer.close()
        return self._take()

    def fail(self, problem: Problem) -> bytes | None:
        """Return None: who reads must not take what came for all of it."""
        del problem
        return None

    def idle(self) -> bytes:
        """Return nothing."""
        return b""

    def _writer_of(self, schema: pa.Schema) -> pa.ipc.RecordBatchStreamWriter:
        if self._writer is None:
            self._schema = schema
            self._writer = pa.ipc.new_stream(self._sink, schema)
        return self._writer

    def _take(self) -> bytes:
        octets = self._sink.getvalue()
        self._sink.seek(0)
        self._sink.truncate()
        return octets


FORMS: dict[str, tuple[Callable[[], Form], ...]] = {
    "Export": tuple(partial(Octets, media_type) for media_type, _ in EXPORTS.values()),
    "Query": (Lines, Events, Arrow),
}
"""Forms of the RPCs that have other ones than JSON lines and events, the usual one first."""


def forms(rpc: str) -> dict[str, Callable[[], Form]]:
    """Return the forms in which the messages of a stream can be had, by media type."""
    return {make().media_type: make for make in FORMS.get(rpc, (Lines, Events))}


def file_name(kfl: str, suffix: str) -> str:
    """Return a name for a file: that of the first recording of the statement."""
    found = _RECORD.search(kfl)
    return f"{found[1] if found else 'recording'}.{suffix}"
