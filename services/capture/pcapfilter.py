"""A capture filter that an operator wrote, in the language of pcap-filter(7): libpcap compiles it.

Only where one is given (`--bpf`) is libpcap needed; those of jobs are made in `bpf`.
"""

import ctypes
import ctypes.util
from collections.abc import Iterator, Sequence

from services.capture.frames.afpacket import AfPacket, Counts, Instruction
from services.capture.frames.batch import CaptureError, FrameBatch, Loss
from services.capture.frames.interfaces import Interfaces

LONGEST_FILTER = 4096
"""Characters; longer ones make programs that no socket takes."""

DLT_EN10MB = 1
NETMASK_UNKNOWN = 0xFFFFFFFF
OPTIMIZE = 1

LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def compile_filter(text: str, snaplen: int) -> Sequence[Instruction]:
    """Return the program for frames of Ethernet that keeps what `text` says, cut at `snaplen`.

    Raises CaptureError with libpcap's reason, or when there is no libpcap.
    """
    if len(text) > LONGEST_FILTER or "\0" in text:
        raise CaptureError(
            f"a capture filter has at most {LONGEST_FILTER} characters, and none of them is 0"
        )
    pcap = _library()
    handle = pcap.pcap_open_dead(DLT_EN10MB, snaplen)
    if not handle:
        raise CaptureError("libpcap gives no handle to compile a filter with")
    program = _Program()
    try:
        code = pcap.pcap_compile(
            handle, ctypes.byref(program), text.encode(), OPTIMIZE, NETMASK_UNKNOWN
        )
        if code != 0:
            reason = pcap.pcap_geterr(handle).decode("utf-8", "replace")
            raise CaptureError(f"the capture filter {text!r} is not right: {reason}")
        found = [program.instructions[number] for number in range(program.length)]
        return [(each.code, each.jt, each.jf, each.k) for each in found]
    finally:
        pcap.pcap_freecode(ctypes.byref(program))
        pcap.pcap_close(handle)


class Filtered:
    """A FrameSource with a program of the operator, which no job changes."""

    def __init__(self, source: AfPacket | Interfaces, program: Sequence[Instruction]) -> None:
        """`source` is closed with this. Raises CaptureError when the kernel refuses the program."""
        self._source = source
        source.attach(program)

    def batches(self) -> Iterator[FrameBatch]:
        """Yield what the program keeps."""
        return self._source.batches()

    def losses(self) -> list[Loss]:
        """Return what the kernel dropped since the last call."""
        return self._source.losses()

    @property
    def counts(self) -> Counts:
        """What was seen since the source was opened."""
        return self._source.counts

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def _library() -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            pcap = ctypes.CDLL(name)
        except OSError:
            continue
        pcap.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        pcap.pcap_open_dead.restype = ctypes.c_void_p
        pcap.pcap_compile.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        )
        pcap.pcap_geterr.argtypes = (ctypes.c_void_p,)
        pcap.pcap_geterr.restype = ctypes.c_char_p
        pcap.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
        pcap.pcap_close.argtypes = (ctypes.c_void_p,)
        return pcap
    raise CaptureError(
        "a capture filter needs libpcap, which is not there; on Debian: apt install libpcap0.8"
    )
