"""Who had an address at the time of a packet."""

import numpy as np
import pytest

import kfl
from kfl import coarse
from services.capture.identity.names import KEPT_NS, MOST_ENDED, Names
from services.capture.identity.owners import ANY_NODE, OPEN_NS, Change, Owner, place_of

S = 10**9
NOW = 1_800_000_000 * S
CART, SHOP = Owner("cart", "shop", "cart-1"), Owner("shop", "shop", "shop-1")
NODE = Owner("node-1", is_node=True)


@pytest.fixture
def names(monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: NOW)
    return Names()


def ends(*addresses):
    octets = np.frombuffer(b"".join(place_of(each)[:16] for each in addresses), ">u8")
    return octets[::2].astype(np.uint64), octets[1::2].astype(np.uint64)


def look(names, *asked):
    """Names of (address, port, time)."""
    known = names.known()
    if known is None:
        return [None] * len(asked)
    ports, times = [each[1] for each in asked], [each[2] for each in asked]
    found = known.cluster.find(
        *ends(*(each[0] for each in asked)), np.array(ports, np.uint16), np.array(times, np.int64)
    )
    return [known.cluster.known[place].name if place >= 0 else None for place in found]


def held(address, owner, begin, end=OPEN_NS, port=0):
    return Change(place_of(address, port), begin, end, owner)


def test_an_address_that_moved_is_told_apart_by_time(names):
    names.take([held("10.1.0.5", CART, NOW - 60 * S)], True)
    moved = [held("10.1.0.5", CART, NOW - 60 * S, NOW - 20 * S), held("10.1.0.5", SHOP, NOW)]
    names.take(moved, True)
    times = [NOW - 61 * S, NOW - 60 * S, NOW - 20 * S - 1, NOW - 20 * S, NOW - 1, NOW, NOW + 9 * S]
    found = look(names, *(("10.1.0.5", 80, time) for time in times))
    assert found == [None, "cart", "cart", None, None, "shop", "shop"]


