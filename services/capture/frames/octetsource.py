"""The octets of a capture file in an array: a plain file mapped whole, all else piece by piece."""

import mmap
import os
import select
import sys
import time
import zlib
from enum import Enum
from typing import Protocol

import numpy as np

PIECE_SIZE = 16 * 1024 * 1024
"""Octets of the buffer for what is not mapped. It holds any record whole (walk.LARGEST_BLOCK)."""

COMPRESSED_PIECE_SIZE = 256 * 1024
"""Octets read at a time from a gzip stream."""

POLL_TIMEOUT_MS = 100
"""How long to wait for a pipe before the caller may look at other things."""

GATHERED_SIZE = 1024 * 1024
GATHERING_S = 0.005
"""What is read from a pipe at most, in octets and seconds, before it is handed on."""

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31
"""zlib's wbits for the gzip format, RFC 1952, with the largest window."""

MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""No swap is set aside for a private mapping: files larger than memory can be mapped."""


class Progress(Enum):
    """What came of asking for more octets."""

    MORE = "more"
    IDLE = "idle"
    """Nothing within the poll timeout."""
    END = "end"


class DamagedStreamError(Exception):
    """Compressed data cannot be read further; the text says why, as the end of a sentence."""


class Octets(Protocol):
    """A window on the octets of a capture."""

    octets: np.ndarray
    """uint8, writable."""
    start: int
    """How many octets of the capture are before the window."""

    def advance(self, position: int) -> Progress:
        """Let go of octets[:position], as far as there are so many, and read more.

        Raises DamagedStreamError.
        """
        ...

    def release(self, position: int) -> None:
        """Give back memory of octets[:position], which will not be read again."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class MappedFile:
    """A plain file, mapped privately: its array is writable, the file is never written.

    Another program that shortens the file meanwhile ends this process with SIGBUS, as with
    every mapped file.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        """`size`: octets of the file. Raises OSError."""
        self.octets = np.empty(0, np.uint8)
        self.start = 0
        self._mapping: mmap.mmap | None = None
        self._released = 0
        if size == 0:
            return
        mapping = mmap.mmap(
            descriptor,
            size,
            flags=mmap.MAP_PRIVATE | MAP_NORESERVE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE,
        )
        if hasattr(mmap, "MADV_SEQUENTIAL"):
            mapping.madvise(mmap.MADV_SEQUENTIAL)
        self.octets = np.frombuffer(mapping, np.uint8)
        self._mapping = mapping

    def release(self, position: int) -> None:
        """As Octets has it; without this a large file would look like a large process."""
        end = position - position % mmap.PAGESIZE
        if self._mapping is not None and end > self._released and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED, self._released, end - self._released)
            self._released = end

    def advance(self, position: int) -> Progress:
        """All of it is there already."""
        del position
        return Progress.END

    def close(self) -> None:
        """Unmap, once nobody holds a view of it."""
        self.octets = self.octets[:0].copy()
        self._mapping = None


class Stream(Protocol):
    """Octets one after the other."""

    def read_into(self, room: np.ndarray) -> int | None:
        """Fill the beginning of `room`.

        Return the octets, 0 at the end, None when none came in time. Raises DamagedStreamError.
        """
        ...


class Descriptor:
    """A stream from a pipe or a file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def read_into(self, room: np.ndarray) -> int | None:
        """As Stream has it. A pipe gives 64 KiB at a time: take several, if they come soon."""
        if not self._poll.poll(POLL_TIMEOUT_MS):
            return None
        most = min(len(room), GATHERED_SIZE)
        deadline = time.monotonic() + GATHERING_S
        filled = 0
        while filled < most:
            count = os.readv(self._descriptor, [room[filled:most].data])
            filled += count
            left_ms = (deadline - time.monotonic()) * 1000
            if count == 0 or left_ms <= 0 or not self._poll.poll(left_ms):
                break
        return filled


class Gunzip:
    """What is in a gzip stream; members one after the other are one stream, RFC 1952."""

    def __init__(self, stream: Stream, first: bytes) -> None:
        """`first`: octets that were read from the stream before."""
        self._stream = stream
        self._compressed = first
        self._piece = np.empty(COMPRESSED_PIECE_SIZE, np.uint8)
        self._member = zlib.decompressobj(GZIP_WINDOW)
        self._in_member = False

    def read_into(self, room: np.ndarray) -> int | None:
        """As Stream has it."""
        while True:
            ended = False
            if not self._compressed:
                count = self._stream.read_into(self._piece)
                if count is None:
                    return None
                ended = count == 0
                self._compressed = self._piece[:count].tobytes()
            if not self._in_member:  # padding with zeros may stand between members and at the end
                self._compressed = self._compressed.lstrip(b"\0")
                if not self._compressed:
                    if ended:
                        return 0
                    continue
                self._in_member = True
            plain = self._decompress(len(room))
            if plain:
                room[: len(plain)] = np.frombuffer(plain, np.uint8)
                return len(plain)
            if ended and self._in_member:
                raise DamagedStreamError("the gzip data is cut short")

    def _decompress(self, most: int) -> bytes:
        try:
            plain = self._member.decompress(self._compressed, most)
        except zlib.error as error:
            raise DamagedStreamError(f"the gzip data is damaged ({error})") from None
        self._compressed = self._member.unconsumed_tail
        if self._member.eof:
            self._compressed = self._member.unused_data
            self._member = zlib.decompressobj(GZIP_WINDOW)
            self._in_member = False
        return plain


class Pieces:
    """A stream through a buffer of fixed size; what is not used yet moves to its beginning."""

    def __init__(self, stream: Stream, descriptor: int, first: bytes) -> None:
        """`descriptor` is closed with this; `first`: octets read from the stream before."""
        self._stream = stream
        self._descriptor = descriptor
        self._buffer = np.empty(PIECE_SIZE, np.uint8)
        self._buffer[: len(first)] = np.frombuffer(first, np.uint8)
        self.octets = self._buffer[: len(first)]
        self.start = 0

    def advance(self, position: int) -> Progress:
        """As Octets has it."""
        used = min(position, len(self.octets))
        kept = len(self.octets) - used
        self._buffer[:kept] = self.octets[used:].copy()
        self.octets = self._buffer[:kept]
        self.start += used
        count = self._stream.read_into(self._buffer[kept:])
        if count is None:
            return Progress.IDLE
        self.octets = self._buffer[: kept + count]
        return Progress.MORE if count else Progress.END

    def release(self, position: int) -> None:
        """Nothing: the buffer is used again."""
        del position

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
