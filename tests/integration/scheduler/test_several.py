"""Several schedulers as processes on one PostgreSQL: the leader is lost, and nothing else is."""

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
import sqlalchemy as sa
from recorder.v1 import jobs_pb2, jobs_pb2_grpc

from recordings import schema, snapshot
from services.capture.importing import import_file
from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks
from services.runtime.channel import open_channel
from tests.unit.capture.traffic import Conversation, write_pcap

pytestmark = pytest.mark.postgresql

PROGRAM = """
import sys
from pathlib import Path
from services.runtime.logging import configure
from services.runtime.settings import SchedulerSettings
from services.scheduler.app import run
configure(format="json")
data, url, listen = sys.argv[1:]
sys.exit(run(SchedulerSettings(listen=listen, data=Path(data), database_url=url)))
"""

WITHIN_SECONDS = 10.0
"""What is promised of a leader that is lost."""


class Process:
    """A scheduler. What it says is read all the time, and kept."""

    def __init__(self, data: Path, url: str, listen: str) -> None:
        self.data = data
        self.said: list[str] = []
        self.address = ""
        self._is_up = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", PROGRAM, str(data), url, listen],
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._is_up.wait(60)
        assert self.address, "".join(self.said)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            found = re.search(r'"scheduler serves".*"address": ?"([^"]+)"', line) or re.search(
                r'"address": ?"([^"]+)".*"scheduler serves"', line
            )
            if found:
                self.address = found[1]
                self._is_up.set()
        self._is_up.set()

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(number)
        self.process.wait(30)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        print(self.address, "".join(self.said))


class Together:
    """Three schedulers of one database."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.folder = folder
        self.engine = sa.create_engine(
            url.replace("postgresql:", "postgresql+psycopg:"), pool_pre_ping=True
        )
        self.running: list[Process] = []
        for number in range(3):
            self.start(f"s{number}")

    def start(self, name: str, listen: str = "127.0.0.1:0") -> Process:
        process = Process(self.folder / name, self.url, listen)
        self.running.append(process)
        return process

    def leader(self) -> Process | None:
        """Return who leads by the database, if it is one of those that run."""
        query = "SELECT address FROM schedulers WHERE term > 0 ORDER BY term DESC LIMIT 1"
        with self.engine.connect() as connection:
            address = connection.execute(sa.text(query)).scalar_one_or_none()
        return next((p for p in self.running if p.address == address), None)

    def end(self, process: Process, number: signal.Signals = signal.SIGKILL) -> None:
        self.running.remove(process)
        process.end(number)

    def close(self) -> None:
        for process in list(self.running):
            self.end(process)
        self.engine.dispose()


@pytest.fixture
def together(tmp_path, postgresql) -> Iterator[Together]:
    made = Together(tmp_path, postgresql.database())
    until(lambda: made.leader() is not None)
    yield made
    made.close()


def until(is_so: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until it is so; return how many seconds that took."""
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() < begin + seconds
        time.sleep(0.05)
    return time.monotonic() - begin


def create(at: str, name: str = "errors", **fields: object) -> jobs_pb2.Job:
    spec = jobs_pb2.JobSpec(name=name, kfl="http", **fields)
    with open_channel(at) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        return stub.CreateJob(jobs_pb2.CreateJobRequest(spec=spec), timeout=30).job


def get(at: str, name: str = "errors") -> jobs_pb2.Job:
    with open_channel(at) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        return stub.GetJob(jobs_pb2.GetJobRequest(name=name), timeout=30).job


def packets(numbers: range) -> pa.Table:
    rows = [
        {
            "stream": f"{number:016x}",
            "node_name": "node",
            "time": datetime.now(UTC),
            "link_type": 1,
            "original_length": 60,
            "frame": number.to_bytes(8, "big"),
        }
        for number in numbers
    ]
    return pa.Table.from_pylist(rows, schema.PACKETS)


def stored(together: Together, name: str = "errors") -> list[int]:
    """Return the numbers of all packets that are on disk, of all schedulers."""
    found: list[int] = []
    for folder in together.folder.iterdir():
        try:
            taken = snapshot.open(folder, name)
        except snapshot.NotFoundError:
            continue
        for run in taken.runs:
            frames = run.rows_after("packets", 0)["frame"].to_pylist()
            found += [int.from_bytes(frame, "big") for frame in frames]
    return sorted(found)


@pytest.fixture
def uplinks(together) -> Iterator[list[Uplink]]:
    made = [Uplink(p.address, f"node-{n}", "127.0.0.1") for n, p in enumerate(together.running)]
    for uplink in made:
        uplink.start()
    yield made
    for uplink in made:
        uplink.stop()


def record(uplink: Uplink, numbers: range) -> None:
    for number in numbers:
        uplink.send("errors", 1, [("packets", packets(range(number, number + 1)))])


