"""Kafka: requests and responses of all versions, their records, whole, cut, damaged."""

import gzip
import random
import struct

import cramjam
import pytest
import yaml
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.kafka import SIGNATURES, Kafka
from services.capture.dissectors.kafka.conversation import MOST_WAITING
from services.capture.dissectors.kafka.errors import name_of
from services.capture.dissectors.kafka.framing import MOST_KEPT
from services.capture.dissectors.kafka.messages import APIS, REQUEST, RESPONSE, read_payload
from services.capture.dissectors.kafka.records import MOST_RECORDS, MOST_UNPACKED
from services.capture.dissectors.kafka.values import MOST_OCTETS
from services.capture.dissectors.objectcalls import dumped
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import bear_damage, cut, play
from tests.unit.capture.dissectors.recorded import CAPTURES, streams

CLIENT_ID = "shop-1"


def text(value):
    return struct.pack(">h", len(value)) + value.encode()


def compact(value):
    return varint(len(value) + 1) + value.encode()


def varint(value):
    out = b""
    while value > 0x7F:
        out, value = out + bytes((value & 0x7F | 0x80,)), value >> 7
    return out + bytes((value,))


def zigzag(value):
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def message(octets):
    return struct.pack(">i", len(octets)) + octets


def request(key, version, correlation, body, client=CLIENT_ID, tags=b""):
    return message(struct.pack(">hhi", key, version, correlation) + text(client) + tags + body)


def response(correlation, body):
    return message(struct.pack(">i", correlation) + body)


def heartbeat(correlation, version=0, group="billing"):
    return request(12, version, correlation, text(group) + struct.pack(">i", 3) + text("member"))


def heartbeat_answer(correlation, code=0):
    return response(correlation, struct.pack(">h", code))


def offsets(correlation, topic):
    """ListOffsets, version 1, of a partition."""
    partition = struct.pack(">iiq", 1, 0, -1)
    return request(2, 1, correlation, struct.pack(">ii", -1, 1) + text(topic) + partition)


def offsets_answer(correlation, topic, code=0):
    partition = struct.pack(">iihqq", 1, 0, code, -1, 77)
    return response(correlation, struct.pack(">i", 1) + text(topic) + partition)


def record(key, value, offset=0, headers=()):
    body = b"\0" + zigzag(5) + zigzag(offset)
    for each in (key, value):
        body += zigzag(-1) if each is None else zigzag(len(each)) + each
    body += zigzag(len(headers))
    for name, each in headers:
        body += zigzag(len(name)) + name + zigzag(len(each)) + each
    return zigzag(len(body)) + body


def batch(records, count, codec=0, attributes=0):
    head = struct.pack(
        ">ibIhiqqqhii", 0, 2, 0, codec | attributes, count - 1, 1000, 1005, -1, -1, -1, count
    )
    return struct.pack(">qi", 40, len(head) + len(records)) + head + records


def old(key, value, magic=1, attributes=0, offset=0):
    body = struct.pack(">bb", magic, attributes) + (struct.pack(">q", 1000) if magic else b"")
    for each in (key, value):
        body += struct.pack(">i", -1) if each is None else struct.pack(">i", len(each)) + each
    return struct.pack(">qiI", offset, len(body) + 4, 0) + body


def produce(correlation, records, version=7, acks=1):
    body = (b"" if version < 3 else struct.pack(">h", -1)) + struct.pack(">hii", acks, 30000, 1)
    partition = struct.pack(">iii", 1, 0, len(records)) + records
    return request(0, version, correlation, body + text("orders") + partition)


def produced(correlation, code):
    partition = struct.pack(">iihqqqi", 1, 0, code, 7, -1, 0, 0)
    return response(correlation, struct.pack(">i", 1) + text("orders") + partition)


def batches_of(octets):
    (exchange,) = play(Kafka, [(CLIENT, octets)])
    return exchange.request["payload"]["topicData"][0]["partitionData"][0]["records"]


