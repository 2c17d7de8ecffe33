"""Scheduler, agents and query service are killed with SIGKILL, again and again: what was
acknowledged is there once, whole, and what an agent took in reaches the recording or the ledger.

RECORDER_CRASH_ROUNDS says how often something is killed, RECORDER_CRASH_SEED repeats the choices of
an earlier run (not its timing). A failure prints both, and where each process died.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recorder.v1 import jobs_pb2, jobs_pb2_grpc, query_pb2, query_pb2_grpc

from recordings import journal, layout, snapshot
from recordings.manifest import Manifest
from recordings.segments import ARRIVAL
from services.query.catalog import Catalog
from services.runtime.channel import open_channel
from tests.crash import killpoints, roles
from tests.crash.killpoints import KillPoint

ROUNDS = int(os.environ.get("RECORDER_CRASH_ROUNDS", "60"))
SEED = int(os.environ.get("RECORDER_CRASH_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
ROUNDS_OF_A_JOB = 20
"""Then it is compared as a whole, deleted, and another one begins: a check reads all of it."""
KILL_POINT_SECONDS = 1.0
"""How long a process may take to its kill point."""
PATIENCE_SECONDS = 60.0

ASK_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)
"""It was killed; or files were merged and removed while it read, which it tells."""

SPOOLED = ("agent-1", "agent-2")
UNSPOOLED = "agent-3"
"""Is not killed, and drops what it has no room for while the scheduler is away."""
AGENTS = (*SPOOLED, UNSPOOLED)
VICTIMS = ("scheduler",) * 6 + SPOOLED * 2 + ("query",) * 2

# A fresh process would import for two seconds before it can be killed.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.crash.roles"])

Tag = tuple[str, int]
"""Agent and batch."""


class Cluster:
    """All processes over one folder, and what they have told."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.chance = chance
        self.deaths: list[str] = []
        self._origin = time.time()
        self._address = {role: f"127.0.0.1:{port}" for role, port in _ports(2).items()}
        self._running: dict[str, BaseProcess] = {}
        self._armed: set[str] = set()

    # ---- processes

    def start(self, role: str, point: KillPoint | None = None) -> None:
        """Start a process; it may die before it serves."""
        log = self.folder / f"{role}.out"
        if role == "scheduler":
            arguments = (self.data, self._address[role], self._origin, log, point)
        elif role == "query":
            arguments = (self.data, self._address[role], log, point)
        else:
            memory = 30_000 if role == UNSPOOLED else 100_000
            at = self._address["scheduler"]
            arguments = (self.folder, at, role, memory, role != UNSPOOLED, log, point)
        target = getattr(roles, role.partition("-")[0])
        process = PROCESSES.Process(target=target, args=arguments, daemon=True)
        process.start()
        self._running[role] = process
        (self._armed.add if point else self._armed.discard)(role)

    def kill(self, role: str, after_seconds: float) -> None:
        """Let a process run for a while, or to its kill point; then kill it."""
        process = self._running.pop(role)
        process.join(after_seconds + (KILL_POINT_SECONDS if role in self._armed else 0))
        by_itself = process.exitcode is not None
        process.kill()
        process.join()
        assert process.exitcode == -9, f"{role} has ended by itself: {_end(self.folder, role)}"
        where = _end(self.folder, role) if by_itself else f"{after_seconds * 1000:.0f} ms"
        self.deaths.append(f"{role}: {where}")

    def revive(self, calm: bool) -> None:
        """Start what is dead; unless calm, some of them with a kill point."""
        for role, process in list(self._running.items()):
            if process.exitcode is not None:
                self.kill(role, 0)
        for role in ("scheduler", "query", *AGENTS):
            if role not in self._running:
                kind = role.partition("-")[0]
                can = not calm and role != UNSPOOLED and kind in killpoints.OPERATIONS
                armed = can and self.chance.random() < 0.6
                self.start(role, killpoints.draw(kind, self.chance) if armed else None)

    def calm(self) -> None:
        """Let nothing die for a while: processes with a kill point are started again without."""
        for role in list(self._armed):
            self.kill(role, 0)
        self.revive(calm=True)

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.join()

    # ---- calls

    def jobs(self, call: Callable[[jobs_pb2_grpc.JobsServiceStub], object]) -> object:
        """Call the scheduler until it answers; it may be killed meanwhile, and is revived."""

        def asked() -> object:
            with open_channel(self._address["scheduler"]) as channel:
                return call(jobs_pb2_grpc.JobsServiceStub(channel))

        return self._until(asked)

    def ask(self, statement: str) -> Counter[str]:
        """Return the paths of a query's entries, asking until there is an answer."""

        def asked() -> Counter[str]:
            found: Counter[str] = Counter()
            request = query_pb2.QueryRequest(
                kfl=statement, format=query_pb2.ENTRY_FORMAT_ARROW
            )
            with open_channel(self._address["query"]) as channel:
                stub = query_pb2_grpc.QueryServiceStub(channel)
                for response in stub.Query(request, timeout=30):
                    if response.WhichOneof("part") == "arrow_ipc":
                        with pa.ipc.open_stream(response.arrow_ipc) as stream:
                            found.update(stream.read_all()["request_path"].to_pylist())
            return found

        return self._until(asked)

    def _until(self, asked: Callable[[], object]) -> object:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return asked()
            except grpc.RpcError as error:
                if error.code() not in ASK_AGAIN or time.monotonic() > deadline:
                    raise
                self.revive(calm=True)
                time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path, random.Random(SEED))
    yield found
    found.end()


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_nothing_acknowledged_is_lost(cluster: Cluster) -> None:
    print(f"RECORDER_CRASH_SEED={SEED} RECORDER_CRASH_ROUNDS={ROUNDS}")
    try:
        cluster.revive(calm=True)
        for begin in range(0, ROUNDS, ROUNDS_OF_A_JOB):
            one_job(cluster, begin, min(ROUNDS_OF_A_JOB, ROUNDS - begin))
        assert not bugs(cluster.folder)
    finally:
        print("\n".join(cluster.deaths))
        print(f"{len(cluster.deaths)} kills:", dict(Counter(d.split(":")[0] for d in cluster.deaths)))


