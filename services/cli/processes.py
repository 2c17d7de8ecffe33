"""The services as processes of their own: started, watched, and ended in order. `up` uses it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.terminal import FAILED, CommandError
from services.runtime.channel import open_channel
from services.runtime.process import end_with

PARENT = "RECORDER_PARENT"
"""Variable that tells a child the pid of the process that started it."""

GRACE_SECONDS = 10
"""Time for each service to drain; on one machine there is little to send."""

LAST_WORD_SECONDS = 5
"""Beyond the grace, for a process to end after it drained; then it is killed."""

HEALTH_SECONDS = 60.0
"""Longest time until a service serves: a cold start compiles and migrates."""

ONE_CHECK_SECONDS = 1.0

READY_SECONDS = 900.0
"""Longest time until capture is ready: on a new machine it compiles its kernels first."""

READY_LOOK_SECONDS = 0.05

SHOWN_LINES = 15
"""Last lines of a failed service's log that are shown."""

SHOWN_OCTETS = 16384


class Died(CommandError):  # noqa: N818 - it says what happened
    """A service has ended that should be running."""


@dataclass(slots=True)
class Process:
    """One service as a child of this process; its output goes to a file."""

    name: str
    arguments: Sequence[str]
    log: Path
    may_end: bool = False
    """It may end by itself with code 0, as a replay does."""
    child: subprocess.Popen[bytes] | None = None
    _ready: socket.socket | None = None

    def start(self) -> None:
        """Start it; it is told to end when this process dies."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        # -P: what lies in the current folder is not imported.
        command = [sys.executable, "-P", "-m", "services.cli.main", self.name, *self.arguments]
        # It says READY=1 there, as to systemd. The kernel chooses the name, in no folder.
        self._ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ready.bind("")
        self._ready.setblocking(False)
        name = self._ready.getsockname().decode().replace("\0", "@", 1)
        with self.log.open("wb") as log:
            self.child = subprocess.Popen(
                [*command, "--grace-seconds", str(GRACE_SECONDS)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, PARENT: str(os.getpid()), "NOTIFY_SOCKET": name},
                # Ctrl-C is for the one who ends them in order, not for all at once.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id; 0 before it was started."""
        return self.child.pid if self.child else 0

    def check(self) -> None:
        """Raise Died, with the end of its log, when it has ended and should not have."""
        code = self.child.poll() if self.child else None
        if code is None or (code == 0 and self.may_end):
            return
        how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        raise Died(f"The {self.name} process has ended {how}. Its last lines:\n{self.tail()}")

    def says_ready(self) -> bool:
        """Tell whether it has said that it is ready, since this was asked last."""
        try:
            return self._ready is not None and b"READY=1" in self._ready.recv(4096)
        except BlockingIOError:
            return False

    def tail(self) -> str:
        """Return the last lines of its log."""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - SHOWN_OCTETS))
                lines = file.read().decode("utf-8", "replace").splitlines()[-SHOWN_LINES:]
        except OSError as error:
            return f"  (no log: {error.strerror})"
        return "\n".join(f"  {line}" for line in lines) or "  (it said nothing)"

    def end(self) -> None:
        """Ask it to drain and end; kill it when it does not."""
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        if self.child is None or self.child.poll() is not None:
            return
        self.child.terminate()
        try:
            self.child.wait(GRACE_SECONDS + LAST_WORD_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self.child is not None and self.child.poll() is None:
            self.child.kill()
            self.child.wait()


@dataclass(slots=True)
class Processes:
    """Services that run together; they end in the opposite order of their start."""

    running: list[Process] = field(default_factory=list)

    def start(self, process: Process) -> None:
        """Start one more."""
        self.running.append(process)
        process.start()

    def check(self) -> None:
        """Raise Died when one has ended."""
        for process in self.running:
            process.check()

    def end(self, say: Callable[[str], None]) -> None:
        """End all in order: who sends before who receives. A second Ctrl-C kills what is left."""
        try:
            while self.running:
                process = self.running[-1]
                if process.child is not None and process.child.poll() is None:
                    say(f"Stopping {process.name} …")
                process.end()
                self.running.pop()
        except BaseException:
            for process in self.running:
                process.kill()
            raise


def wait_until_serving(process: Process, address: str, others: Processes) -> None:
    """Wait until a service is healthy. Raises CommandError when it does not come to that."""
    deadline = time.monotonic() + HEALTH_SECONDS
    with open_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        is_ready = False
        while time.monotonic() < deadline:
            others.check()
            # What answers before our own process is ready is someone else's.
            is_ready = is_ready or process.says_ready()
            if not is_ready:
                time.sleep(READY_LOOK_SECONDS)
                continue
            try:
                answer = health.Check(
                    health_pb2.HealthCheckRequest(),
                    timeout=ONE_CHECK_SECONDS,
                    wait_for_ready=True,
                )
            except grpc.RpcError:
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
    raise CommandError(
        f"The {process.name} process does not serve at {address} after {HEALTH_SECONDS:.0f} s. "
        f"Its last lines:\n{process.tail()}",
        FAILED,
    )


def wait_until_ready(process: Process, others: Processes) -> None:
    """Wait until a process without a server says that it is ready, or has done its work.

    Raises CommandError when it does not come to that.
    """
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        others.check()
        if process.says_ready() or (process.child and process.child.poll() is not None):
            return
        time.sleep(READY_LOOK_SECONDS)
    raise CommandError(
        f"The {process.name} process is not ready after {READY_SECONDS:.0f} s. "
        f"Its last lines:\n{process.tail()}",
        FAILED,
    )


def end_with_parent() -> None:
    """End when the process that started this one dies; does nothing when that is not `up`."""
    parent = os.environ.pop(PARENT, "")
    if parent.isdigit():
        end_with(int(parent))


def free_address(address: str) -> str:
    """Return the address if nothing listens there, else one with a free port of the same host."""
    host, _, port = address.rpartition(":")
    for candidate in (int(port), 0):
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), candidate))
            except OSError:
                continue
            return f"{host}:{probe.getsockname()[1]}"
    return address


def capture_obstacle() -> str:
    """Return why this process may not capture, and what to do about it; "" when it may."""
    if not hasattr(socket, "AF_PACKET"):
        return "Frames come from AF_PACKET sockets, which only Linux has."
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        python = Path(sys.executable).resolve()
        return (
            "This process lacks the capability CAP_NET_RAW, without which it may not capture. "
            f"Grant it with `sudo setcap cap_net_raw+ep {python}`, run this as root, or give a "
            "container `--cap-add NET_RAW`."
        )
    except OSError as error:
        return f"This process may not open an AF_PACKET socket: {error.strerror}."
    return ""
