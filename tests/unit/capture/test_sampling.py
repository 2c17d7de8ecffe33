"""A part of the streams, each whole or not at all, and everywhere the same part."""

import itertools

import numpy as np
import pytest

from services.capture.decode import new_packets
from services.capture.flows import new_keys
from services.capture.fragments import new_fragments
from services.capture.frames.batch import FRAME
from services.capture.headers import LEFT_OUT
from services.capture.pipeline import Pipeline, PipelineOptions
from services.capture.sampling import leave_out, left_out, new_sample
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

FLOWS = 100_000
PERCENTAGES = [1, 12.5, 50, 99]


def random_v4(chance, keys):
    keys["lower_low"] = chance.integers(0, 1 << 32, len(keys))
    keys["higher_low"] = chance.integers(0, 1 << 32, len(keys))
    keys["ports"] = chance.integers(0, 1 << 32, len(keys)) | 6 << 32


def random_v6(chance, keys):
    for word in ("lower_high", "lower_low", "higher_high", "higher_low"):
        keys[word] = chance.integers(0, 1 << 63, len(keys))
    keys["ports"] = chance.integers(0, 1 << 32, len(keys)) | 17 << 32


def one_service(chance, keys):
    """A few clients that take one port after the other, as all of them do."""
    keys["lower_low"] = 0x0A000001 + np.arange(len(keys)) // 28_000
    keys["higher_low"] = 0x0A600001
    keys["ports"] = 6 << 32 | (32_768 + np.arange(len(keys)) % 28_000) << 16 | 443


def is_in(keys, percent):
    """Whether each of the flows is in the sample."""
    packets = new_packets(len(keys))
    leave_out(np.zeros(len(keys), FRAME), packets, keys, new_fragments(), new_sample(percent))
    return packets["status"] != LEFT_OUT


@pytest.mark.parametrize("percent", PERCENTAGES)
@pytest.mark.parametrize("fill", [random_v4, random_v6, one_service])
def test_the_sample_is_as_large_as_was_asked(fill, percent):
    keys = new_keys(FLOWS)
    fill(np.random.default_rng(1), keys)
    deviation = (percent * (100 - percent) / FLOWS) ** 0.5
    assert abs(is_in(keys, percent).mean() * 100 - percent) < 4 * deviation


def test_a_larger_sample_has_what_a_smaller_one_has():
    keys = new_keys(FLOWS)
    random_v4(np.random.default_rng(1), keys)
    samples = [is_in(keys, percent) for percent in (*PERCENTAGES, 100)]
    for smaller, larger in itertools.pairwise(samples):
        assert not (smaller & ~larger).any()
    assert samples[-1].all()


def test_the_smallest_sample_is_not_told_from_none_by_rounding():
    assert new_sample(1e-300)["share"] == 1
    assert new_sample(99.999999999999)["share"] == new_sample(100)["share"]


def test_agents_of_other_releases_choose_the_same():
    keys = new_keys(32)
    keys["lower_low"], keys["higher_low"] = 0x0A000001, 0x0A000002
    keys["ports"] = 6 << 32 | 80 << 16 | 40_000 + np.arange(32)
    chosen = "".join("x" if each else "." for each in is_in(keys, 25))
    assert chosen == "...x.x......x...xx.x.x.xx....x.."


def datagrams(port, source="10.0.0.1", target="10.0.0.2", vlans=()):
    build = wire.ipv6 if ":" in source else wire.ipv4
    there = build(source, target, 17, wire.udp(port, 9999, b"there"))
    back = build(target, source, 17, wire.udp(9999, port, b"back"))
    return [wire.ethernet(there, vlans), wire.ethernet(back, vlans)]


def talks(kind, port):
    """Frames of one flow, both ways, the first from its higher or its lower endpoint."""
    ends = ("fd00::2", "fd00::1") if kind.endswith("v6") else ("10.0.0.2", "10.0.0.1")
    if port % 2:
        ends = ends[::-1]
    if kind.startswith("udp"):
        return datagrams(port, *ends)
    talk = Conversation(*ends, client_port=port)
    return talk.open().client(b"there").server(b"back").close().frames


