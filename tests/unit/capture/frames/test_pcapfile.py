"""Classic pcap files, built octet by octet."""

import struct

import pytest

MICROSECONDS, NANOSECONDS, KUZNETZOV = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
LARGEST_FRAME = 262_144


def header(magic=MICROSECONDS, order="<", link_type=1):
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)


def record(frame, seconds=1_700_000_000, fraction=123_456, wire=None, order="<", extra=b""):
    length = len(frame) if wire is None else wire
    return struct.pack(order + "IIII", seconds, fraction, len(frame), length) + extra + frame


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("magic", "extra", "time_ns"),
    [
        (MICROSECONDS, b"", 1_700_000_000_123_456_000),
        (NANOSECONDS, b"", 1_700_000_000_000_123_456),
        (KUZNETZOV, b"\x01\x02\x03\x04\x05\x06\x07\x08", 1_700_000_000_123_456_000),
    ],
)
def test_reads_every_kind_in_both_byte_orders(read, order, magic, extra, time_ns):
    found = read(
        header(magic, order)
        + record(b"first frame", order=order, extra=extra)
        + record(b"", order=order, extra=extra)
        + record(b"cut", wire=1500, order=order, extra=extra)
    )
    assert found.frames == [
        (time_ns, b"first frame", 11, 1),
        (time_ns, b"", 0, 1),
        (time_ns, b"cut", 1500, 1),
    ]
    assert found.damage == []


def test_the_last_second_of_the_format_is_still_a_time(read):
    found = read(header() + record(b"x", seconds=2**32 - 1, fraction=999_999))
    assert found.frames[0].time_ns == (2**32 - 1) * 10**9 + 999_999_000


def test_a_wire_length_beyond_31_bits_stays_positive(read):
    assert read(header() + record(b"x", wire=2**32 - 1)).frames[0].original_length == 2**31 - 1


@pytest.mark.parametrize(
    ("written", "link_type"),
    [(1, 1), (113, 113), (276, 276), (12, 101), (14, 101), (101, 101), (1 | 0x2400_0000, 1)],
)
def test_the_link_type_is_that_of_the_registry(read, written, link_type):
    assert read(header(link_type=written) + record(b"x")).frames[0].link_type == link_type


def test_a_header_alone_is_a_capture_without_frames(read):
    assert read(header()) == ([], [], 0)


def test_more_frames_than_a_batch_holds_come_all_and_in_order(read):
    count = 40_000
    found = read(header() + b"".join(record(struct.pack("<I", i)) for i in range(count)))
    assert [struct.unpack("<I", frame.octets)[0] for frame in found.frames] == list(range(count))


def test_a_file_cut_anywhere_gives_the_frames_before_the_cut_and_says_where(read):
    frames = [b"first", b"second frame", b""]
    whole = header()
    begins = []
    for frame in frames:
        begins.append(len(whole))
        whole += record(frame)
    ends = [*begins[1:], len(whole)]
    for cut in range(len(header()), len(whole)):
        found = read(whole[:cut])
        before = sum(end <= cut for end in ends)
        assert [frame.octets for frame in found.frames] == frames[:before]
        if cut in begins:
            assert found.damage == []
        else:
            (sentence,) = found.damage
            assert f"octet {begins[before]} is cut short" in sentence
            assert f"until now: {before}" in sentence


def test_the_largest_frame_is_read_and_a_larger_one_is_damage(read):
    largest = record(bytes(LARGEST_FRAME))
    found = read(header() + largest + record(bytes(LARGEST_FRAME + 1)) + record(b"after"))
    assert [len(frame.octets) for frame in found.frames] == [LARGEST_FRAME]
    (sentence,) = found.damage
    assert f"octet {24 + len(largest)} says that its packet has more than 262144" in sentence


@pytest.mark.parametrize("length", [2**31 - 1, 2**31, 2**32 - 1])
def test_an_absurd_length_ends_the_reading(read, length):
    bad = struct.pack("<IIII", 0, 0, length, length)
    found = read(header() + record(b"good") + bad + bytes(100))
    assert [frame.octets for frame in found.frames] == [b"good"]
    assert len(found.damage) == 1
