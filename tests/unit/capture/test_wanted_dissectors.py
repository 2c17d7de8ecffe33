"""A pipeline looks for the protocols that somebody wants, and may change its mind at any time."""

import random

import numpy as np
import pytest

from recordings import entry
from services.capture.pipeline import Pipeline, PipelineOptions
from tests.unit.capture import conversation as wire
from tests.unit.capture.conversation import Conversation

QUERY = bytes.fromhex("12340100000100000000000001610000010001")
ANSWER = bytes.fromhex("12348180000100010000000001610000010001c00c000100010000003c000401020304")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"

NOBODY, HTTP, DNS, ALL = frozenset(), frozenset({"http", "ws"}), frozenset({"dns"}), None


@pytest.fixture
def pipeline():
    return Pipeline(PipelineOptions(most_flows=64))


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def framed(message):
    return len(message).to_bytes(2, "big") + message


class Talk(Conversation):
    """A conversation whose frames are taken piece by piece."""

    def take(self):
        frames, self.frames = self.frames, []
        return frames


def datagrams(port=40_000):
    there = wire.ipv4("10.0.0.1", "10.0.0.53", 17, wire.udp(port, 53, QUERY))
    back = wire.ipv4("10.0.0.53", "10.0.0.1", 17, wire.udp(53, port, ANSWER))
    return [wire.ethernet(there), wire.ethernet(back)]


def entries(calls):
    return [each for part in calls for each in entry.objects(part.entries(np.arange(len(part))))]


def names(calls):
    return sorted(each["protocol"]["name"] for each in entries(calls))


def paths(calls):
    """(path, status) of HTTP calls; None for what is not there."""
    return [
        ((each["request"] or {}).get("path"), (each["response"] or {}).get("status"))
        for each in entries(calls)
        if each["protocol"]["name"] == "http"
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (ALL, ["dns", "http", "tcp"]),
        (HTTP | DNS, ["dns", "http"]),
        (HTTP, ["http"]),
        (DNS, ["dns"]),
        (frozenset({"redis"}), []),
        (NOBODY, []),
    ],
)
def test_only_what_is_wanted_is_found(pipeline, wanted, found):
    pipeline.dissectors = wanted
    talk = Conversation().open().client(get("/")).server(OK).close()
    other = Conversation(client_port=50_000).open().client(b"\0\1\2").close()
    calls = names(pipeline.take(wire.batch(talk.frames + other.frames + datagrams())))
    assert sorted(calls + names(pipeline.end())) == found


def test_packets_have_their_streams_whatever_is_wanted(pipeline):
    pipeline.dissectors = NOBODY
    talk = Conversation().open().client(get("/")).server(OK).close()
    pipeline.take(wire.batch(talk.frames + datagrams()))
    assert 0 not in pipeline.packet_streams
    assert len(set(pipeline.packet_streams.tolist())) == 2


def test_what_becomes_wanted_is_found_in_streams_that_are_under_way(pipeline):
    pipeline.dissectors = DNS
    talk = Talk().open().client(get("/unwanted")).server(OK)
    assert pipeline.take(wire.batch(talk.take())) == []
    pipeline.dissectors = DNS | HTTP
    talk.client(get("/wanted")).server(OK)
    assert paths(pipeline.take(wire.batch(talk.take()))) == [("/wanted", 200)]


def test_the_rest_of_what_began_unwanted_is_no_message(pipeline):
    pipeline.dissectors = NOBODY
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"
    talk = Talk().open().client(get("/unwanted")).server(head)
    pipeline.take(wire.batch(talk.take()))
    pipeline.dissectors = HTTP
    talk.server(b"x" * 40).client(get("/wanted")).server(OK)
    assert paths(pipeline.take(wire.batch(talk.take()))) == [("/wanted", 200)]
    assert pipeline.end() == []


