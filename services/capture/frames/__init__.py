"""Where frames come from: an interface, or a capture file."""

from os import PathLike, fspath

from services.capture.frames.batch import (
    FRAME,
    CaptureError,
    FrameBatch,
    FrameSource,
    Loss,
)

__all__ = ["FRAME", "CaptureError", "FrameBatch", "FrameSource", "Loss", "open_capture"]


def open_capture(path: str | PathLike[str]) -> FrameSource:
    """Open a pcap or pcapng file, gzipped or not, or "-" for stdin.

    Raises CaptureError with a sentence when there is no such file, or it is none.
    """
    from services.capture.frames.capturefile import CaptureFile  # brings in Numba: late

    return CaptureFile(fspath(path))
