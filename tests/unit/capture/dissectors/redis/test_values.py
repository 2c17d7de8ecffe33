"""What an entry shows of a command and of a reply, and what it never shows."""

import json
import random

import pytest

from services.capture.dissectors.redis.values import CUT, HIDDEN, MOST_DEPTH, command, reply


def resp(*words):
    octets = b"*%d\r\n" % len(words)
    for word in words:
        word = word if isinstance(word, bytes) else word.encode()
        octets += b"$%d\r\n%s\r\n" % (len(word), word)
    return octets


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["get", "k"], {"command": "GET", "key": "k"}),
        (["PING"], {"command": "PING"}),
        (["SET", "k", "v"], {"command": "SET", "key": "k", "value": "v"}),
        (["SET", "k", "v", "EX", "10"], {"command": "SET", "key": "k", "value": "v",
                                         "keyword": "EX 10"}),
        (["SET", "k", b"\xff\x00"], {"command": "SET", "key": "k", "value": "\xff\x00"}),
        (["SET", "k", "\u00e9"], {"command": "SET", "key": "k", "value": "\u00e9"}),
    ],
)  # fmt: skip
def test_a_command_is_its_name_key_value_and_what_follows(words, shown):
    assert command(resp(*words)) == {"type": "Array"} | shown


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"PING\r\n", ["PING"]),
        (b"  SET  k   v \n", ["SET", "k", "v"]),
        (b'SET "a b" "\\x41\\n\\"c"\r\n', ["SET", "a b", 'A\n"c']),
        (b"SET 'a b' 'it\\'s'\r\n", ["SET", "a b", "it's"]),
        (b'SET "open end', ["SET", "open end"]),
        (b'SET k"x y"z', ["SET", "kx yz"]),
        (b"SET k\\", ["SET", "k\\"]),
    ],
)
def test_a_line_is_split_as_the_server_splits_it(line, words):
    found = command(line)
    assert found.pop("type") == "Inline"
    assert list(found.values()) == words


@pytest.mark.parametrize(
    "words",
    [
        ["AUTH", "s3cret"],
        ["auth", "user", "s3cret"],
        ["HELLO", "3", "AUTH", "user", "s3cret", "SETNAME", "n"],
        ["MIGRATE", "h", "6379", "k", "0", "9", "AUTH2", "user", "s3cret"],
        ["ACL", "SETUSER", "bob", "on", ">s3cret"],
        ["CONFIG", "SET", "maxmemory", "1", "requirepass", "s3cret"],
        ["SENTINEL", "SET", "mymaster", "auth-pass", "s3cret"],
        ["SENTINEL", "CONFIG", "SET", "sentinel-pass", "s3cret"],
    ],
)
def test_passwords_are_never_shown(words):
    whole = resp(*words)
    for cut in range(len(whole) + 1):
        assert "s3" not in json.dumps(command(whole[:cut])), cut
    assert HIDDEN in json.dumps(command(whole))
    if words[0] != "ACL":
        assert "s3" not in json.dumps(command(" ".join(words).encode() + b"\r\n"))
        quoted = " ".join(f'"{each}"' for each in words)
        assert "s3" not in json.dumps(command(quoted.encode() + b"\r\n"))


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (["CONFIG", "GET", "*"], resp("port", "6379", "requirepass", "s3cret", "save", "")),
        (["CONFIG", "GET", "*"], b"%1\r\n$10\r\nmasterauth\r\n$6\r\ns3cret\r\n"),
        (["acl", "genpass"], b"$6\r\ns3cret\r\n"),
        (["ACL", "LIST"], resp("user default on #s3cret")),
    ],
)
def test_passwords_that_a_server_tells_are_never_shown(asked, got):
    shown = json.dumps(reply(got, resp(*asked)))
    assert "s3cret" not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize(
    ("got", "kind", "value"),
    [
        (b"+OK\r\n", "Simple String", "OK"),
        (b"-ERR no\r\n", "Error", "ERR no"),
        (b":-12\r\n", "Integer", -12),
        (b":99999999999999999999\r\n", "Integer", "99999999999999999999"),
        (b"$-1\r\n", "Bulk String", None),
        (b"$0\r\n\r\n", "Bulk String", ""),
        (b"*-1\r\n", "Array", None),
        (b"*2\r\n:1\r\n*1\r\n$1\r\na\r\n", "Array", [1, ["a"]]),
        (b"%1\r\n+a\r\n:1\r\n", "Map", {"a": 1}),
        (b"%1\r\n*1\r\n:1\r\n:2\r\n", "Map", {"[1]": 2}),
        (b"~1\r\n:1\r\n", "Set", [1]),
        (b",1.5\r\n", "Double", 1.5),
        (b",inf\r\n", "Double", "inf"),
        (b"_\r\n", "Null", None),
        (b"#t\r\n", "Boolean", True),
        (b"(123456789012345678901\r\n", "Big Number", "123456789012345678901"),
        (b"=7\r\ntxt:abc\r\n", "Verbatim String", "abc"),
        (b"!5\r\nERR x\r\n", "Bulk Error", "ERR x"),
        (b"|1\r\n+a\r\n:1\r\n+OK\r\n", "Simple String", "OK"),
    ],
)
def test_each_type_of_reply(got, kind, value):
    assert reply(got, resp("GET", "k")) == {"type": kind, "value": value}
    for cut in range(len(got)):
        json.dumps(reply(got[:cut]))


def test_a_list_that_begins_like_a_message_of_a_channel_is_one_only_without_a_command():
    octets = resp("message", "news", "rain")
    assert reply(octets) == {"type": "Array", "command": "message", "key": "news", "value": "rain"}
    listed = {"type": "Array", "value": ["message", "news", "rain"]}
    assert reply(octets, resp("LRANGE", "l", "0", "2")) == listed


def test_what_is_cut_or_too_deep_or_too_much_says_so():
    assert command(resp("SET", "k", "v" * 100)[:40])["value"].endswith(CUT)
    assert reply(b"*2\r\n:1\r\n:")["value"] == [1, CUT]
    deep = json.dumps(reply(b"*1\r\n" * 100_000))
    assert deep.count("[") == MOST_DEPTH + 1
    assert len(reply(b"*100000\r\n" + b":1\r\n" * 100_000)["value"]) < 5000


@pytest.mark.parametrize("octet", [b'"', b"'", b"\\", b'"\\', b'a"', b'\\"', b" "])
def test_any_line_is_split_in_linear_time(octet):
    found = command(b"SET " + octet * (65_000 // len(octet)))  # a quadratic one takes minutes
    assert found["command"] == "SET"


def test_any_octets_are_shown_somehow():
    chance = random.Random(1)
    seeds = [
        resp("SET", "k", "v", "EX"),
        b"%1\r\n+a\r\n|1\r\n:1\r\n:2\r\n,1e9\r\n",
        b'SET "a\\x4',
    ] * 2
    for _ in range(5000):
        octets = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 4)):
            octets[chance.randrange(len(octets))] = chance.choice(b"*$%|>~\r\n-019\xff ")
        json.dumps([command(bytes(octets)), reply(bytes(octets), bytes(octets))])
