"""Where RESP values end, and which reply answers which command, whatever is lost of them."""

import json
import random

import numpy as np
import pytest

from recordings import entry
from services.capture.calls import Calls, Node
from services.capture.dissectors.dissector import IS_SERVER, OTHER_MISSED
from services.capture.dissectors.redis import RedisDissector
from services.capture.dissectors.redis.entries import RedisCalls
from services.capture.dissectors.redis.framing import LONGEST_LINE
from services.capture.dissectors.redis.rows import MOST_KEPT, new_framer
from services.capture.flows import new_streams
from services.capture.reassembly import DATA, ENDED, GAP, OPENED, SEGMENT

CLIENT, SERVER = 0, IS_SERVER
MILLISECOND = 1_000_000
STREAMS = new_streams(1024)


def resp(*words):
    octets = b"*%d\r\n" % len(words)
    return octets + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in map(str.encode, words))


class Wire:
    """Segments of connections in the order in which they came, and what is made of them."""

    def __init__(self, messages=1 << 10, arena=1 << 20):
        self.dissector = RedisDissector(None, 64)
        self.dissector._framer = new_framer(64, messages, arena)
        self.rows, self.marks, self.place = [], [], bytearray()
        self.sent = {}  # (stream, side): octets
        self.now = 0
        self.found = []

    def say(self, side, octets, stream=1, mark=0, after=MILLISECOND, kind=DATA, missing=0):
        self.now += after
        row = np.zeros(1, SEGMENT)
        row["timestamp"], row["stream"], row["kind"] = self.now, stream, kind
        row["direction"] = 2 * stream + side
        row["position"], row["length"] = len(self.place), len(octets) or missing
        row["acknowledged"] = self.sent.get((stream, 1 - side), 0)
        row["has_acknowledged"] = 1
        self.sent[stream, side] = self.sent.get((stream, side), 0) + len(octets) + missing
        self.place += octets
        self.rows.append(row)
        self.marks.append(side | mark)
        return self

    def client(self, *words, **more):
        return self.say(CLIENT, words[0] if isinstance(words[0], bytes) else resp(*words), **more)

    def server(self, octets, **more):
        return self.say(SERVER, octets, **more)

    def skip(self, side, octets, stream=1):
        return self.say(side, b"", stream, kind=GAP, missing=octets)

    def end(self, stream=1):
        return self.say(CLIENT, b"", stream, kind=ENDED)

    def feed(self):
        if self.rows:
            octets = np.frombuffer(bytearray(self.place or b"x"), np.uint8)
            marks = np.array(self.marks, np.uint8)
            self.dissector.take(np.concatenate(self.rows), marks, octets, np.zeros(1, np.uint8))
            self.rows, self.marks, self.place = [], [], bytearray()

    def take(self):
        self.feed()
        calls = self.dissector.calls()
        if calls is not None:
            calls = Calls(calls, STREAMS, Node("", ""))
            self.found += entry.objects(calls.entries(np.arange(len(calls))))
        return self

    def pairs(self):
        """(command and key, value of the reply, type of error) of each entry so far."""
        self.take()
        return [
            (
                " ".join(each["request"][k] for k in ("command", "key") if k in each["request"])
                if each["request"] else None,
                each["response"] and each["response"].get("value"),
                each["error"] and each["error"]["type"],
            )
            for each in self.found
        ]  # fmt: skip


