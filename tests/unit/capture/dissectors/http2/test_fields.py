"""Blocks of fields, by the examples of RFC 7541 and against another implementation."""

import contextlib

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.http2.fields import UNKNOWN
from services.capture.dissectors.http2.framing import MOST_LISTED
from tests.unit.capture.dissectors.http2.one import HeaderReader

NAMES = st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=40)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@pytest.mark.parametrize("coded", [False, True])
def test_examples_of_rfc_7541(coded):
    # C.3 and C.4, three requests on one connection
    blocks = {
        False: [
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        ],
        True: [
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        ],
    }[coded]
    reader = HeaderReader()
    first, second, third = (reader.read(bytes.fromhex(block)) for block in blocks)
    start = [(":method", "GET"), (":scheme", "http"), (":path", "/")]
    assert first == [*start, (":authority", "www.example.com")]
    assert second == [*first, ("cache-control", "no-cache")]
    assert third == [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ]


@given(st.lists(FIELDS, max_size=6), st.booleans(), st.integers(0, 400))
def test_what_another_implementation_writes(blocks, coded, room):
    encoder, reader = Encoder(), HeaderReader()
    encoder.header_table_size = room
    for fields in blocks:
        assert reader.read(encoder.encode(fields, huffman=coded)) == fields


@given(st.lists(FIELDS, min_size=2, max_size=6))
def test_what_is_known_after_a_loss_is_right(blocks):
    encoder, reader = Encoder(), HeaderReader()
    encoder.encode(blocks[0])
    reader.forget()
    for fields in blocks[1:]:
        found = reader.read(encoder.encode(fields))
        assert len(found) == len(fields)
        for (name, value), pair in zip(found, fields, strict=True):
            assert name in (pair[0], UNKNOWN)
            assert value in (pair[1], UNKNOWN)


def test_a_block_that_names_a_long_field_in_each_octet():
    encoder, reader = Encoder(), HeaderReader()
    reader.read(encoder.encode([("x", "y" * 4000)], huffman=False))
    found = reader.read(b"\xbe" * 60_000)
    assert sum(len(name) + len(value) for name, value in found) <= MOST_LISTED


@given(st.binary(max_size=60))
def test_octets_raise_nothing_else(octets):
    with contextlib.suppress(ProtocolError):
        HeaderReader().read(octets)
