# mypy: ignore-errors
"""Calls that kernels made as rows, remembered for when their stream matches late: a ring.

`http1.past` does the same in a kernel, since of HTTP/1 there are many more.
"""

import numpy as np


class PastCalls:
    """The last calls of a dissector; good as long as what their rows point at is kept."""

    def __init__(self, dtype: np.dtype, most: int) -> None:
        """dtype: of the rows, which have a field `stream`; most: of them."""
        self._dtype, self._most = dtype, most
        self._rows = np.zeros(0, dtype)  # made when the first calls come
        self._indexes = np.zeros(0, np.int32)
        self._count = 0

    def add(self, rows: np.ndarray, indexes: np.ndarray) -> None:
        """Remember calls, and the numbers of their entries (int32)."""
        if len(self._rows) == 0:
            self._rows = np.zeros(self._most, self._dtype)
            self._indexes = np.zeros(self._most, np.int32)
        rows, indexes = rows[-self._most :], indexes[-self._most :]
        where = (self._count + np.arange(len(rows))) % self._most
        self._rows[where], self._indexes[where] = rows, indexes
        self._count += len(rows)

    def of(self, streams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows, numbers of their entries) of some streams (int64), in their order."""
        order = np.arange(max(0, self._count - self._most), self._count) % self._most
        chosen = order[np.isin(self._rows["stream"][order], streams)] if len(order) else order
        return self._rows[chosen], self._indexes[chosen]
