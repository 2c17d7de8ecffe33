"""Live traffic: who watches what, and what has come of it. app.py makes it, the RPCs ask.

A statement that is asked of live traffic is watched from then on, and for a while after its last
viewer. All statements that are watched become one, which livelink.py tells each scheduler; what
comes back is in livememory.py. So agents do the same work however many people look.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

import kfl
from kfl.macros import expand
from kfl.parse import parse
from kfl.show import show
from services.query.catalog import Opened
from services.query.livelink import Link, Shared

MOST_STATEMENTS: Final = 32
"""Watched at once, as many as can be followed; a new one takes the place of one without viewers."""

READY_SECONDS: Final = 2.0
"""How long a question waits until schedulers have told their agents of its statement."""

LOOK_SECONDS: Final = 1.0
"""How often it is looked whether something is to go."""


class LiveFullError(Exception):
    """One more statement cannot be watched; the text is a sentence."""


class LiveAwayError(Exception):
    """No scheduler can be reached; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much; the settings of the same names say what they are."""

    window_seconds: float = 300.0
    linger_seconds: float = 300.0
    memory_bytes: int = 64 << 20


@dataclass(slots=True)
class _Seat:
    """A statement that is watched."""

    text: str
    since: float
    viewers: int = 0
    left: float = 0.0
    """When the last viewer went."""


class Live:
    """All live traffic that is watched here. Methods are thread-safe."""

    def __init__(
        self,
        addresses: Sequence[str],
        limits: Limits,
        macros: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`addresses` are of the schedulers; `macros` are operators' words of KFL."""
        self._limits = limits
        self._macros = macros
        self._clock = clock
        self._seats: dict[str, _Seat] = {}
        self._shared = Shared(limits.window_seconds, limits.memory_bytes, clock)
        self._changed = self._shared.changed
        self._links = [Link(address, self._shared) for address in addresses]
        self._thread = threading.Thread(target=self._loop, name="live", daemon=True)

    @property
    def is_on(self) -> bool:
        """Whether some statement is watched."""
        return bool(self._seats)

    @contextmanager
    def viewing(self, statement: kfl.Filter, *, is_all: bool = True) -> Iterator[None]:
        """Watch a statement while someone looks, and for a while after.

        `is_all`: nothing else is asked, so it fails when no scheduler can be reached. Raises
        LiveFullError, LiveAwayError, and KflError for a statement that becomes too long.
        """
        text = self._text(statement)
        with self._changed:
            seat = self._seats.get(text) or self._new_seat(text)
            seat.viewers += 1
        try:
            with self._changed:
                self._changed.wait_for(
                    lambda: all(text in link.told or link.trouble for link in self._links),
                    READY_SECONDS,
                )
                troubles = [link.trouble for link in self._links if text not in link.told]
                if is_all and len(troubles) == len(self._links):
                    raise LiveAwayError(
                        " ".join(filter(None, troubles))
                        or "The scheduler does not answer, so there is no live traffic."
                    )
            yield
        finally:
            with self._changed:
                seat.viewers -= 1
                seat.left = self._clock()

    def open(self, statement: kfl.Filter | None = None) -> Opened:
        """Return what is there now; with a statement, a note when it is not watched for long."""
        with self._changed:
            notes = self._notes()
            seat = self._seats.get(self._text(statement)) if statement else None
            if seat is not None:
                watched = self._clock() - seat.since
                if watched < self._limits.window_seconds:
                    notes.append(
                        "Of live traffic this has what came since it is watched, "
                        f"for {watched:.0f} s, and of before that only what others watched."
                    )
            self._shared.memory.trim(self._clock())
            return Opened(self._shared.memory.snapshot(notes))

    def news(self, ends: tuple[int, int]) -> tuple[tuple[int, int], pa.Table, pa.Table]:
        """Return the entries and losses that came since `ends`, and where to go on."""
        with self._changed:
            memory = self._shared.memory
            return (memory.ends, *memory.after(ends))

    def open_to_follow(self) -> tuple[Opened, tuple[int, int]]:
        """Return what is there now, and where news() is to go on."""
        with self._changed:
            return self.open(), self._shared.memory.ends

    @contextmanager
    def waking(self, event: threading.Event) -> Iterator[None]:
        """Set an event whenever something comes."""
        with self._changed:
            self._shared.wakes.append(event)
        try:
            yield
        finally:
            with self._changed:
                self._shared.wakes.remove(event)

    def close(self) -> None:
        """End all that is watched."""
        with self._changed:
            self._shared.is_closed = True
            self._seats.clear()
            self._tell_links()
        for link in self._links:
            link.close()
        if self._thread.is_alive():
            self._thread.join()

    def _text(self, statement: kfl.Filter) -> str:
        """Return a statement as agents are told it: the same for what only looks different, never
        empty, and without comments and words of operators.
        """
        return show(parse(expand(statement.text, self._macros)).tree)

    # ---- under the lock

    def _notes(self) -> list[str]:
        notes = [link.trouble for link in self._links if link.trouble]
        if len(notes) < len(self._links) and not sum(link.agents for link in self._links):
            notes.append("No agent is connected, so no live traffic is seen.")
        return notes

    def _new_seat(self, text: str) -> _Seat:
        now = self._clock()
        idle = sorted(
            (seat for seat in self._seats.values() if not seat.viewers), key=lambda seat: seat.left
        )
        while True:
            texts = [*self._seats, text]
            wrong: kfl.KflError | None = None
            try:
                combined = _combined(texts)
            except kfl.KflError as error:
                wrong = error
            if wrong is None and len(texts) <= MOST_STATEMENTS:
                break
            if not idle:
                if wrong is not None and len(texts) == 1:
                    raise wrong
                self._tell_links()
                raise LiveFullError(
                    f"{len(self._seats)} statements are watched in live traffic, which is all that "
                    "there is room for. Ask again when one has ended."
                )
            del self._seats[idle.pop(0).text]
        seat = self._seats[text] = _Seat(text, now, left=now)
        self._shared.set_wanted(combined, frozenset(texts))
        self._start()
        return seat

    def _start(self) -> None:
        if not self._thread.is_alive() and not self._shared.is_closed:
            self._thread.start()
            for link in self._links:
                link.start()

    def _tell_links(self) -> None:
        texts = list(self._seats)
        self._shared.set_wanted(_combined(texts) if texts else "", frozenset(texts))

    # ---- the thread

    def _loop(self) -> None:
        with self._changed:
            while not self._shared.is_closed:
                now = self._clock()
                gone = [
                    seat.text
                    for seat in self._seats.values()
                    if not seat.viewers and seat.left + self._limits.linger_seconds <= now
                ]
                for text in gone:
                    del self._seats[text]
                if gone:
                    self._tell_links()
                self._shared.memory.trim(now)
                # Nothing is due while nothing is watched; a new seat wakes it.
                self._changed.wait(LOOK_SECONDS if self._seats else None)


def _combined(texts: Sequence[str]) -> str:
    """Return one statement for all. Raises KflError when it is too much."""
    text = " or ".join(f"({text})" for text in texts) if len(texts) > 1 else texts[0]
    kfl.compile(text)  # as agents will
    return text
