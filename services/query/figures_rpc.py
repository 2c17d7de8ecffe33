"""RPCs that count entries rather than send them. Part of query_rpc."""

import math

import grpc
from recorder.v1 import query_pb2

from kfl import KflError
from services.query import counts, difference, figures, messages, peers
from services.query.base import QueryBase
from services.query.counts import MAX_BUCKETS, Keyed
from services.query.difference import Change, Difference, Side
from services.query.matched import stored
from services.query.question import Work, read, read_limit, work
from services.query.refusals import refuse
from services.query.selector import Selector

TOP_VALUES = 10
MAX_TOP_VALUES = 10_000
"""Some 100 octets each, and as many more as the value has."""

SERIES = 5
"""Values that a histogram tells apart: as many as a chart has colours for."""
MAX_SERIES = 50

EDGES = 1000
MAX_EDGES = 10_000

CONNECTIONS = 100
MAX_CONNECTIONS = 10_000

DIFFERENCES = 100
MAX_DIFFERENCES = 2_000

MAX_THRESHOLD = 1000.0

_DIMENSIONS = {
    "path": query_pb2.DIMENSION_PATH,
    "status": query_pb2.DIMENSION_STATUS,
    "peers": query_pb2.DIMENSION_PEERS,
}

_CHANGES = {
    Change.APPEARED: query_pb2.CHANGE_APPEARED,
    Change.VANISHED: query_pb2.CHANGE_VANISHED,
    Change.RATE: query_pb2.CHANGE_RATE,
    Change.LATENCY: query_pb2.CHANGE_LATENCY,
}


class FiguresRpc(QueryBase):
    """Histogram, Top, ServiceMap, Connections and Diff."""

    def Histogram(  # noqa: N802 - the names are in the proto
        self, request: query_pb2.HistogramRequest, context: grpc.ServicerContext
    ) -> query_pb2.HistogramResponse:
        """Count entries by time."""
        asked = read(request.question, context, self)
        by = self._selector(request.by, "by", context) if request.by else None
        series = read_limit(request.by_limit, SERIES, MAX_SERIES, "by_limit", context)
        with work(self, context, [asked]) as (one,):
            most = MAX_BUCKETS // (series + 1) if by else MAX_BUCKETS
            width_ms = _width_ms(request.bucket_ms, most, one, context)
            columns = [stored("start_time"), *figures.columns(one.protocols)]
            if by is None:
                buckets = counts.by_time(one.session, one.found(columns), width_ms * 1000)
                entries = sum(each.figures.entries for each in buckets)
            else:
                one.notes += by.warnings
                keyed = Keyed(by, one.protocols)
                found = one.found([*columns, keyed.column()])
                values, entries = counts.frequent(one.session, found, keyed, series)
                buckets = counts.by_time_and_value(
                    one.session, found, width_ms * 1000, keyed, values
                )
            return query_pb2.HistogramResponse(
                bucket_ms=width_ms,
                buckets=[
                    query_pb2.Bucket(
                        start_time=messages.at_us(each.start_us),
                        value=each.value and each.value[: counts.MAX_CHARACTERS],
                        figures=messages.figures(each.figures),
                    )
                    for each in buckets
                ],
                account=one.account(entries),
            )

    def Top(  # noqa: N802
        self, request: query_pb2.TopRequest, context: grpc.ServicerContext
    ) -> query_pb2.TopResponse:
        """Count entries by the values of a field."""
        asked = read(request.question, context, self)
        selector = self._selector(request.field, "field", context)
        limit = read_limit(request.limit, TOP_VALUES, MAX_TOP_VALUES, "limit", context)
        with work(self, context, [asked]) as (one,):
            one.notes += selector.warnings
            keyed = Keyed(selector, one.protocols)
            found = one.found([*figures.columns(one.protocols), keyed.column()])
            top = counts.by_value(one.session, found, keyed, limit)
            return query_pb2.TopResponse(
                values=[
                    query_pb2.TopValue(value=value, figures=messages.figures(sums))
                    for value, sums in top.values
                ],
                without=top.without,
                different=top.different,
                account=one.account(top.entries, truncated=top.different > limit),
            )

    def ServiceMap(  # noqa: N802
        self, request: query_pb2.ServiceMapRequest, context: grpc.ServicerContext
    ) -> query_pb2.ServiceMapResponse:
        """Count entries by who asked and who answered."""
        asked = read(request.question, context, self)
        limit = read_limit(request.limit, EDGES, MAX_EDGES, "limit", context)
        with work(self, context, [asked]) as (one,):
            columns = [
                *peers.peer_columns(),
                stored("protocol_abbr"),
                *figures.columns(one.protocols),
            ]
            edges = peers.by_peers(one.session, one.found(columns), limit)
            return query_pb2.ServiceMapResponse(
                edges=[
                    query_pb2.Edge(
                        src=messages.peer(edge.src),
                        dst=messages.peer(edge.dst),
                        protocol=edge.protocol,
                        figures=messages.figures(edge.figures),
                    )
                    for edge in edges[:limit]
                ],
                account=one.account(
                    sum(edge.figures.entries for edge in edges[:limit]),
                    truncated=len(edges) > limit,
                ),
            )

    def Connections(  # noqa: N802
        self, request: query_pb2.ConnectionsRequest, context: grpc.ServicerContext
    ) -> query_pb2.ConnectionsResponse:
        """Add entries up by stream."""
        asked = read(request.question, context, self)
        limit = read_limit(request.limit, CONNECTIONS, MAX_CONNECTIONS, "limit", context)
        with work(self, context, [asked]) as (one,):
            found = one.found([*peers.stream_columns(), *figures.columns(one.protocols)])
            streams = peers.by_stream(one.session, found, one.sources("streams"), limit)
            return query_pb2.ConnectionsResponse(
                connections=map(messages.connection, streams[:limit]),
                account=one.account(
                    sum(each.figures.entries for each in streams[:limit]),
                    truncated=len(streams) > limit,
                ),
            )

    def Diff(  # noqa: N802
        self, request: query_pb2.DiffRequest, context: grpc.ServicerContext
    ) -> query_pb2.DiffResponse:
        """Say what is different between two sets of entries."""
        asked = [read(each.question, context, self) for each in (request.before, request.after)]
        limit = read_limit(request.limit, DIFFERENCES, MAX_DIFFERENCES, "limit", context)
        threshold = request.threshold or difference.THRESHOLD
        if not (math.isfinite(threshold) and 1.0 < threshold <= MAX_THRESHOLD):
            refuse(
                context,
                "threshold",
                f"It is how many times higher or lower: above 1, at most {MAX_THRESHOLD:g}.",
            )
        runs = (request.before.run, request.after.run)
        with work(self, context, asked, runs=runs) as both:
            before, after = _sides(both)
            found = difference.differences(before, after, threshold)
            kept = difference.limited(found, limit)
            return query_pb2.DiffResponse(
                differences=[_difference(each, before, after) for each in kept],
                threshold=threshold,
                least_entries=difference.LEAST_ENTRIES,
                before_seconds=before.seconds,
                after_seconds=after.seconds,
                account=_account(both, before, after, truncated=len(kept) < len(found)),
            )

    def _selector(self, text: str, field: str, context: grpc.ServicerContext) -> Selector:
        if not text:
            refuse(context, field, "Name a field, such as response.status.")
        try:
            return Selector(text, self.macros)
        except KflError as error:
            refuse(context, field, str(error))