SESSION = (
    (CLIENT, request(18, 3, 1, compact("librdkafka") + compact("2.0") + b"\0", tags=b"\0")),
    (SERVER, response(1, b"\0\0" + b"\x02" + struct.pack(">hhh", 0, 3, 9) + b"\0" * 6)),
    (CLIENT, heartbeat(2) + offsets(3, "orders")),
    (SERVER, heartbeat_answer(2)),
    (SERVER, offsets_answer(3, "orders")),
    (CLIENT, produce(4, batch(record(b"key", b"value", 0, [(b"trace", b"abc")]), 1))),
    (CLIENT, heartbeat(5)),
    (SERVER, heartbeat_answer(5, 27)),
    (SERVER, produced(4, 3)),
)


WHOLE = play(Kafka, SESSION)


def test_requests_are_paired_by_their_ids_also_out_of_order():
    exchanges = play(Kafka, SESSION)
    assert [each.request["correlationID"] for each in exchanges] == [1, 2, 3, 5, 4]
    assert [each.response["correlationID"] for each in exchanges] == [1, 2, 3, 5, 4]
    assert not any(each.error_type for each in exchanges)
    assert [each.request["apiKeyName"] for each in exchanges] == [
        "ApiVersions", "Heartbeat", "ListOffsets", "Heartbeat", "Produce",
    ]  # fmt: skip


def test_a_request_has_all_that_filters_ask_for():
    exchange = play(Kafka, SESSION)[2]
    size = len(offsets(3, "orders"))
    assert exchange.request == {
        "apiKey": 2, "apiKeyName": "ListOffsets", "apiVersion": 1, "clientID": CLIENT_ID,
        "correlationID": 3, "size": size - 4,
        "payload": {
            "replicaId": -1,
            "topics": [{"name": "orders", "partitions": [{"partitionIndex": 0, "timestamp": -1}]}],
        },
    }  # fmt: skip
    assert exchange.request_size == size
    partition = exchange.response["payload"]["topics"][0]["partitions"][0]
    assert partition == {"partitionIndex": 0, "errorCode": 0, "timestamp": -1, "offset": 77}


def test_errors_of_the_broker_have_their_names():
    exchanges = play(Kafka, SESSION)
    assert exchanges[3].response["error"] == {"code": 27, "message": "REBALANCE_IN_PROGRESS"}
    assert exchanges[4].response["error"] == {"code": 3, "message": "UNKNOWN_TOPIC_OR_PARTITION"}
    assert "error" not in exchanges[1].response
    assert name_of(9999) == "error 9999"


def test_times_are_those_of_the_first_and_of_the_last_octet():
    asked, answered = heartbeat(1), heartbeat_answer(1)
    steps = [
        (CLIENT, asked[:1]),
        (CLIENT, asked[1:]),
        (SERVER, answered[:5]),
        (SERVER, answered[5:]),
    ]
    (exchange,) = play(Kafka, steps)
    assert (exchange.start_ns, exchange.end_ns) == (1, 4)


def test_a_produce_that_wants_no_answer_is_no_error():
    octets = produce(1, batch(record(None, b"value"), 1), acks=0)
    (exchange,) = play(Kafka, [(CLIENT, octets)])
    assert exchange.response is None
    assert exchange.error_type is None


def test_what_is_alone_says_why():
    steps = [(CLIENT, heartbeat(1)), (SERVER, heartbeat_answer(9))]
    answer, asked = play(Kafka, steps)
    assert (answer.request, answer.error_type) == (None, "pair-not-found")
    assert (asked.response, asked.error_type) == (None, "pair-not-found")


def test_answers_alone_are_told_only_where_it_is_kafka():
    assert play(Kafka, [(SERVER, heartbeat_answer(9))]) == []


def test_versions_that_are_not_known_keep_their_header():
    steps = [(CLIENT, request(12, 30, 1, b"whatever")), (SERVER, response(1, b"something"))]
    (exchange,) = play(Kafka, steps)
    assert exchange.request["apiVersion"] == 30
    assert exchange.request["apiKeyName"] == exchange.response["apiKeyName"] == "Heartbeat"
    assert "payload" not in exchange.request
    assert exchange.error_type is None


