"""Places for questions that read recordings; callers take turns at them. Called by base.

Where one caller waits with a hundred questions and another with one, the other's is the second that
gets a place, and no caller has all places at once.
"""

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

LOOK_SECONDS = 0.2
"""How often someone who waits is looked for: who has gone away leaves the queue."""


class _Waiting:
    __slots__ = ("has_place",)

    def __init__(self) -> None:
        self.has_place = threading.Event()


class Turns:
    """Some places. For any thread."""

    def __init__(self, places: int, most_each: int) -> None:
        """`most_each` is how many of the places one caller can have."""
        self._lock = threading.Lock()
        self._free = places
        self._most_each = most_each
        self._held: Counter[str] = Counter()
        self._queue: OrderedDict[str, deque[_Waiting]] = OrderedDict()

    def enter(self, caller: str, seconds: float, is_there: Callable[[], bool]) -> bool:
        """Wait for a place, at most so long, and while the caller is there; False without one."""
        mine = _Waiting()
        with self._lock:
            self._queue.setdefault(caller, deque()).append(mine)
            self._hand_out()
        until = time.monotonic() + seconds
        while not mine.has_place.wait(min(LOOK_SECONDS, max(0.0, until - time.monotonic()))):
            if time.monotonic() < until and is_there():
                continue
            with self._lock:
                if mine.has_place.is_set():
                    break
                self._queue[caller].remove(mine)
                if not self._queue[caller]:
                    del self._queue[caller]
                return False
        return True

    def leave(self, caller: str) -> None:
        """Give a place back."""
        with self._lock:
            self._free += 1
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]
            self._hand_out()

    def _hand_out(self) -> None:
        """Give free places to those whose turn it is: the first question of the first caller."""
        while self._free:
            caller = next((each for each in self._queue if self._may_have(each)), None)
            if caller is None:
                return
            waiting = self._queue[caller]
            waiting.popleft().has_place.set()
            self._free -= 1
            self._held[caller] += 1
            if waiting:
                self._queue.move_to_end(caller)
            else:
                del self._queue[caller]

    def _may_have(self, caller: str) -> bool:
        return self._held[caller] < self._most_each
