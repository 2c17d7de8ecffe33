"""However a datagram was cut, and in whatever order its fragments come, it is one packet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recordings import entry
from services.capture.decode import decode_frames, new_packets
from services.capture.flows import find_flows, new_flows, new_keys
from services.capture.fragments import (
    MOST_PIECES,
    begin_batch,
    expire,
    move_frames,
    new_fragments,
)
from services.capture.headers import DECODED, FRAGMENT, MALFORMED
from services.capture.pipeline import Pipeline, PipelineOptions
from services.capture.timewheel import END_OF_TIME, SECOND
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

ENDS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
QUERY = bytes.fromhex("12340100000100000000000001610000010001")
ANSWER = bytes.fromhex("12348180000100010000000001610000010001c00c000100010000003c000401020304")
START = wire.START


def text(length):
    """Octets that differ wherever one looks."""
    return (np.arange(length) * 7 + np.arange(length) // 251).astype(np.uint8).tobytes()


def datagram(version, length=100, ports=(5000, 6000)):
    """A UDP packet; its payload is `length` octets less the header's 8."""
    build = wire.ipv4 if version == 4 else wire.ipv6
    return build(*ENDS[version], 17, wire.udp(*ports, text(length - 8)))


class Table:
    """Decodes batches of frames, and keeps what lies between them."""

    def __init__(self, **sizes):
        self.flows = new_flows(64)
        self.kept = new_fragments(**sizes)
        self.now = START

    def take(self, frames, start=None):
        """Return the rows of the batch, and the payloads of those that were decoded."""
        batch = wire.batch(frames, start=self.now if start is None else start)
        self.now += wire.MILLISECOND
        packets = new_packets(len(frames))
        begin_batch(self.kept, batch.frames)
        keys = new_keys(len(packets))
        decode_frames(*batch[:2], packets, keys, self.flows, self.kept)
        find_flows(packets, keys, 0, self.flows)
        octets = batch.octets
        if self.kept.state["filled"][0]:
            move_frames(self.kept, octets, batch.frames, packets)
            octets = self.kept.work
        return packets, [
            octets[row["payload_offset"] :][: row["payload_length"]].tobytes()
            for row in packets
            if row["status"] == DECODED
        ]

    def payloads(self, frames, start=None):
        return self.take(frames, start)[1]

    def given_up(self):
        """Datagrams of which fragments never came, that had no room, that were broken."""
        return self.kept.state["given_up"][0].tolist()


TABLE = Table()