def one_job(cluster: Cluster, begin: int, rounds: int) -> None:
    """Record a job while processes are killed, then compare all of it, and delete it."""
    job, short = f"job-{begin}", f"short-{begin}"
    create(cluster, job, duration=1440)
    create(cluster, short, duration=1)
    for _ in range(rounds):
        one_round(cluster, job)
    everything(cluster, job)
    delete(cluster, job)
    wait(cluster, lambda: short not in layout.recordings(cluster.data), "the end of what expired")
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
    for name in AGENTS:
        before = len(roles.told(cluster.folder, name))
        wait(
            cluster,
            lambda n=name, b=before: any(w == "idle" for w, *_ in roles.told(cluster.folder, n)[b:]),
            f"{name} to deliver",
        )
    cluster.jobs(lambda stub: stub.StopJob(jobs_pb2.StopJobRequest(name=job), timeout=30))
    wait(cluster, lambda: state(cluster, job) == jobs_pb2.JOB_STATE_STOPPED, "the stop")
    found = directly(cluster.data, job)
    assert by_snapshot(cluster.data, job) == found
    assert by_paths(cluster.ask(f'record("{job}")')) == found
    notes = {name: roles.told(cluster.folder, name) for name in AGENTS}
    begun, taken = (
        {(name, n) for name in AGENTS for word, n, of in notes[name] if (word, of) == (wanted, job)}
        for wanted in ("sending", "sent")
    )
    assert found <= begun, sorted(found - begun)[:9]
    missing = taken - found
    lost = sum(1 + batch % 5 for name, batch in missing if name == UNSPOOLED)
    missing = {tag for tag in missing if tag[0] != UNSPOOLED}
    assert not missing, f"{len(missing)} batches are lost: {sorted(missing)[:9]}"
    told = ledger(cluster.data, job)
    assert told == Counter({"uplink_overrun": lost} if lost else {}), (told, lost)
    wait(cluster, lambda: not unlisted(cluster.data, job), f"{unlisted(cluster.data, job)} to go")
    (cluster.folder / "pause").unlink()


def delete(cluster: Cluster, job: str) -> None:
    """Delete a job, and kill the scheduler meanwhile."""
    chance = cluster.chance
    cluster.kill("scheduler", 0)
    cluster.start("scheduler", KillPoint(chance.choice(["unlink", "rmdir", "rename"]),
                                         chance.randrange(1, 30), "after"))  # fmt: skip
    try:
        cluster.jobs(lambda stub: stub.DeleteJob(jobs_pb2.DeleteJobRequest(name=job), timeout=30))
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND, error  # it was killed before it answered
    cluster.kill("scheduler", chance.uniform(0, 0.05))
    cluster.revive(calm=True)
    wait(cluster, lambda: job not in layout.recordings(cluster.data), "the deletion")


# ---- what was stored, and what should be


def stored_by(cluster: Cluster, job: str) -> set[Tag]:
    """Return the batches of a job that agents have an acknowledgement for."""
    return {
        (name, batch)
        for name in AGENTS
        for word, batch, of in roles.told(cluster.folder, name)
        if word == "stored" and of == job
    }


def compare(found: set[Tag], acknowledged: set[Tag], where: str) -> None:
    missing = acknowledged - found
    assert not missing, f"{len(missing)} acknowledged batches are not {where}: {sorted(missing)[:9]}"


