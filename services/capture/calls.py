# mypy: ignore-errors
"""Calls of any protocol, as filters and recordings want them: hot columns, entries on demand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from recordings.schema import ENTRIES, STREAMS
from services.capture.addresses import address_texts
from services.capture.columns import TIMESTAMP, number_column
from services.capture.flows import STREAM, Streams, number_entries
from services.capture.headers import (
    PROTOCOL_ICMP,
    PROTOCOL_ICMPV6,
    PROTOCOL_SCTP,
    PROTOCOL_UDP,
)
from services.capture.identity.names import Known
from services.capture.identity.peers import Ends, Peers
from services.capture.networks import tunnel_texts, vlan_texts

if TYPE_CHECKING:
    from kfl import Filter
    from kfl.batch import Batch, Column, Mask, Shared


HEXADECIMAL = np.frombuffer(b"".join(b"%02x" % octet for octet in range(256)), np.uint16)
"""The two digits of each octet."""


class ProtocolCalls(Protocol):
    """What a dissector makes: calls of one protocol, good until it takes more octets."""

    protocol_name: str
    protocol_abbr: str
    streams: np.ndarray  # int64: number of the stream of each call
    request_direction: np.ndarray  # uint8: which direction of the stream asked
    start_ns: np.ndarray  # int64, nanoseconds since 1970: first octet of the first message seen
    end_ns: np.ndarray  # int64: last octet of the response, or when it was given up
    has_request: np.ndarray  # bool
    has_response: np.ndarray
    request_size: np.ndarray  # int64, octets
    response_size: np.ndarray

    def __len__(self) -> int: ...

    def columns(self) -> Mapping[str, Callable[..., Column] | Column]:
        """Return hot columns, or how to make them, by their name in the table of entries.

        How to make `request_headers.host` is said by `request_headers`, which gets the name;
        `request.sni` is the text of one key of a message that is JSON.
        """
        ...

    def details(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """Return the protocol's own columns of the table of entries for the chosen rows."""
        ...


HEADERS = frozenset({"request_headers", "response_headers"})
"""Columns that are made for each name of a header."""


