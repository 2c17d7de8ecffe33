"""What entries say of many peers at once."""

import numpy as np
import pytest

from services.capture.identity.names import Names
from services.capture.identity.owners import Owner
from services.capture.identity.peers import Ends, Peers
from tests.unit.capture.identity.test_names import ends, held

CART = Owner("cart", "shop", "cart-1", "cart", "", '{"app":"cart"}', ("all",))
POD = Owner("shop-1", "shop", "shop-1")
VIP = Owner("all", "shop", service="all", is_service=True)


@pytest.fixture
def names(monkeypatch):
    monkeypatch.setattr("time.time_ns", lambda: 10)
    made = Names()
    changes = [held("10.1.0.1", CART, 1), held("10.1.0.2", POD, 1), held("10.96.0.1", VIP, 1)]
    made.take(changes, True)
    return made


class DnsCalls:
    """As those of the dissector."""

    def __init__(self, *calls):
        self.calls = calls  # (time, request, response)
        self.end_ns = np.array([time for time, _, _ in calls])
        self.has_request = np.array([request is not None for _, request, _ in calls])
        self.has_response = np.array([response is not None for _, _, response in calls])

    def details(self, rows):
        import pyarrow as pa

        return {
            name: pa.array([self.calls[row][place] for row in rows.tolist()], pa.string())
            for place, name in ((1, "request"), (2, "response"))
        }


def answered(time, name, *addresses, code="NOERROR"):
    listed = ",".join(f'{{"name":"x","type":"A","ip":"{address}"}}' for address in addresses)
    question = f'{{"questions":[{{"name":"{name}","type":"A"}}]}}'
    return time, question, f'{{"code":"{code}","answers":[{listed}]}}'


def of(names, *own, called=None, time=10, ports=80):
    def made(addresses):
        return Ends(*ends(*addresses), np.full(len(addresses), ports, np.uint16))

    times = np.full(len(own), time, np.int64)
    peers = Peers(names.known(), made(own), made(called) if called else None, times)
    fields = ("name", "namespace", "pod", "service", "dns", "labels")
    columns = [peers.column(field).to_pylist() for field in fields]
    return list(zip(*columns, strict=True))


def test_each_peer_has_what_is_known_of_it(names):
    found = of(names, "10.1.0.2", "10.9.9.9", "10.1.0.1", "10.1.0.2")
    pod = ("shop-1", "shop", "shop-1", "", "", None)
    cart = ("cart", "shop", "cart-1", "cart", "", '{"app":"cart"}')
    assert found == [pod, ("", "", "", "", "", None), cart, pod]


def test_a_call_to_a_service_names_it_and_the_pod_that_answered(names):
    own, called = ["10.1.0.1", "10.1.0.1", "10.9.9.9"], ["10.96.0.1", "10.1.0.1", "10.96.0.1"]
    through, direct, outside = of(names, *own, called=called)
    assert through == ("all", "shop", "cart-1", "all", "", '{"app":"cart"}')
    assert direct[:4] == ("cart", "shop", "cart-1", "cart")
    assert outside[:4] == ("all", "shop", "", "all")


def test_an_address_outside_of_the_cluster_has_the_name_that_was_asked_for(names):
    names.learn(DnsCalls(answered(5, "API.example.com.", "192.0.2.1", "fd00::1")))
    names.learn(DnsCalls(answered(8, "cart.shop.svc", "10.1.0.1")))
    found = of(names, "192.0.2.1", "fd00::1", "10.1.0.1", time=10)
    assert found[0] == found[1] == ("api.example.com", "", "", "", "api.example.com", None)
    assert (found[2][0], found[2][4]) == ("cart", "cart.shop.svc")
    assert of(names, "192.0.2.1", time=4)[0][0] == ""


def test_the_latest_answer_counts_from_then_on(names):
    names.learn(
        DnsCalls(answered(5, "a.example", "192.0.2.1"), answered(9, "b.example", "192.0.2.1"))
    )
    names.learn(DnsCalls(answered(20, "b.example", "192.0.2.1")))
    found = [of(names, "192.0.2.1", time=time)[0][4] for time in (5, 8, 9, 30)]
    assert found == ["a.example", "a.example", "b.example", "b.example"]


@pytest.mark.parametrize(
    "call",
    [
        answered(5, "a.example", "192.0.2.1", code="NXDOMAIN"),
        answered(5, "", "192.0.2.1"),
        answered(5, "x" * 254, "192.0.2.1"),
        (5, None, answered(5, "a", "192.0.2.1")[2]),
        (5, answered(5, "a", "192.0.2.1")[1], None),
        (5, '{"questions":[]}', answered(5, "a", "192.0.2.1")[2]),
    ],
)
def test_what_is_no_answer_names_nothing(names, call):
    names.learn(DnsCalls(call))
    assert of(names, "192.0.2.1")[0][0] == ""
