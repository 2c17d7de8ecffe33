"""Instructions of classic BPF with labels, and their numbers: `bpf` emits, this assembles.

Codes are those of linux/bpf_common.h. A conditional jump reaches 255 instructions ahead; where a
label is farther, it goes over an unconditional one, which reaches any.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from services.capture.frames.afpacket import Instruction

Label: TypeAlias = int

LOAD_W, LOAD_H = 0x20, 0x28  # A = octets of the frame at the constant
LOAD_W_X, LOAD_H_X, LOAD_B_X = 0x40, 0x48, 0x50  # the same, at X + the constant
LOADX_K, LOADX_M = 0x01, 0x61  # X = the constant, or an element of the scratch memory
STORE, STOREX = 0x02, 0x03  # an element of the scratch memory = A, or X
ADD_K, ADD_X, AND_K, SHIFT_K = 0x04, 0x0C, 0x54, 0x64  # A = A and the constant, or X
TXA = 0x87  # A = X
JUMP, JUMP_EQUAL, JUMP_ABOVE, JUMP_AT_LEAST, JUMP_ANY_BIT = 0x05, 0x15, 0x25, 0x35, 0x45
RETURN = 0x06

FARTHEST = 255
"""Instructions that a conditional jump can skip."""


class Assembler:
    """Collects instructions in their order."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, Label, Label, int] | Label] = []
        self._labels = 0

    def label(self) -> Label:
        """Return a new label, to be placed behind all that jumps to it."""
        self._labels += 1
        return self._labels

    def place(self, label: Label) -> None:
        """Let the label stand for the next instruction."""
        self._lines.append(label)

    def add(self, code: int, constant: int = 0) -> None:
        """Add an instruction that does not jump."""
        self._lines.append((code, 0, 0, constant))

    def leave(self, octets: int) -> None:
        """End, and keep that many octets of the frame."""
        self.add(RETURN, octets)

    def go(self, label: Label) -> None:
        """Jump."""
        self._lines.append((JUMP, label, label, 0))

    def equal(self, constant: int, yes: Label, no: Label) -> None:
        """Jump by A == constant."""
        self._lines.append((JUMP_EQUAL, yes, no, constant))

    def above(self, constant: int, yes: Label, no: Label) -> None:
        """Jump by A > constant, unsigned."""
        self._lines.append((JUMP_ABOVE, yes, no, constant))

    def at_least(self, constant: int, yes: Label, no: Label) -> None:
        """Jump by A >= constant, unsigned."""
        self._lines.append((JUMP_AT_LEAST, yes, no, constant))

    def any_bit(self, constant: int, yes: Label, no: Label) -> None:
        """Jump by A & constant != 0."""
        self._lines.append((JUMP_ANY_BIT, yes, no, constant))

    def among(self, constants: Sequence[int], yes: Label, no: Label) -> None:
        """Jump by A being one of the constants."""
        for constant in constants:
            following = self.label()
            self.equal(constant, yes, following)
            self.place(following)
        self.go(no)

    def assemble(self) -> list[Instruction]:
        """Return the instructions.

        From the last one to the first, so that where a label is, is known before a jump to it.
        """
        backwards: list[Instruction] = []
        places: dict[Label, int] = {}  # instructions from there to the end

        def far(label: Label) -> int:
            return len(backwards) - places[label]

        for line in reversed(self._lines):
            if isinstance(line, int):
                places[line] = len(backwards)
                continue
            code, yes, no, constant = line
            if code == JUMP:
                if far(yes):
                    backwards.append((JUMP, 0, 0, far(yes)))
                continue
            if code not in (JUMP_EQUAL, JUMP_ABOVE, JUMP_AT_LEAST, JUMP_ANY_BIT):
                backwards.append((code, 0, 0, constant))
                continue
            reached = {}
            for label in {yes, no}:
                # One more: a bridge for the other one may come in between.
                if far(label) + 1 > FARTHEST:
                    backwards.append((JUMP, 0, 0, far(label)))
                    reached[label] = len(backwards)
                else:
                    reached[label] = places[label]
            steps = [len(backwards) - reached[label] for label in (yes, no)]
            backwards.append((code, steps[0], steps[1], constant))
        return backwards[::-1]
