"""Damaged streams for one dissector alone: what was recorded of its protocol, changed by chance.

A case is a stream, or a part of one, damaged, cut into segments at random and made entries of. A
batch of cases follows from the protocol, the seed and the number of the batch. `python -m
tests.fuzz --dissector NAME` runs many by hand, test_dissectors.py some for each protocol.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from services.capture.calls import Calls, Node
from services.capture.dissectors.dissector import Dissector, ProtocolKind
from tests.unit.capture.dissectors.feeding import (
    KINDS,
    MOST_FLOWS,
    NAMES,
    STREAMS,
    end,
    give,
    recorded,
)
from tests.unit.capture.dissectors.playback import Timed, damaged, in_pieces, with_hole

KIND = dict(zip(NAMES, KINDS, strict=True))
IN_PLACE_OF = {"LDAP-udp": "LDAP-tcp"}
"""Protocols that were not recorded, and whose messages are as theirs."""
MOST_PARTS = 24
"""Of a case: longer streams are used in parts, so that a case is cheap, and often in the middle."""
LENGTHS = (1, 2, 3, 7, 40, 500, 1 << 30)
FLOW = MOST_FLOWS - 1
"""Streams that are under way at once."""


@dataclass(slots=True)
class Figures:
    """What came of some batches."""

    cases: int = 0
    octets: int = 0
    entries: int = 0
    refused: int = 0
    """Streams that ended since they were not of the protocol, or no more."""
    slowest: tuple[float, int] = (0.0, 0)
    """us of processor time an octet, and in which batch."""


class FailedError(Exception):
    """A case in which something was wrong."""


@functools.cache
def _recorded() -> dict[str, list[Timed]]:
    found = {name: [each.said for each in streams] for name, streams in recorded().items()}
    return found | {name: found[other] for name, other in IN_PLACE_OF.items()}


def stories(name: str, seed: int, batch: int) -> list[Timed]:
    """Return the cases of a batch."""
    chance = random.Random(f"{name} {seed} {batch}")
    return [_story(name, chance) for _ in range(FLOW)]


def _story(name: str, chance: random.Random) -> Timed:
    said = chance.choice(_recorded()[name])
    if chance.random() < 0.5:
        first = chance.randrange(len(said))
        said = said[first : first + chance.randint(1, MOST_PARTS)]
    else:
        said = said[: chance.randint(1, MOST_PARTS)]
    if chance.random() < 0.2:  # octets of another stream, or of another place, in the middle
        other = chance.choice(chance.choice(_recorded()[name]))
        place = chance.randrange(len(said))
        side, octets, time_ns = said[place]
        at, of = chance.randrange(len(octets) + 1), chance.randrange(len(other[1]))
        spliced = octets[:at] + other[1][of:]
        said = [*said[:place], (side, spliced, time_ns), *said[place + 1 :]]
    if chance.random() < 0.2:
        where = chance.randrange(len(said))
        begin = chance.randrange(len(said[where][1]))
        said = with_hole(said, where, begin, chance.choice((1, 4, 100, 1 << 30)))
    said = damaged(said, chance)
    if KIND[name].transport == "tcp":
        length = chance.choice(LENGTHS)
        if chance.random() < 0.5:
            return in_pieces(said, length)
        return in_pieces(said, lambda: chance.choice(LENGTHS))
    return said


@functools.cache
def _dissector(name: str) -> Dissector:
    return KIND[name].new_dissector(KIND[name], MOST_FLOWS)


def check(kind: ProtocolKind, dissector: Dissector, cases: list[Timed]) -> tuple[int, int]:
    """Return (entries, streams that ended early). Raises whatever is wrong."""
    told = dict(enumerate(cases, 1))
    give(dissector, kind, told)
    made = _entries(dissector)
    ended = dissector.refused, dissector.broken, dissector.over
    assert all(len(set(each)) == len(each) for each in ended), "a stream ends once"
    early = len(dissector.refused) + len(dissector.broken)
    for each in ended:
        each.clear()
    end(dissector, kind, told, max(time_ns for said in cases for *_, time_ns in said))
    made += _entries(dissector)
    dissector.end_streams(np.zeros(0, np.int64), 0)  # what was remembered of them goes
    if dissector.faults:
        faults = dict(dissector.faults)
        dissector.faults.clear()
        raise FailedError(faults)
    assert getattr(dissector, "buffered", 0) == 0, "nothing waits behind the end of a stream"
    return made, early


def _entries(dissector: Dissector) -> int:
    made = dissector.calls()
    if made is None:
        return 0
    calls = Calls(made, STREAMS, Node("", ""))
    table = calls.entries(np.arange(len(calls)))
    for column in calls.columns():
        if not column.endswith(("_headers", "_keys")):
            calls.columns()[column]
    return int(table.num_rows)


def fuzz(
    name: str, cases: int, seed: int, seconds: float = float("inf"), first: int = 0
) -> Figures:
    """Run batches until there were enough cases. Raises FailedError that says how to repeat it."""
    figures, kind, deadline = Figures(), KIND[name], time.monotonic() + seconds
    for batch in _numbers(first, lambda: figures.cases < cases and time.monotonic() < deadline):
        told = stories(name, seed, batch)
        began = time.process_time()
        try:
            entries, early = check(kind, _dissector(name), told)
        except Exception as error:
            _dissector.cache_clear()
            raise FailedError(
                f"{name}: {type(error).__name__}: {error}\nto run it again: make test/fuzz "
                f"DISSECTOR={name} SEED={seed} BATCH={batch} CASES=1\n"
                f"the case: {_smallest(name, told)!r}"
            ) from error
        octets = sum(len(o) for said in told for _, o, _ in said if isinstance(o, bytes))
        cost = (time.process_time() - began) * 1e6 / max(octets, 1000)
        figures.slowest = max(figures.slowest, (cost, batch))
        figures.cases += len(told)
        figures.octets += octets
        figures.entries += entries
        figures.refused += early
    return figures


def _numbers(first: int, more: Callable[[], bool]) -> Iterator[int]:
    while more():
        yield first
        first += 1


def _smallest(name: str, told: list[Timed]) -> Timed | None:
    """Return one case that fails alone, with as few parts as are needed, if there is one."""

    def fails(said: Timed) -> bool:
        try:
            check(KIND[name], KIND[name].new_dissector(KIND[name], MOST_FLOWS), [said])
        except Exception:
            return True
        return False

    found = next((said for said in told if fails(said)), None)
    if found is None:
        return None
    for place in reversed(range(len(found))):
        without = found[:place] + found[place + 1 :]
        if without and fails(without):
            found = without
    return found
