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
from tests.unit.query.conftest import ENTRY, table

SECONDS = 30.0
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
    state = SimpleNamespace(schedulers=[], agents=[], followers=[], apps=[], channels=[])

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
    for made in state.schedulers:
        made.stop()


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
    # And what was seen is forgotten.
    found, status = rig.ask("http and response.status == 500")
    assert found == []
    assert "Of live traffic this has what came since it is watched" in status.warnings[0]
