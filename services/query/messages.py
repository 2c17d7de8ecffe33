"""Losses, recordings and diagnostics as messages of query.proto. Called by query_rpc."""

from collections.abc import Iterable, Iterator

from google.protobuf.timestamp_pb2 import Timestamp
from recorder.v1 import query_pb2

import kfl
from services.query.catalog import Summary
from services.query.ledger import Loss


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
