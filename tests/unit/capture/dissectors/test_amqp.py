"""AMQP 0-9-1: what a connection's octets become, whole, cut, damaged and from the middle."""

import struct
from collections import Counter

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.amqp import SIGNATURES, Amqp
from services.capture.dissectors.amqp.conversation import MOST_CONTENTS, MOST_HELD
from services.capture.dissectors.amqp.frames import MOST_HEAD
from services.capture.dissectors.amqp.methods import METHODS
from services.capture.dissectors.amqp.values import MOST_DEPTH, MOST_VALUES
from services.capture.dissectors.conversation import DEFAULT_BODY, ProtocolError
from services.capture.dissectors.objectcalls import dumped
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import bear_damage, cut, play
from tests.unit.capture.dissectors.recorded import CAPTURES, streams

GREETING = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def method(channel, class_number, number, arguments=b""):
    return frame(1, channel, struct.pack(">HH", class_number, number) + arguments)


def short(text):
    return bytes((len(text),)) + text.encode()


def long(octets):
    return struct.pack(">I", len(octets)) + octets


def header(channel, size, properties=b"\x00\x00"):
    return frame(2, channel, struct.pack(">HHQ", 60, 0, size) + properties)


def publish(channel, key, body, pieces=1):
    step = -(-len(body) // pieces) or 1
    return (
        method(channel, 60, 40, b"\0\0" + short("shop") + short(key) + b"\x01")
        + header(channel, len(body), b"\x80\x00" + short("text/plain"))
        + b"".join(frame(3, channel, body[at : at + step]) for at in range(0, len(body), step))
    )


def declare(channel, queue):
    return method(channel, 50, 10, b"\0\0" + short(queue) + b"\x02" + long(b""))


def declared(channel, queue):
    return method(channel, 50, 11, short(queue) + struct.pack(">II", 3, 1))


def deliver(channel, key, body):
    arguments = short("tag") + struct.pack(">Q", 9) + b"\x00" + short("shop") + short(key)
    return method(channel, 60, 60, arguments) + header(channel, len(body)) + frame(3, channel, body)


START = method(0, 10, 10, b"\x00\x09" + long(b"") + long(b"PLAIN") + long(b"en_US"))
START_OK = method(
    0, 10, 11, long(b"") + short("PLAIN") + long(b"\0guest\0hunter2") + short("en_US")
)
TUNE_OK = method(0, 10, 31, struct.pack(">HIH", 7, 4096, 60))
CONSUME = method(1, 60, 20, b"\0\0" + short("orders") + short("") + b"\x00" + long(b""))
CONSUME_OK = method(1, 60, 21, short("tag"))
CLOSE = method(1, 20, 40, struct.pack(">H", 404) + short("NOT_FOUND - no queue") + b"\0\x32\0\x0a")
CLOSE_OK = method(1, 20, 41)

SESSION = (
    (CLIENT, GREETING),
    (SERVER, START),
    (CLIENT, START_OK),
    (CLIENT, declare(1, "orders")),
    (SERVER, declared(1, "orders")),
    (CLIENT, publish(1, "order.new", b"hello", 2)),
    (SERVER, HEARTBEAT),
    (CLIENT, CONSUME),
    (SERVER, CONSUME_OK),
    (SERVER, deliver(1, "order.new", b"hello")),
    (CLIENT, method(1, 60, 80, struct.pack(">Q", 9) + b"\x00")),
    (CLIENT, declare(2, "other")),
    (SERVER, declared(2, "other")),
)


def names(exchanges):
    return [
        tuple(side["method"] if side else None for side in (each.request, each.response))
        for each in exchanges
    ]


WHOLE = play(Amqp, SESSION)


def test_a_connection_becomes_calls_in_the_order_in_which_they_ended():
    exchanges = play(Amqp, SESSION)
    assert names(exchanges) == [
        ("connection start", "connection start-ok"),
        ("queue declare", "queue declare-ok"),
        ("basic publish", None),
        ("basic consume", "basic consume-ok"),
        ("basic deliver", None),
        ("basic ack", None),
        ("queue declare", "queue declare-ok"),
    ]
    assert not any(each.error_type for each in exchanges)
    assert [each.asked_by for each in exchanges] == [SERVER, *[CLIENT] * 3, SERVER, CLIENT, CLIENT]


def test_a_publish_has_all_that_filters_ask_for():
    exchange = play(Amqp, [(CLIENT, publish(1, "order.new", b"hello", 2))])[0]
    assert exchange.request == {
        "method": "basic publish", "exchange": "shop", "routingKey": "order.new",
        "mandatory": True, "immediate": False, "channel": 1,
        "properties": {"contentType": "text/plain"}, "bodySize": 5, "body": "hello",
    }  # fmt: skip
    assert exchange.response is None
    assert exchange.error_type is None
    assert exchange.request_size == len(publish(1, "order.new", b"hello", 2))


def test_a_delivery_tells_the_queue_that_was_consumed():
    exchanges = play(Amqp, SESSION)
    assert exchanges[4].request["queue"] == "orders"


def test_a_consumer_that_was_cancelled_has_no_queue():
    cancel, cancelled = method(1, 60, 30, short("tag") + b"\x00"), method(1, 60, 31, short("tag"))
    steps = [(CLIENT, CONSUME), (SERVER, CONSUME_OK), (CLIENT, cancel), (SERVER, cancelled)]
    exchanges = play(Amqp, [*steps, (SERVER, deliver(1, "key", b"late"))])
    assert "queue" not in exchanges[-1].request


def test_times_are_those_of_the_first_and_of_the_last_octet():
    asked, answered = declare(1, "q"), declared(1, "q")
    steps = [
        (CLIENT, asked[:1]),
        (CLIENT, asked[1:]),
        (SERVER, answered[:5]),
        (SERVER, answered[5:]),
    ]
    exchange = play(Amqp, steps)[0]
    assert (exchange.start_ns, exchange.end_ns) == (1, 4)


def test_passwords_are_not_stored():
    secure = method(0, 10, 20, long(b"challenge-secret"))
    secure_ok = method(0, 10, 21, long(b"answer-secret"))
    update = method(0, 10, 70, long(b"token-secret") + short("expired"))
    steps = [*SESSION[:3], (SERVER, secure), (CLIENT, secure_ok), (CLIENT, update)]
    text = dumped([(e.request, e.response) for e in play(Amqp, steps)])
    assert "hunter2" not in text
    assert "secret" not in text.replace("update-secret", "").replace("newSecret", "")
    assert text.count("[redacted]") == 4


def test_channels_may_be_mixed_frame_by_frame():
    one, two = publish(1, "one", b"first", 1), publish(2, "two", b"second", 1)
    pieces_one = [one[:32], one[32:]]
    cut = len(method(1, 60, 40, b"\0\0" + short("shop") + short("one") + b"\x01"))
    pieces_one, pieces_two = (one[:cut], one[cut:]), (two[:cut], two[cut:])
    exchanges = play(
        Amqp, [(CLIENT, pieces_one[0] + pieces_two[0]), (CLIENT, pieces_two[1] + pieces_one[1])]
    )
    assert [each.request["body"] for each in exchanges] == ["second", "first"]


def test_what_a_close_answers_is_an_error_with_its_code():
    steps = [(CLIENT, declare(1, "gone")), (SERVER, CLOSE), (CLIENT, CLOSE_OK)]
    asked, closed = play(Amqp, steps)
    assert asked.request["queue"] == "gone"
    assert (asked.error_type, asked.error_msg) == ("closed", "404 NOT_FOUND - no queue")
    assert closed.request["replyCode"] == 404
    assert closed.response["method"] == "channel close-ok"
    assert closed.error_type == "closed"


def test_a_method_that_wants_no_answer_is_no_error():
    no_wait = method(1, 50, 10, b"\0\0" + short("q") + b"\x10" + long(b""))
    (exchange,) = play(Amqp, [(CLIENT, no_wait)])
    assert exchange.request["noWait"] is True
    assert exchange.error_type is None


def test_what_is_alone_says_why():
    (asked,) = play(Amqp, [(CLIENT, declare(1, "q"))])
    (answered,) = play(Amqp, [(SERVER, declared(1, "q"))])
    assert (asked.error_type, asked.response) == ("pair-not-found", None)
    assert (answered.error_type, answered.request) == ("pair-not-found", None)
    assert answered.asked_by == CLIENT


def test_a_server_that_wants_another_version_says_which():
    (exchange,) = play(Amqp, [(CLIENT, GREETING), (SERVER, b"AMQP\x01\x01\x00\x09")])
    assert exchange.response == {"method": "protocol header", "version": "0-9"}
    assert exchange.error_type == "closed"


def test_what_older_versions_say_otherwise_is_read():
    consume = method(1, 60, 20, b"\0\0" + short("orders") + short("tag") + b"\x02")
    close = method(0, 10, 60, struct.pack(">H", 320) + short("CONNECTION_FORCED") + bytes(4))
    steps = [(CLIENT, b"AMQP\x01\x01\x08\x00"), (CLIENT, consume), (SERVER, CONSUME_OK)]
    steps += [(SERVER, close), (CLIENT, method(0, 10, 61))]
    consumed, closed = play(Amqp, steps)
    assert (consumed.request["queue"], consumed.request["noAck"]) == ("orders", True)
    assert names([closed]) == [("connection close", "connection close-ok")]
    assert closed.error_msg == "320 CONNECTION_FORCED"
    assert closed.version == "0-8"


def test_other_versions_are_not_read():
    with pytest.raises(ProtocolError, match="version"):
        Amqp().receive(CLIENT, memoryview(b"AMQP\x00\x01\x00\x00"), 1)


@given(st.lists(st.integers(0, sum(len(octets) for _, octets in SESSION)), max_size=40))
def test_however_it_is_cut_the_calls_are_the_same(cuts):
    assert play(Amqp, cut(SESSION, cuts)) == WHOLE


def test_octet_by_octet_the_calls_are_the_same():
    cuts = range(sum(len(octets) for _, octets in SESSION))
    assert play(Amqp, cut(SESSION, cuts)) == WHOLE


def test_a_gap_loses_only_what_it_touches():
    """Each publish is its own message: all those that no octet is missing of are there, whole."""
    sent = [publish(1, f"key-{n}", b"body %d" % n, 2) for n in range(4)]
    octets = b"".join(sent)
    ends = [sum(map(len, sent[: n + 1])) for n in range(4)]
    for length in (1, 7, 40):
        for at in range(1, len(octets) - length):
            steps = [(CLIENT, octets[:at]), (CLIENT, length), (CLIENT, octets[at + length :])]
            good = {
                each.request["routingKey"] for each in play(Amqp, steps) if each.error_type is None
            }
            whole = {
                f"key-{n}" for n in range(4)
                if ends[n] <= at or ends[n] - len(sent[n]) >= at + length
            }  # fmt: skip
            assert good == whole, (at, length)


def test_a_hole_in_a_body_is_told():
    octets = publish(1, "key", b"a" * 100 + b"b" * 100)
    steps = [(CLIENT, octets[:-150]), (CLIENT, 40), (CLIENT, octets[-110:] + HEARTBEAT)]
    (exchange,) = play(Amqp, steps)
    assert exchange.error_type == "gap"
    assert set(exchange.request["body"]) == {"a"}
    assert exchange.request["bodyTruncated"] is True
    assert exchange.request_size == len(octets)


def test_an_answer_after_a_gap_is_paired_where_it_is_sure():
    sure = [(CLIENT, declare(1, "q")), (SERVER, 30), (SERVER, declared(1, "q"))]
    (exchange,) = play(Amqp, sure)
    assert exchange.response["queue"] == "q"
    later = [(CLIENT, declare(1, "a")), (SERVER, 30), (CLIENT, declare(1, "b"))]
    lost, found = play(Amqp, [*later, (SERVER, declared(1, "b"))])
    assert (lost.request["queue"], lost.error_type) == ("a", "gap")
    assert found.request["queue"] == found.response["queue"] == "b"


def test_a_capture_may_begin_in_the_middle():
    octets = publish(1, "lost", b"\xce" * 300, 3) + publish(1, "key", b"hello")
    for at in range(1, len(octets) - len(publish(1, "key", b"hello"))):
        exchanges = play(Amqp, [(CLIENT, 0), (CLIENT, octets[at:])])
        assert [each.request["routingKey"] for each in exchanges][-1:] == ["key"]
        assert exchanges[-1].error_type is None


def test_long_messages_are_cut_and_told():
    body = b"x" * (DEFAULT_BODY + 5)
    conversation = Amqp()
    octets = publish(1, "key", body, 3)
    conversation.receive(CLIENT, memoryview(octets[:-1]), 1)
    assert conversation.buffered <= DEFAULT_BODY + 100
    (exchange,) = play(lambda: conversation, [(CLIENT, octets[-1:])])
    assert len(exchange.request["body"]) == DEFAULT_BODY
    assert exchange.request["bodyTruncated"] is True
    assert exchange.request["bodySize"] == len(body)
    table = long(b"\x01aS" + long(b"y" * (MOST_HEAD + 10)))
    huge = method(1, 50, 10, b"\0\0" + short("q") + b"\x00" + table)
    exchanges = play(Amqp, [(CLIENT, huge), (SERVER, declared(1, "q"))])
    assert exchanges[0].request["argumentsTruncated"] is True
    assert exchanges[0].response["queue"] == "q"
    assert exchanges[0].request_size == len(huge)


def test_a_body_that_is_no_text_is_base64():
    (exchange,) = play(Amqp, [(CLIENT, publish(1, "key", b"\xff\xfe"))])
    assert exchange.request["body"] == "//4="
    assert exchange.request["bodyEncoding"] == "base64"


def test_many_methods_without_an_answer_are_bounded():
    table = long(b"\x01aS" + long(b"y" * 100_000))
    octets = method(1, 50, 10, b"\0\0" + short("q") + b"\x00" + table)
    conversation = Amqp()
    for _ in range(100):
        conversation.receive(CLIENT, memoryview(octets), 1)
    assert conversation.buffered < MOST_HELD + 2 * len(octets)
    assert {each.error_type for each in conversation.exchanges} == {"pair-not-found"}
    conversation.close(2)
    assert len(conversation.exchanges) == 100
    assert conversation.buffered == 0


def _table_of(depth):
    return long(b"") if depth == 0 else long(b"\x01aF" + _table_of(depth - 1))


@pytest.mark.parametrize(
    "octets",
    [
        method(1, 50, 10, b"\0\0" + short("q") + b"\0" + _table_of(MOST_DEPTH + 2)),
        method(1, 50, 10, b"\0\0" + short("q") + b"\0" + long(b"\x00V" * (MOST_VALUES + 1))),
        method(1, 50, 10, b"\0\0" + short("q") + b"\0" + long(b"\x01a?")),
        method(1, 50, 10, b"\0\0" + b"\xff"),
        declare(1, "q")[:-1] + b"\xcd",
        b"\x05" + declare(1, "q")[1:],
        publish(1, "k", b"1234")[:-12] + frame(3, 1, b"12345"),
        TUNE_OK + publish(1, "k", b"1" * 5000),
        b"".join(method(n, 60, 40, b"\0\0\0\0\0") for n in range(MOST_CONTENTS + 1)),
    ],
)
def test_what_no_client_sends_ends_the_dissection(octets):
    with pytest.raises(ProtocolError):
        Amqp().receive(CLIENT, memoryview(octets), 1)


def test_damage_raises_nothing_else():
    bear_damage(Amqp, SESSION, 3000, seed=7)


def fits(signature, octets):
    return len(octets) >= len(signature.octets) and all(
        octet in allowed for octet, allowed in zip(octets, signature.octets, strict=False)
    )


def test_every_message_of_a_session_is_recognised():
    for side, octets in SESSION:
        assert any(fits(each, octets) for each in SIGNATURES if each.side == side)


@pytest.mark.parametrize(
    "octets",
    [
        bytes.fromhex("16030100c8010000c40303"), b"GET / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9", b"*1\r\n$4\r\nPING\r\n",
        bytes.fromhex("0000002300120003000000010007"),
        b"\x30\x0c\x02\x01\x01",
        bytes.fromhex("0100000001"), bytes.fromhex("010100000353454c45435420"),
    ],
)  # fmt: skip
def test_other_protocols_are_not_taken(octets):
    assert not any(fits(each, octets) for each in SIGNATURES)


def test_every_method_of_the_specification_is_known():
    of_class = Counter(number >> 16 for number in METHODS)
    assert of_class == {10: 14, 20: 6, 30: 2, 40: 8, 50: 10, 60: 18, 85: 2, 90: 6}
    assert METHODS[60 << 16 | 40].name == "basic publish"


def test_a_real_session_says_what_the_client_saw():
    golden = yaml.safe_load((CAPTURES / "amqp-rabbitmq.yaml").read_text())
    recorded = streams("amqp-rabbitmq.pcap")
    exchanges = [each for stream in recorded for each in play(Amqp, stream.said)]
    text = dumped([(each.request, each.response) for each in exchanges])
    assert not any(secret in text for secret in golden["secrets"])
    for call in golden["calls"]:
        assert any(_is_it(call, each) for each in exchanges), call


def _is_it(call, exchange):
    wanted = dict(call)
    if not (exchange.error_msg or "").startswith(wanted.pop("error", "")):
        return False
    answer = wanted.pop("answer", None)
    if answer is not None:
        body, found = wanted.pop("body", None), exchange.response or {}
        if (found.get("method"), found.get("body")) != (answer, body):
            return False
    return exchange.request is not None and wanted.items() <= exchange.request.items()


def test_bodies_are_as_long_as_is_wanted():
    for limit, kept in ((3, "xxx"), (1 << 20, "x" * 100_000), (0, None)):
        conversation = Amqp()
        conversation.body_limit = limit
        conversation.receive(CLIENT, memoryview(publish(1, "key", b"x" * 100_000, 3)), 1)
        conversation.close(2)
        assert conversation.exchanges[0].request.get("body") == kept
        assert conversation.exchanges[0].request["bodySize"] == 100_000
