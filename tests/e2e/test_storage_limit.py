"""A recording that meets the storage limit stops, and nothing else is touched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.network import Network, wait_until
from tests.e2e.services import ANSWER_SECONDS, Recorder, paths

pytestmark = [pytest.mark.root, pytest.mark.debian]

LIMIT = 8 << 20
BODY = 512 << 10
"""Octets of each body; they are random, so that nothing makes them smaller on disk."""
MOST_BODIES = 64
"""Four times the limit."""


@contextmanager
def largest_size(folder: Path) -> Iterator[list[int]]:
    """Look at a folder all the time; the list has the most octets that it ever held."""
    most = [0]
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            size = 0
            for where, _, names in os.walk(folder):
                for name in names:
                    try:
                        size += (Path(where) / name).stat().st_size
                    except FileNotFoundError:
                        continue
            most[0] = max(most[0], size)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield most
    finally:
        stop.set()
        looking.join()


def test_a_recording_that_meets_the_limit_stops_and_says_why(
    network: Network, recorder: Recorder, new_name: Callable[[], str], tmp_path: Path
) -> None:
    earlier, filling = new_name(), new_name()
    recorder.start_scheduler("--storage-limit", str(LIMIT))
    recorder.start_query()
    recorder.start_agent(network.interface)
    recorder.record(earlier, "http")
    network.curl(f"/ok/{earlier}-1", f"/ok/{earlier}-2")
    recorder.wait_for(f'record("{earlier}")', 2)
    recorder.stop_job(earlier)

    body = tmp_path / "body"
    more = ("--data-binary", f"@{body}", "-H", "Expect:")
    put = 0
    with largest_size(recorder.data / "recordings") as most:
        recorder.record(filling, "http", "--body-limit", "0")
        while put < MOST_BODIES and recorder.job(filling)["state"] == "recording":
            body.write_bytes(os.urandom(BODY))
            network.curl(f"/store/{filling}-{put}", method="PUT", more=more)
            put += 1
        wait_until(
            lambda: recorder.job(filling)["state"] == "storage limited",
            ANSWER_SECONDS,
            lambda: f"the limit is met: {recorder.job(filling)}",
        )
    assert LIMIT // 4 < most[0] <= LIMIT
    job = recorder.job(filling)
    assert "limit" in str(job).lower()
    kept = recorder.ask(f'record("{filling}")')
    assert 0 < len(kept) < put
    assert paths(recorder.ask(f'record("{earlier}")')) == [f"/ok/{earlier}-1", f"/ok/{earlier}-2"]
    said = recorder.say("ask", f'record("{filling}") and limit(1)').said
    assert "limit" in said, "the answer says that the recording is not whole"
