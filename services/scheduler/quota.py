"""The budget of octets for everything below `<data>/recordings`; the writer asks before it writes.

What is reserved is an upper bound of what is on disk or may yet get there: the journals, the
segments that will be made of them, temporary files. So the disk use never exceeds the limit, not
even while a journal and its segments are both there, and a journal can always become segments.
"""

import errno
import re
import threading
from typing import Final

_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "K": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,6})?) ?(k|K|M|G|T|Ki|Mi|Gi|Ti)?B?", re.ASCII)

BLOCK: Final = 4096
"""Octets that a file's last piece takes on most file systems."""


class StorageFullError(OSError):
    """There is no room for more; `strerror` is a sentence."""

    def __init__(self, sentence: str) -> None:
        super().__init__(errno.ENOSPC, sentence)

    def __str__(self) -> str:
        return str(self.strerror)


def parse_size(text: str) -> int:
    """Return the octets of a size like 500Mi, 5Gi, 500MB or 1048576; ValueError with a sentence."""
    match = _SIZE.fullmatch(text.strip())
    octets = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if octets <= 0:
        raise ValueError(
            f"{text[:40]!a} is not a size; write a number above 0 and a unit, as in 500Mi "
            "(1024 * 1024), 5Gi, or 500MB (1000 * 1000)."
        )
    return octets


def spoken(octets: int) -> str:
    """Return a size for people, in the largest binary unit that keeps it exact to a tenth."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if octets >= size:
            return f"{octets / size:.1f} {unit}".replace(".0 ", " ")
    return f"{octets} bytes"


def on_disk(octets: int) -> int:
    """Return the octets that a file of this size takes, its last block counted whole."""
    return -(-octets // BLOCK) * BLOCK


class Quota:
    """Octets that may be used and those that are; safe for many threads."""

    def __init__(self, limit: int | None = None) -> None:
        """Allow `limit` octets; None is as many as the disk has."""
        if limit is not None and limit <= 0:
            raise ValueError("A storage limit has to be above 0; leave it out for none.")
        self.limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Octets that are reserved now."""
        with self._lock:
            return self._used

    def reserve(self, octets: int, spare: int = 0) -> bool:
        """Reserve octets; False, and nothing is reserved, when the limit would be exceeded.

        That many octets are to be left as `spare` for others.
        """
        with self._lock:
            if self.limit is not None and self._used + octets + spare > self.limit:
                return False
            self._used += octets
            return True

    def adopt(self, octets: int) -> None:
        """Count what is on disk already, whatever the limit says now."""
        with self._lock:
            self._used += octets

    def release(self, octets: int) -> None:
        """Give back what was reserved."""
        with self._lock:
            self._used -= octets

    def sentence(self) -> str:
        """Say that the limit was reached."""
        assert self.limit is not None
        return f"The storage limit of {spoken(self.limit)} for all recordings is reached."


class Budget:
    """Lets a file take what was reserved for it, and more only while the quota has it."""

    def __init__(self, quota: Quota, octets: int) -> None:
        """`octets` are reserved already."""
        self._quota = quota
        self._left = octets
        self.extra = 0
        """Octets reserved since."""

    def allow(self, octets: int) -> None:
        """Take octets; StorageFullError when there are no more."""
        if octets > self._left:
            if not self._quota.reserve(octets):
                raise StorageFullError(self._quota.sentence())
            self.extra += octets
            self._left += octets
        self._left -= octets
