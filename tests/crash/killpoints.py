"""Kill points: a process that kills itself with SIGKILL at a chosen operation on files.

A kill from outside hits between two operations only by luck. A kill point names an operation, how
often it happens before, and whether the process dies before it, after it, or in the middle of it.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recordings import segments

OPERATIONS = {
    "scheduler": {
        "writev": 60, "segment": 60, "fdatasync": 60, "fsync": 20,
        "rename": 10, "unlink": 10, "mkdir": 2, "rmdir": 2, "truncate": 1,
    },
    "agent": {"pwrite": 60, "unlink": 4, "replace": 2, "truncate": 1},
}  # fmt: skip
"""What each process does with files, and about how often it gets to it within a second or two.
`segment` is a piece of a Parquet file."""
WRITES = ("writev", "pwrite", "segment")
"""Of journals, spools, and Parquet: these can be half done."""


@dataclass(frozen=True, slots=True)
class KillPoint:
    """Where a process dies."""

    operation: str
    count: int
    when: str
    """before, half (of a write) or after."""

    def __str__(self) -> str:
        return f"{self.when} {self.operation} {self.count}"


def draw(role: str, chance: random.Random) -> KillPoint:
    """Return a kill point; early ones are likelier, so that starts are hit as well."""
    operation, often = chance.choice(list(OPERATIONS[role].items()))
    when = chance.choice(["before", "after", *["half"] * (operation in WRITES)])
    return KillPoint(operation, 1 + int(chance.expovariate(1 / often)), when)


def arm(point: KillPoint, tell: Callable[[str], None]) -> None:
    """Let this process die there; `tell` hears where it was, just before."""
    lock = threading.Lock()
    happened = 0

    def is_it() -> bool:
        nonlocal happened
        with lock:
            happened += 1
            return happened == point.count

    def die(of: object) -> None:
        tell(f"{point}: {of}")
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def killing(function: Callable[..., Any], half: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **names: Any) -> Any:
            if not is_it():
                return function(*arguments, **names)
            if point.when == "half":
                half(*arguments)
            elif point.when == "after":
                function(*arguments, **names)
            return die(_named(arguments[0]))

        return wrapped

    if point.operation == "segment":
        write = segments._Sink.write
        segments._Sink.write = killing(write, lambda sink, octets: write(sink, _half(octets)))
        return
    function = getattr(os, point.operation)
    halves = {
        "writev": lambda file, pieces: os.write(file, _half(b"".join(pieces))),
        "pwrite": lambda file, octets, offset: function(file, _half(octets), offset),
    }
    setattr(os, point.operation, killing(function, halves.get(point.operation, function)))


def _half(octets: Any) -> bytes:
    return bytes(octets)[: len(octets) // 2]


def _named(target: object) -> object:
    if isinstance(target, segments._Sink):
        return target._file.name
    if isinstance(target, int):
        return Path(f"/proc/self/fd/{target}").readlink()
    return target