@pytest.mark.parametrize(
    ("codec", "pack"),
    [
        (0, bytes),
        (1, gzip.compress),
        (2, lambda octets: bytes(cramjam.snappy.compress_raw(octets))),
        (3, lambda octets: bytes(cramjam.lz4.compress(octets))),
        (4, zstandard.compress),
    ],
)
def test_records_are_read_whatever_their_compression(codec, pack):
    records = record(b"key", b"value", 1, [(b"trace", b"abc"), (b"octets", b"\xff")])
    (found,) = batches_of(produce(1, batch(pack(records + record(None, b"\x80", 2)), 2, codec)))
    assert found["recordCount"] == 2
    assert found["records"] == [
        {
            "timestamp": 1005, "offset": 41, "key": "key", "value": "value",
            "headers": {"trace": "abc", "octets": "/w==", "octetsEncoding": "base64"},
        },
        {"timestamp": 1005, "offset": 42, "key": None, "value": "gA==", "valueEncoding": "base64"},
    ]  # fmt: skip


def test_snappy_may_be_in_blocks():
    records = [record(b"a", b"1"), record(b"b", b"2")]
    packed = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    for each in records:
        block = bytes(cramjam.snappy.compress_raw(each))
        packed += struct.pack(">i", len(block)) + block
    (found,) = batches_of(produce(1, batch(packed, 2, 2)))
    assert [each["key"] for each in found["records"]] == ["a", "b"]


@pytest.mark.parametrize("magic", [0, 1])
def test_old_message_sets_are_read(magic):
    inside = old(b"a", b"1", magic) + old(None, b"2", magic, offset=1)
    wrapped = old(None, gzip.compress(inside), magic, 1)
    plain, packed = batches_of(produce(1, old(b"k", b"v", magic) + wrapped, version=2))
    assert plain["records"][0]["value"] == "v"
    assert packed["compression"] == "gzip"
    assert [each["value"] for each in packed["records"]] == ["1", "2"]


def test_what_is_packed_too_tightly_is_not_unpacked():
    bomb = record(b"k", b"\0" * (8 << 20))
    packings = (
        (1, gzip.compress(bomb)), (2, bytes(cramjam.snappy.compress_raw(bomb))),
        (3, bytes(cramjam.lz4.compress(bomb))), (4, zstandard.compress(bomb)),
    )  # fmt: skip
    for codec, octets in packings:
        steps = [(CLIENT, produce(1, batch(octets, 1, codec)))]
        (exchange,) = play(Kafka, steps)
        found = dumped(exchange.request)
        assert "recordsTruncated" in found or "payloadTruncated" in found
        assert len(found) < MOST_UNPACKED


def test_many_and_long_records_are_cut_and_told():
    many = b"".join(record(b"k", b"v", n) for n in range(MOST_RECORDS + 5))
    (found,) = batches_of(produce(1, batch(many, MOST_RECORDS + 5)))
    assert len(found["records"]) == MOST_RECORDS
    assert found["recordsTruncated"] is True
    (found,) = batches_of(produce(1, batch(record(b"k", b"v" * (MOST_OCTETS + 9)), 1)))
    assert len(found["records"][0]["value"]) == MOST_OCTETS - 1
    assert found["records"][0]["valueTruncated"] is True


def test_a_long_message_is_not_kept_but_its_head_is_told():
    octets = produce(1, batch(record(b"k", b"v" * MOST_KEPT * 2), 1))
    conversation = Kafka()
    for at in range(0, len(octets), 1000):
        conversation.receive(CLIENT, memoryview(octets[at : at + 1000]), 1)
        assert conversation.buffered <= MOST_KEPT + 2000 or at + 1000 >= len(octets)
    (exchange,) = play(lambda: conversation, [(SERVER, response(1, b""))])
    assert exchange.request["payloadTruncated"] is True
    assert exchange.request["payload"]["topicData"][0]["name"] == "orders"
    assert exchange.request_size == len(octets)


