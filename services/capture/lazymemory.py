"""Tables of which only what is used takes memory. The pipeline asks for it before it makes its own.

np.zeros of a large table is a mapping whose pages come when they are first written. But once such
a mapping was freed, glibc takes the next ones of that size from its heap (its threshold moves, up
to 32 MiB), where they are zeroed, and so there, at once; and the heap is seldom given back.
"""

import ctypes

M_MMAP_THRESHOLD = -3  # mallopt(3)
THRESHOLD = 4 << 20
"""Octets: less than any large table, more than what is made and freed for each batch."""


def keep_large_tables_lazy() -> None:
    """Let malloc map what is larger than THRESHOLD, whatever was freed before."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; musl maps at all times
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, THRESHOLD)
