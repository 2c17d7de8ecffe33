"""A sample of the fuzz of each dissector; `make test/fuzz DISSECTOR=name CASES=n` does more."""

import os
import random

import pytest

from tests.fuzz import dissectors
from tests.fuzz.dissectors import FailedError, fuzz
from tests.unit.capture.dissectors.feeding import NAMES

CASES = 1500 if "CI" in os.environ else 400


@pytest.mark.timeout(600, method="thread")  # kernels may have to be compiled
@pytest.mark.parametrize("name", NAMES)
def test_damaged_streams_end_alone(name):
    done = fuzz(name, CASES, 7 if "CI" in os.environ else random.randrange(1 << 32))
    assert done.cases >= CASES
    assert done.entries > 0


def test_what_fails_is_made_small_and_can_be_run_again(monkeypatch):
    check = dissectors.check

    def fails(kind, dissector, cases):
        parts = [part for said in cases for _, part, _ in said if isinstance(part, bytes)]
        if any(b"\xff" in part for part in parts):
            raise IndexError("there it is")
        return check(kind, dissector, cases)

    monkeypatch.setattr(dissectors, "check", fails)
    with pytest.raises(FailedError, match=r"SEED=3 BATCH=\d+ CASES=1\nthe case: \[\(.*\)\]$"):
        fuzz("RADIUS-udp", 10_000, 3)
