"""Which answer is for which request of PostgreSQL, also where octets were lost.

Answers come in the order of requests. Each message that is answered is a step; a step belongs to a
unit, which becomes an entry. An error skips the steps up to the next Sync. ReadyForQuery ends what
a Sync or a query began, so that is where both sides meet again after octets were lost.
"""

from collections import deque
from typing import NamedTuple

from services.capture.dissectors.conversation import Conversation
from services.capture.dissectors.postgresql.units import Unit

MOST_WAITING = 4096  # steps without an answer: of more the oldest are given up
MOST_WAITING_OCTETS = 1 << 20  # of their requests: a pipeline of texts of some KB

ENDED = "pair-not-found", "the stream ended before the answer"
NO_REQUEST = "pair-not-found", "no request was seen for this answer"
LOST = "gap", "octets of the answer were lost"
REQUEST_LOST = "gap", "octets of the request were lost"
FORGOTTEN = "pair-not-found", "too many later messages waited, and none was answered"


# What ends the answer to a step; those of a query, a startup, a Sync and a call end with Z.
ENDS = {
    "Parse": b"1", "Bind": b"2", "Describe": b"Tn", "Execute": b"CIs", "Close": b"3",
    "Sync": b"Z", "Query": b"Z", "FunctionCall": b"Z", "Startup": b"Z",
}  # fmt: skip
# What else can be in the answer.
WITHIN = {
    "Describe": b"t", "Execute": b"DGHWdcT", "Query": b"TDCIGHWdcs", "FunctionCall": b"V",
    "Startup": b"RKv",
}  # fmt: skip
UNTIL_READY = frozenset({"Sync", "Query", "FunctionCall", "Startup"})


class Step(NamedTuple):
    """A message of the client that is answered."""

    kind: str
    unit: Unit


class Pairing(Conversation):
    """The steps of one connection."""

    def __init__(self) -> None:
        super().__init__()
        self._steps: deque[Step] = deque()
        self._kept = 0  # octets of requests that wait
        self._open: Unit | None = None  # of the extended query, which the next message may add to
        self._orphan: Unit | None = None  # an answer whose request was not seen
        self._version = ""
        self._doubtful = False  # octets of answers were lost, perhaps up to the last
        self._deaf = False  # answers are of nobody until the client asks again
        self._lost_requests = False
        self._batch_lacks = False  # requests before the next Sync were lost: which is not known

    def _begin(self, unit: Unit | None) -> None:
        """The next messages add to this unit; the one before is over when it has its answers."""
        last, self._open = self._open, unit
        if last is not None and last is not unit and last.waiting == 0:
            self._add(last)

    def _keep(self, unit: Unit, octets: int) -> None:
        """A unit keeps so many octets until it is over."""
        unit.kept += octets
        self._kept += octets

    def _wait(self, kind: str, unit: Unit) -> None:
        """A step waits for its answer."""
        while self._steps and (
            len(self._steps) >= MOST_WAITING or self._kept > MOST_WAITING_OCTETS
        ):
            oldest = self._steps[0].unit
            if oldest is unit:
                break
            while self._steps and self._steps[0].unit is oldest:
                self._steps.popleft()
            self._add(oldest, *FORGOTTEN)
        unit.waiting += 1
        self._batch_lacks &= kind not in ("Query", "Startup")
        unit.lacks |= self._batch_lacks
        self._batch_lacks &= kind != "Sync"
        self._steps.append(Step(kind, unit))

    def _skip_to_ready(self) -> None:
        """Ready: what was asked before the next Sync, and has no answer, never gets one."""
        if not any(step.kind in UNTIL_READY for step in self._steps):
            if self._batch_lacks:  # their Sync was lost
                self._end_all(*LOST)
            return
        while self._steps[0].kind not in UNTIL_READY:
            self._drop(self._steps.popleft())

    def _failed(self) -> None:
        """An error: the rest up to the Sync is not done. That Sync answers for the failed one."""
        step = self._steps[0]
        if step.kind in UNTIL_READY:
            if step.kind == "Startup":  # the server hangs up
                self._step_done()
            return
        failed = step.unit
        while self._steps and self._steps[0].kind not in UNTIL_READY:
            step = self._steps.popleft()
            if step.unit is failed:
                failed.waiting -= 1
            else:
                self._drop(step)
        if failed.waiting == 0 and failed is not self._open:
            self._add(failed)

    def _drop(self, step: Step) -> None:
        """A step is skipped by the server; its unit is over when no other step is left."""
        step.unit.waiting -= 1
        step.unit.skipped |= not step.unit.answered
        if step.unit.waiting == 0 and step.unit is not self._open:
            self._add(step.unit)

    def _step_done(self) -> None:
        if not self._steps:
            return
        unit = self._steps.popleft().unit
        self._doubtful &= bool(self._steps)
        unit.waiting -= 1
        if unit.waiting == 0 and unit is not self._open:
            self._add(unit)

    def _orphan_done(self) -> None:
        """Ready. If something waits for that it was its, though the answer fitted no step of it."""
        self._give_up_orphan()
        self._skip_to_ready()
        if self._steps and self._steps[0].kind in UNTIL_READY:
            self._steps[0].unit.lacks = True
            self._step_done()

    def _doubt_answers(self) -> None:
        """Answers were lost. A lone request may still get the rest of its own."""
        self._give_up_orphan()
        if len({id(step.unit) for step in self._steps}) > 1:
            self._end_all(*LOST)
            self._deaf = True
        elif self._steps:
            self._steps[0].unit.lacks = True
            self._doubtful = True

    def _doubt_requests(self) -> None:
        """Requests were lost: answers up to the next Sync may be for others than it seems."""
        first, last = (self._steps[0], self._steps[-1]) if self._steps else (None, None)
        if first is not None and (first.kind == "Startup" or first.unit.copies_in):
            first.unit.lacks = True
        for step in self._steps if last is not None and last.kind not in UNTIL_READY else ():
            step.unit.lacks |= step.kind not in UNTIL_READY
        if self._open is not None:
            self._open.lacks = True
        self._begin(None)
        self._batch_lacks = True

    def _settle(self) -> None:
        """The client asks on, so it has the answers that are doubtful to us."""
        self._deaf = False
        if self._doubtful:
            self._doubtful = False
            self._end_all(*LOST)

    def _end_all(self, kind: str, why: str) -> None:
        waiting = {id(step.unit): step.unit for step in self._steps}
        self._steps.clear()
        self._open = None
        for unit in waiting.values():
            self._add(unit, kind, why)

    def _give_up_orphan(self) -> None:
        unit, self._orphan = self._orphan, None
        if unit is not None:
            self._add(unit, *(REQUEST_LOST if self._lost_requests else NO_REQUEST))
            self._lost_requests = False

    def _add(self, unit: Unit, kind: str | None = None, why: str | None = None) -> None:
        self._kept -= unit.kept
        unit.kept = 0
        if unit is self._open:
            self._open = None
        if unit.request is None and not unit.answered:
            return
        exchange = unit.exchange(kind, why)
        exchange.version = self._version
        self.exchanges.append(exchange)
