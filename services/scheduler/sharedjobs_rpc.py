"""JobsService of one of several schedulers: the leader answers, the others pass on to it.

So people can ask any of them, and what they are told is the same.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.runtime.channel import open_channel
from services.scheduler.cluster import Cluster
from services.scheduler.database import StoreError
from services.scheduler.jobs_rpc import JobsService
from services.scheduler.jobspecs import NO_MACROS
from services.scheduler.lifecycle import Lifecycle

LEADER_SECONDS: Final = 10.0
"""How long a call waits for a leader: one that is lost has a successor within this time."""

LOOK_SECONDS: Final = 0.25
PASSED_ON: Final = "recorder-passed-on"
"""Of a call that comes from another scheduler: it is not passed on again."""

_METHODS: Final = jobs_pb2.DESCRIPTOR.services_by_name["JobsService"].methods


class SharedJobsService:
    """Has each method of JobsService; made from the proto, as all are passed on alike."""

    def __init__(self, cluster: Cluster, macros: Mapping[str, str] = NO_MACROS) -> None:
        """`macros` are operators' words of KFL."""
        self._cluster = cluster
        self._macros = macros
        for method in _METHODS:
            make = self._stream if method.server_streaming else self._unary
            setattr(self, method.name, make(method.name))

    def _unary(self, method: str) -> Callable[[Message, grpc.ServicerContext], Any]:
        def call(request: Message, context: grpc.ServicerContext) -> Any:
            leader = self._leader(context)
            try:
                if isinstance(leader, Lifecycle):
                    return getattr(JobsService(leader, self._macros), method)(request, context)
                with open_channel(leader) as channel:
                    stub = getattr(jobs_pb2_grpc.JobsServiceStub(channel), method)
                    return stub(request, **_onward(context))
            except grpc.RpcError as error:
                _repeat(context, error)
            except StoreError as error:
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

        return call

    def _stream(self, method: str) -> Callable[[Message, grpc.ServicerContext], Iterator[Any]]:
        def call(request: Message, context: grpc.ServicerContext) -> Iterator[Any]:
            leader = self._leader(context)
            try:
                if isinstance(leader, Lifecycle):
                    yield from getattr(JobsService(leader, self._macros), method)(request, context)
                    return
                with open_channel(leader) as channel:
                    stub = getattr(jobs_pb2_grpc.JobsServiceStub(channel), method)
                    answers = stub(request, **_onward(context))
                    context.add_callback(answers.cancel)
                    yield from answers
            except grpc.RpcError as error:
                _repeat(context, error)
            except StoreError as error:
                context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

        return call

    def _leader(self, context: grpc.ServicerContext) -> Lifecycle | str:
        """Return what leads here, or the address of who leads; aborts when nobody does."""
        is_passed_on = any(key == PASSED_ON for key, _ in context.invocation_metadata())
        deadline = time.monotonic() + min(LEADER_SECONDS, context.time_remaining() or 1e9)
        sentence = "No scheduler leads now; try again in a moment."
        while context.is_active():
            here = self._cluster.lifecycle
            if here is not None:
                return here
            try:
                address = None if is_passed_on else self._cluster.leader()
            except StoreError as error:
                address, sentence = None, f"No scheduler leads now. {error}"
            if address is not None:
                return address
            if time.monotonic() >= deadline:
                break
            time.sleep(LOOK_SECONDS)
        context.abort(grpc.StatusCode.UNAVAILABLE, sentence)
        raise AssertionError("grpc's abort always raises")


def _onward(context: grpc.ServicerContext) -> dict[str, Any]:
    remaining = context.time_remaining()
    return {"metadata": ((PASSED_ON, "1"),), "timeout": remaining}


def _repeat(context: grpc.ServicerContext, error: grpc.RpcError) -> None:
    """Abort with what the leader said."""
    details = [pair for pair in error.trailing_metadata() or () if pair[0].endswith("-bin")]
    context.set_trailing_metadata(details)
    context.abort(error.code(), error.details())
