"""No packet makes much more work than another: see work.py."""

import os
import random
import subprocess
import sys

import pytest

FRAMES = 2000


@pytest.mark.timeout(300)
def test_work_grows_with_packets_and_octets_only():
    seed = 7 if "CI" in os.environ else random.randrange(1 << 32)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.work", str(seed), "1", str(FRAMES)],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, f"seed {seed}: {ran.stderr[-3000:]}"
    assert 0 < float(ran.stdout) < 1
