"""What capturefile.py asks of a file format, and what a format answers."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np

LINKTYPE_RAW = 101
DLT_RAW_VALUES = (12, 14)
"""What some systems write where LINKTYPE_RAW belongs: their own DLT_RAW."""


class Need(Enum):
    """What it takes to go on after a walk."""

    ROWS = "rows"
    """Room for frames: there may be more in the same octets."""
    OCTETS = "octets"
    """More of the file, from `position` on."""
    NOTHING = "nothing"
    """The rest cannot be read."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a file is not as its format says, and how."""

    position: int
    """Of the record, in the octets walked."""
    text: str
    """What the record does: "says that it holds …"."""
    packets: int = 0
    """How many packets are left out for this reason; 0 when nobody can know."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk over octets gave."""

    rows: int
    """Frames filled."""
    position: int
    """Of the first octet not used. Beyond the end: that many octets more are to be skipped."""
    need: Need
    damage: tuple[Damage, ...] = ()
    """For Need.NOTHING the last one is the reason."""


class CaptureFormat(Protocol):
    """Reads records of one capture, in as many calls as its reader likes."""

    def walk(self, octets: np.ndarray, position: int, frames: np.ndarray) -> Walked:
        """Fill `frames` (FRAME rows) with the packets in octets[position:]."""
        ...


def link_type_of(value: int) -> int:
    """Return the LINKTYPE_ of a file's link type field.

    Its upper half may hold the length of the frame check sequence (draft-ietf-opsawg-pcap,
    section 4).
    """
    link_type = value & 0xFFFF
    return LINKTYPE_RAW if link_type in DLT_RAW_VALUES else link_type
