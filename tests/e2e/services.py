"""The recorder's own processes, as children of the test: each as a container would run it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.network import end, inside, wait_until

RECORDER = (sys.executable, "-m", "services.cli.main")

START_SECONDS = 300.0
"""On a new machine the kernels are compiled first."""

ANSWER_SECONDS = 60.0
"""Until something that was recorded can be asked for. What is promised is 2 s, on an idle one."""

ROOT = Path(__file__).parents[2]

_ports = itertools.count(20000)


class Ran:
    """What a command of the command line wrote, and its exit code."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.octets = done.stdout
        self.out = done.stdout.decode()
        self.said = done.stderr.decode()

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out[-3000:]}\n{self.said[-3000:]}"

    @property
    def lines(self) -> list[dict[str, Any]]:
        """stdout as one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Service:
    """One process: scheduler, query or capture."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log.open("ab")
        self.log = log
        self._begin = log.stat().st_size
        self.child = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=self._log, stderr=self._log
        )

    @property
    def text(self) -> str:
        """What it has logged since it was started."""
        return self.log.read_bytes()[self._begin :].decode()

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait until it logs a text. Fails when it has ended before."""

        def logged() -> bool:
            there = text in self.text
            assert there or self.child.poll() is None, f"it ended: {self.text}"
            return there

        wait_until(logged, seconds, lambda: f"{text!r} in {self.text[-2000:]}")

    def stop(self, seconds: float = 60) -> int:
        """End it by SIGTERM; return its exit code."""
        self.child.send_signal(signal.SIGTERM)
        code = self.child.wait(seconds)
        self.close()
        return code

    def kill(self) -> None:
        """End it by SIGKILL, as the kernel does when memory is short."""
        self.child.kill()
        self.child.wait()
        self.close()

    def close(self) -> None:
        """End it in any case."""
        end(self.child)
        self._log.close()


class Recorder:
    """Scheduler, query and agents over one data folder, in one network namespace or in ours."""

    def __init__(self, folder: Path, namespace: str | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._inside = inside(namespace) if namespace else []
        # In the namespace nobody else takes ports, but a connection of its own may have a high one.
        ports = [next(_ports), next(_ports)] if namespace else free_ports(2)
        self.scheduler_address, self.query_address = (f"127.0.0.1:{port}" for port in ports)
        self._services: list[Service] = []
        self.scheduler: Service
        self.query: Service
        self.agent: Service

    def start_scheduler(self, *more: str) -> Service:
        arguments = ("--listen", self.scheduler_address, "--data", str(self.data), *more)
        self.scheduler = self.start("scheduler", *arguments)
        self.scheduler.wait_for("scheduler serves")
        return self.scheduler

    def start_query(self, *more: str) -> Service:
        arguments = ("--listen", self.query_address, "--data", str(self.data))
        whose = ("--scheduler", self.scheduler_address)
        self.query = self.start("query", *arguments, *whose, *more)
        self.query.wait_for("query service is ready")
        return self.query

    def start_agent(self, interface: str, node: str = "node-1") -> Service:
        """Start an agent, and wait until it captures and knows its scheduler."""
        self.agent = self.start(
            "capture", "--scheduler", self.scheduler_address, "--interface", interface,
            "--node", node,
        )  # fmt: skip
        self.agent.wait_for("capture agent runs")
        self.agent.wait_for("connected to the scheduler")
        return self.agent

    def start(self, name: str, *arguments: str) -> Service:
        command = [*self._inside, *RECORDER, name, "--log-format", "json", *arguments]
        service = Service(command, self.folder / f"{name}.log")
        self._services.append(service)
        return service

    def close(self) -> None:
        """End all processes; agents first, since they wait for a scheduler that is away."""
        for service in sorted(self._services, key=lambda service: service.log.stem != "capture"):
            service.close()

    # ---- the command line

    def command(self, *arguments: str) -> list[str]:
        return [*self._inside, *RECORDER, *arguments]

    def run(self, *arguments: str, stdin: bytes = b"") -> Ran:
        """Run a command of the command line, whatever comes of it."""
        return Ran(
            subprocess.run(
                self.command(*arguments),
                cwd=ROOT,
                env=environment(self),
                input=stdin,
                capture_output=True,
                timeout=START_SECONDS,
                check=False,
            )
        )

    def say(self, *arguments: str) -> Ran:
        """Run a command that is to succeed."""
        ran = self.run(*arguments)
        assert ran.code == 0, ran
        assert "Traceback" not in ran.said, ran
        return ran

    def ask(self, kfl: str, *more: str) -> list[dict[str, Any]]:
        """Return the entries that match."""
        return self.say("ask", kfl, "--output", "json", *more).lines

    def wait_for(self, kfl: str, count: int) -> list[dict[str, Any]]:
        """Ask until there are at least so many entries; return them."""
        found: list[dict[str, Any]] = []

        def enough() -> bool:
            found[:] = self.ask(kfl)
            return len(found) >= count

        wait_until(enough, ANSWER_SECONDS, lambda: f"{count} entries for {kfl}, not {len(found)}")
        return found

    def job(self, name: str) -> dict[str, Any]:
        """Return a job as JSON."""
        return dict(json.loads(self.say("jobs", "get", name, "--output", "json").out))

    def record(self, name: str, kfl: str, *more: str) -> None:
        """Create a job and wait until every agent that runs records it."""
        agents = [s for s in self._services if s.child.poll() is None and s.log.stem == "capture"]
        self.say("jobs", "create", name, "--kfl", kfl, *more)
        for agent in agents:
            wait_until(
                lambda agent=agent: any(
                    '"run started"' in line and f'"job": "{name}"' in line
                    for line in agent.text.splitlines()
                ),
                ANSWER_SECONDS,
                f"an agent records {name}",
            )

    def stop_job(self, name: str) -> dict[str, Any]:
        """Stop a job, and wait until its run has ended; return it."""
        self.say("jobs", "stop", name)
        found: dict[str, Any] = {}

        def ended() -> bool:
            found.update(self.job(name))
            return all(run["state"] != "recording" for run in found["runs"])

        wait_until(ended, ANSWER_SECONDS, f"the end of {name}")
        return found


def environment(recorder: Recorder | None = None) -> dict[str, str]:
    """Return the environment of a child: no setting of the recorder but those given."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("RECORDER_")}
    if recorder is not None:
        found["RECORDER_SCHEDULER"] = recorder.scheduler_address
        found["RECORDER_QUERY"] = recorder.query_address
    return found


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody has now."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def path_of(entry: dict[str, Any]) -> str:
    """Return the path of an HTTP entry."""
    return str(entry["request"]["path"])


def paths(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Return the paths of HTTP entries, sorted."""
    return sorted(map(path_of, entries))
