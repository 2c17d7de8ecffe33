"""pcapng files, built block by block."""

import struct

import pytest

from services.capture.frames.walk import LATEST

TSRESOL, TSOFFSET = 9, 14
NAME_RESOLUTION, CUSTOM = 4, 0xBAD
MOST_INTERFACES = 65_536


def block(kind, body, order="<", length=None, last=None):
    body += bytes(-len(body) % 4)
    size = 12 + len(body)
    first = size if length is None else length
    return (
        struct.pack(order + "II", kind, first)
        + body
        + struct.pack(order + "I", first if last is None else last)
    )


def section(order="<"):
    return block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code, value, order="<"):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(link_type=1, order="<", snaplen=0, resolution=None, offset=None, others=b""):
    options = others
    if resolution is not None:
        options += option(TSRESOL, bytes([resolution]), order)
    if offset is not None:
        options += option(TSOFFSET, struct.pack(order + "q", offset), order)
    if options:
        options += option(0, b"", order)
    return block(1, struct.pack(order + "HHI", link_type, 0, snaplen) + options, order)


def enhanced(frame, index=0, units=0, order="<", wire=None, captured=None, options=b""):
    numbers = (
        index,
        units >> 32,
        units & 0xFFFFFFFF,
        len(frame) if captured is None else captured,
        len(frame) if wire is None else wire,
    )
    padded = frame + bytes(-len(frame) % 4)
    return block(6, struct.pack(order + "IIIII", *numbers) + padded + options, order)


def simple(frame, order="<", wire=None):
    return block(3, struct.pack(order + "I", len(frame) if wire is None else wire) + frame, order)