def _width_ms(given: int, most: int, one: Work, context: grpc.ServicerContext) -> int:
    """Return the width of a bucket; abort when there would be too many."""
    span = counts.span_us(one.entries, one.asked.window)
    first, last = span or (0, 0)
    if not given:
        return counts.chosen_ms(first, last)
    least = -(-(last - first) // (1000 * most))
    if given < least:
        refuse(
            context,
            "bucket_ms",
            f"There would be more than {most} buckets. {least} ms is the least for this time; 0 "
            "chooses.",
        )
    # Wider than the time itself says no more, and a number too large is none for SQL.
    return min(given, counts.BUCKETS_MS[-1])


def _sides(both: list[Work]) -> tuple[Side, Side]:
    found, sides = [], []
    for one in both:
        columns = [*difference.columns(one.protocols), *figures.columns(one.protocols)]
        seconds = difference.seconds([each.taken for each in one.opened], one.asked.window)
        found.append(one.found(columns))
        sides.append(difference.side(one.session, found[-1], seconds))
        if not sides[-1].is_whole:
            one.notes.append(
                f"Only the {difference.MAX_VALUES} most frequent paths, statuses and peers of "
                f"{', '.join(each.name for each in one.opened)} are compared."
            )
    before, after = sides
    session = both[0].session
    return (
        difference.completed(session, found[0], before, after),
        difference.completed(session, found[1], after, before),
    )


def _difference(found: Difference, before: Side, after: Side) -> query_pb2.Difference:
    return query_pb2.Difference(
        dimension=_DIMENSIONS[found.dimension],
        value=found.value,
        changes=[_CHANGES[change] for change in found.changes],
        before=messages.figures(found.before),
        after=messages.figures(found.after),
        before_rate=found.before.entries / before.seconds if found.before else 0.0,
        after_rate=found.after.entries / after.seconds if found.after else 0.0,
    )


def _account(both: list[Work], before: Side, after: Side, *, truncated: bool) -> query_pb2.Account:
    """Return one account over both sides."""
    one, other = both
    found = one.account(_entries(before) + _entries(after), truncated=truncated)
    more = other.account(0)
    status = found.status
    status.entries_scanned += more.status.entries_scanned
    for values, added in (
        (status.recordings, more.status.recordings),
        (status.warnings, more.status.warnings),
    ):
        values.extend(value for value in added if value not in values)
    found.losses.extend(loss for loss in more.losses if loss not in found.losses)
    return found


def _entries(side: Side) -> int:
    """Return the entries of a side: each has peers."""
    return sum(sums.entries for (name, _), sums in side.figures.items() if name == "peers")
