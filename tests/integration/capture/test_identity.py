"""Names of pods and services in what an agent records, on a node with an API server."""

import time
from datetime import UTC, datetime

import pytest
from recorder.v1 import ingest_pb2

from services.capture import outbox
from services.capture.identity import watch
from services.capture.worker import Worker
from services.runtime.settings import CaptureSettings
from tests import apiserver
from tests.integration.capture.test_node_model import (
    CALLS,
    CLIENT,
    NODE,
    PODS,
    QUESTIONS,
    SERVICE,
    node,
    paths,
)
from tests.unit.capture import ingest_server
from tests.unit.capture.ingest_server import Ingest

__all__ = ["node"]

NOT_THE_API = 'http and dst.ip != "127.0.0.1"'

pytestmark = [pytest.mark.root, pytest.mark.timeout(400)]
routed = pytest.mark.parametrize("node", [False], indirect=True, ids=["routing translates"])


def pod(name, address, **more):
    return apiserver.pod(name, address, host=NODE, **more)


class Cluster:
    """An API server, an agent that asks it, and what arrives at its scheduler."""

    def __init__(self, folder, *statements):
        self.api = apiserver.ApiServer().start()
        now = int(time.time())
        wanted = []
        for number, kfl in enumerate(statements):
            each = ingest_pb2.Assignment(job=f"job{number}", run=1, kfl=kfl, body_limit=100)
            each.start_time.seconds, each.stop_time.seconds = now - 10, now + 1000
            wanted.append(each)
        self.ingest = Ingest(folder / "stored", assignments=wanted)
        self._server, port = ingest_server.serve(self.ingest)
        self.targets = folder / "targets.json"
        self.targets.write_text("{}")
        settings = CaptureSettings(
            targets=self.targets,
            scheduler=f"127.0.0.1:{port}",
            node="node-1",
            node_ip=NODE,
            kube=str(self.api.kubeconfig(folder / "kubeconfig")),
            packet_memory=1 << 20,
            ring_memory=16 << 20,
        )
        self.pods = {
            name: pod(name, PODS[number], labels={"app": name})
            for name, number in (("front", 2), ("shop-a", 3), ("shop-b", 4))
        }
        for each in self.pods.values():
            self.api.put("pods", each)
        self.api.put("services", apiserver.service("shop", SERVICE))
        behind = [self.pods["shop-a"], self.pods["shop-b"]]
        self.api.put("endpointslices", apiserver.endpoints("shop-x", "shop", *behind))
        self.api.put("nodes", apiserver.node("node-1", NODE))
        self.worker = Worker(settings)
        self.worker.start()
        self.until(lambda: self.worker.names.is_complete and self.worker.names.note == "")
        self.settle()

    def until(self, is_so):
        deadline = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def settle(self):
        """Wait until the agent has looked at its names, and at its jobs."""
        agent = self.worker._agent
        names = self.worker.names
        self.until(lambda: agent._names_revision == names.revision and agent._engine is not None)

    def call(self, node, number, *called):
        assert node.start(node.pods[number], CALLS, *called).wait() == 0

    def end(self):
        self.worker.drain()
        self.api.stop()
        self._server.stop(0).wait()

    def rows(self, job, table="entries"):
        found = []
        for batch in self.ingest.stored():
            for number, octets, _ in batch.parts:
                if batch.job == job and outbox.TABLE_NAMES[number] == table:
                    found += outbox.decode(octets).to_pylist()
        return found


@pytest.fixture
def cluster(node, tmp_path, monkeypatch, request):
    monkeypatch.setattr(watch, "BACK_OFF_SECONDS", (0.01, 0.1))
    made = Cluster(tmp_path, *request.param)
    yield made
    made.end()


def peer(row, side):
    return {key: row[f"{side}_{key}"] for key in ("name", "namespace", "pod", "service", "labels")}


