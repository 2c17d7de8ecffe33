"""What a user sees of MongoDB: recorded connections, and messages as the manual has them."""

import struct
import zlib

import pyarrow
import pytest
import yaml
import zstandard

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.mongodb import bson
from services.capture.dissectors.mongodb import messages as wire
from services.capture.dissectors.mongodb.session import MOST_WAITING, MOST_WAITING_OCTETS, Session
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import losing_each, play
from tests.unit.capture.dissectors.recorded import CAPTURES, connections

PORT = 13717
NAMES = ("mongodb-plain", "mongodb-zlib", "mongodb-zstd", "mongodb-snappy")


def element(name, value):
    head = name.encode() + b"\0"
    if isinstance(value, bytes):  # a kind and the value as it is
        return value[:1] + head + value[1:]
    if isinstance(value, bool):
        return b"\x08" + head + bytes([value])
    if isinstance(value, int):
        return b"\x10" + head + value.to_bytes(4, "little", signed=True)
    if isinstance(value, float):
        return b"\1" + head + struct.pack("<d", value)
    if isinstance(value, str):
        return b"\2" + head + struct.pack("<i", len(value) + 1) + value.encode() + b"\0"
    if isinstance(value, list):
        return b"\4" + head + document({str(n): each for n, each in enumerate(value)})
    return b"\3" + head + document(value)


def document(values):
    body = b"".join(element(name, value) for name, value in values.items())
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def message(number, answers, opcode, body):
    return struct.pack("<iiii", len(body) + 16, number, answers, opcode) + body


def op_msg(number, answers, values, flags=0, sequence=None):
    body = struct.pack("<I", flags) + b"\0" + document(values)
    if sequence is not None:
        name, documents = sequence
        packed = name.encode() + b"\0" + b"".join(map(document, documents))
        body += b"\1" + struct.pack("<i", len(packed) + 4) + packed
    return message(number, answers, wire.MSG, body + (bytes(4) if flags & wire.CHECKSUM else b""))


FIND = op_msg(7, 0, {"find": "fruit", "filter": {"name": "pear"}, "$db": "shop"})


def batch(*documents, cursor=0):
    return {"cursor": {"firstBatch": list(documents), "id": cursor, "ns": "shop.fruit"}, "ok": 1.0}


def talk(*said):
    """Play texts: client and server in turn, at 10 ns, 20 ns and so on."""
    return play(Session, [(n % 2, each, 10 * n + 10) for n, each in enumerate(said)])


