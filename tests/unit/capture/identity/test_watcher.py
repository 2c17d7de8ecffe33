"""Names from an API server: what is told when it lists, watches, forgets, breaks and refuses."""

import threading
import time

import pytest

from services.capture.identity import watch
from services.capture.identity.names import Names
from services.capture.identity.watcher import open_watcher
from services.runtime.errors import UserError
from tests.apiserver import ApiServer, endpoints, namespace, node, pod, service
from tests.unit.capture.identity.test_names import look


@pytest.fixture
def api():
    server = ApiServer().start()
    yield server
    server.stop()


class Watched(Names):
    """Names that can be waited for."""

    def __init__(self):
        super().__init__()
        self.taken = threading.Condition()

    def take(self, *what):
        with self.taken:
            super().take(*what)
            self.taken.notify_all()

    def owner(self, address, port=0):
        return look(self, (address, port, time.time_ns()))[0]

    def until(self, is_so):
        with self.taken:
            assert self.taken.wait_for(is_so, 60)

    def until_owner(self, address, name):
        self.until(lambda: self.owner(address) == name)


@pytest.fixture
def names(api, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "BACK_OFF_SECONDS", (0.01, 0.05))
    api.put("nodes", node("node-1", "10.0.0.1"))
    api.put("namespaces", namespace("shop"))
    api.put("services", service("cart", "10.96.0.10"))
    made = Watched()
    watcher = open_watcher(str(api.kubeconfig(tmp_path / "config")), "node-1")
    watcher.add(made.take)
    made.start = watcher.start
    made.watcher = watcher
    yield made
    watcher.stop()


def lists(api, kind):
    return [asked for each, asked in api.asked if each == kind and "watch" not in asked]


def test_all_kinds_are_joined_into_names(api, names):
    each = pod("cart-1", "10.1.0.5")
    api.put("pods", each)
    api.put("endpointslices", endpoints("cart-x", "cart", each))
    names.start()
    names.until(lambda: names.is_complete)
    found = [names.owner(address) for address in ("10.1.0.5", "10.96.0.10", "10.0.0.1", "10.1.0.6")]
    assert found == ["cart", "cart", "node-1", None]
    assert names.note == ""
    assert names.watcher.cluster.namespaces == {"shop"}


def test_a_long_list_comes_in_pages(api, names):
    for number in range(1203):
        api.put("pods", pod(f"p{number}", f"10.9.{number >> 8}.{number & 255}"))
    names.start()
    names.until(lambda: names.is_complete)
    assert [names.owner(a) for a in ("10.9.0.0", "10.9.4.178")] == ["p0", "p1202"]
    assert [len(asked) for asked in lists(api, "pods")] == [1, 2, 2]


def test_changes_come_by_watches_without_another_list(api, names):
    names.start()
    names.until(lambda: names.is_complete)
    first = pod("cart-1", "10.1.0.5")
    api.put("pods", first)
    names.until_owner("10.1.0.5", "cart-1")
    api.delete("pods", first)
    names.until_owner("10.1.0.5", None)
    assert len(lists(api, "pods")) == 1
    assert all(asked["allowWatchBookmarks"] == "true" for _, asked in api.asked if "watch" in asked)


def test_a_watch_that_breaks_goes_on_from_the_last_version(api, names):
    names.start()
    names.until(lambda: names.is_complete)
    api.put("pods", pod("cart-1", "10.1.0.5"))
    names.until_owner("10.1.0.5", "cart-1")
    api.disconnect()
    api.put("pods", pod("cart-2", "10.1.0.6"))
    names.until_owner("10.1.0.6", "cart-2")
    assert len(lists(api, "pods")) == 1


def test_a_bookmark_saves_a_list(api, names):
    names.start()
    names.until(lambda: names.is_complete)
    with api.changed:
        watches = [asked for kind, asked in api.asked if kind == "pods" and "watch" in asked]
    api.put("namespaces", namespace("other"))
    api.bookmark("pods")
    version = api.version
    api.put("pods", pod("cart-1", "10.1.0.5"))
    names.until_owner("10.1.0.5", "cart-1")
    api.forgotten = version  # of all that pods have been told of, only the bookmark is newer
    api.disconnect()
    api.put("pods", pod("cart-2", "10.1.0.6"))
    names.until_owner("10.1.0.6", "cart-2")
    assert len(lists(api, "pods")) == 1
    assert len(watches) <= 1


def test_versions_that_were_forgotten_are_listed_again_and_what_is_gone_is_noticed(api, names):
    gone = pod("gone-1", "10.1.0.9")
    api.put("pods", gone)
    api.put("pods", pod("cart-1", "10.1.0.5"))
    names.start()
    names.until_owner("10.1.0.9", "gone-1")
    with api.changed:  # so that nothing is told of what happens
        api.open.clear()
        del api.objects["pods"]["shop", "gone-1"]
        api.events = {kind: [] for kind in api.events}
        api.forget()
        api.changed.notify_all()
    names.until_owner("10.1.0.9", None)
    assert names.owner("10.1.0.5") == "cart-1"
    assert len(lists(api, "pods")) >= 2
    api.put("pods", pod("cart-2", "10.1.0.6"))
    names.until_owner("10.1.0.6", "cart-2")


def test_without_permission_addresses_stay_and_a_note_says_so(api, names, capsys):
    api.refused["pods"] = 403
    names.start()
    names.until(lambda: "no pods for you" in names.note)
    assert not names.is_complete
    names.until_owner("10.96.0.10", "cart")  # what may be seen has its name
    del api.refused["pods"]
    api.put("pods", pod("cart-1", "10.1.0.5"))
    names.until(lambda: names.is_complete and not names.note)
    names.until_owner("10.1.0.5", "cart-1")


def test_an_api_server_that_is_away_is_asked_again(api, names):
    api.refused = dict.fromkeys(api.objects, 503)
    names.start()
    names.until(lambda: "503" in names.note)
    api.refused = {}
    names.until(lambda: names.is_complete and not names.note)


def test_who_comes_later_gets_all(api, names):
    api.put("pods", pod("cart-1", "10.1.0.5"))
    names.start()
    names.until(lambda: names.is_complete)
    late = Watched()
    names.watcher.add(late.take)
    assert late.owner("10.1.0.5") == "cart-1"
    names.watcher.remove(late.take)


def test_what_is_no_way_to_a_cluster_is_said(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no kubeconfig /nowhere"):
        open_watcher("/nowhere", "node-1")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match="cannot be asked for names"):
        open_watcher("in-cluster", "node-1")
    broken = tmp_path / "config"
    broken.write_text("a: b")
    with pytest.raises(UserError, match="cannot be asked for names"):
        open_watcher(str(broken), "node-1")
