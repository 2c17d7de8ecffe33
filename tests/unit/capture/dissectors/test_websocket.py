"""WebSocket: messages in frames, masked, in fragments, compressed, cut and damaged."""

import random
import zlib
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.conversation import DEFAULT_BODY, ProtocolError
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.dissectors.websocket import MOST_INFLATED, WebSocket
from tests.unit.capture.dissectors.playback import bear_damage, cut, play

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
DEFLATE = "permessage-deflate"
MASK = b"\x37\xfa\x21\x3d"


def frame(side, opcode, payload, last=True, bits=0):
    length = len(payload)
    head = bytes((last << 7 | bits | opcode,))
    masked = 0x80 if side == CLIENT else 0
    if length < 126:
        head += bytes((masked | length,))
    elif length < 1 << 16:
        head += bytes((masked | 126,)) + length.to_bytes(2, "big")
    else:
        head += bytes((masked | 127,)) + length.to_bytes(8, "big")
    if side == SERVER:
        return head + payload
    return head + MASK + bytes(octet ^ MASK[n & 3] for n, octet in enumerate(payload))


class Deflater:
    """What a sender does (RFC 7692, 7.2.1)."""

    def __init__(self):
        self.zlib = zlib.compressobj(wbits=-15)

    def __call__(self, octets):
        packed = self.zlib.compress(octets) + self.zlib.flush(zlib.Z_SYNC_FLUSH)
        return packed.removesuffix(b"\0\0\xff\xff")


SESSION = (
    (CLIENT, frame(CLIENT, TEXT, b"Hello")),
    (SERVER, frame(SERVER, TEXT, b"Hel", last=False)),
    (SERVER, frame(SERVER, PING, b"Hi")),
    (SERVER, frame(SERVER, 0, b"lo", last=True)),
    (CLIENT, frame(CLIENT, PONG, b"Hi") + frame(CLIENT, BINARY, bytes(range(200, 256)) * 5)),
    (SERVER, frame(SERVER, TEXT, b"")),
    (CLIENT, frame(CLIENT, CLOSE, b"\x03\xe8bye")),
    (SERVER, frame(SERVER, CLOSE, b"")),
)


plain = partial(WebSocket, "")


WHOLE = play(plain, SESSION)


def test_the_frames_of_the_rfc_are_read():
    """RFC 6455, 5.7."""
    octets = bytes.fromhex("818537fa213d7f9f4d5158")
    (exchange,) = play(plain, [(CLIENT, octets)])
    assert exchange.request == {"opcode": "text", "bodySize": 5, "body": "Hello"}
    assert exchange.request_size == len(octets)
    octets = bytes.fromhex("c107f248cdc9c90700")  # RFC 7692, 7.2.3.1
    (exchange,) = play(partial(WebSocket, DEFLATE), [(SERVER, octets)])
    assert exchange.response["body"] == "Hello"
    assert exchange.response["bodySize"] == 7


def test_each_message_is_an_exchange_without_an_error():
    exchanges = play(plain, SESSION)
    assert not any(each.error_type for each in exchanges)
    assert [(e.request or e.response)["opcode"] for e in exchanges] == [
        "text", "ping", "text", "pong", "binary", "text", "close", "close",
    ]  # fmt: skip
    assert "".join("r" if e.request else "a" for e in exchanges) == "raarrara"
    assert exchanges[2].response == {"opcode": "text", "bodySize": 5, "frames": 2, "body": "Hello"}
    assert exchanges[4].request["bodyEncoding"] == "base64"
    assert exchanges[6].request["code"] == 1000
    assert exchanges[6].request["body"] == "bye"


def test_nothing_is_read_after_both_have_closed():
    conversation = WebSocket("")
    play(lambda: conversation, SESSION)
    assert conversation.is_over


def test_context_is_kept_from_message_to_message():
    pack = Deflater()
    words = [b'{"price": 12, "name": "tea"}', b'{"price": 13, "name": "tea"}'] * 3
    steps = [(SERVER, frame(SERVER, TEXT, pack(each), bits=0x40)) for each in words]
    exchanges = play(partial(WebSocket, DEFLATE + "; client_max_window_bits"), steps)
    assert [each.response["body"].encode() for each in exchanges] == words
    assert exchanges[2].response["bodySize"] < len(words[2]) // 2


def test_each_side_has_a_context_and_may_have_none():
    steps = []
    for _ in range(3):
        steps.append((SERVER, frame(SERVER, TEXT, Deflater()(b"again and again"), bits=0x40)))
        steps.append((CLIENT, frame(CLIENT, TEXT, Deflater()(b"again and again"), bits=0x40)))
    options = "; server_no_context_takeover; client_no_context_takeover"
    exchanges = play(partial(WebSocket, DEFLATE + options), steps)
    assert {(e.request or e.response)["body"] for e in exchanges} == {"again and again"}
    assert len(exchanges) == 6


def test_a_compressed_message_may_be_in_fragments():
    packed = Deflater()(b"x" * 1000 + b"y" * 1000)
    octets = frame(SERVER, TEXT, packed[:5], last=False, bits=0x40) + frame(SERVER, 0, packed[5:])
    (exchange,) = play(partial(WebSocket, DEFLATE), [(SERVER, octets)])
    assert exchange.response["body"] == "x" * 1000 + "y" * 1000


