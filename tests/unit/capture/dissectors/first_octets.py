"""Looking at first octets as the recogniser does."""

import numpy as np

from services.capture.dissectors.signatures import CLIENT, bits_of, look, new_table


def looked(protocols, octets, side=CLIENT, port=1, refused=0, wanted=None):
    """Return which of (signatures, ports) it is, or why none."""
    table = new_table(protocols)
    bits = bits_of(table, range(len(protocols)) if wanted is None else wanted)
    array = np.frombuffer(bytearray(octets), np.uint8)  # exact: a read behind its end raises
    return look(table, bits, np.uint64(refused), side, port, 40_000, array, 0, len(array))


def fits(kind, octets, side=CLIENT, port=50_000):
    """Whether octets look like the begin of a protocol."""
    return looked([(kind.signatures, kind.ports)], octets, side, port) == 0
