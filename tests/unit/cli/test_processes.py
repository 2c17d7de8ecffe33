"""Real services as children of this process."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.cli.processes import (
    Died,
    Process,
    Processes,
    capture_obstacle,
    end_with_parent,
    free_address,
    wait_until_ready,
    wait_until_serving,
)


@pytest.fixture
def processes():
    started = Processes()
    yield started
    started.end(lambda _: None)


def query(tmp_path, *more):
    return Process(
        "query", ("--data", str(tmp_path / "data"), *more), tmp_path / "logs" / "query.log"
    )


def test_a_service_is_awaited_and_ended(tmp_path, processes):
    address = free_address("127.0.0.1:1")
    service = query(tmp_path, "--listen", address)
    processes.start(service)
    wait_until_serving(service, address, processes)
    processes.check()
    said = []
    processes.end(said.append)
    assert said == ["Stopping query …"]
    assert service.child.returncode == 0
    assert "ready" in service.tail()


def test_one_that_dies_is_named_with_its_reason(tmp_path, processes):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        service = query(tmp_path, "--listen", address)
        processes.start(service)
        with pytest.raises(Died, match="The query process has ended with code 1") as caught:
            wait_until_serving(service, address, processes)
    assert f"Cannot listen on {address}: another process has that port" in str(caught.value)


def test_one_that_is_killed_is_named_with_the_signal(tmp_path, processes):
    service = query(tmp_path, "--listen", "127.0.0.1:0")
    processes.start(service)
    service.child.kill()
    service.child.wait(30)
    with pytest.raises(Died, match="by SIGKILL"):
        processes.check()


def test_a_child_ends_with_its_parent(tmp_path):
    script = f"""
import os, sys, time
from pathlib import Path
from services.cli.processes import Process
arguments = ("--listen", "127.0.0.1:0", "--data", {str(tmp_path)!r})
p = Process("query", arguments, Path({str(tmp_path / "log")!r}))
p.start()
print(p.pid, flush=True)
while "ready" not in p.tail():
    time.sleep(0.05)
print("ready", flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_nobody_started_does_not_care(monkeypatch):
    monkeypatch.delenv("RECORDER_PARENT", raising=False)
    end_with_parent()


def test_a_taken_port_gives_a_free_one():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        found = free_address(taken)
        assert found != taken
        assert found.startswith("127.0.0.1:")
    assert free_address(found) == found


def test_without_the_capability_it_is_named_with_what_to_do(tmp_path):
    import os

    if os.geteuid() == 0:
        # The same question from a process that has given the capability up.
        command = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]
        script = "from services.cli.processes import capture_obstacle; print(capture_obstacle())"
        said = subprocess.run(
            [*command, sys.executable, "-c", script], capture_output=True, text=True, check=True
        ).stdout
    else:
        said = capture_obstacle()
    assert "CAP_NET_RAW" in said
    assert "setcap cap_net_raw+ep" in said


def test_readiness_comes_from_the_process_itself(tmp_path, processes):
    service = query(tmp_path, "--listen", "127.0.0.1:0")
    processes.start(service)
    wait_until_ready(service, processes)
    assert "ready" in service.tail()
