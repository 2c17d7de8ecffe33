"""What was found as messages of query.proto. Called by the files named *_rpc."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import ledger_pb2, query_pb2

import kfl
from services.query.catalog import Summary
from services.query.figures import Figures
from services.query.ledger import Counts, Loss
from services.query.lookup import Packets
from services.query.peers import Connection, Peer


def losses(found: Iterable[Loss]) -> Iterator[query_pb2.QueryResponse]:
    """Yield a part of an answer for each loss."""
    for loss in found:
        yield query_pb2.QueryResponse(
            loss=query_pb2.Loss(
                recording=loss.recording,
                node=loss.node,
                kind=loss.kind,
                start_time=_timestamp(loss.start_ns),
                end_time=_timestamp(loss.end_ns),
                packets=loss.packets,
                bytes=loss.bytes,
                detail=loss.detail,
            )
        )


def counts(found: Iterable[Counts]) -> Iterator[query_pb2.QueryResponse]:
    """Yield a part of an answer for each node of each run."""
    for counts in found:
        node = counts.found
        yield query_pb2.QueryResponse(
            counts=ledger_pb2.NodeCounts(
                recording=counts.recording,
                run=counts.run,
                node=node.node,
                start_time=_timestamp(node.begin_ns or None),
                end_time=_timestamp(node.end_ns or None),
                seen_packets=_most(node.seen.packets),
                seen_bytes=_most(node.seen.bytes),
                matched_packets=_most(node.matched.packets),
                matched_bytes=_most(node.matched.bytes),
                stored_packets=_most(node.stored.packets),
                stored_bytes=_most(node.stored.bytes),
                lost=[
                    ledger_pb2.KindCounts(
                        kind=kind,
                        times=lost.times,
                        packets=_most(lost.packets),
                        bytes=_most(lost.bytes),
                    )
                    for kind, lost in node.lost.items()
                ],
            )
        )


def _most(number: int) -> int:
    """Return what a message can hold: agents may claim anything."""
    return min(number, 2**64 - 1)


def recording(summary: Summary) -> query_pb2.Recording:
    """Return what a recording holds."""
    return query_pb2.Recording(
        name=summary.name,
        runs=summary.runs,
        entries=summary.entries,
        streams=summary.streams,
        packets=summary.packets,
        bytes=summary.bytes,
        first_entry_time=_timestamp(summary.first_ns),
        last_entry_time=_timestamp(summary.last_ns),
    )


def diagnostic(found: kfl.Diagnostic) -> query_pb2.Diagnostic:
    """Return a remark about a statement."""
    return query_pb2.Diagnostic(
        is_error=found.is_error,
        line=found.line,
        column=found.column,
        message=found.message,
        suggestion=found.suggestion,
    )


def _timestamp(time_ns: int | None) -> Timestamp | None:
    if time_ns is None:
        return None
    return Timestamp(seconds=time_ns // 10**9, nanos=time_ns % 10**9)


def at_us(time_us: int) -> Timestamp:
    """Return a time in microseconds since 1970."""
    return Timestamp(seconds=time_us // 10**6, nanos=time_us % 10**6 * 1000)


def figures(found: Figures | None) -> query_pb2.Figures | None:
    """Return sums over entries."""
    if found is None:
        return None
    latency = None
    if found.latency_us is not None:
        p50, p90, p99 = found.latency_us
        latency = query_pb2.Latency(p50_us=p50, p90_us=p90, p99_us=p99)
    return query_pb2.Figures(
        entries=found.entries,
        errors=found.errors,
        request_bytes=max(found.request_bytes, 0),
        response_bytes=max(found.response_bytes, 0),
        latency=latency,
    )


def peer(found: Peer) -> query_pb2.Peer:
    """Return one end of calls."""
    return query_pb2.Peer(name=found.name, namespace=found.namespace, ip=found.ip, port=found.port)


def connection(found: Connection) -> query_pb2.Connection:
    """Return a stream with its rates."""
    duration_us = found.end_us - found.start_us
    sums = found.figures
    return query_pb2.Connection(
        recording=found.record,
        node=found.node,
        stream=found.stream,
        transport=found.transport,
        protocols=found.protocols,
        src=peer(found.src),
        dst=peer(found.dst),
        state=found.state,
        start_time=at_us(found.start_us),
        duration_us=duration_us,
        figures=figures(sums),
        request_bytes_per_second=_rate(sums.request_bytes, duration_us),
        response_bytes_per_second=_rate(sums.response_bytes, duration_us),
    )


def _rate(octets: int, duration_us: int) -> float:
    return octets * 1e6 / duration_us if duration_us > 0 else 0.0


def stream_row(row: Mapping[str, Any]) -> query_pb2.StreamRow:
    """Return a row of STREAMS whose times are microseconds since 1970."""
    return query_pb2.StreamRow(
        id=row["stream"],
        node=row["node_name"],
        transport=row["transport"],
        client=query_pb2.Peer(ip=row["client_ip"], port=row["client_port"]),
        server=query_pb2.Peer(ip=row["server_ip"], port=row["server_port"]),
        first_time=at_us(row["first_time"]),
        matched_time=at_us(row["matched_time"]),
        from_start=row["from_start"],
    )


def packets(found: Packets) -> query_pb2.PacketSummary:
    """Return what there is of a stream's packets."""
    if not found.packets:
        return query_pb2.PacketSummary()
    return query_pb2.PacketSummary(
        packets=found.packets,
        bytes=found.bytes,
        recorded_bytes=found.recorded_bytes,
        first_time=at_us(found.first_us),
        last_time=at_us(found.last_us),
    )
