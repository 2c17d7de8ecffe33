"""Certificates, good and damaged, as entries show them."""

import random

from services.capture.dissectors.tls.certificates import MOST_CERTIFICATES, chain
from tests.unit.capture.dissectors.tls import hellos

DER = hellos.certificate("shop.example", ["shop.example", "*.shop.example"])


def listed(*certificates, is_whole=True):
    return chain(hellos.chain(*certificates)[4:], is_whole)


def test_a_chain():
    found = listed(DER, DER)
    assert [each["subject"] for each in found] == ["CN=shop.example"] * 2
    assert found[0]["sans"] == ["shop.example", "*.shop.example"]


def test_a_chain_that_was_cut():
    message = hellos.chain(DER, DER)[4:-9]
    assert len(chain(message, False)) == 1
    assert "error" in chain(message, True)[-1]


def test_a_chain_without_end():
    assert len(listed(*[DER] * 40)) == MOST_CERTIFICATES


def test_octets_that_are_damaged_raise_nothing():
    chance = random.Random(13)
    readable = 0
    for _ in range(3000):
        damaged = bytearray(DER)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        (found,) = listed(bytes(damaged))
        readable += "subject" in found
        assert "subject" in found or found["error"]
    assert 0 < readable < 3000
