import queue
import threading
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from recorder.v1 import ingest_pb2, ingest_pb2_grpc

from services.runtime.channel import open_channel
from services.runtime.clock import SystemClock
from services.runtime.server import serve
from services.scheduler import ingest_rpc
from services.scheduler.bulletin import Assignment
from services.scheduler.ingest_rpc import IngestService
from services.scheduler.matches import Matches
from services.scheduler.quota import Quota
from services.scheduler.writer import Writer
from tests.unit.scheduler.stored import packets, stored

NOW = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)


class Jobs:
    """Assignments that a test changes, and what sessions reported."""

    def __init__(self):
        self._changed = threading.Condition()
        self._revision = 1
        self._assignments = []
        self.heard = []
        self.delivered = []
        self.matches = Matches()

    def assign(self, *jobs):
        with self._changed:
            end = NOW + timedelta(minutes=1)
            self._assignments = [Assignment(job, 1, "http", NOW, end, 65536) for job in jobs]
            self._revision += 1
            self._changed.notify_all()

    def assignments(self, import_job=""):
        with self._changed:
            return self._revision, [
                a for a in self._assignments if a.job.startswith("import") == bool(import_job)
            ]

    def wait_for_change(self, revision, timeout):
        with self._changed:
            self._changed.wait_for(lambda: self._revision != revision, timeout)
            return self._revision

    def agent_connected(self, agent_id, node, import_job=""):
        self.heard.append(("connected", agent_id, node, import_job))

    def agent_disconnected(self, agent_id):
        self.heard.append(("disconnected", agent_id))

    def agent_finished(self, agent_id, job, run):
        self.heard.append(("finished", agent_id, job, run))

    def agent_delivered(self, agent_id, job, run, sequence, octets):
        self.delivered.append((agent_id, job, run, sequence))

    def agent_matched(self, agent_id, job, run, calls):
        self.matches.told(agent_id, job, run, calls)

    def matched_elsewhere(self, agent_id):
        return self.matches.elsewhere(agent_id)

    def wait_for_matches(self, version, timeout):
        return self.matches.wait(version, timeout)


class Agent:
    """A client that says one thing after the other."""

    def __init__(self, address):
        self._requests = queue.SimpleQueue()
        self.channel = open_channel(address)
        stub = ingest_pb2_grpc.IngestServiceStub(self.channel)
        self.call = stub.Connect(iter(self._requests.get, None), timeout=60)

    def hello(self, agent_id="agent-1", node="node-1", version=1, import_job=""):
        hello = ingest_pb2.Hello(
            protocol_version=version, agent_id=agent_id, node=node, import_job=import_job
        )
        self._requests.put(ingest_pb2.ConnectRequest(hello=hello))
        return self

    def send(self, sequence, *, job="checkout", final=False, parts=None, rows=3):
        if parts is None:
            part = packets("agent-1", sequence, rows)
            parts = [ingest_pb2.BatchPart(table=3, arrow_ipc=part.octets, rows=part.rows)]
        batch = ingest_pb2.Batch(sequence=sequence, job=job, run=1, parts=parts, final=final)
        self._requests.put(ingest_pb2.ConnectRequest(batch=batch))

    def say(self, request):
        self._requests.put(request)

    def done(self):
        self._requests.put(None)

    def next(self, kind):
        """Return the next answer, which has to be of this kind."""
        answer = next(self.call)
        assert answer.WhichOneof("message") == kind, answer
        return getattr(answer, kind)

    def acknowledged(self, sequence):
        """Read acknowledgements up to a number."""
        while self.next("acknowledgement").sequence < sequence:
            pass

    def refused(self):
        """Return with which status and sentence the session ended."""
        with pytest.raises(grpc.RpcError) as caught:
            for _ in self.call:
                pass
        return caught.value.code(), caught.value.details()


class World:
    def __init__(self, data):
        self.data = data
        self.jobs = Jobs()
        self.writer = Writer(data, Quota(None), SystemClock())
        self.writer.start()
        self.writer.open_run("checkout", 1, "http")
        self.service = IngestService(self.writer, self.jobs, most_sessions=3)
        self.agents = []

        def add(server):
            ingest_pb2_grpc.add_IngestServiceServicer_to_server(self.service, server)
            return ["recorder.v1.IngestService"]

        self.server = serve("127.0.0.1:0", add, 8)

    def agent(self, *args, **kwargs):
        agent = self.silent()
        agent.hello(*args, **kwargs)
        return agent

    def silent(self):
        agent = Agent(self.server.address)
        self.agents.append(agent)
        return agent

    def welcomed(self, *args, **kwargs):
        agent = self.agent(*args, **kwargs)
        agent.next("welcome")
        agent.next("assignments")
        return agent

    def heard(self, what):
        """Wait until something was reported."""
        for _ in range(3000):
            if what in self.jobs.heard:
                return
            time.sleep(0.01)
        raise AssertionError(f"{what} is not in {self.jobs.heard}")

    def down(self):
        self.service.close()
        for agent in self.agents:
            agent.done()
            agent.call.cancel()
            agent.channel.close()
        self.server.stop(1)
        self.writer.stop()


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(ingest_rpc, "WATCH_SECONDS", 0.02)
    world = World(tmp_path)
    yield world
    world.down()


