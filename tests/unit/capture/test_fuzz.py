"""Damaged conversations, each frame in an array that ends with it, so that an over-read raises.

Among them runs a conversation that nobody damaged: what the others do must not change its calls.
FUZZ_MUTATIONS (frames) makes a longer run. A kernel that hangs ends the run: see TIME_OUT.
"""

import ipaddress
import os
import struct

import numpy as np
import pytest

from recordings import entry
from services.capture.dissectors.http1.rows import new_framer
from services.capture.headers import DECODED
from services.capture.pipeline import Pipeline, PipelineOptions
from services.capture.reassembly import LARGEST_FRAME, new_reassembler
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import ACK, FIN, PSH, RST, START, SYN, Conversation
from tests.unit.capture.talks import (
    CHUNKED,
    FIELDS,
    GET,
    OK,
    POST,
    REQUEST_LINES,
    STATUS_LINES,
    carried,
    datagrams,
    mutated,
    shuffled,
    tcp_talk,
)

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "30000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
TIME_OUT = 300 + MUTATIONS // 100  # seconds; "thread", since a kernel does not hear of a signal

LONG_AFTER = 1300 * 1_000_000_000  # ns, over every idle limit: each turn begins with empty tables
MOST_FLOWS = 256
BODY_LIMIT = 64

CLEAN = ("192.168.200.1", "192.168.200.2")  # more than the four octets of a mutation from the rest


class Capture:
    """A pipeline with small rings, so that they wrap, and the clean conversation's calls."""

    def __init__(self):
        self.pipeline = Pipeline(PipelineOptions(body_limit=BODY_LIMIT, most_flows=MOST_FLOWS))
        self.pipeline.framer = new_framer(
            MOST_FLOWS, BODY_LIMIT, messages=1 << 12, calls=1 << 8, slots=8, arena_octets=1 << 19
        )
        self.pipeline.reassembler = new_reassembler(
            MOST_FLOWS, most_held=64, held_octets=2 * LARGEST_FRAME + 1
        )
        self.now = START
        self.clean = []

    def take(self, frame, link_type=wire.ETHERNET):
        self.now += 1_000_000
        self._note(self.pipeline.take(wire.batch([frame], link_type, self.now)))
        packet = self.pipeline.packets[0]
        if packet["status"] == DECODED:
            assert packet["payload_length"] >= 0
            kept = self.pipeline.fragments
            end = len(kept.work) if kept.state["filled"][0] else len(frame)
            assert packet["payload_offset"] + packet["payload_length"] <= end

    def next_turn(self):
        """Let all streams end; return the calls of the clean conversation of the last turn."""
        self.now += LONG_AFTER
        self.take(b"")
        assert self.pipeline.flows.rows["used"].sum() == 0
        clean, self.clean = self.clean, []
        return clean

    def _note(self, found):
        for calls in found:
            for column in wire.hot_columns(calls).values():
                assert len(column) == len(calls)
            table = calls.entries(np.arange(len(calls)))
            table.validate(full=True)
            if CLEAN[0] in table["src_ip"].to_pylist():
                self.clean += [
                    each for each in entry.objects(table) if each["src"]["ip"] == CLEAN[0]
                ]


def clean_talk(random):
    """Frames, and the answers that they are to give."""
    talk = Conversation(
        *CLEAN, int(random.integers(1, 65536)),
        first=tuple(int(each) for each in random.integers(0, 2**32, 2)),
    ).open()  # fmt: skip
    bodies = []
    for number in range(3):
        size = int(random.integers(1, 60))
        bodies.append(f"{number}" * size)
        talk.client(b"GET /%d HTTP/1.1\r\n\r\n" % number, 11)
        answer = b"HTTP/1.1 20%d X\r\nContent-Length: %d\r\n\r\n" % (number, size)
        talk.server(answer + bodies[-1].encode(), 40)
    return talk.close().frames, [(f"/{n}", 200 + n, body) for n, body in enumerate(bodies)]


def answers(calls):
    return [
        (each["request"]["path"], each["response"]["status"], each["response"]["body"])
        for each in calls
    ]


