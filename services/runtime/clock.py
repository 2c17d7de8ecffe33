"""Time, as something that is handed in: the lifecycle of jobs takes a Clock, tests move one."""

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

LONGEST_SLEEP_SECONDS = 10.0
"""A wait looks at the wall clock again after this long, so that a clock that was set is noticed."""

MOVED_CLOCK_LOOK_SECONDS = 0.002
"""How often a waiter looks whether a MovedClock has reached its time."""


class Clock(Protocol):
    """What time it is, and how to wait for a time."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds since some moment; never goes back."""

    def wait(self, event: threading.Event, until: datetime | None) -> bool:
        """Wait until the event is set (True) or `until` has come (False); None is never."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    def wait(self, event: threading.Event, until: datetime | None) -> bool:
        """Wait until the event is set (True) or `until` has come (False); None is never."""
        if until is None:
            return event.wait()
        while True:
            remaining = (until - self.now()).total_seconds()
            if remaining <= 0:
                return event.is_set()
            if event.wait(min(remaining, LONGEST_SLEEP_SECONDS)):
                return True


class MovedClock:
    """A clock that stands still until it is moved; a move wakes who waits for what it passed."""

    def __init__(self, start: datetime) -> None:
        if start.tzinfo is None:
            raise ValueError("A MovedClock starts at an aware time, for instance in UTC.")
        self._lock = threading.Lock()
        self._start = start.astimezone(UTC)
        self._passed = timedelta()

    def move(self, by: timedelta) -> datetime:
        """Move the clock forward and return the new time; ValueError when it would go back."""
        if by < timedelta():
            raise ValueError("A clock moves forward only.")
        with self._lock:
            self._passed += by
            return self._start + self._passed

    def step(self, by: timedelta) -> datetime:
        """Set the wall clock by this much, also back, and return it; no time passes."""
        with self._lock:
            self._start += by
            return self._start + self._passed

    def now(self) -> datetime:
        """Return the time that the clock was moved to, in UTC."""
        with self._lock:
            return self._start + self._passed

    def monotonic(self) -> float:
        """Return seconds by which the clock was moved since its start."""
        with self._lock:
            return self._passed.total_seconds()

    def wait(self, event: threading.Event, until: datetime | None) -> bool:
        """Wait until the event is set (True) or the clock was moved to `until` (False)."""
        while not event.wait(MOVED_CLOCK_LOOK_SECONDS):
            if until is not None and self.now() >= until:
                return event.is_set()
        return True
