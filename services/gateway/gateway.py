"""The ASGI application: takes a request of HTTP, asks a service over gRPC, and writes its answer.

Run by app.
"""

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from recorder.v1 import query_pb2

from services.gateway import openapi
from services.gateway.answers import (
    ARROW,
    EXPORTS,
    JSON,
    Form,
    Octets,
    choose,
    file_name,
    forms,
    to_json,
)
from services.gateway.asking import read, read_timeout
from services.gateway.exchange import ClientGone, Exchange, Headers, Receive, Scope, Send
from services.gateway.origins import Origins
from services.gateway.problems import Problem, ProblemError, of_rpc
from services.gateway.routes import DOCUMENT, HEALTH, JOBS, QUERY, Route, find
from services.runtime.channel import open_async_channel
from services.runtime.logging import logger

MAX_HEADERS = 100
"""Header fields of a request; a browser behind proxies sends thirty."""

MAX_CALLS = 256
"""Calls at once that are no streams: what the servers behind this one take, several times."""

IDLE_SECONDS = 15.0
"""How often a comment comes among events; proxies end what is silent for a minute."""

LARGE_BYTES = 64 << 10
"""A larger message becomes JSON on another thread, since all others would wait meanwhile."""

HEALTH_SECONDS = 2.0

CALLER = "recorder-caller"
"""Metadata that says whom a call is for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one gateway takes at once."""

    streams: int = 128
    """Streams."""
    deadline_seconds: float = 60.0
    """Longest time for an answer that is no stream."""


@dataclass(frozen=True, slots=True)
class _Service:
    name: str
    address: str
    channel: grpc.aio.Channel


