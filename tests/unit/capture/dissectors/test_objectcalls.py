"""Requests and responses that are dicts become the entries that anyone would expect of them."""

import json

import numpy as np
import pytest

import kfl
from kfl.batch import Batch
from recordings import entry
from services.capture.calls import Calls, Node
from services.capture.dissectors.objectcalls import Exchange, ObjectCalls, dumped
from services.capture.flows import new_streams

NODE = Node("node-1", "10.0.0.9")


def calls_of(*exchanges, name="amqp"):
    numbers = np.zeros(len(exchanges), np.int64)
    parts = ObjectCalls(name, name.upper(), exchanges, numbers, numbers.astype(np.uint8))
    return Calls(parts, new_streams(4), NODE)


def objects(calls):
    return entry.objects(calls.entries(np.arange(len(calls))))


def exchange(request=None, response=None, **more):
    return Exchange(1_000_000, 3_000_000, request, response, **more)


def test_an_entry_says_what_the_messages_said():
    request = {"method": "basic publish", "path": "/q", "url": "amqp://q", "queue": "q", "n": [1]}
    request |= {"headers": [("a", "b"), ("a", "c")], "body": "text", "bodySize": 4}
    response = {"status": 200, "statusText": "OK", "rows": None, "deep": {"x": 1.5}}
    (found,) = objects(
        calls_of(exchange(request, response, request_size=9, response_size=8, version="0-9-1"))
    )
    assert found["protocol"] == {"name": "amqp", "version": "0-9-1", "abbr": "AMQP"}
    said = found["request"]
    assert said["headers"] == {"a": "b, c"}
    assert {key: said[key] for key in request if key != "headers"} == {
        key: value for key, value in request.items() if key != "headers"
    }
    assert {key: found["response"][key] for key in response} == response
    assert (found["requestSize"], found["responseSize"], found["elapsedTimeUs"]) == (9, 8, 2000)
    assert found["error"] is None


@pytest.mark.parametrize("status", ["OK", 1 << 40, -1, True, None, [1]])
def test_what_does_not_fit_a_column_is_said_all_the_same(status):
    calls = calls_of(
        exchange({"method": 5, "body": {"a": 1}, "headers": "h"}, {"status": status}),
        exchange({"method": "m", "body": "b", "headers": [("a", "b")]}, {"status": 3}),
    )
    odd, plain = objects(calls)
    assert odd["response"]["status"] == status
    assert (odd["request"]["method"], odd["request"]["body"]) == (5, {"a": 1})
    assert (plain["request"]["method"], plain["response"]["status"]) == ("m", 3)


def test_a_message_that_is_missing_is_null_and_says_why():
    lacks = {"error_type": "pair-not-found", "error_msg": "the stream ended"}
    (found,) = objects(calls_of(exchange({"a": 1}, None, **lacks)))
    assert (found["request"], found["response"]) == ({"a": 1}, None)
    assert found["error"] == {"type": "pair-not-found", "msg": "the stream ended"}


def test_a_body_that_is_cut_or_not_text_says_so():
    request = {"body": "AAEC", "bodyEncoding": "base64", "bodyTruncated": True}
    (found,) = objects(calls_of(exchange(request, {})))
    said = found["request"]
    assert (said["bodyEncoding"], said["bodyTruncated"]) == ("base64", True)


QUESTIONS = (
    "amqp", "mysql", "amqp and request.method == 'm'", "request.method == 5",
    "response.status == 3", "response.status == 'OK'", "response.status != 3",
    "request.body == 'b'", "request.body.a == 1", "request.headers['a'] == 'b'",
    "request.queue == 'q'", "response.rows > 1", "error.type == 'gap'", "elapsedTimeUs == 2000",
    "request.path == '/q'", "requestSize > 5",
)  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_columns_never_say_otherwise_than_the_entry(question):
    calls = calls_of(
        exchange({"method": "m", "queue": "q"}, {"status": 3}),
        exchange({"method": 5, "body": {"a": 1}}, {"status": "OK", "rows": 2}),
        exchange({"body": "b", "headers": [("a", "b")], "path": "/q"}, None, error_type="gap"),
        exchange(None, {"rows": 1}, request_size=7),
    )
    asked = kfl.compile(question)
    batch = Batch(calls.columns(), len(calls))
    may, must = asked.bounds(batch, batch.rows, np.ones(len(calls), np.bool_))
    may, must = np.broadcast_to(may, len(calls)), np.broadcast_to(must, len(calls))
    for row, found in enumerate(objects(calls)):
        matches = asked.matches(found)
        assert may[row] >= matches >= must[row], (question, found)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"\xff\0a", "\xff\0a"),
        (memoryview(b"x"), "x"),
        (1 << 70, 1 << 70),
        ("\ud800", "?"),
        ({b"k": {1}}, {"b'k'": [1]}),
        ([float("nan"), 1 << 70], [None, 1 << 70]),
        (pytest, str(pytest)),
    ],
)
def test_anything_that_a_dissector_may_have_read_becomes_json(value, shown):
    assert json.loads(dumped({"v": value})) == {"v": shown}


def test_what_is_nested_too_deep_is_left_out():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert json.loads(dumped({"v": deep}))["v"]


def test_halves_of_letters_do_not_stop_anything():
    odd = "a\udc80"
    (found,) = objects(calls_of(exchange({"method": odd, "headers": [(odd, odd)]}, {"x": odd})))
    assert found["request"] == {"method": "a?", "headers": {"a?": "a?"}}
    assert found["response"] == {"x": "a?"}
