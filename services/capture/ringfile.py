"""Octets of a file as an array: a packet store larger than memory. `packetstore` uses it.

The kernel keeps in memory what was written last, and writes the rest out when it likes. The file
has no name, so nothing is left of it when the process ends, however it does.
"""

import mmap
import os
from pathlib import Path

import numpy as np

from services.capture.frames.batch import CaptureError


def file_octets(folder: Path, size: int) -> np.ndarray:
    """Return `size` octets, all 0, that lie on the disk of `folder`. Raises CaptureError.

    The room is taken at once: a mapped file that finds the disk full later ends the process.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            mapping = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CaptureError(
            f"cannot keep packets in a file of {size >> 20} MiB in {folder}: {error.strerror}"
        ) from None
    return np.frombuffer(mapping, np.uint8)
