"""Calls to the services: which address, and what an RPC error means to the person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import grpc
import typer
from recorder.v1 import jobs_pb2_grpc, query_pb2_grpc

from services.cli.terminal import BAD_INPUT, FAILED, CommandError
from services.runtime.channel import open_channel
from services.runtime.errors import UserError, Violation, read_violations

CALL_SECONDS = 20.0
"""Longest wait for one answer that is no stream."""

SchedulerAddress = Annotated[
    str,
    typer.Option(
        "--scheduler",
        envvar="RECORDER_SCHEDULER",
        metavar="HOST:PORT",
        help="Address of the scheduler.",
    ),
]
QueryAddress = Annotated[
    str,
    typer.Option(
        "--query-address",
        envvar="RECORDER_QUERY",
        metavar="HOST:PORT",
        help="Address of the query service.",
    ),
]
SCHEDULER = "127.0.0.1:8897"
QUERY = "127.0.0.1:8898"


FLAGS = {
    "start_time": "--start",
    "daily_iterations": "--iterations",
    "duration_minutes": "--duration",
    "expiration_minutes": "--expiration",
    "body_limit": "--body-limit",
    "labels": "--label",
    "description": "--description",
    "size_limit_bytes": "--size-limit",
    "reason": "--reason",
    "probe_seconds": "--probe",
}
"""What a person calls the fields of a job."""


@dataclass(frozen=True, slots=True)
class _Service:
    name: str
    command: str
    flag: str
    variable: str


_SCHEDULER = _Service("scheduler", "recorder scheduler", "--scheduler", "RECORDER_SCHEDULER")
_QUERY = _Service("query service", "recorder query", "--query-address", "RECORDER_QUERY")


@contextmanager
def scheduler(address: str, kfl: str = "") -> Iterator[jobs_pb2_grpc.JobsServiceStub]:
    """Give a stub of the scheduler; an RPC error inside becomes a CommandError.

    With the KFL statement that the call is about, a mistake in it is shown where it is.
    """
    with _calls(_SCHEDULER, address, kfl) as channel:
        yield jobs_pb2_grpc.JobsServiceStub(channel)


@contextmanager
def query(address: str, kfl: str = "") -> Iterator[query_pb2_grpc.QueryServiceStub]:
    """Give a stub of the query service; as `scheduler`."""
    with _calls(_QUERY, address, kfl) as channel:
        yield query_pb2_grpc.QueryServiceStub(channel)


@contextmanager
def _calls(service: _Service, address: str, kfl: str) -> Iterator[grpc.Channel]:
    check_address(address, service.flag)
    with open_channel(address) as channel:
        try:
            yield channel
        except grpc.RpcError as error:
            raise _meaning(error, service, address, kfl) from None


def check_address(address: str, flag: str) -> None:
    """Raise UserError unless the text is host:port."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{flag}: {address!r} is not an address; write host:port, as in {QUERY}.")


def _meaning(error: grpc.RpcError, service: _Service, address: str, kfl: str) -> CommandError:
    code, details = error.code(), str(error.details() or "")
    if code is grpc.StatusCode.UNAVAILABLE:
        return CommandError(
            f"The {service.name} at {address} does not answer. Start it with `recorder up` or "
            f"`{service.command}`, or say where it is with {service.flag} or {service.variable}.",
            FAILED,
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CommandError(
            f"The {service.name} at {address} did not answer in time. {details}".rstrip(), FAILED
        )
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        violations = read_violations(error)
        lines = [_violation(violation, kfl) for violation in violations]
        return CommandError("\n".join(lines) or details, BAD_INPUT)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CommandError(
            f"What answers at {address} is not the {service.name}: {details}", FAILED
        )
    names = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS)
    return CommandError(
        details or f"The {service.name} answered {code.name}.",
        BAD_INPUT if code in names else FAILED,
    )


def _violation(violation: Violation, kfl: str) -> str:
    """Return what is wrong with one field; with a caret under it where it is the statement."""
    if kfl and violation.field.rpartition(".")[2] == "kfl":
        from services.cli.statement import errors

        shown = errors(kfl, violation.description)
        if shown:
            return shown
    field = violation.field.rpartition(".")[2]
    return f"{FLAGS.get(field, field)}: {violation.description}".removeprefix(": ")
