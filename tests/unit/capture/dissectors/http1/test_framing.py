"""HTTP/1 conversations, and the calls that they are (RFC 9110, RFC 9112)."""

import base64
import gzip
import random
import zlib

import numpy as np
import pytest

from recordings import entry
from services.capture.dissectors.http1 import rows
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

GET = b"GET /path?a=1 HTTP/1.1\r\nHost: example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def entries(*batches, body_limit=1000, most_flows=64):
    """The HTTP entries that a pipeline makes of some lists of frames, in order of their streams."""
    pipeline = Pipeline(PipelineOptions(body_limit=body_limit, most_flows=most_flows))
    found = []
    for frames in batches:
        for calls in pipeline.take(wire.batch(frames)):
            found += entry.objects(calls.entries(np.arange(len(calls))))
    for calls in pipeline.end():
        found += entry.objects(calls.entries(np.arange(len(calls))))
    return [each for each in found if each["protocol"]["name"] == "http"]


def short(each):
    """What most tests compare."""
    request, response = each["request"] or {}, each["response"] or {}
    return (
        request.get("method"), request.get("path"), request.get("body"), response.get("status"),
        response.get("body"), (each["error"] or {}).get("type"),
    )  # fmt: skip


def shorts(*batches, **options):
    return [short(each) for each in entries(*batches, **options)]


def test_a_call():
    (call,) = entries(Conversation().open().client(GET).server(OK).frames)
    assert call["request"] == {
        "method": "GET", "url": "/path?a=1", "path": "/path", "pathSegments": ["path"],
        "queryString": {"a": "1"}, "httpVersion": "HTTP/1.1", "headers": {"Host": "example"},
        "cookies": {}, "headersSize": len(GET), "bodySize": 0, "body": "",
    }  # fmt: skip
    assert call["response"]["status"] == 200
    assert call["response"]["statusText"] == "OK"
    assert call["response"]["body"] == "hello"
    assert call["protocol"] == {"name": "http", "version": "1.1", "abbr": "HTTP"}
    assert (call["src"]["ip"], call["src"]["port"]) == ("10.0.0.1", 40000)
    assert (call["dst"]["ip"], call["dst"]["port"]) == ("10.0.0.2", 80)
    assert call["elapsedTime"] == 1
    assert call["error"] is None


def test_the_client_may_have_the_lower_or_the_higher_address():
    talk = Conversation(client="10.9.9.9", server="10.0.0.2").open().client(GET).server(OK)
    (call,) = entries(talk.frames)
    assert (call["src"]["ip"], call["dst"]["ip"]) == ("10.9.9.9", "10.0.0.2")


def test_calls_on_one_connection_have_ascending_indexes():
    talk = Conversation().open()
    for _ in range(5):
        talk.client(GET).server(OK)
    found = entries(talk.frames[:9], talk.frames[9:])
    assert [each["index"] for each in found] == [0, 1, 2, 3, 4]
    assert len({each["stream"] for each in found}) == 1


def test_pipelined_requests_are_answered_in_order():
    requests = b"".join(b"GET /%d HTTP/1.1\r\n\r\n" % n for n in range(9))
    answers = b"".join(b"HTTP/1.1 20%d X\r\nContent-Length: 0\r\n\r\n" % n for n in range(9))
    found = shorts(Conversation().open().client(requests, 7).server(answers, 11).frames)
    assert [(path, status) for _, path, _, status, _, _ in found] == [
        (f"/{n}", 200 + n) for n in range(9)
    ]


BODIES = [
    pytest.param(b"Content-Length: 5\r\n\r\nhello", "hello", id="length"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", "hello",
                 id="chunked"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nTrailer: t\r\n\r\n",
                 "hello", id="chunk extension and trailer"),
    pytest.param(b"transfer-ENCODING: gzip, chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
                 "0123456789", id="case"),
    pytest.param(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", "x",
                 id="chunked wins over length"),
]  # fmt: skip


