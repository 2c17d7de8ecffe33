"""Scheduler, query service and gateway, all of them real, over one folder with a recording."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.app import App
from services.query.app import App as Query
from services.runtime.settings import GatewaySettings, QuerySettings, SchedulerSettings
from services.scheduler.app import Scheduler
from tests.unit.query.conftest import START_NS, WrittenRun

SHOP = 'record("shop")'

STEP_NS = 10**8

PAGE = "https://shop.example.com"
"""Origin of pages that may call."""


@dataclass
class Served:
    """Addresses of what serves."""

    scheduler: str
    query: str
    gateway: str
    data: Path
    """Folder of the query service."""

    @property
    def url(self) -> str:
        return f"http://{self.gateway}"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """All three, and the recording shop, which only the query service knows."""
    folder = tmp_path_factory.mktemp("gateway")
    write_shop(folder / "shop")
    scheduler = Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=folder / "jobs"))
    query = Query(
        QuerySettings(listen="127.0.0.1:0", data=folder / "shop", scheduler=[scheduler.address])
    )
    query.start()
    assert query.server is not None
    try:
        with gateway(scheduler.address, query.server.address, cors_origins=[PAGE]) as address:
            yield Served(scheduler.address, query.server.address, address, folder / "shop")
    finally:
        query.stop()
        scheduler.stop()


@contextmanager
def gateway(scheduler: str, query: str, **settings: Any) -> Iterator[str]:
    """A gateway before these services; gives its address."""
    given = {"grace_seconds": 5, **settings}
    app = App(GatewaySettings(listen="127.0.0.1:0", scheduler=scheduler, query=query, **given))
    app.start()
    try:
        yield app.address
    finally:
        app.stop()


def write_shop(data: Path) -> None:
    """A recording of 40 calls, one of them failed in four, with packets and a loss."""
    run = WrittenRun(data, "shop", 1)
    streams = [{"stream": f"{i:016x}", "first_time": START_NS + i * STEP_NS} for i in range(10)]
    entries = [
        {
            "start_time": START_NS + i * STEP_NS,
            "stream": f"{i % 10:016x}",
            "index": i // 10,
            "response_status": 500 if i % 4 == 0 else 200,
        }
        for i in range(40)
    ]
    packets = [{"stream": f"{i % 10:016x}", "time": START_NS + i * STEP_NS} for i in range(40)]
    run.append(streams=streams, entries=entries, packets=packets, losses=[{}])
    run.turn()


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30) as made:
        yield made


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """A body of JSON lines."""
    return [json.loads(line) for line in response.text.splitlines()]


def events(text: str) -> list[tuple[str, Any]]:
    """Server-sent events: name and data."""
    found = []
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found
