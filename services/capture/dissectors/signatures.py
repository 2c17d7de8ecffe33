# mypy: ignore-errors
"""What the first octets of a protocol look like: octet by octet, which ones can stand there.

All signatures of all protocols are one table with a bit for each, so that a stream is compared with
64 of them at once: one load and one `and` an octet, and mostly it is over after the first octet.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from services.capture.kernel import kernel, read_u8

LONGEST = 64  # octets of a signature
MOST_PROTOCOLS = 64  # bits of the word of those that a stream was refused by
WORD = 64  # bits
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
    """Signatures for kernels: bit b of word w is signature 64 * w + b."""

    allowed: np.ndarray
    """uint64, by word, position and octet: the signatures that have this octet there."""
    ends: np.ndarray
    """uint64, by word and length: the signatures that are that long."""
    of_side: np.ndarray
    """uint64, by word and side."""
    only_on_port: np.ndarray
    """uint64, by word."""
    of_protocol: np.ndarray
    """uint64, by word and protocol."""
    owner: np.ndarray
    """int64: the number of each signature's protocol."""
    columns: np.ndarray
    """uint16, by port: the column of the next, 0 for ports that no protocol has."""
    of_port: np.ndarray
    """uint64, by word and column: the signatures of the protocols that have the port."""


NOBODY, TOO_SHORT = -1, -2


@kernel
def lowest_bit(bits):
    """Return the number of the lowest bit that is set; there is one."""
    number = 0
    while (bits >> np.uint64(number)) & np.uint64(1) == 0:
        number += 1
    return number


@kernel
def bits_of_port(table, word, port):
    """Return the signatures of the protocols that have a port."""
    return table.of_port[np.uint64(word), np.uint64(table.columns[np.uint64(port)])]


@kernel
def bits_of_refused(table, word, refused):
    """Return the signatures of the protocols whose bits are set."""
    bits = np.uint64(0)
    while refused != 0:
        owner = lowest_bit(refused)
        if owner >= table.of_protocol.shape[1]:
            break
        bits |= table.of_protocol[np.uint64(word), np.uint64(owner)]
        refused &= refused - np.uint64(1)
    return bits


@kernel
def look(table, wanted, refused, side, port, other_port, octets, position, end):
    """Compare octets[position:end] with signatures; return the number of their protocol.

    wanted: uint64, by word, the signatures; refused: uint64, protocols that it cannot be. Of those
    that fit, one whose protocol has one of the ports goes first, then a longer one.
    """
    best, best_length, best_is_hinted = NOBODY, 0, False
    waits = False
    if position >= end:
        return np.int64(TOO_SHORT)
    first = np.uint64(read_u8(octets, position))
    for word in range(len(wanted)):
        alive = table.of_side[np.uint64(word), np.uint64(side)] & wanted[np.uint64(word)]
        alive &= table.allowed[np.uint64(word), np.uint64(0), first]
        if alive == 0:  # as mostly
            continue
        hinted = bits_of_port(table, word, port) | bits_of_port(table, word, other_port)
        alive &= ~table.only_on_port[np.uint64(word)] | hinted
        if refused != 0:
            alive &= ~bits_of_refused(table, word, refused)
        at = 0
        while alive != 0 and position + at < end:
            octet = read_u8(octets, position + at)
            alive &= table.allowed[np.uint64(word), np.uint64(at), np.uint64(octet)]
            at += 1
            whole = alive & table.ends[np.uint64(word), np.uint64(at)]
            if whole != 0:
                alive &= ~whole
                is_hinted = whole & hinted != 0
                if is_hinted:
                    whole &= hinted
                if (is_hinted and not best_is_hinted) or (
                    is_hinted == best_is_hinted and at > best_length
                ):
                    best = table.owner[np.uint64(WORD * word + lowest_bit(whole))]
                    best_length, best_is_hinted = at, is_hinted
        waits |= alive != 0
    if best == NOBODY and waits:
        return np.int64(TOO_SHORT)
    return np.int64(best)


def new_table(protocols: Iterable[tuple[Iterable[Signature], Iterable[int]]]) -> Table:
    """Make the table of protocols, each its signatures and ports; their numbers count from 0.

    Raises ValueError when there are too many protocols, or a signature is empty or too long.
    """
    listed = [(tuple(signatures), frozenset(ports)) for signatures, ports in protocols]
    if len(listed) > MOST_PROTOCOLS:
        raise ValueError(f"{len(listed)} protocols are more than the {MOST_PROTOCOLS} of one table")
    count = sum(len(signatures) for signatures, _ in listed)
    words = max(1, -(-count // WORD))
    ports = sorted(frozenset().union(*(ports for _, ports in listed)))
    table = Table(
        allowed=np.zeros((words, LONGEST, 256), np.uint64),
        ends=np.zeros((words, LONGEST + 1), np.uint64),
        of_side=np.zeros((words, 2), np.uint64),
        only_on_port=np.zeros(words, np.uint64),
        of_protocol=np.zeros((words, max(len(listed), 1)), np.uint64),
        owner=np.zeros(max(count, 1), np.int64),
        columns=np.zeros(1 << 16, np.uint16),
        of_port=np.zeros((words, 1 + len(ports)), np.uint64),
    )
    table.columns[ports] = np.arange(1, 1 + len(ports))
    number = 0
    for owner, (signatures, hints) in enumerate(listed):
        for each in signatures:
            if not 0 < len(each.octets) <= LONGEST:
                raise ValueError(f"a signature has 1 to {LONGEST} octets, not {len(each.octets)}")
            word, bit = number // WORD, np.uint64(1) << np.uint64(number % WORD)
            for position, allowed in enumerate(each.octets):
                table.allowed[word, position, list(allowed)] |= bit
            table.ends[word, len(each.octets)] |= bit
            table.of_side[word, each.side] |= bit
            table.only_on_port[word] |= bit if each.only_on_port else NO_BITS
            table.of_protocol[word, owner] |= bit
            table.owner[number] = owner
            table.of_port[word, table.columns[sorted(hints)]] |= bit
            number += 1
    return table


def bits_of(table: Table, owners: Iterable[int]) -> np.ndarray:
    """Return the signatures of some protocols (uint64, by word)."""
    bits = np.zeros(len(table.of_side), np.uint64)
    for owner in owners:
        bits |= table.of_protocol[:, owner]
    return bits