def test_secrets_are_not_stored():
    token = b"\0user\0hunter2"
    authenticate = request(36, 0, 2, struct.pack(">i", len(token)) + token)
    answer = response(2, b"\0\0" + text("") + struct.pack(">i", 7) + b"hunter2")
    configs = struct.pack(">ib", 1, 2) + text("orders") + struct.pack(">i", 2)
    configs += text("sasl.jaas.config") + text("hunter2") + text("retention.ms") + text("100")
    alter = request(33, 0, 3, configs + b"\0")
    steps = [(CLIENT, authenticate), (SERVER, answer), (CLIENT, alter)]
    written = dumped([(e.request, e.response) for e in play(Kafka, steps)])
    assert "hunter2" not in written
    assert written.count("[redacted]") == 3
    assert '"100"' in written


def test_tokens_without_a_header_are_passed_over():
    """SaslHandshake of version 0 is followed by bare tokens, of which no entry may tell."""
    steps = [
        (CLIENT, request(17, 0, 1, text("PLAIN"))),
        (SERVER, response(1, struct.pack(">hi", 0, 1) + text("PLAIN"))),
        (CLIENT, message(b"\0user\0hunter2")),
        (SERVER, message(b"")),
        (CLIENT, heartbeat(2)),
        (SERVER, heartbeat_answer(2)),
    ]
    exchanges = play(Kafka, steps)
    assert [each.request["apiKeyName"] for each in exchanges] == ["SaslHandshake", "Heartbeat"]
    assert not any(each.error_type for each in exchanges)


def test_a_broker_that_does_not_know_the_version_says_so():
    steps = [*SESSION[:1], (SERVER, response(1, b"\0\x23\0\0\0\0"))]
    (exchange,) = play(Kafka, steps)
    assert exchange.response["error"] == {"code": 35, "message": "UNSUPPORTED_VERSION"}
    assert exchange.error_type is None


def test_topics_that_have_only_an_id_get_their_name():
    identity = bytes(range(16))
    topic = b"\0\0" + compact("orders") + identity + b"\0\1" + bytes(4) + b"\0"
    metadata = b"\0" + bytes(4) + b"\1" + compact("") + bytes(4) + b"\2" + topic + b"\0"
    fetch = struct.pack(">iiibii", 500, 1, 999, 0, 0, -1) + b"\2" + identity + b"\1\0\1\1\0"
    steps = [
        (CLIENT, request(3, 12, 1, b"\0\0\0\0", tags=b"\0")),
        (SERVER, response(1, metadata)),
        (CLIENT, request(1, 15, 2, fetch, tags=b"\0")),
    ]
    _, fetched = play(Kafka, steps)
    assert fetched.request["payload"]["topics"][0]["name"] == "orders"


@given(st.lists(st.integers(0, sum(len(octets) for _, octets in SESSION)), max_size=40))
def test_however_it_is_cut_the_calls_are_the_same(cuts):
    assert play(Kafka, cut(SESSION, cuts)) == WHOLE


def test_octet_by_octet_the_calls_are_the_same():
    cuts = range(sum(len(octets) for _, octets in SESSION))
    assert play(Kafka, cut(SESSION, cuts)) == WHOLE


def _untouched(messages, at, length):
    ends = [sum(map(len, messages[: n + 1])) for n in range(len(messages))]
    return {
        n for n, (each, end) in enumerate(zip(messages, ends, strict=True))
        if end <= at or end - len(each) >= at + length
    }  # fmt: skip


@pytest.mark.parametrize("length", [1, 7, 60])
def test_a_gap_in_requests_loses_only_what_it_touches(length):
    sent = [heartbeat(n, group=f"group-{n}") for n in range(4)]
    octets = b"".join(sent)
    for at in range(len(sent[0]), len(octets) - length):
        steps = [(CLIENT, octets[:at]), (CLIENT, length), (CLIENT, octets[at + length :])]
        steps += [(SERVER, heartbeat_answer(n)) for n in range(4)]
        exchanges = play(Kafka, steps)
        good = {e.request["correlationID"] for e in exchanges if e.error_type is None}
        assert good == _untouched(sent, at, length), at
        assert {e.error_type for e in exchanges} <= {None, "gap"}


