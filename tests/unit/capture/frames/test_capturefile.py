"""Capture files as people have them: gzipped, piped, damaged, or not captures at all."""

import gzip
import json
import os
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from services.capture.frames import CaptureError, open_capture
from services.capture.frames.batch import MOST_FRAMES, MOST_OCTETS

LEFT_OUT_BY_DESIGN = {"crash-pcapng-epb-unbounded-length": 1}
"""Packets that the oracle counts although their length goes beyond their block."""

READ_STDIN = """
from services.capture.frames import open_capture
source = open_capture("-")
frame = lambda b, r: b.octets[r.offset:][:r.captured_length].tobytes()
print([frame(b, r) for b in source.batches() for r in b.frames])
print(source.losses())
"""


def pcap(*frames: bytes) -> bytes:
    records = b"".join(struct.pack("<IIII", 1, i, len(f), len(f)) + f for i, f in enumerate(frames))
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + records


def octets_of(found):
    return [frame.octets for frame in found.frames]


def sentence_of(path) -> str:
    with pytest.raises(CaptureError) as caught:
        open_capture(path)
    return str(caught.value)


# ------------------------------------------------------------------------------ what is no capture


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b"\x89PNG\r\n\x1a\n....",
            "it begins with 89 50 4e 47 0d 0a 1a 0a; expected pcap or pcapng",
        ),
        (b"#!/bin/sh\n", "it begins with '#!/bin/s'; expected pcap or pcapng, also gzipped"),
        (b"x", "it begins with 'x'"),
        (b"", "is empty"),
        (b"snoop\0\0\0\0\0\0\2", "is a snoop capture; convert it with"),
        (b"\x28\xb5\x2f\xfd....", "is compressed with zstd; unpack it first"),
        (b"\x04\x22\x4d\x18....", "is compressed with lz4; unpack it first"),
        (b"\xfd7zXZ\0....", "is compressed with xz; unpack it first"),
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0....", "is not a capture file"),
        (pcap()[:23], "is cut short: it has 23 octets, and the header of a pcap file has 24"),
        (gzip.compress(b"text", mtime=0), "it begins with 'text'"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(pcap(b"x"), mtime=0)[:12], "the gzip data is cut short"),
        (b"\x1f\x8b nonsense", "the gzip data is damaged"),
    ],
)
def test_what_is_not_a_capture_is_refused_with_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "trace.pcap"
    path.write_bytes(content)
    message = sentence_of(path)
    assert sentence in message
    assert message.startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    path = tmp_path / "trace.pcap"
    assert sentence_of(path) == f"there is no file {path}"


def test_a_missing_folder_is_named_as_well(tmp_path):
    assert sentence_of(tmp_path / "no" / "trace.pcap").endswith(
        f"there is no folder {tmp_path}/no either"
    )


def test_a_folder_is_not_a_capture(tmp_path):
    assert sentence_of(tmp_path) == f"{tmp_path} is a folder; name a capture file in it"


def test_a_name_with_a_nul_is_refused():
    assert "cannot hold a NUL" in sentence_of("trace\0.pcap")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "trace.pcap"
    path.write_bytes(pcap())

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)  # root, as in a container, may read everything
    assert f"{path} may not be read by this user" in sentence_of(path)


# ------------------------------------------------------------------------------ gzip and pipes


def test_a_gzipped_capture_is_a_capture(read):
    assert octets_of(read(gzip.compress(pcap(b"one", b"two")))) == [b"one", b"two"]


def test_several_gzip_members_with_padding_are_one_capture(read):
    whole = pcap(b"one", b"two", b"three")
    content = (
        gzip.compress(whole[:30]) + gzip.compress(b"") + gzip.compress(whole[30:]) + bytes(512)
    )
    found = read(content)
    assert octets_of(found) == [b"one", b"two", b"three"]
    assert found.damage == []


