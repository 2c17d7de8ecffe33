"""An agent of several schedulers loses one of them, and nothing of what it has recorded."""

import time
import zlib

import pytest
from recorder.v1 import ingest_pb2

from services.capture import uplinks as several
from services.capture.spool import Spool
from services.capture.uplink import Uplink
from services.capture.uplinks import Uplinks
from tests.unit.capture import ingest_server
from tests.unit.capture.ingest_server import Ingest
from tests.unit.capture.test_uplink import frames, packets

SECONDS = 30.0


class Rig:
    """Two schedulers and the uplinks of an agent, which begins with the first."""

    def __init__(self, folder, spooled):
        self.folder = folder
        self.spooled = spooled
        self.ingests = [Ingest(folder / f"stored-{number}") for number in range(2)]
        self.servers, self.ports = [None, None], [0, 0]
        for number in range(2):
            self.serve(number)
        addresses = [f"127.0.0.1:{port}" for port in self.ports]
        self.node = next(
            name for name in map("node-{}".format, range(9)) if zlib.crc32(name.encode()) % 2 == 0
        )
        self.uplinks = Uplinks(addresses, self.node, self.make)

    def make(self, address, lock, counters):
        spool = None
        if self.spooled:
            spool = Spool(self.folder / address.replace(":", "_"), 1 << 26)
        return Uplink(address, self.node, "", lock=lock, counters=counters, spool=spool)

    def serve(self, number):
        self.servers[number], port = ingest_server.serve(self.ingests[number], self.ports[number])
        self.ports[number] = port

    def lose(self, number):
        self.servers[number].stop(0).wait()

    def send(self, *numbers, final=False):
        for number in numbers:
            self.uplinks.send("job", 1, [("packets", packets(number))])
        if final:
            self.uplinks.send("job", 1, [], final=True)

    def used(self):
        return self.uplinks._current.endswith(f":{self.ports[1]}")

    def close(self):
        self.uplinks.stop()
        for server in self.servers:
            server.stop(0).wait()


@pytest.fixture(params=["memory", "spool"])
def rig(tmp_path, request, monkeypatch):
    monkeypatch.setattr(several, "MOVE_SECONDS", 0.5)
    made = Rig(tmp_path, request.param == "spool")
    made.uplinks.start()
    until(lambda: made.uplinks.revision)
    yield made
    made.close()


def until(is_so):
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_scheduler_gets_everything_while_it_is_there(rig):
    rig.send(*range(10), final=True)
    assert rig.uplinks.flush(SECONDS)
    assert frames(rig.ingests[0]) == list(range(10))
    assert rig.ingests[1].hellos == []


def test_what_was_never_sent_goes_to_another(rig):
    rig.send(0)
    assert rig.uplinks.flush(SECONDS)
    rig.lose(0)
    until(lambda: rig.uplinks.failure)
    rig.send(1, 2)
    until(lambda: rig.used() == 1)
    rig.send(3)
    assert rig.uplinks.flush(SECONDS)
    assert (frames(rig.ingests[0]), frames(rig.ingests[1])) == ([0], [1, 2, 3])
    assert rig.uplinks.counters.queued == rig.uplinks.counters.acknowledged == 4


def test_what_was_sent_and_not_answered_stays_with_the_one_it_was_sent_to(rig):
    rig.ingests[0].acknowledge = False
    rig.send(0, 1)
    until(lambda: frames(rig.ingests[0]) == [0, 1])
    rig.lose(0)
    until(lambda: rig.used() == 1)
    rig.send(2)
    assert not rig.uplinks.flush(0.5)
    rig.ingests[0].acknowledge = True
    rig.serve(0)
    assert rig.uplinks.flush(SECONDS)
    assert (frames(rig.ingests[0]), frames(rig.ingests[1])) == ([0, 1], [2])
    names = [{h.agent_id for h in ingest.hellos} for ingest in rig.ingests]
    assert not names[0] & names[1], "a name is heard by one scheduler alone"


def test_all_that_had_a_part_hear_of_the_end_of_a_run(rig):
    rig.ingests[0].acknowledge = False
    rig.send(0)
    until(lambda: frames(rig.ingests[0]) == [0])
    rig.lose(0)
    until(lambda: rig.used() == 1)
    rig.send(1, final=True)
    rig.ingests[0].acknowledge = True
    rig.serve(0)
    assert rig.uplinks.flush(SECONDS)
    assert [sum(b.final for b in ingest.stored()) for ingest in rig.ingests] == [1, 1]


def test_the_list_of_another_scheduler_is_new(rig):
    rig.ingests[1].assignments.append(ingest_pb2.Assignment(job="job", run=7, kfl="http"))
    revision = rig.uplinks.revision
    rig.lose(0)
    assert rig.uplinks.wait_for_assignments(revision, SECONDS)
    assert [(a.job, a.run) for a in rig.uplinks.assignments] == [("job", 7)]


def test_calls_that_one_scheduler_knows_of_are_not_told_to_another(rig):
    listed = ingest_pb2.Assignment(job="job", run=1, kfl="http and limit(9)")
    for ingest in rig.ingests:
        ingest.assignments.append(listed)
    rig.uplinks.tell_matched("job", 1, 2)
    until(lambda: rig.ingests[0].matched)
    rig.lose(0)
    until(lambda: rig.used() == 1)
    rig.uplinks.tell_matched("job", 1, 5)
    until(lambda: rig.ingests[1].matched)
    assert [m.calls for ingest in rig.ingests for m in ingest.matched] == [2, 3]


def test_a_session_that_nobody_needs_is_ended(rig):
    rig.ingests[0].acknowledge = False
    rig.send(0)
    until(lambda: frames(rig.ingests[0]) == [0])
    rig.lose(0)
    until(lambda: rig.used() == 1)
    rig.ingests[0].acknowledge = True
    rig.serve(0)
    rig.send(1, final=True)
    assert rig.uplinks.flush(SECONDS)
    until(lambda: len(rig.uplinks._started) == 1)
    rig.lose(1)
    until(lambda: rig.used() == 0)
    rig.send(2)
    assert rig.uplinks.flush(SECONDS)
    assert frames(rig.ingests[0]) == [0, 2]
