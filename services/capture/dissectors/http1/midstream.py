# mypy: ignore-errors
"""HTTP/1 that is looked for from now on, in streams that are under way. The pipeline calls it."""

import numpy as np

from services.capture.dissectors.http1.framing import LOST
from services.capture.dissectors.http1.rows import Framer
from services.capture.flows import NO_STREAM


def begin_midstream(framer: Framer, directions: np.ndarray) -> None:
    """Forget where the streams stood, and go on with the next message of each, as after a gap.

    directions: reassembly.DIRECTION as they stand now, two for each flow that ever was; what lies
    behind them has never been touched, and so takes no memory yet.
    """
    ours = framer.directions[: len(directions)]
    for rows in (ours, framer.exchanges[: len(directions) // 2]):
        rows[:] = np.zeros((), rows.dtype)
    framer.free[:] = np.arange(1, len(framer.free) + 1)
    framer.totals["free_slots"] = len(framer.free)
    begun = (directions["stream"] != NO_STREAM) & (directions["started"] != 0)
    ours["state"][begun] = LOST
    ours["taken"][begun] = (directions["next"] - directions["first"])[begun]
