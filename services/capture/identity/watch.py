"""One kind of object of the API server, by list and watch. `watcher` has one for each kind.

A list, in pages, says what there is, and from its version on a watch says what changes. A watch
that ends is begun again from the last version that was seen, which bookmarks keep recent; only
where the API server knows that version no more (410) is all listed again.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import orjson
from urllib3.exceptions import HTTPError

from services.capture.identity.objects import Json, key_of, resource_version

PAGE_OBJECTS = 500
"""Of a list: 10,000 pods at once would be 100 MB of JSON."""

WATCH_SECONDS = (240, 480)
"""How long the API server is asked to keep a watch; by chance, so that nodes come apart."""

SILENT_SECONDS = 30.0
"""Beyond that, for a connection that has died without a word."""

ANSWER_SECONDS = 60.0
"""For a page of a list."""

CONNECT_SECONDS = 10.0

BACK_OFF_SECONDS = (0.8, 30.0)
"""The first and the longest pause after an error, as client-go has them; half is by chance."""

MOST_LINE = 8 << 20
"""Octets of an event: etcd takes objects up to 1.5 MiB."""

GONE = 410


class RefusedError(Exception):
    """The API server has answered, and does not give it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Response(Protocol):
    """What the client's functions return when they do not read it (urllib3)."""

    status: int

    def stream(self, amt: int) -> Iterator[bytes]:
        """Yield octets as they come."""

    def close(self) -> None:
        """Close the connection."""


class Handler(Protocol):
    """Who is told of the objects of a kind."""

    def put(self, key: str, found: Json) -> None:
        """Tell of an object that is new or has changed. ValueError: it is not what it should be."""

    def remove(self, key: str) -> None:
        """Tell that an object is gone."""

    def known(self) -> set[str]:
        """Return the keys of what there was, as far as it was told."""

    def listed(self) -> None:
        """Tell that all that there is was told."""

    def trouble(self, reason: str) -> None:
        """Tell why nothing is known for now; "" when that is over."""


class Watch:
    """Lists and watches until it is stopped."""

    def __init__(self, call: Callable[..., Any], handler: Handler, stop: threading.Event) -> None:
        """`call`: the client's function that lists, as CoreV1Api().list_node."""
        self._call = call
        self._handler = handler
        self._stop = stop
        self._version = ""
        self._response: Any = None
        self._pause = 0.0

    def run(self) -> None:
        """Tell the handler of all objects and their changes; returns when `stop` is set."""
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._watch()
            except RefusedError as error:
                if error.status == GONE:
                    self._version = ""  # and that is no trouble
                    self._wait()
                else:
                    self._trouble(f"the API server says {error.status}: {error}")
            except Exception as error:  # of the network, TLS, credentials: all pass or are told
                self._trouble(f"{type(error).__name__}: {error}")

    def interrupt(self) -> None:
        """Let a run() that waits for octets notice that it is to stop; for another thread."""
        connection = getattr(self._response, "connection", None)
        plug = getattr(connection, "sock", None)
        if plug is not None:
            try:
                plug.shutdown(socket.SHUT_RDWR)  # close() would wait for the reader
            except OSError:
                return

    def _trouble(self, reason: str) -> None:
        if not self._stop.is_set():
            self._handler.trouble(reason)
            self._wait()

    def _wait(self) -> None:
        first, longest = BACK_OFF_SECONDS
        self._pause = min(longest, max(first, 2 * self._pause))
        self._stop.wait(self._pause * (0.5 + random.random() / 2))  # noqa: S311 - no secret

    def _list(self) -> None:
        there: set[str] = set()
        following = ""
        while True:
            page = self._page(following)
            for each in page.get("items") or ():
                key = self._put(each)
                if key:
                    there.add(key)
            following = (page.get("metadata") or {}).get("continue") or ""
            if not following:
                break
        for key in self._handler.known() - there:
            self._handler.remove(key)
        self._version = resource_version(page)
        if not self._version:
            raise RefusedError(200, "a list without a version")
        self._pause = 0.0
        self._handler.listed()

    def _page(self, following: str) -> Any:
        wanted: dict[str, Any] = {"limit": PAGE_OBJECTS}
        if following:
            wanted["_continue"] = following
        response = self._ask(ANSWER_SECONDS, wanted)
        try:
            found = orjson.loads(b"".join(response.stream(1 << 16)))
        finally:
            self._end(response)
        if not isinstance(found, dict):
            raise RefusedError(200, "a list that is no object")
        return found

    def _watch(self) -> None:
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - no secret
        wanted = {
            "watch": True,
            "allow_watch_bookmarks": True,
            "resource_version": self._version,
            "timeout_seconds": seconds,
        }
        response = self._ask(seconds + SILENT_SECONDS, wanted)
        self._handler.trouble("")
        try:
            for line in _lines(response):
                self._take(orjson.loads(line))
                self._pause = 0.0
                if self._stop.is_set():
                    return
        except (OSError, HTTPError):
            pass  # a connection that breaks is no more than a watch that ends
        finally:
            self._end(response)
        # An API server that ends each watch at once must not be asked again and again.
        self._wait()

    def _take(self, event: Any) -> None:
        kind, found = event["type"], event["object"]
        if kind == "ERROR":
            raise RefusedError(int(found.get("code") or 0), str(found.get("message") or ""))
        if kind in ("ADDED", "MODIFIED"):
            self._put(found)
        elif kind == "DELETED":
            self._handler.remove(key_of(found))
        self._version = resource_version(found) or self._version

    def _put(self, found: Json) -> str:
        """Tell of an object; return its key, "" for one that is none."""
        try:
            key = key_of(found)
            self._handler.put(key, found)
        except (ValueError, AttributeError):  # no name; no object
            return ""
        return key

    def _ask(self, seconds: float, wanted: dict[str, Any]) -> Any:
        timeout = (CONNECT_SECONDS, seconds)
        response = self._call(_preload_content=False, _request_timeout=timeout, **wanted)
        self._response = response
        if response.status != 200:
            try:
                raise RefusedError(response.status, _reason(b"".join(response.stream(1 << 16))))
            finally:
                self._end(response)
        return response

    def _end(self, response: Any) -> None:
        self._response = None
        response.close()


def _lines(response: Response) -> Iterator[bytes]:
    """Yield what was written, line by line. Raises ValueError for one that does not end."""
    rest = bytearray()
    for octets in response.stream(1 << 16):
        begin, rest = len(rest), rest + octets
        end = rest.find(b"\n", begin)
        while end >= 0:
            if end:
                yield bytes(rest[:end])
            del rest[: end + 1]
            end = rest.find(b"\n")
        if len(rest) > MOST_LINE:
            raise ValueError(f"an event of more than {MOST_LINE} octets")


def _reason(body: bytes) -> str:
    """Return the message of a Status object, or the begin of what there is."""
    try:
        return str(orjson.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode("utf-8", "replace")
