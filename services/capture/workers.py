"""Several capture processes on one node, which share its packets by flow. `app` runs them.

Each is a whole agent with an uplink of its own; this process starts them, starts one again that
ended, and gathers their figures. Memory for packets and batches is divided among them.
"""

import multiprocessing
import os
import secrets
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from services.capture.frames import CaptureError
from services.capture.identity.feed import Feed, follow
from services.capture.identity.names import Names
from services.capture.identity.watcher import open_watcher
from services.capture.worker import Worker, open_source, open_targets
from services.runtime.errors import UserError
from services.runtime.logging import configure, logger
from services.runtime.metrics import Snapshot
from services.runtime.process import end_with, run_until_signal
from services.runtime.settings import CaptureSettings

PAUSE_SECONDS = 1.0
"""Before a worker that ended is started again, so that one that cannot run does not spin."""

FIGURES_SECONDS = 1.0
"""How often a worker tells its figures."""

LAST_WORD_SECONDS = 2.0
"""Beyond the grace, for a worker to end after it drained; then it is killed."""

_log = logger(__name__)


@dataclass(slots=True)
class _Child:
    process: SpawnProcess
    told: Connection
    """Where its snapshots come from."""
    feed: Feed | None
    """What names of addresses go to it by."""
    snapshot: Snapshot | None = None


class Workers:
    """The capture processes of a node."""

    def __init__(self, settings: CaptureSettings) -> None:
        """Find out whether capture is possible; raises CaptureError, or UserError."""
        if settings.replay is not None:
            raise UserError("A file is replayed by one worker; leave --workers out.")
        open_source(settings).close()
        open_targets(settings)
        self._count = settings.workers
        share = {
            name: getattr(settings, name) // self._count
            for name in ("packet_memory", "packet_disk", "uplink_memory", "spool_limit")
        }
        self._settings = settings.model_copy(update=share)
        self._watcher = open_watcher(settings.kube, settings.node) if settings.kube else None
        self._group = secrets.randbelow(1 << 16)
        self._context = multiprocessing.get_context("spawn")
        self._children: dict[int, _Child] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="workers", daemon=True)

    def start(self) -> None:
        """Start all workers."""
        if self._watcher is not None:
            self._watcher.start()
        for number in range(self._count):
            self._children[number] = self._start(number)
        self._thread.start()

    def drain(self) -> None:
        """Let all workers end, and wait for them; those that do not are killed."""
        self._stopping.set()
        for child in self._children.values():
            child.process.terminate()
        deadline = time.monotonic() + self._settings.grace_seconds + LAST_WORD_SECONDS
        for number, child in self._children.items():
            child.process.join(max(0.0, deadline - time.monotonic()))
            if child.process.is_alive():
                _log.error("a worker did not end and is killed", worker=number)
                child.process.kill()
                child.process.join()
        self._thread.join()
        if self._watcher is not None:
            self._watcher.stop()
        for child in self._children.values():
            if child.feed is not None:
                child.feed.end()

    def snapshots(self) -> Mapping[str, Snapshot]:
        """Return what each worker told last, by its number."""
        return {
            str(number): child.snapshot
            for number, child in self._children.items()
            if child.snapshot is not None
        }

    def _start(self, number: int) -> _Child:
        told, teller = self._context.Pipe(duplex=False)
        settings = self._settings
        if settings.spool is not None:
            spool = settings.spool / f"worker-{number}"
            settings = settings.model_copy(update={"spool": spool})
        names, feed = None, None
        if self._watcher is not None:
            names, feeder = self._context.Pipe(duplex=False)
            feed = Feed(feeder)
        process = self._context.Process(
            target=_work,
            args=(settings, self._group, teller, names, os.getpid()),
            name=f"worker-{number}",
        )
        process.start()
        teller.close()
        if self._watcher is not None and names is not None and feed is not None:
            names.close()
            self._watcher.add(feed)
        return _Child(process, told, feed)

    def _watch(self) -> None:
        """Take figures, and start again what has ended."""
        while not self._stopping.is_set():
            numbers = {child.told: number for number, child in self._children.items()}
            for told in wait(list(numbers), FIGURES_SECONDS):
                assert isinstance(told, Connection)
                child = self._children[numbers[told]]
                try:
                    child.snapshot = told.recv()
                except (EOFError, OSError):
                    self._replace(numbers[told], child)

    def _replace(self, number: int, child: _Child) -> None:
        child.process.join()
        child.told.close()
        if self._watcher is not None and child.feed is not None:
            self._watcher.remove(child.feed)
            child.feed.end()
        if self._stopping.wait(PAUSE_SECONDS):
            return
        _log.error(
            "a worker has ended and is started again", worker=number, code=child.process.exitcode
        )
        self._children[number] = self._start(number)
        if self._stopping.is_set():  # drain() may have looked before this one was there
            self._children[number].process.terminate()


def _work(
    settings: CaptureSettings,
    group: int,
    teller: Connection,
    names_told: Connection | None,
    parent: int,
) -> None:
    """Be one worker; ends the process."""
    end_with(parent)
    configure(settings.log_level, settings.log_format)
    names = None
    if names_told is not None:
        names = Names()
        follow(names_told, names)
    try:
        worker = Worker(settings, group, names)
    except CaptureError as error:
        _log.error("a worker cannot capture", reason=str(error))
        os._exit(1)

    def tell() -> None:
        while not worker.ended.wait(FIGURES_SECONDS):
            try:
                teller.send(worker.snapshot())
            except OSError:
                os.kill(os.getpid(), signal.SIGTERM)  # the parent is gone
                return

    threading.Thread(target=tell, name="figures", daemon=True).start()
    code = run_until_signal(
        worker.start, worker.drain, grace_seconds=settings.grace_seconds, ended=worker.ended
    )
    os._exit(1 if worker.failure is not None else code)
