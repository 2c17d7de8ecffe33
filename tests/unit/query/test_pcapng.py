import io
import struct
import subprocess
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap

from services.query import pcapng

TIME_NS = 1_763_853_120_123_456_789
FRAME = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=4, dport=80, flags="S"))


def a_file() -> bytes:
    return (
        pcapng.section("Traffic Recorder", ["recording a"])
        + pcapng.interface(1, "node-1", "node node-1")
        + blocks([TIME_NS, TIME_NS + 1], [FRAME, FRAME[:33]], {0: "recording a, stream 00a1"})
    )


def blocks(times: list[int], frames: list[bytes], notes: dict[int, str]) -> bytes:
    many = len(frames)
    original = np.full(many, len(FRAME))
    return pcapng.packets(np.zeros(many, np.int64), np.array(times), frames, original, notes)


def test_scapy_reads_times_to_the_nanosecond_and_lengths_of_cut_frames() -> None:
    found = rdpcap(io.BytesIO(a_file()))
    assert [bytes(packet) for packet in found] == [FRAME, FRAME[:33]]
    assert Decimal(str(found[0].time)) == Decimal(TIME_NS) / 10**9
    assert found[1].wirelen == len(FRAME)


def test_scapy_reads_comments_and_the_name_of_the_interface() -> None:
    found = rdpcap(io.BytesIO(a_file()))
    assert found[0].comments == [b"recording a, stream 00a1"]
    assert found[0].sniffed_on == "node-1"


def test_a_comment_longer_than_an_option_becomes_several_without_cutting_a_character() -> None:
    text = "x" + "ä" * 70_000
    options = pcapng.comment(text)
    assert len(options) == 3
    assert "".join(value.decode() for _, value in options) == text


def test_every_block_has_its_length_at_both_ends_and_is_aligned() -> None:
    octets = a_file()
    position = blocks = 0
    while position < len(octets):
        _, length = struct.unpack_from("<II", octets, position)
        assert length % 4 == 0
        assert struct.unpack_from("<I", octets, position + length - 4) == (length,)
        position += length
        blocks += 1
    assert position == len(octets)
    assert blocks == 4


def test_frames_of_all_lengths_are_whole_with_and_without_notes() -> None:
    frames = [FRAME + bytes(range(extra)) for extra in range(9)]
    notes = {row: f"note {'x' * row}" for row in range(0, 9, 2)}
    octets = pcapng.section("t", []) + pcapng.interface(1, "n", "n")
    found = rdpcap(io.BytesIO(octets + blocks(list(range(9)), frames, notes)))
    assert [bytes(packet) for packet in found] == frames
    said = [packet.comments[0].decode() if packet.comments else None for packet in found]
    assert said == [notes.get(row) for row in range(9)]


def test_names_are_cut_cleaned_and_only_of_addresses() -> None:
    known = {
        "10.0.0.1": ["cart\x00\x1b[2J", "pod"],
        "fd00::1": ["ä" * 200],
        "no address": ["x"],
        "10.0.0.2": ["\n"],
    }
    (block,) = pcapng.names(known)
    assert b"\x0a\x00\x00\x01cart[2J\0pod\0" in block
    assert "ä".encode() * 126 + b"\0" in block
    assert b"\x0a\x00\x00\x02" not in block
    assert len(list(pcapng.names({f"10.1.{n // 250}.{n % 250}": ["x"] for n in range(2500)}))) == 3


def test_a_time_before_1970_is_written_as_1970() -> None:
    octets = pcapng.section("t", []) + pcapng.interface(1, "n", "n")
    found = rdpcap(io.BytesIO(octets + blocks([-5], [FRAME], {})))
    assert found[0].time == 0


@pytest.mark.tshark
def test_tshark_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    path.write_bytes(a_file())
    fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name"]
    command = ["tshark", "-r", str(path), "-T", "fields"]
    for field in (*fields, "frame.comment"):
        command += ["-e", field]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    first, second = (line.split("\t") for line in found)
    assert first == [
        "1763853120.123456789", "54", "54", "node-1", "recording a, stream 00a1",
    ]  # fmt: skip
    assert second[:4] == ["1763853120.123456790", "54", "33", "node-1"]
