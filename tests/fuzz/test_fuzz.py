"""A sample of the fuzz; FUZZ_SECONDS asks for more of it, `make test/fuzz` for much more."""

import os
import random
import sys

import pytest

from tests.fuzz import case, run
from tests.fuzz.frames import pieces_of, rows_of
from tests.fuzz.seeds import Seeds
from tests.fuzz.session import session
from tests.unit.capture.conversation import START

IS_CI = "CI" in os.environ
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60" if IS_CI else "15"))
COMPILING_SECONDS = 600
"""On a new machine, and a busy one; a hang is told by session.Watch, with what made it."""


@pytest.mark.timeout(SECONDS + COMPILING_SECONDS, method="thread")
def test_damaged_traffic_breaks_nothing():
    seed = 7 if IS_CI else random.randrange(1 << 32)
    done = session(seed, Seeds(seed), sys.maxsize, SECONDS)
    assert done.packets > 0
    assert done.entries > 0


@pytest.mark.timeout(COMPILING_SECONDS)
def test_what_fails_is_made_small_and_can_be_run_again(tmp_path, monkeypatch):
    """A check that fails when there is one certain frame finds that frame among many."""
    seeds = Seeds(1)
    take = run.Twins.take

    def fails(agents, batch):
        take(agents, batch)
        if b"the one" in batch.octets.tobytes():
            raise ValueError("there it is")

    monkeypatch.setattr(run.Twins, "take", fails)
    monkeypatch.setattr(run, "_mixed", lambda chance, seeds: iter(batches))
    monkeypatch.setattr(run, "FILE_SHARE", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    frames = [bytes([number]) * 60 for number in range(50)]
    batches = [
        run.Batch(*rows_of(pieces_of(part), START)[:2])
        for part in (frames, [*frames, b"the one", *frames], frames)
    ]
    with pytest.raises(run.FailedError) as caught:
        run.run(1, 0, seeds)
    smallest = case.smallest(caught.value)
    assert [batch.octets.tobytes() for batch in smallest] == [b"the one"]
    said = case.write(caught.value, smallest, 1)
    (folder,) = tmp_path.glob("fuzz-*")
    assert f"make test/fuzz CASE={folder}" in said
    assert case.run_again(folder) == "ValueError: there it is"


def test_an_episode_is_the_same_each_time():
    seeds = Seeds(3)
    both = [
        [batch.octets.tobytes() for batch in run._mixed(run.begin(3, 1)[0], seeds)]
        for _ in range(2)
    ]
    assert both[0] == both[1]
