import pytest

from kfl import ast
from kfl.foreign.translation import (
    MAX_PARTS,
    NotThisLanguageError,
    Translation,
    address,
    both,
    either,
    in_network,
    negate,
    word,
)
from kfl.show import show

TCP, UDP = word("tcp"), word("udp")


def test_what_is_lost_is_left_out():
    assert both([TCP, None]) == TCP
    assert either([None, TCP, UDP]) == ast.Logic("or", (TCP, UDP))
    assert both([None, None]) is None
    assert negate(None) is None


def test_what_says_nothing_is_left_out():
    assert both([True, TCP]) == TCP
    assert both([False, TCP]) is False
    assert either([False, TCP]) == TCP
    assert either([True, TCP]) is True
    assert negate(negate(TCP)) == TCP
    assert both([TCP, both([UDP, TCP])]) == ast.Logic("and", (TCP, UDP))


@pytest.mark.parametrize(
    ("network", "wanted"),
    [
        ("10.0.0.0/8", 'src.ip.startsWith("10.")'),
        ("10.1.2.3/16", 'src.ip.startsWith("10.1.")'),
        ("10.1.2.0/24", 'src.ip.startsWith("10.1.2.")'),
        ("10.1.2.3/32", 'src.ip == "10.1.2.3"'),
        ("10.1.2.3", 'src.ip == "10.1.2.3"'),
        ("FD00::1/128", 'src.ip == "fd00::1"'),
        ("0.0.0.0/0", 'src.ip.contains(".")'),
        ("::/0", 'src.ip.contains(":")'),
    ],
)
def test_networks_that_end_at_a_dot(network, wanted):
    found = in_network(("src",), network)
    assert isinstance(found, ast.Call | ast.Binary)
    assert show(found) == wanted


@pytest.mark.parametrize("network", ["10.0.0.0/12", "fd00::/64", "10.0.0.0/33", "x", "10.0.0"])
def test_networks_that_have_no_kfl(network):
    with pytest.raises(ValueError, match=r"network|address"):
        in_network(("src",), network)


def test_addresses_are_written_as_entries_have_them():
    assert address("FD00:0:0::1") == "fd00::1"
    assert address("fe80::1%eth0") == "fe80::1"
    assert address("10.0.0.999") is None


def test_there_is_an_end_to_it():
    done = Translation()
    done.parts = MAX_PARTS
    with pytest.raises(NotThisLanguageError):
        done.count()
