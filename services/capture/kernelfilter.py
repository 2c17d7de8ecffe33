"""What of the traffic jobs need while they run: packets, by a program for a socket, and dissectors.

`agent` tells which statements it records, and this attaches one program for all of them. A program
may keep too much, never too little: it leaves out only what no entry of these jobs can be made of.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import kfl
from kfl import coarse
from kfl.packets import Packets, Resolver
from services.capture.bpf import Program, programs
from services.capture.frames.afpacket import Instruction
from services.capture.frames.batch import CaptureError
from services.runtime.logging import logger

_log = logger(__name__)


@runtime_checkable
class Filterable(Protocol):
    """A source of frames that the kernel can filter."""

    def attach(self, program: Sequence[Instruction] | None) -> None:
        """Replace the program, without a gap; None keeps everything. Raises CaptureError."""


def no_names(test: coarse.Peer) -> None:
    """The resolver of an agent that knows no names: it cannot tell."""
    del test


class KernelFilter:
    """The program on one source, and what it is made of."""

    def __init__(
        self,
        source: Filterable | None,
        resolver: Resolver = no_names,
        is_translated: bool = False,
        besides: Packets | None = None,
    ) -> None:
        """source: None for one that the kernel does not filter, or an operator has.

        is_translated: packets are seen before and after the node translates addresses.
        besides: what is needed beside what the statements need, when there are any.
        """
        self._source = source
        self._is_translated = is_translated
        self._resolver = resolver
        self._besides = besides
        self._statements: frozenset[str] | None = None
        self._attached: coarse.Coarse | None = None
        self._is_told = False  # names that change would fill the log
        self.packets = Packets(coarse.EVERYTHING, None)
        """What the statements need; `dissectors` are the protocols that their entries can be of."""

    def follow(self, statements: Collection[str]) -> None:
        """Keep what these KFL statements need, together; without any, nothing.

        Call it often: it does something only when they are others than before. Raises CaptureError
        when the kernel takes no program at all.
        """
        if statements == self._statements:
            return
        self._statements = frozenset(statements)
        needed = [*map(_needed, sorted(self._statements))]
        if needed:
            needed.append(self._besides)
        self.packets = Packets.union(each for each in needed if each is not None)
        self._is_told = False
        self.refresh()

    def refresh(self) -> None:
        """Resolve names anew: call it when addresses of names have changed. Raises as follow()."""
        if self._source is None:
            return
        tree = self.packets.resolved(self._resolver).tree
        if self._is_translated:
            tree = of_either_end(tree)
        if tree != self._attached:
            _attach(self._source, tree, tell=not self._is_told)
            self._attached = tree
        self._is_told = True


def _attach(source: Filterable, tree: coarse.Coarse, tell: bool) -> None:
    """Attach the most exact program that the kernel takes; `tell` what it is."""
    for program in programs(tree):
        try:
            source.attach(program.instructions)
        except CaptureError as error:
            _log.warning("the kernel takes no program of this size", reason=str(error))
            continue
        if tell:
            _tell(tree, program)
        return
    source.attach(None)


def of_either_end(tree: coarse.Coarse) -> coarse.Coarse:
    """Return the test that keeps what fulfils a condition of one end of a stream, where `tree` asks
    for both: no packet has the client's own address together with that of the pod which serves it.
    """
    match tree:
        case coarse.AnyOf(parts=parts):
            return coarse.any_of(map(of_either_end, parts))
        case coarse.AllOf(parts=parts):
            parts = tuple(map(of_either_end, parts))
            ends = [part for part in parts if _asks_for_an_end(part)]
            others = [part for part in parts if part not in ends]
            return coarse.all_of([*others, coarse.any_of(ends)] if ends else others)
    return tree


def _asks_for_an_end(tree: coarse.Coarse) -> bool:
    if isinstance(tree, coarse.AllOf | coarse.AnyOf):
        return any(map(_asks_for_an_end, tree.parts))
    return isinstance(tree, coarse.Hosts | coarse.Ports | coarse.Peer)


def _tell(tree: coarse.Coarse, program: Program) -> None:
    size = len(program.instructions)
    _log.info("kernel filter", keeps=coarse.show(tree), instructions=size)
    if program.left_out:
        _log.warning(
            "the kernel filter is coarser than the jobs, which would need too large a program",
            without=program.left_out,
        )


@functools.lru_cache(1024)  # far more than runs at once; most of them stay when one begins
def _needed(statement: str) -> Packets | None:
    """What a statement needs; None when it cannot be compiled, and so will not be recorded."""
    try:
        return kfl.compile(statement).packets()
    except kfl.KflError:
        return None