def test_all_take_data_and_the_run_has_what_each_stored(together, uplinks):
    follower = next(p for p in together.running if p is not together.leader())
    create(follower.address)
    until(lambda: all(uplink.assignments for uplink in uplinks))
    starts = {(a.start_ns, a.stop_ns) for uplink in uplinks for a in uplink.assignments}
    assert len(starts) == 1
    for number, uplink in enumerate(uplinks):
        record(uplink, range(number * 100, number * 100 + 100))
    assert all(uplink.flush(30) for uplink in uplinks)
    assert stored(together) == list(range(300))
    until(lambda: [run.packets for run in get(follower.address).runs] == [300])
    with open_channel(follower.address) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        stop = threading.Thread(target=stub.StopJob, args=(jobs_pb2.StopJobRequest(name="errors"),))
        stop.start()
        for uplink in uplinks:
            uplink.send("errors", 1, [], final=True)
        stop.join()
    until(lambda: get(follower.address).runs[0].state == jobs_pb2.JOB_STATE_STOPPED)
    for process in together.running:
        [run] = get(process.address).runs
        assert (run.packets, list(run.nodes)) == (300, ["node-0", "node-1", "node-2"])
        assert run.completeness == "3 of 3 agents finished."
    with open_channel(follower.address) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        stub.DeleteJob(jobs_pb2.DeleteJobRequest(name="errors"), timeout=30)
        with pytest.raises(grpc.RpcError) as missing:
            stub.GetJob(jobs_pb2.GetJobRequest(name="errors"), timeout=30)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND
    until(lambda: not list(together.folder.glob("*/recordings/*")))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
def test_another_leads_within_ten_seconds_and_no_run_is_missed(together, uplinks, how):
    leader = together.leader()
    others = [p for p in together.running if p is not leader]
    mine = [u for p, u in zip(together.running, uplinks, strict=True) if p is not leader]
    create(leader.address)
    until(lambda: all(uplink.assignments for uplink in uplinks))
    record(mine[0], range(100))
    if how is signal.SIGSTOP:
        leader.process.send_signal(how)
    else:
        together.end(leader, how)
    record(mine[1], range(100, 200))
    # The leader is away, and a job that starts now is still recorded.
    assert until(lambda: together.leader() in others) < WITHIN_SECONDS
    job = create(others[0].address, "new")
    assert job.state in (jobs_pb2.JOB_STATE_SCHEDULED, jobs_pb2.JOB_STATE_RECORDING)
    until(lambda: all(len(uplink.assignments) == 2 for uplink in mine))
    record(mine[0], range(200, 300))
    assert all(uplink.flush(30) for uplink in mine)
    assert stored(together) == list(range(300))
    until(lambda: get(others[1].address, "new").state == jobs_pb2.JOB_STATE_RECORDING)
    [run] = get(others[0].address).runs
    assert run.state == jobs_pb2.JOB_STATE_RECORDING
    assert all(uplink.counters.refused == 0 for uplink in mine)
    if how is signal.SIGSTOP:
        # It wakes, sees that another one leads, and follows.
        leader.process.send_signal(signal.SIGCONT)
        until(lambda: any("leads no more" in line for line in leader.said))
        until(lambda: len(get(leader.address).runs) == 1)
        assert together.leader() in others


def test_jobs_are_asked_for_while_the_database_is_away_and_runs_go_on(
    together, uplinks, postgresql
):
    create(together.running[0].address)
    until(lambda: all(uplink.assignments for uplink in uplinks))
    postgresql.stop()
    try:
        for number, uplink in enumerate(uplinks):
            record(uplink, range(number * 100, number * 100 + 100))
        assert all(uplink.flush(30) for uplink in uplinks)
        with pytest.raises(grpc.RpcError) as refused:
            get(together.running[0].address)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "No scheduler leads now" in refused.value.details()
    finally:
        postgresql.start()
    until(lambda: together.leader() is not None)
    until(lambda: [run.packets for run in get(together.running[1].address).runs] == [300])
    assert stored(together) == list(range(300))


def test_agents_go_to_another_scheduler_and_all_is_stored_once(together, tmp_path):
    def make(address, lock, counters):
        return Uplink(address, "node-1", "127.0.0.1", lock=lock, counters=counters)

    create(together.running[0].address)
    uplinks = Uplinks([p.address for p in together.running], "node-1", make)
    uplinks.start()
    until(lambda: uplinks.assignments)
    sent = 0
    lost = []
    for _ in range(2):
        used = next(p for p in together.running if p.address == uplinks._current)
        lost.append(used)
        threading.Timer(0.3, together.end, (used,)).start()
        begin, revision = time.monotonic(), uplinks.revision
        while time.monotonic() < begin + 2 or uplinks._current == used.address:
            record(uplinks, range(sent, sent + 1))
            sent += 1
            time.sleep(0.002)
        assert uplinks.revision > revision
        assert [(a.job, a.run) for a in uplinks.assignments] == [("errors", 1)]
    for process in lost:
        together.start(process.data.name, process.address)
    assert uplinks.flush(60)
    assert stored(together) == list(range(sent))
    assert uplinks.counters.refused == uplinks.counters.dropped == 0
    uplinks.send("errors", 1, [], final=True)
    with open_channel(together.running[0].address) as channel:
        stub = jobs_pb2_grpc.JobsServiceStub(channel)
        stub.StopJob(jobs_pb2.StopJobRequest(name="errors"), timeout=60)
    until(lambda: get(together.running[0].address).runs[0].state == jobs_pb2.JOB_STATE_STOPPED)
    assert get(together.running[0].address).runs[0].packets == sent
    uplinks.stop()


def test_a_file_is_imported_through_a_scheduler_that_does_not_lead(together, tmp_path):
    talk, file = Conversation(40001), tmp_path / "shop.pcap"
    write_pcap(file, talk.opening() + talk.call("/a", 200) + talk.closing())
    follower = next(p for p in together.running if p is not together.leader())
    import_file(file, "shop", "http", follower.address)
    job = get(together.leader().address, "shop")
    assert job.state == jobs_pb2.JOB_STATE_COMPLETED
    assert job.runs[0].entries == 1
    assert snapshot.open(follower.data, "shop").rows("entries") == 1
