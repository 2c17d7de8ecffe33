"""A capture file gives the same entries by every way into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.e2e.network import wait_until
from tests.e2e.services import ANSWER_SECONDS, START_SECONDS, Recorder
from tests.unit.capture.traffic import Conversation, write_pcap

REAL = "CESNET+ipfixprobe/tests/functional/inputs/mixed.pcap"


@pytest.fixture
def storing(recorder: Recorder) -> Recorder:
    """A recorder without an agent."""
    recorder.start_scheduler()
    recorder.start_query()
    return recorder


def write(file: Path) -> None:
    """Write a capture with calls of all kinds, two of them never answered."""
    first, second, third = (Conversation(40001 + number) for number in range(3))
    ends = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}

    def datagram(side: int, message: DNS) -> Any:
        hosts, ports = ("10.0.0.1", "10.0.0.2"), (40009, 53)
        ip = IP(src=hosts[side], dst=hosts[1 - side])
        return Ether(**ends) / ip / UDP(sport=ports[side], dport=ports[1 - side]) / message

    name = DNSQR(qname="shop.test", qtype="A")
    record = DNSRR(rrname="shop.test", type="A", ttl=60, rdata="10.1.2.3")
    frames = [*first.opening(), *second.opening(), *first.call("/a", 200, b"x" * 1000)]
    frames += [*second.call("/b?c=d", 404), datagram(0, DNS(id=7, qd=name))]
    frames += [
        *first.call("/e", 500, "grüße".encode()),
        datagram(1, DNS(id=7, qr=1, qd=name, an=record)),
    ]
    frames += [*first.closing(), *third.opening(), *third.request("/never"), *second.closing()]
    frames += [datagram(0, DNS(id=8, qd=DNSQR(qname="nobody.test")))]
    write_pcap(file, frames)


def comparable(entries: list[dict[str, Any]]) -> list[str]:
    """Return entries as sorted texts, without what says where they come from."""
    left_out = ("id", "node", "record")
    kept = [{key: e[key] for key in e if key not in left_out} for e in entries]
    return sorted(json.dumps(entry, sort_keys=True) for entry in kept)


def check_all_ways(recorder: Recorder, file: Path) -> list[dict[str, Any]]:
    dissected = recorder.say("dissect", str(file), "--kfl", "http or dns").lines
    said = recorder.say("import", str(file), "--record", "imported").out
    assert "as imported" in said
    assert comparable(recorder.ask('record("imported")')) == comparable(dissected)

    recorder.say("jobs", "create", "replayed", "--kfl", "http or dns")
    replay = recorder.start(
        "capture", "--replay", str(file), "--scheduler", recorder.scheduler_address
    )
    assert replay.child.wait(START_SECONDS) == 0, replay.text
    wait_until(
        lambda: len(recorder.ask('record("replayed")')) >= len(dissected), ANSWER_SECONDS, "all"
    )
    assert comparable(recorder.ask('record("replayed")')) == comparable(dissected)
    job = recorder.stop_job("replayed")
    [imported] = recorder.job("imported")["runs"]
    [replayed] = job["runs"]
    counts = ("entries", "streams", "packets", "lost_packets")
    assert [imported[key] for key in counts] == [replayed[key] for key in counts]
    return dissected


def test_replay_import_and_dissect_agree(storing: Recorder, tmp_path: Path) -> None:
    file = tmp_path / "capture.pcap"
    write(file)
    entries = check_all_ways(storing, file)
    assert len(entries) == 6
    unanswered = [entry for entry in entries if entry["error"]]
    assert len(unanswered) == 2
    # What was exported is a capture again, of the same streams.
    again = tmp_path / "again.pcapng"
    storing.say("export", 'record("imported")', "-o", str(again))
    assert comparable(storing.say("dissect", str(again), "--kfl", "http or dns").lines) == (
        comparable(entries)
    )


@pytest.mark.captures
def test_they_agree_about_a_real_capture(storing: Recorder, captures: Path) -> None:
    if not (captures / REAL).exists():
        pytest.skip(f"needs {REAL}")
    assert check_all_ways(storing, captures / REAL)


def test_a_capture_comes_by_a_pipe_and_compressed(storing: Recorder, tmp_path: Path) -> None:
    import gzip

    file = tmp_path / "capture.pcap"
    write(file)
    packed = tmp_path / "capture.pcap.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    plain = comparable(storing.say("dissect", str(file)).lines)
    assert comparable(storing.say("dissect", str(packed)).lines) == plain
    piped = storing.run("dissect", "-", stdin=file.read_bytes())
    assert comparable(piped.lines) == plain
    assert storing.run("import", "-", "--record", "piped", stdin=packed.read_bytes()).code == 0
    assert len(storing.ask('record("piped")')) == 6
