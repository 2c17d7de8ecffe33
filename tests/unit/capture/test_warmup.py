"""An agent that says that it runs has nothing left to compile."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.capture.dissectors.tls.hellos import alert, client_hello, record, sni
from tests.unit.capture.traffic import Conversation, write_pcap

ROOT = Path(__file__).parents[3]

PROGRAM = """
import sys
import numpy as np
from numba.core.dispatcher import Dispatcher
from services.capture import frames
from services.capture.agent import new_engine_factory
from services.capture.packetstore import packets_table
from services.capture.warmup import warm_up

def compiled():
    rooms = [vars(m) for name, m in sys.modules.items() if name.startswith("services.capture")]
    kernels = {id(k): k for room in rooms for k in room.values() if isinstance(k, Dispatcher)}
    return {f"{k.__module__}.{k.__name__}": len(k.signatures) for k in kernels.values()}

for path in sys.argv[1:]:  # what reading a file compiles is not what is asked for here
    for _ in frames.open_capture(path).batches():
        pass
warm_up(new_engine_factory("node-1", "", sample=0.000001)())  # without the conversation's streams
before = compiled()
engine = new_engine_factory("node-1", "", sample=99.999999)()
engine.pipeline.body_limit = 100
for path in sys.argv[1:]:
    for batch in frames.open_capture(path).batches():
        for calls in engine.pipeline.take(batch):
            calls.columns()
            calls.entries(np.arange(len(calls)))
        streams = np.ascontiguousarray(engine.pipeline.packet_streams)
        engine.store.put(batch, streams)
        taken = engine.store.take(np.unique(streams))
        packets_table(taken, engine.pipeline.stream_ids, "node-1")
    engine.pipeline.take(frames.FrameBatch(np.zeros(1, np.uint8), np.zeros(0, frames.FRAME)))
    for calls in engine.pipeline.earlier(np.unique(streams)):
        calls.entries(np.arange(len(calls)))
for calls in engine.pipeline.end():
    calls.columns()
    calls.entries(np.arange(len(calls)))
new = {name for name, count in compiled().items() if count > before.get(name, 0)}
sys.exit(f"compiled when frames came: {sorted(new)}" if new or not before else 0)
"""


@pytest.mark.timeout(400)  # it compiles all kernels when nothing has before
def test_what_frames_go_through_is_compiled_before_they_come(tmp_path: Path) -> None:
    from scapy.layers.dns import DNS, DNSQR
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    talk, cache = Conversation(40001), Conversation(40003)
    redis = [*cache.opening(), *cache.raw(b"*"), *cache.raw(b"2\r\n$3\r\nGET\r\n$1\r\na\r\n")]
    redis += [*cache.answer(b"+b\r\n"), *cache.closing()]
    hidden = Conversation(40004)
    tls = [
        *hidden.opening(),
        *hidden.raw(record(client_hello([0x1301], [sni("a")]))),
        *hidden.answer(alert(2, 40)),
    ]
    query = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    query /= IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=40002, dport=53)
    query /= DNS(rd=1, qd=DNSQR(qname="shop.test"))
    write_pcap(
        tmp_path / "first.pcap",
        [
            *talk.opening(),
            *talk.call("/a", 200, b"x" * 100),
            query,
            *talk.call("/b", 404),
            *redis,
            *tls,
        ],
    )
    write_pcap(tmp_path / "second.pcap", [*talk.request("/never-answered"), *talk.closing()])
    files = [str(tmp_path / name) for name in ("first.pcap", "second.pcap")]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
