"""The RPC that gives files. Part of query_rpc."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import grpc
from recorder.v1 import query_pb2

import kfl
from recordings import schema
from services.query import ledger
from services.query.asked import Asked, read_request
from services.query.base import Caller, QueryBase
from services.query.catalog import Opened
from services.query.export import ENTRY_FILES, Export
from services.query.export import Asked as File
from services.query.question import Work
from services.query.refusals import refuse, told

PATIENCE = 10
"""A file may take this many times longer than a question: it reads and sorts whole streams."""


class ExportRpc(QueryBase):
    """Export."""

    def Export(  # noqa: N802 - the name is in the proto
        self, request: query_pb2.ExportRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.ExportResponse]:
        """Send a file, and what is in it."""
        if request.format not in query_pb2.ExportFormat.values():
            refuse(context, "format", f"{request.format} is not an ExportFormat.")
        asked = _read(self, request, context)
        if asked.filter.redactions and request.format not in ENTRY_FILES:
            refuse(
                context,
                "kfl",
                "redact() hides values of entries, but packets would show them. Leave it out, or "
                "ask for entries.",
            )
        deadline = self.deadline_seconds * PATIENCE
        with told(context, self.catalog, asked.recordings), self.slot(context):
            opened = [self.catalog.open(name) for name in asked.recordings]
            with self.session(Caller(context), deadline) as session:
                work = Work(asked, opened, session, [])
                file = Export(session, _file(request.format, asked.filter, opened))
                for piece in file.pieces():
                    yield query_pb2.ExportResponse(chunk=piece.octets, share=piece.share)
                yield query_pb2.ExportResponse(share=1.0, summary=_summary(work, file))


def _read(
    service: QueryBase, request: query_pb2.ExportRequest, context: grpc.ServicerContext
) -> Asked:
    question = query_pb2.QueryRequest(kfl=request.kfl)
    asked = read_request(question, context, service.catalog, service.macros)
    if request.format == query_pb2.EXPORT_FORMAT_HAR:
        # The line may end in a comment. What is wrong was told of the statement alone.
        statement = kfl.compile(f"({request.kfl}\n) and http", service.macros)
        return replace(asked, filter=statement)
    return asked


def _file(format: int, statement: kfl.Filter, opened: Sequence[Opened]) -> File:
    return File(
        statement,
        format,
        {table: [found.source(table) for found in opened] for table in schema.TABLES},
        ledger.losses([found.source("losses") for found in opened]),
        ledger.counts(opened),
        [sentence for found in opened for sentence in found.damage],
    )


def _summary(work: Work, file: Export) -> query_pb2.ExportSummary:
    return query_pb2.ExportSummary(
        entries=file.entries,
        streams=file.streams,
        packets=file.packets,
        account=work.account(file.entries, truncated=file.truncated),
    )