def old(frame, index=0, units=0, order="<"):
    numbers = (index, 3, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
    return block(2, struct.pack(order + "HHIIII", *numbers) + frame, order)


def octets_of(found):
    return [frame.octets for frame in found.frames]


@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_every_packet_block_in_both_byte_orders(read, order):
    found = read(
        section(order)
        + interface(113, order)
        + enhanced(b"enhanced", units=1_700_000_000_000_001, order=order, wire=99)
        + simple(b"simple", order)
        + old(b"old", units=1_700_000_000_000_002, order=order)
    )
    assert found.frames == [
        (1_700_000_000_000_001_000, b"enhanced", 99, 113),
        (1_700_000_000_000_001_000, b"simple", 6, 113),  # it has no time: that of the one before
        (1_700_000_000_000_002_000, b"old", 3, 113),
    ]
    assert found.damage == []


@pytest.mark.parametrize(
    ("resolution", "units", "time_ns"),
    [
        (None, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (6, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (3, 1_700_000_000_123, 1_700_000_000_123_000_000),
        (0, 1_700_000_000, 1_700_000_000_000_000_000),
        (10, 17_000_000_001_234_567_891, 1_700_000_000_123_456_789),
        (12, 5_000, 5),
        (127, 2**64 - 2, 0),
        (0x80, 1_700_000_000, 1_700_000_000_000_000_000),
        (0x80 | 10, 1_700_000_000 * 1024 + 512, 1_700_000_000_500_000_000),
        (0x80 | 32, 1_700_000_000 * 2**32 + 2**31, 1_700_000_000_500_000_000),
        (0x80 | 33, 1_700_000_000 * 2**33 + 2**31, 1_700_000_000_250_000_000),
        (0x80 | 63, 2**63 + 2**62, 1_500_000_000),
        (0x80 | 64, 2**63, 500_000_000),
        (0x80 | 127, 2**64 - 1, 0),
        (0, 2**64 - 1, LATEST // 10**9 * 10**9),  # what 64 bits cannot hold is cut
        (0x80, 2**64 - 1, LATEST),
        (6, 2**64 - 1, LATEST // 1000 * 1000),
    ],
)
def test_times_have_the_resolution_of_their_interface(read, resolution, units, time_ns):
    found = read(section() + interface(resolution=resolution) + enhanced(b"x", units=units))
    assert found.frames[0].time_ns == time_ns


@pytest.mark.parametrize(
    ("offset", "time_ns"),
    [
        (1_700_000_000, 1_700_000_005 * 10**9),
        (-1, 4 * 10**9),
        (-6, 0),
        (2**62, 2**32 * 10**9 + 5 * 10**9),  # absurd offsets are cut
        (-(2**62), 0),  # and what would be before 1970 is 1970
    ],
)
def test_times_are_moved_by_the_offset_of_their_interface(read, offset, time_ns):
    found = read(section() + interface(offset=offset) + enhanced(b"x", units=5_000_000))
    assert found.frames[0].time_ns == time_ns


def test_options_before_the_resolution_are_passed_over(read):
    others = option(2, b"eth0") + option(3, b"a description") + option(11, b"\0tcp")
    found = read(section() + interface(resolution=9, others=others) + enhanced(b"x", units=7))
    assert found.frames[0].time_ns == 7


def test_each_interface_has_its_own_link_type_and_resolution(read):
    found = read(
        section()
        + interface(1)
        + enhanced(b"a", 0, 1)
        + interface(12, resolution=9)
        + enhanced(b"b", 1, 1)
        + old(b"c", 1, 2)
        + enhanced(b"d", 0, 2)
    )
    assert found.frames == [
        (1_000, b"a", 1, 1),
        (1, b"b", 1, 101),
        (2, b"c", 1, 101),
        (2_000, b"d", 1, 1),
    ]


def test_many_interfaces(read):
    links = [interface(number) for number in range(300)]
    found = read(section() + b"".join(links) + enhanced(b"x", 299) + enhanced(b"y", 17))
    assert [frame.link_type for frame in found.frames] == [299, 17]


def test_a_section_begins_anew_even_in_the_other_byte_order(read):
    found = read(
        section("<")
        + interface(1)
        + enhanced(b"little", units=1)
        + section(">")
        + enhanced(b"described in the section before", order=">")
        + interface(113, ">", resolution=9)
        + enhanced(b"big", units=1, order=">")
    )
    assert found.frames == [(1_000, b"little", 6, 1), (1, b"big", 3, 113)]
    assert found.left_out == 1


def test_blocks_that_are_not_packets_are_passed_over(read):
    found = read(
        section()
        + interface()
        + block(NAME_RESOLUTION, bytes(40))
        + enhanced(b"one", options=option(1, b"a comment"))
        + block(CUSTOM, bytes(9_000_000))
        + block(0x8000_0001, b"")
        + enhanced(b"two")
    )
    assert octets_of(found) == [b"one", b"two"]
    assert found.damage == []


def test_a_simple_packet_is_cut_by_the_snaplen_of_the_first_interface(read):
    found = read(section() + interface(snaplen=4) + simple(b"123456", wire=60))
    assert found.frames == [(0, b"1234", 60, 1)]


def test_a_packet_that_cannot_be_read_is_left_out_and_counted(read):
    found = read(
        section()
        + interface()
        + enhanced(b"good")
        + enhanced(b"bad", index=1)
        + enhanced(b"bad", captured=2**32 - 1)
        + enhanced(b"bad", captured=5)
        + block(6, b"too short")
        + block(3, b"")
        + enhanced(bytes(262_145))
        + enhanced(bytes(1_100_000))
        + enhanced(b"good")
    )
    assert octets_of(found) == [b"good", b"good"]
    assert found.left_out == 7
    assert [
        sentence.split(" record at octet ")[1].split(" ", 1)[1] for sentence in found.damage
    ] == [
        "names an interface that was not described; packets read until now: 2",
        "says that its packet has more octets than the block; packets read until now: 2",
        "says that its packet has more than 262144 octets; packets read until now: 2",
    ]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (block(CUSTOM, bytes(8), length=11), "under 12 or not a multiple of 4"),
        (block(CUSTOM, bytes(8), length=0), "under 12 or not a multiple of 4"),
        (block(CUSTOM, bytes(8), length=21), "under 12 or not a multiple of 4"),
        (block(CUSTOM, bytes(8), last=24), "does not end with the length that it begins with"),
        (block(6, bytes(20), last=0), "does not end with the length that it begins with"),
        (block(1, bytes(8), last=24), "does not end with the length that it begins with"),
        (block(1, bytes(8), length=16), "has 16 octets; that kind has 20 to 1048576"),
        (block(1, bytes(8), length=2**31), "that kind has 20 to 1048576"),
        (block(0x0A0D0D0A, bytes(16)), "begins a section but has no byte-order magic"),
        (block(CUSTOM, bytes(8), length=2**32 - 4), "is cut short"),
        (block(6, bytes(20), length=1_000_000), "is cut short"),
        (b"\x06\0\0\0\x40", "is cut short"),
    ],
)
def test_a_bad_block_ends_the_reading(read, bad, sentence):
    before = section() + interface() + enhanced(b"before")
    found = read(before + bad + enhanced(b"after"))
    assert octets_of(found) == [b"before"]
    assert len(found.damage) == 1
    assert sentence in found.damage[0]


def test_a_file_cut_anywhere_gives_the_packets_before_the_cut(read):
    blocks = [section(), interface(), enhanced(b"one"), block(CUSTOM, bytes(40)), enhanced(b"two")]
    whole = b"".join(blocks)
    ends = [sum(map(len, blocks[: n + 1])) for n in range(len(blocks))]
    for cut in range(len(section()), len(whole)):
        found = read(whole[:cut])
        assert octets_of(found) == ([b"one"] if cut >= ends[2] else [])
        assert len(found.damage) == (0 if cut in ends else 1)


def test_more_interfaces_than_can_be_named_end_the_reading(read):
    found = read(section() + interface() * (MOST_INTERFACES + 1))
    assert "describes one interface more than 65536" in found.damage[0]