def kept(frames, sample=50):
    """Whether each frame is of a stream, by a worker of its own."""
    pipeline = Pipeline(PipelineOptions(sample=sample, most_flows=4096))
    pipeline.take(wire.batch(frames))
    return pipeline.packet_streams != 0


@pytest.mark.parametrize("kind", ["tcp v4", "tcp v6", "udp v4", "udp v6"])
def test_streams_are_whole_or_absent_and_all_workers_agree(kind):
    flows = [talks(kind, port) for port in range(20_000, 20_400)]
    by_flow, turned = (
        kept([frame for flow in some for frame in flow]).reshape(len(flows), -1)
        for some in (flows, flows[::-1])
    )
    assert (by_flow == turned[::-1]).all()
    assert (by_flow.all(axis=1) == by_flow.any(axis=1)).all()
    assert 150 < by_flow.all(axis=1).sum() < 250


def test_a_five_tuple_is_decided_alike_in_vlans_and_tunnels_and_in_fragments():
    for port in range(20_000, 20_040):
        there, _ = datagrams(port)
        (in_sample,) = kept([there])
        (tagged,) = kept([datagrams(port, vlans=(7,))[0]])
        outer = wire.udp(port, 4789, b"\x08\0\0\0\0\0\x05\0" + there)
        (tunnelled,) = kept([wire.ethernet(wire.ipv4("10.9.0.1", "10.9.0.2", 17, outer))])
        parts = [wire.ethernet(part) for part in wire.fragments(there[14:], [8])]
        assert kept(parts).tolist() == [in_sample] * 2
        assert tagged == tunnelled == in_sample


def test_what_is_left_out_is_counted_and_told_once():
    flows = [talks("tcp v4", port) for port in range(20_000, 20_040)]
    frames = [frame for flow in flows for frame in flow]
    pipeline = Pipeline(PipelineOptions(sample=50, most_flows=64))
    assert pipeline.left_out() is None
    batch = wire.batch(frames)
    pipeline.take(batch)
    absent = batch.frames[pipeline.packet_streams == 0]
    assert 0 < len(absent) < len(frames)
    loss = pipeline.left_out()
    assert (loss.kind, loss.packets, loss.bytes) == (
        "sampled",
        len(absent),
        absent["captured_length"].sum(),
    )
    assert (loss.start_ns, loss.end_ns) == (absent["timestamp"][0], absent["timestamp"][-1])
    assert loss.detail.startswith("50 percent of the streams are looked at")
    assert pipeline.left_out() is None
    assert pipeline.losses() == []


def test_fragments_of_earlier_batches_are_counted_too():
    port = next(port for port in range(20_000, 30_000) if not kept([datagrams(port)[0]])[0])
    packet = datagrams(port)[0]
    parts = [wire.ethernet(part) for part in wire.fragments(packet[14:], [8])]
    pipeline = Pipeline(PipelineOptions(sample=50, most_flows=64))
    pipeline.take(wire.batch(parts[:1]))
    assert pipeline.left_out() is None
    pipeline.take(wire.batch(parts[1:], start=wire.START + wire.MILLISECOND))
    loss = pipeline.left_out()
    assert (loss.packets, loss.bytes) == (2, sum(map(len, parts)))
    assert (loss.start_ns, loss.end_ns) == (wire.START, wire.START + wire.MILLISECOND)


def test_flows_that_are_left_out_take_no_room():
    flows = [talks("udp v4", port)[0] for port in range(20_000, 20_100)]
    pipeline = Pipeline(PipelineOptions(sample=1, most_flows=64))
    pipeline.take(wire.batch(flows))
    assert pipeline.losses() == []
    assert left_out(pipeline.sample, 1).packets > 90
