# mypy: ignore-errors
"""What the first octets of a protocol look like: octet by octet, which ones can stand there.

All signatures of all protocols are one table with a bit for each, so that a stream is compared with
all of them at once: one load and one `and` an octet, and mostly it is over after the first octet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel, read_u8

LONGEST = 64  # octets of a signature
MOST_SIGNATURES = 64  # bits of a word
CLIENT, SERVER = 0, 1  # sides of a stream: who opened it, and who was called

ANY = bytes(range(256))
DIGIT = b"0123456789"
NO_BITS = np.uint64(0)


@dataclass(frozen=True, slots=True)
class Signature:
    """How one side may begin."""

    side: int
    """CLIENT or SERVER."""
    octets: tuple[bytes, ...]
    """For each position, from the first, the octets that can stand there."""
    only_on_port: bool = False
    """Too weak to believe anywhere but on one of the protocol's ports."""


def text(words: str) -> tuple[bytes, ...]:
    """Return the octets of a signature that is a text, whatever its case."""
    return tuple((each.lower() + each.upper()).encode("ascii") for each in words)


class Table(NamedTuple):
    """Signatures for kernels; bit n of a word is signature n."""

    allowed: np.ndarray
    """uint64, by position and octet: the signatures that have this octet there."""
    ends: np.ndarray
    """uint64, by length: the signatures that are that long."""
    of_side: np.ndarray
    """uint64: those of CLIENT, those of SERVER."""
    only_on_port: np.ndarray
    """uint64, one element."""
    owner: np.ndarray
    """int64: the number of each signature's protocol."""
    ports: np.ndarray
    """int64, rising: a port for each row of the next."""
    of_port: np.ndarray
    """uint64: the signatures of the protocols that have the port."""




NOBODY, TOO_SHORT = -1, -2


@kernel
def lowest_bit(bits):
    """Return the number of the lowest bit that is set; there is one."""
    number = 0
    while (bits >> np.uint64(number)) & np.uint64(1) == 0:
        number += 1
    return number


@kernel
def bits_of_port(table, port):
    """Return the signatures of the protocols that have a port."""
    for row in range(len(table.ports)):
        if table.ports[np.uint64(row)] == port:
            return table.of_port[np.uint64(row)]
    return np.uint64(0)


@kernel
def look(table, wanted, side, port, other_port, octets, position, end):
    """Compare octets[position:end] with the signatures `wanted` (uint64); return their protocol.

    Of several that fit, one whose protocol has one of the ports goes first.
    """
    hinted = bits_of_port(table, port) | bits_of_port(table, other_port)
    alive = table.of_side[np.uint64(side)] & wanted & (~table.only_on_port[np.uint64(0)] | hinted)
    at = 0
    while alive != 0 and position + at < end:
        alive &= table.allowed[np.uint64(at), np.uint64(read_u8(octets, position + at))]
        at += 1
        whole = alive & table.ends[np.uint64(at)]
        if whole != 0:
            best = whole & hinted
            return table.owner[np.uint64(lowest_bit(best if best != 0 else whole))]
    return np.int64(NOBODY if alive == 0 else TOO_SHORT)


def new_table(protocols: Iterable[tuple[Iterable[Signature], Iterable[int]]]) -> Table:
    """Make the table of protocols, each its signatures and ports; their numbers count from 0.

    Raises ValueError when there are too many signatures, or one is empty or too long.
    """
    listed = [(tuple(signatures), frozenset(ports)) for signatures, ports in protocols]
    count = sum(len(signatures) for signatures, _ in listed)
    if count > MOST_SIGNATURES:
        raise ValueError(f"{count} signatures are more than the {MOST_SIGNATURES} of one table")
    ports = sorted(frozenset().union(*(ports for _, ports in listed)))
    table = Table(
        allowed=np.zeros((LONGEST, 256), np.uint64),
        ends=np.zeros(LONGEST + 1, np.uint64),
        of_side=np.zeros(2, np.uint64),
        only_on_port=np.zeros(1, np.uint64),
        owner=np.zeros(max(count, 1), np.int64),
        ports=np.array(ports, np.int64),
        of_port=np.zeros(len(ports), np.uint64),
    )
    number = 0
    for owner, (signatures, hints) in enumerate(listed):
        for each in signatures:
            if not 0 < len(each.octets) <= LONGEST:
                raise ValueError(f"a signature has 1 to {LONGEST} octets, not {len(each.octets)}")
            bit = np.uint64(1) << np.uint64(number)
            for position, allowed in enumerate(each.octets):
                table.allowed[position, list(allowed)] |= bit
            table.ends[len(each.octets)] |= bit
            table.of_side[each.side] |= bit
            table.only_on_port[0] |= bit if each.only_on_port else NO_BITS
            table.owner[number] = owner
            table.of_port[np.isin(ports, list(hints))] |= bit
            number += 1
    return table


def bits_of(table: Table, owners: Iterable[int]) -> np.uint64:
    """Return the signatures of some protocols."""
    bits = NO_BITS
    for number in np.flatnonzero(np.isin(table.owner, list(owners))):
        bits |= np.uint64(1) << np.uint64(number)
    return bits
