"""Pairing, told as conversations: which query and which response make one entry."""

import struct

import numpy as np
import pytest

from services.capture.dissectors.dns import Dns, DnsOptions

CLIENT, SERVER = 0, 1
SECOND = 1_000_000_000


def query(id=1, name="a", kind=1):
    labels = bytes([len(name)]) + name.encode() + b"\0"
    return struct.pack(">6H", id, 0x0100, 1, 0, 0, 0) + labels + struct.pack(">HH", kind, 1)


def response(id=1, name="a", kind=1, rcode=0):
    octets = bytearray(query(id, name, kind))
    octets[2:4] = struct.pack(">H", 0x8180 | rcode)
    return bytes(octets)


def headless(id=1, flags=0x8181):
    """A response that does not repeat the question."""
    return struct.pack(">6H", id, flags, 0, 0, 0, 0)


@pytest.fixture
def run(wire):
    def run(*messages, multicast=False, end=True, options=None):
        dns = Dns(options)
        wire.take(dns, messages, multicast)
        if end:
            dns.end()
        return wire.entries(dns.calls())

    return run


def seen(entry):
    """(start, end, name asked, code, error) of an entry."""
    asked = entry["request"] and entry["request"]["questions"][0]["name"]
    code = entry["response"] and entry["response"]["code"]
    return entry["start"], entry["end"], asked, code, entry["error_type"]


def test_a_response_answers_its_query(run):
    (entry,) = run((0, 5, CLIENT, query()), (12, 5, SERVER, response(rcode=3)))
    assert seen(entry) == (0, 12, "a", "NXDOMAIN", None)
    assert (entry["stream"], entry["direction"], entry["error_msg"]) == (5, CLIENT, None)


def test_responses_in_another_order(run):
    found = run(
        (0, 1, CLIENT, query(1, "a")),
        (1, 1, CLIENT, query(2, "b")),
        (2, 1, SERVER, response(2, "b")),
        (3, 1, SERVER, response(1, "a")),
    )
    assert [seen(entry)[:3] for entry in found] == [(1, 2, "b"), (0, 3, "a")]


def test_the_same_id_for_two_questions(run):
    found = run(
        (0, 1, CLIENT, query(1, "a", 1)),
        (1, 1, CLIENT, query(1, "a", 28)),
        (2, 1, SERVER, response(1, "a", 28)),
        (3, 1, SERVER, response(1, "a", 1)),
    )
    assert [seen(entry)[:2] for entry in found] == [(1, 2), (0, 3)]
    assert [entry["request"]["questions"][0]["type"] for entry in found] == ["AAAA", "A"]


def test_a_response_without_a_question_answers_the_oldest(run):
    found = run((0, 1, CLIENT, query()), (1, 1, CLIENT, query(1, "b")), (2, 1, SERVER, headless()))
    assert [seen(entry) for entry in found] == [
        (0, 2, "a", "FORMERR", None),
        (1, 2, "b", None, "timeout"),
    ]


def test_names_are_equal_in_any_case(run):
    (entry,) = run((0, 1, CLIENT, query(1, "aB")), (1, 1, SERVER, response(1, "Ab")))
    assert entry["error_type"] is None


@pytest.mark.parametrize(
    "answer",
    [
        (1, 2, SERVER, response()),
        (1, 1, CLIENT, response()),
        (1, 1, SERVER, response(2)),
        (1, 1, SERVER, response(1, "b")),
    ],
    ids=["another stream", "same direction", "another id", "another question"],
)
def test_what_is_not_the_answer(run, answer):
    lone, waiting = run((0, 1, CLIENT, query()), answer)
    assert lone["error_type"] == "pair-not-found"
    assert lone["request"] is None
    assert lone["error_msg"] == "The query that this response answers was not seen."
    assert waiting["error_type"] == "timeout"
    assert waiting["response"] is None


def test_a_query_sent_again_is_another_call_and_the_first_has_the_first_answer(run):
    found = run(
        (0, 1, CLIENT, query()),
        (5000, 1, CLIENT, query()),
        (5003, 1, SERVER, response()),
        (5004, 1, SERVER, response()),
        (6000, 1, CLIENT, query()),
        (6001, 1, SERVER, response()),
    )
    assert [seen(entry)[:2] for entry in found] == [(0, 5003), (5000, 5004), (6000, 6001)]


def test_a_copy_without_an_answer_says_that_the_first_had_one(run):
    found = run((0, 1, CLIENT, query()), (5000, 1, CLIENT, query()), (5003, 1, SERVER, response()))
    assert [entry["error_type"] for entry in found] == [None, "pair-not-found"]
    assert found[1]["error_msg"] == "The same query, sent before, had the answer."


def test_a_second_response_to_one_query_is_alone(run):
    found = run((0, 1, CLIENT, query()), (1, 1, SERVER, response()), (2, 1, SERVER, response()))
    assert [entry["error_type"] for entry in found] == [None, "pair-not-found"]


def test_a_zone_transfer_of_several_messages(run):
    found = run(
        (0, 1, CLIENT, query(1, "a", 252)),
        (1, 1, SERVER, response(1, "a", 252)),
        (2, 1, SERVER, headless(flags=0x8400)),
        (3, 1, SERVER, headless(flags=0x8400)),
    )
    assert [entry["error_type"] for entry in found] == [None, None, None]
    assert [entry["request"] is None for entry in found] == [False, True, True]


