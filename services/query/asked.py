"""What a request asks, read and checked. Called by query_rpc; a wrong request ends here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import grpc
from recorder.v1 import query_pb2

import kfl
from services.query import plan
from services.query.catalog import Catalog
from services.query.livememory import RECORD
from services.query.plan import Window
from services.query.refusals import refuse, refuse_live, refuse_statement

MAX_LIMIT = 10_000_000
"""Largest limit of a request; beyond it a limit means nothing."""

MAX_RECORDINGS = 64
"""Recordings in one statement: each is opened, and its journal is read."""

NO_LIVE = "Live traffic cannot be asked here; the answer is from the named recordings only."


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was found right."""

    filter: kfl.Filter
    window: Window
    limit: int | None
    descending: bool
    follow: bool
    format: int
    warnings: tuple[str, ...]
    is_live: bool = False
    """Live traffic is asked, too."""

    @property
    def recordings(self) -> tuple[str, ...]:
        """Names of the recordings, in the order of the statement."""
        return tuple(dict.fromkeys(self.filter.recordings()))

    @property
    def places(self) -> tuple[str, ...]:
        """The recordings, and then the name of live traffic if it is asked."""
        return (*self.recordings, *((RECORD,) if self.is_live else ()))


def read_statement(
    text: str, context: grpc.ServicerContext, macros: Mapping[str, str]
) -> kfl.Filter:
    """Return the filter of a statement, or abort."""
    try:
        statement = kfl.compile(text, macros)
        names = statement.recordings()
    except kfl.KflError as error:
        refuse_statement(context, error)
    if len(set(names)) > MAX_RECORDINGS:
        refuse(context, "kfl", f"A statement can name {MAX_RECORDINGS} recordings, no more.")
    return statement


def read_request(
    request: query_pb2.QueryRequest,
    context: grpc.ServicerContext,
    catalog: Catalog,
    macros: Mapping[str, str],
    *,
    has_live: bool = False,
) -> Asked:
    """Return what a request asks, or abort. `macros` are operators' words of KFL.

    `has_live`: live traffic can be asked.
    """
    statement = read_statement(request.kfl, context, macros)
    if not has_live and not statement.recordings():
        refuse_live(context, catalog)
    if request.limit > MAX_LIMIT:
        refuse(context, "limit", f"A limit is at most {MAX_LIMIT}; 0 means no limit of its own.")
    if request.follow and request.descending:
        refuse(context, "descending", "Following goes forward in time; leave descending out.")
    if request.follow and request.format == query_pb2.ENTRY_FORMAT_COUNT:
        refuse(context, "format", "What is followed has no count; leave out follow, or the format.")
    if request.format not in query_pb2.EntryFormat.values():
        refuse(context, "format", f"{request.format} is not an EntryFormat.")
    start_ns = _nanoseconds(request, "start_time", context)
    end_ns = _nanoseconds(request, "end_time", context)
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        refuse(context, "end_time", "The end is not after the start.")
    limits = [limit for limit in (request.limit or None, statement.limit) if limit is not None]
    warnings = [_warning(found) for found in statement.warnings]
    if statement.needs_live and not has_live:
        warnings.append(NO_LIVE)
    return Asked(
        filter=statement,
        window=Window(start_ns, end_ns),
        limit=min(limits, default=None),
        descending=request.descending,
        follow=request.follow,
        format=request.format,
        warnings=tuple(warnings),
        is_live=has_live and statement.needs_live,
    )


def _nanoseconds(
    request: query_pb2.QueryRequest,
    field: Literal["start_time", "end_time"],
    context: grpc.ServicerContext,
) -> int | None:
    if not request.HasField(field):
        return None
    time = getattr(request, field)
    try:
        time.ToDatetime()
    except (ValueError, OverflowError):
        refuse(context, field, "This is not a time: a Timestamp is in the years 1 to 9999.")
    return min(max(int(time.ToNanoseconds()), plan.EARLIEST_NS), plan.LATEST_NS)


def _warning(found: kfl.Diagnostic) -> str:
    text = f"line {found.line}, column {found.column}: {found.message}"
    return f"{text} {found.suggestion}" if found.suggestion else text
