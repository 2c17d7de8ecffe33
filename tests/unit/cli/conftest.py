import logging
import socket
import subprocess
import sys

import pytest
import structlog

from services.cli import demo
from services.query.app import App
from services.runtime.settings import QuerySettings, SchedulerSettings
from services.scheduler.app import Scheduler

PORTS = demo.Ports(8080, 53)


@pytest.fixture
def closed_port():
    """A port of loopback that nobody listens on and nobody else gets."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def addresses():
    """Two free addresses of loopback, as flags of `recorder up`."""
    found = []
    for flag in ("--scheduler", "--query-address"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            found += [flag, f"127.0.0.1:{probe.getsockname()[1]}"]
    return found


@pytest.fixture(autouse=True)
def _logging_as_before():
    """A command that runs in this process sets up logging for all of it."""
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**config)


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Scheduler and query over one folder, with the demo's conversations in the recording shop."""
    folder = tmp_path_factory.mktemp("services")
    scheduler = Scheduler(SchedulerSettings(listen="127.0.0.1:0", data=folder / "data"))
    query = App(QuerySettings(listen="127.0.0.1:0", data=folder / "data"))
    query.start()
    demo.write_capture(folder / "demo.pcap", PORTS)
    imported = subprocess.run(
        [
            *(sys.executable, "-m", "services.cli.main", "import", str(folder / "demo.pcap")),
            *("--record", "shop", "--scheduler", scheduler.address),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    yield {
        "scheduler": scheduler.address,
        "query": query.server.address,
        "imported": imported,
        "folder": folder,
    }
    query.stop()
    scheduler.stop()
