"""First octets tell the protocol, whatever its port, and a port where they do not."""

import pytest

from services.capture.dissectors.signatures import (
    ANY,
    CLIENT,
    DIGIT,
    LONGEST,
    MOST_PROTOCOLS,
    NOBODY,
    SERVER,
    TOO_SHORT,
    Signature,
    new_table,
    text,
)
from tests.unit.capture.dissectors.first_octets import looked

FIRST, SECOND = 0, 1


def one(*signatures, ports=()):
    return [(signatures, ports)]


HELLO = Signature(CLIENT, text("Hello "))


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (b"hello x", FIRST),
        (b"HELLO ", FIRST),
        (b"hello", TOO_SHORT),
        (b"h", TOO_SHORT),
        (b"help me", NOBODY),
        (b" hello ", NOBODY),
    ],
)
def test_each_octet_has_to_fit_and_all_have_to_be_there(octets, found):
    assert looked(one(HELLO), octets) == found


def test_each_side_has_signatures_of_its_own():
    protocols = one(HELLO, Signature(SERVER, (DIGIT, b" ")))
    assert looked(protocols, b"hello ", SERVER) == NOBODY
    assert looked(protocols, b"1 ", SERVER) == FIRST
    assert looked(protocols, b"1 ", CLIENT) == NOBODY


@pytest.mark.parametrize(("port", "found"), [(7, FIRST), (8, NOBODY)])
def test_a_weak_one_is_believed_on_a_port_of_its_protocol(port, found):
    weak = Signature(CLIENT, (ANY, b"\0"), only_on_port=True)
    assert looked(one(weak, ports=(7, 9)), b"x\0", port=port) == found


def test_of_several_that_fit_the_port_decides_then_the_length_then_the_order():
    short, long = Signature(CLIENT, text("ab")), Signature(CLIENT, text("abcd"))
    assert looked([((short,), ()), ((long,), ())], b"abcd") == SECOND
    assert looked([((short,), (7,)), ((long,), ())], b"abcd", port=7) == FIRST
    assert looked([((long,), ()), ((short,), (7,))], b"abcd", port=7) == SECOND
    assert looked([((short,), ()), ((short,), ())], b"abcd") == FIRST
    assert looked([((short,), ()), ((long,), ())], b"abc") == FIRST, "it does not wait"


def test_what_was_refused_or_is_not_wanted_does_not_fit():
    both = [((HELLO,), ()), ((HELLO,), ())]
    assert looked(both, b"hello ", refused=1 << FIRST) == SECOND
    assert looked(both, b"hello ", refused=3) == NOBODY
    assert looked(both, b"hello ", refused=0xFFFF_FFFF_FFFF_FFFF) == NOBODY
    assert looked(both, b"hello ", wanted=[SECOND]) == SECOND
    assert looked(both, b"hello ", wanted=[]) == NOBODY


def test_there_may_be_more_signatures_than_bits_of_a_word():
    many = [((Signature(CLIENT, (bytes([n]), b"x")),), ()) for n in range(MOST_PROTOCOLS)]
    more = [(tuple(Signature(CLIENT, (bytes([n]), b"y")) for n in range(200)), ())]
    assert looked(many[1:] + more, b"\x05x") == 4
    assert looked(many[1:] + more, b"\xc0y") == MOST_PROTOCOLS - 1
    assert looked(many[1:] + more, b"\xc0x") == NOBODY


def test_the_longest_signature_ends_where_it_ends():
    longest = Signature(CLIENT, (b"x",) * LONGEST)
    assert looked(one(longest), b"x" * 100) == FIRST
    assert looked(one(longest), b"x" * LONGEST) == FIRST
    assert looked(one(longest), b"x" * (LONGEST - 1)) == TOO_SHORT


@pytest.mark.parametrize("length", [0, LONGEST + 1])
def test_a_signature_has_octets_but_not_too_many(length):
    with pytest.raises(ValueError, match="a signature has 1 to 64 octets"):
        new_table(one(Signature(CLIENT, (b"x",) * length)))


def test_so_many_protocols_are_too_many():
    with pytest.raises(ValueError, match="65 protocols are more than the 64"):
        new_table([((HELLO,), ())] * (MOST_PROTOCOLS + 1))
