"""A server of gRPC that does what real ones do on a bad day, and says what became of its calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from recorder.v1 import jobs_pb2, jobs_pb2_grpc, query_pb2, query_pb2_grpc

from services.runtime.server import serve

LARGE = "x" * 100_000


class Odd(query_pb2_grpc.QueryServiceServicer, jobs_pb2_grpc.JobsServiceServicer):
    """Both services. The statement says what it does."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        """A call has ended, whoever ended it."""
        self.go = threading.Event()
        self.seconds: float | None = None
        """What the last call had left of its deadline."""

    def Query(  # noqa: N802
        self, request: query_pb2.QueryRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.QueryResponse]:
        context.add_callback(self.ended.set)
        self.seconds = context.time_remaining()
        yield query_pb2.QueryResponse(json='{"n":1}')
        if request.kfl == "fail":
            context.abort(grpc.StatusCode.DATA_LOSS, "A file is damaged.")
        if request.kfl == "wait":
            self.ended.wait(30)
        while request.kfl == "flood" and not self.ended.is_set():
            yield query_pb2.QueryResponse(json=f'{{"text":"{LARGE}"}}')

    def Export(  # noqa: N802
        self, request: query_pb2.ExportRequest, context: grpc.ServicerContext
    ) -> Iterator[query_pb2.ExportResponse]:
        yield query_pb2.ExportResponse(chunk=b"begin")
        context.abort(grpc.StatusCode.DATA_LOSS, "A file is damaged.")

    def ListRecordings(  # noqa: N802
        self, request: query_pb2.ListRecordingsRequest, context: grpc.ServicerContext
    ) -> query_pb2.ListRecordingsResponse:
        context.add_callback(self.ended.set)
        self.seconds = context.time_remaining()
        self.go.wait(30)
        return query_pb2.ListRecordingsResponse()

    def GetJob(  # noqa: N802
        self, request: jobs_pb2.GetJobRequest, context: grpc.ServicerContext
    ) -> jobs_pb2.GetJobResponse:
        context.abort(grpc.StatusCode[request.name.upper()], "Said so.")
        raise AssertionError


@contextmanager
def odd() -> Iterator[tuple[Odd, str]]:
    """Serve it; gives it and its address."""
    made = Odd()

    def add(server: grpc.Server) -> list[str]:
        query_pb2_grpc.add_QueryServiceServicer_to_server(made, server)
        jobs_pb2_grpc.add_JobsServiceServicer_to_server(made, server)
        return ["recorder.v1.QueryService", "recorder.v1.JobsService"]

    server = serve("127.0.0.1:0", add)
    try:
        yield made, server.address
    finally:
        made.ended.set()
        made.go.set()
        server.stop(5)
