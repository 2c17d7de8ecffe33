"""A capture file to entries, as `recorder dissect` gets them."""

import struct

import pytest

import kfl
from recordings import entry
from recordings.schema import ENTRIES
from services.capture import dissect
from services.capture.frames.batch import CaptureError
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

CALLS = [("/a", 200), ("/b", 500), ("/c", 200), ("/b", 404)]


@pytest.fixture
def capture(tmp_path):
    talk = Conversation().open()
    for path, status in CALLS:
        talk.client(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        talk.server(f"HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody".encode())
    other = Conversation(client_port=41000, server_port=22).open().client(b"SSH").close()
    octets, frames, _ = wire.batch(talk.frames + other.frames)
    path = tmp_path / "calls.pcap"
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for frame in frames:
            seconds, fraction = divmod(int(frame["timestamp"]), 10**9)
            length = int(frame["captured_length"])
            file.write(struct.pack("<IIII", seconds, fraction, length, length))
            file.write(octets[frame["offset"] :][:length].tobytes())
    return path


def found(capture, filter=None, body_limit=100):
    """(entries, losses) of a capture file."""
    chosen = kfl.compile(filter) if filter else None
    tables = dissect.tables(capture, chosen, body_limit)
    entries = []
    while True:
        try:
            table = next(tables)
        except StopIteration as end:
            return entries, end.value
        assert table.schema == ENTRIES
        entries += entry.objects(table)


def paths(capture, filter):
    return [each["request"]["path"] for each in found(capture, filter)[0]]


def test_everything_without_a_filter(capture):
    entries, losses = found(capture)
    assert [each["protocol"]["name"] for each in entries] == ["http"] * 4 + ["tcp"]
    assert losses == []


@pytest.mark.parametrize(
    ("filter", "wanted"),
    [
        ("http", ["/a", "/b", "/c", "/b"]),
        ("response.status >= 400", ["/b", "/b"]),
        ('request.path == "/b" and response.status == 500', ["/b"]),
        ('response.body == "body" and request.path != "/b"', ["/a", "/c"]),
        ("http and limit(2)", ["/a", "/b"]),
        ("dns", []),
    ],
)
def test_only_what_the_filter_lets_through(capture, filter, wanted):
    assert paths(capture, filter) == wanted


def test_a_sample_says_so(capture):
    tables = dissect.tables(capture, None, 100, sample=1e-9)
    with pytest.raises(StopIteration) as end:
        next(tables)
    (loss,) = end.value.value
    assert (loss.kind, loss.packets) == ("sampled", 17)
    counts, (same,) = dissect.count(capture, None, 100, sample=1e-9)
    assert (counts, same) == ({}, loss)


def test_counts_are_those_of_the_entries(capture):
    assert dissect.count(capture, None, 100) == ({"http": 4, "tcp": 1}, [])
    assert dissect.count(capture, kfl.compile("response.status == 500"), 100) == ({"http": 1}, [])
    assert dissect.count(capture, kfl.compile('response.body == "body"'), 100) == ({"http": 4}, [])


def test_bodies_are_cut_at_the_limit(capture):
    assert [each["response"]["body"] for each in found(capture, "http", 2)[0]] == ["bo"] * 4


def test_a_cut_file_gives_what_is_there_and_says_so(capture):
    capture.write_bytes(capture.read_bytes()[:-7])
    entries, (loss,) = found(capture)
    assert len(entries) == 5
    assert loss.kind == "capture_damage"
    assert loss.detail


def test_what_is_no_capture_is_told_in_a_sentence(tmp_path):
    text = tmp_path / "text.pcap"
    text.write_text("hello")
    with pytest.raises(CaptureError, match=r"text\.pcap is not a capture file"):
        found(text)
