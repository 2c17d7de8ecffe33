"""Who has which address since when."""

from datetime import UTC, datetime

import pytest

from services.capture.identity.cluster import Cluster
from services.capture.identity.names import Names
from services.capture.identity.objects import (
    key_of,
    read_node,
    read_pod,
    read_service,
    read_slice,
)
from tests.apiserver import endpoints, node, pod, service
from tests.unit.capture.identity.test_names import look

NOW = int(datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()) * 10**9
S = 10**9
READ = {"pod": read_pod, "service": read_service, "slice": read_slice, "node": read_node}


def at(seconds):
    """The text of a time so many seconds after NOW."""
    return datetime.fromtimestamp(NOW // S + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class World:
    """Tells a cluster of objects at times after NOW, and looks at the names that follow."""

    def __init__(self):
        self.cluster, self.names = Cluster(), Names()
        self.read = {}

    def put(self, seconds, kind, found):
        key = f"{kind} {key_of(found)}"
        self.read[key] = READ[kind](found, "node-1")
        self.cluster.put(key, self.read[key], NOW + seconds * S)
        self.names.take(self.cluster.take(), True)

    def remove(self, seconds, kind, found):
        key = f"{kind} {key_of(found)}"
        self.cluster.remove(key, self.read.pop(key), NOW + seconds * S)
        self.names.take(self.cluster.take(), True)

    def owner(self, address, seconds, port=0):
        names = look(self.names, (address, port, NOW + int(seconds * S)))
        return names[0]


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: NOW)
    return World()


def test_a_pod_has_its_address_from_its_start_though_it_is_told_later(world):
    world.put(3, "pod", pod("cart-1", "10.1.0.5", start=at(0)))
    assert [world.owner("10.1.0.5", t) for t in (-1, 0, 3, 100)] == [None, *["cart-1"] * 3]


def test_an_address_that_a_deleted_pod_had_goes_to_the_next(world):
    first = pod("cart-1", "10.1.0.5", start=at(-100))
    world.put(-90, "pod", first)
    world.remove(10, "pod", first)
    world.put(22, "pod", pod("shop-1", "10.1.0.5", start=at(20)))
    assert [world.owner("10.1.0.5", t) for t in (9, 10, 19, 20, 30)] == [
        *["cart-1", None, None, "shop-1", "shop-1"]
    ]


def test_the_next_pod_has_an_address_not_before_the_one_before_it_was_over(world):
    world.put(0, "pod", pod("cart-1", "10.1.0.5", start=at(-100)))
    over = pod("cart-1", "10.1.0.5", start=at(-100), phase="Succeeded", finished=at(4))
    world.put(8, "pod", over)
    world.put(9, "pod", pod("shop-1", "10.1.0.5", start=at(2)))  # it waited for its image
    assert [world.owner("10.1.0.5", t) for t in (2, 4.9, 5, 9)] == [
        *["cart-1", "cart-1", "shop-1", "shop-1"]
    ]
    world.remove(60, "pod", over)  # the pod that is over has nothing to give up
    assert world.owner("10.1.0.5", 61) == "shop-1"


def test_a_pod_whose_end_was_never_told_loses_its_address_to_a_younger_one(world):
    world.put(0, "pod", pod("cart-1", "10.1.0.5", start=at(-100)))
    world.put(30, "pod", pod("shop-1", "10.1.0.5", start=at(25)))
    world.put(31, "pod", pod("cart-1", "10.1.0.5", start=at(-100), labels={"late": "news"}))
    assert [world.owner("10.1.0.5", t) for t in (24, 25, 40)] == ["cart-1", "shop-1", "shop-1"]


def test_an_older_pod_that_waits_gets_an_address_when_the_younger_one_is_gone(world):
    first = pod("cart-1", "10.1.0.5", start=at(10))
    world.put(10, "pod", first)
    world.put(20, "pod", pod("shop-1", "10.1.0.5", start=at(5)))
    assert world.owner("10.1.0.5", 21) == "cart-1"
    world.remove(30, "pod", first)
    assert [world.owner("10.1.0.5", t) for t in (29, 30)] == ["cart-1", "shop-1"]


