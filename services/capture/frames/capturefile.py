"""A capture file as a source of frames: opened, recognised, and read in windows."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from services.capture.frames.batch import (
    FRAME,
    MOST_FRAMES,
    MOST_OCTETS,
    CaptureError,
    FrameBatch,
    Loss,
)
from services.capture.frames.fileformat import CaptureFormat, Damage, Need
from services.capture.frames.octetsource import (
    GZIP_MAGIC,
    DamagedStreamError,
    Descriptor,
    Gunzip,
    MappedFile,
    Octets,
    Pieces,
    Progress,
    Stream,
)
from services.capture.frames.pcapfile import FILE_HEADER_SIZE, PcapFormat, is_pcap
from services.capture.frames.pcapng import PcapngFormat, is_pcapng

STDIN = "-"

OTHER_FORMATS = (
    (b"snoop\0\0\0", "a snoop capture; convert it with `editcap -F pcapng`"),
    (b"GMBU", "a Microsoft Network Monitor capture; convert it with `editcap -F pcapng`"),
    (b"RTSS", "a Microsoft Network Monitor capture; convert it with `editcap -F pcapng`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first, with `zstd -d`"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; unpack it first, with `lz4 -d`"),
    (b"\xfd7zXZ\0", "compressed with xz; unpack it first, with `xz -d`"),
    (b"BZh", "compressed with bzip2; unpack it first, with `bzip2 -d`"),
    (b"PK\x03\x04", "a zip archive; unpack it first, with `unzip`"),
)
"""How files begin that people have instead, and what to do with them."""

SHOWN_OCTETS = 8
"""Octets of an unknown file that a message shows."""


class CaptureFile:
    """A FrameSource over a capture file or a stream of one.

    A batch's rows, too, are good only until the next batch is asked for.
    """

    def __init__(self, path: str) -> None:
        """Open `path`, or stdin for "-". Raises CaptureError."""
        self.name = "the capture on stdin" if path == STDIN else path
        self.frame_count = 0
        self._last_time = 0
        self._closed = False
        self._frames = np.zeros(MOST_FRAMES, FRAME)
        self._damage: list[Damage] = []
        self._octets: Octets
        self._octets, first = _open(path, self.name)
        try:
            self._format, self._position = _recognise(first, self.name)
        except CaptureError:
            self._octets.close()
            raise

    def batches(self) -> Iterator[FrameBatch]:
        """Yield windows of at most MOST_FRAMES frames in MOST_OCTETS octets.

        While a pipe has nothing, an empty one.
        """
        while not self._closed:
            octets = self._octets.octets
            window_end = min(len(octets), self._position + MOST_OCTETS)
            walked = self._format.walk(octets[:window_end], self._position, self._frames)
            self._position = walked.position
            self.frame_count += walked.rows
            for damage in walked.damage:
                self._note(damage)
            if walked.rows:
                self._last_time = int(self._frames["timestamp"][walked.rows - 1])
                yield FrameBatch(octets, self._frames[: walked.rows])
                self._octets.release(self._position)
            if walked.need is Need.NOTHING or self._closed:
                return
            if walked.need is Need.ROWS or window_end < len(octets):
                continue
            progress = self._advance()
            if progress is Progress.END:
                return
            if progress is Progress.IDLE:
                yield FrameBatch(self._octets.octets, self._frames[:0])

    def _advance(self) -> Progress:
        """Get more octets; note it when they end where they should not."""
        absolute = self._octets.start + self._position
        try:
            progress = self._octets.advance(self._position)
        except DamagedStreamError as error:
            self._position = absolute - self._octets.start
            self._note(Damage(len(self._octets.octets), f"cannot be read: {error}"))
            return Progress.END
        self._position = absolute - self._octets.start
        if progress is Progress.END and self._position != len(self._octets.octets):
            begin = min(self._position, len(self._octets.octets))
            self._note(Damage(begin, "is cut short: the file ends in the middle of it"))
        return progress

    def _note(self, damage: Damage) -> None:
        """Keep damage until losses() is called, joined with what is of the same kind."""
        position = self._octets.start + damage.position
        for index, noted in enumerate(self._damage):
            if noted.text == damage.text:
                self._damage[index] = Damage(
                    noted.position, noted.text, noted.packets + damage.packets
                )
                return
        self._damage.append(Damage(position, damage.text, damage.packets))

    def losses(self) -> list[Loss]:
        """Return the damage found since the last call, kind capture_damage.

        Its time is that of the last packet read. Octets are counted from the beginning of the file,
        after unpacking if it is gzipped.
        """
        found, self._damage = self._damage, []
        return [
            Loss(
                "capture_damage",
                self._last_time,
                self._last_time,
                packets=damage.packets,
                detail=f"{self.name}: the record at octet {damage.position} {damage.text}; "
                f"packets read until now: {self.frame_count}",
            )
            for damage in found
        ]

    def close(self) -> None:
        """Unmap the file or close the stream; batches() ends."""
        self._closed = True
        self._octets.close()


def _open(path: str, name: str) -> tuple[Octets, bytes]:
    """Return the octets of a file and how it begins. Raises CaptureError."""
    if path == STDIN:
        if os.isatty(0):
            raise CaptureError(
                "stdin is a terminal; pipe a capture into it, as from `tcpdump -U -w -`"
            )
        descriptor = os.dup(0)
    else:
        descriptor = _open_file(path)
    keep = False
    try:
        octets, keep = _octets_of(descriptor)
        return octets, octets.octets[:FILE_HEADER_SIZE].tobytes()
    except IsADirectoryError:
        raise CaptureError(f"{name} is a folder; name a capture file in it") from None
    except DamagedStreamError as error:
        raise CaptureError(f"{name} cannot be read: {error}") from None
    except OSError as error:
        raise CaptureError(f"{name} cannot be read: {error.strerror}") from None
    finally:
        if not keep:
            os.close(descriptor)


def _open_file(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        folder = Path(path).parent
        missing = f"; there is no folder {folder} either" if not folder.is_dir() else ""
        raise CaptureError(f"there is no file {path}{missing}") from None
    except PermissionError:
        raise CaptureError(
            f"{path} may not be read by this user (uid {os.geteuid()}); "
            "change its permissions or the user"
        ) from None
    except ValueError:
        raise CaptureError("the name of a file cannot hold a NUL") from None
    except OSError as error:
        raise CaptureError(f"{path} cannot be opened: {error.strerror}") from None


def _octets_of(descriptor: int) -> tuple[Octets, bool]:
    """Return the octets behind a descriptor, and whether they need it to stay open.

    Of a stream, the first FILE_HEADER_SIZE octets have come, if there are as many.
    """
    status = os.fstat(descriptor)
    whole = stat.S_ISREG(status.st_mode) and os.lseek(descriptor, 0, os.SEEK_CUR) == 0
    if whole and os.pread(descriptor, len(GZIP_MAGIC), 0) != GZIP_MAGIC:
        return MappedFile(descriptor, status.st_size), False
    stream: Stream = Descriptor(descriptor)
    first = _first_of(stream)
    if first.startswith(GZIP_MAGIC):
        stream = Gunzip(stream, first)
        first = _first_of(stream)
    return Pieces(stream, descriptor, first), True


def _first_of(stream: Stream) -> bytes:
    """Read FILE_HEADER_SIZE octets, or all there are; wait as long as it takes."""
    room = np.empty(FILE_HEADER_SIZE, np.uint8)
    filled = 0
    while filled < len(room):
        count = stream.read_into(room[filled:])
        if count == 0:
            break
        filled += count or 0
    return room[:filled].tobytes()


def _recognise(first: bytes, name: str) -> tuple[CaptureFormat, int]:
    """Return the format of a file that begins with `first`, and where its records begin."""
    if is_pcapng(first):
        return PcapngFormat(), 0
    if is_pcap(first):
        if len(first) < FILE_HEADER_SIZE:
            raise CaptureError(
                f"{name} is cut short: it has {len(first)} octets, and the header of a pcap file "
                f"has {FILE_HEADER_SIZE}"
            )
        return PcapFormat(first), FILE_HEADER_SIZE
    if not first:
        raise CaptureError(f"{name} is empty; expected a pcap or pcapng capture, also gzipped")
    for magic, what in OTHER_FORMATS:
        if first.startswith(magic):
            raise CaptureError(f"{name} is {what}; expected pcap or pcapng, also gzipped")
    raise CaptureError(
        f"{name} is not a capture file: it begins with {_shown(first[:SHOWN_OCTETS])}; "
        "expected pcap or pcapng, also gzipped"
    )


def _shown(octets: bytes) -> str:
    """Return octets for people: as text where they are text, else in hexadecimal."""
    text = octets.decode("ascii", "replace")
    return repr(text) if text.isprintable() and text.isascii() else octets.hex(" ")
