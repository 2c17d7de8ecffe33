# mypy: ignore-errors
"""A ring of octets that outlive their batch: heads, and the beginnings of bodies.

Positions count on for ever; position p is at octets[p % len(octets)], and a span never wraps. What
was written len(octets) ago is gone, and `is_kept` says so: whoever keeps a position asks it first.
"""

from typing import NamedTuple

import numpy as np

from services.capture.kernel import copy_octets, kernel

NOT_KEPT = -1


class Arena(NamedTuple):
    """Octets, and where the next ones go."""

    octets: np.ndarray  # uint8
    write: np.ndarray  # int64, one element: the position of the next octet


@kernel
def reserve(arena, room):
    """Return where so many octets fit in one piece; what was written a round ago is gone."""
    size = len(arena.octets)
    at = arena.write[0]
    if at % size + room > size:
        at += size - at % size
    arena.write[0] = at + room
    return at


@kernel
def append(arena, octets, position, length):
    """Copy octets[position:][:length]; return their position, or NOT_KEPT if they never fit."""
    size = len(arena.octets)
    if length > size:
        return np.int64(NOT_KEPT)
    at = reserve(arena, length)
    copy_octets(octets, position, length, arena.octets, at % size)
    return at


@kernel
def is_kept(arena, position):
    return position >= 0 and position >= arena.write[0] - len(arena.octets)


def new_arena(size):
    """Make an empty one of `size` octets."""
    return Arena(octets=np.zeros(size, np.uint8), write=np.zeros(1, np.int64))
