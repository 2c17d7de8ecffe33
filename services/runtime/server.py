"""The gRPC server of every service: health, reflection, sizes, and what happens on a bug."""

import errno
import socket
import traceback
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from services.runtime.channel import MESSAGE_SIZES
from services.runtime.errors import UserError
from services.runtime.logging import logger

WORKERS = 64
"""Calls served at once. A stream (an agent, a watcher, a follower) holds one for as long as it
lasts; a call beyond them is refused with RESOURCE_EXHAUSTED and does not wait unseen."""

KEEPALIVE_MIN_MS = 10_000
"""Clients may ping this often; grpc's default of five minutes would cut off our own agents."""

OTHER_ADDRESS = "Choose another address with --listen."

AddServices = Callable[[grpc.Server], list[str]]
"""Adds servicers to the server and returns the full names of their services."""


class Server:
    """A running server; made by `serve`."""

    def __init__(
        self, server: grpc.Server, host: str, port: int, checks: health.HealthServicer
    ) -> None:
        self._server = server
        self._checks = checks
        self.host = host
        """Host part of the address that it listens on, as it was given."""
        self.port = port
        """The port, also where 0 was asked for."""

    @property
    def address(self) -> str:
        """`host:port`, as a client needs it."""
        return f"{self.host}:{self.port}"

    def stop(self, grace: float = 5.0) -> None:
        """Say NOT_SERVING, take no new calls, give running ones `grace` seconds, then end."""
        self._checks.enter_graceful_shutdown()
        self._server.stop(grace).wait()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server has ended; True if it still runs after `timeout` seconds."""
        return bool(self._server.wait_for_termination(timeout))


def serve(address: str, add_services: AddServices, workers: int = WORKERS) -> Server:
    """Start a server on `host:port` and return it while it serves; port 0 takes a free one.

    Raises OSError with a sentence when the address cannot be had.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=workers, thread_name_prefix="rpc"),
        interceptors=[_Bugs()],
        maximum_concurrent_rpcs=workers,
        options=[
            *MESSAGE_SIZES,
            # Otherwise a second server would share the port, and answer every other call.
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MIN_MS),
        ],
    )
    names = add_services(server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        [*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
    host = address.rpartition(":")[0]
    port = _bind(server, address)
    server.start()
    for name in ("", *names):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    return Server(server, host, port, checks)


def _bind(server: grpc.Server, address: str) -> int:
    # Tried without grpc first, which writes lines of its own when it cannot.
    reason = why_not_listen(address)
    if reason:
        raise OSError(reason)
    try:
        port = int(server.add_insecure_port(address))
    except RuntimeError as error:
        raise OSError(f"Cannot listen on {address}. {OTHER_ADDRESS}") from error
    if not port:
        raise OSError(f"Cannot listen on {address}. {OTHER_ADDRESS}")
    return port


def why_not_listen(address: str) -> str:
    """Return a sentence that says why this address cannot be listened on; "" when it can."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, _, _, target = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return (
                f"Cannot listen on {address}: another process has that port. Stop it, or choose "
                "another address with --listen."
            )
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return f"Cannot listen on {address}: {reason}. {OTHER_ADDRESS}"
    return ""


class _Bugs(grpc.ServerInterceptor):  # type: ignore[misc]
    """Turns an exception that nobody expected into INTERNAL, and logs where it came from."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        make = {
            (False, False): (grpc.unary_unary_rpc_method_handler, "unary_unary"),
            (False, True): (grpc.unary_stream_rpc_method_handler, "unary_stream"),
            (True, False): (grpc.stream_unary_rpc_method_handler, "stream_unary"),
            (True, True): (grpc.stream_stream_rpc_method_handler, "stream_stream"),
        }
        factory, attribute = make[bool(handler.request_streaming), bool(handler.response_streaming)]
        guard = _guard_stream if handler.response_streaming else _guard_unary
        return factory(
            guard(method, getattr(handler, attribute)),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guard_unary(method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return behavior(request, context)
        except Exception as error:  # every kind of bug ends here
            _answer(method, context, error)

    return guarded


def _guard_stream(method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from behavior(request, context)
        except Exception as error:  # every kind of bug ends here
            _answer(method, context, error)

    return guarded


def _answer(method: str, context: grpc.ServicerContext, error: Exception) -> None:
    """Abort with what the caller may know about `error`; re-raise what is grpc's own doing."""
    # context.abort() raises a bare Exception after setting the code; a caller who went away shows
    # up as RpcError.
    aborted = type(error) is Exception and not error.args and context.code() is not None
    if aborted or not context.is_active():
        raise error
    if isinstance(error, UserError):
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    logger(__name__).error(
        "bug in a call",
        method=method,
        exception="".join(traceback.format_exception(error)),
    )
    first_line = (str(error).splitlines() or [""])[0]
    context.abort(
        grpc.StatusCode.INTERNAL,
        f"{method.rpartition('/')[2]} failed inside the service: "
        f"{type(error).__name__}: {first_line} (the service's log says where)",
    )