def test_a_session_from_hello_to_its_end(world):
    world.jobs.assign("checkout")
    agent = world.agent()
    welcome = agent.next("welcome")
    assert welcome.last_sequence == 0
    assert welcome.window_bytes >= welcome.max_batch_bytes >= 4 << 20
    (assignment,) = agent.next("assignments").assignments
    assert (assignment.job, assignment.run, assignment.kfl) == ("checkout", 1, "http")
    assert assignment.start_time.ToDatetime(UTC) == NOW
    assert assignment.stop_time.ToDatetime(UTC) == NOW + timedelta(minutes=1)
    agent.send(1)
    agent.acknowledged(1)
    assert stored(world.data) == {("agent-1", 1): 3}  # acknowledged means that it can be asked for
    agent.send(2)
    agent.send(3, parts=[], final=True)
    agent.done()
    agent.acknowledged(3)
    assert list(agent.call) == []
    assert agent.call.code() == grpc.StatusCode.OK
    world.heard(("disconnected", "agent-1"))
    assert world.jobs.heard == [
        ("connected", "agent-1", "node-1", ""),
        ("finished", "agent-1", "checkout", 1),
        ("disconnected", "agent-1"),
    ]


def test_a_reconnected_agent_learns_what_is_on_disk(world):
    agent = world.welcomed()
    agent.send(1)
    agent.send(2)
    agent.acknowledged(2)
    agent.call.cancel()
    again = world.agent()
    assert again.next("welcome").last_sequence == 2
    again.next("assignments")
    again.send(2)
    again.acknowledged(2)
    again.send(3)
    again.acknowledged(3)
    assert stored(world.data) == {("agent-1", s): 3 for s in (1, 2, 3)}


def test_changes_of_assignments_are_sent_as_whole_lists(world):
    agent = world.welcomed()
    for jobs in (["a"], ["a", "b"], []):
        world.jobs.assign(*jobs)
        assert [a.job for a in agent.next("assignments").assignments] == jobs


def test_an_import_gets_its_own_job_only(world):
    world.jobs.assign("checkout", "import-1")
    importer = world.agent("importer", import_job="import-1")
    importer.next("welcome")
    assert [a.job for a in importer.next("assignments").assignments] == ["import-1"]
    importer.send(1)
    code, sentence = importer.refused()
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "imports into import-1" in sentence


def test_a_batch_that_cannot_be_stored_is_refused_and_the_session_goes_on(world):
    agent = world.welcomed()
    agent.send(1, job="other")
    assert agent.next("refusal").reason == (
        "Run 1 of job other takes no data: it has ended, or never began."
    )
    agent.acknowledged(1)
    agent.send(2, parts=[ingest_pb2.BatchPart(table=3, arrow_ipc=b"nonsense", rows=1)])
    assert "cannot be read as Arrow IPC" in agent.next("refusal").reason
    agent.acknowledged(2)
    agent.send(3)
    agent.acknowledged(3)
    assert stored(world.data) == {("agent-1", 3): 3}


def test_what_breaks_the_protocol_ends_the_session_with_a_sentence(world):
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    agent = world.agent(agent_id="a b")
    assert agent.refused() == (
        invalid,
        "'a b' cannot be an agent_id; it has 1 to 128 of a-z, A-Z, 0-9, '.', '_' and '-'.",
    )
    code, sentence = world.agent(version=7).refused()
    assert code == grpc.StatusCode.FAILED_PRECONDITION
    assert "speaks version 7" in sentence
    agent = world.silent()
    agent.send(1)
    code, sentence = agent.refused()
    assert (code, "must be a hello" in sentence) == (invalid, True)
    agent = world.welcomed()
    agent.send(1)
    agent.send(3)
    code, sentence = agent.refused()
    assert (code, "so 2 was to come" in sentence) == (invalid, True)
    agent = world.welcomed()
    agent.send(4, parts=[ingest_pb2.BatchPart(table=9)])
    code, sentence = agent.refused()
    assert (code, "a part of table 9" in sentence) == (invalid, True)
    agent = world.silent()
    agent.say(ingest_pb2.ConnectRequest())
    assert agent.refused() == (invalid, "A message holds neither a hello nor a batch.")
    agent = world.silent()
    agent.done()
    assert agent.refused() == (invalid, "The session ended before its hello.")


def test_a_client_that_says_nothing_is_let_go(world, monkeypatch):
    monkeypatch.setattr(ingest_rpc, "HELLO_SECONDS", 0.05)
    code, sentence = world.silent().refused()
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "No hello came" in sentence


def test_a_second_session_of_an_agent_ends_the_first(world):
    first = world.welcomed()
    second = world.welcomed()
    assert first.refused() == (
        grpc.StatusCode.ABORTED,
        "Agent agent-1 has begun another session.",
    )
    second.send(1)
    second.acknowledged(1)


def test_more_agents_than_threads_are_told_so(world):
    for number in range(3):
        world.welcomed(f"agent-{number}")
    code, sentence = world.agent("one-more").refused()
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "3 agents are connected" in sentence


def test_an_agent_that_fills_its_window_is_read_as_fast_as_the_disk(world, monkeypatch):
    monkeypatch.setattr(ingest_rpc, "Session", lambda: ingest_rpc_session(window_bytes=20_000))
    agent = world.welcomed()
    for sequence in range(1, 200):
        agent.send(sequence, rows=20)
    agent.acknowledged(199)
    assert sum(stored(world.data).values()) == 199 * 20


ingest_rpc_session = ingest_rpc.Session


def test_stopping_answers_what_came_and_ends_sessions(world):
    agent = world.welcomed()
    for sequence in range(1, 20):
        agent.send(sequence)
    agent.acknowledged(19)
    world.service.close()
    assert agent.refused() == (grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping.")
    code, _ = world.agent("late").refused()
    assert code == grpc.StatusCode.UNAVAILABLE


def test_a_writer_that_has_stopped_ends_sessions(world):
    agent = world.welcomed()
    world.writer.stop()
    agent.send(1)
    assert agent.refused() == (grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping.")
