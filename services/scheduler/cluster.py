"""One of several schedulers that share a database: follows, and leads when nobody else does.

app.py starts it. Each has a data folder of its own, in which it stores what its agents send, and
a name that belongs to the folder. One thread says that it is there, tries to lead, and either ticks
the follower or looks whether it still leads. A leader has a Lifecycle, as one that is alone has.
"""

import queue
import re
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from recordings import layout
from services.runtime.clock import Clock
from services.runtime.errors import UserError
from services.runtime.logging import logger
from services.scheduler.database import StoreError
from services.scheduler.follower import Follower
from services.scheduler.jobstore import JobStore
from services.scheduler.lifecycle import Lifecycle
from services.scheduler.members import Members
from services.scheduler.parts import Part, Parts
from services.scheduler.runs import Runs
from services.scheduler.sessions import Sessions
from services.scheduler.writer import Writer

TICK_SECONDS = 0.25
"""How often a follower looks for what has changed: agents hear of a new job as fast."""

SAY_SECONDS = 1.0
"""How often each says that it is there, writes how far its runs are, and reads it of the others."""

NAME_FILE = "scheduler.name"


class Cluster:
    """This scheduler among others. Methods are thread-safe."""

    def __init__(self, data: Path, url: str, writer: Writer, clock: Clock) -> None:
        """Open the database. Raises UserError with a sentence."""
        self._data = data
        self._clock = clock
        self._writer = writer
        self._store = JobStore(data, url, _name_of(data))
        self.sessions = Sessions(clock)
        self._members = Members(self._store.database, self._store.name)
        self._parts = Parts(self._store, self._members)
        of_agents = (self.sessions.deliveries, self.sessions.matches)
        self._runs = Runs(writer, *of_agents, self._parts)
        self._follower = self._new_follower()
        self._lifecycle: Lifecycle | None = None
        self._full: queue.SimpleQueue[tuple[str, int, str]] = queue.SimpleQueue()
        self._dropped: queue.SimpleQueue[tuple[str, int, str]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="cluster", daemon=True)
        self._said = self._tried = clock.monotonic() - SAY_SECONDS
        self._trouble = ""
        self._log = logger(__name__)
        writer.on_full = self._run_full
        writer.on_held = self._run_held
        writer.on_dropped = self._run_dropped

    def open(self) -> None:
        """Take up the runs that are on, before agents come. The writer has started.

        Raises StoreError.
        """
        self._follower.start()

    def start(self, address: str) -> None:
        """Begin to follow, or to lead; `address` is where the others reach this one."""
        self._members.address = address
        self._thread.start()

    def stop(self) -> None:
        """Leave, so that another one leads at once."""
        self._stopping.set()
        self.sessions.wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._demote()
        try:
            self._members.leave()
        except StoreError as error:
            self._log.warning("the others were not told", error=str(error))

    def close(self) -> None:
        """Close the database; after stop()."""
        self._store.close()

    @property
    def lifecycle(self) -> Lifecycle | None:
        """All jobs, while this scheduler leads."""
        return self._lifecycle

    def leader(self) -> str | None:
        """Return the address of another scheduler that leads. Raises StoreError."""
        found = self._members.leader()
        return found.address if found and found.name != self._store.name else None

    # ---- the thread

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._step()
            except Exception:  # the thread has to go on: all runs depend on it
                self._log.exception("the scheduler did not follow")
            if self._lifecycle is None:
                self.sessions.wake.wait(TICK_SECONDS)
                self.sessions.wake.clear()
            else:
                self._stopping.wait(TICK_SECONDS)

    def _step(self) -> None:
        now = self._clock.monotonic()
        if now - self._said >= SAY_SECONDS:
            self._said = now
            self._exchange(now)
        if self._lifecycle is not None and not self._members.is_leading():
            self._log.warning("leads no more")
            self._demote()
        if self._lifecycle is None and now - self._tried >= SAY_SECONDS:
            self._tried = now
            if self._members.lead():
                self._promote()
        if self._lifecycle is None:
            self._tell_leader()
            self._follower.tick()

    def _exchange(self, now: float) -> None:
        try:
            self._members.say()
            self.sessions.matches.of_others(self._parts.refresh(now))
            for name, number in self._runs.open():
                self._tell_part(name, number)
            if self._lifecycle is not None:
                self.sessions.wake.set()  # it looks at what the others have written
        except StoreError as error:
            if not self._trouble:
                self._log.warning("the other schedulers are not heard", error=str(error))
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _tell_part(self, name: str, number: int) -> None:
        job = self.sessions.bulletin.get(name)
        run = job.run(number) if job else None
        if run is None or not run.is_recording:  # prepared, or just closed
            return
        with suppress(LookupError):  # deleted in this moment
            totals = self._writer.totals(name, number)
            matched = self.sessions.matches.total(name, number)
            self._parts.write(name, number, Part(self._store.name, totals, matched))

    def _promote(self) -> None:
        self._log.info("leads now")
        self._parts.leads = True
        lifecycle = Lifecycle(
            self._data, self._store, self._writer, self._clock, self.sessions, self._runs
        )
        try:
            self._parts.refresh(self._clock.monotonic())
            lifecycle.start()
        except StoreError as error:
            self._log.error("could not begin to lead", error=str(error))
            self._lifecycle = lifecycle
            self._demote()
            return
        self._lifecycle = lifecycle
        for _ in range(self._full.qsize()):
            lifecycle.run_full(*self._full.get_nowait())
        for _ in range(self._dropped.qsize()):
            lifecycle.run_dropped(*self._dropped.get_nowait())

    def _demote(self) -> None:
        lifecycle, self._lifecycle = self._lifecycle, None
        self._members.resign()
        self._parts.leads = False
        if lifecycle is not None:
            lifecycle.stop()
            self._follower = self._new_follower()

    def _tell_leader(self) -> None:
        for waiting in (self._full, self._dropped):
            for _ in range(waiting.qsize()):
                job, run, reason = waiting.get_nowait()
                try:
                    if waiting is self._full:
                        self._follower.run_full(job, run, reason)
                    else:
                        self._follower.run_dropped(job, run)
                except StoreError:
                    waiting.put((job, run, reason))

    def _new_follower(self) -> Follower:
        return Follower(
            self._store, self._writer, self._clock, self.sessions, self._runs, self._parts
        )

    # ---- the writer's thread

    def _run_full(self, job: str, run: int, reason: str) -> None:
        lifecycle = self._lifecycle
        if lifecycle is not None:
            lifecycle.run_full(job, run, reason)
        else:
            self._full.put((job, run, reason))
            self.sessions.wake.set()

    def _run_held(self, job: str, run: int, reason: str) -> None:
        lifecycle = self._lifecycle
        if lifecycle is not None:
            lifecycle.run_held(job, run, reason)
        else:  # the run goes on elsewhere
            self._log.warning("the disk", job=job, run=run, reason=reason or "takes data again")

    def _run_dropped(self, job: str, run: int, reason: str) -> None:
        lifecycle = self._lifecycle
        if lifecycle is not None:
            lifecycle.run_dropped(job, run, reason)
        else:
            self._dropped.put((job, run, reason))
            self.sessions.wake.set()


def _name_of(data: Path) -> str:
    """Return the name that belongs to a data folder; it is made once. Raises UserError."""
    path = data / NAME_FILE
    try:
        data.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = data / f"{NAME_FILE}.new"
            fresh.write_text(f"{uuid.uuid4().hex}\n")
            fresh.replace(path)
            layout.sync(data)
        name = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot use {path}: {error}.") from error
    if not re.fullmatch(r"[0-9a-f]{32}", name, re.ASCII):
        raise UserError(
            f"{path} has to have the name of this scheduler, 32 of 0-9 and a-f. If the folder is "
            "new, remove the file; if it has recordings, put the file back."
        )
    return name