@pytest.mark.parametrize("length", [1, 7, 40])
def test_a_gap_in_responses_loses_only_what_it_touches(length):
    asked = [(CLIENT, offsets(n + 100, "orders")) for n in range(4)]
    sent = [offsets_answer(n + 100, "orders") for n in range(4)]
    octets = b"".join(sent)
    for at in range(len(octets) - length):
        lossy = [(SERVER, octets[:at]), (SERVER, length), (SERVER, octets[at + length :])]
        exchanges = play(Kafka, [*asked, *[each for each in lossy if each[1]]])
        good = {e.request["correlationID"] - 100 for e in exchanges if e.error_type is None}
        assert good == _untouched(sent, at, length), at
        assert {e.error_type for e in exchanges} <= {None, "gap"}
        assert len(exchanges) == 4


def test_a_capture_may_begin_in_the_middle():
    octets = produce(1, batch(record(b"k", b"v" * 300), 1))
    for at in range(1, len(octets)):
        steps = [
            (CLIENT, 0), (SERVER, 0), (CLIENT, octets[at:]), (CLIENT, heartbeat(2)),
            (SERVER, heartbeat_answer(1)), (SERVER, heartbeat_answer(2)),
        ]  # fmt: skip
        exchanges = play(Kafka, steps)
        assert [e.request["correlationID"] for e in exchanges] == [2], at
        assert exchanges[0].error_type is None


@pytest.mark.parametrize(
    "octets",
    [
        bytes.fromhex("000000290003000075736572") + b"\0postgres\0database\0app\0",
        message(struct.pack(">hhi", 200, 0, 1) + text("x")),
        message(struct.pack(">hhi", 3, 90, 1) + text("x")),
        message(struct.pack(">hhi", 12, 0, 1) + text("no\0text") + b"1234"),
        request(12, 0, 1, text("group") + b"\0\0\0\1" + text("member") + b"left", client=""),
        request(12, 0, 1, text("group") + b"\0\0\0\1" + b"\0\x70"),
        b"\x7f\xff\xff\xff" + heartbeat(1)[4:],
    ],
)
def test_what_is_not_kafka_is_refused(octets):
    conversation = Kafka()
    with pytest.raises(ProtocolError):
        conversation.receive(CLIENT, memoryview(octets), 1)
    assert not conversation.understood


def test_many_requests_without_a_response_are_bounded():
    conversation = Kafka()
    for n in range(MOST_WAITING + 10):
        conversation.receive(CLIENT, memoryview(heartbeat(n)), n)
    assert [each.request["correlationID"] for each in conversation.exchanges] == list(range(10))


def test_damage_raises_nothing_else():
    bear_damage(Kafka, SESSION, 3000, seed=7)


def test_damaged_payloads_of_every_version_raise_nothing():
    rng = random.Random(8)
    for key, api in APIS.items():
        for version in range(api.last + 1):
            for side in (REQUEST, RESPONSE):
                octets = bytes(rng.choice((0, 0, 1, 2, 255)) for _ in range(200))
                payload, reader, _ = read_payload(side, key, version, octets, 0, len(octets))
                assert reader.at <= len(octets)
                dumped(payload)