@pytest.mark.parametrize(("tail", "body"), BODIES)
def test_bodies_end_where_they_should(tail, body):
    answer = b"HTTP/1.1 200 OK\r\n" + tail
    talk = Conversation().open().client(GET).server(answer).client(GET).server(OK)
    assert [each[4] for each in shorts(talk.frames)] == [body, "hello"]


def test_a_body_until_the_connection_closes():
    answer = b"HTTP/1.0 200 OK\r\n\r\nall of it"
    talk = Conversation().open().client(b"GET / HTTP/1.0\r\n\r\n").server(answer, 4).close()
    assert shorts(talk.frames) == [("GET", "/", "", 200, "all of it", None)]


def test_answers_without_a_body():
    length = b"Content-Length: 99\r\n\r\n"
    talk = Conversation().open()
    talk.client(b"HEAD /head HTTP/1.1\r\n\r\n").server(b"HTTP/1.1 200 OK\r\n" + length)
    talk.client(b"GET /same HTTP/1.1\r\n\r\n").server(b"HTTP/1.1 304 Not Modified\r\n" + length)
    talk.client(b"DELETE /gone HTTP/1.1\r\n\r\n").server(b"HTTP/1.1 204 No Content\r\n\r\n")
    found = shorts(talk.frames)
    assert [each[3:] for each in found] == [(200, "", None), (304, "", None), (204, "", None)]


def test_interim_answers_are_not_the_answer():
    talk = Conversation().open()
    talk.client(b"POST / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    talk.server(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
    talk.client(b"ab").server(OK)
    assert shorts(talk.frames) == [("POST", "/", "ab", 200, "hello", None)]


def test_after_an_upgrade_nothing_is_http():
    talk = Conversation().open().client(b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n")
    talk.server(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").client(GET).server(OK)
    assert shorts(talk.frames) == [("GET", "/chat", "", 101, "", None)]


def test_connect_makes_a_tunnel():
    talk = Conversation().open().client(b"CONNECT a:443 HTTP/1.1\r\n\r\n")
    talk.server(b"HTTP/1.1 200 OK\r\n\r\n").client(b"\1hello" + GET).server(b"\2" + OK)
    assert shorts(talk.frames) == [("CONNECT", "a:443", "", 200, "", None)]


def test_a_tunnel_may_have_http_in_it():
    talk = Conversation().open().client(b"CONNECT a:80 HTTP/1.1\r\n\r\n")
    talk.server(b"HTTP/1.1 200 OK\r\n\r\n").client(GET).server(OK).client(GET).server(OK)
    call = "GET", "/path", "", 200, "hello", None
    assert shorts(talk.frames) == [("CONNECT", "a:80", "", 200, "", None), call, call]


PLAIN = b"plain text, " * 9


@pytest.mark.parametrize(
    ("coding", "octets"),
    [
        ("gzip", gzip.compress(PLAIN, mtime=0)),
        ("x-gzip", gzip.compress(PLAIN, mtime=0)),
        ("deflate", zlib.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)[2:-4]),
        ("identity", PLAIN),
    ],
)
def test_coded_bodies_are_shown_plain(coding, octets):
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(octets)}\r\n\r\n"
    talk = Conversation().open().client(GET).server(head.encode() + octets)
    assert shorts(talk.frames)[0][4] == PLAIN.decode()


def test_brotli_and_zstandard_bodies_are_shown_plain():
    brotli = pytest.importorskip("brotli")
    zstandard = pytest.importorskip("zstandard")
    for coding, octets in (
        (b"br", brotli.compress(PLAIN)),
        (b"zstd", zstandard.compress(PLAIN)),
        (b"gzip, br", brotli.compress(gzip.compress(PLAIN))),
    ):
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n"
        answer = head % (coding, len(octets)) + octets
        talk = Conversation().open().client(GET).server(answer)
        assert shorts(talk.frames)[0][4] == PLAIN.decode()


def test_a_bomb_is_cut_at_the_limit():
    bomb = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    talk = Conversation().open().client(GET).server(head + bomb)
    (call,) = entries(talk.frames, body_limit=len(bomb))
    assert len(call["response"]["body"]) == len(bomb)
    assert call["response"]["bodyTruncated"] is True


def test_a_body_that_is_not_what_its_coding_says_stays_as_it_was_sent():
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"
    assert shorts(Conversation().open().client(GET).server(head).frames)[0][4] == "hello"


def test_a_body_that_is_no_text_is_base64():
    octets = bytes(range(256))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 256\r\n\r\n" + octets
    (call,) = entries(Conversation().open().client(GET).server(head).frames)
    assert call["response"]["bodyEncoding"] == "base64"
    assert base64.b64decode(call["response"]["body"]) == octets


def test_a_long_body_is_cut_between_characters():
    text = "ä" * 50
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text.encode())}\r\n\r\n{text}".encode()
    (call,) = entries(Conversation().open().client(GET).server(head, 3).frames, body_limit=11)
    assert call["response"]["body"] == "ä" * 5
    assert call["response"]["bodyTruncated"] is True
    assert call["response"]["bodySize"] == 100