def test_announcements_and_questions_of_multicast_miss_nothing(run):
    announcement = (0, 1, CLIENT, headless(0, 0x8400))
    (entry,) = run(announcement)
    assert (entry["request"], entry["error_type"]) == (None, None)
    found = run(announcement, (1, 2, CLIENT, query()), (2, 3, SERVER, response()), multicast=True)
    assert [entry["error_type"] for entry in found] == [None, None, None]


def test_a_query_waits_ten_seconds(wire):
    dns = Dns()
    wire.take(dns, [(0, 1, CLIENT, query(1)), (2000, 1, CLIENT, query(2))])
    dns.expire(9 * SECOND)
    assert dns.calls() is None
    dns.expire(11 * SECOND)
    (entry,) = wire.entries(dns.calls())
    assert seen(entry) == (0, 10_000, "a", None, "timeout")
    assert entry["error_msg"] == "No response came within 10 s."
    wire.take(dns, [(11_000, 1, SERVER, response(1)), (11_000, 1, SERVER, response(2))])
    assert [entry["error_type"] for entry in wire.entries(dns.calls())] == ["pair-not-found", None]


def test_queries_of_streams_that_end(wire):
    dns = Dns()
    wire.take(dns, [(at, at, CLIENT, query(at)) for at in range(1, 6)])
    dns.end_streams(np.array([4, 2, 99]), 3_000_000_000)
    found = wire.entries(dns.calls())
    assert [entry["stream"] for entry in found] == [2, 4]
    assert "stream ended, 2.998 s after" in found[0]["error_msg"]
    dns.end()
    assert [entry["stream"] for entry in wire.entries(dns.calls())] == [1, 3, 5]


def test_calls_are_given_once_and_outlive_what_ends_after_them(wire):
    dns = Dns()
    wire.take(dns, [(0, 1, CLIENT, query(1, "a")), (0, 2, CLIENT, query(1, "b"))])
    wire.take(dns, [(1, 1, SERVER, response(1, "a"))])
    first = dns.calls()
    dns.end_streams(np.array([2]), SECOND)
    assert [seen(entry)[2] for entry in wire.entries(first)] == ["a"]
    wire.take(dns, [(3, 3, CLIENT, query(1, "c")), (4, 3, SERVER, response(1, "c"))])
    found = wire.entries(dns.calls())
    assert [seen(entry)[2:] for entry in found] == [("b", None, "timeout"), ("c", "NOERROR", None)]
    assert dns.calls() is None


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_a_table_that_is_full_gives_up_the_oldest_and_pairs_nothing_wrongly(wire, batch):
    random = np.random.default_rng(7)
    dns = Dns(DnsOptions(most_waiting=16, waiting_octets=1 << 17))
    messages, names = [], {}
    for at in range(1000):
        number = int(random.integers(4))
        name = f"{at}" + "x" * int(random.integers(40))
        messages.append((at, int(random.integers(3)), CLIENT, query(number, name)))
        names[at] = name
        if random.random() < 0.5:
            _, stream, _, asked = messages[int(random.integers(len(messages)))]
            answer = bytearray(asked)
            answer[2:4] = b"\x81\x80"
            messages.append((at, stream, SERVER, bytes(answer)))
    found = []
    for first in range(0, len(messages), batch):
        wire.take(dns, messages[first : first + batch])
        found += wire.entries(dns.calls())
    dns.end()
    found += wire.entries(dns.calls())
    asked = [entry["request"]["questions"][0]["name"] for entry in found if entry["request"]]
    assert sorted(asked) == sorted(names.values())
    assert any("too many other queries" in (entry["error_msg"] or "") for entry in found)
    for entry in found:
        if entry["request"] is not None:
            assert names[entry["start"]] == entry["request"]["questions"][0]["name"]


def test_long_queries_push_older_ones_out_of_the_ring(wire):
    dns = Dns(DnsOptions(waiting_octets=1 << 17))
    long = query(9, "long") + bytes(60_000)
    wire.take(dns, [(at, 1, CLIENT, query(at, f"{at}")) for at in range(100)])
    wire.take(dns, [(200 + at, 2 + at, CLIENT, long) for at in range(4)])
    dns.end()
    found = wire.entries(dns.calls())
    names = [seen(entry)[2] for entry in found]
    assert sorted(names) == sorted([*map(str, range(100)), *["long"] * 4])


def test_cut_messages_are_errors(run):
    (entry,) = run((0, 1, CLIENT, query()), (1, 1, SERVER, response()[:-2]))
    assert entry["error_type"] == "malformed"
    assert entry["error_msg"].startswith("The response is cut or damaged: 0 of the 1 questions")


def test_octets_shorter_than_a_header_are_counted(wire):
    dns = Dns()
    wire.take(dns, [(0, 1, CLIENT, query()[:11]), (0, 1, CLIENT, b"")])
    dns.end()
    assert dns.calls() is None
    assert dns.ignored == 2


def test_sizes_that_cannot_be(run):
    with pytest.raises(ValueError, match="power of two"):
        Dns(DnsOptions(most_waiting=100))
    with pytest.raises(ValueError, match="longest message"):
        Dns(DnsOptions(waiting_octets=1 << 16))