def test_a_pod_has_the_name_of_its_service_also_from_before_that_was_told(world):
    each = pod("cart-5d-1", "10.1.0.5", start=at(0))
    world.put(1, "pod", each)
    world.put(5, "slice", endpoints("cart-x", "cart", each))
    assert world.owner("10.1.0.5", 0) == "cart"
    world.put(50, "slice", endpoints("cart-x", "cart"))
    assert [world.owner("10.1.0.5", t) for t in (49, 50)] == ["cart", "cart-5d-1"]


def test_a_pod_behind_several_services_has_the_first_and_knows_the_others(world):
    each = pod("a-1", "10.1.0.5", start=at(0))
    for name in ("web", "api", "web"):
        world.put(1, "slice", endpoints(f"{name}-x", name, each))
    world.put(1, "pod", each)
    (owner,) = [found.owner for found in world.cluster.everything()]
    assert (owner.service, owner.others, owner.pod) == ("api", ("web",), "a-1")


def test_services_are_known_by_all_their_addresses(world):
    front = service("front", "10.96.0.9", ports=((80, 30080), (443, None)))
    front["spec"]["externalIPs"] = ["192.0.2.9"]
    front["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.4"}, {"hostname": "x"}]}}
    world.put(0, "service", front)
    world.put(0, "node", node("node-7", "10.0.0.7"))
    for address in ("10.96.0.9", "192.0.2.9", "203.0.113.4"):
        assert world.owner(address, 1) == "front"
    assert [world.owner("10.0.0.7", 1, port) for port in (30080, 22)] == ["front", "node-7"]
    world.put(1, "service", service("none", "None"))
    world.remove(9, "service", front)
    assert [world.owner("10.96.0.9", t) for t in (8, 9)] == ["front", None]


def test_pods_on_the_network_of_their_node_are_known_by_their_ports(world):
    world.put(0, "node", node("node-1", "10.0.0.1"))
    exporter = pod("exporter-1", "10.0.0.1", start=at(0), host_network=True, ports=[9100])
    world.put(0, "pod", exporter)
    world.put(0, "slice", endpoints("exporter-x", "exporter", exporter))
    assert [world.owner("10.0.0.1", 1, port) for port in (9100, 22)] == ["exporter", "node-1"]
    world.remove(10, "pod", exporter)
    assert [world.owner("10.0.0.1", t, 9100) for t in (9, 10)] == ["exporter", "node-1"]


def test_endpoints_that_are_no_pods_are_of_their_service_by_port(world):
    world.put(0, "node", node("node-1", "10.0.0.1"))
    world.put(0, "slice", endpoints("kubernetes", "kubernetes", others=["10.0.0.1"], port=6443))
    assert [world.owner("10.0.0.1", 1, port) for port in (6443, 22)] == ["kubernetes", "node-1"]


def test_what_comes_later_gets_the_same_as_who_was_there(world):
    gone = pod("gone-1", "10.1.0.9", start=at(0))
    world.put(0, "pod", gone)
    world.put(0, "pod", pod("cart-1", "10.1.0.5", start=at(0)))
    world.remove(1, "pod", gone)
    late = Names()
    late.take(world.cluster.everything(), True)
    asked = [(address, 0, NOW + 5 * S) for address in ("10.1.0.5", "10.1.0.9")]
    assert look(late, *asked) == look(world.names, *asked) == ["cart-1", None]


def test_a_pod_on_the_network_of_its_node_is_known_by_ports_that_it_did_not_declare(world):
    world.put(0, "node", node("node-1", "10.0.0.1"))
    found = pod("agent-1", "10.0.0.1", start=at(0), host_network=True)
    found["status"]["containerStatuses"] = [{"containerID": "containerd://abc", "state": {}}]
    world.put(0, "pod", found)
    for seconds, ports in ((1, {"abc": frozenset({4194})}), (9, {"other": frozenset({4194})})):
        world.cluster.put_ports(ports, NOW + seconds * S)
        world.names.take(world.cluster.take(), True)
    found = [world.owner("10.0.0.1", t, 4194) for t in (0, 8, 9)]
    assert found == ["agent-1", "agent-1", "node-1"]