# ---- recorded connections


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_those_of_the_servers_log(name):
    expected = yaml.safe_load((CAPTURES / f"{name}.yaml").read_text())
    seen = [e for said in connections(f"{name}.pcap", PORT) for e in play(Session, said)]
    asked = [e for e in seen if e.request_size]
    assert expected["log"] == sorted(
        f"{e.request['opcode']} {e.request['command']}"
        + (" unacknowledged" if e.response is None else "")
        for e in asked
    )
    assert all(e.error_type is None for e in seen)
    further = [e for e in seen if not e.request_size]  # of an exhaust cursor
    assert len(further) == (2 if name == "mongodb-plain" else 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_compressed_is_read(name):
    kind = name.removeprefix("mongodb-")
    seen = [e for said in connections(f"{name}.pcap", PORT) for e in play(Session, said)]
    finds = [e for e in seen if e.request["command"] == "find"]
    assert finds[0].request["filter"] == {"name": "pear"}
    assert finds[0].response["documents"] == [{"_id": 1, "name": "pear", "price": 1.5}]
    assert finds[0].request.get("compressor") == (None if kind == "plain" else kind)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("known", [True, False])
def test_a_gap_loses_what_it_touches(name, known):
    for said in connections(f"{name}.pcap", PORT):
        whole = play(Session, said)
        for lost, seen in losing_each(Session, said, known):
            assert sum(each not in seen for each in whole) <= 3, lost  # those of a cursor
            wrong = [each for each in seen if each.error_type is None and each not in whole]
            assert not wrong, lost


# ---- messages


def test_a_search_and_its_answer():
    answer = op_msg(99, 7, batch({"name": "pear"}, cursor=5))
    (seen,) = talk(FIND, answer)
    assert seen.request == {
        "opcode": "OP_MSG", "command": "find", "database": "shop", "collection": "fruit",
        "filter": {"name": "pear"}, "query": '{"find":"fruit","filter":{"name":"pear"}}',
    }  # fmt: skip
    assert seen.response == {
        "opcode": "OP_MSG", "status": "OK", "rows": 1, "documents": [{"name": "pear"}],
        "cursorID": 5,
    }  # fmt: skip
    assert (seen.start_ns, seen.end_ns) == (10, 20)
    assert (seen.request_size, seen.response_size) == (len(FIND), len(answer))


def test_replies_are_paired_by_their_number():
    second = op_msg(8, 0, {"ping": 1, "$db": "admin"})
    seen = talk(FIND + second, op_msg(99, 8, {"ok": 1.0}) + op_msg(100, 7, batch()))
    assert [e.request["command"] for e in seen] == ["ping", "find"]


def test_errors_of_commands_and_of_writes():
    failed = {"ok": 0.0, "errmsg": "no such command", "code": 59, "codeName": "CommandNotFound"}
    written = {"n": 1, "writeErrors": [{"index": 1, "code": 11000, "errmsg": "twice"}], "ok": 1.0}
    insert = op_msg(
        9, 0, {"insert": "fruit", "$db": "shop"}, wire.CHECKSUM, ("documents", [{"a": 1}] * 20)
    )
    seen = talk(FIND, op_msg(98, 7, failed), insert, op_msg(99, 9, written))
    assert seen[0].response["error"] == {
        "code": 59, "codeName": "CommandNotFound", "message": "no such command",
    }  # fmt: skip
    assert seen[1].response["error"] == {"code": 11000, "message": "twice"}
    assert [e.response["status"] for e in seen] == ["ERROR", "ERROR"]
    assert (seen[1].request["documentsTotal"], seen[1].response["affected"]) == (20, 1)


def test_secrets_are_not_told():
    secret = b"\5\x0b\0\0\0\0do not tell"
    said = [
        op_msg(1, 0, {"saslStart": 1, "mechanism": "PLAIN", "payload": secret, "$db": "admin"}),
        op_msg(2, 1, {"conversationId": 1, "payload": secret, "done": False, "ok": 1.0}),
        op_msg(3, 0, {"hello": 1, "speculativeAuthenticate": {"saslStart": 1, "payload": secret}}),
        op_msg(4, 3, {"ok": 1.0, "speculativeAuthenticate": {"payload": secret}}),
        op_msg(5, 0, {"createUser": "ada", "pwd": "do not tell", "$db": "admin"}),
        op_msg(6, 77, {"conversationId": 1, "payload": secret, "ok": 1.0}),
    ]
    told = repr(talk(*said))
    assert "do not tell" not in told
    assert "ZG8gbm90IHRlbGw" not in told  # base64
    assert "PLAIN" in told


def test_older_messages():
    query = struct.pack("<I", 0) + b"shop.fruit\0" + struct.pack("<ii", 0, 2)
    reply = struct.pack("<Iqii", 0, 77, 0, 2) + document({"a": 1}) + document({"a": 2})
    more = struct.pack("<I", 0) + b"shop.fruit\0" + struct.pack("<iq", 2, 77)
    gone = struct.pack("<Iqii", 1, 0, 0, 0)
    removal = struct.pack("<I", 0) + b"shop.fruit\0" + struct.pack("<I", 1) + document({"a": 1})
    seen = talk(
        message(1, 0xFFFFFFFF - (1 << 32), wire.QUERY, query + document({"a": {"$gt": 0}})),
        message(50, 1, wire.REPLY, reply),
        message(2, 0, wire.GET_MORE, more),
        message(51, 2, wire.REPLY, gone),
        message(3, 0, wire.DELETE, removal),
    )
    assert [e.request["command"] for e in seen] == ["find", "getMore", "delete"]
    assert {(e.request["database"], e.request["collection"]) for e in seen} == {("shop", "fruit")}
    assert seen[0].request["filter"] == {"a": {"$gt": 0}}
    assert (seen[0].response["rows"], seen[0].response["cursorID"]) == (2, 77)
    assert seen[1].response["error"]["codeName"] == "CursorNotFound"
    assert (seen[2].response, seen[2].error_type) == (None, None)


def test_values_that_json_does_not_have():
    values = {
        "oid": b"\7" + bytes(range(12)), "date": b"\x09" + (1000).to_bytes(8, "little"),
        "binary": b"\5\2\0\0\0\4ab", "regex": b"\x0b^a\0i\0", "nothing": b"\x0a",
        "stamp": b"\x11" + struct.pack("<II", 2, 1), "long": b"\x12" + struct.pack("<q", 1 << 40),
        "decimal": b"\x13" + ((6176 - 2 << 113) | 150).to_bytes(16, "little"),
        "least": b"\xff", "most": b"\x7f", "infinite": float("inf"), "yes": True,
        "code": b"\x0d\2\0\0\0x\0",
    }  # fmt: skip
    found, _ = bson.Reader(document(values), True).document(0)
    assert found == {
        "oid": {"$oid": "000102030405060708090a0b"},
        "date": {"$date": "1970-01-01T00:00:01.000Z"},
        "binary": {"$binary": {"base64": "YWI=", "subType": "04"}},
        "regex": {"$regularExpression": {"pattern": "^a", "options": "i"}}, "nothing": None,
        "stamp": {"$timestamp": {"t": 1, "i": 2}}, "long": 1 << 40,
        "decimal": {"$numberDecimal": "1.50"}, "least": {"$minKey": 1}, "most": {"$maxKey": 1},
        "infinite": {"$numberDouble": "inf"}, "yes": True, "code": {"$code": "x"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "codec"),
    [
        (0, bytes), (2, zlib.compress), (3, zstandard.compress),
        (1, lambda octets: pyarrow.compress(octets, codec="snappy", asbytes=True)),
    ],
)  # fmt: skip
def test_compressors(number, codec):
    plain = FIND[16:]
    packed = struct.pack("<iiB", wire.MSG, len(plain), number) + codec(plain)
    (seen,) = talk(message(7, 0, wire.COMPRESSED, packed), op_msg(8, 7, batch()))
    assert seen.request["filter"] == {"name": "pear"}
    assert seen.request_size == len(packed) + 16


def test_the_middle_of_a_connection():
    session = Session()
    session.gap(CLIENT, 0, 1)
    session.receive(CLIENT, memoryview(b"the end of a document\0\0" + FIND), 2)
    session.receive(SERVER, memoryview(op_msg(9, 7, batch({"a": 1}))), 3)
    (seen,) = session.exchanges
    assert (seen.request["command"], seen.response["rows"]) == ("find", 1)


@pytest.mark.parametrize(
    ("side", "octets"),
    [
        (CLIENT, b"GET / HTTP/1.1\r\n\r\n"),
        (CLIENT, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(20)),
        (CLIENT, message(1, 0, 2014, bytes(20))),
        (CLIENT, message(1, 0, wire.MSG, b"\0\1\0\0\0" + document({}))),
        (CLIENT, struct.pack("<iiii", 1 << 30, 1, 0, wire.MSG)),
        (SERVER, b"SSH-2.0-OpenSSH_9.2\r\n"),
    ],
)
def test_other_protocols_are_refused(side, octets):
    with pytest.raises(ProtocolError):
        play(Session, [(side, octets, 1)])


def test_a_capture_that_begins_with_a_request():
    session = Session()
    session.gap(CLIENT, 0, 1)
    session.receive(CLIENT, memoryview(FIND), 1)
    session.gap(SERVER, 0, 2)
    session.receive(SERVER, memoryview(op_msg(9, 7, batch({"a": 1}))), 2)
    (seen,) = session.exchanges
    assert (seen.response["rows"], seen.error_type) == (1, None)


# ---- limits


def test_a_long_message_is_cut_and_its_octets_are_not_kept():
    sequence = [{"text": "x" * 1000}] * 1000
    insert = op_msg(9, 0, {"insert": "t", "$db": "shop"}, 0, ("documents", sequence))
    session = Session()
    most = 0
    for at in range(0, len(insert), 1000):
        session.receive(CLIENT, memoryview(insert[at : at + 1000]), at)
        most = max(most, session.buffered)
    session.receive(SERVER, memoryview(op_msg(10, 9, {"n": 1000, "ok": 1.0})), 9)
    (seen,) = session.exchanges
    assert most <= wire.MOST_KEPT + 1000
    assert seen.request["bodyTruncated"]
    assert (seen.request["command"], seen.request_size) == ("insert", len(insert))
    assert seen.response["affected"] == 1000


def test_rows_are_counted_beyond_what_is_told():
    (seen,) = talk(FIND, op_msg(8, 7, batch(*[{"n": n} for n in range(500)])))
    assert seen.response["rows"] == 500
    assert len(seen.response["documents"]) == wire.MOST_DOCUMENTS
    assert seen.response["bodyTruncated"]


def test_depth_is_bounded():
    deep = {}
    for _ in range(90):
        deep = {"a": deep}
    (seen,) = talk(op_msg(7, 0, {"find": "t", "filter": deep}), op_msg(8, 7, batch()))
    assert seen.request["bodyTruncated"]
    assert seen.request["query"].count("{") <= bson.MOST_DEPTH + 2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_decompression_is_bounded(number):
    codec = {
        1: lambda octets: pyarrow.compress(octets, codec="snappy", asbytes=True),
        2: zlib.compress, 3: zstandard.compress,
    }[number]  # fmt: skip
    plain = FIND[16:] + b"\0" * (8 << 20)
    packed = struct.pack("<iiB", wire.MSG, len(plain), number) + codec(plain)
    body = wire.read_body(wire.Message(message(1, 0, wire.COMPRESSED, packed), 0, 0, False))
    assert body.is_cut


def test_what_waits_is_bounded():
    session = Session()
    for number in range(MOST_WAITING + 100):
        session.receive(CLIENT, memoryview(op_msg(number, 0, {"ping": 1})), 1)
    assert len(session.exchanges) == 100
    assert session.exchanges[0].error_type == "pair-not-found"


def test_the_octets_of_what_waits_are_bounded():
    session = Session()
    for number in range(100):
        session.receive(
            CLIENT, memoryview(op_msg(number, 0, {"find": "t", "comment": "x" * 60_000})), 1
        )
    assert session.buffered <= MOST_WAITING_OCTETS + wire.MOST_KEPT
