"""What a caller is told when something is wrong: problem+json (RFC 9457). Called by all files here.

A status of gRPC becomes one of HTTP, by the table that google.rpc.Code has in its comments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import grpc
import orjson

from services.runtime.errors import Violation, read_violations

MEDIA_TYPE = "application/problem+json"

CLIENT_CLOSED = 499
"""nginx's status for a caller who went away before the answer, which google.rpc.Code refers to."""

_STATUS = {
    grpc.StatusCode.CANCELLED: CLIENT_CLOSED,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
"""All others are 500."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong."""

    status: int
    """Of HTTP."""
    detail: str
    """What is wrong and what would be right, in sentences."""
    code: str
    """The same as a name of google.rpc.Code, for programs."""
    violations: Sequence[Violation] = ()
    """Fields of the request that are wrong."""

    def json(self) -> bytes:
        """Return the document."""
        title = "Client Closed Request"
        if self.status != CLIENT_CLOSED:
            title = HTTPStatus(self.status).phrase
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.violations:
            found["violations"] = [
                {"field": each.field, "description": each.description} for each in self.violations
            ]
        return orjson.dumps(found)


class ProblemError(Exception):
    """A request that ends with a problem."""

    def __init__(
        self, status: int, detail: str, code: str = "INVALID_ARGUMENT", field: str = ""
    ) -> None:
        super().__init__(detail)
        violations = (Violation(field, detail),) if field else ()
        self.problem = Problem(status, detail, code, violations)


def of_rpc(error: grpc.aio.AioRpcError, service: str, address: str) -> Problem:
    """Return what an error of a service means to the caller."""
    code, details = error.code(), str(error.details() or "")
    if code is grpc.StatusCode.UNAVAILABLE:
        details = f"The {service} at {address} does not answer. Ask again in a moment."
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        details = f"The {service} did not answer in time. {details}".rstrip()
    violations = read_violations(error)
    return Problem(
        _STATUS.get(code, 500),
        details or f"The {service} answered {code.name}.",
        code.name,
        violations,
    )
