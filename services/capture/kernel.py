# mypy: ignore-errors
"""The decorator of every kernel, and the loads of integers from an array of octets.

There is one build and it is checked: an index outside an array raises IndexError.
NUMBA_DISABLE_JIT=1 runs the same functions as plain Python, for a debugger or for coverage.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

ROOM = Path(__file__).parent


def cache_folder() -> Path:
    """Where compiled kernels are kept: a folder for each state of the sources.

    Numba's own key of a kernel does not change when a module that it imports does.
    """
    sources = hashlib.sha256()
    for path in sorted(ROOM.rglob("*.py")):
        text = path.read_bytes()
        if b"@kernel" in text or b"@cold_kernel" in text:
            sources.update(text)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if not os.access(next(p for p in (base, *base.parents) if p.exists()), os.W_OK):
        base = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return base / "traffic-recorder" / f"kernels-{sources.hexdigest()[:16]}"


os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder()))  # read when numba is imported

from numba import njit  # noqa: E402

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile `function`; a kernel called by another kernel costs nothing.

    forceinline: LLVM (not Numba) inlines it, so a returned tuple stays in registers.
    _nrt=False: no reference counting. With it every call that passes an array pays two atomic
        increments. A kernel therefore cannot allocate: np.zeros in it is a compile-time error.
    cache: see cache_folder. These options are not in Numba's key either.
    """
    compiled: F = njit(
        function,
        nogil=True,
        forceinline=True,
        error_model="numpy",
        boundscheck=True,
        cache=True,
        _nrt=False,
    )
    return compiled


def cold_kernel(function: F) -> F:
    """As kernel, for what few packets need: a call, so that the others' code stays small."""
    compiled: F = njit(
        function, nogil=True, error_model="numpy", boundscheck=True, cache=True, _nrt=False
    )
    return compiled


# `at` is the position of the first octet. The results are signed 64-bit integers, so that
# arithmetic on lengths and positions needs no casts; only read_u64 has to be unsigned.
# The index is unsigned because Numba, like Python, reads octets[-1] as the last octet.


@kernel
def read_u8(octets, at):
    return np.int64(octets[np.uint64(at)])


@kernel
def read_u16(octets, at):
    return read_u8(octets, at) << 8 | read_u8(octets, at + 1)


@kernel
def read_u32(octets, at):
    return read_u16(octets, at) << 16 | read_u16(octets, at + 2)


@kernel
def read_u64(octets, at):
    return np.uint64(read_u32(octets, at)) << np.uint64(32) | np.uint64(read_u32(octets, at + 4))


@kernel
def read_u16_little_endian(octets, at):
    return read_u8(octets, at + 1) << 8 | read_u8(octets, at)


@kernel
def read_u32_little_endian(octets, at):
    return read_u16_little_endian(octets, at + 2) << 16 | read_u16_little_endian(octets, at)


@njit(nogil=True, forceinline=True, boundscheck=False, error_model="numpy", cache=True, _nrt=False)
def copy_octets(octets, position, length, out, at):
    """Copy octets[position:][:length] to out[at:]; raise IndexError when either is too short.

    The range is checked once, here, and the loop is not, so that it compiles to vector moves
    (10 GB/s; with a check in every round 1 GB/s). Only this kernel and the next are without checks.
    """
    if length < 0 or position < 0 or at < 0:
        raise IndexError("negative position or length")
    if length > len(octets) - position or length > len(out) - at:
        raise IndexError("span outside its array")
    for index in range(length):
        out[at + index] = octets[position + index]


@njit(nogil=True, forceinline=True, boundscheck=False, error_model="numpy", cache=True, _nrt=False)
def is_ascii_run(octets, position, end):
    """Say whether no octet of octets[position:end] is above 0x7F; checked as copy_octets is."""
    if position < 0 or end > len(octets):
        raise IndexError("span outside its array")
    bits = np.uint8(0)
    for index in range(position, end):
        bits |= octets[index]
    return bits < 0x80