TALK = [
    (CLIENT, resp("SET", "a", "1")), (SERVER, b"+OK\r\n"),
    (CLIENT, resp("LRANGE", "l")), (SERVER, b"*3\r\n$1\r\nx\r\n*1\r\n:5\r\n$-1\r\n"),
    (CLIENT, b"PING\r\n"), (SERVER, b"+PONG\r\n"),
    (CLIENT, resp("HELLO", "3")), (SERVER, b"%1\r\n+proto\r\n:3\r\n"),
    (CLIENT, resp("GET", "k")), (SERVER, b"|1\r\n+ttl\r\n:9\r\n$4\r\na\r\nb\r\n"),
    (CLIENT, resp("MGET", "k")), (SERVER, b"*0\r\n"),
]  # fmt: skip
PAIRS = [
    ("SET a", "OK", None), ("LRANGE l", ["x", [5], None], None), ("PING", "PONG", None),
    ("HELLO 3", {"proto": 3}, None), ("GET k", "a\r\nb", None), ("MGET k", [], None),
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_it_does_not_matter_how_the_octets_are_cut(size):
    wire = Wire()
    for side, octets in TALK:
        for at in range(0, len(octets), size):
            wire.say(side, octets[at : at + size])
            if size == 3:
                wire.take()
    assert wire.pairs() == PAIRS
    sizes = [(each["requestSize"], each["responseSize"]) for each in wire.found]
    assert sizes == [
        (len(asked), len(said)) for (_, asked), (_, said) in zip(TALK[::2], TALK[1::2], strict=True)
    ]


def test_pipelined_commands_are_answered_in_order():
    wire = Wire().client(b"".join(resp("INCR", str(n)) for n in range(500)))
    wire.server(b"".join(b":%d\r\n" % n for n in range(500)))
    assert wire.pairs() == [(f"INCR {n}", n, None) for n in range(500)]


def test_calls_that_do_not_fit_at_once_are_not_lost():
    wire = Wire(messages=1 << 7)
    for _ in range(20):
        wire.client(b"".join(resp("INCR", str(n)) for n in range(50)))
        wire.server(b"".join(b":%d\r\n" % n for n in range(50)))
        wire.take()
    assert wire.pairs() == [(f"INCR {n}", n, None) for n in range(50)] * 20


@pytest.mark.parametrize("lost", range(len(TALK)))
def test_a_gap_loses_only_what_it_touches(lost):
    touched = lost // 2
    others = [each for number, each in enumerate(PAIRS) if number != touched]
    side, octets = TALK[lost]
    for begin in range(len(octets)):
        wire = Wire().client("PING").server(b"+PONG\r\n")
        for who, message in TALK[:lost]:
            wire.say(who, message, after=60 * MILLISECOND)
        if begin:
            wire.say(side, octets[:begin])
        wire.skip(side, min(3, len(octets) - begin))
        if octets[begin + 3 :]:
            wire.say(side, octets[begin + 3 :])
        for who, message in TALK[lost + 1 :]:
            wire.say(who, message, after=60 * MILLISECOND)
        whole = [each for each in wire.end().pairs()[1:] if each[2] is None]
        found = [each for each in whole if each in others]
        assert found == [each for each in others if each in found], "in order"
        assert len(found) >= len(others) - 1, (begin, wire.pairs())
        strange = [each for each in whole if each not in others]
        assert len(strange) <= 1
        if strange and side == CLIENT:  # its name or key is cut, but not what answers it
            assert strange[0][1] == PAIRS[touched][1]
        elif strange:
            assert strange[0][0] == PAIRS[touched][0]
        assert wire.dissector.broken == []


def test_a_gap_inside_a_string_costs_its_text_alone():
    wire = Wire().client("GET", "k").server(b"$10\r\nabc").skip(SERVER, 4).server(b"def\r\n")
    wire.client("GET", "l").server(b"+OK\r\n")
    (first, second) = wire.pairs()
    assert (first[0], second) == ("GET k", ("GET l", "OK", None))
    assert first[1].startswith("abc")
    assert wire.found[0]["responseSize"] == 17


def test_a_stream_under_way_is_paired_from_the_first_command_that_was_seen():
    wire = Wire()
    wire.sent[1, SERVER] = 1000
    wire.client("GET", "k", mark=OTHER_MISSED).server(b"+OK\r\n").client("GET", "l")
    assert wire.server(b"+NO\r\n").pairs() == [("GET k", "OK", None), ("GET l", "NO", None)]


def test_a_client_that_does_not_wait_is_soon_not_paired_wrong_any_more():
    wire = Wire()
    wire.sent[1, SERVER] = 1000
    wire.client("GET", "2", mark=OTHER_MISSED)  # unseen, 0 and 1 wait
    wire.server(b":0\r\n").client("GET", "3").server(b":1\r\n").client("GET", "4")
    wire.client("GET", "5").server(b":2\r\n").client("GET", "6").server(b":3\r\n:4\r\n:5\r\n")
    wire.server(b":6\r\n").client("GET", "7", after=100 * MILLISECOND).server(b":7\r\n")
    wire.client("GET", "8").server(b":8\r\n")
    pairs = wire.end().pairs()
    assert pairs[-2:] == [("GET 7", 7, None), ("GET 8", 8, None)]
    wrong = [each for each in pairs if None not in each[:2] and each[0] != f"GET {each[1]}"]
    assert [each[0] for each in wrong] == ["GET 2", "GET 3", "GET 4"], "until 6 came before 5's"


def test_messages_of_channels_answer_nothing():
    wire = Wire().client("SUBSCRIBE", "a", "b")
    wire.server(resp("subscribe", "a", "1") + resp("subscribe", "b", "2"))
    wire.server(resp("message", "a", "hi")).client("PING").server(resp("pong", ""))
    shown = [(each[0], each[1]) for each in wire.pairs()]
    assert shown == [
        ("SUBSCRIBE a", "1"), (None, "2"), (None, "hi"), ("PING", ["pong", ""]),
    ]  # fmt: skip
    assert [each["error"] for each in wire.found] == [None] * 4


def test_commands_whose_replies_are_off_wait_for_none():
    wire = (
        Wire().client("CLIENT", "REPLY", "OFF").client("SET", "a").client("CLIENT", "REPLY", "ON")
    )
    wire.server(b"+OK\r\n").client("CLIENT", "REPLY", "SKIP").client("SET", "b")
    assert wire.client("GET", "c").server(b"+C\r\n").pairs() == [
        ("CLIENT REPLY", None, None), ("SET a", None, None), ("CLIENT REPLY", "OK", None),
        ("CLIENT REPLY", None, None), ("SET b", None, None), ("GET c", "C", None),
    ]  # fmt: skip


def test_what_follows_replication_is_no_more_read():
    wire = Wire().client("PSYNC", "?", "-1").server(b"+FULLRESYNC x 0\r\n$3\r\nabc*1\r\n")
    assert wire.pairs() == [("PSYNC ?", None, "pair-not-found")]
    assert (wire.dissector.over, wire.dissector.broken) == ([1], [])


def test_a_command_without_a_reply_says_so_when_its_stream_ends():
    assert Wire().client("GET", "a").end().pairs() == [("GET a", None, "pair-not-found")]
    wire = Wire().client("GET", "a").say(CLIENT, b"", stream=1, kind=OPENED)
    wire.rows[-1]["stream"] = 65
    assert wire.pairs() == [("GET a", None, "pair-not-found")]


def test_an_empty_line_and_an_empty_list_are_no_commands():
    wire = Wire().client(b"\r\n*0\r\n\n" + resp("GET", "a")).server(b"+A\r\n")
    assert wire.pairs() == [("GET a", "A", None)]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"*1\r\n:5\r\n",
        b"*x\r\n",
        b"*1\r\n$-1\r\n",
        b"*9999999\r\n",
        b"*1\n",
        b"\0",
        b"$1\r\na\r\n",
        b"*1\r\n$1\r\nab\r\n",
        b"*1\r\n$1\r\na\rb",
        b"*1\r\n$9999999999999\r\n",
    ],
)
def test_what_is_no_command_ends_the_stream_alone(nonsense):
    wire = Wire().client("GET", "a").server(b"+A\r\n").client(nonsense).client("GET", "b")
    wire.client("GET", "c", stream=2).server(b"+C\r\n", stream=2)
    assert wire.pairs() == [("GET a", "A", None), ("GET c", "C", None)]
    assert (wire.dissector.broken, wire.dissector.refused) == ([1], [])
    wire = Wire().client(nonsense)
    assert (wire.pairs(), wire.dissector.broken, wire.dissector.refused) == ([], [], [1])


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 200 OK\r\n", b"$x\r\n", b"+OK\n", b"$1\r\nab\r\n"])
def test_what_is_no_reply_ends_the_stream_too(nonsense):
    wire = Wire().client("GET", "a").server(b"+A\r\n").client("GET", "b").server(nonsense)
    assert wire.pairs() == [("GET a", "A", None), ("GET b", None, "pair-not-found")]
    assert wire.dissector.broken == [1]
    wire = Wire().client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").server(nonsense)
    assert (wire.pairs(), wire.dissector.refused) == ([], [1])


