"""One request of HTTP and its answer, as the server hands them over. Called by gateway.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from services.gateway.answers import JSON
from services.gateway.problems import MEDIA_TYPE, Problem, ProblemError
from services.runtime.logging import logger

MAX_BODY_BYTES = 1 << 20
"""Largest body of a request: a statement is some lines, and a job not much more."""

MAX_READ_BYTES = 16 * MAX_BODY_BYTES
"""A body that is too large is read up to this, and forgotten: most programs read no answer before
they have sent all. What is larger finds the connection closed."""

BODY_SECONDS = 30.0
"""Longest wait for a body."""

SLOW_SECONDS = 30.0
"""A reader who takes nothing for so long is cut off: it holds a place that others wait for."""

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Headers = list[tuple[str, str]]


class ClientGone(Exception):  # noqa: N818 - no error: who asked has left
    """Who asked went away, or reads nothing."""


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.extra: Headers = []
        """Header fields of every answer to this request."""
        self.has_begun = False
        """The status has been sent."""
        self._is_whole = False
        self._receive = receive
        self._send = send

    def header(self, name: str) -> str:
        """Return the value of a header field; empty when there is none."""
        wanted = name.encode()
        values = [value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted]
        return ", ".join(values)

    async def body(self) -> bytes:
        """Return the body. Raises ProblemError when it is too large, or not said to be JSON."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._read_body()
        except TimeoutError:
            raise ProblemError(408, "The body did not come in time.") from None
        media_type = self.header("content-type").partition(";")[0].strip().lower()
        # Also keeps forms of web pages out, which browsers send anywhere without asking.
        if body and media_type != JSON:
            raise ProblemError(415, f"A body is JSON; say so with Content-Type: {JSON}.")
        return body

    async def _read_body(self) -> bytes:
        said = self.header("content-length")
        body, size, more = b"", 0, True
        if said.isdigit() and int(said[:20]) > MAX_READ_BYTES:
            size, more = MAX_READ_BYTES + 1, False
        while more and size <= MAX_READ_BYTES:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            size += len(event["body"])
            if size <= MAX_BODY_BYTES:
                body += event["body"]
            more = event["more_body"]
        if size > MAX_BODY_BYTES:
            raise ProblemError(413, f"A body has {MAX_BODY_BYTES} octets, no more.")
        return body

    async def while_there(self, work: Awaitable[None]) -> None:
        """Do `work`, and end it when the caller goes away before. Raises ClientGone then."""
        working = asyncio.ensure_future(work)
        leaving = asyncio.ensure_future(self._leave())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            # To the server, a caller who has the whole answer is gone as well.
            if not (working.done() or self._is_whole):
                raise ClientGone
            await working
        finally:
            for task in (working, leaving):
                task.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _leave(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def begin(self, status: int, media_type: str, headers: Headers) -> None:
        """Send the status and the header fields."""
        fields = [("content-type", media_type), ("x-content-type-options", "nosniff")]
        fields += [("cache-control", "no-store"), *headers, *self.extra]
        self.has_begun = True
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        await self._out({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, octets: bytes, more: bool = True) -> None:
        """Send octets of the answer. Raises ClientGone when the caller takes none."""
        self._is_whole = not more
        await self._out({"type": "http.response.body", "body": octets, "more_body": more})

    async def _out(self, event: Event) -> None:
        try:
            async with asyncio.timeout(SLOW_SECONDS):
                await self._send(event)
        except TimeoutError:
            logger(__name__).warning("a reader was too slow and is cut off")
            raise ClientGone from None

    async def send_whole(
        self, status: int, media_type: str, octets: bytes, headers: Headers | None = None
    ) -> None:
        """Send an answer of known length."""
        length = ("content-length", str(len(octets)))
        await self.begin(status, media_type, [*(headers or []), length])
        await self.write(octets, more=False)

    async def tell(self, problem: Problem) -> None:
        """Send a problem; break the connection when the answer has begun."""
        if self.has_begun:
            await self.abort()
            return
        # A body that was not read is not worth reading.
        close = [("connection", "close")] if problem.status in (408, 413, 431) else []
        await self.send_whole(problem.status, MEDIA_TYPE, problem.json(), close)

    async def abort(self) -> None:
        """Break the connection: who reads notices that this was not all."""
        self.scope["state"]["transport"].abort()
        # The server hears of it in the next turn of the loop.
        await asyncio.sleep(0)