def test_damaged_records_raise_nothing_when_they_are_read():
    rng = random.Random(9)
    records = record(b"key", b"value", 0, [(b"trace", b"abc")]) + record(b"k", None, 1)
    packings = (
        bytes, gzip.compress, lambda octets: bytes(cramjam.snappy.compress_raw(octets)),
        lambda octets: bytes(cramjam.lz4.compress(octets)), zstandard.compress,
    )  # fmt: skip
    whole = [batch(pack(records), 2, codec) for codec, pack in enumerate(packings)]
    whole += [old(b"k", b"v", magic) + old(b"k", None, magic) for magic in (0, 1)]
    readable = 0
    for _ in range(3000):
        damaged = bytearray(rng.choice(whole))
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        (exchange,) = play(Kafka, [(CLIENT, produce(1, bytes(damaged)))])
        (partition,) = exchange.request["payload"]["topicData"][0]["partitionData"]
        readable += bool(partition["records"]._make())
        dumped(exchange.request)
    assert 0 < readable < 3000


def fits(signature, octets):
    return len(octets) >= len(signature.octets) and all(
        octet in allowed for octet, allowed in zip(octets, signature.octets, strict=False)
    )


def test_requests_are_recognised_on_any_port():
    anywhere = [each for each in SIGNATURES if not each.only_on_port]
    for side, octets in SESSION:
        if side == CLIENT:
            assert any(each.side == side and fits(each, octets) for each in anywhere)


def test_who_asks_is_the_client_whoever_was_taken_for_it():
    steps = [(CLIENT, 0), (SERVER, heartbeat(1)), (CLIENT, heartbeat_answer(1))]
    (exchange,) = play(Kafka, steps)
    assert (exchange.asked_by, exchange.error_type) == (SERVER, None)


@pytest.mark.parametrize(
    "octets",
    [
        bytes.fromhex("16030100c8010000c40303") + bytes(10), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"*1\r\n$4\r\nPING\r\n      ",
        bytes.fromhex("00000029000300007573657200706f7374677265730064"),
        bytes.fromhex("0000000804d2162f"), bytes.fromhex("000004080000000000000000010000"),
        bytes.fromhex("00001204000000000000030000006400040010000000"),
        bytes.fromhex("0000002d00000000000000000000000000007530") + bytes(20),
        bytes.fromhex("002300120100000100000000000003777777"),
    ],
)  # fmt: skip
def test_other_protocols_are_not_taken(octets):
    assert not any(fits(each, octets) for each in SIGNATURES if not each.only_on_port)


def test_real_clients_and_a_real_broker_say_what_was_seen():
    golden = yaml.safe_load((CAPTURES / "kafka-librdkafka.yaml").read_text())
    recorded = streams("kafka-librdkafka.pcap")
    exchanges = [each for stream in recorded for each in play(Kafka, stream.said)]
    for call in golden["calls"]:
        assert any(_is_it(call, each) for each in exchanges), call
    # The broker of the tests answers also where nobody wants it to.
    wrong = [each for each in exchanges if each.error_type]
    assert [(each.request, each.error_type) for each in wrong] == [(None, "pair-not-found")]
    fetched = dumped([e.response for e in exchanges if e.request and e.request["apiKey"] == 1])
    assert fetched.count('"valueEncoding"') == 1
    assert all(fetched.count(f'\\"id\\": {n}') == 5 for n in range(3))


def _is_it(call, exchange):
    asked = exchange.request or {}
    if (asked.get("apiKeyName"), asked.get("clientID")) != (call["apiKeyName"], call["clientID"]):
        return False
    if (exchange.response is not None) != call.get("answered", True):
        return False
    written = dumped(asked)
    return all(
        dumped(call[name]) in written
        for name in ("topic", "compression", "key", "value", "group")
        if name in call
    )


@pytest.mark.parametrize(("limit", "size", "kept"), [(4, 100, 3), (300_000, 200_000, 200_000)])
def test_records_are_read_as_far_as_is_wanted(limit, size, kept):
    conversation = Kafka()
    conversation.body_limit = limit
    octets = produce(1, batch(record(b"k", b"v" * size), 1))
    (exchange,) = play(lambda: conversation, [(CLIENT, octets)])
    (found,) = exchange.request["payload"]["topicData"][0]["partitionData"][0]["records"]
    assert len(found["records"][0]["value"]) == kept
    assert found["records"][0].get("valueTruncated", False) is (kept < size)
