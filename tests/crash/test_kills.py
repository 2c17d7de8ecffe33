"""Scheduler, agents and query service are killed with SIGKILL, again and again: what was
acknowledged is there once, whole, and what an agent took in reaches the recording or the ledger.

RECORDER_CRASH_ROUNDS says how often something is killed, RECORDER_CRASH_SEED repeats the choices of
an earlier run (not its timing). A failure prints both, and where each process died.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorder.v1 import jobs_pb2

from recordings import layout
from services.cli.main import run as recorder
from tests.crash import roles
from tests.crash.cluster import AGENTS, MORTAL, SPOOLED, UNSPOOLED, Cluster
from tests.crash.killpoints import KillPoint
from tests.crash.stored import (
    Tag,
    by_paths,
    by_snapshot,
    compare,
    directly,
    dropped,
    gone,
    unlisted,
)

ROUNDS = int(os.environ.get("RECORDER_CRASH_ROUNDS", "60"))
SEED = int(os.environ.get("RECORDER_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
ROUNDS_OF_A_JOB = 20
"""Then it is compared as a whole, deleted, and another one begins: a check reads all of it."""
SHARES = min(2, ROUNDS)
"""Clusters that share the rounds; pytest-xdist can run them side by side."""
VICTIMS = ("scheduler",) * 6 + SPOOLED * 2 + (MORTAL,) + ("query",) * 2


@pytest.fixture
def cluster(tmp_path: Path, share: int) -> Iterator[Cluster]:
    found = Cluster(tmp_path, random.Random(f"{SEED}/{share}"))
    yield found
    found.end()


@pytest.mark.timeout(600 + 20 * ROUNDS)
@pytest.mark.parametrize("share", range(SHARES))
def test_nothing_acknowledged_is_lost(cluster: Cluster, share: int) -> None:
    print(f"RECORDER_CRASH_SEED={SEED} RECORDER_CRASH_ROUNDS={ROUNDS}")
    rounds = ROUNDS // SHARES + (share < ROUNDS % SHARES)
    try:
        cluster.revive(calm=True)
        for begin in range(0, rounds, ROUNDS_OF_A_JOB):
            one_job(cluster, begin, min(ROUNDS_OF_A_JOB, rounds - begin))
        assert not bugs(cluster.folder)
    finally:
        print("\n".join(cluster.deaths))
        victims = Counter(death.split(":")[0] for death in cluster.deaths)
        print(f"{len(cluster.deaths)} kills:", dict(victims))


def one_job(cluster: Cluster, begin: int, rounds: int) -> None:
    """Record a job while processes are killed, then compare all of it, and delete it."""
    job, short = f"job-{begin}", f"short-{begin}"
    create(cluster, job, duration=1440)
    create(cluster, short, duration=1)
    for _ in range(rounds):
        one_round(cluster, job)
    everything(cluster, job)
    delete(cluster, job)
    cluster.wait(lambda: short not in layout.recordings(cluster.data), "the end of what expired")
    orphans = [path.name for path in layout.root(cluster.data).iterdir()]
    assert not [name for name in orphans if name.startswith(".") or name in (job, short)], orphans


def one_round(cluster: Cluster, job: str) -> None:
    chance = cluster.chance
    victim = chance.choice(VICTIMS)
    cluster.kill(victim, chance.uniform(0, 0.6))
    if victim == "scheduler":
        acknowledged = stored_by(cluster, job)
        compare(directly(cluster.data, job), acknowledged, "read directly")
        compare(by_snapshot(cluster.data, job), acknowledged, "in a snapshot")
        if chance.random() < 0.2:
            time.sleep(chance.uniform(0.2, 1.5))  # away for a while
    cluster.revive(calm=False)
    if chance.random() < 0.3:
        acknowledged = stored_by(cluster, job)
        compare(by_paths(cluster.ask(f'record("{job}")')), acknowledged, "in an answer")


def everything(cluster: Cluster, job: str) -> None:
    """Let agents deliver all, and compare with what they took in."""
    cluster.calm()
    (cluster.folder / "pause").touch()
    before = {name: len(roles.told(cluster.folder, name)) for name in AGENTS}
    for name in AGENTS:
        cluster.wait(lambda n=name: is_idle(cluster, n, before[n]), f"{name} to deliver")
    cluster.jobs("StopJob", jobs_pb2.StopJobRequest(name=job))
    cluster.wait(lambda: state(cluster, job) == jobs_pb2.JOB_STATE_STOPPED, "the stop")
    found = directly(cluster.data, job)
    assert by_snapshot(cluster.data, job) == found
    assert by_paths(cluster.ask(f'record("{job}")')) == found
    check_missing(cluster, job, found)
    cluster.wait(lambda: not unlisted(cluster.data, job), f"{unlisted(cluster.data, job)} to go")
    assert recorder(["verify", job, "--data", str(cluster.data)]) == 0
    (cluster.folder / "pause").unlink()


def is_idle(cluster: Cluster, name: str, since: int) -> bool:
    """Tell whether an agent has delivered everything, behind a line of its log."""
    return any(word == "idle" for word, *_ in roles.told(cluster.folder, name)[since:])


def check_missing(cluster: Cluster, job: str, found: set[Tag]) -> None:
    """What is missing had no room while the scheduler was away, and the ledger counts it."""
    begun, taken = (
        {
            (name, batch)
            for name in AGENTS
            for word, batch, of in roles.told(cluster.folder, name)
            if (word, of) == (wanted, job)
        }
        for wanted in ("sending", "sent")
    )
    assert found <= begun, sorted(found - begun)[:9]
    told = dropped(cluster.data, job)
    for name in (*SPOOLED, UNSPOOLED):
        # One that was killed while it handed a batch over may have had it, and dropped it later.
        least, most = (
            sum(1 + batch % 5 for of, batch in some - found if of == name)
            for some in (taken, begun)
        )
        assert least <= told[name] <= most, f"{name}: {told[name]} told, {least} to {most} lost"
    # Of an agent without a spool the ledger knows only when the scheduler had stored that it was
    # there, which a scheduler that is killed just then has not.
    lost = sum(tag[0] == MORTAL for tag in taken - found)
    print(f"{MORTAL}: {lost} batches lost, told: {MORTAL in gone(cluster.data, job)}")


def delete(cluster: Cluster, job: str) -> None:
    """Delete a job, and kill the scheduler meanwhile."""
    chance = cluster.chance
    cluster.kill("scheduler", 0)
    cluster.start("scheduler", KillPoint(chance.choice(["unlink", "rmdir", "rename"]),
                                         chance.randrange(1, 30), "after"))  # fmt: skip
    cluster.jobs("DeleteJob", jobs_pb2.DeleteJobRequest(name=job))
    cluster.kill("scheduler", chance.uniform(0, 0.05))
    cluster.revive(calm=True)
    cluster.wait(lambda: job not in layout.recordings(cluster.data), "the deletion")


# ---- what was stored, and what should be


def stored_by(cluster: Cluster, job: str) -> set[Tag]:
    """Return the batches of a job that agents have an acknowledgement for."""
    return {
        (name, batch)
        for name in AGENTS
        for word, batch, of in roles.told(cluster.folder, name)
        if word == "stored" and of == job
    }


def bugs(folder: Path) -> list[str]:
    """Return the lines of logs that tell of something that must not happen."""
    found = []
    for path in folder.glob("*.out"):
        for line in path.read_text().splitlines():
            # What comes late for a run that is over is refused; only short ones are.
            is_late = "of job short-" in line and "takes no data" in line
            # If it had rows, ` refused: ` stands before it.
            is_told = '"the scheduler refused a batch"' in line
            wrong = re.search('Traceback|"level": "error"| refused: ', line)
            if wrong and not is_late and not is_told:
                found.append(f"{path.name}: {line}")
    return found


def state(cluster: Cluster, job: str) -> int:
    """Return the state of a job's run."""
    answer = cluster.jobs("GetJob", jobs_pb2.GetJobRequest(name=job))
    return answer.job.runs[0].state


def create(cluster: Cluster, name: str, duration: int) -> None:
    spec = jobs_pb2.JobSpec(
        name=name, kfl="http", duration_minutes=duration, expiration_minutes=duration
    )
    cluster.jobs("CreateJob", jobs_pb2.CreateJobRequest(spec=spec))