def test_addresses_near_each_other_are_not_mixed(names):
    several = ["0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.1.0", "255.255.255.255", "::1", "fd00::5"]
    several += ["fd00::500", "fd00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
    for address in several[::2]:
        names.take([held(address, Owner(address), 5)], True)
    for address in several:
        expected = address if address in several[::2] else None
        assert look(names, (address, 7, 5), (address, 7, 4)) == [expected, None]


def test_many_are_found_as_one_by_one(names):
    chance = np.random.default_rng(7)
    addresses = [f"10.{n >> 8}.{n & 255}.9" for n in range(300)]
    truth = {}
    for round_ in range(6):
        changes = []
        for n in chance.permutation(300)[:120].tolist():
            begin = NOW - (100 - 10 * round_) * S + n
            if addresses[n] in truth:
                owner, old = truth[addresses[n]][-1]
                changes.append(held(addresses[n], owner, old, begin))
            owner = Owner(f"{n}-{round_}")
            truth.setdefault(addresses[n], []).append((owner, begin))
            changes.append(held(addresses[n], owner, begin))
        names.take(changes, True)
    asked = [
        (addresses[n], 0, NOW - int(ago) * S)
        for n, ago in zip(chance.integers(0, 300, 2000), chance.integers(0, 110, 2000), strict=True)
    ]
    expected = [
        next((o.name for o, begin in reversed(truth.get(a, [])) if begin <= time), None)
        for a, _, time in asked
    ]
    assert look(names, *asked) == expected


def test_a_port_on_a_shared_address_goes_before_the_node(names):
    proxy, front = Owner("proxy", "system", "proxy-1"), Owner("front", service="front")
    changes = [held("10.0.0.1", NODE, 1), held("10.0.0.1", proxy, 1, port=9100)]
    changes += [held(ANY_NODE, front, 1, port=30080), held("10.1.0.5", CART, 1)]
    changes += [held("10.1.0.5", SHOP, 1, port=9100)]  # a pod's address is its own
    names.take(changes, True)
    asked = [("10.0.0.1", port, 9) for port in (9100, 30080, 22)]
    asked += [("10.1.0.5", port, 9) for port in (9100, 30080)] + [("10.0.0.2", 30080, 9)]
    assert look(names, *asked) == ["proxy", "front", "node-1", "cart", "cart", None]


def test_what_ended_long_ago_is_forgotten(names):
    old, recent = NOW - KEPT_NS - 1, NOW - KEPT_NS
    names.take([held("10.0.0.1", CART, 1, old), held("10.0.0.2", SHOP, 1, recent)], True)
    assert look(names, ("10.0.0.1", 0, 5), ("10.0.0.2", 0, 5)) == [None, "shop"]


def test_of_very_many_that_ended_the_latest_are_kept(names):
    count = MOST_ENDED + 500
    for start in range(0, count, 5000):
        numbers = range(start, min(start + 5000, count))
        names.take(
            [held("10.0.0.1", Owner(f"p{n}"), NOW - S + n, NOW - S + n + 1) for n in numbers], True
        )
    known = names.known().cluster
    assert len(known) == MOST_ENDED
    assert len(known.known) <= 2 * MOST_ENDED + 64
    assert look(names, ("10.0.0.1", 0, NOW - S + 10)) == [None]
    assert look(names, ("10.0.0.1", 0, NOW - S + count - 1)) == [f"p{count - 1}"]


def test_what_a_reader_has_does_not_change(names):
    names.take([held("10.0.0.1", CART, 1)], True)
    before = names.known()
    names.take([held("10.0.0.1", CART, 1, 5), held("10.0.0.1", SHOP, 5)], True)
    high, low = ends("10.0.0.1")
    found = before.cluster.find(high, low, np.array([0], np.uint16), np.array([9]))
    assert before.cluster.known[found[0]] == CART


# ------------------------------------------------------------------ for the kernel's filter


def peer(text):
    tree = kfl.compile(text).packets().tree
    assert isinstance(tree, coarse.Peer)
    return tree


def test_a_test_of_names_is_the_addresses_that_have_them(names):
    labels = Owner("a", "shop", "a-1", "", "", '{"app":"cart"}')
    behind = Owner("api", "shop", "b-1", "api", others=("cart",))
    vip = Owner("cart", "shop", service="cart", is_service=True)
    changes = [held("10.1.0.1", labels, 1), held("10.1.0.2", behind, 1)]
    changes += [held("10.96.0.1", vip, 1), held("fd00::9", SHOP, 1)]
    names.take(changes, True)
    assert set(names.addresses(peer('src.name == "cart"'))) == {"10.1.0.2", "10.96.0.1"}
    assert set(names.addresses(peer('dst.pod.name == "shop-1"'))) == {"fd00::9"}
    assert set(names.addresses(peer('src.pod.labels.app == "cart"'))) == {"10.1.0.1"}
    assert len(names.addresses(peer('src.namespace == "shop"'))) == 4
    assert names.addresses(peer('src.name == "nobody"')) == []


def test_addresses_follow_changes_and_stay_for_a_while(names):
    test = peer('src.name == "cart"')
    names.take([held("10.1.0.1", CART, 1)], True)
    assert names.addresses(test) == ["10.1.0.1"]
    names.take([held("10.1.0.1", CART, 1, NOW - 40 * S), held("10.1.0.2", CART, 2, NOW - S)], True)
    assert names.addresses(test) == ["10.1.0.2"]


def test_a_service_on_all_nodes_is_their_addresses(names):
    front = Owner("front", "shop", service="front", is_service=True, on_nodes=True)
    changes = [held("10.96.0.7", front, 1), held(ANY_NODE, front, 1, port=30080)]
    names.take([*changes, held("10.0.0.1", NODE, 1), held("10.1.0.1", CART, 1)], True)
    assert set(names.addresses(peer('dst.name == "front"'))) == {"10.96.0.7", "10.0.0.1"}


def test_nobody_says_which_addresses_while_not_all_is_known(names):
    names.take([held("10.1.0.1", CART, 1)], False, "pods: forbidden")
    assert names.addresses(peer('src.name == "cart"')) is None
    assert names.note == "pods: forbidden"


def test_a_name_of_very_many_addresses_keeps_every_host(names):
    names.take([held(f"10.{n >> 8}.{n & 255}.1", CART, 1) for n in range(2000)], True)
    assert names.addresses(peer('src.name == "cart"')) is None
