"""What comes after HTTP/1 in a stream: WebSocket, HTTP/2 by upgrade, and a proxy's tunnels."""

import random

import numpy as np
import pytest
from hpack import Encoder

from recordings.entry import objects
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation
from tests.unit.capture.dissectors.test_websocket import CLIENT, CLOSE, SERVER, TEXT, Deflater
from tests.unit.capture.dissectors.test_websocket import frame as message

UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
PLAIN = SWITCHED + b"\r\n"
PACKED = SWITCHED + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
ASKS_H2C = (
    b"POST /first?a=1 HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nX-Id: 7\r\nContent-Length: 4\r\n\r\nbody"
)
H2C = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
CONNECT = b"CONNECT redis:6379 HTTP/1.1\r\nHost: redis:6379\r\n\r\n"
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
PING, PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"


def h2(kind, flags, stream, payload=b""):
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def h2_answer(encoder, stream, body):
    fields = encoder.encode([(":status", "200"), ("server", "tiny")], huffman=True)
    return h2(1, 4, stream, fields) + h2(0, 1, stream, body)


def h2_story():
    """Yield (who, octets) of an upgrade whose connection has one more stream."""
    of_client, of_server = Encoder(), Encoder()
    yield "client", ASKS_H2C
    yield "server", H2C + h2(4, 0, 0)
    yield "server", h2_answer(of_server, 1, b"one")  # before the client's preface, as it may be
    yield "client", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2(4, 0, 0)
    asked = [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", "/second")]
    yield "client", h2(1, 5, 3, of_client.encode(asked))
    yield "server", h2_answer(of_server, 3, b"two")


def websocket_story(pack=None):
    bits, pack = (0x40, pack) if pack else (0, lambda octets: octets)
    back = Deflater() if bits else (lambda octets: octets)
    yield "client", UPGRADE
    yield "server", (PACKED if bits else PLAIN) + message(SERVER, TEXT, back(b"welcome"), bits=bits)
    yield "client", message(CLIENT, TEXT, pack(b"hello hello"), bits=bits)
    yield "server", message(SERVER, TEXT, back(b"hello hello"), bits=bits)
    yield "client", message(CLIENT, CLOSE, b"\x03\xe8")
    yield "server", message(SERVER, CLOSE, b"\x03\xe8")


def talk_of(story, size=1460, **options):
    talk = Conversation(**options).open()
    for who, octets in story:
        getattr(talk, who)(octets, size)
    return talk


def new(names=None, **options):
    pipeline = Pipeline(PipelineOptions(most_flows=64, **{"body_limit": 1000, **options}))
    pipeline.dissectors = names
    return pipeline


def entries(pipeline, *batches, ends=True):
    found, start = [], wire.START
    for frames in batches:
        for calls in pipeline.take(wire.batch(frames, start=start)):
            found += objects(calls.entries(np.arange(len(calls))))
        start += len(frames) * wire.MILLISECOND
    for calls in pipeline.end() if ends else []:
        found += objects(calls.entries(np.arange(len(calls))))
    return found


def brief(found):
    """(abbr, what was asked for, what was answered) of each entry, in the order of their begin."""
    return [
        (each["protocol"]["abbr"], *(_of(each[side]) for side in ("request", "response")))
        for each in sorted(found, key=lambda each: each["startTime"])
    ]


def _of(side):
    if side is None:
        return None
    return side.get("opcode") or side.get("url") or side.get("command") or side.get("status", "")


UPGRADED = ("HTTP", "/chat", 101)
SAID = [("WS", None, "text"), ("WS", "text", None), ("WS", None, "text"), ("WS", "close", None),
        ("WS", None, "close")]  # fmt: skip


@pytest.mark.parametrize("is_packed", [False, True])
def test_after_an_upgrade_to_websocket_its_messages_are_entries(is_packed):
    found = entries(new(), talk_of(websocket_story(Deflater() if is_packed else None)).frames)
    assert brief(found) == [UPGRADED, *SAID]
    bodies = [(each["request"] or each["response"]).get("body") for each in found]
    assert bodies == ["", "welcome", "hello hello", "hello hello", "", ""]
    assert found[2]["request"].get("isCompressed", False) is is_packed
    assert len({each["stream"] for each in found}) == 1
    assert {each["src"]["port"] for each in found} == {40000}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_it_does_not_matter_how_an_upgrade_is_cut(size):
    for story, many in ((websocket_story(Deflater()), 6), (h2_story(), 3)):
        found = entries(new(), talk_of(story, size).frames)
        assert len(found) == many
        assert not any(each["error"] for each in found)


def test_each_batch_may_end_anywhere():
    frames = talk_of(websocket_story(Deflater()), 40).frames
    whole = brief(entries(new(), frames))
    for place in range(1, len(frames)):
        assert brief(entries(new(), frames[:place], frames[place:])) == whole


def test_stream_1_answers_the_request_that_asked_for_http2():
    shake, first, second = entries(new(), talk_of(h2_story()).frames)
    assert (shake["protocol"]["abbr"], shake["response"]["status"]) == ("HTTP", 101)
    assert first["protocol"] == {"name": "http", "version": "2.0", "abbr": "HTTP/2"}
    assert first["error"] is None
    asked = first["request"]
    assert (asked["method"], asked["url"], asked["body"]) == ("POST", "/first?a=1", "body")
    assert asked["headers"] == {
        ":method": "POST", ":scheme": "http", ":authority": "shop", ":path": "/first?a=1",
        "x-id": "7", "content-length": "4",
    }  # fmt: skip
    assert first["requestSize"] == len(ASKS_H2C)
    assert first["response"]["headers"] == {":status": "200", "server": "tiny"}
    assert (first["response"]["body"], first["elapsedTimeUs"]) == ("one", 2000)
    assert (second["request"]["url"], second["response"]["body"]) == ("/second", "two")


def test_an_upgrade_whose_request_was_not_seen_has_an_answer_alone():
    talk = Conversation().open().skip("client", len(ASKS_H2C))
    for who, octets in list(h2_story())[1:]:
        getattr(talk, who)(octets)
    found = entries(new(), talk.frames)
    assert ["/second", 200] in [list(each[1:]) for each in brief(found)]
    assert "pair-not-found" in {(each["error"] or {}).get("type") for each in found}


def test_in_a_tunnel_is_whatever_its_first_octets_say():
    talk = talk_of([("client", CONNECT), ("server", TUNNEL), ("client", PING), ("server", PONG)])
    connect, ping = entries(new(), talk.frames)
    assert (connect["request"]["method"], connect["response"]["status"]) == ("CONNECT", 200)
    assert (ping["protocol"]["abbr"], ping["request"]["command"]) == ("REDIS", "PING")


def test_the_first_octets_of_a_tunnel_may_be_behind_the_head():
    _, server, _, *rest = h2_story()
    story = [("client", CONNECT), ("server", TUNNEL + server[1].removeprefix(H2C)), *rest]
    assert brief(entries(new(), talk_of(story).frames)) == [
        ("HTTP", "redis:6379", 200), ("HTTP/2", "/second", 200),
    ]  # fmt: skip


def test_a_tunnel_may_lead_to_an_upgrade():
    story = [("client", CONNECT), ("server", TUNNEL), *websocket_story()]
    for size in (5, 1460):
        found = entries(new(), talk_of(story, size).frames)
        assert brief(found)[:2] == [("HTTP", "redis:6379", 200), UPGRADED]
        assert [each[0] for each in brief(found)[2:]] == ["WS"] * 5


def test_other_upgrades_are_recognised_too():
    asks = b"GET / HTTP/1.1\r\nUpgrade: resp\r\n\r\n"
    answer = b"HTTP/1.1 101 Switching\r\nUpgrade: resp\r\n\r\n"
    talk = talk_of([("client", asks), ("server", answer), ("client", PING), ("server", PONG)])
    assert [each[0] for each in brief(entries(new(), talk.frames))] == ["HTTP", "REDIS"]


def test_a_refused_tunnel_is_none():
    no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    get = b"GET /x HTTP/1.1\r\n\r\n"
    talk = talk_of([("client", CONNECT), ("server", no), ("client", get), ("server", no)])
    assert brief(entries(new(), talk.frames)) == [("HTTP", "redis:6379", 403), ("HTTP", "/x", 403)]


@pytest.mark.parametrize(
    ("names", "abbrs"),
    [
        ({"ws"}, ["HTTP", "WS", "WS", "WS", "WS", "WS"]),
        ({"http", "ws"}, ["HTTP", "WS", "WS", "WS", "WS", "WS"]),
        ({"http"}, ["HTTP"]),
        ({"redis"}, []),
    ],
)
def test_a_job_says_what_is_read(names, abbrs):
    found = entries(new(frozenset(names)), talk_of(websocket_story()).frames)
    assert [each["protocol"]["abbr"] for each in found] == abbrs


def test_octets_that_are_no_websocket_end_its_dissection_and_are_told():
    pipeline = new()
    talk = talk_of(list(websocket_story())[:3]).client(b"\x7f" * 20).server(PONG)
    found = entries(pipeline, talk.frames)
    assert [each[0] for each in brief(found)] == ["HTTP", "WS", "WS"]
    assert [each.kind for each in pipeline.losses()] == ["undissected"]


def test_a_gap_loses_only_what_it_touches():
    story = list(websocket_story())
    talk = talk_of(story[:3]).skip("server", 30).server(message(SERVER, TEXT, b"after"))
    found = entries(new(), talk.client(message(CLIENT, TEXT, b"and on")).frames)
    bodies = [(each["request"] or each["response"]).get("body") for each in found]
    assert set(bodies[-2:]) == {"after", "and on"}


def test_a_five_tuple_that_is_used_again_begins_anew():
    first = talk_of(list(websocket_story())[:3]).close()
    again = Conversation(first=(900_000, 800_000)).open()
    again.client(b"GET /x HTTP/1.1\r\n\r\n").server(b"HTTP/1.1 204 None\r\n\r\n")
    found = entries(new(), first.frames + again.frames)
    assert brief(found) == [UPGRADED, *SAID[:2], ("HTTP", "/x", 204)]


def test_many_streams_of_a_batch_are_kept_apart():
    talks = [
        talk_of([h2_story, websocket_story][number & 1](), client_port=41000 + number)
        for number in range(20)
    ]
    frames = [each for row in zip(*(talk.frames for talk in talks), strict=False) for each in row]
    found = entries(new(), frames)
    for number in range(20):
        mine = [each for each in found if each["src"]["port"] == 41000 + number]
        abbrs = ["HTTP", *(["WS"] * 5 if number & 1 else ["HTTP/2"] * 2)]
        assert [each[0] for each in brief(mine)] == abbrs


def test_what_came_before_a_late_match_is_known():
    pipeline = new()
    talk = talk_of(websocket_story())
    (number,) = {int(n) for n in pipeline.take(wire.batch(talk.frames[:-2]))[0].streams}
    pipeline.take(wire.batch(talk.frames[-2:-1], start=wire.START + wire.MILLISECOND * 50))
    before = [(part.protocol, len(part)) for part in pipeline.earlier(np.array([number]))]
    assert before == [("http", 1), ("ws", 3)]


def test_the_limit_of_bodies_may_change_while_a_stream_is_read():
    pipeline = new(body_limit=4)
    story = list(websocket_story())
    talk = talk_of(story[:3])
    first = entries(pipeline, talk.frames, ends=False)
    assert [each["response"]["body"] for each in first if each["request"] is None] == ["welc"]
    pipeline.body_limit = 7
    frames = talk_of(story).frames[len(talk.frames) :]
    (after, *_) = entries(pipeline, frames, ends=False)
    assert (after["response"]["body"], after["response"]["bodyTruncated"]) == ("hello h", True)


def test_damaged_streams_end_alone():
    chance = random.Random(7)
    for round_ in range(60):
        story = list(h2_story() if round_ & 1 else websocket_story(Deflater()))
        damaged = []
        for who, octets in story:
            mutated = bytearray(octets)
            for _ in range(chance.randrange(4)):
                mutated[chance.randrange(len(mutated))] = chance.randrange(256)
            damaged.append((who, bytes(mutated)))
        good = talk_of(websocket_story(), client_port=50000)
        pipeline = new()
        found = entries(pipeline, talk_of(damaged, chance.choice([9, 1460])).frames, good.frames)
        mine = [each for each in found if each["src"]["port"] == 50000]
        assert brief(mine) == [UPGRADED, *SAID]
        assert "fault" not in {what for _, what in pipeline.recogniser.failed}


def test_in_the_middle_of_a_stream_http_says_who_asked():
    talk = Conversation(client_port=80, server_port=50000)  # without its opening: ports mislead
    for who, octets in websocket_story():
        getattr(talk, who)(octets)
    found = entries(new(), talk.frames)
    assert brief(found) == [UPGRADED, *SAID]
    assert {each["src"]["port"] for each in found} == {80}


def test_a_client_that_answers_itself_changes_no_sides():
    talk = Conversation().open().client(PLAIN).server(message(SERVER, TEXT, b"x"))
    found = entries(new(), talk.client(message(CLIENT, TEXT, b"y")).frames)
    assert [each for each in brief(found) if each[0] == "WS"] == [SAID[0], SAID[1]]


def test_lines_of_a_head_end_at_line_feeds_alone():
    asks = ASKS_H2C.replace(b"X-Id: 7", b"X-Id: 7\x85Host: evil\x0cX: gr\xfc\xdfe")
    _, *rest = h2_story()
    first = entries(new(), talk_of([("client", asks), *rest]).frames)[1]
    assert first["request"]["headers"][":authority"] == "shop"
    assert first["request"]["headers"]["x-id"] == "7\x85Host: evil\x0cX: grüße"
