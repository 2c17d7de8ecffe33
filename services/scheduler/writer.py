"""Stores what agents send. The lifecycle opens and closes runs, sessions submit batches.

One thread appends to journals, syncs once for all that wait (group commit) and answers; no batch
waits for company. Another turns journals into segments meanwhile, and deletes. Only the first one
knows which runs are open, so nothing there needs a lock.

At the storage limit journals become segments first, since those are smaller, and what was offered
waits for it. When that gives no room either, the run ends: nothing that is stored is ever removed
to make room, except by a job that wants its own oldest data dropped.

A disk that is full, or read-only, may have room again at any time: what comes is held meanwhile,
unanswered, and agents keep it. A run that ends before that loses what is held, and its ledger has
it.
"""

import errno
import queue
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from recordings import layout
from recordings.journal import SELF
from recordings.ledger import NodeCounts
from recordings.manifest import Manifest
from services.runtime.logging import logger
from services.scheduler import allowances, batches, recovery
from services.scheduler.agentmarks import AgentMarks
from services.scheduler.allowances import Allowance, OwnLimitError, Victim
from services.scheduler.batches import Batch, Checked
from services.scheduler.deletion import remove, sweep
from services.scheduler.outcomes import (
    Accepted,
    Outcome,
    Refused,
    RunTotals,
    Turned,
    totals_of,
)
from services.scheduler.quota import Quota, StorageFullError, on_disk
from services.scheduler.roller import Roller
from services.scheduler.runfiles import RunFiles

__all__ = ["Accepted", "Clock", "Outcome", "Refused", "RunTotals", "Writer"]

ROLL_BYTES: Final = 64 << 20
"""Octets at which a journal becomes segments: good row groups, and a tail that fits in memory."""
ROLL_SECONDS: Final = 60.0
"""Age at which it does."""
RETRY_SECONDS: Final = 30.0
"""Pause before a journal that could not become segments is tried again."""
TICK_SECONDS: Final = 0.25
"""How often the age of journals is looked at."""
GROUP_BYTES: Final = 16 << 20
GROUP_BATCHES: Final = 512
"""What one sync makes safe at most: the first batch should not wait for a long queue."""
HELD_SECONDS: Final = 2.0
"""Pause before a disk that was full, or read-only, is tried again."""
MAY_PASS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What the disk may say and take back: someone makes room. Any other error ends the run."""
ROOM_BYTES: Final = 64 << 20
"""Octets, or a sixteenth of the disk, that have to be free before it is tried again: room for a
batch would be full in a moment."""
WORTH_BYTES: Final = 4 << 20
"""Octets of journals, or a sixteenth of the limit, from which on it is worth to make segments of
them when the limit is reached. Below, the segments would be many and small."""

DISK_FULL: Final = "disk_full"
"""The kind of loss that says when the disk took nothing; what it cost is told by the agents."""

Key = tuple[str, int]
OnFull = Callable[[str, int, str], None]


class Clock(Protocol):
    """What time it is; services.runtime.clock has them."""

    def now(self) -> datetime:
        """Return the wall time, aware."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class Merger(Protocol):
    """What the writer knows of the compactor: it may hold octets that a run needs."""

    @property
    def is_merging(self) -> bool:
        """Whether octets are reserved for a merge."""

    def make_way(self) -> None:
        """Give up the merge that is under way, and return when its octets are given back."""


@dataclass(slots=True)
class _Offer:
    """A checked batch on its way."""

    agent: str
    node: str
    key: Key
    sequence: int
    batch: Checked | None  # None when it is refused already
    future: "Future[Outcome]"
    outcome: Outcome | None = None


@dataclass(slots=True)
class _Call:
    """Something to be done on the writer's thread."""

    key: Key | None  # the run that it is about, if any
    function: Callable[["Future[Any]"], None]
    future: "Future[Any]"


