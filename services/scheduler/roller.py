"""The thread that turns journals into segments and deletes, while the writer goes on answering."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol

import pyarrow as pa

from services.runtime.logging import logger
from services.scheduler.runfiles import RunFiles

_END: Final = None


class Monotonic(Protocol):
    """The part of a clock that is needed here."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class Roller:
    """Does one thing after the other, in the order in which it was asked."""

    def __init__(
        self, settled: Callable[[str], int], clock: Monotonic, now_ns: Callable[[], int]
    ) -> None:
        """`settled` tells how far an agent has come, `now_ns` the wall time."""
        self.on_idle: Callable[[], None] = lambda: None
        """Called when nothing is left to do."""
        self._settled = settled
        self._clock = clock
        self._now_ns = now_ns
        self._queue: queue.SimpleQueue[tuple[Callable[[], None], Future[None]] | None]
        self._queue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._thread = threading.Thread(target=self._loop, name="roller", daemon=True)
        self._log = logger(__name__)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what was asked for, and end."""
        self._queue.put(_END)
        self._thread.join()

    @property
    def is_busy(self) -> bool:
        """Whether something is being done, or waits."""
        with self._lock:
            return self._waiting > 0

    def roll(self, run: RunFiles) -> "Future[None]":
        """Turn a run's closed journals into segments; a failure is logged and the journal stays."""
        return self.do(lambda: self._roll(run))

    def drop_retired(self, run: RunFiles, before_ns: int | None = None) -> "Future[None]":
        """Remove segments that were merged before then (None: all); a failure is logged."""
        return self.do(lambda: self._drop_retired(run, before_ns))

    def do(self, function: Callable[[], None]) -> "Future[None]":
        """Do something else, in its turn; the future has its exception."""
        future: Future[None] = Future()
        with self._lock:
            self._waiting += 1
        self._queue.put((function, future))
        return future

    def _loop(self) -> None:
        while (item := self._queue.get()) is not _END:
            function, future = item
            error: BaseException | None = None
            try:
                function()
            except BaseException as found:  # belongs to who asked
                error = found
            with self._lock:
                self._waiting -= 1
                is_idle = not self._waiting
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
            if is_idle:
                self.on_idle()

    def _drop_retired(self, run: RunFiles, before_ns: int | None) -> None:
        try:
            run.drop_retired(before_ns)
        except (OSError, ValueError) as error:
            self._log.error(
                "merged segments not removed", job=run.job, run=run.run, error=str(error)
            )

    def _roll(self, run: RunFiles) -> None:
        for tail in run.closed():
            if run.is_deleted:
                return
            try:
                run.roll(tail, self._settled, self._now_ns())
            except (OSError, ValueError, pa.ArrowException) as error:
                tail.tried = self._clock.monotonic()
                self._log.error(
                    "journal not turned into segments",
                    job=run.job,
                    run=run.run,
                    journal=tail.number,
                    error=str(error),
                )
                return
        run.shelve()