@routed
@pytest.mark.parametrize(
    "cluster",
    [['http and src.name == "front"', NOT_THE_API, 'http and dst.name == "shop"']],
    indirect=True,
)
def test_names_choose_what_is_recorded_and_are_in_it(node, cluster):
    through, direct = paths("through", 4), paths("direct", 2)
    others = paths("other", 3)
    cluster.call(node, 2, SERVICE, 80, *through)
    cluster.call(node, 2, PODS[3], 8080, *direct)
    cluster.call(node, 4, PODS[3], 8080, *others)
    # The address of the client becomes another pod's.
    cluster.api.delete("pods", cluster.pods["front"])
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.api.put("pods", pod("batch", CLIENT, start=started))
    moved = paths("moved", 3)
    names = cluster.worker.names
    cluster.until(lambda: any(each.name == "batch" for each in names.known().cluster.known))
    cluster.settle()
    cluster.call(node, 2, SERVICE, 80, *moved)
    cluster.worker.drain()
    cluster.worker.drain = lambda: None

    front, every, to_shop = (
        {r["request_path"]: r for r in cluster.rows(f"job{n}")} for n in range(3)
    )
    assert set(front) == {*through, *direct}
    assert set(every) == set(to_shop) == {*through, *direct, *others, *moved}
    served = node.served()
    for path in [*through, *moved]:
        row = every[path]
        by = "shop-a" if served[path] == PODS[3] else "shop-b"
        expected = {"name": "shop", "namespace": "shop", "pod": by, "service": "shop"}
        assert peer(row, "dst") == expected | {"labels": f'{{"app":"{by}"}}'}
        assert row["src_name"] == ("front" if path in through else "batch")
    for path in direct:
        assert (every[path]["dst_pod"], every[path]["dst_name"]) == ("shop-a", "shop")
    assert peer(every[direct[0]], "src") == {
        "name": "front",
        "namespace": "shop",
        "pod": "front",
        "service": "",
        "labels": '{"app":"front"}',
    }
    kinds = {row["kind"] for row in cluster.rows("job1", "losses")}
    assert kinds == {"agent_restart"}  # the job began before the agent


@routed
@pytest.mark.parametrize("cluster", [['src.name == "batch"']], indirect=True)
def test_the_kernel_follows_names_that_come(node, cluster):
    progress = cluster.worker._agent.progress
    begun = progress.octets  # until names were known, everything came
    cluster.call(node, 2, PODS[3], 8080, *paths("before", 2))
    cluster.call(node, 4, PODS[3], 8080, *paths("other", 2))
    cluster.api.delete("pods", cluster.pods["front"])
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cluster.api.put("pods", pod("batch", CLIENT, start=started))
    names = cluster.worker.names
    cluster.until(lambda: any(each.name == "batch" for each in names.known().cluster.known))
    cluster.settle()
    time.sleep(0.5)  # the ring may still hold frames of before
    # Where IPv6 says itself that it is there, is kept; a call would be more.
    assert progress.octets - begun < 1500
    cluster.call(node, 2, PODS[3], 8080, *paths("after", 2))
    assert node.start(node.pods[2], QUESTIONS, SERVICE, "shop").wait() == 0
    cluster.worker.drain()
    cluster.worker.drain = lambda: None
    found = cluster.rows("job0")
    assert {row["request_path"] for row in found if row["request_path"]} == {*paths("after", 2)}
    (question,) = [row for row in found if row["protocol_name"] == "dns"]
    assert (question["src_name"], question["dst_name"]) == ("batch", "shop")


@routed
@pytest.mark.parametrize("cluster", [["http"]], indirect=True)
def test_without_an_api_server_addresses_stay_and_the_ledger_says_so(node, cluster):
    cluster.api.refused = dict.fromkeys(cluster.api.objects, 403)
    cluster.api.disconnect()
    cluster.until(lambda: "no pods for you" in cluster.worker.names.note)
    time.sleep(2.5)  # less is not told
    cluster.call(node, 2, PODS[3], 8080, *paths("call", 2))
    cluster.api.refused = {}
    cluster.until(lambda: cluster.worker.names.note == "")
    time.sleep(0.5)
    cluster.worker.drain()
    cluster.worker.drain = lambda: None
    (told,) = [row for row in cluster.rows("job0", "losses") if row["kind"] == "nameless"]
    assert "no pods for you" in told["detail"]
    assert told["end_time"] > told["start_time"]


@routed
@pytest.mark.parametrize("cluster", [[NOT_THE_API]], indirect=True)
def test_whose_traffic_is_captured_changes_while_a_job_runs(node, cluster):
    cluster.call(node, 4, PODS[3], 8080, *paths("all", 2))
    agent = cluster.worker._agent
    before = agent._listed
    cluster.targets.write_text('{"regex": "^front$"}')
    cluster.until(lambda: agent._listed is not before)
    cluster.settle()
    cluster.call(node, 4, PODS[3], 8080, *paths("others", 2))
    cluster.call(node, 2, PODS[3], 8080, *paths("captured", 2))
    cluster.worker.drain()
    cluster.worker.drain = lambda: None
    recorded = {row["request_path"] for row in cluster.rows("job0")}
    assert recorded == {*paths("all", 2), *paths("captured", 2)}