@pytest.mark.timeout(TIME_OUT, method="thread")
def test_no_damaged_conversation_reads_beyond_a_frame_or_changes_another():
    random = np.random.default_rng(SEED)
    capture = Capture()
    taken = 0
    expected = []
    while taken < MUTATIONS:
        assert answers(capture.next_turn()) == expected, f"before frame {taken}, seed {SEED}"
        clean, expected = clean_talk(random)
        clean = carried(random, clean, ("192.168.201.1", "192.168.201.2"))
        damage = random.random()
        for _ in range(4):
            frames = datagrams(random) if random.random() < 0.2 else tcp_talk(random)
            frames = carried(random, frames)
            for frame in shuffled(random, frames):
                if clean and random.random() < 0.3:
                    capture.take(clean.pop(0))
                capture.take(mutated(random, frame) if random.random() < damage else frame)
                taken += 1
        for frame in clean:
            capture.take(frame)


@pytest.mark.timeout(TIME_OUT, method="thread")
@pytest.mark.parametrize("link_type", [0, 12, 101, 108, 113, 228, 229, 276])
def test_no_damaged_frame_of_another_link_layer_is_read_beyond_its_end(link_type):
    random = np.random.default_rng(SEED)
    capture = Capture()
    before = {0: 4, 108: 4, 113: 16, 276: 20}.get(link_type, 0)
    for _ in range(MUTATIONS // 1000):
        capture.next_turn()
        for frame in tcp_talk(random) if random.random() < 0.7 else datagrams(random):
            ethertype, packet = frame[12:14], frame[14:]
            if link_type == 276:
                header = ethertype + bytes(18)
            else:
                header = (bytes(16) + ethertype)[-before:] if before else b""
            capture.take(mutated(random, header + packet), link_type)


def transcript(frames_of_batches):
    pipeline = Pipeline(PipelineOptions(body_limit=1000, most_flows=MOST_FLOWS))
    found = []
    for frames in frames_of_batches:
        for calls in pipeline.take(wire.batch(frames)):
            found += entry.objects(calls.entries(np.arange(len(calls))))
    for calls in pipeline.end():
        found += entry.objects(calls.entries(np.arange(len(calls))))
    return pipeline, found


@pytest.mark.parametrize("size", [1, 2, 3, 1460])
def test_a_clean_conversation_is_the_same_in_segments_of_any_size(size):
    talk = Conversation(vlans=(1, 2)).open()
    talk.client(GET + POST, size).server(OK + CHUNKED.replace(b"gzip, ", b""), size).close()
    _, found = transcript([[frame] for frame in talk.frames])
    assert [(each["request"]["method"], each["response"]["body"]) for each in found] == [
        ("GET", "abc"), ("POST", "hellox0123456789"),
    ]  # fmt: skip
    assert [each["error"] for each in found] == [None, None]
    assert [each["response"]["headersSize"] for each in found] == [len(OK) - 3, 47]


def ipv6_frame(extension, number, payload):
    packed = ipaddress.ip_address("::1").packed + ipaddress.ip_address("::2").packed
    size = len(extension) + len(payload)
    return wire.ethernet(
        struct.pack("!IHBB", 6 << 28, size, number, 64) + packed + extension + payload
    )


# Each entry ends exactly where a reader without its length test would go on. What it gives, too.
EDGES = [
    wire.ethernet(b"\x45" + bytes(19))[:13],
    wire.ethernet(b"\x45" + bytes(19), (5,))[:16],
    wire.ethernet(b"\x45" + bytes(19), (5,))[:18],
    *(wire.ethernet(wire.ipv4("1.1.1.1", "2.2.2.2", 6, b""))[: 14 + n] for n in range(20)),
    *(wire.ethernet(wire.ipv4("1.1.1.1", "2.2.2.2", 6, bytes(n))) for n in range(20)),
    *(wire.ethernet(wire.ipv4("1.1.1.1", "2.2.2.2", 17, bytes(n))) for n in range(8)),
    wire.ethernet(
        wire.ipv4("1.1.1.1", "2.2.2.2", 6, wire.tcp(1, 2, 3, 4, ACK)[:12] + b"\xf0" + bytes(7))
    ),
    wire.ethernet(b"\x4f" + wire.ipv4("1.1.1.1", "2.2.2.2", 6, bytes(20))[1:]),
    *(ipv6_frame(bytes(n), kind, b"") for n in range(8) for kind in (0, 43, 44, 51, 60)),
    *(ipv6_frame(bytes([6, n]) + bytes(6), kind, b"") for n in (0, 1, 255) for kind in (0, 51)),
    *(ipv6_frame(b"", 6, b"")[: 14 + n] for n in range(40)),
]


def test_a_frame_that_ends_before_a_header_does_is_not_read_beyond():
    capture = Capture()
    for frame in EDGES:
        capture.take(frame)
        assert capture.pipeline.packets[0]["status"] != DECODED or len(frame) > 33


@pytest.mark.parametrize("tail", STATUS_LINES + REQUEST_LINES + FIELDS)
def test_a_message_that_ends_with_its_frame_is_not_read_beyond(tail):
    """As the first octets, after a whole message, and as a header."""
    for before in (b"", OK, GET, b"GET / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", CHUNKED[:47]):
        for who in ("client", "server"):
            capture = Capture()
            talk = Conversation().open()
            talk._send(who, PSH | ACK, before + tail)
            for frame in talk.frames:
                capture.take(frame)
            capture.next_turn()


FLAGS = [SYN, SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST, RST | ACK, SYN | FIN, 0, 0xFF]


@pytest.mark.timeout(TIME_OUT, method="thread")
def test_no_sequence_of_segments_breaks_a_stream():
    """A few five-tuples, any flags, sequence numbers near and far, times forward and back."""
    random = np.random.default_rng(SEED)
    capture = Capture()
    here = np.zeros((4, 2), np.int64)
    for turn in range(MUTATIONS // 3):
        tuple_number, side = random.integers(4), random.integers(2)
        jump = int(random.choice([0, 1, 5, -5, 3000, -3000, 2**27, 2**31, 2**31 - 1, 2**32 - 1]))
        if random.random() < 0.7:
            jump = int(random.integers(-40, 200))
        data = bytes(random.choice(bytearray(GET + OK), random.integers(0, 60)).astype(np.uint8))
        sequence = int(here[tuple_number, side]) + jump
        segment = wire.tcp(
            *((1000 + tuple_number, 80) if side == 0 else (80, 1000 + tuple_number)),
            sequence, int(here[tuple_number, 1 - side]),
            int(FLAGS[random.integers(len(FLAGS))]) if random.random() < 0.2 else ACK, data,
        )  # fmt: skip
        ends_of_it = ("10.0.0.1", "10.0.0.2") if side == 0 else ("10.0.0.2", "10.0.0.1")
        if random.random() < 0.5:
            here[tuple_number, side] = (sequence + len(data)) % 2**32
        capture.now += int(random.choice([0, 1, -1, 10**9, -(10**9), 4 * 10**10])) * (turn % 7 == 0)
        frame = wire.ethernet(wire.ipv4(*ends_of_it, 6, segment))
        capture.take(frame if random.random() < 0.9 else frame[: -len(data) // 2 or None])
    held = capture.pipeline.reassembler.directions["held"]
    assert held.max() <= 256


def test_a_five_tuple_used_again_has_nothing_of_the_stream_before():
    """The second connection's numbers are a little higher: its first octets are not its end."""
    answer = b"HTTP/1.1 200 OK\r\n\r\n"
    before = Conversation().open().client(GET).server(OK).close()
    again = Conversation(first=(2_100_000, 2_900_000)).open()
    again.client(GET).server(answer + b"one ").server(b"two").close()
    _, found = transcript([before.frames + again.frames])
    assert [(each["response"]["body"], each["error"]) for each in found] == [
        ("abc", None),
        ("one two", None),
    ]


def test_of_octets_sent_twice_the_first_copy_is_kept():
    talk = Conversation().open().client(GET)
    start = talk.next["server"]
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"
    talk.skip("server", len(head) + 2).server(b"CD").skip("server", -len(head) - 4)
    talk.server(head + b"abcdef")
    assert talk.next["server"] == start + len(head) + 6
    _, (call,) = transcript([[frame] for frame in talk.frames])
    assert call["response"]["body"] == "abCDef"


def test_a_chunk_without_a_size_is_not_the_last_one():
    talk = Conversation().open().client(GET)
    talk.server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n\r\n\r\n")
    _, (call,) = transcript([talk.frames])
    assert call["error"]["type"] == "gap"
