"""Associations of SCTP, made of packets as RFC 9260 has them."""

import pytest

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.sctp.chunks import chunks
from services.capture.dissectors.sctp.exchange import Sctp
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import bear_damage, play
from tests.unit.capture.dissectors.sctp_packets import CHECKSUM, TAG, chunk, data, init, packet

STORY = [
    (CLIENT, packet(init(1, (bytes([10, 0, 0, 1]), bytes([10, 1, 0, 1]))))),
    (SERVER, packet(init(2))),
    (CLIENT, packet(chunk(10, b"cookie"), data(1000, b"hello", protocol=46))),
    (SERVER, packet(chunk(11), chunk(3, bytes(12)), data(1, b"hi", stream=3, protocol=18))),
    (CLIENT, packet(chunk(3, bytes(12)), data(1001, b"more", stream=1, protocol=46))),
    (CLIENT, packet(chunk(7, bytes(4)))),
    (SERVER, packet(chunk(8))),
    (CLIENT, packet(chunk(14))),
]


def test_an_association_is_its_begin_its_end_and_its_data():
    begin, end, whole = play(Sctp, STORY)
    assert begin.request == {
        "chunkType": "INIT", "length": 36, "checksum": CHECKSUM, "verificationTag": TAG,
        "initiateTag": 7, "receiverWindow": 65536, "outboundStreams": 10, "inboundStreams": 5,
        "initialTSN": 1000, "addresses": ["10.0.0.1", "10.1.0.1"],
    }  # fmt: skip
    assert begin.response["chunkType"] == "INIT ACK"
    assert (begin.start_ns, begin.end_ns) == (1, 2)
    assert (begin.request_size, begin.response_size) == (36, 20)
    assert (end.request["chunkType"], end.response["chunkType"]) == ("SHUTDOWN", "SHUTDOWN ACK")
    assert whole.request == {
        "chunkType": "DATA", "length": 9, "checksum": CHECKSUM, "verificationTag": TAG,
        "dataChunks": 2, "streams": 2, "payloadProtocols": ["Diameter"],
        "chunks": {"INIT": 1, "COOKIE ECHO": 1, "DATA": 2, "SACK": 1, "SHUTDOWN": 1,
                   "SHUTDOWN COMPLETE": 1},
        "packets": 5, "bytes": sum(len(o) for side, o in STORY if side == CLIENT),
        "state": "closed",
    }  # fmt: skip
    assert whole.response["payloadProtocols"] == ["S1AP"]
    assert (whole.response["dataChunks"], whole.response["length"]) == (1, 2)
    assert (whole.start_ns, whole.end_ns) == (1, 8)
    assert [each.error_type for each in (begin, end, whole)] == [None] * 3


def test_the_next_association_of_the_same_ports_is_another():
    found = play(Sctp, STORY + STORY)
    types = [each.request["chunkType"] for each in found]
    assert types == ["INIT", "SHUTDOWN", "DATA"] * 2
    assert found[2].request["packets"] == found[5].request["packets"] == 5


def test_an_abort_ends_it_and_says_why():
    story = [*STORY[:4], (SERVER, packet(chunk(6, b"\0\x0c\0\x08bye!")))]
    _, abort, whole = play(Sctp, story)
    assert abort.asked_by == SERVER
    assert (abort.request["chunkType"], abort.response) == ("ABORT", None)
    assert abort.request["causes"] == ["user-initiated abort"]
    assert whole.request["state"] == "aborted"


def test_an_init_may_be_answered_by_an_abort():
    (found,) = play(Sctp, [STORY[0], (SERVER, packet(chunk(6)))])
    assert (found.request["chunkType"], found.response["chunkType"]) == ("INIT", "ABORT")
    assert found.error_type is None


def test_an_init_without_an_answer_says_so():
    (found,) = play(Sctp, [STORY[0]] * 3)
    assert (found.response, found.error_type) == (None, "pair-not-found")
    assert found.request["retransmissions"] == 2


def test_a_capture_that_begins_in_the_middle_counts_what_it_sees():
    (found,) = play(Sctp, [STORY[3], STORY[4]])
    assert (found.request["dataChunks"], found.response["dataChunks"]) == (1, 1)
    assert (found.asked_by, found.request["state"]) == (SERVER, "idle")


def test_heartbeats_alone_are_no_call():
    assert play(Sctp, [(CLIENT, packet(chunk(4, b"abcd"))), (SERVER, packet(chunk(5)))]) == []


def test_chunks_that_are_cut_or_wrong_end_a_packet():
    cut = packet(data(1, b"x" * 100))[:40]
    (found,) = play(Sctp, [(CLIENT, cut)])
    assert (found.request["dataChunks"], found.request["length"]) == (1, 100)
    assert list(chunks(packet(b"\0\0\0\3"))) == []
    assert len(list(chunks(packet(*[chunk(11)] * 9000)))) == 512
    with pytest.raises(ProtocolError):
        Sctp().receive(CLIENT, memoryview(b"short"), 0)


def test_wrong_octets_raise_nothing_else():
    bear_damage(Sctp, STORY, 3000, seed=132)
