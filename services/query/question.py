"""A Question of query.proto, read, and what is needed to answer it. Called by figures_rpc and
lookup_rpc.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import grpc
from recorder.v1 import query_pb2

from services.query import ledger, messages, protocols
from services.query.asked import Asked, read_request
from services.query.base import Caller, QueryBase
from services.query.catalog import Opened
from services.query.engine import Session
from services.query.matched import Column, Matched, matched
from services.query.plan import Source
from services.query.refusals import refuse, told


@dataclass(slots=True)
class Work:
    """A question with the recordings as they are now."""

    asked: Asked
    opened: Sequence[Opened]
    session: Session
    notes: list[str]
    begin: float = field(default_factory=time.monotonic)

    @property
    def entries(self) -> list[Source]:
        """The entries that are asked."""
        return self.sources("entries")

    def sources(self, table: str) -> list[Source]:
        """Return what there is of a table in the window; of streams, all."""
        if table == "entries":
            return [found.source(table, self.asked.window) for found in self.opened]
        return [found.source(table) for found in self.opened]

    def protocols(self) -> frozenset[str] | None:
        """Return every protocol's name in the entries."""
        return protocols.of(self.entries)

    def found(self, columns: Sequence[Column]) -> Matched:
        """Return the entries that match. Raises EngineError."""
        found = matched(self.session, self.asked.filter, self.entries, self.asked.window, columns)
        self.notes += found.notes
        return found

    def account(self, entries: int, *, truncated: bool = False) -> query_pb2.Account:
        """Return how the question was answered, and the losses of its recordings."""
        window = self.asked.window
        losses = ledger.losses(self.sources("losses"), window)
        damage = [sentence for found in self.opened for sentence in found.damage]
        return query_pb2.Account(
            status=query_pb2.QueryStatus(
                entries=entries,
                entries_scanned=sum(source.rows for source in self.entries),
                recordings=[found.name for found in self.opened if found.name],
                truncated=truncated,
                elapsed_ms=(time.monotonic() - self.begin) * 1000,
                warnings=dict.fromkeys([*self.asked.warnings, *damage, *self.notes]),
            ),
            losses=[part.loss for part in messages.losses(losses)],
            counts=[p.counts for p in messages.counts(ledger.counts(self.opened, window))],
        )


def read(question: query_pb2.Question, context: grpc.ServicerContext, service: QueryBase) -> Asked:
    """Return what is asked, or abort."""
    request = query_pb2.QueryRequest(kfl=question.kfl)
    for name in ("start_time", "end_time"):
        if question.HasField(name):
            getattr(request, name).CopyFrom(getattr(question, name))
    return read_request(
        request, context, service.catalog, service.macros, has_live=service.live is not None
    )


@contextmanager
def work(
    service: QueryBase,
    context: grpc.ServicerContext,
    asked: Sequence[Asked],
    *,
    runs: Sequence[int] = (),
    names: Sequence[str] = (),
) -> Iterator[list[Work]]:
    """Open the recordings of each question, or those of `names`.

    Where `runs` has a number other than 0, only that run of them.

    Aborts the call, with a sentence, when something goes wrong within.
    """
    every = {name: each for each in asked for name in (*names, *each.places)}
    with (
        told(context, service.catalog, list(every)),
        service.watching(asked),
        service.slot(context),
    ):
        opened = {name: service.open(name, each) for name, each in every.items()}
        with service.session(Caller(context), service.deadline_seconds) as session:
            found = []
            for place, each in enumerate(asked):
                mine = [opened[name] for name in names or each.places]
                if place < len(runs) and runs[place]:
                    mine = [_of_run(recording, runs[place], context) for recording in mine]
                notes = []
                if each.filter.limit is not None:
                    notes.append("limit() has no effect here: all entries that match are counted.")
                found.append(Work(each, mine, session, notes))
            yield found


def _of_run(opened: Opened, number: int, context: grpc.ServicerContext) -> Opened:
    runs = tuple(run for run in opened.taken.runs if run.run == number)
    if not opened.name:
        refuse(context, "run", "Live traffic has no runs.")
    if not runs:
        numbers = sorted({run.run for run in opened.taken.runs})
        known = ", ".join(map(str, numbers)) or "none"
        refuse(context, "run", f"{opened.name} has no run {number}; its runs are {known}.")
    return Opened(replace(opened.taken, runs=runs))


def read_limit(value: int, usual: int, most: int, field: str, context: grpc.ServicerContext) -> int:
    """Return a limit of a request, `usual` for 0, or abort."""
    if value > most:
        refuse(context, field, f"It is at most {most}; 0 means {usual}.")
    return value or usual