def test_what_is_no_more_wanted_ends_there(pipeline):
    talk = Talk().open().client(get("/waits"))
    frames = talk.take() + datagrams()[:1]
    assert pipeline.take(wire.batch(frames)) == []
    pipeline.dissectors = NOBODY
    assert pipeline.take(wire.batch(talk.server(OK).take())) == []
    pipeline.dissectors = HTTP | DNS
    talk.client(get("/again")).server(OK)
    assert paths(pipeline.take(wire.batch(talk.take()))) == [("/again", 200)]
    assert pipeline.end() == []


def test_after_a_loss_a_response_still_answers_what_its_sender_had(pipeline):
    pipeline.dissectors = NOBODY
    talk = Talk().open().client(get("/" + "x" * 1000)).server(OK)
    pipeline.take(wire.batch(talk.take()))
    pipeline.dissectors = HTTP
    asked = talk.client(get("/1")).take()
    answered = talk.skip("server", 50).server(OK).take()
    asked_early = talk.client(get("/2")).take()
    assert pipeline.take(wire.batch(asked + asked_early + answered)) == []
    assert sorted(paths(pipeline.end()), key=str) == [("/1", 200), ("/2", None)]


def test_dns_over_tcp_goes_on_with_the_next_message(pipeline):
    talk = Talk(server_port=53).open().client(framed(QUERY)[:9])
    pipeline.take(wire.batch(talk.take()))
    pipeline.dissectors = HTTP
    pipeline.take(wire.batch(talk.client(framed(QUERY)[9:20]).take()))
    pipeline.dissectors = HTTP | DNS
    talk.client(framed(QUERY)[20:]).client(framed(QUERY)).server(framed(ANSWER))
    (call,) = entries(pipeline.take(wire.batch(talk.take())))
    assert (call["protocol"]["name"], call["error"]) == ("dns", None)


def test_heads_that_were_unfinished_give_their_room_back(pipeline):
    room = int(pipeline.framer.totals["free_slots"][0])
    talks = [Talk(client_port=port).open().client(b"GET /half") for port in range(40_000, 40_010)]
    pipeline.take(wire.batch([frame for talk in talks for frame in talk.take()]))
    assert pipeline.framer.totals["free_slots"][0] == room - 10
    pipeline.dissectors = NOBODY
    pipeline.dissectors = HTTP
    assert pipeline.framer.totals["free_slots"][0] == room
    assert sorted(pipeline.framer.free.tolist()) == list(range(1, room + 1))


@pytest.mark.parametrize("seed", range(5))
def test_no_call_is_missed_whose_messages_came_while_it_was_wanted(seed):
    chance = random.Random(seed)
    pipeline = Pipeline(PipelineOptions(most_flows=64))
    talks, waiting, ports = [], {}, iter(range(40_000, 60_000))
    wanted, phase, number = True, 0, 0
    found, expected = [], []
    for _ in range(120):
        if chance.random() < 0.3:
            wanted = not wanted
            phase += wanted
            pipeline.dissectors = chance.choice([HTTP, ALL]) if wanted else DNS
        frames = []
        for _ in range(chance.randrange(1, 6)):
            if len(talks) < 8:
                # Ports are used again, by connections that know nothing of each other.
                port = next(ports) if chance.random() < 0.7 or number < 9 else 40_003
                if all(talk.ends["client"][1] != port for talk in talks):
                    first = chance.randrange(1 << 32), chance.randrange(1 << 32)
                    talks.append(Talk(client_port=port, first=first).open())
            talk = chance.choice(talks)
            if talk not in waiting:
                number += 1
                waiting[talk] = number, phase if wanted else None
                talk.client(get(f"/{number}"))
            else:
                asked, its_phase = waiting.pop(talk)
                talk.server(OK)
                if wanted and its_phase == phase:
                    expected.append((f"/{asked}", 200))
                if chance.random() < 0.2:
                    talks.remove(talk)
                    talk.close()
            frames += talk.take()
        found += paths(pipeline.take(wire.batch(frames)))
    whole = [(path, status) for path, status in found if path and status]
    assert len(expected) > 30
    assert sorted(whole) == sorted(expected)
