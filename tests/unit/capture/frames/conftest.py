"""How the tests of this folder read a capture."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from services.capture.frames import open_capture


class Frame(NamedTuple):
    """A frame as a person sees it."""

    time_ns: int
    octets: bytes
    original_length: int
    link_type: int


class Read(NamedTuple):
    """A whole capture."""

    frames: list[Frame]
    damage: list[str]
    """Sentences."""
    left_out: int


def _read_capture(path: Path | str) -> Read:
    """Read a file as the agent does; frames are copied out of each batch."""
    source = open_capture(path)
    frames = []
    try:
        for octets, rows, _ in source.batches():
            assert octets.flags.writeable
            for row in rows:
                begin, length = int(row.offset), int(row.captured_length)
                assert 0 <= begin <= begin + length <= len(octets)
                taken = octets[begin : begin + length].tobytes()
                frames.append(
                    Frame(int(row.timestamp), taken, int(row.original_length), int(row.link_type))
                )
        losses = source.losses()
        assert source.losses() == []
    finally:
        source.close()
    assert all(loss.kind == "capture_damage" for loss in losses)
    return Read(frames, [loss.detail for loss in losses], sum(loss.packets for loss in losses))


@pytest.fixture
def read(tmp_path) -> Callable[[bytes], Read]:
    """Write octets to a file and read it as a capture."""

    def of(content: bytes) -> Read:
        path = tmp_path / "trace.pcap"
        path.write_bytes(content)
        return _read_capture(path)

    return of


@pytest.fixture(scope="session")
def read_capture() -> Callable[[Path], Read]:
    """Read a file as a capture."""
    return _read_capture