def test_what_follows_nonsense_in_the_same_batch_is_no_other_stream():
    wire = Wire().client("GET", "a").server(b"+A\r\n").client("GET", "b").server(b"nonsense\r\n")
    wire.client("GET", "c").server(b"+C\r\n").client(b"nonsense").client(b"\r\n*x").feed()
    assert (wire.dissector.broken, wire.dissector.refused) == ([1], [])
    assert wire.pairs() == [("GET a", "A", None), ("GET b", None, "pair-not-found")]


def test_a_line_has_an_end():
    wire = Wire().client(b"x" * (LONGEST_LINE + 2))
    assert (wire.pairs(), wire.dissector.refused) == ([], [1])


def test_a_long_value_is_framed_and_its_begin_is_shown():
    wire = Wire()
    octets = resp("SET", "k", "v" * 300_000)
    for at in range(0, len(octets), 1460):
        wire.client(octets[at : at + 1460])
        wire.client("PING", stream=2)
    wire.server(b"+OK\r\n").take()
    (found,) = [each for each in wire.found if each["request"]["command"] == "SET"]
    assert found["requestSize"] == len(octets)
    assert MOST_KEPT - 100 < len(found["request"]["value"]) <= MOST_KEPT


def test_octets_one_by_one_among_others_take_no_more_room_than_twice():
    wire = Wire(arena=1 << 22)
    octets = resp("SET", "k", "v" * 3000)
    for octet in octets:
        wire.client(bytes([octet]))
        wire.client(b"P", stream=2)
        wire.client(b"\r\n", stream=3)
    wire.server(b"+OK\r\n")
    assert wire.pairs()[0] == ("SET k", "OK", None)
    assert wire.found[0]["request"]["value"] == "v" * 3000
    assert wire.dissector._framer.arena.write[0] < 8 * len(octets)


