"""Which method and path of HTTP is which RPC: one table. Called by gateway and openapi."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from recorder.v1 import jobs_pb2, query_pb2

PREFIX = "/api/v1"

DOCUMENT = f"{PREFIX}/openapi.json"

HEALTH = "/health"

JOBS: ServiceDescriptor = jobs_pb2.DESCRIPTOR.services_by_name["JobsService"]
QUERY: ServiceDescriptor = query_pb2.DESCRIPTOR.services_by_name["QueryService"]

WHOLE = "*"
"""The body is the request itself."""

_PLACE = re.compile(r"\{(\w+)(=\*\*)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path of HTTP, and the RPC that answers there."""

    method: str
    path: str
    """Below PREFIX. `{name}` is a field of the request; `{id=**}` may have slashes in it."""
    rpc: MethodDescriptor
    body: str = ""
    """Field of the request that the body is, or WHOLE. Without a body, what is not in the path is
    in the parameters."""
    status: int = 200
    location: str = ""
    """Field of the request that names what was made, below the path."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Fields of the request that are in the path."""
        return tuple(found[1] for found in _PLACE.finditer(self.path))

    @property
    def address(self) -> str:
        """The whole path, as OpenAPI writes it."""
        return PREFIX + self.path.replace("=**", "")


def _of(service: ServiceDescriptor, *rows: tuple[str, str, str, str]) -> tuple[Route, ...]:
    return tuple(
        Route(method, path, service.methods_by_name[rpc], body) for method, path, rpc, body in rows
    )


def _both(path: str, rpc: str) -> tuple[tuple[str, str, str, str], ...]:
    """Return rows for GET with parameters, and POST for what is too long or nested for them."""
    return (("GET", path, rpc, ""), ("POST", path, rpc, WHOLE))


ROUTES: tuple[Route, ...] = (
    Route("POST", "/jobs", JOBS.methods_by_name["CreateJob"], "spec", 201, "name"),
    *_of(
        JOBS,
        ("GET", "/jobs", "ListJobs", ""),
        ("GET", "/jobs:watch", "WatchJobs", ""),
        ("POST", "/jobs:forecast", "ForecastJob", WHOLE),
        ("GET", "/jobs/{name}", "GetJob", ""),
        ("DELETE", "/jobs/{name}", "DeleteJob", ""),
        ("POST", "/jobs/{name}:stop", "StopJob", WHOLE),
        ("POST", "/jobs/{name}:extend", "ExtendJob", WHOLE),
        ("POST", "/jobs/{name}:pin", "PinJob", WHOLE),
        ("POST", "/jobs/{name}:unpin", "UnpinJob", WHOLE),
        ("POST", "/jobs/{name}:archive", "ArchiveJob", WHOLE),
    ),
    *_of(
        QUERY,
        *_both("/query", "Query"),
        *_both("/export", "Export"),
        ("GET", "/recordings", "ListRecordings", ""),
        ("GET", "/entries/{id=**}", "GetEntry", ""),
        ("GET", "/streams/{id}", "GetStream", ""),
        *_both("/histogram", "Histogram"),
        *_both("/top", "Top"),
        *_both("/map", "ServiceMap"),
        *_both("/connections", "Connections"),
        *_both("/diff", "Diff"),
        ("GET", "/kfl/fields", "ListFields", ""),
        *_both("/kfl/check", "Check"),
        *_both("/kfl/complete", "Complete"),
        *_both("/kfl/tokens", "Tokens"),
        *_both("/kfl/explain", "Explain"),
    ),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a path means."""

    routes: dict[str, Route]
    """By method; none when nothing is there."""
    values: dict[str, str]
    """Fields that are in the path."""


def find(path: str) -> Found:
    """Return what is at a path, with its escapes decoded. Time is linear in its length."""
    for pattern, routes in _patterns():
        if found := pattern.fullmatch(path):
            return Found(routes, found.groupdict())
    return Found({}, {})


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, Route]]]:
    paths = dict.fromkeys(route.path for route in ROUTES)
    return [
        (_pattern(path), {route.method: route for route in _at(path, ROUTES)}) for path in paths
    ]


def _at(path: str, routes: Iterable[Route]) -> Iterable[Route]:
    return (route for route in routes if route.path == path)


def _pattern(path: str) -> re.Pattern[str]:
    text, last = "", 0
    for found in _PLACE.finditer(path):
        # A name has neither slash nor colon, so at most one row fits a path.
        value = "(?s:.+)" if found[2] else "[^/:]+"
        text += re.escape(path[last : found.start()]) + f"(?P<{found[1]}>{value})"
        last = found.end()
    return re.compile(re.escape(PREFIX) + text + re.escape(path[last:]))