def test_long_messages_are_cut_and_told():
    octets = frame(CLIENT, TEXT, b"x" * (DEFAULT_BODY + 10))
    conversation = WebSocket("")
    for at in range(0, len(octets), 4000):
        conversation.receive(CLIENT, memoryview(octets[at : at + 4000]), 1)
        assert conversation.buffered <= DEFAULT_BODY + 20
    (exchange,) = conversation.exchanges
    assert exchange.request["body"] == "x" * DEFAULT_BODY
    assert exchange.request["bodyTruncated"] is True
    assert exchange.request["bodySize"] == DEFAULT_BODY + 10


def test_what_inflates_too_much_is_cut_and_later_messages_go_on():
    pack = Deflater()
    bomb, after = pack(b"\0" * (2 * MOST_INFLATED)), Deflater()(b"after")
    steps = [(SERVER, frame(SERVER, BINARY, each, bits=0x40)) for each in (bomb, after)]
    first, second = play(partial(WebSocket, DEFLATE), steps)
    assert len(first.response["body"]) == DEFAULT_BODY
    assert first.response["bodyTruncated"] is True
    assert second.response["body"] == "after"


def test_what_refers_to_lost_context_says_that_it_is_cut():
    pack = Deflater()
    words = [random.Random(5).randbytes(300)] * 3
    sent = [frame(SERVER, BINARY, pack(each), bits=0x40) for each in words]
    steps = [(SERVER, sent[0]), (SERVER, len(sent[1])), (SERVER, sent[2])]
    first, third = play(partial(WebSocket, DEFLATE), steps)
    assert "bodyTruncated" not in first.response
    assert third.response["bodyTruncated"] is True
    assert third.response["bodySize"] == len(sent[2]) - 2


@given(st.lists(st.integers(0, sum(len(octets) for _, octets in SESSION)), max_size=40))
def test_however_it_is_cut_the_messages_are_the_same(cuts):
    assert play(plain, cut(SESSION, cuts)) == WHOLE


def test_octet_by_octet_the_messages_are_the_same():
    cuts = range(sum(len(octets) for _, octets in SESSION))
    assert play(plain, cut(SESSION, cuts)) == WHOLE


@pytest.mark.parametrize("length", [1, 5, 40])
def test_a_gap_loses_only_what_it_touches(length):
    sent = [frame(CLIENT, TEXT, b"message %d " % n * 10) for n in range(3)]
    octets = b"".join(sent)
    for at in range(1, len(sent[0]) - length):
        steps = [(CLIENT, octets[:at]), (CLIENT, length), (CLIENT, octets[at + length :])]
        exchanges = play(plain, steps)
        good = [e.request["body"][:9] for e in exchanges if e.error_type is None]
        if at >= 8:  # the length of the frame is known
            assert good == ["message 1", "message 2"]
        assert set(good) <= {"message 1", "message 2"}
        assert {e.error_type for e in exchanges} <= {None, "gap"}


def test_after_a_gap_a_segment_of_whole_frames_is_where_it_goes_on():
    steps = [
        (SERVER, 0), (SERVER, b"the rest of a message"), (SERVER, frame(SERVER, TEXT, b"one")),
        (SERVER, 100), (SERVER, b"rest"), (SERVER, frame(SERVER, TEXT, b"two") * 2),
    ]  # fmt: skip
    exchanges = play(WebSocket, steps)
    assert [each.response["body"] for each in exchanges] == ["one", "two", "two"]


def test_a_message_that_does_not_end_says_so():
    octets = frame(SERVER, TEXT, b"Hel", last=False)
    (exchange,) = play(plain, [(SERVER, octets)])
    assert exchange.response["body"] == "Hel"
    assert exchange.error_type == "pair-not-found"


@pytest.mark.parametrize(
    ("side", "octets"),
    [
        (CLIENT, frame(SERVER, TEXT, b"no mask")),
        (SERVER, frame(CLIENT, TEXT, b"a mask")),
        (SERVER, frame(SERVER, 3, b"no such opcode")),
        (SERVER, frame(SERVER, TEXT, b"reserved", bits=0x20)),
        (SERVER, frame(SERVER, TEXT, b"nobody agreed", bits=0x40)),
        (SERVER, frame(SERVER, PING, b"x" * 126)),
        (SERVER, frame(SERVER, PING, b"x", last=False)),
        (SERVER, b"\x81\x7e\x00\x05Hello"),
        (SERVER, b"\x81\x7f\xff" + b"\x00" * 7),
        (SERVER, frame(SERVER, TEXT, b"a", last=False) + frame(SERVER, TEXT, b"b")),
    ],
)
def test_what_the_rfc_forbids_ends_the_dissection(side, octets):
    with pytest.raises(ProtocolError):
        WebSocket("").receive(side, memoryview(octets), 1)


def test_damage_raises_nothing_else():
    pack = Deflater()
    packed = [(SERVER, frame(SERVER, TEXT, pack(b"some text" * n), bits=0x40)) for n in range(5)]
    for said in (SESSION, packed):
        bear_damage(partial(WebSocket, DEFLATE), said, 1500, seed=7)


@pytest.mark.parametrize(("limit", "kept"), [(4, "Hell"), (0, None)])
def test_messages_are_as_long_as_is_wanted(limit, kept):
    conversation = WebSocket("")
    conversation.body_limit = limit
    (exchange,) = play(lambda: conversation, [(CLIENT, frame(CLIENT, TEXT, b"Hello"))])
    assert exchange.request.get("body") == kept
    assert exchange.request["bodySize"] == 5
