"""The gateway process: a server of HTTP/1.1, on a thread with its loop. Called by the CLI."""

import asyncio
import socket
import threading

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.gateway.gateway import Gateway, Limits
from services.gateway.origins import Origins
from services.gateway.problems import MEDIA_TYPE, Problem
from services.runtime.logging import logger
from services.runtime.process import run_until_signal
from services.runtime.server import why_not_listen
from services.runtime.settings import GatewaySettings

MAX_CONNECTIONS = 512
"""Connections at once: half of the file descriptors that a process has where nobody asked for more.
Each holds one, and up to 64 KiB on the way in and out."""

MAX_HEAD_BYTES = 64 << 10
"""Largest head of a request. A statement in a parameter has room."""

HEAD_SECONDS = 10.0
"""Longest wait for a whole head, also of the first request of a connection."""

KEEP_ALIVE_SECONDS = 30
"""How long a connection waits for its next request."""

BACKLOG = 128

START_SECONDS = 30.0

STOP_SHARE = 0.8
"""Part of the grace that running answers get; then they are cut off."""


class Connection(H11Protocol):
    """A connection with a limit on how many there are and on how long a head takes."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; the time for the first head counts from here."""
        super().connection_made(transport)
        # So that an answer that cannot be finished can break the connection.
        self.app_state = {"transport": transport}
        if len(self.connections) > MAX_CONNECTIONS:
            logger(__name__).warning("too many connections; one is refused")
            transport.abort()
            return
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take octets; those of an unfinished head, or that nobody reads, start the time for it."""
        super().data_received(data)
        theirs = self.conn.their_state
        is_head = theirs is h11.IDLE and bool(self.conn.trailing_data[0])
        # The rest of a body that has been answered already.
        is_rest = theirs is h11.SEND_BODY and self.conn.our_state is h11.DONE
        if not (is_head or is_rest):
            self._disarm()
        elif self._deadline is None:
            self._expect()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem, and close."""
        octets = Problem(400, msg, "INVALID_ARGUMENT").json()
        headers = [
            ("content-type", MEDIA_TYPE),
            ("content-length", str(len(octets))),
            ("connection", "close"),
        ]
        response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=octets), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class App:
    """The gateway with its server."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._serving = threading.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._server: uvicorn.Server | None = None
        self._gateway: Gateway | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self.address = ""
        """`host:port`, once it serves."""

    def start(self) -> None:
        """Serve. Raises OSError with a sentence when the address cannot be had."""
        self._socket = _listen(self._settings.listen)
        host = self._settings.listen.rpartition(":")[0]
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._thread.start()
        if not self._serving.wait(START_SECONDS):
            raise OSError(f"The gateway does not serve at {self.address}.")
        logger(__name__).info(
            "gateway is ready",
            address=self.address,
            scheduler=self._settings.scheduler,
            query=self._settings.query,
        )

    def stop(self) -> None:
        """End followers, let running answers end within the grace, and close."""
        if self._loop is not None and self._gateway is not None and self._server is not None:
            self._loop.call_soon_threadsafe(self._gateway.end_streams)
            self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(self._settings.grace_seconds)
        if self._socket is not None:
            self._socket.close()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        self._gateway = Gateway(
            settings.scheduler,
            settings.query,
            Origins(settings.hosts, settings.cors_origins),
            Limits(settings.streams, settings.deadline_seconds),
        )
        self._server = _Server(
            uvicorn.Config(
                self._gateway,
                http=Connection,
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
                access_log=False,
                log_level="error",  # what it warns about is what callers do wrong
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, int(settings.grace_seconds * STOP_SHARE)),
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            ),
            self._serving,
        )
        try:
            await self._server.serve([self._socket] if self._socket else None)
        finally:
            await self._gateway.close()


class _Server(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config, serving: threading.Event) -> None:
        super().__init__(config)
        self._serving = serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve."""
        await super().startup(sockets)
        self._serving.set()


def _listen(address: str) -> socket.socket:
    if reason := why_not_listen(address):
        raise OSError(reason)
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family)


def run(settings: GatewaySettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code of the process.

    Raises OSError with a sentence when the address cannot be had.
    """
    app = App(settings)
    return run_until_signal(app.start, app.stop, grace_seconds=settings.grace_seconds)
