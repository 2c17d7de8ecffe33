"""Real processes that get real signals."""

import json
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import sys, threading, time
    from services.runtime.logging import configure
    from services.runtime.process import run_until_signal
    configure("info", "json")
    ended = threading.Event()
    def start():
        print("started", flush=True)
        {start}
    def drain():
        print("draining", flush=True)
        {drain}
        print("drained", flush=True)
    sys.exit(run_until_signal(start, drain, grace_seconds={grace}, ended=ended))
"""


def launch(start="pass", drain="pass", grace=20):
    script = textwrap.dedent(SCRIPT).format(start=start, drain=drain, grace=grace)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_once(number):
    process = launch()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "draining\ndrained\n")
    line = json.loads(err.splitlines()[0])
    assert line["reason"] == number.name
    assert line["event"] == "draining"
    assert line["level"] == "info"


@pytest.mark.parametrize("abstract", [True, False])
def test_who_started_it_is_told_as_by_systemd(tmp_path, monkeypatch, abstract):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind("" if abstract else str(tmp_path / "notify"))
        told.settimeout(30)
        name = told.getsockname().decode().replace("\0", "@", 1) if abstract else told.getsockname()
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        process = launch()
        assert told.recv(100) == b"READY=1"
        process.send_signal(signal.SIGTERM)
        assert told.recv(100) == b"STOPPING=1"
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_second_signal_ends_at_once():
    process = launch(drain="time.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "draining\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + signal.SIGINT, "")


def test_what_does_not_drain_in_time_is_said():
    process = launch(drain="time.sleep(60)", grace=0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "draining\n")
    assert "did not drain in time" in err


def test_the_end_of_the_work_ends_the_process():
    process = launch(start="ended.set()")
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "draining\ndrained\n")


def test_a_failure_to_drain_is_not_hidden():
    process = launch(start="ended.set()", drain="raise OSError('disk is full')")
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "disk is full" in err
