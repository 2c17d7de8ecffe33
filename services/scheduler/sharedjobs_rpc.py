"""JobsService of one of several schedulers: the leader answers, the others pass on to it.

So people can ask any of them, and what they are told is the same.
"""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from services.runtime.channel import open_channel
from services.scheduler.cluster import Cluster
from services.scheduler.database import StoreError
from services.scheduler.jobs_rpc import JobsService
from services.scheduler.jobspecs import NO_MACROS

LEADER_SECONDS: Final = 10.0
"""How long a call waits for a leader: one that is lost has a successor within this time."""

LOOK_SECONDS: Final = 0.25
CONNECT_SECONDS: Final = 1.0
"""How long a leader may take to accept a connection; one that is lost does not."""

MOST_SECONDS: Final = 1e6
"""More than any deadline: what gRPC says for none."""

LEADS: Final = "recorder-leads"
"""Of what the leader answers to a call that was passed on."""

LEADS_NOT: Final = "recorder-leads-not"
"""Of the answer to such a call, by a scheduler that does not lead: another one may by now."""

PASSED_ON: Final = "recorder-passed-on"
"""Of a call that comes from another scheduler: it is not passed on again."""

CUT: Final = (
    "The leading scheduler stopped during this call. Look whether it took effect, then try again."
)

ASKING: Final = frozenset({"GetJob", "ListJobs", "WatchJobs", "ForecastJob"})
"""Methods that change nothing, so that they can be passed on again."""

_WENT_AWAY: Final = (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
"""How gRPC ends calls to a server that stops, or is lost."""

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
            [answer] = self._answers(method, lambda answer: [answer], request, context)
            return answer

        return call

    def _stream(self, method: str) -> Callable[[Message, grpc.ServicerContext], Iterator[Any]]:
        def call(request: Message, context: grpc.ServicerContext) -> Iterator[Any]:
            yield from self._answers(method, lambda answers: answers, request, context)

        return call

    def _answers(
        self,
        method: str,
        each: Callable[[Any], Iterable[Any]],
        request: Message,
        context: grpc.ServicerContext,
    ) -> Iterator[Any]:
        """Yield what the leader answers; `each` makes a method's answer a sequence."""
        is_passed_on = any(key == PASSED_ON for key, _ in context.invocation_metadata())
        deadline = time.monotonic() + min(LEADER_SECONDS, context.time_remaining() or MOST_SECONDS)
        while context.is_active():
            sentence = "No scheduler leads now; try again in a moment."
            try:
                here = self._cluster.lifecycle
                if here is not None:
                    context.set_trailing_metadata(((LEADS, "1"),))
                    service = JobsService(here, self._macros)
                    yield from each(getattr(service, method)(request, context))
                    return
                address = None if is_passed_on else self._cluster.leader()
            except StoreError as error:
                address, sentence = None, f"No scheduler leads now. {error}"
            if is_passed_on:
                context.set_trailing_metadata(((LEADS_NOT, "1"),))
            elif address is not None and (
                yield from _passed_on(address, method, each, request, context)
            ):
                return
            if is_passed_on or time.monotonic() >= deadline:
                context.abort(grpc.StatusCode.UNAVAILABLE, sentence)
            time.sleep(LOOK_SECONDS)


def _passed_on(
    address: str,
    method: str,
    each: Callable[[Any], Iterable[Any]],
    request: Message,
    context: grpc.ServicerContext,
) -> Generator[Any, None, bool]:
    """Yield what the scheduler at that address answers; return whether it did."""
    has_answered = False
    with open_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
        try:
            stub = getattr(jobs_pb2_grpc.JobsServiceStub(channel), method)
            answer = stub(request, **_onward(context))
            if isinstance(answer, grpc.Call):  # of a stream
                context.add_callback(answer.cancel)
            for part in each(answer):
                has_answered = True
                yield part
        except grpc.RpcError as error:
            said = [key for key, _ in error.trailing_metadata() or ()]
            # Nobody said this, so the leader went away. (Details of a refusal are said, too.)
            is_cut = not said and error.code() in _WENT_AWAY and context.is_active()
            if not has_answered and (LEADS_NOT in said or (is_cut and method in ASKING)):
                return False
            if is_cut:
                context.abort(grpc.StatusCode.UNAVAILABLE, CUT)
            details = [p for p in error.trailing_metadata() or () if p[0].endswith("-bin")]
            context.set_trailing_metadata(details)
            context.abort(error.code(), error.details())
    return True


def _onward(context: grpc.ServicerContext) -> dict[str, Any]:
    remaining = context.time_remaining()
    is_limited = remaining is not None and remaining < MOST_SECONDS
    return {"metadata": ((PASSED_ON, "1"),), "timeout": remaining if is_limited else None}