class Gateway:
    """Answers requests by asking a scheduler and a query service, each of them a gRPC channel."""

    def __init__(
        self, scheduler: str, query: str, origins: Origins, limits: Limits | None = None
    ) -> None:
        """Addresses of the services. Made inside the asyncio loop that runs it."""
        self._services = {
            JOBS.full_name: _Service("scheduler", scheduler, open_async_channel(scheduler)),
            QUERY.full_name: _Service("query service", query, open_async_channel(query)),
        }
        self._origins = origins
        self._limits = limits or Limits()
        self._calls = 0
        self._streams = 0
        self._endless: set[Any] = set()
        self._has_ended = False

    def end_streams(self) -> None:
        """End what would go on until its caller leaves; other answers come to their end."""
        self._has_ended = True
        for call in self._endless:
            call.cancel()

    async def close(self) -> None:
        """Close the channels."""
        for service in self._services.values():
            await service.channel.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI asks for it."""
        assert scope["type"] == "http"
        exchange = Exchange(scope, receive, send)
        try:
            await self._answer(exchange)
        except ClientGone:
            await exchange.abort()
        except ProblemError as error:
            await exchange.tell(error.problem)
        except Exception as error:  # every kind of bug ends here
            logger(__name__).error(
                "bug in a request",
                method=scope["method"],
                exception="".join(traceback.format_exception(error)),
            )
            await exchange.tell(Problem(500, "The gateway failed; its log says where.", "INTERNAL"))

    async def _answer(self, exchange: Exchange) -> None:
        if len(exchange.scope["headers"]) > MAX_HEADERS:
            raise ProblemError(431, f"A request has {MAX_HEADERS} header fields, no more.")
        exchange.extra = self._origins.check(exchange.header("host"), exchange.header("origin"))
        path = exchange.scope["path"]
        tell = {DOCUMENT: _tell_document, HEALTH: self._tell_health}.get(path)
        found = find(path)
        method = await _method_of(exchange, {"GET"} if tell else set(found.routes))
        if tell and method:
            await tell(exchange)
        elif method:
            await self._ask(exchange, found.routes[method], found.values)

    async def _ask(self, exchange: Exchange, route: Route, values: dict[str, str]) -> None:
        media_type, make = _wanted(route, exchange.header("accept"))
        seconds = read_timeout(exchange.header("grpc-timeout"))
        body = await exchange.body() if route.body else b""
        request = read(route, values, exchange.scope["query_string"], body)
        with self._place(route):
            work = (
                self._stream(exchange, route, request, make(), seconds)
                if make is not None
                else self._unary(exchange, route, request, media_type, seconds)
            )
            await exchange.while_there(work)

    @contextlib.contextmanager
    def _place(self, route: Route) -> Iterator[None]:
        """Hold one of the places for streams, or for other calls."""
        is_stream = route.rpc.server_streaming
        there, most = (
            (self._streams, self._limits.streams) if is_stream else (self._calls, MAX_CALLS)
        )
        if there >= most:
            what = "streams" if is_stream else "calls"
            raise ProblemError(
                429,
                f"{most} {what} are being answered, which is all that there is room for. "
                "Ask again when one has ended.",
                "RESOURCE_EXHAUSTED",
            )
        self._streams += is_stream
        self._calls += not is_stream
        try:
            yield
        finally:
            self._streams -= is_stream
            self._calls -= not is_stream

    async def _unary(
        self,
        exchange: Exchange,
        route: Route,
        request: Message,
        media_type: str,
        seconds: float | None,
    ) -> None:
        service = self._services[route.rpc.containing_service.full_name]
        most = self._limits.deadline_seconds
        call = service.channel.unary_unary(*_method(route))(
            request, timeout=min(seconds or most, most), metadata=_asked_for(exchange)
        )
        try:
            answer = await call
        except grpc.aio.AioRpcError as error:
            await exchange.tell(of_rpc(error, service.name, service.address))
            return
        headers = []
        if route.location:
            asked = getattr(request, route.body) if route.body else request
            name = getattr(asked, route.location)
            headers.append(("location", f"{route.address}/{name}"))
        await exchange.send_whole(route.status, media_type, await _json(answer), headers)

    async def _stream(
        self,
        exchange: Exchange,
        route: Route,
        request: Message,
        form: Form,
        seconds: float | None,
    ) -> None:
        service = self._services[route.rpc.containing_service.full_name]
        _prepare(request, form, exchange.header("last-event-id"))
        call = service.channel.unary_stream(*_method(route))(
            request, timeout=seconds, metadata=_asked_for(exchange)
        )
        if _is_endless(request):
            self._endless.add(call)
        try:
            # The status is sent with the first message, so that what is wrong has its own.
            message = await call.read()
            await exchange.begin(200, form.media_type, _stream_headers(route, request))
            with _kept_alive(exchange, form):
                while message is not grpc.aio.EOF:
                    octets = await _written(form, message)
                    if octets:
                        await exchange.write(octets)
                    message = await call.read()
            await exchange.write(form.end(), more=False)
        except asyncio.CancelledError:
            if not (self._has_ended and exchange.has_begun):
                raise
            await exchange.write(form.end(), more=False)
        except grpc.aio.AioRpcError as error:
            problem = of_rpc(error, service.name, service.address)
            if not exchange.has_begun:
                await exchange.tell(problem)
            elif (last := form.fail(problem)) is not None:
                await exchange.write(last, more=False)
            else:
                raise ClientGone from error
        finally:
            self._endless.discard(call)
            call.cancel()

    async def _tell_health(self, exchange: Exchange) -> None:
        """Tell whether both services serve: 200, or 503."""
        asked = {each.name: _serves(each.channel) for each in self._services.values()}
        said = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
        status = 200 if all(said.values()) else 503
        words = {name: "SERVING" if serves else "NOT_SERVING" for name, serves in said.items()}
        await exchange.send_whole(status, JSON, orjson.dumps(words))


async def _method_of(exchange: Exchange, methods: Set[str]) -> str:
    """Return the method of a request; "" when it is answered here. Raises ProblemError."""
    if not methods:
        raise ProblemError(
            404, f"There is nothing at this path; {DOCUMENT} lists what is.", "NOT_FOUND"
        )
    # The server leaves out the body of what answers a HEAD.
    method = str(exchange.scope["method"]).replace("HEAD", "GET")
    there = ", ".join(sorted({*methods, "OPTIONS"}))
    if method == "OPTIONS":
        asked = [("access-control-allow-methods", there)] if exchange.extra else []
        await exchange.send_whole(200, JSON, b"", [("allow", there), *asked])
        return ""
    if method not in methods:
        exchange.extra = [*exchange.extra, ("allow", there)]
        raise ProblemError(405, f"Here {there} can be used.", "UNIMPLEMENTED")
    return method


async def _tell_document(exchange: Exchange) -> None:
    await exchange.send_whole(200, JSON, openapi.document())


def _wanted(route: Route, accept: str) -> tuple[str, Callable[[], Form] | None]:
    """Return the media type of the answer, and what makes its form when it is a stream."""
    made: Mapping[str, Callable[[], Form] | None] = {JSON: None}
    if route.rpc.server_streaming:
        made = forms(route.rpc.name)
    media_type = choose(accept, list(made))
    if media_type is None:
        raise ProblemError(406, f"This can be had as {', '.join(made)}.")
    return media_type, made[media_type]


def _method(route: Route) -> tuple[str, Callable[..., bytes], Callable[..., Message]]:
    rpc = route.rpc
    return (
        f"/{rpc.containing_service.full_name}/{rpc.name}",
        GetMessageClass(rpc.input_type).SerializeToString,
        GetMessageClass(rpc.output_type).FromString,
    )


def _prepare(request: Message, form: Form, last_event_id: str) -> None:
    """Fill in what HTTP says elsewhere: how entries come, and from where a watch goes on."""
    names = request.DESCRIPTOR.fields_by_name
    if isinstance(form, Octets):
        form.prepare(request)  # type: ignore[arg-type]
    elif form.media_type == ARROW:
        request.format = query_pb2.ENTRY_FORMAT_ARROW  # type: ignore[attr-defined]
    elif "format" in names and not request.format:  # type: ignore[attr-defined]
        request.format = query_pb2.ENTRY_FORMAT_JSON  # type: ignore[attr-defined]
    if "after_revision" in names and last_event_id.isascii() and last_event_id.isdigit():
        request.after_revision = min(int(last_event_id[:20]), 2**64 - 1)  # type: ignore[attr-defined]


def _asked_for(exchange: Exchange) -> tuple[tuple[str, str], ...]:
    """Return the metadata that says whom a call is for; the query service lets them take turns."""
    host, *_ = exchange.scope.get("client") or ("",)
    return ((CALLER, host),)


def _is_endless(request: Message) -> bool:
    return bool(getattr(request, "follow", request.DESCRIPTOR.name == "WatchJobsRequest"))


def _stream_headers(route: Route, request: Message) -> Headers:
    if route.rpc.name != "Export":
        return []
    _, suffix = EXPORTS[request.format]  # type: ignore[attr-defined]
    name = file_name(request.kfl, suffix)  # type: ignore[attr-defined]
    return [("content-disposition", f'attachment; filename="{name}"')]


@contextlib.contextmanager
def _kept_alive(exchange: Exchange, form: Form) -> Iterator[None]:
    """Write now and then that more may come, where the form has a word for it."""

    async def keep() -> None:
        with contextlib.suppress(ClientGone):
            while octets := form.idle():
                await asyncio.sleep(IDLE_SECONDS)
                await exchange.write(octets)

    keeping = asyncio.ensure_future(keep())
    try:
        yield
    finally:
        keeping.cancel()


async def _json(message: Message) -> bytes:
    if message.ByteSize() > LARGE_BYTES:
        return await asyncio.to_thread(to_json, message)
    return to_json(message)


async def _written(form: Form, message: Message) -> bytes:
    if message.ByteSize() > LARGE_BYTES:
        return await asyncio.to_thread(form.write, message)
    return form.write(message)


async def _serves(channel: grpc.aio.Channel) -> bool:
    ask = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    try:
        answer = await ask(health_pb2.HealthCheckRequest(), timeout=HEALTH_SECONDS)
    except grpc.aio.AioRpcError:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
