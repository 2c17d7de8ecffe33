import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from recordings import layout, snapshot
from services.runtime.clock import SystemClock
from services.scheduler.quota import Quota
from services.scheduler.writer import Writer
from tests.integration.scheduler.writing_process import AGENTS, JOBS
from tests.unit.scheduler.stored import stored

ROOT = Path(__file__).parents[3]
ROUNDS = 8


def run_and_kill(data, size, seconds, *options):
    """Let a writer run, kill it, and return the lines that it wrote until then."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.integration.scheduler.writing_process"),
            *(data, str(size), *options),
        ],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    lines = []

    def read():
        lines.extend(process.stdout)

    reading = threading.Thread(target=read)
    try:
        reading.start()
        while len(lines) < len(AGENTS) + 5 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stdout.close()
    assert process.returncode == -9, "it ended by itself"
    return [line.split() for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("size", [0, 5000])
def test_what_was_acknowledged_survives_any_kill_once_and_in_full(tmp_path, size):
    chance = random.Random(size)
    acknowledged = dict.fromkeys(AGENTS, 0)
    for _ in range(ROUNDS):
        lines = run_and_kill(tmp_path, size, chance.uniform(0, 0.4))
        for agent, *rest in lines:
            if rest[0] == "begins":
                # What was acknowledged is never asked for again.
                assert int(rest[1]) >= acknowledged[agent]
            else:
                acknowledged[agent] = max(acknowledged[agent], int(rest[0]))
        # A query that comes before the restart sees it already.
        check(tmp_path, acknowledged)
    assert min(acknowledged.values()) > ROUNDS
    writer = Writer(tmp_path, Quota(None), SystemClock())
    writer.start()
    for job in JOBS:
        writer.close_run(job, 1)
    writer.stop()
    check(tmp_path, acknowledged)
    for job in JOBS:
        folder = layout.run(tmp_path, job, 1)
        assert layout.journals(folder) == []
        listed = {path.name for path in snapshot.open(tmp_path, job).files("packets")}
        assert {path.name for path in folder.iterdir()} == {*listed, "manifest.json"}


def check(data, acknowledged):
    """Every batch that was acknowledged is there whole, in its job, and none is there in part."""
    for job in JOBS:
        found = stored(data, job)
        assert set(found.values()) <= {2}
        for agent, last in acknowledged.items():
            mine = {sequence for name, sequence in found if name == agent}
            expected = {s for s in range(1, last + 1) if JOBS[s % 3 == 0] == job}
            assert expected <= mine
            assert all(JOBS[s % 3 == 0] == job for s in mine)
