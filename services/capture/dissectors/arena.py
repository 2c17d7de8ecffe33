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


@kernel
def keep(arena, row, octets, position, length, most):
    """Keep octets of the message under way, behind those that are kept of it, `most` of them.

    `row` says where: at, kept, room; its `cut` is set when what was kept has been overwritten. One
    that goes on gets twice the room that it needs, so that all are copied twice on average, in
    however small pieces they come.
    """
    length = min(length, most - row.kept)
    if length <= 0 or row.cut:
        return
    size = len(arena.octets)
    if row.kept > 0 and not is_kept(arena, row.at):
        row.cut = 1
        return
    whole = row.kept + length
    if whole > row.room:
        room = whole if row.kept == 0 else min(2 * whole, most)
        at = reserve(arena, room)
        if row.kept > 0:
            if not is_kept(arena, row.at):
                row.cut = 1
                row.kept = 0
                return
            copy_octets(arena.octets, row.at % size, row.kept, arena.octets, at % size)
        row.at, row.room = at, room
    copy_octets(octets, position, length, arena.octets, row.at % size + row.kept)
    row.kept = whole


def new_arena(size):
    """Make an empty one of `size` octets."""
    return Arena(octets=np.zeros(size, np.uint8), write=np.zeros(1, np.int64))