def test_a_cut_gzip_file_gives_what_came_before(read):
    noise = random.Random(5)
    frames = [noise.randbytes(1000) for _ in range(100)]
    content = gzip.compress(pcap(*frames))
    found = read(content[: len(content) // 2])
    assert 40 <= len(found.frames) <= 50
    assert octets_of(found) == frames[: len(found.frames)]
    assert "the gzip data is cut short" in found.damage[0]


def test_octets_behind_a_gzip_member_are_damage(read):
    found = read(gzip.compress(pcap(b"one")) + b"no gzip")
    assert octets_of(found) == [b"one"]
    assert "the gzip data is damaged" in found.damage[0]


def test_a_wrong_checksum_is_damage(read):
    content = bytearray(gzip.compress(pcap(b"one")))
    content[-8] ^= 1
    found = read(bytes(content))
    assert "incorrect data check" in found.damage[0]


def test_a_capture_larger_than_the_buffer_comes_whole_through_gzip(tmp_path):
    """Records lie across the ends of pieces; memory stays at one piece."""
    noise = random.Random(3)
    frames = [noise.randbytes(noise.randrange(60_000)) for _ in range(800)]
    path = tmp_path / "trace.pcap.gz"
    path.write_bytes(gzip.compress(pcap(*frames), 1))
    source = open_capture(path)
    index = 0
    for octets, rows, _ in source.batches():
        for row in rows:
            assert octets[row.offset :][: row.captured_length].tobytes() == frames[index]
            index += 1
    source.close()
    assert index == len(frames)


def stdin_of(content: bytes, piece: int) -> str:
    process = subprocess.Popen(
        [sys.executable, "-c", READ_STDIN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=False,
    )
    assert process.stdin is not None
    for at in range(0, len(content), piece):
        process.stdin.write(content[at : at + piece])
        process.stdin.flush()
    out, _ = process.communicate()
    assert process.returncode == 0
    return out.decode()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_capture_comes_through_a_pipe_in_any_pieces(pack):
    assert stdin_of(pack(pcap(b"one", b"two")), 7) == "[b'one', b'two']\n[]\n"


def test_a_pipe_that_ends_too_early_is_reported():
    out = stdin_of(pcap(b"one", b"two")[:-1], 1000)
    assert out.startswith("[b'one']\n")
    assert "the capture on stdin: the record at octet 43 is cut short" in out


def test_a_pipe_without_data_yields_empty_batches(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    go_on = threading.Event()

    def write():
        with path.open("wb", buffering=0) as pipe:
            pipe.write(pcap(b"one"))
            go_on.wait(30)
            pipe.write(pcap(b"", b"two")[40:])

    writer = threading.Thread(target=write)
    writer.start()
    source = open_capture(path)
    sizes = []
    for batch in source.batches():
        sizes.append(len(batch.frames))
        if sizes == [1, 0]:
            go_on.set()
    writer.join()
    source.close()
    assert sizes[:2] == [1, 0]
    assert sum(sizes) == 2
    assert source.losses() == []


# ------------------------------------------------------------------------------ batches


def test_batches_are_bounded(tmp_path):
    path = tmp_path / "trace.pcap"
    path.write_bytes(pcap(*[b"x"] * (MOST_FRAMES + 10), *[bytes(200_000)] * 100))
    source = open_capture(path)
    sizes = []
    for _, rows, _ in source.batches():
        sizes.append(len(rows))
        assert int(rows["captured_length"].sum()) <= MOST_OCTETS
    source.close()
    assert max(sizes) == MOST_FRAMES
    assert sum(sizes) == MOST_FRAMES + 110


def test_the_file_is_not_changed_by_writing_to_a_batch(tmp_path):
    path = tmp_path / "trace.pcap"
    path.write_bytes(pcap(b"frame"))
    source = open_capture(path)
    for octets, _, _ in source.batches():
        octets[:] = 0
    source.close()
    assert path.read_bytes() == pcap(b"frame")


def test_a_batch_stays_readable_when_its_source_is_closed(tmp_path):
    path = tmp_path / "trace.pcap"
    path.write_bytes(pcap(b"one", b"two"))
    source = open_capture(path)
    batches = source.batches()
    octets, rows, _ = next(batches)
    source.close()
    assert octets[rows[1].offset :][:3].tobytes() == b"two"
    assert list(batches) == []
    assert source.losses() == []


def test_damage_has_the_time_of_the_last_frame(tmp_path):
    path = tmp_path / "trace.pcap"
    path.write_bytes(pcap(b"one", b"two")[:-1])
    source = open_capture(path)
    list(source.batches())
    (loss,) = source.losses()
    source.close()
    assert (loss.kind, loss.start_ns, loss.end_ns) == ("capture_damage", 10**9, 10**9)


# ------------------------------------------------------------------------------ hostile and real


@pytest.mark.parametrize("seed", range(4))
def test_no_mutation_of_a_capture_does_more_than_damage_it(read, seed):
    """Frames always lie within their array (`read` checks it), and reading always ends."""
    noise = random.Random(seed)
    ng = (
        b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\1\0\0\0" + b"\xff" * 8 + b"\x1c\0\0\0"
        b"\1\0\0\0\x1c\0\0\0\1\0\0\0\0\0\1\0\x09\0\1\0\x09\0\0\0\x1c\0\0\0"
    )
    for length in (0, 4, 60):
        block = struct.pack("<IIIII", 0, 1, 2, length, length) + bytes(length)
        ng += struct.pack("<II", 6, len(block) + 12) + block + struct.pack("<I", len(block) + 12)
    ng += b"\3\0\0\0\x14\0\0\0\4\0\0\0frme\x14\0\0\0"
    for seedling in (pcap(b"one", bytes(100), b""), ng):
        for _ in range(150):
            content = bytearray(seedling)
            for _ in range(noise.choice((1, 1, 2, 5))):
                at = noise.randrange(12, len(content))
                content[at] = noise.choice((0, 1, 0x7F, 0x80, 0xFF, noise.randrange(256)))
            found = read(bytes(content[: noise.choice((len(content), len(content) - 3))]))
            assert len(found.frames) <= len(content) // 12


OTHER_READER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import oracle
json.dump({path: oracle.file_format(path) for path in sys.argv[2:]}, sys.stdout)
"""


@pytest.fixture(scope="module")
def expected(captures) -> dict[Path, dict]:
    """What oracle.py, beside the captures, finds in each of them."""
    folder = captures.parent / "oracle"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    paths = sorted(
        path
        for path in captures.rglob("*")
        if path.is_file() and path.suffix not in (".md", ".tsv")
    )
    assert len(paths) >= 90
    command = [sys.executable, "-W", "ignore", "-c", OTHER_READER, folder, *paths]
    found = subprocess.run(command, capture_output=True, check=True)
    return {Path(path): one for path, one in json.loads(found.stdout).items()}


@pytest.mark.captures
def test_every_real_capture_has_the_packets_that_another_reader_finds(expected, read_capture):
    for path, theirs in expected.items():
        if theirs["format"] == "snoop":
            assert "snoop" in sentence_of(path)
            continue
        found = read_capture(path)
        assert len(found.frames) + found.left_out == theirs["packets"], path
        assert found.left_out == LEFT_OUT_BY_DESIGN.get(path.name, 0), path
        if not found.left_out:
            captured = sum(len(frame.octets) for frame in found.frames)
            assert captured == theirs["captured_bytes"], path
        reported = any(word in (theirs["damage"] or "") for word in ("cut", "absurd", "bad"))
        assert bool(found.damage) == (reported or bool(found.left_out)), path


@pytest.mark.captures
@pytest.mark.tshark
def test_every_kind_of_real_capture_has_the_times_that_tshark_finds(expected, read_capture):
    kinds = set()
    for path, theirs in expected.items():
        if theirs["damage"] or theirs["format"] == "snoop" or "Fuzzers" in path.parts:
            continue  # of seconds with more than 999999 microseconds tshark has another opinion
        found = read_capture(path)
        kind = (theirs["format"], *theirs["linktypes"], *theirs.get("tsresol", ()))
        blocks = theirs.get("blocks", {})
        # tshark gives a simple packet no time, we that of the one before; it ends at a new section.
        if kind in kinds or found.damage or "SPB" in blocks or blocks.get("SHB", 1) > 1:
            continue
        kinds.add(kind)
        fields = ["-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len"]
        shown = subprocess.run(
            ["tshark", "-n", "-r", path, *fields],
            capture_output=True,
            text=True,
            check=False,
        )
        ours = [(frame.time_ns, frame.original_length) for frame in found.frames]
        assert ours == [times_of(line) for line in shown.stdout.splitlines()], path
    assert len(kinds) > 10


def times_of(line: str) -> tuple[int, int]:
    time, length = line.split("\t")
    seconds, fraction = time.split(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")), int(length)
