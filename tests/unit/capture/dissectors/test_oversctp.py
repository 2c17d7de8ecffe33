"""Diameter in packets of SCTP."""

import pytest

from services.capture.dissectors.conversation import ProtocolError
from services.capture.dissectors.diameter.oversctp import DiameterOverSctp
from services.capture.dissectors.signatures import CLIENT, SERVER
from tests.unit.capture.dissectors.playback import bear_damage, play
from tests.unit.capture.dissectors.sctp_packets import data, init, packet
from tests.unit.capture.dissectors.test_diameter import answer, avp, message

ASK = message(316, 1, avp(263, "s;1"))
ANSWER = answer(316, 1, avp(263, "s;1"))
STORY = [
    (CLIENT, packet(init())),
    (CLIENT, packet(data(1, ASK, protocol=46))),
    (SERVER, packet(data(9, ANSWER, protocol=46))),
]


def test_messages_are_paired():
    (found,) = play(DiameterOverSctp, STORY)
    assert (found.request["method"], found.response["resultCode"]) == ("Update-Location", 2001)
    assert (found.request_size, found.response_size) == (len(ASK), len(ANSWER))


def test_what_is_sent_again_is_the_same_message():
    (found,) = play(DiameterOverSctp, [*STORY[:2], *STORY[1:]])
    assert found.error_type is None


def test_a_message_may_be_in_several_chunks():
    first, rest = data(1, ASK[:30], protocol=46, flags=2), data(2, ASK[30:], protocol=46, flags=1)
    for parts in ([packet(first), packet(rest)], [packet(first, rest)]):
        (found,) = play(DiameterOverSctp, [*((CLIENT, each) for each in parts), STORY[2]])
        assert found.request["sessionId"] == "s;1"
    (found,) = play(DiameterOverSctp, [(CLIENT, packet(first)), STORY[2]])
    assert (found.request, found.error_type) == (None, "pair-not-found")


def test_peers_that_do_not_say_so_are_understood():
    story = [(CLIENT, packet(data(1, ASK))), (SERVER, packet(data(9, ANSWER)))]
    assert play(DiameterOverSctp, story)[0].error_type is None


@pytest.mark.parametrize(
    "octets", [data(1, b"\0\x15\0\x40" + bytes(40), protocol=60), data(1, ASK, protocol=47)]
)
def test_other_protocols_are_refused(octets):
    with pytest.raises(ProtocolError):
        DiameterOverSctp().receive(CLIENT, memoryview(packet(octets)), 0)


def test_wrong_octets_raise_nothing_else():
    parts = [(CLIENT, packet(data(3, ASK[:30], flags=2), data(4, ASK[30:], flags=1)))]
    bear_damage(DiameterOverSctp, STORY + parts, 3000, seed=46)
