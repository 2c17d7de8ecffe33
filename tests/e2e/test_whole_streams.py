"""A stream in which an entry matches is kept from its first packet to its last; others are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP
from scapy.utils import PcapNgReader

from tests.e2e.network import CLIENT, Network, wait_until
from tests.e2e.services import ANSWER_SECONDS, Recorder, paths

pytestmark = [pytest.mark.root, pytest.mark.debian]

# scapy's readers leave closing their file to the garbage collector.
pytestmark.append(pytest.mark.filterwarnings("ignore::ResourceWarning"))


def connections(file: Path) -> dict[int, list]:
    """Return the TCP packets of a capture by the port of the client."""
    found: dict[int, list] = {}
    with PcapNgReader(str(file)) as reader:
        for packet in reader:
            assert TCP in packet
            port = packet[TCP].sport if packet[IP].src == CLIENT else packet[TCP].dport
            found.setdefault(port, []).append(packet)
    return found


def octets(packets: list, source: str) -> bytes:
    """Put one direction together; fails when an octet is missing between SYN and FIN."""
    mine = [packet for packet in packets if packet[IP].src == source]
    [start] = {p[TCP].seq for p in mine if "S" in str(p[TCP].flags)}
    [finish] = {p[TCP].seq + len(data(p)) for p in mine if "F" in str(p[TCP].flags)}
    there: dict[int, int] = {}
    for packet in mine:
        for number, octet in enumerate(data(packet)):
            there[(packet[TCP].seq + number - start - 1) % 2**32] = octet
    assert sorted(there) == list(range((finish - start - 1) % 2**32))
    return bytes(there[number] for number in range(len(there)))


def data(packet) -> bytes:
    """Return what a packet carries, without the padding of Ethernet."""
    length = packet[IP].len - packet[IP].ihl * 4 - packet[TCP].dataofs * 4
    return bytes(packet[TCP].payload)[:length]


def test_a_stream_that_matches_late_is_there_from_its_first_packet(
    network: Network, live: Recorder, new_name: Callable[[], str], tmp_path: Path
) -> None:
    name = new_name()
    live.record(name, "response.status == 500")
    network.curl(f"/ok/{name}-before")
    before = [f"/ok/{name}-{number}" for number in range(9)] + [f"/large/{name}"]
    after = [f"/ok/{name}-after-{number}" for number in range(5)]
    answers = network.curl(*before, f"/broken/{name}", *after)
    network.curl(*(f"/missing/{name}-{number}" for number in range(10)))
    [line] = [line for line in network.served() if line["path"] == f"/broken/{name}"]
    port = int(str(line["connection"]).rpartition(":")[2])

    last = live.wait_for(f'record("{name}") and request.path == "{after[-1]}"', 1)
    entries = live.ask(f'record("{name}") and stream == "{last[0]["stream"]}"')
    assert live.ask(f'record("{name}")') == entries, "and none of another stream"
    found = paths(entries)
    assert found == sorted([*before, f"/broken/{name}", *after]), "also what came before the match"

    file = tmp_path / "found.pcapng"

    def is_closed() -> bool:
        live.say("export", f'record("{name}")', "-o", str(file))
        flags = [str(p[TCP].flags) for packets in connections(file).values() for p in packets]
        return sum("F" in found for found in flags) == 2

    wait_until(is_closed, ANSWER_SECONDS, "both ends of the connection have ended")
    kept = connections(file)
    assert list(kept) == [port], "and no packet of a stream that never matched"
    packets = kept[port]
    assert [str(packet[TCP].flags) for packet in packets[:3]] == ["S", "SA", "A"]
    times = [packet.time for packet in packets]
    assert times == sorted(times)
    asked = octets(packets, CLIENT)
    assert [line.split()[1].decode() for line in asked.split(b"\r\n") if b" HTTP/1" in line] == [
        *before, f"/broken/{name}", *after,
    ]  # fmt: skip
    answered = octets(packets, packets[1][IP].src)
    assert answered.count(b"HTTP/1.1 200 OK") == len(before) + len(after)
    at = 0
    for answer in answers:
        at = answered.index(answer.body, at) + len(answer.body)
    live.stop_job(name)


@pytest.mark.tshark
def test_tshark_finds_nothing_wrong_with_an_export(
    network: Network, live: Recorder, new_name: Callable[[], str], tmp_path: Path
) -> None:
    import subprocess

    name = new_name()
    live.record(name, "http or dns")
    for number in range(3):
        network.curl(*(f"/{kind}/{name}-{number}" for kind in ("ok", "large", "broken")))
        network.dig(f"{name}-{number}.web.shop.test")
    live.wait_for(f'record("{name}")', 12)
    live.stop_job(name)
    file = tmp_path / "found.pcapng"
    live.say("export", f'record("{name}")', "-o", str(file))

    def tshark(*arguments: str) -> list[str]:
        ran = subprocess.run(
            ["tshark", "-r", str(file), *arguments], capture_output=True, text=True, check=True
        )
        assert "cut short" not in ran.stderr
        return ran.stdout.splitlines()

    gone = "tcp.analysis.lost_segment or tcp.analysis.ack_lost_segment or _ws.malformed"
    assert tshark("-Y", gone) == []
    assert len(tshark("-Y", "http.response", "-T", "fields", "-e", "http.response.code")) == 9
    assert len(tshark("-Y", "dns.flags.response == 1")) == 3
    assert tshark("-Y", "tcp", "-T", "fields", "-e", "tcp.flags.str")[0].strip("·") == "S"