def test_what_is_overwritten_is_counted():
    wire = Wire(messages=1 << 6)
    wire.client("PING").server(b"+PONG\r\n").client("BLPOP", "slow").take()
    for n in range(70):
        wire.client("GET", str(n), stream=2).server(b"+OK\r\n", stream=2).take()
    wire.server(b"+LATE\r\n")
    assert wire.pairs()[-1][1:] == ("LATE", "timeout")
    assert wire.dissector.overrun == 1


def test_what_is_remembered_can_be_had_as_long_as_it_is_kept():
    wire = Wire(messages=1 << 5)
    wire.client("GET", "a").server(b"+A\r\n")
    wire.feed()
    wire.dissector.remember(wire.dissector.calls(), np.array([7], np.int32))
    calls, indexes = wire.dissector.earlier(np.array([1, 5]))
    assert isinstance(calls, RedisCalls)
    assert (indexes.tolist(), calls.streams.tolist()) == ([7], [1])
    assert wire.dissector.earlier(np.array([2])) is None
    for n in range(40):
        wire.client("GET", str(n), stream=2).server(b"+OK\r\n", stream=2)
    wire.take()
    assert wire.dissector.earlier(np.array([1])) is None


@pytest.mark.parametrize("seed", range(20))
def test_any_octets_and_gaps_are_taken(seed):
    chance = random.Random(seed)
    wire = Wire(messages=1 << 6, arena=1 << 17)
    for _ in range(300):
        stream = chance.randrange(1, 5)
        side, octets = chance.choice(TALK)
        octets = bytearray(octets)
        for _ in range(chance.randrange(3)):
            octets[chance.randrange(len(octets))] = chance.choice(b"*$%|>~\r\n-019\xff ")
        if chance.random() < 0.1:
            wire.skip(side, chance.choice([0, 1, 5, 100]), stream)
        elif chance.random() < 0.05:
            wire.end(stream)
        else:
            cut = chance.randrange(1, len(octets) + 1)
            wire.say(side, bytes(octets[:cut]), stream, chance.choice([0, 0, OTHER_MISSED]))
        if chance.random() < 0.1:
            wire.take()
    json.dumps(wire.pairs())
