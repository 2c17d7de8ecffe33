"""Calls of gRPC: four shapes, what their messages are, and how they end."""

import gzip
import json

import pytest
from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.http2 import grpc, protobuf
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.http2.one import Http2
from tests.unit.capture.dissectors.http2.wire import REQUEST, RESPONSE, Talk, data, message
from tests.unit.capture.dissectors.playback import play, play_with_hole

ASK = [
    (":method", "POST"), (":scheme", "http"), (":path", "/shop.Cart/Add"), (":authority", "cart"),
    ("content-type", "application/grpc"), ("te", "trailers"),
]  # fmt: skip
SAY = [(":status", "200"), ("content-type", "application/grpc")]
DONE = [("grpc-status", "0")]
HELLO = b"\x0a\x05hello"
SEVEN = b"\x10\x07"


def one(talk):
    (exchange,) = play(Http2, talk.said)
    return exchange


def test_a_call_with_one_message_each_way():
    exchange = one(Talk().asks(1, ASK, message(HELLO)).answers(1, SAY, message(SEVEN), DONE))
    request, response = exchange.request, exchange.response
    assert exchange.abbr == "gRPC"
    assert (request["grpcService"], request["grpcMethod"]) == ("shop.Cart", "Add")
    assert json.loads(request["body"]) == [{"1": "hello"}]
    assert json.loads(response["body"]) == [{"2": 7}]
    assert response["grpcStatus"] == 0
    assert (request["messageCount"], request["messageSizes"]) == (1, [7])
    assert exchange.error_type is None


def test_streams_of_messages():
    talk = Talk().headers(CLIENT, 1, ASK).headers(SERVER, 1, SAY)
    for _ in range(3):
        talk.client(data(1, message(HELLO))).server(data(1, message(SEVEN) + message(HELLO)[:4]))
        talk.server(data(1, message(HELLO)[4:]))
    talk.client(data(1, b"", True)).headers(SERVER, 1, DONE, True)
    exchange = one(talk)
    assert exchange.request["messageSizes"] == [7, 7, 7]
    assert exchange.response["messageSizes"] == [2, 7] * 3
    assert json.loads(exchange.response["body"]) == [{"2": 7}, {"1": "hello"}] * 3


def test_an_error_in_headers_alone():
    fields = [*SAY, ("grpc-status", "5"), ("grpc-message", "no such cart: %C3%A4")]
    response = one(Talk().asks(1, ASK, message(HELLO)).headers(SERVER, 1, fields, True)).response
    assert response["grpcStatus"] == 5
    assert response["grpcMessage"] == "no such cart: ä"
    assert response["messageCount"] == 0


def test_a_call_that_the_client_gives_up():
    talk = Talk().asks(1, ASK, message(HELLO)).headers(SERVER, 1, SAY)
    exchange = one(talk.client(b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08"))
    assert exchange.error_msg == "the client reset the stream: CANCEL (8)"
    assert "grpcStatus" not in exchange.response


def test_messages_that_are_compressed():
    fields = [*SAY, ("grpc-encoding", "gzip")]
    answer = message(gzip.compress(HELLO), 1) + message(SEVEN)
    response = one(Talk().asks(1, ASK, message(HELLO)).answers(1, fields, answer, DONE)).response
    assert json.loads(response["body"]) == [{"1": "hello"}, {"2": 7}]
    assert response["messagesCompressed"] == 1


def test_messages_in_json():
    fields = [(name, value.replace("grpc", "grpc+json")) for name, value in ASK]
    body = one(Talk().asks(1, fields, message(b'{"a": 1}'))).request["body"]
    assert json.loads(body) == [{"a": 1}]
    deep = b"[" * 1000 + b"]" * 1000
    body = one(Talk().asks(1, fields, message(deep) + message(b"{"))).request["body"]
    assert body == f'[{deep.decode()},"ew=="]'


def test_without_its_fields_a_call_is_known_by_its_messages():
    talk = Talk().asks(1, ASK, message(HELLO)).answers(1, SAY, message(SEVEN), DONE)
    before = len(talk.said)
    talk.asks(3, ASK, message(HELLO)).answers(3, SAY, message(SEVEN), DONE)
    (exchange,) = play(Http2, talk.said[before:])
    assert exchange.abbr == "gRPC"
    assert json.loads(exchange.request["body"]) == [{"1": "hello"}]


def test_a_hole_in_a_message_does_not_hide_the_next_one():
    octets = data(1, message(bytes(50)) + message(HELLO), True)
    talk = Talk().asks(1, ASK, message(HELLO)).headers(SERVER, 1, SAY).server(octets)
    (exchange,) = play_with_hole(Http2, talk.said, 5, 30, 10)
    assert exchange.response["messageSizes"] == [50, 7]
    assert exchange.error_type == "gap"


def test_after_lost_frames_messages_count_again():
    talk = Talk().asks(1, ASK, message(HELLO)).headers(SERVER, 1, SAY)
    for _ in range(4):
        talk.server(data(1, message(HELLO)))
    talk.headers(SERVER, 1, DONE, True)
    (exchange,) = play_with_hole(Http2, talk.said, 6, 0, 99)
    assert exchange.response["messageCount"] == 3
    assert json.loads(exchange.response["body"]) == [{"1": "hello"}]
    assert exchange.response["bodyTruncated"] is True
    assert exchange.error_type == "gap"


@pytest.mark.parametrize("path", ["nonsense", ""])
def test_paths_that_name_no_method(path):
    assert grpc.name_call(path) == {}


@pytest.mark.parametrize(
    ("kind", "abbr"), [("application/grpc-web+proto", "HTTP/2"), ("Application/GRPC+proto", "gRPC")]
)
def test_grpc_web_is_http(kind, abbr):
    fields = [("content-type", kind)]
    talk = Talk().asks(1, [*REQUEST, *fields]).answers(1, [*RESPONSE, *fields])
    assert one(talk).abbr == abbr


def test_fields_by_number():
    inner = descriptor_pb2.FieldDescriptorProto(name="id", number=3, json_name="äöü")
    found = descriptor_pb2.DescriptorProto(name="Cart", field=[inner, inner])
    assert protobuf.message(found.SerializeToString()) == {
        "1": "Cart",
        "2": [{"1": "id", "3": 3, "10": "äöü"}] * 2,
    }
    moment = timestamp_pb2.Timestamp(seconds=-1, nanos=7)
    assert protobuf.message(moment.SerializeToString()) == {"1": 2**64 - 1, "2": 7}
    number = struct_pb2.Value(number_value=1.5)
    assert protobuf.message(number.SerializeToString()) == {"2": "0x3ff8000000000000"}


@given(st.binary(max_size=200))
def test_any_octets_are_shown_as_something(octets):
    assert isinstance(protobuf.message(octets), dict | str)


def test_messages_in_messages_have_a_limit():
    nested = b""
    for _ in range(500):
        nested = b"\x0a" + bytes([len(nested) & 0x7F | 0x80, len(nested) >> 7]) + nested
    assert isinstance(protobuf.message(nested), dict)
    assert isinstance(protobuf.message(b"\x08\x01" * 5000), str)