def whole(tags: Counter[tuple[str, int, int, int]]) -> set[Tag]:
    """Return the batches whose rows are all there, once; fails when one is twice or in part."""
    twice = [tag for tag, times in tags.items() if times > 1]
    assert not twice, f"{len(twice)} rows are there twice: {twice[:9]}"
    rows = Counter((agent, batch) for agent, batch, _, _ in tags)
    parts = {tag[:2] for tag in tags if rows[tag[:2]] != tag[3]}
    assert not parts, f"batches are there in part: {sorted(parts)[:9]}"
    return set(rows)


def by_paths(paths: Counter[str]) -> set[Tag]:
    return whole(Counter({_tag(path.encode()): times for path, times in paths.items()}))


def by_snapshot(data: Path, job: str) -> set[Tag]:
    """Return what the query service's catalog sees; entries and packets have to agree."""
    opened = Catalog(data).open(job)
    assert not opened.damage
    found = []
    for table, column in (("packets", "frame"), ("entries", "request_path")):
        source = opened.source(table)
        tables = [pq.read_table(path, columns=[column]) for path in source.files]
        tables += [tail.select([column]) for _, tail in source.tails]
        found.append(whole(_tags(value for t in tables for value in t[column].to_pylist())))
    assert found[0] == found[1]
    return found[0]


def directly(data: Path, job: str) -> set[Tag]:
    """Return what is in the files, read without the snapshot."""
    values: list[bytes] = []
    folder = layout.run(data, job, 1)
    manifest = Manifest.load(folder)
    arrivals: Counter[int] = Counter()
    for segment in manifest.segments:
        if segment.table == "packets":
            rows = pq.read_table(folder / segment.file)
            assert rows.num_rows == segment.rows
            values += rows["frame"].to_pylist()
            if ARRIVAL in rows.column_names:
                arrivals.update(rows[ARRIVAL].to_pylist())
    assert max(arrivals.values(), default=1) == 1
    for number in layout.journals(folder):
        if number >= manifest.journal:
            for record in journal.scan(layout.journal(folder, number)).records:
                for part in record.parts:
                    if part.table == "packets":
                        for rows in part.batches():
                            values += rows["frame"].to_pylist()
    return whole(_tags(values))


def ledger(data: Path, job: str) -> Counter[str]:
    """Return the packets of each kind of loss."""
    found: Counter[str] = Counter()
    rows = snapshot.open(data, job).rows_after("losses", {})
    for kind, packets in zip(rows["kind"].to_pylist(), rows["packets"].to_pylist(), strict=True):
        found[kind] += packets
    return found


def unlisted(data: Path, job: str) -> list[str]:
    """Return the files of a run that is all in segments that no manifest needs."""
    folder = layout.run(data, job, 1)
    manifest = Manifest.load(folder)
    listed = {segment.file for segment in manifest.segments} | {layout.MANIFEST}
    return sorted({path.name for path in folder.iterdir()} ^ listed)


def bugs(folder: Path) -> list[str]:
    """Return the lines of logs that tell of something that must not happen."""
    found = []
    for path in folder.glob("*.out"):
        for line in path.read_text().splitlines():
            # What comes late for a run that is over is refused; only short ones are.
            is_late = "of job short-" in line and "takes no data" in line
            is_told = '"the scheduler refused a batch"' in line  # and by ` refused: ` if it had rows
            wrong = re.search('Traceback|"level": "error"| refused: ', line)
            if wrong and not is_late and not is_told:
                found.append(f"{path.name}: {line}")
    return found


def state(cluster: Cluster, job: str) -> int:
    """Return the state of a job's run."""
    request = jobs_pb2.GetJobRequest(name=job)
    return cluster.jobs(lambda stub: stub.GetJob(request, timeout=30)).job.runs[0].state


def create(cluster: Cluster, name: str, duration: int) -> None:
    spec = jobs_pb2.JobSpec(
        name=name, kfl="http", duration_minutes=duration, expiration_minutes=duration
    )
    request = jobs_pb2.CreateJobRequest(spec=spec)
    cluster.jobs(lambda stub: stub.CreateJob(request, timeout=30))


def wait(cluster: Cluster, until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not until():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS:.0f} s for {what}"
        cluster.revive(calm=True)
        time.sleep(0.02)


def _tags(values: Iterator[object]) -> Counter[tuple[str, int, int, int]]:
    return Counter(_tag(v.encode() if isinstance(v, str) else v) for v in values)


def _tag(value: bytes) -> tuple[str, int, int, int]:
    match = roles.TAG.match(value)
    assert match, f"this is not what an agent sent: {value[:80]!r}"
    agent, *numbers = match.groups()
    return (agent.decode(), *map(int, numbers))


def _end(folder: Path, role: str) -> str:
    return (folder / f"{role}.out").read_text().strip().rpartition("\n")[2]


def _ports(count: int) -> dict[str, int]:
    """Return ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return dict(zip(("scheduler", "query"), ports, strict=True))