class LazyColumns(Mapping[str, "Column"]):
    """Columns that are made when they are asked for; what all rows have is given as it is."""

    def __init__(self, makers: Mapping[str, Callable[..., Column] | Column]):
        self._makers = makers
        self._made: dict[str, Column] = {}
        self.constants = {name: each for name, each in makers.items() if not callable(each)}
        """What all calls of this protocol have on this node."""

    def __getitem__(self, name: str) -> Column:
        if name in self.constants:
            return self.constants[name]
        if name not in self._made:
            column, dot, key = name.partition(".")
            if name in self._makers:
                self._made[name] = self._makers[name]()
            elif dot and column in HEADERS:
                self._made[name] = self._makers[column](key)
            else:
                raise KeyError(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class Node:
    """The node that captures."""

    def __init__(self, name: str, ip: str, known: Callable[[], Known | None] = lambda: None):
        """known: the names of addresses at this moment; None when there are none."""
        self.name = name
        self.ip = ip
        self.known = known


TRANSPORTS = pa.array(["tcp", "udp", "icmp", "sctp"])
TCP, UDP, ICMP, SCTP = range(4)
TRANSPORT_OF = np.zeros(256, np.uint8)  # TCP
TRANSPORT_OF[PROTOCOL_UDP] = UDP
TRANSPORT_OF[[PROTOCOL_ICMP, PROTOCOL_ICMPV6]] = ICMP
TRANSPORT_OF[PROTOCOL_SCTP] = SCTP
"""By the protocol's number in the IP header, the place in TRANSPORTS."""


def _transports(rows: np.ndarray) -> np.ndarray:
    return TRANSPORT_OF[(rows["ports"] >> np.uint64(32)).astype(np.uint8)]


def transport_of(rows: np.ndarray) -> pa.StringArray:
    """What carries each, of TRANSPORTS, for STREAM rows."""
    return TRANSPORTS.take(pa.array(_transports(rows)))


def _ports(rows: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The port of one end of each STREAM row as int64; -1 for ICMP, which has none."""
    return np.where(_transports(rows) == ICMP, -1, endpoint(rows, side)[1].astype(np.int64))


def endpoint(
    rows: np.ndarray, side: np.ndarray, seen_by: np.ndarray | None = None
) -> tuple[list[str], np.ndarray]:
    """(addresses as text, ports as uint16) of one end of streams; as ends_of() has them."""
    high, low, ports = ends_of(rows, side, seen_by)
    return address_texts(high, low), ports


def ends_of(
    rows: np.ndarray, side: np.ndarray, seen_by: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(halves of addresses, ports as uint16) of one end of streams; side 0 is the lower endpoint.

    seen_by: the side whose view it is, where the node translates addresses between the two; by
    itself if not given, so that the peer of a service is the pod that answered.
    """
    higher = side == 1
    in_view = rows["viewer"] == (side if seen_by is None else seen_by) + 1
    high, low = (
        np.where(
            in_view,
            np.where(higher, rows[f"view_higher_{half}"], rows[f"view_lower_{half}"]),
            np.where(higher, rows[f"higher_{half}"], rows[f"lower_{half}"]),
        )
        for half in ("high", "low")
    )
    ports = np.where(in_view, rows["view_ports"], rows["ports"]).astype(np.uint32)
    ports = np.where(higher, ports, ports >> np.uint32(16)) & np.uint32(0xFFFF)
    return high, low, ports.astype(np.uint16)


def stream_texts(ids: np.ndarray) -> pa.Array:
    """The 16 hexadecimal digits that name each stream, from STREAM.id."""
    octets = ids.astype(">u8").view(np.uint8)
    offsets = np.arange(0, 16 * len(ids) + 1, 16, np.int32)
    return pa.StringArray.from_buffers(
        len(ids), pa.py_buffer(offsets), pa.py_buffer(HEXADECIMAL[octets])
    )


def constant(value: str | bool, rows: int) -> pa.Array:
    """A column of one value."""
    return pa.repeat(_scalar(value), rows)


@functools.lru_cache(1024)
def _scalar(value: str | bool) -> pa.Scalar:
    # Without a type, Arrow looks for pandas each time.
    return pa.scalar(value, pa.bool_() if isinstance(value, bool) else pa.string())


def nulls(type: pa.DataType, rows: int) -> pa.Array:
    """A column of nulls; it may share its octets with others."""
    return _nulls(type, 1 << rows.bit_length()).slice(0, rows)


@functools.lru_cache(256)
def _nulls(type: pa.DataType, rows: int) -> pa.Array:
    return pa.nulls(rows, type)


class Calls:
    """Calls of one protocol with their streams; good until the pipeline takes the next batch."""

    def __init__(
        self,
        calls: ProtocolCalls,
        streams: Streams,
        node: Node,
        indexes: np.ndarray | None = None,
    ):
        """Number the entries that these calls will be, unless `indexes` (int32) has the numbers."""
        self.calls = calls
        self.node = node
        self.protocol = calls.protocol_name
        self.index = np.empty(len(calls), np.int32) if indexes is None else indexes
        if indexes is None:
            number_entries(streams, np.ascontiguousarray(calls.streams), self.index)
        self._all_streams = streams

    def __len__(self) -> int:
        return len(self.calls)

    @property
    def streams(self) -> np.ndarray:
        """int64: number of the stream of each call."""
        return self.calls.streams

    @functools.cached_property
    def stream_rows(self) -> np.ndarray:
        """The STREAM row of each call."""
        return self._rows_of(self.streams)

    def _rows_of(self, streams: np.ndarray) -> np.ndarray:
        rows = self._all_streams.rows
        return rows[streams & (len(rows) - 1)]

    @functools.cached_property
    def elapsed_us(self) -> np.ndarray:
        """int64, microseconds; -1 when one of the messages is missing."""
        both = self.calls.has_request & self.calls.has_response
        return np.where(both, (self.calls.end_ns - self.calls.start_ns) // 1000, -1)

    @property
    def constants(self) -> Mapping[str, Shared]:
        """Hot columns that are the same for all calls of this protocol on this node."""
        return self.columns().constants

    def columns(self) -> LazyColumns:
        """Hot columns, by their name in the table of entries."""
        return self._columns

    @functools.cached_property
    def _columns(self) -> LazyColumns:
        asked = self.calls.request_direction
        return LazyColumns(
            {
                "protocol_name": self.calls.protocol_name,
                "protocol_abbr": self.calls.protocol_abbr,
                "transport": lambda: transport_of(self.stream_rows),
                "tls": False,
                "node_name": self.node.name,
                "src_ip": lambda: pa.array(endpoint(self.stream_rows, asked)[0], pa.string()),
                "dst_ip": lambda: pa.array(endpoint(self.stream_rows, asked ^ 1)[0], pa.string()),
                "src_port": lambda: _ports(self.stream_rows, asked),
                "dst_port": lambda: _ports(self.stream_rows, asked ^ 1),
                **{
                    f"{side}_{name}": (
                        "" if self._known is None else functools.partial(self._name, side, name)
                    )
                    for side in ("src", "dst")
                    for name in NAMES
                },
                **NO_HTTP,
                "elapsed_us": lambda: self.elapsed_us,
                "request_size": lambda: self._size("request"),
                "response_size": lambda: self._size("response"),
                **self.calls.columns(),
            }
        )

    @functools.cached_property
    def _known(self) -> Known | None:
        return self.node.known()  # asked once, so that columns and entries say the same

    def _name(self, side: str, name: str) -> pa.StringArray:
        return self._all_peers[side].column(name)

    @functools.cached_property
    def _all_peers(self) -> dict[str, Peers]:
        asked = self.calls.request_direction
        return self._peers(self.stream_rows, asked, self.calls.start_ns)

    def _peers(self, rows: np.ndarray, asked: np.ndarray, times: np.ndarray) -> dict[str, Peers]:
        """Return who both sides of calls are, from their STREAM rows."""
        own, answering = Ends(*ends_of(rows, asked)), Ends(*ends_of(rows, asked ^ 1))
        called = Ends(*ends_of(rows, asked ^ 1, asked))
        return {
            "src": Peers(self._known, own, None, times),
            "dst": Peers(self._known, answering, called, times),
        }

    def _size(self, side: str) -> np.ndarray:
        present = self.calls.has_request if side == "request" else self.calls.has_response
        sizes = self.calls.request_size if side == "request" else self.calls.response_size
        return np.where(present, sizes, -1)

    def entries(self, rows: np.ndarray) -> pa.Table:
        """Build the entries of the chosen rows (int64), with the schema of the table of entries."""
        count = len(rows)
        stream_rows, asked = self._rows_of(self.streams[rows]), self.calls.request_direction[rows]
        made: dict[str, pa.Array] = {
            "start_time": number_column(self.calls.start_ns[rows], type=TIMESTAMP),
            "index": number_column(self.index[rows]),
            "stream": stream_texts(stream_rows["id"]),
            "node_name": constant(self.node.name, count),
            "node_ip": constant(self.node.ip, count),
            "protocol_name": constant(self.calls.protocol_name, count),
            "protocol_abbr": constant(self.calls.protocol_abbr, count),
            "protocol_version": constant("", count),
            "transport": transport_of(stream_rows),
            "tls": constant(False, count),
            **_peer("src", stream_rows, asked),
            **_peer("dst", stream_rows, asked ^ 1),
            **self._named(rows, stream_rows, asked),
            "elapsed_us": _or_null(self.elapsed_us[rows]),
            "request_size": _or_null(self._size("request")[rows]),
            "response_size": _or_null(self._size("response")[rows]),
            **self.calls.details(rows),
        }
        return pa.table(
            [made[f.name] if f.name in made else nulls(f.type, count) for f in ENTRIES],
            schema=ENTRIES,
        )

    def _named(
        self, rows: np.ndarray, stream_rows: np.ndarray, asked: np.ndarray
    ) -> dict[str, pa.Array]:
        """Return the columns of names of the chosen rows."""
        if self._known is None:
            nothing = constant("", len(rows))
            return {f"{side}_{name}": nothing for side in ("src", "dst") for name in NAMES}
        peers = self._peers(stream_rows, asked, self.calls.start_ns[rows])
        return {
            f"{side}_{name}": each.column(name)
            for side, each in peers.items()
            for name in (*NAMES, "labels")
        }


NAMES = ("name", "namespace", "pod", "service", "dns")
"""What is known of a peer besides its address; text, "" when nothing is known."""


NO_HTTP = {
    **{f"request_{name}": None for name in ("method", "url", "path")},
    "response_status": None,
    **{f"{side}_body": None for side in ("request", "response")},
    **{f"{side}_headers": lambda _: None for side in ("request", "response")},
}
"""HTTP's columns, where a protocol has none."""


def _or_null(values: np.ndarray) -> pa.Array:
    return number_column(values.astype(np.int64), values >= 0)


def _peer(side: str, rows: np.ndarray, which: np.ndarray) -> dict[str, pa.Array]:
    addresses, ports = endpoint(rows, which)
    return {
        f"{side}_ip": pa.array(addresses, pa.string()),
        f"{side}_port": number_column(ports, _transports(rows) != ICMP),
    }


def matching_rows(
    chosen: Filter,
    batch: Batch,
    asked: Mask,
    objects: Callable[[np.ndarray], list[dict]],
) -> np.ndarray:
    """Return the rows, of those that are asked about, that a filter lets through.

    The columns decide where they can; for the other rows `objects` builds the entries, as JSON
    objects, and the filter looks at those.
    """
    may, must = chosen.bounds(batch, batch.rows, asked)
    rows = np.flatnonzero(may & asked)
    if len(rows) == 0:
        return rows
    is_sure = must[rows]
    if is_sure.all():
        return rows
    doubtful = rows[~is_sure]
    is_sure[~is_sure] = [chosen.matches(each) for each in objects(doubtful)]
    return rows[is_sure]


def streams_table(
    rows: np.ndarray, node: Node, matched_ns: np.ndarray, from_start: np.ndarray
) -> pa.Table:
    """Build the table of streams from STREAM rows; `matched_ns` int64, `from_start` bool."""
    assert rows.dtype == STREAM
    asked, answered = rows["client"], rows["client"] ^ 1
    client, server = endpoint(rows, asked), endpoint(rows, answered)
    called = _where_other(endpoint(rows, answered, asked), server)
    seen = _where_other(endpoint(rows, asked, answered), client)
    columns = {
        "stream": stream_texts(rows["id"]),
        "node_name": constant(node.name, len(rows)),
        "transport": transport_of(rows),
        "client_ip": pa.array(client[0], pa.string()),
        "client_port": number_column(client[1]),
        "server_ip": pa.array(server[0], pa.string()),
        "server_port": number_column(server[1]),
        "first_time": number_column(rows["first_timestamp"], type=TIMESTAMP),
        "matched_time": number_column(matched_ns, type=TIMESTAMP),
        "from_start": pa.array(from_start & rows["from_start"].astype(np.bool_)),
        "vlan": vlan_texts(rows["network"]),
        "tunnel": tunnel_texts(rows["network"]),
        "called_ip": called[0],
        "called_port": called[1],
        "seen_ip": seen[0],
        "seen_port": seen[1],
    }
    return pa.table([columns[field.name] for field in STREAMS], schema=STREAMS)


def _where_other(
    found: tuple[list[str], np.ndarray], own: tuple[list[str], np.ndarray]
) -> tuple[pa.Array, pa.Array]:
    """Return addresses and ports as columns, null where both are an endpoint's own."""
    other = (found[1] != own[1]) | (np.array(found[0], object) != np.array(own[0], object))
    return pa.array(found[0], pa.string(), mask=~other), number_column(found[1], other)
