"""A node on which nothing comes any more: time goes on."""

import time

import numpy as np
import pytest

from recordings import entry
from services.capture.dissectors.dns.entries import PATIENCE
from services.capture.flows import TCP_IDLE
from services.capture.frames.afpacket import AfPacket
from services.capture.frames.batch import LATEST_NS
from services.capture.frames.interfaces import open_interfaces
from services.capture.pipeline import Pipeline, PipelineOptions
from services.capture.timewheel import SECOND
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

pytestmark = pytest.mark.root

RING = 8 << 20
MOST_BATCHES = 200  # of POLL_TIMEOUT_MS each, when nothing comes

SEND = """
import socket, sys
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.bind(("there", 0))
for frame in sys.argv[1:]:
    sender.send(bytes.fromhex(frame))
"""

QUESTION = bytes.fromhex("12340100000100000000000001610000010001")


class Clock:
    """The machine's, and further when it is moved."""

    ahead_ns = 0

    def __call__(self):
        return time.time_ns() + self.ahead_ns


class Node:
    """A pipeline at the end of an interface; the only time is the source's."""

    def __init__(self, namespace, open_source):
        self.namespace, self.clock = namespace, Clock()
        self.source = open_source(self.clock)
        self.batches = self.source.batches()
        self.pipeline = Pipeline(PipelineOptions(networks_apart=False, most_flows=64))

    def send(self, frames):
        """Send from the other end, and take what comes of it."""
        sender = self.namespace.far_python(SEND, *(frame.hex() for frame in frames))
        assert sender.wait() == 0
        sent = self.pipeline.packets_taken + len(frames)
        return self.take_until(lambda _: self.pipeline.packets_taken >= sent)

    def take_until(self, enough):
        """Take batches; return the entries that they make."""
        found = []
        for _ in range(MOST_BATCHES):
            for calls in self.pipeline.take(next(self.batches)):
                found += entry.objects(calls.entries(np.arange(len(calls))))
            if enough(found):
                return found
        raise AssertionError("it never came")

    def wait(self, nanoseconds):
        """Let time pass; return the entries that come of it."""
        self.clock.ahead_ns += nanoseconds
        return self.take_until(len)


@pytest.fixture(params=["an interface", "several"])
def node(request, namespace):
    def open_source(clock):
        if request.param == "several":
            return open_interfaces(["here", "lo"], RING, clock=clock)
        return AfPacket("here", block_count=8, clock=clock)

    node = Node(namespace, open_source)
    yield node
    node.source.close()


def test_a_question_that_nobody_answers_is_an_entry_though_nothing_else_comes(node):
    question = wire.udp(40000, 53, QUESTION)
    frame = wire.ethernet(wire.ipv4("10.77.0.2", "10.77.0.1", 17, question))
    assert node.send([frame]) == []
    (found,) = node.wait(PATIENCE + LATEST_NS)
    assert (found["protocol"]["name"], found["error"]["type"]) == ("dns", "timeout")
    assert found["error"]["msg"] == "No response came within 10 s."


def test_a_stream_that_falls_silent_ends_though_nothing_else_comes(node):
    talk = Conversation("10.77.0.2", "10.77.0.1").open().client(b"\0\1\2").server(b"\3\4")
    assert node.send(talk.frames) == []
    (found,) = node.wait(TCP_IDLE + LATEST_NS + SECOND)
    assert found["protocol"]["name"] == "tcp"
    assert found["request"]["state"] == "idle"
    assert node.pipeline.open_streams == 0


def test_no_frame_is_older_than_the_time_that_has_passed(node):
    passed_ns = 0
    for _ in range(4):
        sender = node.namespace.send(200)
        came = 0
        while came < 200:
            batch = next(node.batches)
            times = batch.frames["timestamp"]
            assert not (times < passed_ns).any()
            passed_ns = max(passed_ns, batch.passed_ns)
            came += len(times)
        assert sender.wait() == 0
        assert any(next(node.batches).passed_ns > times[-1] for _ in range(MOST_BATCHES))
