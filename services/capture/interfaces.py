"""The interfaces of a node as one source of frames. `app` opens them."""

from collections.abc import Iterator, Sequence

from services.capture.frames.afpacket import BLOCK_SIZE, AfPacket
from services.capture.frames.batch import CaptureError, FrameBatch, FrameSource, Loss


def open_interfaces(names: Sequence[str], ring_memory: int) -> FrameSource:
    """Capture from interfaces, each with a ring of so many octets. Raises CaptureError."""
    blocks = max(1, ring_memory // BLOCK_SIZE)
    opened: list[FrameSource] = []
    try:
        for name in dict.fromkeys(names):
            opened.append(AfPacket(name, block_count=blocks))
    except CaptureError:
        for source in opened:
            source.close()
        raise
    return opened[0] if len(opened) == 1 else Several(opened)


class Several:
    """Several live sources, asked one after the other.

    One that has nothing holds up the others for its poll timeout; their rings hold much more.
    """

    def __init__(self, sources: Sequence[FrameSource]) -> None:
        self._sources = sources

    def batches(self) -> Iterator[FrameBatch]:
        """Yield a batch of each source in turn, until one ends."""
        waiting = [source.batches() for source in self._sources]
        while True:
            for batches in waiting:
                batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def losses(self) -> list[Loss]:
        """Return what was lost since the last call, on any of them."""
        return [loss for source in self._sources for loss in source.losses()]

    def close(self) -> None:
        """Close all of them."""
        for source in self._sources:
            source.close()
