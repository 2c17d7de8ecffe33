"""Where names, questions and records end, and what is refused."""

import struct

import numpy as np
import pytest

from services.capture.dissectors.dns.message import (
    BAD_NAME,
    DECODED,
    MALFORMED,
    NOT_DNS,
    name_end,
    read_message,
)


def array(octets):
    return np.frombuffer(bytearray(octets), np.uint8)


HEADER = struct.pack(">6H", 0x1234, 0x0100, 1, 0, 0, 0)
LABELS = b"\3www\7example\3com\0"


@pytest.mark.parametrize(
    ("octets", "position", "end"),
    [
        (LABELS, 0, len(LABELS)),
        (b"\0", 0, 1),
        (LABELS + b"\xc0\x10", len(LABELS), len(LABELS) + 2),
        (LABELS + b"\1a\xc0\x0c", len(LABELS), len(LABELS) + 4),
        (b"\x3f" + b"a" * 63 + b"\0", 0, 65),
        ((b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0", 0, 255),
    ],
)
def test_names(octets, position, end):
    whole = HEADER + octets
    at = len(HEADER)
    assert name_end(array(whole), 0, at + position, len(whole)) == at + end
    # The same, in the middle of other octets.
    shifted = array(b"????" + whole + b"????")
    assert name_end(shifted, 4, 4 + at + position, 4 + len(whole)) == 4 + at + end


@pytest.mark.parametrize(
    ("octets", "position"),
    [
        (b"", 0),
        (b"\3ww", 0),
        (b"\3www", 0),
        (b"\xc0", 0),
        (b"\xc0\x0c", 0),
        (b"\xc0\x0e\xc0\x0c", 2),
        (b"\1a\xc0\x0c", 0),
        (b"\0\xc0\x00", 1),
        (b"\0\xc0\xff", 1),
        (b"\x40a\0", 0),
        (b"\x80a\0", 0),
        ((b"\x3f" + b"a" * 63) * 3 + b"\x3e" + b"a" * 62 + b"\0", 0),
        (b"\2aa\xc0\x0c\0", 3),
    ],
    ids=[
        "no octets", "label cut", "no root", "pointer cut", "pointer to itself", "pointer loop",
        "loop through a label", "pointer into the header", "pointer forwards", "label type 01",
        "label type 10", "256 octets", "name that runs into its own pointer",
    ],
)  # fmt: skip
def test_names_that_are_refused(octets, position):
    whole = HEADER + octets
    assert name_end(array(whole), 0, len(HEADER) + position, len(whole)) == BAD_NAME


def test_pointers_are_followed_a_bounded_number_of_times():
    octets = (
        HEADER
        + b"\0"
        + b"".join(
            struct.pack(">H", 0xC000 | (12 if hop == 0 else 13 + 2 * (hop - 1)))
            for hop in range(200)
        )
    )
    ends = [name_end(array(octets), 0, 13 + 2 * hop, len(octets)) for hop in range(200)]
    assert [end != BAD_NAME for end in ends] == [hop < 127 for hop in range(200)]


def question(name, kind=1, klass=1):
    return name + struct.pack(">HH", kind, klass)


def test_the_first_pass():
    read = read_message(array(HEADER + question(LABELS, 28)), 0, 33)
    assert (read.status, read.id, read.question_type) == (DECODED, 0x1234, 28)
    assert read.has_question
    assert not read.is_response


def test_questions_are_equal_in_any_case_only():
    def hash_of(*parts):
        octets = HEADER + question(*parts)
        return read_message(array(octets), 0, len(octets)).question_hash

    assert hash_of(LABELS) == hash_of(LABELS.upper())
    others = [hash_of(b"\4wwwe\6xample\3com\0"), hash_of(LABELS, 2), hash_of(LABELS, 1, 3)]
    assert len({hash_of(LABELS), *others}) == 4


def test_every_cut_is_noticed():
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + b"\1\2\3\4"
    octets = struct.pack(">6H", 1, 0x8180, 1, 1, 0, 0) + question(LABELS) + record
    assert read_message(array(octets), 0, len(octets)).status == DECODED
    for end in range(len(octets)):
        read = read_message(array(octets[:end]), 0, end)
        assert read.status == (NOT_DNS if end < 12 else MALFORMED)
        assert read.declared == (0 if end < 12 else 2)
        assert read.read == (1 if end >= 33 else 0)
