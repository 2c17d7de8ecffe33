"""Errors that people read: sentences in this process, status and violations over gRPC."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

_RETURNED = "grpc's abort always raises"


class UserError(Exception):
    """What someone asked for cannot be done; its text is a sentence that says why, for people.

    The command line prints it as one line and exits with 2; a server answers INVALID_ARGUMENT.
    """


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is wrong."""

    field: str
    """Path of the field, as in `spec.start_time`."""
    description: str
    """What is wrong with it and what would be right, as a sentence."""


def invalid_argument(context: grpc.ServicerContext, violations: Iterable[Violation]) -> NoReturn:
    """Abort the call with INVALID_ARGUMENT and a google.rpc.BadRequest that names the fields."""
    found = list(violations)
    bad_request = error_details_pb2.BadRequest()
    for violation in found:
        bad_request.field_violations.add(field=violation.field, description=violation.description)
    detail = any_pb2.Any()
    detail.Pack(bad_request)
    status = status_pb2.Status(
        code=code_pb2.INVALID_ARGUMENT,
        message=" ".join(f"{v.field}: {v.description}" for v in found),
        details=[detail],
    )
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError(_RETURNED)


def not_found(context: grpc.ServicerContext, sentence: str) -> NoReturn:
    """Abort the call with NOT_FOUND."""
    context.abort(grpc.StatusCode.NOT_FOUND, sentence)
    raise AssertionError(_RETURNED)


def already_exists(context: grpc.ServicerContext, sentence: str) -> NoReturn:
    """Abort the call with ALREADY_EXISTS."""
    context.abort(grpc.StatusCode.ALREADY_EXISTS, sentence)
    raise AssertionError(_RETURNED)


def failed_precondition(context: grpc.ServicerContext, sentence: str) -> NoReturn:
    """Abort the call with FAILED_PRECONDITION."""
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, sentence)
    raise AssertionError(_RETURNED)


def read_violations(error: grpc.RpcError) -> list[Violation]:
    """Return what a server found wrong with a request; empty when it gave no BadRequest."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # details that contradict the status: not from this software
        return []
    if status is None:
        return []
    found = []
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            found += [Violation(v.field, v.description) for v in bad_request.field_violations]
    return found