def test_no_bodies_are_kept_when_none_are_wanted():
    (call,) = entries(Conversation().open().client(GET).server(OK).frames, body_limit=0)
    assert "body" not in call["response"]
    assert call["response"]["bodySize"] == 5


def test_a_request_without_an_answer():
    talk = Conversation().open().client(GET)
    assert shorts(talk.frames) == [("GET", "/path", "", None, None, "timeout")]
    talk.close()
    assert shorts(talk.frames) == [("GET", "/path", "", None, None, "pair-not-found")]


def test_an_answer_without_a_request():
    talk = Conversation().open().skip("client", len(GET)).server(OK)
    (call,) = entries(talk.frames)
    assert short(call) == (None, None, None, 200, "hello", "pair-not-found")
    assert call["request"] is None
    assert call["src"]["port"] == 40000


def test_a_lost_answer_does_not_shift_those_behind_it():
    talk = Conversation().open().client(b"GET /1 HTTP/1.1\r\n\r\n").skip("server", len(OK))
    talk.client(b"GET /2 HTTP/1.1\r\n\r\n").server(OK.replace(b"200", b"201"))
    talk.client(b"GET /3 HTTP/1.1\r\n\r\n").server(OK.replace(b"200", b"202"))
    found = shorts(talk.frames)
    assert ("GET", "/2", "", 201, "hello", None) in found
    assert ("GET", "/3", "", 202, "hello", None) in found
    assert ("GET", "/1", "", None, None, "gap") in found


def test_a_gap_in_a_body_is_an_error_of_its_call_only():
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    talk = Conversation().open().client(GET).server(answer).skip("server", 4).server(b"xyz")
    talk.client(GET).server(OK)
    found = entries(talk.frames)
    assert [short(each)[5] for each in found] == ["gap", None]
    assert found[0]["error"]["msg"] == "the response was not captured whole"


def test_a_connection_that_was_open_before_is_joined_at_the_next_message():
    talk = Conversation().client(b"the end of a body").client(GET).server(OK)
    assert shorts(talk.frames) == [("GET", "/path", "", 200, "hello", None)]


def test_repeated_headers_and_cookies():
    request = b"GET / HTTP/1.1\r\nAccept: a\r\nAccept: b\r\nCookie: x=1; y=2\r\n\r\n"
    cookies = b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\n"
    answer = b"HTTP/1.1 200 OK\r\n" + cookies + b"Content-Length: 0\r\n\r\n"
    (call,) = entries(Conversation().open().client(request).server(answer).frames)
    assert call["request"]["headers"]["Accept"] == "a, b"
    assert call["request"]["cookies"] == {"x": "1", "y": "2"}
    assert call["response"]["headers"]["Set-Cookie"] == ["a=1; Path=/", "b=2"]


