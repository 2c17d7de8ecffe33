"""Live traffic from agents' uplinks through schedulers to who asks the query service."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import orjson
import pyarrow as pa
import pytest
from recorder.v1 import query_pb2, query_pb2_grpc

from services.capture.liverun import LiveRun
from services.capture.uplink import Uplink
from services.query.app import App
from services.runtime.channel import open_channel
from services.runtime.settings import QuerySettings, SchedulerSettings
from services.scheduler.app import Scheduler
from tests.unit.query.conftest import ENTRY, WrittenRun, table

SECONDS = 60.0
"""More than any of these takes, even on a busy machine."""

JSON = query_pb2.ENTRY_FORMAT_JSON


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def entries(*paths: str, **more: Any) -> pa.Table:
    rows = [{**ENTRY, "request_path": path, "index": n, **more} for n, path in enumerate(paths)]
    return table("entries", rows)


class Agent:
    """An uplink that sends what it is given, for every live run that it is to record."""

    def __init__(self, address: str, node: str) -> None:
        self.uplink = Uplink(address, node, "10.0.0.7")
        self.uplink.start()

    @property
    def watched(self) -> list[str]:
        return [found.kfl for found in self.uplink.assignments if found.live]

    def see(self, *paths: str, **more: Any) -> None:
        for found in self.uplink.assignments:
            if found.live:
                table = entries(*paths, **more)
                LiveRun(self.uplink).send("~live", found.run, [("entries", table)])


class Follower:
    """A question that is followed on a thread of its own."""

    def __init__(self, stub: query_pb2_grpc.QueryServiceStub, kfl: str, **more: Any) -> None:
        request = query_pb2.QueryRequest(kfl=kfl, follow=True, format=JSON, **more)
        self.call = stub.Query(request)
        self.entries: list[dict[str, Any]] = []
        self.losses: list[query_pb2.Loss] = []
        self.status: query_pb2.QueryStatus | None = None
        self.error: grpc.RpcError | None = None
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        try:
            for part in self.call:
                kind = part.WhichOneof("part")
                if kind == "json":
                    self.entries.append(orjson.loads(part.json))
                elif kind == "loss":
                    self.losses.append(part.loss)
                elif kind == "status":
                    self.status = part.status
        except grpc.RpcError as error:
            self.error = error

    @property
    def paths(self) -> list[str]:
        return [entry["request"]["path"] for entry in self.entries]

    def stop(self) -> None:
        self.call.cancel()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """Schedulers, a query service of them, agents and followers, which all end."""
    state = SimpleNamespace(schedulers=[], agents=[], followers=[], apps=[], channels=[], runs=[])

    def scheduler(listen: str = "127.0.0.1:0") -> Scheduler:
        folder = tmp_path / f"data-{len(state.schedulers)}"
        made = Scheduler(SchedulerSettings(listen=listen, data=folder))
        state.schedulers.append(made)
        return made

    def query(**more: Any) -> None:
        addresses = [made.address for made in state.schedulers]
        settings = {"listen": "127.0.0.1:0", "data": [tmp_path / "data-0"], "grace_seconds": 1}
        app = App(QuerySettings(scheduler=addresses, **{**settings, **more}))
        app.start()
        state.apps.append(app)
        assert app.server is not None
        state.channels.append(open_channel(app.server.address))
        state.stub = query_pb2_grpc.QueryServiceStub(state.channels[-1])

    def agent(node: str = "node-1", of: int = 0) -> Agent:
        made = Agent(state.schedulers[of].address, node)
        state.agents.append(made)
        wait_until(lambda: made.uplink.is_told)
        return made

    def follow(kfl: str, **more: Any) -> Follower:
        made = Follower(state.stub, kfl, **more)
        state.followers.append(made)
        wait_until(lambda: made.status or made.error)
        return made

    def ask(kfl: str, **more: Any) -> tuple[list[str], query_pb2.QueryStatus]:
        answers = list(state.stub.Query(query_pb2.QueryRequest(kfl=kfl, format=JSON, **more)))
        found = [orjson.loads(part.json) for part in answers if part.json]
        return [each["request"]["path"] for each in found], answers[-1].status

    state.scheduler, state.query, state.agent = scheduler, query, agent
    state.follow, state.ask = follow, ask
    scheduler()
    yield state
    for follower in state.followers:
        follower.stop()
    for channel in state.channels:
        channel.close()
    for agent in state.agents:
        agent.uplink.stop()
    for app in state.apps:
        app.stop()
    for made in (*state.schedulers,):
        made.stop()
    for run in state.runs:
        run.close()


def test_a_viewer_sees_entries_as_they_come_and_the_agent_stops_after_the_last(
    rig: SimpleNamespace,
) -> None:
    rig.query(live_linger=0.5)
    agent = rig.agent()
    assert agent.watched == []
    follower = rig.follow("http and response.status == 500")
    assert follower.error is None
    wait_until(lambda: agent.watched)
    assert agent.watched == ["http and response.status == 500"]
    agent.see("/first")
    wait_until(lambda: follower.entries)
    agent.see("/second", "/third")
    wait_until(lambda: len(follower.entries) == 3)
    assert follower.paths == ["/first", "/second", "/third"]
    assert {entry["record"] for entry in follower.entries} == {""}
    assert rig.ask("http and response.status == 500")[0] == ["/first", "/second", "/third"]
    follower.stop()
    wait_until(lambda: not agent.watched)
    # And what was seen is forgotten. A comment, or nothing at all, is as good a statement.
    rig.follow("# everything").stop()
    found, status = rig.ask("http and response.status == 500")
    assert found == []
    assert "Of live traffic this has what came since it is watched" in status.warnings[0]


def test_the_last_minutes_are_there_as_long_as_the_window(rig: SimpleNamespace) -> None:
    rig.query(live_window=1.0)
    agent = rig.agent()
    follower = rig.follow("http")
    wait_until(lambda: agent.watched)
    agent.see("/early")
    wait_until(lambda: follower.entries)
    wait_until(lambda: rig.ask("http")[0] == [])
    agent.see("/late")
    wait_until(lambda: rig.ask("http")[0] == ["/late"])
    wait_until(lambda: follower.paths == ["/early", "/late"])


def test_all_statements_are_one_for_agents_and_each_viewer_gets_its_own(
    rig: SimpleNamespace,
) -> None:
    rig.query()
    agent = rig.agent()
    broken = rig.follow("response.status == 500 and limit(1)")
    shop = rig.follow('request.path.startsWith("/shop") and redact("request.path")')
    again = rig.follow('request.path.startsWith("/shop") and redact("request.path")')
    wait_until(lambda: agent.watched and agent.watched[0].count(") or (") == 1)
    agent.see("/shop/1", response_status=200)
    agent.see("/api/1", "/shop/2")
    wait_until(lambda: len(shop.entries) == len(again.entries) == 2)
    assert shop.paths == ["[REDACTED]", "[REDACTED]"]
    broken.thread.join(SECONDS)
    assert broken.paths == ["/api/1"]


def test_a_mixed_statement_asks_both_and_counts_each_row_once(
    rig: SimpleNamespace, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        run = WrittenRun(tmp_path / "data-0", name, 1)
        rig.runs.append(run)
        run.append(
            entries=[
                {"request_path": f"/{name}/tls", "tls": True},
                {"request_path": f"/{name}/plain", "tls": False},
            ]
        )
    rig.query()
    agent = rig.agent()
    statement = '((record("a") or record("b")) and tls) or tls'
    follower = rig.follow(statement)
    assert sorted(follower.paths) == ["/a/tls", "/b/tls"]
    wait_until(lambda: agent.watched)
    agent.see("/live/tls", "/live/tls/2", tls=True)
    agent.see("/live/plain", tls=False)  # as if someone else watched it
    agent.see("/live/last", tls=True)
    wait_until(lambda: len(follower.entries) == 5)
    assert sorted(follower.paths[2:]) == ["/live/last", "/live/tls", "/live/tls/2"]
    found, status = rig.ask(statement)
    assert sorted(found) == sorted(follower.paths)
    assert status.entries_scanned == 8
    assert list(status.recordings) == ["a", "b"]
    # Where every way to be true goes through record(), nothing live is watched.
    assert sorted(rig.ask('record("a") and (tls or http)')[0]) == ["/a/plain", "/a/tls"]
    records = {entry["request"]["path"]: entry["record"] for entry in follower.entries}
    assert records["/live/tls"] == ""
    assert records["/a/tls"] == "a"


def test_figures_and_lookups_know_live_traffic(rig: SimpleNamespace) -> None:
    rig.query()
    agent = rig.agent()
    follower = rig.follow("http")
    wait_until(lambda: agent.watched)
    agent.see("/one", "/two", "/two")
    wait_until(lambda: len(follower.entries) == 3)
    question = query_pb2.Question(kfl="http")
    top = rig.stub.Top(query_pb2.TopRequest(question=question, field="request.path"))
    assert [(each.value, each.figures.entries) for each in top.values] == [("/two", 2), ("/one", 1)]
    entry = rig.stub.GetEntry(query_pb2.GetEntryRequest(id=follower.entries[0]["id"]))
    assert entry.entry["request"]["path"] == "/one"
    assert not entry.HasField("stream")
    with pytest.raises(grpc.RpcError) as caught:
        list(rig.stub.Export(query_pb2.ExportRequest(kfl="http")))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_viewers_are_told_of_agents_and_schedulers_that_are_away(rig: SimpleNamespace) -> None:
    rig.scheduler()
    rig.query()
    one, two = rig.agent("node-1", of=0), rig.agent("node-2", of=1)
    follower = rig.follow("http")
    wait_until(lambda: one.watched and two.watched)
    two.see("/of/two")
    wait_until(lambda: follower.entries)
    one.uplink.stop()
    wait_until(lambda: [loss.node for loss in follower.losses] == ["node-1"])
    assert "is gone; what it had not sent is missing" in follower.losses[0].detail
    address = rig.schedulers[1].address
    rig.schedulers[1].stop()
    wait_until(lambda: len(follower.losses) >= 2)
    wait_until(lambda: f"The scheduler {address} sends no" in follower.losses[-1].detail)
    assert two.watched == []
    _, status = rig.ask("http")
    assert f"The scheduler {address} sends no live traffic" in " ".join(status.warnings)
    assert "No agent is connected" in " ".join(status.warnings)
    rig.schedulers[1] = rig.scheduler(address)
    del rig.schedulers[2]
    wait_until(lambda: "saw meanwhile is missing" in follower.losses[-1].detail)
    wait_until(lambda: two.watched)
    two.see("/of/two/again")
    wait_until(lambda: follower.paths == ["/of/two", "/of/two/again"])


def test_without_a_scheduler_live_traffic_is_refused_and_a_recording_answered(
    rig: SimpleNamespace, tmp_path: Path
) -> None:
    rig.runs.append(WrittenRun(tmp_path / "data-0", "a", 1))
    rig.runs[0].append(entries=[{"request_path": "/a"}])
    rig.query()
    rig.schedulers.pop().stop()
    with pytest.raises(grpc.RpcError) as caught:
        rig.ask("http")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "sends no live traffic" in caught.value.details()
    found, status = rig.ask('record("a") or http')
    assert found == ["/a"]
    assert "sends no live traffic" in " ".join(status.warnings)


def test_statements_without_a_viewer_make_room_and_others_are_refused(
    rig: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.query.live.MOST_STATEMENTS", 2)
    rig.query()
    agent = rig.agent()
    for number in range(4):
        rig.ask(f"response.status == {number}")
    wait_until(lambda: agent.watched and agent.watched[0].endswith("3)"))
    assert agent.watched == ["(response.status == 2) or (response.status == 3)"]
    rig.follow("response.status == 4")
    rig.follow("response.status == 5")
    with pytest.raises(grpc.RpcError) as caught:
        rig.ask("response.status == 6")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "2 statements are watched" in caught.value.details()


def test_more_query_services_than_agents_have_room_for_are_refused(rig: SimpleNamespace) -> None:
    for _ in range(5):
        rig.query()
        last = rig.follow("http")
    assert last.error is not None
    assert "4 query services watch live traffic" in last.error.details()
    rig.followers[0].stop()
    rig.apps.pop(0).stop()
    wait_until(lambda: rig.follow("http").error is None)


def test_a_question_that_is_cancelled_stops_its_work(rig: SimpleNamespace) -> None:
    rig.query(live_linger=0.0)
    agent = rig.agent()
    followers = [rig.follow(f"response.status == {number}") for number in range(3)]
    wait_until(lambda: agent.watched and agent.watched[0].count("status") == 3)
    followers[0].stop()
    wait_until(lambda: agent.watched and agent.watched[0].count("status") == 2)
    for follower in followers[1:]:
        follower.stop()
    wait_until(lambda: not agent.watched)
    wait_until(lambda: not any(t.name == "live-watch" for t in threading.enumerate()))