class Writer:
    """Everything below `<data>/recordings` that is written. Methods are safe for many threads."""

    def __init__(
        self, data: Path, quota: Quota, clock: Clock, on_full: OnFull | None = None
    ) -> None:
        self.on_full = on_full
        """Called on the writer's thread when a run is ended for want of room: job, run, sentence.
        It must not wait for the writer."""
        self.on_held: OnFull | None = None
        """The same when the disk takes no more of a run for now, and with "" when it goes on."""
        self.on_dropped: OnFull | None = None
        """The same when a whole run was dropped to make room for newer ones of its job."""
        self.merger: Merger | None = None
        """Who merges segments, if anyone does."""
        self._data = data
        self._root = layout.root(data)
        self._quota = quota
        self._clock = clock
        self._marks = AgentMarks(data / "agents")
        self._queue: queue.SimpleQueue[_Offer | _Call | None] = queue.SimpleQueue()
        self._runs: dict[Key, RunFiles] = {}  # all on disk; replaced only on the writer's thread
        self._open: set[Key] = set()
        self._group: list[_Offer] = []
        self._parked: deque[_Offer | _Call] = deque()
        self._parked_keys: set[Key] = set()
        self._held: dict[Key, float] = {}  # runs that the disk refuses; when it is tried again
        self._relieved: set[Key] = set()  # of these, what it has taken something of since
        self._turned: dict[Key, Turned] = {}
        self._newly_full: list[tuple[str, int, str]] = []
        self._owed_due = 0.0  # when losses that could not be written are tried again
        self._newly_held: list[tuple[str, int, str]] = []
        self._allowances: dict[str, Allowance] = {}
        self._dropped: dict[str, list[dict[str, object]]] = {}  # losses of jobs without an open run
        self._roller = Roller(self._marks.settled, clock, self._now_ns)
        self._roller.on_idle = self._wake
        self._thread = threading.Thread(target=self._loop, name="writer", daemon=True)
        self._is_running = False
        self._submitting = threading.Lock()
        self._log = logger(__name__)

    # ---- any thread

    def start(self) -> None:
        """Take up what is on disk, and begin to write. Raises OSError."""
        self._root.mkdir(parents=True, exist_ok=True)
        sweep(self._root)
        self._quota.adopt(on_disk(1))
        self._runs = recovery.recover(self._data, self._quota, self._marks)
        layout.sync(self._data)  # the names of the folders that it may have made
        self._is_running = True
        self._roller.start()
        self._thread.start()
        for run in self._runs.values():
            self._roller.roll(run)

    def stop(self) -> None:
        """Sync what was submitted, answer, and end. What is in journals stays there."""
        with self._submitting:
            if not self._is_running:
                return
            self._is_running = False
            self._queue.put(None)
        self._thread.join()
        self._roller.stop()
        try:
            self._marks.close()
        except OSError as error:
            self._log.error("marks of agents not kept", error=str(error))

    def open_run(self, job: str, run: int, kfl: str) -> None:
        """Let a run take data; one that is on disk is taken up again.

        Raises ValueError for a name that cannot be, OSError (StorageFullError at the limit).
        """
        folder = layout.run(self._data, job, run)
        try:
            self._ask((job, run), lambda: self._open_run((job, run), folder, kfl))
        except StorageFullError:
            for rolled in self._ask(None, self._roll_all):
                rolled.result()
            self._open_by_dropping((job, run), folder, kfl)

    def allow(self, job: str, allowance: Allowance) -> None:
        """Say what a job may have on disk; what was said last holds."""
        self._allowances[job] = allowance

    def _open_by_dropping(self, key: Key, folder: Path, kfl: str) -> None:
        while True:
            try:
                self._ask(key, lambda: self._open_run(key, folder, kfl))
            except StorageFullError:
                if not self._ask(None, lambda: self._drop_oldest(key[0], None, 1)):
                    raise
                self._roller.do(lambda: None).result()
            else:
                return

    def tell_losses(self, job: str, run: int, kind: str, losses: list[dict[str, object]]) -> None:
        """Write rows, columns of LOSSES, into the ledger of a run that takes data."""

        def tell() -> None:
            known = self._runs.get((job, run))
            if known is not None:
                known.append_losses(kind, losses, self._clock.monotonic())

        self._ask((job, run), tell)

    def close_run(self, job: str, run: int) -> RunTotals:
        """End a run: turn its journals into segments, take no more, and return what it has stored.

        A journal that cannot become segments (a full disk) stays, is readable, and is tried again.
        A run that is not known has stored nothing.
        """
        self._ask((job, run), lambda: self._end_run((job, run)))
        known = self._runs.get((job, run))
        if known is None:
            return RunTotals()
        self._roller.roll(known).result()
        return totals_of(known)

    def room(self) -> int:
        """Return the octets that are free: of the storage limit, and of the disk."""
        free = shutil.disk_usage(self._root).free
        limit = self._quota.limit
        return free if limit is None else max(0, min(free, limit - self._quota.used))

    def totals(self, job: str, run: int) -> RunTotals:
        """Return what a run has stored so far; KeyError for one that is not on disk."""
        return totals_of(self._runs[job, run])

    def counts(self, job: str, run: int) -> list[NodeCounts]:
        """Return what is known of each node's part in a run; nothing for one not on disk."""
        known = self._runs.get((job, run))
        return [] if known is None else known.ledger().nodes()

    def delete(self, job: str) -> None:
        """Remove all that a job has stored; nothing when it has stored nothing. Raises OSError."""
        folder = layout.recording(self._data, job)
        self._delete(folder, lambda key: key[0] == job)
        self._allowances.pop(job, None)
        self._dropped.pop(job, None)

    def delete_run(self, job: str, run: int) -> None:
        """Remove all that one run of a job has stored. Raises OSError."""
        folder = layout.run(self._data, job, run)
        self._delete(folder, lambda key: key == (job, run))

    def runs(self) -> list[RunFiles]:
        """Return all runs on disk, for the compactor."""
        return list(self._runs.values())

    @property
    def roller(self) -> Roller:
        """The thread that publishes manifests."""
        return self._roller

    def submit(self, agent_id: str, node: str, batch: Batch) -> "Future[Outcome]":
        """Offer a batch. The future is done once it is on disk, or refused; it never raises for
        what is in the batch. It is completed on the writer's thread, which must not be held up.

        An agent's batches must be offered in the order of their numbers.
        """
        future: Future[Outcome] = Future()
        key = (batch.job, batch.run)
        try:
            checked = batches.check(batch, agent_id, node)
            offer = _Offer(agent_id, node, key, batch.sequence, checked, future)
        except batches.RefusedError as error:
            refused = Refused(batch.sequence, str(error))
            offer = _Offer(agent_id, node, key, batch.sequence, None, future, refused)
        with self._submitting:
            if not self._is_running:
                raise RuntimeError("The writer is not running.")
            self._marks.begin(agent_id, batch.sequence)
            self._queue.put(offer)
        return future

    def last_sequence(self, agent_id: str) -> int:
        """Return the number up to which all of an agent's batches are on disk or refused."""
        return self._marks.settled(agent_id)

    def _delete(self, folder: Path, is_meant: Callable[[Key], bool]) -> None:
        forgotten = self._ask(None, lambda: self._forget(is_meant))

        def delete() -> None:
            remove(self._root, folder)
            for run in forgotten:
                run.removed()

        self._roller.do(delete).result()

    def _ask(self, key: Key | None, function: Callable[[], Any]) -> Any:
        """Run a function on the writer's thread, after all that was submitted; return its value."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("The writer's own thread must not wait for the writer.")
        future: Future[Any] = Future()

        def call(answer: "Future[Any]") -> None:
            try:
                answer.set_result(function())
            except BaseException as error:  # belongs to who asked
                answer.set_exception(error)

        with self._submitting:
            if not self._is_running:
                raise RuntimeError("The writer is not running.")
            self._queue.put(_Call(key, call, future))
        return future.result()

    # ---- the writer's thread

    def _loop(self) -> None:
        try:
            self._serve()
        except BaseException as error:
            # A bug. Agents keep what was not acknowledged, and a restart takes up the rest.
            self._log.exception("the writer has ended")
            with self._submitting:
                self._is_running = False
            left = [*self._group, *self._parked]
            while not self._queue.empty():
                waiting = self._queue.get()
                if waiting is not None:
                    left.append(waiting)
            for item in left:
                if not item.future.done():
                    item.future.set_exception(RuntimeError(f"The writer has ended: {error}"))

    def _serve(self) -> None:
        is_ending = False
        while not is_ending:
            for item in self._take():
                if item is None:
                    is_ending = True
                else:
                    self._do(item)
            if self._parked and not self._roller.is_busy:
                self._unpark(self._still_held())
            self._commit()
            self._roll_due()
        self._end()

    def _take(self) -> Iterable[_Offer | _Call | None]:
        """Wait for something to do; yield it, and what waits by then up to a limit."""
        octets = 0
        try:
            item = self._queue.get(timeout=TICK_SECONDS)
            while True:
                yield item
                if isinstance(item, _Offer) and item.batch:
                    octets += item.batch.record.size
                if item is None or octets > GROUP_BYTES or len(self._group) >= GROUP_BATCHES:
                    return
                item = self._queue.get_nowait()
        except queue.Empty:
            return

    def _wake(self) -> None:
        """Let the writer's thread look whether what is parked has room now."""
        self._queue.put(_Call(None, lambda answer: answer.set_result(None), Future()))

    def _do(self, item: _Offer | _Call) -> None:
        is_asked = isinstance(item, _Call) and item.key in self._held  # nobody waits for a disk
        if item.key in self._parked_keys and not is_asked:
            self._parked.append(item)  # behind what came before it
        elif isinstance(item, _Call):
            self._commit()
            item.function(item.future)
        elif not self._store(item):
            self._parked.append(item)
            self._parked_keys.add(item.key)

    def _store(self, offer: _Offer) -> bool:
        """Append a batch or refuse it; False when it has to wait for room."""
        number = offer.sequence
        run = self._runs.get(offer.key)
        if offer.outcome is None:
            if run is None or offer.key not in self._open:
                job, of = offer.key
                reason = f"Run {of} of job {job} takes no data: it has ended, or never began."
                offer.outcome = Refused(number, reason)
            elif run.last.get(offer.agent, 0) >= number:
                offer.outcome = Accepted(number)  # it is there already
            elif run.full:
                offer.outcome = Refused(number, run.full)
                self._turn_away(offer)
            else:
                outcome = self._append(run, offer)
                if outcome is None:
                    return False
                offer.outcome = outcome
        self._group.append(offer)
        return True

    def _append(self, run: RunFiles, offer: _Offer) -> Outcome | None:
        assert offer.batch is not None
        settled = self._marks.settled(offer.agent)
        size = offer.batch.record.size
        try:
            allowance = self._allowances.get(run.job, Allowance())
            if allowance.size_limit:
                allowances.check(allowance, self._runs_of(run.job), size)
            run.append(offer.batch, offer.agent, offer.node, settled, self._clock.monotonic())
        except OwnLimitError as error:
            if self._shrink(run.job) or self._drop_oldest(run.job, run, size):
                return None
            self._fill(run, str(error))
        except StorageFullError as error:
            if self._make_room() or self._drop_oldest(run.job, run, size):
                return None
            self._fill(run, str(error))
        except OSError as error:
            if error.errno in MAY_PASS:
                self._hold(run, _disk_sentence(error))
                return None
            self._fill(run, _disk_sentence(error))
        else:
            if run.held:
                self._relieved.add(offer.key)
            return Accepted(offer.sequence)
        self._turn_away(offer)
        return Refused(offer.sequence, run.full)

    def _make_room(self) -> bool:
        """Let go of what was merged away, then turn journals into segments, if that is worth it.

        False when no room can come of it.
        """
        if self._roller.is_busy:
            return True
        if self._let_go():
            return True
        limit = self._quota.limit or 0
        candidates = [run for run in self._runs.values() if _can_shrink(run)]
        if sum(run.journal_bytes() for run in candidates) < min(WORTH_BYTES, limit // 16):
            return False
        self._commit()
        for run in candidates:
            self._rotate(run)
        return True

    def _shrink(self, job: str) -> bool:
        """Turn a job's journals into segments, if that is worth it; False when it is not."""
        if self._roller.is_busy:
            return True
        limit = self._allowances[job].size_limit
        candidates = [run for run in self._runs_of(job) if _can_shrink(run)]
        if sum(run.journal_bytes() for run in candidates) < min(WORTH_BYTES, limit // 16):
            return False
        self._commit()
        for run in candidates:
            self._rotate(run)
        return bool(candidates)

    def _drop_oldest(self, job: str, into: RunFiles | None, octets: int) -> bool:
        """Begin to remove a job's oldest data, if it wants that; False when nothing may go.

        The ledger of the run that needs the room says what goes, before it does.
        """
        allowance = self._allowances.get(job, Allowance())
        if not allowance.drops_oldest or self._roller.is_busy:
            return allowance.drops_oldest
        try:
            victim = allowances.oldest(allowance, self._runs_of(job), octets)
        except (OSError, ValueError) as error:
            self._log.error("oldest data not dropped", job=job, error=str(error))
            return False
        if victim is None:
            # What is in journals can go only as segments.
            candidates = [r for r in self._runs_of(job) if _can_shrink(r) and r.is_open]
            candidates = [r for r in candidates if r.run not in allowance.kept]
            self._commit()
            for run in candidates:
                self._rotate(run)
            return bool(candidates)
        self._commit()
        self._drop(victim, into)
        return True

    def _drop(self, victim: Victim, into: RunFiles | None) -> None:
        run, reason = victim.run, f"{victim.sentence[0].upper()}{victim.sentence[1:]}."
        loss = victim.loss(self._now_ns())
        if into is None:
            self._dropped.setdefault(run.job, []).append(loss)
        else:
            into.append_losses(allowances.DROPPED_OLDEST, [loss], self._clock.monotonic())
        self._log.warning("oldest data dropped", job=run.job, run=run.run, reason=reason)
        if not victim.is_whole:
            self._roller.do(lambda: run.drop(*allowances.without(run.whole(), victim.last)))
            return
        self._forget(lambda key: key == (run.job, run.run))

        def delete() -> None:
            remove(self._root, run.folder)
            run.removed()

        self._roller.do(delete)
        if self.on_dropped:
            self.on_dropped(run.job, run.run, reason)

    def _runs_of(self, job: str) -> list[RunFiles]:
        return [run for key, run in self._runs.items() if key[0] == job]

    def _let_go(self) -> "list[Future[None]]":
        """Give up what compaction holds: an answer can be asked for again, traffic cannot."""
        let_go = []
        if self.merger and self.merger.is_merging:
            let_go.append(self._roller.do(self.merger.make_way))
        return let_go + [
            self._roller.drop_retired(run) for run in self._runs.values() if run.has_retired()
        ]

    def _roll_all(self) -> "list[Future[None]]":
        shrinking = [self._rotate(run) for run in self._runs.values() if _can_shrink(run)]
        return self._let_go() + shrinking

    def _unpark(self, still_held: set[Key]) -> None:
        """Try again what waited for room."""
        if self._parked_keys <= still_held:
            return
        waiting, self._parked = self._parked, deque()
        self._parked_keys = still_held
        for item in waiting:
            self._do(item)

    def _still_held(self) -> set[Key]:
        """Return the runs for which it is too early to try the disk again."""
        now = self._clock.monotonic()
        if any(due <= now for due in self._held.values()) and not self._has_disk():
            self._held = dict.fromkeys(self._held, now + HELD_SECONDS)
        return {key for key, due in self._held.items() if due > now}

    def _has_disk(self) -> bool:
        try:
            disk = shutil.disk_usage(self._root)
        except OSError:
            return False
        return disk.free >= min(ROOM_BYTES, disk.total // 16)

    def _hold(self, run: RunFiles, reason: str) -> None:
        """Let what comes for a run wait until the disk takes it."""
        key = (run.job, run.run)
        self._held[key] = self._clock.monotonic() + HELD_SECONDS
        self._relieved.discard(key)
        if not run.held:
            run.held, run.held_ns = reason, self._now_ns()
            self._newly_held.append((*key, reason))
            self._log.warning("run waits for the disk", job=run.job, run=run.run, reason=reason)

    def _let_in(self, run: RunFiles) -> None:
        """Note that the disk takes a run's data again, or that nobody waits for it any more."""
        span = {"start_time": run.held_ns, "end_time": self._now_ns()}
        run.append_losses(DISK_FULL, [{**span, "detail": run.held}], self._clock.monotonic())
        run.held = ""
        self._held.pop((run.job, run.run), None)
        self._relieved.discard((run.job, run.run))
        self._newly_held.append((run.job, run.run, ""))
        self._log.info("run goes on", job=run.job, run=run.run)

    def _give_up(self, run: RunFiles) -> None:
        """Refuse what waits for the disk, because the run ends."""
        key = (run.job, run.run)
        run.full = run.held
        self._let_in(run)
        waiting, self._parked = self._parked, deque()
        self._parked_keys.discard(key)
        for item in waiting:
            if item.key == key:
                self._do(item)
            else:
                self._parked.append(item)

    def _fill(self, run: RunFiles, reason: str) -> None:
        """End a run for want of room. What is stored stays; what was offered is a loss."""
        run.full = reason
        self._newly_full.append((run.job, run.run, reason))
        self._log.warning("run is full", job=run.job, run=run.run, reason=reason)

    def _turn_away(self, offer: _Offer) -> None:
        """Count what a full run refuses."""
        assert offer.batch is not None
        turned = self._turned.setdefault(offer.key, Turned())
        turned.add(offer.node, offer.batch, self._now_ns())

    def _tell_turned(self, key: Key) -> None:
        """Write what was turned away into the ledger of its run."""
        turned = self._turned.pop(key, None)
        run = self._runs.get(key)
        if turned is not None and run is not None:
            run.append_losses(
                "storage_limit", turned.losses(run.full), self._clock.monotonic(), turned.ledger
            )

    def _commit(self) -> None:
        """Make all that was appended safe, then answer: one sync a journal, for all that wait."""
        offered, self._group = self._group, []
        group: list[_Offer] = []
        for key in dict.fromkeys(offer.key for offer in offered):
            run = self._runs.get(key)
            offers = [offer for offer in offered if offer.key == key]
            group += offers if run is None else self._sync(run, offers)
        full, self._newly_full = self._newly_full, []
        for job, number, _ in full:
            self._tell_turned((job, number))
        for offer in group:
            self._marks.end(offer.agent, offer.sequence)
        self._keep_marks({offer.agent for offer in group if isinstance(offer.outcome, Refused)})
        for offer in group:
            assert offer.outcome is not None
            offer.future.set_result(offer.outcome)
        for job, number, reason in full:
            if self.on_full:
                self.on_full(job, number, reason)
        held, self._newly_held = self._newly_held, []
        for job, number, reason in held:
            if self.on_held:
                self.on_held(job, number, reason)

    def _sync(self, run: RunFiles, offers: list[_Offer]) -> list[_Offer]:
        """Make a run's journal safe; return the offers that can be answered."""
        try:
            run.sync()
        except OSError as error:
            unsafe = [offer for offer in offers if isinstance(offer.outcome, Accepted)]
            if error.errno in MAY_PASS:
                run.take_back()
                self._hold(run, _disk_sentence(error))
                for offer in unsafe:
                    offer.outcome = None
                self._parked.extendleft(reversed(unsafe))  # in front of those that came later
                self._parked_keys.add((run.job, run.run))
                return [offer for offer in offers if offer.outcome is not None]
            # Nobody knows what is on disk: this journal gets no more.
            self._fill(run, _disk_sentence(error))
            run.rotate()
            for offer in unsafe:
                offer.outcome = Refused(offer.sequence, run.full)
                self._turn_away(offer)
        else:
            if (run.job, run.run) in self._relieved:
                self._let_in(run)
        return offers

    def _keep_marks(self, agents: set[str]) -> None:
        """Remember numbers that are in no journal; without it an agent begins its numbers anew."""
        if agents:
            try:
                self._marks.keep(agents)
            except OSError as error:
                self._log.error("marks of agents not kept", error=str(error))

    def _roll_due(self) -> None:
        now = self._clock.monotonic()
        for run in self._runs.values():
            if not run.tails:
                if run.owed and now >= self._owed_due:
                    self._owed_due = now + RETRY_SECONDS
                    run.pay_owed(now)
                    self._rotate(run)
                continue
            last = run.tails[-1]
            if run.journal and (last.size >= ROLL_BYTES or now - last.since >= ROLL_SECONDS):
                self._rotate(run)
            elif any(t.tried is not None and now - t.tried >= RETRY_SECONDS for t in run.closed()):
                self._roller.roll(run)

    def _rotate(self, run: RunFiles) -> "Future[None]":
        run.rotate()
        return self._roller.roll(run)

    def _end(self) -> None:
        """Refuse nothing at the end: an agent sends again what it got no answer for."""
        self._commit()
        for item in self._parked:
            item.future.cancel()
        for run in self._runs.values():
            run.rotate()

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1_000_000) * 1000

    # ---- runs, on the writer's thread

    def _open_run(self, key: Key, folder: Path, kfl: str) -> None:
        if key not in self._runs:
            if folder.exists():
                raise OSError(
                    errno.EEXIST, f"{folder} is there, but cannot be read; move it elsewhere"
                )
            manifest = Manifest(key[0], key[1], kfl)
            self._runs = {**self._runs, key: RunFiles.create(folder, self._quota, manifest)}
        self._runs[key].reopen()
        self._open.add(key)
        losses = self._dropped.pop(key[0], None)
        if losses:
            kind = allowances.DROPPED_OLDEST
            self._runs[key].append_losses(kind, losses, self._clock.monotonic())

    def _end_run(self, key: Key) -> None:
        run = self._runs.get(key)
        if run is not None and run.held:
            self._give_up(run)
            self._commit()
        self._open.discard(key)
        self._tell_turned(key)
        if run is not None:
            run.is_open = False
            run.rotate()

    def _forget(self, is_meant: Callable[[Key], bool]) -> list[RunFiles]:
        """Take no more for these runs, and return them; their files are still there."""
        gone = {key: run for key, run in self._runs.items() if is_meant(key)}
        self._runs = {key: run for key, run in self._runs.items() if key not in gone}
        self._open -= gone.keys()
        for key, run in gone.items():
            self._turned.pop(key, None)
            self._held.pop(key, None)
            self._relieved.discard(key)
            run.is_deleted = True
            run.rotate()
        agents = {agent for run in gone.values() for agent in run.last if agent != SELF}
        self._keep_marks(agents)
        return list(gone.values())


def _can_shrink(run: RunFiles) -> bool:
    """Whether segments of its journals can be made now; one that just failed would fail again."""
    return bool(run.tails) and all(tail.tried is None for tail in run.tails)


def _disk_sentence(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk of the scheduler is full."
    if error.errno == errno.EROFS:
        return "The disk of the scheduler is read-only."
    return f"The scheduler cannot write to its disk: {error.strerror or error}."