@st.composite
def cut_datagrams(draw):
    """(version, length, fragments) in any order, some of them twice, spread over batches."""
    version, length = draw(st.sampled_from([4, 6])), draw(st.integers(9, 3000))
    cuts = draw(st.sets(st.integers(1, (length - 1) // 8), min_size=1, max_size=MOST_PIECES // 2))
    packet = datagram(version, length)
    pieces = wire.fragments(packet, sorted(cut * 8 for cut in cuts), draw(st.integers(0, 0xFFFF)))
    order = draw(st.permutations(pieces))
    again = draw(st.lists(st.sampled_from(pieces), max_size=5))
    at = draw(st.integers(0, len(order) - 1))
    return packet, [*order[:at], *again, *order[at:]], draw(st.integers(1, len(order)))


@settings(max_examples=200)
@given(cut_datagrams())
def test_however_it_is_cut_it_is_the_packet_that_was_cut(cut):
    packet, pieces, batch = cut
    table = TABLE
    expire(table.kept, END_OF_TIME)
    found = []
    for at in range(0, len(pieces), batch):
        found += table.payloads([wire.ethernet(p) for p in pieces[at : at + batch]])
    assert found == [packet[48 if packet[0] >> 4 == 6 else 28 :]]
    assert table.kept.state["used"][0] == 1  # it is remembered, in case copies come


@settings(max_examples=200)
@given(st.data())
def test_the_first_copy_of_an_octet_wins_in_ipv4(data):
    """Overlapping fragments with other octets; the model is an array that is written once."""
    length = data.draw(st.integers(24, 400))
    expected, seen, frames = bytearray(length), np.zeros(length, bool), []
    packet = datagram(4, length)
    expected[:8] = packet[20:28]
    seen[:8] = True
    frames.append(wire.fragments(packet, [(0, 8)])[0])
    for fill in range(1, 200):
        begin = 8 * data.draw(st.integers(1, (length - 1) // 8)) if fill < 8 else 8
        end = min(length, begin + 8 * data.draw(st.integers(1, 10)) if fill < 8 else length)
        octets = packet[:20] + bytes([fill]) * length
        frames.append(wire.fragments(octets, [(begin, end)])[0])
        for at in range(begin, end):
            if not seen[at]:
                expected[at], seen[at] = fill, True
        if seen.all() and end == length:
            break
        if seen[8:].all():
            frames.append(wire.fragments(packet, [(length // 8 * 8 - 8, length)])[0])
            break
    expire(TABLE.kept, END_OF_TIME)
    found = TABLE.payloads([wire.ethernet(frame) for frame in frames])
    assert found[0] == bytes(expected[8:])


def test_an_ipv6_datagram_with_overlapping_fragments_is_dropped_and_copies_are_no_overlap():
    table = Table()
    packet = datagram(6, 100)
    pieces = [(0, 48), (40, 100), (48, 100)]
    frames = [wire.ethernet(each) for each in wire.fragments(packet, pieces)]
    assert table.payloads(frames) == []
    assert table.given_up() == [0, 0, 1]
    good = [wire.ethernet(each) for each in wire.fragments(packet, [48], 2)]
    assert table.payloads([good[0], good[0], good[1]]) == [packet[48:]]
    assert table.given_up() == [0, 0, 1]


@pytest.mark.parametrize("version", [4, 6])
def test_tunnels_of_fragments_fragments_of_tunnels_and_both(version):
    inner = datagram(version, 1000)
    vxlan = wire.udp(1, 4789, b"\x08\0\0\0\0\0\x2a\0" + wire.ethernet(inner))
    pieces = wire.fragments(inner, [400, 800])
    inside = [wire.udp(1, 4789, b"\x08\0\0\0\0\0\x2a\0" + wire.ethernet(each)) for each in pieces]
    outer = [wire.ipv4("192.0.2.1", "192.0.2.2", 17, each) for each in inside]
    gre = wire.ipv6("2001:db8::1", "2001:db8::2", 47, bytes([0, 0, 8 if version == 4 else 0x86,
                    0 if version == 4 else 0xDD]) + inner)  # fmt: skip
    expected = [inner[48 if version == 6 else 28 :]]
    cases = {
        "fragments in a tunnel": outer,
        "a tunnel in fragments": wire.fragments(
            wire.ipv4("192.0.2.1", "192.0.2.2", 17, vxlan), [8, 64, 512]
        ),
        "gre in fragments": wire.fragments(gre, [56, 112]),
        "fragments in a tunnel in fragments": [
            part
            for number, each in enumerate(outer)
            for part in wire.fragments(each, [16, 208], number)
        ],
    }
    for name, packets in cases.items():
        rows, payloads = Table().take([wire.ethernet(each) for each in reversed(packets)])
        assert payloads == expected, name
        assert rows["status"].tolist() == [FRAGMENT] * (len(packets) - 1) + [DECODED], name
        if "gre" not in name:
            assert rows["network"][-1] & 0xFFFFFFFF == 42, name


def test_headers_in_the_fragmented_part_of_ipv6_are_passed():
    options = bytes([17, 0]) + bytes(6)
    said = wire.udp(5000, 6000, text(92))
    packet = wire.ipv6(*ENDS[6], 60, options + said)
    frames = [wire.ethernet(each) for each in wire.fragments(packet, [8, 56])]
    assert Table().payloads(frames) == [said[8:]]


def test_other_frames_of_the_batch_are_as_they_were():
    whole = [wire.ethernet(datagram(4, length, (length, 9))) for length in (20, 300, 70)]
    pieces = [wire.ethernet(each) for each in wire.fragments(datagram(4, 500), [16, 240])]
    arp = b"\2" * 12 + b"\x08\x06" + bytes(28)
    table = Table()
    table.take(pieces[:1])
    frames = [whole[0], pieces[1], arp, whole[1], pieces[2], whole[2]]
    assert table.payloads(frames) == [text(12), text(292), text(492), text(62)]


def test_datagrams_of_others_are_not_mixed():
    """The same identification: other addresses, protocols, versions, VLANs."""
    packets = [
        datagram(4, 100),
        datagram(6, 104),
        wire.ipv4("10.0.0.1", "10.0.0.3", 17, wire.udp(1, 2, text(112))),
        wire.ipv4("10.0.0.2", "10.0.0.1", 17, wire.udp(1, 2, text(120))),
    ]
    cut = [[wire.ethernet(p) for p in wire.fragments(each, [16, 48])] for each in packets]
    cut.append([wire.ethernet(p, (5,)) for p in wire.fragments(datagram(4, 136), [16, 48])])
    icmp = wire.ipv4(*ENDS[4], 1, text(72))
    cut.append([wire.ethernet(p) for p in wire.fragments(icmp, [16, 48])])
    frames = [pieces[index] for index in (2, 0, 1) for pieces in cut]
    rows, payloads = Table().take(frames)
    assert payloads == [text(92), text(96), text(112), text(120), text(128), text(72)]
    assert len(set(rows["flow"][rows["status"] == DECODED].tolist())) == 6


BROKEN = {
    "not a multiple of 8": [wire.fragments(datagram(4, 100), [(0, 20), (20, 100)])[0]],
    "empty": [wire.fragments(datagram(4, 100), [(0, 0)])[0]],
    "beyond 65535": [
        datagram(4, 100)[:4] + b"\0\1\x1f\xff" + datagram(4, 100)[8:],
    ],
    "beyond 65535 in IPv6": [
        wire.ipv6(*ENDS[6], 44, text(64), bytes([17, 0, 0xFF, 0xF8, 0, 0, 0, 1]))
    ],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_fragment_that_cannot_be_is_malformed_and_none_is_kept(name):
    table = Table()
    rows, _ = table.take([wire.ethernet(each) for each in BROKEN[name]])
    assert rows["status"].tolist() == [MALFORMED]
    assert table.kept.state["used"][0] == 0


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 48), (96, 100), (48, 60)],  # two ends; 60 is the packet's, see below
        [(0, 48), (48, 104), (96, 100)],  # one begins before the end and goes beyond it
    ],
)
def test_fragments_that_contradict_each_other_are_given_up(pieces):
    packet, longer = datagram(4, 100), datagram(4, 200)
    frames = [wire.fragments(packet if end == 100 else longer, [(begin, end)])[0]
              for begin, end in pieces]  # fmt: skip
    if pieces[-1][1] == 60:
        frames[-1] = wire.fragments(datagram(4, 60), [(48, 60)])[0]
    table = Table()
    assert table.payloads([wire.ethernet(each) for each in frames]) == []
    assert table.given_up() == [0, 0, 1]


def test_a_datagram_with_a_cut_fragment_is_given_up():
    frames = [wire.ethernet(each) for each in wire.fragments(datagram(4, 100), [48])]
    table = Table()
    assert table.payloads([frames[0], frames[1][:-3]]) == []
    assert table.given_up() == [0, 0, 1]


def test_more_fragments_than_anybody_sends_are_given_up_once():
    frames = [wire.ethernet(each) for each in wire.fragments(datagram(4, 4000), range(8, 4000, 8))]
    table = Table()
    assert table.payloads(frames) == []
    assert table.given_up() == [0, 0, 1]
    assert table.kept.state["lost_frames"][0] == len(frames)


def test_what_never_comes_is_given_up_after_half_a_minute_of_the_capture():
    first, last = (wire.ethernet(each) for each in wire.fragments(datagram(4, 100), [48]))
    table = Table()
    assert table.payloads([first], START) == []
    expire(table.kept, START + 29 * SECOND)
    assert table.given_up() == [0, 0, 0]
    assert table.payloads([last], START + 29 * SECOND) == [text(92)]
    other = Table()
    other.take([first], START)
    assert other.payloads([last], START + 31 * SECOND) == []
    assert other.given_up() == [1, 0, 0]
    expire(other.kept, END_OF_TIME)
    assert other.kept.state["used"][0] == 0
    # A kernel filter that drops the first fragment for its ports keeps the last.
    assert other.given_up() == [1, 0, 0]
    assert other.kept.state["lost_frames"][0] == 1


def test_the_oldest_makes_room():
    """In a small arena, and in a table of which a bucket is full: all are counted."""
    cut = [wire.fragments(datagram(4, 1400), [704], number) for number in range(40)]
    table = Table(arena_size=10_000)
    for first, _ in cut:
        table.take([wire.ethernet(first)], START)
    found = [bool(table.payloads([wire.ethernet(last)], START)) for _, last in cut[::-1]]
    # The latest is still there; each last fragment in turn pushes others out.
    assert found[:4] == [True] * 4
    assert not any(found[-20:])
    expire(table.kept, END_OF_TIME)
    assert sum(table.given_up()) >= 40 - sum(found)
    many = Table()
    ends = [wire.fragments(datagram(4, 100), [48], number) for number in range(4000)]
    for at in range(0, 4000, 1000):
        many.take([(START, wire.ethernet(first)) for first, _ in ends[at : at + 1000]])
    _, payloads = many.take([(START, wire.ethernet(last)) for _, last in ends])
    assert 1500 < len(payloads) <= 2048
    assert many.given_up()[1] >= 4000 - 2048


def objects(calls):
    return [each for part in calls for each in entry.objects(part.entries(np.arange(len(part))))]


def large(version, back=b""):
    """An answer of 4 KiB, in fragments for an MTU of 1280, as frames."""
    build = wire.ipv4 if version == 4 else wire.ipv6
    client, server = ENDS[version]
    answer = build(server, client, 17, wire.udp(53, 40000, ANSWER + bytes(4000)))
    query = build(client, server, 17, wire.udp(40000, 53, QUERY))
    pieces = wire.fragments(answer, [1232, 2464, 3696])
    return wire.ethernet(query), [wire.ethernet(each) for each in pieces]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2)])
def test_all_fragments_are_of_the_stream_in_one_batch_and_in_many(version, order):
    query, pieces = large(version)
    pieces = [pieces[index] for index in order]
    one = Pipeline(PipelineOptions(most_flows=64))
    (call,) = objects(one.take(wire.batch([query, *pieces, pieces[1]])))
    assert call["response"]["answers"][0]["ip"] == "1.2.3.4"
    assert call["error"] is None
    assert len(set(one.packet_streams.tolist())) == 1
    assert one.packet_streams[0] != 0
    assert len(one.late[1]) == 0

    many = Pipeline(PipelineOptions(most_flows=64))
    many.take(wire.batch([query]))
    stream = int(many.packet_streams[0])
    for number, piece in enumerate(pieces[:-1]):
        assert many.take(wire.batch([piece], start=START + number)) == []
        assert many.packet_streams.tolist() == [0]
        assert len(many.late[1]) == 0
    (call,) = objects(many.take(wire.batch([pieces[-1]], start=START + 9)))
    late, streams = many.late
    assert many.packet_streams.tolist() == [stream]
    assert streams.tolist() == [stream] * 3
    assert [
        late.octets[row.offset :][: row.captured_length].tobytes() for row in late.frames
    ] == pieces[:-1]
    assert late.frames["timestamp"].tolist() == [START, START + 1, START + 2]
    assert late.frames["original_length"].tolist() == [len(each) for each in pieces[:-1]]
    many.take(wire.batch([pieces[0]], start=START + 10))  # "any" shows it once more
    assert many.packet_streams.tolist() == [stream]
    assert many.losses() == one.losses() == []


def test_http_in_fragments():
    talk = Conversation().open().client(b"GET /a HTTP/1.1\r\n\r\n")
    talk.server(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000).close()
    frames = []
    for number, frame in enumerate(talk.frames):
        cuts = range(8, len(frame) - 34, 64)
        frames += [wire.ethernet(each) for each in wire.fragments(frame[14:], [*cuts], number)]
    for size in (1, 7, len(frames)):
        pipeline = Pipeline(PipelineOptions(body_limit=1000, most_flows=64))
        found = []
        for at in range(0, len(frames), size):
            found += objects(pipeline.take(wire.batch(frames[at : at + size], start=START + at)))
        (call,) = found
        assert (call["request"]["path"], call["response"]["body"]) == ("/a", "x" * 1000)
        assert pipeline.losses() == []


def test_what_was_given_up_is_a_loss_with_its_reasons():
    pipeline = Pipeline(PipelineOptions(most_flows=64))
    cut = [wire.fragments(datagram(6, 100), [(0, 48), (40, 100)], 1)]
    cut.append(wire.fragments(datagram(4, 100), [48], 2)[:1])
    frames = [wire.ethernet(each) for pieces in cut for each in pieces]
    pipeline.take(wire.batch(frames))
    pipeline.end()
    (loss,) = pipeline.losses()
    assert (loss.kind, loss.packets) == ("fragment", 3)
    assert loss.bytes == sum(len(frame) for frame in frames)
    assert loss.start_ns == START
    assert loss.detail == (
        "1 datagrams of which fragments never came, 1 datagrams whose fragments overlap, "
        "contradict each other, or are cut by the snaplen"
    )
    assert pipeline.losses() == []


def test_frames_of_an_unknown_link_layer_are_a_loss():
    pipeline = Pipeline(PipelineOptions(most_flows=64))
    pipeline.take(wire.batch([b"wireless"] * 3, link_type=105))
    (loss,) = pipeline.losses()
    assert (loss.kind, loss.packets) == ("unknown_link", 3)
    assert "link type 105" in loss.detail
    assert pipeline.losses() == []


def test_a_batch_larger_than_any_source_makes_is_taken():
    pipeline = Pipeline(PipelineOptions(most_flows=64))
    query, pieces = large(4)
    filler = [wire.ethernet(datagram(4, 60_000))] * 500
    (call,) = objects(pipeline.take(wire.batch([query, *pieces, *filler])))
    assert call["response"]["answers"][0]["ip"] == "1.2.3.4"
