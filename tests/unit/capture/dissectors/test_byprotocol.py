"""ICMP and SCTP go through the pipeline as everything does: streams, entries, packets, losses."""

import struct

import numpy as np
import pytest

from recordings import entry
from services.capture.dissectors import byprotocol
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.dissectors.sctp_packets import chunk, data, init, packet
from tests.unit.capture.dissectors.test_diameter import answer, message
from tests.unit.capture.dissectors.test_icmp import echo
from tests.unit.capture.dissectors.test_icmp import message as icmp

A, B, ROUTER = "10.0.0.1", "10.0.0.2", "10.0.0.254"


@pytest.fixture
def pipeline():
    return Pipeline(PipelineOptions(most_flows=64))


def frame(source, target, protocol, payload):
    build = wire.ipv6 if ":" in source else wire.ipv4
    return wire.ethernet(build(source, target, protocol, payload))


def entries(calls):
    return [each for part in calls for each in entry.objects(part.entries(np.arange(len(part))))]


def taken(pipeline, *frames):
    return entries(pipeline.take(wire.batch(frames)))


PING = frame(A, B, 1, echo(8, 3, 1)), frame(B, A, 1, echo(0, 3, 1))
HOSTS = {"ports": (38412, 38412)}
ASSOCIATION = (
    frame(A, B, 132, packet(init(), **HOSTS)),
    frame(B, A, 132, packet(init(2), **HOSTS)),
    frame(A, B, 132, packet(data(1, b"setup", protocol=60), **HOSTS)),
    frame(A, B, 132, packet(chunk(6), **HOSTS)),
)


def test_a_ping_is_an_entry_without_ports(pipeline):
    (found,) = taken(pipeline, *PING)
    assert found["protocol"] == {"name": "icmp", "version": "", "abbr": "ICMP"}
    assert found["transport"] == "icmp"
    assert (found["src"]["ip"], found["src"]["port"]) == (A, None)
    assert (found["dst"]["ip"], found["dst"]["port"]) == (B, None)
    assert (found["request"]["type"], found["response"]["type"]) == ("echo request", "echo reply")
    assert (found["requestSize"], found["elapsedTimeUs"]) == (64, 1000)
    assert entries(pipeline.end()) == []


def test_hot_columns_say_what_entries_say(pipeline):
    (calls,) = pipeline.take(wire.batch(PING))
    found = wire.hot_columns(calls)
    assert (found["transport"], found["src_port"], found["dst_port"]) == (["icmp"], [-1], [-1])


def test_v6_is_another_stream_with_the_same_name(pipeline):
    ends = "fd00::1", "fd00::2"
    asked, replied = frame(*ends, 58, echo(128, 1, 1)), frame(*ends[::-1], 58, echo(129, 1, 1))
    (found,) = taken(pipeline, asked, replied)
    assert (found["protocol"]["name"], found["request"]["version"]) == ("icmp", 6)


def test_an_error_names_the_stream_that_it_is_about(pipeline):
    about = wire.ipv4(A, B, 6, struct.pack(">2HI", 40000, 80, 1))
    (found,) = taken(pipeline, frame(ROUTER, A, 1, icmp(11, 0, data=about)))
    assert (found["src"]["ip"], found["dst"]["ip"]) == (ROUTER, A)
    assert found["request"]["about"]["src"] == {"ip": A, "port": 40000}
    assert found["error"] is None


def test_an_association_has_entries_with_ports(pipeline):
    begin, abort, whole = taken(pipeline, *ASSOCIATION)
    for found in (begin, abort, whole):
        assert (found["protocol"]["name"], found["transport"]) == ("sctp", "sctp")
        assert (found["src"]["port"], found["dst"]["port"]) == (38412, 38412)
    assert begin["request"]["checksum"] == 0xDEADBEEF
    assert whole["request"]["payloadProtocols"] == ["NGAP"]
    assert len({each["stream"] for each in (begin, abort, whole)}) == 1


def test_diameter_on_sctp_is_found_beside_it(pipeline):
    messages = message(280, 1), answer(280, 1)
    asked, answered = (packet(data(1, each, protocol=46), **HOSTS) for each in messages)
    found = taken(pipeline, frame(A, B, 132, asked), frame(B, A, 132, answered))
    assert [each["protocol"]["name"] for each in found] == ["diameter"]
    assert (found[0]["transport"], found[0]["request"]["method"]) == ("sctp", "Device-Watchdog")
    (whole,) = entries(pipeline.end())
    assert (whole["protocol"]["name"], whole["request"]["state"]) == ("sctp", "idle")


def test_their_packets_are_those_of_the_stream(pipeline):
    taken(pipeline, *PING, *ASSOCIATION)
    streams = pipeline.packet_streams.tolist()
    assert streams[0] == streams[1] != 0
    assert len(set(streams[2:])) == 1
    assert 0 not in streams


def test_what_was_before_a_match_is_still_known(pipeline):
    taken(pipeline, *PING)
    (stream,) = set(pipeline.packet_streams.tolist())
    pipeline.take(wire.batch([frame(A, B, 1, echo(8, 3, 2))], start=wire.START + 10**9))
    (found,) = entries(pipeline.earlier(np.array([stream])))
    assert found["request"]["sequence"] == 1


def test_only_what_is_wanted_is_looked_for(pipeline):
    pipeline.dissectors = frozenset({"http", "diameter"})
    assert taken(pipeline, *PING, *ASSOCIATION) == []
    assert pipeline.packet_streams.all()
    pipeline.dissectors = frozenset({"icmp"})
    assert [each["protocol"]["name"] for each in taken(pipeline, *PING, *ASSOCIATION)] == ["icmp"]


def test_streams_end_when_they_are_quiet(pipeline):
    taken(pipeline, *PING[:1], *ASSOCIATION[2:3])
    lost = taken(pipeline, (wire.START + 60 * 10**9, PING[0]))
    assert [each["error"]["type"] for each in lost] == ["timeout"]
    late = taken(
        pipeline, (wire.START + 200 * 10**9, frame(A, "10.0.0.9", 17, wire.udp(1, 2, b"")))
    )
    assert "sctp" in [each["protocol"]["name"] for each in late]


def test_of_a_flood_some_is_dissected_and_the_rest_is_counted(pipeline, monkeypatch):
    monkeypatch.setattr(byprotocol, "MOST_PACKETS", 10)
    flood = [frame(A, B, 1, icmp(3, 1)) for _ in range(25)]
    assert len(taken(pipeline, *flood)) == 10
    (loss,) = pipeline.losses()
    assert (loss.kind, loss.detail[:10]) == ("undissected", "15 packets")
    assert pipeline.losses() == []


def test_messages_that_are_cut_are_no_packets(pipeline):
    assert taken(pipeline, frame(A, B, 1, b"\3\1\0"), frame(A, B, 132, bytes(11))) == []
    assert not pipeline.packet_streams.any()
