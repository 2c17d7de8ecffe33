# mypy: ignore-errors
"""The fields that every table begins with, and the Huffman code (RFC 7541, A and B), as arrays."""

import functools

import numpy as np
from hpack.huffman_table import HUFFMAN_TABLE
from hpack.table import HeaderTable

STATIC_ENTRIES = len(HeaderTable.STATIC_TABLE) + 1  # they are numbered from 1


@functools.cache
def tables(entry: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (rows of the static table, their octets, the Huffman code).

    The code is a machine that takes half an octet at a time: row 16 * state + half has the next
    state, hpack's flags for it, and an octet (int16, 3 columns).
    """
    rows = np.zeros(STATIC_ENTRIES, entry)
    octets = bytearray()
    for number, (name, value) in enumerate(HeaderTable.STATIC_TABLE, 1):
        rows[number] = len(octets), len(name), len(value)
        octets += name + value
    huffman = np.array([(state, int(flags), octet) for state, flags, octet in HUFFMAN_TABLE])
    return rows, np.frombuffer(octets, np.uint8), huffman.astype(np.int16)
