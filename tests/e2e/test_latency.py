"""How soon something that happened on the wire can be asked for."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise

import pytest

from tests.e2e.network import Network, end
from tests.e2e.services import ROOT, Recorder, environment

pytestmark = [pytest.mark.root, pytest.mark.debian]

CALLS = 20

PROMISE_SECONDS = 2.0
LOADED_SECONDS = 5.0
"""The promise, with a margin for a machine on which other things run."""


def last_packet(entry: dict) -> float:
    """Return when the last octet of the response was on the wire, in seconds since 1970."""
    begin = datetime.fromisoformat(entry["startTime"][:26] + "+00:00").timestamp()
    return begin + entry["elapsedTimeUs"] / 1e6


def read(lines: Iterable[bytes], found: queue.Queue[dict]) -> None:
    for line in lines:
        found.put(json.loads(line))


def followed(network: Network, recorder: Recorder, kfl: str, word: str) -> list[float]:
    """Follow a statement and make calls; return when the follower had each, sorted."""
    command = recorder.command("ask", kfl, "--follow", "--output", "json")
    follower = subprocess.Popen(
        command, cwd=ROOT, env=environment(recorder), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert follower.stderr is not None
        assert follower.stdout is not None
        while b"entries of" not in (said := follower.stderr.readline()):
            assert said, "the follower ended"
        found: queue.Queue[dict] = queue.Queue()
        reading = threading.Thread(target=read, args=(follower.stdout, found), daemon=True)
        reading.start()
        while found.empty():  # agents hear of a statement a moment later
            network.curl(f"/ok/{word}-early")
            time.sleep(0.1)
        delays = []
        for number in range(CALLS):
            network.curl(f"/ok/{word}-{number}")
            while (entry := found.get(timeout=60))["request"]["path"] == f"/ok/{word}-early":
                pass
            delays.append(time.time() - last_packet(entry))
            assert entry["request"]["path"] == f"/ok/{word}-{number}"
        return sorted(delays)
    finally:
        end(follower)


def test_a_viewer_of_live_traffic_sees_a_call_at_once(
    network: Network,
    live: Recorder,
    new_name: Callable[[], str],
    record_property: Callable[[str, object], None],
) -> None:
    name = new_name()
    delays = followed(network, live, f'request.path.startsWith("/ok/{name}-")', name)
    record_property("live_latency_median_seconds", delays[CALLS // 2])
    record_property("live_latency_largest_seconds", delays[-1])
    print(f"\nlive: median {delays[CALLS // 2]:.3f} s, largest {delays[-1]:.3f} s")
    assert min(delays) > 0
    assert delays[-1] < LOADED_SECONDS


def test_a_follower_and_a_question_see_a_call_within_seconds(
    network: Network,
    live: Recorder,
    new_name: Callable[[], str],
    record_property: Callable[[str, object], None],
) -> None:
    name = new_name()
    live.record(name, "http")
    delays = followed(network, live, f'record("{name}")', name)
    # A question that is asked afresh, with the start of a process in it.
    begin = time.time()
    network.curl(f"/ok/{name}-last")
    entries = live.wait_for(f'record("{name}") and request.path == "/ok/{name}-last"', 1)
    asked = time.time() - last_packet(entries[0])
    record_property("latency_median_seconds", delays[CALLS // 2])
    record_property("latency_largest_seconds", delays[-1])
    print(
        f"\nlatency: median {delays[CALLS // 2]:.3f} s, largest {delays[-1]:.3f} s; "
        f"by a new question {asked:.3f} s of {time.time() - begin:.3f} s"
    )
    assert min(delays) > 0
    assert delays[-1] < LOADED_SECONDS
    assert asked < LOADED_SECONDS
    everything = live.ask(f'record("{name}")')
    times = [entry["startTime"] for entry in everything]
    assert all(before <= after for before, after in pairwise(times)), "in the order of time"
    live.stop_job(name)