def test_lines_may_end_in_lf_alone_and_odd_octets_are_latin_1():
    request = b"GET /\xe9 HTTP/1.1\nX: caf\xe9\n\n"
    (call,) = entries(Conversation().open().client(request).server(OK).frames)
    assert call["request"]["path"] == "/é"
    assert call["request"]["headers"] == {"X": "café"}


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nContent-Length: 5, 6\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / FTP/1.1\r\n\r\n",
    ],
)
def test_a_head_that_makes_no_sense_makes_no_call_and_ends_nothing_else(octets):
    talk = Conversation().open().client(octets)
    other = Conversation(client_port=41000).open().client(GET).server(OK)
    assert shorts(talk.frames + other.frames) == [("GET", "/path", "", 200, "hello", None)]


def test_what_is_not_http_is_left_alone():
    assert shorts(Conversation().open().client(b"SSH-2.0-x\r\n").server(b"SSH-2.0-y").frames) == []


TALK = [
    ("client", b"POST /one HTTP/1.1\r\nContent-Length: 3\r\nA: b\r\n\r\nabc"),
    ("server", b"HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"),
    ("client", b"GET /two HTTP/1.1\r\n\r\n"),
    ("server", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("client", b"HEAD /three HTTP/1.1\r\n\r\n"),
    ("server", b"HTTP/1.1 404 No\r\nContent-Length: 7\r\n\r\n"),
]
TALKED = [
    ("POST", "/one", "abc", 201, "xyz", None),
    ("GET", "/two", "", 200, "ok", None),
    ("HEAD", "/three", "", 404, "", None),
]


@pytest.mark.parametrize("size", range(1, 64))
def test_cut_at_every_octet_the_calls_are_the_same(size):
    talk = Conversation().open()
    for who, octets in TALK:
        talk._say(who, octets, size)
    assert shorts(talk.frames) == TALKED
    assert shorts(*[[frame] for frame in talk.frames]) == TALKED


@pytest.mark.parametrize("seed", range(20))
def test_out_of_order_the_calls_are_the_same(seed):
    """Within a message any order; a request comes before its answer, as the wire has it."""
    chance = random.Random(seed)
    talk = Conversation().open()
    frames = list(talk.frames)
    for who, octets in TALK:
        said = len(talk.frames)
        talk._say(who, octets, 5)
        mine = talk.frames[said:]
        chance.shuffle(mine)
        frames += mine + chance.sample(mine, 1)
    assert shorts(frames) == TALKED


def test_messages_that_wait_longer_than_the_ring_reaches_are_given_up_not_mixed_up():
    framer = rows.new_framer(64, 100, messages=64, arena_octets=1 << 16)
    pipeline = Pipeline(PipelineOptions(body_limit=100, most_flows=64))
    pipeline.framer = framer
    slow = Conversation(client_port=50000).open().client(b"GET /slow HTTP/1.1\r\n\r\n")
    busy = Conversation().open()
    for _ in range(200):
        busy.client(GET).server(OK)
    asked = slow.frames[:]
    frames = [asked, busy.frames, slow.server(OK).frames[len(asked) :]]
    found = []
    for each in frames:
        for calls in pipeline.take(wire.batch(each[:])):
            found += [short(e) for e in entry.objects(calls.entries(np.arange(len(calls))))]
    assert found[-1] == (None, None, None, 200, "hello", "timeout")


def test_mutations_of_conversations_end_with_calls_or_without():
    chance = np.random.default_rng(11)
    pipeline = Pipeline(PipelineOptions(body_limit=64, most_flows=64))
    talk = Conversation().open()
    for who, octets in TALK * 3:
        talk._say(who, octets, 40)
    for turn in range(1500):
        frames = [bytearray(f) for f in talk.frames]
        for frame in frames:
            if len(frame) > 54 and chance.random() < 0.2:
                frame[chance.integers(54, len(frame))] = chance.integers(256)
            frame[35] = turn % 200  # another port, another stream
        for calls in pipeline.take(wire.batch([bytes(f) for f in frames])):
            entry.objects(calls.entries(np.arange(len(calls))))
    pipeline.end()
